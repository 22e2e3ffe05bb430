#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/check.h"
#include "runtime/format/manifest.h"

/* Of bytes (31 i + i / 8192) mod 256, by Python's hashlib from the definition in manifest.h. */
static const struct {
    size_t n;
    const char *hex;
} expected[] = {
    {0, "57a14fd7a23b60fbe8bd11a680cb59429b2d9104dc476dc2c5b35db16d685e3a"},
    {3, "c69b5f365eaf7e15d6d4cf2373a6b627695c21efb799653e3bf86a7583a117c9"},
    {4194304, "3bb807cf736a0b5e87c36f73cc080bfbd51b8ac9ef1f40f538f82aa91f87fea2"},
    {4194305, "911b891f973ad976e445c6d4843f84469ccc0f5a2db79ea92e29c279d5aa438b"},
    {12595257, "2d1ff8a2fdb93ef03b821e028c072c00449ca340ff5dfc405bc240be4cad04ce"},
};

static unsigned char *pattern(size_t n)
{
    unsigned char *b = malloc(n ? n : 1);
    assert_non_null(b);
    for (size_t i = 0; i < n; i++)
        b[i] = (unsigned char)(i * 31 + (i >> 13));
    return b;
}

static void test_equals_its_definition(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        unsigned char *b = pattern(expected[i].n);
        char hex[65];
        struct err e;
        assert_int_equal(manifest_of_bytes(b, expected[i].n, hex, &e), 0);
        assert_string_equal(hex, expected[i].hex);
        free(b);
    }
}

static void test_every_chunk_counts(void **state)
{
    (void)state;
    const size_t n = 3 * MANIFEST_CHUNK_BYTES + 7;
    const size_t at[] = {0, MANIFEST_CHUNK_BYTES, 2 * MANIFEST_CHUNK_BYTES + 5, n - 1};
    unsigned char *b = pattern(n);
    char whole[65], hex[65];
    struct err e;
    assert_int_equal(manifest_of_bytes(b, n, whole, &e), 0);
    for (size_t i = 0; i < ARRAY_LEN(at); i++) {
        b[at[i]] ^= 1;
        assert_int_equal(manifest_of_bytes(b, n, hex, &e), 0);
        assert_string_not_equal(hex, whole);
        b[at[i]] ^= 1;
    }
    free(b);
}

/* The same way: SHA-256 of the digits, a zero byte and the words. */
static void test_what_a_model_is_run_with_counts(void **state)
{
    (void)state;
    char hex[65];
    struct err e;
    static const struct {
        struct manifest_options options;
        const char *hex;
    } cases[] = {
        {{true, "off"}, "932852fd4d7ea58de51935c71599f3693c744629a562eb4dcf8e335701815532"},
        {{false, "bf16"}, "d6e249b121e56abd3d4ac011adc65a330dd3d8994472bfa37cce0bc3f878c1f1"},
        {{true, "bf16"}, "bd729ca2a03d391ac8a4c8ceebcc19a89f80ec0fd02fcc9688b541b449d38ab5"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memcpy(hex, expected[0].hex, sizeof(hex));
        assert_int_equal(manifest_add(hex, &cases[i].options, &e), 0);
        assert_string_equal(hex, cases[i].hex);
    }
    memcpy(hex, expected[0].hex, sizeof(hex));
    assert_int_equal(manifest_add(hex, &(struct manifest_options){.fast = "off"}, &e), 0);
    assert_string_equal(hex, expected[0].hex);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equals_its_definition),
        cmocka_unit_test(test_every_chunk_counts),
        cmocka_unit_test(test_what_a_model_is_run_with_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
