/* attention/flash.cu: softmax(q·k) v for prompts, on tensor cores: fast mode's, never exact mode's.
 *
 * FlashAttention-2 (T. Dao, arXiv:2307.08691) over pages: a thread block has a tile of rows, as
 * prefill.cu has, and up to Q of its (row, query head) pairs of one KV head, and goes through the
 * keys that they see, BN at a time: grid (n_tiles, n_kv_heads * ceil(group / Q)), four warps of
 * 16 M queries. S = Q K and O += P V are mma.m16n8k16 of fp16 with fp32 sums. The softmax is kept
 * to base 2 with a running maximum: what is there is multiplied by 2^(old - new) when it grows.
 * Keys come by cp.async while the block works on the last tile's weights, values while it works on
 * S.
 *
 * fp16, not bf16: K and V are fp16 in their pages and go to the tensor cores as they are; weights
 * are at most 1, and 11 bits of them are better than 8. q is multiplied by scale * log2(e), or with
 * a softcap by scale / softcap, before it becomes fp16: |q| times that must be below 65,520, or the
 * row is NaN. An infinite or NaN v at a position that a tile sees may spoil rows of it that do not
 * see the position.
 *
 * Error, with A the largest sum over d of |q k scale| that the row sees, or softcap if that is
 * more, and B the largest of |k| times softcap, or 1: scores are off by e <= A (2^-11 + head_dim
 * 2^-22) + B 2^-25 + 2^-20, the first and B's from q as fp16; weights by a factor of exp(e), and
 * 2^-11, and 2^-25 of the largest, from fp16; sums of n weights by n 2^-22. So |out - exact| <=
 * max|v| (2 (exp(e) - 1) + 2^-10 + n (2^-24 + 2^-22)). test_flash.c holds it to that, and the root
 * mean square to 2^-10 of the result's.
 *
 * Reads K and V of the visible pages once a tile: 4 bytes a position, element and KV head, for 4 Q
 * operations. With Q = 128 that is 128 a byte, and 32 for a byte of shared memory a warp reads:
 * bound by tensor cores, or by shared memory. Time not measured.
 *
 * K lies (head_dim, BN), V (BN, head_dim), as in the pages, in chunks of 16 bytes that are swizzled
 * so that the eight rows of an ldmatrix are in different banks. head_dim is filled up with zeros to
 * HD, and so are values that no row sees.
 *
 * gate: attention_flash[64,] threads=128 blocks=2 shared=32768 loop=LDGSTS,LDSM.16.MT88.4,HMMA
 * gate: attention_flash[96,] threads=128 blocks=2 shared=36864 loop=LDGSTS,LDSM.16.MT88.4,HMMA
 * gate: attention_flash[128,] threads=128 blocks=2 shared=49152 loop=LDGSTS,LDSM.16.MT88.4,HMMA
 * gate: attention_flash[256,] threads=128 blocks=2 shared=65536 loop=LDGSTS,LDSM.16.MT88.4,HMMA
 */
#include "kernels/attention/device.h"

#define FLASH_WARPS 4
#define FLASH_LOG2E 1.44269504f

template <int HD_, int M_, int BN_> struct flash_shape {
    static constexpr int HD = HD_, M = M_, BN = BN_;
    static constexpr int Q = FLASH_WARPS * 16 * M;
    static constexpr int PAGES = BN / KN_PAGE_TOKENS;
    static constexpr int PARTS = FLASH_WARPS / PAGES; /* warps that share a page's copy */
};

template <typename S> struct flash_shared {
    alignas(128) uint16_t q[S::Q * S::HD];  /* (Q, HD) */
    alignas(128) uint16_t k[S::HD * S::BN]; /* (HD, BN) */
    alignas(128) uint16_t v[S::BN * S::HD]; /* (BN, HD) */
};

/* Where chunk c of row r is, of a matrix whose rows are so many chunks of eight. */
template <int CHUNKS> static __device__ __forceinline__ int flash_at(int r, int c)
{
    return 8 * (r * CHUNKS + (CHUNKS % 8 == 0 ? c ^ (r & 7) : c ^ (r >> 1 & 3)));
}

