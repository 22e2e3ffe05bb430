/* attention/cpu.c: attention in AVX2 and AVX-512 (vector.h, written once for both). */
#include "kernels/attention/attention.h"
#include "kernels/lanes.h"
#include "kernels/table.h"

#include "kernels/lanes_avx2.h"

#include "kernels/attention/vector.h"

#include "kernels/lanes_avx512.h"

#include "kernels/attention/vector.h"
