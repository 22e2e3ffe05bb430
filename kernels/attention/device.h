/* device.h: attention of a few queries over splits of the context, by one thread block. Included by
 * cuda.cu (one row, one split: decoding) and prefill.cu (a tile of rows, all splits).
 *
 * Queries are the pairs of a row and a query head that read one KV head: query i is row i / heads,
 * head i % heads of the block's. There are Q of them; those past the last repeat it, and leave
 * nothing. K and V come by cp.async in chunks of PAGES pages, two buffers: the chunks of a split's
 * K, then those of its V, then the next split's, one chunk ahead of what is worked on.
 *
 * q·k: a warp has a page and QW queries; lane l has positions 2 (l % 8) and the next, and segment
 * l / 8 of the head, d ascending. Two exchanges are the tree (s0 + s1) + (s2 + s3), after which
 * each lane has a quarter of the scores. Rows of K are `hd + 4` a page, so that segments lie in
 * different banks. Softmax: 16 threads a query are the 16 lanes of NUMERICS.md. p·v: a thread has
 * two elements of the head and QG queries, positions ascending. */
#ifndef ARGOSY_KERNELS_ATTENTION_DEVICE_H
#define ARGOSY_KERNELS_ATTENTION_DEVICE_H

#include "kernels/simt/ptx.h"

#include "kernels/attention/attention.h"
#include "kernels/cuda_kernels.h"
#include "kernels/numerics.h"

#define ATTEND_WARP 0xffffffffu
#define ATTEND_SPLIT_PAGES (KN_ATTN_SPLIT / KN_PAGE_TOKENS)
#define ATTEND_NO_PAGE UINT32_MAX

struct attend_task {
    struct kn_cuda_attn a;
    int64_t head_elems; /* of a page, in uint16 */
    int group;          /* query heads of a KV head */
    int q_tiles;        /* blocks that these take */
    const struct kn_cuda_tile *tiles;
    float *part;
    uint32_t splits_max;
};

template <int TYPE, int HD, int Q> struct attend_shape {
    static constexpr int ELEM = TYPE == KN_KV_INT8 ? 1 : 2; /* bytes */
    static constexpr int ROW = KN_PAGE_TOKENS * ELEM;       /* of K */
    static constexpr int THREADS = HD * Q > 128 * 32 ? 256 : 128;
    static constexpr int PAGES = Q < 32 ? (HD > 128 ? 2 : 4) : (HD > 128 ? 1 : 2);
    static constexpr int CHUNKS = ATTEND_SPLIT_PAGES / PAGES; /* of a split's K or V */
    static constexpr int PARTS = THREADS / 32 / PAGES;        /* warps that share a page */
    static constexpr int QW = Q / PARTS;
    static constexpr int QG = Q / (THREADS / (HD / 2));
};

template <int TYPE, int HD, int Q> struct attend_shared {
    using shape = attend_shape<TYPE, HD, Q>;
    alignas(16) uint8_t chunk[2][shape::PAGES * (HD + ATTN_SEGMENTS) * shape::ROW];
    alignas(16) float q[HD * Q + ATTN_SEGMENTS * 8];      /* (hd, Q), 8 floats more a segment */
    alignas(16) float p[KN_ATTN_SPLIT][Q + 4];            /* scores, then weights, of a split */
    alignas(16) float scales[ATTEND_SPLIT_PAGES][2 * 16]; /* of K and V, where int8 */
    uint32_t lo[Q], hi[Q];                                /* positions that a query sees */
    float M[Q], L[Q], keep[Q], add[Q];
    int how[Q]; /* what the fold does with a split */
};

enum attend_how {
    ATTEND_UNSEEN,
    ATTEND_FIRST,
    ATTEND_FOLD,
};

/* What a thread block works on. */
struct attend_block {
    const uint8_t *pages;  /* the KV head in page 0 */
    const uint32_t *table; /* of the sequence */
    uint32_t row, rows;
    int head, heads;
    uint32_t low, end; /* positions that some row sees */
    uint32_t split, splits;
};

