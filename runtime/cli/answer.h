/* answer.h: the streamed answer to a chat request, from bytes to the text on stdout.
 *
 * Not thread-safe. `text` is what was said so far; it stays readable after an error.
 */
#ifndef ARGOSY_CLI_ANSWER_H
#define ARGOSY_CLI_ANSWER_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"
#include "runtime/cli/sse.h"

struct answer {
    struct sse sse;
    struct buf text;
    bool done;     /* [DONE] came: the answer is whole */
    bool terminal; /* stdout is one: control characters of the model stay out of it */
};

void answer_init(struct answer *a);
void answer_release(struct answer *a);
/* An endpoint_data_fn: ctx is a struct answer. Prints the text that the bytes complete. */
int answer_feed(void *ctx, const char *bytes, size_t n, struct err *e);

/* The id of the first model in the body of GET /v1/models: malloc'd, or NULL. */
char *answer_first_model(const struct buf *body);

#endif
