/* lobby.h: requests that wait for their grammar to be compiled on its store's thread, so that the
 * loop never stops for one. They are handled anew when something was compiled; a client that goes
 * away leaves. Thread: the event loop. Memory: the requests' own arenas.
 */
#ifndef ARGOSY_ROUTER_HTTP_LOBBY_H
#define ARGOSY_ROUTER_HTTP_LOBBY_H

#include "router/http/request.h"
#include "router/model_text.h"

struct event;
struct event_base;
struct guest;

struct lobby {
    const struct model_texts *texts;
    int fd; /* an eventfd: stores' threads write, the loop reads */
    struct event *woken;
    struct guest *first;
};

/* Listens to the stores of all models, which outlive it. */
int lobby_open(struct lobby *l, struct event_base *base, const struct model_texts *texts,
               struct err *e);
/* Nobody waits any more. */
void lobby_close(struct lobby *l);

/* Keeps the request until a grammar is ready; `again` is its handler. */
void lobby_add(struct lobby *l, struct request *r, void (*again)(struct request *r));

#endif
