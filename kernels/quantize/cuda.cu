/* quantize/cuda.cu: fp32 rows to int8 blocks of 32 with a scale and the integer sums.
 *
 * x (rows, k), stride ldx. Eight lanes a block of 32, four elements each; 32 blocks of a row a
 * thread block: grid (ceil(k / 1024), rows). Moves 4 bytes in, 1 + 12 / 32 out an element (and 4 for
 * f): bound by memory.
 *
 * gate: quantize threads=256 blocks=8 has=LDG.E.128 */
#include "kernels/quantize/device.h"

#include "kernels/cuda_kernels.h"

#define THREADS 256

__global__ void __launch_bounds__(THREADS) quantize(const float *x, int64_t ldx, int64_t row_begin,
                                                       struct kn_act a)
{
    const int64_t r = row_begin + blockIdx.y, i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);
    float v[4];

    load_quad(x + r * ldx, i, a.k, v);
    quantize_put_quad(a, r, i / KN_BLOCK, v);
}

int kn_cuda_quantize(const float *x, int64_t ldx, int64_t row_begin, int64_t row_end,
                     const struct kn_act *a, void *stream)
{
    struct kn_act to = *a;

    if (to.f == x) {
        to.f = nullptr;
    }
    if (row_end <= row_begin || a->k <= 0) {
        return 0;
    }
    return launch("quantize", quantize, quad_grid(a->k, THREADS, row_end - row_begin), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, ldx, row_begin, to);
}
