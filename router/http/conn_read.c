/* conn_read.c: what a client sends becomes requests: head, body, and the handler of its route. */
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "router/http/auth.h"
#include "router/http/conn_internal.h"
#include "router/http/http_internal.h"
#include "router/http/request.h"
#include "router/http/route.h"
#include "runtime/base/clock.h"

/* A longer If-None-Match is not looked at: the answer is whole. */
#define TAGS_BYTES_MAX 256

/* ---- input ------------------------------------------------------------------------------------
 */

static bool is_plain_id(struct slice s)
{
    if (s.n == 0 || s.n >= REQUEST_ID_BYTES)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= 0x20 || s.p[i] > 0x7e || strchr("\"\\<>,;", s.p[i]))
            return false;
    return true;
}

/* The client's trace goes on, or one begins; this request is a span of it either way. */
static void take_trace(struct request *r, struct slice header)
{
    struct journal *j = &r->journal;
    j->has_parent = traceparent_parse(header.p, header.n, &j->trace);
    if (j->has_parent) {
        memcpy(j->parent_id, j->trace.span_id, sizeof(j->parent_id));
    } else {
        trace_id_make(&r->http->rng, j->trace.trace_id);
        j->trace.sampled = r->http->sampled;
    }
    span_id_make(&r->http->rng, j->trace.span_id);
    traceparent_write(&j->trace, r->traceparent);
}

static void keep_headers(struct request *r, const struct head *h)
{
    struct slice id = head_find(h, "x-request-id");
    if (is_plain_id(id)) {
        memcpy(r->id, id.p, id.n);
        r->id[id.n] = 0;
    }
    struct slice session = head_find(h, "x-session-id");
    if (session.n)
        r->session_hash = session_hash_of(session.p, session.n);
    struct slice tags = head_find(h, "if-none-match");
    if (tags.n && tags.n <= TAGS_BYTES_MAX)
        r->if_none_match = arena_strndup(&r->arena, tags.p, tags.n);
    take_trace(r, head_find(h, "traceparent"));
}

static int hex_digit(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    ch |= 0x20;
    return ch >= 'a' && ch <= 'f' ? ch - 'a' + 10 : -1;
}

/* Percent-decoded, or NULL. */
static char *decode_path(struct arena *a, struct slice s)
{
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < s.n; i++) {
        out[n] = s.p[i];
        if (s.p[i] == '%') {
            int hi = i + 2 < s.n ? hex_digit(s.p[i + 1]) : -1;
            int lo = hi >= 0 ? hex_digit(s.p[i + 2]) : -1;
            if (lo < 0 || (hi | lo) == 0)
                return NULL;
            out[n] = (char)(hi << 4 | lo);
            i += 2;
        }
        n++;
    }
    return out;
}

