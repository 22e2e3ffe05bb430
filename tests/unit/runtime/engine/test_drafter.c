#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "runtime/base/threads.h"
#include "runtime/engine/drafter.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/sequence.h"
#include "tests/unit/runtime/model/tiny_llama.h"

enum { ROOM = 64 };

/* ---- lookup -----------------------------------------------------------------------------------
 */

static void expect_lookup(const char *text, uint32_t wanted, const char *guesses)
{
    struct drafter *d;
    struct err e;
    uint32_t tokens[256 + ROOM], n = (uint32_t)strlen(text);
    struct sequence q = {.tokens = tokens, .n_tokens = n, .n_drafts = wanted}, *list = &q;
    char got[ROOM + 1] = "";
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (unsigned char)text[i];
    assert_int_equal(drafter_lookup_create(&d, &e), 0);
    d->draft(d, &list, 1);
    for (uint32_t i = 0; i < q.n_drafts; i++)
        got[i] = (char)tokens[n + i];
    assert_string_equal(got, guesses);
    assert_int_equal(q.n_tokens, n);
    drafter_free(d);
}

static void test_lookup_guesses_what_followed_the_longest_tail(void **state)
{
    (void)state;
    expect_lookup("the cat sat. a bat is. the c", 6, "at sat");
    expect_lookup("xabcd yabce zabcd yab", 3, "ce "); /* " yab", not the later "zab" */
    expect_lookup("ab1 ab2 ab", 2, "2 ");             /* of equal ones the latest */
}

static void test_lookup_goes_on_in_what_it_guessed(void **state)
{
    (void)state;
    expect_lookup("abcabc", 8, "abcabcab");
    expect_lookup("zaaa", 5, "aaaaa");
}

static void test_lookup_guesses_nothing_from_one_token_in_common(void **state)
{
    (void)state;
    expect_lookup("abcdefga", 4, "");
    expect_lookup("a", 4, "");
}

/* ---- a draft model ----------------------------------------------------------------------------
 */

static struct engine_config config(const char *path, const char *draft)
{
    return (struct engine_config){.model_path = path,
                                  .isa = "auto",
                                  .threads = 1,
                                  .kv_bytes = 1 << 20,
                                  .context_max = 200,
                                  .sequences_max = 3,
                                  .waiting_max = 16,
                                  .step_tokens_max = 32,
                                  .speculate = ENGINE_SPECULATE_DRAFT,
                                  .draft_model = draft,
                                  .draft_tokens_max = 4,
                                  .draft_always = true};
}

/* Five requests with noise, one of them cancelled in the middle. */
static struct engine_load run(struct engine *g)
{
    uint32_t prompt[60];
    struct engine_step s;
    struct err e;
    struct rng rng;
    rng_init(&rng, 7);
    for (uint32_t i = 0; i < 60; i++)
        prompt[i] = (uint32_t)rng_below(&rng, 250);
    for (uint64_t id = 0; id < 5; id++) {
        struct engine_request r = {
            .id = id,
            .prompt = prompt + id,
            .n_prompt = 50,
            .max_tokens = 60,
            .ignore_eos = true,
            .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 100 + id}};
        assert_int_equal(engine_submit(g, &r, &e), 0);
    }
    for (uint32_t step = 0; engine_step(g, &s); step++) {
        assert_true(step < 1000);
        if (step == 12)
            engine_cancel(g, 1);
    }
    return engine_load(g);
}

/* The same weights, parameters, seeds and positions: every guess is right, so every KV entry that
 * the drafter kept, computed again or took over from a wrong guess was the right one. */
static void test_a_draft_model_that_is_the_model_is_always_right(void **state)
{
    (void)state;
    char path[TINY_PATH_BYTES];
    struct engine *g;
    struct err e;
    tiny_llama_file(&tiny_llama_small, path);
    struct engine_config c = config(path, path);
    assert_int_equal(engine_open(&c, &g, &e), 0);
    struct engine_load load = run(g);
    assert_true(load.drafted > 150);
    assert_int_equal(load.drafts_right, load.drafted);
    engine_free(g);
    unlink(path);
}

