/* rope/cpu.c: rope in AVX2 and AVX-512 (vector.h, written once for both). */
#include "kernels/lanes.h"
#include "kernels/quantize/quantize.h"
#include "kernels/table.h"

#include "kernels/lanes_avx2.h"

#include "kernels/rope/vector.h"

#include "kernels/lanes_avx512.h"

#include "kernels/rope/vector.h"
