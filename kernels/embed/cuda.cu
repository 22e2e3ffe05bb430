/* embed/cuda.cu: x[i][c] = scale * W[ids[i]][c], one rounding after the element is dequantised.
 *
 * W as pack_cuda.c lays it out. A thread block a token: grid (n); a thread an element in turn. Moves
 * 4 bytes out and what the file has for an element in. Share of the bandwidth: not measured. */
#include "kernels/simt/cuda.h"

#include "kernels/cuda_kernels.h"

#define THREADS 256

template <int TYPE>
__global__ void __launch_bounds__(THREADS)
    embed(const uint8_t *quants, const uint8_t *scales, int64_t cols, const uint32_t *ids, float scale,
          float *x)
{
    const int64_t blocks = cols / KN_BLOCK, first = ids[blockIdx.x] * blocks;

    for (int64_t c = threadIdx.x; c < cols; c += THREADS) {
        const int64_t b = first + c / KN_BLOCK;
        const unsigned i = static_cast<unsigned>(c % KN_BLOCK);
        float v;
        if (TYPE == KN_Q4_1) {
            const uint16_t *dm = reinterpret_cast<const uint16_t *>(scales) + 2 * b;
            const unsigned two = quants[b * 16 + i % 16]; /* elements i and i + 16 */
            v = __half2float(__ushort_as_half(dm[0])) *
                static_cast<float>(i < 16 ? two & 15 : two >> 4);
            v = v + __half2float(__ushort_as_half(dm[1]));
        } else {
            const uint16_t *d = reinterpret_cast<const uint16_t *>(scales) + b;
            v = __half2float(__ushort_as_half(d[0])) *
                static_cast<float>(static_cast<int8_t>(quants[b * KN_BLOCK + i]));
        }
        x[blockIdx.x * cols + c] = scale * v;
    }
}

int kn_cuda_embed(const struct kn_matrix *w, const uint32_t *ids, int64_t n, float scale, float *x,
                  void *stream)
{
    const uint8_t *data = static_cast<const uint8_t *>(w->data);
    const int64_t n_blocks = w->rows * (w->cols / KN_BLOCK);
    const cudaStream_t s = static_cast<cudaStream_t>(stream);

    if (n <= 0) {
        return 0;
    }
    switch (w->type) {
    case KN_Q4_1:
        return launch("embed", embed<KN_Q4_1>, static_cast<unsigned>(n), THREADS, 0, s, data,
                      data + n_blocks * 16, w->cols, ids, scale, x);
    case KN_Q8_0:
        return launch("embed", embed<KN_Q8_0>, static_cast<unsigned>(n), THREADS, 0, s, data,
                      data + n_blocks * 32, w->cols, ids, scale, x);
    default:
        return -1;
    }
}
