/* The objects that json_read makes are those of json-c's own reader. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <json-c/json.h>

#include "router/http/json_check.h"
#include "router/http/json_read.h"
#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/base/rng.h"

static struct json_object *by_json_c(const char *text, size_t n)
{
    struct json_tokener *t = json_tokener_new_ex(JSON_CHECK_DEPTH_MAX + 1);
    struct json_object *o = json_tokener_parse_ex(t, text, (int)n);
    if (!o && json_tokener_get_error(t) == json_tokener_continue)
        o = json_tokener_parse_ex(t, "", 1);
    json_tokener_free(t);
    return o;
}

/* False: json_check lets the text not through. */
static bool compare(const char *text, size_t n)
{
    struct json_check check;
    struct json_object *ours = NULL;
    if (json_check(text, n, &check))
        return false;
    assert_int_equal(json_read(text, n, &ours), 0);
    struct json_object *theirs = by_json_c(text, n);
    const char *a = json_object_to_json_string(ours);
    const char *b = json_object_to_json_string(theirs);
    if (strcmp(a, b) != 0 || !json_object_equal(ours, theirs))
        fail_msg("%.*s: %s, not %s", (int)n, text, a, b);
    json_object_put(ours);
    json_object_put(theirs);
    return true;
}

static void test_json_read_makes_what_json_c_makes(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{}",
        "[]",
        "null",
        "true",
        " false ",
        "0",
        "-0",
        "-7",
        "12345678901234567",
        "123456789012345678",
        "-123456789012345678",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "1.5",
        "-0.0",
        "1e5",
        "1E+2",
        "0.1e-7",
        "1e400",
        "\"\"",
        "\"a\\\"b\\\\c\\/d\\b\\f\\n\\r\\t\"",
        "\"\\u0041\\u00e9\\u20AC\\u0000z\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\"",
        "\"\\ud83dx\"",
        "\"\\ude00\"",
        "\"\\ud83d\\u0041\"",
        "\"\\ud83d\\ud83d\\ude00\"",
        "\"\\ud83d\\n\"",
        "\"h\xc3\xa9\"",
        "{\"a\":1,\"b\":2,\"a\":3}",
        "{\"a\":{\"b\":1},\"a\":[null,{}]}",
        "{\"\":{\"\":{\"\":[]}}}",
        "{ \"a\\u0062\" : [ 1 , [ 2 , { \"c\" : null } ] , \"x\" ] , \"d\" : true }",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        assert_true(compare(texts[i], strlen(texts[i])));
}

static void add_random(struct buf *b, struct rng *rng, int depth)
{
    static const char *const leaves[] = {"1",     "-20",
                                         "3.25",  "1e3",
                                         "\"a\"", "\"\\n\\u00ff\"",
                                         "true",  "false",
                                         "null",  "\"\\ud83d\\ude00\"",
                                         "\"\"",  "77777777777777777777"};
    static const char *const keys[] = {
        "\"a\":", "\"b\\t\":", "\"a long key, longer than others\":", "\"\":"};
    uint64_t kind = rng_u64(rng) % 4;
    if (depth == 6 || kind < 2) {
        buf_adds(b, leaves[rng_u64(rng) % ARRAY_LEN(leaves)]);
        return;
    }
    buf_addc(b, kind == 2 ? '{' : '[');
    for (uint64_t n = rng_u64(rng) % 5, i = 0; i < n; i++) {
        buf_adds(b, i ? " ," : "");
        if (kind == 2)
            buf_adds(b, keys[rng_u64(rng) % ARRAY_LEN(keys)]);
        add_random(b, rng, depth + 1);
    }
    buf_addc(b, kind == 2 ? '}' : ']');
}

static void test_json_read_makes_what_json_c_makes_of_random_texts(void **state)
{
    (void)state;
    struct rng rng;
    struct buf text;
    uint32_t n_broken = 0, n_read = 0;
    rng_init(&rng, 5);
    buf_init(&text, 0);
    for (int round = 0; round < 20000; round++) {
        buf_clear(&text);
        add_random(&text, &rng, 0);
        assert_true(compare(text.data, text.len));
        /* One byte of it changed is often JSON, too. */
        text.data[rng_u64(&rng) % text.len] = "0{}[],:\"\\u1e"[rng_u64(&rng) % 12];
        *(compare(text.data, text.len) ? &n_read : &n_broken) += 1;
    }
    assert_true(n_broken > 0 && n_read > 0);
    buf_release(&text);
}

static void test_json_read_takes_the_deepest_that_is_let_through(void **state)
{
    (void)state;
    char text[2 * JSON_CHECK_DEPTH_MAX];
    memset(text, '[', JSON_CHECK_DEPTH_MAX);
    memset(text + JSON_CHECK_DEPTH_MAX, ']', JSON_CHECK_DEPTH_MAX);
    assert_true(compare(text, sizeof(text)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_read_makes_what_json_c_makes),
        cmocka_unit_test(test_json_read_makes_what_json_c_makes_of_random_texts),
        cmocka_unit_test(test_json_read_takes_the_deepest_that_is_let_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
