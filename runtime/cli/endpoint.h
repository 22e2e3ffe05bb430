/* endpoint.h: an OpenAI-compatible server as a client sees it: one request at a time, the answer
 * handed on while it arrives.
 *
 * Plain HTTP/1.1 over libevent. Blocks in an event loop of its own until the answer is there, the
 * callback has had enough, the server was silent for ENDPOINT_SILENCE_S, or the user pressed
 * Ctrl-C. Not thread-safe.
 */
#ifndef ARGOSY_CLI_ENDPOINT_H
#define ARGOSY_CLI_ENDPOINT_H

#include <stdint.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"

#define ENDPOINT_SILENCE_S 300
/* endpoint_call: the user pressed Ctrl-C. Not an error: nothing is wrong. */
#define ENDPOINT_INTERRUPTED 1

struct event_base;

struct endpoint {
    char host[256];
    uint16_t port;
    char prefix[256];          /* "/v1", in front of every path */
    const char *authorization; /* "Bearer …", borrowed; or NULL */
    struct event_base *base;
};

/* url: "http://host[:port][/prefix]"; without a prefix it is /v1. */
int endpoint_init(struct endpoint *p, const char *url, struct err *e);
void endpoint_release(struct endpoint *p);

/* Bytes of the body as they arrive; anything but 0 ends the call with that value. */
typedef int endpoint_data_fn(void *ctx, const char *bytes, size_t n, struct err *e);

/* GET, or POST when there is a body (JSON). fn sees the body of a 200; another status becomes an
 * error with the message that the server gave. */
int endpoint_call(struct endpoint *p, const char *path, const struct buf *body,
                  endpoint_data_fn *fn, void *ctx, struct err *e);

#endif
