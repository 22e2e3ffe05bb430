/* swiglu/cuda.cu: quantize(silu(gate) * up), and the same with gelu; or rounded to bf16.
 *
 * gu (n, 2 ff), stride ldgu: gate, then up. Eight lanes a block of 32, four elements each; 32 blocks
 * of a row a thread block: grid (ceil(ff / 1024), rows). Moves 8 bytes in, 1 + 12 / 32 out an element
 * (and 4 for f, or 2 as bf16). exp is NUMERICS.md's, about 20 operations: bound by memory.
 *
 * gate: glu_quantize[<false>] threads=256 blocks=6 has=LDG.E.128
 * gate: glu_quantize[<true>] threads=256 blocks=6 has=LDG.E.128
 * gate: glu_bf16[<false>] threads=256 blocks=6 has=LDG.E.128,STG.E.64
 * gate: glu_bf16[<true>] threads=256 blocks=6 has=LDG.E.128,STG.E.64 */
#include "kernels/quantize/device.h"

#include "kernels/cuda_kernels.h"

#define THREADS 256

/* Elements i to i + 3; 0 stays 0 behind the row's end. */
template <bool GELU>
static __device__ __forceinline__ void glu_quad(const float *row, int64_t i, int64_t ff, float v[4])
{
    float gate[4];

    load_quad(row, i, ff, gate);
    load_quad(row + ff, i, ff, v);
    for (int j = 0; j < 4; j++) {
        v[j] = (GELU ? kn_gelu(gate[j]) : kn_silu(gate[j])) * v[j];
    }
}

template <bool GELU>
__global__ void __launch_bounds__(THREADS)
    glu_quantize(const float *gu, int64_t ldgu, int64_t row_begin, int64_t ff, struct kn_act a)
{
    const int64_t r = row_begin + blockIdx.y, i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);
    float v[4];

    glu_quad<GELU>(gu + r * ldgu, i, ff, v);
    quantize_put_quad(a, r, i / KN_BLOCK, v);
}

template <bool GELU>
__global__ void __launch_bounds__(THREADS)
    glu_bf16(const float *gu, int64_t ldgu, int64_t ff, uint16_t *out)
{
    const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);
    float v[4];

    if (i < ff) {
        glu_quad<GELU>(gu + blockIdx.y * ldgu, i, ff, v);
        store_bf16_quad(out + blockIdx.y * ff, i, ff, v);
    }
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

template <bool GELU>
static int launch_glu_bf16(const float *gu, int64_t ldgu, int64_t n, int64_t ff, uint16_t *out,
                           void *stream)
{
    if (n <= 0 || ff <= 0) {
        return 0;
    }
    return launch(GELU ? "geglu_bf16" : "swiglu_bf16", glu_bf16<GELU>, quad_grid(ff, THREADS, n),
                  THREADS, 0, static_cast<cudaStream_t>(stream), gu, ldgu, ff, out);
}

int kn_cuda_swiglu_bf16(const float *gu, int64_t ldgu, int64_t n, int64_t ff, uint16_t *out,
                        void *stream)
{
    return launch_glu_bf16<false>(gu, ldgu, n, ff, out, stream);
}

int kn_cuda_geglu_bf16(const float *gu, int64_t ldgu, int64_t n, int64_t ff, uint16_t *out,
                       void *stream)
{
    return launch_glu_bf16<true>(gu, ldgu, n, ff, out, stream);
}
