/* sse.h: takes server-sent events out of bytes that arrive in any pieces.
 *
 * Only `data:` lines matter here; those of one event are joined with newlines, as the HTML standard
 * says. A line over SSE_LINE_BYTES_MAX is refused. Not thread-safe.
 */
#ifndef ARGOSY_CLI_SSE_H
#define ARGOSY_CLI_SSE_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"

#define SSE_LINE_BYTES_MAX (1u << 20)

struct sse {
    struct buf line; /* of an unfinished line */
    struct buf data; /* of an unfinished event */
    bool has_data;
    bool skip_lf; /* the last byte was a CR that ended a line */
};

/* Returns 0, or an error that ends the parse and is passed through. */
typedef int sse_event_fn(void *ctx, const char *data, size_t n, struct err *e);

void sse_init(struct sse *s);
void sse_release(struct sse *s);
int sse_feed(struct sse *s, const char *bytes, size_t n, sse_event_fn *fn, void *ctx,
             struct err *e);

#endif
