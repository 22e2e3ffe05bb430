/* lanes.h: vector code written once for AVX2 and AVX-512.
 *
 * A file <op>/vector.h is written in sixteen lanes: V(add)(a, b) is the instruction set's own add,
 * VF, VI and VM its types (floats, int32s, masks), V_TARGET what a function needs to be allowed its
 * instructions, V_INLINE the same for a helper. <op>/cpu.c includes it twice:
 *
 *     #include "kernels/lanes.h"
 *     #include "kernels/lanes_avx2.h"     // from here on V(x) is x_avx2
 *     #include "kernels/<op>/vector.h"
 *     #include "kernels/lanes_avx512.h"   // and from here on x_avx512
 *     #include "kernels/<op>/vector.h"
 *
 * Every lane operation is one IEEE operation, so the versions agree bit for bit with the scalar one
 * as long as each element sees the same operations in the same order. */
#ifndef ARGOSY_KERNELS_LANES_H
#define ARGOSY_KERNELS_LANES_H

#include "kernels/numerics.h"

#define V_INLINE static inline __attribute__((always_inline)) V_TARGET

#endif
