/* order.h: a float with an id as one integer: larger for larger floats and, of equals, for lower
 * ids. -0 is +0; NaN is below all. Included by .cu files. */
#ifndef ARGOSY_KERNELS_SAMPLE_ORDER_H
#define ARGOSY_KERNELS_SAMPLE_ORDER_H

#include "kernels/simt/cuda.h"

#include "kernels/numerics.h"

#define ORDER_WARP 0xffffffffu

/* Never 0 but for NaN: of -inf it is 0x007fffff. */
static __device__ __forceinline__ uint32_t order_bits(float x)
{
    const uint32_t u = kn_bits(x + 0.0f);

    return x != x ? 0 : u >> 31 != 0 ? ~u : u | 0x80000000u;
}

/* The float of order_bits; NaN for 0. */
static __device__ __forceinline__ float order_float(uint32_t bits)
{
    return kn_float(bits >> 31 != 0 ? bits & 0x7fffffffu : ~bits);
}

/* Never 0 for an id below 2^32 - 1. */
static __device__ __forceinline__ uint64_t order_key(float x, uint32_t id)
{
    return static_cast<uint64_t>(order_bits(x)) << 32 | ~id;
}

static __device__ __forceinline__ float order_value(uint64_t key)
{
    return order_float(static_cast<uint32_t>(key >> 32));
}

static __device__ __forceinline__ uint32_t order_id(uint64_t key)
{
    return ~static_cast<uint32_t>(key);
}

/* The largest key of a warp, in all its lanes. */
static __device__ __forceinline__ uint64_t order_warp_max(uint64_t key)
{
    const uint32_t high = static_cast<uint32_t>(key >> 32);
    const uint32_t most = __reduce_max_sync(ORDER_WARP, high);
    const uint32_t low = high == most ? static_cast<uint32_t>(key) : 0;

    return static_cast<uint64_t>(most) << 32 | __reduce_max_sync(ORDER_WARP, low);
}

#endif
