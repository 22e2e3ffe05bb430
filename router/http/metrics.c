#include "router/http/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "router/http/http_internal.h"
#include "router/model_text.h"
#include "router/trace/otlp.h"
#include "runtime/base/check.h"

/* vLLM's bounds. */
static const double ttft_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25, 0.5,
                                     0.75,  1.0,   2.5,  5.0,  7.5,  10.0, 20.0, 40.0, 80.0};
static const double itl_bounds[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
                                    0.3,   0.4,    0.5,   0.75, 1.0,   2.5,  5.0,   7.5, 10.0};
static const double e2e_bounds[] = {0.01, 0.05, 0.1,  0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,
                                    5.0,  10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 120.0, 240.0, 480.0};

/* Every status that an answer can have; the last place is for others. */
static const int codes[] = {200, 204, 304, 400, 401, 403, 404, 405, 408, 413, 415,
                            417, 429, 431, 500, 501, 502, 503, 504, 505, 0};

static const double token_bounds[] = {1,    2,    5,    10,    20,    50,    100,    200,   500,
                                      1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};

_Static_assert(ARRAY_LEN(codes) <= METRICS_CODES_MAX, "a place for each code");
_Static_assert(ARRAY_LEN(ttft_bounds) <= HISTOGRAM_BOUNDS_MAX, "room for the bounds");
_Static_assert(ARRAY_LEN(itl_bounds) <= HISTOGRAM_BOUNDS_MAX, "room for the bounds");
_Static_assert(ARRAY_LEN(e2e_bounds) <= HISTOGRAM_BOUNDS_MAX, "room for the bounds");
_Static_assert(ARRAY_LEN(token_bounds) <= HISTOGRAM_BOUNDS_MAX, "room for the bounds");

#define OF(b) ((struct histogram){.bounds = (b), .n = ARRAY_LEN(b)})

static void init_model(struct model_metrics *m)
{
    m->ttft = OF(ttft_bounds);
    m->itl = m->each = OF(itl_bounds);
    m->e2e = m->queue = m->prefill = m->decode = m->inference = OF(e2e_bounds);
    m->tokens_in = m->tokens_out = OF(token_bounds);
    for (int i = 0; i < JOURNAL_OPERATIONS; i++)
        genai_metrics_init(&m->genai[i]);
}

int metrics_init(struct metrics *m, size_t n_models, struct err *e)
{
    m->models = calloc(n_models ? n_models : 1, sizeof(*m->models));
    if (!m->models)
        return err_set(e, ERR_NOMEM, "no memory for the metrics");
    m->n_models = n_models;
    for (size_t i = 0; i < n_models; i++)
        init_model(&m->models[i]);
    return 0;
}

void metrics_release(struct metrics *m)
{
    free(m->models);
    m->models = NULL;
    m->n_models = 0;
}

void metrics_answer(struct metrics *m, const struct route *route, int status)
{
    size_t i = 0;
    while (codes[i] && codes[i] != status)
        i++;
    m->answers[route_index(route)][i]++;
}

static double seconds(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0;
}

void metrics_request(struct metrics *m, const struct journal *j)
{
    if (!j->model)
        return;
    struct model_metrics *of = &m->models[j->model_index];
    genai_metrics_add(&of->genai[j->operation], j);
    if (j->error)
        return;
    histogram_add(&of->tokens_in, j->prompt_tokens);
    histogram_add(&of->tokens_out, j->output_tokens);
    histogram_add(&of->queue, seconds(j->start_ns, j->placed_ns));
    histogram_add(&of->inference, seconds(j->placed_ns, j->end_ns));
    if (j->first_ns) {
        histogram_add(&of->prefill, seconds(j->placed_ns, j->first_ns));
        histogram_add(&of->decode, seconds(j->first_ns, j->last_ns));
    }
    if (j->decode_tokens)
        histogram_add(&of->each, (double)j->decode_ns / 1e9 / j->decode_tokens);
}

/* ---- the text -----------------------------------------------------------------------------------
 */

