/* sample/test.c: Philox's published vectors, the filters against a plain sort, the distribution
 * against its probabilities, and every version against the reference. */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

/* One row, its parameters and its scratch. */
struct row {
    uint32_t vocab;
    float *logits; /* kept */
    float *work;
    void *scratch;
    struct kn_sampling p;
};

static void row_init(struct row *row, uint32_t vocab)
{
    *row = (struct row){.vocab = vocab};
    row->logits = get_floats(vocab);
    row->work = get_floats(vocab);
    row->scratch = get_memory(kn_sample_scratch_bytes(vocab));
    row->p = (struct kn_sampling){.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f};
}

static void row_release(struct row *row)
{
    free(row->logits);
    free(row->work);
    free(row->scratch);
}

static struct kn_sampled row_sample(struct row *row, enum kn_isa isa, uint64_t position)
{
    struct kn_sampled out;

    memcpy(row->work, row->logits, row->vocab * sizeof(float));
    kn_ops(isa)->sample(row->work, row->vocab, &row->p, position, row->scratch, &out);
    return out;
}

static void test_philox_gives_the_published_words(void **state)
{
    (void)state;
    /* kat_vectors of Random123: counter, key, result */
    static const uint32_t kat[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        kn_philox(kat[i], kat[i] + 4, out);
        assert_memory_equal(out, kat[i] + 6, sizeof out);
    }
}

static void test_greedy_takes_the_lowest_of_equals(void **state)
{
    (void)state;
    struct row row;
    row_init(&row, 100);
    for (uint32_t i = 0; i < 100; i++) {
        row.logits[i] = i == 41 || i == 70 ? 3.0f : -1.0f;
    }
    row.logits[7] = NAN;
    row.p.temperature = 0.0f;
    assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 41);
    uint32_t bias_ids[] = {41, 4000000000u};
    float bias[] = {-100.0f, 100.0f};
    row.p.bias_ids = bias_ids;
    row.p.bias_values = bias;
    row.p.n_bias = 2;
    assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 70);
    uint32_t mask[4] = {0, 1u << 5, 0, 0};
    row.p.mask = mask;
    assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 37);
    row_release(&row);
}

static void test_penalties_change_what_they_say(void **state)
{
    (void)state;
    struct row row;
    uint32_t ids[] = {2, 3}, counts[] = {3, 1};
    row_init(&row, 16);
    memset(row.logits, 0, 16 * sizeof(float));
    row.logits[2] = 4.0f;
    row.logits[3] = 3.9f;
    row.logits[5] = 2.0f;
    row.p.temperature = 0.0f;
    row.p.seen_ids = row.p.context_ids = ids;
    row.p.seen_counts = counts;
    row.p.n_seen = 2;
    row.p.frequency_penalty = 0.5f; /* 4 - 1.5, 3.9 - 0.5 */
    assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 3);
    row.p.presence_penalty = 1.5f; /* 4 - 1.5 - 1.5, 3.9 - 0.5 - 1.5 < 2 */
    assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 5);
    row.p.presence_penalty = row.p.frequency_penalty = 0.0f;
    row.p.n_context = 1;
    row.p.repetition_penalty = 1.1f; /* 4 / 1.1 < 3.9 */
    assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 3);
    for (uint32_t i = 0; i < 16; i++) {
        row.logits[i] = -1.0f;
    } /* a negative logit is multiplied */
    assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 0);
    row.logits[2] = -0.99f;
    assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 0);
    row_release(&row);
}

static void test_all_excluded_gives_the_lowest_allowed(void **state)
{
    (void)state;
    struct row row;
    uint32_t mask[4] = {0, 0, 1u << 3, 0};
    row_init(&row, 100);
    for (int round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < 100; i++) {
            row.logits[i] = round == 3 ? 1.0f : round % 2 == 0 ? NAN : -INFINITY;
        }
        row.p.temperature = round < 2 ? 0.0f : 1.0f;
        row.p.mask = NULL;
        row.p.want_logprobs = true;
        struct kn_sampled s = row_sample(&row, KN_ISA_REF, 0);
        if (round < 3) {
            assert_int_equal(s.id, 0);
            assert_true(s.logprob == -INFINITY);
        }
        row.p.mask = mask;
        assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 67);
        uint32_t none[4] = {0};
        row.p.mask = none;
        assert_int_equal(row_sample(&row, KN_ISA_REF, 0).id, 0);
    }
    row_release(&row);
}

