#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "runtime/base/threads.h"

enum { THREADS = 4, ROUNDS = 100 };

struct work {
    struct threads *threads;
    uint32_t ran[THREADS];
    uint32_t cells[THREADS]; /* plain memory: only the barriers order it */
    uint32_t wrong;
};

/* Everybody writes its cell, and after the barrier reads all of them. */
static void meet(void *arg, uint32_t thread)
{
    struct work *w = arg;
    uint32_t wrong = 0;
    w->ran[thread]++;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        w->cells[thread] = round;
        threads_barrier(w->threads);
        for (uint32_t i = 0; i < threads_count(w->threads); i++)
            wrong += w->cells[i] != round;
        threads_barrier(w->threads);
    }
    if (thread == 0)
        w->wrong += wrong;
}

static void test_threads_meet_at_barriers(void **state)
{
    (void)state;
    struct err e;
    for (uint32_t n = 1; n <= THREADS; n++) {
        struct work w = {.wrong = 0};
        assert_int_equal(threads_create(n, &w.threads, &e), 0);
        assert_int_equal(threads_count(w.threads), n);
        for (int run = 0; run < 5; run++)
            threads_run(w.threads, meet, &w);
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(w.ran[i], 5);
        assert_int_equal(w.wrong, 0);
        threads_free(w.threads);
    }
}

static void test_threads_wake_from_sleep(void **state)
{
    (void)state;
    struct err e;
    struct work w = {.wrong = 0};
    assert_int_equal(threads_create(3, &w.threads, &e), 0);
    for (int run = 0; run < 10; run++) {
        usleep(3000); /* far longer than they spin */
        threads_run(w.threads, meet, &w);
    }
    assert_int_equal(w.ran[2], 10);
    assert_int_equal(w.wrong, 0);
    threads_free(w.threads);
}

static void test_threads_cut_work_without_gaps(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 9; n++) {
        for (int64_t work = 0; work < 40; work++) {
            int64_t begin, end, next = 0;
            for (uint32_t i = 0; i < n; i++) {
                threads_slice(n, i, work, &begin, &end);
                assert_int_equal(begin, next);
                assert_in_range(end - begin, work / n, work / n + 1);
                next = end;
            }
            assert_int_equal(next, work);
        }
    }
}

static void test_threads_refuses_too_many(void **state)
{
    (void)state;
    struct threads *t = NULL;
    struct err e;
    assert_int_equal(threads_create(THREADS_MAX + 1, &t, &e), ERR_CONFIG);
    assert_null(t);
    assert_int_equal(threads_create(0, &t, &e), 0);
    assert_true(threads_count(t) >= 1);
    threads_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_meet_at_barriers),
        cmocka_unit_test(test_threads_wake_from_sleep),
        cmocka_unit_test(test_threads_cut_work_without_gaps),
        cmocka_unit_test(test_threads_refuses_too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
