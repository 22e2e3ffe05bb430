#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/blockhash.h"
#include "runtime/base/clock.h"
#include "runtime/engine/engine.h"
#include "runtime/text/tokenizer.h"
#include "tests/unit/runtime/model/tiny_adapter.h"
#include "tests/unit/runtime/model/tiny_llama.h"

enum { CONTEXT_TOKENS = 48 };

static struct engine_config config(void)
{
    return (struct engine_config){
        .isa = "ref", .threads = 2, .sequences_max = 4, .waiting_max = 4, .step_tokens_max = 32};
}

static struct engine *open_tiny(const struct tiny_llama *t, struct engine_config *c)
{
    struct engine *g = NULL;
    struct err e = {0};
    char path[TINY_PATH_BYTES];
    tiny_llama_file(t, path);
    c->model_path = path;
    int rc = engine_open(c, &g, &e);
    unlink(path);
    c->model_path = NULL;
    if (rc < 0)
        fail_msg("%s", e.msg);
    return g;
}

static const uint32_t prompt[] = {72, 101, 108, 108, 111};

static struct engine_request request(uint64_t id)
{
    return (struct engine_request){.id = id,
                                   .prompt = prompt,
                                   .n_prompt = 5,
                                   .max_tokens = 10,
                                   .ignore_eos = true,
                                   .sampling = {.top_p = 1, .repetition_penalty = 1}};
}

static void submit(struct engine *g, const struct engine_request *r)
{
    struct err e;
    if (engine_submit(g, r, &e) < 0)
        fail_msg("%s", e.msg);
}

static void expect_refusal(struct engine *g, const struct engine_request *r, int code,
                           const char *words)
{
    struct err e;
    assert_int_equal(engine_submit(g, r, &e), code);
    if (!strstr(e.msg, words))
        fail_msg("'%s' has no '%s'", e.msg, words);
}

/* Steps until a request finishes; returns its last delta, valid until the next call. */
static struct engine_delta run_to_end(struct engine *g, uint64_t id, uint32_t *n_tokens)
{
    struct engine_step s;
    *n_tokens = 0;
    for (int i = 0; i < 1000; i++) {
        bool more = engine_step(g, &s);
        for (uint32_t j = 0; j < s.n_deltas; j++) {
            if (s.deltas[j].id != id)
                continue;
            *n_tokens += s.deltas[j].n_tokens;
            if (s.deltas[j].finish != ENGINE_GOES_ON)
                return s.deltas[j];
        }
        assert_true(more);
    }
    fail_msg("request %llu does not end", (unsigned long long)id);
    return (struct engine_delta){0};
}

static void expect_idle(struct engine *g)
{
    struct engine_step s;
    struct engine_load l = engine_load(g);
    assert_int_equal(l.running + l.waiting + l.kv_pages_used, 0);
    assert_false(engine_step(g, &s));
    assert_int_equal(s.n_deltas, 0);
}

static void test_engine_says_what_it_serves(void **state)
{
    (void)state;
    struct engine_config c = config();
    c.context_max = 100;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    const struct engine_info *info = engine_info(g);
    assert_string_equal(info->architecture, "llama");
    assert_string_equal(info->isa, "ref");
    assert_int_equal(strlen(info->manifest_sha256), 64);
    assert_int_equal(info->context_tokens, 100);
    assert_int_equal(info->vocab, TINY_VOCAB);
    assert_int_equal(info->kv_pages, 4 * 7);
    assert_int_equal(info->kv_bytes, info->kv_pages * (2 * 2 * 32 * 16 * 2)); /* layers, K and V */
    assert_int_equal(info->page_tokens, KN_PAGE_TOKENS);
    assert_non_null(engine_tokenizer(g));
    expect_idle(g);
    engine_free(g);
}

/* Half the memory and a scale for each token and head; and other tokens, so another name. */
static void test_engine_keeps_kv_in_int8(void **state)
{
    (void)state;
    struct engine_config c = config();
    c.context_max = 100;
    struct engine *f16 = open_tiny(&tiny_llama_small, &c);
    c.kv_type = KN_KV_INT8;
    struct engine *int8 = open_tiny(&tiny_llama_small, &c);
    const struct engine_info *a = engine_info(f16), *b = engine_info(int8);
    assert_int_equal(a->kv_pages, b->kv_pages);
    uint64_t elems = a->kv_bytes / 2, scales = elems / 16 * 4; /* head_dim 16 */
    assert_int_equal(b->kv_bytes, elems + scales);
    assert_string_not_equal(a->manifest_sha256, b->manifest_sha256);
    engine_free(f16);
    engine_free(int8);
}