/* Where chunk c + n of the row is whose chunk c, 0 or 1, is at `at`. n is even and constant. */
template <int CHUNKS> static __device__ __forceinline__ int flash_beside(int at, int n)
{
    const int turned = CHUNKS % 8 == 0 ? 7 : 3;

    return (at ^ (8 * (n & turned))) + 8 * (n & ~turned);
}

/* ---- to shared memory ------------------------------------------------------------------------ */

/* The number of this warp's page in the tile that starts at page `first`. */
template <typename S>
static __device__ __forceinline__ uint32_t flash_number(const attend_block &b, uint32_t first)
{
    const uint32_t page = first + threadIdx.x / 32 % S::PAGES;

    return attend_sees(b, page) ? __ldg(b.table + page) : ATTEND_NO_PAGE;
}

/* This warp's share of K of page `number`; zeros where there is none. */
template <typename S>
static __device__ __forceinline__ void flash_copy_k(const attend_task &task, const attend_block &b,
                                                    uint32_t number, flash_shared<S> *sh)
{
    const int hd = number == ATTEND_NO_PAGE ? 0 : task.a.kv.head_dim;
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const int page = warp % S::PAGES, part = warp / S::PAGES;
    const uint8_t *from = hd == 0 ? b.pages : b.pages + number * task.a.kv.page_stride * 2;

    for (int i = part * 32 + lane; i < 2 * S::HD; i += S::PARTS * 32) {
        const int d = i / 2;
        ptx_cp_async16_zfill(sh->k + flash_at<S::BN / 8>(d, 2 * page + i % 2),
                             from + (d < hd ? i * 16 : 0), d < hd ? 0 : 16);
    }
}

/* The same of V, of the tile that starts at page `first`; zeros for positions that no row sees. */
template <typename S>
static __device__ __forceinline__ void flash_copy_v(const attend_task &task, const attend_block &b,
                                                    uint32_t first, uint32_t number,
                                                    flash_shared<S> *sh)
{
    const int hd = task.a.kv.head_dim;
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const int page = warp % S::PAGES, part = warp / S::PAGES;
    const uint32_t start = (first + static_cast<uint32_t>(page)) * KN_PAGE_TOKENS;
    const uint8_t *from =
        number == ATTEND_NO_PAGE ? b.pages : b.pages + number * task.a.kv.page_stride * 2 + hd * 32;

    for (int i = part * 32 + lane; i < 16 * (S::HD / 8); i += S::PARTS * 32) {
        const int slot = i / (S::HD / 8), c = i % (S::HD / 8);
        const uint32_t j = start + static_cast<uint32_t>(slot);
        const bool there = number != ATTEND_NO_PAGE && c * 8 < hd && j >= b.low && j < b.end;
        ptx_cp_async16_zfill(sh->v + flash_at<S::HD / 8>(page * KN_PAGE_TOKENS + slot, c),
                             from + (there ? slot * hd * 2 + c * 16 : 0), there ? 0 : 16);
    }
}

/* q, scaled, as fp16; zeros behind the last query and behind head_dim. */
template <typename S>
static __device__ __forceinline__ void flash_queries(const attend_task &task, const attend_block &b,
                                                     flash_shared<S> *sh)
{
    const int hd = task.a.kv.head_dim, n = static_cast<int>(b.rows) * b.heads;
    const float scale =
        task.a.softcap > 0.0f ? task.a.scale / task.a.softcap : task.a.scale * FLASH_LOG2E;
    const int thread = static_cast<int>(threadIdx.x);

    for (int i = thread; i < S::Q * (S::HD / 2); i += FLASH_WARPS * 32) {
        const int query = i / (S::HD / 2), d = i % (S::HD / 2) * 2;
        float x0 = 0.0f, x1 = 0.0f;
        if (query < n && d < hd) {
            const uint32_t row = b.row + static_cast<uint32_t>(query / b.heads);
            const float *q = task.a.q + row * task.a.ldq +
                             static_cast<int64_t>(b.head + query % b.heads) * hd + d;
            x0 = __ldg(q) * scale;
            x1 = __ldg(q + 1) * scale;
        }
        uint16_t *to = sh->q + flash_at<S::HD / 8>(query, d / 8) + d % 8;
        *reinterpret_cast<uint32_t *>(to) = ptx_pack_f16(x0, x1);
    }
}

