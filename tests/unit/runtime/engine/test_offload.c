/* An engine on an emulated device with few KV pages, and more of them on the host: its answers are
 * the bits that the CPU gives each request alone, and it computes less. Copies happen late or at
 * once, so one that nobody waits for shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/simt/simt.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "runtime/base/threads.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/gpu.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/model.h"
#include "tests/unit/runtime/model/tiny_llama.h"

#define PAGE_BYTES (2u * 2 * 32 * KN_PAGE_TOKENS * 2) /* layers, K and V, width, fp16 */
#define CONTEXT 96u
#define PAGES 8u

#ifdef __SANITIZE_ADDRESS__ /* the emulator takes 17 times as long */
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

enum { JOBS = SANITIZED ? 5 : 10, PROMPT_MAX = 70, OUTPUT_MAX = 20, STEPS_MAX = 4000 };

static const struct simt_machine a100 = {
    .devices = 1, .major = 8, .minor = 0, .driver = 13000, .memory = (size_t)2 << 30};

static uint64_t fixed_clock_ns(void)
{
    static uint64_t now;
    return now += 1000000;
}

static struct engine_config on_device(uint32_t host_pages)
{
    return (struct engine_config){.device = "cuda",
                                  .threads = 1,
                                  .kv_bytes = PAGES * PAGE_BYTES,
                                  .kv_host_bytes = (uint64_t)host_pages * PAGE_BYTES,
                                  .context_max = CONTEXT,
                                  .sequences_max = 4,
                                  .waiting_max = JOBS,
                                  .step_tokens_max = 40,
                                  .clock_ns = fixed_clock_ns,
                                  .prefix_cache = true,
                                  .logits_digests = true};
}

/* The file is gone when this returns. */
static int open_tiny(const struct tiny_llama *t, struct engine_config *c, struct engine **g,
                     struct err *e)
{
    char path[TINY_PATH_BYTES];
    tiny_llama_file(t, path);
    c->model_path = path;
    int rc = engine_open(c, g, e);
    unlink(path);
    return rc;
}

static struct engine *open_or_fail(const struct tiny_llama *t, struct engine_config *c)
{
    struct engine *g = NULL;
    struct err e;
    if (open_tiny(t, c, &g, &e) < 0)
        fail_msg("%s", e.msg);
    return g;
}

/* ---- requests ----------------------------------------------------------------------------------
 */

/* A request, and what the CPU gives it alone. */
struct job {
    uint32_t prompt[PROMPT_MAX];
    struct engine_request r;
    uint32_t tokens[OUTPUT_MAX];
    uint64_t digests[OUTPUT_MAX];
    uint32_t n_tokens;
};

static void make_jobs(struct job *jobs, struct rng *rng)
{
    uint32_t stems[3][PROMPT_MAX];
    for (uint32_t i = 0; i < 3 * PROMPT_MAX; i++)
        stems[i / PROMPT_MAX][i % PROMPT_MAX] = (uint32_t)rng_below(rng, TINY_EOS - 1);
    for (uint32_t i = 0; i < JOBS; i++) {
        struct job *j = &jobs[i];
        *j = (struct job){.n_tokens = 0};
        uint32_t n = 20 + (uint32_t)rng_below(rng, PROMPT_MAX - 20);
        for (uint32_t k = 0; k < n; k++)
            j->prompt[k] = (uint32_t)rng_below(rng, TINY_EOS - 1);
        memcpy(j->prompt, stems[rng_below(rng, 3)], rng_below(rng, n + 1) * sizeof(uint32_t));
        j->r = (struct engine_request){.id = i,
                                       .prompt = j->prompt,
                                       .n_prompt = n,
                                       .max_tokens = 1 + (uint32_t)rng_below(rng, OUTPUT_MAX),
                                       .ignore_eos = true,
                                       .priority = (int32_t)rng_below(rng, 3) - 1,
                                       .sampling = {.top_p = 1,
                                                    .repetition_penalty = 1,
                                                    .temperature = rng_below(rng, 2) ? 0.8f : 0,
                                                    .seed = rng_u64(rng)}};
    }
}

static void submit(struct engine *g, const struct engine_request *r)
{
    struct err e;
    if (engine_submit(g, r, &e) < 0)
        fail_msg("%s", e.msg);
}

