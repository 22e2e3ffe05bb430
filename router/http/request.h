/* request.h: one HTTP request and how it is answered.
 *
 * A handler answers in one piece (request_reply, request_fail), or keeps the request, sets `gone`,
 * and answers later, in one piece or as a stream. The call that completes the answer frees the
 * request and its arena: nothing of it may be touched afterwards. When the client goes away first,
 * `gone` is called, and the request is freed when that returns.
 *
 * Thread: the event loop.
 */
#ifndef ARGOSY_ROUTER_HTTP_REQUEST_H
#define ARGOSY_ROUTER_HTTP_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/http/api_error.h"
#include "router/http/head.h"
#include "router/keys/keyring.h"
#include "router/trace/journal.h"
#include "runtime/base/arena.h"
#include "runtime/base/buf.h"

struct conn;
struct http;
struct route;

#define REQUEST_ID_BYTES 65
#define REQUEST_HEADERS_BYTES 1024

struct request {
    struct http *http;
    struct conn *conn;
    const struct route *route; /* NULL: refused before it had one */
    bool whole_server;         /* OPTIONS * */
    enum http_method method;
    char id[REQUEST_ID_BYTES];           /* the client's X-Request-Id, or ours */
    char *rest;                          /* decoded path behind a prefix route's prefix */
    char traceparent[TRACEPARENT_BYTES]; /* what workers get: this request's own */
    char *if_none_match;                 /* or NULL */
    uint64_t session_hash;               /* of X-Session-Id; 0: none */
    uint64_t start_ns;                   /* clock_mono_ns, when its head was complete */
    struct journal journal;
    struct tenant *tenant; /* whose key it came with; NULL: keys are not asked for */
    struct grant grant;    /* what it may use of that key */
    uint64_t used_tokens;  /* of it, so far */
    struct buf body;
    struct arena arena;
    char headers[REQUEST_HEADERS_BYTES]; /* further ones of the answer */
    size_t headers_n;
    void (*gone)(void *ctx);
    void *ctx;
};

/* For keeping equal sessions together; never 0. */
uint64_t session_hash_of(const char *s, size_t n);

/* Adds a header to the answer. What a header can't hold is left out. */
void request_header(struct request *r, const char *name, const char *value);

/* The whole answer. */
void request_reply(struct request *r, int status, const char *content_type, const struct buf *body);
void request_reply_json(struct request *r, int status, const struct buf *body);
void request_fail(struct request *r, const struct api_error *e);

/* An answer in pieces: start, then any number of (append to request_stream, request_push), then
 * request_end. What was pushed in one turn of the event loop leaves in one write. The client may be
 * found gone in between: then `gone` is called from the loop, never from inside these calls. */
void request_stream_start(struct request *r, const char *content_type);
struct buf *request_stream(struct request *r);
void request_push(struct request *r);
/* `complete` false: the connection ends too. */
void request_end(struct request *r, bool complete);

/* The body is read and no longer needed: its memory goes. */
void request_drop_body(struct request *r);

#endif
