/* embed/cuda.cu: x[i][c] = scale * W[ids[i]][c], one rounding after the element is dequantised.
 *
 * W as ../cuda_layout.h has it. A thread block a token: grid (n); a warp a block of 32 in turn, an
 * element a lane. Moves 4 bytes out, and in what the file has for an element, by sectors of which
 * a row has 16 bytes. Share of the bandwidth: not measured.
 *
 * embed_bf16: W (any, cols) as it is in the file, for fast mode. A thread four elements: grid
 * (ceil(cols / 1024), n). 6 bytes an element.
 *
 * gate: embed threads=256 blocks=6
 * gate: embed_bf16 threads=256 blocks=8 has=LDG.E.64 */
#include "kernels/simt/cuda.h"

#include "kernels/cuda_kernels.h"
#include "kernels/matmul/device.h"
#include "kernels/rows/device.h"

#define THREADS 256

/* The integer that element e of block b stands for. */
template <int TYPE>
static __device__ __forceinline__ int quant(const weights &w, int64_t row, int64_t b, int e)
{
    constexpr int width = kn_plane_width(TYPE) / 4;
    constexpr int pieces = kn_plane_low(TYPE) / kn_plane_width(TYPE);
    constexpr int high_words = kn_plane_high(TYPE) / 4;
    const int64_t piece = b * pieces + (pieces == 2 ? e / 16 : 0);
    const unsigned *low =
        reinterpret_cast<const unsigned *>(w.low) + plane_at(row, w.blocks * pieces, piece) * width;
    const unsigned *high =
        reinterpret_cast<const unsigned *>(w.high) + plane_at(row, w.blocks, b) * high_words;
    const int t = e / 8;
    unsigned l[2], h[2] = {0, 0}, pair[2];

    for (int i = 0; i < 2; i++) {
        l[i] = __ldg(low + (width == 4 ? 2 * t % 4 : 0) + i);
    }
    for (int i = 0; i < high_words; i++) {
        h[i] = __ldg(high + i);
    }
    word_pair<TYPE>(l, h, t, pair);
    return static_cast<int8_t>((e % 8 < 4 ? pair[0] : pair[1]) >> (8 * (e % 4)));
}

/* Element e of block b, as kn_dequantize_row. */
template <int TYPE>
static __device__ __forceinline__ float element(const weights &w, int64_t row, int64_t b, int e)
{
    if constexpr (kn_plane_is_float(TYPE)) {
        return float_element<TYPE>(w, row, b, e);
    } else {
        constexpr int unit = kn_plane_unit(TYPE);
        const float q = static_cast<float>(quant<TYPE>(w, row, b, e));
        unit_raw raw = {};
        unit_fetch<TYPE>(w, row, b / unit, &raw);
        const scales s = block_scales<TYPE>(raw, static_cast<int>(b % unit));
        float d = s.d, m = s.m;
        if constexpr (kn_plane_sub_elems(TYPE) == 16) {
            d = d * static_cast<float>(e < 16 ? s.sc[0] : s.sc[1]);
            m = m * static_cast<float>(e < 16 ? s.mn[0] : s.mn[1]);
        }
        const float v = d * q;
        return kn_plane_has_min(TYPE) ? v + m : v;
    }
}

template <int TYPE>
__global__ void __launch_bounds__(THREADS, 6)
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

__global__ void __launch_bounds__(THREADS)
    embed_bf16(const uint16_t *w, int64_t cols, const uint32_t *ids, float scale, float *x)
{
    const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);
    const uint16_t *row = w + ids[blockIdx.y] * cols;
    float v[4];

    if (i < cols) {
        load_bf16_quad(row, i, cols, v);
        for (int j = 0; j < 4; j++) {
            v[j] = scale * v[j];
        }
        store_quad(x + blockIdx.y * cols, i, cols, v);
    }
}

int kn_cuda_embed_bf16(const uint16_t *w, int64_t cols, const uint32_t *ids, int64_t n, float scale,
                       float *x, void *stream)
{
    if (n <= 0) {
        return 0;
    }
    return launch("embed_bf16", embed_bf16, quad_grid(cols, THREADS, n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), w, cols, ids, scale, x);
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
