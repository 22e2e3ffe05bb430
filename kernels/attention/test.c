/* attention/test.c: against softmax in double, and against the reference bit by bit. */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

/* A sequence with its pages; q and out of the rows of a span. */
struct problem {
    struct kn_attn a;
    uint32_t *page_table;
    float *q;
    int64_t width; /* n_heads * head_dim */
};

/* Of K (16) and of V (16), of an int8 head. */
static float *head_scales(const struct kn_kv *kv, uint32_t page, int h)
{
    uint16_t *head = kv->pages + page * kv->page_stride + h * (16 * kv->head_dim + 2 * 32);

    return (float *)(void *)(head + 16 * kv->head_dim);
}

static void problem_init(struct problem *p, struct random *r, uint32_t pos, uint32_t rows)
{
    static const int groups[] = {1, 2, 3, 4, 5, 7, 8, 9};
    static const int dims[] = {8, 16, 24, 64, 64, 64, 72, 80, 128, 256};
    uint32_t n_pages = (pos + rows + KN_PAGE_TOKENS - 1) / KN_PAGE_TOKENS;
    int n_kv = 1 + (int)random_below(r, 2), hd = dims[random_below(r, 10)];
    enum kn_kv_type type = random_below(r, 2) ? KN_KV_INT8 : KN_KV_F16;
    int64_t elems = kn_kv_page_elems(type, n_kv, hd) + 16 * random_below(r, 2);

    *p = (struct problem){0};
    p->a.n_heads = n_kv * groups[random_below(r, 8)];
    p->width = (int64_t)p->a.n_heads * hd;
    p->a.ldq = p->width + random_below(r, 5);
    p->a.ldo = p->width + random_below(r, 5);
    p->a.scale = 1.0f / sqrtf((float)hd);
    p->a.window = random_below(r, 3) == 0 ? 1 + random_below(r, random_below(r, 2) ? 6 : 300) : 0;
    p->a.softcap = random_below(r, 4) == 0 ? 5.0f : 0.0f;
    p->page_table = (uint32_t *)get_memory(n_pages * sizeof(uint32_t));
    p->a.kv = (struct kn_kv){(uint16_t *)get_memory((size_t)(n_pages * elems) * 2), elems, n_kv, hd,
                             type};
    for (uint32_t i = 0; i < n_pages; i++) {
        p->page_table[i] = n_pages - 1 - i;
    }
    for (int64_t i = 0; i < n_pages * elems; i++) {
        p->a.kv.pages[i] = type == KN_KV_INT8 ? (uint16_t)random_below(r, 1u << 16)
                                              : kn_f32_to_f16(random_normal(r));
    }
    for (uint32_t i = 0; type == KN_KV_INT8 && i < n_pages * (uint32_t)n_kv; i++) {
        random_fill(r, head_scales(&p->a.kv, i / (uint32_t)n_kv, (int)(i % (uint32_t)n_kv)), 32,
                    0.02f);
    }
    p->a.span = (struct kn_span){p->page_table, pos, rows};
    p->q = get_floats(rows * p->a.ldq);
    random_fill(r, p->q, rows * p->a.ldq, 1.5f);
    p->a.q = p->q;
}

/* Everything after the last row's position in its page becomes NaN: it must never be read. */
static void spoil_the_future(struct problem *p)
{
    uint32_t last = p->a.span.pos + p->a.span.rows - 1;
    int hd = p->a.kv.head_dim;

    for (int h = 0; h < p->a.kv.n_kv_heads; h++) {
        uint32_t page = p->page_table[last / 16];
        uint16_t *k = p->a.kv.pages + page * p->a.kv.page_stride + h * 32 * hd;
        for (uint32_t slot = last % 16 + 1; p->a.kv.type == KN_KV_INT8 && slot < 16; slot++) {
            head_scales(&p->a.kv, page, h)[slot] = NAN;
            head_scales(&p->a.kv, page, h)[16 + slot] = NAN;
        }
        if (p->a.kv.type == KN_KV_INT8) {
            continue;
        }
        for (uint32_t slot = last % 16 + 1; slot < 16; slot++) {
            for (int d = 0; d < hd; d++) {
                k[d * 16 + (int)slot] = 0x7e00;
                k[hd * 16 + (int)slot * hd + d] = 0x7e00;
            }
        }
    }
}

