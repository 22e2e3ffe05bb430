/* swiglu/ref.c: quantize(silu(gate) * up), and the same with gelu. */
#include "kernels/numerics.h"
#include "kernels/table.h"

static void glu_quantize(float (*activation)(float), const float *gu, int64_t ldgu,
                         int64_t row_begin, int64_t row_end, int64_t ff, struct kn_act *a)
{
    int64_t n_blocks = (ff + KN_BLOCK - 1) / KN_BLOCK;

    for (int64_t r = row_begin; r < row_end; r++) {
        const float *gate = gu + r * ldgu; /* (ff) */
        const float *up = gate + ff;       /* (ff) */
        for (int64_t b = 0; b < n_blocks; b++) {
            float y[KN_BLOCK];
            int64_t first = b * KN_BLOCK;
            int64_t len = ff - first < KN_BLOCK ? ff - first : KN_BLOCK;
            for (int64_t i = 0; i < len; i++) {
                y[i] = activation(gate[first + i]) * up[first + i];
            }
            struct kn_act block = {
                .f = a->f != NULL ? a->f + r * ff + first : NULL,
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

void kn_swiglu_quantize_ref(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                            int64_t ff, struct kn_act *a)
{
    glu_quantize(kn_silu, gu, ldgu, row_begin, row_end, ff, a);
}

void kn_geglu_quantize_ref(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                           int64_t ff, struct kn_act *a)
{
    glu_quantize(kn_gelu, gu, ldgu, row_begin, row_end, ff, a);
}
