/* Grammars over a small vocabulary whose masks can be told by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/grammar/grammar.h"

/* Every byte is a token; then the words; the last one ends generation. */
#define WORDS_MAX 16

struct fixture {
    struct token_trie *trie;
    struct grammar *g;
    struct grammar_state *s;
    struct grammar_options o;
    uint32_t bits[(256 + WORDS_MAX + 32) / 32];
    uint32_t eog;
    char bytes[256];
};

static void setup(struct fixture *f, const char *const *words)
{
    struct token_text tokens[256 + WORDS_MAX + 1];
    uint32_t n = 0;
    struct err e;
    memset(f, 0, sizeof *f);
    for (; n < 256; n++) {
        f->bytes[n] = (char)n;
        tokens[n] = (struct token_text){&f->bytes[n], 1, false};
    }
    for (; words && words[n - 256]; n++)
        tokens[n] = (struct token_text){words[n - 256], strlen(words[n - 256]), false};
    f->eog = n;
    tokens[n++] = (struct token_text){"</s>", 4, true};
    assert_int_equal(token_trie_create(tokens, n, &f->trie, &e), 0);
    grammar_options_default(&f->o);
}

static void compile(struct fixture *f, enum grammar_kind kind, const char *text)
{
    struct err e = {0};
    if (grammar_compile(kind, text, strlen(text), f->trie, &f->o, &f->g, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(grammar_state_create(f->g, &f->s, &e), 0);
}

static void teardown(struct fixture *f)
{
    grammar_state_free(f->s);
    grammar_free(f->g);
    token_trie_free(f->trie);
}

static bool allows(struct fixture *f, uint32_t token)
{
    struct err e;
    assert_int_equal(grammar_mask(f->s, f->bits, &e), 0);
    return f->bits[token / 32] >> (token % 32) & 1;
}

/* Byte by byte, each of them in the mask first. True when all fit. */
static bool takes(struct fixture *f, const char *text)
{
    struct err e;
    for (; *text; text++) {
        bool allowed = allows(f, (uint8_t)*text);
        assert_int_equal(grammar_accept(f->s, (uint8_t)*text, &e) == 0, allowed);
        if (!allowed)
            return false;
    }
    return true;
}

/* From the beginning to the end. */
static bool matches(struct fixture *f, const char *text)
{
    grammar_state_clear(f->s);
    return takes(f, text) && grammar_is_accepting(f->s);
}

static void test_grammar_masks_words_of_a_regex(void **state)
{
    static const char *const words[] = {"ab", "abc", "bc", "b", "abd", NULL};
    struct fixture f;
    (void)state;
    setup(&f, words);
    compile(&f, GRAMMAR_REGEX, "a(bc|b)d?");
    assert_true(allows(&f, 256) && allows(&f, 257) && allows(&f, 260));
    assert_false(allows(&f, 258) || allows(&f, 259) || allows(&f, f.eog));
    assert_true(takes(&f, "a"));
    assert_true(allows(&f, 258) && allows(&f, 259) && !allows(&f, 256));
    /* The same bytes as token 'b'. */
    assert_true(allows(&f, 'b'));
    assert_true(takes(&f, "b"));
    assert_true(allows(&f, f.eog) && allows(&f, 'c') && allows(&f, 'd') && !allows(&f, 'b'));
    teardown(&f);
}

static void test_grammar_holds_json_by_schema_inside_of_rules(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f, NULL);
    compile(
        &f, GRAMMAR_GBNF,
        "root ::= \"<\" %json {\"type\":\"object\",\"properties\":{\"}\":{\"$ref\":\"#/$defs/n\"}},"
        "\"required\":[\"}\"],\"$defs\":{\"n\":{\"enum\":[\"{\\\"\",1]}}} \">\" | call\n"
        "call ::= %json {\"type\":\"boolean\"}");
    assert_true(matches(&f, "<{\"}\":1}>"));
    assert_true(matches(&f, "<{\"}\":\"{\\\"\"}>"));
    assert_true(matches(&f, "true"));
    assert_false(matches(&f, "<{\"}\":2}>") || matches(&f, "<{}>") || matches(&f, "<true>"));
    teardown(&f);
}

static void test_grammar_ends_only_when_complete(void **state)
{
    struct fixture f;
    struct err e;
    (void)state;
    setup(&f, NULL);
    compile(&f, GRAMMAR_JSON_SCHEMA, "{\"type\":\"integer\"}");
    assert_true(takes(&f, "-"));
    assert_false(allows(&f, f.eog));
    assert_int_equal(grammar_accept(f.s, f.eog, &e), ERR_RANGE);
    assert_true(takes(&f, "7"));
    assert_true(allows(&f, f.eog));
    assert_int_equal(grammar_accept(f.s, f.eog, &e), 0);
    assert_false(allows(&f, f.eog) || allows(&f, '1'));
    assert_int_equal(grammar_accept(f.s, '1', &e), ERR_RANGE);
    teardown(&f);
}

static void test_grammar_state_is_unchanged_by_what_does_not_fit(void **state)
{
    static const char *const words[] = {"[[[[x", NULL};
    struct fixture f;
    struct err e;
    (void)state;
    setup(&f, words);
    compile(&f, GRAMMAR_JSON_SCHEMA,
            "{\"$defs\":{\"a\":{\"type\":\"array\",\"items\":"
            "{\"$ref\":\"#/$defs/a\"}}},\"$ref\":\"#/$defs/a\"}");
    assert_true(takes(&f, "[["));
    assert_int_equal(grammar_accept(f.s, 256, &e), ERR_RANGE);
    assert_true(takes(&f, "]"));
    assert_false(grammar_is_accepting(f.s));
    assert_true(takes(&f, ",[[]]]"));
    assert_true(grammar_is_accepting(f.s));
    teardown(&f);
}

static void test_grammar_nests_no_deeper_than_its_stack(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f, NULL);
    f.o.limits.stack_max = 64;
    compile(&f, GRAMMAR_GBNF, "root ::= \"(\" root \")\" | \"x\"");
    uint32_t depth = 0;
    while (depth < 1000 && allows(&f, '(') && takes(&f, "("))
        depth++;
    assert_in_range(depth, 32, 64);
    assert_true(takes(&f, "x"));
    for (; depth > 0; depth--)
        assert_true(takes(&f, ")"));
    assert_true(grammar_is_accepting(f.s));
    teardown(&f);
}

