#include "router/http/conn.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "router/http/http_internal.h"
#include "router/http/request.h"
#include "router/http/route.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/json.h"
#include "runtime/base/log.h"

#define LINGER_MS 2000
#define READ_BYTES_MAX 65536u
/* The kernel's share of an answer that nobody reads. */
#define SOCKET_SEND_BYTES (256 * 1024)
/* An output buffer that grew past this for one large answer is not kept. */
#define OUT_KEEP_BYTES 4096u
/* Bodies of all requests together; one more byte is a 503. */
#define BODIES_BYTES_MAX (256u << 20)

enum conn_state {
    CONN_IDLE,
    CONN_HEAD,
    CONN_BODY,
    CONN_BUSY,
    CONN_FLUSH,
    CONN_LINGER,
    CONN_DEAD,
};

struct conn {
    struct http *http;
    struct conn *prev, *next;
    struct conn *dirty_next; /* of http.dirty */
    struct bufferevent *bev;
    struct event *timer;
    evutil_socket_t fd;
    enum conn_state state;
    bool dirty;
    bool keep_alive;
    bool chunked_out; /* the answer under way goes out in chunks */
    bool chunked_in;
    bool stream;
    bool last_chunk; /* the chunk that says the end is due */
    bool eof;        /* the client sends no more */
    size_t scanned;  /* bytes of a head that hold no end of it */
    uint64_t body_left;
    struct chunked chunks;
    struct buf out; /* not sent yet: `plain` bytes as they are, the rest is one chunk */
    size_t plain;
    struct request *request;
};

static void advance(struct conn *c);

static void mark_dirty(struct conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    c->dirty_next = c->http->dirty;
    if (!c->http->dirty)
        event_active(c->http->turn, 0, 0);
    c->http->dirty = c;
}

static void set_timer(struct conn *c, uint32_t ms)
{
    struct timeval tv = {ms / 1000, (ms % 1000) * 1000};
    evtimer_add(c->timer, &tv);
}

static size_t unsent_bytes(const struct conn *c)
{
    return evbuffer_get_length(bufferevent_get_output(c->bev));
}

/* ---- the request that a connection carries ----------------------------------------------------
 */

static void drop_body(struct request *r)
{
    r->http->body_bytes -= r->body.len;
    buf_release(&r->body);
}

void request_drop_body(struct request *r)
{
    drop_body(r);
}

static void release_request(struct conn *c)
{
    struct request *r = c->request;
    if (!r)
        return;
    c->request = NULL;
    c->http->n_requests--;
    drop_body(r);
    arena_release(&r->arena);
    free(r);
}

static bool make_request(struct conn *c)
{
    struct request *r = calloc(1, sizeof(*r));
    if (!r)
        return false;
    r->http = c->http;
    r->conn = c;
    r->start_ns = clock_mono_ns();
    arena_init(&r->arena, c->http->config.request_bytes_max);
    buf_init(&r->body, c->http->config.body_bytes_max);
    http_make_id(c->http, "req-", r->id, sizeof(r->id));
    c->request = r;
    c->http->n_requests++;
    return true;
}

/* ---- ends -------------------------------------------------------------------------------------
 */

/* The connection is over, now. Its request's owner is told. */
static void conn_close(struct conn *c)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->state == CONN_BUSY && c->request) {
        c->http->metrics.clients_gone++;
        if (c->request->gone)
            c->request->gone(c->request->ctx);
    }
    release_request(c);
    c->state = CONN_DEAD;
    event_del(c->timer);
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    mark_dirty(c);
}

static void conn_free(struct conn *c)
{
    struct http *h = c->http;
    *(c->prev ? &c->prev->next : &h->conns) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    h->n_conns--;
    event_free(c->timer);
    bufferevent_free(c->bev);
    buf_release(&c->out);
    free(c);
}

/* All is written and nothing more will be. */
static void end_output(struct conn *c)
{
    if (c->eof) {
        conn_close(c);
        return;
    }
    shutdown(c->fd, SHUT_WR);
    c->state = CONN_LINGER;
    set_timer(c, LINGER_MS);
    advance(c);
}

static void answer_written(struct conn *c)
{
    if (!c->keep_alive || c->http->stopping) {
        end_output(c);
        return;
    }
    c->state = CONN_IDLE;
    c->scanned = 0;
    set_timer(c, c->http->config.idle_timeout_ms);
    if (evbuffer_get_length(bufferevent_get_input(c->bev)) > 0)
        mark_dirty(c); /* a pipelined request: in a turn of its own */
}

/* ---- output -----------------------------------------------------------------------------------
 */

