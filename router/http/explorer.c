#include "router/http/explorer.h"

#include <event2/event.h>
#include <inttypes.h>
#include <string.h>

#include "router/http/conn_internal.h"
#include "router/http/http_internal.h"
#include "router/http/request.h"
#include "router/http/route.h"
#include "runtime/base/clock.h"
#include "runtime/base/fnv.h"

#define TICK_S 1
/* Ticks that a viewer may not have read when it is dropped. */
#define SKIPS_MAX 10

/* Nothing from elsewhere, nothing inline, in nobody's frame. */
#define POLICY                                                                              \
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src " \
    "'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

struct viewer {
    struct viewer *next, **before;
    struct request *request; /* in whose arena this lies */
    uint32_t skips;
};

/* ---- viewers ----------------------------------------------------------------------------------
 */

static void leave(struct viewer *v)
{
    struct explorer *x = &v->request->http->explorer;
    *v->before = v->next;
    if (v->next)
        v->next->before = v->before;
    x->n_viewers--;
}

static void on_gone(void *ctx)
{
    leave(ctx);
}

static void end_viewer(struct viewer *v, bool complete)
{
    struct request *r = v->request;
    leave(v);
    request_end(r, complete);
}

/* One line of text cannot break an event: JSON has none but escaped. */
static void write_event(const char *name, const struct buf *json, struct buf *out)
{
    buf_addf(out, "event: %s\ndata: ", name);
    buf_add(out, json->data, json->len);
    buf_adds(out, "\n\n");
}

static void send_tick(struct http *h)
{
    struct explorer *x = &h->explorer;
    struct buf json;
    buf_init(&json, 0);
    explorer_write_snapshot(h, &json);
    for (struct viewer *v = x->first, *next; v && !json.failed; v = next) {
        struct request *r = v->request;
        next = v->next;
        if (conn_unsent_bytes(r->conn) == 0) {
            v->skips = 0;
            write_event("tick", &json, request_stream(r));
            request_push(r);
        } else if (++v->skips > SKIPS_MAX) {
            x->viewers_dropped++;
            end_viewer(v, false);
        }
    }
    buf_release(&json);
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    struct http *h = ctx;
    uint32_t running = 0, waiting = 0;
    (void)fd;
    (void)what;
    for (size_t i = 0; i < h->metrics.n_models; i++) {
        running += h->metrics.models[i].running;
        waiting += h->metrics.models[i].waiting;
    }
    history_tick(&h->explorer.history, h->pool, running, waiting, clock_wall_s());
    if (h->explorer.first)
        send_tick(h);
}

int explorer_open(struct http *h, struct err *e)
{
    struct explorer *x = &h->explorer;
    struct timeval tv = {TICK_S, 0};
    x->start_ms = clock_mono_ms();
    if (!h->config.explorer)
        return 0;
    x->timer = event_new(h->base, -1, EV_PERSIST, on_tick, h);
    if (!x->timer || event_add(x->timer, &tv) != 0)
        return err_set(e, ERR_NOMEM, "no timer for the explorer");
    return 0;
}

void explorer_stop(struct http *h)
{
    while (h->explorer.first)
        end_viewer(h->explorer.first, true);
}

void explorer_close(struct http *h)
{
    if (h->explorer.timer)
        event_free(h->explorer.timer);
    h->explorer.timer = NULL;
    history_release(&h->explorer.history);
}

/* ---- the paths --------------------------------------------------------------------------------
 */

static bool is_off(struct request *r)
{
    struct api_error e;
    if (r->http->config.explorer)
        return false;
    api_error_set(&e, 404, "unknown_url", NULL, "There is nothing at this path.");
    request_fail(r, &e);
    return true;
}

/* They change with the program only. */
static uint64_t tag_of(const struct asset *a)
{
    return fnv1a(FNV_SEED, a->bytes, (size_t)(a->end - a->bytes));
}

