#include "router/http/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "router/http/conn.h"
#include "router/http/http_internal.h"
#include "router/model_text.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/hex.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"

#define LISTEN_BACKLOG 1024
/* The kernel's share of an answer that nobody reads. */
#define SOCKET_SEND_BYTES (256 * 1024)
/* Out of file descriptors: connections wait in the backlog for so long. */
#define ACCEPT_PAUSE_MS 100
#define ID_BYTES 12 /* of the router, and of the answer */

struct http_config http_config_default(void)
{
    return (struct http_config){
        .address = "127.0.0.1",
        .port = 8080,
        .connections_max = 16384,
        .client_connections_max = 16384,
        .connection_requests_max = 100000,
        .header_bytes_max = 32 << 10,
        .body_bytes_max = 4 << 20,
        .bodies_bytes_max = 256 << 20,
        .request_bytes_max = 32 << 20,
        .output_bytes_max = 1 << 20,
        .header_timeout_ms = 10000,
        .body_timeout_ms = 30000,
        .idle_timeout_ms = 75000,
        .write_timeout_ms = 20000,
        .choices_max = 128,
        .stop_max = 16,
        .stop_bytes_max = 1024,
        .explorer = true,
        .metrics = true,
        .viewers_max = 32,
    };
}

void http_make_id(struct http *h, const char *prefix, char *out, size_t n)
{
    uint8_t bytes[ID_BYTES];
    size_t at = strlen(prefix);
    ASSERT(at + 2 * ID_BYTES < n);
    uint64_t id = ++h->ids;
    for (size_t i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(h->instance >> (24 - 8 * i));
    for (size_t i = 0; i < 8; i++)
        bytes[4 + i] = (uint8_t)(id >> (56 - 8 * i));
    hex_write(bytes, sizeof(bytes), mempcpy(out, prefix, at));
}

const char *http_date(struct http *h)
{
    int64_t now_s = clock_wall_s();
    if (now_s != h->date_s) {
        time_t t = (time_t)now_s;
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(h->date, sizeof(h->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        h->date_s = now_s;
    }
    return h->date;
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    conn_turn(arg);
}

static void on_retry_accept(evutil_socket_t fd, short what, void *arg)
{
    struct http *h = arg;
    (void)fd;
    (void)what;
    if (h->listener)
        evconnlistener_enable(h->listener);
}

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int n,
                      void *arg)
{
    (void)l;
    (void)n;
    conn_accept(arg, fd, sa);
}

static void on_accept_error(struct evconnlistener *l, void *arg)
{
    struct http *h = arg;
    struct timeval pause = {0, ACCEPT_PAUSE_MS * 1000};
    log_warn("cannot accept", "error=%s pause_ms=%d", strerror(errno), ACCEPT_PAUSE_MS);
    evconnlistener_disable(l);
    evtimer_add(h->retry_accept, &pause);
}

/* Fills sa; its length, or 0 when the address is not a numeric one. */
static int parse_address(const char *text, uint16_t port, struct sockaddr_storage *sa)
{
    memset(sa, 0, sizeof(*sa));
    struct sockaddr_in *v4 = (struct sockaddr_in *)sa;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)sa;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return sizeof(*v4);
    }
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return sizeof(*v6);
    }
    return 0;
}

/* Connections inherit these. */
static int set_options(struct http *h, struct err *e)
{
    evutil_socket_t fd = evconnlistener_get_fd(h->listener);
    int on = 1;
    int send_bytes = SOCKET_SEND_BYTES;
    unsigned timeout_ms = h->config.write_timeout_ms; /* of what the peer does not acknowledge */
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) ||
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes)) ||
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms)))
        return err_sys(e, errno, "cannot set up the listening socket");
    return 0;
}

