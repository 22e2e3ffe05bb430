#include "runtime/engine/prefixcache.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

#define NONE PREFIXCACHE_NONE

static int take_tables(struct prefixcache *c, uint64_t n_buckets, struct err *e)
{
    uint32_t n = c->n_blocks;
    c->blocks = calloc(n, sizeof(*c->blocks));
    c->block_of = malloc(c->pool->n_pages * sizeof(*c->block_of));
    c->buckets = malloc(n_buckets * sizeof(*c->buckets));
    c->changed = calloc(n, sizeof(*c->changed));
    if (!c->blocks || !c->block_of || !c->buckets || !c->changed) {
        prefixcache_release(c);
        return err_set(e, ERR_NOMEM, "prefixcache: no memory for %u blocks", n);
    }
    memset(c->block_of, 0xff, c->pool->n_pages * sizeof(*c->block_of)); /* NONE */
    memset(c->buckets, 0xff, n_buckets * sizeof(*c->buckets));
    for (uint32_t i = n; i-- > 0; c->free = i)
        c->blocks[i] =
            (struct prefixcache_block){.page = NONE, .slot = NONE, .next_in_bucket = c->free};
    return 0;
}

int prefixcache_init(struct prefixcache *c, struct kvpool *pool, struct hostcache *host,
                     bool enabled, struct err *e)
{
    uint32_t n_slots = host ? host->n_slots : 0;
    uint64_t n_buckets = 1;
    *c = (struct prefixcache){
        .pool = pool, .oldest = NONE, .newest = NONE, .free = NONE, .n_blocks = pool->n_pages};
    if (!enabled || pool->n_pages == 0)
        return 0;
    ASSERT(n_slots < UINT32_MAX - pool->n_pages);
    c->host = n_slots > 0 ? host : NULL;
    c->n_blocks = pool->n_pages + n_slots;
    while (n_buckets < c->n_blocks)
        n_buckets *= 2;
    c->bucket_mask = (uint32_t)(n_buckets - 1);
    return take_tables(c, n_buckets, e);
}

/* ---- the table --------------------------------------------------------------------------------
 */

static uint32_t *bucket_of(const struct prefixcache *c, uint64_t hash)
{
    return &c->buckets[hash & c->bucket_mask];
}

static uint32_t find_hash(const struct prefixcache *c, uint64_t hash)
{
    uint32_t block = *bucket_of(c, hash);
    while (block != NONE && c->blocks[block].hash != hash)
        block = c->blocks[block].next_in_bucket;
    return block;
}

static bool is_behind(const struct prefixcache_block *b, const struct prefix *x,
                      const uint32_t *tokens)
{
    return b->parent == x->block && memcmp(b->tokens, tokens, sizeof(b->tokens)) == 0 &&
           (x->block != NONE ||
            (b->adapter == x->adapter && memcmp(b->salt, x->salt, sizeof(b->salt)) == 0));
}

static void note_change(struct prefixcache *c, uint32_t block)
{
    if (!c->blocks[block].changed)
        c->changed[c->n_changed++] = block;
    c->blocks[block].changed = true;
}

/* Without a page yet. Every block has a page or a slot, so there is an entry. */
static uint32_t insert(struct prefixcache *c, const struct prefix *x, uint64_t hash,
                       const uint32_t *tokens)
{
    uint32_t block = c->free;
    uint32_t *bucket = bucket_of(c, hash);
    ASSERT(block != NONE);
    struct prefixcache_block *b = &c->blocks[block];
    c->free = b->next_in_bucket;
    ASSERT(b->hash == 0 && !b->idle && b->n_children == 0 && b->slot == NONE);
    b->hash = hash;
    b->parent = x->block;
    memcpy(b->salt, x->salt, sizeof(b->salt));
    b->adapter = x->adapter;
    memcpy(b->tokens, tokens, sizeof(b->tokens));
    b->next_in_bucket = *bucket;
    *bucket = block;
    if (x->block != NONE)
        c->blocks[x->block].n_children++;
    note_change(c, block);
    return block;
}

static void erase(struct prefixcache *c, uint32_t block)
{
    struct prefixcache_block *b = &c->blocks[block];
    uint32_t *at = bucket_of(c, b->hash);
    ASSERT(b->n_children == 0 && b->page == NONE && b->slot == NONE);
    while (*at != block)
        at = &c->blocks[*at].next_in_bucket;
    *at = b->next_in_bucket;
    if (b->parent != NONE)
        c->blocks[b->parent].n_children--;
    b->hash = 0;
    b->next_in_bucket = c->free;
    c->free = block;
    note_change(c, block);
}

/* ---- idle blocks, oldest first ----------------------------------------------------------------
 */

