#include "router/trace/span.h"

#include <inttypes.h>
#include <stdio.h>

#include "runtime/base/hex.h"
#include "runtime/base/json.h"

#define KIND_INTERNAL 1
#define KIND_SERVER 2
#define KIND_CLIENT 3
#define STATUS_ERROR 2
/* Choices past it are not named one by one in finish_reasons. */
#define REASONS_MAX 32

struct writer {
    const struct journal *j;
    const struct span_request *r;
    struct rng *ids;
    struct buf *out;
    struct json w;
    uint32_t n;
};

/* ---- values: OTLP/JSON writes 64-bit integers as strings, and ids as hex -----------------------
 */

static void put_time(struct writer *s, const char *key, uint64_t at_ns)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRIu64, s->r->wall_ns - (s->j->end_ns - at_ns));
    json_key(&s->w, key);
    json_str(&s->w, text);
}

static void put_id(struct writer *s, const char *key, const uint8_t *id, size_t n)
{
    char text[2 * TRACE_ID_BYTES + 1];
    hex_write(id, n, text);
    json_key(&s->w, key);
    json_str(&s->w, text);
}

static void open_attribute(struct writer *s, const char *key, const char *type)
{
    json_obj(&s->w);
    json_key(&s->w, "key");
    json_str(&s->w, key);
    json_key(&s->w, "value");
    json_obj(&s->w);
    json_key(&s->w, type);
}

static void close_attribute(struct writer *s)
{
    json_obj_end(&s->w);
    json_obj_end(&s->w);
}

static void put_str(struct writer *s, const char *key, const char *value)
{
    open_attribute(s, key, "stringValue");
    json_str(&s->w, value);
    close_attribute(s);
}

static void put_int(struct writer *s, const char *key, int64_t value)
{
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, value);
    open_attribute(s, key, "intValue");
    json_str(&s->w, text);
    close_attribute(s);
}

static void put_double(struct writer *s, const char *key, double value)
{
    open_attribute(s, key, "doubleValue");
    json_double(&s->w, value);
    close_attribute(s);
}

/* ---- spans -------------------------------------------------------------------------------------
 */

static void open_span(struct writer *s, const char *name, int kind, const uint8_t *id,
                      const uint8_t *parent, uint64_t from_ns, uint64_t to_ns)
{
    if (s->n++)
        buf_addc(s->out, ',');
    json_init(&s->w, s->out);
    json_obj(&s->w);
    put_id(s, "traceId", s->j->trace.trace_id, TRACE_ID_BYTES);
    put_id(s, "spanId", id, SPAN_ID_BYTES);
    if (parent)
        put_id(s, "parentSpanId", parent, SPAN_ID_BYTES);
    json_key(&s->w, "name");
    json_str(&s->w, name);
    json_key(&s->w, "kind");
    json_int(&s->w, kind);
    put_time(s, "startTimeUnixNano", from_ns);
    put_time(s, "endTimeUnixNano", to_ns);
    json_key(&s->w, "attributes");
    json_arr(&s->w);
}

static void put_reasons(struct writer *s)
{
    const struct journal *j = s->j;
    if (j->n_stopped + j->n_cut == 0)
        return;
    open_attribute(s, "gen_ai.response.finish_reasons", "arrayValue");
    json_obj(&s->w);
    json_key(&s->w, "values");
    json_arr(&s->w);
    for (uint32_t i = 0; i < j->n_stopped + j->n_cut && i < REASONS_MAX; i++) {
        json_obj(&s->w);
        json_key(&s->w, "stringValue");
        json_str(&s->w, i < j->n_stopped ? "stop" : "length");
        json_obj_end(&s->w);
    }
    json_arr_end(&s->w);
    json_obj_end(&s->w);
    close_attribute(s);
}

static void put_model(struct writer *s)
{
    const struct journal *j = s->j;
    put_str(s, "gen_ai.operation.name", journal_operation_name(j->operation));
    put_str(s, "gen_ai.provider.name", "argosy");
    put_str(s, "gen_ai.request.model", j->model);
    put_str(s, "gen_ai.response.model", j->model);
    if (j->answer_id)
        put_str(s, "gen_ai.response.id", j->answer_id);
    put_int(s, "gen_ai.usage.input_tokens", j->prompt_tokens);
    put_int(s, "gen_ai.usage.cache_read.input_tokens", j->cached_tokens);
    if (j->operation != JOURNAL_EMBEDDINGS) {
        put_int(s, "gen_ai.request.max_tokens", j->max_tokens);
        put_double(s, "gen_ai.request.temperature", j->temperature);
        put_double(s, "gen_ai.request.top_p", j->top_p);
        if (j->n_choices > 1)
            put_int(s, "gen_ai.request.choice.count", j->n_choices);
        put_int(s, "gen_ai.usage.output_tokens", j->output_tokens);
        put_reasons(s);
    }
    put_str(s, "argosy.worker.id", journal_worker(j));
    put_int(s, "argosy.moves", j->moves);
}