/* First position that the row at `pos` sees. */
static __device__ __forceinline__ uint32_t attend_first(const struct kn_cuda_attn &a, uint32_t pos)
{
    return a.window != 0 && pos + 1 > a.window ? pos + 1 - a.window : 0;
}

static __device__ __forceinline__ attend_block attend_block_of(const attend_task &task, int kv_head,
                                                               int q_tile, int q_max, uint32_t row,
                                                               uint32_t rows)
{
    const int left = task.group - q_tile * q_max;
    const uint32_t pos = task.a.rows.pos[row];
    attend_block b;

    b.pages = reinterpret_cast<const uint8_t *>(task.a.kv.pages + kv_head * task.head_elems);
    b.table = task.a.rows.table + task.a.rows.table_at[row];
    b.row = row;
    b.rows = rows;
    b.head = kv_head * task.group + q_tile * q_max;
    b.heads = left < q_max ? left : q_max;
    b.low = attend_first(task.a, pos);
    b.end = pos + rows;
    b.split = b.low / KN_ATTN_SPLIT;
    b.splits = (b.end - 1) / KN_ATTN_SPLIT + 1 - b.split;
    return b;
}

/* ---- elements -------------------------------------------------------------------------------- */

/* Two elements that lie side by side. int8 to fp32 by way of 2^23 + 128 + v, exactly. */
template <int TYPE>
static __device__ __forceinline__ void attend_pair(const uint8_t *p, float *a, float *b)
{
    if (TYPE == KN_KV_INT8) {
        const unsigned v = *reinterpret_cast<const uint16_t *>(p) ^ 0x8080u;
        *a = __uint_as_float(__byte_perm(v, 0x4b000000u, 0x7440)) - 8388736.0f;
        *b = __uint_as_float(__byte_perm(v, 0x4b000000u, 0x7441)) - 8388736.0f;
    } else {
        const unsigned v = *reinterpret_cast<const unsigned *>(p);
        *a = __half2float(__ushort_as_half(static_cast<uint16_t>(v)));
        *b = __half2float(__ushort_as_half(static_cast<uint16_t>(v >> 16)));
    }
}

/* N floats of shared memory, a power of two, N * 4 bytes aligned as far as 16. */
template <int N> static __device__ __forceinline__ void attend_load(const float *p, float v[N])
{
    if (N == 1) {
        v[0] = p[0];
    } else if (N == 2) {
        const float2 x = *reinterpret_cast<const float2 *>(p);
        v[0] = x.x;
        v[N - 1] = x.y;
    } else {
        for (int i = 0; i + 3 < N; i += 4) {
            const float4 x = *reinterpret_cast<const float4 *>(p + i);
            v[i] = x.x;
            v[i + 1] = x.y;
            v[i + 2] = x.z;
            v[i + 3] = x.w;
        }
    }
}

/* ---- stages: chunks of K and of V -------------------------------------------------------------
 */

template <typename S> static __device__ __forceinline__ bool attend_is_v(uint32_t stage)
{
    return stage / S::CHUNKS % 2 != 0;
}

/* First page of a stage's chunk, counted from position 0. */
template <typename S>
static __device__ __forceinline__ uint32_t attend_page(const attend_block &b, uint32_t stage)
{
    return (b.split + stage / (2 * S::CHUNKS)) * ATTEND_SPLIT_PAGES + stage % S::CHUNKS * S::PAGES;
}

static __device__ __forceinline__ bool attend_sees(const attend_block &b, uint32_t page)
{
    return page * KN_PAGE_TOKENS < b.end && (page + 1) * KN_PAGE_TOKENS > b.low;
}

/* The number of this warp's page of a stage; pages that no row sees may not be in the table. */
template <typename S>
static __device__ __forceinline__ uint32_t attend_number(const attend_block &b, uint32_t stage)
{
    const uint32_t page = attend_page<S>(b, stage) + threadIdx.x / 32 % S::PAGES;

    return stage < b.splits * 2 * S::CHUNKS && attend_sees(b, page) ? __ldg(b.table + page)
                                                                    : ATTEND_NO_PAGE;
}

