/* softcap/cuda.cu: x = cap * tanh(x / cap), in place.
 *
 * x (n, d), row stride ld. A thread four elements: grid (ceil(d / 1024), n), no shared memory.
 * Moves 8 bytes an element; a division and, at most, exp and another division each: bound by
 * memory.
 * gate: softcap threads=256 blocks=8 has=LDG.E.128,STG.E.128 */
#include "kernels/rows/device.h"

#include "kernels/cuda_kernels.h"
#include "kernels/numerics.h"

#define THREADS 256

__global__ void __launch_bounds__(THREADS) softcap(float *x, int64_t ld, int64_t d, float cap)
{
    const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);
    float *row = x + blockIdx.y * ld;

    if (i < d) {
        float v[4];
        load_quad(row, i, d, v);
        for (int j = 0; j < 4; j++) {
            v[j] = cap * kn_tanh(v[j] / cap);
        }
        store_quad(row, i, d, v);
    }
}

int kn_cuda_softcap(float *x, int64_t ld, int64_t n, int64_t d, float cap, void *stream)
{
    if (n <= 0 || d <= 0) {
        return 0;
    }
    return launch("softcap", softcap, quad_grid(d, THREADS, n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, ld, d, cap);
}
