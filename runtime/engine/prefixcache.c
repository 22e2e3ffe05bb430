#include "runtime/engine/prefixcache.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

#define NONE PREFIXCACHE_NONE

int prefixcache_init(struct prefixcache *c, struct kvpool *pool, bool enabled, struct err *e)
{
    uint32_t n = pool->n_pages;
    uint64_t n_buckets = 1;
    *c = (struct prefixcache){.pool = pool, .oldest = NONE, .newest = NONE};
    if (!enabled || n == 0)
        return 0;
    while (n_buckets < n)
        n_buckets *= 2;
    c->bucket_mask = (uint32_t)(n_buckets - 1);
    c->blocks = calloc(n, sizeof(*c->blocks));
    c->buckets = malloc(n_buckets * sizeof(*c->buckets));
    c->changed = calloc(n, sizeof(*c->changed));
    if (!c->blocks || !c->buckets || !c->changed) {
        prefixcache_release(c);
        return err_set(e, ERR_NOMEM, "prefixcache: no memory for %u pages", n);
    }
    memset(c->buckets, 0xff, n_buckets * sizeof(*c->buckets)); /* NONE */
    return 0;
}

/* ---- the table --------------------------------------------------------------------------------
 */

static uint32_t *bucket_of(const struct prefixcache *c, uint64_t hash)
{
    return &c->buckets[hash & c->bucket_mask];
}

static uint32_t find_hash(const struct prefixcache *c, uint64_t hash)
{
    uint32_t page = *bucket_of(c, hash);
    while (page != NONE && c->blocks[page].hash != hash)
        page = c->blocks[page].next_in_bucket;
    return page;
}

static bool is_behind(const struct prefixcache_block *b, const struct prefix *x,
                      const uint32_t *tokens)
{
    return b->parent == x->page && memcmp(b->tokens, tokens, sizeof(b->tokens)) == 0 &&
           (x->page != NONE ||
            (b->adapter == x->adapter && memcmp(b->salt, x->salt, sizeof(b->salt)) == 0));
}

static void note_change(struct prefixcache *c, uint32_t page)
{
    if (!c->blocks[page].changed)
        c->changed[c->n_changed++] = page;
    c->blocks[page].changed = true;
}

static void insert(struct prefixcache *c, const struct prefix *x, uint64_t hash,
                   const uint32_t *tokens, uint32_t page)
{
    struct prefixcache_block *b = &c->blocks[page];
    uint32_t *bucket = bucket_of(c, hash);
    ASSERT(b->hash == 0 && !b->idle && b->n_children == 0);
    b->hash = hash;
    b->parent = x->page;
    memcpy(b->salt, x->salt, sizeof(b->salt));
    b->adapter = x->adapter;
    memcpy(b->tokens, tokens, sizeof(b->tokens));
    b->next_in_bucket = *bucket;
    *bucket = page;
    if (x->page != NONE)
        c->blocks[x->page].n_children++;
    note_change(c, page);
}

static void erase(struct prefixcache *c, uint32_t page)
{
    struct prefixcache_block *b = &c->blocks[page];
    uint32_t *at = bucket_of(c, b->hash);
    ASSERT(b->n_children == 0);
    while (*at != page)
        at = &c->blocks[*at].next_in_bucket;
    *at = b->next_in_bucket;
    if (b->parent != NONE)
        c->blocks[b->parent].n_children--;
    b->hash = 0;
    note_change(c, page);
}

/* ---- idle pages, oldest first -----------------------------------------------------------------
 */

static void add_idle(struct prefixcache *c, uint32_t page)
{
    struct prefixcache_block *b = &c->blocks[page];
    b->idle = true;
    b->newer = NONE;
    b->older = c->newest;
    if (c->newest != NONE)
        c->blocks[c->newest].newer = page;
    else
        c->oldest = page;
    c->newest = page;
    c->n_idle++;
}

static void remove_idle(struct prefixcache *c, uint32_t page)
{
    struct prefixcache_block *b = &c->blocks[page];
    if (b->older != NONE)
        c->blocks[b->older].newer = b->newer;
    else
        c->oldest = b->newer;
    if (b->newer != NONE)
        c->blocks[b->newer].older = b->older;
    else
        c->newest = b->older;
    b->idle = false;
    c->n_idle--;
}

static void evict_oldest(struct prefixcache *c)
{
    uint32_t page = c->oldest;
    remove_idle(c, page);
    erase(c, page);
    kvpool_drop(c->pool, page);
}

void prefixcache_release(struct prefixcache *c)
{
    while (c->n_idle > 0)
        evict_oldest(c);
    free(c->blocks);
    free(c->buckets);
    free(c->changed);
    *c = (struct prefixcache){0};
}

/* ---- users ------------------------------------------------------------------------------------
 */

uint32_t prefixcache_available(const struct prefixcache *c)
{
    return c->pool->n_free + c->n_idle;
}

uint32_t prefixcache_owned(const struct prefixcache *c, const uint32_t *pages, uint32_t n)
{
    uint32_t owned = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool cached = c->blocks && c->blocks[pages[i]].hash != 0;
        owned += c->pool->refs[pages[i]] == (cached ? 2 : 1);
    }
    return owned;
}

bool prefixcache_take(struct prefixcache *c, uint32_t *page)
{
    if (c->pool->n_free == 0 && c->n_idle > 0)
        evict_oldest(c);
    return kvpool_take(c->pool, page);
}

static void use(struct prefixcache *c, uint32_t page)
{
    if (c->blocks[page].idle)
        remove_idle(c, page);
    kvpool_share(c->pool, page);
}

