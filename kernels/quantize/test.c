/* quantize/test.c: against the definition in double, against the reference bit by bit; and the
 * shared numerics of numerics.h, which have no operation of their own. */
#include <immintrin.h>

#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

/* ---- numerics.h ----------------------------------------------------------------------------- */

/* The meaning of the bits, in double. */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double v = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);

    if (exponent == 31) {
        v = fraction != 0 ? NAN : INFINITY;
    }
    return h & 0x8000 ? -v : v;
}

static void test_f16_to_f32_is_exact_for_all_values(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        double want = half_value((uint16_t)h);
        float got = kn_f16_to_f32((uint16_t)h);
        if (isnan(want)) {
            assert_true(isnan(got));
        } else {
            assert_true((double)got == want && !signbit(got) == !signbit(want));
        }
    }
}

static void test_f32_to_f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) { /* between neighbours: below, at and above the middle */
        float low = (float)half_value((uint16_t)h), high = (float)half_value((uint16_t)(h + 1));
        float middle = (low + high) / 2;
        assert_int_equal(kn_f32_to_f16(low), h);
        assert_int_equal(kn_f32_to_f16(nextafterf(middle, low)), h);
        assert_int_equal(kn_f32_to_f16(nextafterf(middle, high)), h + 1);
        assert_int_equal(kn_f32_to_f16(middle), h % 2 == 0 ? h : h + 1);
        assert_int_equal(kn_f32_to_f16(-middle), 0x8000 | (h % 2 == 0 ? h : h + 1));
    }
    assert_int_equal(kn_f32_to_f16(65519.9f), 0x7bff);
    assert_int_equal(kn_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(kn_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(kn_f32_to_f16(kn_float(0x7f800001)), 0x7e00);
}

__attribute__((target("avx2,f16c"))) static uint32_t f16c_differences(void)
{
    uint32_t differences = 0;

    for (uint32_t h = 0; h < 65536; h++) {
        differences += kn_bits(_cvtsh_ss((uint16_t)h)) != kn_bits(kn_f16_to_f32((uint16_t)h));
    }
    for (uint64_t u = 0; u < UINT64_C(1) << 32; u += 4099) {
        float x = kn_float((uint32_t)u);
        differences += _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT) != kn_f32_to_f16(x);
    }
    return differences;
}

static void test_half_precision_agrees_with_f16c(void **state)
{
    (void)state;
    if (!kn_isa_available(KN_ISA_AVX2)) {
        print_message("SKIPPED on this CPU: f16c\n");
        return;
    }
    assert_int_equal(f16c_differences(), 0);
}

/* |got - want| in units of the last place of want. */
static double ulps(float got, double want)
{
    int exponent;

    frexp(want, &exponent);
    return fabs((double)got - want) / ldexp(1.0, (exponent < -125 ? -125 : exponent) - 24);
}

/* Largest error of f against `truth` over the bits [first, last], in steps. */
static double worst(float (*f)(float), double (*truth)(double), uint32_t first, uint32_t last,
                    uint32_t step)
{
    double max = 0.0;

    for (uint64_t u = first; u <= last; u += step) {
        double want = truth((double)kn_float((uint32_t)u));
        double e = want != 0.0 ? ulps(f(kn_float((uint32_t)u)), want) : 0.0;
        max = e > max ? e : max;
    }
    return max;
}

static double silu_truth(double x)
{
    return x / (1.0 + exp(-x));
}

static double gelu_truth(double x)
{
    return 0.5 * x * (1.0 + tanh(sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x)));
}