/* What is in c->out, as pieces to write. */
static int gather(struct conn *c, struct iovec iov[4], char *size_line, size_t size_line_n)
{
    int n = 0;
    size_t chunk = c->out.len - c->plain;
    if (c->plain)
        iov[n++] = (struct iovec){c->out.data, c->plain};
    if (chunk && c->chunked_out) {
        int len = snprintf(size_line, size_line_n, "%zx\r\n", chunk);
        iov[n++] = (struct iovec){size_line, (size_t)len};
    }
    if (chunk)
        iov[n++] = (struct iovec){c->out.data + c->plain, chunk};
    if (c->chunked_out && (chunk || c->last_chunk)) {
        const char *end = !c->last_chunk ? "\r\n" : chunk ? "\r\n0\r\n\r\n" : "0\r\n\r\n";
        iov[n++] = (struct iovec){(void *)end, strlen(end)};
    }
    return n;
}

/* Writes straight to the socket when nothing waits before it: one system call, where the
 * bufferevent takes three. False: the socket is broken. */
static bool write_out(struct conn *c, struct iovec *iov, int n)
{
    size_t sent = 0;
    if (unsent_bytes(c) == 0) {
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};
        ssize_t got = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return false;
        sent = got > 0 ? (size_t)got : 0;
    }
    for (int i = 0; i < n; i++) {
        size_t skip = sent < iov[i].iov_len ? sent : iov[i].iov_len;
        sent -= skip;
        if (skip < iov[i].iov_len &&
            bufferevent_write(c->bev, (char *)iov[i].iov_base + skip, iov[i].iov_len - skip))
            return false;
    }
    return true;
}

static void flush(struct conn *c)
{
    if (c->out.failed) {
        conn_close(c);
        return;
    }
    if (c->out.len || c->last_chunk) {
        struct iovec iov[4];
        char size_line[24];
        if (!write_out(c, iov, gather(c, iov, size_line, sizeof(size_line)))) {
            conn_close(c);
            return;
        }
        c->plain = 0;
        c->last_chunk = false;
        if (c->out.cap > OUT_KEEP_BYTES)
            buf_release(&c->out);
        else
            buf_clear(&c->out);
    }
    if (c->state == CONN_BUSY && unsent_bytes(c) > c->http->config.output_bytes_max) {
        c->http->metrics.clients_slow++;
        log_info("client reads too slowly", "request=%s unsent_bytes=%zu", c->request->id,
                 unsent_bytes(c));
        conn_close(c);
    } else if (c->state == CONN_FLUSH && unsent_bytes(c) == 0) {
        answer_written(c);
    }
}

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } known[] = {
        {200, "OK"},
        {204, "No Content"},
        {400, "Bad Request"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (known[i].status == status)
            return known[i].text;
    return "Unknown";
}

/* The head of the answer, but for its last, empty line. */
static void write_head(struct request *r, int status, const char *content_type)
{
    struct conn *c = r->conn;
    struct http *h = r->http;
    metrics_answer(&h->metrics, r->route, status);
    if (h->stopping)
        c->keep_alive = false;
    buf_addf(&c->out, "HTTP/1.1 %d %s\r\nDate: %s\r\nX-Request-Id: %s\r\n", status,
             status_text(status), http_date(h), r->id);
    if (content_type)
        buf_addf(&c->out, "Content-Type: %s\r\n", content_type);
    if (h->cors_origin)
        buf_addf(&c->out, "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n", h->cors_origin);
    buf_add(&c->out, r->headers, r->headers_n);
    buf_addf(&c->out, "Connection: %s\r\n", c->keep_alive ? "keep-alive" : "close");
}

static void answer_complete(struct conn *c)
{
    struct request *r = c->request;
    log_debug("answered", "request=%s path=%s ms=%.1f", r->id, r->route ? r->route->path : "-",
              (double)(clock_mono_ns() - r->start_ns) / 1e6);
    release_request(c);
    event_del(c->timer);
    c->stream = false;
    c->state = CONN_FLUSH;
    mark_dirty(c);
}

void request_header(struct request *r, const char *name, const char *value)
{
    for (const char *p = value; *p; p++)
        if (*p < 0x20 || *p > 0x7e)
            return;
    size_t room = sizeof(r->headers) - r->headers_n;
    int n = snprintf(r->headers + r->headers_n, room, "%s: %s\r\n", name, value);
    if (n > 0 && (size_t)n < room)
        r->headers_n += (size_t)n;
}

void request_reply(struct request *r, int status, const char *content_type, const struct buf *body)
{
    struct conn *c = r->conn;
    ASSERT(c->state == CONN_BUSY && !c->stream);
    c->chunked_out = false;
    write_head(r, status, body ? content_type : NULL);
    if (status != 204)
        buf_addf(&c->out, "Content-Length: %zu\r\n", body ? body->len : 0);
    buf_adds(&c->out, "\r\n");
    if (body && r->method != HTTP_HEAD)
        buf_add(&c->out, body->data, body->len);
    c->plain = c->out.len;
    answer_complete(c);
}

void request_reply_json(struct request *r, int status, const struct buf *body)
{
    if (!body->failed) {
        request_reply(r, status, "application/json", body);
        return;
    }
    struct api_error e;
    api_error_set(&e, 500, NULL, NULL, "The answer does not fit into memory.");
    request_fail(r, &e);
}

void request_fail(struct request *r, const struct api_error *e)
{
    if (e->retry_after_ms) {
        char text[24];
        snprintf(text, sizeof(text), "%u", (e->retry_after_ms + 999) / 1000);
        request_header(r, "Retry-After", text);
        snprintf(text, sizeof(text), "%u", e->retry_after_ms);
        request_header(r, "Retry-After-Ms", text);
    }
    struct buf body;
    buf_init(&body, 0);
    api_error_write(e, &body);
    request_reply(r, e->status, "application/json", body.failed ? NULL : &body);
    buf_release(&body);
}

void request_stream_start(struct request *r, const char *content_type)
{
    struct conn *c = r->conn;
    ASSERT(c->state == CONN_BUSY && !c->stream);
    if (!c->chunked_out)
        c->keep_alive = false; /* HTTP/1.0: the end of the connection is the end of the answer */
    write_head(r, 200, content_type);
    buf_adds(&c->out, "Cache-Control: no-cache\r\nX-Accel-Buffering: no\r\n");
    buf_adds(&c->out, c->chunked_out ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    c->plain = c->out.len;
    c->stream = true;
    mark_dirty(c);
}

struct buf *request_stream(struct request *r)
{
    return &r->conn->out;
}

void request_push(struct request *r)
{
    mark_dirty(r->conn);
}

void request_end(struct request *r, bool complete)
{
    struct conn *c = r->conn;
    ASSERT(c->state == CONN_BUSY && c->stream);
    c->last_chunk = c->chunked_out;
    if (!complete)
        c->keep_alive = false;
    answer_complete(c);
}

/* ---- input ------------------------------------------------------------------------------------
 */

/* Answers with an error and ends the connection: what the client still sends is not understood. */
static void refuse(struct conn *c, int status, const char *code, const char *message)
{
    if (!c->request && !make_request(c)) {
        conn_close(c);
        return;
    }
    c->state = CONN_BUSY;
    c->keep_alive = false;
    struct api_error e;
    api_error_set(&e, status, code, NULL, "%s", message);
    if (status == 503)
        e.retry_after_ms = 1000;
    request_fail(c->request, &e);
}

static bool is_plain_id(struct slice s)
{
    if (s.n == 0 || s.n >= REQUEST_ID_BYTES)
        return false;
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] <= 0x20 || s.p[i] > 0x7e || strchr("\"\\<>,;", s.p[i]))
            return false;
    return true;
}

