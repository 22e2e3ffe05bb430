/* sample/cuda.cu: logits to tokens, for n picks of different parameters in one sequence of
 * launches; NUMERICS.md, 9.
 *
 * logits (rows, vocab), row stride ld; the picks and their lists as pack_sampling.c lays them out.
 * A pick is cut into chunks of whole quads, a thread block each: grid (chunks, n), as many chunks
 * as fill the device, at most 128. Blocks never wait for one another: what they find goes to the
 * scratch, and the next launch reads it. Everything that is added up is an integer, everything else
 * a maximum of integers that hold the order (order.h), so that no chunk, block or order shows.
 *
 *   scan      penalties, bias and mask; the highest logit with its lowest id (the greedy token, or
 *             the first allowed one); whether all logits are finite
 *   narrow    top_k, then top_p: at most five launches each, see below
 *   draw      min_p, Gumbel-max
 *   logprobs  the sum of masses of the raw logits, and each chunk's n_top highest
 *   finish    a thread block a pick
 *
 * The filters keep a prefix of the order (z descending, id ascending). As an integer, a token's
 * rank is the bits of -z (31), then its id (20): a prefix is rank <= cut. `narrow` finds the cut by
 * a radix search from above: digits of 11, 10, 10, 10 and 10 bits. A launch adds the weights (1
 * each, or masses) of the tokens under the prefix so far into a histogram of the next digit, in
 * shared and then in global memory; every block of the next launch chooses from it by itself, and
 * goes on. When the whole bucket is kept, as nearly always behind the third digit, the search is
 * done and the launches that are left return at once. There are three histograms in turn (read,
 * filled, cleared) and two states.
 *
 * A shared counter of 64 bits is two of 32: whoever sees the low one wrap adds one to the high one.
 *
 * Moves 4 bytes a token and launch (logits of 64 picks of 128k are 33 MB: they stay in L2), 4 more
 * in scan where a pick has penalties or bias, and 1/8 of a byte of mask. 8.5 KB of shared memory.
 * gate: scan threads=128 blocks=16 loop=LDG.E.128
 * gate: narrow threads=128 blocks=8 loop=LDG.E.128,ATOMS
 * gate: draw threads=128 blocks=8 loop=LDG.E.128
 * gate: logprobs threads=128 blocks=16 loop=LDG.E.128
 * gate: finish threads=128 blocks=16 */
#include <float.h>

#include "kernels/rows/device.h"
#include "kernels/sample/order.h"
#include "kernels/sample/steps.h"

#include "kernels/cuda_kernels.h"

#define WARPS 4
#define THREADS (WARPS * 32)
#define CHUNKS_MAX 128
#define BLOCKS_WANTED 1024 /* of a launch: eight an SM, about */
#define ID_BITS 20
#define DIGITS 5
#define DIGIT_BITS 10 /* but of the first */
#define BUCKETS 1056  /* the first digit of 28.0f is 1054 */
#define BUCKETS_EACH ((BUCKETS + THREADS - 1) / THREADS)
#define TOP KN_TOP_LOGPROBS_MAX

static_assert(CHUNKS_MAX <= THREADS, "a thread of `finish` has a chunk");

typedef unsigned long long counter; /* as atomicAdd takes it */

/* A filter's search for its cut. */
struct search {
    uint64_t cut;    /* the largest rank that is kept */
    uint64_t prefix; /* of the rank where the weights reach the target: the digits known so far */
    uint64_t before; /* weight of what comes before that prefix */
    uint64_t target;
    bool done;
};

/* What all launches are told. Arrays by pick; by_chunk is (n, CHUNKS_MAX). */
struct task {
    const float *logits;
    int64_t ld;
    uint32_t vocab, chunk, chunks;
    const uint32_t *packed;
    float *work; /* (n, work_ld): logits of picks that have penalties or bias, with them */
    int64_t work_ld;
    uint64_t *best;       /* by_chunk: of the adjusted logits; 0 where the mask allows nothing */
    uint64_t *drawn;      /* by_chunk: of the scores */
    uint64_t *total;      /* by_chunk: raw masses */
    uint64_t *top;        /* by_chunk, (TOP) each */
    uint32_t *raw;        /* by_chunk: order_bits of the highest raw logit */
    uint32_t *all_finite; /* by_chunk */
    counter *histogram;   /* (n, 3, BUCKETS) */
    struct search *state; /* (n, 2) */
    struct kn_sampled *out;
    uint32_t *finite;
};

