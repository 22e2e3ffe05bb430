#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/engine/speculator.h"

enum { SEQUENCES = 64, CONTEXT = 512, TOKENS_MAX = 4 };

/* A drafter that always has as many guesses as wanted, and counts them. */
struct counting {
    struct drafter base;
    uint32_t n;
};

static bool guess(struct drafter *d, struct sequence *const *sequences, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ((struct counting *)d)->n += sequences[i]->n_drafts;
    return true;
}

struct fixture {
    struct counting drafter;
    struct speculator s;
    struct scheduler of; /* only what is looked at */
    struct sequence all[SEQUENCES], *running[SEQUENCES];
    struct verified verified[SEQUENCES];
};

/* Sequences that decode; a row costs row_share of the rest of a step. */
static void init(struct fixture *f, uint32_t n, double row_share, bool cheap)
{
    static uint32_t tokens[CONTEXT];
    struct err e;
    memset(f, 0, sizeof(*f));
    f->drafter.base = (struct drafter){.draft = guess, .cheap = cheap};
    const struct engine_config c = {
        .sequences_max = SEQUENCES, .draft_tokens_max = TOKENS_MAX, .drafter = &f->drafter.base};
    const struct drafter_host host = {0};
    assert_int_equal(speculator_init(&f->s, &c, &host, &e), 0);
    stepcost_init(&f->of.cost);
    for (uint32_t rows = 1; rows <= 400; rows++) {
        struct stepcost_work w = {.rows = rows % 40 + 1, .picks = rows % 40 + 1};
        stepcost_learn(&f->of.cost, &w, 0.01 * (1 + row_share * w.rows));
    }
    for (uint32_t i = 0; i < n; i++) {
        f->all[i] = (struct sequence){.tokens = tokens,
                                      .n_prompt = 10,
                                      .n_tokens = 20,
                                      .n_computed = 19,
                                      .tokens_max = CONTEXT};
        f->running[i] = &f->all[i];
    }
    f->of.running = f->running;
    f->of.n_running = n;
}

/* A step; of each sequence's guesses the first `right` are. Returns how many were made. */
static uint32_t step(struct fixture *f, uint32_t right)
{
    uint32_t made = 0;
    struct verifier v = {.of = f->verified, .n_of = f->of.n_running};
    speculator_draft(&f->s, &f->of);
    for (uint32_t i = 0; i < f->of.n_running; i++) {
        struct sequence *q = f->running[i];
        uint32_t n = q->n_drafts < right ? q->n_drafts : right;
        made += q->n_drafts;
        f->verified[i] =
            (struct verified){.sequence = q, .n_picks = 1 + q->n_drafts, .n_taken = 1 + n};
        q->n_drafts = n;
    }
    speculator_learn(&f->s, &v);
    return made;
}

static void test_speculator_guesses_as_many_as_it_may_while_they_are_right(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 2, 0.05, true);
    for (uint32_t i = 0; i < 50; i++)
        step(&f, TOKENS_MAX);
    assert_int_equal(step(&f, TOKENS_MAX), 2 * TOKENS_MAX);
    speculator_release(&f.s);
}

static void test_speculator_stops_when_guesses_are_wrong_and_tries_again(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 2, 0.3, true);
    assert_true(step(&f, 0) > 0);
    for (uint32_t i = 0; i < 100; i++)
        step(&f, 0);
    uint32_t made = 0, steps = 2000;
    for (uint32_t i = 0; i < steps; i++)
        made += step(&f, 0);
    assert_true(made > 0);
    assert_true(made < steps / 10); /* of 2 a step that would be */
    for (uint32_t i = 0; i < steps; i++)
        step(&f, TOKENS_MAX);
    assert_int_equal(step(&f, TOKENS_MAX), 2 * TOKENS_MAX);
    speculator_release(&f.s);
}

/* A third of the guesses being right pays while a step has few rows, and not where rows are its
 * cost.
 */
static void test_speculator_guesses_less_the_more_run(void **state)
{
    (void)state;
    uint32_t made[3];
    const uint32_t n[3] = {1, 3, 48};
    for (int k = 0; k < 3; k++) {
        struct fixture f;
        init(&f, n[k], 0.1, true);
        for (uint32_t i = 0; i < 100; i++)
            step(&f, i % 2);
        made[k] = 0;
        for (uint32_t i = 0; i < 100; i++)
            made[k] += step(&f, i % 2);
        made[k] = made[k] * 10 / n[k];
        speculator_release(&f.s);
    }
    print_message("guesses of one in 1,000 steps: %u, %u, %u\n", made[0], made[1], made[2]);
    assert_true(made[0] > made[1] && made[1] > made[2]);
}

static void test_speculator_prefers_those_whose_guesses_were_right(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 2, 0.1, true);
    for (uint32_t i = 0; i < 60; i++) {
        f.all[0].drafted = (struct draft_record){.tried = 30, .right = 29};
        f.all[1].drafted = (struct draft_record){.tried = 30, .right = 0};
        speculator_draft(&f.s, &f.of);
        assert_int_equal(f.all[0].n_drafts, TOKENS_MAX);
        assert_int_equal(f.all[1].n_drafts, 0);
    }
    speculator_release(&f.s);
}

/* What costs time to guess is asked for only as far as it is kept. */
static void test_speculator_asks_a_dear_drafter_for_what_it_keeps(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 3, 0.1, false);
    uint32_t made = 0;
    for (uint32_t i = 0; i < 40; i++)
        made += step(&f, i % 3);
    assert_int_equal(f.drafter.n, made);
    assert_true(made > 0);
    speculator_release(&f.s);
}

static void test_speculator_guesses_nothing_beside_a_prompt_or_past_the_end(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 2, 0.05, true);
    f.all[1].n_computed = 3;
    assert_int_equal(step(&f, 1), 0);
    f.all[1].n_computed = 19;
    f.all[0].tokens_max = 21; /* one more token: nothing comes behind it */
    f.all[1].tokens_max = 23;
    for (uint32_t i = 0; i < 10; i++)
        step(&f, 2);
    step(&f, 2);
    assert_int_equal(f.all[0].n_drafts, 0);
    assert_int_equal(f.all[1].n_drafts, 2);
    speculator_release(&f.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_speculator_guesses_as_many_as_it_may_while_they_are_right),
        cmocka_unit_test(test_speculator_stops_when_guesses_are_wrong_and_tries_again),
        cmocka_unit_test(test_speculator_guesses_less_the_more_run),
        cmocka_unit_test(test_speculator_prefers_those_whose_guesses_were_right),
        cmocka_unit_test(test_speculator_asks_a_dear_drafter_for_what_it_keeps),
        cmocka_unit_test(test_speculator_guesses_nothing_beside_a_prompt_or_past_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