static void answer_alone(const struct tiny_llama *t, enum kn_kv_type kv_type, struct job *jobs)
{
    struct engine_config c = on_device(0);
    struct engine_step s;
    c.device = "cpu";
    c.kv_host_bytes = 0;
    c.kv_type = kv_type;
    c.prefix_cache = false;
    c.sequences_max = 1;
    struct engine *g = open_or_fail(t, &c);
    for (uint32_t i = 0; i < JOBS; i++) {
        submit(g, &jobs[i].r);
        for (bool more = true; more;) {
            more = engine_step(g, &s);
            for (uint32_t k = 0; k < s.n_deltas; k++) {
                jobs[i].tokens[jobs[i].n_tokens] = s.deltas[k].tokens[0];
                jobs[i].digests[jobs[i].n_tokens++] = s.deltas[k].logits_digests[0];
            }
        }
        assert_int_equal(jobs[i].n_tokens, jobs[i].r.max_tokens);
    }
    engine_free(g);
}

/* ---- schedules ---------------------------------------------------------------------------------
 */

struct life {
    uint32_t join_step, cancel_at, n_seen;
    bool joined, done;
};

struct totals {
    uint64_t cached, prefilled, preempted, pages_in, pages_out;
};

static void check_delta(const struct job *j, struct life *l, const struct engine_delta *d,
                        struct totals *t)
{
    assert_false(l->done);
    assert_int_equal(d->index, l->n_seen);
    for (uint32_t i = 0; i < d->n_tokens; i++)
        if (d->tokens[i] != j->tokens[l->n_seen + i] ||
            d->logits_digests[i] != j->digests[l->n_seen + i])
            fail_msg("request %llu, output %u: token %u here, %u alone; logits differ",
                     (unsigned long long)j->r.id, l->n_seen + i, d->tokens[i],
                     j->tokens[l->n_seen + i]);
    l->n_seen += d->n_tokens;
    l->done = d->finish != ENGINE_GOES_ON;
    assert_true(d->finish != ENGINE_ERROR && l->done == (l->n_seen == j->n_tokens));
    t->cached += d->cached_tokens;
}

static void join_and_leave(struct engine *g, const struct job *jobs, struct life *lives,
                           uint32_t step)
{
    for (uint32_t i = 0; i < JOBS; i++) {
        struct life *l = &lives[i];
        if (!l->joined && l->join_step <= step) {
            submit(g, &jobs[i].r);
            l->joined = true;
        }
        if (l->joined && !l->done && l->n_seen >= l->cancel_at) {
            engine_cancel(g, jobs[i].r.id);
            l->done = true;
        }
    }
}

static void run_schedule(struct engine *g, const struct job *jobs, struct life *lives,
                         struct totals *t)
{
    struct err e;
    for (uint32_t step = 0, n_done = 0; n_done < JOBS; step++) {
        struct engine_step s;
        assert_true(step < STEPS_MAX);
        join_and_leave(g, jobs, lives, step);
        engine_step(g, &s);
        t->prefilled += s.prefill_tokens;
        if (engine_check(g, &e) < 0)
            fail_msg("%s", e.msg);
        for (uint32_t i = 0; i < s.n_deltas; i++)
            check_delta(&jobs[s.deltas[i].id], &lives[s.deltas[i].id], &s.deltas[i], t);
        n_done = 0;
        for (uint32_t i = 0; i < JOBS; i++)
            n_done += lives[i].done;
    }
    struct engine_load load = engine_load(g);
    assert_int_equal(load.running + load.waiting + load.kv_pages_used, 0);
}

static void add_load(struct engine *g, struct totals *t)
{
    struct engine_load load = engine_load(g);
    t->preempted += load.preempted;
    t->pages_in += load.kv_pages_in;
    t->pages_out += load.kv_pages_out;
    const struct engine_info *info = engine_info(g);
    assert_true(load.kv_host_bytes_used <= info->kv_host_pages * (info->kv_bytes / info->kv_pages));
}