uint64_t session_hash_of(const char *s, size_t n)
{
    uint64_t x = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        x = (x ^ (unsigned char)s[i]) * 1099511628211u;
    return x ? x : 1;
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
    struct slice trace = head_find(h, "traceparent");
    if (trace.n == 55 && is_plain_id(trace)) /* W3C Trace Context, version 00 */
        r->traceparent = arena_strndup(&r->arena, trace.p, trace.n);
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
    r->route = route_find(h->path, &rest);
    keep_headers(r, h);
    if (rest.n)
        r->rest = decode_path(&r->arena, rest);
    if (h->content_length > body_max) {
        char text[80];
        snprintf(text, sizeof(text), "The body is larger than %u bytes.", body_max);
        refuse(c, 413, "request_too_large", text);
        return false;
    }
    if (h->body_coded) {
        refuse(c, 415, NULL, "Content-Encoding is not served: send the body as it is.");
        return false;
    }
    if (h->expects_continue && (h->chunked || h->content_length)) {
        buf_adds(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        c->plain = c->out.len;
        mark_dirty(c);
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
        refuse(c, 431, "headers_too_large", "The request's headers are too large.");
        return false;
    }
    if (end.pos < 0)
        return false;
    size_t head_n = (size_t)end.pos + 4;
    const char *bytes = (const char *)evbuffer_pullup(in, (ev_ssize_t)head_n);
    if (!bytes || !make_request(c)) {
        conn_close(c);
        return false;
    }
    struct head h;
    const char *why = NULL;
    int status = head_parse(bytes, head_n, &h, &why);
    bool ok = false;
    if (status)
        refuse(c, status, NULL, why);
    else
        ok = accept_head(c, &h);
    evbuffer_drain(in, head_n);
    if (!ok)
        return false;
    chunked_init(&c->chunks);
    c->state = CONN_BODY;
    set_timer(c, c->http->config.body_timeout_ms);
    return true;
}

static void dispatch(struct conn *c)
{
    struct request *r = c->request;
    struct api_error e;
    event_del(c->timer);
    c->state = CONN_BUSY;
    if (!r->route) {
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
        refuse(c, 400, NULL, "The chunks of the body are malformed.");
    else if (result == CHUNKED_TOO_LONG)
        refuse(c, 413, "request_too_large", "The body is too large.");
    else if (r->body.failed || c->http->body_bytes > BODIES_BYTES_MAX)
        refuse(c, 503, "overloaded", "There is no memory for the body now.");
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

/* Does what the input allows, one request at most. */
static void advance(struct conn *c)
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
        set_timer(c, c->http->config.header_timeout_ms);
    }
    if (c->state == CONN_HEAD && !advance_head(c))
        return;
    if (c->state == CONN_BODY)
        advance_body(c);
}

/* ---- events -----------------------------------------------------------------------------------
 */

static void on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    advance(arg);
}

