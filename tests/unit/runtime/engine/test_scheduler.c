#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/rng.h"
#include "runtime/engine/scheduler.h"

enum { CONTEXT = 128, PAGES_OF_CONTEXT = CONTEXT / KN_PAGE_TOKENS };

/* A sequence without a model: only what the scheduler looks at. */
static struct sequence *fake(uint64_t id, uint32_t n_tokens, int32_t priority)
{
    struct sequence *q = calloc(1, sizeof(*q));
    q->pages = calloc(PAGES_OF_CONTEXT, sizeof(*q->pages));
    q->id = id;
    q->arrival = id;
    q->priority = priority;
    q->n_prompt = q->n_tokens = n_tokens;
    q->tokens_max = CONTEXT;
    return q;
}

static void free_fake(struct sequence *q)
{
    assert_int_equal(q->n_pages, 0);
    free(q->pages);
    free(q);
}

struct fixture {
    struct kvpool pool;
    struct scheduler s;
    struct sequence *all[64];
};

static void init(struct fixture *f, uint32_t pages, uint32_t running_max, uint32_t step_tokens_max)
{
    struct err e;
    memset(f, 0, sizeof(*f));
    assert_int_equal(kvpool_init(&f->pool, pages, &e), 0);
    assert_int_equal(scheduler_init(&f->s, &f->pool, running_max, step_tokens_max, &e), 0);
}

static struct sequence *add(struct fixture *f, uint64_t id, uint32_t n_tokens, int32_t priority)
{
    f->all[id] = fake(id, n_tokens, priority);
    scheduler_add(&f->s, f->all[id]);
    return f->all[id];
}

static void take_out(struct fixture *f, struct sequence *q)
{
    scheduler_remove(&f->s, q);
    f->all[q->id] = NULL;
    free_fake(q);
}

static void release(struct fixture *f)
{
    for (size_t i = 0; i < 64; i++)
        if (f->all[i])
            take_out(f, f->all[i]);
    assert_int_equal(f->pool.n_free, f->pool.n_pages);
    assert_true(kvpool_consistent(&f->pool));
    scheduler_release(&f->s);
    kvpool_release(&f->pool);
}

/* What the engine does behind a plan: the rows are computed, and where the last token was reached,
 * there is one more. */
static void compute(struct fixture *f)
{
    for (uint32_t i = 0; i < f->s.n_running; i++) {
        struct sequence *q = f->s.running[i];
        bool samples = scheduler_samples(q);
        q->n_computed += q->step_rows;
        q->n_tokens += samples;
    }
}

static void test_scheduler_cuts_prefill_into_chunks(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 4, 10);
    struct sequence *q = add(&f, 0, 25, 0);
    const uint32_t rows[] = {10, 10, 5, 1, 1};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(scheduler_plan(&f.s), rows[i]);
        assert_int_equal(q->step_rows, rows[i]);
        assert_int_equal(scheduler_samples(q), i >= 2);
        compute(&f);
    }
    release(&f);
}

static void test_scheduler_decodes_before_it_prefills(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 4, 8);
    struct sequence *a = add(&f, 0, 3, 0), *b = add(&f, 1, 4, 0);
    assert_int_equal(scheduler_plan(&f.s), 7);
    compute(&f);
    struct sequence *c = add(&f, 2, 40, 5); /* higher priority, and still behind the decodes */
    assert_int_equal(scheduler_plan(&f.s), 8);
    assert_int_equal(a->step_rows, 1);
    assert_int_equal(b->step_rows, 1);
    assert_int_equal(c->step_rows, 6);
    release(&f);
}

static void test_scheduler_admits_by_priority_then_arrival(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 1, 100);
    add(&f, 0, 5, 0);
    add(&f, 1, 5, 0);
    add(&f, 2, 5, 7);
    add(&f, 3, 5, -1);
    add(&f, 4, 5, 7);
    const uint64_t order[] = {2, 4, 0, 1, 3};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(scheduler_plan(&f.s), 5);
        assert_int_equal(f.s.n_running, 1);
        assert_int_equal(f.s.running[0]->id, order[i]);
        take_out(&f, f.s.running[0]);
    }
    assert_int_equal(scheduler_plan(&f.s), 0);
    release(&f);
}