/* A launch of `narrow`, or what follows the last one. */
struct step {
    int number;   /* DIGITS of top_k, DIGITS of top_p */
    bool first;   /* there was none before */
    bool filters; /* false: behind them */
};

/* A pick, and the tokens of this block. */
struct view {
    const struct kn_cuda_sampling *p;
    const float *raw;
    const float *logits; /* adjusted, but for mask and cleaning */
    const uint32_t *mask;
    float temperature;
    uint32_t begin, end;
};

static __device__ __forceinline__ view view_of(const task &k, uint32_t pick, uint32_t chunk)
{
    view v;

    v.p = reinterpret_cast<const struct kn_cuda_sampling *>(k.packed) + pick;
    v.raw = k.logits + v.p->row * k.ld;
    v.logits = v.p->n_context + v.p->n_seen + v.p->n_bias != 0 ? k.work + pick * k.work_ld : v.raw;
    v.mask = v.p->mask_at != 0 ? k.packed + v.p->mask_at : nullptr;
    v.temperature = v.p->temperature;
    v.begin = chunk * k.chunk;
    v.end = v.begin + k.chunk < k.vocab ? v.begin + k.chunk : k.vocab;
    return v;
}

static __device__ __forceinline__ float clean(float l)
{
    return l != l ? -INFINITY : l > FLT_MAX ? FLT_MAX : l;
}

static __device__ __forceinline__ uint64_t mass_of(float z)
{
    return static_cast<uint64_t>(kn_exp(z) * SAMPLE_MASS_ONE);
}

/* The tokens of i to i + 3 that are there and allowed, a bit each; i is a multiple of 4. */
static __device__ __forceinline__ unsigned allowed_of(const view &v, uint32_t i)
{
    const uint32_t left = v.end - i;
    const unsigned there = left < 4 ? (1u << left) - 1 : 15;

    return v.mask == nullptr ? there : v.mask[i / 32] >> i % 32 & there;
}

/* ---- within a block -------------------------------------------------------------------------- */

/* The largest of all threads' keys, in all of them. shared: (WARPS). */
static __device__ __forceinline__ uint64_t block_max(uint64_t key, uint64_t *shared)
{
    key = order_warp_max(key);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        shared[threadIdx.x / 32] = key;
    }
    __syncthreads();
    return order_warp_max(shared[threadIdx.x % WARPS]);
}

/* The sum of v over the threads before this one; *total over all. shared: (WARPS). */
static __device__ __forceinline__ uint64_t sum_before(uint64_t v, uint64_t *shared, uint64_t *total)
{
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint64_t sum = v;

    for (unsigned w = 1; w < 32; w *= 2) {
        const uint64_t below = __shfl_up_sync(ORDER_WARP, sum, w);
        sum += lane >= w ? below : 0;
    }
    __syncthreads();
    if (lane == 31) {
        shared[warp] = sum;
    }
    __syncthreads();
    *total = 0;
    for (unsigned i = 0; i < WARPS; i++) {
        sum += i < warp ? shared[i] : 0;
        *total += shared[i];
    }
    return sum - v;
}

/* The largest of what a pick's chunks have found, in all lanes of each warp. */
static __device__ __forceinline__ uint64_t max_of_chunks(const uint64_t *found, uint32_t chunks)
{
    uint64_t most = 0;

    for (unsigned i = threadIdx.x % 32; i < chunks; i += 32) {
        most = max(most, found[i]);
    }
    return order_warp_max(most);
}

