/* gemm_float.cu: y[t, r] = W[r] · x[t] for weights in F32, F16 and BF16, as gemm.cu does for block
 * types: any number of tokens, tiles of experts too.
 *
 * The order of NUMERICS.md, section 4, is one fma after another along a segment, so that no tensor
 * core serves: W (rows, cols) as cuda_layout.h lays it out, x.f (n, cols), fp32 fma throughout.
 * A thread block has 64 rows by 64 tokens, a thread 4 by 4 of them: grid (tiles of rows x tiles of
 * tokens), 256 threads. A step is a block of 32 along K: W through registers, converted, X by
 * cp.async, both to shared memory with K as rows (34,816 bytes for two steps), so that a thread
 * reads four rows and four tokens of a column at once.
 *
 * Bound by fp32: a column takes a warp 16 fma and 2 loads of 3 turns of 128 bytes, so 12 turns in the
 * 32 (A100) or 16 (H100) cycles that four warps' fma take
 * (not measured). 126 to 128 registers: two thread blocks an SM. W is read once for 64 tokens.
 *
 * gate: gemm_float threads=256 blocks=2 shared=34816 loop=FFMA,LDGSTS,LDG.E.128|LDG.E.NA.128,LDS.128 */
#include "kernels/matmul/gemm_tile.h"

#define THREADS 256
#define TILE_ROWS 64
#define STRIDE 68 /* 4 more than a tile: four columns further is 16 banks further */

struct float_stage {
    float w[KN_BLOCK][STRIDE];
    float x[KN_BLOCK][STRIDE];
};

template <int TYPE> struct float_traits {
    static const int ELEMS = TYPE == KN_F32 ? 4 : 8; /* in 16 bytes */
    static const int PIECES = KN_BLOCK / ELEMS;
    static const int LOADS = TILE_ROWS * PIECES / THREADS;
};

/* Element i of four words. */
template <int TYPE> static __device__ __forceinline__ float element(const unsigned word[4], int i)
{
    if (TYPE == KN_F32) {
        return __uint_as_float(word[i]);
    }
    const unsigned half = i % 2 == 0 ? word[i / 2] & 0xffff : word[i / 2] >> 16;
    if (TYPE == KN_BF16) {
        return __uint_as_float(half << 16);
    }
    return __half2float(__ushort_as_half(static_cast<uint16_t>(half)));
}

/* A thread's part of W: pieces of 16 bytes of one row; a warp has two side by side of the 16 rows
 * of a tile of the layout. */
template <int TYPE> struct row_loader {
    const uint8_t *from; /* of block 0 */
    int row, piece;      /* of the tile, of the block */
    unsigned word[float_traits<TYPE>::LOADS][4]; /* on their way */
};

template <int TYPE>
static __device__ __forceinline__ void row_loader_init(const gemm_task &k, const gemm_tile &t,
                                                       row_loader<TYPE> *l)
{
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    const int64_t last = (k.rows - 1) / KN_ROW_TILE, n_blocks = (k.cols + KN_BLOCK - 1) / KN_BLOCK;
    const int64_t tile = min(t.row / KN_ROW_TILE + warp / 2, last);

    l->row = warp / 2 * KN_ROW_TILE + lane % KN_ROW_TILE;
    l->piece = warp % 2 * (float_traits<TYPE>::PIECES / 2) + lane / KN_ROW_TILE;
    l->from = t.w + (tile * n_blocks * float_traits<TYPE>::PIECES * KN_ROW_TILE +
                     l->piece * KN_ROW_TILE + lane % KN_ROW_TILE) *
                        16;
}

template <int TYPE>
static __device__ __forceinline__ void load_rows(row_loader<TYPE> *l, int64_t block)
{
    for (int i = 0; i < float_traits<TYPE>::LOADS; i++) {
        const int64_t piece = block * float_traits<TYPE>::PIECES + i * 2;
        const uint4 v = ptx_load_stream(l->from + piece * KN_ROW_TILE * 16);
        l->word[i][0] = v.x;
        l->word[i][1] = v.y;
        l->word[i][2] = v.z;
        l->word[i][3] = v.w;
    }
}

template <int TYPE>
static __device__ __forceinline__ void store_rows(const row_loader<TYPE> &l, float_stage *to)
{
    constexpr int ELEMS = float_traits<TYPE>::ELEMS;
    /* Of eight elements, the second half of the lanes stores the last four first: other banks. */
    const int turn = ELEMS == 8 && threadIdx.x % 32 >= KN_ROW_TILE ? 4 : 0;

    for (int i = 0; i < float_traits<TYPE>::LOADS; i++) {
        const unsigned *w = l.word[i];
        const unsigned word[4] = {turn != 0 ? w[2] : w[0], turn != 0 ? w[3] : w[1],
                                  turn != 0 ? w[0] : w[2], turn != 0 ? w[1] : w[3]};
        for (int e = 0; e < ELEMS; e++) {
            to->w[(l.piece + i * 2) * ELEMS + (e ^ turn)][l.row] = element<TYPE>(word, e);
        }
    }
}

