/* matmul/gemm.cu: y[t, r] = W[r] · x[t] for more tokens than decoding has, and for the experts of a
 * mixture: block types, on int8 tensor cores, with the bits of ref.c.
 *
 * W (rows, cols) as ../cuda_layout.h has it, x of struct kn_act, y stride ldy. A thread block has a
 * tile of 128 rows by 64 tokens: grid (tiles of rows x tiles of tokens), the tokens' first, so that
 * a tile of W comes from memory once and is in the L2 cache for the next. 256 threads are 4 x 2
 * warps of 32 rows by 32 tokens, a thread's part is 4 rows by 8 tokens. Groups of 16 tokens that
 * are not there cost nothing: an expert with few slots is bound by its weights, as in GEMV.
 *
 * What the order of NUMERICS.md, section 4, asks for: a block of 32 along K is one mma.m16n8k32 for
 * 16 x 8 products, exact; above it a product takes its t and acc = fma(d_x, t, acc) in fp32. Blocks
 * follow one another in a segment, segments in a thread, whose sums meet as in a binary counter, so
 * that three of the tree's eight are kept at most. The conversion to fp32 is free: the tensor core
 * starts from the bits of 1.5 * 2^23, so that its sum is a float, from which a subtraction takes that
 * off exactly; without a minimum not even that, since d * 1.5 * 2^23 is exact and fma(d, sum, -it)
 * rounds once, as d * dot does. (Not where d is infinite, NaN or above 2^100: such stages, of no
 * sane file, go the long way.) Sub-scales of 16 elements are multiplied into the bytes where they
 * fit, exactly (Q2_K, Q3_K; Q2_K's minima by a second mma); Q6_K takes two mma.m16n8k16.
 *
 * A stage is two blocks along K. Activations and weights come by cp.async, four stages ahead; a thread
 * unpacks the block that it copied to bytes, once for 64 tokens, while the stage before is used:
 * one barrier a stage. With Q4_1 15 to 20 KB of weights are on their way to an SM: at the 13 bytes
 * a cycle of A100's memory, enough for 1,100 cycles. Shared memory: 2 stages of bytes, 5 of
 * activations, 4 as the planes have them, 68,608 (Q4_0) to 93,184 bytes (Q6_K); 239 to 244
 * registers, so one thread block an SM: 8 warps, each with 8 mma and 32 chains of fmaf in flight.
 *
 * Bound by, a warp and block of 32 (32 x 32 products, 8 mma), in machine instructions of sm_90a:
 *   no minimum   64 fp32 of about 105 in all;   with one   128 of 165;   Q6_K   160 of 230
 *   shared memory: 29 to 33 turns of 128 bytes, of which ldmatrix 16
 * and multiply-adds a cycle and SM of them, beside those of the tensor cores (2,048 A100, 4,096 H100):
 *   A100 (16 fp32 lanes a scheduler)   1,024 (50%), 512 (25%), 410 (20%): fp32 bound
 *   H100 (32 lanes: issue bound)       1,210 (30%), 790 (19%), 570 (14%)
 * which is 312, 156, 125 and 585, 380, 275 int8 TOPS: counted, not measured. More than half of the
 * tensor cores' rate is out of reach of any kernel with a scale for each block of 32. With Q4_1's
 * 20 bytes a block, memory bounds up to about 24 (A100) and 35 (H100) tokens.
 *
 * So wgmma does not pay: it would save 16 turns and 12 of these instructions (ldmatrix, mma), but its
 * accumulator is its input: 32 moves or conversions a warp and block, where mma.sync reads the bits
 * of 1.5 * 2^23 from the same four registers each time. TMA would save some 20 instructions a thread and
 * stage. sm_80 and sm_90a have the same kernel.
 *
 * Measured on an H200, 14336 x 4096, 2,048 tokens: 54, 53, 50, 72 int8 TMAC/s for Q4_1, Q4_K, Q6_K,
 * Q8_0, a quarter of that count. Its profiler, at 64 tokens: the schedulers, which have two warps
 * each, issue in 51% of the cycles, and twice the instructions counted above. So what it wants is a
 * second thread block an SM (120 registers, less shared memory), then fewer instructions a stage.
 *
 * Moves W once for each 64 tokens, x once for each 128 rows, y once (twice with accumulate).
 *
 * gate: gemm threads=256 blocks=1 shared=93184 loop=IMMA,LDSM,LDGSTS,LDS.128,STS.128,FFMA */
