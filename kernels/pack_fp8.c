/* pack_fp8.c: a row of floats of the file to e4m3, for fast mode on a GPU. */
#include <math.h>

#include "kernels/cuda_kernels.h"
#include "kernels/numerics.h"

#define E4M3_MAX 448.0f
#define PART 256

/* Two passes over the file's row, in parts, so that no room for a row of floats is wanted. */
float kn_cuda_pack_fp8(int type, int64_t cols, const void *src, uint8_t *dst)
{
    float part[PART], most = 0, scale = 1;
    size_t bytes = kn_type_block_bytes(type);

    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < cols; i += PART) {
            int64_t n = cols - i < PART ? cols - i : PART;
            kn_dequantize_row(type, (const char *)src + (size_t)i * bytes, n, part);
            for (int64_t k = 0; k < n && pass == 0; k++) {
                most = fmaxf(most, fabsf(part[k]));
            }
            for (int64_t k = 0; k < n && pass == 1; k++) {
                dst[i + k] = kn_f32_to_e4m3(part[k] / scale);
            }
        }
        scale = most > 0 ? most / E4M3_MAX : 1;
    }
    return scale;
}
