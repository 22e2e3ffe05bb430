/* matmul/ref.c: y = W x, integer inside a block, fp32 across blocks, KN_SEGMENTS sums in a tree. */
#include "kernels/numerics.h"
#include "kernels/table.h"

/* Integer product of a block of weights (the file's bytes) and activations. */
static int32_t dot_block(int type, const uint8_t *w, const int8_t *q)
{
    const uint8_t *quants = w + (type == KN_Q4_1 ? 4 : 2);
    int32_t sum = 0;

    if (type == KN_Q8_0) {
        for (int i = 0; i < KN_BLOCK; i++) {
            sum += (int8_t)quants[i] * q[i];
        }
        return sum;
    }
    int zero = type == KN_Q4_0 ? 8 : 0;
    for (int i = 0; i < KN_BLOCK / 2; i++) {
        sum += ((quants[i] & 15) - zero) * q[i];
        sum += ((quants[i] >> 4) - zero) * q[i + 16];
    }
    return sum;
}

/* d_w * dot + m_w * s_x: the block's value in units of the activations' scale. */
static float block_term(int type, const uint8_t *w, const int8_t *q, int32_t s)
{
    uint16_t half[2];
    memcpy(half, w, sizeof half);
    float d = kn_f16_to_f32(half[0]);
    float dot = (float)dot_block(type, w, q);

    if (type == KN_Q4_1) {
        return fmaf(d, dot, kn_f16_to_f32(half[1]) * (float)s);
    }
    return d * dot;
}

/* w: a row of the file. */
static float row_blocks(int type, const uint8_t *w, const int8_t *q, const float *d,
                        const int32_t *s, int64_t n_blocks)
{
    size_t bytes = kn_type_block_bytes(type);
    float sum[KN_SEGMENTS];

    for (int i = 0; i < KN_SEGMENTS; i++) {
        float acc = 0.0f;
        for (int64_t b = kn_segment(n_blocks, i); b < kn_segment(n_blocks, i + 1); b++) {
            acc = fmaf(d[b], block_term(type, w + (size_t)b * bytes, q + b * KN_BLOCK, s[b]), acc);
        }
        sum[i] = acc;
    }
    return kn_tree8(sum);
}

static float row_floats(int type, const uint8_t *w, const float *x, int64_t k)
{
    size_t bytes = kn_type_block_bytes(type);
    int64_t n_blocks = (k + KN_BLOCK - 1) / KN_BLOCK;
    float sum[KN_SEGMENTS];

    for (int i = 0; i < KN_SEGMENTS; i++) {
        int64_t end = kn_segment(n_blocks, i + 1) * KN_BLOCK;
        float acc = 0.0f;
        for (int64_t c = kn_segment(n_blocks, i) * KN_BLOCK; c < end && c < k; c++) {
            float v;
            kn_dequantize_row(type, w + (size_t)c * bytes, 1, &v);
            acc = fmaf(v, x[c], acc);
        }
        sum[i] = acc;
    }
    return kn_tree8(sum);
}

void kn_matmul_ref(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy)
{
    int64_t k = w->cols;
    int64_t n_blocks = (k + KN_BLOCK - 1) / KN_BLOCK;
    size_t row_bytes = kn_row_bytes(w->type, k);

    for (int64_t t = 0; t < n; t++) {
        for (int64_t r = row_begin; r < row_end; r++) {
            const uint8_t *row = (const uint8_t *)w->data + (size_t)r * row_bytes;
            float v = kn_is_float(w->type)
                          ? row_floats(w->type, row, x->f + t * k, k)
                          : row_blocks(w->type, row, x->q + t * n_blocks * KN_BLOCK,
                                       x->d + t * n_blocks, x->s + t * n_blocks, n_blocks);
            float *out = y + t * ldy + r;
            *out = accumulate ? *out + v : v;
        }
    }
}
