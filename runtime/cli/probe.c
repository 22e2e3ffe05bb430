#include "runtime/cli/probe.h"

#include <event2/event.h>
#include <event2/http.h>
#include <string.h>

#include "runtime/base/err.h"

#define PROBE_EVERY_MS 20
#define PROBE_TIMEOUT_S 2

static void ask_again(struct probe *p)
{
    struct timeval tv = {.tv_sec = 0, .tv_usec = PROBE_EVERY_MS * 1000};
    evtimer_add(p->again, &tv);
}

static void on_answer(struct evhttp_request *req, void *arg)
{
    struct probe *p = arg;
    if (req && evhttp_request_get_response_code(req) == HTTP_OK)
        p->on_ready(p->ctx);
    else
        ask_again(p);
}

static void on_time(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct probe *p = arg;
    if (p->conn)
        evhttp_connection_free(p->conn);
    p->conn = evhttp_connection_base_new(p->base, NULL, p->host, p->port);
    struct evhttp_request *req = p->conn ? evhttp_request_new(on_answer, p) : NULL;
    if (!req) {
        ask_again(p);
        return;
    }
    evhttp_connection_set_timeout(p->conn, PROBE_TIMEOUT_S);
    evhttp_add_header(evhttp_request_get_output_headers(req), "Host", p->host);
    evhttp_add_header(evhttp_request_get_output_headers(req), "Connection", "close");
    if (evhttp_make_request(p->conn, req, EVHTTP_REQ_GET, "/ready") != 0)
        ask_again(p);
}

int probe_start(struct probe *p, struct event_base *base, const char *host, uint16_t port,
                probe_ready_fn *on_ready, void *ctx)
{
    memset(p, 0, sizeof *p);
    p->base = base;
    p->host = host;
    p->port = port;
    p->on_ready = on_ready;
    p->ctx = ctx;
    p->again = evtimer_new(base, on_time, p);
    if (!p->again)
        return ERR_NOMEM;
    ask_again(p);
    return 0;
}

void probe_release(struct probe *p)
{
    if (p->again)
        event_free(p->again);
    if (p->conn)
        evhttp_connection_free(p->conn);
    memset(p, 0, sizeof *p);
}