/* ---- a warp's 16 M queries -------------------------------------------------------------------
 * Lane l has of each 16 x 8 of S and O rows l / 4 and, half 1, l / 4 + 8, columns 2 (l % 4) and the
 * next: element 2 half + column of four. */

template <typename S> struct flash_state {
    uint32_t pos[S::M][2]; /* of the row */
    float m[S::M][2];      /* largest score yet, to base 2 */
    float l[S::M][2];      /* sum of this lane's weights */
    float o[S::M][S::HD / 8][4];
};

/* S = Q K of a tile. */
template <typename S>
static __device__ __forceinline__ void flash_scores(const flash_shared<S> *sh,
                                                    float s[S::M][S::BN / 8][4])
{
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const int r = lane % 16, c = lane / 16; /* of the matrices, what this lane names */
    const int q_at = flash_at<S::HD / 8>(r, c), k_at = flash_at<S::BN / 8>(r, c);
    const uint16_t *queries = sh->q + warp * S::M * 16 * S::HD;

    UNROLL
    for (int m = 0; m < S::M; m++) {
        UNROLL
        for (int n = 0; n < S::BN / 8; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                s[m][n][e] = 0.0f;
            }
        }
    }
    for (int k = 0; k < S::HD / 16; k++) {
        uint32_t q[S::M][4];
        UNROLL
        for (int m = 0; m < S::M; m++) {
            ptx_ldmatrix_x4(q[m], queries + m * 16 * S::HD + flash_beside<S::HD / 8>(q_at, 2 * k));
        }
        UNROLL
        for (int n = 0; n < S::BN / 8; n += 2) {
            uint32_t keys[4];
            ptx_ldmatrix_x4_trans(keys, sh->k + k * 16 * S::BN + flash_beside<S::BN / 8>(k_at, n));
            UNROLL
            for (int m = 0; m < S::M; m++) {
                ptx_mma_f16(s[m][n], q[m], keys);
                ptx_mma_f16(s[m][n + 1], q[m], keys + 2);
            }
        }
    }
}

/* S, which is q·k scale / softcap, becomes softcap tanh(S), to base 2: 1 - 2 / (1 + e^2x). */
template <typename S>
static __device__ __forceinline__ void flash_cap(float softcap, float s[S::M][S::BN / 8][4])
{
    UNROLL
    for (int m = 0; m < S::M; m++) {
        UNROLL
        for (int n = 0; n < S::BN / 8; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                const float power = ptx_exp2(2.0f * FLASH_LOG2E * s[m][n][e]);
                s[m][n][e] = softcap * FLASH_LOG2E * (1.0f - 2.0f * ptx_reciprocal(1.0f + power));
            }
        }
    }
}

/* -inf where a query does not see the position. `start` is the tile's first. */
template <typename S>
static __device__ __forceinline__ void flash_mask(const attend_task &task, uint32_t start,
                                                  const flash_state<S> &state,
                                                  float s[S::M][S::BN / 8][4])
{
    const uint32_t column = start + threadIdx.x % 4 * 2;

    UNROLL
    for (int m = 0; m < S::M; m++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            const uint32_t pos = state.pos[m][half], first = attend_first(task.a, pos);
            UNROLL
            for (int n = 0; n < S::BN / 8; n++) {
                UNROLL
                for (int e = 0; e < 2; e++) {
                    const uint32_t j = column + static_cast<uint32_t>(8 * n + e);
                    if (j > pos || j < first) {
                        s[m][n][2 * half + e] = -INFINITY;
                    }
                }
            }
        }
    }
}

