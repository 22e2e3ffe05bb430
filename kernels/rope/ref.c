/* rope/ref.c: rotates q in place, and k on its way to the page; v goes there as it is. */
#include "kernels/numerics.h"
#include "kernels/quantize/quantize.h"
#include "kernels/table.h"

/* One head (head_dim): the first `dim` elements turn, the rest stay. */
static void rotate(float *x, const float *cos, const float *sin, int dim, enum kn_rope kind)
{
    int half = dim / 2;

    for (int i = 0; i < half; i++) {
        float *a = kind == KN_ROPE_NORM ? &x[2 * i] : &x[i];
        float *b = kind == KN_ROPE_NORM ? &x[2 * i + 1] : &x[i + half];
        float x0 = *a, x1 = *b;
        *a = fmaf(x0, cos[i], -(x1 * sin[i]));
        *b = fmaf(x0, sin[i], x1 * cos[i]);
    }
}

/* A head as int8, `stride` apart; its scale. As a block of activations (quantize/ref.c). */
static float quantize_head(const float *x, int hd, int8_t *q, int stride)
{
    uint32_t amax_bits = 0;

    for (int d = 0; d < hd; d++) {
        uint32_t a = kn_bits(x[d]) & 0x7fffffff;
        amax_bits = a > amax_bits ? a : amax_bits;
        q[d * stride] = 0;
    }
    if (amax_bits >= QUANTIZE_INF_BITS) {
        return kn_float(QUANTIZE_NAN_BITS);
    }
    float amax = kn_float(amax_bits);
    if (amax < QUANTIZE_TINY) {
        return 0.0f;
    }
    float inverse = 127.0f / amax;
    for (int d = 0; d < hd; d++) {
        q[d * stride] = (int8_t)((x[d] * inverse + KN_ROUND_MAGIC) - KN_ROUND_MAGIC);
    }
    return amax / 127.0f;
}

/* k and v of a head to their slot of the page's head. */
static void put(const struct kn_kv *kv, void *page_head, uint32_t slot, const float *k,
                const float *v)
{
    int hd = kv->head_dim;

    if (kv->type == KN_KV_INT8) {
        int8_t *q = page_head; /* K (head_dim, 16), V (16, head_dim) */
        float *scales = (float *)(void *)(q + 2 * hd * KN_PAGE_TOKENS);
        scales[slot] = quantize_head(k, hd, q + slot, KN_PAGE_TOKENS);
        scales[KN_PAGE_TOKENS + slot] =
            quantize_head(v, hd, q + (int64_t)(KN_PAGE_TOKENS + slot) * hd, 1);
        return;
    }
    uint16_t *page_k = page_head, *page_v = page_k + hd * KN_PAGE_TOKENS;
    for (int d = 0; d < hd; d++) {
        page_k[d * KN_PAGE_TOKENS + slot] = kn_f32_to_f16(k[d]);
        page_v[slot * hd + d] = kn_f32_to_f16(v[d]);
    }
}

void kn_rope_kv_ref(float *qkv, int64_t ld, int n_heads, const struct kn_kv *kv,
                    const struct kn_span *span, const struct kn_rope_table *table,
                    enum kn_rope kind)
{
    int hd = kv->head_dim;
    int64_t half = table->dim / 2;

    for (uint32_t r = 0; r < span->rows; r++) {
        uint32_t pos = span->pos + r;
        uint32_t slot = pos % KN_PAGE_TOKENS;
        uint16_t *page = kv->pages + span->page_table[pos / KN_PAGE_TOKENS] * kv->page_stride;
        const float *cos = table->cos + (int64_t)pos * half;
        const float *sin = table->sin + (int64_t)pos * half;
        float *head = qkv + r * ld; /* (n_heads + 2 n_kv_heads, head_dim) */

        for (int h = 0; h < n_heads + kv->n_kv_heads; h++) {
            rotate(head + (int64_t)h * hd, cos, sin, table->dim, kind);
        }
        for (int h = 0; h < kv->n_kv_heads; h++) {
            const float *k = head + (int64_t)(n_heads + h) * hd;
            const float *v = k + (int64_t)kv->n_kv_heads * hd;
            put(kv, page + h * kn_kv_page_elems(kv->type, 1, hd), slot, k, v);
        }
    }
}
