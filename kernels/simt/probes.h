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
/* (4, 8, 8), (32, 4). n: 4 is x4, 2 is x2, 3 is x2.trans. */
int probe_ldmatrix(int n, const uint16_t *matrices, uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
