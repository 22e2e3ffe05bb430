/* quantize/cuda.cu: fp32 rows to int8 blocks of 32 with a scale and the integer sums.
 *
 * x (rows, k), stride ldx. A warp a block; 8 blocks of a row a thread block: grid
 * (ceil(blocks / 8), rows). Moves 4 bytes in, 1 + 12 / 32 out an element (and 4 for f): bound by
 * memory. Share of the bandwidth: not measured. */
#include "kernels/quantize/device.h"

#include "kernels/cuda_kernels.h"

#define WARPS 8

__global__ void __launch_bounds__(WARPS * 32) quantize(const float *x, int64_t ldx, int64_t row_begin,
                                                       struct kn_act a)
{
    const int64_t r = row_begin + blockIdx.y;
    const int64_t b = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
    const int64_t i = b * KN_BLOCK + threadIdx.x % 32;

    if (b * KN_BLOCK >= a.k) { /* the whole warp */
        return;
    }
    quantize_put_block(a, r, b, i < a.k ? x[r * ldx + i] : 0.0f);
}

int kn_cuda_quantize(const float *x, int64_t ldx, int64_t row_begin, int64_t row_end,
                     const struct kn_act *a, void *stream)
{
    const int64_t blocks = (a->k + KN_BLOCK - 1) / KN_BLOCK;
    struct kn_act to = *a;

    if (to.f == x) {
        to.f = nullptr;
    }
    if (row_end <= row_begin || blocks == 0) {
        return 0;
    }
    return launch("quantize", quantize,
                  dim3(static_cast<unsigned>((blocks + WARPS - 1) / WARPS),
                       static_cast<unsigned>(row_end - row_begin)),
                  WARPS * 32, 0, static_cast<cudaStream_t>(stream), x, ldx, row_begin, to);
}
