/* Fast mode over the emulated device, against the exact CPU: near it, and never it. And what it
 * refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>
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

enum { PAGES = 24, SEQUENCES = 3, CONTEXT = 100, ROWS_MAX = 40, PICKS_MAX = 12 };

static const struct simt_machine h100 = {
    .devices = 1, .major = 9, .minor = 0, .driver = 13000, .memory = (size_t)2 << 30};
static const struct simt_machine a100 = {
    .devices = 1, .major = 8, .minor = 0, .driver = 13000, .memory = (size_t)2 << 30};
static const struct backend_limits limits = {.rows_max = ROWS_MAX,
                                             .picks_max = PICKS_MAX,
                                             .context = CONTEXT,
                                             .kv_pages = PAGES,
                                             .kv_type = KN_KV_F16};

struct pair {
    struct threads *threads;
    struct model cpu_model, gpu_model;
    struct backend *cpu, *gpu;
    struct gpu device;
};

static void load(struct model *m, const char *path, enum kn_isa isa, struct threads *threads)
{
    struct checkpoint *file = NULL;
    struct err e = {0};
    if (checkpoint_open(path, &file, &e) < 0 || model_load(m, file, isa, threads, &e) < 0)
        fail_msg("%s", e.msg);
    checkpoint_close(file);
}

/* The GPU's side: what backend_cuda_create says. */
static int open_gpu(struct pair *p, const struct tiny_llama *t, enum fast_mode fast, struct err *e)
{
    char path[TINY_PATH_BYTES];
    struct backend_limits l = limits;
    *p = (struct pair){0};
    tiny_llama_file(t, path);
    assert_int_equal(threads_create(1, &p->threads, e), 0);
    load(&p->cpu_model, path, kn_isa_best(), p->threads);
    load(&p->gpu_model, path, KN_ISA_REF, p->threads);
    unlink(path);
    l.fast = fast;
    gpu_forget();
    int rc = gpu_choose("cuda", 1, &p->device, e);
    return rc == 0 ? backend_cuda_create(&p->gpu_model, &p->device, NULL, &l, &p->gpu, e) : rc;
}