static void open_event(struct writer *s, const char *name, uint64_t at_ns, uint32_t choice)
{
    json_obj(&s->w);
    put_time(s, "timeUnixNano", at_ns);
    json_key(&s->w, "name");
    json_str(&s->w, name);
    json_key(&s->w, "attributes");
    json_arr(&s->w);
    put_int(s, "argosy.choice.index", choice);
}

static void close_event(struct writer *s)
{
    json_arr_end(&s->w);
    json_obj_end(&s->w);
}

/* The leg that the choice had before it; NULL: none, or it was refused there. */
static const struct journal_leg *leg_before(const struct journal *j, uint32_t at)
{
    for (uint32_t i = at; i-- > 0;)
        if (j->legs[i].choice == j->legs[at].choice)
            return j->legs[i].first_ns ? &j->legs[i] : NULL;
    return NULL;
}

static void put_events(struct writer *s)
{
    const struct journal *j = s->j;
    json_key(&s->w, "events");
    json_arr(&s->w);
    for (uint32_t i = 0; i < j->n_legs; i++) {
        const struct journal_leg *leg = &j->legs[i], *before = leg_before(j, i);
        if (before) {
            open_event(s, "move", leg->start_ns, leg->choice);
            put_str(s, "argosy.worker.from", before->worker);
            put_str(s, "argosy.worker.to", leg->worker);
            close_event(s);
        } else if (leg->first_ns) {
            open_event(s, "first_token", leg->first_ns, leg->choice);
            close_event(s);
        }
    }
    json_arr_end(&s->w);
}

static void write_root(struct writer *s)
{
    const struct journal *j = s->j;
    char name[160];
    if (j->model)
        snprintf(name, sizeof(name), "%s %s", journal_operation_name(j->operation), j->model);
    else
        snprintf(name, sizeof(name), "%s %s", s->r->method, s->r->route);
    open_span(s, name, KIND_SERVER, j->trace.span_id, j->has_parent ? j->parent_id : NULL,
              j->start_ns, j->end_ns);
    put_str(s, "http.request.method", s->r->method);
    put_str(s, "http.route", s->r->route);
    put_int(s, "http.response.status_code", j->status);
    put_str(s, "argosy.request.id", s->r->id);
    if (j->model)
        put_model(s);
    if (j->error)
        put_str(s, "error.type", j->error);
    json_arr_end(&s->w);
    put_events(s);
    if (j->error) {
        json_key(&s->w, "status");
        json_obj(&s->w);
        json_key(&s->w, "code");
        json_int(&s->w, STATUS_ERROR);
        json_obj_end(&s->w);
    }
    json_obj_end(&s->w);
}

static void write_part(struct writer *s, const char *name, const struct journal_leg *leg,
                       const char *worker, uint64_t from_ns, uint64_t to_ns)
{
    uint8_t id[SPAN_ID_BYTES];
    span_id_make(s->ids, id);
    open_span(s, name, worker ? KIND_CLIENT : KIND_INTERNAL, id, s->j->trace.span_id, from_ns,
              to_ns);
    put_int(s, "argosy.choice.index", leg->choice);
    if (worker)
        put_str(s, "argosy.worker.id", worker);
    json_arr_end(&s->w);
    json_obj_end(&s->w);
}

static void write_leg(struct writer *s, const struct journal_leg *leg)
{
    uint64_t end_ns = leg->end_ns ? leg->end_ns : s->j->end_ns;
    if (leg->start_ns > leg->wait_ns)
        write_part(s, "queue", leg, NULL, leg->wait_ns, leg->start_ns);
    write_part(s, "prefill", leg, leg->worker, leg->start_ns,
               leg->first_ns ? leg->first_ns : end_ns);
    if (leg->first_ns)
        write_part(s, "decode", leg, leg->worker, leg->first_ns, end_ns);
}

uint32_t span_write(const struct journal *j, const struct span_request *r, struct rng *ids,
                    struct buf *out)
{
    struct writer s = {.j = j, .r = r, .ids = ids, .out = out};
    write_root(&s);
    for (uint32_t i = 0; i < j->n_legs; i++)
        write_leg(&s, &j->legs[i]);
    return s.n;
}
