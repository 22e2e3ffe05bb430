/* matmul/test.c: against double arithmetic, and against the reference bit by bit. */
#include "kernels/testing.h"

static const int types[] = {KN_F32, KN_F16, KN_BF16, KN_Q4_0, KN_Q4_1, KN_Q8_0};
#define N_TYPES 6

static bool is_float(int type)
{
    return kn_type_block(type) == 1;
}

/* What the operation stands for: the weights as the file says times the activations as quantised.
 */
static double want_element(int type, const uint8_t *w, int64_t row, const struct kn_act *x,
                           int64_t t, int64_t cols)
{
    float *values = get_floats(cols);
    size_t row_bytes = (size_t)(cols / kn_type_block(type)) * kn_type_block_bytes(type);
    double sum = 0.0;

    kn_dequantize_row(type, w + (size_t)row * row_bytes, cols, values);
    for (int64_t c = 0; c < cols; c++) {
        int64_t b = t * ((cols + KN_BLOCK - 1) / KN_BLOCK) + c / KN_BLOCK;
        double a = is_float(type) ? (double)x->f[t * cols + c]
                                  : (double)x->d[b] * x->q[b * KN_BLOCK + c % KN_BLOCK];
        sum += (double)values[c] * a;
    }
    free(values);
    return sum;
}

static void test_matmul_is_near_double(void **state)
{
    (void)state;
    struct random r = {1};
    for (int i = 0; i < N_TYPES; i++) {
        int64_t rows = 19, cols = 608, n = 3;
        uint8_t *w = random_weights(&r, types[i], rows, cols);
        struct kn_matrix m = pack_matrix(KN_ISA_REF, types[i], rows, cols, w);
        struct kn_act x = get_act(n, cols);
        float *f = get_floats(n * cols), *y = get_floats(n * rows);
        random_fill(&r, f, n * cols, 1.0f);
        kn_ops(KN_ISA_REF)->quantize(f, cols, 0, n, &x);
        kn_ops(KN_ISA_REF)->matmul(&m, &x, n, 0, rows, false, y, rows);
        for (int64_t t = 0; t < n; t++) {
            for (int64_t row = 0; row < rows; row++) {
                double want = want_element(types[i], w, row, &x, t, cols);
                assert_true(fabs((double)y[t * rows + row] - want) < 1e-4);
            }
        }
        free(w);
        free((void *)(uintptr_t)m.data);
        free(f);
        free(y);
        free_act(&x);
    }
}

struct problem {
    int type;
    int64_t rows, cols, n, ldy;
    bool accumulate;
    uint8_t *w;
    struct kn_act x;
    float *before; /* (n, ldy) */
};

static void problem_init(struct problem *p, struct random *r, int type, int64_t rows, int64_t cols,
                         int64_t n)
{
    float *f = get_floats(n * cols);

    *p = (struct problem){.type = type, .rows = rows, .cols = cols, .n = n};
    p->ldy = rows + random_below(r, 3);
    p->accumulate = random_below(r, 2) != 0;
    p->w = random_weights(r, type, rows, cols);
    p->x = get_act(n, cols);
    p->before = get_floats(n * p->ldy);
    random_fill(r, f, n * cols, 1.0f);
    random_fill(r, p->before, n * p->ldy, 1.0f);
    if (random_below(r, 4) == 0) { /* the extremes of the integers */
        for (int64_t i = 0; i < n * cols; i++) {
            f[i] = random_below(r, 8) == 0 ? -3.0f : 3.0f;
        }
        size_t bytes = kn_type_block_bytes(type);
        for (size_t i = 0; !is_float(type) && i < (size_t)(rows * cols / 32) * bytes; i++) {
            if (i % bytes >= (type == KN_Q4_1 ? 4 : 2)) {
                p->w[i] = type == KN_Q8_0 ? 0x80 : 0xff;
            }
        }
    }
    if (random_below(r, 10) == 0) {
        f[random_below(r, (uint32_t)(n * cols))] = NAN;
    }
    kn_ops(KN_ISA_REF)->quantize(f, cols, 0, n, &p->x);
    free(f);
}

static void problem_release(struct problem *p)
{
    free(p->w);
    free(p->before);
    free_act(&p->x);
}