/* ---- the filters against a sort ------------------------------------------------------------- */

struct ranked {
    double z;
    uint32_t id;
};

static int by_rank(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;

    if (x->z != y->z) {
        return x->z > y->z ? -1 : 1;
    }
    return x->id < y->id ? -1 : 1;
}

/* The tokens that survive top_k, top_p and min_p, by definition, in double. Returns how many. Sets
 * *close if a cut is so near a boundary that double and the integer masses may differ. */
static uint32_t survivors(const struct row *row, struct ranked *r, bool *close)
{
    uint32_t n = row->vocab;
    double max = -INFINITY, total = 0.0, sum = 0.0;

    for (uint32_t i = 0; i < n; i++) {
        max = fmax(max, (double)row->logits[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        r[i] = (struct ranked){((double)row->logits[i] - max) / (double)row->p.temperature, i};
    }
    qsort(r, n, sizeof *r, by_rank);
    if (row->p.top_k != 0 && row->p.top_k < n) {
        n = row->p.top_k;
    }
    for (uint32_t i = 0; i < n; i++) {
        total += exp(r[i].z);
    }
    uint32_t kept = 0;
    while (kept < n && (kept == 0 || sum < (double)row->p.top_p * total)) {
        sum += exp(r[kept++].z);
        *close = *close || fabs(sum / total - (double)row->p.top_p) < 1e-5;
    }
    for (uint32_t i = 0; i < kept; i++) {
        *close = *close || fabs(exp(r[i].z) - (double)row->p.min_p) < 1e-6;
        if (exp(r[i].z) < (double)row->p.min_p) {
            kept = i;
        }
    }
    return kept;
}

static void test_filters_keep_what_a_sort_keeps(void **state)
{
    (void)state;
    struct random r = {1};
    uint32_t vocab = 300, checked = 0;
    struct row row;
    struct ranked *ranked = (struct ranked *)get_memory(vocab * sizeof *ranked);
    row_init(&row, vocab);

    for (int round = 0; round < 300; round++) {
        bool close = false, seen[300] = {false};
        random_fill(&r, row.logits, vocab, 2.0f);
        for (int i = 0; i < 30; i++) { /* ties */
            row.logits[random_below(&r, vocab)] = row.logits[random_below(&r, vocab)];
        }
        row.p.temperature = 0.5f + 0.5f * (float)random_below(&r, 4);
        row.p.top_k = random_below(&r, 2) != 0 ? 1 + random_below(&r, 20) : 0;
        row.p.top_p = random_below(&r, 2) != 0 ? 0.05f * (float)random_below(&r, 20) : 1.0f;
        row.p.min_p = random_below(&r, 3) == 0 ? 0.1f * (float)random_below(&r, 10) : 0.0f;
        uint32_t n = survivors(&row, ranked, &close), n_seen = 0;
        for (uint32_t i = 0; i < 500 && !close; i++) {
            uint32_t id = row_sample(&row, KN_ISA_REF, i).id;
            bool kept = false;
            for (uint32_t j = 0; j < n; j++) {
                kept = kept || ranked[j].id == id;
            }
            assert_true(kept);
            n_seen += !seen[id];
            seen[id] = true;
        }
        if (!close && n <= 5) { /* few enough for each to have come up */
            assert_int_equal(n_seen, n);
            checked++;
        }
    }
    assert_true(checked > 30);
    free(ranked);
    row_release(&row);
}

/* The distribution: chi-square of 200,000 draws over positions and seeds. */
static void test_draws_follow_the_probabilities(void **state)
{
    (void)state;
    enum { N = 40, DRAWS = 200000 };
    struct random r = {5};
    struct row row;
    double p[N], total = 0.0, chi2 = 0.0;
    uint32_t count[N] = {0};
    row_init(&row, N);
    random_fill(&r, row.logits, N, 1.2f);
    row.p.temperature = 0.8f;
    for (int i = 0; i < N; i++) {
        p[i] = exp((double)row.logits[i] / (double)0.8f);
        total += p[i];
    }
    for (uint32_t i = 0; i < DRAWS; i++) {
        row.p.seed = i / 1000;
        count[row_sample(&row, KN_ISA_REF, i % 1000).id]++;
    }
    for (int i = 0; i < N; i++) {
        double want = DRAWS * p[i] / total;
        chi2 += (count[i] - want) * (count[i] - want) / want;
    }
    print_message("chi2 %.1f with 39 degrees of freedom\n", chi2);
    assert_true(chi2 < 80.0 && chi2 > 12.0); /* p beyond 1e-4 on either side */
    row_release(&row);
}

static void test_logprobs_are_those_of_the_model(void **state)
{
    (void)state;
    struct random r = {6};
    struct row row;
    row_init(&row, 500);
    random_fill(&r, row.logits, 500, 3.0f);
    row.logits[9] = row.logits[400] = 14.0f; /* a tie at the top */
    row.p.temperature = 3.0f;
    row.p.top_k = 3;
    row.p.want_logprobs = true;
    row.p.n_top = 20;
    double total = 0.0;
    for (int i = 0; i < 500; i++) {
        total += exp((double)row.logits[i]);
    }
    for (uint64_t position = 0; position < 50; position++) {
        struct kn_sampled s = row_sample(&row, KN_ISA_REF, position);
        assert_true(fabs((double)s.logprob - ((double)row.logits[s.id] - log(total))) < 5e-6);
        assert_int_equal(s.top_ids[0], 9);
        assert_int_equal(s.top_ids[1], 400);
        for (int i = 0; i < 20; i++) {
            double want = (double)row.logits[s.top_ids[i]] - log(total);
            assert_true(fabs((double)s.top_logprobs[i] - want) < 5e-6);
            assert_true(i == 0 || s.top_logprobs[i] <= s.top_logprobs[i - 1]);
        }
        uint32_t above = 0;
        for (int i = 0; i < 500; i++) {
            above += row.logits[i] > row.logits[s.top_ids[19]];
        }
        assert_int_equal(above, 19);
    }
    row_release(&row);
}

/* ---- every version -------------------------------------------------------------------------- */

static void random_parameters(struct random *r, struct row *row, uint32_t *ids, uint32_t *counts,
                              float *bias, uint32_t *mask)
{
    struct kn_sampling *p = &row->p;

    random_fill(r, row->logits, row->vocab, 1.0f + (float)random_below(r, 8));
    for (uint32_t i = 0; i < row->vocab / 10; i++) {
        row->logits[random_below(r, row->vocab)] = row->logits[random_below(r, row->vocab)];
    }
    if (random_below(r, 5) == 0) {
        row->logits[random_below(r, row->vocab)] = random_below(r, 2) != 0 ? NAN : INFINITY;
        row->logits[random_below(r, row->vocab)] = -INFINITY;
    }
    p->temperature = random_below(r, 6) == 0 ? 0.0f : 0.1f + 0.3f * (float)random_below(r, 8);
    p->top_k = random_below(r, 2) != 0 ? random_below(r, row->vocab) : 0;
    p->top_p = random_below(r, 2) != 0 ? 0.01f * (float)random_below(r, 101) : 1.0f;
    p->min_p = random_below(r, 3) == 0 ? 0.01f * (float)random_below(r, 30) : 0.0f;
    p->seed = (uint64_t)random_u32(r) << 32 | random_u32(r);
    p->presence_penalty = 0.1f * (float)random_below(r, 10);
    p->frequency_penalty = 0.1f * (float)random_below(r, 10);
    p->repetition_penalty = 1.0f + 0.1f * (float)random_below(r, 3);
    for (uint32_t i = 0; i < 8; i++) {
        ids[i] = i * row->vocab / 7; /* the last is not in the vocabulary */
        counts[i] = 1 + random_below(r, 4);
        bias[i] = 3.0f * random_normal(r);
    }
    p->seen_ids = p->context_ids = p->bias_ids = ids;
    p->seen_counts = counts;
    p->bias_values = bias;
    p->n_seen = p->n_context = p->n_bias = 8;
    for (uint32_t i = 0; i < (row->vocab + 31) / 32; i++) {
        mask[i] = random_u32(r);
    }
    p->mask = random_below(r, 3) == 0 ? mask : NULL;
    p->want_logprobs = random_below(r, 2) != 0;
    p->n_top = random_below(r, KN_TOP_LOGPROBS_MAX + 1);
}

static void test_sample_is_the_same_everywhere(void **state)
{
    (void)state;
    static const uint32_t vocabs[] = {1, 5, 15, 16, 17, 100, 1000, 5003, 49152};
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {7};
        for (int round = 0; round < 600; round++) {
            struct row row;
            uint32_t ids[8], counts[8], mask[1536];
            float bias[8];
            row_init(&row, vocabs[round % 50 == 0 ? 8 : random_below(&r, 8)]);
            random_parameters(&r, &row, ids, counts, bias, mask);
            uint64_t position = (uint64_t)random_u32(&r) * random_u32(&r);
            struct kn_sampled want = row_sample(&row, KN_ISA_REF, position);
            struct kn_sampled got = row_sample(&row, isa, position);
            assert_memory_equal(&got, &want, sizeof want);
            row_release(&row);
        }
    }
}

/* ---- on a GPU ------------------------------------------------------------------------------- */

#define PICKS_MAX 3

/* A row with the lists that its parameters point to. */
struct drawing {
    struct row row;
    uint32_t ids[8], counts[8], *mask;
    float bias[8];
    uint64_t position;
    bool asked; /* false: only whether its logits are finite */
};

static void drawing_init(struct drawing *d, struct random *r, uint32_t vocab)
{
    row_init(&d->row, vocab);
    d->mask = get_memory((size_t)(vocab + 31) / 32 * sizeof *d->mask);
    random_parameters(r, &d->row, d->ids, d->counts, d->bias, d->mask);
    if (random_below(r, 3) == 0) { /* nothing that needs a copy of the logits */
        d->row.p.n_seen = d->row.p.n_context = d->row.p.n_bias = 0;
    }
    d->position = (uint64_t)random_u32(r) * random_u32(r);
    d->asked = random_below(r, 8) != 0;
}

static void drawing_release(struct drawing *d)
{
    row_release(&d->row);
    free(d->mask);
}

/* Many equal, so that ids decide; a wide range, so that most masses are 0; nothing to take; a few
 * that weigh all. */
static void make_odd(struct drawing *d, struct random *r)
{
    struct row *row = &d->row;
    uint32_t kind = random_below(r, 5);

    for (uint32_t i = 0; i < row->vocab; i++) {
        float coarse = (float)(int)random_below(r, 3) - (float)(i % 2);
        row->logits[i] = kind == 0   ? 1.5f
                         : kind == 1 ? coarse
                         : kind == 2 ? -28.5f * (float)random_below(r, 1000) / 999.0f
                         : kind == 3 ? -INFINITY
                                     : -40.0f;
    }
    if (kind == 4) {
        row->logits[random_below(r, row->vocab)] = -0.0f;
        row->logits[random_below(r, row->vocab)] = 0.0f;
    }
    row->p.temperature = random_below(r, 8) == 0 ? 0.0f : 1.0f;
    row->p.top_k = random_below(r, 2) != 0 ? random_below(r, row->vocab + 1) : 0;
    row->p.top_p = (float)random_below(r, 12) / 10.0f;
    row->p.min_p = random_below(r, 4) == 0 ? 1.5f : 0.0f;
    row->p.n_seen = row->p.n_context = row->p.n_bias = 0;
}

/* All picks in one sequence of launches; row i of the logits is pick n - 1 - i's. */
static void sample_on_device(struct drawing *d, uint32_t n, int64_t ld, bool all_steps,
                             struct kn_sampled *out, uint32_t *finite)
{
    uint32_t vocab = d[0].row.vocab;
    size_t bytes = (size_t)(n * ld) * sizeof(float), packed_bytes;
    struct kn_cuda_pick picks[PICKS_MAX];
    float *logits = get_floats(n * ld);
    for (uint32_t i = 0; i < n; i++) {
        picks[i] = (struct kn_cuda_pick){.sampling = d[i].asked ? &d[i].row.p : NULL,
                                         .position = d[i].position,
                                         .row = n - 1 - i};
        memcpy(logits + (n - 1 - i) * ld, d[i].row.logits, vocab * sizeof(float));
    }
    packed_bytes = kn_cuda_sampling_bytes(picks, n, vocab);
    void *packed = get_memory(packed_bytes);
    unsigned steps = kn_cuda_pack_sampling(picks, n, vocab, packed);
    float *device = simt_malloc(bytes, "logits");
    for (uint32_t i = 0; i < n; i++) { /* what lies between the rows is nobody's */
        simt_upload(device + i * ld, logits + i * ld, vocab * sizeof(float));
    }
    void *device_packed = to_device(packed, packed_bytes, "packed");
    void *scratch = simt_malloc(kn_cuda_sample_scratch_bytes(n, vocab), "scratch");
    struct kn_sampled *device_out = simt_malloc(n * sizeof *out, "out");
    uint32_t *device_finite = simt_malloc(n * sizeof *finite, "finite");
    assert_launched(kn_cuda_sample(device, ld, vocab, device_packed, n,
                                   all_steps ? (unsigned)KN_CUDA_SAMPLE_ALL : steps, scratch,
                                   device_out, device_finite, NULL));
    from_device(out, device_out, n * sizeof *out);
    from_device(finite, device_finite, n * sizeof *finite);
    for (uint32_t i = 0; i < n; i++) { /* the logits stay */
        float *row = get_floats(vocab);
        from_device(row, device + (n - 1 - i) * ld, vocab * sizeof(float));
        assert_same_floats(row, d[i].row.logits, vocab, "logits");
        free(row);
    }
    simt_free(device);
    simt_free(device_packed);
    simt_free(scratch);
    simt_free(device_out);
    simt_free(device_finite);
    free(logits);
    free(packed);
}

static void assert_sampled(struct drawing *d, const struct kn_sampled *got, uint32_t finite)
{
    struct kn_sampled want;
    uint32_t all_finite = 1;

    memset(&want, 0, sizeof want);
    if (d->asked) {
        want = row_sample(&d->row, KN_ISA_REF, d->position);
    }
    for (uint32_t i = 0; i < d->row.vocab; i++) {
        all_finite = all_finite && isfinite(d->row.logits[i]);
    }
    assert_int_equal(finite, all_finite);
    assert_int_equal(got->id, want.id);
    assert_same_floats(&got->logprob, &want.logprob, 1, "logprob");
    assert_memory_equal(got, &want, sizeof want);
}

static void test_sample_is_the_same_on_a_gpu(void **state)
{
    (void)state;
    static const uint32_t vocabs[] = {1, 5, 15, 16, 17, 100, 1000, 1027, 2500};
    struct random r = {8};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        uint32_t n = 1 + random_below(&r, PICKS_MAX), finite[PICKS_MAX];
        uint32_t vocab = vocabs[seed % 9];
        int64_t ld = seed % 4 == 0 ? vocab : ((int64_t)vocab + 3) / 4 * 4;
        struct drawing d[PICKS_MAX];
        struct kn_sampled got[PICKS_MAX];
        for (uint32_t i = 0; i < n; i++) {
            drawing_init(&d[i], &r, vocab);
            if ((seed + i) % 3 == 0) {
                make_odd(&d[i], &r);
            }
        }
        set_schedule(seed);
        sample_on_device(d, n, ld, seed % 5 == 0, got, finite);
        for (uint32_t i = 0; i < n; i++) {
            assert_sampled(&d[i], &got[i], finite[i]);
            drawing_release(&d[i]);
        }
    }
}