/* The highest adjusted logit; -inf when the mask allows nothing. */
static __device__ __forceinline__ float max_of_pick(const task &k, uint32_t pick)
{
    const uint64_t best = max_of_chunks(k.best + pick * CHUNKS_MAX, k.chunks);

    return best == 0 ? -INFINITY : order_value(best);
}

static __device__ __forceinline__ uint32_t raw_max_of_pick(const task &k, uint32_t pick)
{
    uint32_t most = 0;

    for (unsigned i = threadIdx.x % 32; i < k.chunks; i += 32) {
        most = max(most, k.raw[pick * CHUNKS_MAX + i]);
    }
    return __reduce_max_sync(ORDER_WARP, most);
}

/* Whether a token is drawn, rather than the best one taken. */
static __device__ __forceinline__ bool draws(const view &v, float most)
{
    return v.temperature > 0.0f && most > -INFINITY;
}

/* ---- scan ------------------------------------------------------------------------------------ */

/* How many of ids (n, ascending) are below id. */
static __device__ __forceinline__ uint32_t count_below(const uint32_t *ids, uint32_t n, uint32_t id)
{
    uint32_t from = 0;

    while (from < n) {
        const uint32_t middle = from + (n - from) / 2;
        if (ids[middle] < id) {
            from = middle + 1;
        } else {
            n = middle;
        }
    }
    return from;
}

/* Of equal ids the first one's thread takes all, in their order. */
#define FOR_EACH_OF_ID(i, j, ids, begin, end)                                   \
    for (uint32_t i = (begin) + threadIdx.x; i < (end); i += THREADS)           \
        for (uint32_t j = i == (begin) || (ids)[i - 1] != (ids)[i] ? i : (end); \
             j < (end) && (ids)[j] == (ids)[i]; j++)

/* Penalties and bias of the tokens of this block, in `logits`. All threads. */
static __device__ __forceinline__ void adjust(const task &k, const view &v, float *logits)
{
    __shared__ uint32_t bounds[6];
    const struct kn_cuda_sampling *p = v.p;
    const uint32_t *context = k.packed + p->context_ids_at, *seen = k.packed + p->seen_ids_at;
    const uint32_t *bias = k.packed + p->bias_ids_at, *counts = k.packed + p->seen_counts_at;
    const float *values = reinterpret_cast<const float *>(k.packed + p->bias_values_at);
    const unsigned t = threadIdx.x;

    if (t < 6) {
        const uint32_t *ids = t < 2 ? context : t < 4 ? seen : bias;
        const uint32_t n = t < 2 ? p->n_context : t < 4 ? p->n_seen : p->n_bias;
        bounds[t] = count_below(ids, n, t % 2 == 0 ? v.begin : v.end);
    }
    __syncthreads();
    FOR_EACH_OF_ID(i, j, context, bounds[0], bounds[1])
    {
        const float l = logits[context[j]];
        logits[context[j]] = l > 0.0f ? l / p->repetition_penalty : l * p->repetition_penalty;
    }
    __syncthreads();
    FOR_EACH_OF_ID(i, j, seen, bounds[2], bounds[3])
    {
        const float l = logits[seen[j]] - p->frequency_penalty * static_cast<float>(counts[j]);
        logits[seen[j]] = l - p->presence_penalty;
    }
    __syncthreads();
    FOR_EACH_OF_ID(i, j, bias, bounds[4], bounds[5])
    {
        logits[bias[j]] = logits[bias[j]] + values[j];
    }
    __syncthreads();
}

/* The largest key of the block's adjusted logits that its thread sees. */
static __device__ __forceinline__ uint64_t best_of_thread(const view &v)
{
    uint64_t best = 0;

    for (uint32_t i = v.begin + 4 * threadIdx.x; i < v.end; i += 4 * THREADS) {
        const unsigned allowed = allowed_of(v, i);
        float l[4];
        load_quad(v.logits, i, v.end, l);
        for (unsigned j = 0; j < 4; j++) {
            best = max(best, allowed >> j & 1 ? order_key(clean(l[j]), i + j) : 0);
        }
    }
    return best;
}

