/* softcap/test.c: against double arithmetic, and against the reference bit by bit. */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

static void test_softcap_is_near_double(void **state)
{
    (void)state;
    struct random r = {1};
    float x[64], was[64];

    for (int round = 0; round < 200; round++) {
        float cap = ldexpf(1.0f + (float)random_below(&r, 100) / 100.0f, (int)random_below(&r, 8));
        random_fill(&r, x, 64, cap * 2.0f);
        memcpy(was, x, sizeof x);
        kn_ops(KN_ISA_REF)->softcap(x, 64, cap);
        for (int i = 0; i < 64; i++) {
            double want = (double)cap * tanh((double)was[i] / (double)cap);
            assert_true(fabs((double)x[i] - want) <= 4e-7 * fabs(want));
        }
    }
}

static void test_softcap_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {2};
        for (int64_t n = 1; n < 200; n++) {
            float *want = get_floats(n), *got = get_floats(n);
            random_fill(&r, want, n, 40.0f);
            if (n % 5 == 0) {
                want[random_below(&r, (uint32_t)n)] = n % 2 ? NAN : -INFINITY;
            }
            memcpy(got, want, (size_t)n * sizeof *got);
            kn_ops(KN_ISA_REF)->softcap(want, n, 30.0f);
            kn_ops(isa)->softcap(got, n, 30.0f);
            assert_same_floats(got, want, n, kn_isa_name(isa));
            free(want);
            free(got);
        }
    }
}

static void test_softcap_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    static const int64_t ds[] = {1, 3, 4, 31, 1000, 1024, 1027, 2050};
    struct random r = {3};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t d = ds[seed % 8], n = 1 + random_below(&r, 3);
        int64_t ld = seed % 3 == 0 ? d : (d + 4 + random_below(&r, 4)) / 4 * 4;
        float *x = get_floats(n * ld), *got = get_floats(n * ld);
        random_fill(&r, x, n * ld, 40.0f);
        if (seed % 4 == 0) {
            x[random_below(&r, (uint32_t)d)] = seed % 8 == 0 ? NAN : -INFINITY;
        }
        float *device = to_device(x, (size_t)(n * ld) * sizeof *x, "x");
        set_schedule(seed);
        assert_launched(kn_cuda_softcap(device, ld, n, d, 30.0f, NULL));
        from_device(got, device, (size_t)(n * ld) * sizeof *x);
        for (int64_t i = 0; i < n; i++) { /* what lies between the rows stays */
            kn_ops(KN_ISA_REF)->softcap(x + i * ld, d, 30.0f);
        }
        assert_same_floats(got, x, n * ld, "softcap");
        simt_free(device);
        free(x);
        free(got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_softcap_is_near_double),
        cmocka_unit_test(test_softcap_has_the_same_bits_everywhere),
        cmocka_unit_test(test_softcap_has_the_same_bits_on_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
