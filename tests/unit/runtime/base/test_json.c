#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "runtime/base/json.h"
#include "runtime/base/rng.h"

/* json-c, whose own header has another json_bool. */
struct json_object;
struct json_object *json_tokener_parse(const char *text);
const char *json_object_get_string(struct json_object *o);
int json_object_get_string_len(const struct json_object *o);
int json_object_put(struct json_object *o);

static struct buf out;
static struct json w;

static int setup(void **state)
{
    (void)state;
    buf_init(&out, 0);
    json_init(&w, &out);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_release(&out);
    return 0;
}

static void test_json_keeps_the_commas(void **state)
{
    (void)state;
    json_obj(&w);
    json_key(&w, "a");
    json_int(&w, -5);
    json_key(&w, "b");
    json_arr(&w);
    json_bool(&w, true);
    json_null(&w);
    json_obj(&w);
    json_obj_end(&w);
    json_arr(&w);
    json_arr_end(&w);
    json_str(&w, "x");
    json_arr_end(&w);
    json_key(&w, "c");
    json_uint(&w, UINT64_MAX);
    json_key(&w, "d");
    json_raw(&w, "[1]", 3);
    json_obj_end(&w);
    assert_string_equal(
        buf_str(&out),
        "{\"a\":-5,\"b\":[true,null,{},[],\"x\"],\"c\":18446744073709551615,\"d\":[1]}");
}

static void test_json_escapes_what_json_wants_escaped(void **state)
{
    (void)state;
    json_strn(&w, "\"\\/\b\f\n\r\t\0\x1f\x7f", 11);
    assert_string_equal(buf_str(&out), "\"\\\"\\\\/\\u0008\\u000c\\n\\r\\t\\u0000\\u001f\x7f\"");
}

static void test_json_replaces_invalid_utf8_byte_by_byte(void **state)
{
    (void)state;
    static const struct {
        const char *in, *want;
    } cases[] = {
        {"a\xc3\xa4z", "a\xc3\xa4z"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xff", "\xef\xbf\xbd"},
        {"\xc3", "\xef\xbf\xbd"},                                                 /* cut off */
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                                 /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},                 /* a surrogate */
        {"\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* too high */
        {"\xe2\x82z", "\xef\xbf\xbd\xef\xbf\xbdz"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        buf_clear(&out);
        json_escape(&out, cases[i].in, strlen(cases[i].in));
        assert_string_equal(buf_str(&out), cases[i].want);
    }
}

/* json-c is what others read with. */
static void test_json_strings_of_any_bytes_can_be_read_back(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    for (int i = 0; i < 2000; i++) {
        char bytes[64];
        size_t n = rng_below(&r, sizeof(bytes));
        for (size_t k = 0; k < n; k++)
            bytes[k] = (char)rng_below(&r, i % 2 ? 256 : 128);
        buf_clear(&out);
        json_init(&w, &out);
        json_strn(&w, bytes, n);
        struct json_object *o = json_tokener_parse(buf_str(&out));
        assert_non_null(o);
        if (i % 2 == 0) { /* ASCII comes back as it was */
            assert_int_equal(json_object_get_string_len(o), n);
            assert_memory_equal(json_object_get_string(o), bytes, n);
        }
        json_object_put(o);
    }
}

static void expect_double(double v, const char *want)
{
    buf_clear(&out);
    json_init(&w, &out);
    json_double(&w, v);
    assert_string_equal(buf_str(&out), want);
}

static void expect_float(float v, const char *want)
{
    buf_clear(&out);
    json_init(&w, &out);
    json_float(&w, v);
    assert_string_equal(buf_str(&out), want);
}

static void test_json_numbers_are_short_and_exact(void **state)
{
    (void)state;
    expect_float(0.1f, "0.1");
    expect_float(-0.693147182f, "-0.6931472");
    expect_float(16777216.0f, "16777216");
    expect_double(0.1, "0.1");
    expect_double(1.0 / 3, "0.3333333333333333");
    expect_double(NAN, "null");
    expect_double(-INFINITY, "null");
    expect_float(INFINITY, "null");
    struct rng r;
    rng_init(&r, 2);
    for (int i = 0; i < 10000; i++) {
        uint64_t bits = rng_u64(&r);
        double d;
        float f;
        memcpy(&d, &bits, sizeof(d));
        memcpy(&f, &bits, sizeof(f));
        buf_clear(&out);
        json_init(&w, &out);
        if (isfinite(d)) {
            json_double(&w, d);
            assert_true(strtod(buf_str(&out), NULL) == d);
        }
        buf_clear(&out);
        json_init(&w, &out);
        if (isfinite(f)) {
            json_float(&w, f);
            assert_true(strtof(buf_str(&out), NULL) == f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_json_keeps_the_commas, setup, teardown),
        cmocka_unit_test_setup_teardown(test_json_escapes_what_json_wants_escaped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_json_replaces_invalid_utf8_byte_by_byte, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_json_strings_of_any_bytes_can_be_read_back, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_json_numbers_are_short_and_exact, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