static void test_elementary_functions_are_near_libm(void **state)
{
    (void)state;
    /* 0 to 88.7 and 0 to -87.3: normal results */
    double e = fmax(worst(kn_exp, exp, 0, 0x42b16666, 977),
                    worst(kn_exp, exp, 0x80000000, 0xc2ae999a, 977));
    double l = worst(kn_log, log, 0x00800000, 0x7f7fffff, 977);
    double t = fmax(worst(kn_tanh, tanh, 0x10000000, 0x42000000, 977),
                    worst(kn_tanh, tanh, 0x90000000, 0xc2000000, 977));
    double s = fmax(worst(kn_silu, silu_truth, 0x10000000, 0x42a00000, 977),
                    worst(kn_silu, silu_truth, 0x90000000, 0xc2a00000, 977));
    double g = fmax(worst(kn_gelu, gelu_truth, 0x10000000, 0x42000000, 977),
                    worst(kn_gelu, gelu_truth, 0x90000000, 0xc0a00000, 977));
    print_message("ulp: exp %.2f log %.2f tanh %.2f silu %.2f gelu %.2f\n", e, l, t, s, g);
    assert_true(e < 1.0 && l < 1.0 && t < 1.6 && s < 2.5 && g < 40.0);
}

static void test_elementary_functions_at_the_edges(void **state)
{
    (void)state;
    assert_true(kn_exp(0.0f) == 1.0f && kn_exp(-0.0f) == 1.0f);
    assert_true(kn_exp(INFINITY) == INFINITY && kn_exp(89.0f) == INFINITY);
    assert_true(kn_exp(-INFINITY) == 0.0f && kn_exp(-104.0f) == 0.0f && !signbit(kn_exp(-200.0f)));
    assert_true(kn_exp(-103.0f) > 0.0f && isnan(kn_exp(NAN)));
    assert_true(kn_tanh(INFINITY) == 1.0f && kn_tanh(-INFINITY) == -1.0f && isnan(kn_tanh(NAN)));
    assert_true(kn_tanh(0.0f) == 0.0f && kn_tanh(-0.0f) == 0.0f);
    assert_true(kn_log(1.0f) == 0.0f);
    assert_true(kn_silu(100.0f) == 100.0f && kn_silu(-100.0f) == 0.0f);
    assert_true(kn_gelu(100.0f) == 100.0f && kn_gelu(-100.0f) == 0.0f);
}

/* ---- quantize ------------------------------------------------------------------------------- */

static void test_quantize_is_within_half_a_step(void **state)
{
    (void)state;
    struct random r = {1};
    int64_t k = 96;
    float *x = get_floats(k);
    struct kn_act a = get_act(1, k);

    for (int round = 0; round < 200; round++) {
        random_fill(&r, x, k, ldexpf(1.0f, (int)random_below(&r, 60) - 30));
        kn_ops(KN_ISA_REF)->quantize(x, k, 0, 1, &a);
        for (int64_t b = 0; b < k / KN_BLOCK; b++) {
            double amax = 0.0;
            int32_t sum = 0, first = 0, qmax = 0;
            for (int64_t i = b * KN_BLOCK; i < (b + 1) * KN_BLOCK; i++) {
                amax = fmax(amax, fabs((double)x[i]));
                sum += a.q[i];
                first += i % KN_BLOCK < 16 ? a.q[i] : 0;
                qmax = abs(a.q[i]) > qmax ? abs(a.q[i]) : qmax;
                double step = (double)a.d[b];
                assert_true(fabs(step * a.q[i] - (double)x[i]) <= step * 0.50001);
            }
            assert_true(fabs((double)a.d[b] * 127.0 / amax - 1.0) < 1e-6);
            assert_int_equal(qmax, 127);
            assert_int_equal(a.s[b], sum);
            assert_int_equal((int16_t)(a.h[b] & 0xffff), first);
            assert_int_equal(a.h[b] >> 16, sum - first);
        }
    }
    free(x);
    free_act(&a);
}

static void test_quantize_rounds_half_to_even(void **state)
{
    (void)state;
    float x[KN_BLOCK] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f};
    struct kn_act a = get_act(1, KN_BLOCK);

    kn_ops(KN_ISA_REF)->quantize(x, KN_BLOCK, 0, 1, &a);
    const int8_t want[] = {127, 0, 2, 2, 0, -2, -2, 0};
    assert_memory_equal(a.q, want, sizeof want);
    assert_int_equal(a.s[0], 127);
    free_act(&a);
}

