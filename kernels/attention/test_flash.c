/* test_flash.c: flash.cu against attention in double, within the error that it states. */
#include "kernels/attention/test_batch.h"

/* What flash.cu says of one row and head, and the row's largest |v|. */
static double bound_of(const struct kn_attn *a, const float *q, uint32_t pos, int kv_head,
                       double *v_max)
{
    const int hd = a->kv.head_dim;
    const uint32_t first = a->window != 0 && pos + 1 > a->window ? pos + 1 - a->window : 0;
    double most = 0.0, keys = 0.0;

    *v_max = 0.0;
    for (uint32_t j = first; j <= pos; j++) {
        const uint16_t *k = a->kv.pages + a->span.page_table[j / 16] * a->kv.page_stride +
                            (int64_t)kv_head * 32 * hd;
        double sum = 0.0, of_k = 0.0;
        for (int d = 0; d < hd; d++) {
            sum += fabs((double)q[d] * (double)kn_f16_to_f32(k[d * 16 + (int)(j % 16)]));
            of_k += fabs((double)kn_f16_to_f32(k[d * 16 + (int)(j % 16)]));
            double v = fabs((double)kn_f16_to_f32(k[hd * 16 + (int)(j % 16) * hd + d]));
            *v_max = v > *v_max ? v : *v_max;
        }
        sum *= (double)a->scale;
        most = sum > most ? sum : most;
        keys = of_k > keys ? of_k : keys;
    }
    most = most > (double)a->softcap ? most : (double)a->softcap;
    keys *= a->softcap > 1.0f ? (double)a->softcap : 1.0;
    double e = most * (0x1p-11 + hd * 0x1p-22) + keys * 0x1p-25 + 0x1p-20;
    return *v_max * (2.0 * expm1(e) + 0x1p-10 + (pos + 1 - first) * (0x1p-24 + 0x1p-22));
}

/* Squares of what the tiles' rows are off by and of what they are; fails where one is off too far.
 */
static void check_rows(const struct batch *b, const float *got, uint32_t rows, double *error,
                       double *signal)
{
    const int hd = b->a.kv.head_dim, group = b->a.n_heads / b->a.kv.n_kv_heads;

    for (uint32_t row = 0; row < rows; row++) {
        struct kn_attn a = b->a;
        a.q = b->q + row * a.ldq;
        a.span = (struct kn_span){b->table + b->table_at[row], b->pos[row], 1};
        for (int h = 0; h < a.n_heads; h++) {
            double want[256], v_max;
            double most = bound_of(&a, a.q + h * hd, b->pos[row], h / group, &v_max);
            softmax_in_double(&a, 0, h, want);
            for (int d = 0; d < hd; d++) {
                double off = (double)got[row * a.ldo + h * hd + d] - want[d];
                if (!(fabs(off) <= most)) {
                    fail_msg("row %u, head %d, element %d: off by %g, at most %g", row, h, d, off,
                             most);
                }
                *error += off * off;
                *signal += want[d] * want[d];
            }
        }
    }
}

/* What is not of a tile's row and head must be left alone. */
static void check_left_alone(const struct batch *b, const float *got, uint32_t rows)
{
    const int64_t width = (int64_t)b->a.n_heads * b->a.kv.head_dim;

    for (int64_t i = 0; i < b->n * b->a.ldo; i++) {
        if (i / b->a.ldo >= rows || i % b->a.ldo >= width) {
            assert_true(got[i] == LEFT_ALONE);
        }
    }
}

static void check_flash(const struct batch *b, uint64_t seed, double *error, double *signal)
{
    size_t bytes = (size_t)(b->n * b->a.ldo) * sizeof(float);
    float *got = get_floats(b->n * b->a.ldo);
    struct on_device d = batch_upload(b, 0);
    uint32_t n_tiles = b->n_tiles > 1 ? b->n_tiles - 1 : 1; /* the last is left alone */
    uint32_t rows = b->n_tiles > 1 ? b->tiles[n_tiles].row : b->n;

    for (int64_t i = 0; i < b->n * b->a.ldo; i++) {
        got[i] = LEFT_ALONE;
    }
    d.a.out = to_device(got, bytes, "out");
    set_schedule(seed);
    assert_launched(kn_cuda_attention_flash(&d.a, d.tiles, n_tiles, NULL));
    from_device(got, d.a.out, bytes);
    check_rows(b, got, rows, error, signal);
    check_left_alone(b, got, rows);
    simt_free(d.a.out);
    free_on_device(&d);
    free(got);
}

