/* shard.h: which part of a model each rank of a tensor-parallel group holds.
 *
 * A rank holds rows of every matrix, never columns: an element of a product is computed whole on
 * one rank, in the order that NUMERICS.md gives, so that its bits cannot depend on the degree. What
 * the next matrix reads is gathered from all ranks (runtime/engine/README.md says why, in bytes).
 *
 *     q, k, v, KV pages   by KV head with the query heads that read it; with more ranks than KV
 *                         heads, the query heads of one are shared out and its K and V are held
 *                         by each of them
 *     gate, up            by blocks of KN_BLOCK, so that no block of activations is cut
 *     o, down             by tiles of KN_ROW_TILE rows
 *     embedding, head     by tiles of the vocabulary
 *     experts             each one as gate, up and down are
 *     norms, router       every rank has all
 *
 * Parts need not be even: any degree serves any model that has a tile for each rank.
 */
#ifndef ARGOSY_MODEL_SHARD_H
#define ARGOSY_MODEL_SHARD_H

#include <stdint.h>

#include "runtime/base/err.h"

struct hparams;

#define SHARD_RANKS_MAX 16u

struct shard_range {
    uint32_t begin, end;
};

struct shard {
    uint32_t rank, ranks;
    struct shard_range q_heads, kv_heads;
    struct shard_range ff;    /* rows of gate and up */
    struct shard_range embed; /* rows of o and down: of the residual stream */
    struct shard_range vocab; /* rows of embedding and head */
};

static inline uint32_t shard_count(struct shard_range r)
{
    return r.end - r.begin;
}

/* What `rank` of `ranks` (1 to SHARD_RANKS_MAX) holds. Over the ranks, every range but kv_heads
 * covers its dimension once, ascending. Rank 0 of 1 holds everything. */
void shard_of(const struct hparams *h, uint32_t rank, uint32_t ranks, struct shard *out);

/* ERR_CONFIG where some rank would hold no rows of the feed-forward or of the residual stream: the
 * message names the most ranks that the model has work for. */
int shard_check(const struct hparams *h, uint32_t ranks, struct err *e);

#endif