__global__ void __launch_bounds__(THREADS) scan(struct task k, int first_step)
{
    __shared__ uint64_t shared[WARPS];
    const uint32_t pick = blockIdx.y, at = pick * CHUNKS_MAX + blockIdx.x;
    const view v = view_of(k, pick, blockIdx.x);
    float *work = v.logits != v.raw ? k.work + pick * k.work_ld : nullptr;
    uint32_t raw = 0;
    bool finite = true;

    for (uint32_t i = v.begin + 4 * threadIdx.x; i < v.end; i += 4 * THREADS) {
        float l[4];
        load_quad(v.raw, i, v.end, l); /* past the end 0, which is finite */
        for (unsigned j = 0; j < 4; j++) {
            finite = finite && (kn_bits(l[j]) & 0x7f800000u) != 0x7f800000u;
            l[j] = clean(l[j]);
            raw = max(raw, i + j < v.end ? order_bits(l[j]) : 0);
        }
        if (work != nullptr) {
            store_quad(work, i, v.end, l);
        }
    }
    if (work != nullptr) {
        __syncthreads();
        adjust(k, v, work);
    }
    const uint64_t best = block_max(best_of_thread(v), shared);
    const uint64_t highest = block_max(raw, shared);
    finite = __syncthreads_and(finite) != 0;
    if (threadIdx.x == 0) {
        k.best[at] = best;
        k.raw[at] = static_cast<uint32_t>(highest);
        k.all_finite[at] = finite ? 1 : 0;
    }
    if (blockIdx.x == 0) {
        counter *h = k.histogram + (pick * 3 + first_step % 3) * BUCKETS;
        for (unsigned b = threadIdx.x; b < BUCKETS; b += THREADS) {
            h[b] = 0;
        }
    }
}

/* ---- top_k, top_p ---------------------------------------------------------------------------- */

static __device__ __forceinline__ uint64_t rank_of(float z, uint32_t id)
{
    return static_cast<uint64_t>(kn_bits(z) & 0x7fffffffu) << ID_BITS | id;
}

static __device__ __forceinline__ float z_of(uint64_t rank)
{
    return kn_float(static_cast<uint32_t>(rank >> ID_BITS) | 0x80000000u);
}

static __device__ __forceinline__ int shift_of(int digit)
{
    return (DIGITS - 1 - digit) * DIGIT_BITS;
}

/* The bucket where the weights of the histogram reach the target. */
struct crossing {
    uint64_t before, weight;
    uint32_t bucket;
};

/* s goes one digit further. All threads, with the same s. */
static __device__ __forceinline__ void choose(const struct kn_cuda_sampling *p, const counter *h,
                                              bool by_count, int digit, struct search *s,
                                              uint64_t *shared)
{
    __shared__ struct crossing found;
    uint64_t weight[BUCKETS_EACH], own = 0, total;

    for (unsigned i = 0; i < BUCKETS_EACH; i++) {
        const unsigned b = threadIdx.x * BUCKETS_EACH + i;
        weight[i] = b < BUCKETS ? h[b] : 0;
        own += weight[i];
    }
    uint64_t before = s->before + sum_before(own, shared, &total);
    if (!by_count && digit == 0) {
        const double share = p->top_p > 0.0f ? static_cast<double>(p->top_p) : 0.0;
        s->target = static_cast<uint64_t>(share * static_cast<double>(total));
        s->target = s->target == 0 ? 1 : s->target;
    }
    if (before < s->target && s->target <= before + own) { /* one thread's */
        bool crossed = false;
        for (unsigned i = 0; i < BUCKETS_EACH; i++) {
            if (!crossed && before + weight[i] >= s->target) {
                found = {before, weight[i], threadIdx.x * BUCKETS_EACH + i};
                crossed = true;
            }
            before += weight[i];
        }
    }
    __syncthreads();
    if (s->before + total < s->target) { /* out of reach: all are kept */
        s->done = true;
        return;
    }
    const int shift = shift_of(digit);
    s->prefix |= static_cast<uint64_t>(found.bucket) << shift;
    s->before = found.before;
    /* Whether the last token of the bucket is kept: where all weigh the same. */
    const bool all_kept =
        digit == DIGITS - 1 ||
        ((by_count || shift <= ID_BITS) &&
         found.before + found.weight - (by_count ? 1 : mass_of(z_of(s->prefix))) < s->target);
    if (all_kept) {
        s->cut = min(s->cut, s->prefix | ((UINT64_C(1) << shift) - 1));
        s->done = true;
    }
}

