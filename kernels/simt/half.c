/* half.c: conversions, by the functions whose bits are tested (numerics.h). */
#include "kernels/numerics.h"
#include "kernels/simt/internal.h"

/* Nearest even; NaN becomes 0x7fff, as __float2bfloat16_rn has it. */
uint16_t simt_float_to_bfloat16(float x)
{
    uint32_t u = kn_bits(x);

    if ((u & 0x7fffffff) > 0x7f800000) {
        return 0x7fff;
    }
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
