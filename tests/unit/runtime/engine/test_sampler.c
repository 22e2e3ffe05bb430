#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "runtime/base/rng.h"
#include "runtime/engine/sampler.h"
#include "tests/unit/runtime/text/tiny_model.h"

enum { VOCAB = 258, EOS = 257, OUTPUT_MAX = 400 };

static const uint32_t prompt[] = {9, 3, 9, 200, 3};

struct fixture {
    struct tokenizer *tokenizer;
    struct grammar_store *grammars;
    struct sampler_model model;
    struct arena arena;
    struct sampler s;
};

static const uint32_t eog[] = {EOS};

static int init(struct fixture *f, const struct engine_request *r, struct err *e)
{
    static const char *const control[] = {"<|im_start|>", "<|im_end|>"};
    const struct tiny_model vocab = {
        .pre = "gpt-2", .control = control, .n_control = 2, .bos = 256, .eos = EOS};
    memset(f, 0, sizeof(*f));
    assert_int_equal(tiny_model_load(&vocab, &f->tokenizer, e), 0);
    struct grammar_store_limits limits;
    grammar_store_limits_default(&limits);
    assert_int_equal(grammar_store_create(f->tokenizer, &limits, &f->grammars, e), 0);
    f->model = (struct sampler_model){
        .tokenizer = f->tokenizer, .eog = eog, .n_eog = 1, .vocab = VOCAB, .grammars = f->grammars};
    arena_init(&f->arena, 0);
    return sampler_init(&f->s, &f->model, r, OUTPUT_MAX, &f->arena, e);
}

static void release(struct fixture *f)
{
    sampler_release(&f->s);
    arena_release(&f->arena);
    grammar_store_free(f->grammars);
    tokenizer_free(f->tokenizer);
}

static struct engine_request request(void)
{
    return (struct engine_request){.prompt = prompt,
                                   .n_prompt = 5,
                                   .max_tokens = OUTPUT_MAX,
                                   .sampling = {.top_p = 1, .repetition_penalty = 1}};
}

static bool allowed(const struct kn_sampling *p, uint32_t id)
{
    return !p->mask || (p->mask[id / 32] >> (id % 32) & 1);
}

static void test_sampler_counts_what_was_seen(void **state)
{
    (void)state;
    struct fixture f;
    struct err e;
    struct rng rng;
    struct engine_request r = request();
    uint32_t seen[VOCAB] = {0}, context[VOCAB] = {0};
    r.ignore_eos = true;
    r.sampling.frequency_penalty = 0.5f;
    r.sampling.repetition_penalty = 1.1f;
    assert_int_equal(init(&f, &r, &e), 0);
    for (int i = 0; i < 5; i++)
        context[prompt[i]] = 1;
    rng_init(&rng, 5);
    for (int step = 0; step < OUTPUT_MAX; step++) {
        const struct kn_sampling *p = sampler_params(&f.s);
        uint32_t n_seen = 0, n_context = 0;
        for (uint32_t id = 0; id < VOCAB; id++) {
            if (seen[id]) {
                assert_int_equal(p->seen_ids[n_seen], id);
                assert_int_equal(p->seen_counts[n_seen++], seen[id]);
            }
            if (seen[id] || context[id])
                assert_int_equal(p->context_ids[n_context++], id);
        }
        assert_int_equal(p->n_seen, n_seen);
        assert_int_equal(p->n_context, n_context);
        uint32_t token = (uint32_t)(rng_below(&rng, 16) * rng_below(&rng, 17));
        assert_false(sampler_accept(&f.s, token));
        seen[token]++;
    }
    release(&f);
}

static void test_sampler_keeps_no_lists_that_nobody_reads(void **state)
{
    (void)state;
    struct fixture f;
    struct err e;
    struct engine_request r = request();
    assert_int_equal(init(&f, &r, &e), 0);
    sampler_accept(&f.s, 4);
    const struct kn_sampling *p = sampler_params(&f.s);
    assert_int_equal(p->n_seen + p->n_context, 0);
    assert_null(p->mask);
    release(&f);
}

static void test_sampler_ends_at_eos_and_stop_ids(void **state)
{
    (void)state;
    static const uint32_t stop_ids[] = {70, 7, 70};
    struct fixture f;
    struct err e;
    struct engine_request r = request();
    r.stop_ids = stop_ids;
    r.n_stop_ids = 3;
    assert_int_equal(init(&f, &r, &e), 0);
    assert_false(sampler_accept(&f.s, 8));
    assert_true(sampler_accept(&f.s, EOS));
    assert_true(sampler_accept(&f.s, 7));
    assert_true(sampler_accept(&f.s, 70));
    release(&f);
    r.ignore_eos = true;
    assert_int_equal(init(&f, &r, &e), 0);
    assert_false(sampler_accept(&f.s, EOS));
    assert_true(sampler_accept(&f.s, 7));
    release(&f);
}