/* This warp's share of a stage: of page `number`. */
template <typename S, typename Shared>
static __device__ __forceinline__ void attend_copy(const attend_task &task, const attend_block &b,
                                                   uint32_t stage, uint32_t number, Shared *sh)
{
    const int hd = task.a.kv.head_dim, len = hd / ATTN_SEGMENTS;
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const int page = warp % S::PAGES, part = warp / S::PAGES;
    const uint8_t *from = b.pages + number * task.a.kv.page_stride * 2;
    uint8_t *to = sh->chunk[stage % 2];

    if (number == ATTEND_NO_PAGE) {
        return;
    }
    if (attend_is_v<S>(stage)) {
        from += hd * S::ROW;
        to += page * hd * S::ROW;
        for (int i = part * 32 + lane; i < hd * S::ELEM; i += S::PARTS * 32) {
            ptx_cp_async16(to + i * 16, from + i * 16);
        }
        return;
    }
    to += page * (hd + ATTN_SEGMENTS) * S::ROW;
    for (int i = part * 32 + lane; i < hd * S::ELEM; i += S::PARTS * 32) {
        const int d = i / S::ELEM;
        const int segment = (d >= len) + (d >= 2 * len) + (d >= 3 * len);
        ptx_cp_async16(to + i * 16 + segment * S::ROW, from + i * 16);
    }
    if (S::ELEM == 1 && part == 0 && lane < 8) {
        float *scales = sh->scales[stage % S::CHUNKS * S::PAGES + static_cast<unsigned>(page)];
        ptx_cp_async16(scales + lane * 4, from + 2 * hd * S::ROW + lane * 16);
    }
}

/* q to shared memory, and what each query sees. */
template <int Q, typename S, typename Shared>
static __device__ __forceinline__ void attend_queries(const attend_task &task,
                                                      const attend_block &b, Shared *sh)
{
    const int hd = task.a.kv.head_dim, len = hd / ATTN_SEGMENTS;
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const int last = static_cast<int>(b.rows) * b.heads - 1;

    for (int i = warp; i < Q; i += S::THREADS / 32) {
        const int query = i < last ? i : last;
        const uint32_t row = b.row + static_cast<uint32_t>(query / b.heads);
        const float *q =
            task.a.q + row * task.a.ldq + static_cast<int64_t>(b.head + query % b.heads) * hd;
        for (int d = lane; d < hd; d += 32) {
            const int segment = (d >= len) + (d >= 2 * len) + (d >= 3 * len);
            sh->q[d * Q + segment * 8 + i] = __ldg(q + d);
        }
        if (lane == 0) {
            const uint32_t pos = b.end - b.rows + static_cast<uint32_t>(query / b.heads);
            sh->lo[i] = attend_first(task.a, pos);
            sh->hi[i] = pos + 1;
        }
    }
}

/* ---- q·k --------------------------------------------------------------------------------------
 */

/* Half of n sums stay here, the other half goes to lane ^ by, and comes from there. */
template <int N>
static __device__ __forceinline__ void attend_exchange(const float *sum, int by, float *half)
{
    const bool high = (static_cast<int>(threadIdx.x) & by) != 0;

    for (int i = 0; i < N / 2; i++) {
        const float own = high ? sum[i + N / 2] : sum[i], other = high ? sum[i] : sum[i + N / 2];
        half[i] = own + __shfl_xor_sync(ATTEND_WARP, other, by);
    }
}

