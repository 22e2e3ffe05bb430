/* The words of a text, against the expressions as their models' authors published them, run by
 * PCRE2 over the same text. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/base/rng.h"
#include "runtime/text/pretokenizer.h"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define LLAMA3(digits)                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *name, *stages[2];
} MODELS[] = {
    {"gpt-2", {GPT2, NULL}},
    {"smollm", {"\\p{N}", GPT2}},
    {"llama-bpe", {LLAMA3("{1,3}"), NULL}},
    {"qwen2", {LLAMA3(""), NULL}},
};

/* Every word, and a bar behind it. */
static int add_word(void *arg, const char *word, size_t n)
{
    buf_add(arg, word, n);
    buf_addc(arg, '|');
    return 0;
}

static void cut(pcre2_code *const codes[2], const char *text, size_t n, struct buf *out)
{
    if (!codes[0]) {
        add_word(out, text, n);
        return;
    }
    pcre2_code *rest[2] = {codes[1], NULL};
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    size_t at = 0;
    while (at < n) {
        int found = pcre2_match(codes[0], (PCRE2_SPTR)text, n, at, 0, m, NULL);
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(m);
        size_t start = found > 0 ? span[0] : n, end = found > 0 ? span[1] : n;
        if (start > at)
            cut(rest, text + at, start - at, out);
        if (end > start)
            cut(rest, text + start, end - start, out);
        at = end;
    }
    pcre2_match_data_free(m);
}

static void test_pretokenizer_words_are_those_of_the_published_expressions(void **state)
{
    /* What the expressions tell apart, and characters past ASCII of each class: a letter, one whose
     * other case is s, white space, a digit, another. */
    static const char *const pieces[] = {
        "a",    "S",    "t",        "re",       "VE",       "m",        "ll",
        "'D",   "'",    "0",        "7",        " ",        " ",        "\t",
        "\r",   "\n",   "!",        "-",        "$",        "_",        "\v",
        "\x1c", "\x7f", "\xc3\xa9", "\xc5\xbf", "\xc2\xa0", "\xc2\xb2", "\xe2\x82\xac"};
    (void)state;
    struct rng rng;
    rng_init(&rng, 11);
    for (size_t k = 0; k < ARRAY_LEN(MODELS); k++) {
        struct err e = {0};
        struct pretokenizer *p = NULL;
        pcre2_code *codes[2] = {NULL, NULL};
        struct buf text, ours, theirs;
        buf_init(&text, 0);
        buf_init(&ours, 0);
        buf_init(&theirs, 0);
        assert_int_equal(pretokenizer_create(MODELS[k].name, strlen(MODELS[k].name), &p, &e), 0);
        for (int i = 0; i < 2 && MODELS[k].stages[i]; i++) {
            int code;
            PCRE2_SIZE at;
            codes[i] = pcre2_compile((PCRE2_SPTR)MODELS[k].stages[i], PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
            assert_non_null(codes[i]);
        }
        for (int round = 0; round < 20000; round++) {
            size_t kinds = round % 2 ? ARRAY_LEN(pieces) : 23; /* ASCII alone, or all */
            buf_clear(&text);
            buf_clear(&ours);
            buf_clear(&theirs);
            for (uint64_t n = 1 + rng_u64(&rng) % 9; n > 0; n--)
                buf_adds(&text, pieces[rng_u64(&rng) % kinds]);
            assert_int_equal(pretokenizer_split(p, buf_str(&text), text.len, add_word, &ours, &e),
                             0);
            cut(codes, buf_str(&text), text.len, &theirs);
            if (strcmp(buf_str(&ours), buf_str(&theirs)) != 0)
                fail_msg("%s: '%s' is %s, not %s", MODELS[k].name, buf_str(&text), buf_str(&ours),
                         buf_str(&theirs));
        }
        for (int i = 0; i < 2; i++)
            pcre2_code_free(codes[i]);
        pretokenizer_free(p);
        buf_release(&text);
        buf_release(&ours);
        buf_release(&theirs);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pretokenizer_words_are_those_of_the_published_expressions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
