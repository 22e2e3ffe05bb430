/* embed/cuda.cu: x[i][c] = scale * W[ids[i]][c], one rounding after the element is dequantised.
 *
 * W as ../cuda_layout.h has it. A thread block a token: grid (n); a warp a block of 32 in turn, an
 * element a lane. Moves 4 bytes out, and in what the file has for an element, by sectors of which
 * a row has 16 bytes. Share of the bandwidth: not measured. */
#include "kernels/simt/cuda.h"

#include "kernels/cuda_kernels.h"
#include "kernels/matmul/device.h"

#define THREADS 256

/* v[e]; an index that is not constant would need local memory. */
template <typename T, int N> static __device__ __forceinline__ T pick(const T (&v)[N], int e)
{
    T of = v[0];

    for (int i = 1; i < N; i++) {
        of = e == i ? v[i] : of;
    }
    return of;
}

/* Element e of block b, as kn_dequantize_row. */
template <int TYPE>
static __device__ __forceinline__ float element(const weights &w, int64_t row, int64_t b, int e)
{
    block_raw<TYPE> raw;

    block_fetch<TYPE>(w, row, b, &raw);
    if constexpr (kn_plane_is_float(TYPE)) {
        float values[KN_BLOCK];
        for (int i = 0; i < KN_BLOCK; i++) {
            values[i] = block_float<TYPE>(raw, i);
        }
        return pick(values, e);
    } else {
        constexpr int unit = kn_plane_unit(TYPE);
        unit_raw of = {};
        int words[8];
        unit_fetch<TYPE>(w, row, b / unit, &of);
        block_quants<TYPE>(raw, words);
        const float q =
            static_cast<float>(static_cast<int8_t>(pick(words, e / 4) >> (8 * (e % 4))));
        const scales s = block_scales<TYPE>(of, static_cast<int>(b % unit));
        float d = s.d, m = s.m;
        if constexpr (kn_plane_sub_elems(TYPE) == 16) {
            d = d * static_cast<float>(pick(s.sc, e / 16));
            m = m * static_cast<float>(pick(s.mn, e / 16));
        }
        const float v = d * q;
        return kn_plane_has_min(TYPE) ? v + m : v;
    }
}

template <int TYPE>
__global__ void __launch_bounds__(THREADS)
    embed(const weights w, int64_t cols, const uint32_t *ids, float scale, float *x)
{
    const unsigned e = threadIdx.x % 32;
    const int64_t row = ids[blockIdx.x];

    for (int64_t b = threadIdx.x / 32; b < w.blocks; b += THREADS / 32) {
        const int64_t c = b * KN_BLOCK + e;
        if (c < cols) {
            x[blockIdx.x * cols + c] = scale * element<TYPE>(w, row, b, static_cast<int>(e));
        }
    }
}

int kn_cuda_embed(const struct kn_matrix *w, const uint32_t *ids, int64_t n, float scale, float *x,
                  void *stream)
{
    if (n <= 0) {
        return 0;
    }
    if (!kn_cuda_serves(w->type, w->rows, w->cols)) {
        return -1;
    }
#define EMBED(type)                                                               \
    case type:                                                                    \
        return launch("embed", embed<type>, static_cast<unsigned>(n), THREADS, 0, \
                      static_cast<cudaStream_t>(stream), weights_of(*w), w->cols, ids, scale, x);
    switch (w->type) {
        KN_PLANE_TYPES(EMBED)
    default:
        return -1;
    }
#undef EMBED
}