/* Each instance (head_dim 64, 96, 128, 256) and what fills up to it; short prompts, whose rows have
 * few weights and show a wrong one; several tiles of keys; windows whose first pages are gone. */
static void flash_shape(struct batch_shape *s, struct random *r, uint32_t seed)
{
    static const struct batch_shape seen[4] = {
        {.pos = {0, 62, 30}, .rows = {9, 2, 2}}, /* tiles that the second row alone sees all of */
        {.pos = {3, 90, 0}, .rows = {6, 7, 1}, .window = 5},
        {.pos = {70, 100}, .rows = {3, 3}, .window = 40},
        {.pos = {0, 30}, .rows = {4, 4}, .softcap = 5.0f},
    };
    static const int dims[4][4] = {
        {64, 8, 40, 64}, {80, 96, 72, 80}, {128, 104, 128, 120}, {256, 136, 192, 256}};
    static const int groups[] = {1, 4, 3, 7, 2};

    *s = seen[(seed + seed / 4) % 4];
    s->pos[1] += s->window != 0 ? random_below(r, 8) : 0;
    s->head_dim = dims[seed % 4][seed / 4 % 4];
    s->group = s->head_dim > 128 ? 1 + (int)random_below(r, 2) : groups[random_below(r, 5)];
    s->n_kv = s->head_dim <= 64 ? 2 : 1;
    s->type = KN_KV_F16;
}

/* The bound is for errors that all have one sign, so that it would miss a wrong weight of many. The
 * root mean square: fp16 rounds weights and q by up to 2^-11 of each, and neither a row's sum nor a
 * score adds them up with one sign; 2^-10 of the rows' own is allowed. */
static void test_flash_is_attention(void **state)
{
    (void)state;
    struct random r = {11};

    for (uint32_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        struct batch_shape s;
        struct batch b;
        double error = 0.0, signal = 0.0;
        flash_shape(&s, &r, seed);
        batch_init(&b, &r, &s);
        batch_tiles(&b, &s, kn_cuda_attention_flash_rows(b.a.n_heads, s.n_kv, s.head_dim));
        check_flash(&b, seed, &error, &signal);
        print_message("head_dim %d, group %d, window %u, softcap %g: rms error 2^%.1f of the "
                      "rms\n",
                      s.head_dim, s.group, s.window, (double)s.softcap, 0.5 * log2(error / signal));
        assert_true(error < 0x1p-20 * signal);
        batch_release(&b);
    }
}

/* More heads of a KV head than a block has queries, and more rows than a tile has. */
static void test_flash_has_several_blocks_a_tile(void **state)
{
    (void)state;
    static const struct batch_shape shapes[] = {
        {.n_kv = 1, .group = 130, .head_dim = 16, .pos = {20}, .rows = {2}},
        {.n_kv = 1, .group = 4, .head_dim = 16, .pos = {7}, .rows = {50}},
    };
    struct random r = {12};

    for (uint32_t i = 0; i < 2; i++) {
        struct batch b;
        double error = 0.0, signal = 0.0;
        batch_init(&b, &r, &shapes[i]);
        batch_tiles(&b, &shapes[i],
                    kn_cuda_attention_flash_rows(b.a.n_heads, 1, shapes[i].head_dim));
        assert_true(b.n_tiles == 2);
        check_flash(&b, 1 + i, &error, &signal);
        assert_true(error < 0x1p-20 * signal);
        batch_release(&b);
    }
}

