/* matmul/test.c: against double arithmetic, and against the reference bit by bit. */
#include "kernels/cuda_testing.h"
#include "kernels/matmul/test_gemm.h"
#include "kernels/testing.h"

static bool is_float(int type)
{
    return kn_type_block(type) == 1;
}

/* What the operation stands for: the weights as the file says times the activations as quantised;
 * and in *size the sum of the products' sizes. */
static double want_element(int type, const uint8_t *w, int64_t row, const struct kn_act *x,
                           int64_t t, int64_t cols, double *size)
{
    float *values = get_floats(cols);
    size_t row_bytes = (size_t)(cols / kn_type_block(type)) * kn_type_block_bytes(type);
    double sum = 0.0;

    kn_dequantize_row(type, w + (size_t)row * row_bytes, cols, values);
    *size = 0.0;
    for (int64_t c = 0; c < cols; c++) {
        int64_t b = t * ((cols + KN_BLOCK - 1) / KN_BLOCK) + c / KN_BLOCK;
        double a = is_float(type) ? (double)x->f[t * cols + c]
                                  : (double)x->d[b] * x->q[b * KN_BLOCK + c % KN_BLOCK];
        sum += (double)values[c] * a;
        *size += fabs((double)values[c] * a);
    }
    free(values);
    return sum;
}

