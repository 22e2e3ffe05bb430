/* test_gemm.c: gemm.cu against the reference, bit by bit, and what it moves. */
#include "kernels/matmul/test_gemm.h"

#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

static const uint16_t wild_halves[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x7bff,
                                       0xfbff, 0x7c00, 0xfc00, 0x7e00};
static const uint8_t wild_bytes[] = {0xff, 0x00, 0x80, 0x7f, 0x0f, 0xf0};

/* Now and then a scale that no sane file has, so that sums become infinite, NaN, or keep a sign of
 * zero. */
static void make_wild(struct random *r, int type, uint8_t *w, int64_t n_units)
{
    struct block_map map = block_map(type);

    for (int64_t i = 0; i < n_units; i++, w += kn_type_block_bytes(type)) {
        if (random_below(r, 16) == 0) {
            put_half(w, map.d, wild_halves[random_below(r, 9)]);
            put_half(w, map.m, wild_halves[random_below(r, 9)]);
            if (type == KN_MXFP4) {
                w[0] = (uint8_t)random_u32(r);
            }
        }
    }
}

/* Integers as large as they can become; scales stay what they are. */
static void make_large(struct random *r, int type, uint8_t *w, int64_t n_units)
{
    struct block_map map = block_map(type);
    uint8_t quants = wild_bytes[random_below(r, 6)], subs = wild_bytes[random_below(r, 6)];

    for (int64_t i = 0; i < n_units; i++, w += kn_type_block_bytes(type)) {
        memset(w, quants, kn_type_block_bytes(type));
        memset(w + map.subs, subs, (size_t)map.n_subs);
        put_half(w, map.d, kn_f32_to_f16(0.1f + 0.01f * random_unit(r)));
        put_half(w, map.m, kn_f32_to_f16(random_unit(r)));
        if (type == KN_MXFP4) {
            w[0] = 120;
        }
    }
}

static uint8_t *get_weights(struct random *r, int type, int64_t rows, int64_t cols, uint64_t seed)
{
    uint8_t *w = random_weights(r, type, rows, cols);
    int64_t n_units = rows * (cols / kn_type_block(type));

    if (kn_type_block(type) == 1) {
        return w;
    }
    if (seed % 4 == 1) {
        make_wild(r, type, w, n_units);
    } else if (seed % 4 == 2) {
        make_large(r, type, w, n_units);
    }
    return w;
}

/* n rows on the host and, the same, on the device. */
struct act_pair {
    struct kn_act host, device;
};

static struct act_pair get_acts(struct random *r, int64_t n, int64_t cols, uint64_t seed)
{
    int64_t n_blocks = (cols + KN_BLOCK - 1) / KN_BLOCK;
    struct act_pair a = {get_act(n, cols), device_act(n, cols)};
    float *f = get_floats(n * cols);

    random_fill(r, f, n * cols, 1.0f);
    for (int64_t i = 0; seed % 4 == 2 && i < n * cols; i++) {
        f[i] = random_below(r, 64) == 0 ? -3.0f : 3.0f;
    }
    kn_ops(KN_ISA_REF)->quantize(f, cols, 0, n, &a.host);
    simt_upload(a.device.f, a.host.f, (size_t)(n * cols) * sizeof(float));
    simt_upload(a.device.q, a.host.q, (size_t)(n * n_blocks * KN_BLOCK));
    simt_upload(a.device.d, a.host.d, (size_t)(n * n_blocks) * sizeof(float));
    simt_upload(a.device.s, a.host.s, (size_t)(n * n_blocks) * sizeof(int32_t));
    simt_upload(a.device.h, a.host.h, (size_t)(n * n_blocks) * sizeof(int32_t));
    free(f);
    return a;
}

static void free_acts(struct act_pair *a)
{
    free_act(&a->host);
    free_device_act(&a->device);
}

