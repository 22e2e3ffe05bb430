/* The CUDA backend over the emulated device, against the CPU's: the same bits. And what it refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <unistd.h>

#include "kernels/simt/simt.h"
#include "runtime/base/threads.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/backend_cuda.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/gpu.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/model.h"
#include "tests/unit/runtime/model/tiny_llama.h"

#define PAGES 24u
#define SEQUENCES 3u
#define CONTEXT 100u
#define ROWS_MAX 40u
#define PICKS_MAX 12u

static const struct simt_machine a100 = {
    .devices = 1, .major = 8, .minor = 0, .driver = 13000, .memory = (size_t)2 << 30};

static void on_machine(const struct simt_machine *m)
{
    simt_machine_set(m);
    gpu_forget();
}

/* Both backends, each with the file in its own packing. */
struct pair {
    struct threads *threads;
    struct model cpu_model, gpu_model;
    struct backend *cpu, *gpu;
    struct gpu device;
};

static const struct backend_limits limits = {.rows_max = ROWS_MAX,
                                             .picks_max = PICKS_MAX,
                                             .context = CONTEXT,
                                             .kv_pages = PAGES,
                                             .kv_type = KN_KV_F16};

static void load(struct model *m, const char *path, enum kn_isa isa, struct threads *threads)
{
    struct checkpoint *file = NULL;
    struct err e = {0};
    if (checkpoint_open(path, &file, &e) < 0 || model_load(m, file, isa, threads, &e) < 0)
        fail_msg("%s", e.msg);
    checkpoint_close(file);
}

/* Of the GPU's side: what backend_cuda_create says. */
static int open_gpu(struct pair *p, const struct tiny_llama *t, const struct backend_limits *l,
                    struct err *e)
{
    char path[TINY_PATH_BYTES];
    *p = (struct pair){0};
    tiny_llama_file(t, path);
    assert_int_equal(threads_create(1, &p->threads, e), 0);
    load(&p->cpu_model, path, kn_isa_best(), p->threads);
    load(&p->gpu_model, path, KN_ISA_REF, p->threads);
    unlink(path);
    int rc = gpu_choose("cuda", 1, &p->device, e);
    return rc == 0 ? backend_cuda_create(&p->gpu_model, &p->device, NULL, l, &p->gpu, e) : rc;
}

static void open_pair(struct pair *p, const struct tiny_llama *t, enum kn_kv_type kv_type)
{
    struct backend_limits l = limits;
    struct err e = {0};
    l.kv_type = kv_type;
    if (open_gpu(p, t, &l, &e) < 0 ||
        backend_cpu_create(&p->cpu_model, p->threads, NULL, &l, &p->cpu, &e) < 0)
        fail_msg("%s", e.msg);
    model_forget_matrices(&p->gpu_model); /* the device has them */
}

static void close_pair(struct pair *p)
{
    backend_free(p->cpu);
    backend_free(p->gpu);
    model_release(&p->cpu_model);
    model_release(&p->gpu_model);
    threads_free(p->threads);
    assert_int_equal(simt_machine_taken(), 0);
}

/* ---- batches -----------------------------------------------------------------------------------
 */

struct sequence_state {
    uint32_t pages[PAGES / SEQUENCES];
    uint32_t computed;
};

struct step {
    uint32_t ids[ROWS_MAX];
    struct kn_span spans[SEQUENCES];
    struct pick picks[PICKS_MAX];
    struct pooling pools[1];
    double sum[256];
    struct batch batch;
};

static const struct kn_sampling greedy = {.top_p = 1, .repetition_penalty = 1};
static const struct kn_sampling warm = {
    .temperature = 0.9f, .top_k = 40, .top_p = 0.95f, .repetition_penalty = 1, .seed = 77};

/* Prompts in pieces and single tokens; the last row of each span is picked, one of them without
 * sampling; now and then a span's rows are pooled in place of that. */