/* That row and head is NaN, and nothing else is. */
static void test_flash_of_a_q_that_fp16_has_not(void **state)
{
    (void)state;
    struct random r = {15};
    struct batch_shape s = {
        .n_kv = 1, .group = 3, .head_dim = 64, .type = KN_KV_F16, .pos = {40}, .rows = {4}};
    struct batch b;

    batch_init(&b, &r, &s);
    size_t bytes = (size_t)(b.n * b.a.ldo) * sizeof(float);
    float *got = get_floats(b.n * b.a.ldo);
    b.q[2 * b.a.ldq + 64 + 5] = 1e9f; /* row 2, head 1 */
    struct on_device d = batch_upload(&b, 0);
    d.a.out = to_device(got, bytes, "out");
    assert_launched(kn_cuda_attention_flash(&d.a, d.tiles, b.n_tiles, NULL));
    from_device(got, d.a.out, bytes);
    for (uint32_t row = 0; row < 4; row++) {
        for (int i = 0; i < 3 * 64; i++) {
            assert_true(isnan(got[row * b.a.ldo + i]) == (row == 2 && i / 64 == 1));
        }
    }
    simt_free(d.a.out);
    free_on_device(&d);
    batch_release(&b);
    free(got);
}

static void test_flash_refuses_int8(void **state)
{
    (void)state;
    struct random r = {13};
    struct batch_shape s = {
        .n_kv = 1, .group = 1, .head_dim = 64, .type = KN_KV_INT8, .pos = {3}, .rows = {1}};
    struct batch b;

    batch_init(&b, &r, &s);
    struct on_device d = batch_upload(&b, 0);
    assert_int_equal(kn_cuda_attention_flash(&d.a, d.tiles, b.n_tiles, NULL), -1);
    assert_int_equal(kn_cuda_attention_flash(&d.a, d.tiles, 0, NULL), 0);
    free_on_device(&d);
    batch_release(&b);
}

/* A prompt of two tiles of keys: bytes beside the least, and no bank conflicts of its own making.
 */
static void test_flash_reads_k_and_v_once(void **state)
{
    (void)state;
    struct random r = {14};

    if (!simt_has_shadow()) {
        skip();
    }
    for (int hd = 64; hd <= 256; hd *= 2) {
        struct batch_shape s = {
            .n_kv = 1, .group = 8, .head_dim = hd, .type = KN_KV_F16, .pos = {120}, .rows = {8}};
        struct batch b;
        batch_init(&b, &r, &s);
        b.a.ldq = b.a.ldo = 8 * hd;
        batch_tiles(&b, &s, kn_cuda_attention_flash_rows(8, 1, hd));
        struct on_device d = batch_upload(&b, 0);
        d.a.out = simt_malloc((size_t)(b.n * b.a.ldo) * sizeof(float), "out");
        assert_launched(kn_cuda_attention_flash(&d.a, d.tiles, b.n_tiles, NULL));
        const struct simt_stats *stats = simt_last_stats();
        uint64_t least = 128 * (uint64_t)hd * 4 + 8 * 8 * (uint64_t)hd * 8;
        uint64_t got = stats->unique_sectors * 32;
        print_message(
            "head_dim %d: %lu bytes of DRAM, least %lu; %lu sectors of L1, least %lu; %lu "
            "bank conflicts in %lu accesses\n",
            hd, (unsigned long)got, (unsigned long)least, (unsigned long)stats->sectors,
            (unsigned long)stats->sectors_min, (unsigned long)stats->bank_conflicts,
            (unsigned long)stats->shared_accesses);
        assert_true(got >= least && got * 100 < least * 105);
        assert_int_equal(stats->bank_conflicts, 0);
        simt_free(d.a.out);
        free_on_device(&d);
        batch_release(&b);
    }
}

int test_flash(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flash_is_attention),
        cmocka_unit_test(test_flash_has_several_blocks_a_tile),
        cmocka_unit_test(test_flash_of_a_q_that_fp16_has_not),
        cmocka_unit_test(test_flash_refuses_int8),
        cmocka_unit_test(test_flash_reads_k_and_v_once),
    };
    return cmocka_run_group_tests_name("flash", tests, NULL, NULL);
}