#include "kernels/simt/cuda.h"
#include "kernels/simt/ptx.h"

#include "kernels/matmul/gemm.h"
#include "kernels/matmul/gemm_stage.h"

/* ---- a block of K ---------------------------------------------------------------------------- */

/* The thread's 4 rows by 8 tokens. */
using thread_sums = sums<4, 8>;

/* Where the thread works, and the offsets of what it reads of block 0 of a stage. */
struct place {
    int row;   /* the first of its warp's 32, of the tile */
    int warp;  /* of tokens: 0 or 1 */
    int pairs; /* of groups of eight tokens, that have tokens */
    int a, b;  /* of ldmatrix, in bytes */
    int scale, token;
};

static __device__ __forceinline__ place find_place(int tokens)
{
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    place p;

    p.row = warp / 2 * 32;
    p.warp = warp % 2;
    p.pairs = (tokens - p.warp * 8 + 31) / 32;
    p.a = chunk_at(p.row + lane % 16, lane / 16);
    p.b = chunk_at(group_token(p.warp, 0, lane / 16) + lane % 8, lane / 8 % 2);
    p.scale = scale_at(0, p.row + lane / 4);
    p.token = p.warp * 32 + lane % 4 * 4;
    ptx_keep(p.pairs);
    ptx_keep(p.a);
    ptx_keep(p.b);
    ptx_keep(p.scale);
    ptx_keep(p.token);
    return p;
}

/* A warp's 32 rows of a block. */
struct row_block {
    uint32_t a[2][4]; /* of 16 rows each */
    uint32_t min[2][4];
    float scale[3][4];
};

template <block_kind KIND>
static __device__ __forceinline__ void load_rows(const weight_stage *w, int block, const place &p,
                                                 row_block *r)
{
    const int at = p.scale + block * TILE_ROWS;

    for (int i = 0; i < 2; i++) {
        ptx_ldmatrix_x4(r->a[i], &w->q[(p.a ^ block * KN_BLOCK) + i * 16 * ROW_BYTES]);
    }
    load4(&w->scale[0][at], r->scale[0]);
    load4(&w->scale[1][at], r->scale[1]);
    if (KIND == HALVES || KIND == HALVES_MIN) {
        load4(&w->scale[2][at], r->scale[2]);
    }
    if (KIND == HALVES_MIN) { /* a row of minima, each 16 times */
        for (int i = 0; i < 4; i++) {
            const unsigned min = __float_as_uint(r->scale[2][i]);
            r->min[i / 2][i % 2] = __byte_perm(min, 0, 0x0000);
            r->min[i / 2][i % 2 + 2] = __byte_perm(min, 0, 0x1111);
        }
    }
}

/* The integers of 16 rows by 8 tokens, plus MAGIC_BITS: dot product, and of the second half or of
 * the minima. */
template <block_kind KIND>
static __device__ __forceinline__ void multiply(const row_block &r, int rows, const uint32_t b[2],
                                                int c[4], int other[4])
{
    for (int i = 0; i < 4; i++) {
        c[i] = other[i] = MAGIC_BITS;
    }
    if (KIND == HALVES) {
        ptx_mma_s8_k16(c, r.a[rows], b[0]);
        ptx_mma_s8_k16(other, r.a[rows] + 2, b[1]);
        return;
    }
    ptx_mma_s8(c, r.a[rows], b);
    if (KIND == HALVES_MIN) {
        ptx_mma_s8(other, r.min[rows], b);
    }
}

static __device__ __forceinline__ float less_magic(int i)
{
    return __int_as_float(i) - KN_ROUND_MAGIC;
}

/* t of NUMERICS.md, section 4, of row i of the thread; s: sum of the activations. */
template <block_kind KIND, bool ODD>
static __device__ __forceinline__ float term(int c, int other, const row_block &r, int i, float s)
{
    const float d = r.scale[0][i], m = r.scale[1][i];

    switch (KIND) {
    case SCALED: /* d * KN_ROUND_MAGIC is exact, unless d is odd: so one rounding, of d * dot */
        return ODD ? d * less_magic(c) : fmaf(d, __int_as_float(c), m);
    case WITH_MIN:
        return fmaf(d, less_magic(c), m * s);
    case HALVES: { /* what is added up is integer and below 2^24 */
        const float first = fmaf(m, __int_as_float(c), -m * KN_ROUND_MAGIC);
        return d * fmaf(r.scale[2][i], less_magic(other), first);
    }
    default:
        return fmaf(d, less_magic(c), m * less_magic(other));
    }
}

