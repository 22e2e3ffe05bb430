/* moe/cpu.c: moe in AVX2 and AVX-512 (vector.h, written once for both). */
#include "kernels/lanes.h"
#include "kernels/table.h"

#include "kernels/lanes_avx2.h"

#include "kernels/moe/vector.h"

#include "kernels/lanes_avx512.h"

#include "kernels/moe/vector.h"
