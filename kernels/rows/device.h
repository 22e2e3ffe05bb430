/* device.h: four elements of a row of floats, or of bf16, by one thread. Included by .cu files. */
#ifndef ARGOSY_KERNELS_ROWS_DEVICE_H
#define ARGOSY_KERNELS_ROWS_DEVICE_H

#include "kernels/simt/cuda.h"

/* Whether elements i to i + 3 of a row of d are one access of 16 bytes. */
static __device__ __forceinline__ bool is_whole_quad(const float *row, int64_t i, int64_t d)
{
    return i + 4 <= d && reinterpret_cast<uintptr_t>(row + i) % 16 == 0;
}

/* Elements i to i + 3; 0 where the row of d has ended. */
static __device__ __forceinline__ void load_quad(const float *row, int64_t i, int64_t d, float v[4])
{
    if (is_whole_quad(row, i, d)) {
        const float4 q = *reinterpret_cast<const float4 *>(row + i);
        v[0] = q.x;
        v[1] = q.y;
        v[2] = q.z;
        v[3] = q.w;
    } else {
        for (int j = 0; j < 4; j++) {
            v[j] = i + j < d ? row[i + j] : 0.0f;
        }
    }
}

static __device__ __forceinline__ void store_quad(float *row, int64_t i, int64_t d,
                                                  const float v[4])
{
    if (is_whole_quad(row, i, d)) {
        *reinterpret_cast<float4 *>(row + i) = make_float4(v[0], v[1], v[2], v[3]);
    } else {
        for (int j = 0; j < 4; j++) {
            if (i + j < d) {
                row[i + j] = v[j];
            }
        }
    }
}

static __device__ __forceinline__ bool is_whole_bf16_quad(const uint16_t *row, int64_t i, int64_t d)
{
    return i + 4 <= d && reinterpret_cast<uintptr_t>(row + i) % 8 == 0;
}

/* Of a row of bf16 as 16 bits, as load_quad. */
static __device__ __forceinline__ void load_bf16_quad(const uint16_t *row, int64_t i, int64_t d,
                                                      float v[4])
{
    uint64_t b = 0;

    if (is_whole_bf16_quad(row, i, d)) {
        b = *reinterpret_cast<const uint64_t *>(row + i);
    } else {
        for (int j = 0; j < 4; j++) {
            b |= i + j < d ? static_cast<uint64_t>(row[i + j]) << 16 * j : 0;
        }
    }
    for (int j = 0; j < 4; j++) {
        v[j] = __bfloat162float(__ushort_as_bfloat16(static_cast<uint16_t>(b >> 16 * j)));
    }
}

/* Four elements of a row of bf16 as 16 bits, each rounded to the nearest; none behind the end. */
static __device__ __forceinline__ void store_bf16_quad(uint16_t *row, int64_t i, int64_t d,
                                                       const float v[4])
{
    uint64_t b[4];

    for (int j = 0; j < 4; j++) {
        b[j] = __bfloat16_as_ushort(__float2bfloat16_rn(v[j]));
    }
    if (is_whole_bf16_quad(row, i, d)) { /* in one word, which the compiler can't split */
        *reinterpret_cast<uint64_t *>(row + i) = b[0] | b[1] << 16 | b[2] << 32 | b[3] << 48;
    } else {
        for (int j = 0; j < 4; j++) {
            if (i + j < d) {
                row[i + j] = static_cast<uint16_t>(b[j]);
            }
        }
    }
}

/* Blocks of `threads` for n rows of d elements, four a thread: (parts of a row, rows). */
static inline dim3 quad_grid(int64_t d, int threads, int64_t n)
{
    return dim3(static_cast<unsigned>((d + 4 * threads - 1) / (4 * threads)),
                static_cast<unsigned>(n));
}

#endif
