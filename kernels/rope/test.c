/* rope/test.c: tables against libm, rotation against double, and against the reference bit by bit.
 */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

static void test_inv_freq_is_the_power(void **state)
{
    (void)state;
    static const double bases[] = {10000.0, 500000.0, 1e6, 1.0, 2.0, 1e-3};
    for (int b = 0; b < 6; b++) {
        for (int dim = 2; dim <= 256; dim += 2) {
            double f[128];
            kn_rope_inv_freq(bases[b], dim, f);
            for (int i = 0; i < dim / 2; i++) {
                double want = pow(bases[b], -2.0 * i / dim);
                assert_true(fabs(f[i] / want - 1.0) < 1e-14);
            }
        }
    }
    double f[2];
    kn_rope_inv_freq(INFINITY, 4, f); /* ends */
    kn_rope_inv_freq(-1.0, 4, f);
    kn_rope_inv_freq(NAN, 4, f);
    kn_rope_inv_freq(1e-310, 4, f);
}

static void test_table_is_sin_and_cos(void **state)
{
    (void)state;
    int dim = 64;
    uint32_t n = 300, wrong = 0;
    double f[32];
    float *c = get_floats(131072 * 32), *s = get_floats(131072 * 32);

    kn_rope_inv_freq(10000.0, dim, f);
    static const uint32_t begins[] = {0, 1000, 130700};
    for (int b = 0; b < 3; b++) {
        kn_rope_fill(f, dim, 1.0, begins[b], begins[b] + n, c, s);
        for (uint32_t pos = begins[b]; pos < begins[b] + n; pos++) {
            for (int i = 0; i < 32; i++) {
                double angle = pos * f[i];
                float got_c = c[pos * 32 + (uint32_t)i], got_s = s[pos * 32 + (uint32_t)i];
                wrong += got_c != (float)cos(angle) || got_s != (float)sin(angle);
                assert_true(fabs((double)got_c - cos(angle)) < 6e-8);
                assert_true(fabs((double)got_s - sin(angle)) < 6e-8);
            }
        }
    }
    print_message("not correctly rounded: %u of %u\n", wrong, 3 * n * 32);
    assert_true(wrong < 3);
    f[0] = INFINITY;
    f[1] = NAN;
    f[2] = -0.5;
    kn_rope_fill(f, 6, 1.0, 1, 2, c, s);
    assert_true(c[3] == 1.0f && s[3] == 0.0f && c[4] == 1.0f && s[4] == 0.0f);
    assert_true(c[5] == (float)cos(-0.5) && s[5] == (float)sin(-0.5));
    free(c);
    free(s);
}

/* The paper's formulas on libm: 1 / base^(2i/d), divided by the factor behind the ramp. */
static void test_yarn_is_the_papers(void **state)
{
    (void)state;
    static const struct kn_yarn cases[] = {{10000.0, 4.0, 2048.0, 32.0, 1.0},
                                           {1e6, 16.0, 32768.0, 32.0, 1.0},
                                           {150000.0, 32.0, 4096.0, 24.0, 1.5},
                                           {10000.0, 1.0, 128.0, 32.0, 1.0}};
    for (int c = 0; c < 4; c++) {
        for (int dim = 2; dim <= 256; dim += 2) {
            const struct kn_yarn *y = &cases[c];
            double got[128], two_log = 2.0 * log(y->base);
            double low = floor(dim * log(y->context / (y->beta_fast * 2 * M_PI)) / two_log);
            double high = ceil(dim * log(y->context / (y->beta_slow * 2 * M_PI)) / two_log);
            low = fmax(low, 0.0);
            high = fmin(high, dim - 1.0);
            kn_rope_inv_freq(y->base, dim, got);
            kn_rope_yarn(y, dim, got);
            for (int i = 0; i < dim / 2; i++) {
                double ramp = fmin(fmax((i - low) / fmax(high - low, 0.001), 0.0), 1.0);
                double whole = pow(y->base, -2.0 * i / dim);
                double want = whole * (1.0 - ramp) + whole / y->factor * ramp;
                assert_true(fabs(got[i] / want - 1.0) < 1e-13);
            }
        }
    }
    assert_true(kn_rope_yarn_magnitude(0.5, 1.0) == 1.0 && kn_rope_yarn_magnitude(1.0, 1.0) == 1.0);
    assert_true(fabs(kn_rope_yarn_magnitude(32.0, 0.7) - (0.07 * log(32.0) + 1.0)) < 1e-15);
}

