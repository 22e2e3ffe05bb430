/* moe/test.c: against a plain search and double arithmetic, and against the reference by bits. */
#include "kernels/cuda_testing.h"
#include "kernels/testing.h"

#define EXPERTS_MAX 130
#define USED_MAX 9

/* How many experts go before `id`: more logit, or as much and a lower id. */
static int rank_of(const float *logits, int n_experts, int id)
{
    int rank = 0;

    for (int i = 0; i < n_experts; i++) {
        rank += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
    }
    return rank;
}

/* Coarse logits, so that many are equal. */
static void test_route_takes_the_best_and_the_lowest_of_equals(void **state)
{
    (void)state;
    struct random r = {1};

    for (int round = 0; round < 2000; round++) {
        int n_experts = 1 + (int)random_below(&r, EXPERTS_MAX);
        int n_used = 1 + (int)random_below(&r, (uint32_t)(n_experts < 9 ? n_experts : USED_MAX));
        float logits[EXPERTS_MAX], weights[USED_MAX];
        uint32_t ids[USED_MAX];
        double mass = 0.0;
        int found = 0;
        for (int i = 0; i < n_experts; i++) {
            logits[i] = (float)(int)random_below(&r, 7) * 0.75f - 2.0f;
        }
        kn_ops(KN_ISA_REF)->route(logits, n_experts, 1, n_experts, n_used, ids, weights);
        for (int id = 0; id < n_experts; id++) {
            mass += rank_of(logits, n_experts, id) < n_used ? exp((double)logits[id]) : 0.0;
        }
        for (int id = 0; id < n_experts; id++) {
            if (rank_of(logits, n_experts, id) < n_used) {
                assert_int_equal(ids[found], id);
                double want = exp((double)logits[id]) / mass;
                assert_true(fabs((double)weights[found] - want) <= 1e-6 * want);
                found++;
            }
        }
        assert_int_equal(found, n_used);
    }
}

static void test_route_puts_nan_last(void **state)
{
    (void)state;
    const float logits[] = {NAN, -INFINITY, 1.0f, NAN, 2.0f};
    const float poisoned[] = {NAN, NAN, NAN};
    float weights[3];
    uint32_t ids[3];

    kn_ops(KN_ISA_REF)->route(logits, 5, 1, 5, 3, ids, weights);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 2);
    assert_int_equal(ids[2], 4);
    assert_true(weights[0] == 0.0f && weights[1] > 0.0f && weights[2] > weights[1]);
    kn_ops(KN_ISA_REF)->route(poisoned, 3, 1, 3, 2, ids, weights);
    assert_int_equal(ids[0], 0);
    assert_int_equal(ids[1], 1);
    assert_true(weights[0] != weights[0] && weights[1] != weights[1]);
}

static void test_combine_is_near_double(void **state)
{
    (void)state;
    struct random r = {2};
    const uint32_t rows[] = {4, 0, 3};
    float y[5 * 40], x[40], was[40], weights[3];

    for (int round = 0; round < 100; round++) {
        random_fill(&r, y, 5 * 40, 1.0f);
        random_fill(&r, x, 40, 1.0f);
        random_fill(&r, weights, 3, 1.0f);
        memcpy(was, x, sizeof x);
        kn_ops(KN_ISA_REF)->combine(y, rows, weights, 3, 40, x);
        for (int c = 0; c < 40; c++) {
            double want = (double)was[c];
            for (int i = 0; i < 3; i++) {
                want += (double)weights[i] * (double)y[rows[i] * 40 + (uint32_t)c];
            }
            assert_true(fabs((double)x[c] - want) <= 2e-6);
        }
    }
}