/* Guesses n tokens for q, and again with nothing kept of it: the same come. */
static void expect_same_anew(struct drafter *d, struct sequence *q, uint32_t n)
{
    uint32_t guesses[8], *behind = q->tokens + q->n_tokens;
    struct sequence *list = q;
    q->n_drafts = n;
    d->draft(d, &list, 1);
    assert_int_equal(q->n_drafts, n);
    memcpy(guesses, behind, n * sizeof(*guesses));
    struct sequence other = *q;
    other.draft_lane = 0;
    list = &other;
    d->draft(d, &list, 1);
    d->forget(d, &other);
    assert_memory_equal(guesses, behind, n * sizeof(*guesses));
}

/* Other tokens come than were guessed, at once or behind some that were right, and several before
 * the next call. */
static void test_a_draft_model_takes_wrong_guesses_back(void **state)
{
    (void)state;
    char path[TINY_PATH_BYTES];
    struct engine *g;
    struct drafter *d;
    struct threads *threads;
    struct err e;
    struct rng rng;
    uint32_t tokens[200];
    tiny_llama_file(&tiny_llama_small, path);
    struct engine_config c = config(path, path);
    assert_int_equal(engine_open(&c, &g, &e), 0); /* for its tokenizer */
    assert_int_equal(threads_create(1, &threads, &e), 0);
    const struct drafter_host host = {.threads = threads,
                                      .tokenizer = engine_tokenizer(g),
                                      .isa = kn_isa_best(),
                                      .vocab = TINY_VOCAB,
                                      .context = 200,
                                      .kv_pages = 32,
                                      .sequences_max = 2,
                                      .step_tokens_max = 200};
    assert_int_equal(drafter_model_create(path, &host, &d, &e), 0);
    rng_init(&rng, 3);
    for (uint32_t round = 0; round < 60; round++) {
        struct sequence q = {.tokens = tokens, .n_tokens = 1, .state = SEQUENCE_RUNNING};
        tokens[0] = (uint32_t)rng_below(&rng, TINY_VOCAB);
        q.sampler.params = (struct kn_sampling){
            .temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = round};
        for (uint32_t i = 0; i < 8; i++) {
            expect_same_anew(d, &q, 4);
            q.n_tokens += (uint32_t)rng_below(&rng, 5);
            for (uint64_t more = 1 + rng_below(&rng, 3); more > 0; more--)
                tokens[q.n_tokens++] = (uint32_t)rng_below(&rng, TINY_VOCAB);
        }
        d->forget(d, &q);
    }
    drafter_free(d);
    threads_free(threads);
    engine_free(g);
    unlink(path);
}

static void expect_refused(const char *draft, const char *why)
{
    char path[TINY_PATH_BYTES];
    struct engine *g;
    struct err e;
    tiny_llama_file(&tiny_llama_small, path);
    struct engine_config c = config(path, draft);
    assert_true(engine_open(&c, &g, &e) < 0);
    if (!strstr(e.msg, why))
        fail_msg("said '%s', wanted '%s'", e.msg, why);
    unlink(path);
}

static void test_a_draft_model_is_refused_by_name(void **state)
{
    (void)state;
    char other[] = "/tmp/test_drafter_XXXXXX";
    static const char *const control[] = {"<|im_start|>", "<|im_end|>", "<|more|>"};
    const struct tiny_model vocab = {
        .pre = "gpt-2", .control = control, .n_control = 3, .bos = 256, .eos = TINY_EOS};
    struct buf b;
    int fd = mkstemp(other);
    buf_init(&b, 0);
    tiny_model_write(&b, &vocab);
    assert_int_equal(write(fd, b.data, b.len), b.len);
    close(fd);
    expect_refused(other, "it has 259 tokens, the model 258");
    expect_refused("/nonexistent.gguf", "draft_model /nonexistent.gguf");
    expect_refused(NULL, "draft_model is missing");
    buf_release(&b);
    unlink(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup_guesses_what_followed_the_longest_tail),
        cmocka_unit_test(test_lookup_goes_on_in_what_it_guessed),
        cmocka_unit_test(test_lookup_guesses_nothing_from_one_token_in_common),
        cmocka_unit_test(test_a_draft_model_that_is_the_model_is_always_right),
        cmocka_unit_test(test_a_draft_model_takes_wrong_guesses_back),
        cmocka_unit_test(test_a_draft_model_is_refused_by_name),
    };
    log_init("test_drafter", LOG_LEVEL_WARN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
