/* moe/test.c: against a plain search and double arithmetic, and against the reference by bits. */
#include "kernels/testing.h"

#define EXPERTS_MAX 130
#define USED_MAX 9

/* How many experts go before `id`: more logit, or as much and a lower id. */
static int rank_of(const float *logits, int n_experts, int id)
{
    int rank = 0;

    for (int i = 0; i < n_experts; i++) {
        rank += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
    }
    return rank;
}

/* Coarse logits, so that many are equal. */
static void test_route_takes_the_best_and_the_lowest_of_equals(void **state)
{
    (void)state;
    struct random r = {1};

    for (int round = 0; round < 2000; round++) {
        int n_experts = 1 + (int)random_below(&r, EXPERTS_MAX);
        int n_used = 1 + (int)random_below(&r, (uint32_t)(n_experts < 9 ? n_experts : USED_MAX));
        float logits[EXPERTS_MAX], weights[USED_MAX];
        uint32_t ids[USED_MAX];
        double mass = 0.0;
        int found = 0;
        for (int i = 0; i < n_experts; i++) {
            logits[i] = (float)(int)random_below(&r, 7) * 0.75f - 2.0f;
        }
        kn_ops(KN_ISA_REF)->route(logits, n_experts, 1, n_experts, n_used, ids, weights);
        for (int id = 0; id < n_experts; id++) {
            mass += rank_of(logits, n_experts, id) < n_used ? exp((double)logits[id]) : 0.0;
        }
        for (int id = 0; id < n_experts; id++) {
            if (rank_of(logits, n_experts, id) < n_used) {
                assert_int_equal(ids[found], id);
                double want = exp((double)logits[id]) / mass;
                assert_true(fabs((double)weights[found] - want) <= 1e-6 * want);
                found++;
            }
        }
        assert_int_equal(found, n_used);
    }
}

static void test_route_puts_nan_last(void **state)
{
    (void)state;
    const float logits[] = {NAN, -INFINITY, 1.0f, NAN, 2.0f};
    const float poisoned[] = {NAN, NAN, NAN};
    float weights[3];
    uint32_t ids[3];

    kn_ops(KN_ISA_REF)->route(logits, 5, 1, 5, 3, ids, weights);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 2);
    assert_int_equal(ids[2], 4);
    assert_true(weights[0] == 0.0f && weights[1] > 0.0f && weights[2] > weights[1]);
    kn_ops(KN_ISA_REF)->route(poisoned, 3, 1, 3, 2, ids, weights);
    assert_int_equal(ids[0], 0);
    assert_int_equal(ids[1], 1);
    assert_true(weights[0] != weights[0] && weights[1] != weights[1]);
}

static void test_combine_is_near_double(void **state)
{
    (void)state;
    struct random r = {2};
    const uint32_t rows[] = {4, 0, 3};
    float y[5 * 40], x[40], was[40], weights[3];

    for (int round = 0; round < 100; round++) {
        random_fill(&r, y, 5 * 40, 1.0f);
        random_fill(&r, x, 40, 1.0f);
        random_fill(&r, weights, 3, 1.0f);
        memcpy(was, x, sizeof x);
        kn_ops(KN_ISA_REF)->combine(y, rows, weights, 3, 40, x);
        for (int c = 0; c < 40; c++) {
            double want = (double)was[c];
            for (int i = 0; i < 3; i++) {
                want += (double)weights[i] * (double)y[rows[i] * 40 + (uint32_t)c];
            }
            assert_true(fabs((double)x[c] - want) <= 2e-6);
        }
    }
}

static void test_moe_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {3};
        for (int round = 0; round < 500; round++) {
            int n_experts = 1 + (int)random_below(&r, EXPERTS_MAX);
            int most = n_experts < USED_MAX ? n_experts : USED_MAX;
            int n_used = 1 + (int)random_below(&r, (uint32_t)most);
            int64_t ld = n_experts + random_below(&r, 3), n = 1 + random_below(&r, 4);
            int64_t d = 1 + random_below(&r, 100);
            float *logits = get_floats(n * ld), *y = get_floats(n * n_used * d);
            float *want = get_floats(d), *got = get_floats(d);
            float w[2][4 * USED_MAX];
            uint32_t ids[2][4 * USED_MAX], rows[USED_MAX];
            random_fill(&r, logits, n * ld, 3.0f);
            random_fill(&r, y, n * n_used * d, 3.0f);
            random_fill(&r, want, d, 3.0f);
            memcpy(got, want, (size_t)d * sizeof *got);
            if (round % 7 == 0) {
                logits[random_below(&r, (uint32_t)(n * ld))] = round % 2 ? NAN : -INFINITY;
            }
            kn_ops(KN_ISA_REF)->route(logits, ld, n, n_experts, n_used, ids[0], w[0]);
            kn_ops(isa)->route(logits, ld, n, n_experts, n_used, ids[1], w[1]);
            assert_memory_equal(ids[0], ids[1], (size_t)(n * n_used) * sizeof ids[0][0]);
            assert_same_floats(w[1], w[0], n * n_used, "weights");
            for (int i = 0; i < n_used; i++) {
                rows[i] = random_below(&r, (uint32_t)(n * n_used));
            }
            kn_ops(KN_ISA_REF)->combine(y, rows, w[0], n_used, d, want);
            kn_ops(isa)->combine(y, rows, w[0], n_used, d, got);
            assert_same_floats(got, want, d, kn_isa_name(isa));
            free(logits);
            free(y);
            free(want);
            free(got);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_takes_the_best_and_the_lowest_of_equals),
        cmocka_unit_test(test_route_puts_nan_last),
        cmocka_unit_test(test_combine_is_near_double),
        cmocka_unit_test(test_moe_has_the_same_bits_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
