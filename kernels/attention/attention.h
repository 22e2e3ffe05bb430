/* attention.h: what the versions of attention share. Internal to kernels/. */
#ifndef ARGOSY_KERNELS_ATTENTION_H
#define ARGOSY_KERNELS_ATTENTION_H

#include "kernels/kernels.h"

#define ATTN_HEAD_DIM_MAX 256
#define ATTN_SEGMENTS 4 /* of head_dim, in q·k */

#define ATTN_QUERIES_MAX 24

/* Queries that read the same KV head, worked on together so that its K and V are converted once:
 * `rows` rows from `row`, and in each `heads` query heads from `head`. Query i is row i / heads,
 * head i % heads. Vector code only. */
struct attn_queries {
    uint32_t row;
    int rows;
    int head;
    int heads;
    float score[ATTN_QUERIES_MAX][KN_ATTN_SPLIT]; /* then exp(score - m) */
    float o[ATTN_QUERIES_MAX][ATTN_HEAD_DIM_MAX]; /* of the split */
    float m[ATTN_QUERIES_MAX];
    float l[ATTN_QUERIES_MAX];
} __attribute__((aligned(64)));

/* First position that the row at `pos` sees. */
static inline uint32_t attn_first(const struct kn_attn *a, uint32_t pos)
{
    return a->window != 0 && pos + 1 > a->window ? pos + 1 - a->window : 0;
}

/* KV head h in the page of position j. */
static inline const void *attn_page(const struct kn_attn *a, uint32_t j, int h)
{
    return a->kv.pages + a->span.page_table[j / KN_PAGE_TOKENS] * a->kv.page_stride +
           h * kn_kv_page_elems(a->kv.type, 1, a->kv.head_dim);
}

/* The scales of an int8 head (KN_PAGE_TOKENS): of K. Those of V follow. */
static inline const float *attn_scales(const void *head, int head_dim)
{
    return (const float *)(const void *)((const int8_t *)head +
                                         (int64_t)2 * head_dim * KN_PAGE_TOKENS);
}

/* Where split `s` of query head h is in `part`: m, l, o (head_dim). */
static inline int64_t attn_part_at(const struct kn_attn *a, uint32_t pos, int h, uint32_t s)
{
    return ((int64_t)h * (pos / KN_ATTN_SPLIT + 1) + s) * (a->kv.head_dim + 2);
}

#endif
