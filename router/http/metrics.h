/* metrics.h: what /metrics counts: by model under vLLM's names, by route and status our own. */
#ifndef ARGOSY_ROUTER_HTTP_METRICS_H
#define ARGOSY_ROUTER_HTTP_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "router/http/route.h"
#include "router/pool/pool.h"
#include "runtime/base/buf.h"
#include "runtime/base/err.h"

struct http;

#define HISTOGRAM_BOUNDS_MAX 24
#define METRICS_CODES_MAX 24

struct histogram {
    const double *bounds; /* (n), seconds, ascending */
    uint32_t n;
    uint64_t counts[HISTOGRAM_BOUNDS_MAX + 1]; /* each for itself, the last is +Inf */
    uint64_t total;
    double sum;
};

struct model_metrics {
    uint32_t running; /* choices that gave a token */
    uint32_t waiting; /* choices that gave none yet */
    uint64_t prompt_tokens, cached_tokens, generation_tokens;
    uint64_t finished[2]; /* by enum gen_finish */
    uint64_t cancelled, failed;
    struct histogram ttft, itl, e2e;
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
void histogram_add(struct histogram *h, double seconds);
/* The whole text of /metrics. */
void metrics_write(const struct http *h, struct buf *out);

#endif
