/* matmul/cpu.c: matmul in AVX2 and AVX-512: vector.h is written once for both, the products of
 * block types for each. In AMX: what is not amx.h is AVX-512. */
#include "kernels/lanes.h"
#include "kernels/matmul/tile.h"

#include "kernels/lanes_avx2.h"

#include "kernels/matmul/blocks_avx2.h"
#include "kernels/matmul/vector.h"

#include "kernels/lanes_avx512.h"

#include "kernels/matmul/blocks_avx512.h"
#include "kernels/matmul/vector.h"

#include "kernels/matmul/amx.h"
