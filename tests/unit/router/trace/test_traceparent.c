/* The examples and rules of W3C Trace Context (https://www.w3.org/TR/trace-context/, 3.2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "router/trace/journal.h"
#include "router/trace/traceparent.h"
#include "runtime/base/check.h"
#include "runtime/base/rng.h"

#define EXAMPLE "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static bool parses(const char *text, struct traceparent *t)
{
    return traceparent_parse(text, strlen(text), t);
}

static void test_the_example_is_read_and_written_back(void **state)
{
    (void)state;
    static const uint8_t trace[] = {0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6,
                                    0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36};
    static const uint8_t span[] = {0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7};
    struct traceparent t;
    char text[TRACEPARENT_BYTES];
    assert_true(parses(EXAMPLE, &t));
    assert_memory_equal(t.trace_id, trace, sizeof(trace));
    assert_memory_equal(t.span_id, span, sizeof(span));
    assert_true(t.sampled);
    traceparent_write(&t, text);
    assert_string_equal(text, EXAMPLE);
    assert_true(parses("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", &t));
    assert_false(t.sampled);
}

static void test_what_breaks_the_rules_is_none(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "00",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", /* version ff */
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01", /* zero ids */
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",   /* upper case */
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",    /* short */
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x", /* version 00 ends there */
        "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
        "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
    };
    struct traceparent t = {.sampled = true};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        if (parses(wrong[i], &t))
            fail_msg("taken: %s", wrong[i]);
    assert_true(t.sampled); /* left alone */
}

static void test_a_later_version_is_read_as_far_as_it_is_known(void **state)
{
    (void)state;
    struct traceparent t;
    assert_true(parses("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", &t));
    assert_true(parses("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", &t));
    assert_true(t.sampled);
}

static void test_ids_that_are_made_differ(void **state)
{
    (void)state;
    struct rng rng;
    struct traceparent a = {0}, b = {0};
    rng_init(&rng, 7);
    trace_id_make(&rng, a.trace_id);
    trace_id_make(&rng, b.trace_id);
    span_id_make(&rng, a.span_id);
    span_id_make(&rng, b.span_id);
    assert_memory_not_equal(a.trace_id, b.trace_id, TRACE_ID_BYTES);
    assert_memory_not_equal(a.span_id, b.span_id, SPAN_ID_BYTES);
}

/* ---- journal ---- */

static void test_a_moved_choice_has_two_legs(void **state)
{
    (void)state;
    struct journal j = {.start_ns = 100};
    journal_place(&j, 0, "one", 110);
    journal_place(&j, 1, "two", 120);
    journal_first(&j, 0, 130);
    journal_leave(&j, 0, true, 140);
    assert_string_equal(journal_worker(&j), "one");
    journal_place(&j, 0, "two", 150);
    journal_first(&j, 0, 160);
    journal_done(&j, 0, 5, 130, 190, 200);
    assert_int_equal(j.moves, 1);
    assert_int_equal(j.n_legs, 3);
    assert_int_equal(j.placed_ns, 110);
    assert_int_equal(j.first_ns, 130);
    assert_int_equal(j.last_ns, 190);
    assert_int_equal(j.decode_ns, 60);
    assert_int_equal(j.decode_tokens, 4);
    assert_int_equal(j.legs[0].wait_ns, 100);
    assert_int_equal(j.legs[0].end_ns, 140);
    assert_int_equal(j.legs[1].end_ns, 0); /* the other choice still runs */
    assert_int_equal(j.legs[2].wait_ns, 140);
    assert_int_equal(j.legs[2].start_ns, 150);
    assert_int_equal(j.legs[2].end_ns, 200);
}

static void test_legs_past_the_limit_are_only_counted(void **state)
{
    (void)state;
    struct journal j = {.start_ns = 1};
    for (uint32_t i = 0; i < 3 * JOURNAL_LEGS_MAX; i++) {
        journal_place(&j, 0, "w", 10 + i);
        journal_leave(&j, 0, true, 11 + i);
    }
    assert_int_equal(j.n_legs, JOURNAL_LEGS_MAX);
    assert_int_equal(j.moves, 3 * JOURNAL_LEGS_MAX);
    journal_done(&j, 0, 1, 50, 50, 60);
    assert_int_equal(j.decode_tokens, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_example_is_read_and_written_back),
        cmocka_unit_test(test_what_breaks_the_rules_is_none),
        cmocka_unit_test(test_a_later_version_is_read_as_far_as_it_is_known),
        cmocka_unit_test(test_ids_that_are_made_differ),
        cmocka_unit_test(test_a_moved_choice_has_two_legs),
        cmocka_unit_test(test_legs_past_the_limit_are_only_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
