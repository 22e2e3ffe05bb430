/* rmsnorm/cuda.cu: y = x / sqrt(mean(x^2) + eps) * (w + w_offset): as it is, quantised, added to
 * another row, or of each head of q and k, or rounded to bf16; and a bias.
 *
 * rmsnorm, rmsnorm_quantize, rmsnorm_bf16, add_norm: x, y (n, d), w (d). A thread block of 8 warps a row: grid
 * (n), 132 bytes of shared memory. Two warps have the 64 sums of NUMERICS.md, one a thread, and
 * fetch 16 elements each ahead of adding them in order; the second's sums go to the first, which is
 * the fold's first step, and an exchange with lane l ^ w is the step of width w (a + b is b + a).
 * Then all warps write. They read x twice, the second time from L1 or L2; move 8 bytes an element
 * (12 for add_norm), w besides. norm_heads: a warp a head, which stays in registers: grid
 * (ceil(heads / 8), n). A lane has sums l and l + 32. 8 bytes an element. add_bias: a thread four
 * elements: grid (ceil(d / 1024), n). 8 bytes an element. All bound by memory; a single row by the
 * latency of d / 1024 loads and d / 64 sums.
 * gate: rmsnorm threads=256 blocks=8 loop=LDG.E.128,STG.E.128
 * gate: add_norm threads=256 blocks=8 loop=LDG.E.128,STG.E.128
 * gate: rmsnorm_quantize threads=256 blocks=6 loop=LDG.E.128
 * gate: rmsnorm_bf16 threads=256 blocks=8 loop=LDG.E.128,STG.E.64
 * gate: norm_heads threads=256 blocks=8
 * gate: add_bias threads=256 blocks=8 has=LDG.E.128,STG.E.128 */
#include "kernels/quantize/device.h"
#include "kernels/rows/device.h"

#include "kernels/cuda_kernels.h"

#define WARPS 8
#define THREADS (WARPS * 32)
#define LANES 64 /* sums of NUMERICS.md */
#define AHEAD 16
#define HEAD_DIM_MAX 256

/* The last five steps of the fold, in all lanes. */
static __device__ __forceinline__ float fold32(float sum)
{
    for (int w = 16; w > 0; w /= 2) {
        sum = sum + __shfl_xor_sync(QUANTIZE_WARP, sum, w);
    }
    return sum;
}

static __device__ __forceinline__ float inverse_of(float sum, int64_t d, float eps)
{
    return 1.0f / sqrtf(sum / static_cast<float>(d) + eps);
}

/* 1 / sqrt(mean + eps) of a row, in all threads. shared: of 33 floats. */
static __device__ __forceinline__ float inverse_rms(const float *x, int64_t d, float eps,
                                                    float *shared)
{
    const unsigned t = threadIdx.x;
    float sum = 0.0f;

    if (t < LANES) {
        int64_t i = t;
        for (; i + LANES * (AHEAD - 1) < d; i += LANES * AHEAD) {
            float v[AHEAD];
            for (int j = 0; j < AHEAD; j++) {
                v[j] = x[i + LANES * j];
            }
            for (int j = 0; j < AHEAD; j++) {
                sum = fmaf(v[j], v[j], sum);
            }
        }
        for (; i < d; i += LANES) {
            sum = fmaf(x[i], x[i], sum);
        }
        if (t >= 32) {
            shared[t - 32] = sum;
        }
    }
    __syncthreads();
    if (t < 32) {
        sum = fold32(sum + shared[t]);
        if (t == 0) {
            shared[32] = inverse_of(sum, d, eps);
        }
    }
    __syncthreads();
    return shared[32];
}

static __device__ __forceinline__ void load_normed(const float *row, const float *w, float w_offset,
                                                   float scale, int64_t i, int64_t d, float v[4])
{
    float weight[4];

    load_quad(row, i, d, v);
    load_quad(w, i, d, weight);
    for (int j = 0; j < 4; j++) {
        v[j] = (v[j] * scale) * (weight[j] + w_offset);
    }
}

__global__ void __launch_bounds__(THREADS)
    rmsnorm(const float *x, const float *w, float w_offset, float eps, int64_t d, float *y)
{
    __shared__ float shared[33];
    const float *row = x + blockIdx.x * d;
    const float scale = inverse_rms(row, d, eps, shared);

    for (int64_t i = 4 * threadIdx.x; i < d; i += 4 * THREADS) {
        float v[4];
        load_normed(row, w, w_offset, scale, i, d, v);
        store_quad(y + blockIdx.x * d, i, d, v);
    }
}

__global__ void __launch_bounds__(THREADS)
    add_norm(const float *y, const float *w, float w_offset, float eps, int64_t d, float *x)
{
    __shared__ float shared[33];
    const float *row = y + blockIdx.x * d;
    const float scale = inverse_rms(row, d, eps, shared);

    for (int64_t i = 4 * threadIdx.x; i < d; i += 4 * THREADS) {
        float v[4], sum[4];
        load_normed(row, w, w_offset, scale, i, d, v);
        load_quad(x + blockIdx.x * d, i, d, sum);
        for (int j = 0; j < 4; j++) {
            sum[j] = sum[j] + v[j];
        }
        store_quad(x + blockIdx.x * d, i, d, sum);
    }
}

