/* rows/cuda.cu: rows of activations, moved and added up. On a CPU these are copies and loops of the
 * engine (runtime/engine/cpu_pass.c, cpu_pool.c).
 *
 * gather:     out[i] = x[rows[i]]. x (any, d), out (n, d). Grid (ceil(d / 1024), n); 8 bytes an
 * element.
 * gather_act: the same of quantised rows, of what the source has. A thread block a row:
 * grid (n). Twice 1 + 12 / 32 bytes an element, and 8 for f.
 * scale:      x[i] = by * x[i], in place. A thread four elements: grid (ceil(n / 1024)); 8 bytes an
 * element.
 * copy_columns: pieces of rows to other rows, by 16, 4 or 1 bytes, as their places allow. Grid (parts,
 * copies), a part being what 256 threads copy until all is done; twice the bytes.
 * bf16:       out[i] = x[i] rounded. x (n, d), row stride ldx, out (n, d) of 16 bits. As gather; 6 bytes
 * an element.
 * pool:       sum[j] = sum[j] + (double)x[r][j], r ascending. x (n, d), sum (d). A thread a column:
 * grid (ceil(d / 256)), the row's order being the page's (NUMERICS.md, 5); 4 bytes an element, eight
 * rows of them under way at a time.
 *
 * No shared memory. All bound by memory.
 * gate: gather threads=256 blocks=8 has=LDG.E.128,STG.E.128
 * gate: gather_act threads=256 blocks=8 loop=LDG.E.128,STG.E.128
 * gate: scale threads=256 blocks=8 has=LDG.E.128,STG.E.128
 * gate: copy_columns threads=256 blocks=4 loop=LDG.E.128,STG.E.128
 * gate: to_bf16 threads=256 blocks=8 has=LDG.E.128,STG.E.64
 * gate: pool threads=256 blocks=6 loop=LDG.E */
#include "kernels/simt/cuda.h"

#include "kernels/cuda_kernels.h"
#include "kernels/rows/device.h"

#define THREADS 256
#define PART 1024 /* floats of a row that a thread block of gather copies */
#define POOL_AHEAD 8
#define COPY_PARTS_MAX 64

/* n words from row `from_row` to row `to_row` of rows of n words, [first, end) of them: 16 bytes at
 * a time where rows begin at multiples of that. All threads of the block. */
static __device__ __forceinline__ void copy_row(void *to, int64_t to_row, const void *from,
                                                int64_t from_row, int n, int first, int end)
{
    const int t = static_cast<int>(threadIdx.x);

    if (n % 4 == 0) {
        uint4 *dst = static_cast<uint4 *>(to) + to_row * (n / 4);
        const uint4 *src = static_cast<const uint4 *>(from) + from_row * (n / 4);
        for (int i = first / 4 + t; i < end / 4; i += THREADS) {
            const uint4 v = __ldg(src + i);
            dst[i] = make_uint4(v.x, v.y, v.z, v.w);
        }
    } else {
        uint32_t *dst = static_cast<uint32_t *>(to) + to_row * n;
        const uint32_t *src = static_cast<const uint32_t *>(from) + from_row * n;
        for (int i = first + t; i < end; i += THREADS) {
            dst[i] = __ldg(src + i);
        }
    }
}

__global__ void __launch_bounds__(THREADS)
    gather(const float *x, const uint32_t *rows, int d, float *out)
{
    const int first = static_cast<int>(blockIdx.x) * PART;

    copy_row(out, blockIdx.y, x, rows[blockIdx.y], d, first, first + PART < d ? first + PART : d);
}

__global__ void __launch_bounds__(THREADS)
    gather_act(struct kn_act a, const uint32_t *rows, struct kn_act to)
{
    const int k = static_cast<int>(a.k), nb = (k + KN_BLOCK - 1) / KN_BLOCK;
    const int64_t i = blockIdx.x, from = rows[i];

    if (a.f != nullptr) {
        copy_row(to.f, i, a.f, from, k, 0, k);
    }
    if (a.q != nullptr) {
        copy_row(to.q, i, a.q, from, nb * KN_BLOCK / 4, 0, nb * KN_BLOCK / 4);
        copy_row(to.d, i, a.d, from, nb, 0, nb);
        copy_row(to.s, i, a.s, from, nb, 0, nb);
        if (a.h != nullptr) {
            copy_row(to.h, i, a.h, from, nb, 0, nb);
        }
    }
}

