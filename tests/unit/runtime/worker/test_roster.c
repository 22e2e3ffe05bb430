/* Whose turn a step is. What the roster loads and unloads is seen in test_worker_models.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/worker/roster.h"

#define MS 1000000u

static void test_roster_shares_time_not_steps(void **state)
{
    (void)state;
    static const uint64_t step_ns[] = {40 * MS, 10 * MS, 1 * MS};
    struct offer offers[3] = {{.state = OFFER_LOADED}};
    struct roster r = {.offers = offers, .n = 3};
    uint64_t had[3] = {0};
    assert_null(roster_next(&r));
    for (int i = 0; i < 3; i++)
        roster_used(&r, &offers[i]);
    for (int i = 0; i < 10000; i++) {
        struct offer *o = roster_next(&r);
        had[o - offers] += step_ns[o - offers];
        roster_stepped(&r, o, step_ns[o - offers], true, 0);
    }
    for (int i = 1; i < 3; i++) /* a step of the longest more or less */
        assert_in_range(had[i], had[0] - 40 * MS, had[0] + 40 * MS);
}

/* A model that comes back has no claim on the time that it did not want. */
static void test_roster_saves_no_time_up(void **state)
{
    (void)state;
    struct offer offers[2] = {{.state = OFFER_LOADED}};
    struct roster r = {.offers = offers, .n = 2};
    roster_used(&r, &offers[0]);
    for (int i = 0; i < 1000; i++)
        roster_stepped(&r, roster_next(&r), 10 * MS, true, 0);
    roster_used(&r, &offers[1]);
    int in_a_row = 0;
    while (roster_next(&r) == &offers[1]) {
        roster_stepped(&r, &offers[1], 10 * MS, true, 0);
        assert_true(++in_a_row <= 2);
    }
    roster_stepped(&r, &offers[0], 10 * MS, false, 0);
    assert_ptr_equal(roster_next(&r), &offers[1]);
    roster_stepped(&r, &offers[1], 10 * MS, false, 0);
    assert_null(roster_next(&r));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roster_shares_time_not_steps),
        cmocka_unit_test(test_roster_saves_no_time_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