__global__ void __launch_bounds__(THREADS)
    rmsnorm_quantize(const float *x, const float *w, float w_offset, float eps, int64_t row_begin,
                     int64_t d, struct kn_act a)
{
    __shared__ float shared[33];
    const int64_t r = row_begin + blockIdx.x;
    const float *row = x + r * d;
    const float scale = inverse_rms(row, d, eps, shared);

    for (int64_t first = 0; first < d; first += 4 * THREADS) { /* all lanes of a warp go on */
        const int64_t i = first + 4 * threadIdx.x;
        float v[4];
        load_normed(row, w, w_offset, scale, i, d, v);
        for (int j = 0; j < 4; j++) {
            v[j] = i + j < d ? v[j] : 0.0f; /* where scale is infinite it is not */
        }
        quantize_put_quad(a, r, i / KN_BLOCK, v);
    }
}

__global__ void __launch_bounds__(THREADS)
    rmsnorm_bf16(const float *x, const float *w, float w_offset, float eps, int64_t d, uint16_t *y)
{
    __shared__ float shared[33];
    const float *row = x + blockIdx.x * d;
    const float scale = inverse_rms(row, d, eps, shared);

    for (int64_t i = 4 * threadIdx.x; i < d; i += 4 * THREADS) {
        float v[4];
        load_normed(row, w, w_offset, scale, i, d, v);
        store_bf16_quad(y + blockIdx.x * d, i, d, v);
    }
}

__global__ void __launch_bounds__(THREADS)
    norm_heads(float *qk, int64_t ld, int n_heads, int n_kv_heads, int head_dim,
               const float *q_norm, const float *k_norm, float eps)
{
    const int head = static_cast<int>(blockIdx.x * WARPS + threadIdx.x / 32);
    const int lane = static_cast<int>(threadIdx.x % 32);

    if (head >= n_heads + n_kv_heads) { /* the whole warp */
        return;
    }
    const float *w = head < n_heads ? q_norm : k_norm;
    float *x = qk + blockIdx.y * ld + static_cast<int64_t>(head) * head_dim;
    float v[HEAD_DIM_MAX / 32], low = 0.0f, high = 0.0f;
    if (w == nullptr) {
        return;
    }
    for (int i = 0; i < HEAD_DIM_MAX / 32; i += 2) {
        const int at = lane + 32 * i;
        v[i] = at < head_dim ? x[at] : 0.0f;
        v[i + 1] = at + 32 < head_dim ? x[at + 32] : 0.0f;
        low = fmaf(v[i], v[i], low); /* past the end it adds 0 to what is not -0 */
        high = fmaf(v[i + 1], v[i + 1], high);
    }
    const float scale = inverse_of(fold32(low + high), head_dim, eps);
    for (int i = 0; i < HEAD_DIM_MAX / 32; i++) {
        const int at = lane + 32 * i;
        if (at < head_dim) {
            x[at] = (v[i] * scale) * (w[at] + 0.0f);
        }
    }
}

__global__ void __launch_bounds__(THREADS)
    add_bias(float *y, int64_t ldy, int64_t d, const float *bias)
{
    const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);

    if (i < d) {
        float v[4], b[4];
        load_quad(y + blockIdx.y * ldy, i, d, v);
        load_quad(bias, i, d, b);
        for (int j = 0; j < 4; j++) {
            v[j] = v[j] + b[j];
        }
        store_quad(y + blockIdx.y * ldy, i, d, v);
    }
}

int kn_cuda_rmsnorm(const float *x, const float *w, float w_offset, float eps, int64_t n, int64_t d,
                    float *y, void *stream)
{
    if (n <= 0) {
        return 0;
    }
    return launch("rmsnorm", rmsnorm, static_cast<unsigned>(n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, w, w_offset, eps, d, y);
}

int kn_cuda_rmsnorm_bf16(const float *x, const float *w, float w_offset, float eps, int64_t n,
                         int64_t d, uint16_t *y, void *stream)
{
    if (n <= 0) {
        return 0;
    }
    return launch("rmsnorm_bf16", rmsnorm_bf16, static_cast<unsigned>(n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, w, w_offset, eps, d, y);
}

int kn_cuda_add_norm(const float *y, const float *w, float w_offset, float eps, int64_t n,
                     int64_t d, float *x, void *stream)
{
    if (n <= 0) {
        return 0;
    }
    return launch("add_norm", add_norm, static_cast<unsigned>(n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), y, w, w_offset, eps, d, x);
}

int kn_cuda_rmsnorm_quantize(const float *x, const float *w, float w_offset, float eps,
                             int64_t row_begin, int64_t row_end, int64_t d, const struct kn_act *a,
                             void *stream)
{
    if (row_end <= row_begin) {
        return 0;
    }
    return launch("rmsnorm_quantize", rmsnorm_quantize, static_cast<unsigned>(row_end - row_begin),
                  THREADS, 0, static_cast<cudaStream_t>(stream), x, w, w_offset, eps, row_begin, d,
                  *a);
}

int kn_cuda_norm_heads(float *qk, int64_t ld, int64_t n, int n_heads, int n_kv_heads, int head_dim,
                       const float *q_norm, const float *k_norm, float eps, void *stream)
{
    const int heads = n_heads + n_kv_heads;

    if (n <= 0 || heads <= 0 || (q_norm == nullptr && k_norm == nullptr)) {
        return 0;
    }
    if (head_dim > HEAD_DIM_MAX) {
        return -1;
    }
    return launch(
        "norm_heads", norm_heads,
        dim3(static_cast<unsigned>((heads + WARPS - 1) / WARPS), static_cast<unsigned>(n)), THREADS,
        0, static_cast<cudaStream_t>(stream), qk, ld, n_heads, n_kv_heads, head_dim, q_norm, k_norm,
        eps);
}

int kn_cuda_add_bias(float *y, int64_t ldy, int64_t n, int64_t d, const float *bias, void *stream)
{
    if (n <= 0 || d <= 0) {
        return 0;
    }
    return launch("add_bias", add_bias, quad_grid(d, THREADS, n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), y, ldy, d, bias);
}