/* Sets the request up from its head. False: it was answered with an error. */
static bool accept_head(struct conn *c, const struct head *h)
{
    struct request *r = c->request;
    uint32_t body_max = c->http->config.body_bytes_max;
    struct slice rest = {NULL, 0};
    c->keep_alive = h->keep_alive;
    c->chunked_out = h->minor == 1;
    c->chunked_in = h->chunked;
    c->body_left = h->content_length;
    r->method = h->method;
    r->whole_server = slice_is(h->path, "*");
    r->route = route_find(h->path, &rest);
    keep_headers(r, h);
    if (rest.n)
        r->rest = decode_path(&r->arena, rest);
    const char *refusal = auth_check(r, h);
    if (refusal) { /* before any of its body is taken */
        request_header(r, "WWW-Authenticate", "Bearer");
        conn_refuse(c, 401, "invalid_api_key", refusal);
        return false;
    }
    if (h->content_length > body_max) {
        char text[80];
        snprintf(text, sizeof(text), "The body is larger than %u bytes.", body_max);
        conn_refuse(c, 413, "request_too_large", text);
        return false;
    }
    if (h->body_coded) {
        conn_refuse(c, 415, NULL, "Content-Encoding is not served: send the body as it is.");
        return false;
    }
    if (h->expects_continue && (h->chunked || h->content_length)) {
        buf_adds(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        c->plain = c->out.len;
        conn_mark(c);
    }
    return true;
}

/* True: go on at once. */
static bool advance_head(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    uint32_t max = c->http->config.header_bytes_max;
    size_t n = evbuffer_get_length(in);
    struct evbuffer_ptr from;
    evbuffer_ptr_set(in, &from, c->scanned, EVBUFFER_PTR_SET);
    struct evbuffer_ptr end = evbuffer_search(in, "\r\n\r\n", 4, &from);
    c->scanned = n > 3 ? n - 3 : 0;
    if (end.pos < 0 ? n > max : (size_t)end.pos + 4 > max) {
        conn_refuse(c, 431, "headers_too_large", "The request's headers are too large.");
        return false;
    }
    if (end.pos < 0)
        return false;
    size_t head_n = (size_t)end.pos + 4;
    const char *bytes = (const char *)evbuffer_pullup(in, (ev_ssize_t)head_n);
    if (!bytes || !conn_make_request(c)) {
        conn_close(c);
        return false;
    }
    struct head h;
    const char *why = NULL;
    int status = head_parse(bytes, head_n, &h, &why);
    bool ok = false;
    if (status)
        conn_refuse(c, status, NULL, why);
    else
        ok = accept_head(c, &h);
    evbuffer_drain(in, head_n);
    if (!ok)
        return false;
    chunked_init(&c->chunks);
    c->state = CONN_BODY;
    conn_set_timer(c, c->http->config.body_timeout_ms);
    return true;
}

static void dispatch(struct conn *c)
{
    struct request *r = c->request;
    struct api_error e;
    event_del(c->timer);
    c->state = CONN_BUSY;
    if (r->whole_server) {
        request_header(r, "Allow", "GET, HEAD, POST, OPTIONS");
        request_reply(r, 204, NULL, NULL);
    } else if (!r->route) {
        api_error_set(&e, 404, "unknown_url", NULL, "There is nothing at this path.");
        request_fail(r, &e);
    } else if (r->method == HTTP_OPTIONS) {
        request_header(r, "Allow", route_allow(r->route));
        if (r->http->cors_origin) {
            request_header(r, "Access-Control-Allow-Methods", route_allow(r->route));
            request_header(r, "Access-Control-Allow-Headers",
                           "Authorization, Content-Type, X-Request-Id, X-Session-Id");
            request_header(r, "Access-Control-Max-Age", "600");
        }
        request_reply(r, 204, NULL, NULL);
    } else if (!(r->route->methods & (r->method == HTTP_HEAD ? HTTP_GET : r->method))) {
        request_header(r, "Allow", route_allow(r->route));
        api_error_set(&e, 405, "method_not_supported", NULL,
                      "This path does not take that method.");
        request_fail(r, &e);
    } else if (r->route->access == ROUTE_COUNTED) {
        auth_count(r, r->route->handle);
    } else {
        r->route->handle(r);
    }
}

/* Takes a stretch of the body. Returns false when the request was refused. */
static bool take_body(struct conn *c, const char *bytes, size_t n, size_t *used, bool *done)
{
    struct request *r = c->request;
    size_t before = r->body.len;
    enum chunked_result result = CHUNKED_MORE;
    if (c->chunked_in) {
        result = chunked_feed(&c->chunks, bytes, n, &r->body, used);
    } else {
        *used = n < c->body_left ? n : (size_t)c->body_left;
        buf_add(&r->body, bytes, *used);
        c->body_left -= *used;
        if (c->body_left == 0)
            result = CHUNKED_DONE;
    }
    c->http->body_bytes += r->body.len - before;
    if (result == CHUNKED_BAD)
        conn_refuse(c, 400, NULL, "The chunks of the body are malformed.");
    else if (result == CHUNKED_TOO_LONG)
        conn_refuse(c, 413, "request_too_large", "The body is too large.");
    else if (r->body.failed || c->http->body_bytes > c->http->config.bodies_bytes_max)
        conn_refuse(c, 503, "overloaded", "There is no memory for the body now.");
    else
        *done = result == CHUNKED_DONE;
    return c->state == CONN_BODY;
}

static void advance_body(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    bool done = !c->chunked_in && c->body_left == 0;
    while (!done) {
        struct evbuffer_iovec piece;
        if (evbuffer_peek(in, -1, NULL, &piece, 1) < 1 || piece.iov_len == 0)
            return;
        size_t used = 0;
        bool ok = take_body(c, piece.iov_base, piece.iov_len, &used, &done);
        evbuffer_drain(in, used);
        if (!ok)
            return;
    }
    dispatch(c);
}

/* A client may send empty lines between requests (RFC 9112, 2.2). */
static void skip_empty_lines(struct evbuffer *in)
{
    char two[2];
    while (evbuffer_copyout(in, two, 2) == 2 && memcmp(two, "\r\n", 2) == 0)
        evbuffer_drain(in, 2);
}

void conn_advance(struct conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    if (c->state == CONN_LINGER) {
        evbuffer_drain(in, evbuffer_get_length(in));
        return;
    }
    if (c->state == CONN_IDLE) {
        skip_empty_lines(in);
        if (evbuffer_get_length(in) == 0)
            return;
        c->state = CONN_HEAD;
        conn_set_timer(c, c->http->config.header_timeout_ms);
    }
    if (c->state == CONN_HEAD && !advance_head(c))
        return;
    if (c->state == CONN_BODY)
        advance_body(c);
}
