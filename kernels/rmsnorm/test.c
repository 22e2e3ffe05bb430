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
    static const int64_t ds[] = {1, 31, 32, 33, 64, 65, 127, 129, 576, 960, 961, 1030, 2100};
    struct random r = {4};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t d = ds[seed % 13], n = 1 + random_below(&r, 3);
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

static void test_add_norm_and_add_bias_have_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    static const int64_t ds[] = {1, 5, 32, 63, 130, 576, 1030};
    const struct kn_ops *ref = kn_ops(KN_ISA_REF);
    struct random r = {5};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t d = ds[seed % 7], n = 1 + random_below(&r, 3);
        float offset = seed % 3 == 0 ? 1.0f : 0.0f;
        size_t bytes = (size_t)(n * d) * sizeof(float);
        float *x = get_floats(n * d), *y = get_floats(n * d), *w = get_floats(d);
        float *got = get_floats(n * d);
        random_fill(&r, x, n * d, 2.0f);
        random_fill(&r, y, n * d, ldexpf(1.0f, (int)random_below(&r, 40) - 20));
        random_fill(&r, w, d, 1.0f);
        if (seed % 6 == 0) {
            y[random_below(&r, (uint32_t)d)] = NAN;
        }
        float *device_x = to_device(x, bytes, "x"), *device_y = to_device(y, bytes, "y");
        float *device_w = to_device(w, (size_t)d * sizeof *w, "w");
        set_schedule(seed);
        assert_launched(kn_cuda_add_norm(device_y, device_w, offset, 1e-6f, n, d, device_x, NULL));
        from_device(got, device_x, bytes);
        for (int64_t i = 0; i < n; i++) { /* as the engine does it: two steps */
            ref->rmsnorm(y + i * d, w, offset, 1e-6f, 1, d, y + i * d);
            ref->add_bias(x + i * d, d, 1, d, y + i * d);
        }
        assert_same_floats(got, x, n * d, "add_norm");

        int64_t columns = d - random_below(&r, (uint32_t)d); /* of rows of d */
        ref->add_bias(x, d, n, columns, w);
        assert_launched(kn_cuda_add_bias(device_x, d, n, columns, device_w, NULL));
        from_device(got, device_x, bytes);
        assert_same_floats(got, x, n * d, "add_bias");
        simt_free(device_x);
        simt_free(device_y);
        simt_free(device_w);
        free(x);
        free(y);
        free(w);
        free(got);
    }
}

static void test_norm_heads_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    static const int dims[] = {8, 32, 40, 64, 80, 96, 128, 200, 256};
    const struct kn_ops *ref = kn_ops(KN_ISA_REF);
    struct random r = {6};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int dim = dims[seed % 9], kv = 1 + (int)random_below(&r, 3);
        int heads = kv * (1 + (int)random_below(&r, 4));
        int64_t n = 1 + random_below(&r, 3);
        int64_t ld = (int64_t)(heads + 2 * kv) * dim + random_below(&r, 3);
        size_t bytes = (size_t)(n * ld) * sizeof(float);
        float *x = get_floats(n * ld), *got = get_floats(n * ld);
        float *w[2] = {get_floats(dim), get_floats(dim)}, *device_w[2] = {NULL, NULL};
        random_fill(&r, x, n * ld, 3.0f);
        float *device_x = to_device(x, bytes, "x");
        for (int i = 0; i < 2; i++) {
            random_fill(&r, w[i], dim, 1.0f);
            if (seed % 3 != (uint64_t)i) {
                device_w[i] = to_device(w[i], (size_t)dim * sizeof(float), "w");
            }
        }
        set_schedule(seed);
        assert_launched(kn_cuda_norm_heads(device_x, ld, n, heads, kv, dim, device_w[0],
                                           device_w[1], 1e-6f, NULL));
        from_device(got, device_x, bytes);
        for (int64_t i = 0; i < n; i++) { /* v stays, as do heads without weights */
            float *q = x + i * ld, *k = q + (int64_t)heads * dim;
            if (device_w[0] != NULL) {
                ref->rmsnorm(q, w[0], 0.0f, 1e-6f, heads, dim, q);
            }
            if (device_w[1] != NULL) {
                ref->rmsnorm(k, w[1], 0.0f, 1e-6f, kv, dim, k);
            }
        }
        assert_same_floats(got, x, n * ld, "norm_heads");
        simt_free(device_x);
        for (int i = 0; i < 2; i++) {
            simt_free(device_w[i]);
            free(w[i]);
        }
        free(x);
        free(got);
    }
    assert_int_equal(kn_cuda_norm_heads(NULL, 264, 1, 1, 0, 264, (const float *)&r, NULL, 0, NULL),
                     -1);
}

static void test_rmsnorm_bf16_is_double_rounded(void **state)
{
    (void)state;
    static const int64_t ds[] = {1, 5, 64, 100, 1030, 2052};
    struct random r = {12};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t d = ds[seed % 6], n = 1 + random_below(&r, 3);
        float *x = get_floats(n * d), *w = get_floats(d);
        double *want = get_memory((size_t)(n * d) * sizeof *want);
        uint16_t *y = simt_malloc((size_t)(n * d) * sizeof *y, "y");
        random_fill(&r, x, n * d, 3.0f);
        random_fill(&r, w, d, 1.0f);
        for (int64_t i = 0; i < n; i++) {
            double sum = 0;
            for (int64_t j = 0; j < d; j++) {
                sum += (double)x[i * d + j] * x[i * d + j];
            }
            for (int64_t j = 0; j < d; j++) {
                want[i * d + j] = x[i * d + j] / sqrt(sum / (double)d + 1e-5) * (w[j] + 1.0);
            }
        }
        float *device_x = to_device(x, (size_t)(n * d) * sizeof *x, "x");
        float *device_w = to_device(w, (size_t)d * sizeof *w, "w");
        set_schedule(seed);
        assert_launched(kn_cuda_rmsnorm_bf16(device_x, device_w, 1.0f, 1e-5f, n, d, y, NULL));
        assert_device_bf16(y, want, n * d);
        simt_free(device_x);
        simt_free(device_w);
        simt_free(y);
        free(x);
        free(w);
        free(want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rmsnorm_is_near_double),
        cmocka_unit_test(test_rmsnorm_has_the_same_bits_everywhere),
        cmocka_unit_test(test_add_bias_adds_once),
        cmocka_unit_test(test_rmsnorm_has_the_same_bits_on_a_gpu),
        cmocka_unit_test(test_add_norm_and_add_bias_have_the_same_bits_on_a_gpu),
        cmocka_unit_test(test_norm_heads_has_the_same_bits_on_a_gpu),
        cmocka_unit_test(test_rmsnorm_bf16_is_double_rounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
