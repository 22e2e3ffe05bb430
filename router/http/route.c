#include "router/http/route.h"

#include <string.h>

#include "runtime/base/check.h"

static const struct route routes[] = {
    {"/v1/chat/completions", false, HTTP_POST, chat_handle, ROUTE_KEYED},
    {"/v1/completions", false, HTTP_POST, completions_handle, ROUTE_KEYED},
    {"/v1/embeddings", false, HTTP_POST, embeddings_handle, ROUTE_KEYED},
    {"/v1/models", false, HTTP_GET, models_list_handle, ROUTE_COUNTED},
    {"/v1/models/", true, HTTP_GET, models_one_handle, ROUTE_COUNTED},
    {"/health", false, HTTP_GET, health_handle, ROUTE_OPEN},
    {"/ready", false, HTTP_GET, ready_handle, ROUTE_OPEN},
    {"/metrics", false, HTTP_GET, metrics_handle, ROUTE_METRICS},
    {"/explorer", false, HTTP_GET, explorer_page_handle, ROUTE_OPEN},
    {"/explorer/explorer.css", false, HTTP_GET, explorer_css_handle, ROUTE_OPEN},
    {"/explorer/explorer.js", false, HTTP_GET, explorer_js_handle, ROUTE_OPEN},
    {"/explorer/charts.js", false, HTTP_GET, explorer_charts_handle, ROUTE_OPEN},
    {"/explorer/icon.svg", false, HTTP_GET, explorer_icon_handle, ROUTE_OPEN},
    {"/explorer/events", false, HTTP_GET, explorer_events_handle, ROUTE_KEYED},
    {"/explorer/snapshot", false, HTTP_GET, explorer_snapshot_handle, ROUTE_KEYED},
    {"/explorer/worker/", true, HTTP_GET, explorer_worker_handle, ROUTE_KEYED},
    {"/tokenize", false, HTTP_POST, tokenize_handle, ROUTE_COUNTED},
    {"/detokenize", false, HTTP_POST, detokenize_handle, ROUTE_COUNTED},
};

_Static_assert(ARRAY_LEN(routes) < ROUTES_MAX, "tables by route have ROUTES_MAX places");

const struct route *route_find(struct slice path, struct slice *rest)
{
    for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
        size_t n = strlen(routes[i].path);
        if (!routes[i].prefix && slice_is(path, routes[i].path))
            return &routes[i];
        if (routes[i].prefix && path.n > n && memcmp(path.p, routes[i].path, n) == 0) {
            *rest = (struct slice){path.p + n, path.n - n};
            return &routes[i];
        }
    }
    return NULL;
}

size_t route_count(void)
{
    return ARRAY_LEN(routes);
}

size_t route_index(const struct route *route)
{
    return route ? (size_t)(route - routes) : ARRAY_LEN(routes);
}

const struct route *route_at(size_t index)
{
    ASSERT(index < ARRAY_LEN(routes));
    return &routes[index];
}

const char *route_allow(const struct route *route)
{
    return route->methods & HTTP_GET ? "GET, HEAD, OPTIONS" : "POST, OPTIONS";
}
