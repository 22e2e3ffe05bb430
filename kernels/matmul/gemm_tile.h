/* gemm_tile.h: what gemm.cu (block types) and gemm_float.cu share: which tile a thread block has,
 * and the tree over the segments. Included by .cu files. */
#ifndef ARGOSY_KERNELS_MATMUL_GEMM_TILE_H
#define ARGOSY_KERNELS_MATMUL_GEMM_TILE_H

#include "kernels/simt/cuda.h"
#include "kernels/simt/ptx.h"

#include "kernels/cuda_kernels.h"
#include "kernels/cuda_layout.h"
#include "kernels/numerics.h"

#define TILE_TOKENS 64

/* One launch. Pointers are of the device. */
struct gemm_task {
    const void *w; /* of one matrix; or, with experts, NULL and */
    const void *const *experts;
    const uint32_t *slot_begin; /* (n_experts + 1) */
    int n_experts;
    const uint32_t *x_rows; /* (n), or NULL */
    kn_planes planes;       /* of each matrix */
    int64_t rows, cols;
    struct kn_act x;
    int64_t n, row_begin, row_end;
    unsigned token_tiles; /* that the grid has for each tile of rows, the fastest to change */
    bool accumulate;
    float *y;
    int64_t ldy;
};

/* F32, F16, BF16; 0, or the error of CUDA. */
int gemm_floats(int type, const gemm_task &k, cudaStream_t stream);

struct gemm_tile {
    const uint8_t *w; /* NULL: there is nothing to do */
    int64_t row;
    int64_t token; /* of y; of x too without x_rows */
    int tokens;    /* 1 to TILE_TOKENS */
};

/* Tile `tile` of the experts' one after another. A whole warp; each does it for itself. */
static __device__ __forceinline__ void find_expert(const gemm_task &k, unsigned tile, gemm_tile *t)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
    unsigned before = 0;

    for (int first = 0; first < k.n_experts; first += 32) {
        const int expert = first + lane;
        unsigned begin = 0, end = 0;
        if (expert < k.n_experts) {
            begin = __ldg(k.slot_begin + expert);
            end = __ldg(k.slot_begin + expert + 1);
        }
        const unsigned tiles = (end - begin + TILE_TOKENS - 1) / TILE_TOKENS;
        unsigned sum = tiles;
        for (int i = 1; i < 32; i *= 2) {
            const unsigned v = __shfl_up_sync(0xffffffffu, sum, static_cast<unsigned>(i));
            sum += lane >= i ? v : 0;
        }
        const unsigned ours = __ballot_sync(0xffffffffu, before + sum > tile);
        if (ours != 0) {
            const int from = __ffs(static_cast<int>(ours)) - 1;
            const unsigned skip = tile - before - __shfl_sync(0xffffffffu, sum - tiles, from);
            begin = __shfl_sync(0xffffffffu, begin, from) + skip * TILE_TOKENS;
            end = __shfl_sync(0xffffffffu, end, from);
            t->w = static_cast<const uint8_t *>(k.experts[first + from]);
            t->token = begin;
            t->tokens = static_cast<int>(min(end - begin, static_cast<unsigned>(TILE_TOKENS)));
            return;
        }
        before += __shfl_sync(0xffffffffu, sum, 31);
    }
}

static __device__ __forceinline__ gemm_tile find_tile(const gemm_task &k, int tile_rows)
{
    const unsigned tile = blockIdx.x % k.token_tiles;
    gemm_tile t = {};

    t.row = k.row_begin + static_cast<int64_t>(blockIdx.x / k.token_tiles) * tile_rows;
    if (k.experts != nullptr) {
        find_expert(k, tile, &t);
        return t;
    }
    t.w = static_cast<const uint8_t *>(k.w);
    t.token = static_cast<int64_t>(tile) * TILE_TOKENS;
    t.tokens = static_cast<int>(min(k.n - t.token, static_cast<int64_t>(TILE_TOKENS)));
    return t;
}

/* Four floats of shared memory, at a multiple of 16 bytes. */
static __device__ __forceinline__ void load4(const float *p, float v[4])
{
    const uint4 u = ptx_load_shared16(p);
    v[0] = __uint_as_float(u.x);
    v[1] = __uint_as_float(u.y);
    v[2] = __uint_as_float(u.z);
    v[3] = __uint_as_float(u.w);
}

/* The row of x that a token of y reads. */
static __device__ __forceinline__ int64_t act_row(const gemm_task &k, int64_t token)
{
    return k.x_rows != nullptr ? static_cast<int64_t>(__ldg(k.x_rows + token)) : token;
}

static inline unsigned gemm_grid(const gemm_task &k, int tile_rows)
{
    const int64_t row_tiles = (k.row_end - k.row_begin + tile_rows - 1) / tile_rows;

    return static_cast<unsigned>(row_tiles * k.token_tiles);
}

/* ---- the tree over the segments -------------------------------------------------------------- */

/* A thread's part of a tile. All indices are constants once loops are unrolled: registers. */
template <int ROWS, int TOKENS> struct sums {
    float v[ROWS][TOKENS];
};

/* kn_segment, of no more units than a row can have. */
static __device__ __forceinline__ int segment_border(int n_units, int s)
{
    return n_units * s / KN_SEGMENTS;
}

/* Sums of segments that wait for their other half: of one, two and four of them. */
template <int ROWS, int TOKENS> struct tree {
    sums<ROWS, TOKENS> level[3];
};

/* to = a + b, element by element. */
template <int ROWS, int TOKENS>
static __device__ __forceinline__ void add_sums(const sums<ROWS, TOKENS> &a,
                                                const sums<ROWS, TOKENS> &b, sums<ROWS, TOKENS> *to)
{
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < TOKENS; j++) {
            to->v[i][j] = a.v[i][j] + b.v[i][j];
        }
    }
}

/* Segment `s` is done: as in a binary counter, its sum meets those that it completes. After the
 * last one level[2] holds the result. Clears acc. */
template <int ROWS, int TOKENS>
static __device__ __forceinline__ void end_segment(int s, sums<ROWS, TOKENS> *acc,
                                                   tree<ROWS, TOKENS> *tree)
{
    if ((s & 1) == 0) {
        tree->level[0] = *acc;
    } else if ((s & 2) == 0) {
        add_sums(tree->level[0], *acc, &tree->level[1]);
    } else {
        add_sums(tree->level[0], *acc, acc);
        if ((s & 4) == 0) {
            add_sums(tree->level[1], *acc, &tree->level[2]);
        } else {
            add_sums(tree->level[1], *acc, acc);
            add_sums(tree->level[2], *acc, &tree->level[2]);
        }
    }
    *acc = {};
}

#endif