static void test_grammar_reads_left_and_right_recursion(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f, NULL);
    f.o.limits.stack_max = 16;
    compile(&f, GRAMMAR_GBNF,
            "root ::= root \"+\" t | t\n"
            "t ::= [0-9] t | [0-9]   # a tail: takes no stack\n");
    assert_true(matches(&f, "1"));
    assert_true(matches(&f, "12345678901234567890123456789+2+3+4+5+6+7+8+9+1+2+3+4+5"));
    assert_false(matches(&f, "1++2"));
    assert_false(matches(&f, "+1"));
    teardown(&f);
}

static void test_grammar_steps_over_rules_that_match_nothing(void **state)
{
    struct fixture f;
    (void)state;
    setup(&f, NULL);
    compile(&f, GRAMMAR_GBNF, "root ::= a b a \"!\"\na ::= \"x\"? | b\nb ::= \"y\"* (a \"z\")?\n");
    assert_true(matches(&f, "!"));
    assert_true(matches(&f, "xyyz!"));
    assert_true(matches(&f, "zx!"));
    assert_false(matches(&f, "xx"));
    teardown(&f);
}

static void test_grammar_gives_forced_bytes(void **state)
{
    struct fixture f;
    char out[32];
    (void)state;
    setup(&f, NULL);
    compile(&f, GRAMMAR_JSON_SCHEMA,
            "{\"type\":\"object\",\"properties\":{\"ok\":{\"type\":\"boolean\"}},"
            "\"required\":[\"ok\"],\"additionalProperties\":false}");
    assert_int_equal(grammar_forced(f.s, out, sizeof out), 6);
    assert_memory_equal(out, "{\"ok\":", 6);
    assert_int_equal(grammar_forced(f.s, out, 2), 2);
    assert_true(takes(&f, "{\"ok\":t"));
    assert_int_equal(grammar_forced(f.s, out, sizeof out), 4);
    assert_memory_equal(out, "rue}", 4);
    teardown(&f);
}