static void add_idle(struct prefixcache *c, uint32_t block)
{
    struct prefixcache_block *b = &c->blocks[block];
    b->idle = true;
    b->newer = NONE;
    b->older = c->newest;
    if (c->newest != NONE)
        c->blocks[c->newest].newer = block;
    else
        c->oldest = block;
    c->newest = block;
    c->n_idle++;
}

static void remove_idle(struct prefixcache *c, uint32_t block)
{
    struct prefixcache_block *b = &c->blocks[block];
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

/* ---- the two tiers ----------------------------------------------------------------------------
 */

/* The page, which has a user, is the block's from now on. */
static void settle(struct prefixcache *c, uint32_t block, uint32_t page)
{
    c->blocks[block].page = page;
    c->block_of[page] = block;
    kvpool_share(c->pool, page); /* the cache's own */
}

/* Copies the block to the host, unless it is there. */
static void save(struct prefixcache *c, uint32_t block)
{
    struct prefixcache_block *b = &c->blocks[block];
    uint32_t lost;
    if (!c->host || b->slot != NONE)
        return;
    b->slot = hostcache_take(c->host, block, &lost);
    if (lost != NONE) {
        c->blocks[lost].slot = NONE;
        if (c->blocks[lost].page == NONE)
            erase(c, lost);
    }
    hostcache_copy_out(c->host, b->page, b->slot);
}

/* Of an idle block. */
static void free_page(struct prefixcache *c, uint32_t block)
{
    struct prefixcache_block *b = &c->blocks[block];
    remove_idle(c, block);
    c->block_of[b->page] = NONE;
    kvpool_drop(c->pool, b->page);
    b->page = NONE;
}

static void evict_oldest(struct prefixcache *c)
{
    uint32_t block = c->oldest;
    const struct prefixcache_block *b = &c->blocks[block];
    save(c, block);
    free_page(c, block);
    /* Parents are evicted behind their children: on the host they are newer, too. */
    if (b->slot != NONE)
        hostcache_touch(c->host, b->slot, NONE);
    else
        erase(c, block);
}

void prefixcache_save_ahead(struct prefixcache *c, uint32_t pages)
{
    if (!c->host || pages <= c->pool->n_free)
        return;
    uint32_t n = pages - c->pool->n_free;
    /* Never so many that they would push one another out. */
    n = n < c->host->n_slots / 2 ? n : c->host->n_slots / 2;
    for (uint32_t block = c->oldest; block != NONE && n > 0; block = c->blocks[block].newer, n--)
        save(c, block);
}

void prefixcache_release(struct prefixcache *c)
{
    while (c->n_idle > 0)
        free_page(c, c->oldest);
    free(c->blocks);
    free(c->block_of);
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

static bool is_cached(const struct prefixcache *c, uint32_t page)
{
    return c->blocks && c->block_of[page] != NONE;
}

uint32_t prefixcache_owned(const struct prefixcache *c, const uint32_t *pages, uint32_t n)
{
    uint32_t owned = 0;
    for (uint32_t i = 0; i < n; i++)
        owned += c->pool->refs[pages[i]] == (is_cached(c, pages[i]) ? 2 : 1);
    return owned;
}

bool prefixcache_take(struct prefixcache *c, uint32_t *page)
{
    if (c->pool->n_free == 0 && c->n_idle > 0)
        evict_oldest(c);
    return kvpool_take(c->pool, page);
}

static void use(struct prefixcache *c, uint32_t block)
{
    if (c->blocks[block].idle)
        remove_idle(c, block);
    kvpool_share(c->pool, c->blocks[block].page);
}

void prefixcache_drop(struct prefixcache *c, uint32_t page)
{
    kvpool_drop(c->pool, page);
    if (is_cached(c, page) && c->pool->refs[page] == 1)
        add_idle(c, c->block_of[page]);
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
    x->block = NONE;
    x->n_blocks = 0;
    x->ended = false;
}

static void go_on(struct prefix *x, uint64_t hash, uint32_t block)
{
    x->hash = hash;
    x->block = block;
    x->n_blocks++;
}

/* The block behind x, or NONE. */
static uint32_t find(const struct prefixcache *c, const struct prefix *x, const uint32_t *tokens,
                     uint64_t *hash)
{
    if (!c->blocks || x->ended)
        return NONE;
    tokens += (uint64_t)x->n_blocks * KN_PAGE_TOKENS;
    *hash = blockhash_next(x->hash, tokens, KN_PAGE_TOKENS);
    uint32_t block = find_hash(c, *hash);
    return block != NONE && is_behind(&c->blocks[block], x, tokens) ? block : NONE;
}

uint32_t prefixcache_look(const struct prefixcache *c, const struct prefix *x,
                          const uint32_t *tokens, uint32_t n_blocks, uint32_t *n_used)
{
    struct prefix at = *x;
    uint64_t hash;
    uint32_t block;
    *n_used = 0;
    while (at.n_blocks < n_blocks && (block = find(c, &at, tokens, &hash)) != NONE) {
        *n_used += c->blocks[block].page != NONE && !c->blocks[block].idle;
        go_on(&at, hash, block);
    }
    return at.n_blocks - x->n_blocks;
}

/* Parents stay newer than their children. */
void prefixcache_keep(struct prefixcache *c, const struct prefix *x, const uint32_t *tokens,
                      uint32_t n_blocks)
{
    struct prefix at = *x;
    uint64_t hash;
    uint32_t block, newer = NONE;
    while (c->host && at.n_blocks < n_blocks && (block = find(c, &at, tokens, &hash)) != NONE) {
        if (c->blocks[block].page == NONE) {
            hostcache_touch(c->host, c->blocks[block].slot, newer);
            newer = c->blocks[block].slot;
        }
        go_on(&at, hash, block);
    }
}

/* A page for the block, which is on the host alone. False: there is none, or taking it has cost the
 * block its slot. */
static bool come_in(struct prefixcache *c, uint32_t block, uint32_t page)
{
    const struct prefixcache_block *b = &c->blocks[block];
    if (page == NONE && !prefixcache_take(c, &page))
        return false;
    if (b->slot == NONE) {
        kvpool_drop(c->pool, page);
        return false;
    }
    hostcache_copy_in(c->host, b->slot, page);
    settle(c, block, page);
    return true;
}

uint32_t prefixcache_follow(struct prefixcache *c, struct prefix *x, const uint32_t *tokens,
                            uint32_t own)
{
    uint64_t hash;
    uint32_t block = find(c, x, tokens, &hash);
    if (block == NONE)
        return NONE;
    if (c->blocks[block].page != NONE) {
        use(c, block);
        if (own != NONE)
            kvpool_drop(c->pool, own);
    } else if (!come_in(c, block, own)) {
        return NONE;
    }
    go_on(x, hash, block);
    return c->blocks[block].page;
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
    if (there == NONE)
        there = insert(c, x, hash, tokens);
    if (c->blocks[there].page == NONE) {
        settle(c, there, page);
    } else {
        use(c, there);
        prefixcache_drop(c, page);
    }
    go_on(x, hash, there);
    return c->blocks[there].page;
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
    for (; c->blocks && n < cap && *cursor < c->n_blocks; ++*cursor)
        if (c->blocks[*cursor].told != 0)
            hashes[n++] = c->blocks[*cursor].told;
    return n;
}

/* ---- for tests --------------------------------------------------------------------------------
 */

static bool place_consistent(const struct prefixcache *c, uint32_t block)
{
    const struct prefixcache_block *b = &c->blocks[block];
    uint32_t refs = b->page != NONE ? c->pool->refs[b->page] : 0;
    if (b->page != NONE && c->block_of[b->page] != block)
        return false;
    if (b->slot != NONE && (!c->host || c->host->slots[b->slot].block != block))
        return false;
    return (b->page != NONE || b->slot != NONE) && b->idle == (refs == 1);
}

static bool block_consistent(const struct prefixcache *c, uint32_t block)
{
    const struct prefixcache_block *b = &c->blocks[block];
    if (b->hash == 0)
        return !b->idle && b->n_children == 0 && b->page == NONE && b->slot == NONE;
    if (find_hash(c, b->hash) != block || !place_consistent(c, block))
        return false;
    if (b->parent == NONE)
        return true;
    const struct prefixcache_block *p = &c->blocks[b->parent];
    return p->hash != 0 && p->n_children > 0 && (b->page == NONE || p->page != NONE) &&
           (b->page == NONE || b->idle || !p->idle);
}

bool prefixcache_consistent(const struct prefixcache *c)
{
    uint32_t n_idle = 0, n_parents = 0, n_children = 0, n_slots = 0, n_pages = 0;
    for (uint32_t block = 0; c->blocks && block < c->n_blocks; block++) {
        const struct prefixcache_block *b = &c->blocks[block];
        if (!block_consistent(c, block))
            return false;
        n_parents += b->hash != 0 && b->parent != NONE;
        n_children += b->n_children;
        n_slots += b->slot != NONE;
        n_pages += b->page != NONE;
    }
    for (uint32_t page = 0; c->blocks && page < c->pool->n_pages; page++)
        n_pages -= c->block_of[page] != NONE;
    for (uint32_t i = c->n_idle ? c->oldest : NONE; i != NONE; i = c->blocks[i].newer) {
        if (++n_idle > c->n_idle || !c->blocks[i].idle)
            return false;
    }
    return n_idle == c->n_idle && n_parents == n_children && n_pages == 0 &&
           n_slots == (c->host ? c->host->n_used : 0) && kvpool_consistent(c->pool);
}