/* One after the other, twice. */
static struct totals run_twice(const struct tiny_llama *t, const struct job *jobs,
                               uint32_t host_pages)
{
    struct engine_config c = on_device(host_pages);
    struct totals totals = {0};
    c.sequences_max = 1;
    struct engine *g = open_or_fail(t, &c);
    assert_int_equal(engine_info(g)->kv_host_pages, host_pages);
    for (int round = 0; round < 2; round++) {
        struct life lives[JOBS] = {0};
        for (uint32_t i = 0; i < JOBS; i++)
            lives[i].cancel_at = UINT32_MAX;
        run_schedule(g, jobs, lives, &totals);
    }
    add_load(g, &totals);
    engine_free(g);
    assert_int_equal(simt_machine_taken(), 0);
    return totals;
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void test_what_was_evicted_comes_back_from_the_host(void **state)
{
    (void)state;
    static struct job jobs[JOBS];
    struct tiny_llama t = tiny_llama_small;
    struct rng rng;
    rng_init(&rng, 3);
    simt_machine_set(&a100);
    simt_set(&(struct simt_options){.seed = 3});
    make_jobs(jobs, &rng);
    answer_alone(&t, KN_KV_F16, jobs);
    struct totals without = run_twice(&t, jobs, 0), with = run_twice(&t, jobs, 80);
    assert_int_equal(without.pages_in + without.pages_out, 0);
    assert_true(with.pages_in > 0 && with.pages_out > 0);
    assert_true(with.cached > without.cached);
    assert_true(with.prefilled < without.prefilled);
    /* The second time round everything is there but the last block of each. */
    uint64_t least = 0;
    for (uint32_t i = 0; i < JOBS; i++)
        least += (jobs[i].r.n_prompt - 1) / KN_PAGE_TOKENS * KN_PAGE_TOKENS;
    assert_true(with.cached >= least);
    print_message("prompt rows computed: %llu without, %llu with pages on the host\n",
                  (unsigned long long)without.prefilled, (unsigned long long)with.prefilled);
}

/* Random joins, cancels and priorities, over engines whose host has few slots or many. */
static void run_engine(const struct tiny_llama *t, enum kn_kv_type kv_type, const struct job *jobs,
                       struct rng *rng, struct totals *totals)
{
    static const uint32_t host_pages[] = {2, 12, 80};
    struct engine_config c = on_device(host_pages[rng_below(rng, 3)]);
    c.sequences_max = 2 + (uint32_t)rng_below(rng, 6);
    c.step_tokens_max = 8 + (uint32_t)rng_below(rng, 60);
    c.priority_tokens = 1 + (uint32_t)rng_below(rng, 200);
    c.kv_type = kv_type;
    c.kv_bytes = (CONTEXT / KN_PAGE_TOKENS + rng_below(rng, 4)) *
                 (kv_type == KN_KV_F16 ? PAGE_BYTES : PAGE_BYTES / 2 + PAGE_BYTES / 8);
    simt_set(&(struct simt_options){.seed = rng_u64(rng), .eager_copies = rng_below(rng, 3) == 0});
    struct engine *g = open_or_fail(t, &c);
    for (int i = 0; i < (SANITIZED ? 1 : 2); i++) {
        struct life lives[JOBS] = {0};
        for (uint32_t k = 0; k < JOBS; k++)
            lives[k] = (struct life){
                .join_step = (uint32_t)rng_below(rng, 30),
                .cancel_at = rng_below(rng, 5) ? UINT32_MAX : (uint32_t)rng_below(rng, OUTPUT_MAX)};
        run_schedule(g, jobs, lives, totals);
    }
    add_load(g, totals);
    engine_free(g);
    assert_int_equal(simt_machine_taken(), 0);
}

static void test_random_schedules_have_the_bits_of_each_request_alone(void **state)
{
    (void)state;
    static struct job jobs[JOBS];
    struct totals totals = {0};
    simt_machine_set(&a100);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct tiny_llama t = tiny_llama_small;
        struct rng rng;
        enum kn_kv_type kv_type = seed % 2 ? KN_KV_F16 : KN_KV_INT8;
        t.seed = seed;
        rng_init(&rng, seed);
        make_jobs(jobs, &rng);
        answer_alone(&t, kv_type, jobs);
        for (int i = 0; i < (SANITIZED ? 2 : 4); i++)
            run_engine(&t, kv_type, jobs, &rng, &totals);
    }
    print_message("%llu preemptions, %llu prompt tokens from the cache, %llu pages out, %llu in\n",
                  (unsigned long long)totals.preempted, (unsigned long long)totals.cached,
                  (unsigned long long)totals.pages_out, (unsigned long long)totals.pages_in);
    assert_true(totals.pages_out > 0 && totals.pages_in > 0);
    if (!SANITIZED)
        assert_true(totals.preempted > 0 && totals.pages_in > 30 && totals.pages_out > 100);
}

