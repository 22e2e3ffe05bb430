#include "runtime/rpc/frame.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "runtime/rpc/rpc.h"

/* ---- messages ----------------------------------------------------------------------------------
 */

#define LIST_FIELD 15 /* FromWorkers.frames, ToWorkers.frames */

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

size_t frame_head(size_t n, uint8_t out[FRAME_HEAD_BYTES_MAX])
{
    size_t len = 0;
    out[len++] = LIST_FIELD << 3 | WIRE_BYTES;
    while (n >= 0x80 && len < FRAME_HEAD_BYTES_MAX - 1) {
        out[len++] = (uint8_t)(n | 0x80);
        n >>= 7;
    }
    out[len++] = (uint8_t)n;
    return len;
}

static bool read_varint(struct frame_list *l, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64 && l->at < l->n; shift += 7) {
        uint8_t byte = l->data[l->at++];
        *v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return true;
    }
    return false;
}

/* One field: its number, and the bytes behind its tag (and its length). */
static bool read_field(struct frame_list *l, uint64_t *field, unsigned *wire, size_t *start)
{
    uint64_t tag, n;
    if (!read_varint(l, &tag))
        return false;
    *field = tag >> 3;
    *wire = tag & 7;
    *start = l->at;
    if (*wire == WIRE_VARINT)
        return read_varint(l, &n);
    if (*wire == WIRE_BYTES) {
        if (!read_varint(l, &n))
            return false;
        *start = l->at;
    } else if (*wire == WIRE_64 || *wire == WIRE_32) {
        n = *wire == WIRE_64 ? 8 : 4;
    } else {
        return false;
    }
    if (n > l->n - l->at)
        return false;
    l->at += n;
    return true;
}

int frame_next(struct frame_list *l, const uint8_t **frame, size_t *n, struct err *e)
{
    uint64_t field;
    unsigned wire;
    size_t start;
    while (l->at < l->n) {
        if (!read_field(l, &field, &wire, &start))
            return err_set(e, ERR_FORMAT, "%zu bytes are not a list of frames", l->n);
        if (field != LIST_FIELD || wire != WIRE_BYTES)
            continue; /* of a later version */
        if (++l->frames > FRAME_LIST_MAX)
            return err_set(e, ERR_RANGE, "a message of more than %d frames", FRAME_LIST_MAX);
        *frame = l->data + start;
        *n = l->at - start;
        return 1;
    }
    return l->frames ? 0 : err_set(e, ERR_RANGE, "a message without frames, as of protocol 3");
}

/* ---- the bounded allocator ---------------------------------------------------------------------
 */

size_t frame_budget(size_t n)
{
    const size_t most = (size_t)32 << 20;
    size_t want = n < most / 32 ? 32 * n + 65536 : most;
    return want < most ? want : most;
}

/* What most frames become: a step of one-token deltas twentyfold. */
static size_t usual_bytes(size_t n)
{
    return n < 4096 ? 20 * n + 128 : 81920;
}

static void *take_bytes(void *memory, size_t size)
{
    return arena_alloc(memory, size);
}

/* What is freed in between is not given back: a peer pays for the work, too. */
static void keep_bytes(void *memory, void *p)
{
    (void)memory;
    (void)p;
}

/* ---- checks that every frame shares ------------------------------------------------------------
 */

static int check_count(const char *what, size_t n, size_t max, struct err *e)
{
    if (n > max)
        return err_set(e, ERR_RANGE, "%s has %zu elements, at most %zu are allowed", what, n, max);
    return 0;
}

static int check_text(const char *what, const char *s, size_t max, struct err *e)
{
    size_t n = strlen(s);
    if (n > max)
        return err_set(e, ERR_RANGE, "%s has %zu bytes, at most %zu are allowed", what, n, max);
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t codepoint;
        utf8proc_ssize_t step = utf8proc_iterate((const utf8proc_uint8_t *)s + i,
                                                 (utf8proc_ssize_t)(n - i), &codepoint);
        if (step <= 0)
            return err_set(e, ERR_RANGE, "%s is not UTF-8 at byte %zu", what, i);
        i += (size_t)step;
    }
    return 0;
}

static int check_name(const char *what, const char *s, struct err *e)
{
    return check_text(what, s, FRAME_NAME_BYTES_MAX, e);
}

static int check_finite(const char *what, double v, struct err *e)
{
    return isfinite(v) ? 0 : err_set(e, ERR_RANGE, "%s is not a finite number", what);
}

static int check_floats(const char *what, const float *v, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return err_set(e, ERR_RANGE, "%s[%zu] is not a finite number", what, i);
    return 0;
}

