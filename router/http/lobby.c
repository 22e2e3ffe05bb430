#include "router/http/lobby.h"

#include <event2/event.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/base/check.h"
#include "runtime/grammar/grammar_store.h"

struct guest {
    struct guest *next, **before;
    struct request *request;
    void (*again)(struct request *r);
};

/* On a store's thread. */
static void wake(void *ctx)
{
    const struct lobby *l = ctx;
    uint64_t one = 1;
    ssize_t n = write(l->fd, &one, sizeof(one));
    (void)n; /* full: the loop is woken already */
}

static void leave(struct guest *g)
{
    *g->before = g->next;
    if (g->next)
        g->next->before = g->before;
    g->request->gone = NULL;
    g->request->ctx = NULL;
}

static void on_gone(void *ctx)
{
    leave(ctx);
}

/* Who is still not ready comes back in front of where this looks. */
static void on_woken(evutil_socket_t fd, short what, void *ctx)
{
    struct lobby *l = ctx;
    uint64_t count;
    (void)what;
    ssize_t n = read(fd, &count, sizeof(count));
    (void)n;
    struct guest *all = l->first;
    l->first = NULL;
    if (all)
        all->before = &all;
    while (all) {
        struct guest *g = all;
        leave(g);
        g->again(g->request);
    }
}

int lobby_open(struct lobby *l, struct event_base *base, const struct model_texts *texts,
               struct err *e)
{
    *l = (struct lobby){.texts = texts, .fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    l->woken = l->fd < 0 ? NULL : event_new(base, l->fd, EV_READ | EV_PERSIST, on_woken, l);
    if (!l->woken || event_add(l->woken, NULL) != 0) {
        lobby_close(l);
        return err_set(e, ERR_NOMEM, "no event for the grammars");
    }
    for (size_t i = 0; i < texts->n; i++)
        grammar_store_notify(texts->items[i].grammars, wake, l);
    return 0;
}

void lobby_close(struct lobby *l)
{
    ASSERT(!l->first);
    for (size_t i = 0; l->texts && i < l->texts->n; i++)
        grammar_store_notify(l->texts->items[i].grammars, NULL, NULL);
    if (l->woken)
        event_free(l->woken);
    if (l->texts && l->fd >= 0)
        close(l->fd);
    *l = (struct lobby){0};
}

void lobby_add(struct lobby *l, struct request *r, void (*again)(struct request *r))
{
    struct guest *g = arena_alloc(&r->arena, sizeof(*g));
    if (!g) {
        struct api_error e;
        api_error_set(&e, 503, NULL, NULL, "There is no memory for the request now.");
        request_fail(r, &e);
        return;
    }
    *g = (struct guest){.next = l->first, .before = &l->first, .request = r, .again = again};
    if (g->next)
        g->next->before = &g->next;
    l->first = g;
    r->gone = on_gone;
    r->ctx = g;
}
