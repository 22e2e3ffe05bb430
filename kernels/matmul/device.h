/* device.h: a block of 32 weights of every type, read on the device from the planes of
 * ../cuda_layout.h. Shared by GEMV, GEMM and embed. Included by .cu files.
 *
 * In two steps, so that a kernel can have loads of several blocks in flight before it uses one:
 *   block_fetch, unit_fetch     the loads, each of up to 16 bytes, to registers
 *   block_quants, block_scales  what they mean; no memory is read
 * and block_term is what a block adds, in units of the activations' scale. */
#ifndef ARGOSY_KERNELS_MATMUL_DEVICE_H
#define ARGOSY_KERNELS_MATMUL_DEVICE_H

#include "kernels/simt/cuda.h"

#include "kernels/cuda_layout.h"
#include "kernels/formats.h"
#include "kernels/numerics.h"

/* A matrix as kernels get it: by value. */
struct weights {
    const uint8_t *low, *high, *scale, *sub;
    int64_t blocks; /* of a row */
};

static inline weights weights_of(const struct kn_matrix &w)
{
    const kn_planes p = kn_planes_of(w.type, w.rows, w.cols);
    const uint8_t *data = static_cast<const uint8_t *>(w.data);

    return weights{data, data + p.high, data + p.scale, data + p.sub,
                   (w.cols + KN_BLOCK - 1) / KN_BLOCK};
}

/* Which of n items that each row has in a plane: those of 16 rows lie side by side. */
static __device__ __forceinline__ int64_t plane_at(int64_t row, int64_t n, int64_t i)
{
    return (row / KN_ROW_TILE * n + i) * KN_ROW_TILE + row % KN_ROW_TILE;
}

/* ---- loads ----------------------------------------------------------------------------------- */

/* A block as it lies. */
template <int TYPE> struct block_raw {
    unsigned low[kn_plane_low(TYPE) / 4];
    unsigned high[kn_plane_high(TYPE) != 0 ? kn_plane_high(TYPE) / 4 : 1];
};

/* What a unit's scales are. */
struct unit_raw {
    unsigned scale;  /* d, m */
    unsigned sub[4]; /* the K formats */
};

static __device__ __forceinline__ void load16(const void *p, unsigned word[4])
{
    const uint4 v = __ldg(static_cast<const uint4 *>(p));
    word[0] = v.x;
    word[1] = v.y;
    word[2] = v.z;
    word[3] = v.w;
}

static __device__ __forceinline__ void load8(const void *p, unsigned word[2])
{
    const uint2 v = __ldg(static_cast<const uint2 *>(p));
    word[0] = v.x;
    word[1] = v.y;
}

/* Block b of the row. */
template <int TYPE>
static __device__ __forceinline__ void block_fetch(const weights &w, int64_t row, int64_t b,
                                                   block_raw<TYPE> *raw)
{
    constexpr int pieces = kn_plane_low(TYPE) / kn_plane_width(TYPE);

    if constexpr (kn_plane_width(TYPE) == 8) {
        load8(w.low + plane_at(row, w.blocks, b) * 8, raw->low);
    } else {
        for (int i = 0; i < pieces; i++) {
            load16(w.low + plane_at(row, w.blocks * pieces, b * pieces + i) * 16, raw->low + 4 * i);
        }
    }
    if constexpr (kn_plane_high(TYPE) == 8) {
        load8(w.high + plane_at(row, w.blocks, b) * 8, raw->high);
    } else if constexpr (kn_plane_high(TYPE) == 4) {
        raw->high[0] =
            __ldg(reinterpret_cast<const unsigned *>(w.high) + plane_at(row, w.blocks, b));
    }
}

/* The scales of unit u of the row: of block u, or of blocks 8 u to 8 u + 7. */
template <int TYPE>
static __device__ __forceinline__ void unit_fetch(const weights &w, int64_t row, int64_t u,
                                                  unit_raw *raw)
{
    const int64_t at = plane_at(row, w.blocks / kn_plane_unit(TYPE), u);

    if constexpr (kn_plane_scale(TYPE) == 4) {
        raw->scale = __ldg(reinterpret_cast<const unsigned *>(w.scale) + at);
    } else if constexpr (kn_plane_scale(TYPE) == 2) {
        raw->scale = __ldg(reinterpret_cast<const uint16_t *>(w.scale) + at);
    } else if constexpr (kn_plane_scale(TYPE) == 1) {
        raw->scale = __ldg(w.scale + at);
    }
    if constexpr (kn_plane_sub(TYPE) != 0) {
        load16(w.sub + at * 16, raw->sub);
    }
}

static __device__ __forceinline__ float half_bits(unsigned h)
{
    return __half2float(__ushort_as_half(static_cast<uint16_t>(h)));
}

