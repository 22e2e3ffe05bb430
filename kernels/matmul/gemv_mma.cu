/* matmul/gemv_mma.cu: block types for 4 to 8 tokens.
 *
 * W (rows, cols) as ../cuda_layout.h has it, x.q, x.d, x.s or x.h, y stride ldy. A thread block has
 * a tile of 16 rows: grid (ceil(rows / 16)), a warp for each of the 8 segments (NUMERICS.md,
 * section 4). One mma.m16n8k32 of int8, exact, is the dot products of a block of 16 rows with 8
 * tokens; a lane adds up those that it holds, block after block. The segments meet in shared
 * memory: tree8.
 *
 * Weights go by cp.async, 16 bytes a lane side by side, to a ring of stages, so that up to three
 * are on their way. Activations come from L1 a stage ahead: other thread blocks read the same.
 * What the mma calls columns 4 t to 4 t + 3 and 16 + 4 t to 16 + 4 t + 3 of the block are its
 * elements 8 t to 8 t + 7, in both operands, so that a lane reads 8 bytes of a token at once.
 *
 * Measured on an H100 as gemv_dp4a.cu was, 28672 x 4096, 4 and 8 tokens: 2,680 and 2,610 GB/s for
 * Q8_0, 2,035 and 1,900 for Q4_0, 1,540 and 1,430 for Q4_K: unpacking and scales bound it.
 *
 * gate: gemv_tensor threads=256 blocks=2 shared=49152 loop=IMMA,LDGSTS */
#include "kernels/matmul/gemv.h"

#define MMA_THREADS (KN_SEGMENTS * 32)
#define ALL 0xffffffffu
#define STAGE 4       /* blocks of a segment that are copied at once */
#define SUM_STRIDE 20 /* of 16 rows: the tokens of a fragment lie in other banks */

/* What a warp has in shared memory of its segment: weights, a few groups of STAGE blocks ahead. */
template <int TYPE> struct gemv_stages {
    static constexpr int unit = kn_plane_unit(TYPE);
    static constexpr int low_bytes = KN_ROW_TILE * kn_plane_low(TYPE); /* of a block */
    static constexpr int high_bytes = KN_ROW_TILE * kn_plane_high(TYPE);
    static constexpr int scale_bytes = KN_ROW_TILE * kn_plane_scale(TYPE); /* of a unit */
    static constexpr int sub_bytes = KN_ROW_TILE * kn_plane_sub(TYPE);
    static constexpr int bits = kn_plane_low(TYPE) + kn_plane_high(TYPE);
    static constexpr int n = bits <= 16 ? 4 : bits <= 24 ? 3 : 2;
    /* Super-blocks take two stages, which share the scales. */
    static constexpr int n_scales = unit == 1 ? n : n / 2 + 1;

    uint8_t low[n][STAGE * low_bytes];
    uint8_t high[n][high_bytes != 0 ? STAGE * high_bytes : 16];
    uint8_t scale[n_scales][scale_bytes != 0 ? (unit == 1 ? STAGE : 1) * scale_bytes : 16];
    uint8_t sub[n_scales][sub_bytes != 0 ? sub_bytes : 16];
};

/* Where a stage is in the rings of gemv_stages. */
template <int TYPE> struct gemv_slot {
    int stage, scales;
    bool second; /* half of a super-block */
};

template <int TYPE> static __device__ __forceinline__ void advance(gemv_slot<TYPE> *s)
{
    s->stage = s->stage + 1 == gemv_stages<TYPE>::n ? 0 : s->stage + 1;
    if (kn_plane_unit(TYPE) == 1 || s->second) {
        s->scales = s->scales + 1 == gemv_stages<TYPE>::n_scales ? 0 : s->scales + 1;
    }
    s->second = !s->second;
}

template <int TYPE> union gemv_mma_shared {
    gemv_stages<TYPE> stages[KN_SEGMENTS];
    float sums[KN_SEGMENTS][KN_CUDA_TOKENS_MAX][SUM_STRIDE];
};

