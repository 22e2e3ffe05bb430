/* dueheap.h: what is due when: a binary heap of intrusive nodes, the earliest on top.
 *
 * The heap borrows its nodes. A node is in at most one heap; zeroed memory is a node outside.
 * Sized once: pushing never allocates.
 */
#ifndef ARGOSY_ROUTER_POOL_DUEHEAP_H
#define ARGOSY_ROUTER_POOL_DUEHEAP_H

#include <stdint.h>

#include "runtime/base/err.h"

struct due {
    uint64_t at_ms;
    uint32_t place; /* in nodes[], plus 1; 0: outside */
    uint32_t kind;  /* the owner's */
};

struct dueheap {
    struct due **nodes;
    uint32_t n;
    uint32_t max;
};

int dueheap_init(struct dueheap *h, uint32_t max, struct err *e);
void dueheap_release(struct dueheap *h);
/* Puts it in, or moves it when it is in. There is room for `max` nodes; more is our own mistake. */
void dueheap_set(struct dueheap *h, struct due *d, uint64_t at_ms);
/* Takes it out if it is in. */
void dueheap_remove(struct dueheap *h, struct due *d);
/* The earliest, or NULL. It stays in. */
struct due *dueheap_top(const struct dueheap *h);

#endif