/* ---- from a worker -----------------------------------------------------------------------------
 */

static int check_labels(const Argosy__Hello *h, struct err *e)
{
    int rc = check_count("hello.labels", h->n_labels, FRAME_LABELS_MAX, e);
    for (size_t i = 0; rc == 0 && i < h->n_labels; i++) {
        rc = check_name("hello.labels key", h->labels[i]->key, e);
        if (rc == 0)
            rc = check_name("hello.labels value", h->labels[i]->value, e);
    }
    return rc;
}

static int check_adapters(const Argosy__ModelOffer *o, struct err *e)
{
    int rc = check_count("hello.models.adapters", o->n_adapters, FRAME_ADAPTERS_MAX, e);
    for (size_t i = 0; rc == 0 && i < o->n_adapters; i++) {
        rc = check_name("hello.models.adapters.name", o->adapters[i]->name, e);
        if (rc == 0)
            rc = check_name("hello.models.adapters.sha256", o->adapters[i]->sha256, e);
    }
    return rc;
}

static int check_model_state(const char *what, Argosy__ModelState s, struct err *e)
{
    return s >= 0 && s <= ARGOSY__MODEL_STATE__MODEL_GONE
               ? 0
               : err_set(e, ERR_RANGE, "%s %d is not known", what, (int)s);
}

static int check_offer(const Argosy__ModelOffer *o, struct err *e)
{
    int rc = check_name("hello.models.name", o->name, e);
    if (rc == 0)
        rc = check_name("hello.models.manifest_sha256", o->manifest_sha256, e);
    if (rc == 0)
        rc = check_adapters(o, e);
    return rc == 0 ? check_model_state("hello.models.state", o->state, e) : rc;
}

static int check_load(const Argosy__Load *l, struct err *e)
{
    int rc = check_count("load.models", l->n_models, FRAME_MODELS_MAX, e);
    for (size_t i = 0; rc == 0 && i < l->n_models; i++)
        rc = check_model_state("load.models.state", l->models[i]->state, e);
    return rc;
}

static int check_hello(const Argosy__Hello *h, struct err *e)
{
    int rc = check_name("hello.worker_id", h->worker_id, e);
    if (rc == 0 && !h->worker_id[0])
        rc = err_set(e, ERR_RANGE, "hello.worker_id is empty");
    if (rc == 0)
        rc = check_name("hello.software", h->software, e);
    if (rc == 0 && h->device) {
        rc = check_name("hello.device.kind", h->device->kind, e);
        if (rc == 0)
            rc = check_name("hello.device.name", h->device->name, e);
    }
    if (rc == 0)
        rc = check_count("hello.models", h->n_models, FRAME_MODELS_MAX, e);
    for (size_t i = 0; rc == 0 && i < h->n_models; i++)
        rc = check_offer(h->models[i], e);
    if (rc == 0)
        rc = check_labels(h, e);
    if (rc == 0)
        rc = check_finite("hello.price", h->price, e);
    if (rc == 0 && h->price < 0)
        rc = err_set(e, ERR_RANGE, "hello.price is negative");
    return rc;
}