/* A warp copies `bytes`, a multiple of 16. */
static __device__ __forceinline__ void copy(uint8_t *to, const uint8_t *from, int bytes)
{
    for (int i = static_cast<int>(threadIdx.x % 32) * 16; i < bytes; i += 32 * 16) {
        ptx_cp_async16(to + i, from + i);
    }
}

/* The next n blocks, at most STAGE; `at`: the first of them, of all blocks of the matrix's tiles.
 */
template <int TYPE>
static __device__ __forceinline__ void copy_stage(const weights &w, int64_t at, int n,
                                                  const gemv_slot<TYPE> &slot, gemv_stages<TYPE> *s)
{
    using stages = gemv_stages<TYPE>;

    if (n <= 0) {
        return;
    }
    copy(s->low[slot.stage], w.low + at * stages::low_bytes, n * stages::low_bytes);
    if constexpr (stages::high_bytes != 0) {
        copy(s->high[slot.stage], w.high + at * stages::high_bytes, n * stages::high_bytes);
    }
    if constexpr (stages::unit == 1) {
        copy(s->scale[slot.scales], w.scale + at * stages::scale_bytes, n * stages::scale_bytes);
    } else if (!slot.second) {
        const int64_t unit = at / stages::unit;
        if constexpr (stages::scale_bytes != 0) {
            copy(s->scale[slot.scales], w.scale + unit * stages::scale_bytes, stages::scale_bytes);
        }
        copy(s->sub[slot.scales], w.sub + unit * stages::sub_bytes, stages::sub_bytes);
    }
}

/* What a lane loads of the activations of STAGE blocks: of token lane / 4, with t = lane % 4, words
 * 2 t and 2 t + 1 of each block, and the rest of block t for the whole warp. */
struct gemv_acts {
    unsigned q[STAGE][2];
    float d;
    int sum; /* s; Q2_K: h */
};

/* Where they are for the next stage. The last token stands for those that are not there: their
 * columns are computed, and nobody reads them. */
struct gemv_acts_at {
    const uint2 *q;
    const float *d;
    const int *sum;
};

template <int TYPE>
static __device__ __forceinline__ gemv_acts_at acts_at(const gemv_task &k, int64_t begin)
{
    const int token = min(static_cast<int>(threadIdx.x % 32 / 4), k.n - 1);
    const int t = static_cast<int>(threadIdx.x % 4);
    const int64_t first = token * k.w.blocks + begin;

    return gemv_acts_at{reinterpret_cast<const uint2 *>(k.x.q) + first * 4 + t, k.x.d + first + t,
                        (TYPE == KN_Q2_K ? k.x.h : k.x.s) + first + t};
}

/* Of the next n blocks, at most STAGE. */
template <int TYPE>
static __device__ __forceinline__ void load_acts(gemv_acts_at *at, int n, gemv_acts *a)
{
    for (int i = 0; i < STAGE; i++) {
        if (i < n) {
            const uint2 v = __ldg(at->q + 4 * i);
            a->q[i][0] = v.x;
            a->q[i][1] = v.y;
        }
    }
    if (static_cast<int>(threadIdx.x % 4) < n) {
        a->d = __ldg(at->d);
        if constexpr (kn_plane_has_min(TYPE)) {
            a->sum = __ldg(at->sum);
        }
    }
    at->q += 4 * STAGE;
    at->d += STAGE;
    at->sum += STAGE;
}

