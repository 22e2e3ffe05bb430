/* otlp.h: spans to a collector, by OTLP over HTTP in JSON. Plain http alone: a collector elsewhere
 * is reached through one on this machine, or a proxy.
 *
 *     otlp_add ──► queue, of fixed size ──► one batch at a time ──POST──► collector
 *                    full: dropped              fails: again a few times, then dropped
 *
 * Nothing waits for it. Thread: the event loop, for every call.
 */
#ifndef ARGOSY_ROUTER_TRACE_OTLP_H
#define ARGOSY_ROUTER_TRACE_OTLP_H

#include "router/trace/span.h"
#include "runtime/base/err.h"

struct event_base;
struct otlp;

struct otlp_config {
    const char *url;      /* http://HOST[:4318][/v1/traces] */
    const char *instance; /* service.instance.id */
    size_t queue_bytes_max;
};

struct otlp_counts {
    uint64_t sent, dropped; /* spans */
    uint64_t failures;      /* tries that the collector did not take */
};

/* Is that a URL that otlp_open takes? */
int otlp_check_url(const char *url, struct err *e);
int otlp_open(const struct otlp_config *c, struct event_base *base, struct otlp **out,
              struct err *e);
/* What waits is lost. NULL is fine. */
void otlp_free(struct otlp *o);

void otlp_add(struct otlp *o, const struct journal *j, const struct span_request *r);
/* Sends what waits as soon as may be. */
void otlp_flush(struct otlp *o);
/* Nothing waits, nothing is under way. */
bool otlp_is_idle(const struct otlp *o);
struct otlp_counts otlp_counts(const struct otlp *o);

#endif
