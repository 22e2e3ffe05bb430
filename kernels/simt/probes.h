/* probes.h: instructions of ptx.h by themselves: a warp's registers in, and out. Pointers are of
 * the device. Each returns what launch() does. */
#ifndef ARGOSY_KERNELS_SIMT_PROBES_H
#define ARGOSY_KERNELS_SIMT_PROBES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* (32, 4), (32, 2), (32, 4) */
int probe_mma(const uint32_t *a, const uint32_t *b, int *c);
/* The same of two m16n8k16: the fragments of their first half are those of the other's. */
int probe_mma_k16(const uint32_t *a, const uint32_t *b, int *c);
/* The same shapes. fp8: from sm_89 on. */
int probe_mma_f16(const uint32_t *a, const uint32_t *b, float *c);
int probe_mma_bf16(const uint32_t *a, const uint32_t *b, float *c);
int probe_mma_e4m3(const uint32_t *a, const uint32_t *b, float *c);
int probe_mma_e5m2(const uint32_t *a, const uint32_t *b, float *c);
/* (n) each: conversions, saturating or not. */
int probe_fp8(int saturates, const float *x, int n, uint8_t *e4m3, uint8_t *e5m2);
/* (4, 8, 8), (32, 4). n: 4 is x4, 2 is x2, 3 is x2.trans, 5 is x4.trans. */
int probe_ldmatrix(int n, const uint16_t *matrices, uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