/* A pair of groups of eight tokens. */
template <block_kind KIND, bool ODD>
static __device__ __forceinline__ void add_pair(const act_stage *x, int block, int pair,
                                                const place &p, const row_block &r,
                                                thread_sums *acc)
{
    const int token = p.token + block * TILE_TOKENS + (pair ^ block) * 16;
    uint32_t b[4];
    float dx[4], sx[4] = {};

    ptx_ldmatrix_x4(b, &x->q[(p.b ^ block * KN_BLOCK) + pair * 32 * ROW_BYTES]);
    load4(&x->d[token], dx);
    if (KIND == WITH_MIN) {
        load4(&x->s[token], sx);
    }
    for (int i = 0; i < 4; i++) {
        int c[4], other[4];
        multiply<KIND>(r, i % 2, b + i / 2 * 2, c, other);
        for (int j = 0; j < 4; j++) {
            const int row = i % 2 * 2 + j / 2, t = i / 2 * 2 + j % 2;
            float *sum = &acc->v[row][pair * 4 + t];
            *sum = fmaf(dx[t], term<KIND, ODD>(c[j], other[j], r, row, sx[t]), *sum);
        }
    }
}

/* Adds block `block` of the stage to acc. */
template <block_kind KIND, bool ODD>
static __device__ __forceinline__ void add_block(const weight_stage *w, const act_stage *x,
                                                 int block, const place &p, thread_sums *acc)
{
    row_block r;

    if (p.pairs <= 0) {
        return;
    }
    load_rows<KIND>(w, block, p, &r);
    if (KIND == HALVES || KIND == HALVES_MIN || p.pairs == 1) {
        add_pair<KIND, ODD>(x, block, 0, p, r, acc);
        if (p.pairs > 1) {
            add_pair<KIND, ODD>(x, block, 1, p, r, acc);
        }
        return;
    }
    /* Both without a branch between: the second's mma start before the first's sums. */
    add_pair<KIND, ODD>(x, block, 0, p, r, acc);
    add_pair<KIND, ODD>(x, block, 1, p, r, acc);
}

/* ---- the kernel ------------------------------------------------------------------------------ */

static __device__ __forceinline__ void store_tile(const gemm_task &k, const gemm_tile &t,
                                                  const place &p, const thread_sums &v)
{
    const int lane = static_cast<int>(threadIdx.x % 32);

    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 8; j++) {
            const int64_t row = t.row + p.row + i * 8 + lane / 4;
            const int token = group_token(p.warp, j / 4, j / 2 % 2) + lane % 4 * 2 + j % 2;
            if (row < k.row_end && token < t.tokens) {
                float *out = k.y + (t.token + token) * k.ldy + row;
                *out = k.accumulate ? *out + v.v[i][j] : v.v[i][j];
            }
        }
    }
}

