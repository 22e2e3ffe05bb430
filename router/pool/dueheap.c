#include "router/pool/dueheap.h"

#include <stdlib.h>

#include "runtime/base/check.h"

int dueheap_init(struct dueheap *h, uint32_t max, struct err *e)
{
    *h = (struct dueheap){.max = max};
    h->nodes = calloc(max ? max : 1, sizeof(void *));
    return h->nodes ? 0 : err_set(e, ERR_NOMEM, "no memory for %u timers", max);
}

void dueheap_release(struct dueheap *h)
{
    free(h->nodes);
    *h = (struct dueheap){0};
}

static void put(struct dueheap *h, uint32_t i, struct due *d)
{
    h->nodes[i] = d;
    d->place = i + 1;
}

static void sift_up(struct dueheap *h, uint32_t i)
{
    struct due *d = h->nodes[i];
    while (i > 0 && h->nodes[(i - 1) / 2]->at_ms > d->at_ms) {
        put(h, i, h->nodes[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    put(h, i, d);
}

static void sift_down(struct dueheap *h, uint32_t i)
{
    struct due *d = h->nodes[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->nodes[child + 1]->at_ms < h->nodes[child]->at_ms)
            child++;
        if (h->nodes[child]->at_ms >= d->at_ms)
            break;
        put(h, i, h->nodes[child]);
        i = child;
    }
    put(h, i, d);
}

void dueheap_set(struct dueheap *h, struct due *d, uint64_t at_ms)
{
    d->at_ms = at_ms;
    if (d->place == 0) {
        ASSERT(h->n < h->max);
        put(h, h->n++, d);
    }
    sift_up(h, d->place - 1);
    sift_down(h, d->place - 1);
}

void dueheap_remove(struct dueheap *h, struct due *d)
{
    if (d->place == 0)
        return;
    uint32_t i = d->place - 1;
    d->place = 0;
    struct due *last = h->nodes[--h->n];
    if (last == d)
        return;
    put(h, i, last);
    sift_up(h, i);
    sift_down(h, last->place - 1);
}

struct due *dueheap_top(const struct dueheap *h)
{
    return h->n ? h->nodes[0] : NULL;
}