static void on_written(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;
    (void)bev;
    if (c->state == CONN_FLUSH && c->out.len == 0 && !c->last_chunk && unsent_bytes(c) == 0)
        answer_written(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct conn *c = arg;
    (void)bev;
    /* A client that has shut down its sending side may still read the rest of its answer. */
    if ((what & BEV_EVENT_EOF) && c->state == CONN_FLUSH) {
        c->keep_alive = false;
        c->eof = true;
        return;
    }
    conn_close(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct conn *c = arg;
    (void)fd;
    (void)what;
    if (c->state == CONN_HEAD || c->state == CONN_BODY)
        refuse(c, 408, "request_timeout", "The request did not arrive in time.");
    else
        conn_close(c);
}

static struct conn *conn_new(struct http *h, evutil_socket_t fd)
{
    struct conn *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->http = h;
    c->fd = fd;
    buf_init(&c->out, 0);
    c->timer = evtimer_new(h->base, on_timer, c);
    c->bev = c->timer ? bufferevent_socket_new(h->base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
    if (c->bev)
        return c;
    if (c->timer)
        event_free(c->timer);
    free(c);
    return NULL;
}

static void refuse_conn(struct http *h, evutil_socket_t fd)
{
    static const char body[] = "{\"error\":{\"message\":\"The server has too many "
                               "connections.\",\"type\":\"server_error\","
                               "\"param\":null,\"code\":\"too_many_connections\"}}";
    char text[400];
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s",
                     sizeof(body) - 1, body);
    h->metrics.conns_refused++;
    (void)!send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(fd, SHUT_WR);
    evutil_closesocket(fd);
}

void conn_accept(struct http *h, evutil_socket_t fd)
{
    int on = 1;
    int send_bytes = SOCKET_SEND_BYTES;
    h->metrics.conns_taken++;
    if (h->n_conns >= h->config.connections_max || h->stopping) {
        refuse_conn(h, fd);
        return;
    }
    struct conn *c = conn_new(h, fd);
    if (!c) {
        refuse_conn(h, fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes));
    struct timeval write_timeout = {h->config.write_timeout_ms / 1000,
                                    (h->config.write_timeout_ms % 1000) * 1000};
    bufferevent_set_timeouts(c->bev, NULL, &write_timeout);
    bufferevent_setwatermark(c->bev, EV_READ, 0, h->config.header_bytes_max + READ_BYTES_MAX);
    bufferevent_set_max_single_read(c->bev, READ_BYTES_MAX);
    bufferevent_setcb(c->bev, on_read, on_written, on_event, c);
    c->next = h->conns;
    if (h->conns)
        h->conns->prev = c;
    h->conns = c;
    h->n_conns++;
    set_timer(c, h->config.idle_timeout_ms);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

void conn_turn(struct http *h)
{
    struct conn *list = h->dirty;
    h->dirty = NULL;
    while (list) {
        struct conn *c = list;
        list = c->dirty_next;
        c->dirty = false;
        if (c->state != CONN_DEAD)
            flush(c);
        if (c->state == CONN_IDLE)
            advance(c);
        if (c->state == CONN_DEAD && !c->dirty)
            conn_free(c);
    }
}

uint32_t conn_count_unwritten(const struct http *h)
{
    uint32_t n = 0;
    for (const struct conn *c = h->conns; c; c = c->next)
        n += c->state == CONN_FLUSH;
    return n;
}

void conn_close_idle(struct http *h)
{
    for (struct conn *c = h->conns; c; c = c->next)
        if (c->state == CONN_IDLE)
            conn_close(c);
}

void conn_free_all(struct http *h)
{
    h->dirty = NULL;
    for (struct conn *c = h->conns; c; c = c->next) {
        c->dirty = true; /* nobody looks at the list any more */
        conn_close(c);
    }
    while (h->conns)
        conn_free(h->conns);
}
