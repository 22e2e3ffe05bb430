/* rows/test.c: rows moved by a GPU against memcpy, and added up against the loop of NUMERICS.md, 5.
 */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

#define ROWS_MAX 40

static void random_rows(struct random *r, uint32_t *rows, int64_t n, int64_t below)
{
    for (int64_t i = 0; i < n; i++) {
        rows[i] = random_below(r, (uint32_t)below);
    }
}

static void test_gather_copies_the_rows_it_is_told(void **state)
{
    (void)state;
    static const int64_t ds[] = {1, 3, 64, 129, 1024, 1030};
    struct random r = {1};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t d = ds[seed % 6], all = 1 + random_below(&r, 9), n = 1 + random_below(&r, 6);
        float *x = get_floats(all * d), *want = get_floats(n * d), *got = get_floats(n * d);
        uint32_t rows[ROWS_MAX];
        random_fill(&r, x, all * d, 1.0f);
        random_rows(&r, rows, n, all);
        float *device_x = to_device(x, (size_t)(all * d) * sizeof *x, "x");
        float *out = simt_malloc((size_t)(n * d) * sizeof *x, "out");
        uint32_t *device_rows = to_device(rows, (size_t)n * sizeof *rows, "rows");
        set_schedule(seed);
        assert_launched(kn_cuda_gather(device_x, device_rows, n, d, out, NULL));
        from_device(got, out, (size_t)(n * d) * sizeof *x);
        for (int64_t i = 0; i < n; i++) {
            memcpy(want + i * d, x + rows[i] * d, (size_t)d * sizeof *x);
        }
        assert_same_floats(got, want, n * d, "gather");
        simt_free(device_x);
        simt_free(device_rows);
        simt_free(out);
        free(x);
        free(want);
        free(got);
    }
}

/* Some host's act on the device. */
static struct kn_act upload_act(const struct kn_act *a, int64_t n)
{
    size_t blocks = (size_t)(n * ((a->k + KN_BLOCK - 1) / KN_BLOCK));

    return (struct kn_act){
        .f = to_device(a->f, (size_t)(n * a->k) * sizeof(float), "f"),
        .q = to_device(a->q, blocks * KN_BLOCK, "q"),
        .d = to_device(a->d, blocks * sizeof(float), "d"),
        .s = to_device(a->s, blocks * sizeof(int32_t), "s"),
        .h = to_device(a->h, blocks * sizeof(int32_t), "h"),
        .k = a->k,
    };
}

static void copy_row(const struct kn_act *a, int64_t from, struct kn_act *to, int64_t i)
{
    size_t nb = (size_t)((a->k + KN_BLOCK - 1) / KN_BLOCK), r = (size_t)from, t = (size_t)i;

    memcpy(to->f + i * a->k, a->f + from * a->k, (size_t)a->k * sizeof(float));
    memcpy(to->q + t * nb * KN_BLOCK, a->q + r * nb * KN_BLOCK, nb * KN_BLOCK);
    memcpy(to->d + t * nb, a->d + r * nb, nb * sizeof(float));
    memcpy(to->s + t * nb, a->s + r * nb, nb * sizeof(int32_t));
    memcpy(to->h + t * nb, a->h + r * nb, nb * sizeof(int32_t));
}

static void test_gather_act_copies_all_that_a_row_has(void **state)
{
    (void)state;
    static const int64_t ks[] = {1, 32, 33, 100, 576, 1056};
    struct random r = {2};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t k = ks[seed % 6], all = 1 + random_below(&r, 4), n = 1 + random_below(&r, 7);
        float *x = get_floats(all * k);
        struct kn_act a = get_act(all, k), want = get_act(n, k), to = device_act(n, k);
        uint32_t rows[ROWS_MAX];
        random_fill(&r, x, all * k, 1.0f);
        random_rows(&r, rows, n, all);
        kn_ops(KN_ISA_REF)->quantize(x, k, 0, all, &a);
        struct kn_act device = upload_act(&a, all);
        uint32_t *device_rows = to_device(rows, (size_t)n * sizeof *rows, "rows");
        set_schedule(seed);
        assert_launched(kn_cuda_gather_act(&device, device_rows, n, &to, NULL));
        for (int64_t i = 0; i < n; i++) {
            copy_row(&a, rows[i], &want, i);
        }
        assert_device_act(&to, &want, n);
        simt_free(device_rows);
        free_device_act(&device);
        free_device_act(&to);
        free_act(&a);
        free_act(&want);
        free(x);
    }
}

/* Floats only, quants only: what is not there is not asked for. */
static void test_gather_act_leaves_out_what_is_not_there(void **state)
{
    (void)state;
    struct random r = {3};
    float x[2 * 64], got[2 * 64], want[2 * 64];
    const uint32_t rows[2] = {1, 1};
    random_fill(&r, x, 128, 1.0f);
    struct kn_act a = {.f = to_device(x, sizeof x, "x"), .k = 64};
    struct kn_act to = {.f = simt_malloc(sizeof x, "to"), .k = 64};
    uint32_t *device_rows = to_device(rows, sizeof rows, "rows");
    set_schedule(1);
    assert_launched(kn_cuda_gather_act(&a, device_rows, 2, &to, NULL));
    from_device(got, to.f, sizeof got);
    memcpy(want, x + 64, 64 * sizeof *x);
    memcpy(want + 64, x + 64, 64 * sizeof *x);
    assert_same_floats(got, want, 128, "f");
    simt_free(a.f);
    simt_free(to.f);
    simt_free(device_rows);
}

