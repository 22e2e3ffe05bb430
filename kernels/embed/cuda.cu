/* embed/cuda.cu: x[i][c] = scale * W[ids[i]][c], one rounding after the element is dequantised.
 *
 * W as ../cuda_layout.h has it. A thread block a token: grid (n); a warp a block of 32 in turn, an
 * element a lane. Moves 4 bytes out, and in what the file has for an element, by sectors of which
 * a row has 16 bytes. Share of the bandwidth: not measured. */
#include "kernels/simt/cuda.h"

#include "kernels/cuda_kernels.h"
#include "kernels/matmul/device.h"

#define THREADS 256

/* Element e of block b, as kn_dequantize_row. */
template <int TYPE>
static __device__ __forceinline__ float element(const weights &w, int64_t row, int64_t b,
                                                unsigned e)
{
    constexpr int unit = kn_plane_unit(TYPE);
    block_raw<TYPE> raw;
    unit_raw of = {};
    int words[8], word = 0;

    block_fetch<TYPE>(w, row, b, &raw);
    unit_fetch<TYPE>(w, row, b / unit, &of);
    block_quants<TYPE>(raw, words);
    for (unsigned i = 0; i < 8; i++) { /* an index that is not constant would need memory */
        word = e / 4 == i ? words[i] : word;
    }
    const float q = static_cast<float>(static_cast<int8_t>(word >> (8 * (e % 4))));
    const scales s = block_scales<TYPE>(of, static_cast<int>(b % unit));
    float d = s.d, m = s.m;
    if constexpr (kn_plane_sub_elems(TYPE) == 16) {
        d = d * static_cast<float>(e < 16 ? s.sc[0] : s.sc[1]);
        m = m * static_cast<float>(e < 16 ? s.mn[0] : s.mn[1]);
    }
    const float v = d * q;
    if constexpr (kn_plane_has_min(TYPE)) {
        return v + m;
    }
    return v;
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
            float v;
            if constexpr (kn_plane_is_float(TYPE)) {
                v = float_element<TYPE>(w, row, b, e);
            } else {
                v = element<TYPE>(w, row, b, e);
            }
            x[blockIdx.x * cols + c] = scale * v;
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