/* A pool for one context, and prompts of every length that it has room for, of any tokens: each is
 * answered to the end, and one token more is refused with a reason. */
static void test_engine_takes_prompts_of_every_length(void **state)
{
    (void)state;
    uint32_t any[CONTEXT_TOKENS], n;
    struct engine_config c = config();
    c.context_max = CONTEXT_TOKENS;
    c.kv_bytes = CONTEXT_TOKENS / KN_PAGE_TOKENS * (2 * 2 * 32 * 16 * 2);
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    assert_int_equal(engine_info(g)->kv_pages, CONTEXT_TOKENS / KN_PAGE_TOKENS);
    for (uint32_t i = 0; i < CONTEXT_TOKENS; i++)
        any[i] = (i * 101 + 7) % TINY_VOCAB;
    for (uint32_t length = 1; length < CONTEXT_TOKENS; length++) {
        struct engine_request r = request(length), other = request(1000 + length);
        r.prompt = other.prompt = any;
        r.n_prompt = other.n_prompt = length;
        r.max_tokens = other.max_tokens = 1000;
        submit(g, &r);
        submit(g, &other); /* the pool is full: it waits or is preempted, and is not lost */
        struct engine_delta last = run_to_end(g, r.id, &n);
        assert_int_equal(last.finish, ENGINE_LENGTH);
        assert_int_equal(n, CONTEXT_TOKENS - length);
        last = run_to_end(g, other.id, &n);
        assert_int_equal(last.finish, ENGINE_LENGTH);
        expect_idle(g);
    }
    struct engine_request r = request(1);
    r.prompt = any;
    r.n_prompt = CONTEXT_TOKENS;
    expect_refusal(g, &r, ERR_LIMIT, "context");
    expect_idle(g);
    engine_free(g);
}

static void test_engine_refuses_a_bad_configuration(void **state)
{
    (void)state;
    struct engine *g = NULL;
    struct err e;
    struct engine_config c = config();
    assert_int_equal(engine_open(&c, &g, &e), ERR_CONFIG);
    c.model_path = "/nowhere/model.gguf";
    assert_int_equal(engine_open(&c, &g, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "/nowhere/model.gguf"));
    c.isa = "sse";
    assert_int_equal(engine_open(&c, &g, &e), ERR_CONFIG);
    c.isa = "ref";
    c.sequences_max = 0;
    assert_int_equal(engine_open(&c, &g, &e), ERR_CONFIG);
    c.sequences_max = 1;
    c.step_tokens_max = 0;
    assert_int_equal(engine_open(&c, &g, &e), ERR_CONFIG);
    c.step_tokens_max = UINT32_MAX;
    assert_int_equal(engine_open(&c, &g, &e), ERR_CONFIG);
    assert_null(g);
}

static void expect_outline(struct engine_config c)
{
    struct engine_outline o, quick;
    struct engine *g = NULL;
    struct err e = {0};
    char path[TINY_PATH_BYTES];
    tiny_llama_file(&tiny_llama_small, path);
    c.model_path = path;
    if (engine_outline(&c, true, &o, &e) < 0 || engine_outline(&c, false, &quick, &e) < 0 ||
        engine_open(&c, &g, &e) < 0)
        fail_msg("%s", e.msg);
    unlink(path);
    const struct engine_info *info = engine_info(g);
    assert_string_equal(o.manifest_sha256, info->manifest_sha256);
    assert_string_equal(quick.manifest_sha256, "");
    assert_int_equal(o.context_tokens, info->context_tokens);
    assert_int_equal(o.kv_pages, info->kv_pages);
    assert_int_equal(o.page_tokens, info->page_tokens);
    assert_int_equal(o.weight_bytes, info->weight_bytes);
    assert_int_equal(o.kv_bytes, info->kv_bytes);
    assert_int_equal(quick.weight_bytes, o.weight_bytes);
    engine_free(g);
}