/* The search as a launch finds it, in all threads. */
static __device__ __forceinline__ struct search enter(const task &k, const view &v, uint32_t pick,
                                                      const struct step &step, uint64_t *shared)
{
    const int last = step.number - 1;
    struct search s = {};

    if (step.first) {
        s.cut = ~UINT64_C(0);
    } else {
        s = k.state[pick * 2 + last % 2];
        if (!s.done) {
            choose(v.p, k.histogram + (pick * 3 + last % 3) * BUCKETS, last < DIGITS, last % DIGITS,
                   &s, shared);
        }
    }
    if (step.filters && step.number % DIGITS == 0) {
        const bool by_count = step.number < DIGITS;
        s.prefix = 0;
        s.before = 0;
        s.target = by_count ? v.p->top_k : 0; /* that of top_p is known with the total */
        s.done = by_count ? v.p->top_k == 0 : !(v.p->top_p < 1.0f);
    }
    return s;
}

/* z of tokens i to i + 3, and which of them are there, allowed and not below the floor. */
static __device__ __forceinline__ unsigned load_scaled(const view &v, uint32_t i, float most,
                                                       float z[4])
{
    unsigned in = allowed_of(v, i);

    load_quad(v.logits, i, v.end, z);
    for (unsigned j = 0; j < 4; j++) {
        z[j] = (clean(z[j]) - most) / v.temperature + 0.0f;
        in &= z[j] >= SAMPLE_FLOOR ? 15 : ~(1u << j);
    }
    return in;
}

__global__ void __launch_bounds__(THREADS) narrow(struct task k, struct step step)
{
    __shared__ uint64_t shared[WARPS];
    __shared__ uint64_t sums[BUCKETS]; /* each two counters of 32 bits, the low one first */
    const uint32_t pick = blockIdx.y;
    const view v = view_of(k, pick, blockIdx.x);
    const float most = max_of_pick(k, pick);
    const bool by_count = step.number < DIGITS;
    const int shift = shift_of(step.number % DIGITS);

    if (!draws(v, most)) {
        return;
    }
    const struct search s = enter(k, v, pick, step, shared);
    if (blockIdx.x == 0) {
        counter *next = k.histogram + (pick * 3 + (step.number + 1) % 3) * BUCKETS;
        for (unsigned b = threadIdx.x; b < BUCKETS; b += THREADS) {
            next[b] = 0;
        }
        if (threadIdx.x == 0) {
            k.state[pick * 2 + step.number % 2] = s;
        }
    }
    if (s.done) {
        return;
    }
    for (unsigned b = threadIdx.x; b < BUCKETS; b += THREADS) {
        sums[b] = 0;
    }
    __syncthreads();
    for (uint32_t i = v.begin + 4 * threadIdx.x; i < v.end; i += 4 * THREADS) {
        float z[4];
        const unsigned in = load_scaled(v, i, most, z);
        for (unsigned j = 0; j < 4; j++) {
            const uint64_t rank = rank_of(z[j], i + j), digit = (rank - s.prefix) >> shift;
            if ((in >> j & 1) == 0 || rank > s.cut || rank < s.prefix || digit >= BUCKETS ||
                (step.number % DIGITS != 0 && digit >= 1u << DIGIT_BITS)) {
                continue;
            }
            const uint64_t weight = by_count ? 1 : mass_of(z[j]);
            const uint32_t part = static_cast<uint32_t>(weight);
            uint32_t *half = reinterpret_cast<uint32_t *>(sums + digit);
            const uint32_t was = atomicAdd(half, part);
            const uint32_t up = static_cast<uint32_t>(weight >> 32) + (was + part < was ? 1 : 0);
            if (up != 0) {
                atomicAdd(half + 1, up);
            }
        }
    }
    __syncthreads();
    counter *h = k.histogram + (pick * 3 + step.number % 3) * BUCKETS;
    for (unsigned b = threadIdx.x; b < BUCKETS; b += THREADS) {
        if (sums[b] != 0) {
            atomicAdd(h + b, static_cast<counter>(sums[b]));
        }
    }
}

