/* columns.h: which columns of what a pass computes each rank of a group has, for both backends. */
#ifndef ARGOSY_ENGINE_COLUMNS_H
#define ARGOSY_ENGINE_COLUMNS_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/engine/backend.h"
#include "runtime/model/shard.h"

/* Where each rank's columns of a register begin, in elements; [ranks] is the width. */
struct columns {
    uint32_t begin[SHARD_RANKS_MAX + 1];
};

struct group_columns {
    struct columns heads, ff, embd, vocab;
};

/* The same in bytes. */
struct bounds {
    size_t begin[SHARD_RANKS_MAX + 1];
};

void group_columns_of(const struct model *m, struct group_columns *out);

/* Of rows of floats; of rows that have `bytes` for each block of columns. */
struct bounds columns_of_floats(const struct columns *by, uint32_t ranks);
struct bounds columns_of_blocks(const struct columns *by, uint32_t ranks, size_t bytes);

/* The batch's rows by the rank that has their embedding: owned_rows (n_rows) lists them, rank r's
 * from first->begin[r] on; owned: the ids of `own`'s, counted from its first. */
void columns_sort_rows(const struct batch *batch, const struct columns *vocab, uint32_t ranks,
                       uint32_t own, uint32_t *owned, uint32_t *owned_rows, struct columns *first);

#endif
