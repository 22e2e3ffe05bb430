#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/text/detok.h"
#include "runtime/text/utf8.h"

#define R UTF8_REPLACEMENT

/* Expected texts: bytes.decode("utf-8", errors="replace") in Python 3.11. */
static const struct {
    const char *bytes, *text;
} CASES[] = {
    {"", ""},
    {"plain", "plain"},
    {"\xC3\xA9\xE6\x97\xA5\xF0\x9F\x98\x80", "é日😀"},
    {"a\xE2\x82z", "a" R "z"},                 /* a broken-off start is one fault */
    {"\xF0\x9F\x98", R},                       /* also at the end */
    {"\x80\xBF", R R},                         /* stray bytes are one each */
    {"\xED\xA0\x80", R R R},                   /* a surrogate */
    {"\xC0\xAF\xE0\x80\x80", R R R R R},       /* overlong forms */
    {"\xF4\x90\x80\x80\xF5\xFF", R R R R R R}, /* past U+10FFFF */
    {"\xF0\x9F\xF0\x9F\x98\x80", R "😀"},
    {"\xE1\x80\xE1\x80\x80", R "\xE1\x80\x80"},
};

static void test_detok_equals_python_over_every_cut(void **state)
{
    (void)state;
    for (size_t k = 0; k < sizeof(CASES) / sizeof(*CASES); k++) {
        size_t n = strlen(CASES[k].bytes);
        for (unsigned cuts = 0; cuts < 1u << (n ? n - 1 : 0); cuts++) {
            struct detok d;
            struct buf out;
            size_t from = 0;
            buf_init(&out, 0);
            detok_init(&d, false);
            for (size_t i = 0; i < n; i++) {
                if (i + 1 < n && !(cuts >> i & 1))
                    continue;
                detok_feed_bytes(&d, CASES[k].bytes + from, i + 1 - from, &out);
                assert_int_equal(utf8_valid_bytes(buf_str(&out), out.len), out.len);
                from = i + 1;
            }
            detok_flush(&d, &out);
            assert_string_equal(buf_str(&out), CASES[k].text);
            buf_release(&out);
        }
    }
}

static void test_detok_lets_a_character_out_with_its_last_byte(void **state)
{
    (void)state;
    struct detok d;
    struct buf out;
    buf_init(&out, 0);
    detok_init(&d, false);
    detok_feed_bytes(&d, "\xF0\x9F\x98", 3, &out);
    assert_int_equal(out.len, 0);
    detok_feed_bytes(&d, "\x80", 1, &out);
    assert_string_equal(buf_str(&out), "😀");
    detok_feed_bytes(&d, "\xE2\x82", 2, &out);
    detok_feed_bytes(&d, "x", 1, &out); /* known to be broken as soon as x is there */
    assert_string_equal(buf_str(&out), "😀" R "x");
    buf_release(&out);
}

static void test_utf8_codes_go_both_ways(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xD800 && c < 0xE000)
            continue;
        buf_clear(&b);
        utf8_add_code(&b, c);
        struct utf8_step s = utf8_next((const unsigned char *)b.data, b.len);
        assert_true(s.valid && s.n == b.len);
        assert_true(utf8_code((const unsigned char *)b.data, s.n) == c);
    }
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_detok_equals_python_over_every_cut),
        cmocka_unit_test(test_detok_lets_a_character_out_with_its_last_byte),
        cmocka_unit_test(test_utf8_codes_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