/* Scores of a chunk of K to sh->p. */
template <int TYPE, int Q, typename S, typename Shared>
static __device__ __forceinline__ void attend_scores(const attend_task &task, const attend_block &b,
                                                     uint32_t stage, Shared *sh)
{
    const int hd = task.a.kv.head_dim, len = hd / ATTN_SEGMENTS;
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    const int page = warp % S::PAGES, part = warp / S::PAGES, pair = lane % 8, segment = lane / 8;
    const int of_split = static_cast<int>(stage % S::CHUNKS) * S::PAGES + page;
    const uint8_t *k = sh->chunk[stage % 2] + page * (hd + ATTN_SEGMENTS) * S::ROW +
                       segment * (len + 1) * S::ROW + pair * 2 * S::ELEM;
    const float *q = sh->q + segment * (len * Q + 8) + part * S::QW;
    float sum[2 * S::QW], half[S::QW], quarter[S::QW / 2];

    if (!attend_sees(b, attend_page<S>(b, stage) + static_cast<unsigned>(page))) { /* the warp */
        return;
    }
    for (int i = 0; i < 2 * S::QW; i++) {
        sum[i] = 0.0f;
    }
    for (int d = 0; d < len; d++) {
        float k0, k1, x[S::QW];
        attend_pair<TYPE>(k + d * S::ROW, &k0, &k1);
        attend_load<S::QW>(q + d * Q, x);
        for (int i = 0; i < S::QW; i++) {
            sum[2 * i] = fmaf(x[i], k0, sum[2 * i]);
            sum[2 * i + 1] = fmaf(x[i], k1, sum[2 * i + 1]);
        }
    }
    attend_exchange<2 * S::QW>(sum, 8, half);
    attend_exchange<S::QW>(half, 16, quarter);
    const int begin = ((segment & 1) * 2 + (segment >> 1)) * (S::QW / 2);
    for (int i = 0; i < S::QW / 2; i++) {
        const int slot = 2 * pair + (begin + i) % 2, query = part * S::QW + (begin + i) / 2;
        const float dot = TYPE == KN_KV_INT8 ? quarter[i] * sh->scales[of_split][slot] : quarter[i];
        const float x = task.a.scale * dot;
        sh->p[of_split * KN_PAGE_TOKENS + slot][query] =
            task.a.softcap > 0.0f ? task.a.softcap * kn_tanh(x / task.a.softcap) : x;
    }
}

/* ---- softmax ----------------------------------------------------------------------------------
 */

/* Of the split from position `start`: sh->p becomes the weights of V; m and l of query q are handed
 * to `put` by one thread. */
template <int TYPE, int Q, typename S, typename Shared, typename Put>
static __device__ __forceinline__ void attend_softmax(uint32_t start, Shared *sh, Put put)
{
    const uint32_t slot = threadIdx.x % 16;

    for (int q = static_cast<int>(threadIdx.x / 16); q < Q; q += S::THREADS / 16) { /* by warps */
        const uint32_t lo = sh->lo[q], hi = sh->hi[q];
        float s[ATTEND_SPLIT_PAGES], m = -INFINITY, l = 0.0f;
        for (uint32_t i = 0; i < ATTEND_SPLIT_PAGES; i++) {
            const uint32_t j = start + i * KN_PAGE_TOKENS + slot;
            if (j >= lo && j < hi) {
                s[i] = sh->p[i * KN_PAGE_TOKENS + slot][q];
                m = s[i] > m ? s[i] : m;
            }
        }
        for (int w = 8; w > 0; w /= 2) {
            const float other = __shfl_xor_sync(ATTEND_WARP, m, w);
            m = other > m ? other : m;
        }
        m = m + 0.0f; /* -0 becomes +0 */
        for (uint32_t i = 0; i < ATTEND_SPLIT_PAGES; i++) {
            const uint32_t j = start + i * KN_PAGE_TOKENS + slot;
            if (j >= lo && j < hi) {
                const float e = kn_exp(s[i] - m);
                l = l + e;
                sh->p[i * KN_PAGE_TOKENS + slot][q] =
                    TYPE == KN_KV_INT8 ? e * sh->scales[i][KN_PAGE_TOKENS + slot] : e;
            }
        }
        for (int w = 8; w > 0; w /= 2) {
            l = l + __shfl_xor_sync(ATTEND_WARP, l, w);
        }
        if (slot == 0) {
            put(q, m, l, lo < start + KN_ATTN_SPLIT && hi > start);
        }
    }
}

/* ---- p·v --------------------------------------------------------------------------------------
 */

