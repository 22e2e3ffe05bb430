/* The table of fields: every line does what it says, and the README shows the same table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "router/http/fields.h"
#include "tests/unit/router/http/tiny_model.h"

static struct model_texts texts;

static int setup(void **state)
{
    (void)state;
    tiny_model_init(&texts);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    model_texts_release(&texts);
    return 0;
}

/* Reads a minimal request with one field more. */
static int read_with(enum api_kind kind, const char *name, const char *value, struct api_error *e)
{
    char body[512];
    struct http_config limits = http_config_default();
    struct arena arena;
    struct api_request a;
    arena_init(&arena, limits.request_bytes_max);
    struct api_context ctx = {&limits, &texts, &arena, 1700000000, false};
    snprintf(body, sizeof(body), "{\"model\":\"tiny\",%s,\"%s\":%s}",
             kind == API_CHAT   ? "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
             : kind == API_TEXT ? "\"prompt\":\"hi\""
                                : "\"input\":\"hi\"",
             name, value);
    int code = api_request_read(&a, kind, body, strlen(body), &ctx, e);
    arena_release(&arena);
    return code;
}

static void expect_refused(const struct field *f, enum api_kind kind, const char *value)
{
    struct api_error e = {0};
    if (read_with(kind, f->name, value, &e) == 0)
        fail_msg("%s: %s was taken", f->name, value);
    assert_int_equal(e.status, 400);
    assert_string_equal(e.param, f->name);
}

static void expect_taken(const struct field *f, enum api_kind kind, const char *value)
{
    struct api_error e = {0};
    if (read_with(kind, f->name, value, &e))
        fail_msg("%s: %s was refused: %s", f->name, value, e.message);
}

static void check_field(const struct field *f, enum api_kind kind)
{
    static const char *const right[] = {"true", "1", "0.5", "\"x\"", "{}", "[]", "1"};
    static const char *const wrong[] = {"\"x\"", "\"x\"", "\"x\"", "1", "[]", "{}", "7"};
    char value[64];
    if (f->use == FIELD_REFUSED) {
        expect_refused(f, kind, "{\"x\":1}");
        if (f->neutral)
            expect_taken(f, kind, f->neutral);
    } else {
        expect_refused(f, kind, wrong[f->type]);
    }
    if (f->use == FIELD_IGNORED)
        expect_taken(f, kind, right[f->type]);
    if (strcmp(f->name, "messages") != 0 && strcmp(f->name, "prompt") != 0 &&
        strcmp(f->name, "model") != 0 && strcmp(f->name, "input") != 0)
        expect_taken(f, kind, "null");
    if (f->use == FIELD_SET && (f->type == FIELD_INT || f->type == FIELD_NUMBER)) {
        snprintf(value, sizeof(value), "%.17g", f->min * (f->min < 0 ? 1.5 : 0.5) - 0.001);
        expect_refused(f, kind, value);
        snprintf(value, sizeof(value), "%.17g", f->max * 1.5 + 1);
        expect_refused(f, kind, value);
    }
}

static void test_every_field_does_what_its_line_says(void **state)
{
    size_t n;
    const struct field *table = fields_table(&n);
    (void)state;
    for (size_t i = 0; i < n; i++) {
        if (table[i].kinds & API_CHAT)
            check_field(&table[i], API_CHAT);
        if (table[i].kinds & API_TEXT)
            check_field(&table[i], API_TEXT);
        if (table[i].kinds & API_EMBEDDING)
            check_field(&table[i], API_EMBEDDING);
    }
}

static void test_a_field_is_unknown_where_it_does_not_belong(void **state)
{
    size_t n;
    const struct field *table = fields_table(&n);
    struct api_error e;
    (void)state;
    for (size_t i = 0; i < n; i++) {
        enum api_kind other = table[i].kinds == API_CHAT ? API_TEXT : API_CHAT;
        if (!(table[i].kinds & API_EMBEDDING)) {
            assert_int_not_equal(read_with(API_EMBEDDING, table[i].name, "1", &e), 0);
            assert_string_equal(e.code, "unknown_parameter");
        }
        if ((~table[i].kinds & (API_CHAT | API_TEXT)) == 0 ||
            strcmp(table[i].name, "logprobs") == 0)
            continue;
        assert_int_not_equal(read_with(other, table[i].name, "1", &e), 0);
        assert_string_equal(e.code, "unknown_parameter");
        assert_string_equal(e.param, table[i].name);
    }
}

static void test_the_readme_has_the_table(void **state)
{
    static const char *const types[] = {"boolean", "integer", "number", "string",
                                        "object",  "array",   "several"};
    static const char *const uses[] = {"used", "used", "used", "ignored", "refused"};
    static char text[65536];
    size_t n;
    size_t lines = 0;
    const struct field *table = fields_table(&n);
    (void)state;
    FILE *f = fopen("router/http/README.md", "r");
    assert_non_null(f);
    text[fread(text, 1, sizeof(text) - 1, f)] = 0;
    fclose(f);
    for (size_t i = 0; i < n; i++) {
        char line[200];
        snprintf(line, sizeof(line), "\n| `%s` | %s | %s | %s |", table[i].name,
                 table[i].kinds == (API_CHAT | API_TEXT | API_EMBEDDING) ? "all"
                 : table[i].kinds == (API_CHAT | API_TEXT)               ? "both"
                 : table[i].kinds == API_CHAT                            ? "chat"
                 : table[i].kinds == API_EMBEDDING                       ? "embeddings"
                                                                         : "completions",
                 types[table[i].type], uses[table[i].use]);
        if (!strstr(text, line))
            fail_msg("not in the README: %s", line + 1);
    }
    const char *p = strstr(text, "| field | of |");
    for (p = strstr(p, "\n| `"); p; p = strstr(p + 1, "\n| `"))
        lines++;
    assert_int_equal(lines, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_field_does_what_its_line_says),
        cmocka_unit_test(test_a_field_is_unknown_where_it_does_not_belong),
        cmocka_unit_test(test_the_readme_has_the_table),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