static void problem_release(struct problem *p)
{
    free(p->page_table);
    free(p->a.kv.pages);
    free(p->q);
}

/* out (rows, ldo), computed in ranges of `step` rows. */
static float *solve(const struct problem *p, enum kn_isa isa, uint32_t step)
{
    struct kn_attn a = p->a;
    float *out = get_floats(a.span.rows * a.ldo);

    a.out = out;
    for (uint32_t row = 0; row < a.span.rows; row += step) {
        uint32_t end = row + step < a.span.rows ? row + step : a.span.rows;
        kn_ops(isa)->attention(&a, row, end, 0, 1);
        kn_ops(isa)->attention(&a, row, end, 1, a.kv.n_kv_heads);
    }
    return out;
}

/* The same through the parts, in two shares of splits, row by row. */
static float *solve_in_parts(const struct problem *p, enum kn_isa isa)
{
    struct kn_attn a = p->a;
    float *out = get_floats(a.span.rows * a.ldo);

    a.out = out;
    for (uint32_t row = 0; row < a.span.rows; row++) {
        uint32_t n_splits = (a.span.pos + row) / KN_ATTN_SPLIT + 1, cut = n_splits / 2;
        float *part = get_floats((int64_t)a.n_heads * n_splits * (a.kv.head_dim + 2));
        kn_ops(isa)->attention_part(&a, row, 0, a.kv.n_kv_heads, cut, n_splits, part);
        kn_ops(isa)->attention_part(&a, row, 0, a.kv.n_kv_heads, 0, cut, part);
        kn_ops(isa)->attention_merge(&a, row, 0, a.kv.n_kv_heads, part);
        free(part);
    }
    return out;
}

static double key(const struct kn_attn *a, uint32_t j, int h, int d, bool value)
{
    const uint16_t *page = a->kv.pages + a->span.page_table[j / 16] * a->kv.page_stride;
    int hd = a->kv.head_dim, slot = (int)(j % 16);

    if (a->kv.type == KN_KV_INT8) {
        const float *scale = head_scales(&a->kv, a->span.page_table[j / 16], h);
        const int8_t *q = (const int8_t *)scale - 32 * hd;
        int element = value ? q[16 * hd + slot * hd + d] : q[d * 16 + slot];
        return (double)element * (double)scale[value ? 16 + slot : slot];
    }
    page += h * 2 * hd * 16;
    return (double)kn_f16_to_f32(value ? page[hd * 16 + slot * hd + d] : page[d * 16 + slot]);
}

/* One row and head in double. out (head_dim). */
static void softmax_in_double(const struct kn_attn *a, uint32_t row, int head, double *out)
{
    uint32_t pos = a->span.pos + row;
    uint32_t first = a->window != 0 && pos + 1 > a->window ? pos + 1 - a->window : 0;
    int kv_head = head / (a->n_heads / a->kv.n_kv_heads), hd = a->kv.head_dim;
    double total = 0.0;

    memset(out, 0, (size_t)hd * sizeof *out);
    for (uint32_t j = first; j <= pos; j++) {
        double s = 0.0;
        for (int d = 0; d < hd; d++) {
            s += (double)a->q[row * a->ldq + head * hd + d] * key(a, j, kv_head, d, false);
        }
        s *= (double)a->scale;
        if (a->softcap > 0.0f) {
            s = (double)a->softcap * tanh(s / (double)a->softcap);
        }
        double w = exp(s);
        total += w;
        for (int d = 0; d < hd; d++) {
            out[d] += w * key(a, j, kv_head, d, true);
        }
    }
    for (int d = 0; d < hd; d++) {
        out[d] /= total;
    }
}

static void test_attention_is_softmax(void **state)
{
    (void)state;
    struct random r = {1};
    for (int round = 0; round < 30; round++) {
        struct problem p;
        problem_init(&p, &r, random_below(&r, 400), 1 + random_below(&r, 3));
        spoil_the_future(&p);
        float *out = solve(&p, KN_ISA_REF, 1);
        for (uint32_t row = 0; row < p.a.span.rows; row++) {
            for (int h = 0; h < p.a.n_heads; h++) {
                double want[256];
                softmax_in_double(&p.a, row, h, want);
                for (int d = 0; d < p.a.kv.head_dim; d++) {
                    float got = out[row * p.a.ldo + h * p.a.kv.head_dim + d];
                    assert_true(fabs((double)got - want[d]) < 1e-5);
                }
            }
        }
        free(out);
        problem_release(&p);
    }
}

