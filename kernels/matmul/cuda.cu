/* matmul/cuda.cu: y[t, r] = W[r] · x[t] on a GPU: which kernel serves what. */
#include "kernels/matmul/gemm.h"
#include "kernels/matmul/gemv.h"

int kn_cuda_matmul(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy, void *stream)
{
    if (n <= 0 || row_end <= row_begin) {
        return 0;
    }
    if (!kn_cuda_serves(w->type, w->rows, w->cols)) {
        return -1;
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
