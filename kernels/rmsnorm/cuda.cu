/* rmsnorm/cuda.cu: y = x / sqrt(mean(x^2) + eps) * (w + w_offset), as it is or quantised.
 *
 * x, y (n, d), w (d). A thread block of 8 warps a row: grid (n). The 64 sums of NUMERICS.md are
 * two of each lane of the first warp, sum l and sum l + 32: adding a lane's two is the first step
 * of the fold, and an exchange with lane l ^ w the step of width w (a + b is b + a). Then all warps
 * write, 32 elements each in turn. Reads x twice, the second time from L1 or L2; moves 8 bytes an
 * element, w besides. Share of the bandwidth: not measured. */
#include "kernels/quantize/device.h"

#include "kernels/cuda_kernels.h"

#define WARPS 8

/* 1 / sqrt(mean + eps) of a row, in all threads. */
static __device__ __forceinline__ float inverse_rms(const float *x, int64_t d, float eps, float *shared)
{
    const unsigned t = threadIdx.x;

    if (t < 32) {
        float low = 0.0f, high = 0.0f;
        for (int64_t i = t; i < d; i += 64) {
            low = fmaf(x[i], x[i], low);
            if (i + 32 < d) {
                high = fmaf(x[i + 32], x[i + 32], high);
            }
        }
        float sum = low + high;
        for (int w = 16; w > 0; w /= 2) {
            sum = sum + __shfl_xor_sync(QUANTIZE_WARP, sum, w);
        }
        if (t == 0) {
            *shared = 1.0f / sqrtf(sum / static_cast<float>(d) + eps);
        }
    }
    __syncthreads();
    return *shared;
}

__global__ void __launch_bounds__(WARPS * 32)
    rmsnorm(const float *x, const float *w, float w_offset, float eps, int64_t d, float *y)
{
    __shared__ float shared;
    const float *row = x + blockIdx.x * d;
    const float scale = inverse_rms(row, d, eps, &shared);

    for (int64_t i = threadIdx.x; i < d; i += WARPS * 32) {
        y[blockIdx.x * d + i] = (row[i] * scale) * (w[i] + w_offset);
    }
}

__global__ void __launch_bounds__(WARPS * 32)
    rmsnorm_quantize(const float *x, const float *w, float w_offset, float eps, int64_t row_begin,
                     int64_t d, struct kn_act a)
{
    __shared__ float shared;
    const int64_t r = row_begin + blockIdx.x;
    const float *row = x + r * d;
    const float scale = inverse_rms(row, d, eps, &shared);

    for (int64_t b = threadIdx.x / 32; b * KN_BLOCK < d; b += WARPS) {
        const int64_t i = b * KN_BLOCK + threadIdx.x % 32;
        quantize_put_block(a, r, b, i < d ? (row[i] * scale) * (w[i] + w_offset) : 0.0f);
    }
}

int kn_cuda_rmsnorm(const float *x, const float *w, float w_offset, float eps, int64_t n, int64_t d,
                    float *y, void *stream)
{
    if (n <= 0) {
        return 0;
    }
    return launch("rmsnorm", rmsnorm, static_cast<unsigned>(n), WARPS * 32, 0,
                  static_cast<cudaStream_t>(stream), x, w, w_offset, eps, d, y);
}

int kn_cuda_rmsnorm_quantize(const float *x, const float *w, float w_offset, float eps,
                             int64_t row_begin, int64_t row_end, int64_t d, const struct kn_act *a,
                             void *stream)
{
    if (row_end <= row_begin) {
        return 0;
    }
    return launch("rmsnorm_quantize", rmsnorm_quantize, static_cast<unsigned>(row_end - row_begin),
                  WARPS * 32, 0, static_cast<cudaStream_t>(stream), x, w, w_offset, eps, row_begin, d,
                  *a);
}
