/* matmul/cuda.cu: y[t, r] = W[r] · x[t] for 1 to 8 tokens: decoding (GEMV).
 *
 * W (rows, cols) as ../cuda_layout.h has it, x of struct kn_act, y stride ldy. A thread block has a
 * tile of 16 rows: grid (ceil(rows / 16)), 8 segments x 16 rows = 128 threads. A lane has a segment
 * of a row (NUMERICS.md, section 4) and adds its blocks up in ascending order, for all tokens; the
 * two segments of a warp meet by a shuffle, the four warps in shared memory: tree8. The integer dot
 * product of a block is exact, by dp4a.
 *
 * Weights go by whole sectors from memory to registers, once: 16 lanes read 16 bytes of 16 rows,
 * side by side; the next group of blocks is loaded while one is used. Activations
 * are staged by cp.async, a group ahead, by the warp that reads them: 16 lanes share an address.
 *
 * gate: gemv threads=128 blocks=4 shared=12544 loop=LDG.E.128,IDP.4A,LDGSTS
 * gate: gemv_floats threads=128 blocks=3 shared=18688 loop=LDG.E.128,LDGSTS,FFMA */
#include "kernels/simt/cuda.h"
#include "kernels/simt/ptx.h"

#include "kernels/cuda_kernels.h"
#include "kernels/matmul/device.h"

#define WARPS (KN_SEGMENTS / 2)
#define THREADS (WARPS * 32)
#define ALL 0xffffffffu

/* What is computed: rows [row_begin, row_end) for `TOKENS` tokens. */
struct gemv_task {
    weights w;
    kn_act x;
    int64_t row_begin, row_end;
    bool accumulate;
    float *y;
    int64_t ldy;
};

/* The blocks of this lane's segment, and how many turns of `group` blocks the warp takes. */
struct gemv_range {
    int64_t begin, end, turns;
};

static __device__ __forceinline__ gemv_range get_range(int64_t blocks, int unit, int group)
{
    const int64_t units = blocks / unit;
    const int segment = static_cast<int>(threadIdx.x / KN_ROW_TILE), first = segment & ~1;
    const int64_t a = kn_segment(units, first), b = kn_segment(units, first + 1),
                  c = kn_segment(units, first + 2);
    const int64_t longer = (b - a > c - b ? b - a : c - b) * unit;

    return gemv_range{(segment == first ? a : b) * unit, (segment == first ? b : c) * unit,
                      (longer + group - 1) / group};
}

/* ---- the tree -------------------------------------------------------------------------------- */

template <int TOKENS> struct gemv_sums {
    float of[TOKENS][WARPS][KN_ROW_TILE];
};

/* y from the sums of the segments. All threads of the block. */
template <int TOKENS>
static __device__ __forceinline__ void finish(const gemv_task &k, const float acc[TOKENS],
                                              gemv_sums<TOKENS> *sums)
{
    const unsigned lane = threadIdx.x % 32, row = lane % KN_ROW_TILE;

    for (int t = 0; t < TOKENS; t++) {
        const float pair = acc[t] + __shfl_xor_sync(ALL, acc[t], KN_ROW_TILE);
        if (lane < KN_ROW_TILE) {
            sums->of[t][threadIdx.x / 32][row] = pair;
        }
    }
    __syncthreads();
    const int64_t r = k.row_begin + static_cast<int64_t>(blockIdx.x) * KN_ROW_TILE + row;
    for (unsigned t = threadIdx.x / KN_ROW_TILE; t < TOKENS && r < k.row_end;
         t += THREADS / KN_ROW_TILE) {
        const float v = (sums->of[t][0][row] + sums->of[t][1][row]) +
                        (sums->of[t][2][row] + sums->of[t][3][row]);
        float *out = k.y + t * k.ldy + r;
        *out = k.accumulate ? *out + v : v;
    }
}

/* ---- block types ----------------------------------------------------------------------------- */

/* Blocks that are loaded at once. */
template <int TOKENS> static __host__ __device__ constexpr int group_of()
{
    return TOKENS <= 3 ? 4 : 2;
}

/* The activations of a group, for a segment: q as words, and what goes with each block. */
template <int TOKENS> struct gemv_stage {
    unsigned q[TOKENS][group_of<TOKENS>()][8];
    float d[TOKENS][group_of<TOKENS>()];
    int sum[TOKENS][group_of<TOKENS>()]; /* s; Q2_K: h */
    /* so that the other segment's lies in other banks */
    unsigned pad[4];
};

