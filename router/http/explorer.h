/* explorer.h: the pool as people see it: /explorer, one page, live by server-sent events, and the
 * same as JSON for `argosy top` and scripts. Shows, and changes nothing.
 *
 *     1 s timer ─► history ─► one text ─► every viewer
 *
 * Bounds: viewers_max viewers; a viewer holds one text at most, since one that has not read the
 * last is left out, and dropped when that goes on.
 *
 * Thread: the event loop.
 */
#ifndef ARGOSY_ROUTER_HTTP_EXPLORER_H
#define ARGOSY_ROUTER_HTTP_EXPLORER_H

#include <stdbool.h>
#include <stdint.h>

#include "router/http/history.h"
#include "runtime/base/buf.h"
#include "runtime/base/err.h"

/* Workers past it are only counted in what viewers get. */
#define EXPLORER_WORKERS_MAX TRACKS_MAX

struct event;
struct http;
struct viewer;

struct explorer {
    struct history history; /* kept even when there is no page */
    struct event *timer;    /* NULL: it is off */
    struct viewer *first;
    uint32_t n_viewers;
    uint64_t viewers_dropped, viewers_refused;
    uint64_t start_ms;
};

int explorer_open(struct http *h, struct err *e);
/* Ends what viewers read. */
void explorer_stop(struct http *h);
void explorer_close(struct http *h);

/* ---- explorer_json.c ---- */

void explorer_write_snapshot(const struct http *h, struct buf *out);
void explorer_write_history(const struct http *h, struct buf *out);
/* False: there is no history of that worker. */
bool explorer_write_worker(const struct http *h, const char *id, struct buf *out);

/* ---- explorer_assets.c ---- */

struct asset {
    const char *name, *type;
    const char *bytes, *end;
};

/* NULL: there is none of that name. */
const struct asset *asset_find(const char *name);

#endif
