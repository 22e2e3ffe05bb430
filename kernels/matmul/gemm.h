/* gemm.h: matmul for more tokens than decoding has, for cuda.cu. Internal to kernels/. */
#ifndef ARGOSY_KERNELS_MATMUL_GEMM_H
#define ARGOSY_KERNELS_MATMUL_GEMM_H

#include "kernels/cuda_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* kn_cuda_matmul for any n, in tiles of tokens. */
int kn_cuda_gemm(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                 int64_t row_end, bool accumulate, float *y, int64_t ldy, void *stream);

#ifdef __cplusplus
}
#endif

#endif
