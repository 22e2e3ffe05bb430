/* vector.h: quantize in sixteen lanes, as lanes.h says. */
#include "kernels/quantize/block.h"

V_TARGET void V(kn_quantize)(const float *x, int64_t ldx, int64_t row_begin, int64_t row_end,
                             struct kn_act *a)
{
    struct kn_act to = *a;

    if (to.f == x) {
        to.f = NULL;
    }
    for (int64_t r = row_begin; r < row_end; r++) {
        const float *row = x + r * ldx; /* (k) */
        for (int64_t i = 0; i < a->k; i += KN_BLOCK) {
            VF v0, v1;
            V(load_block)(row + i, a->k - i, &v0, &v1);
            V(put_block)(&to, r, i / KN_BLOCK, a->k - i, v0, v1);
        }
    }
}
