/* attention/whole.cu: softmax(q·k) v over fp16 pages, for rows of any sequences: the whole context of
 * a row and head in one thread block.
 *
 * q, out (rows, n_heads * head_dim). A thread block of 128 a row and query head: grid (n_heads,
 * rows); it takes the splits of the context one after another, as they are folded. In a split a
 * thread has a position (K lies (head_dim, 16) in its page, so that neighbours read neighbours),
 * then an element of the output or two. The sum of weights is 16 threads', one a lane of NUMERICS.md;
 * adding lane i ^ w is the step of width w of the fold (a + b is b + a).
 *
 * Moves K and V once a query head: 4 bytes an element and position. Share of the bandwidth: not
 * measured.
 *
 * gate: attention_whole threads=128 blocks=8 */
#include "kernels/simt/cuda.h"

#include "kernels/attention/attention.h"
#include "kernels/cuda_kernels.h"
#include "kernels/numerics.h"

#define THREADS KN_ATTN_SPLIT
#define WARP 0xffffffffu
#define PER_THREAD (ATTN_HEAD_DIM_MAX / THREADS)

static __device__ __forceinline__ float load_half(const uint16_t *p)
{
    return __half2float(__ushort_as_half(__ldg(p)));
}

/* scale * q·k, capped; k (head_dim, 16) at its slot. */
static __device__ __forceinline__ float score(const struct kn_cuda_attn &a, const float *q, const uint16_t *k)
{
    const int hd = a.kv.head_dim, quarter = hd / ATTN_SEGMENTS;
    float sum[ATTN_SEGMENTS];

    for (int s = 0; s < ATTN_SEGMENTS; s++) {
        float acc = 0.0f;
        for (int d = quarter * s; d < quarter * (s + 1); d++) {
            acc = fmaf(q[d], load_half(k + d * KN_PAGE_TOKENS), acc);
        }
        sum[s] = acc;
    }
    const float x = a.scale * ((sum[0] + sum[1]) + (sum[2] + sum[3]));
    return a.softcap > 0.0f ? a.softcap * kn_tanh(x / a.softcap) : x;
}

/* The largest of all threads' values, NaN never being it. `shared` (THREADS / 32). */
static __device__ __forceinline__ float largest(float v, float *shared)
{
    v = v > -INFINITY ? v : -INFINITY;
    for (int w = 16; w > 0; w /= 2) {
        const float other = __shfl_xor_sync(WARP, v, w);
        v = other > v ? other : v;
    }
    if (threadIdx.x % 32 == 0) {
        shared[threadIdx.x / 32] = v;
    }
    __syncthreads();
    v = shared[0];
    for (int i = 1; i < THREADS / 32; i++) {
        v = shared[i] > v ? shared[i] : v;
    }
    return v + 0.0f; /* -0 becomes +0 */
}

__global__ void __launch_bounds__(THREADS) attention_whole(const struct kn_cuda_attn a)
{
    __shared__ float q[ATTN_HEAD_DIM_MAX], weight[KN_ATTN_SPLIT], maxima[THREADS / 32], total;
    const int t = static_cast<int>(threadIdx.x), hd = a.kv.head_dim;
    const int head = static_cast<int>(blockIdx.x), kv_head = head / (a.n_heads / a.kv.n_kv_heads);
    const int64_t row = blockIdx.y, head_elems = 2 * static_cast<int64_t>(hd) * KN_PAGE_TOKENS;
    const uint32_t pos = a.rows.pos[row];
    const uint32_t low = a.window != 0 && pos + 1 > a.window ? pos + 1 - a.window : 0;
    const uint32_t *table = a.rows.table + a.rows.table_at[row];
    const uint16_t *pages = a.kv.pages + kv_head * head_elems;
    float M = 0.0f, L = 0.0f, O[PER_THREAD];

    for (int d = t; d < hd; d += THREADS) {
        q[d] = a.q[row * a.ldq + static_cast<int64_t>(head) * hd + d];
    }
    for (int i = 0; i < PER_THREAD; i++) {
        O[i] = 0.0f;
    }
    __syncthreads();
    for (uint32_t split = low / KN_ATTN_SPLIT; split <= pos / KN_ATTN_SPLIT; split++) {
        const uint32_t begin = split * KN_ATTN_SPLIT, j = begin + threadIdx.x;
        const uint32_t first = begin < low ? low : begin;
        const uint32_t end = begin + KN_ATTN_SPLIT > pos + 1 ? pos + 1 : begin + KN_ATTN_SPLIT;
        const bool seen = j >= first && j < end;
        float s = -INFINITY;
        if (seen) {
            s = score(a, q,
                      pages + table[j / KN_PAGE_TOKENS] * a.kv.page_stride + j % KN_PAGE_TOKENS);
        }
        const float m = largest(s, maxima);
        if (seen) {
            weight[t] = kn_exp(s - m);
        }
        __syncthreads();
        if (t < 32) { /* lanes 0 to 15 twice, for whole warps meet */
            float lane = 0.0f;
            for (uint32_t i = t % KN_PAGE_TOKENS; i < KN_ATTN_SPLIT; i += KN_PAGE_TOKENS) {
                if (begin + i >= first && begin + i < end) {
                    lane = lane + weight[i];
                }
            }
            for (int w = KN_PAGE_TOKENS / 2; w > 0; w /= 2) {
                lane = lane + __shfl_xor_sync(WARP, lane, w);
            }
            if (t == 0) {
                total = lane;
            }
        }
        float o[PER_THREAD];
        for (int i = 0; i < PER_THREAD; i++) {
            o[i] = 0.0f;
        }
        for (uint32_t p = first; p < end; p++) {
            const uint16_t *v = pages + table[p / KN_PAGE_TOKENS] * a.kv.page_stride +
                                (KN_PAGE_TOKENS + p % KN_PAGE_TOKENS) * hd;
            for (int i = 0; i < PER_THREAD; i++) {
                const int d = t + i * THREADS;
                if (d < hd) {
                    o[i] = fmaf(weight[p - begin], load_half(v + d), o[i]);
                }
            }
        }
        __syncthreads();
        if (split == low / KN_ATTN_SPLIT) {
            M = m;
            L = total;
            for (int i = 0; i < PER_THREAD; i++) {
                O[i] = o[i];
            }
        } else {
            const float max = m > M ? m : M, keep = kn_exp(M - max), add = kn_exp(m - max);
            L = fmaf(L, keep, total * add);
            for (int i = 0; i < PER_THREAD; i++) {
                O[i] = fmaf(O[i], keep, o[i] * add);
            }
            M = max;
        }
        __syncthreads(); /* the next split writes weight, maxima and total */
    }
    for (int i = 0; i < PER_THREAD; i++) {
        const int d = t + i * THREADS;
        if (d < hd) {
            a.out[row * a.ldo + static_cast<int64_t>(head) * hd + d] = O[i] / L;
        }
    }
}

int kn_cuda_attention_whole(const struct kn_cuda_attn *a, void *stream)
{
    if (a->rows.n <= 0 || a->n_heads <= 0) {
        return 0;
    }
    if (a->kv.type != KN_KV_F16 || a->kv.head_dim > ATTN_HEAD_DIM_MAX || a->rows.n > 65535) {
        return -1;
    }
    return launch("attention_whole", attention_whole,
                  dim3(static_cast<unsigned>(a->n_heads), static_cast<unsigned>(a->rows.n)), THREADS, 0,
                  static_cast<cudaStream_t>(stream), *a);
}