static void make_step(struct step *s, struct sequence_state *q, struct rng *r, uint32_t vocab,
                      int round)
{
    *s = (struct step){0};
    struct batch *b = &s->batch;
    *b = (struct batch){.ids = s->ids, .spans = s->spans, .picks = s->picks, .pools = s->pools};
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        uint32_t rows = round % 3 == 0 ? 1 + (uint32_t)rng_below(r, 12) : 1;
        if (round % 5 == 4 && i == 1)
            continue;
        if (q[i].computed + rows > CONTEXT)
            q[i].computed = 0; /* another one takes its pages */
        s->spans[b->n_spans++] =
            (struct kn_span){.page_table = q[i].pages, .pos = q[i].computed, .rows = rows};
        for (uint32_t k = 0; k < rows; k++)
            s->ids[b->n_rows + k] = (uint32_t)rng_below(r, vocab);
        if (round % 4 == 1 && i == 0) {
            s->pools[b->n_pools++] =
                (struct pooling){.row = b->n_rows, .rows = rows, .sum = s->sum};
        } else {
            s->picks[b->n_picks++] = (struct pick){.row = b->n_rows + rows - 1,
                                                   .position = q[i].computed + rows,
                                                   .sampling = i == 0   ? &greedy
                                                               : i == 1 ? &warm
                                                                        : NULL,
                                                   .want_digest = round % 2 == 0};
        }
        b->n_rows += rows;
        q[i].computed += rows;
    }
}

static void assert_same_step(struct pair *p, struct step *a, struct step *b)
{
    const struct hparams *h = &p->cpu_model.h;
    struct err e = {0};
    if (backend_check(p->gpu, &e) < 0)
        fail_msg("%s", e.msg);
    for (uint32_t i = 0; i < a->batch.n_picks; i++) {
        const struct pick *x = &a->picks[i], *y = &b->picks[i];
        assert_true(x->finite && y->finite);
        assert_int_equal(x->logits_digest, y->logits_digest);
        if (x->sampling)
            assert_int_equal(x->sampled.id, y->sampled.id);
        else
            assert_memory_equal(backend_logits(p->cpu, i), backend_logits(p->gpu, i),
                                h->vocab * sizeof(float));
    }
    for (uint32_t i = 0; i < a->batch.n_rows; i++)
        assert_memory_equal(backend_hidden(p->cpu, i), backend_hidden(p->gpu, i),
                            h->n_embd * sizeof(float));
    assert_memory_equal(a->sum, b->sum, sizeof(a->sum));
}

/* room: for lists of samplings; 0: picked on the host. */
static void compare_with_room(const struct tiny_llama *t, enum kn_kv_type kv_type, int rounds,
                              size_t room)
{
    struct pair p;
    struct rng r;
    struct sequence_state q[SEQUENCES] = {0};
    struct step cpu, gpu;
    on_machine(&a100);
    open_pair(&p, t, kv_type);
    if (room < ((struct cuda *)p.gpu)->packed_bytes)
        ((struct cuda *)p.gpu)->packed_bytes = room;
    rng_init(&r, t->seed);
    for (uint32_t i = 0; i < PAGES; i++) /* of no order */
        q[i % SEQUENCES].pages[i / SEQUENCES] = (i * 7) % PAGES;
    for (int round = 0; round < rounds; round++) {
        simt_set(&(struct simt_options){.seed = (uint64_t)round, .eager_copies = round % 2 == 0});
        make_step(&cpu, q, &r, p.cpu_model.h.vocab, round);
        gpu = cpu;
        gpu.batch.ids = gpu.ids;
        gpu.batch.spans = gpu.spans;
        gpu.batch.picks = gpu.picks;
        gpu.batch.pools = gpu.pools;
        gpu.pools[0].sum = gpu.sum;
        backend_run(p.cpu, &cpu.batch);
        backend_run(p.gpu, &gpu.batch);
        assert_same_step(&p, &cpu, &gpu);
    }
    /* Steps of single rows come again, so the later ones of many were launched as graphs. */
    uint32_t recorded = 0;
    for (uint32_t i = 0; i < CUDA_GRAPHS_MAX; i++)
        recorded += ((struct cuda *)p.gpu)->graphs[i].exec != NULL;
    if (rounds >= 9)
        assert_true(recorded > 0);
    if (room == 0)
        assert_int_equal(recorded, 0);
    close_pair(&p);
}