static int check_logprobs(const Argosy__Delta *d, struct err *e)
{
    if (d->n_logprobs && d->n_logprobs != d->n_tokens)
        return err_set(e, ERR_RANGE, "delta has %zu tokens and %zu logprobs", d->n_tokens,
                       d->n_logprobs);
    for (size_t i = 0; i < d->n_logprobs; i++) {
        const Argosy__TokenLogprobs *t = d->logprobs[i];
        if (t->n_top_ids != t->n_top_logprobs)
            return err_set(e, ERR_RANGE, "logprobs have %zu top_ids and %zu top_logprobs",
                           t->n_top_ids, t->n_top_logprobs);
        int rc = check_count("logprobs.top_ids", t->n_top_ids, FRAME_TOP_LOGPROBS_MAX, e);
        if (rc == 0)
            rc = check_floats("logprobs.logprob", &t->logprob, 1, e);
        if (rc == 0)
            rc = check_floats("logprobs.top_logprobs", t->top_logprobs, t->n_top_logprobs, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_step(const Argosy__Step *s, struct err *e)
{
    int rc = check_count("step.deltas", s->n_deltas, FRAME_DELTAS_MAX, e);
    for (size_t i = 0; rc == 0 && i < s->n_deltas; i++) {
        const Argosy__Delta *d = s->deltas[i];
        rc = check_count("delta.tokens", d->n_tokens, FRAME_DELTA_TOKENS_MAX, e);
        if (rc == 0 && d->index > FRAME_TOKENS_MAX)
            rc = err_set(e, ERR_RANGE, "delta.index %u is over %u", d->index, FRAME_TOKENS_MAX);
        if (rc == 0 && (d->finish < 0 || d->finish > ARGOSY__FINISH__FINISH_ERROR))
            rc = err_set(e, ERR_RANGE, "delta.finish %d is not known", (int)d->finish);
        if (rc == 0)
            rc = check_text("delta.error", d->error, FRAME_TEXT_BYTES_MAX, e);
        if (rc == 0)
            rc = check_logprobs(d, e);
        if (rc == 0)
            rc = check_count("delta.embedding", d->n_embedding, FRAME_EMBEDDING_MAX, e);
        if (rc == 0)
            rc = check_floats("delta.embedding", d->embedding, d->n_embedding, e);
    }
    return rc;
}

static int check_cache_events(const Argosy__CacheEvents *c, struct err *e)
{
    int rc = check_count("cache_events.stored", c->n_stored, FRAME_BLOCKS_MAX, e);
    return rc == 0 ? check_count("cache_events.evicted", c->n_evicted, FRAME_BLOCKS_MAX, e) : rc;
}

static int check_from_worker(const Argosy__FromWorker *f, struct err *e)
{
    switch (f->frame_case) {
    case ARGOSY__FROM_WORKER__FRAME_HELLO:
        return check_hello(f->hello, e);
    case ARGOSY__FROM_WORKER__FRAME_LOAD:
        return check_load(f->load, e);
    case ARGOSY__FROM_WORKER__FRAME_STEP:
        return check_step(f->step, e);
    case ARGOSY__FROM_WORKER__FRAME_CACHE_EVENTS:
        return check_cache_events(f->cache_events, e);
    case ARGOSY__FROM_WORKER__FRAME_REFUSED:
        return check_text("refused.detail", f->refused->detail, FRAME_TEXT_BYTES_MAX, e);
    default: /* numbers alone, and lists that the frame's own size bounds */
        return 0;
    }
}

/* ---- to a worker -------------------------------------------------------------------------------
 */

static int check_sampling(const Argosy__Sampling *s, struct err *e)
{
    const float v[] = {
        s->temperature,       s->top_p, s->min_p, s->presence_penalty, s->frequency_penalty,
        s->repetition_penalty};
    int rc = check_floats("start.sampling", v, sizeof(v) / sizeof(v[0]), e);
    if (rc == 0)
        rc = check_count("start.sampling.bias_ids", s->n_bias_ids, FRAME_BIAS_MAX, e);
    if (rc == 0 && s->n_bias_ids != s->n_bias_values)
        rc = err_set(e, ERR_RANGE, "start.sampling has %zu bias_ids and %zu bias_values",
                     s->n_bias_ids, s->n_bias_values);
    if (rc == 0)
        rc = check_floats("start.sampling.bias_values", s->bias_values, s->n_bias_values, e);
    return rc;
}

static int check_grammar(const Argosy__Grammar *g, struct err *e)
{
    if (g->kind < 0 || g->kind > ARGOSY__GRAMMAR_KIND__GRAMMAR_GBNF)
        return err_set(e, ERR_RANGE, "start.grammar.kind %d is not known", (int)g->kind);
    if (g->space < 0 || g->space > ARGOSY__GRAMMAR_SPACE__GRAMMAR_SPACE_ANY)
        return err_set(e, ERR_RANGE, "start.grammar.space %d is not known", (int)g->space);
    return check_text("start.grammar.text", g->text, FRAME_GRAMMAR_BYTES_MAX, e);
}

static int check_start(const Argosy__Start *s, struct err *e)
{
    if (!s->sampling)
        return err_set(e, ERR_RANGE, "start.sampling is missing");
    int rc = check_name("start.model", s->model, e);
    if (rc == 0)
        rc = check_count("start.prompt", s->n_prompt, FRAME_TOKENS_MAX, e);
    if (rc == 0)
        rc = check_count("start.output", s->n_output, FRAME_TOKENS_MAX, e);
    if (rc == 0)
        rc = check_sampling(s->sampling, e);
    if (rc == 0)
        rc = check_count("start.stop", s->n_stop, FRAME_STOPS_MAX, e);
    for (size_t i = 0; rc == 0 && i < s->n_stop; i++)
        rc = check_text("start.stop", s->stop[i], FRAME_STOP_BYTES_MAX, e);
    if (rc == 0)
        rc = check_count("start.stop_ids", s->n_stop_ids, FRAME_STOP_IDS_MAX, e);
    if (rc == 0 && s->top_logprobs > FRAME_TOP_LOGPROBS_MAX)
        rc = err_set(e, ERR_RANGE, "start.top_logprobs %u is over %d", s->top_logprobs,
                     FRAME_TOP_LOGPROBS_MAX);
    if (rc == 0 && s->max_tokens > FRAME_TOKENS_MAX)
        rc = err_set(e, ERR_RANGE, "start.max_tokens %u is over %u", s->max_tokens,
                     FRAME_TOKENS_MAX);
    if (rc == 0 && s->cache_salt.len > FRAME_SALT_BYTES_MAX)
        rc = err_set(e, ERR_RANGE, "start.cache_salt has %zu bytes, at most %d are allowed",
                     s->cache_salt.len, FRAME_SALT_BYTES_MAX);
    if (rc == 0)
        rc = check_name("start.traceparent", s->traceparent, e);
    if (rc == 0 && s->grammar)
        rc = check_grammar(s->grammar, e);
    if (rc == 0)
        rc = check_name("start.adapter", s->adapter, e);
    return rc;
}

static int check_welcome(const Argosy__Welcome *w, struct err *e)
{
    int rc = check_count("welcome.routers", w->n_routers, FRAME_ROUTERS_MAX, e);
    for (size_t i = 0; rc == 0 && i < w->n_routers; i++)
        rc = check_name("welcome.routers", w->routers[i], e);
    if (rc == 0)
        rc = check_text("welcome.refused", w->refused, FRAME_TEXT_BYTES_MAX, e);
    return rc;
}

static int check_to_worker(const Argosy__ToWorker *f, struct err *e)
{
    switch (f->frame_case) {
    case ARGOSY__TO_WORKER__FRAME_WELCOME:
        return check_welcome(f->welcome, e);
    case ARGOSY__TO_WORKER__FRAME_START:
        return check_start(f->start, e);
    case ARGOSY__TO_WORKER__FRAME_DRAIN:
        return check_text("drain.why", f->drain->why, FRAME_TEXT_BYTES_MAX, e);
    default:
        return 0;
    }
}

/* ---- both --------------------------------------------------------------------------------------
 */

/* NULL: *rc says why. */
static ProtobufCMessage *unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data,
                                size_t n, struct arena *memory, int *rc, struct err *e)
{
    arena_init(memory, frame_budget(n));
    if (n > RPC_FRAME_BYTES_MAX) {
        *rc = err_set(e, ERR_RANGE, "a frame of %zu bytes is over the limit of %u", n,
                      RPC_FRAME_BYTES_MAX);
        return NULL;
    }
    arena_reserve(memory, usual_bytes(n));
    ProtobufCAllocator allocator = {take_bytes, keep_bytes, memory};
    ProtobufCMessage *m = protobuf_c_message_unpack(type, &allocator, n, data);
    if (!m)
        *rc = err_set(e, ERR_FORMAT, "%zu bytes are not a %s frame%s", n, type->short_name,
                      memory->used_bytes > memory->max_bytes / 2 ? ", or expand too much" : "");
    return m;
}

static int unset(const ProtobufCMessage *m, struct err *e)
{
    return m->n_unknown_fields ? 0 : err_set(e, ERR_RANGE, "an empty frame");
}

int frame_unpack_from_worker(const uint8_t *data, size_t n, struct arena *memory,
                             Argosy__FromWorker **out, struct err *e)
{
    int rc = 0;
    *out = NULL;
    ProtobufCMessage *m = unpack(&argosy__from_worker__descriptor, data, n, memory, &rc, e);
    if (!m)
        return rc;
    Argosy__FromWorker *f = (Argosy__FromWorker *)m;
    bool known = f->frame_case != ARGOSY__FROM_WORKER__FRAME__NOT_SET;
    rc = known ? check_from_worker(f, e) : unset(m, e);
    if (rc == 0 && known)
        *out = f;
    return rc;
}

int frame_unpack_to_worker(const uint8_t *data, size_t n, struct arena *memory,
                           Argosy__ToWorker **out, struct err *e)
{
    int rc = 0;
    *out = NULL;
    ProtobufCMessage *m = unpack(&argosy__to_worker__descriptor, data, n, memory, &rc, e);
    if (!m)
        return rc;
    Argosy__ToWorker *f = (Argosy__ToWorker *)m;
    bool known = f->frame_case != ARGOSY__TO_WORKER__FRAME__NOT_SET;
    rc = known ? check_to_worker(f, e) : unset(m, e);
    if (rc == 0 && known)
        *out = f;
    return rc;
}
