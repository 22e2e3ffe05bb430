/* embed/test.c: a row of the packed table is the row of the file, times the scale. */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

static void test_embed_gathers_rows_of_every_layout(void **state)
{
    (void)state;
    struct random r = {1};

    for (int i = 0; i < N_TYPES * KN_ISA_COUNT; i++) {
        enum kn_isa isa = (enum kn_isa)(i / N_TYPES);
        int type = nth_type(i % N_TYPES);
        int64_t rows = 37, cols = 768, n = 5;
        uint32_t ids[] = {36, 0, 15, 16, 0};
        if (!kn_isa_available(isa)) {
            print_message("SKIPPED on this CPU: %s\n", kn_isa_name(isa));
            continue;
        }
        uint8_t *w = random_weights(&r, type, rows, cols);
        size_t row_bytes = (size_t)(cols / kn_type_block(type)) * kn_type_block_bytes(type);
        struct kn_matrix m = pack_matrix(isa, type, rows, cols, w);
        float *x = get_floats(n * cols), *row = get_floats(cols);
        kn_ops(isa)->embed(&m, ids, n, 1.5f, x);
        for (int64_t t = 0; t < n; t++) {
            kn_dequantize_row(type, w + ids[t] * row_bytes, cols, row);
            for (int64_t c = 0; c < cols; c++) {
                row[c] *= 1.5f;
            }
            assert_same_floats(x + t * cols, row, cols, kn_type_name(type));
        }
        free(w);
        free((void *)(uintptr_t)m.data);
        free(x);
        free(row);
    }
}

static void test_embed_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {2};
    for (uint64_t seed = 1; seed <= 2 * CUDA_SEEDS; seed++) {
        int type = nth_type((int)(seed % N_TYPES));
        int64_t unit = kn_type_block(type);
        int64_t rows = 1 + random_below(&r, 30), n = 1 + random_below(&r, 4);
        int64_t cols = unit * (1 + random_below(&r, (uint32_t)(640 / unit)));
        uint32_t ids[4];
        for (int i = 0; i < 4; i++) {
            ids[i] = random_below(&r, (uint32_t)rows);
        }
        uint8_t *w = random_weights(&r, type, rows, cols);
        struct kn_matrix m = pack_matrix(KN_ISA_REF, type, rows, cols, w);
        struct kn_matrix device = device_matrix(type, rows, cols, w);
        size_t bytes = (size_t)(n * cols) * sizeof(float);
        float *want = get_floats(n * cols), *got = get_floats(n * cols);
        uint32_t *device_ids = to_device(ids, (size_t)n * sizeof *ids, "ids");
        float *x = simt_malloc(bytes, "x");
        kn_ops(KN_ISA_REF)->embed(&m, ids, n, 1.5f, want);
        set_schedule(seed);
        assert_launched(kn_cuda_embed(&device, device_ids, n, 1.5f, x, NULL));
        from_device(got, x, bytes);
        assert_same_floats(got, want, n * cols, kn_type_name(type));
        simt_free((void *)(uintptr_t)device.data);
        simt_free(device_ids);
        simt_free(x);
        free(w);
        free((void *)(uintptr_t)m.data);
        free(want);
        free(got);
    }
}

static void test_embed_bf16_gathers_rows(void **state)
{
    (void)state;
    struct random r = {3};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t rows = 1 + random_below(&r, 9), n = 1 + random_below(&r, 4);
        int64_t cols = 1 + random_below(&r, seed % 2 ? 40 : 1400);
        uint32_t ids[4];
        uint16_t *w = get_memory((size_t)(rows * cols) * sizeof *w);
        float *want = get_floats(n * cols), *got = get_floats(n * cols);
        for (int64_t i = 0; i < rows * cols; i++) {
            w[i] = (uint16_t)(0x3f00 + random_below(&r, 0x100)); /* 0.5 to 2 */
        }
        for (int64_t i = 0; i < n; i++) {
            ids[i] = random_below(&r, (uint32_t)rows);
            for (int64_t c = 0; c < cols; c++) {
                uint16_t b = w[ids[i] * cols + c];
                float part = (float)(b & 0x7f) / 128.0f;
                want[i * cols + c] = 1.5f * ((b < 0x3f80 ? 0.5f : 1.0f) * (1.0f + part));
            }
        }
        uint16_t *device = to_device(w, (size_t)(rows * cols) * sizeof *w, "w");
        uint32_t *device_ids = to_device(ids, (size_t)n * sizeof *ids, "ids");
        float *x = simt_malloc((size_t)(n * cols) * sizeof *x, "x");
        set_schedule(seed);
        assert_launched(kn_cuda_embed_bf16(device, cols, device_ids, n, 1.5f, x, NULL));
        from_device(got, x, (size_t)(n * cols) * sizeof *x);
        assert_same_floats(got, want, n * cols, "embed_bf16");
        simt_free(device);
        simt_free(device_ids);
        simt_free(x);
        free(w);
        free(want);
        free(got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed_gathers_rows_of_every_layout),
        cmocka_unit_test(test_embed_has_the_same_bits_on_a_gpu),
        cmocka_unit_test(test_embed_bf16_gathers_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