static void compare(const struct tiny_llama *t, enum kn_kv_type kv_type, int rounds)
{
    compare_with_room(t, kv_type, rounds, SIZE_MAX);
}

static void test_tokens_are_the_cpus_where_lists_have_no_room(void **state)
{
    (void)state;
    compare_with_room(&tiny_llama_small, KN_KV_F16, 4, 0);
}

static void test_llama_has_the_cpus_bits(void **state)
{
    (void)state;
    compare(&tiny_llama_small, KN_KV_F16, 12);
}

static void test_llama_with_a_tied_head_and_factors_has_the_cpus_bits(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.untied = false;
    t.rope_factors = true;
    t.type = KN_Q8_0;
    t.n_heads = 6;
    t.n_embd = 96;
    t.seed = 2;
    compare(&t, KN_KV_F16, 6);
}

static void test_biases_have_the_cpus_bits(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.qkv_bias = true;
    t.seed = 3;
    compare(&t, KN_KV_F16, 6);
}

static void test_experts_have_the_cpus_bits(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.n_experts = 5;
    t.n_experts_used = 2;
    t.seed = 5;
    compare(&t, KN_KV_F16, 9);
    t.type = KN_Q8_0;
    t.n_experts_used = 5;
    compare(&t, KN_KV_F16, 3);
}

static void test_int8_pages_have_the_cpus_bits(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.seed = 4;
    compare(&t, KN_KV_INT8, 6);
}

/* Picks that are asked for behind the run, as guesses are. */
static void test_sampling_again_has_the_cpus_tokens(void **state)
{
    (void)state;
    struct pair p;
    uint32_t pages[] = {3}, ids[] = {1, 2, 3}, which[] = {1, 2};
    struct kn_span span = {pages, 0, 3};
    struct pick picks[2][3];
    on_machine(&a100);
    open_pair(&p, &tiny_llama_small, KN_KV_F16);
    for (int i = 0; i < 2; i++) {
        struct backend *b = i == 0 ? p.cpu : p.gpu;
        for (uint32_t k = 0; k < 3; k++)
            picks[i][k] =
                (struct pick){.row = k, .position = k + 1, .sampling = k == 0 ? &warm : NULL};
        struct batch batch = {
            .ids = ids, .n_rows = 3, .spans = &span, .n_spans = 1, .picks = picks[i], .n_picks = 3};
        backend_run(b, &batch);
        picks[i][1].sampling = &warm;
        picks[i][2].sampling = &greedy;
        backend_sample(b, &batch, which, 2);
    }
    for (uint32_t k = 0; k < 3; k++)
        assert_int_equal(picks[0][k].sampled.id, picks[1][k].sampled.id);
    close_pair(&p);
}

/* ---- what is refused ---------------------------------------------------------------------------
 */

static void assert_refused(const struct simt_machine *m, const char *words)
{
    struct pair p;
    struct err e = {0};
    on_machine(m);
    assert_int_equal(open_gpu(&p, &tiny_llama_small, &limits, &e), ERR_CONFIG);
    if (!strstr(e.msg, words))
        fail_msg("'%s' is not in '%s'", words, e.msg);
    close_pair(&p);
}

static void test_machines_that_will_not_do(void **state)
{
    (void)state;
    struct simt_machine m = a100;
    m.devices = 0;
    assert_refused(&m, "there is no GPU on this machine");
    m = a100;
    m.major = 7;
    m.minor = 5;
    assert_refused(&m, "is too old: it has compute capability 7.5, wanted at least 8.0");
    m = a100;
    m.driver = 11080;
    assert_refused(&m, "driver is too old: it serves CUDA 11.8, this program wants 13.0");
    m.driver = 0;
    assert_refused(&m, "driver is not installed");
    m = a100;
    m.memory = (size_t)200 << 20;
    assert_refused(&m, "of memory are missing");
    assert_refused(&m, "kv_bytes and context_max make the pages smaller, step_tokens_max and "
                       "sequences_max the buffers");
}