static void test_table_is_times_the_magnitude(void **state)
{
    (void)state;
    const double f[2] = {1.0, 0.01}, magnitude = 1.25 / 3.0;
    float c[40], s[40];

    kn_rope_fill(f, 4, magnitude, 0, 20, c, s);
    for (int i = 0; i < 40; i++) {
        int position = i / 2;
        double angle = position * f[i % 2];
        assert_true(fabs((double)c[i] - magnitude * cos(angle)) < 3e-8);
        assert_true(fabs((double)s[i] - magnitude * sin(angle)) < 3e-8);
    }
}

struct problem {
    int n_heads, n_kv_heads, head_dim, dim;
    enum kn_rope kind;
    struct kn_span span;
    uint32_t page_table[8];
    struct kn_rope_table table;
    enum kn_kv_type type;
    float *cos, *sin, *qkv;
    int64_t ld;
    int64_t page_elems;
};

#define POSITIONS 80
#define PAGES 6

static void problem_init(struct problem *p, struct random *r)
{
    static const int group[] = {1, 3, 4};
    double f[128];

    p->n_kv_heads = 1 + (int)random_below(r, 3);
    p->n_heads = p->n_kv_heads * group[random_below(r, 3)];
    p->head_dim = 8 * (1 + (int)random_below(r, 16));
    p->dim = random_below(r, 2) != 0 ? p->head_dim
                                     : 2 * (1 + (int)random_below(r, (uint32_t)p->head_dim / 2));
    p->kind = random_below(r, 2) != 0 ? KN_ROPE_NORM : KN_ROPE_NEOX;
    p->span = (struct kn_span){.pos = random_below(r, 60), .rows = 1 + random_below(r, 20)};
    for (uint32_t i = 0; i < PAGES; i++) {
        p->page_table[i] = (i * 5 + 1) % PAGES;
    }
    p->span.page_table = p->page_table;
    p->cos = get_floats(POSITIONS * p->dim / 2);
    p->sin = get_floats(POSITIONS * p->dim / 2);
    kn_rope_inv_freq(10000.0, p->dim, f);
    kn_rope_fill(f, p->dim, 1.0, 0, POSITIONS, p->cos, p->sin);
    p->table = (struct kn_rope_table){p->cos, p->sin, p->dim, POSITIONS};
    p->ld = (p->n_heads + 2 * p->n_kv_heads) * p->head_dim;
    p->qkv = get_floats(p->span.rows * p->ld);
    random_fill(r, p->qkv, p->span.rows * p->ld, 2.0f);
    p->type = random_below(r, 2) != 0 ? KN_KV_INT8 : KN_KV_F16;
    p->page_elems = kn_kv_page_elems(p->type, p->n_kv_heads, p->head_dim);
}

static void problem_release(struct problem *p)
{
    free(p->cos);
    free(p->sin);
    free(p->qkv);
}

/* Returns the pages; qkv is a copy that was worked on. */
static uint16_t *solve(const struct problem *p, enum kn_isa isa, float *qkv)
{
    size_t bytes = (size_t)(PAGES * p->page_elems) * sizeof(uint16_t);
    struct kn_kv kv = {(uint16_t *)get_memory(bytes), p->page_elems, p->n_kv_heads, p->head_dim,
                       p->type};

    memcpy(qkv, p->qkv, (size_t)(p->span.rows * p->ld) * sizeof *qkv);
    kn_ops(isa)->rope_kv(qkv, p->ld, p->n_heads, &kv, &p->span, &p->table, p->kind);
    return kv.pages;
}

/* Element d of a head at `pos`, turned, in double. */
static double turned(const struct problem *p, const float *head, int d, uint32_t pos)
{
    if (d >= p->dim) {
        return (double)head[d];
    }
    int half = p->dim / 2;
    int pair = p->kind == KN_ROPE_NORM ? d / 2 : d % half;
    bool second = p->kind == KN_ROPE_NORM ? d % 2 != 0 : d >= half;
    double angle = pos * pow(10000.0, -2.0 * pair / p->dim);
    double x0 = (double)head[p->kind == KN_ROPE_NORM ? 2 * pair : pair];
    double x1 = (double)head[p->kind == KN_ROPE_NORM ? 2 * pair + 1 : pair + half];
    return second ? x0 * sin(angle) + x1 * cos(angle) : x0 * cos(angle) - x1 * sin(angle);
}