/* ---- draw ------------------------------------------------------------------------------------ */

/* z plus the noise of a random word: u has 23 bits and is never 0 or 1. */
static __device__ __forceinline__ float score_of(float z, uint32_t word)
{
    const float u = (static_cast<float>(word >> 9) + 0.5f) * 0x1p-23f;

    return z - kn_log(-kn_log(u));
}

__global__ void __launch_bounds__(THREADS) draw(struct task k, struct step step)
{
    __shared__ uint64_t shared[WARPS];
    const uint32_t pick = blockIdx.y;
    const view v = view_of(k, pick, blockIdx.x);
    const float most = max_of_pick(k, pick);
    uint64_t best = 0, least = 0;

    if (!draws(v, most)) {
        return;
    }
    const struct search s = enter(k, v, pick, step, shared);
    const uint64_t seed = v.p->seed, position = v.p->position;
    const uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
    const float min_p = v.p->min_p;
    if (min_p > 0.0f) {
        const double share = min_p < 1.0f ? static_cast<double>(min_p) : 1.0;
        least = static_cast<uint64_t>(share * static_cast<double>(SAMPLE_MASS_ONE));
    }
    for (uint32_t i = v.begin + 4 * threadIdx.x; i < v.end; i += 4 * THREADS) {
        float z[4];
        unsigned in = load_scaled(v, i, most, z);
        for (unsigned j = 0; j < 4; j++) {
            in &= rank_of(z[j], i + j) <= s.cut && (least == 0 || mass_of(z[j]) >= least)
                      ? 15
                      : ~(1u << j);
        }
        if (in == 0) {
            continue;
        }
        const uint32_t count[4] = {static_cast<uint32_t>(position),
                                   static_cast<uint32_t>(position >> 32), i / 4, 0};
        uint32_t random[4];
        kn_philox(count, key, random);
        for (unsigned j = 0; j < 4; j++) {
            best = max(best, in >> j & 1 ? order_key(score_of(z[j], random[j]), i + j) : 0);
        }
    }
    best = block_max(best, shared);
    if (threadIdx.x == 0) {
        k.drawn[pick * CHUNKS_MAX + blockIdx.x] = best;
    }
}

/* ---- logprobs -------------------------------------------------------------------------------- */

/* The thread's largest key of raw logits below `last`. */
static __device__ __forceinline__ uint64_t best_below(const view &v, uint64_t last)
{
    uint64_t best = 0;

    for (uint32_t i = v.begin + 4 * threadIdx.x; i < v.end; i += 4 * THREADS) {
        float l[4];
        load_quad(v.raw, i, v.end, l);
        for (unsigned j = 0; j < 4; j++) {
            const uint64_t key = i + j < v.end ? order_key(clean(l[j]), i + j) : 0;
            best = key < last ? max(best, key) : best;
        }
    }
    return best;
}

__global__ void __launch_bounds__(THREADS) logprobs(struct task k)
{
    __shared__ uint64_t shared[WARPS];
    const uint32_t pick = blockIdx.y, at = pick * CHUNKS_MAX + blockIdx.x;
    const view v = view_of(k, pick, blockIdx.x);
    const float most = order_float(raw_max_of_pick(k, pick));
    const uint32_t n_top = v.p->n_top;
    uint64_t sum = 0, total;

    if (!v.p->want_logprobs) {
        return;
    }
    for (uint32_t i = v.begin + 4 * threadIdx.x; most > -INFINITY && i < v.end; i += 4 * THREADS) {
        float l[4];
        load_quad(v.raw, i, v.end, l);
        for (unsigned j = 0; j < 4; j++) {
            sum += i + j < v.end ? mass_of(clean(l[j]) - most) : 0;
        }
    }
    sum_before(sum, shared, &total);
    if (threadIdx.x == 0) {
        k.total[at] = total;
    }
    /* Again and again the highest of what is left: only its thread has to look for another. */
    uint64_t mine = n_top != 0 ? best_below(v, ~UINT64_C(0)) : 0;
    for (uint32_t i = 0; i < n_top; i++) {
        const uint64_t best = block_max(mine, shared);
        if (threadIdx.x == 0) {
            k.top[static_cast<int64_t>(at) * TOP + i] = best;
        }
        if (mine == best && best != 0) {
            mine = best_below(v, best);
        }
    }
}