/* Whichever allocation fails, it is said, and what was taken is given back. */
static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    unsigned n = 0;
    for (unsigned i = 1;; i++) {
        struct simt_machine m = a100;
        struct pair p;
        struct err e = {0};
        m.fail_malloc = i;
        on_machine(&m);
        int rc = open_gpu(&p, &tiny_llama_small, &limits, &e);
        close_pair(&p);
        if (rc == 0)
            break;
        assert_int_equal(rc, ERR_CONFIG);
        assert_non_null(strstr(e.msg, "out of memory"));
        n++;
    }
    assert_true(n >= 10);
}

static void test_a_device_is_chosen(void **state)
{
    (void)state;
    struct simt_machine m = a100;
    struct gpu gpu;
    struct err e = {0};
    m.devices = 2;
    on_machine(&m);
    assert_int_equal(gpu_choose("auto", 1, &gpu, &e), 0);
    assert_int_equal(gpu.index, 0);
    assert_int_equal(gpu_choose("cpu", 1, &gpu, &e), 0);
    assert_int_equal(gpu.index, GPU_CPU);
    assert_int_equal(gpu_choose("cuda:1", 1, &gpu, &e), 0);
    assert_int_equal(gpu.index, 1);
    assert_int_equal(gpu_choose("cuda:2", 1, &gpu, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "this machine has 2 GPUs"));
    static const char *const bad[] = {"gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:5000"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(gpu_choose(bad[i], 1, &gpu, &e), ERR_CONFIG);
    m.devices = 0;
    on_machine(&m);
    assert_int_equal(gpu_choose("auto", 1, &gpu, &e), 0);
    assert_int_equal(gpu.index, GPU_CPU);
}

/* A device that fails in a run: the engine hears of it, and nothing is computed any more. */
static void test_a_device_that_fails_is_told(void **state)
{
    (void)state;
    struct pair p;
    struct err e = {0};
    uint32_t pages[] = {1u << 20}, ids[] = {5}; /* a page that is nowhere */
    struct kn_span span = {pages, 0, 1};
    struct pick pick = {.row = 0, .position = 1, .sampling = &greedy};
    struct batch batch = {
        .ids = ids, .n_rows = 1, .spans = &span, .n_spans = 1, .picks = &pick, .n_picks = 1};
    if (!simt_has_shadow())
        skip();
    on_machine(&a100);
    open_pair(&p, &tiny_llama_small, KN_KV_F16);
    assert_int_equal(backend_check(p.gpu, &e), 0);
    backend_run(p.gpu, &batch);
    assert_int_equal(backend_check(p.gpu, &e), ERR_PEER);
    assert_non_null(strstr(e.msg, "GPU 0 (emulated GPU)"));
    backend_run(p.gpu, &batch);
    assert_int_equal(backend_check(p.gpu, &e), ERR_PEER);
    on_machine(&a100); /* so that memory can be given back */
    close_pair(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_has_the_cpus_bits),
        cmocka_unit_test(test_llama_with_a_tied_head_and_factors_has_the_cpus_bits),
        cmocka_unit_test(test_biases_have_the_cpus_bits),
        cmocka_unit_test(test_tokens_are_the_cpus_where_lists_have_no_room),
        cmocka_unit_test(test_experts_have_the_cpus_bits),
        cmocka_unit_test(test_int8_pages_have_the_cpus_bits),
        cmocka_unit_test(test_sampling_again_has_the_cpus_tokens),
        cmocka_unit_test(test_machines_that_will_not_do),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_a_device_is_chosen),
        cmocka_unit_test(test_a_device_that_fails_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
