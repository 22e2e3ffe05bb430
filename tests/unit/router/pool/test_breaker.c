/* Breakers alone: what opens one, for how long, what closes it, and whom the table forgets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router/pool/breaker.h"
#include "router/pool/budget.h"

static struct breaker opened(uint64_t now_ms)
{
    struct breaker b = {0};
    assert_false(breaker_fault(&b, now_ms));
    assert_false(breaker_fault(&b, now_ms));
    assert_true(breaker_admits(&b, now_ms));
    assert_true(breaker_fault(&b, now_ms));
    assert_false(breaker_admits(&b, now_ms));
    return b;
}

static void test_breaker_opens_at_three_faults_and_tries_one(void **state)
{
    (void)state;
    struct breaker b = opened(1000);
    assert_int_equal(breaker_again_ms(&b, 1000), 2000);
    assert_false(breaker_admits(&b, 1999));
    assert_true(breaker_admits(&b, 2000));
    assert_true(breaker_sent(&b));
    assert_false(breaker_admits(&b, 5000)); /* one at a time */
    breaker_token(&b);
    assert_true(breaker_admits(&b, 5000));
    assert_false(breaker_sent(&b));
}

static void test_breaker_waits_twice_as_long_each_time(void **state)
{
    (void)state;
    static const uint64_t wait_ms[] = {2000, 4000, 8000, 16000, 32000, 60000, 60000};
    uint64_t now = 1000;
    struct breaker b = opened(now);
    for (int i = 0; i < 7; i++) {
        now = b.until_ms;
        assert_true(breaker_sent(&b));
        assert_true(breaker_fault(&b, now));
        assert_int_equal(b.until_ms - now, wait_ms[i]);
    }
    /* A token closes it, but the time is forgotten only when all is made up for. */
    now = b.until_ms;
    assert_true(breaker_sent(&b));
    breaker_token(&b);
    assert_true(breaker_fault(&b, now));
    assert_int_equal(b.until_ms - now, 60000);
    assert_true(breaker_sent(&b));
    breaker_token(&b);
    for (int i = 0; i < BREAKER_OPENS_AT; i++)
        breaker_good(&b);
    for (int i = 0; i < 3; i++)
        breaker_fault(&b, now);
    assert_int_equal(b.until_ms - now, 1000);
}

static void test_breaker_that_is_alone_is_tried_after_a_second(void **state)
{
    (void)state;
    struct breaker b = opened(1000);
    for (uint64_t now = 1000; now < 20000; now += 1000) {
        assert_false(breaker_admits_alone(&b, now + 999));
        assert_int_equal(breaker_again_ms(&b, now), now + 1000);
        assert_true(breaker_admits_alone(&b, now + 1000));
        assert_true(breaker_sent(&b));
        assert_false(breaker_admits_alone(&b, now + 1000));
        assert_false(breaker_sent(&b)); /* what goes on there is not on trial */
        assert_true(breaker_fault(&b, now + 1000));
    }
}

static void test_breaker_weighs_faults_against_good_ends(void **state)
{
    (void)state;
    struct breaker b = {0};
    for (int i = 0; i < 1000; i++) {
        assert_false(breaker_fault(&b, 0));
        for (int k = 0; k < BREAKER_FAULT; k++)
            breaker_good(&b);
    }
}

static void test_breaker_that_was_not_tried_stays_open_for_the_next(void **state)
{
    (void)state;
    struct breaker b = opened(1000);
    assert_true(breaker_sent(&b));
    breaker_untried(&b, 3000);
    assert_true(breaker_admits(&b, 3000));
    assert_true(breaker_sent(&b));
}

static void test_breakers_are_kept_by_id(void **state)
{
    (void)state;
    struct breakers t;
    struct err e;
    char id[16];
    assert_int_equal(breakers_init(&t, 4, &e), 0);
    struct breaker *a = breakers_joined(&t, 1, "a");
    for (int i = 0; i < 3; i++)
        breaker_fault(a, 0);
    struct breaker *again = breakers_joined(&t, 1, "a");
    assert_ptr_equal(again, a);
    assert_ptr_not_equal(breakers_joined(&t, 1, "same hash"), a);
    breakers_left(a, 10);
    breakers_left(a, 20);
    assert_false(breaker_admits(breakers_joined(&t, 1, "a"), 20));
    /* It is attached: all the others make room for one another. */
    for (uint64_t i = 0; i < 50; i++) {
        snprintf(id, sizeof(id), "w%llu", (unsigned long long)i);
        breakers_left(breakers_joined(&t, 100 + i, id), 30 + i);
    }
    assert_false(breaker_admits(a, 20));
    assert_string_equal(a->id, "a");
    breakers_left(a, 1000);
    /* Of two that are away, the one that has been for longer goes. */
    breakers_joined(&t, 200, "x");
    breakers_joined(&t, 201, "y");
    assert_string_equal(a->id, "a");
    breakers_joined(&t, 202, "z");
    assert_string_equal(a->id, "z");
    assert_true(breaker_admits(a, 0));
    breakers_release(&t);
}

static void test_budget_is_a_share_of_requests_and_a_few_a_second(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 0.2, 1000);
    for (int i = 0; i < BUDGET_MAX; i++) {
        assert_true(budget_allows(&b, 1000));
        budget_spend(&b);
    }
    assert_false(budget_allows(&b, 1000));
    for (int i = 0; i < 5; i++)
        budget_request(&b);
    assert_true(budget_allows(&b, 1000));
    budget_spend(&b);
    assert_false(budget_allows(&b, 1099));
    assert_true(budget_allows(&b, 1101));
    budget_spend(&b);
    int n = 0;
    for (uint64_t now = 1101; now < 11101; now += 10)
        for (; budget_allows(&b, now); n++)
            budget_spend(&b);
    assert_in_range(n, 98, 101);
    for (int i = 0; i < 10000; i++)
        budget_request(&b);
    for (n = 0; budget_allows(&b, 11101); n++)
        budget_spend(&b);
    assert_int_equal(n, BUDGET_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_breaker_opens_at_three_faults_and_tries_one),
        cmocka_unit_test(test_breaker_waits_twice_as_long_each_time),
        cmocka_unit_test(test_breaker_that_is_alone_is_tried_after_a_second),
        cmocka_unit_test(test_breaker_weighs_faults_against_good_ends),
        cmocka_unit_test(test_breaker_that_was_not_tried_stays_open_for_the_next),
        cmocka_unit_test(test_breakers_are_kept_by_id),
        cmocka_unit_test(test_budget_is_a_share_of_requests_and_a_few_a_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
