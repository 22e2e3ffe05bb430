#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/buf.h"

static void test_buf_is_an_empty_string_at_first(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    assert_string_equal(buf_str(&b), "");
    assert_null(buf_detach(&b));
    buf_release(&b);
}

static void test_buf_appends_in_every_way(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    buf_adds(&b, "one");
    buf_addc(&b, ' ');
    buf_addf(&b, "%d-%s", 2, "three");
    buf_add(&b, "\0x", 2);
    assert_int_equal(b.len, 13);
    assert_memory_equal(b.data, "one 2-three\0x", 14); /* with the NUL behind it */
    char *p = buf_reserve(&b, 3);
    memcpy(p, "yz!", 3);
    b.len += 3;
    assert_memory_equal(b.data + 11, "\0xyz!", 5);
    buf_clear(&b);
    assert_string_equal(buf_str(&b), "");
    buf_release(&b);
}

static void test_buf_grows_past_every_doubling(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    for (int i = 0; i < 100000; i++)
        buf_addc(&b, (char)('a' + i % 26));
    assert_int_equal(b.len, 100000);
    for (int i = 0; i < 100000; i++)
        assert_int_equal(b.data[i], 'a' + i % 26);
    buf_release(&b);
}

static void test_buf_stops_at_its_limit_and_stays_failed(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 5);
    buf_adds(&b, "12345");
    assert_false(b.failed);
    buf_addc(&b, '6');
    assert_true(b.failed);
    buf_adds(&b, "");
    assert_string_equal(buf_str(&b), "12345");
    assert_null(buf_reserve(&b, 0));
    buf_clear(&b);
    assert_false(b.failed);
    buf_addf(&b, "%s", "123456");
    assert_true(b.failed);
    assert_null(buf_detach(&b));
    assert_int_equal(b.len, 0);
    buf_release(&b);
}

static void test_buf_writes_numbers_as_printf_does(void **state)
{
    (void)state;
    static const int64_t values[] = {0, 1, -1, 9, 10, -10, 12345, INT64_MAX, INT64_MIN, 1LL << 40};
    struct buf b;
    char wanted[64];
    buf_init(&b, 0);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        buf_clear(&b);
        buf_addint(&b, values[i]);
        buf_addc(&b, ' ');
        buf_adduint(&b, (uint64_t)values[i]);
        snprintf(wanted, sizeof(wanted), "%lld %llu", (long long)values[i],
                 (unsigned long long)values[i]);
        assert_string_equal(buf_str(&b), wanted);
    }
    buf_release(&b);
}

static void test_buf_formats_at_every_distance_from_its_end(void **state)
{
    (void)state;
    for (size_t before = 0; before < 140; before++) {
        struct buf b, limited;
        buf_init(&b, 0);
        buf_init(&limited, before + 6);
        for (size_t i = 0; i < before; i++) {
            buf_addc(&b, 'x');
            buf_addc(&limited, 'x');
        }
        buf_addf(&b, "<%d>", 12345);
        assert_int_equal(b.len, before + 7);
        assert_string_equal(buf_str(&b) + before, "<12345>");
        buf_addf(&limited, "<%d>", 12345); /* one too many: nothing of it is kept */
        assert_true(limited.failed);
        assert_int_equal(strlen(buf_str(&limited)), before);
        buf_release(&b);
        buf_release(&limited);
    }
}

static void test_buf_refuses_sizes_that_would_overflow(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    buf_adds(&b, "x");
    assert_null(buf_reserve(&b, SIZE_MAX));
    assert_true(b.failed);
    buf_release(&b);
}

static void test_buf_detach_hands_the_bytes_over(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 0);
    buf_adds(&b, "mine");
    char *p = buf_detach(&b);
    assert_string_equal(p, "mine");
    assert_int_equal(b.len, 0);
    assert_null(b.data);
    free(p);
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buf_is_an_empty_string_at_first),
        cmocka_unit_test(test_buf_appends_in_every_way),
        cmocka_unit_test(test_buf_grows_past_every_doubling),
        cmocka_unit_test(test_buf_stops_at_its_limit_and_stays_failed),
        cmocka_unit_test(test_buf_writes_numbers_as_printf_does),
        cmocka_unit_test(test_buf_formats_at_every_distance_from_its_end),
        cmocka_unit_test(test_buf_refuses_sizes_that_would_overflow),
        cmocka_unit_test(test_buf_detach_hands_the_bytes_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
