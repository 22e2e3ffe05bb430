/* kvpool.h: which KV pages are taken. Numbers only: the bytes are the backend's.
 *
 * A page holds KN_PAGE_TOKENS tokens of all layers. Taking and dropping a page is O(1). A page is
 * free exactly when its count of references is 0; a page that several sequences read (a shared
 * prefix) has one reference for each.
 *
 * Not thread-safe: the engine's thread owns it.
 */
#ifndef ARGOSY_ENGINE_KVPOOL_H
#define ARGOSY_ENGINE_KVPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct kvpool {
    uint32_t n_pages;
    uint32_t n_free;
    uint32_t *free_pages; /* (n_pages); the first n_free are free, the last of them goes next */
    uint32_t *refs;       /* (n_pages) */
};

int kvpool_init(struct kvpool *p, uint32_t n_pages, struct err *e);
void kvpool_release(struct kvpool *p);

/* A page with one reference in *page; false when none is free. */
bool kvpool_take(struct kvpool *p, uint32_t *page);
/* One more reference to a page that has some. */
void kvpool_share(struct kvpool *p, uint32_t page);
/* One reference less; the page is free when it was the last. */
void kvpool_drop(struct kvpool *p, uint32_t page);

/* Whether every page is either free, once, or referenced. O(n_pages), for tests. */
bool kvpool_consistent(const struct kvpool *p);

#endif