static void test_matmul_is_near_double(void **state)
{
    (void)state;
    struct random r = {1};
    for (int i = 0; i < N_TYPES; i++) {
        int type = nth_type(i);
        int64_t rows = 19, cols = 768, n = 3;
        uint8_t *w = random_weights(&r, type, rows, cols);
        struct kn_matrix m = pack_matrix(KN_ISA_REF, type, rows, cols, w);
        struct kn_act x = get_act(n, cols);
        float *f = get_floats(n * cols), *y = get_floats(n * rows);
        random_fill(&r, f, n * cols, 1.0f);
        kn_ops(KN_ISA_REF)->quantize(f, cols, 0, n, &x);
        kn_ops(KN_ISA_REF)->matmul(&m, &x, n, 0, rows, false, y, rows);
        for (int64_t t = 0; t < n; t++) {
            for (int64_t row = 0; row < rows; row++) {
                double size, want = want_element(type, w, row, &x, t, cols, &size);
                assert_true(fabs((double)y[t * rows + row] - want) < 1e-6 * size);
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

static const uint16_t wild_halves[] = {0x0000, 0x8000, 0x0001, 0x83ff, 0x3c00, 0xbc00,
                                       0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00};
static const uint8_t wild_exponents[] = {120, 0, 1, 2, 254, 255};
static const uint8_t wild_bytes[] = {0xff, 0x00, 0x80, 0x7f, 0x0f, 0xf0, 0x08, 0x88};

/* Quants and sub-scales at the extremes of their integers, whole rows of them, so that sums grow as
 * far as they can; now and then a scale of fp16 that no sane file has. */
static void make_extreme(struct random *r, int type, uint8_t *w, int64_t n_blocks)
{
    struct block_map map = block_map(type);
    size_t bytes = kn_type_block_bytes(type);
    uint8_t quants = wild_bytes[random_below(r, 8)], subs = wild_bytes[random_below(r, 8)];
    uint8_t exponent = wild_exponents[random_below(r, 6)]; /* of MXFP4 */

    for (int64_t b = 0; b < n_blocks; b++, w += bytes) {
        uint16_t d = 0x2e66, m = 0xae66; /* 0.1 and -0.1 */
        if (random_below(r, 50) == 0) {
            d = wild_halves[random_below(r, 11)];
            m = wild_halves[random_below(r, 11)];
        }
        memset(w, quants, bytes);
        memset(w + map.subs, subs, (size_t)map.n_subs);
        put_half(w, map.d, d);
        put_half(w, map.m, m);
        if (type == KN_MXFP4) {
            w[0] = random_below(r, 20) == 0 ? (uint8_t)random_u32(r) : exponent;
        }
    }
}

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
    if (!is_float(type) && random_below(r, 3) == 0) {
        for (int64_t i = 0; i < n * cols; i++) {
            f[i] = random_below(r, 64) == 0 ? -3.0f : 3.0f;
        }
        make_extreme(r, type, p->w, rows * (cols / kn_type_block(type)));
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

/* Every instruction set against the reference, in ranges of `step` rows. */
static void check_problem(struct random *r, int type, int64_t rows, int64_t cols, int64_t n,
                          int64_t step)
{
    struct problem p;

    problem_init(&p, r, type, rows, cols, n);
    float *want = solve(&p, KN_ISA_REF, rows);
    for (int isa = KN_ISA_REF + 1; isa < KN_ISA_COUNT; isa++) {
        if (kn_isa_available((enum kn_isa)isa)) {
            float *got = solve(&p, (enum kn_isa)isa, step);
            assert_same_floats(got, want, n * p.ldy, kn_type_name(type));
            free(got);
        }
    }
    free(want);
    problem_release(&p);
}

/* Every number of tokens to 70. */
static void test_matmul_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    struct random r = {2};

    for (enum kn_isa isa = KN_ISA_REF; isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        print_message("%s\n", kn_isa_name(isa));
    }
    for (int round = 0; round < 70 * N_TYPES; round++) {
        int type = nth_type(round % N_TYPES);
        int64_t unit = kn_type_block(type);
        int64_t cols = unit * (1 + random_below(&r, (uint32_t)(800 / unit)));
        int64_t rows = 1 + random_below(&r, 80), step = KN_ROW_TILE * (1 + random_below(&r, 7));
        check_problem(&r, type, rows, cols, 1 + round / N_TYPES, step);
    }
}

/* Rows and batches so long that they are worked on in parts. */
static void test_matmul_has_the_same_bits_in_parts(void **state)
{
    (void)state;
    static const int64_t shapes[][3] = {
        {19, 2304, 18}, {3, 512, 260}, {3, 6400, 18}, {1, 43776, 13}};
    struct random r = {6};

    for (int i = 0; i < 4 * N_TYPES; i++) {
        const int64_t *s = shapes[i / N_TYPES];
        check_problem(&r, nth_type(i % N_TYPES), s[0], s[1], s[2], KN_ROW_TILE);
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
            problem_init(&p, &r, nth_type(i), 80, 768, 23);
            p.accumulate = false;
            float *all = solve(&p, isa, 80);
            for (int64_t t = 0; t < p.n; t++) {
                struct problem one = p;
                one.n = 1;
                one.x.f += t * p.cols;
                one.x.q += t * p.cols;
                one.x.d += t * p.cols / KN_BLOCK;
                one.x.s += t * p.cols / KN_BLOCK;
                one.x.h += t * p.cols / KN_BLOCK;
                float *alone = solve(&one, isa, 80);
                assert_same_floats(alone, all + t * p.ldy, p.rows, "alone");
                free(alone);
            }
            free(all);
            problem_release(&p);
        }
    }
}

/* Zeroes the activations of blocks [begin, end). */
static void silence(struct kn_act *x, int64_t begin, int64_t end)
{
    for (int64_t b = begin; b < end; b++) {
        memset(x->q + b * KN_BLOCK, 0, KN_BLOCK);
        x->d[b] = 0.0f;
        x->s[b] = x->h[b] = 0;
    }
}

/* Two ranks with half of the segments each: their sums add up to the bits of one. A super-block is
 * never cut. */
static void test_matmul_is_the_sum_of_two_halves_of_its_segments(void **state)
{
    (void)state;
    for (enum kn_isa isa = KN_ISA_REF; isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {5};
        for (int i = 0; i < N_BLOCK_TYPES * 8; i++) {
            int type = block_types[i % N_BLOCK_TYPES];
            int64_t unit = kn_type_block(type), n_units = 1 + i / N_BLOCK_TYPES, rows = 48;
            int64_t cols = unit * n_units, border = n_units / 2 * unit / KN_BLOCK;
            float *f = get_floats(cols);
            struct problem p = {.type = type, .rows = rows, .cols = cols, .n = 1, .ldy = rows};
            p.w = random_weights(&r, type, rows, cols);
            p.before = get_floats(rows);
            p.x = get_act(1, cols);
            random_fill(&r, f, cols, 1.0f);
            kn_ops(KN_ISA_REF)->quantize(f, cols, 0, 1, &p.x);
            float *all = solve(&p, isa, rows);
            silence(&p.x, border, cols / KN_BLOCK);
            float *first = solve(&p, isa, rows);
            kn_ops(KN_ISA_REF)->quantize(f, cols, 0, 1, &p.x);
            silence(&p.x, 0, border);
            float *second = solve(&p, isa, rows);
            for (int64_t row = 0; row < rows; row++) {
                first[row] += second[row];
            }
            assert_same_floats(first, all, rows, kn_type_name(type));
            free(f);
            free(all);
            free(first);
            free(second);
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
        int type = nth_type(i % N_TYPES);
        int64_t rows = 83, cols = 768;
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
    assert_true(kn_serves(KN_Q4_K, 1, 256));
    assert_false(kn_serves(KN_Q4_K, 1, 32));
    assert_false(kn_serves(9, 1, 256)); /* Q8_1 */
    assert_int_equal(kn_pack_bytes(KN_ISA_REF, 9, 1, 256), 0);
    assert_int_equal(kn_type_block(9), 0);
    assert_int_equal(kn_type_block_bytes(9), 0);
    assert_string_equal(kn_type_name(9), "?");
}

/* Rows in two parts, n tokens, with what was in y added or not; what is between the rows of y is
 * nobody's. */
static void check_on_gpu(struct random *r, int type, int64_t n, uint64_t seed)
{
    int64_t rows = 1 + random_below(r, 40), unit = kn_type_block(type);
    int64_t cols = unit * (1 + random_below(r, (uint32_t)(unit == 256 ? 12 : 700 / unit)));
    int64_t n_blocks = (cols + KN_BLOCK - 1) / KN_BLOCK, ldy = rows + random_below(r, 3);
    int64_t cut = KN_ROW_TILE * random_below(r, (uint32_t)(rows + 15) / KN_ROW_TILE);
    size_t y_bytes = (size_t)(n * ldy) * sizeof(float);
    uint8_t *w = random_weights(r, type, rows, cols);
    struct kn_matrix m = pack_matrix(KN_ISA_REF, type, rows, cols, w);
    struct kn_matrix device = device_matrix(type, rows, cols, w);
    struct kn_act x = get_act(n, cols), device_x = device_act(n, cols);
    float *f = get_floats(n * cols), *want = get_floats(n * ldy), *got = get_floats(n * ldy);

    random_fill(r, f, n * cols, 1.0f);
    random_fill(r, want, n * ldy, 1.0f);
    for (int64_t i = 0; seed % 2 == 0 && i < n * cols; i++) {
        f[i] = fabsf(f[i]) + 1.0f; /* sums so large that d times them has more than 24 bits */
    }
    kn_ops(KN_ISA_REF)->quantize(f, cols, 0, n, &x);
    simt_upload(device_x.q, x.q, (size_t)(n * n_blocks * KN_BLOCK));
    simt_upload(device_x.f, x.f, (size_t)(n * cols) * sizeof *x.f);
    simt_upload(device_x.h, x.h, (size_t)(n * n_blocks) * sizeof *x.h);
    simt_upload(device_x.d, x.d, (size_t)(n * n_blocks) * sizeof *x.d);
    simt_upload(device_x.s, x.s, (size_t)(n * n_blocks) * sizeof *x.s);
    float *y = to_device(want, y_bytes, "y");
    bool accumulate = random_below(r, 2) != 0;
    kn_ops(KN_ISA_REF)->matmul(&m, &x, n, 0, rows, accumulate, want, ldy);
    set_schedule(seed);
    assert_launched(kn_cuda_matmul(&device, &device_x, n, cut, rows, accumulate, y, ldy, NULL));
    assert_launched(kn_cuda_matmul(&device, &device_x, n, 0, cut, accumulate, y, ldy, NULL));
    from_device(got, y, y_bytes);
    assert_same_floats(got, want, n * ldy, kn_type_name(type));
    simt_free((void *)(uintptr_t)device.data);
    simt_free(y);
    free_device_act(&device_x);
    free_act(&x);
    free(w);
    free((void *)(uintptr_t)m.data);
    free(f);
    free(want);
    free(got);
}

/* What 64 rows and n tokens move, as the emulator counts it: weights, activations and y once, and
 * each sector of the weights once. */
static void check_traffic(struct random *r, int type, int64_t n)
{
    int64_t rows = 64, cols = kn_type_block(type) == 256 || n > 1 ? 2304 : 576,
            n_blocks = cols / KN_BLOCK;
    uint8_t *w = random_weights(r, type, rows, cols);
    struct kn_matrix device = device_matrix(type, rows, cols, w);
    struct kn_act x = get_act(n, cols), device_x = device_act(n, cols);
    float *y = simt_malloc((size_t)(n * rows) * sizeof(float), "y");
    size_t bytes = kn_cuda_pack_bytes(type, rows, cols) + (size_t)(n * (cols + 4 * rows)) +
                   (size_t)(n * n_blocks) * (block_map(type).m >= 0 ? 8 : 4);
    simt_upload(device_x.q, x.q, (size_t)(n * cols));
    simt_upload(device_x.d, x.d, (size_t)(n * n_blocks) * 4);
    simt_upload(device_x.s, x.s, (size_t)(n * n_blocks) * 4);
    simt_upload(device_x.h, x.h, (size_t)(n * n_blocks) * 4);
    set_schedule(1);
    assert_launched(kn_cuda_matmul(&device, &device_x, n, 0, rows, false, y, rows, NULL));
    const struct simt_stats *s = simt_last_stats();
    print_message(
        "%s, 64 x %ld, %ld token(s): %lu bytes of DRAM, %lu at least; from L1 %lu sectors, "
        "%lu at least; %lu turns lost to banks\n",
        kn_type_name(type), (long)cols, (long)n, (unsigned long)s->unique_sectors * 32,
        (unsigned long)bytes, (unsigned long)s->sectors, (unsigned long)s->sectors_min,
        (unsigned long)s->bank_conflicts);
    assert_true(s->unique_sectors * 32 <= bytes + bytes / 20);
    /* MXFP4 has half a sector of scales a block; several tokens, scales of short segments. */
    assert_true(s->sectors <= s->sectors_min + s->sectors_min / (n == 1 ? 16 : 4));
    simt_free((void *)(uintptr_t)device.data);
    simt_free(y);
    free_device_act(&device_x);
    free_act(&x);
    free(w);
}

static void test_matmul_on_a_gpu_moves_no_more_than_it_must(void **state)
{
    (void)state;
    struct random r = {12};
    if (!simt_has_shadow()) {
        skip();
    }
    for (int i = 0; i < N_BLOCK_TYPES; i++) {
        check_traffic(&r, block_types[i], 1);
        check_traffic(&r, block_types[i], KN_CUDA_TOKENS_MAX);
    }
}

static void test_matmul_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    struct random r = {11};
    for (int i = 0; i < N_TYPES * KN_CUDA_TOKENS_MAX; i++) { /* all seeds, over and over */
        check_on_gpu(&r, nth_type(i % N_TYPES), 1 + i / N_TYPES, 1 + (uint64_t)i % CUDA_SEEDS);
    }
    struct kn_matrix unserved = {.type = 9, .rows = 1, .cols = 256}; /* Q8_1 */
    struct kn_act x = {.k = 256};
    float y;
    assert_int_equal(kn_cuda_matmul(&unserved, &x, 1, 0, 1, false, &y, 1, NULL), -1);
    assert_int_equal(kn_cuda_pack_bytes(9, 1, 256), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul_is_near_double),
        cmocka_unit_test(test_matmul_has_the_same_bits_everywhere),
        cmocka_unit_test(test_matmul_has_the_same_bits_in_parts),
        cmocka_unit_test(test_matmul_does_not_depend_on_the_batch),
        cmocka_unit_test(test_matmul_is_the_sum_of_two_halves_of_its_segments),
        cmocka_unit_test(test_pack_in_ranges_is_pack_at_once),
        cmocka_unit_test(test_types_that_are_not_served_are_refused),
        cmocka_unit_test(test_matmul_has_the_same_bits_on_a_gpu),
        cmocka_unit_test(test_matmul_on_a_gpu_moves_no_more_than_it_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) + test_gemm();
}
