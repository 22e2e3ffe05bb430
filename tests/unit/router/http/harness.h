/* harness.h: a server over the fake pool, and a client, in one thread: whatever waits lets the
 * event loop run. */
#ifndef ARGOSY_TESTS_HTTP_HARNESS_H
#define ARGOSY_TESTS_HTTP_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "router/http/http.h"
#include "runtime/base/buf.h"
#include "runtime/base/clock.h"
#include "tests/unit/router/http/fake_pool.h"
#include "tests/unit/router/http/tiny_model.h"

#define WAIT_MS 5000

static struct server {
    struct event_base *base;
    struct model_texts texts;
    struct http_config config;
    struct http *http;
} server;

static void server_open(void)
{
    struct err e = {0};
    server.config.port = 0;
    if (http_open(server.base, &server.config, NULL, &server.texts, &server.http, &e) < 0)
        fail_msg("%s", e.msg);
}

static int server_setup(void **state)
{
    (void)state;
    if (!server.texts.items)
        tiny_model_init(&server.texts);
    server.base = event_base_new();
    server.config = http_config_default();
    fake_reset(server.base);
    fake_say("hello");
    server_open();
    return 0;
}

/* With the limits that the test has set. */
static inline void server_reopen(void)
{
    http_free(server.http);
    server_open();
}

static inline int server_teardown(void **state)
{
    (void)state;
    http_free(server.http);
    assert_int_equal(fake.live, 0);
    event_base_free(server.base);
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    model_texts_release(&server.texts);
    return 0;
}

static void pump(void)
{
    event_base_loop(server.base, EVLOOP_NONBLOCK);
}

static inline void pump_ms(uint32_t ms)
{
    uint64_t until = clock_mono_ms() + ms;
    while (clock_mono_ms() < until)
        pump();
}

/* ---- the client -------------------------------------------------------------------------------
 */

static inline int dial_with(int receive_bytes)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(http_port(server.http))};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    inet_pton(AF_INET, "127.0.0.1", &sa.sin_addr);
    if (receive_bytes)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static int dial(void)
{
    return dial_with(0);
}

/* False: the server does not take it. */
static bool send_bytes(int fd, const char *bytes, size_t n)
{
    uint64_t until = clock_mono_ms() + WAIT_MS;
    while (n && clock_mono_ms() < until) {
        ssize_t got = send(fd, bytes, n, MSG_NOSIGNAL);
        if (got < 0 && errno != EAGAIN)
            return false;
        if (got > 0) {
            bytes += got;
            n -= (size_t)got;
        }
        pump();
    }
    return n == 0;
}

static bool send_text(int fd, const char *text)
{
    return send_bytes(fd, text, strlen(text));
}

struct reply {
    int status;
    struct buf raw;  /* as it came, from the status line on */
    struct buf body; /* without chunks */
    bool complete, closed, chunked;
};

static void reply_release(struct reply *r)
{
    buf_release(&r->raw);
    buf_release(&r->body);
}

/* The value of a header, or NULL. Valid until the next call. */
static const char *reply_header(const struct reply *r, const char *name)
{
    static char value[512];
    char line[128];
    snprintf(line, sizeof(line), "\r\n%s: ", name);
    const char *p = strcasestr(buf_str(&r->raw), line);
    const char *end = strstr(buf_str(&r->raw), "\r\n\r\n");
    if (!p || p >= end)
        return NULL;
    p += strlen(line);
    snprintf(value, sizeof(value), "%.*s", (int)(strstr(p, "\r\n") - p), p);
    return value;
}

/* Reads chunks from p; the bytes used, or 0 when they are not all there. */
static size_t dechunk(struct reply *r, const char *p, const char *end)
{
    const char *start = p;
    buf_clear(&r->body);
    for (;;) {
        char *after;
        const char *line = memmem(p, (size_t)(end - p), "\r\n", 2);
        if (!line)
            return 0;
        unsigned long n = strtoul(p, &after, 16);
        assert_ptr_equal(after, line);
        if ((size_t)(end - line) < n + 4)
            return 0;
        buf_add(&r->body, line + 2, n);
        assert_memory_equal(line + 2 + n, "\r\n", 2);
        p = line + 4 + n;
        if (n == 0)
            return (size_t)(p - start);
    }
}

