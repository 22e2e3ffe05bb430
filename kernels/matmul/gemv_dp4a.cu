/* matmul/gemv_dp4a.cu: block types for 1 to 3 tokens.
 *
 * W (rows, cols) as ../cuda_layout.h has it, x.q, x.d, x.s or x.h, y stride ldy. A thread block has
 * a tile of 16 rows: grid (ceil(rows / 16)), 8 segments x 16 rows = 128 threads. A lane has a
 * segment of a row (NUMERICS.md, section 4) and adds its blocks up in ascending order, for all
 * tokens; the two segments of a warp meet by a shuffle, the four warps in shared memory: tree8. The
 * integer dot product of a block is exact, by dp4a.
 *
 * Weights go by whole sectors from memory to registers, once: 16 lanes read 16 bytes of 16 rows,
 * side by side; the next group of blocks is loaded while one is used. Activations are staged by
 * cp.async, a group ahead, by the warp that reads them: 16 lanes share an address.
 *
 * Measured on an H100 that reads 3,110 GB/s, 28672 x 4096, 1 token: 2,770 GB/s for Q8_0, 2,560 for
 * Q6_K, 2,540 for Q4_1, 2,420 to 2,500 for Q4_0, Q4_K, Q5_0 and Q5_K, 2,100 to 2,200 for MXFP4 and
 * IQ4_NL, 1,970 for Q2_K and Q3_K.
 *
 * gate: gemv threads=128 blocks=4 shared=9000 loop=LDG.E.128,IDP.4A,LDGSTS */
#include "kernels/matmul/gemv.h"

/* Blocks that are loaded at once: as many as the registers hold. */
template <int TYPE, int TOKENS> static __host__ __device__ constexpr int group_of()
{
    return TOKENS == 1 && kn_plane_low(TYPE) + kn_plane_high(TYPE) <= 16 ? 8 : 4;
}

/* The activations of a group, for a segment: q as words, and what goes with each block. */
template <int TYPE, int TOKENS> struct gemv_stage {
    unsigned q[TOKENS][group_of<TYPE, TOKENS>()][8];
    float d[TOKENS][group_of<TYPE, TOKENS>()];
    int sum[TOKENS][group_of<TYPE, TOKENS>()]; /* s; Q2_K: h */
    /* so that the other segment's lies in other banks */
    unsigned pad[4];
};

template <int TYPE, int TOKENS> struct gemv_shared {
    gemv_stage<TYPE, TOKENS> stage[KN_SEGMENTS][2];
    gemv_sums<TOKENS> sums;
};

/* A group of blocks, as they lie. */
template <int TYPE, int GROUP> struct gemv_group {
    block_raw<TYPE> block[GROUP];
    unit_raw unit[kn_plane_unit(TYPE) == 1 ? GROUP : 1];
};

/* Blocks [b, b + GROUP) of the row, those before `end`. Super-blocks are two groups: *g may be the
 * group before. */
template <int TYPE, int GROUP>
static __device__ __forceinline__ void fetch(const weights &w, int64_t row, int64_t b, int64_t end,
                                             gemv_group<TYPE, GROUP> *g)
{
    if (kn_plane_unit(TYPE) != 1 && b < end && b % kn_plane_unit(TYPE) == 0) {
        unit_fetch<TYPE>(w, row, b / kn_plane_unit(TYPE), &g->unit[0]);
    }
    for (int i = 0; i < GROUP; i++) {
        if (b + i < end) {
            block_fetch<TYPE>(w, row, b + i, &g->block[i]);
            if (kn_plane_unit(TYPE) == 1) {
                unit_fetch<TYPE>(w, row, b + i, &g->unit[i]);
            }
        }
    }
}

/* The same blocks' activations: 16 lanes copy what they all will read. */
template <int TYPE, int TOKENS>
static __device__ __forceinline__ void stage(const kn_act &x, int64_t blocks, int64_t b,
                                             int64_t end, gemv_stage<TYPE, TOKENS> *s)
{
    constexpr int GROUP = group_of<TYPE, TOKENS>();
    const unsigned lane = threadIdx.x % KN_ROW_TILE;

    for (unsigned c = lane; c < TOKENS * GROUP * 2; c += KN_ROW_TILE) { /* of 16 bytes */
        const unsigned t = c / (GROUP * 2), i = c / 2 % GROUP;
        if (b + i < end) {
            ptx_cp_async16(&s->q[t][i][c % 2 * 4],
                           x.q + (t * blocks + b + i) * KN_BLOCK + c % 2 * 16);
        }
    }
    for (unsigned c = lane; c < TOKENS * GROUP; c += KN_ROW_TILE) {
        const unsigned t = c / GROUP, i = c % GROUP;
        if (b + i < end) {
            ptx_cp_async4(&s->d[t][i], x.d + t * blocks + b + i);
            if (kn_plane_has_min(TYPE)) {
                ptx_cp_async4(&s->sum[t][i], (TYPE == KN_Q2_K ? x.h : x.s) + t * blocks + b + i);
            }
        }
    }
}