/* The largest of n, without its sign. */
static double largest(const float *x, int n)
{
    double most = 0.0;
    for (int i = 0; i < n; i++) {
        most = fmax(most, fabs((double)x[i]));
    }
    return most;
}

/* An int8 head in a page: each element is within half a step of the scale, which is 1 / 127 of the
 * largest. k holds the head after it was turned. */
static void check_int8(const struct problem *p, const uint16_t *page, int h, uint32_t slot,
                       const float *k, const float *v)
{
    int hd = p->head_dim;
    const int8_t *q = (const int8_t *)(page + h * (16 * hd + 64));
    const float *scale = (const float *)(const void *)(q + 32 * hd);
    double k_most = largest(k, hd), v_most = largest(v, hd);

    assert_true(fabs(127.0 * (double)scale[slot] - k_most) < 1e-6 * k_most);
    assert_true(fabs(127.0 * (double)scale[16 + slot] - v_most) < 1e-6 * v_most);
    for (int d = 0; d < hd; d++) {
        double got_k = (double)q[d * 16 + (int)slot] * (double)scale[slot];
        double got_v = (double)q[(16 + (int)slot) * hd + d] * (double)scale[16 + slot];
        assert_true(fabs(got_k - (double)k[d]) <= 0.5001 * (double)scale[slot]);
        assert_true(fabs(got_v - (double)v[d]) <= 0.5001 * (double)scale[16 + slot]);
    }
}

static void test_rope_turns_q_and_k_and_stores_k_and_v(void **state)
{
    (void)state;
    struct random r = {1};
    for (int round = 0; round < 50; round++) {
        struct problem p;
        problem_init(&p, &r);
        float *qkv = get_floats(p.span.rows * p.ld);
        uint16_t *pages = solve(&p, KN_ISA_REF, qkv);
        for (uint32_t row = 0; row < p.span.rows; row++) {
            uint32_t pos = p.span.pos + row, slot = pos % 16;
            const uint16_t *page = pages + p.page_table[pos / 16] * p.page_elems;
            const float *before = p.qkv + row * p.ld, *after = qkv + row * p.ld;
            for (int i = 0; i < p.n_heads * p.head_dim; i++) {
                int h = i / p.head_dim, d = i % p.head_dim;
                double want = turned(&p, before + h * p.head_dim, d, pos);
                assert_true(fabs((double)after[i] - want) < 2e-5);
            }
            for (int i = 0; i < p.n_kv_heads * p.head_dim; i++) {
                int h = i / p.head_dim, d = i % p.head_dim, hd = p.head_dim;
                const float *k = before + (p.n_heads + h) * hd;
                const float *v = before + (p.n_heads + p.n_kv_heads + h) * hd;
                if (p.type == KN_KV_INT8) {
                    if (d == 0) {
                        check_int8(&p, page, h, slot, after + (p.n_heads + h) * hd, v);
                    }
                    continue;
                }
                float got_k = kn_f16_to_f32(page[h * 2 * hd * 16 + d * 16 + (int)slot]);
                float got_v = kn_f16_to_f32(page[h * 2 * hd * 16 + hd * 16 + (int)slot * hd + d]);
                assert_true(fabs((double)got_k - turned(&p, k, d, pos)) < 5e-3);
                assert_true(kn_bits(got_v) == kn_bits(kn_f16_to_f32(kn_f32_to_f16(v[d]))));
            }
        }
        free(qkv);
        free(pages);
        problem_release(&p);
    }
}

