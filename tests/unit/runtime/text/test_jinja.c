/* The template language, feature by feature. The expected strings are what jinja2 3.1.6 gives with
 * trim_blocks, lstrip_blocks and the immutable sandbox. */
#include <json-c/json.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/check.h"
#include "runtime/text/jinja.h"

static const char vars_json[] = "{\"s\": \"Hello\", \"u\": \"\\u00c4\\u00df\", \"n\": 7, \"l\": "
                                "[3, 1, 2], \"d\": {\"b\": 1, \"a\": [2, null]},"
                                " \"items\": [{\"k\": \"x\", \"v\": 1}, {\"k\": \"y\", \"v\": 2}], "
                                "\"none_\": null, \"yes\": true, \"f\": 0.1}";

static int render_with(const char *text, size_t n, const struct jinja_limits *lim, struct buf *out,
                       struct err *e)
{
    struct jinja *j = NULL;
    struct arena a;
    struct jval vars;
    int rc = jinja_compile(text, n, &j, e);
    if (rc)
        return rc;
    struct json_object *o = json_tokener_parse(vars_json);
    arena_init(&a, lim->memory_bytes_max);
    rc = jval_from_json(&a, o, &vars, e);
    if (!rc)
        rc = jinja_render(j, &a, vars, 86400 * 365, lim, out, e);
    arena_release(&a);
    json_object_put(o);
    jinja_free(j);
    return rc;
}

struct sample {
    const char *text, *want;
};

static void check_samples(const struct sample *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct err e = {0};
        struct buf out;
        buf_init(&out, 0);
        int rc = render_with(v[i].text, strlen(v[i].text), &jinja_limits_default, &out, &e);
        if (rc || strcmp(buf_str(&out), v[i].want))
            fail_msg("%s\n  want: %s\n  got:  %s %s", v[i].text, v[i].want, buf_str(&out), e.msg);
        buf_release(&out);
    }
}

#define CHECK(...)                                      \
    do {                                                \
        static const struct sample v[] = {__VA_ARGS__}; \
        check_samples(v, ARRAY_LEN(v));                 \
    } while (0)

/* The code that compiling or rendering ends with, and the message in *e. */
static int code_of(const char *text, const struct jinja_limits *lim, struct err *e)
{
    struct buf out;
    buf_init(&out, 0);
    buf_adds(&out, "before");
    int rc = render_with(text, strlen(text), lim, &out, e);
    if (rc)
        assert_string_equal(buf_str(&out), "before"); /* what was written is taken back */
    buf_release(&out);
    return rc;
}

static void check_fails(int code, const char *text, const char *words)
{
    struct err e = {0};
    int rc = code_of(text, &jinja_limits_default, &e);
    if (rc != code || !strstr(e.msg, words))
        fail_msg("%s\n  want: %s '%s'\n  got:  %s '%s'", text, err_name(code), words, err_name(rc),
                 e.msg);
}

static void test_jinja_prints_values_as_python_does(void **state)
{
    (void)state;
    CHECK({"{{ l }} {{ d }} {{ none_ }} {{ yes }} {{ missing }}",
           "[3, 1, 2] {'b': 1, 'a': [2, None]} None True "},
          {"{{ [1.0, 1e16, 1e-5, 0.1, 123456789012345680.0] }}",
           "[1.0, 1e+16, 1e-05, 0.1, 1.2345678901234568e+17]"},
          {"{{ ['it\\'s', 'a\"b', '\\n\\x00\\u200b', u] }}",
           "[\"it's\", 'a\"b', '\\n\\x00\\u200b', 'Äß']"},
          {"{{ (1,) }}{{ () }}{{ {1: 2.5} }}", "(1,)(){1: 2.5}"},
          {"{{ range(3) }}{{ d.keys() }}{{ d.items() }}",
           "range(0, 3)dict_keys(['b', 'a'])dict_items([('b', 1), ('a', [2, None])])"},
          {"{{ namespace(a=1) }}{% macro m() %}{% endmacro %}{{ m }}",
           "<Namespace {'a': 1}><Macro 'm'>"});
}