static void open_pair(struct pair *p, const struct tiny_llama *t, enum fast_mode fast)
{
    struct err e = {0};
    if (open_gpu(p, t, fast, &e) < 0 ||
        backend_cpu_create(&p->cpu_model, p->threads, NULL, &limits, &p->cpu, &e) < 0)
        fail_msg("%s", e.msg);
    model_forget_matrices(&p->gpu_model);
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

/* ---- logits ------------------------------------------------------------------------------------
 */

struct step {
    uint32_t ids[ROWS_MAX];
    struct kn_span spans[SEQUENCES];
    struct pick picks[PICKS_MAX];
    struct batch batch;
};

struct sequence_state {
    uint32_t pages[PAGES / SEQUENCES];
    uint32_t computed;
};

/* Prompts in pieces, then single tokens again and again, so that graphs are launched. */
static void make_step(struct step *s, struct sequence_state *q, struct rng *r, int round,
                      const struct kn_sampling *sampling)
{
    *s = (struct step){0};
    struct batch *b = &s->batch;
    *b = (struct batch){.ids = s->ids, .spans = s->spans, .picks = s->picks};
    for (uint32_t i = 0; i < SEQUENCES; i++) {
        uint32_t rows = round % 4 == 0 ? 1 + (uint32_t)rng_below(r, 12) : 1;
        s->spans[b->n_spans++] =
            (struct kn_span){.page_table = q[i].pages, .pos = q[i].computed, .rows = rows};
        for (uint32_t k = 0; k < rows; k++)
            s->ids[b->n_rows + k] = (uint32_t)rng_below(r, TINY_VOCAB);
        b->n_rows += rows;
        q[i].computed += rows;
        s->picks[b->n_picks++] =
            (struct pick){.row = b->n_rows - 1, .position = q[i].computed, .sampling = sampling};
    }
}

struct difference {
    double sum, of; /* squares: of the differences, of the logits */
};

static void run_both(struct pair *p, const struct step *step, struct difference *d)
{
    struct step cpu = *step, gpu = *step;
    struct err e = {0};
    cpu.batch.ids = cpu.ids;
    cpu.batch.spans = cpu.spans;
    cpu.batch.picks = cpu.picks;
    gpu.batch.ids = gpu.ids;
    gpu.batch.spans = gpu.spans;
    gpu.batch.picks = gpu.picks;
    backend_run(p->cpu, &cpu.batch);
    backend_run(p->gpu, &gpu.batch);
    if (backend_check(p->gpu, &e) < 0)
        fail_msg("%s", e.msg);
    for (uint32_t r = 0; r < step->batch.n_rows; r++) { /* as far as the head, all rows */
        const float *x = backend_hidden(p->cpu, r), *y = backend_hidden(p->gpu, r);
        for (uint32_t k = 0; k < p->cpu_model.h.n_embd; k++) {
            d->sum += pow((double)x[k] - (double)y[k], 2);
            d->of += pow((double)x[k], 2);
        }
    }
    for (uint32_t i = 0; i < step->batch.n_picks; i++) {
        assert_true(gpu.picks[i].finite);
        if (step->picks[i].sampling)
            continue;
        const float *x = backend_logits(p->cpu, i), *y = backend_logits(p->gpu, i);
        for (uint32_t k = 0; k < TINY_VOCAB; k++) {
            d->sum += pow((double)x[k] - (double)y[k], 2);
            d->of += pow((double)x[k], 2);
        }
    }
}

/* bf16 has 8 bits, so a factor is off by at most 2^-9 of itself, and 2^-9 / sqrt(3) in the mean
 * square; both factors of a product's terms, and the terms apart from one another, make 2^-9 *
 * sqrt(2 / 3) of a product. Four products a layer follow one another, and the head: their errors
 * add up as squares, which norms and residuals hand on. The bound is twice that. e4m3 has 4 bits:
 * 2^-5 in place of 2^-9. */
static double bound(const struct tiny_llama *t, enum fast_mode fast)
{
    return 2 * sqrt(2.0 / 3) / (fast == FAST_FP8 ? 32 : 512) * sqrt(4.0 * t->n_layers + 1);
}

static void compare(const struct tiny_llama *t, const struct simt_machine *m, enum fast_mode fast)
{
    static const struct kn_sampling greedy = {.top_p = 1, .repetition_penalty = 1};
    struct pair p;
    struct rng r;
    struct sequence_state q[SEQUENCES] = {0};
    struct difference d = {0};
    struct step s;
    simt_machine_set(m);
    open_pair(&p, t, fast);
    rng_init(&r, t->seed);
    for (uint32_t i = 0; i < PAGES; i++)
        q[i % SEQUENCES].pages[i / SEQUENCES] = (i * 7) % PAGES;
    for (int round = 0; round < 12; round++) {
        simt_set(&(struct simt_options){.seed = (uint64_t)round, .eager_copies = round % 2 == 0});
        make_step(&s, q, &r, round, round < 6 ? NULL : &greedy);
        run_both(&p, &s, &d);
    }
    double relative = sqrt(d.sum / d.of);
    print_message("relative difference %g, bound %g\n", relative, bound(t, fast));
    assert_true(relative > 0 && relative < bound(t, fast));
    uint32_t recorded = 0;
    for (uint32_t i = 0; i < CUDA_GRAPHS_MAX; i++)
        recorded += ((struct cuda *)p.gpu)->graphs[i].exec != NULL;
    assert_true(recorded > 0);
    close_pair(&p);
}

static void test_floats_of_each_type_are_near_the_exact(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.type = KN_F32;
    compare(&t, &a100, FAST_BF16);
    t.type = KN_F16;
    t.seed = 2;
    compare(&t, &a100, FAST_BF16);
}

static void test_odd_shapes_biases_and_a_tied_head_are_near_the_exact(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.type = KN_F32;
    t.untied = false;
    t.qkv_bias = true;
    t.n_heads = 9;
    t.n_kv_heads = 3;
    t.n_embd = 72; /* columns that begin at multiples of no more than 8 bytes */
    t.n_ff = 94;
    t.seed = 3;
    compare(&t, &a100, FAST_BF16);
}

static void test_fp8_is_near_the_exact(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    t.type = KN_F32;
    compare(&t, &h100, FAST_FP8);
    t.type = KN_BF16;
    t.untied = false;
    t.qkv_bias = true;
    t.seed = 2;
    compare(&t, &h100, FAST_FP8);
}

/* More shapes than there is room for. */
static void test_plans_make_room_for_others(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    struct pair p;
    uint32_t pages[PAGES], ids[ROWS_MAX] = {1, 2, 3};
    struct err e = {0};
    t.type = KN_F32;
    t.n_layers = 1;
    simt_machine_set(&a100);
    open_pair(&p, &t, FAST_BF16);
    struct cuda *c = (struct cuda *)p.gpu;
    for (uint32_t i = 0; i < PAGES; i++)
        pages[i] = i;
    for (uint32_t rows = 1; rows <= ROWS_MAX; rows++) {
        struct kn_span span = {pages, 0, rows};
        struct pick pick = {.row = rows - 1, .position = rows};
        struct batch batch = {
            .ids = ids, .n_rows = rows, .spans = &span, .n_spans = 1, .picks = &pick, .n_picks = 1};
        if (rows == ROWS_MAX / 2) /* one is left in each set: they come and go */
            for (uint32_t i = 0; i < CUDA_PLAN_SETS; i++)
                for (uint32_t k = 1; k < CUDA_PLAN_WAYS; k++)
                    c->fast.plans[i][k].used = UINT64_MAX;
        backend_run(p.gpu, &batch);
        if (backend_check(p.gpu, &e) < 0)
            fail_msg("%s", e.msg);
    }
    assert_true(c->fast.uses > 4 * ROWS_MAX);
    close_pair(&p);
}

/* ---- what is refused ---------------------------------------------------------------------------
 */

static void assert_refused(const struct simt_machine *m, const struct tiny_llama *t,
                           enum fast_mode fast, const char *words)
{
    struct pair p;
    struct err e = {0};
    simt_machine_set(m);
    assert_int_equal(open_gpu(&p, t, fast, &e), ERR_CONFIG);
    if (!strstr(e.msg, words))
        fail_msg("'%s' is not in '%s'", words, e.msg);
    close_pair(&p);
}

static void test_what_is_not_served_is_said(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    struct simt_machine m = a100;
    t.type = KN_F32;
    m.lacks_cublaslt = true;
    assert_refused(&m, &t, FAST_BF16, "fast=bf16: cuBLASLt is not installed here: libcublasLt.so");
    assert_refused(&a100, &t, FAST_FP8,
                   "has compute capability 8.0, wanted at least 9.0 (H100); fast=bf16 serves it");
    t.n_ff = 100;
    assert_refused(&h100, &t, FAST_FP8, "a width of the model is 100, wanted multiples of 16");
    t.n_ff = tiny_llama_small.n_ff;
    m = a100;
    m.memory = (size_t)280 << 20; /* the workspace is counted */
    assert_refused(&m, &t, FAST_BF16, "of memory are missing");
    t.n_experts = 4;
    t.n_experts_used = 2;
    assert_refused(&a100, &t, FAST_BF16,
                   "fast=bf16: experts are not served so; fast=off serves them");
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    unsigned n = 0;
    t.type = KN_F32;
    for (unsigned i = 1;; i++) {
        struct simt_machine m = a100;
        struct pair p;
        struct err e = {0};
        m.fail_malloc = i;
        simt_machine_set(&m);
        int rc = open_gpu(&p, &t, FAST_BF16, &e);
        close_pair(&p);
        if (rc == 0)
            break;
        assert_int_equal(rc, ERR_CONFIG);
        assert_non_null(strstr(e.msg, "out of memory"));
        n++;
    }
    assert_true(n >= 10);
}

/* By the engine, which knows the file. */
static void test_the_engine_refuses_a_gguf_file_and_a_cpu(void **state)
{
    (void)state;
    char path[TINY_PATH_BYTES];
    struct engine *g = NULL;
    struct err e = {0};
    struct engine_config c = {.model_path = path,
                              .device = "cuda",
                              .sequences_max = 1,
                              .step_tokens_max = 8,
                              .fast = FAST_BF16};
    simt_machine_set(&a100);
    tiny_llama_file(&tiny_llama_small, path);
    assert_int_equal(engine_open(&c, &g, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "fast=bf16: it wants a folder of safetensors, not a GGUF file"));
    c.device = "cpu";
    assert_int_equal(engine_open(&c, &g, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "fast=bf16: there is no GPU that computes"));
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_floats_of_each_type_are_near_the_exact),
        cmocka_unit_test(test_odd_shapes_biases_and_a_tied_head_are_near_the_exact),
        cmocka_unit_test(test_fp8_is_near_the_exact),
        cmocka_unit_test(test_plans_make_room_for_others),
        cmocka_unit_test(test_what_is_not_served_is_said),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_the_engine_refuses_a_gguf_file_and_a_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
