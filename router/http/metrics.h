/* metrics.h: what /metrics counts: by model under vLLM's names and OpenTelemetry's, by
 * route and status our own. */
#ifndef ARGOSY_ROUTER_HTTP_METRICS_H
#define ARGOSY_ROUTER_HTTP_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "router/http/histogram.h"
#include "router/http/route.h"
#include "router/pool/pool.h"
#include "router/trace/journal.h"
#include "runtime/base/buf.h"
#include "runtime/base/err.h"

struct http;

#define METRICS_CODES_MAX 24

/* OpenTelemetry's of one operation. */
struct genai_metrics {
    struct histogram first, each, duration, failed, tokens_in, tokens_out;
};

struct model_metrics {
    uint32_t running; /* choices that gave a token */
    uint32_t waiting; /* choices that gave none yet */
    uint64_t prompt_tokens, cached_tokens, generation_tokens;
    uint64_t finished[2]; /* by enum gen_finish */
    uint64_t cancelled, failed;
    struct histogram ttft, itl, e2e;
    /* Of complete requests. */
    struct histogram queue, prefill, decode, inference, each, tokens_in, tokens_out;
    struct genai_metrics genai[JOURNAL_OPERATIONS];
};

struct metrics {
    struct model_metrics *models; /* by place in model_texts */
    size_t n_models;
    uint64_t answers[ROUTES_MAX][METRICS_CODES_MAX]; /* by route_index and code */
    uint64_t clients_gone;                           /* before their answer was complete */
    uint64_t clients_slow;                           /* closed for it */
    uint64_t conns_refused;                          /* past connections_max */
    uint64_t conns_taken;
};

int metrics_init(struct metrics *m, size_t n_models, struct err *e);
void metrics_release(struct metrics *m);
void metrics_answer(struct metrics *m, const struct route *route, int status);
/* A request is over, one way or the other. */
void metrics_request(struct metrics *m, const struct journal *j);
/* The whole text of /metrics. */
void metrics_write(const struct http *h, struct buf *out);

/* ---- for metrics_genai.c ---- */

void metrics_write_meta(struct buf *out, const char *name, const char *type, const char *help);
/* name="value", escaped. */
void metrics_write_label(struct buf *out, const char *name, const char *value);

/* metrics_genai.c: the names of OpenTelemetry's semantic conventions, as Prometheus writes them. */
void genai_metrics_init(struct genai_metrics *g);
void genai_metrics_add(struct genai_metrics *g, const struct journal *j);
void genai_metrics_write(const struct http *h, struct buf *out);

#endif
