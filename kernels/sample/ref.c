/* sample/ref.c: from logits to a token; NUMERICS.md, "Sampling".
 *
 *   clean -> raw logprobs -> penalties, bias, mask -> greedy, or
 *   temperature -> top_k -> top_p -> min_p -> Gumbel-max
 *
 * Masses are integers, so their sums do not depend on the order. The filters select a prefix of the
 * order (logit descending, id ascending) by a radix search on the bits: nothing is ever sorted.
 */
#include <float.h>

#include "kernels/numerics.h"
#include "kernels/sample/steps.h"
#include "kernels/table.h"

#define BUCKETS 2048

/* Counts and masses of a digit of the radix search. */
struct histogram {
    uint64_t weight[BUCKETS];
};

struct workspace {
    struct histogram *histogram;
    float *logits; /* (vocab) the working copy */
    struct candidates candidates;
};

static size_t round64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

size_t kn_sample_scratch_bytes(uint32_t vocab)
{
    return sizeof(struct histogram) + 3 * round64((size_t)vocab * 4) + round64((size_t)vocab * 8);
}

static void workspace_init(struct workspace *w, void *scratch, uint32_t vocab)
{
    char *p = scratch;

    w->histogram = (struct histogram *)p;
    p += sizeof(struct histogram);
    w->candidates.mass = (uint64_t *)p;
    p += round64((size_t)vocab * 8);
    w->logits = (float *)p;
    p += round64((size_t)vocab * 4);
    w->candidates.z = (float *)p;
    p += round64((size_t)vocab * 4);
    w->candidates.id = (uint32_t *)p;
    w->candidates.n = 0;
}

/* ---- one token ------------------------------------------------------------------------------ */

static float clean_one(float l)
{
    if (l != l) {
        return -INFINITY;
    }
    return l > FLT_MAX ? FLT_MAX : l;
}

static uint64_t mass_one(float z)
{
    return (uint64_t)(kn_exp(z) * SAMPLE_MASS_ONE);
}

/* u has 23 bits and is never 0 or 1, so the noise is in (-2.82, 16.64). */
static float score_one(float z, uint32_t id, uint64_t seed, uint64_t position)
{
    uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), id / 4, 0};
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t random[4];

    kn_philox(counter, key, random);
    float u = ((float)(random[id % 4] >> 9) + 0.5f) * 0x1p-23f;
    return z - kn_log(-kn_log(u));
}

/* ---- the passes, scalar --------------------------------------------------------------------- */

static float clean(float *l, uint32_t n)
{
    float max = -INFINITY;

    for (uint32_t i = 0; i < n; i++) {
        l[i] = clean_one(l[i]);
        max = l[i] > max ? l[i] : max;
    }
    return max + 0.0f;
}

static uint64_t total(const float *l, uint32_t n, float max)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        sum += mass_one(l[i] - max);
    }
    return sum;
}

static void gather(const float *l, uint32_t n, float max, float temperature, struct candidates *c)
{
    c->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        float z = (l[i] - max) / temperature;
        if (z >= SAMPLE_FLOOR) {
            c->z[c->n] = z + 0.0f; /* -0 becomes +0: one order for the bits and for the values */
            c->id[c->n] = i;
            c->n++;
        }
    }
}

static void masses(struct candidates *c)
{
    for (uint32_t i = 0; i < c->n; i++) {
        c->mass[i] = mass_one(c->z[i]);
    }
}

static uint32_t gumbel(const struct candidates *c, uint64_t seed, uint64_t position)
{
    float best = -INFINITY;
    uint32_t id = c->id[0];

    for (uint32_t i = 0; i < c->n; i++) {
        float s = score_one(c->z[i], c->id[i], seed, position);
        if (s > best) {
            best = s;
            id = c->id[i];
        }
    }
    return id;
}

/* ---- penalties, bias, mask ------------------------------------------------------------------ */