/* How many tokens top_k and top_p keep, by their definition: a sort, and sums of integers. */
static uint32_t n_kept(const struct row *row, struct ranked *sorted)
{
    const struct kn_sampling *p = &row->p;
    uint32_t n = p->top_k != 0 && p->top_k < row->vocab ? p->top_k : row->vocab, kept = 0;
    uint64_t total = 0, target, sum = 0;
    float max = row->logits[0];

    for (uint32_t i = 1; i < row->vocab; i++) {
        max = fmaxf(max, row->logits[i]);
    }
    for (uint32_t i = 0; i < row->vocab; i++) {
        sorted[i] = (struct ranked){(double)(row->logits[i] - max), i}; /* a temperature of 1 */
    }
    qsort(sorted, row->vocab, sizeof *sorted, by_rank);
    for (uint32_t i = 0; i < n; i++) {
        total += (uint64_t)(kn_exp((float)sorted[i].z) * 0x1p40f);
    }
    target = (uint64_t)((double)p->top_p * (double)total);
    while (p->top_p < 1.0f && kept < n && (kept == 0 || sum < target)) {
        sum += (uint64_t)(kn_exp((float)sorted[kept++].z) * 0x1p40f);
    }
    return p->top_p < 1.0f ? kept : n;
}

/* A position at which one token more or less at the end of the kept ones changes the draw. */
static uint64_t telling_position(struct row *row, uint32_t kept, uint32_t other)
{
    struct kn_sampling p = row->p;
    uint64_t position = 0;
    uint32_t a, b;

    row->p.top_p = 1.0f;
    do {
        position++;
        row->p.top_k = kept;
        a = row_sample(row, KN_ISA_REF, position).id;
        row->p.top_k = other;
        b = row_sample(row, KN_ISA_REF, position).id;
    } while (a == b);
    row->p = p;
    return position;
}