/* A thread's part of X: 4 columns of two tokens a block, so that a warp reads sectors and writes
 * different banks. Tokens beyond the tile's are zeros, columns beyond K nothing. */
struct act_loader {
    const float *from[2];
    bool there[2];
    int token, column; /* the first */
};

static __device__ __forceinline__ act_loader act_loader_make(const gemm_task &k, const gemm_tile &t)
{
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    act_loader l;

    l.token = warp * 8 + lane / 8;
    l.column = lane % 8;
    for (int i = 0; i < 2; i++) {
        l.there[i] = l.token + i * 4 < t.tokens;
        l.from[i] = k.x.f + l.column;
        if (l.there[i]) {
            l.from[i] += act_row(k, t.token + l.token + i * 4) * k.cols;
        }
    }
    return l;
}

static __device__ __forceinline__ void load_acts(const act_loader &l, int64_t block, int64_t cols,
                                                 float_stage *to)
{
    for (int i = 0; i < 8; i++) {
        const int column = i % 4 * 8, token = i / 4;
        float *at = &to->x[l.column + column][l.token + token * 4];
        if (block * KN_BLOCK + l.column + column >= cols) {
            continue;
        }
        if (l.there[token]) {
            ptx_cp_async4(at, l.from[token] + block * KN_BLOCK + column);
        } else {
            *at = 0.0f;
        }
    }
    ptx_cp_async_commit();
}

/* `columns` of the block. */
static __device__ __forceinline__ void add_columns(const float_stage *s, int columns,
                                                   sums<4, 4> *acc)
{
    const int row = static_cast<int>(threadIdx.x % 16) * 4;
    const int token = static_cast<int>(threadIdx.x / 16) * 4;

    for (int c = 0; c < columns; c++) {
        float w[4], x[4];
        load4(&s->w[c][row], w);
        load4(&s->x[c][token], x);
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 4; j++) {
                acc->v[i][j] = fmaf(w[i], x[j], acc->v[i][j]);
            }
        }
    }
}

static __device__ __forceinline__ void store_tile(const gemm_task &k, const gemm_tile &t,
                                                  const sums<4, 4> &v)
{
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            const int64_t row = t.row + threadIdx.x % 16 * 4 + i;
            const int token = static_cast<int>(threadIdx.x / 16) * 4 + j;
            if (row < k.row_end && token < t.tokens) {
                float *out = k.y + (t.token + token) * k.ldy + row;
                *out = k.accumulate ? *out + v.v[i][j] : v.v[i][j];
            }
        }
    }
}

template <int TYPE> __global__ void __launch_bounds__(THREADS) gemm_float(const gemm_task k)
{
    DYNAMIC_SHARED(dynamic);
    float_stage *shared = reinterpret_cast<float_stage *>(dynamic);
    const int n_blocks = static_cast<int>((k.cols + KN_BLOCK - 1) / KN_BLOCK);
    const gemm_tile tile = find_tile(k, TILE_ROWS);

    if (tile.w == nullptr) {
        return;
    }
    const act_loader acts = act_loader_make(k, tile);
    row_loader<TYPE> rows;
    sums<4, 4> acc = {};
    tree<4, 4> tree;
    int segment = 0, segment_end = segment_border(n_blocks, 1);

    row_loader_init<TYPE>(k, tile, &rows);
    load_acts(acts, 0, k.cols, &shared[0]);
    load_rows<TYPE>(&rows, 0);
    store_rows<TYPE>(rows, &shared[0]);
    for (int block = 0; block < n_blocks; block++) {
        const int64_t left = k.cols - static_cast<int64_t>(block) * KN_BLOCK;
        const bool more = block + 1 < n_blocks;
        ptx_cp_async_wait<0>();
        __syncthreads();
        if (more) {
            load_acts(acts, block + 1, k.cols, &shared[(block + 1) % 2]);
            load_rows<TYPE>(&rows, block + 1);
        }
        while (block == segment_end) {
            end_segment(segment++, &acc, &tree);
            segment_end = segment_border(n_blocks, segment + 1);
        }
        if (left >= KN_BLOCK) {
            add_columns(&shared[block % 2], KN_BLOCK, &acc);
        } else {
            add_columns(&shared[block % 2], static_cast<int>(left), &acc);
        }
        if (more) {
            store_rows<TYPE>(rows, &shared[(block + 1) % 2]);
        }
    }
    while (segment < KN_SEGMENTS) {
        end_segment(segment++, &acc, &tree);
    }
    store_tile(k, tile, tree.level[2]);
}

int gemm_floats(int type, const gemm_task &k, cudaStream_t stream)
{
    const unsigned grid = gemm_grid(k, TILE_ROWS);
    const size_t shared = 2 * sizeof(float_stage);

    switch (type) {
    case KN_F32:
        return launch("matmul", gemm_float<KN_F32>, grid, THREADS, shared, stream, k);
    case KN_F16:
        return launch("matmul", gemm_float<KN_F16>, grid, THREADS, shared, stream, k);
    case KN_BF16:
        return launch("matmul", gemm_float<KN_BF16>, grid, THREADS, shared, stream, k);
    default:
        return -1;
    }
}
