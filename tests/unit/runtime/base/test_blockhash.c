/* The expected values come from a Python program that follows the text of blockhash.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/blockhash.h"
#include "runtime/base/check.h"

static const char manifest[] = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
static const uint8_t zeros[BLOCKHASH_SALT_BYTES];
static const uint8_t salt[BLOCKHASH_SALT_BYTES] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                   8, 9, 10, 11, 12, 13, 14, 15};

static void test_blockhash_is_what_the_header_says(void **state)
{
    (void)state;
    static const struct {
        const char *manifest;
        const uint8_t *salt;
        uint64_t root, first, second;
    } cases[] = {
        {manifest, zeros, 0x8976c013565afcce, 0xa9f9b7c95924b449, 0xbdc00d61a376bc00},
        {manifest, salt, 0x9817e34fdf7da9da, 0xbf761fe488e55449, 0x7f25e2630b0e9c8},
        {"abc123", zeros, 0x621615395eb9e28c, 0x740f5e45a9c66697, 0x6c4f82f406de1f67},
        {"", zeros, 1, 0x9cf17f9b824aa1cb, 0x78e1935203c562aa}, /* 0 becomes 1 */
    };
    uint32_t counting[16], last[16];
    for (uint32_t i = 0; i < 16; i++) {
        counting[i] = i;
        last[i] = 49151;
    }
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_true(blockhash_root(cases[i].manifest, cases[i].salt) == cases[i].root);
        assert_true(blockhash_next(cases[i].root, counting, 16) == cases[i].first);
        assert_true(blockhash_next(cases[i].first, last, 16) == cases[i].second);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Blocks that differ in a little have no hash in common. */
static void test_blockhash_tells_blocks_apart(void **state)
{
    (void)state;
    enum { N = 16 * 17 * 200 };
    uint64_t *all = calloc(N, sizeof(*all));
    uint32_t n = 0;
    for (uint32_t at = 0; at < 16; at++)
        for (uint32_t bit = 0; bit < 17; bit++)
            for (uint32_t parent = 1; parent <= 200; parent++) {
                uint32_t tokens[16] = {0};
                tokens[at] = 1u << bit;
                all[n++] = blockhash_next(blockhash_next(1, &parent, 1), tokens, 16);
            }
    qsort(all, n, sizeof(*all), compare);
    for (uint32_t i = 1; i < n; i++)
        assert_true(all[i] != all[i - 1]);
    free(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blockhash_is_what_the_header_says),
        cmocka_unit_test(test_blockhash_tells_blocks_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