static void send_asset(struct request *r, const char *name)
{
    const struct asset *a = asset_find(name);
    char tag[24];
    if (is_off(r))
        return;
    snprintf(tag, sizeof(tag), "\"%016" PRIx64 "\"", tag_of(a));
    request_header(r, "ETag", tag);
    request_header(r, "Cache-Control", "no-cache");
    request_header(r, "Content-Security-Policy", POLICY);
    request_header(r, "X-Content-Type-Options", "nosniff");
    request_header(r, "Referrer-Policy", "no-referrer");
    if (r->if_none_match && strstr(r->if_none_match, tag)) {
        request_reply(r, 304, NULL, NULL);
        return;
    }
    struct buf body;
    buf_init(&body, 0);
    buf_add(&body, a->bytes, (size_t)(a->end - a->bytes));
    request_reply(r, body.failed ? 500 : 200, a->type, body.failed ? NULL : &body);
    buf_release(&body);
}

void explorer_page_handle(struct request *r)
{
    send_asset(r, "index.html");
}

void explorer_css_handle(struct request *r)
{
    send_asset(r, "explorer.css");
}

void explorer_js_handle(struct request *r)
{
    send_asset(r, "explorer.js");
}

void explorer_charts_handle(struct request *r)
{
    send_asset(r, "charts.js");
}

void explorer_icon_handle(struct request *r)
{
    send_asset(r, "icon.svg");
}

void explorer_snapshot_handle(struct request *r)
{
    struct buf body;
    if (is_off(r))
        return;
    buf_init(&body, 0);
    explorer_write_snapshot(r->http, &body);
    request_header(r, "Cache-Control", "no-store");
    request_reply_json(r, 200, &body);
    buf_release(&body);
}

void explorer_worker_handle(struct request *r)
{
    struct buf body;
    if (is_off(r))
        return;
    buf_init(&body, 0);
    if (r->rest && explorer_write_worker(r->http, r->rest, &body)) {
        request_header(r, "Cache-Control", "no-store");
        request_reply_json(r, 200, &body);
    } else {
        struct api_error e;
        api_error_set(&e, 404, "worker_not_found", NULL, "No worker of that name is known here.");
        request_fail(r, &e);
    }
    buf_release(&body);
}

static void refuse_viewer(struct request *r)
{
    struct api_error e;
    r->http->explorer.viewers_refused++;
    api_error_set(&e, 503, "too_many_viewers", NULL, "The explorer has too many viewers.");
    e.retry_after_ms = 5000;
    request_fail(r, &e);
}

/* All of the past once, then what each second brings. */
static void begin_viewer(struct request *r, struct viewer *v)
{
    struct explorer *x = &r->http->explorer;
    struct buf json;
    *v = (struct viewer){.next = x->first, .before = &x->first, .request = r};
    if (v->next)
        v->next->before = &v->next;
    x->first = v;
    x->n_viewers++;
    r->gone = on_gone;
    r->ctx = v;
    request_stream_start(r, "text/event-stream");
    buf_init(&json, 0);
    buf_adds(request_stream(r), "retry: 2000\n");
    explorer_write_history(r->http, &json);
    write_event("history", &json, request_stream(r));
    buf_clear(&json);
    explorer_write_snapshot(r->http, &json);
    write_event("tick", &json, request_stream(r));
    buf_release(&json);
    request_push(r);
}

void explorer_events_handle(struct request *r)
{
    struct http *h = r->http;
    if (is_off(r))
        return;
    if (r->method == HTTP_HEAD) {
        request_reply(r, 200, "text/event-stream", NULL);
        return;
    }
    struct viewer *v = NULL;
    if (h->explorer.n_viewers < h->config.viewers_max && !h->stopping)
        v = arena_alloc(&r->arena, sizeof(*v));
    if (v)
        begin_viewer(r, v);
    else
        refuse_viewer(r);
}
