/* pack_cuda.c: weights as the kernels for GPUs read them: two planes, rows one after another in
 * each, so that a thread loads 16 aligned bytes of quants.
 *
 *   quants (rows, blocks, 16 or 32 bytes): as in the file
 *   scales (rows, blocks): fp16 d, and behind each the fp16 m if the type has one */
#include <string.h>

#include "kernels/cuda_kernels.h"

/* Bytes of a block's scales, which the file has first. 0: not served. */
static size_t scale_bytes(int type)
{
    return type == KN_Q4_1 ? 4 : type == KN_Q8_0 ? 2 : 0;
}

bool kn_cuda_serves(int type, int64_t rows, int64_t cols)
{
    return scale_bytes(type) != 0 && kn_serves(type, rows, cols);
}

size_t kn_cuda_pack_bytes(int type, int64_t rows, int64_t cols)
{
    return kn_cuda_serves(type, rows, cols)
               ? (size_t)(rows * (cols / KN_BLOCK)) * kn_type_block_bytes(type)
               : 0;
}

void kn_cuda_pack(int type, int64_t rows, int64_t cols, const void *src, void *dst)
{
    size_t n = (size_t)(rows * (cols / KN_BLOCK)), bytes = kn_type_block_bytes(type);
    size_t scale = scale_bytes(type), quant = bytes - scale;
    const uint8_t *from = src;
    uint8_t *quants = dst, *scales = quants + n * quant;

    for (size_t b = 0; b < n; b++, from += bytes) {
        memcpy(scales + b * scale, from, scale);
        memcpy(quants + b * quant, from + scale, quant);
    }
}