static void test_engine_outline_is_what_opening_gives(void **state)
{
    (void)state;
    struct engine_outline o;
    struct err e;
    struct engine_config c = config();
    expect_outline(c);
    c.kv_type = KN_KV_INT8;
    expect_outline(c);
    c.context_max = 48;
    expect_outline(c);
    c.kv_bytes = 1 << 20;
    expect_outline(c);
    c.kv_bytes = 0;
    c.memory_bytes = 1 << 20;
    expect_outline(c);
    c.model_path = "/nowhere/model.gguf";
    assert_int_equal(engine_outline(&c, true, &o, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.msg, "/nowhere/model.gguf"));
}

static void test_engine_runs_to_max_tokens(void **state)
{
    (void)state;
    uint32_t n;
    struct engine_config c = config();
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    struct engine_request r = request(7);
    submit(g, &r);
    struct engine_delta d = run_to_end(g, 7, &n);
    assert_int_equal(d.finish, ENGINE_LENGTH);
    assert_int_equal(n, 10);
    assert_int_equal(d.index, 9);
    assert_null(d.sampled);
    expect_idle(g);
    engine_free(g);
}

static void test_engine_ends_when_the_context_is_full(void **state)
{
    (void)state;
    uint32_t n;
    struct engine_config c = config();
    c.context_max = 20;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    struct engine_request r = request(7);
    r.max_tokens = 1000000;
    submit(g, &r);
    assert_int_equal(run_to_end(g, 7, &n).finish, ENGINE_LENGTH);
    assert_int_equal(n, 15);
    expect_idle(g);
    engine_free(g);
}

/* A pool of two pages makes the context 32 tokens, so that every request that is taken can end. */
static void test_engine_fits_the_context_to_the_pool(void **state)
{
    (void)state;
    uint32_t n, long_prompt[40] = {0};
    struct engine_config c = config();
    c.kv_bytes = 2 * (2 * 2 * 32 * 16 * 2) + 100;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    assert_int_equal(engine_info(g)->kv_pages, 2);
    assert_int_equal(engine_info(g)->context_tokens, 32);
    struct engine_request r = request(1);
    r.prompt = long_prompt;
    r.n_prompt = 32;
    expect_refusal(g, &r, ERR_LIMIT, "32");
    r.n_prompt = 31;
    submit(g, &r);
    assert_int_equal(run_to_end(g, 1, &n).finish, ENGINE_LENGTH);
    assert_int_equal(n, 1);
    expect_idle(g);
    engine_free(g);
}

static void test_engine_refuses_what_can_never_run(void **state)
{
    (void)state;
    static const uint32_t outside[] = {1, TINY_VOCAB};
    struct engine_config c = config();
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    struct engine_request r = request(1);
    r.n_prompt = 0;
    expect_refusal(g, &r, ERR_RANGE, "empty");
    r = request(1);
    r.max_tokens = 0;
    expect_refusal(g, &r, ERR_RANGE, "max_tokens");
    r = request(1);
    r.prompt = outside;
    r.n_prompt = 2;
    expect_refusal(g, &r, ERR_RANGE, "prompt: token 1 is 258");
    r = request(1);
    r.output = outside;
    r.n_output = 2;
    expect_refusal(g, &r, ERR_RANGE, "output: token 1 is 258");
    r.n_output = 11;
    expect_refusal(g, &r, ERR_RANGE, "max_tokens is 10");
    r = request(1);
    r.n_prompt = UINT32_MAX;
    expect_refusal(g, &r, ERR_LIMIT, "context");
    r = request(1);
    r.sampling.temperature = -1;
    expect_refusal(g, &r, ERR_RANGE, "temperature");
    expect_idle(g);
    engine_free(g);
}

static void test_engine_refuses_one_more_than_may_wait(void **state)
{
    (void)state;
    struct engine_config c = config();
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    for (uint64_t id = 0; id < 8; id++) {
        struct engine_request r = request(id);
        submit(g, &r);
    }
    struct engine_request r = request(8);
    expect_refusal(g, &r, ERR_BUSY, "no more");
    engine_cancel(g, 3);
    r.id = 5;
    expect_refusal(g, &r, ERR_RANGE, "there already");
    r.id = 8;
    submit(g, &r);
    engine_free(g);
}