static void test_grammar_space_is_what_the_option_says(void **state)
{
    static const char schema[] = "{\"type\":\"array\",\"items\":{\"type\":\"null\"}}";
    static const char *const texts[] = {"[null,null]", "[null, null]", "[ null\t,\n null ]",
                                        " [null]", "[null] "};
    static const bool fits[3][5] = {{true, false, false, false, false},
                                    {false, true, false, false, false},
                                    {true, true, true, false, false}};
    (void)state;
    for (int space = 0; space < 3; space++) {
        struct fixture f;
        setup(&f, NULL);
        f.o.space = (enum grammar_space)space;
        compile(&f, GRAMMAR_JSON_SCHEMA, schema);
        for (int i = 0; i < 5; i++)
            assert_int_equal(matches(&f, texts[i]), fits[space][i]);
        teardown(&f);
    }
}

/* Small texts that stand for very much: refused within the limits' work and memory, or compiled. */
static void test_grammar_survives_bombs(void **state)
{
    static const struct {
        enum grammar_kind kind;
        const char *text;
    } bombs[] = {
        {GRAMMAR_REGEX, "((((((a{1,99}){1,99}){1,99}){1,99}){1,99}){1,99})"},
        {GRAMMAR_REGEX, "(a|aa)*(b|bb)*(.{1,999}c){1,999}"},
        {GRAMMAR_REGEX, "(.*a.{20}){1,9}"},
        {GRAMMAR_GBNF, "root ::= (root root){1,9999} | \"x\"{9999}"},
        {GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"maxLength\":1000000}"},
        {GRAMMAR_JSON_SCHEMA,
         "{\"type\":\"array\",\"maxItems\":9999,\"items\":{\"type\":\"array\",\"maxItems\":9999,"
         "\"items\":{\"type\":\"string\",\"maxLength\":9999}}}"},
        {GRAMMAR_JSON_SCHEMA,
         "{\"$defs\":{\"a\":{\"allOf\":[{\"$ref\":\"#/$defs/a\"},{\"$ref\":\"#/$defs/a\"}]}},"
         "\"$ref\":\"#/$defs/a\"}"},
        {GRAMMAR_JSON_SCHEMA, "{\"type\":\"integer\",\"minimum\":-1e308,\"maximum\":1e308}"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        struct fixture f;
        struct err e = {0};
        setup(&f, NULL);
        f.o.limits.steps_max = 1000000; /* the tests run under sanitizers, too */
        size_t n = strlen(bombs[i].text);
        int rc = grammar_compile(bombs[i].kind, bombs[i].text, n, f.trie, &f.o, &f.g, &e);
        if (rc == 0)
            assert_true(grammar_memory_bytes(f.g) <= f.o.limits.table_bytes_max + (32u << 20));
        else
            assert_true(e.msg[0] && (rc == ERR_LIMIT || rc == ERR_UNSUPPORTED || rc == ERR_RANGE));
        teardown(&f);
    }
}

static void test_grammar_refuses_with_name_and_place(void **state)
{
    static const struct {
        enum grammar_kind kind;
        const char *text, *says;
        int code;
    } cases[] = {
        {GRAMMAR_JSON_SCHEMA, "{\"properties\":{\"a\":{\"not\":{}}}}", "#/properties/a: \"not\"",
         ERR_UNSUPPORTED},
        {GRAMMAR_JSON_SCHEMA, "{\"type\":\"integer\",\"multipleOf\":3}", "multipleOf",
         ERR_UNSUPPORTED},
        {GRAMMAR_JSON_SCHEMA, "{\"type\":\"array\",\"uniqueItems\":true}", "uniqueItems",
         ERR_UNSUPPORTED},
        {GRAMMAR_JSON_SCHEMA, "{\"type\":\"strin\"}", "strin", ERR_FORMAT},
        {GRAMMAR_JSON_SCHEMA, "{\"$ref\":\"http://x/y\"}", "leaves the document", ERR_UNSUPPORTED},
        {GRAMMAR_JSON_SCHEMA, "{\"$ref\":\"#/nowhere\"}", "leads nowhere", ERR_FORMAT},
        {GRAMMAR_JSON_SCHEMA, "{\"$ref\":\"#\"}", "nothing can match", ERR_RANGE},
        {GRAMMAR_JSON_SCHEMA, "{\"oneOf\":[{\"type\":\"number\"},{\"type\":\"integer\"}]}",
         "alternatives 0 and 1", ERR_UNSUPPORTED},
        {GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"format\":\"colour\"}", "colour",
         ERR_UNSUPPORTED},
        {GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"pattern\":\"a(?=b)\"}", "look-around",
         ERR_UNSUPPORTED},
        {GRAMMAR_JSON_SCHEMA, "{\"type\":", "not JSON", ERR_FORMAT},
        {GRAMMAR_JSON_SCHEMA, "{\"enum\":[]}", "nothing can match", ERR_RANGE},
        {GRAMMAR_JSON_SCHEMA, "{\"type\":\"string\",\"maxLength\":90000}", "states", ERR_LIMIT},
        {GRAMMAR_REGEX, "(a)\\1", "\\1", ERR_UNSUPPORTED},
        {GRAMMAR_REGEX, "a**", "nothing to repeat", ERR_FORMAT},
        {GRAMMAR_REGEX, "a++", "possessive", ERR_UNSUPPORTED},
        {GRAMMAR_REGEX, "(a", "no end", ERR_FORMAT},
        {GRAMMAR_REGEX, "a)", "unmatched", ERR_FORMAT},
        {GRAMMAR_REGEX, "[b-a]", "range", ERR_FORMAT},
        {GRAMMAR_REGEX, "a^b", "anchor", ERR_UNSUPPORTED},
        {GRAMMAR_REGEX, "(((x{999}){999}){999})", "", ERR_LIMIT},
        {GRAMMAR_GBNF, "root ::= a", "\"a\" is not defined", ERR_FORMAT},
        {GRAMMAR_GBNF, "top ::= \"a\"", "no rule \"root\"", ERR_FORMAT},
        {GRAMMAR_GBNF, "root ::= \"a\"\nroot ::= \"b\"", "line 2", ERR_FORMAT},
        {GRAMMAR_GBNF, "root ::= <think>", "token", ERR_UNSUPPORTED},
        {GRAMMAR_GBNF, "root ::= %lark x", "%json", ERR_UNSUPPORTED},
        {GRAMMAR_GBNF, "root ::= %json {\"a\":\"}\"", "no complete JSON object", ERR_FORMAT},
        {GRAMMAR_GBNF, "root ::= %json {\"type\":7}", "type", ERR_FORMAT},
        {GRAMMAR_GBNF, "root ::= root \"a\"", "nothing can match", ERR_RANGE},
    };
    struct fixture f;
    (void)state;
    setup(&f, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err e = {0};
        struct grammar *g = NULL;
        int rc = grammar_compile(cases[i].kind, cases[i].text, strlen(cases[i].text), f.trie, &f.o,
                                 &g, &e);
        if (rc != cases[i].code || g || !strstr(e.msg, cases[i].says))
            fail_msg("%s: %d, %s", cases[i].text, rc, e.msg);
    }
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grammar_masks_words_of_a_regex),
        cmocka_unit_test(test_grammar_holds_json_by_schema_inside_of_rules),
        cmocka_unit_test(test_grammar_ends_only_when_complete),
        cmocka_unit_test(test_grammar_state_is_unchanged_by_what_does_not_fit),
        cmocka_unit_test(test_grammar_nests_no_deeper_than_its_stack),
        cmocka_unit_test(test_grammar_reads_left_and_right_recursion),
        cmocka_unit_test(test_grammar_steps_over_rules_that_match_nothing),
        cmocka_unit_test(test_grammar_gives_forced_bytes),
        cmocka_unit_test(test_grammar_space_is_what_the_option_says),
        cmocka_unit_test(test_grammar_survives_bombs),
        cmocka_unit_test(test_grammar_refuses_with_name_and_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