static void test_jinja_computes_as_python_does(void **state)
{
    (void)state;
    CHECK(
        {"{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}", "-4 2 3.5 1024 0.5"},
        {"{{ -7.5 // 2 }} {{ -7.5 % 2 }} {{ 0.1 + 0.2 }}", "-4.0 0.5 0.30000000000000004"},
        {"{{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 1 + 2 * 3 }}", "64 4 7"},
        {"{{ 'a' ~ 1 ~ none }} {{ 'ab' * 2 }} {{ [1] + [2] }}", "a1None abab [1, 2]"},
        {"{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'b' in d }} {{ 4 not in l }}", "True False True True"},
        {"{{ 1 == 1.0 == true }} {{ [1] == (1,) }} {{ missing == nothing }}", "True False True"},
        {"{{ '' or 'x' }} {{ 1 and 0 }} {{ not [] }} {{ 'a' if none_ }}|", "x 0 True |"},
        {"{{ s[1:3] }} {{ s[::-1] }} {{ l[-1] }} {{ u[1] }} {{ l[9] }}|{{ l[1:] }}",
         "el olleH 2 ß |[1, 2]"},
        {"{{ 'a' 'b' }} {{ '\\u00e9\\x41\\101\\q' }} {{ 0x10 }} {{ 1_000 }} {{ 1e2 }}",
         "ab éAA\\q 16 1000 100.0"});
}

