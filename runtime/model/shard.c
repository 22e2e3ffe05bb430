#include "runtime/model/shard.h"

#include "kernels/kernels.h"
#include "runtime/base/check.h"
#include "runtime/model/model.h"

static uint32_t units_of(uint32_t n, uint32_t unit)
{
    return (n + unit - 1) / unit;
}

/* Part i of `parts` of [0, n), in whole units but for the last of them. */
static struct shard_range part_of(uint32_t n, uint32_t unit, uint32_t i, uint32_t parts)
{
    uint64_t units = units_of(n, unit);
    uint64_t begin = units * i / parts * unit, end = units * (i + 1) / parts * unit;
    return (struct shard_range){begin < n ? (uint32_t)begin : n, end < n ? (uint32_t)end : n};
}

/* The least number of pieces of `elems` that is whole blocks of activations. */
static uint32_t pieces_of_block(uint32_t elems)
{
    uint32_t n = 1;
    while ((uint64_t)n * elems % KN_BLOCK)
        n++;
    return n;
}

/* More ranks than KV heads: rank r reads KV head r * n_kv / ranks, with its part of the query heads
 * that read it. */
static void split_group(const struct hparams *h, uint32_t rank, uint32_t ranks, struct shard *s)
{
    uint32_t kv = h->n_kv_heads, group = h->n_heads / kv;
    uint32_t head = rank * kv / ranks;
    uint32_t first = units_of(head * ranks, kv), next = units_of((head + 1) * ranks, kv);
    struct shard_range q = part_of(group, pieces_of_block(h->head_dim), rank - first, next - first);
    s->q_heads = (struct shard_range){head * group + q.begin, head * group + q.end};
    s->kv_heads = (struct shard_range){head, head + (q.end > q.begin ? 1 : 0)};
}

static void split_heads(const struct hparams *h, uint32_t rank, uint32_t ranks, struct shard *s)
{
    uint32_t group = h->n_heads / h->n_kv_heads;
    uint32_t unit = pieces_of_block(group * h->head_dim);
    if (ranks > h->n_kv_heads && unit == 1) {
        split_group(h, rank, ranks, s);
        return;
    }
    s->kv_heads = part_of(h->n_kv_heads, unit, rank, ranks);
    s->q_heads = (struct shard_range){s->kv_heads.begin * group, s->kv_heads.end * group};
}

void shard_of(const struct hparams *h, uint32_t rank, uint32_t ranks, struct shard *out)
{
    ASSERT(rank < ranks && ranks <= SHARD_RANKS_MAX);
    *out = (struct shard){.rank = rank, .ranks = ranks};
    split_heads(h, rank, ranks, out);
    out->ff = part_of(h->n_ff, KN_BLOCK, rank, ranks);
    out->embed = part_of(h->n_embd, KN_ROW_TILE, rank, ranks);
    out->vocab = part_of(h->vocab, KN_ROW_TILE, rank, ranks);
}

int shard_check(const struct hparams *h, uint32_t ranks, struct err *e)
{
    uint32_t ff = units_of(h->n_ff, KN_BLOCK), embed = units_of(h->n_embd, KN_ROW_TILE);
    uint32_t most = ff < embed ? ff : embed;
    if (ranks <= most || ranks <= 1)
        return 0;
    return err_set(e, ERR_CONFIG,
                   "%u ranks: this model (embedding %u, feed-forward %u) has work for at most %u",
                   ranks, h->n_embd, h->n_ff, most < SHARD_RANKS_MAX ? most : SHARD_RANKS_MAX);
}