/* Whichever allocation fails, it is said, and what was taken is given back. The last is the host's.
 */
static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    struct err e = {0};
    for (unsigned i = 1;; i++) {
        struct simt_machine m = a100;
        struct engine_config c = on_device(80);
        struct engine *g = NULL;
        struct err before = e;
        m.fail_malloc = i;
        simt_machine_set(&m);
        int rc = open_tiny(&tiny_llama_small, &c, &g, &e);
        engine_free(g);
        assert_int_equal(simt_machine_taken(), 0);
        if (rc == 0) {
            assert_true(i > 10);
            assert_string_equal(before.msg,
                                "kv_host_bytes: the host does not give 1M of page-locked memory "
                                "for KV pages: out of memory");
            return;
        }
        assert_int_equal(rc, ERR_CONFIG);
        assert_non_null(strstr(e.msg, "out of memory"));
    }
}

static void test_a_copy_that_fails_is_the_devices_failure(void **state)
{
    (void)state;
    char path[TINY_PATH_BYTES];
    const struct backend_limits limits = {.rows_max = 8,
                                          .picks_max = 2,
                                          .context = CONTEXT,
                                          .kv_pages = PAGES,
                                          .host_slots = 2,
                                          .kv_type = KN_KV_F16};
    struct threads *threads;
    struct checkpoint *file;
    struct model m;
    struct gpu gpu;
    struct backend *b;
    struct err e;
    simt_machine_set(&a100);
    tiny_llama_file(&tiny_llama_small, path);
    assert_int_equal(threads_create(1, &threads, &e), 0);
    assert_int_equal(checkpoint_open(path, &file, &e), 0);
    assert_int_equal(model_load(&m, file, KN_ISA_REF, threads, &e), 0);
    checkpoint_close(file);
    unlink(path);
    assert_int_equal(gpu_choose("cuda", 1, &gpu, &e), 0);
    assert_int_equal(backend_cuda_create(&m, &gpu, NULL, &limits, &b, &e), 0);
    backend_page_out(b, 0, 1);
    backend_page_fence(b);
    assert_int_equal(backend_check(b, &e), 0);
    backend_page_out(b, 1u << 20, 0); /* a page that is nowhere */
    backend_page_in(b, 0, 1);
    backend_page_fence(b);
    assert_int_equal(backend_check(b, &e), ERR_PEER);
    assert_non_null(strstr(e.msg, "GPU 0 (emulated GPU): copying KV pages"));
    backend_free(b);
    model_release(&m);
    threads_free(threads);
    assert_int_equal(simt_machine_taken(), 0);
}

static void expect_refused(struct engine_config c, const char *words)
{
    struct engine *g = NULL;
    struct err e = {0};
    struct simt_machine m = a100;
    m.devices = 2;
    simt_machine_set(&m);
    assert_int_equal(open_tiny(&tiny_llama_small, &c, &g, &e), ERR_CONFIG);
    if (!strstr(e.msg, words))
        fail_msg("'%s' has no '%s'", e.msg, words);
}

static void test_what_makes_no_sense_is_refused(void **state)
{
    (void)state;
    struct engine_config c = on_device(8);
    c.prefix_cache = false;
    expect_refused(c, "kv_host_bytes is for pages of the prefix cache, which is off");
    c = on_device(8);
    c.ranks = 2;
    expect_refused(c, "kv_host_bytes is not served by several GPUs (tp)");
    c = on_device(8);
    c.kv_host_bytes = PAGE_BYTES - 1;
    expect_refused(c, "kv_host_bytes: no room for a page of 4096 bytes");
}

/* Its KV is in the host's memory already. */
static void test_the_cpu_has_no_pages_on_the_host(void **state)
{
    (void)state;
    struct engine_config c = on_device(8);
    c.device = "cpu";
    struct engine *g = open_or_fail(&tiny_llama_small, &c);
    assert_int_equal(engine_info(g)->kv_host_pages, 0);
    engine_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_evicted_comes_back_from_the_host),
        cmocka_unit_test(test_random_schedules_have_the_bits_of_each_request_alone),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_a_copy_that_fails_is_the_devices_failure),
        cmocka_unit_test(test_what_makes_no_sense_is_refused),
        cmocka_unit_test(test_the_cpu_has_no_pages_on_the_host),
    };
    log_init("test_offload", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
