/* traceparent.h: the header of W3C Trace Context: which trace a request belongs to.
 *
 *     00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
 *     version, trace id, id of the caller's span, flags
 *
 * Pure. A header that breaks the recommendation is as good as none: the trace starts here.
 */
#ifndef ARGOSY_ROUTER_TRACE_TRACEPARENT_H
#define ARGOSY_ROUTER_TRACE_TRACEPARENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TRACE_ID_BYTES 16
#define SPAN_ID_BYTES 8
#define TRACEPARENT_BYTES 56 /* the text and its NUL */

struct rng;

struct traceparent {
    uint8_t trace_id[TRACE_ID_BYTES]; /* never all zero */
    uint8_t span_id[SPAN_ID_BYTES];   /* never all zero */
    bool sampled;
};

/* False, and *out is left alone: it is none. Upper case is none (3.2.2). Of a later version what
 * this one knows is read. */
bool traceparent_parse(const char *text, size_t n, struct traceparent *out);
void traceparent_write(const struct traceparent *t, char out[TRACEPARENT_BYTES]);
/* A span's id that nothing else has. */
void span_id_make(struct rng *rng, uint8_t id[SPAN_ID_BYTES]);
void trace_id_make(struct rng *rng, uint8_t id[TRACE_ID_BYTES]);

#endif
