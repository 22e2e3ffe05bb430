#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <pthread.h>

#include "runtime/base/clock.h"
#include "runtime/text/tokenizer.h"
#include "tests/unit/runtime/text/tiny_model.h"

static const char *const MERGES[][2] = {{"a", "b"}, {"b", "c"}, {"ab", "c"}, {"a", "a"}};
enum { AB = 256, BC, ABC, AA, IM_END, TEXT_END, TOOL, TOOLS };
static const char *const CONTROL[] = {"<|im_end|>", "<|endoftext|>"};
static const char *const USER[] = {"<tool>", "<tool>s"};

static struct tiny_model model(const char *pre)
{
    return (struct tiny_model){.pre = pre,
                               .merges = MERGES,
                               .n_merges = 4,
                               .control = CONTROL,
                               .n_control = 2,
                               .user = USER,
                               .n_user = 2,
                               .bos = TEXT_END,
                               .eos = TEXT_END};
}

static struct tokenizer *load(const struct tiny_model *m)
{
    struct tokenizer *t = NULL;
    struct err e;
    if (tiny_model_load(m, &t, &e) < 0)
        fail_msg("%s", e.msg);
    return t;
}

/* Ends with -1. */
static void expect_ids(const struct tokenizer *t, const char *text, unsigned flags, ...)
{
    struct tokenvec v;
    struct err e;
    size_t i = 0;
    va_list ap;
    tokenvec_init(&v, 0);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), flags, &v, &e), 0);
    va_start(ap, flags);
    for (int id; (id = va_arg(ap, int)) >= 0; i++) {
        assert_true(i < v.n);
        assert_int_equal(v.ids[i], id);
    }
    va_end(ap);
    assert_int_equal(v.n, i);
    tokenvec_release(&v);
}

static void refuse(const struct tiny_model *m, int code, const char *words)
{
    struct tokenizer *t = NULL;
    struct err e = {0};
    int rc = tiny_model_load(m, &t, &e);
    if (rc != code || !strstr(e.msg, words))
        fail_msg("rc %d, message '%s', wanted %d and '%s'", rc, e.msg, code, words);
    assert_null(t);
}

static void test_tokenizer_merges_by_rank_then_from_the_left(void **state)
{
    (void)state;
    struct tiny_model m = model("gpt-2");
    struct tokenizer *t = load(&m);
    expect_ids(t, "", 0, -1);
    expect_ids(t, "abc", 0, ABC, -1);
    expect_ids(t, "bc", 0, BC, -1);
    expect_ids(t, "aaa", 0, AA, 'a', -1);
    expect_ids(t, "aab", 0, 'a', AB, -1); /* "a b" ranks before "a a" */
    expect_ids(t, "ab c", 0, AB, ' ', 'c', -1);
    tokenizer_free(t);
}

static void test_tokenizer_ignores_merges_only_where_the_model_does(void **state)
{
    (void)state;
    /* "xyz" is a token that merging never reaches: "x y" ranks before "y z". */
    static const char *const odd[][2] = {{"x", "y"}, {"y", "z"}, {"x", "yz"}};
    struct tiny_model m = model("llama-bpe");
    m.merges = odd;
    m.n_merges = 3;
    struct tokenizer *t = load(&m);
    expect_ids(t, "xyz", 0, 258, -1);
    tokenizer_free(t);
    m.pre = "gpt-2";
    t = load(&m);
    expect_ids(t, "xyz", 0, 256, 'z', -1);
    expect_ids(t, "xyz", 0, 256, 'z', -1); /* what was learnt of the word changes nothing */
    expect_ids(t, "xy", 0, 256, -1);
    expect_ids(t, "xy", 0, 256, -1);
    tokenizer_free(t);
}

static void test_tokenizer_never_makes_control_tokens_from_plain_text(void **state)
{
    (void)state;
    struct tiny_model m = model("gpt-2");
    struct tokenizer *t = load(&m);
    struct tokenvec v;
    tokenvec_init(&v, 0);
    assert_int_equal(tokenizer_encode(t, "a<|im_end|>b", 12, 0, &v, NULL), 0);
    assert_int_equal(v.n, 12);
    tokenvec_release(&v);
    expect_ids(t, "ab<|im_end|>bc", TOKENIZER_PARSE_SPECIAL, AB, IM_END, BC, -1);
    expect_ids(t, "<|im_end|", TOKENIZER_PARSE_SPECIAL, '<', '|', 'i', 'm', '_', 'e', 'n', 'd', '|',
               -1);
    tokenizer_free(t);
}