static int listen_on(struct http *h, struct err *e)
{
    struct sockaddr_storage sa;
    int n = parse_address(h->address, h->config.port, &sa);
    if (n == 0)
        return err_set(e, ERR_CONFIG, "not a numeric address: %s", h->address);
    errno = 0;
    h->listener = evconnlistener_new_bind(
        h->base, on_accept, h, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE,
        LISTEN_BACKLOG, (struct sockaddr *)&sa, n);
    if (!h->listener)
        return err_sys(e, errno, "cannot listen on %s port %u", h->address, h->config.port);
    evconnlistener_set_error_cb(h->listener, on_accept_error);
    if (set_options(h, e))
        return ERR_IO;
    socklen_t len = sizeof(sa);
    if (getsockname(evconnlistener_get_fd(h->listener), (struct sockaddr *)&sa, &len))
        return err_sys(e, errno, "cannot tell the port");
    h->port = ntohs(sa.ss_family == AF_INET ? ((struct sockaddr_in *)&sa)->sin_port
                                            : ((struct sockaddr_in6 *)&sa)->sin6_port);
    return 0;
}

static int check_config(const struct http_config *c, struct err *e)
{
    if (!c->address || !c->connections_max || !c->client_connections_max ||
        !c->connection_requests_max || !c->header_bytes_max || !c->body_bytes_max ||
        !c->bodies_bytes_max || !c->request_bytes_max || !c->output_bytes_max ||
        !c->header_timeout_ms || !c->body_timeout_ms || !c->idle_timeout_ms ||
        !c->write_timeout_ms || !c->choices_max || !c->stop_max || !c->stop_bytes_max)
        return err_set(e, ERR_CONFIG, "a limit of the HTTP server is missing or zero");
    return 0;
}

int http_open(struct event_base *base, const struct http_config *config, struct pool *pool,
              const struct model_texts *texts, struct http **out, struct err *e)
{
    int code = check_config(config, e);
    if (code)
        return code;
    struct http *h = calloc(1, sizeof(*h));
    if (!h)
        return err_set(e, ERR_NOMEM, "no memory for the HTTP server");
    h->base = base;
    h->config = *config;
    h->pool = pool;
    h->sampled = config->otlp != NULL;
    h->texts = texts;
    rng_entropy(&h->instance, sizeof(h->instance));
    rng_entropy(&h->rng, sizeof(h->rng));
    buf_init(&h->text, 0);
    buf_init(&h->piece, 0);
    h->address = strdup(config->address);
    h->cors_origin = config->cors_origin ? strdup(config->cors_origin) : NULL;
    h->turn = event_new(base, -1, 0, on_turn, h);
    h->retry_accept = evtimer_new(base, on_retry_accept, h);
    if (!h->address || (config->cors_origin && !h->cors_origin) || !h->turn || !h->retry_accept)
        code = err_set(e, ERR_NOMEM, "no memory for the HTTP server");
    if (!code)
        code = metrics_init(&h->metrics, texts->n, e);
    if (!code)
        code = clients_init(&h->clients, config->connections_max, e);
    if (!code)
        code = lobby_open(&h->lobby, base, texts, e);
    if (!code)
        code = explorer_open(h, e);
    if (!code)
        code = listen_on(h, e);
    if (code) {
        http_free(h);
        return code;
    }
    *out = h;
    return 0;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    if (h->listener)
        evconnlistener_free(h->listener);
    conn_free_all(h);
    clients_release(&h->clients);
    lobby_close(&h->lobby);
    explorer_close(h);
    if (h->turn)
        event_free(h->turn);
    if (h->retry_accept)
        event_free(h->retry_accept);
    metrics_release(&h->metrics);
    buf_release(&h->text);
    buf_release(&h->piece);
    free(h->address);
    free(h->cors_origin);
    free(h);
}

uint16_t http_port(const struct http *h)
{
    return h->port;
}

void http_stop_accepting(struct http *h)
{
    if (h->stopping)
        return;
    h->stopping = true;
    evtimer_del(h->retry_accept);
    evconnlistener_free(h->listener);
    h->listener = NULL;
    explorer_stop(h);
    conn_close_idle(h);
}

uint32_t http_requests_running(const struct http *h)
{
    return h->n_requests + conn_count_unwritten(h);
}
