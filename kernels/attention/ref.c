/* attention/ref.c: softmax(q·k) v over splits of KN_ATTN_SPLIT tokens, folded in ascending order.
 */
#include "kernels/attention/attention.h"
#include "kernels/numerics.h"
#include "kernels/table.h"

/* Element i of the K or V that starts at p, without its scale. */
static float element(const struct kn_attn *a, const void *p, int64_t i)
{
    return a->kv.type == KN_KV_INT8 ? (float)((const int8_t *)p)[i]
                                    : kn_f16_to_f32(((const uint16_t *)p)[i]);
}

/* scale * q·k, capped, of position j. */
static float score(const struct kn_attn *a, const float *q, uint32_t j, int kv_head)
{
    int hd = a->kv.head_dim, slot = (int)(j % KN_PAGE_TOKENS);
    const void *k = attn_page(a, j, kv_head); /* (head_dim, 16) */
    float sum[ATTN_SEGMENTS];

    for (int s = 0; s < ATTN_SEGMENTS; s++) {
        float acc = 0.0f;
        for (int d = hd * s / ATTN_SEGMENTS; d < hd * (s + 1) / ATTN_SEGMENTS; d++) {
            acc = fmaf(q[d], element(a, k, d * KN_PAGE_TOKENS + slot), acc);
        }
        sum[s] = acc;
    }
    float dot = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    if (a->kv.type == KN_KV_INT8) {
        dot = dot * attn_scales(k, hd)[slot];
    }
    float x = a->scale * dot;
    return a->softcap > 0.0f ? a->softcap * kn_tanh(x / a->softcap) : x;
}

/* Positions [first, end) of one split, for one row and query head. Leaves m, l and o (head_dim). */
static void split(const struct kn_attn *a, uint32_t row, int head, uint32_t first, uint32_t end,
                  float *m, float *l, float *o)
{
    int hd = a->kv.head_dim;
    int kv_head = head / (a->n_heads / a->kv.n_kv_heads);
    const float *q = a->q + row * a->ldq + (int64_t)head * hd;
    float e[KN_ATTN_SPLIT];
    float lane[KN_PAGE_TOKENS] = {0};
    float max = -INFINITY;

    for (uint32_t j = first; j < end; j++) {
        float s = score(a, q, j, kv_head);
        e[j - first] = s;
        max = s > max ? s : max;
    }
    max = max + 0.0f; /* -0 becomes +0 */
    memset(o, 0, (size_t)hd * sizeof *o);
    for (uint32_t j = first; j < end; j++) {
        float weight = kn_exp(e[j - first] - max);
        const void *page = attn_page(a, j, kv_head);
        uint32_t slot = j % KN_PAGE_TOKENS;
        int64_t v = (int64_t)(KN_PAGE_TOKENS + slot) * hd; /* behind K */
        lane[slot] = lane[slot] + weight;
        if (a->kv.type == KN_KV_INT8) {
            weight = weight * attn_scales(page, hd)[KN_PAGE_TOKENS + slot];
        }
        for (int d = 0; d < hd; d++) {
            o[d] = fmaf(weight, element(a, page, v + d), o[d]);
        }
    }
    *m = max;
    *l = kn_fold(lane, KN_PAGE_TOKENS);
}

void kn_attention_part_ref(const struct kn_attn *a, uint32_t row, int head_begin, int head_end,
                           uint32_t split_begin, uint32_t split_end, float *part)
{
    uint32_t pos = a->span.pos + row;
    uint32_t low = attn_first(a, pos);
    int group = a->n_heads / a->kv.n_kv_heads;

    for (int h = head_begin * group; h < head_end * group; h++) {
        for (uint32_t s = split_begin; s < split_end; s++) {
            uint32_t first = s * KN_ATTN_SPLIT, end = first + KN_ATTN_SPLIT;
            first = first < low ? low : first;
            end = end > pos + 1 ? pos + 1 : end;
            float *to = part + attn_part_at(a, pos, h, s);
            if (first < end) {
                split(a, row, h, first, end, &to[0], &to[1], &to[2]);
            }
        }
    }
}

/* Adds a split (m, l, o) to the fold (M, L, O). */
static void fold(float *M, float *L, float *O, const float *part, int head_dim)
{
    float m = part[0];
    float max = m > *M ? m : *M;
    float keep = kn_exp(*M - max);
    float add = kn_exp(m - max);

    *L = fmaf(*L, keep, part[1] * add);
    for (int d = 0; d < head_dim; d++) {
        O[d] = fmaf(O[d], keep, part[2 + d] * add);
    }
    *M = max;
}

void kn_attention_merge_ref(const struct kn_attn *a, uint32_t row, int head_begin, int head_end,
                            const float *part)
{
    uint32_t pos = a->span.pos + row;
    uint32_t first = attn_first(a, pos) / KN_ATTN_SPLIT;
    int hd = a->kv.head_dim;
    int group = a->n_heads / a->kv.n_kv_heads;

    for (int h = head_begin * group; h < head_end * group; h++) {
        float *out = a->out + row * a->ldo + (int64_t)h * hd;
        const float *p = part + attn_part_at(a, pos, h, first);
        float M = p[0], L = p[1];
        memcpy(out, p + 2, (size_t)hd * sizeof *out);
        for (uint32_t s = first + 1; s <= pos / KN_ATTN_SPLIT; s++) {
            fold(&M, &L, out, part + attn_part_at(a, pos, h, s), hd);
        }
        for (int d = 0; d < hd; d++) {
            out[d] = out[d] / L;
        }
    }
}

void kn_attention_ref(const struct kn_attn *a, uint32_t row_begin, uint32_t row_end, int head_begin,
                      int head_end)
{
    int hd = a->kv.head_dim;
    int group = a->n_heads / a->kv.n_kv_heads;
    float part[ATTN_HEAD_DIM_MAX + 2];

    for (uint32_t row = row_begin; row < row_end; row++) {
        uint32_t pos = a->span.pos + row;
        for (int h = head_begin * group; h < head_end * group; h++) {
            float *out = a->out + row * a->ldo + (int64_t)h * hd;
            float M = 0.0f, L = 0.0f;
            uint32_t end;
            for (uint32_t j = attn_first(a, pos); j <= pos; j = end) {
                end = (j / KN_ATTN_SPLIT + 1) * KN_ATTN_SPLIT;
                end = end > pos + 1 ? pos + 1 : end;
                if (j == attn_first(a, pos)) {
                    split(a, row, h, j, end, &M, &L, out);
                } else {
                    split(a, row, h, j, end, &part[0], &part[1], &part[2]);
                    fold(&M, &L, out, part, hd);
                }
            }
            for (int d = 0; d < hd; d++) {
                out[d] = out[d] / L;
            }
        }
    }
}