/* Positions [from, to) of a chunk of V to o; some queries may not see all of them if EDGE. */
template <int TYPE, bool EDGE, typename S, typename Shared>
static __device__ __forceinline__ void attend_add(const Shared *sh, const uint8_t *v, int row_bytes,
                                                  uint32_t from, uint32_t to, int query,
                                                  float o[2 * S::QG])
{
    for (uint32_t j = from; j < to; j++, v += row_bytes) {
        float v0, v1, w[S::QG];
        attend_pair<TYPE>(v, &v0, &v1);
        attend_load<S::QG>(&sh->p[j % KN_ATTN_SPLIT][query], w);
        for (int i = 0; i < S::QG; i++) {
            if (!EDGE || (j >= sh->lo[query + i] && j < sh->hi[query + i])) {
                o[2 * i] = fmaf(w[i], v0, o[2 * i]);
                o[2 * i + 1] = fmaf(w[i], v1, o[2 * i + 1]);
            }
        }
    }
}

/* A chunk of V to o: elements d and d + 1 of queries [query, query + QG). */
template <int TYPE, int Q, bool TILE, typename S, typename Shared>
static __device__ __forceinline__ void attend_values(const attend_task &task, const attend_block &b,
                                                     uint32_t stage, const Shared *sh, int query,
                                                     int d, float o[2 * S::QG])
{
    const int row_bytes = task.a.kv.head_dim * S::ELEM;
    const uint32_t first = attend_page<S>(b, stage) * KN_PAGE_TOKENS;
    const uint8_t *v = sh->chunk[stage % 2] + d * S::ELEM;
    const uint32_t from = max(first, b.low), to = min(first + S::PAGES * KN_PAGE_TOKENS, b.end);

    if (from >= to) {
        return;
    }
    v += static_cast<int>(from - first) * row_bytes;
    if (!TILE) {
        attend_add<TYPE, false, S>(sh, v, row_bytes, from, to, query, o);
        return;
    }
    /* The last row's first position and the first row's last bound what all see. */
    const uint32_t all = min(max(sh->lo[Q - 1], from), to), end = max(min(sh->hi[0], to), all);
    attend_add<TYPE, true, S>(sh, v, row_bytes, from, all, query, o);
    v += static_cast<int>(all - from) * row_bytes;
    attend_add<TYPE, false, S>(sh, v, row_bytes, all, end, query, o);
    v += static_cast<int>(end - all) * row_bytes;
    attend_add<TYPE, true, S>(sh, v, row_bytes, end, to, query, o);
}

/* ---- the block's work -------------------------------------------------------------------------
 */

static __device__ __forceinline__ float *attend_part(const attend_task &task, const attend_block &b,
                                                     int query)
{
    const int64_t head = static_cast<int64_t>(b.row) * task.a.n_heads + b.head + query;

    return task.part + (head * task.splits_max + b.split) * (task.a.kv.head_dim + 2);
}

/* Folds m and l of a split into M and L of query q, and leaves what to do with o. */
template <typename Shared>
static __device__ __forceinline__ void attend_fold(Shared *sh, int q, float m, float l, bool seen,
                                                   bool first)
{
    sh->how[q] = !seen ? ATTEND_UNSEEN : first ? ATTEND_FIRST : ATTEND_FOLD;
    if (seen && first) {
        sh->M[q] = m;
        sh->L[q] = l;
    } else if (seen) {
        const float M = sh->M[q], most = m > M ? m : M;
        const float keep = kn_exp(M - most), add = kn_exp(m - most);
        sh->keep[q] = keep;
        sh->add[q] = add;
        sh->L[q] = fmaf(sh->L[q], keep, l * add);
        sh->M[q] = most;
    }
}

/* TILE: all splits, folded. Otherwise the one split of b: to part, or to out where it is `whole`,
 * the only one that the row sees. */
