/* device.h: blocks of 32 activations by eight lanes each, four elements a lane. Included by .cu
 * files. */
#ifndef ARGOSY_KERNELS_QUANTIZE_DEVICE_H
#define ARGOSY_KERNELS_QUANTIZE_DEVICE_H

#include "kernels/rows/device.h"
#include "kernels/simt/cuda.h"

#include "kernels/kernels.h"
#include "kernels/numerics.h"
#include "kernels/quantize/quantize.h"

#define QUANTIZE_WARP 0xffffffffu
#define QUANTIZE_LANES 8 /* of a block */

/* The largest |x| of a block as bits, which order |x|, infinity and NaN last; in its eight lanes.
 */
static __device__ __forceinline__ unsigned quantize_amax_bits(const float v[4])
{
    unsigned most = 0;

    for (int j = 0; j < 4; j++) {
        const unsigned bits = kn_bits(v[j]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    for (int w = 1; w < QUANTIZE_LANES; w *= 2) {
        const unsigned other = __shfl_xor_sync(QUANTIZE_WARP, most, w);
        most = other > most ? other : most;
    }
    return most;
}

/* Block b of row r of a: lane l of eight has elements 4 l to 4 l + 3; 0 where the row has ended.
 * All lanes of a warp call it, for four blocks; behind the last of a row nothing is written. Writes
 * 32 bytes of q and, of one lane, d, s and h; f where it is. */
static __device__ __forceinline__ void quantize_put_quad(const struct kn_act &a, int64_t r,
                                                         int64_t b, const float v[4])
{
    const unsigned lane = threadIdx.x % QUANTIZE_LANES;
    const int64_t n_blocks = (a.k + KN_BLOCK - 1) / KN_BLOCK, at = r * n_blocks + b;

    if (a.f != nullptr && b < n_blocks) {
        store_quad(a.f + r * a.k, b * KN_BLOCK + 4 * lane, a.k, v);
    }
    if (a.q == nullptr) {
        return;
    }
    const unsigned amax_bits = quantize_amax_bits(v);
    const float amax = kn_float(amax_bits);
    float d = 0.0f;
    int q[4] = {0, 0, 0, 0};
    if (amax_bits >= QUANTIZE_INF_BITS) {
        d = kn_float(QUANTIZE_NAN_BITS);
    } else if (amax >= QUANTIZE_TINY) {
        const float inverse = 127.0f / amax;
        d = amax / 127.0f;
        for (int j = 0; j < 4; j++) {
            q[j] = static_cast<int>((v[j] * inverse + KN_ROUND_MAGIC) - KN_ROUND_MAGIC);
        }
    }
    int half = (q[0] + q[1]) + (q[2] + q[3]); /* the sum of 16 elements, in their four lanes */
    half += __shfl_xor_sync(QUANTIZE_WARP, half, 1);
    half += __shfl_xor_sync(QUANTIZE_WARP, half, 2);
    const int other = __shfl_xor_sync(QUANTIZE_WARP, half, 4);
    if (b >= n_blocks) {
        return;
    }
    reinterpret_cast<unsigned *>(a.q + at * KN_BLOCK)[lane] =
        (static_cast<unsigned>(q[0]) & 0xff) | (static_cast<unsigned>(q[1]) & 0xff) << 8 |
        (static_cast<unsigned>(q[2]) & 0xff) << 16 | static_cast<unsigned>(q[3]) << 24;
    if (lane == 0) {
        a.d[at] = d;
        a.s[at] = half + other;
        if (a.h != nullptr) {
            a.h[at] = quantize_halves(half, other);
        }
    }
}

#endif