/* y (n, ldy), computed in ranges of rows of `step`. */
static float *solve(const struct problem *p, enum kn_isa isa, int64_t step)
{
    struct kn_matrix m = pack_matrix(isa, p->type, p->rows, p->cols, p->w);
    float *y = get_floats(p->n * p->ldy);

    memcpy(y, p->before, (size_t)(p->n * p->ldy) * sizeof *y);
    for (int64_t row = 0; row < p->rows; row += step) {
        int64_t end = row + step < p->rows ? row + step : p->rows;
        kn_ops(isa)->matmul(&m, &p->x, p->n, row, end, p->accumulate, y, p->ldy);
    }
    free((void *)(uintptr_t)m.data);
    return y;
}

static void test_matmul_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    static const int64_t counts[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                     12, 13, 14, 15, 16, 17, 33, 64, 65, 70};
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {2};
        for (int round = 0; round < 400; round++) {
            int type = types[round % N_TYPES];
            int64_t rows = 1 + random_below(&r, 100);
            int64_t cols = is_float(type) ? 1 + random_below(&r, 700)
                                          : 32 * (1 + (int64_t)random_below(&r, 25));
            struct problem p;
            problem_init(&p, &r, type, rows, cols, counts[(round / N_TYPES) % 21]);
            float *want = solve(&p, KN_ISA_REF, rows);
            float *got = solve(&p, isa, KN_ROW_TILE * (1 + (int64_t)random_below(&r, 7)));
            assert_same_floats(got, want, p.n * p.ldy, kn_type_name(type));
            free(want);
            free(got);
            problem_release(&p);
        }
    }
}

/* A token alone and the same token in a batch: the same bits. */
static void test_matmul_does_not_depend_on_the_batch(void **state)
{
    (void)state;
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {3};
        for (int i = 0; i < N_TYPES; i++) {
            struct problem p;
            problem_init(&p, &r, types[i], 80, 576, 23);
            p.accumulate = false;
            float *all = solve(&p, isa, 80);
            for (int64_t t = 0; t < p.n; t++) {
                struct problem one = p;
                one.n = 1;
                one.x.f += t * p.cols;
                one.x.q += t * p.cols;
                one.x.d += t * p.cols / KN_BLOCK;
                one.x.s += t * p.cols / KN_BLOCK;
                float *alone = solve(&one, isa, 80);
                assert_same_floats(alone, all + t * p.ldy, p.rows, "alone");
                free(alone);
            }
            free(all);
            problem_release(&p);
        }
    }
}

static void test_pack_in_ranges_is_pack_at_once(void **state)
{
    (void)state;
    struct random r = {4};
    for (int i = 0; i < N_TYPES * KN_ISA_COUNT; i++) {
        enum kn_isa isa = (enum kn_isa)(i / N_TYPES);
        int type = types[i % N_TYPES];
        int64_t rows = 83, cols = 96;
        uint8_t *w = random_weights(&r, type, rows, cols);
        size_t bytes = kn_pack_bytes(isa, type, rows, cols);
        uint8_t *once = (uint8_t *)get_memory(bytes), *ranges = (uint8_t *)get_memory(bytes);
        kn_pack(isa, type, rows, cols, w, once, 0, rows);
        kn_pack(isa, type, rows, cols, w, ranges, 48, rows);
        kn_pack(isa, type, rows, cols, w, ranges, 0, 48);
        assert_memory_equal(once, ranges, bytes);
        free(w);
        free(once);
        free(ranges);
    }
}

static void test_types_that_are_not_served_are_refused(void **state)
{
    (void)state;
    assert_true(kn_serves(KN_Q4_1, 1, 32));
    assert_false(kn_serves(KN_Q4_1, 1, 33));
    assert_false(kn_serves(KN_F32, 0, 32));
    assert_false(kn_serves(KN_F32, -1, 32));
    assert_false(kn_serves(KN_F32, 1, INT64_MAX));
    assert_false(kn_serves(12, 1, 256));
    assert_int_equal(kn_pack_bytes(KN_ISA_REF, 12, 1, 256), 0);
    assert_int_equal(kn_type_block(12), 0);
    assert_int_equal(kn_type_block_bytes(12), 0);
    assert_string_equal(kn_type_name(12), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul_is_near_double),
        cmocka_unit_test(test_matmul_has_the_same_bits_everywhere),
        cmocka_unit_test(test_matmul_does_not_depend_on_the_batch),
        cmocka_unit_test(test_pack_in_ranges_is_pack_at_once),
        cmocka_unit_test(test_types_that_are_not_served_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