/* The words of shared memory that a lane needs of row `row` of block i of the stage. */
template <int TYPE>
static __device__ __forceinline__ void
get_pair(const gemv_stages<TYPE> &s, const gemv_slot<TYPE> &slot, int i, int row, unsigned pair[2])
{
    constexpr int width = kn_plane_width(TYPE) / 4;
    constexpr int pieces = kn_plane_low(TYPE) / kn_plane_width(TYPE);
    constexpr int high_words = kn_plane_high(TYPE) / 4;
    const int t = static_cast<int>(threadIdx.x % 4);
    const unsigned *low = reinterpret_cast<const unsigned *>(s.low[slot.stage]) +
                          (i * pieces * KN_ROW_TILE + row) * width;
    const unsigned *high = reinterpret_cast<const unsigned *>(s.high[slot.stage]) +
                           (i * KN_ROW_TILE + row) * high_words;
    unsigned l[2] = {0, 0}, h[2] = {0, 0};

    if constexpr (width == 4) {
        low += (pieces == 2 ? t / 2 * KN_ROW_TILE * width : 0) + 2 * t % 4;
    }
    const uint2 v = *reinterpret_cast<const uint2 *>(low);
    l[0] = v.x;
    l[1] = v.y;
    for (int k = 0; k < high_words; k++) {
        h[k] = high[k];
    }
    word_pair<TYPE>(l, h, t, pair);
}

/* The scales of row `row` that block i of the stage has. */
template <int TYPE>
static __device__ __forceinline__ scales get_scales(const gemv_stages<TYPE> &s,
                                                    const gemv_slot<TYPE> &slot, int i, int row)
{
    constexpr int bytes = kn_plane_scale(TYPE), unit = kn_plane_unit(TYPE);
    const uint8_t *scale = s.scale[slot.scales] + ((unit == 1 ? i * KN_ROW_TILE : 0) + row) * bytes;
    unit_raw raw = {};

    if constexpr (bytes == 4) {
        raw.scale = *reinterpret_cast<const unsigned *>(scale);
    } else if constexpr (bytes == 2) {
        raw.scale = *reinterpret_cast<const uint16_t *>(scale);
    } else if constexpr (bytes == 1) {
        raw.scale = *scale;
    }
    if constexpr (kn_plane_sub(TYPE) != 0) {
        read16(s.sub[slot.scales] + row * kn_plane_sub(TYPE), raw.sub);
    }
    return block_scales<TYPE>(raw, unit == 1 ? 0 : slot.second ? STAGE + i : i);
}

/* n blocks of the stage. acc[2 r + j]: row g + 8 r, token 2 t + j, as mma has them. */
template <int TYPE>
static __device__ __forceinline__ void add_stage(const gemv_stages<TYPE> &s,
                                                 const gemv_slot<TYPE> &slot, int n,
                                                 const gemv_acts &a, float acc[4])
{
    const int g = static_cast<int>(threadIdx.x % 32 / 4), t = static_cast<int>(threadIdx.x % 4);

    for (int i = 0; i < STAGE; i++) {
        if (i >= n) {
            break;
        }
        unsigned top[2], bottom[2];
        int dot[2][4] = {};
        get_pair<TYPE>(s, slot, i, g, top);
        get_pair<TYPE>(s, slot, i, g + 8, bottom);
        const uint32_t quants[4] = {top[0], bottom[0], top[1], bottom[1]};
        if constexpr (kn_plane_sub_elems(TYPE) == 16) { /* each half by itself: lanes t < 2 */
            const uint32_t first[2] = {t < 2 ? a.q[i][0] : 0, t < 2 ? a.q[i][1] : 0};
            const uint32_t last[2] = {t < 2 ? 0 : a.q[i][0], t < 2 ? 0 : a.q[i][1]};
            ptx_mma_s8(dot[0], quants, first);
            ptx_mma_s8(dot[1], quants, last);
        } else {
            ptx_mma_s8(dot[0], quants, a.q[i]);
        }
        float d[2];
        int sum[2] = {0, 0};
        for (int j = 0; j < 2; j++) { /* token 2 t + j's, of the lane that loaded block i's */
            d[j] = __shfl_sync(ALL, a.d, (2 * t + j) * 4 + i);
            if constexpr (kn_plane_has_min(TYPE)) {
                sum[j] = __shfl_sync(ALL, a.sum, (2 * t + j) * 4 + i);
            }
        }
        for (int r = 0; r < 2; r++) {
            const scales of = get_scales<TYPE>(s, slot, i, g + 8 * r);
            for (int j = 0; j < 2; j++) {
                const int halves[2] = {dot[0][2 * r + j], dot[1][2 * r + j]};
                const float term = block_term<TYPE>(of, halves, sum[j]);
                acc[2 * r + j] = fmaf(d[j], term, acc[2 * r + j]);
            }
        }
    }
}