/* ---- finish ---------------------------------------------------------------------------------- */

static __device__ __forceinline__ float logprob_of(const view &v, uint32_t id, float most,
                                                   float log_total)
{
    const float l = clean(v.raw[id]);

    return l == -INFINITY ? -INFINITY : (l - most) - log_total;
}

/* The thread's largest key below `last` of what the chunks have found. */
static __device__ __forceinline__ uint64_t best_top_below(const task &k, uint32_t pick,
                                                          uint32_t n_top, uint64_t last)
{
    uint64_t best = 0;

    for (uint32_t i = threadIdx.x; i < k.chunks * n_top; i += THREADS) {
        const int64_t at = static_cast<int64_t>(pick) * CHUNKS_MAX + i / n_top;
        const uint64_t key = k.top[at * TOP + i % n_top];
        best = key < last ? max(best, key) : best;
    }
    return best;
}

__global__ void __launch_bounds__(THREADS) finish(struct task k)
{
    __shared__ uint64_t shared[WARPS];
    const uint32_t pick = blockIdx.x;
    const view v = view_of(k, pick, 0);
    struct kn_sampled *out = k.out + pick;
    const unsigned t = threadIdx.x;
    uint64_t key = max_of_chunks(k.best + pick * CHUNKS_MAX, k.chunks);

    if (draws(v, key == 0 ? -INFINITY : order_value(key))) {
        key = max_of_chunks(k.drawn + pick * CHUNKS_MAX, k.chunks);
    }
    const uint32_t id = key == 0 || !v.p->want_token ? 0 : order_id(key);
    const float most = order_float(raw_max_of_pick(k, pick));
    const int finite = __syncthreads_and(t >= k.chunks || k.all_finite[pick * CHUNKS_MAX + t] != 0);
    const bool want_logprobs = v.p->want_logprobs;
    const uint32_t n_top = v.p->n_top;
    uint64_t total = 0;
    float log_total = 0.0f;
    if (want_logprobs && most > -INFINITY) {
        sum_before(t < k.chunks ? k.total[pick * CHUNKS_MAX + t] : 0, shared, &total);
        log_total = kn_log(static_cast<float>(total) * 0x1p-40f);
    }
    if (t == 0) {
        out->id = id;
        out->logprob = want_logprobs ? logprob_of(v, id, most, log_total) : 0.0f;
        k.finite[pick] = finite != 0 ? 1 : 0;
    }
    uint64_t mine = best_top_below(k, pick, n_top, ~UINT64_C(0));
    for (uint32_t i = 0; i < TOP; i++) {
        uint64_t best = 0;
        if (i < n_top) {
            best = block_max(mine, shared);
            mine = mine == best ? best_top_below(k, pick, n_top, best) : mine;
        }
        if (t == 0) {
            out->top_ids[i] = best != 0 ? order_id(best) : 0;
            out->top_logprobs[i] =
                best != 0 ? logprob_of(v, order_id(best), most, log_total) : 0.0f;
        }
    }
}

/* ---- the launches ---------------------------------------------------------------------------- */

static size_t round16(size_t n)
{
    return (n + 15) & ~static_cast<size_t>(15);
}

/* Takes n elements from the scratch; adds up their bytes. */
template <typename T> static void take(T **place, uint8_t *scratch, size_t *used, size_t n)
{
    *place = reinterpret_cast<T *>(scratch + *used);
    *used += round16(n * sizeof(T));
}

