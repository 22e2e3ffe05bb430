#include "router/http/conn.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "router/http/conn_internal.h"
#include "router/http/http_internal.h"
#include "router/http/request.h"
#include "runtime/base/log.h"

#define LINGER_MS 2000
#define READ_BYTES_MAX 65536u
/* An output buffer that grew past this for one large answer is not kept. */
#define OUT_KEEP_BYTES 4096u
#define FLAT_BYTES 2048u /* sent in one piece */

void conn_mark(struct conn *c)
{
    if (c->dirty)
        return;
    c->dirty = true;
    c->dirty_next = c->http->dirty;
    if (!c->http->dirty)
        event_active(c->http->turn, 0, 0);
    c->http->dirty = c;
}

void conn_set_timer(struct conn *c, uint32_t ms)
{
    struct timeval tv = {ms / 1000, (ms % 1000) * 1000};
    evtimer_add(c->timer, &tv);
}

size_t conn_unsent_bytes(const struct conn *c)
{
    return evbuffer_get_length(bufferevent_get_output(c->bev));
}

/* ---- ends -------------------------------------------------------------------------------------
 */

void conn_close(struct conn *c)
{
    if (c->state == CONN_DEAD)
        return;
    if (c->state == CONN_BUSY && c->request) {
        c->http->metrics.clients_gone++;
        c->request->journal.error = "client_gone";
        if (!c->request->journal.status)
            c->request->journal.status = 499; /* nginx's: it went away before there was one */
        if (c->request->gone)
            c->request->gone(c->request->ctx);
    }
    conn_release_request(c);
    c->state = CONN_DEAD;
    event_del(c->timer);
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    conn_mark(c);
}

static void conn_free(struct conn *c)
{
    struct http *h = c->http;
    *(c->prev ? &c->prev->next : &h->conns) = c->next;
    if (c->next)
        c->next->prev = c->prev;
    h->n_conns--;
    clients_leave(&h->clients, c->client);
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
    conn_set_timer(c, LINGER_MS);
    conn_advance(c);
}

static void answer_written(struct conn *c)
{
    if (!c->keep_alive || c->http->stopping) {
        end_output(c);
        return;
    }
    c->state = CONN_IDLE;
    c->scanned = 0;
    conn_set_timer(c, c->http->config.idle_timeout_ms);
    if (evbuffer_get_length(bufferevent_get_input(c->bev)) > 0)
        conn_mark(c); /* a pipelined request: in a turn of its own */
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

/* One system call. The pieces of an event are copied together: a few hundred bytes cost less than a
 * list of them costs the kernel (a stream's CPU is mostly this call). */
static ssize_t send_pieces(evutil_socket_t fd, struct iovec *iov, int n)
{
    char flat[FLAT_BYTES];
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        if (iov[i].iov_len > sizeof(flat) - total) {
            struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)n};
            return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        memcpy(flat + total, iov[i].iov_base, iov[i].iov_len);
        total += iov[i].iov_len;
    }
    return send(fd, flat, total, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Writes straight to the socket when nothing waits before it, where the bufferevent takes three
 * system calls. False: the socket is broken. *unsent is what waits afterwards. */
static bool write_out(struct conn *c, struct iovec *iov, int n, size_t *unsent)
{
    size_t sent = 0;
    *unsent = conn_unsent_bytes(c);
    if (*unsent == 0) {
        ssize_t got = send_pieces(c->fd, iov, n);
        if (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return false;
        sent = got > 0 ? (size_t)got : 0;
    }
    for (int i = 0; i < n; i++) {
        size_t skip = sent < iov[i].iov_len ? sent : iov[i].iov_len;
        sent -= skip;
        if (skip == iov[i].iov_len)
            continue;
        if (bufferevent_write(c->bev, (char *)iov[i].iov_base + skip, iov[i].iov_len - skip))
            return false;
        *unsent += iov[i].iov_len - skip;
    }
    return true;
}

static void flush(struct conn *c)
{
    size_t unsent;
    if (c->out.failed) {
        conn_close(c);
        return;
    }
    if (c->out.len || c->last_chunk) {
        struct iovec iov[4];
        char size_line[24];
        if (!write_out(c, iov, gather(c, iov, size_line, sizeof(size_line)), &unsent)) {
            conn_close(c);
            return;
        }
        c->plain = 0;
        c->last_chunk = false;
        if (c->out.cap > OUT_KEEP_BYTES)
            buf_release(&c->out);
        else
            buf_clear(&c->out);
    } else {
        unsent = conn_unsent_bytes(c);
    }
    if (c->state == CONN_BUSY && unsent > c->http->config.output_bytes_max) {
        c->http->metrics.clients_slow++;
        log_info("client reads too slowly", "request=%s unsent_bytes=%zu", c->request->id, unsent);
        conn_close(c);
    } else if (c->state == CONN_FLUSH && unsent == 0) {
        answer_written(c);
    }
}

/* ---- events -----------------------------------------------------------------------------------
 */

static void on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    conn_advance(arg);
}

static void on_written(struct bufferevent *bev, void *arg)
{
    struct conn *c = arg;
    (void)bev;
    if (c->state == CONN_FLUSH && c->out.len == 0 && !c->last_chunk && conn_unsent_bytes(c) == 0)
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
        conn_refuse(c, 408, "request_timeout", "The request did not arrive in time.");
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

static void refuse_conn(struct http *h, evutil_socket_t fd, bool by_client)
{
    char body[200], text[480];
    int n = snprintf(body, sizeof(body),
                     "{\"error\":{\"message\":\"%s\",\"type\":\"%s\",\"param\":null,"
                     "\"code\":\"too_many_connections\"}}",
                     by_client ? "This client has too many connections."
                               : "The server has too many connections.",
                     by_client ? "rate_limit_error" : "server_error");
    n = snprintf(text, sizeof(text),
                 "HTTP/1.1 %s\r\nContent-Type: application/json\r\n"
                 "Content-Length: %d\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s",
                 by_client ? "429 Too Many Requests" : "503 Service Unavailable", n, body);
    h->metrics.conns_refused++;
    (void)!send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(fd, SHUT_WR);
    evutil_closesocket(fd);
}

void conn_accept(struct http *h, evutil_socket_t fd, const struct sockaddr *from)
{
    bool by_client = false;
    h->metrics.conns_taken++;
    struct client *client = NULL;
    if (h->n_conns < h->config.connections_max && !h->stopping)
        client = clients_join(&h->clients, from, h->config.client_connections_max, &by_client);
    struct conn *c = client ? conn_new(h, fd) : NULL;
    if (!c) {
        if (client)
            clients_leave(&h->clients, client);
        refuse_conn(h, fd, by_client);
        return;
    }
    c->client = client;
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
    conn_set_timer(c, h->config.idle_timeout_ms);
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
            conn_advance(c);
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
    for (struct conn *c = h->conns, *next; c; c = next) {
        next = c->next;
        conn_free(c);
    }
}