static void test_engine_cancels_at_once(void **state)
{
    (void)state;
    struct engine_step s;
    struct engine_config c = config();
    c.sequences_max = 1;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    struct engine_request a = request(1), b = request(2);
    submit(g, &a);
    submit(g, &b);
    engine_step(g, &s);
    assert_int_equal(engine_load(g).kv_pages_used, 1);
    engine_cancel(g, 1);
    assert_int_equal(engine_load(g).kv_pages_used, 0);
    engine_step(g, &s);
    assert_int_equal(s.n_deltas, 1);
    assert_int_equal(s.deltas[0].id, 2);
    engine_cancel(g, 2);
    engine_cancel(g, 99);
    expect_idle(g);
    engine_free(g);
}

static void test_engine_gives_up_at_the_deadline(void **state)
{
    (void)state;
    struct engine_step s;
    struct engine_config c = config();
    c.sequences_max = 1;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    struct engine_request a = request(1), b = request(2);
    a.deadline_ms = clock_mono_ms() + 3600000;
    b.deadline_ms = clock_mono_ms(); /* and waiting */
    submit(g, &a);
    submit(g, &b);
    engine_step(g, &s);
    assert_int_equal(s.n_deltas, 2);
    assert_int_equal(s.deltas[0].id, 2);
    assert_int_equal(s.deltas[0].finish, ENGINE_ERROR);
    assert_int_equal(s.deltas[0].n_tokens, 0);
    assert_non_null(strstr(s.deltas[0].error, "deadline"));
    assert_int_equal(s.deltas[1].id, 1);
    assert_int_equal(s.deltas[1].finish, ENGINE_GOES_ON);
    engine_free(g);
}

/* A request that comes with an output that is complete, such as a stream that moved at its very
 * end, is over without another token. */
static void test_engine_ends_what_was_complete(void **state)
{
    (void)state;
    static const uint32_t output[] = {65, 66, TINY_EOS};
    static const char *const stop[] = {"AB"};
    struct engine_step s;
    struct engine_config c = config();
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    struct engine_request r = request(1);
    r.ignore_eos = false;
    r.output = output;
    r.n_output = 3;
    submit(g, &r); /* ends with EOS */
    r.id = 2;
    r.n_output = 2;
    r.max_tokens = 2;
    submit(g, &r);
    r.id = 3;
    r.max_tokens = 10;
    r.stop = stop;
    r.n_stop = 1;
    submit(g, &r);
    assert_false(engine_step(g, &s));
    assert_int_equal(s.n_deltas, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(s.deltas[i].n_tokens, 0);
        assert_int_equal(s.deltas[i].finish, s.deltas[i].id == 2 ? ENGINE_LENGTH : ENGINE_STOP);
    }
    expect_idle(g);
    engine_free(g);
}

/* Two requests one after the other: the second finds the first one's blocks, and gives the same
 * tokens. */
static void test_engine_takes_a_prompt_from_the_cache(void **state)
{
    (void)state;
    uint32_t prompts[40], n;
    struct engine_cache_news news;
    struct engine_config c = config();
    c.prefix_cache = true;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    for (uint32_t i = 0; i < 40; i++)
        prompts[i] = 1 + i % 7;
    struct engine_request r = request(1);
    r.prompt = prompts;
    r.n_prompt = 40;
    r.max_tokens = 1;
    submit(g, &r);
    struct engine_delta d = run_to_end(g, 1, &n);
    uint32_t token = d.tokens[0];
    assert_int_equal(d.cached_tokens, 0);
    engine_cache_news(g, &news);
    assert_int_equal(news.n_stored, 2);
    assert_int_equal(news.n_evicted, 0);
    uint64_t root = blockhash_root(engine_info(g)->manifest_sha256, r.cache_salt);
    assert_true(news.stored[0] == blockhash_next(root, prompts, KN_PAGE_TOKENS));
    assert_true(news.stored[1] ==
                blockhash_next(news.stored[0], prompts + KN_PAGE_TOKENS, KN_PAGE_TOKENS));
    engine_cache_news(g, &news);
    assert_int_equal(news.n_stored + news.n_evicted, 0);
    expect_idle(g);
    assert_int_equal(engine_load(g).kv_pages_idle, 2);

    r.id = 2;
    submit(g, &r);
    d = run_to_end(g, 2, &n);
    assert_int_equal(d.cached_tokens, 32);
    assert_int_equal(d.tokens[0], token);
    r.id = 3;
    r.cache_salt[7] = 1; /* another tenant */
    submit(g, &r);
    assert_int_equal(run_to_end(g, 3, &n).cached_tokens, 0);
    expect_idle(g);
    uint64_t some[3];
    uint32_t cursor = 0;
    assert_int_equal(engine_cache_blocks(g, &cursor, some, 3), 2); /* what was told of */
    engine_cache_news(g, &news);
    cursor = 0;
    assert_int_equal(engine_cache_blocks(g, &cursor, some, 3), 3);
    assert_int_equal(engine_cache_blocks(g, &cursor, some, 3), 1);
    engine_free(g);
}