/* S becomes the weights; what is in l and o is brought to the new maximum. */
template <typename S>
static __device__ __forceinline__ void flash_softmax(flash_state<S> *state,
                                                     float s[S::M][S::BN / 8][4])
{
    UNROLL
    for (int m = 0; m < S::M; m++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            float most = state->m[m][half], sum = 0.0f;
            UNROLL
            for (int n = 0; n < S::BN / 8; n++) {
                most = fmaxf(most, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
            }
            most = fmaxf(most, __shfl_xor_sync(ATTEND_WARP, most, 1));
            most = fmaxf(most, __shfl_xor_sync(ATTEND_WARP, most, 2));
            const float base = most == -INFINITY ? 0.0f : most; /* nothing seen yet */
            const float keep = ptx_exp2(state->m[m][half] - base);
            UNROLL
            for (int n = 0; n < S::BN / 8; n++) {
                UNROLL
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    s[m][n][e] = ptx_exp2(s[m][n][e] - base);
                    sum = sum + s[m][n][e];
                }
            }
            state->m[m][half] = most;
            state->l[m][half] = fmaf(state->l[m][half], keep, sum);
            UNROLL
            for (int n = 0; n < S::HD / 8; n++) {
                state->o[m][n][2 * half] *= keep;
                state->o[m][n][2 * half + 1] *= keep;
            }
        }
    }
}

/* O += P V: two 16 x 8 of P side by side are the 16 x 16 of an mma's A. */
template <typename S>
static __device__ __forceinline__ void
flash_values(const flash_shared<S> *sh, const float p[S::M][S::BN / 8][4], flash_state<S> *state)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
    const int v_at = flash_at<S::HD / 8>(lane % 16, lane / 16);

    UNROLL
    for (int k = 0; k < S::BN / 16; k++) {
        uint32_t a[S::M][4];
        UNROLL
        for (int m = 0; m < S::M; m++) {
            UNROLL
            for (int i = 0; i < 4; i++) {
                const float *two = &p[m][2 * k + i / 2][i % 2 * 2];
                a[m][i] = ptx_pack_f16(two[0], two[1]);
            }
        }
        UNROLL
        for (int n = 0; n < S::HD / 8; n += 2) {
            uint32_t values[4];
            ptx_ldmatrix_x4_trans(values,
                                  sh->v + k * 16 * S::HD + flash_beside<S::HD / 8>(v_at, n));
            UNROLL
            for (int m = 0; m < S::M; m++) {
                ptx_mma_f16(state->o[m][n], a[m], values);
                ptx_mma_f16(state->o[m][n + 1], a[m], values + 2);
            }
        }
    }
}

template <typename S>
static __device__ __forceinline__ void flash_start(const attend_block &b, flash_state<S> *state)
{
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const int last = static_cast<int>(b.rows) * b.heads - 1;

    UNROLL
    for (int m = 0; m < S::M; m++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int query = (warp * S::M + m) * 16 + 8 * half + lane / 4;
            state->pos[m][half] =
                b.end - b.rows + static_cast<uint32_t>(min(query, last) / b.heads);
            state->m[m][half] = -INFINITY;
            state->l[m][half] = 0.0f;
        }
        UNROLL
        for (int n = 0; n < S::HD / 8; n++) {
            UNROLL
            for (int e = 0; e < 4; e++) {
                state->o[m][n][e] = 0.0f;
            }
        }
    }
}

/* O / l, of the queries and elements that there are. */
template <typename S>
static __device__ __forceinline__ void flash_finish(const attend_task &task, const attend_block &b,
                                                    const flash_state<S> &state)
{
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const int hd = task.a.kv.head_dim, n_queries = static_cast<int>(b.rows) * b.heads;

    UNROLL
    for (int m = 0; m < S::M; m++) {
        UNROLL
        for (int half = 0; half < 2; half++) {
            const int query = (warp * S::M + m) * 16 + 8 * half + lane / 4;
            float l = state.l[m][half];
            l = l + __shfl_xor_sync(ATTEND_WARP, l, 1);
            l = l + __shfl_xor_sync(ATTEND_WARP, l, 2);
            const float share = ptx_reciprocal(l);
            if (query >= n_queries) {
                continue;
            }
            const uint32_t row = b.row + static_cast<uint32_t>(query / b.heads);
            float *out = task.a.out + row * task.a.ldo +
                         static_cast<int64_t>(b.head + query % b.heads) * hd + lane % 4 * 2;
            UNROLL
            for (int n = 0; n < S::HD / 8; n++) {
                if (8 * n < hd) {
                    out[8 * n] = state.o[m][n][2 * half] * share;
                    out[8 * n + 1] = state.o[m][n][2 * half + 1] * share;
                }
            }
        }
    }
}

