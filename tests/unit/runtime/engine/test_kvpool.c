#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/base/rng.h"
#include "runtime/engine/kvpool.h"

static void test_kvpool_refuses_when_full(void **state)
{
    (void)state;
    struct kvpool p;
    struct err e;
    uint32_t page;
    bool seen[5] = {false};
    assert_int_equal(kvpool_init(&p, 5, &e), 0);
    for (int i = 0; i < 5; i++) {
        assert_true(kvpool_take(&p, &page));
        assert_true(page < 5 && !seen[page]);
        seen[page] = true;
    }
    page = 77;
    assert_false(kvpool_take(&p, &page));
    assert_int_equal(page, 77);
    kvpool_drop(&p, 3);
    assert_true(kvpool_take(&p, &page));
    assert_int_equal(page, 3);
    assert_true(kvpool_consistent(&p));
    kvpool_release(&p);
}

static void test_kvpool_keeps_a_page_until_its_last_reference(void **state)
{
    (void)state;
    struct kvpool p;
    struct err e;
    uint32_t page;
    assert_int_equal(kvpool_init(&p, 1, &e), 0);
    assert_true(kvpool_take(&p, &page));
    kvpool_share(&p, page);
    kvpool_share(&p, page);
    kvpool_drop(&p, page);
    kvpool_drop(&p, page);
    assert_int_equal(p.n_free, 0);
    kvpool_drop(&p, page);
    assert_int_equal(p.n_free, 1);
    assert_true(kvpool_consistent(&p));
    kvpool_release(&p);
}

static void test_kvpool_notices_a_page_that_is_free_twice(void **state)
{
    (void)state;
    struct kvpool p;
    struct err e;
    uint32_t a, b;
    assert_int_equal(kvpool_init(&p, 4, &e), 0);
    assert_true(kvpool_take(&p, &a) && kvpool_take(&p, &b));
    kvpool_drop(&p, a);
    p.free_pages[p.n_free - 1] = p.free_pages[0];
    assert_false(kvpool_consistent(&p));
    kvpool_release(&p);
}

/* Against a plain model of it: an array of counts. */
static void test_kvpool_never_leaks_under_random_use(void **state)
{
    (void)state;
    enum { PAGES = 37, STEPS = 20000 };
    struct kvpool p;
    struct err e;
    struct rng rng;
    uint32_t counts[PAGES] = {0}, used = 0;
    rng_init(&rng, 42);
    assert_int_equal(kvpool_init(&p, PAGES, &e), 0);
    for (int i = 0; i < STEPS; i++) {
        uint32_t page = (uint32_t)rng_below(&rng, PAGES);
        switch (rng_below(&rng, 3)) {
        case 0:
            assert_int_equal(kvpool_take(&p, &page), used < PAGES);
            if (used < PAGES) {
                assert_int_equal(counts[page], 0);
                counts[page] = 1;
                used++;
            }
            break;
        case 1:
            if (counts[page] > 0) {
                kvpool_share(&p, page);
                counts[page]++;
            }
            break;
        default:
            if (counts[page] > 0) {
                kvpool_drop(&p, page);
                used -= --counts[page] == 0;
            }
        }
        assert_int_equal(p.n_free, PAGES - used);
        if (i % 100 == 0)
            assert_true(kvpool_consistent(&p));
    }
    kvpool_release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kvpool_refuses_when_full),
        cmocka_unit_test(test_kvpool_keeps_a_page_until_its_last_reference),
        cmocka_unit_test(test_kvpool_notices_a_page_that_is_free_twice),
        cmocka_unit_test(test_kvpool_never_leaks_under_random_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