static void adjust(float *l, uint32_t vocab, const struct kn_sampling *p)
{
    for (uint32_t i = 0; p->repetition_penalty != 1.0f && i < p->n_context; i++) {
        uint32_t id = p->context_ids[i];
        if (id < vocab) {
            l[id] = l[id] > 0.0f ? l[id] / p->repetition_penalty : l[id] * p->repetition_penalty;
        }
    }
    for (uint32_t i = 0; i < p->n_seen; i++) {
        uint32_t id = p->seen_ids[i];
        if (id < vocab) {
            l[id] = l[id] - p->frequency_penalty * (float)p->seen_counts[i];
            l[id] = l[id] - p->presence_penalty;
        }
    }
    for (uint32_t i = 0; i < p->n_bias; i++) {
        if (p->bias_ids[i] < vocab) {
            l[p->bias_ids[i]] = l[p->bias_ids[i]] + p->bias_values[i];
        }
    }
    for (uint32_t i = 0; p->mask != NULL && i < vocab; i++) {
        if ((p->mask[i / 32] >> (i % 32) & 1) == 0) {
            l[i] = -INFINITY;
        }
    }
}

static uint32_t first_allowed(const struct kn_sampling *p, uint32_t vocab)
{
    for (uint32_t i = 0; p->mask != NULL && i < vocab; i++) {
        if (p->mask[i / 32] >> (i % 32) & 1) {
            return i;
        }
    }
    return 0;
}

/* ---- filters -------------------------------------------------------------------------------- */

/* z is at most +0, so a smaller magnitude comes first. */
static uint32_t order_key(float z)
{
    return kn_bits(z) & 0x7fffffff;
}

/* Keeps the shortest prefix of the order whose weights (1 each if by_count, else the masses) reach
 * `target`; at least one token, and all of them if the target is out of reach. The keys' 31 bits
 * are searched in digits of 11, 11 and 9 bits; `before` is the weight of all smaller keys. */
static void keep_prefix(struct candidates *c, struct histogram *h, bool by_count, uint64_t target)
{
    static const int shifts[] = {20, 9, 0};
    uint32_t prefix = 0;
    uint64_t before = 0;
    int above = 31;

    if (target == 0) {
        target = 1; /* the first token has a mass of at least 1 */
    }
    for (int digit = 0; digit < 3; digit++) {
        int shift = shifts[digit];
        uint32_t n_buckets = 1u << (above - shift);
        memset(h, 0, sizeof *h);
        for (uint32_t i = 0; i < c->n; i++) {
            uint32_t key = order_key(c->z[i]);
            if ((uint64_t)key >> above == (uint64_t)prefix >> above) {
                h->weight[key >> shift & (n_buckets - 1)] += by_count ? 1 : c->mass[i];
            }
        }
        uint32_t b = 0;
        while (b < n_buckets && before + h->weight[b] < target) {
            before += h->weight[b++];
        }
        if (b == n_buckets) {
            return;
        }
        prefix |= b << shift;
        above = shift;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < c->n; i++) { /* `prefix` is the last key kept; its tokens by id */
        uint32_t key = order_key(c->z[i]);
        bool keep = key < prefix || (key == prefix && before < target);
        if (key == prefix) {
            before += by_count ? 1 : c->mass[i];
        }
        if (keep) {
            c->z[kept] = c->z[i];
            c->id[kept] = c->id[i];
            c->mass[kept] = c->mass[i];
            kept++;
        }
    }
    c->n = kept;
}

static void keep_likely(struct candidates *c, uint64_t least)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < c->n; i++) {
        if (c->mass[i] >= least) {
            c->z[kept] = c->z[i];
            c->id[kept] = c->id[i];
            kept++;
        }
    }
    c->n = kept;
}

