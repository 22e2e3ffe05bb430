/* swiglu/test.c: against double arithmetic, and against the reference bit by bit. */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

static void test_glu_is_near_double(void **state)
{
    (void)state;
    struct random r = {1};
    int64_t ff = 96;
    float *gu = get_floats(2 * ff);
    struct kn_act a = get_act(1, ff);

    for (int round = 0; round < 100; round++) {
        random_fill(&r, gu, 2 * ff, 4.0f);
        kn_ops(KN_ISA_REF)->swiglu_quantize(gu, 2 * ff, 0, 1, ff, &a);
        for (int64_t i = 0; i < ff; i++) {
            double g = (double)gu[i], want = g / (1.0 + exp(-g)) * (double)gu[ff + i];
            assert_true(fabs((double)a.f[i] - want) <= 1e-6 * fabs(want));
            assert_true(fabs((double)a.d[i / 32] * a.q[i] - want) <= (double)a.d[i / 32] * 0.5001);
        }
        kn_ops(KN_ISA_REF)->geglu_quantize(gu, 2 * ff, 0, 1, ff, &a);
        for (int64_t i = 0; i < ff; i++) {
            double g = (double)gu[i], inner = 0.7978845608028654 * (g + 0.044715 * g * g * g);
            double want = 0.5 * g * (1.0 + tanh(inner)) * (double)gu[ff + i];
            assert_true(fabs((double)a.f[i] - want) <= 2e-5 * fabs(want) + 1e-7);
        }
    }
    free(gu);
    free_act(&a);
}

static void test_glu_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    static const int64_t ffs[] = {1, 15, 16, 17, 31, 32, 33, 49, 64, 100, 1536};
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {2};
        for (int round = 0; round < 300; round++) {
            int64_t ff = ffs[random_below(&r, 11)], n = 1 + random_below(&r, 4);
            int64_t ld = 2 * ff + random_below(&r, 3);
            float *gu = get_floats(n * ld);
            struct kn_act want = get_act(n, ff), got = get_act(n, ff);
            random_fill(&r, gu, n * ld, ldexpf(1.0f, (int)random_below(&r, 12) - 4));
            if (round % 9 == 0) { /* where exp overflows, and what is not finite */
                gu[random_below(&r, (uint32_t)ff)] = -100.0f;
                gu[random_below(&r, (uint32_t)ff)] = round % 2 == 0 ? NAN : -INFINITY;
            }
            const struct kn_ops *ref = kn_ops(KN_ISA_REF), *ops = kn_ops(isa);
            ref->swiglu_quantize(gu, ld, 0, n, ff, &want);
            ops->swiglu_quantize(gu, ld, 0, n, ff, &got);
            assert_same_act(&got, &want, n);
            ref->geglu_quantize(gu, ld, 0, n, ff, &want);
            ops->geglu_quantize(gu, ld, 1, n, ff, &got);
            ops->geglu_quantize(gu, ld, 0, 1, ff, &got);
            assert_same_act(&got, &want, n);
            free(gu);
            free_act(&want);
            free_act(&got);
        }
    }
}

static void test_glu_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    static const int64_t ffs[] = {1, 31, 32, 33, 100, 300};
    struct random r = {3};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t ff = ffs[random_below(&r, 6)], n = 1 + random_below(&r, 3);
        int64_t ld = 2 * ff + random_below(&r, 3);
        float *gu = get_floats(n * ld);
        struct kn_act want = get_act(n, ff), device = device_act(n, ff);
        random_fill(&r, gu, n * ld, ldexpf(1.0f, (int)random_below(&r, 12) - 4));
        if (seed % 4 == 0) {
            gu[random_below(&r, (uint32_t)ff)] = -100.0f;
            gu[random_below(&r, (uint32_t)ff)] = seed % 8 == 0 ? NAN : -INFINITY;
        }
        float *device_gu = to_device(gu, (size_t)(n * ld) * sizeof *gu, "gu");
        const struct kn_ops *ref = kn_ops(KN_ISA_REF);
        set_schedule(seed);
        ref->swiglu_quantize(gu, ld, 0, n, ff, &want);
        assert_launched(kn_cuda_swiglu_quantize(device_gu, ld, 0, n, ff, &device, NULL));
        assert_device_act(&device, &want, n);
        ref->geglu_quantize(gu, ld, 0, n, ff, &want);
        assert_launched(kn_cuda_geglu_quantize(device_gu, ld, 1, n, ff, &device, NULL));
        assert_launched(kn_cuda_geglu_quantize(device_gu, ld, 0, 1, ff, &device, NULL));
        assert_device_act(&device, &want, n);
        simt_free(device_gu);
        free_device_act(&device);
        free(gu);
        free_act(&want);
    }
}

static void test_glu_bf16_is_double_rounded(void **state)
{
    (void)state;
    static const int64_t ffs[] = {1, 31, 32, 33, 100, 1300};
    struct random r = {8};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t ff = ffs[seed % 6], n = 1 + random_below(&r, 3), ld = 2 * ff + random_below(&r, 3);
        float *gu = get_floats(n * ld);
        double *want = get_memory((size_t)(n * ff) * sizeof *want);
        uint16_t *out = simt_malloc((size_t)(n * ff) * sizeof *out, "out");
        random_fill(&r, gu, n * ld, 2.0f);
        float *device = to_device(gu, (size_t)(n * ld) * sizeof *gu, "gu");
        for (int gelu = 0; gelu < 2; gelu++) {
            for (int64_t i = 0; i < n * ff; i++) {
                double g = gu[i / ff * ld + i % ff], up = gu[i / ff * ld + ff + i % ff];
                double cubic = 0.7978845608028654 * (g + 0.044715 * g * g * g);
                want[i] = (gelu ? 0.5 * g * (1 + tanh(cubic)) : g / (1 + exp(-g))) * up;
            }
            set_schedule(seed);
            assert_launched(
                (gelu ? kn_cuda_geglu_bf16 : kn_cuda_swiglu_bf16)(device, ld, n, ff, out, NULL));
            assert_device_bf16(out, want, n * ff);
        }
        simt_free(device);
        simt_free(out);
        free(gu);
        free(want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_glu_is_near_double),
        cmocka_unit_test(test_glu_has_the_same_bits_everywhere),
        cmocka_unit_test(test_glu_has_the_same_bits_on_a_gpu),
        cmocka_unit_test(test_glu_bf16_is_double_rounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
