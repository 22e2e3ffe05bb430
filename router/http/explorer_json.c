/* explorer_json.c: what viewers of the explorer and `argosy top` get. */
#include <stdio.h>
#include <string.h>

#include "router/http/http_internal.h"
#include "router/model_text.h"
#include "router/policy/policy.h"
#include "runtime/base/clock.h"
#include "runtime/base/json.h"
#include "runtime/base/version.h"

/* Four digits are enough for eyes. */
static void put(struct json *w, double v)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "%.4g", v);
    json_raw(w, text, (size_t)n);
}

static void put_key(struct json *w, const char *key, double v)
{
    json_key(w, key);
    put(w, v);
}

static void put_uint(struct json *w, const char *key, uint64_t v)
{
    json_key(w, key);
    json_uint(w, v);
}

static void put_str(struct json *w, const char *key, const char *v)
{
    json_key(w, key);
    json_str(w, v);
}

/* ---- samples ----------------------------------------------------------------------------------
 */

static const char *const columns[] = {
    "time",        "requests",    "failed",      "tokens",     "prompt_tokens",
    "ttft_p50_ms", "ttft_p95_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p95_ms",
    "itl_p99_ms",  "running",     "waiting",     "workers",    "kv",
};

/* In the order of `columns`. What did not happen is null. */
static void write_sample(const struct history_sample *s, struct json *w)
{
    json_arr(w);
    json_int(w, s->wall_s);
    json_uint(w, s->requests);
    json_uint(w, s->failed);
    json_uint(w, s->tokens);
    json_uint(w, s->prompt_tokens);
    const float *times[] = {s->first_s, s->each_s};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 3; i++) {
            if (times[k][i] > 0)
                put(w, (double)times[k][i] * 1e3);
            else
                json_null(w);
        }
    json_uint(w, s->running);
    json_uint(w, s->waiting);
    json_uint(w, s->workers);
    put(w, (double)s->kv);
    json_arr_end(w);
}

static void write_columns(struct json *w)
{
    json_key(w, "columns");
    json_arr(w);
    for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
        json_str(w, columns[i]);
    json_arr_end(w);
}

void explorer_write_history(const struct http *h, struct buf *out)
{
    const struct history *past = &h->explorer.history;
    struct json w;
    json_init(&w, out);
    json_obj(&w);
    write_columns(&w);
    json_key(&w, "samples");
    json_arr(&w);
    for (uint32_t i = 0; i < past->n; i++)
        write_sample(history_at(past, i), &w);
    json_arr_end(&w);
    json_obj_end(&w);
}

bool explorer_write_worker(const struct http *h, const char *id, struct buf *out)
{
    const struct track *t = history_track(&h->explorer.history, id);
    struct json w;
    if (!t)
        return false;
    json_init(&w, out);
    json_obj(&w);
    put_str(&w, "id", t->id);
    put_uint(&w, "period_s", TRACK_PERIOD_S);
    json_key(&w, "columns");
    json_arr(&w);
    json_str(&w, "tokens_per_s");
    json_str(&w, "running");
    json_str(&w, "waiting");
    json_str(&w, "kv");
    json_arr_end(&w);
    json_key(&w, "samples");
    json_arr(&w);
    for (uint32_t i = 0; i < t->n; i++) {
        const struct track_sample *s = track_at(t, i);
        json_arr(&w);
        put(&w, (double)s->tokens_per_s);
        json_uint(&w, s->running);
        json_uint(&w, s->waiting);
        put(&w, (double)s->kv);
        json_arr_end(&w);
    }
    json_arr_end(&w);
    json_obj_end(&w);
    return true;
}

/* ---- the snapshot -----------------------------------------------------------------------------
 */

struct walk {
    const struct http *http;
    struct json *w;
    uint32_t n;
    uint64_t now_ms;
};

static void write_labels(const struct pool_worker_view *v, struct json *w)
{
    json_key(w, "labels");
    json_obj(w);
    for (uint32_t i = 0; i < v->n_labels; i++)
        put_str(w, v->labels[i].key, v->labels[i].value);
    json_obj_end(w);
}

