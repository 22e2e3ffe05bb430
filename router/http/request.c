/* request.c: the life of a request, and how its answer is written. */
#include "router/http/request.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/http/access.h"
#include "router/http/conn_internal.h"
#include "router/http/http_internal.h"
#include "router/http/route.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/fnv.h"

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

void conn_release_request(struct conn *c)
{
    struct request *r = c->request;
    if (!r)
        return;
    c->request = NULL;
    access_end(r);
    c->http->n_requests--;
    grant_settle(&r->grant, r->used_tokens);
    if (r->tenant)
        tenant_put(r->tenant);
    drop_body(r);
    arena_release(&r->arena);
    free(r);
}

bool conn_make_request(struct conn *c)
{
    struct request *r = calloc(1, sizeof(*r));
    if (!r)
        return false;
    r->http = c->http;
    r->conn = c;
    r->start_ns = clock_mono_ns();
    r->journal.start_ns = r->start_ns;
    arena_init(&r->arena, c->http->config.request_bytes_max);
    buf_init(&r->body, c->http->config.body_bytes_max);
    http_make_id(c->http, "req-", r->id, sizeof(r->id));
    c->request = r;
    c->http->n_requests++;
    return true;
}

uint64_t session_hash_of(const char *s, size_t n)
{
    uint64_t x = fnv1a(FNV_SEED, s, n);
    return x ? x : 1;
}

/* ---- answers ------------------------------------------------------------------------------------
 */

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } known[] = {
        {200, "OK"},
        {204, "No Content"},
        {304, "Not Modified"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
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
    r->journal.status = status;
    if (h->stopping || ++c->n_answers >= h->config.connection_requests_max)
        c->keep_alive = false;
    struct buf *out = &c->out;
    buf_adds(out, "HTTP/1.1 ");
    buf_adduint(out, (uint64_t)status);
    buf_addc(out, ' ');
    buf_adds(out, status_text(status));
    buf_adds(out, "\r\nDate: ");
    buf_adds(out, http_date(h));
    buf_adds(out, "\r\nX-Request-Id: ");
    buf_adds(out, r->id);
    if (content_type) {
        buf_adds(out, "\r\nContent-Type: ");
        buf_adds(out, content_type);
    }
    if (h->cors_origin) {
        buf_adds(out, "\r\nAccess-Control-Allow-Origin: ");
        buf_adds(out, h->cors_origin);
        buf_adds(out, "\r\nVary: Origin");
    }
    buf_adds(out, "\r\n");
    buf_add(out, r->headers, r->headers_n);
    buf_adds(out, c->keep_alive ? "Connection: keep-alive\r\n" : "Connection: close\r\n");
}

static void answer_complete(struct conn *c)
{
    conn_release_request(c);
    event_del(c->timer);
    c->stream = false;
    c->state = CONN_FLUSH;
    conn_mark(c);
}

void request_header(struct request *r, const char *name, const char *value)
{
    for (const char *p = value; *p; p++)
        if (*p < 0x20 || *p > 0x7e)
            return;
    size_t name_n = strlen(name), value_n = strlen(value), room = sizeof(r->headers) - r->headers_n;
    if (name_n > room || value_n > room || name_n + value_n + 4 > room)
        return;
    char *p = r->headers + r->headers_n;
    p = mempcpy(p, name, name_n);
    p = mempcpy(p, ": ", 2);
    p = mempcpy(p, value, value_n);
    mempcpy(p, "\r\n", 2);
    r->headers_n += name_n + value_n + 4;
}

void request_reply(struct request *r, int status, const char *content_type, const struct buf *body)
{
    struct conn *c = r->conn;
    ASSERT(c->state == CONN_BUSY && !c->stream);
    c->chunked_out = false;
    write_head(r, status, body ? content_type : NULL);
    if (status != 204 && status != 304) {
        buf_adds(&c->out, "Content-Length: ");
        buf_adduint(&c->out, body ? body->len : 0);
        buf_adds(&c->out, "\r\n");
    }
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
    if (e->never)
        request_header(r, "X-Should-Retry", "false");
    if (e->retry_after_ms) {
        char text[24];
        snprintf(text, sizeof(text), "%u", (e->retry_after_ms + 999) / 1000);
        request_header(r, "Retry-After", text);
        snprintf(text, sizeof(text), "%u", e->retry_after_ms);
        request_header(r, "Retry-After-Ms", text);
    }
    struct buf body;
    if (!r->journal.error)
        r->journal.error = access_error(e->status);
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
    conn_mark(c);
}

struct buf *request_stream(struct request *r)
{
    return &r->conn->out;
}

void request_push(struct request *r)
{
    conn_mark(r->conn);
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

void conn_refuse(struct conn *c, int status, const char *code, const char *message)
{
    if (!c->request && !conn_make_request(c)) {
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