static void assert_same_rows(const struct problem *p, const float *got, const float *want,
                             const char *what)
{
    for (uint32_t row = 0; row < p->a.span.rows; row++) {
        assert_same_floats(got + row * p->a.ldo, want + row * p->a.ldo, p->width, what);
    }
}

static void test_attention_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {2};
        for (int round = 0; round < 200; round++) {
            struct problem p;
            uint32_t pos = round % 4 == 0 ? 0 : random_below(&r, 420);
            problem_init(&p, &r, pos, 1 + random_below(&r, round % 3 == 0 ? 40 : 4));
            spoil_the_future(&p);
            if (round % 25 == 0) {
                p.q[random_below(&r, (uint32_t)p.width)] = round % 2 == 0 ? INFINITY : NAN;
            }
            float *want = solve(&p, KN_ISA_REF, 1);
            float *got = solve(&p, isa, 1 + random_below(&r, 40));
            assert_same_rows(&p, got, want, "rows together");
            float *parts = solve_in_parts(&p, isa);
            assert_same_rows(&p, parts, want, "in parts");
            float *ref_parts = solve_in_parts(&p, KN_ISA_REF);
            assert_same_rows(&p, ref_parts, want, "reference in parts");
            free(want);
            free(got);
            free(parts);
            free(ref_parts);
            problem_release(&p);
        }
    }
}

/* The span's rows, and its last one once more as another sequence that has the same pages. */
static void check_on_gpu(const struct problem *p, uint64_t seed)
{
    const struct kn_span *span = &p->a.span;
    uint32_t n_pages = (span->pos + span->rows + KN_PAGE_TOKENS - 1) / KN_PAGE_TOKENS,
             n = span->rows;
    const struct kn_span spans[] = {*span, {span->page_table, span->pos + n - 1, 1}};
    struct kn_cuda_rows rows = device_rows(spans, 2);
    struct kn_cuda_attn a = {.ldq = p->a.ldq,
                             .ldo = p->a.ldo,
                             .kv = p->a.kv,
                             .rows = rows,
                             .n_heads = p->a.n_heads,
                             .scale = p->a.scale,
                             .window = p->a.window,
                             .softcap = p->a.softcap};
    float *want = solve(p, KN_ISA_REF, 1), *q = get_floats((n + 1) * a.ldq);
    float *got = get_floats((n + 1) * a.ldo);

    memcpy(q, p->a.q, n * (size_t)a.ldq * sizeof *q);
    memcpy(q + n * a.ldq, p->a.q + (n - 1) * a.ldq, (size_t)a.ldq * sizeof *q);
    for (int64_t i = 0; i < (n + 1) * a.ldo; i++) {
        got[i] = -7.0f; /* between the rows nobody writes */
    }
    set_schedule(seed);
    a.q = to_device(q, (n + 1) * (size_t)a.ldq * sizeof *q, "q");
    a.out = to_device(got, (n + 1) * (size_t)a.ldo * sizeof *got, "out");
    a.kv.pages = to_device(a.kv.pages, n_pages * (size_t)a.kv.page_stride * 2, "pages");
    assert_launched(kn_cuda_attention_whole(&a, NULL));
    from_device(got, a.out, (n + 1) * (size_t)a.ldo * sizeof *got);
    assert_same_rows(p, got, want, "out");
    assert_same_floats(got + n * a.ldo, want + (n - 1) * a.ldo, p->width, "another sequence");
    for (int64_t i = p->width; i < a.ldo; i++) {
        assert_true(got[i] == -7.0f);
    }
    simt_free((void *)(uintptr_t)a.q);
    simt_free(a.out);
    simt_free(a.kv.pages);
    free_device_rows(&rows);
    free(want);
    free(q);
    free(got);
}

static void test_attention_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {17};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS;) {
        struct problem p;
        problem_init(&p, &r, random_below(&r, seed % 4 == 0 ? 400 : 40), 1 + random_below(&r, 3));
        if (p.a.kv.type == KN_KV_F16 && p.a.n_heads <= 6) {
            spoil_the_future(&p);
            check_on_gpu(&p, seed++);
        }
        problem_release(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_is_softmax),
        cmocka_unit_test(test_attention_has_the_same_bits_everywhere),
        cmocka_unit_test(test_attention_has_the_same_bits_on_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
