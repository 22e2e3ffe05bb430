/* What the streaming kernels move, as the emulator counts it: of DRAM at most 5% more than each
 * byte once, and of what lanes ask for at most 5% more than what the kernel's source says it reads.
 * Matmul's and attention's are in their own tests. */
#include "kernels/cuda_testing.h"

enum { N = KN_PAGE_TOKENS, D = 1024, HEADS = 8, KV_HEADS = 2, HEAD_DIM = 64, USED = 8 };

#define FLOATS(n) ((uint64_t)(n) * sizeof(float))
/* Of quantised rows without f. */
#define ACT(n, k) ((uint64_t)(n) * (uint64_t)(k) + 3 * FLOATS((n) * (k) / KN_BLOCK))

static void assert_traffic(const char *name, uint64_t least)
{
    uint64_t bytes = simt_last_stats()->unique_sectors * 32;

    print_message("%-18s %7lu bytes of DRAM, %7lu at least\n", name, (unsigned long)bytes,
                  (unsigned long)least);
    assert_in_range(bytes * 20, least * 20, least * 21);
}

static float *floats(uint64_t n, const char *name)
{
    struct random r = {n};
    float *host = get_floats((int64_t)n), *p;

    random_fill(&r, host, (int64_t)n, 1.0f);
    p = to_device(host, FLOATS(n), name);
    free(host);
    return p;
}

static uint32_t *words(const uint32_t *host, uint64_t n, const char *name)
{
    return to_device(host, n * sizeof *host, name);
}

/* Without f, which is there where some matrix of the model is of floats. */
static struct kn_act act(int64_t n, int64_t k)
{
    struct kn_act a = device_act(n, k);

    simt_free(a.f);
    a.f = NULL;
    return a;
}

static void free_quants(struct kn_act *a)
{
    simt_free(a->q);
    simt_free(a->d);
    simt_free(a->s);
    simt_free(a->h);
}

static bool begin(void)
{
    set_schedule(1);
    return simt_has_shadow();
}

static void test_norms_move_each_byte_once(void **state)
{
    (void)state;
    if (!begin()) {
        skip();
    }
    float *x = floats(N * D, "x"), *w = floats(D, "w"), *y = simt_malloc(FLOATS(N * D), "y");
    float *added = floats(N * D, "added");
    struct kn_act a = act(N, D);
    assert_launched(kn_cuda_rmsnorm(x, w, 0, 1e-6f, N, D, y, NULL));
    assert_traffic("rmsnorm", FLOATS(2 * N * D + D));
    assert_launched(kn_cuda_rmsnorm_quantize(x, w, 0, 1e-6f, 0, N, D, &a, NULL));
    assert_traffic("rmsnorm_quantize", FLOATS(N * D + D) + ACT(N, D));
    assert_launched(kn_cuda_add_norm(y, w, 0, 1e-6f, N, D, added, NULL));
    assert_traffic("add_norm", FLOATS(2 * N * D + D));
    assert_launched(kn_cuda_add_bias(y, D, N, D, w, NULL));
    assert_traffic("add_bias", FLOATS(N * D + D));
    simt_free(x);
    simt_free(w);
    simt_free(y);
    simt_free(added);
    free_quants(&a);
}

static void test_quantising_moves_each_byte_once(void **state)
{
    (void)state;
    if (!begin()) {
        skip();
    }
    float *x = floats(2 * N * D, "x");
    struct kn_act a = act(N, D);
    assert_launched(kn_cuda_quantize(x, D, 0, N, &a, NULL));
    assert_traffic("quantize", FLOATS(N * D) + ACT(N, D));
    assert_launched(kn_cuda_swiglu_quantize(x, 2 * D, 0, N, D, &a, NULL));
    assert_traffic("swiglu_quantize", FLOATS(2 * N * D) + ACT(N, D));
    assert_launched(kn_cuda_geglu_quantize(x, 2 * D, 0, N, D, &a, NULL));
    assert_traffic("geglu_quantize", FLOATS(2 * N * D) + ACT(N, D));
    simt_free(x);
    free_quants(&a);
}

static void test_rows_move_each_byte_once(void **state)
{
    (void)state;
    if (!begin()) {
        skip();
    }
    uint32_t which[N];
    for (uint32_t i = 0; i < N; i++) {
        which[i] = i * 3 % N;
    }
    float *x = floats(N * D, "x"), *y = simt_malloc(FLOATS(N * D), "y");
    uint32_t *rows = words(which, N, "rows");
    double sums[D] = {0}, *sum = to_device(sums, sizeof sums, "sum");
    struct kn_act a = act(N, D), to = act(N, D);
    assert_launched(kn_cuda_gather(x, rows, N, D, y, NULL));
    assert_traffic("gather", FLOATS(2 * N * D));
    assert_launched(kn_cuda_quantize(x, D, 0, N, &a, NULL));
    assert_launched(kn_cuda_gather_act(&a, rows, N, &to, NULL));
    assert_traffic("gather_act", 2 * ACT(N, D));
    assert_launched(kn_cuda_scale(x, N * D, 0.5f, NULL));
    assert_traffic("scale", FLOATS(N * D));
    assert_launched(kn_cuda_pool(x, N, D, sum, NULL));
    assert_traffic("pool", FLOATS(N * D) + 8 * D);
    assert_launched(kn_cuda_softcap(x, D, N, D, 30, NULL));
    assert_traffic("softcap", FLOATS(N * D));
    simt_free(x);
    simt_free(y);
    simt_free(rows);
    simt_free(sum);
    free_quants(&a);
    free_quants(&to);
}

