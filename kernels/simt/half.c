/* half.c: conversions that numerics.h does not have. */
#include <math.h>

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

/* Nearest even. What is too large becomes the largest, or NaN (e4m3) or infinite (e5m2) if it does
 * not saturate; NaN loses its sign. As __nv_cvt_float_to_fp8 has it. */
uint8_t simt_float_to_fp8(float x, bool saturates, bool e5m2)
{
    const int fraction = e5m2 ? 2 : 3, least = e5m2 ? -14 : -6; /* the least normal exponent */
    const uint8_t sign = kn_bits(x) >> 31 != 0 ? 0x80 : 0, largest = e5m2 ? 0x7b : 0x7e;
    const uint8_t beyond = e5m2 ? 0x7c : 0x7f;
    int exponent;

    if (isnan(x)) {
        return 0x7f;
    }
    if (isinf(x)) {
        return (uint8_t)(sign | (saturates ? largest : beyond));
    }
    (void)frexpf(x, &exponent);
    exponent = x == 0.0f || exponent - 1 < least ? least : exponent - 1;
    const float units = nearbyintf(ldexpf(fabsf(x), fraction - exponent)); /* of the last place */
    const int64_t code = (int64_t)units + ((int64_t)(exponent - least) << fraction);
    return (uint8_t)(sign | (code <= largest ? (uint8_t)code : saturates ? largest : beyond));
}