template <int TYPE> __global__ void __launch_bounds__(MMA_THREADS, 2) gemv_tensor(const gemv_task k)
{
    DYNAMIC_SHARED(bytes);
    gemv_mma_shared<TYPE> *shared = reinterpret_cast<gemv_mma_shared<TYPE> *>(bytes);
    constexpr int ahead = gemv_stages<TYPE>::n - 1, unit = kn_plane_unit(TYPE);
    const int segment = static_cast<int>(threadIdx.x / 32);
    const int64_t tile = k.row_begin / KN_ROW_TILE + blockIdx.x, units = k.w.blocks / unit;
    const int64_t begin = kn_segment(units, segment) * unit;
    const int blocks = static_cast<int>(kn_segment(units, segment + 1) * unit - begin);
    gemv_stages<TYPE> *s = &shared->stages[segment];
    gemv_acts_at from = acts_at<TYPE>(k, begin);
    gemv_acts acts = {};
    gemv_slot<TYPE> in = {}, out = {};
    int64_t at = tile * k.w.blocks + begin;
    float acc[4] = {};

    for (int i = 0; i < ahead; i++, at += STAGE) {
        copy_stage<TYPE>(k.w, at, min(blocks - i * STAGE, STAGE), in, s);
        ptx_cp_async_commit();
        advance(&in);
    }
    load_acts<TYPE>(&from, blocks, &acts);
    for (int left = blocks; left > 0; left -= STAGE, at += STAGE) {
        gemv_acts next = acts;
        ptx_cp_async_wait<ahead - 1>();
        __syncwarp(); /* all have copied this stage, and read the one that is overwritten now */
        if (left >= (ahead + 1) * STAGE) { /* most: without a test a block */
            copy_stage<TYPE>(k.w, at, STAGE, in, s);
            ptx_cp_async_commit();
            load_acts<TYPE>(&from, STAGE, &next);
            add_stage<TYPE>(*s, out, STAGE, acts, acc);
        } else {
            copy_stage<TYPE>(k.w, at, left - ahead * STAGE, in, s);
            ptx_cp_async_commit();
            load_acts<TYPE>(&from, left - STAGE, &next);
            add_stage<TYPE>(*s, out, left, acts, acc);
        }
        acts = next;
        advance(&in);
        advance(&out);
    }
    __syncthreads(); /* the stages become the sums */
    const int lane = static_cast<int>(threadIdx.x % 32), g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; i++) {
        shared->sums[segment][2 * t + i % 2][g + i / 2 * 8] = acc[i];
    }
    __syncthreads();
    const int token = static_cast<int>(threadIdx.x / KN_ROW_TILE);
    const int row = static_cast<int>(threadIdx.x % KN_ROW_TILE);
    const int64_t r = tile * KN_ROW_TILE + row;
    if (token < k.n && r < k.row_end) {
        float v[KN_SEGMENTS];
        for (int i = 0; i < KN_SEGMENTS; i++) {
            v[i] = shared->sums[i][token][row];
        }
        float *y = k.y + token * k.ldy + r;
        *y = k.accumulate ? *y + kn_tree8(v) : kn_tree8(v);
    }
}

int gemv_mma(int type, const gemv_task &k, cudaStream_t stream)
{
    switch (type) {
#define GEMV(type)                                                                 \
    case type:                                                                     \
        return launch("gemv_tensor", gemv_tensor<type>, gemv_grid(k), MMA_THREADS, \
                      sizeof(gemv_mma_shared<type>), stream, k);
        KN_PLANE_BLOCK_TYPES(GEMV)
#undef GEMV
    default:
        return -1;
    }
}