static void test_tokenizer_takes_the_longest_user_token_in_any_text(void **state)
{
    (void)state;
    struct tiny_model m = model("gpt-2");
    struct tokenizer *t = load(&m);
    expect_ids(t, "<tool>ab<tool>s", 0, TOOL, AB, TOOLS, -1);
    tokenizer_free(t);
}

static void test_tokenizer_adds_bos_and_eos_where_the_model_says(void **state)
{
    (void)state;
    struct tiny_model m = model("gpt-2");
    struct tokenizer *t = load(&m);
    expect_ids(t, "ab", TOKENIZER_ADD_BOS_EOS, AB, -1);
    tokenizer_free(t);
    m.add_bos = m.add_eos = true;
    t = load(&m);
    assert_true(tokenizer_add_bos(t) && tokenizer_add_eos(t));
    expect_ids(t, "ab", TOKENIZER_ADD_BOS_EOS, TEXT_END, AB, TEXT_END, -1);
    expect_ids(t, "ab", 0, AB, -1);
    tokenizer_free(t);
}

static void test_tokenizer_knows_what_ends_generation(void **state)
{
    (void)state;
    struct tiny_model m = model("gpt-2");
    struct tokenizer *t = load(&m);
    assert_int_equal(tokenizer_bos(t), TEXT_END);
    assert_int_equal(tokenizer_eos(t), TEXT_END);
    assert_int_equal(tokenizer_eot(t), IM_END);
    assert_true(tokenizer_is_eog(t, TEXT_END));
    assert_true(tokenizer_is_eog(t, IM_END));
    assert_false(tokenizer_is_eog(t, TOOL));
    assert_false(tokenizer_is_eog(t, 'a'));
    assert_false(tokenizer_is_eog(t, TOKENIZER_NONE));
    tokenizer_free(t);
    m.bos = m.eos = -1;
    t = load(&m);
    assert_int_equal(tokenizer_bos(t), TOKENIZER_NONE);
    assert_int_equal(tokenizer_eos(t), TOKENIZER_NONE);
    tokenizer_free(t);
}

static void test_tokenizer_gives_bytes_of_tokens(void **state)
{
    (void)state;
    struct tiny_model m = model("gpt-2");
    struct tokenizer *t = load(&m);
    size_t n = 9;
    for (uint32_t i = 0; i < 256; i++) {
        const char *p = tokenizer_token_bytes(t, i, false, &n);
        assert_int_equal(n, 1);
        assert_int_equal((unsigned char)*p, i);
    }
    assert_string_equal(tokenizer_token_bytes(t, ABC, false, &n), "abc");
    assert_string_equal(tokenizer_token_bytes(t, TOOL, false, &n), "<tool>");
    assert_string_equal(tokenizer_token_bytes(t, IM_END, false, &n), "");
    assert_int_equal(n, 0);
    assert_string_equal(tokenizer_token_bytes(t, IM_END, true, &n), "<|im_end|>");
    assert_int_equal(n, 10);
    tokenizer_token_bytes(t, 1u << 30, true, &n);
    assert_int_equal(n, 0);
    assert_int_equal(tokenizer_token_type(t, IM_END), TOKEN_CONTROL);
    assert_int_equal(tokenizer_token_type(t, TOOL), TOKEN_USER_DEFINED);
    assert_int_equal(tokenizer_vocab_size(t), TOOLS + 1);
    assert_int_equal(tokenizer_find(t, "abc", 3), ABC);
    assert_int_equal(tokenizer_find(t, "<|im_end|>", 10), IM_END);
    assert_int_equal(tokenizer_find(t, "cba", 3), TOKENIZER_NONE);
    tokenizer_free(t);
}

static void test_tokenizer_reads_invalid_utf8_as_replaced(void **state)
{
    (void)state;
    struct tiny_model m = model("gpt-2");
    struct tokenizer *t = load(&m);
    expect_ids(t, "a\xFF", 0, 'a', 0xEF, 0xBF, 0xBD, -1);
    tokenizer_free(t);
}

