/* hostcache.h: slots of the host's memory that KV pages are kept in when the device has no room.
 *
 * A slot has room for a page of all layers. It is one block's of the prefix cache (prefixcache.h),
 * or free. When none is free, the least recently used one changes hands: which block that is tells
 * hostcache_take, and it is gone from there. Numbers only: the bytes are the backend's.
 *
 * Memory: taken in hostcache_init, 12 bytes a slot. Thread: the engine's.
 */
#ifndef ARGOSY_ENGINE_HOSTCACHE_H
#define ARGOSY_ENGINE_HOSTCACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct backend;

#define HOSTCACHE_NONE UINT32_MAX

struct hostcache_slot {
    uint32_t block;        /* HOSTCACHE_NONE: free */
    uint32_t older, newer; /* of those in use; of a free one, newer is the next free one */
};

struct hostcache {
    struct backend *backend;      /* copies; borrowed */
    struct hostcache_slot *slots; /* (n_slots) */
    uint32_t n_slots, n_used;
    uint32_t oldest, newest, free;
    uint64_t n_out, n_in; /* pages copied since the start */
};

int hostcache_init(struct hostcache *h, uint32_t n_slots, struct backend *backend, struct err *e);
void hostcache_release(struct hostcache *h);

/* A slot for the block, the most recently used one. *lost: the block that had it until now, or
 * HOSTCACHE_NONE. There is one always: n_slots > 0. */
uint32_t hostcache_take(struct hostcache *h, uint32_t block, uint32_t *lost);
/* Used just before slot `next` was; NONE: used last of all. */
void hostcache_touch(struct hostcache *h, uint32_t slot, uint32_t next);

/* Queued, in the order of the calls (backend.h). */
void hostcache_copy_out(struct hostcache *h, uint32_t page, uint32_t slot);
void hostcache_copy_in(struct hostcache *h, uint32_t slot, uint32_t page);

/* Whether the list and the numbers agree. O(n_slots), for tests. */
bool hostcache_consistent(const struct hostcache *h);

#endif
