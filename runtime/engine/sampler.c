#include "runtime/engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

/* ---- sorted lists of ids ----------------------------------------------------------------------
 */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Where id is in v (n), or belongs. */
static uint32_t place_of(const uint32_t *v, uint32_t n, uint32_t id)
{
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (v[mid] < id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool contains(const uint32_t *v, uint32_t n, uint32_t id)
{
    uint32_t i = place_of(v, n, id);
    return i < n && v[i] == id;
}

static void insert(uint32_t *v, uint32_t n, uint32_t at, uint32_t value)
{
    memmove(&v[at + 1], &v[at], (n - at) * sizeof(*v));
    v[at] = value;
}

static uint32_t sort_unique(uint32_t *v, uint32_t n)
{
    uint32_t kept = 0;
    qsort(v, n, sizeof(*v), compare_u32);
    for (uint32_t i = 0; i < n; i++)
        if (i == 0 || v[i] != v[i - 1])
            v[kept++] = v[i];
    return kept;
}

/* ---- from the request -------------------------------------------------------------------------
 */

static int check_range(const char *name, float v, float min, float max, struct err *e)
{
    if (v >= min && v <= max)
        return 0;
    return err_set(e, ERR_RANGE, "%s is %g, wanted %g to %g", name, (double)v, (double)min,
                   (double)max);
}

static int check_params(const struct kn_sampling *p, struct err *e)
{
    int rc = check_range("temperature", p->temperature, 0, 100, e);
    if (rc == 0)
        rc = check_range("top_p", p->top_p, 0, 1, e);
    if (rc == 0)
        rc = check_range("min_p", p->min_p, 0, 1, e);
    if (rc == 0)
        rc = check_range("presence_penalty", p->presence_penalty, -100, 100, e);
    if (rc == 0)
        rc = check_range("frequency_penalty", p->frequency_penalty, -100, 100, e);
    if (rc == 0)
        rc = check_range("repetition_penalty", p->repetition_penalty, 0x1p-10f, 0x1p10f, e);
    if (rc == 0 && p->n_top > KN_TOP_LOGPROBS_MAX)
        rc = err_set(e, ERR_RANGE, "top_logprobs is %u, at most %d", p->n_top, KN_TOP_LOGPROBS_MAX);
    return rc;
}

struct bias {
    uint32_t id;
    float value;
};

static int compare_bias(const void *a, const void *b)
{
    return compare_u32(&((const struct bias *)a)->id, &((const struct bias *)b)->id);
}

static int copy_bias(struct sampler *s, const struct kn_sampling *from, struct arena *a,
                     struct err *e)
{
    uint32_t n = from->n_bias;
    if (n == 0)
        return 0;
    if (n > s->model->vocab)
        return err_set(e, ERR_LIMIT, "logit_bias has %u entries, the vocabulary %u tokens", n,
                       s->model->vocab);
    struct bias *sorted = arena_calloc(a, n, sizeof(*sorted));
    uint32_t *ids = arena_calloc(a, n, sizeof(*ids));
    float *values = arena_calloc(a, n, sizeof(*values));
    if (!sorted || !ids || !values)
        return err_set(e, ERR_NOMEM, "no memory for logit_bias");
    for (uint32_t i = 0; i < n; i++) {
        sorted[i] = (struct bias){from->bias_ids[i], from->bias_values[i]};
        if (sorted[i].id >= s->model->vocab || !isfinite(sorted[i].value))
            return err_set(e, ERR_RANGE, "logit_bias of token %u is %g, the vocabulary has %u",
                           sorted[i].id, (double)sorted[i].value, s->model->vocab);
    }
    qsort(sorted, n, sizeof(*sorted), compare_bias);
    for (uint32_t i = 0; i < n; i++) {
        if (i > 0 && sorted[i].id == sorted[i - 1].id)
            return err_set(e, ERR_RANGE, "logit_bias names token %u twice", sorted[i].id);
        ids[i] = sorted[i].id;
        values[i] = sorted[i].value;
    }
    s->params.bias_ids = ids;
    s->params.bias_values = values;
    s->params.n_bias = n;
    return 0;
}

static int take_lists(struct sampler *s, const struct engine_request *r, uint32_t output_max,
                      struct arena *a, struct err *e)
{
    struct kn_sampling *p = &s->params;
    if (p->presence_penalty != 0.0f || p->frequency_penalty != 0.0f) {
        s->seen_ids = arena_calloc(a, output_max, sizeof(*s->seen_ids));
        s->seen_counts = arena_calloc(a, output_max, sizeof(*s->seen_counts));
        if (!s->seen_ids || !s->seen_counts)
            return err_set(e, ERR_NOMEM, "no memory for the penalties");
    }
    if (p->repetition_penalty != 1.0f) {
        s->context_ids = arena_calloc(a, (size_t)r->n_prompt + output_max, sizeof(*s->context_ids));
        if (!s->context_ids)
            return err_set(e, ERR_NOMEM, "no memory for the penalties");
        memcpy(s->context_ids, r->prompt, r->n_prompt * sizeof(*s->context_ids));
        p->n_context = sort_unique(s->context_ids, r->n_prompt);
    }
    p->seen_ids = s->seen_ids;
    p->seen_counts = s->seen_counts;
    p->context_ids = s->context_ids;
    return 0;
}

static int copy_stop_ids(struct sampler *s, const struct engine_request *r, struct arena *a,
                         struct err *e)
{
    if (r->n_stop_ids == 0)
        return 0;
    if (r->n_stop_ids > SAMPLER_STOP_IDS_MAX)
        return err_set(e, ERR_LIMIT, "%u stop ids, at most %u", r->n_stop_ids,
                       SAMPLER_STOP_IDS_MAX);
    s->stop_ids = arena_memdup(a, r->stop_ids, r->n_stop_ids * sizeof(*s->stop_ids));
    if (!s->stop_ids)
        return err_set(e, ERR_NOMEM, "no memory for stop ids");
    s->n_stop_ids = sort_unique(s->stop_ids, r->n_stop_ids);
    return 0;
}

static int init_stop(struct sampler *s, const struct engine_request *r, struct err *e)
{
    static const struct stopmatch_limits limits = {SAMPLER_STOP_STRINGS_MAX,
                                                   SAMPLER_STOP_BYTES_MAX};
    size_t lens[SAMPLER_STOP_STRINGS_MAX];
    if (r->n_stop == 0)
        return 0;
    if (r->n_stop > SAMPLER_STOP_STRINGS_MAX)
        return err_set(e, ERR_LIMIT, "%u stop strings, at most %u", r->n_stop,
                       SAMPLER_STOP_STRINGS_MAX);
    for (uint32_t i = 0; i < r->n_stop; i++)
        lens[i] = strlen(r->stop[i]);
    int rc = stopmatch_init(&s->stop, r->stop, lens, r->n_stop, &limits, e);
    s->has_stop = rc == 0;
    return rc;
}

static bool is_eog(const struct sampler *s, uint32_t token)
{
    return contains(s->model->eog, s->model->n_eog, token);
}

static void mask_out(const struct sampler *s, uint32_t *mask, const uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (ids[i] < s->model->vocab)
            mask[ids[i] / 32] &= ~(UINT32_C(1) << (ids[i] % 32));
}

static int make_mask(struct sampler *s, struct arena *a, struct err *e)
{
    size_t words = ((size_t)s->model->vocab + 31) / 32;
    if (s->min_tokens == 0)
        return 0;
    s->mask = arena_calloc(a, words, sizeof(*s->mask));
    if (!s->mask)
        return err_set(e, ERR_NOMEM, "no memory for min_tokens");
    memset(s->mask, 0xff, words * sizeof(*s->mask));
    if (!s->ignore_eos)
        mask_out(s, s->mask, s->model->eog, s->model->n_eog);
    mask_out(s, s->mask, s->stop_ids, s->n_stop_ids);
    return 0;
}

static int start_grammar(struct sampler *s, const struct grammar_source *source, struct arena *a,
                         struct err *e)
{
    size_t words = ((size_t)s->model->vocab + 31) / 32;
    if (!source)
        return 0;
    int rc = grammar_store_get(s->model->grammars, source, &s->grammar, e);
    if (rc == 0)
        rc = grammar_state_create(grammar_entry_grammar(s->grammar), &s->state, e);
    if (rc == 0)
        s->allowed = arena_calloc(a, words, sizeof(*s->allowed));
    return rc < 0 || s->allowed ? rc : err_set(e, ERR_NOMEM, "no memory for the grammar");
}

int sampler_init(struct sampler *s, const struct sampler_model *m, const struct engine_request *r,
                 uint32_t output_max, struct arena *a, struct err *e)
{
    const struct kn_sampling *p = &r->sampling;
    *s = (struct sampler){.model = m, .min_tokens = r->min_tokens, .ignore_eos = r->ignore_eos};
    s->params = (struct kn_sampling){.temperature = p->temperature,
                                     .top_k = p->top_k,
                                     .top_p = p->top_p,
                                     .min_p = p->min_p,
                                     .seed = p->seed,
                                     .presence_penalty = p->presence_penalty,
                                     .frequency_penalty = p->frequency_penalty,
                                     .repetition_penalty = p->repetition_penalty,
                                     .n_top = p->n_top,
                                     .want_logprobs = p->want_logprobs};
    detok_init(&s->detok, false);
    buf_init(&s->text, 0);
    buf_init(&s->shown, 0);
    int rc = check_params(&s->params, e);
    if (rc == 0)
        rc = copy_bias(s, p, a, e);
    if (rc == 0)
        rc = take_lists(s, r, output_max, a, e);
    if (rc == 0)
        rc = copy_stop_ids(s, r, a, e);
    if (rc == 0)
        rc = init_stop(s, r, e);
    if (rc == 0)
        rc = make_mask(s, a, e);
    return rc == 0 ? start_grammar(s, r->grammar, a, e) : rc;
}

void sampler_release(struct sampler *s)
{
    if (s->has_stop)
        stopmatch_release(&s->stop);
    buf_release(&s->text);
    buf_release(&s->shown);
    grammar_state_free(s->state);
    if (s->grammar)
        grammar_store_put(s->model->grammars, s->grammar);
}

/* ---- step by step -----------------------------------------------------------------------------
 */

static bool any_bit(const struct sampler *s)
{
    size_t words = ((size_t)s->model->vocab + 31) / 32;
    for (size_t i = 0; i < words; i++)
        if (s->allowed[i])
            return true;
    return false;
}

/* Fills `allowed` with all that the grammar lets follow. True when that is anything. */
static bool ask_grammar(struct sampler *s)
{
    if (grammar_mask(s->state, s->allowed, NULL) < 0) {
        s->refusal = "the grammar is too ambiguous or too large to go on here";
        return false;
    }
    return any_bit(s);
}

static void mask_by_grammar(struct sampler *s, bool early)
{
    s->params.mask = s->allowed;
    if (s->refusal)
        return;
    bool any = ask_grammar(s);
    if (any && (early || s->ignore_eos)) {
        mask_out(s, s->allowed, s->model->eog, s->model->n_eog);
        if (early)
            mask_out(s, s->allowed, s->stop_ids, s->n_stop_ids);
        any = any_bit(s) || ask_grammar(s);
    }
    if (!any && !s->refusal)
        s->refusal = "no token of the model's vocabulary can go on here as the grammar asks";
}

const struct kn_sampling *sampler_params(struct sampler *s)
{
    bool early = s->n_output < s->min_tokens;
    if (s->grammar)
        mask_by_grammar(s, early);
    else
        s->params.mask = early ? s->mask : NULL;
    return &s->params;
}

const char *sampler_refusal(const struct sampler *s)
{
    return s->refusal;
}

static void note_seen(struct sampler *s, uint32_t token)
{
    uint32_t n = s->params.n_seen, at = place_of(s->seen_ids, n, token);
    if (at < n && s->seen_ids[at] == token) {
        s->seen_counts[at]++;
        return;
    }
    insert(s->seen_ids, n, at, token);
    insert(s->seen_counts, n, at, 1);
    s->params.n_seen++;
}

static void note_context(struct sampler *s, uint32_t token)
{
    uint32_t n = s->params.n_context, at = place_of(s->context_ids, n, token);
    if (at < n && s->context_ids[at] == token)
        return;
    insert(s->context_ids, n, at, token);
    s->params.n_context++;
}

/* Whether the text has a stop string, now that the token is in it. */
static bool completes_stop(struct sampler *s, uint32_t token)
{
    buf_clear(&s->text);
    buf_clear(&s->shown);
    detok_feed(&s->detok, s->model->tokenizer, token, &s->text);
    return stopmatch_feed(&s->stop, buf_str(&s->text), s->text.len, &s->shown);
}

static bool ends_by_id(const struct sampler *s, uint32_t token)
{
    return (!s->ignore_eos && is_eog(s, token)) || contains(s->stop_ids, s->n_stop_ids, token);
}

bool sampler_accept(struct sampler *s, uint32_t token)
{
    if (s->grammar && !s->refusal && grammar_accept(s->state, token, NULL) < 0)
        s->refusal = "the output does not follow the grammar";
    if (s->seen_ids)
        note_seen(s, token);
    if (s->context_ids)
        note_context(s, token);
    bool may_end = s->n_output++ >= s->min_tokens;
    bool stop = s->has_stop && completes_stop(s, token);
    if (stop && !may_end)
        stopmatch_clear(&s->stop);
    return (may_end && (stop || ends_by_id(s, token))) || (s->grammar && is_eog(s, token));
}
