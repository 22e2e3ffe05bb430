/* cuda_kernels.h: the operations of kernels.h as kernels for GPUs (sm_80, sm_90a): the same bits.
 *
 * All pointers are of the device, as are those in the structs; the structs are of the host and are
 * copied. `stream` is a cudaStream_t. A function queues its launch and returns 0, or the error of
 * CUDA. n rows of nothing launch nothing. Contracts are those of kernels.h. Each is in
 * <op>/cuda.cu, and runs in <op>/test.c by the emulator of simt/. */
#ifndef ARGOSY_KERNELS_CUDA_KERNELS_H
#define ARGOSY_KERNELS_CUDA_KERNELS_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- weights (host) -------------------------------------------------------------------------- */

/* Q4_1 and Q8_0 so far. */
bool kn_cuda_serves(int type, int64_t rows, int64_t cols);
/* 0 when not served. */
size_t kn_cuda_pack_bytes(int type, int64_t rows, int64_t cols);
/* Rows of the file to the layout of pack_cuda.c; both pointers are of the host. */
void kn_cuda_pack(int type, int64_t rows, int64_t cols, const void *src, void *dst);

/* ---- operations ------------------------------------------------------------------------------ */

/* A matrix that is served; w->data is what kn_cuda_pack made, w->isa is not looked at. -1 where it
 * is not served. */
int kn_cuda_embed(const struct kn_matrix *w, const uint32_t *ids, int64_t n, float scale, float *x,
                  void *stream);
/* n at most KN_CUDA_TOKENS_MAX (more: -1): for decoding. */
#define KN_CUDA_TOKENS_MAX 8
int kn_cuda_matmul(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy, void *stream);
int kn_cuda_quantize(const float *x, int64_t ldx, int64_t row_begin, int64_t row_end,
                     const struct kn_act *a, void *stream);
int kn_cuda_rmsnorm(const float *x, const float *w, float w_offset, float eps, int64_t n, int64_t d,
                    float *y, void *stream);
int kn_cuda_rmsnorm_quantize(const float *x, const float *w, float w_offset, float eps,
                             int64_t row_begin, int64_t row_end, int64_t d, const struct kn_act *a,
                             void *stream);
int kn_cuda_swiglu_quantize(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                            int64_t ff, const struct kn_act *a, void *stream);
int kn_cuda_geglu_quantize(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                           int64_t ff, const struct kn_act *a, void *stream);
/* kv->type KN_KV_F16 alone. */
int kn_cuda_rope_kv(float *qkv, int64_t ld, int n_heads, const struct kn_kv *kv,
                    const struct kn_span *span, const struct kn_rope_table *table,
                    enum kn_rope kind, void *stream);

#ifdef __cplusplus
}
#endif

#endif