static void test_scheduler_waits_for_pages(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 8, 4, 1000);
    struct sequence *a = add(&f, 0, 80, 0); /* 5 pages */
    struct sequence *b = add(&f, 1, 32, 0); /* 2, one more to go on, one for a: 4 */
    assert_int_equal(scheduler_plan(&f.s), 80);
    assert_int_equal(f.s.n_waiting, 1);
    assert_int_equal(b->state, SEQUENCE_WAITING);
    assert_int_equal(b->n_pages, 0);
    take_out(&f, a);
    assert_int_equal(scheduler_plan(&f.s), 32);
    assert_int_equal(b->state, SEQUENCE_RUNNING);
    release(&f);
}

static void test_scheduler_preempts_the_last_in_order(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 6, 3, 1000);
    struct sequence *low = add(&f, 0, 16, -3);
    assert_int_equal(scheduler_plan(&f.s), 16);
    compute(&f);
    struct sequence *early = add(&f, 1, 16, 0), *late = add(&f, 2, 16, 0);
    /* low grows to 2 pages; early takes 1 of the 4 left, and late finds 3: enough for neither more
     * nor less than its 2 and the 2 that run. */
    assert_int_equal(scheduler_plan(&f.s), 17);
    compute(&f);
    assert_int_equal(late->state, SEQUENCE_WAITING);
    for (int i = 0; i < 40 && low->state == SEQUENCE_RUNNING; i++) {
        scheduler_plan(&f.s);
        compute(&f);
    }
    assert_int_equal(low->state, SEQUENCE_WAITING);
    assert_int_equal(low->n_pages, 0);
    assert_int_equal(low->n_computed, 0);
    assert_true(low->n_tokens > 16);
    assert_int_equal(early->state, SEQUENCE_RUNNING);
    assert_true(f.s.n_preempted >= 1);
    release(&f);
}

static void test_scheduler_gives_a_lone_sequence_the_whole_pool(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, PAGES_OF_CONTEXT, 3, 1000);
    struct sequence *q = add(&f, 0, CONTEXT - 10, 0);
    for (int i = 0; i < 10; i++) {
        assert_true(scheduler_plan(&f.s) > 0);
        compute(&f);
    }
    assert_int_equal(q->n_tokens, CONTEXT);
    assert_int_equal(f.s.n_preempted, 0);
    release(&f);
}

/* Random arrivals, ends and cancellations over a pool that is too small: pages are never lost, the
 * bounds hold, the running ones stay in order, and in the end everything is done. */
static void test_scheduler_gets_everything_done(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct fixture f;
        struct rng rng;
        rng_init(&rng, seed);
        uint32_t running_max = 1 + (uint32_t)rng_below(&rng, 6);
        uint32_t step_max = 1 + (uint32_t)rng_below(&rng, 40), next = 0;
        init(&f, PAGES_OF_CONTEXT + (uint32_t)rng_below(&rng, 8), running_max, step_max);
        for (int step = 0; step < 20000; step++) {
            if (next < 40 && rng_below(&rng, 4) == 0) {
                add(&f, next, 1 + (uint32_t)rng_below(&rng, CONTEXT - 2),
                    (int32_t)rng_below(&rng, 3));
                next++;
            }
            uint32_t rows = scheduler_plan(&f.s), sum = 0, pages = 0;
            for (uint32_t i = 0; i < f.s.n_running; i++) {
                struct sequence *q = f.s.running[i];
                sum += q->step_rows;
                pages += q->n_pages;
                assert_true(sequence_pages(q->n_computed + q->step_rows) <= q->n_pages);
                if (i > 0)
                    assert_true(f.s.running[i - 1]->priority >= q->priority);
            }
            assert_int_equal(sum, rows);
            assert_true(rows <= step_max && f.s.n_running <= running_max);
            assert_int_equal(pages, f.pool.n_pages - f.pool.n_free);
            assert_int_equal(rows == 0, f.s.n_running + f.s.n_waiting == 0);
            compute(&f);
            for (size_t i = 0; i < 64; i++)
                if (f.all[i] && (f.all[i]->n_tokens == CONTEXT || rng_below(&rng, 300) == 0))
                    take_out(&f, f.all[i]);
            if (next == 40 && f.s.n_running + f.s.n_waiting == 0)
                break;
        }
        assert_int_equal(f.s.n_running + f.s.n_waiting, 0);
        release(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scheduler_cuts_prefill_into_chunks),
        cmocka_unit_test(test_scheduler_decodes_before_it_prefills),
        cmocka_unit_test(test_scheduler_admits_by_priority_then_arrival),
        cmocka_unit_test(test_scheduler_waits_for_pages),
        cmocka_unit_test(test_scheduler_preempts_the_last_in_order),
        cmocka_unit_test(test_scheduler_gives_a_lone_sequence_the_whole_pool),
        cmocka_unit_test(test_scheduler_gets_everything_done),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
