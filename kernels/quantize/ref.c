/* quantize/ref.c: fp32 rows to int8 blocks of 32 with a scale and the integer sums. */
#include "kernels/numerics.h"
#include "kernels/quantize/quantize.h"
#include "kernels/table.h"

/* n elements, at most KN_BLOCK, of a block that is zero past them. */
static void quantize_block(const float *x, int64_t n, int8_t *q, float *d)
{
    uint32_t amax_bits = 0; /* as bits |x| is ordered, and infinity and NaN come last */

    for (int64_t i = 0; i < n; i++) {
        uint32_t a = kn_bits(x[i]) & 0x7fffffff;
        amax_bits = a > amax_bits ? a : amax_bits;
    }
    memset(q, 0, KN_BLOCK);
    if (amax_bits >= QUANTIZE_INF_BITS) {
        *d = kn_float(QUANTIZE_NAN_BITS);
        return;
    }
    float amax = kn_float(amax_bits);
    if (amax < QUANTIZE_TINY) {
        *d = 0.0f;
        return;
    }
    *d = amax / 127.0f;
    float inverse = 127.0f / amax;
    for (int64_t i = 0; i < n; i++) {
        float v = (x[i] * inverse + KN_ROUND_MAGIC) - KN_ROUND_MAGIC;
        q[i] = (int8_t)v;
    }
}

static int32_t sum16(const int8_t *q)
{
    int32_t sum = 0;

    for (int i = 0; i < 16; i++) {
        sum += q[i];
    }
    return sum;
}

void kn_quantize_ref(const float *x, int64_t ldx, int64_t row_begin, int64_t row_end,
                     struct kn_act *a)
{
    int64_t n_blocks = (a->k + KN_BLOCK - 1) / KN_BLOCK;

    for (int64_t r = row_begin; r < row_end; r++) {
        const float *row = x + r * ldx; /* (k) */
        if (a->f != NULL && a->f != x) {
            memcpy(a->f + r * a->k, row, (size_t)a->k * sizeof *row);
        }
        for (int64_t b = 0; a->q != NULL && b < n_blocks; b++) {
            int64_t left = a->k - b * KN_BLOCK;
            int64_t at = r * n_blocks + b;
            int8_t *q = a->q + at * KN_BLOCK;
            quantize_block(row + b * KN_BLOCK, left < KN_BLOCK ? left : KN_BLOCK, q, a->d + at);
            int32_t first = sum16(q), second = sum16(q + 16);
            a->s[at] = first + second;
            if (a->h != NULL) {
                a->h[at] = quantize_halves(first, second);
            }
        }
    }
}
