/* gemm_stage.h: how gemm.cu's tiles come to shared memory: what lies there, and each thread's part
 * in bringing it. Included by gemm.cu. */
#ifndef ARGOSY_KERNELS_MATMUL_GEMM_STAGE_H
#define ARGOSY_KERNELS_MATMUL_GEMM_STAGE_H

#include "kernels/simt/cuda.h"
#include "kernels/simt/ptx.h"

#include "kernels/matmul/device.h"
#include "kernels/matmul/gemm_tile.h"

#define THREADS 256 /* 8 warps: 4 of rows by 2 of tokens */
#define TILE_ROWS 128
#define STAGE_BLOCKS 2 /* along K */
#define LEAD 4         /* stages that are on their way */
#define ACT_STAGES (LEAD + 1)
#define WEIGHT_STAGES 2 /* unpacked */
#define ROW_BYTES (STAGE_BLOCKS * KN_BLOCK)

/* What a tensor core adds its integers to: the bits of KN_ROUND_MAGIC. With |i| < 2^22 the sum,
 * read as fp32, is KN_ROUND_MAGIC + i, exactly. */
#define MAGIC_BITS 0x4b400000

/* What a block's weights are when they meet the activations: as in the file; with sub-blocks of
 * 16 whose scales don't fit into bytes (Q6_K); the same with what is multiplied into the bytes, and
 * a minimum for each (Q2_K). Q3_K has its sub-scales in its bytes too and is like Q8_0 then. */
enum block_kind { SCALED, WITH_MIN, HALVES, HALVES_MIN };

template <int TYPE> struct block_traits {
    static const block_kind KIND = TYPE == KN_Q6_K          ? HALVES
                                   : TYPE == KN_Q2_K        ? HALVES_MIN
                                   : kn_plane_has_min(TYPE) ? WITH_MIN
                                                            : SCALED;
};

/* ---- shared memory --------------------------------------------------------------------------- */

/* 16-byte chunks of a row are exchanged by its bits 1 and 2, so that eight rows' chunks, which a
 * quarter of ldmatrix or of a vector store touches, lie in different banks. */
static __device__ __forceinline__ int chunk_at(int row, int chunk)
{
    return row * ROW_BYTES + ((chunk ^ (row >> 1 & 3)) * 16);
}

struct __align__(16) weight_stage
{
    int8_t q[TILE_ROWS * ROW_BYTES];
    /* Per block and row, in scale_at()'s order. SCALED: d, -d * KN_ROUND_MAGIC. WITH_MIN: d, m.
     * HALVES: d and the two sub-scales. HALVES_MIN: d, m, and as bytes the two sub-minima. */
    float scale[3][STAGE_BLOCKS * TILE_ROWS];
};

struct __align__(16) act_stage
{
    int8_t q[TILE_TOKENS * ROW_BYTES];
    /* Per block and token, in token_at()'s order; s is copied as integers, then converted. */
    float d[STAGE_BLOCKS * TILE_TOKENS];
    float s[STAGE_BLOCKS * TILE_TOKENS];
};

/* A lane reads the scales of its rows g, g + 8, g + 16, g + 24 of the warp's 32 at once. */
static __device__ __forceinline__ int scale_at(int block, int row)
{
    return block * TILE_ROWS + (row & ~31) + row % 8 * 4 + row / 8 % 4;
}

/* Tokens come in groups of eight, which go to the two warps of tokens in turn, and of those two
 * make a pair. A lane reads the scales of its four tokens of a pair at once. What is exchanged with
 * ^ lets a warp copy 16 tokens of two blocks to 32 banks. */
static __device__ __forceinline__ int token_at(int block, int token)
{
    const int warp = token / 8 % 2, second = token / 16 % 2 ^ warp, pair = token / 32 ^ block;

    return ((block * 2 + warp) * 2 + pair) * 16 + token % 8 / 2 * 4 + second * 2 + token % 2;
}

/* The token of column 0 of group `second` of a pair, for a warp of tokens. */
static __device__ __forceinline__ int group_token(int warp, int pair, int second)
{
    return pair * 32 + (second ^ warp) * 16 + warp * 8;
}

