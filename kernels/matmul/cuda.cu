/* matmul/cuda.cu: y[t, r] = W[r] · x[t] on a GPU: which kernel serves what. */
#include "kernels/matmul/gemm.h"
#include "kernels/matmul/gemv.h"

/* Up to so many tokens two passes over the weights by GEMV are faster than one by GEMM, whose tiles are
 * mostly empty: 14336 x 4096, 16 tokens, on an H200: 2 x 22.5, 24.3, 24.4, 21.2 us for Q4_1, Q4_K,
 * Q6_K, Q8_0, where GEMM takes 63, 65, 68, 51. */
#define GEMV_TWICE_TOKENS (2 * KN_CUDA_TOKENS_MAX)

int kn_cuda_matmul(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy, void *stream)
{
    if (n <= 0 || row_end <= row_begin) {
        return 0;
    }
    if (!kn_cuda_serves(w->type, w->rows, w->cols)) {
        return -1;
    }
    if (n > KN_CUDA_TOKENS_MAX && n <= GEMV_TWICE_TOKENS && !kn_plane_is_float(w->type)) {
        const struct kn_act rest = kn_act_from(x, KN_CUDA_TOKENS_MAX);
        const int status = kn_cuda_matmul(w, x, KN_CUDA_TOKENS_MAX, row_begin, row_end, accumulate, y,
                                          ldy, stream);
        return status != 0 ? status
                           : kn_cuda_matmul(w, &rest, n - KN_CUDA_TOKENS_MAX, row_begin, row_end,
                                            accumulate, y + KN_CUDA_TOKENS_MAX * ldy, ldy, stream);
    }
    if (n > KN_CUDA_TOKENS_MAX) {
        return kn_cuda_gemm(w, x, n, row_begin, row_end, accumulate, y, ldy, stream);
    }
    const gemv_task k = {
        weights_of(*w), *x, static_cast<int>(n), row_begin, row_end, accumulate, y, ldy,
    };
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    return kn_plane_is_float(w->type) ? gemv_floats(w->type, k, s)
           : n <= GEMV_DP4A_TOKENS    ? gemv_dp4a(w->type, k, s)
                                      : gemv_mma(w->type, k, s);
}
