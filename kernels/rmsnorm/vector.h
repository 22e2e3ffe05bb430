/* vector.h: rmsnorm and add_bias in sixteen lanes, as lanes.h says. */
#include "kernels/quantize/block.h"

/* 1 / sqrt(mean(x^2) + eps): 64 interleaved sums in four vectors. */
V_INLINE float V(inverse_rms)(const float *x, int64_t d, float eps)
{
    VF acc[4];

    for (int i = 0; i < 4; i++) {
        acc[i] = V(set1)(0.0f);
    }
    for (int64_t i = 0; i < d; i += 64) {
        for (int j = 0; j < 4; j++) {
            int64_t left = d - i - 16 * j; /* lanes past the end add 0 * 0 */
            if (left > 0) {
                VF v = V(loadn)(x + i + 16 * j, left);
                acc[j] = V(fma)(v, v, acc[j]);
            }
        }
    }
    float sum = V(fold)(V(add)(V(add)(acc[0], acc[2]), V(add)(acc[1], acc[3])));
    return 1.0f / sqrtf(sum / (float)d + eps);
}

V_INLINE VF V(normed)(VF x, VF scale, VF w, VF w_offset)
{
    return V(mul)(V(mul)(x, scale), V(add)(w, w_offset));
}

V_TARGET void V(kn_rmsnorm)(const float *x, const float *w, float w_offset, float eps, int64_t n,
                            int64_t d, float *y)
{
    VF offset = V(set1)(w_offset);

    for (int64_t r = 0; r < n; r++, x += d, y += d) {
        VF scale = V(set1)(V(inverse_rms)(x, d, eps));
        for (int64_t i = 0; i < d; i += 16) {
            VF v = V(normed)(V(loadn)(x + i, d - i), scale, V(loadn)(w + i, d - i), offset);
            V(storen)(y + i, v, d - i);
        }
    }
}

V_TARGET void V(kn_rmsnorm_quantize)(const float *x, const float *w, float w_offset, float eps,
                                     int64_t row_begin, int64_t row_end, int64_t d,
                                     struct kn_act *a)
{
    struct kn_act to = *a;
    VF offset = V(set1)(w_offset);

    to.k = d;
    for (int64_t r = row_begin; r < row_end; r++) {
        const float *row = x + r * d;
        VF scale = V(set1)(V(inverse_rms)(row, d, eps));
        for (int64_t i = 0; i < d; i += KN_BLOCK) {
            VF x0, x1, w0, w1;
            V(load_block)(row + i, d - i, &x0, &x1);
            V(load_block)(w + i, d - i, &w0, &w1);
            x0 = V(clip)(V(normed)(x0, scale, w0, offset), d - i);
            x1 = V(clip)(V(normed)(x1, scale, w1, offset), d - i - 16);
            V(put_block)(&to, r, i / KN_BLOCK, d - i, x0, x1);
        }
    }
}

V_TARGET void V(kn_add_bias)(float *y, int64_t ldy, int64_t n, int64_t d, const float *bias)
{
    for (int64_t r = 0; r < n; r++, y += ldy) {
        for (int64_t i = 0; i < d; i += 16) {
            VF v = V(add)(V(loadn)(y + i, d - i), V(loadn)(bias + i, d - i));
            V(storen)(y + i, v, d - i);
        }
    }
}
