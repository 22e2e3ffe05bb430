/* tile.h: what the versions of matmul share. Internal to kernels/. */
#ifndef ARGOSY_KERNELS_MATMUL_TILE_H
#define ARGOSY_KERNELS_MATMUL_TILE_H

#include "kernels/formats.h"
#include "kernels/table.h"

#define TILE_TOKENS_MAX 8
/* Bytes ahead of their use that weights are fetched: what memory at 40 GB/s delivers in the 200 ns
 * it may take under load. */
#define FETCH_AHEAD 8192

/* Block weights: 16 rows times a few tokens. */
struct block_tile {
    const uint8_t *scales; /* of the row tile */
    const uint8_t *quants;
    const int8_t *q; /* (tokens, n_blocks * KN_BLOCK), of the first token */
    const float *d;  /* (tokens, n_blocks) */
    const int32_t *s;
    const int32_t *h; /* read for sub-blocks of 16 alone */
    int64_t n_blocks;
    /* Whether the tile is read for the first time, so that what comes next should be fetched. */
    bool fetch;
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

/* Constants of a type, for code in which `type` is one: struct kn_format and struct kn_layout as
 * the compiler can fold them. */
static inline __attribute__((always_inline)) int type_low_bits(int type)
{
    return type == KN_Q8_0 ? 8 : type == KN_Q2_K || type == KN_Q3_K ? 2 : 4;
}

static inline __attribute__((always_inline)) int type_high_bits(int type)
{
    return type == KN_Q6_K                                                            ? 2
           : type == KN_Q5_0 || type == KN_Q5_1 || type == KN_Q5_K || type == KN_Q3_K ? 1
                                                                                      : 0;
}

static inline __attribute__((always_inline)) int type_sub(int type)
{
    return type == KN_Q4_K || type == KN_Q5_K                      ? 32
           : type == KN_Q2_K || type == KN_Q3_K || type == KN_Q6_K ? 16
                                                                   : 0;
}

static inline __attribute__((always_inline)) bool type_has_min(int type)
{
    return type == KN_Q4_1 || type == KN_Q5_1 || type == KN_Q2_K || type == KN_Q4_K ||
           type == KN_Q5_K;
}

/* The kernels multiply quants that are unsigned, this power of two above their values (0: none);
 * those of codebooks are looked up as such. */
static inline __attribute__((always_inline)) int type_zero_log2(int type)
{
    return type == KN_Q8_0 || type == KN_IQ4_NL  ? 7
           : type == KN_Q6_K                     ? 5
           : type == KN_Q5_0 || type == KN_MXFP4 ? 4
           : type == KN_Q4_0                     ? 3
           : type == KN_Q3_K                     ? 2
                                                 : 0;
}

static inline __attribute__((always_inline)) int64_t type_unit_blocks(int type)
{
    return type_sub(type) != 0 ? 8 : 1;
}

static inline __attribute__((always_inline)) size_t type_subs_at(int type)
{
    return type == KN_MXFP4 ? 16 : type_has_min(type) ? 64 : 32;
}

/* Of a unit of 16 rows. */
static inline __attribute__((always_inline)) size_t type_scale_bytes(int type)
{
    return type_subs_at(type) + (type_sub(type) != 0 ? 8 * KN_SUB_BYTES : 0);
}

#endif