void metrics_write_meta(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value: backslash, quote and newline are escaped (Prometheus text format 0.0.4). */
void metrics_write_label(struct buf *out, const char *name, const char *value)
{
    buf_addf(out, "%s=\"", name);
    for (const char *p = value ? value : ""; *p; p++) {
        if (*p == '\n') {
            buf_adds(out, "\\n");
            continue;
        }
        if (*p == '"' || *p == '\\')
            buf_addc(out, '\\');
        buf_addc(out, *p);
    }
    buf_addc(out, '"');
}

/* name{model_name="…"  and, when there are more labels, the caller goes on. */
static void open_model(struct buf *out, const char *name, const struct http *h, size_t model)
{
    buf_addf(out, "%s{", name);
    metrics_write_label(out, "model_name", h->texts->items[model].name);
}

struct model_counter {
    const char *name, *type, *help;
    size_t offset;
    bool wide; /* uint64_t, else uint32_t */
};

#define WIDE(name, help, member)                                            \
    {                                                                       \
        name, "counter", help, offsetof(struct model_metrics, member), true \
    }
#define GAUGE(name, help, member)                                          \
    {                                                                      \
        name, "gauge", help, offsetof(struct model_metrics, member), false \
    }

static void write_model_counters(const struct http *h, struct buf *out)
{
    static const struct model_counter table[] = {
        GAUGE("vllm:num_requests_running", "Choices that gave a token and are not complete.",
              running),
        GAUGE("vllm:num_requests_waiting", "Choices that gave no token yet.", waiting),
        WIDE("vllm:prompt_tokens_total", "Prompt tokens of complete requests.", prompt_tokens),
        WIDE("vllm:prompt_tokens_cached_total", "Of them, those that came from a worker's cache.",
             cached_tokens),
        WIDE("vllm:generation_tokens_total", "Tokens that were generated.", generation_tokens),
        WIDE("vllm:prefix_cache_queries_total", "Prompt tokens that were looked for in a cache.",
             prompt_tokens),
        WIDE("vllm:prefix_cache_hits_total", "Of them, those that were there.", cached_tokens),
        WIDE("argosy_choices_cancelled_total", "Choices whose client went away.", cancelled),
        WIDE("argosy_choices_failed_total", "Choices that ended with an error.", failed),
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        metrics_write_meta(out, table[i].name, table[i].type, table[i].help);
        for (size_t m = 0; m < h->metrics.n_models; m++) {
            const char *at = (const char *)&h->metrics.models[m] + table[i].offset;
            open_model(out, table[i].name, h, m);
            buf_addf(out, "} %" PRIu64 "\n",
                     table[i].wide ? *(const uint64_t *)at : *(const uint32_t *)at);
        }
    }
}

static void write_success(const struct http *h, struct buf *out)
{
    static const char *const reasons[] = {"stop", "length"};
    metrics_write_meta(out, "vllm:request_success_total", "counter",
                       "Choices that were completed.");
    for (size_t m = 0; m < h->metrics.n_models; m++)
        for (size_t r = 0; r < 2; r++) {
            open_model(out, "vllm:request_success_total", h, m);
            buf_addf(out, ",finished_reason=\"%s\"} %" PRIu64 "\n", reasons[r],
                     h->metrics.models[m].finished[r]);
        }
}

static void write_histograms(const struct http *h, struct buf *out)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } table[] = {
        {"vllm:time_to_first_token_seconds", "From a request's head to its first token.",
         offsetof(struct model_metrics, ttft)},
        {"vllm:inter_token_latency_seconds", "Between tokens of one choice.",
         offsetof(struct model_metrics, itl)},
        {"vllm:request_time_per_output_token_seconds", "Of a request, behind its first token.",
         offsetof(struct model_metrics, each)},
        {"vllm:e2e_request_latency_seconds", "From a request's head to its last token.",
         offsetof(struct model_metrics, e2e)},
        {"vllm:request_queue_time_seconds", "From a request's head until it is sent to a worker.",
         offsetof(struct model_metrics, queue)},
        {"vllm:request_prefill_time_seconds", "From there to its first token.",
         offsetof(struct model_metrics, prefill)},
        {"vllm:request_decode_time_seconds", "From its first token to its last.",
         offsetof(struct model_metrics, decode)},
        {"vllm:request_inference_time_seconds", "From when it is sent to a worker to its end.",
         offsetof(struct model_metrics, inference)},
        {"vllm:request_prompt_tokens", "Prompt tokens of a request.",
         offsetof(struct model_metrics, tokens_in)},
        {"vllm:request_generation_tokens", "Output tokens of a request.",
         offsetof(struct model_metrics, tokens_out)},
    };
    struct buf labels;
    buf_init(&labels, 0);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        metrics_write_meta(out, table[i].name, "histogram", table[i].help);
        for (size_t m = 0; m < h->metrics.n_models; m++) {
            const char *at = (const char *)&h->metrics.models[m] + table[i].offset;
            buf_clear(&labels);
            metrics_write_label(&labels, "model_name", h->texts->items[m].name);
            histogram_write((const struct histogram *)(const void *)at, table[i].name,
                            buf_str(&labels), out);
        }
    }
    buf_release(&labels);
}

