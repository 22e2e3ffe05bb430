/* device.h: one block of 32 activations by one warp, an element a lane. Included by .cu files. */
#ifndef ARGOSY_KERNELS_QUANTIZE_DEVICE_H
#define ARGOSY_KERNELS_QUANTIZE_DEVICE_H

#include "kernels/simt/cuda.h"

#include "kernels/kernels.h"
#include "kernels/numerics.h"
#include "kernels/quantize/quantize.h"

#define QUANTIZE_WARP 0xffffffffu

/* Block b of row r of a, whose lane-th element is v; 0 where the row has ended. All lanes of a warp
 * call it. Writes 32 bytes of q and, of one lane, d, s and h; f where it is. */
static __device__ __forceinline__ void quantize_put_block(const struct kn_act &a, int64_t r,
                                                          int64_t b, float v)
{
    const unsigned lane = threadIdx.x % 32;
    const int64_t at = r * ((a.k + KN_BLOCK - 1) / KN_BLOCK) + b;

    if (a.f != nullptr && b * KN_BLOCK + lane < a.k) {
        a.f[r * a.k + b * KN_BLOCK + lane] = v;
    }
    if (a.q == nullptr) {
        return;
    }
    /* As bits |x| is ordered, and infinity and NaN come last. */
    unsigned amax_bits = __reduce_max_sync(QUANTIZE_WARP, kn_bits(v) & 0x7fffffffu);
    float amax = kn_float(amax_bits), d = 0.0f;
    int q = 0;
    if (amax_bits >= QUANTIZE_INF_BITS) {
        d = kn_float(QUANTIZE_NAN_BITS);
    } else if (amax >= QUANTIZE_TINY) {
        float inverse = 127.0f / amax;
        d = amax / 127.0f;
        q = static_cast<int>((v * inverse + KN_ROUND_MAGIC) - KN_ROUND_MAGIC);
    }
    int first = __reduce_add_sync(QUANTIZE_WARP, lane < 16 ? q : 0);
    int both = __reduce_add_sync(QUANTIZE_WARP, q);
    a.q[at * KN_BLOCK + lane] = static_cast<int8_t>(q);
    if (lane == 0) {
        a.d[at] = d;
        a.s[at] = both;
        if (a.h != nullptr) {
            a.h[at] = quantize_halves(first, both - first);
        }
    }
}

#endif