/* ---- weights --------------------------------------------------------------------------------- */

/* Four bytes times a number, each modulo 256. */
static __device__ __forceinline__ unsigned scale_bytes(unsigned bytes, int by)
{
    const unsigned b = static_cast<unsigned>(by) & 0xff, mask = 0x00ff00ff;

    return ((bytes & mask) * b & mask) | ((bytes >> 8 & mask) * b & mask) << 8;
}

/* Block j of a unit as it goes to shared memory. True: the block's d is so large, or not finite,
 * that term() has to go the long way. */
template <int TYPE>
static __device__ __forceinline__ bool unpack(const block_raw<TYPE> &raw, const unit_raw &unit,
                                              int j, int word[8], float scale[3])
{
    constexpr block_kind KIND = block_traits<TYPE>::KIND;
    scales s = block_scales<TYPE>(unit, j);

    block_quants<TYPE>(raw, word);
    if (TYPE == KN_Q3_K || TYPE == KN_Q2_K) {
        /* At most 45 for Q2_K; for Q3_K from -124 to 128, so that it is negated. */
        for (int i = 0; i < 8; i++) {
            const int by = TYPE == KN_Q3_K ? -s.sc[i / 4] : s.sc[i / 4];
            word[i] = static_cast<int>(scale_bytes(static_cast<unsigned>(word[i]), by));
        }
        s.d = TYPE == KN_Q3_K ? -s.d : s.d;
    }
    scale[0] = s.d;
    scale[1] = KIND == SCALED   ? -s.d * KN_ROUND_MAGIC
               : KIND == HALVES ? static_cast<float>(s.sc[0])
                                : s.m;
    scale[2] =
        KIND == HALVES ? static_cast<float>(s.sc[1]) : __int_as_float(s.mn[0] | s.mn[1] << 8);
    return KIND == SCALED && !(fabsf(s.d) < 0x1p100f);
}

/* ---- activations ----------------------------------------------------------------------------- */

/* A thread's part of bringing a stage of activations: 16 bytes of quants of one token, and the
 * scale or the sum of one block of another. Tokens beyond the tile's are zeros. */
struct act_loader {
    const int8_t *q; /* of block 0 */
    const uint32_t *scalar;
    int q_to, q_block, scalar_to, scalar_block;
    bool q_there, scalar_there;
};

static __device__ __forceinline__ act_loader act_loader_make(const gemm_task &k, const gemm_tile &t)
{
    const int thread = static_cast<int>(threadIdx.x);
    const int token = thread / 4, chunk = thread % 4;
    const int other = thread % 128 / 2, block = thread % 2;
    act_loader l;

    l.q_there = token < t.tokens;
    l.q_block = chunk / 2;
    l.q_to = chunk_at(token, chunk);
    l.q = k.x.q + chunk * 16;
    if (l.q_there) {
        l.q += act_row(k, t.token + token) * k.cols;
    }
    l.scalar_there = other < t.tokens;
    l.scalar_block = block;
    l.scalar_to = token_at(block, other);
    l.scalar = thread < 128 ? reinterpret_cast<const uint32_t *>(k.x.d)
                            : reinterpret_cast<const uint32_t *>(k.x.s);
    l.scalar += block;
    if (l.scalar_there) {
        l.scalar += act_row(k, t.token + other) * (k.cols / KN_BLOCK);
    }
    return l;
}

/* Queues blocks [first, first + STAGE_BLOCKS) of n_blocks; commits nothing. */
template <block_kind KIND>
static __device__ __forceinline__ void load_acts(const act_loader &l, int first, int n_blocks,
                                                 act_stage *to)
{
    if (first + l.q_block < n_blocks) {
        ptx_cp_async16_zfill(&to->q[l.q_to], l.q + first * KN_BLOCK, l.q_there ? 0 : 16);
    }
    if (first + l.scalar_block < n_blocks && (KIND == WITH_MIN || threadIdx.x < 128)) {
        float *at = threadIdx.x < 128 ? &to->d[l.scalar_to] : &to->s[l.scalar_to];
        if (l.scalar_there) {
            ptx_cp_async4(at, l.scalar + first);
        } else {
            *at = 0.0f;
        }
    }
}