static size_t lay_out(struct task *k, uint32_t n, uint32_t vocab, void *scratch)
{
    uint8_t *s = static_cast<uint8_t *>(scratch);
    const size_t by_chunk = static_cast<size_t>(n) * CHUNKS_MAX;
    size_t used = 0;

    k->work_ld = (static_cast<int64_t>(vocab) + 3) / 4 * 4;
    take(&k->work, s, &used, n * static_cast<size_t>(k->work_ld));
    take(&k->best, s, &used, by_chunk);
    take(&k->drawn, s, &used, by_chunk);
    take(&k->total, s, &used, by_chunk);
    take(&k->top, s, &used, by_chunk * TOP);
    take(&k->raw, s, &used, by_chunk);
    take(&k->all_finite, s, &used, by_chunk);
    take(&k->histogram, s, &used, static_cast<size_t>(n) * 3 * BUCKETS);
    take(&k->state, s, &used, static_cast<size_t>(n) * 2);
    return used;
}

/* Chunks of whole quads for each thread, as many as n picks need to fill the device. */
static void cut(struct task *k, uint32_t n)
{
    const uint32_t granule = 4 * THREADS;
    uint32_t chunks = (BLOCKS_WANTED + n - 1) / n;

    chunks = chunks < CHUNKS_MAX ? chunks : CHUNKS_MAX;
    k->chunk = (k->vocab + chunks * granule - 1) / (chunks * granule) * granule;
    k->chunks = (k->vocab + k->chunk - 1) / k->chunk;
}

/* Launches what is wanted of top_k and top_p; *step is behind them then. */
static int launch_filters(const struct task &k, dim3 grid, unsigned steps, struct step *step,
                          cudaStream_t stream)
{
    const int end = (steps & KN_CUDA_SAMPLE_TOP_P) != 0   ? 2 * DIGITS
                    : (steps & KN_CUDA_SAMPLE_TOP_K) != 0 ? DIGITS
                                                          : 0;
    int status = 0;

    for (; status == 0 && step->number < end; step->number++, step->first = false) {
        step->filters = true;
        status = launch("narrow", narrow, grid, THREADS, 0, stream, k, *step);
    }
    step->filters = false;
    return status;
}

size_t kn_cuda_sample_scratch_bytes(uint32_t n, uint32_t vocab)
{
    struct task k = {};

    return lay_out(&k, n, vocab, nullptr);
}

int kn_cuda_sample(const float *logits, int64_t ld, uint32_t vocab, const void *packed, uint32_t n,
                   unsigned steps, void *scratch, struct kn_sampled *out, uint32_t *finite,
                   void *stream)
{
    const cudaStream_t s = static_cast<cudaStream_t>(stream);
    const int first = (steps & KN_CUDA_SAMPLE_TOP_K) != 0 ? 0 : DIGITS;
    struct step step = {first, true, false};
    struct task k = {};

    if (n == 0) {
        return 0;
    }
    if (vocab == 0 || vocab > KN_CUDA_VOCAB_MAX) {
        return -1;
    }
    lay_out(&k, n, vocab, scratch);
    k.logits = logits;
    k.ld = ld;
    k.vocab = vocab;
    k.packed = static_cast<const uint32_t *>(packed);
    k.out = out;
    k.finite = finite;
    cut(&k, n);
    const dim3 grid(k.chunks, n);
    int status = launch("scan", scan, grid, THREADS, 0, s, k, first);
    if (status == 0 && (steps & KN_CUDA_SAMPLE_DRAW) != 0) {
        status = launch_filters(k, grid, steps, &step, s);
        if (status == 0) {
            status = launch("draw", draw, grid, THREADS, 0, s, k, step);
        }
    }
    if (status == 0 && (steps & KN_CUDA_SAMPLE_LOGPROBS) != 0) {
        status = launch("logprobs", logprobs, grid, THREADS, 0, s, k);
    }
    return status != 0 ? status : launch("finish", finish, n, THREADS, 0, s, k);
}