/* What leaves early leaves its blocks to others, and its pages to everybody. */
static void test_engine_caches_what_was_given_up(void **state)
{
    (void)state;
    uint32_t prompts[60] = {0}, n;
    struct engine_step s;
    struct engine_config c = config();
    c.prefix_cache = true;
    c.step_tokens_max = 20;
    c.kv_bytes = 6 * (2 * 2 * 32 * 16 * 2);
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    for (uint32_t i = 0; i < 60; i++)
        prompts[i] = 5;
    struct engine_request r = request(1);
    r.prompt = prompts;
    r.n_prompt = 60;
    submit(g, &r);
    engine_step(g, &s);
    engine_step(g, &s); /* 40 of 60 */
    engine_cancel(g, 1);
    assert_int_equal(engine_load(g).kv_pages_used, 0);
    r.id = 2;
    r.deadline_ms = clock_mono_ms() + 50;
    submit(g, &r);
    engine_step(g, &s); /* 32 from the cache, and 20 */
    usleep(60000);
    assert_int_equal(run_to_end(g, 2, &n).finish, ENGINE_ERROR);
    r.id = 3;
    r.deadline_ms = 0;
    r.max_tokens = 1;
    submit(g, &r);
    assert_int_equal(run_to_end(g, 3, &n).cached_tokens, 48);
    for (uint32_t i = 0; i < 60; i++)
        prompts[i] = 6; /* everything else has to go for this one */
    r.id = 4;
    r.max_tokens = 36;
    submit(g, &r);
    assert_int_equal(run_to_end(g, 4, &n).finish, ENGINE_LENGTH);
    assert_int_equal(n, 36);
    expect_idle(g);
    engine_free(g);
}

/* A high priority goes first, though a low one's prompt is all in the cache. */
static void test_engine_keeps_priorities_with_a_cache(void **state)
{
    (void)state;
    uint32_t prompts[40] = {0}, n;
    struct engine_step s;
    struct engine_config c = config();
    c.prefix_cache = true;
    c.sequences_max = 1;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    for (uint32_t i = 0; i < 40; i++)
        prompts[i] = 9;
    struct engine_request low = request(1), high = request(2);
    low.prompt = prompts;
    low.n_prompt = 40;
    submit(g, &low);
    run_to_end(g, 1, &n);
    low.id = 3;
    high.priority = 1;
    submit(g, &low);
    submit(g, &high);
    engine_step(g, &s);
    assert_int_equal(s.n_deltas, 1);
    assert_int_equal(s.deltas[0].id, 2);
    run_to_end(g, 3, &n);
    assert_int_equal(n, 10);
    expect_idle(g);
    engine_free(g);
}

/* Token 0 has an embedding that is not finite. */
/* One place, taken by a request that has begun: a higher priority gets it, and what lost it goes on
 * with the tokens that it gives alone. */