static void test_jinja_controls_white_space(void **state)
{
    (void)state;
    CHECK(
        {"a\n  {% if yes %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
        {"a  {%- if yes -%}  b  {%- endif -%}  c", "abc"},
        {"a\n  {%+ if yes +%}\nb{% endif %}", "a\n  \nb"}, {"a\n  {{- n -}}\n  b", "a7b"},
        {"  {# c #}\nx {#- d -#} y", "xy"},
        {"{% raw %}{{ x }}{% endraw %}|{%- raw -%}  {% y %} {%- endraw -%} z", "{{ x }}|{% y %}z"},
        {"a\r\nb\rc\n\n", "a\nb\nc\n"}, {"  x {% set a = 1 %}\n y", "  x  y"});
}

static void test_jinja_loops(void **state)
{
    (void)state;
    CHECK(
        {"{% for i in l %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.revindex0 }} {% "
         "endfor %}",
         "1TrueFalse2 2FalseFalse1 3FalseTrue0 "},
        {"{% for i in l if i > 1 %}{{ i }}/{{ loop.length }} {% else %}none{% endfor %}",
         "3/2 2/2 "},
        {"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
        {"{% for k, v in d.items() %}{{ k }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
         "b('a', [2, None]);a('b', 1);"},
        {"{% for i in range(9) %}{% if i == 1 %}{% continue %}{% elif i == 3 %}{% break %}{% endif "
         "%}{{ i }}{% endfor %}",
         "02"},
        {"{% for i in [1] %}{% break %}{% else %}else{% endfor %}", "else"}, /* as jinja2 does it */
        {"{% for i in l %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }}{% endfor %}",
         "aTruebTrueaTrue"},
        {"{% for c in u %}<{{ c }}>{% endfor %}{% for x in missing %}x{% endfor %}", "<Ä><ß>"});
}

static void test_jinja_scopes_variables_as_jinja2_does(void **state)
{
    (void)state;
    CHECK({"{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}", "3121"},
          {"{% set x = 0 %}{% for i in l %}{{ x }}{% set x = i %}{% endfor %}", "000"},
          {"{% set ns = namespace(c=0) %}{% for i in l %}{% set ns.c = ns.c + i %}{% endfor %}{{ "
           "ns.c }}",
           "6"},
          {"{% if yes %}{% set y = 2 %}{% endif %}{{ y }}", "2"},
          {"{% for i in [1] %}{{ n }}{% endfor %}{% set n = 5 %}{{ n }}", "5"},
          {"{% set s %}[{{ s }}]{% endset %}{{ s }}", "[]"},
          {"{% macro m() %}{{ z }}{% endmacro %}{% set z = 3 %}{{ m() }}", "3"},
          {"{% set a, b = 1, [2] %}{{ a }}{{ b }}{% set c | upper %}x{% endset %}{{ c }}", "1[2]X"},
          {"{% with q = n %}{{ q }}{% endwith %}{{ q }}", "7"},
          {"{% generation %}{% set w = 1 %}{{ w }}{% endgeneration %}{{ w }}", "1"},
          {"{% filter upper %}a{{ s }}{% endfilter %}", "AHELLO"});
}

static void test_jinja_macros(void **state)
{
    (void)state;
    CHECK({"{% macro f(a, b='B', c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ f(1) }} {{ f(1, c=3) "
           "}} {{ f() }}",
           "1B1 1B3 B"},
          {"{% macro f(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, k=3) }}",
           "1(2,){'k': 3}"},
          {"{% macro w(t) %}<{{ caller(t) }}>{% endmacro %}{% call(x) w(5) %}{{ x }}{{ n }}{% "
           "endcall %}",
           "<57>"},
          {"{% macro f(x) %}{% if x %}{{ x }}{{ f(x - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
           "321"},
          {"{% macro f(a) %}{{ a }}{% endmacro %}{{ f(*[1]) }}{{ f(**{'a': 2}) }}", "12"});
}

static void test_jinja_filters(void **state)
{
    (void)state;
    CHECK(
        {"{{ d|tojson }} {{ u|tojson(ensure_ascii=true) }}",
         "{\"b\": 1, \"a\": [2, null]} \"\\u00c4\\u00df\""},
        {"{{ d|tojson(indent=2) }}", "{\n  \"b\": 1,\n  \"a\": [\n    2,\n    null\n  ]\n}"},
        {"{{ '<&\"\\n'|tojson }} {{ d|tojson(separators=(',', ':'), sort_keys=true) }}",
         "\"<&\\\"\\n\" {\"a\":[2,null],\"b\":1}"},
        {"{{ items|map(attribute='k')|join('-') }} {{ items|selectattr('v', 'gt', 1)|list }}",
         "x-y [{'k': 'y', 'v': 2}]"},
        {"{{ l|sort }}{{ l|sort(reverse=true)|first }}{{ l|last }}{{ l|max }}{{ l|sum }}{{ "
         "l|length }}",
         "[1, 2, 3]32363"},
        {"{{ d|dictsort }}{{ d|items|list }}",
         "[('a', [2, None]), ('b', 1)][('b', 1), ('a', [2, None])]"},
        {"{{ u|upper }}{{ 'ΑΣ'|lower }}{{ 'a bC-d'|title }}{{ 'ab C'|capitalize }}", "ÄSSας"
                                                                                     "A Bc-DAb c"},
        {"{{ ' x '|trim }}|{{ 'a\\n\\nb'|indent(2) }}|{{ missing|default('d') }}{{ ''|d('e', true) "
         "}}",
         "x|a\n\n  b|de"},
        {"{{ '3.7'|int }}{{ 'x'|int(9) }}{{ '2'|float }}{{ 2.5|round }}{{ 1.25|round(1) }}",
         "392.02.01.2"},
        {"{{ 'aXa'|replace('a', 'b') }}{{ l|unique|list }}{{ 'ab'|reverse }}{{ l|batch(2)|list }}",
         "bXb[3, 1, 2]ba[[3, 1], [2]]"},
        {"{{ '%s=%05.1f|%-3d|' % ('a', 2.25, 4) }}{{ '{0:>4}|{x}|{0!r}'.format('b', x=1) }}",
         "a=002.2|4  |   b|1|'b'"},
        {"{{ ('<'|safe) + '<' }}{{ ['a', 1]|join }}{{ 'a b'|list|length }}", "<&lt;a13"});
}

static void test_jinja_methods_and_tests(void **state)
{
    (void)state;
    CHECK({"{{ 'a,b,,c'.split(',') }}{{ ' a  b '.split() }}{{ 'a-b-c'.rsplit('-', 1) }}",
           "['a', 'b', '', 'c']['a', 'b']['a-b', 'c']"},
          {"{{ '<think>x</think>y'.split('</think>')[-1].lstrip('\\n') }}{{ 'xxa'.strip('x') }}",
           "ya"},
          {"{{ s.startswith('He') }}{{ s.find('l') }}{{ s.count('l') }}{{ ','.join(['a', 'b']) }}",
           "True22a,b"},
          {"{{ d.get('zz', 5) }}{{ d.b }}{{ d['b'] }}{{ items[0].k }}{{ d.zz is defined }}",
           "511xFalse"},
          {"{{ 1 is number }}{{ yes is number }}{{ d is mapping }}{{ s is iterable }}{{ none_ is "
           "none }}",
           "TrueTrueTrueTrueTrue"},
          {"{{ n is odd }}{{ n is divisibleby 7 }}{{ n is not string }}{{ 2 is in l }}{{ s is eq "
           "'Hello' }}",
           "TrueTrueTrueTrueTrue"},
          {"{{ strftime_now('%d %b %Y') }}{{ strftime_now('%H:%M:%S%z') }}", "01 Jan 197100:00:00"},
          {"{{ l.append is defined }}{{ s.__class__ }}", "False"});
}

static void test_jinja_raises_where_python_does(void **state)
{
    (void)state;
    check_fails(ERR_FORMAT, "{{ missing.x }}", "'missing' is undefined");
    check_fails(ERR_FORMAT, "a\nb{{ d.zz.y }}",
                "template line 2: 'dict object' has no attribute 'zz'");
    check_fails(ERR_FORMAT, "{{ 1 + 'a' }}", "unsupported operand");
    check_fails(ERR_FORMAT, "{{ 'a' + none }}", "unsupported operand");
    check_fails(ERR_FORMAT, "{{ 1 < 'a' }}", "not supported between");
    check_fails(ERR_FORMAT, "{{ 1 / 0 }}", "division by zero");
    check_fails(ERR_FORMAT, "{{ l.append(1) }}", "unsafe");
    check_fails(ERR_FORMAT, "{% for a, b in l %}{% endfor %}", "not iterable");
    check_fails(ERR_FORMAT, "{{ missing|tojson }}", "not JSON serializable");
    check_fails(ERR_FORMAT, "{% set n.x = 1 %}", "non-namespace");
    check_fails(ERR_FORMAT, "{{ range(1000000) }}", "Range too big");
    check_fails(ERR_FORMAT, "{{ {[1]: 2} }}", "unhashable");
    check_fails(ERR_FORMAT, "{% if yes %}{{ n|nofilter }}{% endif %}", "no filter named");
    check_fails(ERR_UNSUPPORTED, "{{ raise_exception('Roles must alternate: ' ~ n) }}",
                "Roles must alternate: 7");
}

static void test_jinja_gives_the_templates_own_words_alone(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(code_of("\n\n{{ raise_exception('No tools!') }}", &jinja_limits_default, &e),
                     ERR_UNSUPPORTED);
    assert_string_equal(e.msg, "No tools!");
}

static void test_jinja_refuses_at_compile_with_line_and_construct(void **state)
{
    (void)state;
    check_fails(ERR_UNSUPPORTED, "a\n{% include 'x' %}", "template line 2: the tag 'include'");
    check_fails(ERR_UNSUPPORTED, "\n\n{{ n|pprint }}", "template line 3: the filter 'pprint'");
    check_fails(ERR_UNSUPPORTED, "{% for i in l recursive %}{% endfor %}", "a recursive for");
    check_fails(ERR_UNSUPPORTED, "{{ s.encode('utf-8') }}", "encode");
    check_fails(ERR_UNSUPPORTED, "{% if false %}{{ lipsum() }}{% endif %}", "lipsum");
    check_fails(ERR_FORMAT, "{{ n|nofilter }}", "no filter named 'nofilter'");
    check_fails(ERR_FORMAT, "{% if n %}", "'endif' is missing");
    check_fails(ERR_FORMAT, "{% endfor %}", "unknown tag 'endfor'");
    check_fails(ERR_FORMAT, "{{ (1 }}", "bracket");
    check_fails(ERR_FORMAT, "{{ 'a }}", "a string has no end");
    check_fails(ERR_FORMAT, "{{ 1 + }}", "expected an expression");
    check_fails(ERR_FORMAT, "{# x", "end of comment");
    check_fails(ERR_FORMAT, "{% break %}", "outside of a loop");
    check_fails(ERR_FORMAT, "{{ \xff }}", "not valid UTF-8");
}

static void test_jinja_holds_its_limits(void **state)
{
    (void)state;
    static const char *const hostile[] = {
        "{{ 'a' * 1000000000 }}",
        "{% for i in range(99999) %}{% for k in range(99999) %}{{ i }}{% endfor %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% "
        "endfor %}",
        "{% macro r() %}{{ r() }}{% endmacro %}{{ r() }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor "
        "%}{{ ns.x|tojson }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{{ ('a' * 9999)|replace('', 'b' * 9999) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 9223372036854775807 + 1 }}",
        "{{ '%999999d' % 1 if false else [0] * 999999999 }}",
        /* Few nodes, much work: what looks at a string or walks a value is counted, too. */
        "{% set x = 'a' * 99999 %}{% for i in range(99999) %}{{ x is lower }}{% endfor %}",
        "{% set x = 'a' * 99999 %}{% for i in range(99999) %}{{ x|int }}{% endfor %}",
        "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] "
        "%}"
        "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% "
        "endfor %}{{ ns.x }}",
        "{{ range(99999)|list * 99999 }}",
        "{{ ((('ab' * 999999) ~ 'b').rfind(('ab' * 99999) ~ 'c')) }}",
    };
    for (size_t i = 0; i < ARRAY_LEN(hostile); i++) {
        struct err e = {0};
        if (code_of(hostile[i], &jinja_limits_default, &e) != ERR_LIMIT)
            fail_msg("%s: %s", hostile[i], e.msg);
    }
}

static void test_jinja_bounds_nesting_at_compile(void **state)
{
    (void)state;
    static const struct {
        const char *open, *unit, *close;
    } nests[] = {{"{{ ", "(", ""},
                 {"{{ ", "[", ""},
                 {"{{ ", "-", "1 }}"},
                 {"{{ ", "not ", "1 }}"},
                 {"{{ ", "1 + ", "1 }}"},
                 {"{{ 1", "|abs", " }}"},
                 {"", "{% if n %}", ""},
                 {"{{ ", "1 if 1 else ", "1 }}"},
                 {"", "{% for i in l %}", ""},
                 {"{{ n", ".x", " }}"}};
    for (size_t i = 0; i < ARRAY_LEN(nests); i++) {
        struct buf text;
        struct err e = {0};
        struct jinja *j = NULL;
        buf_init(&text, 0);
        buf_adds(&text, nests[i].open);
        for (int k = 0; k < 5000; k++)
            buf_adds(&text, nests[i].unit);
        buf_adds(&text, nests[i].close);
        if (jinja_compile(text.data, text.len, &j, &e) != ERR_LIMIT)
            fail_msg("%s: %s", nests[i].unit, e.msg);
        buf_release(&text);
    }
}

static void test_jinja_counts_steps_exactly_as_told(void **state)
{
    (void)state;
    struct jinja_limits lim = jinja_limits_default;
    struct err e = {0};
    lim.steps_max = 2000;
    assert_int_equal(code_of("{% for i in range(100) %}{{ i }}{% endfor %}", &lim, &e), 0);
    assert_int_equal(code_of("{% for i in range(1000) %}{{ i }}{% endfor %}", &lim, &e), ERR_LIMIT);
    lim = jinja_limits_default;
    lim.output_bytes_max = 10;
    assert_int_equal(code_of("{{ 'a' * 10 }}", &lim, &e), 0);
    assert_int_equal(code_of("{{ 'a' * 11 }}", &lim, &e), ERR_LIMIT);
}

/* "x ~ y" may put y behind x in place: no other value may see that. */
static void test_jinja_keeps_strings_apart_that_share_bytes(void **state)
{
    (void)state;
    CHECK({"{% set a = 'ab' ~ n %}{% set b = a ~ 'c' %}{% set c = a ~ 'd' %}{% set e = b + c + b "
           "%}{{ [a, b, c, e, b ~ b] }}",
           "['ab7', 'ab7c', 'ab7d', 'ab7cab7dab7c', 'ab7cab7c']"},
          {"{% set a = 'x' * 300 ~ 1 %}{% set b = a ~ 'c' %}{% set c = a ~ 'd' %}{{ a[-2:] ~ "
           "b[-2:] ~ c[-2:] }}",
           "x11c1d"},
          {"{% set ns = namespace(x='') %}{% for i in range(200) %}{% set ns.x = ns.x ~ 'xyz' ~ i "
           "%}{% endfor %}{{ ns.x|length }}{{ ns.x[-6:] }}",
           "1090xyz199"});
}

static void test_jinja_reads_names_it_does_not_set(void **state)
{
    (void)state;
    static const char text[] = "{% set a = 1 %}{{ a }}{% if x is defined %}{{ tools }}{% endif "
                               "%}{% for i in y %}{{ i }}{% endfor %}";
    struct jinja *j = NULL;
    assert_int_equal(jinja_compile(text, strlen(text), &j, NULL), 0);
    assert_true(jinja_reads(j, "tools") && jinja_reads(j, "x") && jinja_reads(j, "y"));
    assert_false(jinja_reads(j, "a") || jinja_reads(j, "i") || jinja_reads(j, "messages"));
    jinja_free(j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jinja_prints_values_as_python_does),
        cmocka_unit_test(test_jinja_computes_as_python_does),
        cmocka_unit_test(test_jinja_controls_white_space),
        cmocka_unit_test(test_jinja_loops),
        cmocka_unit_test(test_jinja_scopes_variables_as_jinja2_does),
        cmocka_unit_test(test_jinja_macros),
        cmocka_unit_test(test_jinja_filters),
        cmocka_unit_test(test_jinja_methods_and_tests),
        cmocka_unit_test(test_jinja_raises_where_python_does),
        cmocka_unit_test(test_jinja_gives_the_templates_own_words_alone),
        cmocka_unit_test(test_jinja_refuses_at_compile_with_line_and_construct),
        cmocka_unit_test(test_jinja_holds_its_limits),
        cmocka_unit_test(test_jinja_bounds_nesting_at_compile),
        cmocka_unit_test(test_jinja_counts_steps_exactly_as_told),
        cmocka_unit_test(test_jinja_keeps_strings_apart_that_share_bytes),
        cmocka_unit_test(test_jinja_reads_names_it_does_not_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
