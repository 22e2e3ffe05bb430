/* rmsnorm/ref.c: y = x / sqrt(mean(x^2) + eps) * (w + w_offset), and add_bias. */
#include "kernels/numerics.h"
#include "kernels/table.h"

#define LANES 64

/* 1 / sqrt(mean(x^2) + eps): LANES interleaved sums, folded in half again and again. */
static float inverse_rms(const float *x, int64_t d, float eps)
{
    float lane[LANES] = {0};

    for (int64_t i = 0; i < d; i++) {
        lane[i % LANES] = fmaf(x[i], x[i], lane[i % LANES]);
    }
    float mean = kn_fold(lane, LANES) / (float)d;
    return 1.0f / sqrtf(mean + eps);
}

void kn_rmsnorm_ref(const float *x, const float *w, float w_offset, float eps, int64_t n, int64_t d,
                    float *y)
{
    for (int64_t r = 0; r < n; r++, x += d, y += d) {
        float scale = inverse_rms(x, d, eps);
        for (int64_t i = 0; i < d; i++) {
            y[i] = (x[i] * scale) * (w[i] + w_offset);
        }
    }
}

void kn_rmsnorm_quantize_ref(const float *x, const float *w, float w_offset, float eps,
                             int64_t row_begin, int64_t row_end, int64_t d, struct kn_act *a)
{
    int64_t n_blocks = (d + KN_BLOCK - 1) / KN_BLOCK;

    for (int64_t r = row_begin; r < row_end; r++) {
        const float *row = x + r * d;
        float scale = inverse_rms(row, d, eps);
        for (int64_t b = 0; b < n_blocks; b++) {
            float y[KN_BLOCK];
            int64_t first = b * KN_BLOCK;
            int64_t len = d - first < KN_BLOCK ? d - first : KN_BLOCK;
            for (int64_t i = 0; i < len; i++) {
                y[i] = (row[first + i] * scale) * (w[first + i] + w_offset);
            }
            struct kn_act block = {
                .f = a->f != NULL ? a->f + r * d + first : NULL,
                .q = a->q != NULL ? a->q + (r * n_blocks + b) * KN_BLOCK : NULL,
                .d = a->d != NULL ? a->d + r * n_blocks + b : NULL,
                .s = a->s != NULL ? a->s + r * n_blocks + b : NULL,
                .h = a->h != NULL ? a->h + r * n_blocks + b : NULL,
                .k = len,
            };
            kn_quantize_ref(y, len, 0, 1, &block);
        }
    }
}

void kn_add_bias_ref(float *y, int64_t ldy, int64_t n, int64_t d, const float *bias)
{
    for (int64_t r = 0; r < n; r++, y += ldy) {
        for (int64_t i = 0; i < d; i++) {
            y[i] = y[i] + bias[i];
        }
    }
}
