/* quantize.h: what the versions of quantize share. Internal to kernels/. */
#ifndef ARGOSY_KERNELS_QUANTIZE_H
#define ARGOSY_KERNELS_QUANTIZE_H

#include <stdint.h>

#include "kernels/numerics.h"

#define QUANTIZE_INF_BITS 0x7f800000 /* a block that reaches this is poisoned: */
#define QUANTIZE_NAN_BITS 0x7fc00000 /* its scale is this NaN and its quants are 0 */
#define QUANTIZE_TINY 0x1p-100f      /* a block below this is 0: 127 / amax stays finite */

/* Two int16 in one word, as struct kn_act's h. */
KN_NUMERIC int32_t quantize_halves(int32_t first, int32_t second)
{
    return (int32_t)(((uint32_t)first & 0xffff) | (uint32_t)second << 16);
}

#endif