/* ---- workers ------------------------------------------------------------------------------------
 */

/* One series over all workers; the views live for the pool's call alone, hence a walk a series. */
struct worker_walk {
    struct buf *out;
    const char *name;
    double (*value)(const struct pool_worker_view *w);
};

static void write_worker(void *ctx, const struct pool_worker_view *w)
{
    struct worker_walk *walk = ctx;
    buf_addf(walk->out, "%s{", walk->name);
    metrics_write_label(walk->out, "worker", w->id);
    buf_addc(walk->out, ',');
    metrics_write_label(walk->out, "device", w->device_kind);
    buf_addc(walk->out, ',');
    metrics_write_label(walk->out, "state", w->state);
    buf_addf(walk->out, "} %.9g\n", walk->value(w));
}

static double running_of(const struct pool_worker_view *w)
{
    return w->running;
}

static double waiting_of(const struct pool_worker_view *w)
{
    return w->waiting;
}

static double inflight_of(const struct pool_worker_view *w)
{
    return w->inflight;
}

static double kv_of(const struct pool_worker_view *w)
{
    return w->kv_pages ? (double)w->kv_pages_used / w->kv_pages : 0;
}

static double host_bytes_of(const struct pool_worker_view *w)
{
    return (double)w->kv_host_bytes_used;
}

static double pages_out_of(const struct pool_worker_view *w)
{
    return (double)w->kv_pages_out;
}

static double pages_in_of(const struct pool_worker_view *w)
{
    return (double)w->kv_pages_in;
}

static double prefill_of(const struct pool_worker_view *w)
{
    return w->prefill_tokens_per_s;
}

static double decode_of(const struct pool_worker_view *w)
{
    return w->decode_tokens_per_s;
}

static void write_workers(const struct http *h, struct buf *out)
{
    static const struct {
        const char *name, *help;
        double (*value)(const struct pool_worker_view *w);
    } table[] = {
        {"argosy_worker_running", "Requests that run at a worker.", running_of},
        {"argosy_worker_waiting", "Requests that wait at a worker.", waiting_of},
        {"argosy_worker_inflight", "This router's choices at a worker.", inflight_of},
        {"argosy_worker_kv_usage_perc", "Share of KV pages in use, 0 to 1.", kv_of},
        {"argosy_worker_kv_host_bytes", "KV pages of a GPU that lie on its host.", host_bytes_of},
        {"argosy_worker_kv_pages_out", "KV pages copied to the host since the model was loaded.",
         pages_out_of},
        {"argosy_worker_kv_pages_in", "KV pages copied back to the GPU since then.", pages_in_of},
        {"argosy_worker_prefill_tokens_per_second", "As measured.", prefill_of},
        {"argosy_worker_decode_tokens_per_second", "As measured.", decode_of},
    };
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct worker_walk walk = {out, table[i].name, table[i].value};
        metrics_write_meta(out, table[i].name, "gauge", table[i].help);
        pool_each_worker(h->pool, write_worker, &walk);
    }
}

struct kv_sum {
    const char *model;
    uint64_t pages, used;
};