static void test_tokenizer_stops_at_the_limit_of_tokens(void **state)
{
    (void)state;
    struct tiny_model m = model("gpt-2");
    struct tokenizer *t = load(&m);
    struct tokenvec v;
    struct err e;
    static char text[1 << 20];
    memset(text, 'x', sizeof(text));
    tokenvec_init(&v, 3);
    assert_int_equal(tokenizer_encode(t, "xyz", 3, 0, &v, &e), 0);
    tokenvec_clear(&v);
    assert_int_equal(tokenizer_encode(t, "wxyz", 4, 0, &v, &e), ERR_LIMIT);
    assert_non_null(strstr(e.msg, "more than 3 tokens"));
    uint64_t start = clock_mono_ms();
    tokenvec_clear(&v);
    assert_int_equal(tokenizer_encode(t, text, sizeof(text), 0, &v, &e), ERR_LIMIT);
    assert_int_equal(v.n, 0); /* refused before any work */
    assert_true(clock_mono_ms() - start < 10);
    assert_int_equal(tokenizer_encode(t, text, (size_t)TOKENIZER_TEXT_BYTES_MAX + 1, 0, &v, &e),
                     ERR_LIMIT);
    tokenvec_release(&v);
    tokenizer_free(t);
}

static void test_tokenizer_refuses_what_it_cannot_serve(void **state)
{
    (void)state;
    struct tiny_model m = model("gpt-2");
    m.model = "unigram";
    refuse(&m, ERR_UNSUPPORTED, "'unigram'");
    m = model("default");
    refuse(&m, ERR_UNSUPPORTED, "'default'");
    m = model("gpt");
    refuse(&m, ERR_UNSUPPORTED, "'gpt'");
    m = model("gpt-2");
    m.n_types_less = 1;
    refuse(&m, ERR_FORMAT, "token_type has 263 elements for 264");
    m = model("gpt-2");
    m.raw_merge = "nospace";
    refuse(&m, ERR_FORMAT, "merges: element 4");
    m.raw_merge = "a zz";
    refuse(&m, ERR_FORMAT, "merges: element 4 names no token");
    m.raw_merge = "a ";
    refuse(&m, ERR_FORMAT, "merges: element 4");
    m = model("gpt-2");
    m.eos = 264;
    refuse(&m, ERR_FORMAT, "eos_token_id is 264");
}

static void test_tokenizer_leaves_out_a_merge_that_would_forge_a_control_token(void **state)
{
    (void)state;
    static const char *const control[] = {"cd", "<|endoftext|>"};
    struct tiny_model m = model("gpt-2");
    m.control = control;
    m.raw_merge = "c d";
    struct tokenizer *t = load(&m);
    expect_ids(t, "cd", 0, 'c', 'd', -1);
    tokenizer_free(t);
}

static void *encode_often(void *t)
{
    for (int i = 0; i < 2000; i++)
        expect_ids(t, "abc <tool> aab bc", TOKENIZER_PARSE_SPECIAL, ABC, ' ', TOOL, ' ', 'a', AB,
                   ' ', BC, -1);
    return NULL;
}

static void test_tokenizer_is_shared_by_threads(void **state)
{
    (void)state;
    struct tiny_model m = model("qwen2");
    struct tokenizer *t = load(&m);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, t), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokenizer_merges_by_rank_then_from_the_left),
        cmocka_unit_test(test_tokenizer_ignores_merges_only_where_the_model_does),
        cmocka_unit_test(test_tokenizer_never_makes_control_tokens_from_plain_text),
        cmocka_unit_test(test_tokenizer_takes_the_longest_user_token_in_any_text),
        cmocka_unit_test(test_tokenizer_adds_bos_and_eos_where_the_model_says),
        cmocka_unit_test(test_tokenizer_knows_what_ends_generation),
        cmocka_unit_test(test_tokenizer_gives_bytes_of_tokens),
        cmocka_unit_test(test_tokenizer_reads_invalid_utf8_as_replaced),
        cmocka_unit_test(test_tokenizer_stops_at_the_limit_of_tokens),
        cmocka_unit_test(test_tokenizer_refuses_what_it_cannot_serve),
        cmocka_unit_test(test_tokenizer_leaves_out_a_merge_that_would_forge_a_control_token),
        cmocka_unit_test(test_tokenizer_is_shared_by_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
