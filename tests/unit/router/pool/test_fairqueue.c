#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "router/pool/fairqueue.h"
#include "runtime/base/rng.h"

enum { ITEMS = 256, TENANTS = 8 };

static struct world {
    struct fairqueue q;
    struct fairqueue_item items[ITEMS];
    uint32_t n;
} w;

static int setup(void **state)
{
    (void)state;
    w.n = 0;
    return fairqueue_init(&w.q, ITEMS, TENANTS * 2, 1000, NULL);
}

static int teardown(void **state)
{
    (void)state;
    fairqueue_release(&w.q);
    return 0;
}

static struct fairqueue_item *add_to(struct fairqueue_item *i, uint64_t tenant, int32_t priority,
                                     uint64_t since_ms)
{
    *i = (struct fairqueue_item){.priority = priority, .since_ms = since_ms};
    assert_int_equal(fairqueue_enter(&w.q, i, tenant), 0);
    assert_true(fairqueue_add(&w.q, i));
    return i;
}

static struct fairqueue_item *add(uint64_t tenant, int32_t priority, uint64_t since_ms)
{
    return add_to(&w.items[w.n++], tenant, priority, since_ms);
}

static void serve(struct fairqueue_item *i, int64_t cost)
{
    fairqueue_remove(&w.q, i);
    fairqueue_charge(&w.q, i, cost);
    fairqueue_leave(&w.q, i);
}

static void test_fairqueue_is_first_come_first_served_for_one(void **state)
{
    (void)state;
    struct fairqueue_item *items[3];
    for (int i = 0; i < 3; i++)
        items[i] = add(1, 0, (uint64_t)i);
    for (int i = 0; i < 3; i++) {
        assert_ptr_equal(fairqueue_first(&w.q, 0, 5), items[i]);
        serve(items[i], 10);
    }
    assert_null(fairqueue_first(&w.q, 0, 5));
}

/* The bound of the paper: tenants that always have something waiting differ by at most twice what
 * one item can cost, whatever each asks for and however often. */
static void test_fairqueue_gives_equal_service_to_all_that_wait(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct rng rng;
        int64_t got[TENANTS] = {0}, mean[TENANTS];
        fairqueue_release(&w.q);
        setup(NULL);
        rng_init(&rng, seed);
        for (int t = 0; t < TENANTS; t++)
            mean[t] = 1 + (int64_t)rng_below(&rng, 1000);
        for (int t = 0; t < TENANTS; t++) /* some have two that wait, some thirty */
            for (uint64_t n = 2 + rng_below(&rng, 30); n > 0; n--)
                add((uint64_t)t, 0, 0);
        for (int step = 0; step < 5000; step++) {
            struct fairqueue_item *i = fairqueue_first(&w.q, 0, (uint64_t)step);
            int tenant = 0;
            uint64_t id = 0;
            /* Which one it is: by the place that its first item has. */
            for (int t = 0; t < TENANTS; t++) {
                struct fairqueue_item probe = {0};
                assert_int_equal(fairqueue_enter(&w.q, &probe, (uint64_t)t), 0);
                if (probe.tenant == i->tenant) {
                    tenant = t;
                    id = (uint64_t)t;
                }
                fairqueue_leave(&w.q, &probe);
            }
            int64_t cost = 1 + (int64_t)rng_below(&rng, (uint64_t)(2 * mean[tenant]));
            serve(i, cost);
            add_to(i, id, 0, (uint64_t)step);
            got[tenant] += cost;
            int64_t low = got[0], high = got[0];
            for (int t = 1; t < TENANTS; t++) {
                low = got[t] < low ? got[t] : low;
                high = got[t] > high ? got[t] : high;
            }
            if (high - low > 2 * 2000) /* a cost is at most 2,000 */
                fail_msg("seed %d, step %d: %d to %d", (int)seed, step, (int)low, (int)high);
        }
        assert_true(got[0] > 10000 / TENANTS);
    }
}

static void test_fairqueue_nobody_saves_up(void **state)
{
    (void)state;
    struct fairqueue_item *a = add(1, 0, 0);
    for (int i = 0; i < 100; i++) {
        serve(a, 100);
        add_to(a, 1, 0, (uint64_t)i);
    }
    /* Two comes for the first time: it goes first once, and then in turns, not a hundred times. */
    struct fairqueue_item *b = add(2, 0, 100);
    int n = 0;
    for (int i = 0; i < 20; i++) {
        struct fairqueue_item *first = fairqueue_first(&w.q, 0, 200);
        n += first == b;
        serve(first, 100);
        add_to(first, first == b ? 2 : 1, 0, 200);
    }
    assert_in_range(n, 9, 11);
}

static void test_fairqueue_service_that_nobody_waited_for_is_no_debt(void **state)
{
    (void)state;
    struct fairqueue_item alone = {0};
    assert_int_equal(fairqueue_enter(&w.q, &alone, 1), 0);
    fairqueue_charge(&w.q, &alone, 1000000);
    fairqueue_leave(&w.q, &alone);
    struct fairqueue_item *b = add(2, 0, 0), *a = add(1, 0, 1);
    int n = 0;
    for (int i = 0; i < 20; i++) {
        struct fairqueue_item *first = fairqueue_first(&w.q, 0, 2);
        n += first == a;
        serve(first, 100);
        add_to(first, first == a ? 1 : 2, 0, 2);
        (void)b;
    }
    assert_in_range(n, 9, 11);
}

