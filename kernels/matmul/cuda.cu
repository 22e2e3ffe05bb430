/* matmul/cuda.cu: y[t, r] = W[r] · x[t] for 1 to 8 tokens: decoding.
 *
 * W (rows, cols) as pack_cuda.c lays it out, x.q (n, cols), x.d, x.s (n, blocks), y stride ldy.
 * A lane has one of the 8 segments of a row (NUMERICS.md, section 4) and adds its blocks up in
 * ascending order, for all tokens; 4 rows a warp, 16 a thread block: grid (ceil(rows / 16)). The
 * tree over the segments is three exchanges: with lane ^ 1, ^ 2, ^ 4 (a + b is b + a). The integer
 * dot product of a block is exact, by dp4a.
 *
 * Moves the weights once: 20 or 34 bytes a block of 32. A lane's blocks follow one another, so that
 * it reads each sector of quants within two steps, the second time from L1: counted, 1.00 times the
 * least traffic of DRAM, and 2.1 times the sectors of L1. Activations come from L1
 * and L2. Share of the bandwidth: not measured. */
#include "kernels/simt/cuda.h"

#include "kernels/cuda_kernels.h"
#include "kernels/numerics.h"

#define WARPS 4
#define WARP_ROWS 4
#define BLOCK_ROWS (WARPS * WARP_ROWS)

static __device__ __forceinline__ void load16(const uint8_t *p, int word[4])
{
    const uint4 v = __ldg(reinterpret_cast<const uint4 *>(p));
    word[0] = static_cast<int>(v.x);
    word[1] = static_cast<int>(v.y);
    word[2] = static_cast<int>(v.z);
    word[3] = static_cast<int>(v.w);
}

/* The quants of a block, four a word, in the order of the activations. */
template <int TYPE>
static __device__ __forceinline__ void load_block(const uint8_t *quants, int64_t b, int word[8])
{
    if (TYPE == KN_Q4_1) { /* byte j has elements j and j + 16 */
        load16(quants + b * 16, word);
        for (int i = 0; i < 4; i++) {
            word[4 + i] = word[i] >> 4 & 0x0f0f0f0f;
            word[i] = word[i] & 0x0f0f0f0f;
        }
    } else {
        load16(quants + b * 32, word);
        load16(quants + b * 32 + 16, word + 4);
    }
}

template <int TYPE, int TOKENS>
__global__ void __launch_bounds__(WARPS * 32)
    matmul(const uint8_t *quants, const uint16_t *scales, int64_t n_blocks, struct kn_act x,
           int64_t row_begin, int64_t row_end, bool accumulate, float *y, int64_t ldy)
{
    const int lane = static_cast<int>(threadIdx.x % 32), segment = lane % KN_SEGMENTS;
    const int64_t row = row_begin + static_cast<int64_t>(blockIdx.x) * BLOCK_ROWS +
                        threadIdx.x / 32 * WARP_ROWS + lane / KN_SEGMENTS;
    const bool there = row < row_end; /* lanes of other rows still meet in the shuffles */
    const int64_t end = there ? kn_segment(n_blocks, segment + 1) : 0;
    float acc[TOKENS];

    for (int t = 0; t < TOKENS; t++) {
        acc[t] = 0.0f;
    }
    for (int64_t b = kn_segment(n_blocks, segment); b < end; b++) {
        const int64_t at = row * n_blocks + b;
        int w[8];
        float d, m = 0.0f;
        load_block<TYPE>(quants, at, w);
        if (TYPE == KN_Q4_1) {
            const unsigned dm = __ldg(reinterpret_cast<const unsigned *>(scales) + at);
            d = __half2float(__ushort_as_half(static_cast<uint16_t>(dm)));
            m = __half2float(__ushort_as_half(static_cast<uint16_t>(dm >> 16)));
        } else {
            d = __half2float(__ushort_as_half(__ldg(scales + at)));
        }
        for (int t = 0; t < TOKENS; t++) {
            const int64_t xb = t * n_blocks + b;
            int q[8], dot = 0;
            load16(reinterpret_cast<const uint8_t *>(x.q) + xb * KN_BLOCK, q);
            load16(reinterpret_cast<const uint8_t *>(x.q) + xb * KN_BLOCK + 16, q + 4);
            for (int i = 0; i < 8; i++) {
                dot = __dp4a(w[i], q[i], dot);
            }
            float term;
            if (TYPE == KN_Q4_1) {
                term = fmaf(d, static_cast<float>(dot), m * static_cast<float>(__ldg(x.s + xb)));
            } else {
                term = d * static_cast<float>(dot);
            }
            acc[t] = fmaf(__ldg(x.d + xb), term, acc[t]);
        }
    }
    for (int t = 0; t < TOKENS; t++) {
        for (int w = 1; w < KN_SEGMENTS; w *= 2) {
            acc[t] = acc[t] + __shfl_xor_sync(0xffffffffu, acc[t], w);
        }
        if (there && segment == 0) {
            float *out = y + t * ldy + row;
            *out = accumulate ? *out + acc[t] : acc[t];
        }
    }
}

struct matmul_task {
    const struct kn_matrix *w;
    const struct kn_act *x;
    int64_t row_begin, row_end;
    bool accumulate;
    float *y;
    int64_t ldy;
    cudaStream_t stream;
};

template <int TYPE, int TOKENS> static int launch_matmul(const matmul_task &k)
{
    const uint8_t *quants = static_cast<const uint8_t *>(k.w->data);
    const int64_t n_blocks = k.w->cols / KN_BLOCK;
    const uint8_t *scales = quants + k.w->rows * n_blocks * (TYPE == KN_Q4_1 ? 16 : 32);

    return launch("matmul", matmul<TYPE, TOKENS>,
                  static_cast<unsigned>((k.row_end - k.row_begin + BLOCK_ROWS - 1) / BLOCK_ROWS),
                  WARPS * 32, 0, k.stream, quants, reinterpret_cast<const uint16_t *>(scales),
                  n_blocks, *k.x, k.row_begin, k.row_end, k.accumulate, k.y, k.ldy);
}

template <int TYPE> static int launch_tokens(const matmul_task &k, int64_t n)
{
    static int (*const by_tokens[KN_CUDA_TOKENS_MAX])(const matmul_task &) = {
        launch_matmul<TYPE, 1>, launch_matmul<TYPE, 2>, launch_matmul<TYPE, 3>,
        launch_matmul<TYPE, 4>, launch_matmul<TYPE, 5>, launch_matmul<TYPE, 6>,
        launch_matmul<TYPE, 7>, launch_matmul<TYPE, 8>,
    };
    return by_tokens[n - 1](k);
}

int kn_cuda_matmul(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy, void *stream)
{
    const matmul_task k = {w,          x, row_begin, row_end,
                           accumulate, y, ldy,       static_cast<cudaStream_t>(stream)};

    if (n <= 0 || row_end <= row_begin) {
        return 0;
    }
    if (n > KN_CUDA_TOKENS_MAX) {
        return -1;
    }
    return w->type == KN_Q4_1   ? launch_tokens<KN_Q4_1>(k, n)
           : w->type == KN_Q8_0 ? launch_tokens<KN_Q8_0>(k, n)
                                : -1;
}