static void test_engine_preempts_for_a_priority_and_goes_on_exactly(void **state)
{
    (void)state;
    struct tiny_llama t = tiny_llama_small;
    struct engine_config c = config();
    struct engine_step s;
    uint32_t alone[10], n = 0, n_low = 0, n_high;
    c.sequences_max = 1;
    struct engine *g = open_tiny(&t, &c);
    struct engine_request low = request(1), high = request(2);
    high.priority = 1;
    submit(g, &low);
    while (engine_step(g, &s) || s.n_deltas > 0)
        for (uint32_t i = 0; i < s.n_deltas; i++)
            alone[n++] = s.deltas[i].tokens[0];
    assert_int_equal(n, 10);
    submit(g, &low);
    while (n_low < 4) {
        engine_step(g, &s);
        for (uint32_t i = 0; i < s.n_deltas; i++)
            assert_int_equal(s.deltas[i].tokens[0], alone[n_low++]);
    }
    submit(g, &high);
    run_to_end(g, 2, &n_high);
    assert_int_equal(n_high, 10);
    assert_int_equal(engine_load(g).waiting, 1);
    assert_int_equal(engine_load(g).preempted, 1);
    while (engine_step(g, &s) || s.n_deltas > 0)
        for (uint32_t i = 0; i < s.n_deltas; i++) {
            assert_int_equal(s.deltas[i].index, n_low);
            assert_int_equal(s.deltas[i].tokens[0], alone[n_low++]);
        }
    assert_int_equal(n_low, 10);
    expect_idle(g);
    engine_free(g);
}

static void test_engine_ends_the_one_whose_logits_are_not_finite(void **state)
{
    (void)state;
    static const uint32_t poisoned[] = {72, 0, 101};
    uint32_t never = 0, n;
    float bias = -1000;
    struct tiny_llama t = tiny_llama_small;
    struct engine_config c = config();
    t.not_finite = "token_embd.weight";
    struct engine *g = open_tiny(&t, &c);
    struct engine_request good = request(1), bad = request(2);
    good.sampling.bias_ids = &never;
    good.sampling.bias_values = &bias;
    good.sampling.n_bias = 1;
    bad.prompt = poisoned;
    bad.n_prompt = 3;
    submit(g, &good);
    submit(g, &bad);
    struct engine_delta d = run_to_end(g, 2, &n);
    assert_int_equal(d.finish, ENGINE_ERROR);
    assert_int_equal(n, 0);
    assert_non_null(strstr(d.error, "finite"));
    d = run_to_end(g, 1, &n);
    assert_int_equal(d.finish, ENGINE_LENGTH);
    expect_idle(g);
    engine_free(g);
}

#define SMOLLM2 "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf"

/* The real model, greedily, behind the prompt that its chat template makes. */
static void test_engine_knows_the_capital_of_france(void **state)
{
    static const char text[] = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n"
                               "<|im_start|>assistant\n";
    (void)state;
    if (access(SMOLLM2, R_OK) != 0) {
        print_message("!!! %s is missing: the real model is NOT tested\n", SMOLLM2);
        skip();
    }
    struct engine *g = NULL;
    struct err e;
    struct tokenvec ids;
    struct buf answer;
    struct engine_step s;
    struct engine_config c = config();
    c.model_path = SMOLLM2;
    c.isa = "auto";
    c.context_max = 200;
    assert_int_equal(engine_open(&c, &g, &e), 0);
    tokenvec_init(&ids, 0);
    buf_init(&answer, 0);
    assert_int_equal(tokenizer_encode(engine_tokenizer(g), text, sizeof(text) - 1,
                                      TOKENIZER_PARSE_SPECIAL, &ids, &e),
                     0);
    struct engine_request r = request(1);
    r.prompt = ids.ids;
    r.n_prompt = (uint32_t)ids.n;
    r.max_tokens = 40;
    r.ignore_eos = false;
    submit(g, &r);
    bool more = true;
    enum engine_finish finish = ENGINE_GOES_ON;
    while (more) {
        more = engine_step(g, &s);
        for (uint32_t i = 0; i < s.n_deltas; i++) {
            size_t n;
            const char *bytes =
                tokenizer_token_bytes(engine_tokenizer(g), s.deltas[i].tokens[0], false, &n);
            buf_add(&answer, bytes, n);
            finish = s.deltas[i].finish;
        }
    }
    print_message("%s\n", buf_str(&answer));
    assert_non_null(strstr(buf_str(&answer), "Paris"));
    assert_int_equal(finish, ENGINE_STOP);
    buf_release(&answer);
    tokenvec_release(&ids);
    engine_free(g);
}

/* ---- embeddings -------------------------------------------------------------------------------
 */

