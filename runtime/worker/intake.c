#include "runtime/worker/intake.h"

#include <string.h>

#include "runtime/base/check.h"
#include "runtime/grammar/grammar.h"
#include "runtime/rpc/frame.h"

_Static_assert(FRAME_TOP_LOGPROBS_MAX == KN_TOP_LOGPROBS_MAX, "one limit");
_Static_assert(FRAME_SALT_BYTES_MAX == sizeof(((struct engine_request *)0)->cache_salt),
               "one size");

/* Finite they are already. */
static int check_sampling(const Argosy__Sampling *s, struct err *e)
{
    if (s->temperature < 0)
        return err_set(e, ERR_RANGE, "temperature must not be negative");
    if (s->top_p < 0 || s->top_p > 1)
        return err_set(e, ERR_RANGE, "top_p must be from 0 to 1");
    if (s->min_p < 0 || s->min_p > 1)
        return err_set(e, ERR_RANGE, "min_p must be from 0 to 1");
    if (s->repetition_penalty <= 0)
        return err_set(e, ERR_RANGE, "repetition_penalty must be over 0");
    return 0;
}

static int check_pooling(const Argosy__Start *s, struct err *e)
{
    if (s->pooling != ARGOSY__POOLING__POOLING_MEAN && s->pooling != ARGOSY__POOLING__POOLING_LAST)
        return err_set(e, ERR_UNSUPPORTED, "pooling %d is not served here", (int)s->pooling);
    if (s->n_output)
        return err_set(e, ERR_RANGE, "%zu output tokens of an embedding", s->n_output);
    return 0;
}

static int check_lengths(const Argosy__Start *s, struct err *e)
{
    if (s->n_prompt == 0)
        return err_set(e, ERR_RANGE, "the prompt is empty");
    if (s->pooling != ARGOSY__POOLING__POOLING_NONE)
        return check_pooling(s, e);
    if (s->max_tokens == 0)
        return err_set(e, ERR_RANGE, "max_tokens must be at least 1");
    if (s->n_output >= s->max_tokens)
        return err_set(e, ERR_RANGE, "max_tokens is %u, and %zu tokens are out already",
                       s->max_tokens, s->n_output);
    for (size_t i = 0; i < s->n_stop; i++)
        if (!s->stop[i][0])
            return err_set(e, ERR_RANGE, "a stop string is empty");
    return 0;
}

static enum engine_pooling pooling_of(Argosy__Pooling p)
{
    switch (p) {
    case ARGOSY__POOLING__POOLING_MEAN:
        return ENGINE_POOLING_MEAN;
    case ARGOSY__POOLING__POOLING_LAST:
        return ENGINE_POOLING_LAST;
    default:
        return ENGINE_POOLING_NONE;
    }
}

static void fill_sampling(const Argosy__Start *s, struct kn_sampling *out)
{
    const Argosy__Sampling *in = s->sampling;
    *out = (struct kn_sampling){
        .temperature = in->temperature,
        .top_k = in->top_k,
        .top_p = in->top_p,
        .min_p = in->min_p,
        .seed = in->seed,
        .presence_penalty = in->presence_penalty,
        .frequency_penalty = in->frequency_penalty,
        .repetition_penalty = in->repetition_penalty,
        .bias_ids = in->bias_ids,
        .bias_values = in->bias_values,
        .n_bias = (uint32_t)in->n_bias_ids,
        .want_logprobs = s->logprobs,
        .n_top = s->logprobs ? s->top_logprobs : 0,
    };
}

static enum grammar_kind kind_of(Argosy__GrammarKind kind)
{
    switch (kind) {
    case ARGOSY__GRAMMAR_KIND__GRAMMAR_JSON_OBJECT:
        return GRAMMAR_JSON_OBJECT;
    case ARGOSY__GRAMMAR_KIND__GRAMMAR_REGEX:
        return GRAMMAR_REGEX;
    case ARGOSY__GRAMMAR_KIND__GRAMMAR_GBNF:
        return GRAMMAR_GBNF;
    default: /* frame.c lets no other through */
        return GRAMMAR_JSON_SCHEMA;
    }
}

static enum grammar_space space_of(Argosy__GrammarSpace space)
{
    switch (space) {
    case ARGOSY__GRAMMAR_SPACE__GRAMMAR_SPACE_ONE:
        return GRAMMAR_SPACE_ONE;
    case ARGOSY__GRAMMAR_SPACE__GRAMMAR_SPACE_ANY:
        return GRAMMAR_SPACE_ANY;
    default:
        return GRAMMAR_SPACE_NONE;
    }
}

int intake_request(const Argosy__Start *s, uint64_t now_ms, struct engine_request *r,
                   struct grammar_source *grammar, struct err *e)
{
    int rc = check_lengths(s, e);
    if (rc == 0)
        rc = check_sampling(s->sampling, e);
    if (rc < 0)
        return rc;
    *r = (struct engine_request){
        .prompt = s->prompt,
        .n_prompt = (uint32_t)s->n_prompt,
        .output = s->output,
        .n_output = (uint32_t)s->n_output,
        .max_tokens = s->max_tokens,
        .min_tokens = s->min_tokens,
        .ignore_eos = s->ignore_eos,
        .stop = (const char *const *)s->stop,
        .n_stop = (uint32_t)s->n_stop,
        .stop_ids = s->stop_ids,
        .n_stop_ids = (uint32_t)s->n_stop_ids,
        .deadline_ms = s->deadline_ms ? now_ms + s->deadline_ms : 0,
        .priority = s->priority,
        .pooling = pooling_of(s->pooling),
    };
    fill_sampling(s, &r->sampling);
    if (s->grammar) {
        *grammar = (struct grammar_source){kind_of(s->grammar->kind), space_of(s->grammar->space),
                                           s->grammar->text, strlen(s->grammar->text)};
        r->grammar = grammar;
    }
    if (s->cache_salt.len)
        memcpy(r->cache_salt, s->cache_salt.data, s->cache_salt.len);
    return 0;
}

bool intake_adapter(const struct engine_adapter *adapters, uint32_t n, const char *sha256,
                    uint32_t *adapter)
{
    *adapter = 0;
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(adapters[i].sha256, sha256) == 0)
            *adapter = i + 1;
    return *adapter > 0 || !sha256[0];
}

Argosy__RefusedReason intake_reason(int code)
{
    switch (code) {
    case ERR_BUSY:
    case ERR_NOMEM:
        return ARGOSY__REFUSED_REASON__REFUSED_FULL;
    case ERR_RANGE:
    case ERR_LIMIT:
    case ERR_FORMAT:
    case ERR_UNSUPPORTED:
        return ARGOSY__REFUSED_REASON__REFUSED_INVALID;
    default:
        return ARGOSY__REFUSED_REASON__REFUSED_UNKNOWN;
    }
}
