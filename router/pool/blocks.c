/* blocks.c: the blocks of a request's prompt, and which worker has them in its cache.
 *
 * Hashes are made as the workers make theirs (runtime/base/blockhash.h), with the router's own
 * manifest: what a worker calls a block, the router calls the same. One size of page is known here
 * at a time, the first attached worker's; a worker with another one is not indexed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/pool/pool_internal.h"
#include "runtime/base/blockhash.h"

int blocks_open(struct pool *p, struct err *e)
{
    if (p->config.prefix_index_bytes == 0)
        return 0;
    p->cached_blocks = calloc(p->config.workers_max, sizeof(*p->cached_blocks));
    if (!p->cached_blocks)
        return err_set(e, ERR_NOMEM, "no memory for %u workers", p->config.workers_max);
    return prefix_index_open(p->config.prefix_index_bytes, p->config.workers_max, p->config.seed,
                             &p->index, e);
}

void blocks_release(struct pool *p)
{
    prefix_index_free(p->index);
    free(p->cached_blocks);
    free(p->hashes);
}

/* ---- workers -------------------------------------------------------------------------------- */

void blocks_attach(struct pool *p, struct worker *w)
{
    w->index_slot = PREFIX_INDEX_NONE;
    if (p->n_workers == 1)
        p->page_tokens = 0;
}

/* At its first news, or when there was no slot for it before. */
static void join(struct pool *p, struct worker *w)
{
    uint32_t page_tokens = w->offers[0].page_tokens;
    if (p->page_tokens == 0 && page_tokens <= BLOCK_TOKENS_MAX)
        p->page_tokens = page_tokens;
    if (page_tokens > 0 && page_tokens == p->page_tokens)
        w->index_slot = prefix_index_join(p->index);
}

void blocks_leave(struct pool *p, struct worker *w)
{
    if (p->index && w->attached)
        prefix_index_leave(p->index, w->index_slot);
}

void blocks_events(struct pool *p, struct worker *w, const Argosy__CacheEvents *events)
{
    if (!p->index)
        return;
    if (w->index_slot == PREFIX_INDEX_NONE)
        join(p, w);
    uint64_t blocks_max = (uint64_t)w->kv_pages + w->kv_host_pages;
    prefix_index_limit(p->index, w->index_slot,
                       blocks_max < UINT32_MAX ? (uint32_t)blocks_max : UINT32_MAX);
    prefix_index_evict(p->index, w->index_slot, events->evicted, events->n_evicted);
    prefix_index_store(p->index, w->index_slot, events->stored, events->n_stored);
}

/* ---- requests ------------------------------------------------------------------------------- */

static uint64_t root_of(const struct gen *g)
{
    const struct pool_model *m = &g->pool->models[g->model];
    char text[2 * 64 + 2];
    if (!m->adapter_sha256[0])
        return blockhash_root(m->manifest_sha256, g->r->cache_salt);
    snprintf(text, sizeof(text), "%.64s:%.64s", m->manifest_sha256, m->adapter_sha256);
    return blockhash_root(text, g->r->cache_salt);
}

/* False: no memory; then nothing is known of the prompt. */
static bool make_room(struct pool *p, uint32_t n)
{
    if (n <= p->cap_hashes)
        return true;
    uint64_t *more = realloc(p->hashes, n * sizeof(*more));
    if (!more)
        return false;
    p->hashes = more;
    p->cap_hashes = n;
    return true;
}

static uint32_t token_at(const struct gen *g, uint32_t i)
{
    return i < g->r->n_prompt ? g->r->prompt[i] : g->out[i - g->r->n_prompt];
}

void blocks_hash(struct gen *g, struct policy_request *request)
{
    struct pool *p = g->pool;
    uint32_t n_tokens = g->r->n_prompt + g->n_out;
    unsigned needs = p->config.policy->needs;
    /* For a mean of all states every token is computed. The last token always is. */
    if (!p->index || p->page_tokens == 0 || !needs || g->r->pooling == GEN_MEAN || n_tokens == 0)
        return;
    uint32_t n = (n_tokens - 1) / p->page_tokens;
    if (!make_room(p, n))
        return;
    uint64_t hash = root_of(g);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = i * p->page_tokens;
        if (at + p->page_tokens <= g->r->n_prompt) {
            hash = blockhash_next(hash, g->r->prompt + at, p->page_tokens);
        } else {
            uint32_t tokens[BLOCK_TOKENS_MAX];
            for (uint32_t j = 0; j < p->page_tokens; j++)
                tokens[j] = token_at(g, at + j);
            hash = blockhash_next(hash, tokens, p->page_tokens);
        }
        p->hashes[i] = hash;
    }
    request->block_hashes = p->hashes;
    request->n_blocks = n;
    request->block_tokens = p->page_tokens;
}

const uint32_t *blocks_look(struct pool *p, const struct policy_request *request, uint32_t n)
{
    if (request->n_blocks == 0 || !(p->config.policy->needs & POLICY_NEEDS_CACHED))
        return NULL;
    const uint32_t *depths = prefix_index_look(p->index, request->block_hashes, request->n_blocks);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = ((const struct worker *)p->admitted[i])->index_slot;
        p->cached_blocks[i] = slot == PREFIX_INDEX_NONE ? 0 : depths[slot];
    }
    return p->cached_blocks;
}

void blocks_picked(struct gen *g, const struct policy_request *request, uint32_t chosen)
{
    struct pool *p = g->pool;
    g->cached_guess = 0;
    if (request->n_blocks == 0 || !(p->config.policy->needs & POLICY_NEEDS_CACHED))
        return;
    g->cached_guess = p->cached_blocks[chosen] * request->block_tokens;
    prefix_index_touch(p->index, request->block_hashes, p->cached_blocks[chosen]);
}
