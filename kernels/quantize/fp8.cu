/* quantize/fp8.cu: rows of bf16 to e4m3 with a scale a row, for fast mode's products. Not exact
 * mode's: no bits are promised.
 *
 * scale[r] = max |x[r]| / 448, or 1 of a row of zeros; out[r] = x[r] / scale[r], rounded. x (n, k)
 * and out (n, k) dense. A thread block a row, which it reads twice: grid (n). Moves 2 bytes in (the
 * second time from the cache), 1 out an element: bound by memory.
 *
 * gate: to_fp8 threads=256 blocks=6 loop=LDG.E.64,STG.E */
#include "kernels/rows/device.h"

#include "kernels/cuda_kernels.h"

#define THREADS 256
#define E4M3_MAX 448.0f

/* The largest of all threads' v, in each of them. */
static __device__ __forceinline__ float block_max(float v)
{
    __shared__ float of_warp[THREADS / 32];

    for (int i = 16; i > 0; i /= 2) {
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, i));
    }
    if (threadIdx.x % 32 == 0) {
        of_warp[threadIdx.x / 32] = v;
    }
    __syncthreads();
    for (int i = 0; i < THREADS / 32; i++) {
        v = fmaxf(v, of_warp[i]);
    }
    return v;
}

__global__ void __launch_bounds__(THREADS)
    to_fp8(const uint16_t *x, int64_t k, uint8_t *out, float *scale)
{
    const uint16_t *row = x + blockIdx.x * k;
    float most = 0;

    for (int64_t i = 4 * threadIdx.x; i < k; i += 4 * THREADS) {
        float v[4];
        load_bf16_quad(row, i, k, v);
        most = fmaxf(fmaxf(fmaxf(fabsf(v[0]), fabsf(v[1])), fmaxf(fabsf(v[2]), fabsf(v[3]))), most);
    }
    most = block_max(most);
    const float by = most > 0 ? most / E4M3_MAX : 1.0f;
    if (threadIdx.x == 0) {
        scale[blockIdx.x] = by;
    }
    for (int64_t i = 4 * threadIdx.x; i < k; i += 4 * THREADS) {
        float v[4];
        uint32_t word = 0;
        load_bf16_quad(row, i, k, v);
        for (int j = 0; j < 4; j++) {
            word |= static_cast<uint32_t>(
                        __nv_cvt_float_to_fp8(v[j] / by, __NV_SATFINITE, __NV_E4M3))
                    << 8 * j;
        }
        *reinterpret_cast<uint32_t *>(out + blockIdx.x * k + i) = word;
    }
}

int kn_cuda_fp8(const uint16_t *x, int64_t n, int64_t k, uint8_t *out, float *scale, void *stream)
{
    if (n <= 0 || k <= 0) {
        return 0;
    }
    if (k % 4 != 0) {
        return -1;
    }
    return launch("to_fp8", to_fp8, static_cast<unsigned>(n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, k, out, scale);
}