/* The sums that this thread copied, which it alone may read before the barrier, to fp32. */
static __device__ __forceinline__ void convert_sums(const act_loader &l, int first, int n_blocks,
                                                    act_stage *x)
{
    if (threadIdx.x >= 128 && first + l.scalar_block < n_blocks) {
        float *at = &x->s[l.scalar_to];
        *at = static_cast<float>(__float_as_int(*at));
    }
}

/* ---- weights on their way -------------------------------------------------------------------- */

/* What a thread copies of a stage of weights for itself, as it lies in the planes: places for all
 * threads, side by side. */
template <int TYPE> struct raw_layout {
    static const int WIDTH = kn_plane_width(TYPE), PIECES = kn_plane_low(TYPE) / WIDTH;
    static const int SUB_AT = kn_plane_low(TYPE) * THREADS;
    static const int HIGH_AT = SUB_AT + kn_plane_sub(TYPE) * THREADS;
    static const int SCALE_AT = HIGH_AT + kn_plane_high(TYPE) * THREADS;
    static const int BYTES = SCALE_AT + (kn_plane_scale(TYPE) != 0 ? 4 : 0) * THREADS;
};

template <int TYPE> struct gemm_shared {
    weight_stage w[WEIGHT_STAGES];
    act_stage x[ACT_STAGES];
    uint8_t raw[LEAD][raw_layout<TYPE>::BYTES];
};

/* A thread's part of bringing a stage of weights: one block of one row. A warp has a tile of 16
 * rows, in which its blocks lie one behind another; beyond the last tile it reads that. */
struct weight_loader {
    weights planes;
    int64_t row;
    int tile_row; /* where it goes */
    int block;    /* of the stage */
};

static __device__ __forceinline__ weight_loader weight_loader_make(const gemm_task &k,
                                                                   const gemm_tile &t)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int tile_row = static_cast<int>(threadIdx.x / 32) * KN_ROW_TILE;
    const int64_t last = (k.rows - 1) / KN_ROW_TILE * KN_ROW_TILE;
    weight_loader l;

    l.planes = {t.w, t.w + k.planes.high, t.w + k.planes.scale, t.w + k.planes.sub,
                k.cols / KN_BLOCK};
    l.row = min(t.row + tile_row, last) + lane % KN_ROW_TILE;
    l.tile_row = tile_row + lane % KN_ROW_TILE;
    l.block = lane / KN_ROW_TILE;
    return l;
}

/* The word that has the scale of our unit, and the first bit of it there. */
template <int TYPE>
static __device__ __forceinline__ const uint8_t *scale_word(const weight_loader &l, int block,
                                                            int *shift)
{
    constexpr int unit = kn_plane_unit(TYPE);
    const int64_t at = plane_at(l.row, l.planes.blocks / unit, block / unit) * kn_plane_scale(TYPE);

    *shift = static_cast<int>(at % 4) * 8;
    return l.planes.scale + (at - at % 4);
}

/* Queues blocks [first, first + STAGE_BLOCKS); commits nothing. */
template <int TYPE>
static __device__ __forceinline__ void load_weights(const weight_loader &l, int first, uint8_t *to)
{
    using layout = raw_layout<TYPE>;
    constexpr int unit = kn_plane_unit(TYPE);
    const int thread = static_cast<int>(threadIdx.x), block = first + l.block;

    if (block >= l.planes.blocks) {
        return;
    }
    for (int i = 0; i < layout::PIECES; i++) {
        const int64_t piece = plane_at(l.row, l.planes.blocks * layout::PIECES,
                                       static_cast<int64_t>(block) * layout::PIECES + i);
        uint8_t *at = to + (i * THREADS + thread) * layout::WIDTH;
        if constexpr (layout::WIDTH == 16) {
            ptx_cp_async16(at, l.planes.low + piece * 16);
        } else {
            ptx_cp_async8(at, l.planes.low + piece * 8);
        }
    }
    const int64_t in_row = plane_at(l.row, l.planes.blocks, block);
    if constexpr (kn_plane_high(TYPE) == 8) {
        ptx_cp_async8(to + layout::HIGH_AT + thread * 8, l.planes.high + in_row * 8);
    } else if constexpr (kn_plane_high(TYPE) == 4) {
        ptx_cp_async4(to + layout::HIGH_AT + thread * 4, l.planes.high + in_row * 4);
    }
    if constexpr (kn_plane_sub(TYPE) != 0) {
        ptx_cp_async16(to + layout::SUB_AT + thread * 16,
                       l.planes.sub + plane_at(l.row, l.planes.blocks / unit, block / unit) * 16);
    }
    if constexpr (kn_plane_scale(TYPE) != 0) {
        int shift;
        ptx_cp_async4(to + layout::SCALE_AT + thread * 4, scale_word<TYPE>(l, block, &shift));
    }
}

