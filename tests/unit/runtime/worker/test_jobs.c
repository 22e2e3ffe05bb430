#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "runtime/worker/jobs.h"

/* Owners are told apart by address alone. */
static char places[2];
#define ALICE ((struct attachment *)&places[0])
#define BOB ((struct attachment *)&places[1])

static void test_jobs_are_found_by_either_name(void **state)
{
    (void)state;
    struct jobs j;
    uint64_t a, b;
    assert_int_equal(jobs_init(&j, 4, NULL), 0);
    struct job *first = jobs_add(&j, ALICE, 7, &a);
    struct job *second = jobs_add(&j, BOB, 7, &b);
    assert_true(a != b && a != 0);
    assert_ptr_equal(jobs_by_engine(&j, a), first);
    assert_ptr_equal(jobs_by_engine(&j, b), second);
    assert_ptr_equal(jobs_by_request(&j, ALICE, 7), first);
    assert_ptr_equal(jobs_by_request(&j, BOB, 7), second);
    assert_null(jobs_by_request(&j, BOB, 8));
    assert_null(jobs_by_engine(&j, 0));
    assert_null(jobs_by_engine(&j, UINT64_MAX));
    assert_true(jobs_engine_id(&j, second) == b);
    jobs_release(&j);
}

static void test_jobs_an_old_name_never_means_a_new_job(void **state)
{
    (void)state;
    struct jobs j;
    uint64_t old, new;
    assert_int_equal(jobs_init(&j, 1, NULL), 0);
    jobs_remove(&j, jobs_add(&j, ALICE, 1, &old));
    assert_null(jobs_by_engine(&j, old));
    assert_non_null(jobs_add(&j, ALICE, 1, &new));
    assert_true(old != new);
    assert_null(jobs_by_engine(&j, old));
    assert_non_null(jobs_by_engine(&j, new));
    jobs_release(&j);
}

static void test_jobs_refuse_when_full_and_go_on_when_not(void **state)
{
    (void)state;
    struct jobs j;
    struct job *held[3];
    uint64_t id;
    assert_int_equal(jobs_init(&j, 3, NULL), 0);
    for (uint64_t i = 0; i < 3; i++)
        held[i] = jobs_add(&j, ALICE, i, &id);
    assert_null(jobs_add(&j, ALICE, 9, &id));
    for (uint64_t i = 0; i < 100; i++) { /* every slot is used again and again */
        jobs_remove(&j, held[i % 3]);
        assert_int_equal(j.n, 2);
        held[i % 3] = jobs_add(&j, BOB, 100 + i, &id);
        assert_non_null(held[i % 3]);
    }
    assert_null(jobs_add(&j, ALICE, 9, &id));
    jobs_release(&j);
}

static void test_jobs_of_one_owner_can_be_removed_while_walking(void **state)
{
    (void)state;
    struct jobs j;
    uint64_t id;
    int removed = 0;
    assert_int_equal(jobs_init(&j, 10, NULL), 0);
    for (uint64_t i = 0; i < 10; i++)
        jobs_add(&j, i % 2 ? ALICE : BOB, i, &id);
    for (struct job *job = NULL; (job = jobs_next(&j, ALICE, job)); removed++)
        jobs_remove(&j, job);
    assert_int_equal(removed, 5);
    assert_int_equal(j.n, 5);
    for (struct job *job = NULL; (job = jobs_next(&j, NULL, job));) {
        assert_ptr_equal(job->owner, BOB);
        jobs_remove(&j, job);
    }
    assert_int_equal(j.n, 0);
    jobs_release(&j);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jobs_are_found_by_either_name),
        cmocka_unit_test(test_jobs_an_old_name_never_means_a_new_job),
        cmocka_unit_test(test_jobs_refuse_when_full_and_go_on_when_not),
        cmocka_unit_test(test_jobs_of_one_owner_can_be_removed_while_walking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
