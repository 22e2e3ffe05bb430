/* sample/cpu.c: sample in AVX2 and AVX-512 (vector.h, written once for both). */
#include <float.h>

#include "kernels/lanes.h"
#include "kernels/sample/steps.h"
#include "kernels/table.h"

#include "kernels/lanes_avx2.h"

#include "kernels/sample/vector.h"

#include "kernels/lanes_avx512.h"

#include "kernels/sample/vector.h"