/* Element e of a block of floats. */
template <int TYPE>
static __device__ __forceinline__ float block_float(const block_raw<TYPE> &raw, int e)
{
    if constexpr (TYPE == KN_F32) {
        return __uint_as_float(raw.low[e]);
    }
    const uint16_t bits = static_cast<uint16_t>(raw.low[e / 2] >> (e % 2 * 16));
    return TYPE == KN_F16 ? half_bits(bits) : kn_bf16_to_f32(bits);
}

/* Element e of block b of a row of floats, from memory. */
template <int TYPE>
static __device__ __forceinline__ float float_element(const weights &w, int64_t row, int64_t b,
                                                      int e)
{
    constexpr int pieces = kn_plane_low(TYPE) / 16, in_piece = KN_BLOCK / pieces;
    const uint8_t *p = w.low + plane_at(row, w.blocks * pieces, b * pieces + e / in_piece) * 16;

    if constexpr (TYPE == KN_F32) {
        return __ldg(reinterpret_cast<const float *>(p) + e % in_piece);
    } else {
        const uint16_t bits = __ldg(reinterpret_cast<const uint16_t *>(p) + e % in_piece);
        return TYPE == KN_F16 ? half_bits(bits) : kn_bf16_to_f32(bits);
    }
}

/* ---- quants ---------------------------------------------------------------------------------- */

/* Eight nibbles through a table of sixteen bytes: even ones to *even, odd ones to *odd. */
static __device__ __forceinline__ void look_up(const unsigned table[4], unsigned nibbles,
                                               unsigned *even, unsigned *odd)
{
    const unsigned index = nibbles & 0x77777777u;                     /* in half a table */
    const unsigned half = 0x32103210u | (nibbles >> 1 & 0x44444444u); /* which half: bit 3 */
    const unsigned first = __byte_perm(__byte_perm(table[0], table[1], index),
                                       __byte_perm(table[2], table[3], index), half);
    const unsigned last = __byte_perm(__byte_perm(table[0], table[1], index >> 16),
                                      __byte_perm(table[2], table[3], index >> 16), half >> 16);
    *even = __byte_perm(first, last, 0x6420);
    *odd = __byte_perm(first, last, 0x7531);
}

/* Bytes of the codebook as words. */
template <int TYPE> static __device__ __forceinline__ void codebook(unsigned table[4])
{
    constexpr int8_t iq4_nl[16] = {KN_CODEBOOK_IQ4_NL}, mxfp4[16] = {KN_CODEBOOK_MXFP4};

    for (int i = 0; i < 4; i++) {
        table[i] = 0;
        for (int j = 0; j < 4; j++) {
            const int8_t v = TYPE == KN_MXFP4 ? mxfp4[4 * i + j] : iq4_nl[4 * i + j];
            table[i] |= static_cast<unsigned>(static_cast<uint8_t>(v)) << (8 * j);
        }
    }
}

/* What is taken off a quant. */
template <int TYPE> static __device__ constexpr unsigned quant_zero()
{
    return TYPE == KN_Q4_0   ? 8
           : TYPE == KN_Q5_0 ? 16
           : TYPE == KN_Q3_K ? 4
           : TYPE == KN_Q6_K ? 32
                             : 0;
}

/* Words 2 t and 2 t + 1 of the block's values, t < 4. low: those words of 8 bits a quant; of 4 bits
 * words 2 t % 4 and the next; both words of 2 bits. high: all of the block's. */
template <int TYPE>
static __device__ __forceinline__ void word_pair(const unsigned low[2], const unsigned high[2],
                                                 int t, unsigned pair[2])
{
    const int second = t / 2; /* half of the block */

    if constexpr (TYPE == KN_IQ4_NL || TYPE == KN_MXFP4) {
        unsigned table[4];
        codebook<TYPE>(table);
        look_up(table,
                (low[0] >> (4 * second) & 0x0f0f0f0fu) | (low[1] >> (4 * second) & 0x0f0f0f0fu)
                                                             << 4,
                &pair[0], &pair[1]);
    } else {
        for (int i = 0; i < 2; i++) {
            unsigned v;
            if constexpr (kn_plane_low(TYPE) == 32) {
                v = low[i];
            } else if constexpr (kn_plane_low(TYPE) == 16) {
                v = low[i] >> (4 * second) & 0x0f0f0f0fu;
            } else {
                v = (second ? low[1] : low[0]) >> (4 * (t % 2) + 2 * i) & 0x03030303u;
            }
            if constexpr (kn_plane_high(TYPE) == 8) {
                v |= ((second ? high[1] : high[0]) >> (4 * (t % 2) + 2 * i) & 0x03030303u) << 4;
            } else if constexpr (kn_plane_high(TYPE) == 4) {
                v |= (high[0] >> (2 * t + i) & 0x01010101u) << (kn_plane_low(TYPE) == 8 ? 2 : 4);
            }
            if constexpr (quant_zero<TYPE>() != 0) { /* byte by byte: none borrows of the next */
                v = ((v | 0x80808080u) - quant_zero<TYPE>() * 0x01010101u) ^ 0x80808080u;
            }
            pair[i] = v;
        }
    }
}

