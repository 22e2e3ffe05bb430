/* An engine over several ranks: what it refuses, and how it ends. */
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

#include "runtime/base/log.h"
#include "runtime/engine/engine.h"
#include "tests/unit/runtime/model/tiny_llama.h"

/* No test waits for longer, whatever goes wrong. */
#define LIMIT_S 60

static const uint32_t prompt[] = {72, 101, 108, 108, 111};

static int open_tiny(uint32_t ranks, struct engine **g, struct err *e)
{
    char path[TINY_PATH_BYTES];
    tiny_llama_file(&tiny_llama_small, path);
    const struct engine_config c = {.model_path = path,
                                    .isa = "ref",
                                    .threads = 1,
                                    .ranks = ranks,
                                    .ranks_patience_ms = 3000,
                                    .sequences_max = 4,
                                    .waiting_max = 4,
                                    .step_tokens_max = 32};
    int rc = engine_open(&c, g, e);
    unlink(path);
    return rc;
}

/* Child processes of this one, at most n. */
static int children(pid_t *pids, int n)
{
    char path[64];
    int found = 0;
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (found < n && fscanf(f, "%d", &pids[found]) == 1)
        found++;
    fclose(f);
    return found;
}

static void test_engine_refuses_ranks_without_work(void **state)
{
    (void)state;
    struct engine *g = NULL;
    struct err e;
    pid_t pids[8];
    alarm(LIMIT_S);
    assert_int_equal(open_tiny(4, &g, &e), ERR_CONFIG);
    assert_non_null(strstr(e.msg, "4 ranks: this model"));
    assert_non_null(strstr(e.msg, "at most 3"));
    assert_int_equal(open_tiny(17, &g, &e), ERR_CONFIG);
    assert_null(g);
    assert_int_equal(children(pids, 8), 0);
    alarm(0);
}

/* Steps until the engine says that a rank is lost; no token comes from then on. */
static void step_until_lost(struct engine *g, struct err *e)
{
    struct engine_step s;
    while (engine_check(g, e) == 0)
        engine_step(g, &s);
    for (int i = 0; i < 3; i++) {
        assert_true(engine_step(g, &s)); /* the request is still there */
        assert_int_equal(s.n_deltas + s.decode_tokens + s.prefill_tokens, 0);
    }
}

static void check_loss(int sig, const char *said)
{
    const struct engine_request r = {.id = 1,
                                     .prompt = prompt,
                                     .n_prompt = 5,
                                     .max_tokens = 400,
                                     .ignore_eos = true,
                                     .sampling = {.top_p = 1, .repetition_penalty = 1}};
    struct engine *g = NULL;
    struct engine_step s;
    struct err e = {0};
    pid_t pids[8];
    alarm(LIMIT_S);
    if (open_tiny(3, &g, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(children(pids, 8), 2);
    assert_int_equal(engine_submit(g, &r, &e), 0);
    for (int i = 0; i < 5; i++)
        assert_true(engine_step(g, &s));
    assert_int_equal(s.n_deltas, 1);
    kill(pids[1], sig);
    step_until_lost(g, &e);
    assert_int_equal(e.code, ERR_PEER);
    assert_non_null(strstr(e.msg, said));
    engine_free(g);
    assert_int_equal(children(pids, 8), 0);
    alarm(0);
}

static void test_engine_says_which_rank_was_killed(void **state)
{
    (void)state;
    check_loss(SIGKILL, "rank 2 was killed by signal 9");
}

static void test_engine_says_that_a_rank_stands_still(void **state)
{
    (void)state;
    check_loss(SIGSTOP, "did not answer within 3000 ms");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_refuses_ranks_without_work),
        cmocka_unit_test(test_engine_says_which_rank_was_killed),
        cmocka_unit_test(test_engine_says_that_a_rank_stands_still),
    };
    log_init("test_ranks", LOG_LEVEL_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