template <int TYPE> __global__ void __launch_bounds__(THREADS, 1) gemm(const gemm_task k)
{
    DYNAMIC_SHARED(dynamic);
    gemm_shared<TYPE> *shared = reinterpret_cast<gemm_shared<TYPE> *>(dynamic);
    constexpr block_kind KIND = block_traits<TYPE>::KIND;
    constexpr int unit = kn_plane_unit(TYPE);
    const int n_blocks = static_cast<int>(k.cols / KN_BLOCK), n_units = n_blocks / unit;
    const gemm_tile tile = find_tile(k, TILE_ROWS);

    if (tile.w == nullptr) {
        return;
    }
    const place p = find_place(tile.tokens);
    const act_loader acts = act_loader_make(k, tile);
    const weight_loader weights = weight_loader_make(k, tile);
    thread_sums acc = {};
    tree<4, 8> tree;
    int segment = 0, segment_end = segment_border(n_units, 1) * unit;
    int x_slot = 0, stage = 0;

    for (int i = 0; i < LEAD; i++) { /* a group each, which may be empty */
        load_acts<KIND>(acts, i * STAGE_BLOCKS, n_blocks, &shared->x[i]);
        load_weights<TYPE>(weights, i * STAGE_BLOCKS, shared->raw[i]);
        ptx_cp_async_commit();
    }
    ptx_cp_async_wait<LEAD - 1>();
    bool odd = store_weights<TYPE>(weights, 0, shared->raw[0], &shared->w[0]);
    for (int first = 0; first < n_blocks; first += STAGE_BLOCKS, stage++) {
        const weight_stage *w = &shared->w[stage % WEIGHT_STAGES];
        act_stage *x = &shared->x[x_slot];
        if (KIND == WITH_MIN) {
            convert_sums(acts, first, n_blocks, x);
        }
        const bool any_odd = __syncthreads_or(odd) != 0;
        load_acts<KIND>(acts, first + LEAD * STAGE_BLOCKS, n_blocks,
                        &shared->x[x_slot == 0 ? ACT_STAGES - 1 : x_slot - 1]);
        load_weights<TYPE>(weights, first + LEAD * STAGE_BLOCKS, shared->raw[stage % LEAD]);
        ptx_cp_async_commit();
        for (int i = 0; i < STAGE_BLOCKS && first + i < n_blocks; i++) {
            while (first + i == segment_end) {
                end_segment(segment++, &acc, &tree);
                segment_end = segment_border(n_units, segment + 1) * unit;
            }
            if (KIND == SCALED && any_odd) {
                add_block<KIND, true>(w, x, i, p, &acc);
            } else {
                add_block<KIND, false>(w, x, i, p, &acc);
            }
        }
        ptx_cp_async_wait<LEAD - 1>(); /* the next stage is there, as far as this thread copied it */
        odd = store_weights<TYPE>(weights, first + STAGE_BLOCKS, shared->raw[(stage + 1) % LEAD],
                                  &shared->w[(stage + 1) % WEIGHT_STAGES]);
        x_slot = x_slot == ACT_STAGES - 1 ? 0 : x_slot + 1;
    }
    ptx_cp_async_wait<0>();
    while (segment < KN_SEGMENTS) {
        end_segment(segment++, &acc, &tree);
    }
    store_tile(k, tile, p, tree.level[2]);
}

/* ---- host ------------------------------------------------------------------------------------ */

template <int TYPE> static int launch_gemm(const gemm_task &k, cudaStream_t stream)
{
    return launch("matmul", gemm<TYPE>, gemm_grid(k, TILE_ROWS), THREADS, sizeof(gemm_shared<TYPE>),
                  stream, k);
}

static int launch_type(int type, const gemm_task &k, cudaStream_t stream)
{
#define GEMM(type) \
    case type:     \
        return launch_gemm<type>(k, stream);
    switch (type) {
        KN_PLANE_BLOCK_TYPES(GEMM)
    default:
        return gemm_floats(type, k, stream);
    }
#undef GEMM
}

static gemm_task make_task(const struct kn_matrix *w, const struct kn_act *x, int64_t n, float *y,
                           int64_t ldy)
{
    gemm_task k = {};

    k.planes = kn_planes_of(w->type, w->rows, w->cols);
    k.rows = w->rows;
    k.cols = w->cols;
    k.row_end = w->rows;
    k.x = *x;
    k.n = n;
    k.y = y;
    k.ldy = ldy;
    return k;
}

int kn_cuda_gemm(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                 int64_t row_end, bool accumulate, float *y, int64_t ldy, void *stream)
{
    if (n <= 0 || row_end <= row_begin) {
        return 0;
    }
    gemm_task k = make_task(w, x, n, y, ldy);
    k.w = w->data;
    k.row_begin = row_begin;
    k.row_end = row_end;
    k.accumulate = accumulate;
    k.token_tiles = static_cast<unsigned>((n + TILE_TOKENS - 1) / TILE_TOKENS);
    return launch_type(w->type, k, static_cast<cudaStream_t>(stream));
}

int kn_cuda_matmul_experts(const struct kn_matrix *w, const void *const *experts, int n_experts,
                           const struct kn_act *x, const uint32_t *x_rows,
                           const uint32_t *slot_begin, int64_t n_slots, float *y, int64_t ldy,
                           void *stream)
{
    if (n_slots <= 0 || n_experts <= 0) {
        return 0;
    }
    gemm_task k = make_task(w, x, n_slots, y, ldy);
    k.experts = experts;
    k.n_experts = n_experts;
    k.x_rows = x_rows;
    k.slot_begin = slot_begin;
    /* Full tiles, and of each expert that has slots at most one that is not: more than there are,
     * as a rule, and those end at once. */
    k.token_tiles = static_cast<unsigned>(n_slots / TILE_TOKENS +
                                          (n_slots < n_experts ? n_slots : n_experts));
    return launch_type(w->type, k, static_cast<cudaStream_t>(stream));
}