void prefixcache_drop(struct prefixcache *c, uint32_t page)
{
    kvpool_drop(c->pool, page);
    if (c->blocks && c->blocks[page].hash != 0 && c->pool->refs[page] == 1)
        add_idle(c, page);
}

/* ---- a sequence's blocks ----------------------------------------------------------------------
 */

void prefix_init(struct prefix *x, uint64_t root, const uint8_t salt[BLOCKHASH_SALT_BYTES])
{
    x->root = root;
    memcpy(x->salt, salt, sizeof(x->salt));
    prefix_rewind(x);
}

void prefix_rewind(struct prefix *x)
{
    x->hash = x->root;
    x->page = NONE;
    x->n_blocks = 0;
    x->ended = false;
}

static void go_on(struct prefix *x, uint64_t hash, uint32_t page)
{
    x->hash = hash;
    x->page = page;
    x->n_blocks++;
}

/* The page of the block behind x, or NONE. */
static uint32_t find(const struct prefixcache *c, const struct prefix *x, const uint32_t *tokens,
                     uint64_t *hash)
{
    if (!c->blocks || x->ended)
        return NONE;
    tokens += (uint64_t)x->n_blocks * KN_PAGE_TOKENS;
    *hash = blockhash_next(x->hash, tokens, KN_PAGE_TOKENS);
    uint32_t page = find_hash(c, *hash);
    return page != NONE && is_behind(&c->blocks[page], x, tokens) ? page : NONE;
}

uint32_t prefixcache_look(const struct prefixcache *c, const struct prefix *x,
                          const uint32_t *tokens, uint32_t n_blocks, uint32_t *n_used)
{
    struct prefix at = *x;
    uint64_t hash;
    uint32_t page;
    *n_used = 0;
    while (at.n_blocks < n_blocks && (page = find(c, &at, tokens, &hash)) != NONE) {
        *n_used += !c->blocks[page].idle;
        go_on(&at, hash, page);
    }
    return at.n_blocks - x->n_blocks;
}

uint32_t prefixcache_follow(struct prefixcache *c, struct prefix *x, const uint32_t *tokens)
{
    uint64_t hash;
    uint32_t page = find(c, x, tokens, &hash);
    if (page == NONE)
        return NONE;
    use(c, page);
    go_on(x, hash, page);
    return page;
}

uint32_t prefixcache_store(struct prefixcache *c, struct prefix *x, const uint32_t *tokens,
                           uint32_t page)
{
    if (!c->blocks || x->ended)
        return page;
    tokens += (uint64_t)x->n_blocks * KN_PAGE_TOKENS;
    uint64_t hash = blockhash_next(x->hash, tokens, KN_PAGE_TOKENS);
    uint32_t there = find_hash(c, hash);
    if (there != NONE && !is_behind(&c->blocks[there], x, tokens)) {
        x->ended = true;
        return page;
    }
    if (there == NONE) {
        insert(c, x, hash, tokens, page);
        kvpool_share(c->pool, page); /* the cache's own */
        there = page;
    } else {
        use(c, there);
        prefixcache_drop(c, page);
    }
    go_on(x, hash, there);
    return there;
}

/* ---- what others hear -------------------------------------------------------------------------
 */

void prefixcache_news(struct prefixcache *c, uint64_t *evicted, uint32_t *n_evicted,
                      uint64_t *stored, uint32_t *n_stored)
{
    *n_evicted = *n_stored = 0;
    for (uint32_t i = 0; i < c->n_changed; i++) {
        struct prefixcache_block *b = &c->blocks[c->changed[i]];
        b->changed = false;
        if (b->told == b->hash)
            continue;
        if (b->told != 0)
            evicted[(*n_evicted)++] = b->told;
        if (b->hash != 0)
            stored[(*n_stored)++] = b->hash;
        b->told = b->hash;
    }
    c->n_changed = 0;
}

uint32_t prefixcache_list(const struct prefixcache *c, uint32_t *cursor, uint64_t *hashes,
                          uint32_t cap)
{
    uint32_t n = 0;
    for (; c->blocks && n < cap && *cursor < c->pool->n_pages; ++*cursor)
        if (c->blocks[*cursor].told != 0)
            hashes[n++] = c->blocks[*cursor].told;
    return n;
}

/* ---- for tests --------------------------------------------------------------------------------
 */

static bool block_consistent(const struct prefixcache *c, uint32_t page)
{
    const struct prefixcache_block *b = &c->blocks[page];
    uint32_t refs = c->pool->refs[page];
    if (b->hash == 0)
        return !b->idle && b->n_children == 0;
    if (find_hash(c, b->hash) != page || refs == 0 || b->idle != (refs == 1))
        return false;
    if (b->parent == NONE)
        return true;
    const struct prefixcache_block *p = &c->blocks[b->parent];
    return p->hash != 0 && p->n_children > 0 && (b->idle || !p->idle);
}

bool prefixcache_consistent(const struct prefixcache *c)
{
    uint32_t n_idle = 0, n_parents = 0, n_children = 0;
    for (uint32_t page = 0; c->blocks && page < c->pool->n_pages; page++) {
        if (!block_consistent(c, page))
            return false;
        n_parents += c->blocks[page].hash != 0 && c->blocks[page].parent != NONE;
        n_children += c->blocks[page].n_children;
    }
    for (uint32_t page = c->n_idle ? c->oldest : NONE; page != NONE; page = c->blocks[page].newer) {
        if (++n_idle > c->n_idle || !c->blocks[page].idle)
            return false;
    }
    return n_idle == c->n_idle && n_parents == n_children && kvpool_consistent(c->pool);
}