static void test_sampler_masks_the_end_before_min_tokens(void **state)
{
    (void)state;
    static const uint32_t stop_ids[] = {70, UINT32_MAX};
    for (int ignore_eos = 0; ignore_eos < 2; ignore_eos++) {
        struct fixture f;
        struct err e;
        struct engine_request r = request();
        r.stop_ids = stop_ids;
        r.n_stop_ids = 2;
        r.min_tokens = 3;
        r.ignore_eos = ignore_eos;
        assert_int_equal(init(&f, &r, &e), 0);
        for (int i = 0; i < 6; i++) {
            const struct kn_sampling *p = sampler_params(&f.s);
            assert_int_equal(allowed(p, 70), i >= 3);
            assert_int_equal(allowed(p, EOS), i >= 3 || ignore_eos);
            assert_true(allowed(p, 71) && allowed(p, 0) && allowed(p, 256));
            assert_false(sampler_accept(&f.s, 1));
        }
        release(&f);
    }
}

/* Feeds a text, a byte a token; returns how many it took to stop, 0 if it never did. */
static uint32_t feed(struct fixture *f, const char *text)
{
    for (uint32_t i = 0; text[i]; i++)
        if (sampler_accept(&f->s, (unsigned char)text[i]))
            return i + 1;
    return 0;
}

static void test_sampler_stops_at_a_stop_string(void **state)
{
    (void)state;
    static const char *const stop[] = {"END", "\n\n"};
    struct fixture f;
    struct err e;
    struct engine_request r = request();
    r.stop = stop;
    r.n_stop = 2;
    assert_int_equal(init(&f, &r, &e), 0);
    assert_int_equal(feed(&f, "the ENEND of it"), 9);
    release(&f);
    assert_int_equal(init(&f, &r, &e), 0);
    assert_int_equal(feed(&f, "a\nb\n\nEND"), 5);
    release(&f);
    assert_int_equal(init(&f, &r, &e), 0);
    assert_int_equal(feed(&f, "no end here"), 0);
    release(&f);
    /* The token that completes it may not end the output: the next one to do so does. */
    r.min_tokens = 4;
    assert_int_equal(init(&f, &r, &e), 0);
    assert_int_equal(feed(&f, "aEND bEND"), 9);
    release(&f);
    r.min_tokens = 3;
    assert_int_equal(init(&f, &r, &e), 0);
    assert_int_equal(feed(&f, "aEND bEND"), 4);
    release(&f);
}

/* The ids that may come, as text; EOS as '$'. */
static const char *may_come(struct fixture *f)
{
    static char out[VOCAB + 1];
    const struct kn_sampling *p = sampler_params(&f->s);
    uint32_t n = 0;
    for (uint32_t id = 0; id < VOCAB; id++)
        if (allowed(p, id))
            out[n++] = id == EOS ? '$' : (char)id;
    out[n] = 0;
    return out;
}

static void start_grammar(struct fixture *f, struct engine_request *r, const char *regex)
{
    struct err e;
    struct grammar_source source = {GRAMMAR_REGEX, GRAMMAR_SPACE_NONE, regex, strlen(regex)};
    r->grammar = &source;
    if (init(f, r, &e) < 0)
        fail_msg("%s", e.msg);
}

static void test_sampler_allows_what_the_grammar_does(void **state)
{
    (void)state;
    struct fixture f;
    struct engine_request r = request();
    start_grammar(&f, &r, "a[bc]?");
    assert_string_equal(may_come(&f), "a");
    assert_false(sampler_accept(&f.s, 'a'));
    assert_string_equal(may_come(&f), "bc$");
    assert_string_equal(may_come(&f), "bc$");
    assert_false(sampler_accept(&f.s, 'b'));
    assert_string_equal(may_come(&f), "$");
    assert_true(sampler_accept(&f.s, EOS));
    assert_null(sampler_refusal(&f.s));
    release(&f);
}

/* They keep the end away as long as there is something else, and no longer. */
static void test_sampler_ends_where_the_grammar_ends(void **state)
{
    (void)state;
    static const uint32_t stop_ids[] = {'b'};
    struct fixture f;
    for (int ignore_eos = 0; ignore_eos < 2; ignore_eos++) {
        struct engine_request r = request();
        r.ignore_eos = ignore_eos;
        r.min_tokens = ignore_eos ? 0 : 9;
        start_grammar(&f, &r, "a{0,2}");
        assert_string_equal(may_come(&f), "a");
        assert_false(sampler_accept(&f.s, 'a'));
        assert_string_equal(may_come(&f), "a");
        assert_false(sampler_accept(&f.s, 'a'));
        assert_string_equal(may_come(&f), "$");
        assert_true(sampler_accept(&f.s, EOS));
        release(&f);
    }
    struct engine_request r = request();
    r.min_tokens = 2;
    r.stop_ids = stop_ids;
    r.n_stop_ids = 1;
    start_grammar(&f, &r, "[ab]bb*");
    assert_string_equal(may_come(&f), "a");
    assert_false(sampler_accept(&f.s, 'a'));
    assert_string_equal(may_come(&f), "b"); /* nothing else: it comes, and does not end */
    assert_false(sampler_accept(&f.s, 'b'));
    assert_true(sampler_accept(&f.s, 'b'));
    release(&f);
}