static __device__ __forceinline__ void read8(const uint8_t *p, unsigned word[2])
{
    const uint64_t v = *reinterpret_cast<const uint64_t *>(p);
    word[0] = static_cast<unsigned>(v);
    word[1] = static_cast<unsigned>(v >> 32);
}

static __device__ __forceinline__ void read16(const uint8_t *p, unsigned word[4])
{
    const uint4 v = ptx_load_shared16(p);
    word[0] = v.x;
    word[1] = v.y;
    word[2] = v.z;
    word[3] = v.w;
}

/* Unpacks what this thread copied of the stage, once it is there. What unpack() returns. */
template <int TYPE>
static __device__ __forceinline__ bool store_weights(const weight_loader &l, int first,
                                                     const uint8_t *from, weight_stage *to)
{
    using layout = raw_layout<TYPE>;
    const int thread = static_cast<int>(threadIdx.x), block = first + l.block;
    const int at = scale_at(l.block, l.tile_row);
    block_raw<TYPE> raw;
    unit_raw unit = {};
    int word[8];
    float scale[3];

    if (block >= l.planes.blocks) {
        return false;
    }
    for (int i = 0; i < layout::PIECES; i++) {
        const uint8_t *piece = from + (i * THREADS + thread) * layout::WIDTH;
        if constexpr (layout::WIDTH == 16) {
            read16(piece, raw.low + 4 * i);
        } else {
            read8(piece, raw.low);
        }
    }
    if constexpr (kn_plane_high(TYPE) == 8) {
        read8(from + layout::HIGH_AT + thread * 8, raw.high);
    } else if constexpr (kn_plane_high(TYPE) == 4) {
        raw.high[0] = reinterpret_cast<const unsigned *>(from + layout::HIGH_AT)[thread];
    }
    if constexpr (kn_plane_sub(TYPE) != 0) {
        read16(from + layout::SUB_AT + thread * 16, unit.sub);
    }
    if constexpr (kn_plane_scale(TYPE) != 0) {
        int shift;
        scale_word<TYPE>(l, block, &shift);
        unit.scale = reinterpret_cast<const unsigned *>(from + layout::SCALE_AT)[thread] >> shift;
        if constexpr (kn_plane_scale(TYPE) < 4) {
            unit.scale &= (1u << kn_plane_scale(TYPE) * 8) - 1;
        }
    }
    const bool odd = unpack<TYPE>(raw, unit, block % kn_plane_unit(TYPE), word, scale);
    for (int i = 0; i < 2; i++) {
        const int *w = word + 4 * i;
        const uint4 v = {static_cast<unsigned>(w[0]), static_cast<unsigned>(w[1]),
                         static_cast<unsigned>(w[2]), static_cast<unsigned>(w[3])};
        ptx_store_shared16(&to->q[chunk_at(l.tile_row, l.block * 2 + i)], v);
    }
    to->scale[0][at] = scale[0];
    to->scale[1][at] = scale[1];
    if (kn_plane_sub_elems(TYPE) == 16 && TYPE != KN_Q3_K) {
        to->scale[2][at] = scale[2];
    }
    return odd;
}

#endif