template <int HD, int M, int BN>
__global__ void __launch_bounds__(FLASH_WARPS * 32, 2) attention_flash(const attend_task task)
{
    using S = flash_shape<HD, M, BN>;
    DYNAMIC_SHARED(memory);
    flash_shared<S> *sh = reinterpret_cast<flash_shared<S> *>(memory);
    const struct kn_cuda_tile tile = task.tiles[gridDim.x - 1 - blockIdx.x]; /* the longest first */
    const int kv_head = static_cast<int>(blockIdx.y) / task.q_tiles;
    const attend_block b = attend_block_of(
        task, kv_head, static_cast<int>(blockIdx.y) % task.q_tiles, S::Q, tile.row, tile.rows);
    uint32_t page = b.low / BN * S::PAGES, number = flash_number<S>(b, page);
    flash_state<S> state;

    flash_copy_k<S>(task, b, number, sh);
    ptx_cp_async_commit();
    flash_queries<S>(task, b, sh);
    flash_start<S>(b, &state);
    for (; page * KN_PAGE_TOKENS < b.end; page += S::PAGES) {
        float s[M][BN / 8][4];
        ptx_cp_async_wait<0>();
        __syncthreads(); /* K and Q are there, and nobody reads V */
        flash_copy_v<S>(task, b, page, number, sh);
        ptx_cp_async_commit();
        number = flash_number<S>(b, page + S::PAGES);
        flash_scores<S>(sh, s);
        ptx_cp_async_wait<0>();
        __syncthreads(); /* V is there, and nobody reads K */
        if ((page + S::PAGES) * KN_PAGE_TOKENS < b.end) {
            flash_copy_k<S>(task, b, number, sh);
            ptx_cp_async_commit();
        }
        if (task.a.softcap > 0.0f) {
            flash_cap<S>(task.a.softcap, s);
        }
        const uint32_t start = page * KN_PAGE_TOKENS;
        if (start + BN > b.end - b.rows + 1 || start < attend_first(task.a, b.end - 1)) {
            flash_mask<S>(task, start, state, s); /* some row does not see all of it */
        }
        flash_softmax<S>(&state, s);
        flash_values<S>(sh, s, &state);
    }
    flash_finish<S>(task, b, state);
}

/* ---- the host's side ------------------------------------------------------------------------- */

template <int HD, int M, int BN>
static int launch_flash(const struct kn_cuda_attn *a, const struct kn_cuda_tile *tiles,
                        int64_t n_tiles, cudaStream_t s)
{
    using S = flash_shape<HD, M, BN>;
    attend_task task = attend_task_of(a, S::Q);

    task.tiles = tiles;
    return launch("attention_flash", attention_flash<HD, M, BN>,
                  dim3(static_cast<unsigned>(n_tiles),
                       static_cast<unsigned>(a->kv.n_kv_heads * task.q_tiles)),
                  FLASH_WARPS * 32, sizeof(flash_shared<S>), s, task);
}

uint32_t kn_cuda_attention_flash_rows(int n_heads, int n_kv_heads, int head_dim)
{
    const int queries = FLASH_WARPS * 16 * (head_dim > 128 ? 1 : 2);
    const int rows = queries / (n_heads / n_kv_heads);

    return rows > 1 ? static_cast<uint32_t>(rows) : 1;
}

int kn_cuda_attention_flash(const struct kn_cuda_attn *a, const struct kn_cuda_tile *tiles,
                            int64_t n_tiles, void *stream)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);
    const int hd = a->kv.head_dim;

    if (n_tiles <= 0) {
        return 0;
    }
    if (!attend_serves(a) || a->kv.type != KN_KV_F16) {
        return -1;
    }
    return hd <= 64    ? launch_flash<64, 2, 64>(a, tiles, n_tiles, s)
           : hd <= 96  ? launch_flash<96, 2, 32>(a, tiles, n_tiles, s)
           : hd <= 128 ? launch_flash<128, 2, 32>(a, tiles, n_tiles, s)
                       : launch_flash<256, 1, 32>(a, tiles, n_tiles, s);
}