static void test_moe_has_the_same_bits_everywhere(void **state)
{
    (void)state;
    for (enum kn_isa isa = next_isa(KN_ISA_REF); isa < KN_ISA_COUNT; isa = next_isa(isa)) {
        struct random r = {3};
        for (int round = 0; round < 500; round++) {
            int n_experts = 1 + (int)random_below(&r, EXPERTS_MAX);
            int most = n_experts < USED_MAX ? n_experts : USED_MAX;
            int n_used = 1 + (int)random_below(&r, (uint32_t)most);
            int64_t ld = n_experts + random_below(&r, 3), n = 1 + random_below(&r, 4);
            int64_t d = 1 + random_below(&r, 100);
            float *logits = get_floats(n * ld), *y = get_floats(n * n_used * d);
            float *want = get_floats(d), *got = get_floats(d);
            float w[2][4 * USED_MAX];
            uint32_t ids[2][4 * USED_MAX], rows[USED_MAX];
            random_fill(&r, logits, n * ld, 3.0f);
            random_fill(&r, y, n * n_used * d, 3.0f);
            random_fill(&r, want, d, 3.0f);
            memcpy(got, want, (size_t)d * sizeof *got);
            if (round % 7 == 0) {
                logits[random_below(&r, (uint32_t)(n * ld))] = round % 2 ? NAN : -INFINITY;
            }
            kn_ops(KN_ISA_REF)->route(logits, ld, n, n_experts, n_used, ids[0], w[0]);
            kn_ops(isa)->route(logits, ld, n, n_experts, n_used, ids[1], w[1]);
            assert_memory_equal(ids[0], ids[1], (size_t)(n * n_used) * sizeof ids[0][0]);
            assert_same_floats(w[1], w[0], n * n_used, "weights");
            for (int i = 0; i < n_used; i++) {
                rows[i] = random_below(&r, (uint32_t)(n * n_used));
            }
            kn_ops(KN_ISA_REF)->combine(y, rows, w[0], n_used, d, want);
            kn_ops(isa)->combine(y, rows, w[0], n_used, d, got);
            assert_same_floats(got, want, d, kn_isa_name(isa));
            free(logits);
            free(y);
            free(want);
            free(got);
        }
    }
}

/* ---- on a GPU ------------------------------------------------------------------------------- */

/* The choices of n rows, and where their slots are. */
struct routing {
    int64_t n;
    int n_experts, n_used;
    uint32_t *ids, *slots, *rows, *begin;
    float *weights;
};

static struct routing get_routing(int64_t n, int n_experts, int n_used)
{
    size_t bytes = (size_t)(n * n_used) * sizeof(uint32_t);

    return (struct routing){
        .n = n,
        .n_experts = n_experts,
        .n_used = n_used,
        .ids = get_memory(bytes),
        .slots = get_memory(bytes),
        .rows = get_memory(bytes),
        .begin = get_memory((size_t)(n_experts + 1) * sizeof(uint32_t)),
        .weights = get_memory(bytes),
    };
}

static void free_routing(struct routing *g)
{
    free(g->ids);
    free(g->slots);
    free(g->rows);
    free(g->begin);
    free(g->weights);
}

/* The order of slots by its definition: expert by expert, row by row. */
static void place_slots(struct routing *g)
{
    uint32_t slot = 0;

    for (int e = 0; e < g->n_experts; e++) {
        g->begin[e] = slot;
        for (int64_t i = 0; i < g->n * g->n_used; i++) {
            if (g->ids[i] == (uint32_t)e) {
                g->slots[i] = slot;
                g->rows[slot++] = (uint32_t)(i / g->n_used);
            }
        }
    }
    g->begin[g->n_experts] = slot;
}

/* Fills g from the device's logits; all pointers inside are the host's. */
static void route_on_device(const float *logits, int64_t ld, struct routing *g)
{
    size_t bytes = (size_t)(g->n * g->n_used) * sizeof(uint32_t);
    size_t begin_bytes = (size_t)(g->n_experts + 1) * sizeof(uint32_t);
    uint32_t *ids = simt_malloc(bytes, "ids"), *slots = simt_malloc(bytes, "slots");
    uint32_t *rows = simt_malloc(bytes, "rows"), *begin = simt_malloc(begin_bytes, "begin");
    float *weights = simt_malloc(bytes, "weights");
    void *scratch = simt_malloc(kn_cuda_route_scratch_bytes(g->n, g->n_experts), "scratch");

    assert_launched(kn_cuda_route(logits, ld, g->n, g->n_experts, g->n_used, ids, weights, slots,
                                  rows, begin, scratch, NULL));
    from_device(g->ids, ids, bytes);
    from_device(g->weights, weights, bytes);
    from_device(g->slots, slots, bytes);
    from_device(g->rows, rows, bytes);
    from_device(g->begin, begin, begin_bytes);
    simt_free(ids);
    simt_free(weights);
    simt_free(slots);
    simt_free(rows);
    simt_free(begin);
    simt_free(scratch);
}

