/* tile.h: what the versions of matmul share. Internal to kernels/. */
#ifndef ARGOSY_KERNELS_MATMUL_TILE_H
#define ARGOSY_KERNELS_MATMUL_TILE_H

#include "kernels/table.h"

#define TILE_TOKENS_MAX 8

/* Block weights: 16 rows times a few tokens. */
struct block_tile {
    const uint8_t *scales; /* of the row tile */
    const uint8_t *quants;
    const int8_t *q; /* (tokens, n_blocks * KN_BLOCK), of the first token */
    const float *d;  /* (tokens, n_blocks) */
    const int32_t *s;
    int64_t n_blocks;
};

/* Sums of the segments, to be added as a tree. */
struct segment_sums {
    float v[KN_SEGMENTS][TILE_TOKENS_MAX][KN_ROW_TILE];
} __attribute__((aligned(64)));

/* Four activations, which the kernels broadcast. */
static inline int32_t load_quad(const int8_t *q)
{
    int32_t v;
    __builtin_memcpy(&v, q, sizeof v);
    return v;
}

#endif