template <int TYPE, int TOKENS, int GROUP>
static __device__ __forceinline__ void add_group(const gemv_group<TYPE, GROUP> &g, int64_t b,
                                                 int64_t end, const gemv_stage<TYPE, TOKENS> &s,
                                                 float acc[TOKENS])
{
    for (int i = 0; i < GROUP; i++) {
        if (b + i >= end) {
            break;
        }
        int w[8];
        block_quants<TYPE>(g.block[i], w);
        const scales of =
            kn_plane_unit(TYPE) == 1
                ? block_scales<TYPE>(g.unit[kn_plane_unit(TYPE) == 1 ? i : 0], 0)
                : block_scales<TYPE>(g.unit[0], static_cast<int>(b % kn_plane_unit(TYPE)) + i);
        for (int t = 0; t < TOKENS; t++) {
            int dot[2] = {0, 0};
            for (int half = 0; half < 2; half++) {
                unsigned q[4];
                read16(&s.q[t][i][4 * half], q);
                for (int j = 0; j < 4; j++) {
                    dot[half] = __dp4a(w[4 * half + j], static_cast<int>(q[j]), dot[half]);
                }
            }
            const float term = block_term<TYPE>(of, dot, kn_plane_has_min(TYPE) ? s.sum[t][i] : 0);
            acc[t] = fmaf(s.d[t][i], term, acc[t]);
        }
    }
}

template <int TYPE, int TOKENS>
__global__ void __launch_bounds__(GEMV_THREADS, 4) gemv(const gemv_task k)
{
    constexpr int GROUP = group_of<TYPE, TOKENS>();
    DYNAMIC_SHARED(bytes);
    gemv_shared<TYPE, TOKENS> *shared = reinterpret_cast<gemv_shared<TYPE, TOKENS> *>(bytes);
    gemv_stage<TYPE, TOKENS> *staged = shared->stage[threadIdx.x / KN_ROW_TILE];
    const int64_t row = k.row_begin + static_cast<int64_t>(blockIdx.x) * KN_ROW_TILE +
                        threadIdx.x % KN_ROW_TILE; /* of the tile, be it padding */
    const gemv_range range = gemv_range_of(k.w.blocks, kn_plane_unit(TYPE), GROUP);
    gemv_group<TYPE, GROUP> group = {};
    float acc[TOKENS];

    for (int t = 0; t < TOKENS; t++) {
        acc[t] = 0.0f;
    }
    int64_t b = range.begin;
    stage<TYPE, TOKENS>(k.x, k.w.blocks, b, range.end, &staged[0]);
    ptx_cp_async_commit();
    fetch<TYPE>(k.w, row, b, range.end, &group);
    for (int64_t turn = 0; turn < range.turns; turn++, b += GROUP) {
        gemv_group<TYPE, GROUP> next = group;
        stage<TYPE, TOKENS>(k.x, k.w.blocks, b + GROUP, range.end, &staged[(turn + 1) % 2]);
        ptx_cp_async_commit();
        fetch<TYPE>(k.w, row, b + GROUP, range.end, &next);
        ptx_cp_async_wait<1>();
        __syncwarp();
        add_group<TYPE, TOKENS>(group, b, range.end, staged[turn % 2], acc);
        __syncwarp(); /* all have read what the next turn overwrites */
        group = next;
    }
    gemv_finish<TOKENS>(k, acc, &shared->sums);
}

template <int TYPE> static int launch_tokens(const gemv_task &k, cudaStream_t stream)
{
#define GEMV_TOKENS(n)                                                                      \
    launch("gemv", gemv<TYPE, n>, gemv_grid(k), GEMV_THREADS, sizeof(gemv_shared<TYPE, n>), \
           stream, k)
    return k.n == 1 ? GEMV_TOKENS(1) : k.n == 2 ? GEMV_TOKENS(2) : GEMV_TOKENS(3);
#undef GEMV_TOKENS
}

int gemv_dp4a(int type, const gemv_task &k, cudaStream_t stream)
{
    switch (type) {
#define GEMV(type) \
    case type:     \
        return launch_tokens<type>(k, stream);
        KN_PLANE_BLOCK_TYPES(GEMV)
#undef GEMV
    default:
        return -1;
    }
}