__global__ void __launch_bounds__(THREADS)
    to_bf16(const float *x, int64_t ldx, int64_t d, uint16_t *out)
{
    const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);
    float v[4];

    if (i < d) {
        load_quad(x + blockIdx.y * ldx, i, d, v);
        store_bf16_quad(out + blockIdx.y * d, i, d, v);
    }
}

__global__ void __launch_bounds__(THREADS) scale(float *x, int64_t n, float by)
{
    const int64_t i = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);

    if (i < n) {
        float v[4];
        load_quad(x, i, n, v);
        for (int j = 0; j < 4; j++) {
            v[j] = by * v[j];
        }
        store_quad(x, i, n, v);
    }
}

struct copies {
    struct kn_cuda_copy v[KN_CUDA_COPIES_MAX];
};

/* In pieces of T, of which a row has whole ones. */
template <typename T> static __device__ __forceinline__ void copy_by(const struct kn_cuda_copy &c)
{
    const unsigned per_row = static_cast<unsigned>(c.width / sizeof(T));
    const unsigned n = per_row * static_cast<unsigned>(c.rows);

    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < n; i += gridDim.x * THREADS) {
        const unsigned row = i / per_row, at = i % per_row;
        const char *from = static_cast<const char *>(c.from) + row * c.from_stride;
        char *to = static_cast<char *>(c.to) + row * c.to_stride;
        reinterpret_cast<T *>(to)[at] = reinterpret_cast<const T *>(from)[at];
    }
}

__global__ void __launch_bounds__(THREADS) copy_columns(const struct copies all)
{
    const struct kn_cuda_copy &c = all.v[blockIdx.y];
    const uintptr_t places = reinterpret_cast<uintptr_t>(c.from) |
                             reinterpret_cast<uintptr_t>(c.to) |
                             static_cast<uintptr_t>(c.from_stride | c.to_stride | c.width);

    if (places % 16 == 0) {
        copy_by<uint4>(c);
    } else if (places % 4 == 0) {
        copy_by<uint32_t>(c);
    } else {
        copy_by<uint8_t>(c);
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
    return launch("gather", gather,
                  dim3(static_cast<unsigned>((d + PART - 1) / PART), static_cast<unsigned>(n)),
                  THREADS, 0, static_cast<cudaStream_t>(stream), x, rows, static_cast<int>(d), out);
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

int kn_cuda_scale(float *x, int64_t n, float by, void *stream)
{
    if (n <= 0) {
        return 0;
    }
    return launch("scale", scale, quad_grid(n, THREADS, 1), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, n, by);
}

int kn_cuda_copy_columns(const struct kn_cuda_copy *copies, int n, void *stream)
{
    int status = 0;

    for (int first = 0; first < n && status == 0; first += KN_CUDA_COPIES_MAX) {
        const int some = n - first < KN_CUDA_COPIES_MAX ? n - first : KN_CUDA_COPIES_MAX;
        struct copies all = {};
        int64_t most = 0;
        for (int i = 0; i < some; i++) {
            const int64_t bytes = copies[first + i].width * copies[first + i].rows;
            all.v[i] = copies[first + i];
            most = bytes > most ? bytes : most;
        }
        const int64_t parts = (most / 16 + THREADS - 1) / THREADS;
        const dim3 grid(static_cast<unsigned>(parts < 1                ? 1
                                              : parts < COPY_PARTS_MAX ? parts
                                                                       : COPY_PARTS_MAX),
                        static_cast<unsigned>(some));
        status = launch("copy_columns", copy_columns, grid, THREADS, 0,
                        static_cast<cudaStream_t>(stream), all);
    }
    return status;
}

int kn_cuda_pool(const float *x, int64_t n, int64_t d, double *sum, void *stream)
{
    if (n <= 0 || d <= 0) {
        return 0;
    }
    return launch("pool", pool, static_cast<unsigned>((d + THREADS - 1) / THREADS), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, n, d, sum);
}

int kn_cuda_bf16(const float *x, int64_t ldx, int64_t n, int64_t d, uint16_t *out, void *stream)
{
    if (n <= 0 || d <= 0) {
        return 0;
    }
    return launch("to_bf16", to_bf16, quad_grid(d, THREADS, n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), x, ldx, d, out);
}