template <int TYPE, int HD, int Q, bool TILE, typename Shared>
static __device__ __forceinline__ void attend(const attend_task &task, const attend_block &b,
                                              bool whole, Shared *sh)
{
    using S = attend_shape<TYPE, HD, Q>;
    const int hd = task.a.kv.head_dim, thread = static_cast<int>(threadIdx.x);
    const int d = thread % (HD / 2) * 2, query = thread / (HD / 2) * S::QG;
    const int n = static_cast<int>(b.rows) * b.heads;
    float o[2 * S::QG] = {}, O[2 * S::QG] = {};

    attend_copy<S>(task, b, 0, attend_number<S>(b, 0), sh);
    ptx_cp_async_commit();
    uint32_t next = attend_number<S>(b, 1);
    attend_queries<Q, S>(task, b, sh);
    for (uint32_t stage = 0; stage < b.splits * 2 * S::CHUNKS; stage++) {
        const uint32_t split = b.split + stage / (2 * S::CHUNKS);
        const bool last = stage % S::CHUNKS == S::CHUNKS - 1;
        ptx_cp_async_wait<0>();
        __syncthreads(); /* the chunk is there, and the other buffer is free */
        attend_copy<S>(task, b, stage + 1, next, sh);
        ptx_cp_async_commit();
        next = attend_number<S>(b, stage + 2);
        if (!attend_is_v<S>(stage)) {
            attend_scores<TYPE, Q, S>(task, b, stage, sh);
            if (last) {
                __syncthreads();
                attend_softmax<TYPE, Q, S>(
                    split * KN_ATTN_SPLIT, sh, [&](int q, float m, float l, bool seen) {
                        if (TILE) {
                            attend_fold(sh, q, m, l, seen, sh->lo[q] / KN_ATTN_SPLIT == split);
                        } else if (whole) {
                            sh->L[q] = l;
                        } else if (q < n) {
                            float *to = attend_part(task, b, q);
                            to[0] = m;
                            to[1] = l;
                        }
                    });
            }
            continue;
        }
        if (stage % S::CHUNKS == 0) {
            for (int i = 0; i < 2 * S::QG; i++) {
                o[i] = 0.0f;
            }
        }
        if (d >= hd) {
            continue;
        }
        attend_values<TYPE, Q, TILE, S>(task, b, stage, sh, query, d, o);
        for (int i = 0; TILE && last && i < S::QG; i++) {
            const int how = sh->how[query + i];
            if (how == ATTEND_FIRST) {
                O[2 * i] = o[2 * i];
                O[2 * i + 1] = o[2 * i + 1];
            } else if (how == ATTEND_FOLD) {
                const float keep = sh->keep[query + i], add = sh->add[query + i];
                O[2 * i] = fmaf(O[2 * i], keep, o[2 * i] * add);
                O[2 * i + 1] = fmaf(O[2 * i + 1], keep, o[2 * i + 1] * add);
            }
        }
    }
    for (int i = 0; i < S::QG && d < hd; i++) {
        const int q = query + i;
        if (q < n && (TILE || whole)) {
            const uint32_t row = b.row + static_cast<uint32_t>(q / b.heads);
            float *out =
                task.a.out + row * task.a.ldo + static_cast<int64_t>(b.head + q % b.heads) * hd + d;
            out[0] = (TILE ? O[2 * i] : o[2 * i]) / sh->L[q];
            out[1] = (TILE ? O[2 * i + 1] : o[2 * i + 1]) / sh->L[q];
        } else if (q < n) {
            *reinterpret_cast<float2 *>(attend_part(task, b, q) + 2 + d) =
                make_float2(o[2 * i], o[2 * i + 1]);
        }
    }
}

/* ---- the host's side --------------------------------------------------------------------------
 */

static inline attend_task attend_task_of(const struct kn_cuda_attn *a, int q_max)
{
    attend_task task = {};

    task.a = *a;
    task.head_elems = kn_kv_page_elems(a->kv.type, 1, a->kv.head_dim);
    task.group = a->n_heads / a->kv.n_kv_heads;
    task.q_tiles = (task.group + q_max - 1) / q_max;
    return task;
}

static inline bool attend_serves(const struct kn_cuda_attn *a)
{
    return a->kv.head_dim > 0 && a->kv.head_dim % 8 == 0 && a->kv.head_dim <= ATTN_HEAD_DIM_MAX &&
           a->kv.page_stride % 8 == 0 && a->n_heads > 0 && a->n_heads % a->kv.n_kv_heads == 0;
}

#endif
