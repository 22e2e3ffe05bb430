/* metrics_genai.c: OpenTelemetry's metrics of generative AI, in Prometheus's form: dots become
 * underscores, the unit comes last, {token} is no unit. Bounds are those that the conventions
 * advise. Series of an operation appear with its first request. */
#include <string.h>

#include "router/http/http_internal.h"
#include "router/model_text.h"
#include "runtime/base/check.h"

static const double first_bounds[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                      0.25,  0.5,   0.75, 1.0,  2.5,  5.0,  7.5,  10.0};
static const double each_bounds[] = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
                                     0.3,  0.4,   0.5,  0.75,  1.0, 2.5};
static const double duration_bounds[] = {0.01, 0.02, 0.04, 0.08,  0.16,  0.32,  0.64,
                                         1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92};
static const double usage_bounds[] = {1,     4,     16,     64,      256,     1024,     4096,
                                      16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864};

_Static_assert(ARRAY_LEN(first_bounds) <= HISTOGRAM_BOUNDS_MAX, "room for the bounds");

#define OF(b) ((struct histogram){.bounds = (b), .n = ARRAY_LEN(b)})

void genai_metrics_init(struct genai_metrics *g)
{
    g->first = OF(first_bounds);
    g->each = OF(each_bounds);
    g->duration = g->failed = OF(duration_bounds);
    g->tokens_in = g->tokens_out = OF(usage_bounds);
}

void genai_metrics_add(struct genai_metrics *g, const struct journal *j)
{
    double whole_s = (double)(j->end_ns - j->start_ns) / 1e9;
    histogram_add(j->error ? &g->failed : &g->duration, whole_s);
    if (j->error)
        return;
    histogram_add(&g->tokens_in, j->prompt_tokens);
    if (j->operation == JOURNAL_EMBEDDINGS)
        return;
    histogram_add(&g->tokens_out, j->output_tokens);
    if (j->first_ns)
        histogram_add(&g->first, (double)(j->first_ns - j->start_ns) / 1e9);
    if (j->decode_tokens)
        histogram_add(&g->each, (double)j->decode_ns / 1e9 / j->decode_tokens);
}

/* Which histogram of genai_metrics, under which name and with which label more. */
struct genai_series {
    const char *name, *help; /* help NULL: the family of the series before */
    const char *more;
    size_t offset;
};

static const struct genai_series series[] = {
    {"gen_ai_server_time_to_first_token_seconds", "From a request's head to its first token.", "",
     offsetof(struct genai_metrics, first)},
    {"gen_ai_server_time_per_output_token_seconds", "Of a request, behind its first token.", "",
     offsetof(struct genai_metrics, each)},
    {"gen_ai_server_request_duration_seconds", "From a request's head to its end.", "",
     offsetof(struct genai_metrics, duration)},
    {"gen_ai_server_request_duration_seconds", NULL, ",error_type=\"_OTHER\"",
     offsetof(struct genai_metrics, failed)},
    {"gen_ai_client_token_usage", "Tokens of a request.", ",gen_ai_token_type=\"input\"",
     offsetof(struct genai_metrics, tokens_in)},
    {"gen_ai_client_token_usage", NULL, ",gen_ai_token_type=\"output\"",
     offsetof(struct genai_metrics, tokens_out)},
};

static void write_one(const struct http *h, const struct genai_series *s, size_t model, int op,
                      struct buf *labels, struct buf *out)
{
    const char *name = h->texts->items[model].name;
    const char *at = (const char *)&h->metrics.models[model].genai[op] + s->offset;
    const struct histogram *g = (const struct histogram *)(const void *)at;
    if (g->total == 0)
        return;
    buf_clear(labels);
    metrics_write_label(labels, "gen_ai_operation_name",
                        journal_operation_name((enum journal_operation)op));
    buf_adds(labels, ",gen_ai_provider_name=\"argosy\",");
    metrics_write_label(labels, "gen_ai_request_model", name);
    buf_addc(labels, ',');
    metrics_write_label(labels, "gen_ai_response_model", name);
    buf_adds(labels, s->more);
    histogram_write(g, s->name, buf_str(labels), out);
}

void genai_metrics_write(const struct http *h, struct buf *out)
{
    struct buf labels;
    buf_init(&labels, 0);
    for (size_t i = 0; i < ARRAY_LEN(series); i++) {
        if (series[i].help)
            metrics_write_meta(out, series[i].name, "histogram", series[i].help);
        for (size_t m = 0; m < h->metrics.n_models; m++)
            for (int op = 0; op < JOURNAL_OPERATIONS; op++)
                write_one(h, &series[i], m, op, &labels, out);
    }
    buf_release(&labels);
}
