/* Hex, and FNV-1a beside the values that its draft prints (appendix C). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/fnv.h"
#include "runtime/base/hex.h"

static void test_hex_is_written_and_read(void **state)
{
    (void)state;
    uint8_t all[256], back[256];
    char text[2 * sizeof(all) + 1];
    for (int i = 0; i < 256; i++)
        all[i] = (uint8_t)i;
    hex_write(all, sizeof(all), text);
    assert_int_equal(strlen(text), 2 * sizeof(all));
    assert_memory_equal(text, "000102", 6);
    assert_string_equal(text + 508, "feff");
    assert_true(hex_read(text, back, sizeof(back)));
    assert_memory_equal(all, back, sizeof(all));
}

static void test_what_is_no_lower_case_digit_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "a", "0", "0g", "g0", "AB", "0/", "0:", "`0", "a "};
    uint8_t byte;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_false(hex_read(bad[i], &byte, 1));
}

static void test_fnv_is_the_drafts(void **state)
{
    (void)state;
    assert_true(fnv1a(FNV_SEED, "", 0) == UINT64_C(0xcbf29ce484222325));
    assert_true(fnv1a(FNV_SEED, "a", 1) == UINT64_C(0xaf63dc4c8601ec8c));
    assert_true(fnv1a(FNV_SEED, "foobar", 6) == UINT64_C(0x85944171f73967e8));
    assert_true(fnv1a(fnv1a(FNV_SEED, "foo", 3), "bar", 3) == UINT64_C(0x85944171f73967e8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hex_is_written_and_read),
        cmocka_unit_test(test_what_is_no_lower_case_digit_is_refused),
        cmocka_unit_test(test_fnv_is_the_drafts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
