/* prefixcache.h: blocks of prompts that somebody may want again, in KV pages.
 *
 *     free ──take──► a sequence's ──store (its block is full)──► cached, in use ◄──follow──┐
 *      ▲                 │                                        ▲   │ last user gone     │
 *      │◄──drop──────────┘                             follow: a  │   ▼                    │
 *      ├──────────── evicted, least recently used first ◄─────────┼── cached, idle ────────┘
 *      │                       │ where the host has slots         │
 *      └─ a page is free    on the host alone ────────────────────┘ page, copied in
 *
 * A block is KN_PAGE_TOKENS tokens behind a parent, which is another block or the root. It is found
 * under the chained hash of runtime/base/blockhash.h, and is a hit only if tokens, parent and, at
 * the root, salt and adapter are equal: hashes that collide cost a miss, never a wrong page. A hash
 * names one block at most.
 *
 * Two tiers. A block has a page of the device, or a slot of the host (hostcache.h), or both with
 * the same bits: KV never changes once a block is full, so one that came from the host keeps its
 * slot and is evicted again for nothing. Without a hostcache there are pages alone.
 *
 * Invariants. Who uses a block uses its parent, so both have pages. So children fall idle before
 * their parents, stand before them in the list of idle ones, are evicted before them, and are older
 * on the host: no block loses its parent. A page that the cache holds has one reference of the
 * cache's own in the pool.
 *
 * Memory: taken in prefixcache_init, about 160 bytes a page and slot. Thread: the engine's.
 */
#ifndef ARGOSY_ENGINE_PREFIXCACHE_H
#define ARGOSY_ENGINE_PREFIXCACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "runtime/base/blockhash.h"
#include "runtime/engine/hostcache.h"
#include "runtime/engine/kvpool.h"

#define PREFIXCACHE_NONE UINT32_MAX

/* How far a sequence's tokens have been followed, block by block. */
struct prefix {
    uint8_t salt[BLOCKHASH_SALT_BYTES];
    uint32_t adapter; /* whose KV it is: the same number, the same adapter; prefix_init: 0 */
    uint64_t root;
    uint64_t hash;     /* of the last block; the root before the first */
    uint32_t block;    /* the last one; PREFIXCACHE_NONE before the first */
    uint32_t n_blocks; /* cached blocks that the sequence holds, from its first token on */
    bool ended;        /* the next block's hash is another one's: nothing behind it is cached */
};

struct prefixcache_block {
    uint64_t hash; /* 0: there is none */
    uint64_t told; /* what the news have said here last; 0: nothing */
    uint32_t page; /* PREFIXCACHE_NONE: it is on the host alone */
    uint32_t slot; /* of the host; PREFIXCACHE_NONE: it has none */
    uint32_t parent;
    uint32_t n_children;
    uint32_t next_in_bucket; /* without a block: the next such entry */
    uint32_t older, newer;   /* of the idle ones */
    bool idle;
    bool changed; /* since the last news */
    uint8_t salt[BLOCKHASH_SALT_BYTES];
    uint32_t adapter;
    uint32_t tokens[KN_PAGE_TOKENS];
};

struct prefixcache {
    struct kvpool *pool;              /* borrowed */
    struct hostcache *host;           /* borrowed; NULL: there is none */
    uint32_t n_blocks;                /* at most: pages, and slots */
    struct prefixcache_block *blocks; /* (n_blocks); NULL: nothing is ever cached */
    uint32_t *block_of;               /* (n_pages), or PREFIXCACHE_NONE */
    uint32_t *buckets;                /* (bucket_mask + 1): first block, or PREFIXCACHE_NONE */
    uint32_t bucket_mask;
    uint32_t free;     /* entries without a block */
    uint32_t *changed; /* (n_blocks): the first n_changed */
    uint32_t n_changed;
    uint32_t oldest, newest; /* idle blocks with pages */
    uint32_t n_idle;
};

int prefixcache_init(struct prefixcache *c, struct kvpool *pool, struct hostcache *host,
                     bool enabled, struct err *e);
/* Gives idle pages back to the pool; those in use must have been dropped. */
void prefixcache_release(struct prefixcache *c);

/* Pages that can be taken. */
uint32_t prefixcache_available(const struct prefixcache *c);
/* How many of these pages, each with a user, have only one: dropping all of them makes at least so
 * many available. */
uint32_t prefixcache_owned(const struct prefixcache *c, const uint32_t *pages, uint32_t n);
/* A page that nobody uses, evicting the oldest idle block if need be; false when all are in use. */
bool prefixcache_take(struct prefixcache *c, uint32_t *page);
/* A user less. Drop the last page of a sequence first. */
void prefixcache_drop(struct prefixcache *c, uint32_t page);

void prefix_init(struct prefix *x, uint64_t root, const uint8_t salt[BLOCKHASH_SALT_BYTES]);
/* Back to before the first block. */
void prefix_rewind(struct prefix *x);

/* How many of the first n_blocks blocks of tokens are cached. *n_used of them have pages in use:
 * the others take a page that is available. */
uint32_t prefixcache_look(const struct prefixcache *c, const struct prefix *x,
                          const uint32_t *tokens, uint32_t n_blocks, uint32_t *n_used);

/* Blocks behind x, up to n_blocks, are about to be followed: the host keeps them for longest. */
void prefixcache_keep(struct prefixcache *c, const struct prefix *x, const uint32_t *tokens,
                      uint32_t n_blocks);

/* If the block behind x is cached: one more user of its page, which it returns, and x goes on by a
 * block. PREFIXCACHE_NONE if not, or if it is on the host and no page is to be had. own: a page for
 * the block that the caller uses alone and has written nothing to, which is used or dropped when
 * there is a block; or PREFIXCACHE_NONE. tokens: the sequence's, from its first. */
uint32_t prefixcache_follow(struct prefixcache *c, struct prefix *x, const uint32_t *tokens,
                            uint32_t own);

/* Caches the block behind x, which is full and computed, in a page that the caller uses alone.
 * Returns the page to use from now on: another one when the same block was cached already (its bits
 * are the same), and then the given one is dropped. x goes on by a block, or has ended. */
uint32_t prefixcache_store(struct prefixcache *c, struct prefix *x, const uint32_t *tokens,
                           uint32_t page);

/* Copies blocks to the host that are likely to be evicted when so many more pages are taken: then
 * their pages are free at once. */
void prefixcache_save_ahead(struct prefixcache *c, uint32_t pages);

/* Hashes that came and went since the last news; both arrays have room for n_blocks. A hash in both
 * has moved: what is evicted goes first. Where a block lies is no news. */
void prefixcache_news(struct prefixcache *c, uint64_t *evicted, uint32_t *n_evicted,
                      uint64_t *stored, uint32_t *n_stored);

/* The hashes that the news have told of, as if from the start: fills in up to cap of them from
 * *cursor (0 at first) on and moves it. Fewer than cap: that was the end. */
uint32_t prefixcache_list(const struct prefixcache *c, uint32_t *cursor, uint64_t *hashes,
                          uint32_t cap);

/* Whether the invariants hold. O(n_blocks), for tests. */
bool prefixcache_consistent(const struct prefixcache *c);

#endif
