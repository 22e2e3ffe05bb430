/* rows/cuda.cu: rows of activations, moved and added up. On a CPU these are copies and loops of the
 * engine (runtime/engine/cpu_pass.c, cpu_pool.c).
 *
 * gather:     out[i] = x[rows[i]]. x (any, d), out (n, d). Grid (ceil(d / 1024), n); 8 bytes an
 * element. gather_act: the same of quantised rows, of what the source has. A thread block a row:
 * grid (n). Twice 1 + 12 / 32 bytes an element, and 8 for f. pool:       sum[j] = sum[j] +
 * (double)x[r][j], r ascending. x (n, d), sum (d). A thread a column: grid (ceil(d / 256)), the
 * row's order being the page's (NUMERICS.md, 5); 4 bytes an element, eight rows of them under way
 * at a time. No shared memory. All bound by memory. */
#include "kernels/rows/device.h"

#include "kernels/cuda_kernels.h"

#define THREADS 256
#define POOL_AHEAD 8

__global__ void __launch_bounds__(THREADS)
    gather(const float *x, const uint32_t *rows, int64_t d, float *out)
{
    const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);

    if (i < d) {
        float v[4];
        load_quad(x + rows[blockIdx.y] * d, i, d, v);
        store_quad(out + blockIdx.y * d, i, d, v);
    }
}

/* All threads of the block; n words. */
static __device__ __forceinline__ void copy_words(uint32_t *to, const uint32_t *from, int64_t n)
{
    for (int64_t i = threadIdx.x; i < n; i += THREADS) {
        to[i] = from[i];
    }
}

__global__ void __launch_bounds__(THREADS)
    gather_act(struct kn_act a, const uint32_t *rows, struct kn_act to)
{
    const int64_t nb = (a.k + KN_BLOCK - 1) / KN_BLOCK, i = blockIdx.x, from = rows[i];

    if (a.f != nullptr) {
        for (int64_t c = 4 * threadIdx.x; c < a.k; c += 4 * THREADS) {
            float v[4];
            load_quad(a.f + from * a.k, c, a.k, v);
            store_quad(to.f + i * a.k, c, a.k, v);
        }
    }
    if (a.q == nullptr) {
        return;
    }
    const uint4 *q = reinterpret_cast<const uint4 *>(a.q + from * nb * KN_BLOCK);
    uint4 *to_q = reinterpret_cast<uint4 *>(to.q + i * nb * KN_BLOCK);
    for (int64_t c = threadIdx.x; c < 2 * nb; c += THREADS) {
        const uint4 v = __ldg(q + c);
        to_q[c] = make_uint4(v.x, v.y, v.z, v.w);
    }
    copy_words(reinterpret_cast<uint32_t *>(to.d + i * nb),
               reinterpret_cast<const uint32_t *>(a.d + from * nb), nb);
    copy_words(reinterpret_cast<uint32_t *>(to.s + i * nb),
               reinterpret_cast<const uint32_t *>(a.s + from * nb), nb);
    if (a.h != nullptr) {
        copy_words(reinterpret_cast<uint32_t *>(to.h + i * nb),
                   reinterpret_cast<const uint32_t *>(a.h + from * nb), nb);
    }
}

__global__ void __launch_bounds__(THREADS) pool(const float *x, int64_t n, int64_t d, double *sum)
{
    const int64_t j = static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x;

    if (j >= d) {
        return;
    }
    double s = sum[j];
    for (int64_t r = 0; r < n; r += POOL_AHEAD) {
        float v[POOL_AHEAD];
        for (int i = 0; i < POOL_AHEAD; i++) {
            v[i] = r + i < n ? x[(r + i) * d + j] : 0.0f;
        }
        for (int i = 0; i < POOL_AHEAD; i++) {
            s = r + i < n ? s + static_cast<double>(v[i]) : s;
        }
    }
    sum[j] = s;
}

int kn_cuda_gather(const float *x, const uint32_t *rows, int64_t n, int64_t d, float *out,
                   void *stream)
{
    if (n <= 0 || d <= 0) {
        return 0;
    }
    return launch("gather", gather, quad_grid(d, THREADS, n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, rows, d, out);
}

int kn_cuda_gather_act(const struct kn_act *a, const uint32_t *rows, int64_t n,
                       const struct kn_act *to, void *stream)
{
    if (n <= 0 || a->k <= 0) {
        return 0;
    }
    return launch("gather_act", gather_act, static_cast<unsigned>(n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), *a, rows, *to);
}

int kn_cuda_pool(const float *x, int64_t n, int64_t d, double *sum, void *stream)
{
    if (n <= 0 || d <= 0) {
        return 0;
    }
    return launch("pool", pool, static_cast<unsigned>((d + THREADS - 1) / THREADS), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, n, d, sum);
}
