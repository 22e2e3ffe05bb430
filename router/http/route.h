/* route.h: which handler answers which path. */
#ifndef ARGOSY_ROUTER_HTTP_ROUTE_H
#define ARGOSY_ROUTER_HTTP_ROUTE_H

#include <stdbool.h>
#include <stddef.h>

#include "router/http/head.h"
#include "router/http/request.h"

#define ROUTES_MAX 32

/* Who may call it when keys are asked for (http_config.keys). */
enum route_access {
    ROUTE_KEYED,   /* who has a key; the handler asks what the key has left, if it costs anything */
    ROUTE_COUNTED, /* who has a key with a request left this minute: dispatch takes it */
    ROUTE_OPEN, /* everybody: it tells nothing but whether the router works, and the empty page */
    ROUTE_METRICS, /* everybody if http_config.metrics_open, else who has a key */
};

struct route {
    const char *path;
    bool prefix;      /* what follows `path` is request.rest */
    unsigned methods; /* enum http_method, a bit each; HTTP_GET takes HEAD too */
    void (*handle)(struct request *r);
    enum route_access access;
};

/* NULL: none has that path. *rest: what follows a prefix. */
const struct route *route_find(struct slice path, struct slice *rest);
/* 0 to route_count() - 1, for tables by route; route_count() stands for 'none'. */
size_t route_index(const struct route *route);
size_t route_count(void);
const struct route *route_at(size_t index);
/* "GET, HEAD", for Allow; OPTIONS is always in. */
const char *route_allow(const struct route *route);

/* The handlers. */
void chat_handle(struct request *r);
void completions_handle(struct request *r);
void embeddings_handle(struct request *r);
void models_list_handle(struct request *r);
void models_one_handle(struct request *r);
void health_handle(struct request *r);
void ready_handle(struct request *r);
void metrics_handle(struct request *r);
void explorer_page_handle(struct request *r);
void explorer_css_handle(struct request *r);
void explorer_js_handle(struct request *r);
void explorer_charts_handle(struct request *r);
void explorer_icon_handle(struct request *r);
void explorer_events_handle(struct request *r);
void explorer_snapshot_handle(struct request *r);
void explorer_worker_handle(struct request *r);
void tokenize_handle(struct request *r);
void detokenize_handle(struct request *r);

#endif
