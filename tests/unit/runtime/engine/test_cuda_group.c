/* Ranks with an emulated GPU each: an engine of them gives the bits of one CPU, and one that loses
 * a rank says so in time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <signal.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/model/shard.h"
#include "tests/unit/runtime/engine/said.h"
#include "tests/unit/runtime/model/tiny_llama.h"

/* No test waits for longer, whatever goes wrong. */
#define LIMIT_S 200

#define REQUESTS 3u
#define TOKENS 6u

/* Has work for eight ranks, and a KV head for four of them. */
static const struct tiny_llama wide = {.n_layers = 2,
                                       .n_embd = 128,
                                       .n_ff = 256,
                                       .n_heads = 8,
                                       .n_kv_heads = 4,
                                       .type = KN_Q8_0,
                                       .untied = true,
                                       .seed = 1};

/* Of a step of ranks, where a test does not wait for its end. */
static uint32_t patience_ms = 60000;

static int open_engine(const char *device, uint32_t ranks, const struct tiny_llama *t,
                       enum kn_kv_type kv_type, struct engine **out, struct err *e)
{
    char path[TINY_PATH_BYTES];
    tiny_llama_file(t, path);
    const struct engine_config c = {.isa = "auto",
                                    .device = device,
                                    .threads = 1,
                                    .ranks = ranks,
                                    .ranks_patience_ms = patience_ms,
                                    .sequences_max = REQUESTS,
                                    .waiting_max = REQUESTS + 1,
                                    .step_tokens_max = 16,
                                    .kv_type = kv_type,
                                    .model_path = path,
                                    .logits_digests = true};
    int rc = engine_open(&c, out, e);
    unlink(path);
    return rc;
}

/* Prompts of one token up to more than a step takes, and one that is pooled. */
struct requests {
    uint32_t prompt[24];
    struct engine_request v[REQUESTS + 1];
};

static void make_requests(struct requests *q)
{
    for (uint32_t i = 0; i < 24; i++)
        q->prompt[i] = 7 * i % TINY_VOCAB;
    for (uint32_t i = 0; i <= REQUESTS; i++) {
        q->v[i] = (struct engine_request){
            .id = i + 1,
            .prompt = q->prompt,
            .n_prompt = 1 + 9 * (i % REQUESTS),
            .max_tokens = TOKENS,
            .ignore_eos = true,
            .sampling = {.temperature = 0.8f, .top_p = 1, .repetition_penalty = 1.1f, .seed = i}};
        q->v[i].pooling = i == REQUESTS ? ENGINE_POOLING_MEAN : ENGINE_POOLING_NONE;
    }
}

static void run_on(const char *device, uint32_t ranks, const struct tiny_llama *t,
                   enum kn_kv_type kv_type, struct said *out)
{
    struct engine *g = NULL;
    struct requests q;
    struct err e = {0};
    if (open_engine(device, ranks, t, kv_type, &g, &e) < 0)
        fail_msg("%s, %u ranks: %s", device, ranks, e.msg);
    make_requests(&q);
    said_run(g, q.v, REQUESTS + 1, out);
    assert_int_equal(out->n_tokens, REQUESTS * TOKENS);
    assert_int_equal(engine_check(g, &e), 0);
    engine_free(g);
    assert_int_equal(simt_machine_taken(), 0);
}

static void compare(const struct tiny_llama *t, enum kn_kv_type kv_type, uint32_t ranks_max)
{
    struct said cpu, gpu;
    alarm(LIMIT_S);
    on_gpus(8);
    run_on("cpu", 1, t, kv_type, &cpu);
    for (uint32_t ranks = 1; ranks <= ranks_max; ranks *= 2) {
        simt_set(&(struct simt_options){.seed = ranks, .eager_copies = ranks % 4 == 2});
        run_on("cuda", ranks, t, kv_type, &gpu);
        assert_same_said(&cpu, &gpu);
    }
    alarm(0);
}

static void test_1_2_4_and_8_ranks_have_the_cpus_bits(void **state)
{
    (void)state;
    compare(&wide, KN_KV_F16, 8);
}

static void test_a_tied_head_and_biases_have_the_cpus_bits(void **state)
{
    (void)state;
    struct tiny_llama t = wide;
    t.n_layers = 1;
    t.untied = false;
    t.qkv_bias = true;
    t.type = KN_Q4_1;
    t.seed = 2;
    compare(&t, KN_KV_INT8, 4);
}