static void write_worker(void *ctx, const struct pool_worker_view *v)
{
    struct walk *walk = ctx;
    struct json *w = walk->w;
    if (walk->n++ >= EXPLORER_WORKERS_MAX)
        return;
    const struct track *t = history_track(&walk->http->explorer.history, v->id);
    json_obj(w);
    put_str(w, "id", v->id);
    put_str(w, "kind", v->device_kind);
    put_str(w, "device", v->device_name);
    put_str(w, "state", v->state);
    put_str(w, "models", v->models);
    write_labels(v, w);
    put_uint(w, "running", v->running);
    put_uint(w, "waiting", v->waiting);
    put_uint(w, "inflight", v->inflight);
    put_uint(w, "sequences_max", v->sequences_max);
    put_uint(w, "kv_pages", v->kv_pages);
    put_uint(w, "kv_pages_used", v->kv_pages_used);
    put_key(w, "prefill_tokens_per_s", v->prefill_tokens_per_s);
    put_key(w, "decode_tokens_per_s", v->decode_tokens_per_s);
    put_key(w, "tokens_per_s", t && t->n ? (double)track_at(t, t->n - 1)->tokens_per_s : 0);
    put_uint(w, "tokens", v->tokens);
    put_uint(w, "generations", v->gens);
    put_key(w, "price", v->price);
    put_uint(w, "attached_s", (walk->now_ms - v->attached_ms) / 1000);
    json_obj_end(w);
}

static void write_models(const struct http *h, struct json *w)
{
    json_key(w, "models");
    json_arr(w);
    for (size_t i = 0; i < h->texts->n; i++) {
        const struct model_text *t = &h->texts->items[i];
        const struct model_metrics *m = &h->metrics.models[i];
        json_obj(w);
        put_str(w, "name", t->name);
        put_uint(w, "ready", pool_workers_ready(h->pool, t->name));
        put_uint(w, "context_tokens", t->context_tokens);
        put_uint(w, "running", m->running);
        put_uint(w, "waiting", m->waiting);
        put_uint(w, "requests", m->finished[0] + m->finished[1]);
        put_uint(w, "prompt_tokens", m->prompt_tokens);
        put_uint(w, "cached_tokens", m->cached_tokens);
        put_uint(w, "output_tokens", m->generation_tokens);
        json_obj_end(w);
    }
    json_arr_end(w);
}

static void write_router(const struct http *h, struct json *w, uint64_t now_ms)
{
    struct pool_totals t = pool_totals(h->pool);
    json_key(w, "router");
    json_obj(w);
    put_str(w, "version", ARGOSY_VERSION);
    put_str(w, "state", h->stopping ? "draining" : "serving");
    put_uint(w, "up_s", (now_ms - h->explorer.start_ms) / 1000);
    put_uint(w, "connections", h->n_conns);
    put_uint(w, "viewers", h->explorer.n_viewers);
    put_uint(w, "workers", t.workers);
    put_uint(w, "moves", t.moved);
    put_uint(w, "refusals", t.refused);
    put_uint(w, "failures", t.failed);
    json_obj_end(w);
}

void explorer_write_snapshot(const struct http *h, struct buf *out)
{
    const struct history *past = &h->explorer.history;
    static const struct history_sample none;
    uint64_t now_ms = clock_mono_ms();
    struct json w;
    json_init(&w, out);
    struct walk walk = {.http = h, .w = &w, .now_ms = now_ms};
    json_obj(&w);
    write_router(h, &w, now_ms);
    write_columns(&w);
    json_key(&w, "sample");
    write_sample(past->n ? history_at(past, past->n - 1) : &none, &w);
    write_models(h, &w);
    json_key(&w, "workers");
    json_arr(&w);
    pool_each_worker(h->pool, write_worker, &walk);
    json_arr_end(&w);
    put_uint(&w, "workers_left_out",
             walk.n > EXPLORER_WORKERS_MAX ? walk.n - EXPLORER_WORKERS_MAX : 0);
    json_obj_end(&w);
}