static void test_quantize_poisons_a_block_that_is_not_finite(void **state)
{
    (void)state;
    float x[2 * KN_BLOCK] = {1.0f, 2.0f, 3.0f};
    struct kn_act a = get_act(1, 2 * KN_BLOCK);

    x[KN_BLOCK] = 1.0f;
    for (int i = 0; i < 3; i++) {
        x[5] = i == 0 ? INFINITY : i == 1 ? -INFINITY : NAN;
        kn_ops(KN_ISA_REF)->quantize(x, 2 * KN_BLOCK, 0, 1, &a);
        assert_true(isnan(a.d[0]) && a.q[0] == 0 && a.s[0] == 0);
        assert_true(a.d[1] == 1.0f / 127.0f && a.q[KN_BLOCK] == 127);
    }
    free_act(&a);
}

/* Values of all kinds: normal, tiny, zero, huge, and now and then what is not finite. */
static void fill_wild(struct random *r, float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t kind = random_below(r, 400);
        x[i] = random_normal(r) * ldexpf(1.0f, (int)random_below(r, 20) - 10);
        if (kind == 0) {
            x[i] = random_below(r, 2) != 0 ? INFINITY : NAN;
        } else if (kind < 20) {
            x[i] = 0.0f;
        }
    }
    if (random_below(r, 3) == 0) { /* a row of one magnitude, down to subnormals */
        float scale = ldexpf(1.0f, -(int)random_below(r, 150));
        for (int64_t i = 0; i < n; i++) {
            x[i] = random_normal(r) * scale;
        }
    }
}

static void test_quantize_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    static const int64_t ks[] = {1, 7, 16, 17, 31, 32, 33, 48, 63, 64, 100, 576, 1000};
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {2};
        for (int round = 0; round < 300; round++) {
            int64_t k = ks[random_below(&r, 13)], n = 1 + random_below(&r, 5);
            int64_t ldx = k + random_below(&r, 3);
            float *x = get_floats(n * ldx);
            struct kn_act want = get_act(n, k), got = get_act(n, k);
            fill_wild(&r, x, n * ldx);
            kn_ops(KN_ISA_REF)->quantize(x, ldx, 0, n, &want);
            int64_t cut = random_below(&r, (uint32_t)n + 1);
            kn_ops(isa)->quantize(x, ldx, cut, n, &got);
            kn_ops(isa)->quantize(x, ldx, 0, cut, &got);
            assert_same_act(&got, &want, n);
            free(x);
            free_act(&want);
            free_act(&got);
        }
    }
}

static void test_quantize_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    static const int64_t ks[] = {1, 17, 32, 33, 100, 288, 576};
    struct random r = {3};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t k = ks[random_below(&r, 7)], n = 1 + random_below(&r, 4);
        int64_t ldx = k + random_below(&r, 3), begin = random_below(&r, (uint32_t)n);
        float *x = get_floats(n * ldx);
        struct kn_act want = get_act(n, k), device = device_act(n, k);
        fill_wild(&r, x, n * ldx);
        kn_ops(KN_ISA_REF)->quantize(x, ldx, 0, n, &want);
        float *device_x = to_device(x, (size_t)(n * ldx) * sizeof *x, "x");
        set_schedule(seed);
        assert_launched(kn_cuda_quantize(device_x, ldx, begin, n, &device, NULL));
        assert_launched(kn_cuda_quantize(device_x, ldx, 0, begin, &device, NULL));
        assert_device_act(&device, &want, n);
        simt_free(device_x);
        free_device_act(&device);
        free(x);
        free_act(&want);
    }
}

/* ---- e4m3 ------------------------------------------------------------------------------------ */

/* The meaning of the bits, in double. */
static double e4m3_value(int h)
{
    int exponent = h >> 3 & 15, fraction = h & 7;
    double v = exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10);

    return h & 0x80 ? -v : v;
}

