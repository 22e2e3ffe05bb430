/* reply.h: the streamed answer to a chat request, from bytes to the text on stdout.
 *
 * Not thread-safe. `text` is what was said so far; it stays readable after an error.
 */
#ifndef ARGOSY_CLI_REPLY_H
#define ARGOSY_CLI_REPLY_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"
#include "runtime/cli/sse.h"

struct reply {
    struct sse sse;
    struct buf text;
    bool done;     /* [DONE] came: the answer is whole */
    bool terminal; /* stdout is one: control characters of the model stay out of it */
};

void reply_init(struct reply *a);
void reply_release(struct reply *a);
/* An endpoint_data_fn: ctx is a struct reply. Prints the text that the bytes complete. */
int reply_feed(void *ctx, const char *bytes, size_t n, struct err *e);

/* The id of the first model in the body of GET /v1/models: malloc'd, or NULL. */
char *reply_first_model(const struct buf *body);

#endif
