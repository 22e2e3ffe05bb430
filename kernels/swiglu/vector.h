/* vector.h: swiglu and geglu in sixteen lanes, as lanes.h says. */
#include "kernels/quantize/block.h"

V_INLINE VF V(glu)(bool gelu, VF gate, VF up)
{
    return V(mul)(gelu ? V(gelu)(gate) : V(silu)(gate), up);
}

V_INLINE void V(glu_quantize)(bool gelu, const float *gu, int64_t ldgu, int64_t row_begin,
                              int64_t row_end, int64_t ff, struct kn_act *a)
{
    struct kn_act to = *a;

    to.k = ff;
    for (int64_t r = row_begin; r < row_end; r++) {
        const float *gate = gu + r * ldgu; /* (ff) */
        const float *up = gate + ff;       /* (ff) */
        for (int64_t i = 0; i < ff; i += KN_BLOCK) {
            VF g0, g1, u0, u1; /* past the end 0, and so is the product */
            V(load_block)(gate + i, ff - i, &g0, &g1);
            V(load_block)(up + i, ff - i, &u0, &u1);
            V(put_block)
            (&to, r, i / KN_BLOCK, ff - i, V(glu)(gelu, g0, u0), V(glu)(gelu, g1, u1));
        }
    }
}

V_TARGET void V(kn_swiglu_quantize)(const float *gu, int64_t ldgu, int64_t row_begin,
                                    int64_t row_end, int64_t ff, struct kn_act *a)
{
    V(glu_quantize)(false, gu, ldgu, row_begin, row_end, ff, a);
}

V_TARGET void V(kn_geglu_quantize)(const float *gu, int64_t ldgu, int64_t row_begin,
                                   int64_t row_end, int64_t ff, struct kn_act *a)
{
    V(glu_quantize)(true, gu, ldgu, row_begin, row_end, ff, a);
}
