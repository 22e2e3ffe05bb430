/* cuda_layout.h: the layout of weights on a GPU, for who packs (pack_cuda.c) and who reads
 * (matmul/device.h). Internal to kernels/.
 *
 * A block is 32 elements of a row, whatever the type; a unit as many blocks as share a scale in the
 * file: 1, or 8 for the K formats. Rows go in tiles of KN_ROW_TILE, zeros pad the last one. A
 * matrix is four planes, each (tiles, blocks or units, …) and a multiple of 16 bytes long:
 *
 *   low (tile, block, piece, 16 rows, width)   the low bits of the quants, or the floats
 *   high (tile, block, 16 rows, high)          the bits above
 *   scale (tile, unit, 16 rows, scale)         fp16 d, and fp16 m behind it; MXFP4: its exponent
 *   sub (tile, unit, 16 rows, 16)              sub-scales and sub-minima
 *
 * So what rows 0 … 15 have of a block lies side by side: lanes that take a row each read whole
 * sectors, and the two pieces of Q8_0 are the matrix that one mma.m16n8k32 multiplies. Sizes are
 * the file's, but for padding and 1.8% of Q3_K.
 *
 * Bits of a block, e = 0 … 31 being its elements (NUMERICS.md, section 2):
 *   low, 8 bits   byte e is the int8
 *   low, 4 bits   byte j has elements j and, high, j + 16: as in the file
 *   2 bits        byte j of word k has elements 16 k + j, + 4, + 8, + 12, from bit 0 up
 *   high, 1 bit   byte j has elements j, j + 4, …, j + 28, from bit 0 up
 * Bits of the sixteen bytes `sub` as words, i counting sub-blocks of the unit:
 *   Q4_K, Q5_K    d | m << 16; the low four bits of sc at 4 i; those of mn at 4 i;
 *                 the upper two of sc at 2 i and of mn at 16 + 2 i. `scale` is empty.
 *   Q3_K          d; the low four bits of sc + 32 at 4 i (i < 8), at 4 (i - 8); the upper two at 2
 * i. `scale` is empty. Q6_K          byte i is the int8 sc Q2_K          byte i is sc | mn << 4 */
#ifndef ARGOSY_KERNELS_CUDA_LAYOUT_H
#define ARGOSY_KERNELS_CUDA_LAYOUT_H

#include "kernels/kernels.h"

#ifdef __CUDACC__
#define KN_PLANE static __host__ __device__ constexpr
#elif defined(__cplusplus)
#define KN_PLANE static constexpr
#else
#define KN_PLANE static inline
#endif

/* X(type) for each block type; for each type. */
#define KN_PLANE_BLOCK_TYPES(X) \
    X(KN_Q4_0)                  \
    X(KN_Q4_1)                  \
    X(KN_Q5_0)                  \
    X(KN_Q5_1)                  \
    X(KN_Q8_0) X(KN_Q2_K) X(KN_Q3_K) X(KN_Q4_K) X(KN_Q5_K) X(KN_Q6_K) X(KN_IQ4_NL) X(KN_MXFP4)
#define KN_PLANE_TYPES(X) KN_PLANE_BLOCK_TYPES(X) X(KN_F32) X(KN_F16) X(KN_BF16)

KN_PLANE bool kn_plane_is_float(int type)
{
    return type == KN_F32 || type == KN_F16 || type == KN_BF16;
}

/* Blocks that share a scale. */
KN_PLANE int kn_plane_unit(int type)
{
    return type == KN_Q2_K || type == KN_Q3_K || type == KN_Q4_K || type == KN_Q5_K ||
                   type == KN_Q6_K
               ? 8
               : 1;
}

/* Bytes of a row's block in the plane `low`; in pieces of kn_plane_width. */
KN_PLANE int kn_plane_low(int type)
{
    return type == KN_F32                       ? 4 * KN_BLOCK
           : kn_plane_is_float(type)            ? 2 * KN_BLOCK
           : type == KN_Q8_0                    ? KN_BLOCK
           : type == KN_Q2_K || type == KN_Q3_K ? KN_BLOCK / 4
                                                : KN_BLOCK / 2;
}

KN_PLANE int kn_plane_width(int type)
{
    return kn_plane_low(type) < 16 ? kn_plane_low(type) : 16;
}

/* Bytes of a row's block in `high`. */
KN_PLANE int kn_plane_high(int type)
{
    return type == KN_Q6_K                                                            ? 8
           : type == KN_Q5_0 || type == KN_Q5_1 || type == KN_Q3_K || type == KN_Q5_K ? 4
                                                                                      : 0;
}

/* Bytes of a row's unit in `scale`. */
KN_PLANE int kn_plane_scale(int type)
{
    return kn_plane_is_float(type) || type == KN_Q3_K || type == KN_Q4_K || type == KN_Q5_K ? 0
           : type == KN_MXFP4                                                               ? 1
           : type == KN_Q4_1 || type == KN_Q5_1 || type == KN_Q2_K                          ? 4
                                                                                            : 2;
}

/* Bytes of a row's unit in `sub`. */
KN_PLANE int kn_plane_sub(int type)
{
    return kn_plane_unit(type) == 8 ? 16 : 0;
}

/* Elements that share a sub-scale: 32, 16, or 0 for none. */
KN_PLANE int kn_plane_sub_elems(int type)
{
    return type == KN_Q4_K || type == KN_Q5_K                      ? 32
           : type == KN_Q2_K || type == KN_Q3_K || type == KN_Q6_K ? 16
                                                                   : 0;
}

KN_PLANE bool kn_plane_has_min(int type)
{
    return type == KN_Q4_1 || type == KN_Q5_1 || type == KN_Q2_K || type == KN_Q4_K ||
           type == KN_Q5_K;
}

/* Where the planes start. */
struct kn_planes {
    size_t high, scale, sub; /* low starts at 0 */
    size_t bytes;            /* of all */
};

static inline struct kn_planes kn_planes_of(int type, int64_t rows, int64_t cols)
{
    size_t padded = (size_t)((rows + KN_ROW_TILE - 1) / KN_ROW_TILE * KN_ROW_TILE);
    size_t blocks = padded * (size_t)((cols + KN_BLOCK - 1) / KN_BLOCK);
    size_t units = blocks / (size_t)kn_plane_unit(type);
    struct kn_planes p;

    p.high = blocks * (size_t)kn_plane_low(type);
    p.scale = p.high + blocks * (size_t)kn_plane_high(type);
    p.sub = p.scale + units * (size_t)kn_plane_scale(type);
    p.bytes = p.sub + units * (size_t)kn_plane_sub(type);
    return p;
}

#endif
