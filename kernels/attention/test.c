/* attention/test.c: against softmax in double, and against the reference bit by bit. */
#include "kernels/attention/test_batch.h"

/* A sequence with its pages; q and out of the rows of a span. */
struct problem {
    struct kn_attn a;
    uint32_t *page_table;
    float *q;
    int64_t width; /* n_heads * head_dim */
};

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

static void test_attention_is_softmax(void **state)
{
    (void)state;
    struct random r = {1};
    for (int round = 0; round < 30; round++) {
        struct problem p;
        problem_init(&p, &r, random_below(&r, 400), 1 + random_below(&r, 3));
        spoil_the_future(&p.a);
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

/* The reference is slow where each of its accesses is checked. */
#if defined(__SANITIZE_ADDRESS__)
#define ROUNDS 12
#else
#define ROUNDS 150
#endif

static void test_attention_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    struct random r = {2};
    for (int round = 0; round < ROUNDS; round++) {
        struct problem p;
        uint32_t pos = round % 4 == 0 ? 0 : random_below(&r, 420);
        problem_init(&p, &r, pos, 1 + random_below(&r, round % 3 == 0 ? 40 : 4));
        spoil_the_future(&p.a);
        if (round % 25 == 0) {
            p.q[random_below(&r, (uint32_t)p.width)] = round % 2 == 0 ? INFINITY : NAN;
        }
        float *want = solve(&p, KN_ISA_REF, 1);
        float *ref_parts = solve_in_parts(&p, KN_ISA_REF);
        assert_same_rows(&p, ref_parts, want, "reference in parts");
        for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
            float *got = solve(&p, isa, 1 + random_below(&r, 40));
            assert_same_rows(&p, got, want, "rows together");
            float *parts = solve_in_parts(&p, isa);
            assert_same_rows(&p, parts, want, "in parts");
            free(got);
            free(parts);
        }
        free(want);
        free(ref_parts);
        problem_release(&p);
    }
}

/* ---- on a GPU ---------------------------------------------------------------------------------
 */

/* Both ways, all of out; in the second the last tile's rows are left alone. */
static void check_batch(const struct batch *b, uint64_t seed)
{
    float *want = batch_reference(b), *got = get_floats(b->n * b->a.ldo);
    size_t bytes = (size_t)(b->n * b->a.ldo) * sizeof(float);
    struct on_device d = batch_upload(b, (uint32_t)(seed % 3));

    set_schedule(seed);
    for (int prefill = 0; prefill < 2; prefill++) {
        for (int64_t i = 0; i < b->n * b->a.ldo; i++) {
            got[i] = LEFT_ALONE;
        }
        d.a.out = to_device(got, bytes, "out");
        uint32_t rows = b->n;
        if (prefill) {
            rows = b->n_tiles > 1 ? b->tiles[b->n_tiles - 1].row : b->n;
            assert_launched(kn_cuda_attention_prefill(&d.a, d.tiles,
                                                      b->n_tiles > 1 ? b->n_tiles - 1 : 1, NULL));
        } else {
            assert_launched(kn_cuda_attention(&d.a, d.splits_max, d.part, NULL));
        }
        from_device(got, d.a.out, bytes);
        simt_free(d.a.out);
        assert_same_floats(got, want, rows * b->a.ldo, prefill ? "prefill" : "decode");
        for (int64_t i = rows * b->a.ldo; i < b->n * b->a.ldo; i++) {
            assert_true(got[i] == LEFT_ALONE);
        }
    }
    free_on_device(&d);
    free(want);
    free(got);
}

/* What a batch sees, by seed: some rows of few positions, and rows on both sides of a split's end.
 */