/* A lone row has half of each sector of the plane: 16 bytes lie beside another row's
 * (cuda_layout.h).
 */
static void test_embedding_moves_its_sectors_once(void **state)
{
    (void)state;
    if (!begin()) {
        skip();
    }
    enum { ROWS = 64 };
    uint32_t which[N]; /* none beside another: of a pair of rows, the first */
    for (uint32_t i = 0; i < N; i++) {
        which[i] = 2 * (i * 3 % N);
    }
    size_t bytes = kn_type_block_bytes(KN_F16) * ROWS * D;
    void *src = get_memory(bytes);
    memset(src, 0x11, bytes);
    struct kn_matrix w = device_matrix(KN_F16, ROWS, D, src);
    float *x = simt_malloc(FLOATS(N * D), "x");
    uint32_t *ids = words(which, N, "ids");
    assert_launched(kn_cuda_embed(&w, ids, N, 1, x, NULL));
    assert_traffic("embed", FLOATS(N * D) + 2 * 2 * N * D);
    simt_free((void *)(uintptr_t)w.data);
    simt_free(x);
    simt_free(ids);
    free(src);
}

static void test_heads_move_each_byte_once(void **state)
{
    (void)state;
    if (!begin()) {
        skip();
    }
    enum { LD = (HEADS + 2 * KV_HEADS) * HEAD_DIM, Q = HEADS * HEAD_DIM, KV = KV_HEADS * HEAD_DIM };
    uint32_t pos[N], at[N] = {0}, table[1] = {0};
    size_t page_bytes = (size_t)kn_kv_page_elems(KN_KV_F16, KV_HEADS, HEAD_DIM) * sizeof(uint16_t);
    uint16_t *zeros = get_memory(page_bytes);
    memset(zeros, 0, page_bytes);
    for (uint32_t i = 0; i < N; i++) {
        pos[i] = i;
    }
    float *qkv = floats(N * LD, "qkv"), *w = floats(HEAD_DIM, "w");
    const struct kn_kv kv = {.pages = to_device(zeros, page_bytes, "pages"),
                             .page_stride = kn_kv_page_elems(KN_KV_F16, KV_HEADS, HEAD_DIM),
                             .n_kv_heads = KV_HEADS,
                             .head_dim = HEAD_DIM,
                             .type = KN_KV_F16};
    const struct kn_cuda_rows rows = {words(pos, N, "pos"), words(table, 1, "table"),
                                      words(at, N, "at"), N};
    const struct kn_rope_table angles = {floats(N * HEAD_DIM / 2, "cos"),
                                         floats(N * HEAD_DIM / 2, "sin"), HEAD_DIM, N};
    assert_launched(kn_cuda_norm_heads(qkv, LD, N, HEADS, KV_HEADS, HEAD_DIM, w, w, 1e-6f, NULL));
    assert_traffic("norm_heads", FLOATS(N * (Q + KV) + HEAD_DIM));
    assert_launched(kn_cuda_rope_kv(qkv, LD, HEADS, &kv, &rows, &angles, KN_ROPE_NEOX, NULL));
    /* q in place, k and v read, both written in halves. */
    assert_traffic("rope_kv", FLOATS(N * LD) + FLOATS(N * HEAD_DIM) + 2 * 2 * N * KV);
    simt_free(qkv);
    simt_free(w);
    simt_free(kv.pages);
    simt_free((void *)(uintptr_t)rows.pos);
    simt_free((void *)(uintptr_t)rows.table);
    simt_free((void *)(uintptr_t)rows.table_at);
    simt_free((void *)(uintptr_t)angles.cos);
    simt_free((void *)(uintptr_t)angles.sin);
    free(zeros);
}

static void test_combining_experts_moves_each_byte_once(void **state)
{
    (void)state;
    if (!begin()) {
        skip();
    }
    uint32_t slots[N * USED];
    for (uint32_t i = 0; i < N * USED; i++) {
        slots[i] = i * 7 % (N * USED);
    }
    float *y = floats(N * USED * D, "y"), *x = floats(N * D, "x"), *w = floats(N * USED, "w");
    uint32_t *device_slots = words(slots, N * USED, "slots");
    assert_launched(kn_cuda_combine(y, device_slots, w, N, USED, D, x, D, NULL));
    assert_traffic("combine", FLOATS(N * USED * D) + FLOATS(N * D));
    simt_free(y);
    simt_free(x);
    simt_free(w);
    simt_free(device_slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norms_move_each_byte_once),
        cmocka_unit_test(test_quantising_moves_each_byte_once),
        cmocka_unit_test(test_rows_move_each_byte_once),
        cmocka_unit_test(test_embedding_moves_its_sectors_once),
        cmocka_unit_test(test_heads_move_each_byte_once),
        cmocka_unit_test(test_combining_experts_moves_each_byte_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
