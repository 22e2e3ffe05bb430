/* swiglu/cuda.cu: quantize(silu(gate) * up), and the same with gelu.
 *
 * gu (n, 2 ff), stride ldgu: gate, then up. Eight lanes a block of 32, four elements each; 32 blocks
 * of a row a thread block: grid (ceil(ff / 1024), rows). Moves 8 bytes in, 1 + 12 / 32 out an element
 * (and 4 for f). exp is NUMERICS.md's, about 20 operations: bound by memory.
 *
 * gate: glu_quantize[<false>] threads=256 blocks=6 has=LDG.E.128
 * gate: glu_quantize[<true>] threads=256 blocks=6 has=LDG.E.128 */
#include "kernels/quantize/device.h"

#include "kernels/cuda_kernels.h"

#define THREADS 256

template <bool GELU>
__global__ void __launch_bounds__(THREADS)
    glu_quantize(const float *gu, int64_t ldgu, int64_t row_begin, int64_t ff, struct kn_act a)
{
    const int64_t r = row_begin + blockIdx.y, i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);
    float gate[4], up[4];

    load_quad(gu + r * ldgu, i, ff, gate);
    load_quad(gu + r * ldgu + ff, i, ff, up);
    for (int j = 0; j < 4; j++) { /* 0 stays 0 behind the row's end */
        up[j] = (GELU ? kn_gelu(gate[j]) : kn_silu(gate[j])) * up[j];
    }
    quantize_put_quad(a, r, i / KN_BLOCK, up);
}

template <bool GELU>
static int launch_glu(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end, int64_t ff,
                      const struct kn_act *a, void *stream)
{
    if (row_end <= row_begin || ff <= 0) {
        return 0;
    }
    return launch(GELU ? "geglu_quantize" : "swiglu_quantize", glu_quantize<GELU>,
                  quad_grid(ff, THREADS, row_end - row_begin), THREADS, 0,
                  static_cast<cudaStream_t>(stream), gu, ldgu, row_begin, ff, *a);
}

int kn_cuda_swiglu_quantize(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                            int64_t ff, const struct kn_act *a, void *stream)
{
    return launch_glu<false>(gu, ldgu, row_begin, row_end, ff, a, stream);
}

int kn_cuda_geglu_quantize(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                           int64_t ff, const struct kn_act *a, void *stream)
{
    return launch_glu<true>(gu, ldgu, row_begin, row_end, ff, a, stream);
}