/* Each value itself; what lies between two goes to the nearer, the middle to the even. */
static void test_f32_to_e4m3_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (int h = 0; h < 0x7e; h++) {
        float low = (float)e4m3_value(h), high = (float)e4m3_value(h + 1);
        float middle = low + (high - low) / 2;
        assert_int_equal(kn_f32_to_e4m3(low), h);
        assert_int_equal(kn_f32_to_e4m3(-low), h | 0x80);
        assert_int_equal(kn_f32_to_e4m3(nextafterf(middle, low)), h);
        assert_int_equal(kn_f32_to_e4m3(nextafterf(middle, high)), h + 1);
        assert_int_equal(kn_f32_to_e4m3(middle), h % 2 == 0 ? h : h + 1);
    }
    assert_int_equal(kn_f32_to_e4m3(448), 0x7e);
    assert_int_equal(kn_f32_to_e4m3(1e30f), 0x7e);
    assert_int_equal(kn_f32_to_e4m3(-INFINITY), 0xfe);
    assert_int_equal(kn_f32_to_e4m3(NAN) & 0x7f, 0x7f);
}

static void test_fp8_rows_are_the_nearest_at_their_scale(void **state)
{
    (void)state;
    static const int64_t ks[] = {4, 32, 100, 576, 1024, 1028, 4096};
    struct random r = {14};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t k = ks[seed % 7], n = 1 + random_below(&r, 4);
        uint16_t *x = get_memory((size_t)(n * k) * sizeof *x);
        uint8_t *want = get_memory((size_t)(n * k)), *got = get_memory((size_t)(n * k));
        float *scale = get_floats(n);
        for (int64_t i = 0; i < n; i++) {
            float most = 0;
            for (int64_t j = 0; j < k; j++) { /* a row of zeros among them */
                float v = random_normal(&r) * (seed % 5 == 0 && i == 0 ? 0.0f : ldexpf(1, (int)i));
                x[i * k + j] = (uint16_t)(kn_bits(v) >> 16);
                v = fabsf(kn_bf16_to_f32(x[i * k + j]));
                most = v > most ? v : most;
            }
            scale[i] = most > 0 ? most / 448.0f : 1.0f;
            for (int64_t j = 0; j < k; j++) {
                want[i * k + j] = kn_f32_to_e4m3(kn_bf16_to_f32(x[i * k + j]) / scale[i]);
            }
        }
        uint16_t *device_x = to_device(x, (size_t)(n * k) * sizeof *x, "x");
        uint8_t *out = simt_malloc((size_t)(n * k), "out");
        float *device_scale = simt_malloc((size_t)n * sizeof(float), "scale"),
              *got_scale = get_floats(n);
        set_schedule(seed);
        assert_launched(kn_cuda_fp8(device_x, n, k, out, device_scale, NULL));
        from_device(got, out, (size_t)(n * k));
        from_device(got_scale, device_scale, (size_t)n * sizeof(float));
        assert_same_floats(got_scale, scale, n, "scale");
        assert_memory_equal(got, want, (size_t)(n * k));
        simt_free(device_x);
        simt_free(out);
        simt_free(device_scale);
        free(x);
        free(want);
        free(got);
        free(scale);
        free(got_scale);
    }
    assert_int_equal(kn_cuda_fp8(NULL, 1, 6, NULL, NULL, NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16_to_f32_is_exact_for_all_values),
        cmocka_unit_test(test_f32_to_f16_rounds_to_nearest_even),
        cmocka_unit_test(test_half_precision_agrees_with_f16c),
        cmocka_unit_test(test_elementary_functions_are_near_libm),
        cmocka_unit_test(test_elementary_functions_at_the_edges),
        cmocka_unit_test(test_quantize_is_within_half_a_step),
        cmocka_unit_test(test_quantize_rounds_half_to_even),
        cmocka_unit_test(test_quantize_poisons_a_block_that_is_not_finite),
        cmocka_unit_test(test_quantize_has_the_same_bits_everywhere),
        cmocka_unit_test(test_quantize_has_the_same_bits_on_a_gpu),
        cmocka_unit_test(test_f32_to_e4m3_rounds_to_nearest_even),
        cmocka_unit_test(test_fp8_rows_are_the_nearest_at_their_scale),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