static void test_sampler_says_what_is_wrong_with_a_grammar(void **state)
{
    (void)state;
    struct fixture f;
    struct engine_request r = request();
    start_grammar(&f, &r, "ab");
    assert_false(sampler_accept(&f.s, 'b'));
    assert_non_null(strstr(sampler_refusal(&f.s), "does not follow"));
    release(&f);
    r.grammar = &(struct grammar_source){GRAMMAR_REGEX, GRAMMAR_SPACE_NONE, "(", 1};
    struct err e;
    assert_int_equal(init(&f, &r, &e), ERR_FORMAT);
    release(&f);
    r.grammar = &(struct grammar_source){GRAMMAR_GBNF, GRAMMAR_SPACE_NONE, "root ::= \"\"", 11};
    assert_int_equal(init(&f, &r, &e), 0);
    assert_string_equal(may_come(&f), "$");
    release(&f);
}

static void expect_refusal(const struct engine_request *r, int code, const char *words)
{
    struct fixture f;
    struct err e;
    assert_int_equal(init(&f, r, &e), code);
    if (!strstr(e.msg, words))
        fail_msg("'%s' has no '%s'", e.msg, words);
    release(&f);
}

static void test_sampler_refuses_parameters_out_of_range(void **state)
{
    (void)state;
    struct engine_request r = request();
    r.sampling.temperature = -1;
    expect_refusal(&r, ERR_RANGE, "temperature");
    r.sampling.temperature = NAN;
    expect_refusal(&r, ERR_RANGE, "temperature");
    r = request();
    r.sampling.top_p = 1.5f;
    expect_refusal(&r, ERR_RANGE, "top_p");
    r = request();
    r.sampling.min_p = -0.1f;
    expect_refusal(&r, ERR_RANGE, "min_p");
    r = request();
    r.sampling.repetition_penalty = 0;
    expect_refusal(&r, ERR_RANGE, "repetition_penalty");
    r = request();
    r.sampling.frequency_penalty = INFINITY;
    expect_refusal(&r, ERR_RANGE, "frequency_penalty");
    r = request();
    r.sampling.n_top = KN_TOP_LOGPROBS_MAX + 1;
    expect_refusal(&r, ERR_RANGE, "top_logprobs");
}

static void test_sampler_sorts_biases_and_refuses_bad_ones(void **state)
{
    (void)state;
    uint32_t ids[] = {200, 3, 100};
    float values[] = {-1, 2, 5};
    struct fixture f;
    struct err e;
    struct engine_request r = request();
    r.sampling.bias_ids = ids;
    r.sampling.bias_values = values;
    r.sampling.n_bias = 3;
    assert_int_equal(init(&f, &r, &e), 0);
    const struct kn_sampling *p = sampler_params(&f.s);
    assert_int_equal(p->n_bias, 3);
    assert_true(p->bias_ids[0] == 3 && p->bias_ids[1] == 100 && p->bias_ids[2] == 200);
    assert_true(p->bias_values[0] == 2 && p->bias_values[1] == 5 && p->bias_values[2] == -1);
    release(&f);
    ids[1] = 100;
    expect_refusal(&r, ERR_RANGE, "twice");
    ids[1] = VOCAB;
    expect_refusal(&r, ERR_RANGE, "258");
    ids[1] = 4;
    values[0] = INFINITY;
    expect_refusal(&r, ERR_RANGE, "logit_bias");
    r.sampling.n_bias = VOCAB + 1;
    expect_refusal(&r, ERR_LIMIT, "logit_bias");
}

static void test_sampler_refuses_too_many_stops(void **state)
{
    (void)state;
    const char *stop[SAMPLER_STOP_STRINGS_MAX + 1];
    struct engine_request r = request();
    for (size_t i = 0; i <= SAMPLER_STOP_STRINGS_MAX; i++)
        stop[i] = "x";
    r.stop = stop;
    r.n_stop = SAMPLER_STOP_STRINGS_MAX + 1;
    expect_refusal(&r, ERR_LIMIT, "stop strings");
    stop[0] = "";
    r.n_stop = 1;
    expect_refusal(&r, ERR_RANGE, "");
    r.n_stop = 0;
    r.stop_ids = prompt;
    r.n_stop_ids = SAMPLER_STOP_IDS_MAX + 1;
    expect_refusal(&r, ERR_LIMIT, "stop ids");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampler_counts_what_was_seen),
        cmocka_unit_test(test_sampler_keeps_no_lists_that_nobody_reads),
        cmocka_unit_test(test_sampler_ends_at_eos_and_stop_ids),
        cmocka_unit_test(test_sampler_masks_the_end_before_min_tokens),
        cmocka_unit_test(test_sampler_stops_at_a_stop_string),
        cmocka_unit_test(test_sampler_allows_what_the_grammar_does),
        cmocka_unit_test(test_sampler_ends_where_the_grammar_ends),
        cmocka_unit_test(test_sampler_says_what_is_wrong_with_a_grammar),
        cmocka_unit_test(test_sampler_refuses_parameters_out_of_range),
        cmocka_unit_test(test_sampler_sorts_biases_and_refuses_bad_ones),
        cmocka_unit_test(test_sampler_refuses_too_many_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