static void embed(struct engine *g, const uint32_t *ids, uint32_t n, enum engine_pooling pooling,
                  float *out)
{
    uint32_t n_tokens;
    struct engine_request r = {.id = 1, .prompt = ids, .n_prompt = n, .pooling = pooling};
    submit(g, &r);
    struct engine_delta d = run_to_end(g, 1, &n_tokens);
    assert_int_equal(d.finish, ENGINE_STOP);
    assert_int_equal(n_tokens, 0);
    assert_non_null(d.embedding);
    memcpy(out, d.embedding, engine_info(g)->n_embd * sizeof(float));
    expect_idle(g);
}

/* The last state of every prefix, added up here, is the mean of the whole. */
static void test_engine_embeds_by_mean_and_last_token(void **state)
{
    (void)state;
    enum { N = 40, D = 64 };
    uint32_t ids[N];
    float last[D], mean[D];
    double sum[D] = {0};
    struct engine_config c = config();
    c.prefix_cache = true;
    c.step_tokens_max = 7;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    assert_int_equal(engine_info(g)->n_embd, D);
    for (uint32_t i = 0; i < N; i++)
        ids[i] = 37 * i % TINY_VOCAB;
    for (uint32_t n = 1; n <= N; n++) {
        embed(g, ids, n, ENGINE_POOLING_LAST, last);
        for (uint32_t i = 0; i < D; i++)
            sum[i] += (double)last[i];
    }
    embed(g, ids, N, ENGINE_POOLING_MEAN, mean);
    for (uint32_t i = 0; i < D; i++)
        assert_true(mean[i] == (float)(sum[i] / N));
    assert_memory_not_equal(mean, last, sizeof(mean));
    engine_free(g);
}

static void test_engine_embeds_a_prompt_that_fills_the_context(void **state)
{
    (void)state;
    uint32_t ids[41] = {0};
    float v[64];
    struct engine_config c = config();
    c.context_max = 40;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    embed(g, ids, 40, ENGINE_POOLING_MEAN, v);
    struct engine_request r = {
        .id = 1, .prompt = ids, .n_prompt = 41, .pooling = ENGINE_POOLING_LAST};
    expect_refusal(g, &r, ERR_LIMIT, "41");
    r.n_prompt = 5;
    r.pooling = (enum engine_pooling)3;
    expect_refusal(g, &r, ERR_UNSUPPORTED, "pooling 3");
    r.pooling = ENGINE_POOLING_LAST;
    r.output = ids;
    r.n_output = 1;
    expect_refusal(g, &r, ERR_RANGE, "output");
    ids[4] = TINY_VOCAB;
    r.n_output = 0;
    expect_refusal(g, &r, ERR_RANGE, "vocabulary");
    engine_free(g);
}

/* ---- adapters ---------------------------------------------------------------------------------
 */

/* The tokens of a prompt of two blocks and one token, and how many came from the cache. */
static uint32_t run_with(struct engine *g, uint32_t adapter, uint32_t *tokens, uint32_t n)
{
    uint32_t ids[33], at = 0, cached = 0;
    struct engine_step s;
    for (uint32_t i = 0; i < 33; i++)
        ids[i] = 11 * i % TINY_VOCAB;
    struct engine_request r = request(1);
    r.prompt = ids;
    r.n_prompt = 33;
    r.max_tokens = n;
    r.adapter = adapter;
    submit(g, &r);
    for (bool more = true; more;) {
        more = engine_step(g, &s);
        for (uint32_t i = 0; i < s.n_deltas; i++) {
            cached += s.deltas[i].cached_tokens;
            for (uint32_t k = 0; k < s.deltas[i].n_tokens; k++)
                tokens[at++] = s.deltas[i].tokens[k];
        }
    }
    assert_int_equal(at, n);
    return cached;
}