/* Rows from `cut` on; those before and what is between the rows of y stay as they were. */
static void check_gemm(struct random *r, int type, int64_t rows, int64_t cols, int64_t n,
                       uint64_t seed)
{
    int64_t ldy = rows + random_below(r, 3);
    int64_t cut = seed % 3 == 0 ? KN_ROW_TILE * random_below(r, (uint32_t)(rows + 15) / 16) : 0;
    size_t y_bytes = (size_t)(n * ldy) * sizeof(float);
    bool accumulate = random_below(r, 2) != 0;
    uint8_t *w = get_weights(r, type, rows, cols, seed);
    struct kn_matrix m = pack_matrix(KN_ISA_REF, type, rows, cols, w);
    struct kn_matrix device = device_matrix(type, rows, cols, w);
    struct act_pair x = get_acts(r, n, cols, seed);
    float *want = get_floats(n * ldy), *got = get_floats(n * ldy);

    random_fill(r, want, n * ldy, 1.0f);
    float *y = to_device(want, y_bytes, "y");
    kn_ops(KN_ISA_REF)->matmul(&m, &x.host, n, cut, rows, accumulate, want, ldy);
    set_schedule(seed);
    assert_launched(kn_cuda_matmul(&device, &x.device, n, cut, rows, accumulate, y, ldy, NULL));
    from_device(got, y, y_bytes);
    assert_same_floats(got, want, n * ldy, kn_type_name(type));
    simt_free((void *)(uintptr_t)device.data);
    simt_free(y);
    free_acts(&x);
    free(w);
    free((void *)(uintptr_t)m.data);
    free(want);
    free(got);
}

/* Tokens and rows around the borders of tiles; fewer blocks than segments, an odd one, several a
 * segment. */
static void test_gemm_has_the_bits_of_the_reference(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {/* rows, units, tokens */
                                        {5, 1, 9},    {17, 2, 33},  {128, 3, 16}, {33, 9, 64},
                                        {129, 5, 65}, {40, 19, 40}, {16, 3, 130}, {200, 4, 31}};
    struct random r = {21};

    for (uint64_t i = 0; i < 3 * CUDA_SEEDS; i++) {
        int type = nth_type((int)(i % N_TYPES));
        const int64_t *s = shapes[random_below(&r, 8)], unit = kn_type_block(type);
        int64_t units = unit > KN_BLOCK ? (s[1] + 2) / 3 : s[1];
        int64_t cols = unit == 1 ? 29 * units : unit * units;
        check_gemm(&r, type, s[0], cols, s[2], 1 + i / 3);
    }
}

/* Slots for each expert, none for some, and room behind the last; rows of x in any order. */
static void check_experts(struct random *r, int type, int n_experts, int64_t cols, bool by_row,
                          uint64_t seed)
{
    int64_t rows = 1 + random_below(r, 80), n_tokens = 11, ldy = rows, n = 0;
    const void *experts[40];
    struct kn_matrix host[40], device[40];
    uint32_t begin[41] = {0};

    for (int e = 0; e < n_experts; e++) {
        static const uint32_t counts[] = {0, 1, 3, 0, 9, 70};
        uint8_t *w = get_weights(r, type, rows, cols, seed);
        begin[e + 1] = begin[e] + counts[random_below(r, n_experts > 8 ? 4 : 6)];
        host[e] = pack_matrix(KN_ISA_REF, type, rows, cols, w);
        device[e] = device_matrix(type, rows, cols, w);
        experts[e] = device[e].data;
        free(w);
    }
    n = begin[n_experts] + 2;
    struct act_pair x = get_acts(r, by_row ? n_tokens : n, cols, seed);
    uint32_t *x_rows = get_memory((size_t)n * sizeof *x_rows);
    float *want = get_floats(n * ldy), *got = get_floats(n * ldy);
    random_fill(r, want, n * ldy, 1.0f);
    float *y = to_device(want, (size_t)(n * ldy) * sizeof(float), "y");
    for (int64_t i = 0; i < n; i++) {
        x_rows[i] = by_row ? random_below(r, (uint32_t)n_tokens) : (uint32_t)i;
    }
    for (int e = 0; e < n_experts; e++) {
        for (uint32_t i = begin[e]; i < begin[e + 1]; i++) {
            struct kn_act row = x.host;
            row.f += x_rows[i] * cols;
            row.q += x_rows[i] * cols;
            row.d += x_rows[i] * cols / KN_BLOCK;
            row.s += x_rows[i] * cols / KN_BLOCK;
            row.h += x_rows[i] * cols / KN_BLOCK;
            kn_ops(KN_ISA_REF)->matmul(&host[e], &row, 1, 0, rows, false, want + i * ldy, ldy);
        }
    }
    void *d_experts = to_device(experts, (size_t)n_experts * sizeof *experts, "experts");
    void *d_begin = to_device(begin, (size_t)(n_experts + 1) * sizeof *begin, "slot_begin");
    void *d_rows = to_device(x_rows, (size_t)n * sizeof *x_rows, "x_rows");
    set_schedule(seed);
    assert_launched(kn_cuda_matmul_experts(&device[0], d_experts, n_experts, &x.device,
                                           by_row ? d_rows : NULL, d_begin, n, y, ldy, NULL));
    from_device(got, y, (size_t)(n * ldy) * sizeof(float));
    assert_same_floats(got, want, n * ldy, kn_type_name(type));
    for (int e = 0; e < n_experts; e++) {
        simt_free((void *)(uintptr_t)device[e].data);
        free((void *)(uintptr_t)host[e].data);
    }
    simt_free(d_experts);
    simt_free(d_begin);
    simt_free(d_rows);
    simt_free(y);
    free_acts(&x);
    free(x_rows);
    free(want);
    free(got);
}

