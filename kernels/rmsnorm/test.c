/* rmsnorm/test.c: against double arithmetic, and against the reference bit by bit. */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

static void test_rmsnorm_is_near_double(void **state)
{
    (void)state;
    struct random r = {1};
    int64_t d = 577;
    float *x = get_floats(d), *w = get_floats(d), *y = get_floats(d);

    for (int round = 0; round < 20; round++) {
        random_fill(&r, x, d, 3.0f);
        random_fill(&r, w, d, 1.0f);
        float offset = round % 2 == 0 ? 0.0f : 1.0f;
        double sum = 0.0;
        for (int64_t i = 0; i < d; i++) {
            sum += (double)x[i] * (double)x[i];
        }
        double scale = 1.0 / sqrt(sum / (double)d + 1e-5);
        kn_ops(KN_ISA_REF)->rmsnorm(x, w, offset, 1e-5f, 1, d, y);
        for (int64_t i = 0; i < d; i++) {
            double want = (double)x[i] * scale * ((double)w[i] + (double)offset);
            assert_true(fabs((double)y[i] - want) <= 5e-7 * fabs(want) + 1e-9);
        }
    }
    free(x);
    free(w);
    free(y);
}

static void test_rmsnorm_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    static const int64_t ds[] = {1, 15, 16, 31, 32, 33, 63, 64, 65, 127, 129, 576, 1001};
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {2};
        for (int round = 0; round < 200; round++) {
            int64_t d = ds[random_below(&r, 13)], n = 1 + random_below(&r, 4);
            float offset = round % 3 == 0 ? 1.0f : 0.0f;
            float *x = get_floats(n * d), *w = get_floats(d), *want = get_floats(n * d);
            struct kn_act a = get_act(n, d), b = get_act(n, d);
            random_fill(&r, x, n * d, ldexpf(1.0f, (int)random_below(&r, 40) - 20));
            random_fill(&r, w, d, 1.0f);
            if (round % 17 == 0) {
                memset(x, 0, (size_t)d * sizeof *x);
            }
            if (round % 23 == 0) {
                x[random_below(&r, (uint32_t)d)] = INFINITY;
            }
            kn_ops(KN_ISA_REF)->rmsnorm(x, w, offset, round % 5 == 0 ? 0.0f : 1e-5f, n, d, want);
            float *y = get_floats(n * d);
            kn_ops(isa)->rmsnorm(x, w, offset, round % 5 == 0 ? 0.0f : 1e-5f, n, d, y);
            assert_same_floats(y, want, n * d, "rmsnorm");

            kn_ops(KN_ISA_REF)->quantize(want, d, 0, n, &a); /* the two steps are the fused one */
            kn_ops(KN_ISA_REF)
                ->rmsnorm_quantize(x, w, offset, round % 5 == 0 ? 0.0f : 1e-5f, 0, n, d, &b);
            assert_same_act(&b, &a, n);
            kn_ops(isa)->rmsnorm_quantize(x, w, offset, round % 5 == 0 ? 0.0f : 1e-5f, 1, n, d, &b);
            kn_ops(isa)->rmsnorm_quantize(x, w, offset, round % 5 == 0 ? 0.0f : 1e-5f, 0, 1, d, &b);
            assert_same_act(&b, &a, n);

            kn_ops(isa)->rmsnorm(x, w, offset, round % 5 == 0 ? 0.0f : 1e-5f, n, d, x);
            assert_same_floats(x, want, n * d, "rmsnorm in place");
            free(x);
            free(w);
            free(y);
            free(want);
            free_act(&a);
            free_act(&b);
        }
    }
}

static void test_add_bias_adds_once(void **state)
{
    (void)state;
    for (int isa = 0; isa < KN_ISA_COUNT; isa++) {
        if (!kn_isa_available((enum kn_isa)isa)) {
            print_message("SKIPPED on this CPU: %s\n", kn_isa_name((enum kn_isa)isa));
            continue;
        }
        struct random r = {3};
        float y[2 * 40], want[2 * 40], bias[37];
        random_fill(&r, y, 80, 1.0f);
        random_fill(&r, bias, 37, 1.0f);
        memcpy(want, y, sizeof y);
        for (int i = 0; i < 2; i++) {
            for (int j = 0; j < 37; j++) {
                want[i * 40 + j] += bias[j];
            }
        }
        kn_ops((enum kn_isa)isa)->add_bias(y, 40, 2, 37, bias);
        assert_same_floats(y, want, 80, "add_bias");
    }
}

static void test_rmsnorm_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    static const int64_t ds[] = {1, 31, 32, 33, 64, 65, 127, 129, 576};
    struct random r = {4};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t d = ds[random_below(&r, 9)], n = 1 + random_below(&r, 3);
        float offset = seed % 3 == 0 ? 1.0f : 0.0f, eps = seed % 5 == 0 ? 0.0f : 1e-5f;
        size_t bytes = (size_t)(n * d) * sizeof(float);
        float *x = get_floats(n * d), *w = get_floats(d), *y = get_floats(n * d);
        float *want = get_floats(n * d);
        struct kn_act a = get_act(n, d), device = device_act(n, d);
        random_fill(&r, x, n * d, ldexpf(1.0f, (int)random_below(&r, 40) - 20));
        random_fill(&r, w, d, 1.0f);
        if (seed % 7 == 0) {
            memset(x, 0, (size_t)d * sizeof *x);
        }
        if (seed % 9 == 0) {
            x[random_below(&r, (uint32_t)d)] = INFINITY;
        }
        kn_ops(KN_ISA_REF)->rmsnorm(x, w, offset, eps, n, d, want);
        kn_ops(KN_ISA_REF)->rmsnorm_quantize(x, w, offset, eps, 0, n, d, &a);
        float *device_x = to_device(x, bytes, "x");
        float *device_w = to_device(w, (size_t)d * sizeof *w, "w");
        float *device_y = simt_malloc(bytes, "y");
        set_schedule(seed);
        assert_launched(kn_cuda_rmsnorm(device_x, device_w, offset, eps, n, d, device_y, NULL));
        from_device(y, device_y, bytes);
        assert_same_floats(y, want, n * d, "rmsnorm");
        assert_launched(
            kn_cuda_rmsnorm_quantize(device_x, device_w, offset, eps, 1, n, d, &device, NULL));
        assert_launched(
            kn_cuda_rmsnorm_quantize(device_x, device_w, offset, eps, 0, 1, d, &device, NULL));
        assert_device_act(&device, &a, n);
        assert_launched(kn_cuda_rmsnorm(device_x, device_w, offset, eps, n, d, device_x, NULL));
        from_device(y, device_x, bytes);
        assert_same_floats(y, want, n * d, "rmsnorm in place");
        simt_free(device_x);
        simt_free(device_w);
        simt_free(device_y);
        free_device_act(&device);
        free(x);
        free(w);
        free(y);
        free(want);
        free_act(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm_is_near_double),
        cmocka_unit_test(test_rmsnorm_has_the_same_bits_everywhere),
        cmocka_unit_test(test_add_bias_adds_once),
        cmocka_unit_test(test_rmsnorm_has_the_same_bits_on_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