static void filter(const struct sample_steps *steps, struct workspace *w,
                   const struct kn_sampling *p)
{
    struct candidates *c = &w->candidates;
    bool top_p = p->top_p<1.0f, min_p = p->min_p> 0.0f;

    if (top_p || min_p || p->top_k != 0) {
        steps->masses(c);
    }
    if (p->top_k != 0 && p->top_k < c->n) {
        keep_prefix(c, w->histogram, true, p->top_k);
    }
    if (top_p) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < c->n; i++) {
            sum += c->mass[i];
        }
        double share = p->top_p > 0.0f ? (double)p->top_p : 0.0;
        keep_prefix(c, w->histogram, false, (uint64_t)(share * (double)sum));
    }
    if (min_p) {
        double share = p->min_p < 1.0f ? (double)p->min_p : 1.0;
        keep_likely(c, (uint64_t)(share * (double)SAMPLE_MASS_ONE));
    }
}

/* ---- logprobs ------------------------------------------------------------------------------- */

/* The n_top highest of l in order, into out->top_ids; their logits into out->top_logprobs. */
static void find_top(const float *l, uint32_t vocab, uint32_t n_top, struct kn_sampled *out)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < vocab; i++) {
        if (n == n_top && !(l[i] > out->top_logprobs[n - 1])) {
            continue;
        }
        uint32_t at = n < n_top ? n++ : n - 1;
        for (; at > 0 && l[i] > out->top_logprobs[at - 1]; at--) {
            out->top_ids[at] = out->top_ids[at - 1];
            out->top_logprobs[at] = out->top_logprobs[at - 1];
        }
        out->top_ids[at] = i;
        out->top_logprobs[at] = l[i];
    }
}

static float logprob(float l, float max, float log_total)
{
    return l == -INFINITY ? -INFINITY : (l - max) - log_total;
}

/* ---- all of it ------------------------------------------------------------------------------ */

static uint32_t pick(const struct sample_steps *steps, struct workspace *w, uint32_t vocab,
                     const struct kn_sampling *p, uint64_t position)
{
    adjust(w->logits, vocab, p);
    float max = steps->clean(w->logits, vocab);
    if (max == -INFINITY) {
        return first_allowed(p, vocab);
    }
    if (!(p->temperature > 0.0f)) {
        uint32_t id = 0;
        while (w->logits[id] != max) {
            id++;
        }
        return id;
    }
    steps->gather(w->logits, vocab, max, p->temperature, &w->candidates);
    filter(steps, w, p);
    return steps->gumbel(&w->candidates, p->seed, position);
}

void kn_sample_run(const struct sample_steps *steps, float *logits, uint32_t vocab,
                   const struct kn_sampling *p, uint64_t position, void *scratch,
                   struct kn_sampled *out)
{
    struct workspace w;
    workspace_init(&w, scratch, vocab);
    float max = steps->clean(logits, vocab);

    memcpy(w.logits, logits, (size_t)vocab * sizeof *logits);
    memset(out, 0, sizeof *out);
    out->id = pick(steps, &w, vocab, p, position);
    if (!p->want_logprobs) {
        return;
    }
    float log_total = 0.0f;
    if (max != -INFINITY) {
        log_total = kn_log((float)steps->total(logits, vocab, max) * 0x1p-40f);
    }
    uint32_t n_top = p->n_top < vocab ? p->n_top : vocab;
    n_top = n_top < KN_TOP_LOGPROBS_MAX ? n_top : KN_TOP_LOGPROBS_MAX;
    out->logprob = logprob(logits[out->id], max, log_total);
    if (n_top != 0) {
        find_top(logits, vocab, n_top, out);
    }
    for (uint32_t i = 0; i < n_top; i++) {
        out->top_logprobs[i] = logprob(out->top_logprobs[i], max, log_total);
    }
}

void kn_sample_ref(float *logits, uint32_t vocab, const struct kn_sampling *p, uint64_t position,
                   void *scratch, struct kn_sampled *out)
{
    static const struct sample_steps steps = {clean, total, gather, masses, gumbel};

    kn_sample_run(&steps, logits, vocab, p, position, scratch, out);
}