template <int TOKENS> struct gemv_shared {
    gemv_stage<TOKENS> stage[KN_SEGMENTS][2];
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
                                             int64_t end, gemv_stage<TOKENS> *s)
{
    constexpr int GROUP = group_of<TOKENS>();
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

static __device__ __forceinline__ void read16(const unsigned *p, unsigned word[4])
{
    const uint4 v = *reinterpret_cast<const uint4 *>(p);
    word[0] = v.x;
    word[1] = v.y;
    word[2] = v.z;
    word[3] = v.w;
}

template <int TYPE, int TOKENS, int GROUP>
static __device__ __forceinline__ void add_group(const gemv_group<TYPE, GROUP> &g, int64_t b,
                                                 int64_t end, const gemv_stage<TOKENS> &s,
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
__global__ void __launch_bounds__(THREADS, 4) gemv(const gemv_task k)
{
    constexpr int GROUP = group_of<TOKENS>();
    DYNAMIC_SHARED(bytes);
    gemv_shared<TOKENS> *shared = reinterpret_cast<gemv_shared<TOKENS> *>(bytes);
    gemv_stage<TOKENS> *staged = shared->stage[threadIdx.x / KN_ROW_TILE];
    const int64_t row = k.row_begin + static_cast<int64_t>(blockIdx.x) * KN_ROW_TILE +
                        threadIdx.x % KN_ROW_TILE; /* of the tile, be it padding */
    const gemv_range range = get_range(k.w.blocks, kn_plane_unit(TYPE), GROUP);
    gemv_group<TYPE, GROUP> group = {};
    float acc[TOKENS];

    for (int t = 0; t < TOKENS; t++) {
        acc[t] = 0.0f;
    }
    int64_t b = range.begin;
    stage<TYPE>(k.x, k.w.blocks, b, range.end, &staged[0]);
    ptx_cp_async_commit();
    fetch<TYPE>(k.w, row, b, range.end, &group);
    for (int64_t turn = 0; turn < range.turns; turn++, b += GROUP) {
        gemv_group<TYPE, GROUP> next = group;
        stage<TYPE>(k.x, k.w.blocks, b + GROUP, range.end, &staged[(turn + 1) % 2]);
        ptx_cp_async_commit();
        fetch<TYPE>(k.w, row, b + GROUP, range.end, &next);
        ptx_cp_async_wait<1>();
        __syncwarp();
        add_group<TYPE, TOKENS>(group, b, range.end, staged[turn % 2], acc);
        __syncwarp(); /* all have read what the next turn overwrites */
        group = next;
    }
    finish<TOKENS>(k, acc, &shared->sums);
}

/* ---- float types ----------------------------------------------------------------------------- */

/* The activations of a block, for a segment. */
template <int TOKENS> struct gemv_floats_stage {
    float x[TOKENS][KN_BLOCK];
    float pad[4]; /* so that the other segment's lies in other banks */
};

template <int TOKENS> struct gemv_floats_shared {
    gemv_floats_stage<TOKENS> stage[KN_SEGMENTS][2];
    gemv_sums<TOKENS> sums;
};

template <int TOKENS>
static __device__ __forceinline__ void stage_floats(const kn_act &x, int64_t b, int64_t end,
                                                    gemv_floats_stage<TOKENS> *s)
{
    const unsigned lane = threadIdx.x % KN_ROW_TILE;

    for (unsigned i = lane; i < TOKENS * KN_BLOCK; i += KN_ROW_TILE) {
        const unsigned t = i / KN_BLOCK, e = i % KN_BLOCK;
        if (b < end && b * KN_BLOCK + e < x.k) {
            ptx_cp_async4(&s->x[t][e], x.f + t * x.k + b * KN_BLOCK + e);
        } else {
            s->x[t][e] = 0.0f; /* read, but not used */
        }
    }
}

/* The first `left` elements of the block: all, but for a row's last. */
template <int TYPE, int TOKENS, bool WHOLE>
static __device__ __forceinline__ void add_floats(const block_raw<TYPE> &raw, int64_t left,
                                                  const gemv_floats_stage<TOKENS> &s,
                                                  float acc[TOKENS])
{
    for (int e = 0; e < KN_BLOCK; e += 4) {
        for (int t = 0; t < TOKENS; t++) {
            const float4 v = *reinterpret_cast<const float4 *>(&s.x[t][e]);
            const float x[4] = {v.x, v.y, v.z, v.w};
            for (int i = 0; i < 4; i++) {
                if (WHOLE || e + i < left) {
                    acc[t] = fmaf(block_float<TYPE>(raw, e + i), x[i], acc[t]);
                }
            }
        }
    }
}

template <int TYPE, int TOKENS>
__global__ void __launch_bounds__(THREADS, 3) gemv_floats(const gemv_task k)
{
    DYNAMIC_SHARED(bytes);
    gemv_floats_shared<TOKENS> *shared = reinterpret_cast<gemv_floats_shared<TOKENS> *>(bytes);
    gemv_floats_stage<TOKENS> *staged = shared->stage[threadIdx.x / KN_ROW_TILE];
    const int64_t row =
        k.row_begin + static_cast<int64_t>(blockIdx.x) * KN_ROW_TILE + threadIdx.x % KN_ROW_TILE;
    const gemv_range range = get_range(k.w.blocks, 1, 1);
    block_raw<TYPE> block = {};
    float acc[TOKENS];

    for (int t = 0; t < TOKENS; t++) {
        acc[t] = 0.0f;
    }
    int64_t b = range.begin;
    stage_floats(k.x, b, range.end, &staged[0]);
    ptx_cp_async_commit();
    if (b < range.end) {
        block_fetch<TYPE>(k.w, row, b, &block);
    }
    for (int64_t turn = 0; turn < range.turns; turn++, b++) {
        const int64_t left = b < range.end ? k.x.k - b * KN_BLOCK : 0;
        block_raw<TYPE> next = block;
        stage_floats(k.x, b + 1, range.end, &staged[(turn + 1) % 2]);
        ptx_cp_async_commit();
        if (b + 1 < range.end) {
            block_fetch<TYPE>(k.w, row, b + 1, &next);
        }
        ptx_cp_async_wait<1>();
        __syncwarp();
        if (left >= KN_BLOCK) {
            add_floats<TYPE, TOKENS, true>(block, left, staged[turn % 2], acc);
        } else if (left > 0) {
            add_floats<TYPE, TOKENS, false>(block, left, staged[turn % 2], acc);
        }
        __syncwarp(); /* all have read what the next turn overwrites */
        block = next;
    }
    finish<TOKENS>(k, acc, &shared->sums);
}

/* ---- launch ---------------------------------------------------------------------------------- */

struct gemv_launch {
    gemv_task task;
    cudaStream_t stream;
};

template <int TYPE, int TOKENS> static int launch_gemv(const gemv_launch &l)
{
    const int64_t rows = l.task.row_end - l.task.row_begin;
    const unsigned grid = static_cast<unsigned>((rows + KN_ROW_TILE - 1) / KN_ROW_TILE);

    if constexpr (kn_plane_is_float(TYPE)) {
        return launch("gemv_floats", gemv_floats<TYPE, TOKENS>, grid, THREADS,
                      sizeof(gemv_floats_shared<TOKENS>), l.stream, l.task);
    } else {
        return launch("gemv", gemv<TYPE, TOKENS>, grid, THREADS, sizeof(gemv_shared<TOKENS>),
                      l.stream, l.task);
    }
}

template <int TYPE> static int launch_tokens(const gemv_launch &l, int64_t n)
{
    static int (*const by_tokens[KN_CUDA_TOKENS_MAX])(const gemv_launch &) = {
        launch_gemv<TYPE, 1>, launch_gemv<TYPE, 2>, launch_gemv<TYPE, 3>, launch_gemv<TYPE, 4>,
        launch_gemv<TYPE, 5>, launch_gemv<TYPE, 6>, launch_gemv<TYPE, 7>, launch_gemv<TYPE, 8>,
    };
    return by_tokens[n - 1](l);
}

int kn_cuda_matmul(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy, void *stream)
{
    if (n <= 0 || row_end <= row_begin) {
        return 0;
    }
    if (n > KN_CUDA_TOKENS_MAX || !kn_cuda_serves(w->type, w->rows, w->cols)) {
        return -1;
    }
    const gemv_launch l = {
        {weights_of(*w), *x, row_begin, row_end, accumulate, y, ldy},
        static_cast<cudaStream_t>(stream),
    };
#define GEMV(type) \
    case type:     \
        return launch_tokens<type>(l, n);
    switch (w->type) {
        KN_PLANE_TYPES(GEMV)
    default:
        return -1;
    }
#undef GEMV
}