static void gpu_shape(struct batch_shape *s, struct random *r, uint32_t seed)
{
    static const struct batch_shape seen[4] = {
        {.pos = {20, 126}, .rows = {2, 3}},
        {.pos = {30, 125, 254}, .rows = {1, 5, 4}, .window = 5},
        {.pos = {40, 255}, .rows = {1, 2}, .window = 150},
        {.pos = {17, 130}, .rows = {4, 1}, .softcap = 5.0f},
    };
    /* Each instance of the kernels (head_dim, queries, type) has a seed; the dear ones small heads.
     */
    static const int dims[3][4] = {{8, 24, 64, 40}, {72, 80, 96, 128}, {136, 136, 192, 256}};
    static const int groups[3][4] = {{1, 3, 4, 2}, {5, 8, 7, 6}, {9, 9, 17, 33}};
    uint32_t i = seed - 1, dim = i % 3, size = i / 3 % 3;

    *s = seen[random_below(r, 4)];
    s->pos[0] -= random_below(r, 17);
    s->pos[1] -= random_below(r, 2);
    s->head_dim = dims[dim][random_below(r, size == 0 ? 4 : 2)];
    s->group = groups[size][random_below(r, dim == 0 ? 4 : 2)];
    s->n_kv = size == 0 && dim < 2 ? 2 : 1;
    s->type = i / 9 % 2 != 0 ? KN_KV_INT8 : KN_KV_F16;
}

static void test_attention_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {7};

    for (uint32_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        struct batch_shape s;
        struct batch b;
        gpu_shape(&s, &r, seed);
        batch_init(&b, &r, &s);
        if (seed % 5 == 0) {
            b.q[random_below(&r, (uint32_t)s.head_dim)] = seed % 10 == 0 ? INFINITY : NAN;
        }
        check_batch(&b, seed);
        batch_release(&b);
    }
}

/* Two rows of 128 positions, and a prompt of 32 rows of 8 tiles: bytes beside the least. */
static void test_attention_reads_k_and_v_once(void **state)
{
    (void)state;
    struct random r = {8};
    struct batch_shape s = {.n_kv = 1, .group = 8, .head_dim = 64, .type = KN_KV_F16};
    struct batch b;

    if (!simt_has_shadow()) {
        skip();
    }
    for (int prefill = 0; prefill < 2; prefill++) {
        s.pos[0] = prefill ? 96 : 127;
        s.pos[1] = 127;
        s.rows[0] = prefill ? 32 : 1;
        s.rows[1] = prefill ? 0 : 1;
        batch_init(&b, &r, &s);
        struct on_device d = batch_upload(&b, 0);
        d.a.out = simt_malloc((size_t)(b.n * b.a.ldo) * sizeof(float), "out");
        assert_launched(prefill ? kn_cuda_attention_prefill(&d.a, d.tiles, b.n_tiles, NULL)
                                : kn_cuda_attention(&d.a, d.splits_max, d.part, NULL));
        const struct simt_stats *stats = simt_last_stats();
        /* K and V of 128 positions a sequence; q and out */
        uint64_t least = (prefill ? 1 : 2) * 128 * 64 * 4 + b.n * 8 * 64 * 8;
        uint64_t got = stats->unique_sectors * 32;
        print_message("%s: %lu bytes of DRAM, least %lu; %lu sectors of L1, least %lu; %lu bank "
                      "conflicts in %lu accesses\n",
                      prefill ? "prefill" : "decode", (unsigned long)got, (unsigned long)least,
                      (unsigned long)stats->sectors, (unsigned long)stats->sectors_min,
                      (unsigned long)stats->bank_conflicts, (unsigned long)stats->shared_accesses);
        assert_true(got >= least && got * 100 < least * 105);
        simt_free(d.a.out);
        free_on_device(&d);
        batch_release(&b);
    }
}

/* More splits than a warp of the merge has lanes. */
static void test_attention_merges_many_splits_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {9};
    struct batch_shape s = {.n_kv = 1, .group = 1, .head_dim = 8, .pos = {37 * 128}, .rows = {1}};
    struct batch b;

    batch_init(&b, &r, &s);
    check_batch(&b, 3);
    batch_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_is_softmax),
        cmocka_unit_test(test_attention_has_the_same_bits_everywhere),
        cmocka_unit_test(test_attention_has_the_same_bits_on_a_gpu),
        cmocka_unit_test(test_attention_merges_many_splits_on_a_gpu),
        cmocka_unit_test(test_attention_reads_k_and_v_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) + test_flash();
}