/* Parses what is in raw. The bytes that the reply takes, or 0. */
static size_t reply_parse(struct reply *r, bool no_body)
{
    if (r->raw.len == 0)
        return 0;
    const char *raw = buf_str(&r->raw);
    const char *end = raw + r->raw.len;
    const char *body = memmem(raw, r->raw.len, "\r\n\r\n", 4);
    if (!body)
        return 0;
    body += 4;
    r->status = atoi(raw + 9);
    const char *length = reply_header(r, "Content-Length");
    size_t n = length ? (size_t)atol(length) : 0;
    r->chunked = reply_header(r, "Transfer-Encoding") != NULL;
    if (r->status == 100 || no_body)
        return (size_t)(body - raw);
    if (r->chunked) {
        size_t used = dechunk(r, body, end);
        return used ? (size_t)(body - raw) + used : 0;
    }
    if ((size_t)(end - body) < n)
        return 0;
    buf_clear(&r->body);
    buf_add(&r->body, body, n);
    return (size_t)(body - raw) + n;
}

/* Reads one reply; what is behind it stays in `rest`, where the next call finds it. */
static void read_reply(int fd, struct reply *r, struct buf *rest, bool no_body)
{
    uint64_t until = clock_mono_ms() + WAIT_MS;
    memset(r, 0, sizeof(*r));
    buf_init(&r->raw, 0);
    buf_init(&r->body, 0);
    if (rest) {
        buf_add(&r->raw, rest->data, rest->len);
        buf_clear(rest);
    }
    while (clock_mono_ms() < until) {
        char bytes[16384];
        size_t used = reply_parse(r, no_body);
        if (used) {
            r->complete = true;
            if (rest)
                buf_add(rest, r->raw.data + used, r->raw.len - used);
            else
                assert_int_equal(used, r->raw.len);
            r->raw.len = used;
            return;
        }
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
        if (n > 0) {
            buf_add(&r->raw, bytes, (size_t)n);
        } else if (n == 0 || errno != EAGAIN) {
            r->closed = true;
            return;
        } else {
            pump();
        }
    }
}

/* True once the server has closed the connection. */
static inline bool is_closed(int fd)
{
    uint64_t until = clock_mono_ms() + WAIT_MS;
    while (clock_mono_ms() < until) {
        char bytes[4096];
        ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return true;
        pump();
    }
    return false;
}

/* One request on a connection of its own. */
static inline void exchange(const char *request, struct reply *r)
{
    int fd = dial();
    send_text(fd, request);
    read_reply(fd, r, NULL, strncmp(request, "HEAD", 4) == 0);
    close(fd);
}

static void post_bytes(const char *path, const char *body, size_t n, struct reply *r)
{
    char head[256];
    int fd = dial();
    snprintf(head, sizeof(head),
             "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n",
             path, n);
    send_text(fd, head);
    send_bytes(fd, body, n);
    read_reply(fd, r, NULL, false);
    close(fd);
}

static inline void post(const char *path, const char *body, struct reply *r)
{
    post_bytes(path, body, strlen(body), r);
}

/* ---- looking at JSON --------------------------------------------------------------------------
 */

/* "choices.0.text" in an object; NULL when it is not there. */
static inline struct json_object *json_at(struct json_object *o, const char *path)
{
    char copy[128];
    snprintf(copy, sizeof(copy), "%s", path);
    for (char *save = NULL, *p = strtok_r(copy, ".", &save); p && o; p = strtok_r(NULL, ".", &save))
        o = json_object_is_type(o, json_type_array) ? json_object_array_get_idx(o, (size_t)atoi(p))
                                                    : json_object_object_get(o, p);
    return o;
}

static inline const char *str_at(struct json_object *o, const char *path)
{
    struct json_object *v = json_at(o, path);
    return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "(none)";
}

static inline int64_t int_at(struct json_object *o, const char *path)
{
    struct json_object *v = json_at(o, path);
    assert_true(json_object_is_type(v, json_type_int));
    return json_object_get_int64(v);
}

static inline struct json_object *reply_json(const struct reply *r)
{
    struct json_object *o = json_tokener_parse(buf_str(&r->body));
    if (!o)
        fail_msg("not JSON: %s", buf_str(&r->body));
    return o;
}

#endif
