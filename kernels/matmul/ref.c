/* matmul/ref.c: y = W x, integer inside a block, fp32 across blocks, KN_SEGMENTS sums in a tree. */
#include "kernels/formats.h"
#include "kernels/numerics.h"
#include "kernels/table.h"

#define TOKENS_MAX 16 /* that share the reading of a row */

/* What a dot product of activations with one block of weights needs. */
struct block_weights {
    float d, m;   /* times the sub-scale and sub-minimum where 32 elements share one */
    int scale[2]; /* of the halves, where 16 elements share one */
    int min[2];
    int8_t w[KN_BLOCK];
};

/* Block j of a unit. */
static void get_weights(const struct kn_format *f, const struct kn_block *b, int j,
                        struct block_weights *w)
{
    w->d = kn_block_scale(f, b);
    w->m = kn_block_min(f, b);
    if (f->sub == 32) {
        w->d = w->d * (float)b->scale[j];
        w->m = w->m * (float)b->min[j];
    }
    for (int i = 0; i < 2 && f->sub == 16; i++) {
        w->scale[i] = b->scale[2 * j + i];
        w->min[i] = f->has_min ? b->min[2 * j + i] : 0;
    }
    for (int i = 0; i < KN_BLOCK; i++) {
        w->w[i] = (int8_t)kn_block_value(f, b->q[j * KN_BLOCK + i]);
    }
}

static int32_t dot(const int8_t *w, const int8_t *q, int n)
{
    int32_t sum = 0;

    for (int i = 0; i < n; i++) {
        sum += w[i] * q[i];
    }
    return sum;
}

static int32_t sum16(const int8_t *q)
{
    int32_t sum = 0;

    for (int i = 0; i < 16; i++) {
        sum += q[i];
    }
    return sum;
}

/* The block's value in units of the activations' scale. The largest integer is Q6_K's,
 * 2 * 128 * 16 * 32 * 127 < 2^24: every conversion is exact. */
static float block_term(const struct kn_format *f, const struct block_weights *w, const int8_t *q,
                        int32_t s)
{
    int32_t isum, imin = s;

    if (f->sub == 16) {
        isum = w->scale[0] * dot(w->w, q, 16) + w->scale[1] * dot(w->w + 16, q + 16, 16);
        imin = w->min[0] * sum16(q) + w->min[1] * sum16(q + 16);
    } else {
        isum = dot(w->w, q, KN_BLOCK);
    }
    if (f->has_min) {
        return fmaf(w->d, (float)isum, w->m * (float)imin);
    }
    return w->d * (float)isum;
}

/* A row of the file times the n tokens of x from `token` on. y (n). */
static void row_blocks(const struct kn_format *f, const uint8_t *row, const struct kn_act *x,
                       int64_t token, int64_t n, float *y)
{
    int64_t n_blocks = x->k / KN_BLOCK, n_units = x->k / f->unit, per_unit = f->unit / KN_BLOCK;
    float sum[TOKENS_MAX][KN_SEGMENTS] = {{0.0f}};
    struct kn_block b;
    struct block_weights w;

    for (int i = 0; i < KN_SEGMENTS; i++) {
        for (int64_t u = kn_segment(n_units, i); u < kn_segment(n_units, i + 1); u++) {
            kn_block_read(f, row + (size_t)u * f->bytes, &b);
            for (int64_t j = 0; j < per_unit; j++) {
                get_weights(f, &b, (int)j, &w);
                for (int64_t t = 0; t < n; t++) {
                    int64_t at = (token + t) * n_blocks + u * per_unit + j;
                    float term = block_term(f, &w, x->q + at * KN_BLOCK, x->s[at]);
                    sum[t][i] = fmaf(x->d[at], term, sum[t][i]);
                }
            }
        }
    }
    for (int64_t t = 0; t < n; t++) {
        y[t] = kn_tree8(sum[t]);
    }
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
    const struct kn_format *f = kn_format_find(w->type);
    size_t row_bytes = kn_row_bytes(w->type, w->cols);
    float v[TOKENS_MAX];

    for (int64_t t = 0; t < n; t += TOKENS_MAX) {
        int64_t tokens = n - t < TOKENS_MAX ? n - t : TOKENS_MAX;
        for (int64_t r = row_begin; r < row_end; r++) {
            const uint8_t *row = (const uint8_t *)w->data + (size_t)r * row_bytes;
            if (f->unit > 1) {
                row_blocks(f, row, x, t, tokens, v);
            }
            for (int64_t i = 0; i < tokens; i++) {
                float *out = y + (t + i) * ldy + r;
                if (f->unit == 1) {
                    v[i] = row_floats(w->type, row, x->f + (t + i) * w->cols, w->cols);
                }
                *out = accumulate ? *out + v[i] : v[i];
            }
        }
    }
}