static void test_gemm_of_experts_has_the_bits_of_each_alone(void **state)
{
    (void)state;
    struct random r = {22};

    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int type = nth_type((int)seed % N_TYPES);
        int64_t unit = kn_type_block(type);
        int64_t cols = unit * (1 + random_below(&r, unit > KN_BLOCK ? 2 : unit > 1 ? 6 : 150));
        check_experts(&r, type, seed % 5 == 0 ? 40 : 1 + (int)seed % 6, cols, seed % 3 != 0, seed);
    }
}

/* 128 rows by 64 tokens of 8 blocks: every byte comes from memory once, and little of what is
 * exchanged in shared memory waits for a bank. */
static void test_gemm_moves_little_more_than_it_must(void **state)
{
    (void)state;
    static const int types[] = {KN_Q4_1, KN_Q8_0, KN_Q4_K, KN_Q6_K, KN_F32, KN_F16};
    struct random r = {23};
    int64_t rows = 128, cols = 256, n = 64;
    if (!simt_has_shadow()) {
        skip();
    }
    for (int i = 0; i < 6; i++) {
        int type = types[i];
        bool is_float = kn_type_block(type) == 1, has_min = type == KN_Q4_1 || type == KN_Q4_K;
        uint8_t *w = get_weights(&r, type, rows, cols, 0);
        struct kn_matrix device = device_matrix(type, rows, cols, w);
        struct act_pair x = get_acts(&r, n, cols, 0);
        float *y = simt_malloc((size_t)(n * rows) * sizeof(float), "y");
        int64_t act_bytes = is_float ? 4 * cols : cols + cols / KN_BLOCK * (has_min ? 8 : 4);
        size_t bytes = kn_cuda_pack_bytes(type, rows, cols) + (size_t)(n * (act_bytes + 4 * rows));
        set_schedule(1);
        assert_launched(kn_cuda_matmul(&device, &x.device, n, 0, rows, false, y, rows, NULL));
        const struct simt_stats *s = simt_last_stats();
        print_message("%s, %ld x %ld, %ld tokens: %lu bytes of DRAM, %lu at least; %lu sectors, "
                      "%lu at least; %lu accesses to shared memory, %lu turns lost to banks\n",
                      kn_type_name(type), (long)rows, (long)cols, (long)n,
                      (unsigned long)s->unique_sectors * 32, (unsigned long)bytes,
                      (unsigned long)s->sectors, (unsigned long)s->sectors_min,
                      (unsigned long)s->shared_accesses, (unsigned long)s->bank_conflicts);
        assert_true(s->unique_sectors * 32 <= bytes + bytes / 20);
        assert_true(s->bank_conflicts <= s->shared_accesses / 8);
        simt_free((void *)(uintptr_t)device.data);
        simt_free(y);
        free_acts(&x);
        free(w);
    }
}

int test_gemm(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemm_has_the_bits_of_the_reference),
        cmocka_unit_test(test_gemm_of_experts_has_the_bits_of_each_alone),
        cmocka_unit_test(test_gemm_moves_little_more_than_it_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