static void test_experts_have_the_cpus_bits(void **state)
{
    (void)state;
    struct tiny_llama t = wide;
    t.n_layers = 1;
    t.n_experts = 5;
    t.n_experts_used = 2;
    t.n_ff = 96;
    t.seed = 3;
    compare(&t, KN_KV_F16, 2);
}

/* Three query heads on one KV head: ranks without heads. */
static void test_heads_that_do_not_go_round_have_the_cpus_bits(void **state)
{
    (void)state;
    struct tiny_llama t = wide;
    t.n_layers = 1;
    t.n_embd = 96;
    t.n_heads = 3;
    t.n_kv_heads = 1;
    t.seed = 4;
    compare(&t, KN_KV_F16, 4);
}

/* ---- what goes wrong ---------------------------------------------------------------------------
 */

static void assert_refused(int devices, uint32_t ranks, const char *words)
{
    struct engine *g = NULL;
    struct err e = {0};
    on_gpus(devices);
    assert_true(open_engine("cuda", ranks, &wide, KN_KV_F16, &g, &e) < 0);
    if (!strstr(e.msg, words))
        fail_msg("'%s' is not in '%s'", words, e.msg);
    assert_int_equal(simt_machine_taken(), 0);
}

static void test_groups_that_will_not_do(void **state)
{
    (void)state;
    alarm(LIMIT_S);
    assert_refused(2, 4, "device=cuda:3: this machine has 2 GPUs");
    assert_refused(16, 16,
                   "16 ranks: this model (embedding 128, feed-forward 256) has work for at "
                   "most 8");
    alarm(0);
}

/* On rank 1 alone: rank 0 says so. */
static void test_a_rank_without_memory_is_said(void **state)
{
    (void)state;
    struct engine *g = NULL;
    struct err e = {0};
    alarm(LIMIT_S);
    simt_machine_set(&(struct simt_machine){.devices = 2,
                                            .major = 9,
                                            .minor = 0,
                                            .driver = 13000,
                                            .memory = (size_t)2 << 30,
                                            .fail_malloc = 5});
    gpu_forget();
    assert_true(open_engine("cuda", 2, &wide, KN_KV_F16, &g, &e) < 0);
    assert_non_null(strstr(e.msg, "out of memory"));
    assert_int_equal(simt_machine_taken(), 0);
    alarm(0);
}

/* The only child of this process. */
static pid_t child(void)
{
    char path[64], line[32];
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    fclose(f);
    return (pid_t)strtol(line, NULL, 10);
}

/* Loses rank 1 of 2 after the first step; what the engine says, and within which time. */
static uint64_t lose(int sig, struct err *e)
{
    struct engine *g = NULL;
    struct engine_step s;
    struct requests q;
    on_gpus(2);
    if (open_engine("cuda", 2, &wide, KN_KV_F16, &g, e) < 0)
        fail_msg("%s", e->msg);
    make_requests(&q);
    said_submit(g, q.v, REQUESTS + 1);
    assert_true(engine_step(g, &s));
    uint64_t begin_ms = clock_mono_ms();
    kill(child(), sig);
    while (engine_check(g, e) == 0)
        engine_step(g, &s);
    engine_free(g);
    return clock_mono_ms() - begin_ms;
}

static void test_a_rank_that_is_killed_is_said(void **state)
{
    (void)state;
    struct err e = {0};
    alarm(LIMIT_S);
    assert_true(lose(SIGKILL, &e) < 30000);
    assert_int_equal(e.code, ERR_PEER);
    assert_string_equal(e.msg, "rank 1 was killed by signal 9");
    alarm(0);
}

static void test_a_rank_that_stands_still_is_said_in_time(void **state)
{
    (void)state;
    struct err e = {0};
    alarm(LIMIT_S);
    patience_ms = 3000;
    uint64_t took_ms = lose(SIGSTOP, &e);
    patience_ms = 60000;
    assert_int_equal(e.code, ERR_PEER);
    /* Of the step, or of what rank 0 says before it. */
    assert_non_null(strstr(e.msg, "within 3000 ms"));
    assert_in_range(took_ms, 2900, 40000);
    alarm(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_1_2_4_and_8_ranks_have_the_cpus_bits),
        cmocka_unit_test(test_a_tied_head_and_biases_have_the_cpus_bits),
        cmocka_unit_test(test_experts_have_the_cpus_bits),
        cmocka_unit_test(test_heads_that_do_not_go_round_have_the_cpus_bits),
        cmocka_unit_test(test_groups_that_will_not_do),
        cmocka_unit_test(test_a_rank_without_memory_is_said),
        cmocka_unit_test(test_a_rank_that_is_killed_is_said),
        cmocka_unit_test(test_a_rank_that_stands_still_is_said_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
