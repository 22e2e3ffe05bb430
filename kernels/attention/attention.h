/* attention.h: what the versions of attention share. Internal to kernels/. */
#ifndef ARGOSY_KERNELS_ATTENTION_H
#define ARGOSY_KERNELS_ATTENTION_H

#include "kernels/kernels.h"

#define ATTN_HEAD_DIM_MAX 256
#define ATTN_SEGMENTS 4 /* of head_dim, in q·k */

/* First position that the row at `pos` sees. */
static inline uint32_t attn_first(const struct kn_attn *a, uint32_t pos)
{
    return a->window != 0 && pos + 1 > a->window ? pos + 1 - a->window : 0;
}

/* K (head_dim, 16) of KV head h in the page of position j; V (16, head_dim) follows it. */
static inline const uint16_t *attn_page(const struct kn_attn *a, uint32_t j, int h)
{
    return a->kv.pages + a->span.page_table[j / KN_PAGE_TOKENS] * a->kv.page_stride +
           (int64_t)h * 2 * a->kv.head_dim * KN_PAGE_TOKENS;
}

/* Where split `s` of query head h is in `part`: m, l, o (head_dim). */
static inline int64_t attn_part_at(const struct kn_attn *a, uint32_t pos, int h, uint32_t s)
{
    return ((int64_t)h * (pos / KN_ATTN_SPLIT + 1) + s) * (a->kv.head_dim + 2);
}

#endif