static void test_engine_keeps_adapters_apart(void **state)
{
    (void)state;
    enum { N = 20 };
    struct tiny_adapter files[2] = {{.rank = 8, .seed = 1}, {.rank = 8, .seed = 2}};
    struct engine_adapter adapters[2];
    char folders[2][TINY_FOLDER_BYTES];
    uint32_t first[3][N], again[N];
    struct engine_config c = config();
    for (int i = 0; i < 2; i++) {
        tiny_adapter_folder(&files[i], &tiny_llama_small, folders[i]);
        adapters[i] = (struct engine_adapter){.name = i ? "b" : "a", .path = folders[i]};
    }
    c.adapters = adapters;
    c.n_adapters = 2;
    c.prefix_cache = true;
    struct engine *g = open_tiny(&tiny_llama_small, &c);
    const struct engine_info *info = engine_info(g);
    assert_int_equal(info->n_adapters, 2);
    assert_string_equal(info->adapters[1].name, "b");
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(run_with(g, i, first[i], N), 0); /* what the one before left is not its */
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(run_with(g, i, again, N), 32);
        assert_memory_equal(again, first[i], sizeof(again));
        assert_memory_not_equal(first[i], first[(i + 1) % 3], sizeof(again));
    }
    /* A router finds the block under the name that it can make up itself. */
    char text[140];
    uint32_t ids[16];
    struct engine_cache_news news;
    bool found = false;
    const uint8_t no_salt[16] = {0};
    for (uint32_t i = 0; i < 16; i++)
        ids[i] = 11 * i % TINY_VOCAB;
    snprintf(text, sizeof(text), "%s:%s", info->manifest_sha256, info->adapters[1].sha256);
    engine_cache_news(g, &news);
    for (uint32_t i = 0; i < news.n_stored; i++)
        found |= news.stored[i] == blockhash_next(blockhash_root(text, no_salt), ids, 16);
    assert_true(found);
    struct engine_request r = request(1);
    r.adapter = 3;
    expect_refusal(g, &r, ERR_RANGE, "adapter 3");
    engine_free(g);
    for (int i = 0; i < 2; i++)
        tiny_adapter_remove(folders[i]);
}

static void test_engine_refuses_adapters_over_ranks(void **state)
{
    (void)state;
    const struct engine_adapter adapter = {.name = "a", .path = "/nowhere"};
    struct engine_config c = config();
    struct engine *g = NULL;
    struct err e = {0};
    char path[TINY_PATH_BYTES];
    tiny_llama_file(&tiny_llama_small, path);
    c.model_path = path;
    c.adapters = &adapter;
    c.n_adapters = 1;
    assert_int_equal(engine_open(&c, &g, &e), ERR_NOT_FOUND);
    c.ranks = 2;
    c.ranks_patience_ms = 60000;
    assert_int_equal(engine_open(&c, &g, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.msg, "ranks"));
    assert_null(g);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_says_what_it_serves),
        cmocka_unit_test(test_engine_keeps_kv_in_int8),
        cmocka_unit_test(test_engine_takes_prompts_of_every_length),
        cmocka_unit_test(test_engine_refuses_a_bad_configuration),
        cmocka_unit_test(test_engine_outline_is_what_opening_gives),
        cmocka_unit_test(test_engine_runs_to_max_tokens),
        cmocka_unit_test(test_engine_ends_when_the_context_is_full),
        cmocka_unit_test(test_engine_fits_the_context_to_the_pool),
        cmocka_unit_test(test_engine_refuses_what_can_never_run),
        cmocka_unit_test(test_engine_refuses_one_more_than_may_wait),
        cmocka_unit_test(test_engine_cancels_at_once),
        cmocka_unit_test(test_engine_gives_up_at_the_deadline),
        cmocka_unit_test(test_engine_ends_what_was_complete),
        cmocka_unit_test(test_engine_takes_a_prompt_from_the_cache),
        cmocka_unit_test(test_engine_caches_what_was_given_up),
        cmocka_unit_test(test_engine_keeps_priorities_with_a_cache),
        cmocka_unit_test(test_engine_preempts_for_a_priority_and_goes_on_exactly),
        cmocka_unit_test(test_engine_ends_the_one_whose_logits_are_not_finite),
        cmocka_unit_test(test_engine_knows_the_capital_of_france),
        cmocka_unit_test(test_engine_embeds_by_mean_and_last_token),
        cmocka_unit_test(test_engine_embeds_a_prompt_that_fills_the_context),
        cmocka_unit_test(test_engine_keeps_adapters_apart),
        cmocka_unit_test(test_engine_refuses_adapters_over_ranks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