static void test_rope_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {2};
        for (int round = 0; round < 300; round++) {
            struct problem p;
            problem_init(&p, &r);
            if (round % 30 == 0) { /* a head of nothing, one with a NaN */
                float *head = p.qkv + p.n_heads * p.head_dim;
                memset(head, 0, (size_t)p.head_dim * sizeof *head);
                p.qkv[p.ld - 1] = round % 60 == 0 ? NAN : INFINITY;
            }
            if (round % 20 == 0) {
                p.qkv[random_below(&r, (uint32_t)p.ld)] = 1e6f; /* over fp16's range */
            }
            float *want_qkv = get_floats(p.span.rows * p.ld);
            float *got_qkv = get_floats(p.span.rows * p.ld);
            uint16_t *want = solve(&p, KN_ISA_REF, want_qkv), *got = solve(&p, isa, got_qkv);
            int64_t row = p.ld - 2 * p.n_kv_heads * p.head_dim; /* k and v are working space */
            for (uint32_t i = 0; i < p.span.rows; i++) {
                assert_same_floats(got_qkv + i * p.ld, want_qkv + i * p.ld, row, "q");
            }
            assert_memory_equal(got, want, (size_t)(PAGES * p.page_elems) * sizeof *got);
            free(want);
            free(got);
            free(want_qkv);
            free(got_qkv);
            problem_release(&p);
        }
    }
}

/* Pages are written in parts, so that the device starts with what `want` started with. */
static void check_on_gpu(const struct problem *p, uint64_t seed)
{
    size_t bytes = (size_t)(p->span.rows * p->ld) * sizeof(float);
    size_t page_bytes = (size_t)(PAGES * p->page_elems) * sizeof(uint16_t);
    size_t table_bytes = (size_t)(POSITIONS * p->dim / 2) * sizeof(float);
    float *want = get_floats(p->span.rows * p->ld), *got = get_floats(p->span.rows * p->ld);
    uint16_t *pages = solve(p, KN_ISA_REF, want), *got_pages = get_memory(page_bytes);
    float *qkv = to_device(p->qkv, bytes, "qkv");
    struct kn_kv kv = {to_device(got_pages, page_bytes, "pages"), p->page_elems, p->n_kv_heads,
                       p->head_dim, p->type};
    struct kn_rope_table table = p->table;
    uint32_t pos[20], table_at[20];
    /* The table begins behind an entry of another sequence. */
    uint32_t entries[PAGES + 1] = {PAGES};

    memcpy(entries + 1, p->page_table, PAGES * sizeof *entries);
    for (uint32_t i = 0; i < p->span.rows; i++) {
        pos[i] = p->span.pos + i;
        table_at[i] = 1;
    }
    struct kn_cuda_rows rows = {
        to_device(pos, sizeof *pos * p->span.rows, "positions"),
        to_device(entries, sizeof *entries * (PAGES + 1), "page table"),
        to_device(table_at, sizeof *table_at * p->span.rows, "where tables begin"), p->span.rows};
    table.cos = to_device(p->cos, table_bytes, "cos");
    table.sin = to_device(p->sin, table_bytes, "sin");
    set_schedule(seed);
    assert_launched(kn_cuda_rope_kv(qkv, p->ld, p->n_heads, &kv, &rows, &table, p->kind, NULL));
    from_device(got, qkv, bytes);
    from_device(got_pages, kv.pages, page_bytes);
    for (uint32_t i = 0; i < p->span.rows; i++) {
        assert_same_floats(got + i * p->ld, want + i * p->ld, p->n_heads * p->head_dim, "q");
    }
    assert_memory_equal(got_pages, pages, page_bytes);
    simt_free(qkv);
    simt_free(kv.pages);
    simt_free((void *)(uintptr_t)rows.pos);
    simt_free((void *)(uintptr_t)rows.table);
    simt_free((void *)(uintptr_t)rows.table_at);
    simt_free((void *)(uintptr_t)table.cos);
    simt_free((void *)(uintptr_t)table.sin);
    free(want);
    free(got);
    free(pages);
    free(got_pages);
}

static void test_rope_kv_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {9};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        struct problem p;
        problem_init(&p, &r);
        p.span.rows = p.span.rows > 4 ? 4 : p.span.rows;
        check_on_gpu(&p, seed);
        problem_release(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inv_freq_is_the_power),
        cmocka_unit_test(test_table_is_sin_and_cos),
        cmocka_unit_test(test_yarn_is_the_papers),
        cmocka_unit_test(test_table_is_times_the_magnitude),
        cmocka_unit_test(test_rope_turns_q_and_k_and_stores_k_and_v),
        cmocka_unit_test(test_rope_has_the_same_bits_everywhere),
        cmocka_unit_test(test_rope_kv_has_the_same_bits_on_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
