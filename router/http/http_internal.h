/* http_internal.h: the server's own state, for the files of this folder. */
#ifndef ARGOSY_ROUTER_HTTP_HTTP_INTERNAL_H
#define ARGOSY_ROUTER_HTTP_HTTP_INTERNAL_H

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "router/http/clients.h"
#include "router/http/explorer.h"
#include "router/http/http.h"
#include "router/http/lobby.h"
#include "router/http/metrics.h"
#include "runtime/base/buf.h"
#include "runtime/base/rng.h"

struct conn;
struct evconnlistener;

struct http {
    struct event_base *base;
    struct http_config config;
    char *address;
    char *cors_origin;
    struct pool *pool;
    const struct model_texts *texts;
    struct evconnlistener *listener;
    uint16_t port;
    bool stopping;
    uint64_t instance; /* random: keeps ids of two routers apart */
    uint64_t ids;      /* counted up for each id that is made */

    struct conn *conns; /* all that live, doubly linked */
    struct conn *dirty; /* to be looked at by `turn` */
    struct event *turn; /* runs once at the end of a loop turn in which a conn was marked */
    struct event *retry_accept;
    struct lobby lobby;
    struct clients clients;
    uint32_t n_conns;
    uint32_t n_requests;
    uint64_t body_bytes; /* of all requests together */

    bool sampled;    /* traces that begin here are recorded */
    struct rng rng;  /* seeds of requests that have none; ids of spans */
    struct buf text; /* scratch of one callback */
    struct buf piece;

    int64_t date_s; /* the second that `date` shows */
    char date[40];

    struct metrics metrics;
    struct explorer explorer;
};

/* A new id in `out`: prefix and 24 hex digits. */
void http_make_id(struct http *h, const char *prefix, char *out, size_t n);
/* The Date header's value. */
const char *http_date(struct http *h);

#endif