static void test_fairqueue_priority_goes_first_and_ages(void **state)
{
    (void)state;
    struct fairqueue_item *low = add(1, 0, 0);
    struct fairqueue_item *high = add(2, 5, 0);
    /* Somebody important has always something waiting. */
    for (uint64_t now_ms = 0; now_ms < 5000; now_ms += 100) {
        assert_ptr_equal(fairqueue_first(&w.q, 0, now_ms), high);
        serve(high, 100);
        add_to(high, 2, 5, now_ms);
    }
    assert_ptr_equal(fairqueue_first(&w.q, 0, 5000), low); /* five steps of a second each */
}

/* Old items of who has many do not pass young ones of who has few. */
static void test_fairqueue_age_is_no_advantage_between_equals(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++)
        add(1, 0, 0);
    struct fairqueue_item *first = fairqueue_first(&w.q, 0, 60000);
    serve(first, 100);
    struct fairqueue_item *young = add(2, 0, 60000);
    assert_ptr_not_equal(fairqueue_first(&w.q, 0, 60000), NULL);
    serve(fairqueue_first(&w.q, 0, 60000), 100);
    assert_ptr_equal(fairqueue_first(&w.q, 0, 60000), young);
}

static void test_fairqueue_within_a_tenant_by_priority_then_age(void **state)
{
    (void)state;
    struct fairqueue_item *a = add(1, 0, 0), *b = add(1, 2, 1500), *c = add(1, 2, 2500);
    assert_ptr_equal(fairqueue_first(&w.q, 0, 3000), b);
    serve(b, 1);
    assert_ptr_equal(fairqueue_first(&w.q, 0, 3000), a); /* two seconds older than c */
    serve(a, 1);
    assert_ptr_equal(fairqueue_first(&w.q, 0, 3000), c);
}

static void test_fairqueue_passes_kinds_and_items(void **state)
{
    (void)state;
    struct fairqueue_item *a = add(1, 0, 0), *b = &w.items[w.n++];
    *b = (struct fairqueue_item){.kind = 3, .since_ms = 1};
    assert_int_equal(fairqueue_enter(&w.q, b, 1), 0);
    assert_true(fairqueue_add(&w.q, b));
    assert_int_equal(w.q.n_of_kind[3], 1);
    assert_ptr_equal(fairqueue_first(&w.q, 1, 5), b);
    assert_ptr_equal(fairqueue_first(&w.q, 1 << 3, 5), a);
    fairqueue_pass(&w.q, a);
    assert_ptr_equal(fairqueue_first(&w.q, 0, 5), b);
    fairqueue_begin_round(&w.q);
    assert_ptr_equal(fairqueue_first(&w.q, 0, 5), a);
    fairqueue_leave(&w.q, a);
    fairqueue_leave(&w.q, b);
    assert_int_equal(w.q.n + w.q.n_of_kind[0] + w.q.n_of_kind[3], 0);
}

static void test_fairqueue_counts_who_is_ahead(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++)
        add(1, 0, 0);
    add(2, 0, 0);
    assert_int_equal(fairqueue_ahead(&w.q, 1, 0, 0), 11);
    assert_int_equal(fairqueue_ahead(&w.q, 2, 0, 0), 3); /* its own, and two turns of the other */
    assert_int_equal(fairqueue_ahead(&w.q, 3, 0, 0), 2);
    assert_int_equal(fairqueue_ahead(&w.q, 3, 0, 1), 0);
    assert_int_equal(fairqueue_ahead(&w.q, 3, 7, 0), 0);
}

static void test_fairqueue_is_bounded(void **state)
{
    (void)state;
    struct fairqueue_item more = {0};
    for (uint64_t i = 0; i < ITEMS; i++)
        add(i % TENANTS, 0, 0);
    assert_int_equal(fairqueue_enter(&w.q, &more, 1), 0);
    assert_false(fairqueue_add(&w.q, &more));
    fairqueue_leave(&w.q, &more);
    for (uint64_t i = 0; i < 10000; i++) { /* tenants that come once */
        more = (struct fairqueue_item){0};
        assert_int_equal(fairqueue_enter(&w.q, &more, 1000 + i), 0);
        fairqueue_charge(&w.q, &more, 1);
        fairqueue_leave(&w.q, &more);
        assert_true(w.q.n_tenants <= TENANTS * 2);
    }
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_fairqueue_is_first_come_first_served_for_one),
        T(test_fairqueue_gives_equal_service_to_all_that_wait),
        T(test_fairqueue_nobody_saves_up),
        T(test_fairqueue_service_that_nobody_waited_for_is_no_debt),
        T(test_fairqueue_priority_goes_first_and_ages),
        T(test_fairqueue_age_is_no_advantage_between_equals),
        T(test_fairqueue_within_a_tenant_by_priority_then_age),
        T(test_fairqueue_passes_kinds_and_items),
        T(test_fairqueue_counts_who_is_ahead),
        T(test_fairqueue_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