static bool serves(const char *models, const char *model)
{
    size_t n = strlen(model);
    for (const char *p = models; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (strncmp(p, model, n) == 0 && (p[n] == 0 || p[n] == ','))
            return true;
    return false;
}

static void add_kv(void *ctx, const struct pool_worker_view *w)
{
    struct kv_sum *sum = ctx;
    if (!serves(w->models, sum->model))
        return;
    sum->pages += w->kv_pages;
    sum->used += w->kv_pages_used;
}

static void write_models_of_pool(const struct http *h, struct buf *out)
{
    metrics_write_meta(out, "vllm:kv_cache_usage_perc", "gauge",
                       "Share of KV pages in use at the workers that serve the model, 0 to 1.");
    for (size_t m = 0; m < h->texts->n; m++) {
        struct kv_sum sum = {.model = h->texts->items[m].name};
        pool_each_worker(h->pool, add_kv, &sum);
        open_model(out, "vllm:kv_cache_usage_perc", h, m);
        buf_addf(out, "} %.9g\n", sum.pages ? (double)sum.used / (double)sum.pages : 0);
    }
    metrics_write_meta(out, "argosy_workers_ready", "gauge", "Workers that can take a request.");
    for (size_t m = 0; m < h->texts->n; m++) {
        open_model(out, "argosy_workers_ready", h, m);
        buf_addf(out, "} %u\n", pool_workers_ready(h->pool, h->texts->items[m].name));
    }
}

/* ---- the process --------------------------------------------------------------------------------
 */

static void write_one(struct buf *out, const char *name, const char *type, const char *help,
                      uint64_t value)
{
    metrics_write_meta(out, name, type, help);
    buf_addf(out, "%s %" PRIu64 "\n", name, value);
}

static uint64_t resident_bytes(void)
{
    unsigned long long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%*u %llu", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void write_answers(const struct http *h, struct buf *out)
{
    metrics_write_meta(out, "argosy_http_requests_total", "counter", "Answers by path and status.");
    for (size_t r = 0; r <= route_count(); r++)
        for (size_t i = 0; i < ARRAY_LEN(codes); i++)
            if (h->metrics.answers[r][i])
                buf_addf(out, "argosy_http_requests_total{path=\"%s\",code=\"%d\"} %" PRIu64 "\n",
                         r < route_count() ? route_at(r)->path : "other", codes[i],
                         h->metrics.answers[r][i]);
}

static void write_totals(const struct http *h, struct buf *out)
{
    const struct metrics *m = &h->metrics;
    struct pool_totals t = pool_totals(h->pool);
    write_one(out, "argosy_workers", "gauge", "Workers that are attached.", t.workers);
    write_one(out, "argosy_queued", "gauge", "New generations that wait for room.", t.queued);
    write_one(out, "argosy_moves_total", "counter", "Generations that went on at another worker.",
              t.moved);
    write_one(out, "argosy_refusals_total", "counter", "Generations that found no room.",
              t.refused);
    write_one(out, "argosy_stalls_total", "counter", "Tokens that were too late.", t.stalled);
    write_one(out, "argosy_breakers_opened_total", "counter",
              "Times that a worker was no longer trusted.", t.opened);
    write_one(out, "argosy_failures_total", "counter", "Generations that were given up.", t.failed);
    write_one(out, "argosy_http_connections_open", "gauge", "Open client connections.", h->n_conns);
    write_one(out, "argosy_http_connections_total", "counter", "Client connections taken.",
              m->conns_taken);
    write_one(out, "argosy_http_connections_refused_total", "counter",
              "Client connections past the limit.", m->conns_refused);
    write_one(out, "argosy_http_requests_running", "gauge", "Requests without a complete answer.",
              h->n_requests);
    write_one(out, "argosy_http_clients_gone_total", "counter",
              "Clients that went away before their answer was complete.", m->clients_gone);
    write_one(out, "argosy_http_clients_slow_total", "counter",
              "Of them, those that were closed for reading too slowly.", m->clients_slow);
    if (h->config.otlp) {
        struct otlp_counts spans = otlp_counts(h->config.otlp);
        write_one(out, "argosy_spans_sent_total", "counter", "Spans that the collector took.",
                  spans.sent);
        write_one(out, "argosy_spans_dropped_total", "counter",
                  "Spans that found the queue full, or were not taken.", spans.dropped);
        write_one(out, "argosy_span_batches_failed_total", "counter",
                  "Tries that the collector did not take.", spans.failures);
    }
    write_one(out, "argosy_explorer_viewers", "gauge", "Pages of the explorer that are live.",
              h->explorer.n_viewers);
    write_one(out, "argosy_explorer_viewers_dropped_total", "counter",
              "Of them, those that were closed for reading too slowly.",
              h->explorer.viewers_dropped);
    write_one(out, "argosy_explorer_viewers_refused_total", "counter", "Viewers past the limit.",
              h->explorer.viewers_refused);
    write_one(out, "process_resident_memory_bytes", "gauge", "Memory of this process.",
              resident_bytes());
}

void metrics_write(const struct http *h, struct buf *out)
{
    write_model_counters(h, out);
    write_success(h, out);
    write_histograms(h, out);
    genai_metrics_write(h, out);
    write_models_of_pool(h, out);
    write_workers(h, out);
    write_answers(h, out);
    write_totals(h, out);
}

void metrics_handle(struct request *r)
{
    struct buf body;
    if (!r->http->config.metrics) {
        struct api_error e;
        api_error_set(&e, 404, "unknown_url", NULL, "There is nothing at this path.");
        request_fail(r, &e);
        return;
    }
    buf_init(&body, 0);
    metrics_write(r->http, &body);
    request_reply(r, body.failed ? 500 : 200, "text/plain; version=0.0.4; charset=utf-8",
                  body.failed ? NULL : &body);
    buf_release(&body);
}
