/* span.h: a journal as spans of OTLP in JSON, with the attributes of OpenTelemetry's conventions
 * for generative AI. Pure.
 *
 *     chat smollm2-135m ────────────────────────────────────────  server; events: first_token, move
 *        queue ──  prefill ────  decode ─────  queue ─  prefill ──  decode ─────
 *                  at the first worker                  at the next one
 */
#ifndef ARGOSY_ROUTER_TRACE_SPAN_H
#define ARGOSY_ROUTER_TRACE_SPAN_H

#include "router/trace/journal.h"
#include "runtime/base/buf.h"

struct rng;

/* What the journal does not have. */
struct span_request {
    const char *method, *route; /* constants of ours */
    const char *id;             /* of the request: plain */
    uint64_t wall_ns;           /* clock_wall_ns when the clock of the journal was end_ns */
};

/* Appends JSON objects with commas between them (and none at the ends). How many they are. */
uint32_t span_write(const struct journal *j, const struct span_request *r, struct rng *ids,
                    struct buf *out);

#endif