static void test_route_and_slots_are_the_same_on_a_gpu(void **state)
{
    (void)state;
    static const int64_t ns[] = {1, 2, 9, 31, 32, 33, 70, 100};
    struct random r = {4};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int n_experts = seed % 10 == 0 ? 300 : 1 + (int)random_below(&r, EXPERTS_MAX);
        int most = n_experts < USED_MAX ? n_experts : USED_MAX;
        int n_used = seed == 7 ? n_experts : 1 + (int)random_below(&r, (uint32_t)most);
        int64_t n = ns[seed % 8], ld = n_experts + random_below(&r, 3);
        struct routing want = get_routing(n, n_experts, n_used);
        struct routing got = get_routing(n, n_experts, n_used);
        float *logits = get_floats(n * ld);
        for (int64_t i = 0; i < n * ld; i++) { /* of every third seed many are equal */
            logits[i] = seed % 3 == 0 ? (float)(int)random_below(&r, 7) * 0.75f - 2.0f
                                      : 3.0f * random_normal(&r);
        }
        for (uint32_t i = 0; seed % 4 == 0 && i < 6; i++) {
            const float odd[] = {NAN, -INFINITY, INFINITY, 0.0f, -0.0f, NAN};
            logits[random_below(&r, (uint32_t)(n * ld))] = odd[i];
        }
        kn_ops(KN_ISA_REF)->route(logits, ld, n, n_experts, n_used, want.ids, want.weights);
        place_slots(&want);
        float *device = to_device(logits, (size_t)(n * ld) * sizeof *logits, "logits");
        set_schedule(seed);
        route_on_device(device, ld, &got);
        size_t bytes = (size_t)(n * n_used) * sizeof(uint32_t);
        assert_memory_equal(got.ids, want.ids, bytes);
        assert_same_floats(got.weights, want.weights, n * n_used, "weights");
        assert_memory_equal(got.begin, want.begin, (size_t)(n_experts + 1) * sizeof(uint32_t));
        assert_memory_equal(got.slots, want.slots, bytes);
        assert_memory_equal(got.rows, want.rows, bytes);
        simt_free(device);
        free(logits);
        free_routing(&want);
        free_routing(&got);
    }
    assert_int_equal(kn_cuda_route(NULL, 0, 1, KN_CUDA_EXPERTS_MAX + 1, 1, NULL, NULL, NULL, NULL,
                                   NULL, NULL, NULL),
                     -1);
}

static void test_combine_has_the_same_bits_on_a_gpu(void **state)
{
    (void)state;
    static const int64_t ds[] = {1, 3, 4, 64, 101, 1024, 1029};
    struct random r = {5};
    for (uint64_t seed = 1; seed <= CUDA_SEEDS; seed++) {
        int64_t d = ds[seed % 7], n = 1 + random_below(&r, 4), ldx = d + random_below(&r, 5);
        int n_used = 1 + (int)random_below(&r, USED_MAX);
        int64_t n_slots = n * n_used;
        float *y = get_floats(n_slots * d), *x = get_floats(n * ldx), *got = get_floats(n * ldx);
        float weights[4 * USED_MAX];
        uint32_t slots[4 * USED_MAX];
        random_fill(&r, y, n_slots * d, 3.0f);
        random_fill(&r, x, n * ldx, 3.0f);
        random_fill(&r, weights, n_slots, 1.0f);
        for (int64_t i = 0; i < n_slots; i++) {
            slots[i] = random_below(&r, (uint32_t)n_slots);
        }
        float *device_y = to_device(y, (size_t)(n_slots * d) * sizeof *y, "y");
        float *device_x = to_device(x, (size_t)(n * ldx) * sizeof *x, "x");
        float *device_w = to_device(weights, (size_t)n_slots * sizeof *weights, "weights");
        uint32_t *device_slots = to_device(slots, (size_t)n_slots * sizeof *slots, "slots");
        set_schedule(seed);
        assert_launched(
            kn_cuda_combine(device_y, device_slots, device_w, n, n_used, d, device_x, ldx, NULL));
        from_device(got, device_x, (size_t)(n * ldx) * sizeof *x);
        for (int64_t i = 0; i < n; i++) {
            kn_ops(KN_ISA_REF)
                ->combine(y, slots + i * n_used, weights + i * n_used, n_used, d, x + i * ldx);
        }
        assert_same_floats(got, x, n * ldx, "combine");
        simt_free(device_y);
        simt_free(device_x);
        simt_free(device_w);
        simt_free(device_slots);
        free(y);
        free(x);
        free(got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_takes_the_best_and_the_lowest_of_equals),
        cmocka_unit_test(test_route_puts_nan_last),
        cmocka_unit_test(test_combine_is_near_double),
        cmocka_unit_test(test_moe_has_the_same_bits_everywhere),
        cmocka_unit_test(test_route_and_slots_are_the_same_on_a_gpu),
        cmocka_unit_test(test_combine_has_the_same_bits_on_a_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