static void random_filters(struct random *r, struct drawing *d, uint64_t seed)
{
    struct row *row = &d->row;
    uint32_t levels = 1 + random_below(r, 3);

    d->asked = true;
    row->p = (struct kn_sampling){.temperature = 1.0f, .repetition_penalty = 1.0f, .seed = seed};
    for (uint32_t i = 0; i < row->vocab; i++) {
        row->logits[i] = 3.0f - 0.1f * (float)random_below(r, levels);
    }
    row->logits[random_below(r, row->vocab)] = seed % 2 != 0 ? 7.0f : 3.0f;
    const uint32_t top_k[] = {0, 2 + random_below(r, 20), row->vocab - 1};
    const float top_p[] = {0.2f + 0.007f * (float)random_below(r, 100), 1.0f, 0.999f, 0.0f};
    row->p.top_k = top_k[seed % 3];
    row->p.top_p = top_p[seed / 3 % 4];
}

static void test_filters_cut_at_the_same_token_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {10};
    struct ranked sorted[300];
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        uint32_t vocab = 3 + random_below(&r, 297), finite[2];
        struct drawing d[2];
        struct kn_sampled got[2];
        drawing_init(&d[0], &r, vocab);
        random_filters(&r, &d[0], seed);
        drawing_init(&d[1], &r, vocab);
        memcpy(d[1].row.logits, d[0].row.logits, vocab * sizeof(float));
        d[1].row.p = d[0].row.p;
        d[1].asked = true;
        uint32_t kept = n_kept(&d[0].row, sorted);
        if (kept > 1) {
            d[0].position = telling_position(&d[0].row, kept, kept - 1);
        }
        if (kept < vocab) {
            d[1].position = telling_position(&d[1].row, kept, kept + 1);
        }
        set_schedule(seed);
        sample_on_device(d, 2, (vocab + 3) / 4 * 4, false, got, finite);
        for (uint32_t i = 0; i < 2; i++) {
            assert_sampled(&d[i], &got[i], finite[i]);
            drawing_release(&d[i]);
        }
    }
}

