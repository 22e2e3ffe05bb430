/* swiglu/cuda.cu: quantize(silu(gate) * up), and the same with gelu.
 *
 * gu (n, 2 ff), stride ldgu: gate, then up. A warp a block of 32; 8 blocks of a row a thread block:
 * grid (ceil(blocks / 8), rows). Moves 8 bytes in, 1 + 12 / 32 out an element (and 4 for f). exp is
 * NUMERICS.md's, about 20 operations: bound by memory. Share of the bandwidth: not measured. */
#include "kernels/quantize/device.h"

#include "kernels/cuda_kernels.h"

#define WARPS 8

template <bool GELU>
__global__ void __launch_bounds__(WARPS * 32)
    glu_quantize(const float *gu, int64_t ldgu, int64_t row_begin, int64_t ff, struct kn_act a)
{
    const int64_t r = row_begin + blockIdx.y;
    const int64_t b = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
    const int64_t i = b * KN_BLOCK + threadIdx.x % 32;
    float v = 0.0f;

    if (b * KN_BLOCK >= ff) { /* the whole warp */
        return;
    }
    if (i < ff) {
        const float gate = gu[r * ldgu + i];
        v = (GELU ? kn_gelu(gate) : kn_silu(gate)) * gu[r * ldgu + ff + i];
    }
    quantize_put_block(a, r, b, v);
}

template <bool GELU>
static int launch_glu(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end, int64_t ff,
                      const struct kn_act *a, void *stream)
{
    const int64_t blocks = (ff + KN_BLOCK - 1) / KN_BLOCK;

    if (row_end <= row_begin || blocks == 0) {
        return 0;
    }
    return launch(GELU ? "geglu_quantize" : "swiglu_quantize", glu_quantize<GELU>,
                  dim3(static_cast<unsigned>((blocks + WARPS - 1) / WARPS),
                       static_cast<unsigned>(row_end - row_begin)),
                  WARPS * 32, 0, static_cast<cudaStream_t>(stream), gu, ldgu, row_begin, ff, *a);
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