/* The 32 values as int8, four a word, in the order of the activations: word i has elements 4 i to
 * 4 i + 3. */
template <int TYPE>
static __device__ __forceinline__ void block_quants(const block_raw<TYPE> &raw, int word[8])
{
    constexpr int words = kn_plane_low(TYPE) / 4;

    for (int t = 0; t < 4; t++) {
        const unsigned low[2] = {raw.low[words == 2 ? 0 : 2 * t % words],
                                 raw.low[words == 2 ? 1 : (2 * t + 1) % words]};
        unsigned pair[2];
        word_pair<TYPE>(low, raw.high, t, pair);
        word[2 * t] = static_cast<int>(pair[0]);
        word[2 * t + 1] = static_cast<int>(pair[1]);
    }
}

/* ---- scales ---------------------------------------------------------------------------------- */

/* Of a block, as ref.c has them: d and m times the sub-scale and sub-minimum where 32 elements
 * share one; m negated for the K formats. */
struct scales {
    float d, m;
    int sc[2], mn[2]; /* of the halves, where 16 elements share one */
};

/* Of block j of the unit. What a type has not is 0. */
template <int TYPE>
static __device__ __forceinline__ scales block_scales(const unit_raw &raw, int j)
{
    scales s = {};

    if constexpr (TYPE == KN_MXFP4) {
        s.d = kn_e8m0_half(raw.scale);
    } else if constexpr (TYPE == KN_Q4_K || TYPE == KN_Q5_K) {
        const unsigned sc = (raw.sub[1] >> (4 * j) & 15) | (raw.sub[3] >> (2 * j) & 3) << 4;
        const unsigned mn = (raw.sub[2] >> (4 * j) & 15) | (raw.sub[3] >> (16 + 2 * j) & 3) << 4;
        s.d = half_bits(raw.sub[0]) * static_cast<float>(sc);
        s.m = -half_bits(raw.sub[0] >> 16) * static_cast<float>(mn);
    } else if constexpr (TYPE == KN_Q3_K) {
        s.d = half_bits(raw.sub[0]);
        for (int i = 0; i < 2; i++) {
            const unsigned low = (j < 4 ? raw.sub[1] : raw.sub[2]) >> (8 * (j % 4) + 4 * i) & 15;
            const unsigned high = raw.sub[3] >> (4 * j + 2 * i) & 3;
            s.sc[i] = static_cast<int>(low | high << 4) - 32;
        }
    } else {
        s.d = half_bits(raw.scale);
        if constexpr (TYPE == KN_Q4_1 || TYPE == KN_Q5_1) {
            s.m = half_bits(raw.scale >> 16);
        }
    }
    if constexpr (TYPE == KN_Q6_K || TYPE == KN_Q2_K) {
        const unsigned word = j < 2   ? raw.sub[0]
                              : j < 4 ? raw.sub[1]
                              : j < 6 ? raw.sub[2]
                                      : raw.sub[3];
        for (int i = 0; i < 2; i++) {
            const unsigned byte = word >> (j % 2 * 16 + i * 8) & 0xff;
            if constexpr (TYPE == KN_Q6_K) {
                s.sc[i] = static_cast<int8_t>(byte);
            } else {
                s.sc[i] = static_cast<int>(byte & 15);
                s.mn[i] = static_cast<int>(byte >> 4);
            }
        }
        if constexpr (TYPE == KN_Q2_K) {
            s.m = -half_bits(raw.scale >> 16);
        }
    }
    return s;
}

/* ---- what a block adds ----------------------------------------------------------------------- */

/* t of NUMERICS.md, section 4: dot[0], dot[1] are the integer dot products of the block's halves;
 * sum is the block's kn_act.s, for Q2_K its kn_act.h, and not looked at by a type without minimum.
 */
template <int TYPE>
static __device__ __forceinline__ float block_term(const scales &w, const int dot[2], int sum)
{
    int idot = dot[0] + dot[1];

    if constexpr (kn_plane_sub_elems(TYPE) == 16) {
        idot = w.sc[0] * dot[0] + w.sc[1] * dot[1];
    }
    if constexpr (TYPE == KN_Q2_K) {
        sum = w.mn[0] * static_cast<int16_t>(sum) + w.mn[1] * (sum >> 16);
    }
    if constexpr (kn_plane_has_min(TYPE)) {
        return fmaf(w.d, static_cast<float>(idot), w.m * static_cast<float>(sum));
    }
    return w.d * static_cast<float>(idot);
}

#endif