/* So many tokens that a thread has more than one turn; both filters, logprobs. */
static void test_sample_of_a_large_vocabulary_is_the_same_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {9};
    struct drawing d;
    struct kn_sampled got;
    uint32_t finite;
    drawing_init(&d, &r, 66003);
    random_fill(&r, d.row.logits, 66003, 2.5f);
    d.asked = true;
    d.row.p.temperature = 0.9f;
    d.row.p.top_k = 500;
    d.row.p.top_p = 0.95f;
    d.row.p.min_p = 0.0f;
    d.row.p.want_logprobs = true;
    d.row.p.n_top = 3;
    set_schedule(1);
    sample_on_device(&d, 1, 66004, false, &got, &finite);
    assert_sampled(&d, &got, finite);
    drawing_release(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox_gives_the_published_words),
        cmocka_unit_test(test_greedy_takes_the_lowest_of_equals),
        cmocka_unit_test(test_penalties_change_what_they_say),
        cmocka_unit_test(test_all_excluded_gives_the_lowest_allowed),
        cmocka_unit_test(test_filters_keep_what_a_sort_keeps),
        cmocka_unit_test(test_draws_follow_the_probabilities),
        cmocka_unit_test(test_logprobs_are_those_of_the_model),
        cmocka_unit_test(test_sample_is_the_same_everywhere),
        cmocka_unit_test(test_sample_is_the_same_on_a_gpu),
        cmocka_unit_test(test_filters_cut_at_the_same_token_on_a_gpu),
        cmocka_unit_test(test_sample_of_a_large_vocabulary_is_the_same_on_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
