/* head.h: the head of an HTTP/1.1 request, and bodies in chunks: pure parsers over bytes.
 *
 * Strict (RFC 9112): lines end with CR LF, a header name is a token with the colon right behind it,
 * no folding, no control characters, one Content-Length at most and never together with
 * Transfer-Encoding, Host once. What two parsers could read in two ways is refused.
 */
#ifndef ARGOSY_ROUTER_HTTP_HEAD_H
#define ARGOSY_ROUTER_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"

#define HEAD_FIELDS_MAX 64

struct slice {
    const char *p;
    size_t n;
};

/* Also bits, for the set of methods that a route has. */
enum http_method {
    HTTP_OTHER = 0, /* well-formed, but none that any route has */
    HTTP_GET = 1,
    HTTP_HEAD = 2,
    HTTP_POST = 4,
    HTTP_OPTIONS = 8,
};

struct head_field {
    struct slice name, value;
};

/* Slices point into the bytes that were parsed. */
struct head {
    enum http_method method;
    struct slice path; /* as it was sent; "*" for OPTIONS * */
    int minor;         /* HTTP/1.minor: 0 or 1 */
    uint64_t content_length;
    bool chunked;
    bool keep_alive;
    bool expects_continue;
    bool body_coded; /* Content-Encoding other than identity */
    size_t n_fields;
    struct head_field fields[HEAD_FIELDS_MAX];
};

/* Parses the n bytes up to and with the empty line. 0, or the HTTP status to refuse with, and *why
 * says why (a constant). */
int head_parse(const char *bytes, size_t n, struct head *h, const char **why);
/* The value of a header, or {NULL, 0}; the first, if there are several. `name` in lower case. */
struct slice head_find(const struct head *h, const char *name);
bool slice_is(struct slice s, const char *text);

/* A body in chunks, as it arrives. */
struct chunked {
    int state;
    uint64_t left;  /* of this chunk's data */
    uint32_t line;  /* bytes of this size line */
    uint32_t trail; /* bytes of the trailers */
};

enum chunked_result { CHUNKED_MORE, CHUNKED_DONE, CHUNKED_BAD, CHUNKED_TOO_LONG };

void chunked_init(struct chunked *c);
/* Reads n bytes, appends data to `body` (whose max_bytes bounds it) and sets *used to how many
 * bytes were read: fewer than n only when it is done or on an error. */
enum chunked_result chunked_feed(struct chunked *c, const char *bytes, size_t n, struct buf *body,
                                 size_t *used);

#endif