/* More copies than a launch takes, from one buffer to places of another that lie apart. */
static void test_columns_are_copied_to_their_places(void **state)
{
    (void)state;
    enum { N = KN_CUDA_COPIES_MAX + 9, PIECE = 2048 };
    struct random r = {6};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        struct kn_cuda_copy copies[N];
        uint8_t *from = get_memory((size_t)N * PIECE), *want = get_memory((size_t)N * PIECE),
                *got = get_memory((size_t)N * PIECE);
        for (int i = 0; i < N * PIECE; i++) {
            from[i] = (uint8_t)random_below(&r, 256);
        }
        memset(want, 0, (size_t)N * PIECE);
        uint8_t *device_from = to_device(from, (size_t)N * PIECE, "from"),
                *to = to_device(want, (size_t)N * PIECE, "to");
        for (int i = 0; i < N; i++) {
            int64_t unit = i % 3 == 0 ? 16 : i % 3 == 1 ? 4 : 1;
            int64_t width = unit * random_below(&r, 9), rows = random_below(&r, 5);
            int64_t stride = width + unit * random_below(&r, 4), at = unit * random_below(&r, 3);
            copies[i] = (struct kn_cuda_copy){device_from + i * PIECE + at,
                                              to + i * PIECE + at,
                                              stride,
                                              width + unit,
                                              width,
                                              rows};
            for (int64_t row = 0; row < rows; row++) {
                memcpy(want + i * PIECE + at + row * (width + unit),
                       from + i * PIECE + at + row * stride, (size_t)width);
            }
        }
        set_schedule(seed);
        assert_launched(kn_cuda_copy_columns(copies, N, NULL));
        from_device(got, to, (size_t)N * PIECE);
        assert_memory_equal(got, want, (size_t)N * PIECE);
        simt_free(device_from);
        simt_free(to);
        free(from);
        free(want);
        free(got);
    }
}

static void test_scale_multiplies_each(void **state)
{
    (void)state;
    static const int64_t ns[] = {1, 3, 4, 8, 1023, 1024, 1030};
    struct random r = {5};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t n = ns[seed % 7];
        float *x = get_floats(n), *got = get_floats(n), by = random_normal(&r);
        random_fill(&r, x, n, 1.0f);
        float *device_x = to_device(x, (size_t)n * sizeof *x, "x");
        set_schedule(seed);
        assert_launched(kn_cuda_scale(device_x, n, by, NULL));
        from_device(got, device_x, (size_t)n * sizeof *x);
        for (int64_t i = 0; i < n; i++) {
            x[i] = by * x[i];
        }
        assert_same_floats(got, x, n, "scale");
        simt_free(device_x);
        free(x);
        free(got);
    }
}

static void test_pool_adds_row_after_row(void **state)
{
    (void)state;
    static const int64_t ds[] = {1, 64, 255, 256, 300, 576};
    struct random r = {4};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t d = ds[seed % 6], n = 1 + random_below(&r, ROWS_MAX);
        float *x = get_floats(n * d);
        double *sum = get_memory((size_t)d * sizeof *sum),
               *got = get_memory((size_t)d * sizeof *got);
        for (int64_t i = 0; i < n * d; i++) { /* far apart in size, so that the order shows */
            x[i] = random_normal(&r) * ldexpf(1.0f, (int)random_below(&r, 80) - 40);
        }
        for (int64_t j = 0; j < d; j++) {
            sum[j] = (double)random_normal(&r);
        }
        float *device_x = to_device(x, (size_t)(n * d) * sizeof *x, "x");
        double *device_sum = to_device(sum, (size_t)d * sizeof *sum, "sum");
        set_schedule(seed);
        assert_launched(kn_cuda_pool(device_x, n, d, device_sum, NULL));
        from_device(got, device_sum, (size_t)d * sizeof *got);
        for (int64_t i = 0; i < n; i++) {
            for (int64_t j = 0; j < d; j++) {
                sum[j] = sum[j] + (double)x[i * d + j];
            }
        }
        assert_memory_equal(got, sum, (size_t)d * sizeof *sum);
        simt_free(device_x);
        simt_free(device_sum);
        free(x);
        free(sum);
        free(got);
    }
}

static void test_bf16_rounds_to_the_nearest(void **state)
{
    (void)state;
    static const int64_t ds[] = {1, 3, 64, 129, 1024, 1030};
    struct random r = {7};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t d = ds[seed % 6], n = 1 + random_below(&r, 6), ld = d + random_below(&r, 5);
        float *x = get_floats(n * ld);
        double *want = get_memory((size_t)(n * d) * sizeof *want);
        uint16_t *out = simt_malloc((size_t)(n * d) * sizeof *out, "out");
        random_fill(&r, x, n * ld, 3.0f);
        for (int64_t i = 0; i < n * d; i++) {
            want[i] = x[i / d * ld + i % d];
        }
        float *device_x = to_device(x, (size_t)(n * ld) * sizeof *x, "x");
        set_schedule(seed);
        assert_launched(kn_cuda_bf16(device_x, ld, n, d, out, NULL));
        assert_device_bf16(out, want, n * d);
        simt_free(device_x);
        simt_free(out);
        free(x);
        free(want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_copies_the_rows_it_is_told),
        cmocka_unit_test(test_gather_act_copies_all_that_a_row_has),
        cmocka_unit_test(test_gather_act_leaves_out_what_is_not_there),
        cmocka_unit_test(test_columns_are_copied_to_their_places),
        cmocka_unit_test(test_scale_multiplies_each),
        cmocka_unit_test(test_pool_adds_row_after_row),
        cmocka_unit_test(test_bf16_rounds_to_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
