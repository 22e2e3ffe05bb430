#include "runtime/engine/columns.h"

#include "runtime/base/check.h"
#include "runtime/model/model.h"

void group_columns_of(const struct model *m, struct group_columns *out)
{
    *out = (struct group_columns){0};
    for (uint32_t r = 0; r < m->shard.ranks; r++) {
        struct shard s;
        shard_of(&m->h, r, m->shard.ranks, &s);
        out->heads.begin[r + 1] = s.q_heads.end * m->h.head_dim;
        out->ff.begin[r + 1] = s.ff.end;
        out->embd.begin[r + 1] = s.embed.end;
        out->vocab.begin[r + 1] = s.vocab.end;
    }
}

struct bounds columns_of_floats(const struct columns *by, uint32_t ranks)
{
    struct bounds b;
    for (uint32_t r = 0; r <= ranks; r++)
        b.begin[r] = by->begin[r] * sizeof(float);
    return b;
}

struct bounds columns_of_blocks(const struct columns *by, uint32_t ranks, size_t bytes)
{
    struct bounds b;
    for (uint32_t r = 0; r <= ranks; r++)
        b.begin[r] = (by->begin[r] + KN_BLOCK - 1) / KN_BLOCK * bytes;
    return b;
}

void columns_sort_rows(const struct batch *batch, const struct columns *vocab, uint32_t ranks,
                       uint32_t own, uint32_t *owned, uint32_t *owned_rows, struct columns *first)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < ranks; r++) {
        uint32_t begin = vocab->begin[r], end = vocab->begin[r + 1], count = 0;
        first->begin[r] = n;
        for (uint32_t i = 0; i < batch->n_rows; i++) {
            uint32_t id = batch->ids[i];
            if (id < begin || id >= end)
                continue;
            owned_rows[n++] = i;
            if (r == own)
                owned[count++] = id - begin;
        }
    }
    first->begin[ranks] = n;
    ASSERT(n == batch->n_rows);
}
