#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/text/stopmatch.h"

static const struct stopmatch_limits LIMITS = {.max_strings = 4, .max_bytes = 64};

static void start(struct stopmatch *m, const char *a, const char *b)
{
    const char *s[] = {a, b};
    size_t lens[] = {strlen(a), b ? strlen(b) : 0};
    assert_int_equal(stopmatch_init(m, s, lens, b ? 2 : 1, &LIMITS, NULL), 0);
}

/* Feeds a piece and expects exactly `shown` to come out of it. */
static bool feed(struct stopmatch *m, const char *piece, const char *shown)
{
    struct buf out;
    buf_init(&out, 0);
    bool hit = stopmatch_feed(m, piece, strlen(piece), &out);
    assert_string_equal(buf_str(&out), shown);
    buf_release(&out);
    return hit;
}

static void flush(struct stopmatch *m, const char *shown)
{
    struct buf out;
    buf_init(&out, 0);
    stopmatch_flush(m, &out);
    assert_string_equal(buf_str(&out), shown);
    buf_release(&out);
}

static void test_stopmatch_without_strings_lets_all_out(void **state)
{
    (void)state;
    struct stopmatch m;
    assert_int_equal(stopmatch_init(&m, NULL, NULL, 0, &LIMITS, NULL), 0);
    assert_false(feed(&m, "abc", "abc"));
    flush(&m, "");
    stopmatch_release(&m);
}

static void test_stopmatch_holds_what_may_become_a_match(void **state)
{
    (void)state;
    struct stopmatch m;
    start(&m, "###", "END");
    assert_false(feed(&m, "text #", "text "));
    assert_int_equal(stopmatch_held_bytes(&m), 1);
    assert_false(feed(&m, "# E", "## "));
    assert_false(feed(&m, "N", ""));
    assert_int_equal(stopmatch_held_bytes(&m), 2);
    assert_false(feed(&m, "X", "ENX"));
    assert_int_equal(m.hit, STOPMATCH_NONE);
    flush(&m, "");
    stopmatch_release(&m);
}

static void test_stopmatch_cuts_before_the_match_and_drops_the_rest(void **state)
{
    (void)state;
    struct stopmatch m;
    start(&m, "zzz", "STOP");
    assert_false(feed(&m, "one S", "one "));
    assert_true(feed(&m, "TOP two", ""));
    assert_int_equal(m.hit, 1);
    assert_true(feed(&m, "three", ""));
    flush(&m, "");
    stopmatch_clear(&m);
    assert_false(feed(&m, "one", "one"));
    assert_true(feed(&m, "two STOP", "two "));
    stopmatch_release(&m);
}

static void test_stopmatch_takes_the_first_end_then_the_longest(void **state)
{
    (void)state;
    struct stopmatch m;
    start(&m, "bc", "abc"); /* both end at the same byte */
    assert_true(feed(&m, "xabcx", "x"));
    assert_int_equal(m.hit, 1);
    stopmatch_release(&m);
    start(&m, "abcd", "bc"); /* "bc" ends first */
    assert_true(feed(&m, "xabcd", "xa"));
    assert_int_equal(m.hit, 1);
    stopmatch_release(&m);
}

static void test_stopmatch_falls_back_inside_a_string(void **state)
{
    (void)state;
    struct stopmatch m;
    start(&m, "aab", NULL);
    assert_false(feed(&m, "aaa", "a"));
    assert_false(feed(&m, "a", "a"));
    assert_true(feed(&m, "b", ""));
    stopmatch_release(&m);
}

static void test_stopmatch_flush_gives_what_was_held(void **state)
{
    (void)state;
    struct stopmatch m;
    start(&m, "\n\nUser:", NULL);
    assert_false(feed(&m, "bye\n\nUse", "bye"));
    flush(&m, "\n\nUse");
    assert_int_equal(stopmatch_held_bytes(&m), 0);
    stopmatch_release(&m);
}

static void test_stopmatch_refuses_past_its_limits(void **state)
{
    (void)state;
    struct stopmatch m;
    struct err e;
    const char *s[] = {"a", "b", "c", "d", "e"};
    size_t one[] = {1, 1, 1, 1, 1}, none[] = {1, 0}, many[] = {64, 1};
    char text[64] = {0};
    const char *big[] = {text, text};
    assert_int_equal(stopmatch_init(&m, s, one, 5, &LIMITS, &e), ERR_LIMIT);
    assert_int_equal(stopmatch_init(&m, s, none, 2, &LIMITS, &e), ERR_RANGE);
    assert_int_equal(stopmatch_init(&m, big, many, 2, &LIMITS, &e), ERR_LIMIT);
    assert_int_equal(stopmatch_init(&m, big, many, 1, &LIMITS, &e), 0);
    stopmatch_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stopmatch_without_strings_lets_all_out),
        cmocka_unit_test(test_stopmatch_holds_what_may_become_a_match),
        cmocka_unit_test(test_stopmatch_cuts_before_the_match_and_drops_the_rest),
        cmocka_unit_test(test_stopmatch_takes_the_first_end_then_the_longest),
        cmocka_unit_test(test_stopmatch_falls_back_inside_a_string),
        cmocka_unit_test(test_stopmatch_flush_gives_what_was_held),
        cmocka_unit_test(test_stopmatch_refuses_past_its_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
