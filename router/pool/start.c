/* start.c: what is sent to a worker about a generation, within the limits of the wire. */
#include <math.h>
#include <string.h>

#include "router/pool/pool_internal.h"
#include "runtime/base/check.h"
#include "runtime/grammar/grammar.h"
#include "runtime/rpc/frame.h"

static int check_sampling(const struct gen_sampling *s, struct err *e)
{
    if (s->n_bias > FRAME_BIAS_MAX)
        return err_set(e, ERR_RANGE, "more than %d logit biases", FRAME_BIAS_MAX);
    for (uint32_t i = 0; i < s->n_bias; i++)
        if (!isfinite(s->bias_values[i]))
            return err_set(e, ERR_RANGE, "a logit bias is not a finite number");
    if (!isfinite(s->temperature) || !isfinite(s->top_p) || !isfinite(s->min_p) ||
        !isfinite(s->presence_penalty) || !isfinite(s->frequency_penalty) ||
        !isfinite(s->repetition_penalty))
        return err_set(e, ERR_RANGE, "a sampling parameter is not a finite number");
    return 0;
}

/* A worker closes its stream over a frame that breaks these, so no request may get that far. */
int start_check(const struct gen_request *r, struct err *e)
{
    ASSERT(r->max_tokens > 0);
    if (r->n_prompt > FRAME_TOKENS_MAX || r->max_tokens > FRAME_TOKENS_MAX)
        return err_set(e, ERR_RANGE, "more than %u tokens", FRAME_TOKENS_MAX);
    if (r->n_stop > FRAME_STOPS_MAX)
        return err_set(e, ERR_RANGE, "more than %d stop strings", FRAME_STOPS_MAX);
    for (uint32_t i = 0; i < r->n_stop; i++)
        if (strlen(r->stop[i]) > FRAME_STOP_BYTES_MAX)
            return err_set(e, ERR_RANGE, "a stop string of more than %d bytes",
                           FRAME_STOP_BYTES_MAX);
    if (r->n_stop_ids > FRAME_STOP_IDS_MAX)
        return err_set(e, ERR_RANGE, "more than %d stop ids", FRAME_STOP_IDS_MAX);
    if (r->top_logprobs > FRAME_TOP_LOGPROBS_MAX)
        return err_set(e, ERR_RANGE, "more than %d top logprobs", FRAME_TOP_LOGPROBS_MAX);
    if (r->grammar && r->grammar->n > FRAME_GRAMMAR_BYTES_MAX)
        return err_set(e, ERR_RANGE, "a grammar of more than %u bytes", FRAME_GRAMMAR_BYTES_MAX);
    return check_sampling(&r->sampling, e);
}

static void fill_sampling(const struct gen_sampling *s, Argosy__Sampling *out)
{
    argosy__sampling__init(out);
    out->temperature = s->temperature;
    out->top_k = s->top_k;
    out->top_p = s->top_p;
    out->min_p = s->min_p;
    out->seed = s->seed;
    out->presence_penalty = s->presence_penalty;
    out->frequency_penalty = s->frequency_penalty;
    out->repetition_penalty = s->repetition_penalty;
    out->n_bias_ids = out->n_bias_values = s->n_bias;
    out->bias_ids = (uint32_t *)s->bias_ids;
    out->bias_values = (float *)s->bias_values;
}

static Argosy__Pooling pooling_of(enum gen_pooling p)
{
    static const Argosy__Pooling of[] = {
        [GEN_TOKENS] = ARGOSY__POOLING__POOLING_NONE,
        [GEN_MEAN] = ARGOSY__POOLING__POOLING_MEAN,
        [GEN_LAST] = ARGOSY__POOLING__POOLING_LAST,
    };
    return of[p];
}

static void fill_grammar(const struct grammar_source *g, Argosy__Grammar *out)
{
    static const Argosy__GrammarKind kinds[] = {
        [GRAMMAR_JSON_SCHEMA] = ARGOSY__GRAMMAR_KIND__GRAMMAR_JSON_SCHEMA,
        [GRAMMAR_JSON_OBJECT] = ARGOSY__GRAMMAR_KIND__GRAMMAR_JSON_OBJECT,
        [GRAMMAR_REGEX] = ARGOSY__GRAMMAR_KIND__GRAMMAR_REGEX,
        [GRAMMAR_GBNF] = ARGOSY__GRAMMAR_KIND__GRAMMAR_GBNF};
    static const Argosy__GrammarSpace spaces[] = {
        [GRAMMAR_SPACE_NONE] = ARGOSY__GRAMMAR_SPACE__GRAMMAR_SPACE_NONE,
        [GRAMMAR_SPACE_ONE] = ARGOSY__GRAMMAR_SPACE__GRAMMAR_SPACE_ONE,
        [GRAMMAR_SPACE_ANY] = ARGOSY__GRAMMAR_SPACE__GRAMMAR_SPACE_ANY};
    argosy__grammar__init(out);
    out->kind = kinds[g->kind];
    out->space = spaces[g->space];
    if (g->n)
        out->text = (char *)g->text;
}

int start_send(struct gen *g, struct worker *w, uint64_t now_ms, struct err *e)
{
    const struct gen_request *r = g->r;
    static const uint8_t no_salt[sizeof(r->cache_salt)];
    Argosy__ToWorker frame = ARGOSY__TO_WORKER__INIT;
    Argosy__Start s = ARGOSY__START__INIT;
    Argosy__Sampling sampling;
    Argosy__Grammar grammar;
    fill_sampling(&r->sampling, &sampling);
    s.request = g->id;
    const struct pool_model *m = &g->pool->models[g->model];
    s.model = (char *)r->model;
    if (m->adapter_sha256[0]) {
        s.model = (char *)g->pool->models[m->base].name;
        s.adapter = (char *)m->adapter_sha256;
    }
    s.n_prompt = r->n_prompt;
    s.prompt = (uint32_t *)r->prompt;
    s.n_output = g->n_out;
    s.output = g->out;
    s.sampling = &sampling;
    s.max_tokens = r->max_tokens;
    s.min_tokens = r->min_tokens;
    s.n_stop = r->n_stop;
    s.stop = (char **)r->stop;
    s.n_stop_ids = r->n_stop_ids;
    s.stop_ids = (uint32_t *)r->stop_ids;
    s.ignore_eos = r->ignore_eos;
    s.logprobs = r->logprobs;
    s.top_logprobs = r->top_logprobs;
    s.deadline_ms = (uint32_t)(g->deadline_at_ms - now_ms);
    s.priority = r->priority;
    s.pooling = pooling_of(r->pooling);
    if (memcmp(r->cache_salt, no_salt, sizeof(no_salt)) != 0) {
        s.cache_salt.data = (uint8_t *)r->cache_salt;
        s.cache_salt.len = sizeof(r->cache_salt);
    }
    if (r->traceparent)
        s.traceparent = (char *)r->traceparent;
    if (r->grammar) {
        fill_grammar(r->grammar, &grammar);
        s.grammar = &grammar;
    }
    frame.frame_case = ARGOSY__TO_WORKER__FRAME_START;
    frame.start = &s;
    return worker_send(g->pool, w, &frame, e);
}

void start_cancel(struct gen *g)
{
    Argosy__ToWorker frame = ARGOSY__TO_WORKER__INIT;
    Argosy__Cancel c = ARGOSY__CANCEL__INIT;
    c.request = g->id;
    frame.frame_case = ARGOSY__TO_WORKER__FRAME_CANCEL;
    frame.cancel = &c;
    if (!g->worker->unreachable)
        worker_send(g->pool, g->worker, &frame, NULL);
}
