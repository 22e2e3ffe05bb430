#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "router/keys/pot.h"
#include "runtime/base/rng.h"

static struct pot pot(enum pot_kind kind, uint64_t limit)
{
    struct pot p;
    pot_init(&p, kind, 0);
    assert_true(pot_set_limit(&p, limit));
    pot_turn(&p, 100, 0);
    return p;
}

static void test_pot_alone_counts_to_its_limit(void **state)
{
    (void)state;
    struct pot p = pot(POT_REQUESTS, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pot_may(&p, 1, POT_ALONE, false), POT_YES);
        pot_take(&p, 1);
    }
    assert_int_equal(pot_may(&p, 1, POT_ALONE, false), POT_NO);
    assert_int_equal(pot_left(&p, POT_ALONE), 0);
    pot_turn(&p, 101, 0);
    assert_int_equal(pot_left(&p, POT_ALONE), 2);
    assert_int_equal(pot_may(&p, 3, POT_ALONE, false), POT_NO);
}

static void test_pot_without_limit_counts_nothing(void **state)
{
    (void)state;
    struct pot p;
    pot_init(&p, POT_BUDGET, 0);
    assert_int_equal(pot_may(&p, UINT64_MAX, POT_AWAY, false), POT_YES);
    pot_take(&p, 5);
    assert_int_equal(p.used, 0);
}

static void test_pot_gives_back_to_its_own_minute_only(void **state)
{
    (void)state;
    struct pot p = pot(POT_TOKENS, 100);
    pot_take(&p, 60);
    pot_give_back(&p, 50, 100);
    assert_int_equal(p.used, 10);
    pot_turn(&p, 101, 0);
    pot_take(&p, 20);
    pot_give_back(&p, 15, 100);
    assert_int_equal(p.used, 20);
}

static void test_pot_shared_uses_what_was_granted(void **state)
{
    (void)state;
    struct pot p = pot(POT_BUDGET, 160);
    assert_int_equal(pot_may(&p, 5, POT_SHARED, false), POT_ASK);
    assert_int_equal(pot_claim(&p, 5, false, 1000), 10); /* a sixteenth is kept at hand */
    assert_true(pot_granted(&p, 10, 500));
    assert_int_equal(pot_may(&p, 10, POT_SHARED, false), POT_YES);
    pot_take(&p, 7);
    assert_int_equal(pot_may(&p, 4, POT_SHARED, false), POT_ASK);
    p.charged = 7;
    assert_int_equal(pot_may(&p, 4, POT_SHARED, true), POT_LATER);
    p.charged = 158;
    assert_int_equal(pot_may(&p, 4, POT_SHARED, true), POT_NO);
    /* The lease runs from when the claim was sent. */
    pot_turn(&p, 100, 1499);
    assert_int_equal(p.reserved, 3);
    pot_turn(&p, 100, 1500);
    assert_int_equal(p.reserved, 0);
}

static void test_pot_reckons_with_what_happens_under_a_claim(void **state)
{
    (void)state;
    struct pot p = pot(POT_BUDGET, 160);
    pot_claim(&p, 50, false, 0);
    pot_granted(&p, 50, 1000);
    pot_take(&p, 30);
    assert_int_equal(pot_claim(&p, 0, false, 0), 10); /* gives 10 of 20 back */
    assert_int_equal(p.reserved, 10);
    pot_take(&p, 4);
    pot_granted(&p, 10, 1000);
    assert_int_equal(p.reserved, 6);
    pot_claim(&p, 0, true, 0); /* idle */
    assert_int_equal(p.reserved, 0);
}

static void test_pot_away_has_a_share_of_what_comes_back(void **state)
{
    (void)state;
    struct pot p = pot(POT_REQUESTS, 9);
    p.routers = 2;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pot_may(&p, 1, POT_AWAY, false), POT_YES);
        pot_take(&p, 1);
    }
    assert_int_equal(pot_may(&p, 1, POT_AWAY, false), POT_NO);
    struct pot budget = pot(POT_BUDGET, 1000);
    assert_int_equal(pot_may(&budget, 1, POT_AWAY, false), POT_UNSURE);
}

static void test_pot_ignores_an_answer_about_another_minute(void **state)
{
    (void)state;
    struct pot p = pot(POT_TOKENS, 100);
    pot_claim(&p, 40, false, 0);
    pot_turn(&p, 101, 0);
    assert_false(pot_granted(&p, 40, 1000));
    assert_int_equal(p.reserved, 0);
}

/* Routers that take, give back and claim in any order, answers late, never have used or reserved
 * more than the limit together. The bank does what the script in ledger.c does. */
enum { ROUTERS = 4 };

struct bank {
    uint64_t used[ROUTERS], reserved[ROUTERS];
};

static uint64_t bank_claim(struct bank *b, int me, uint64_t limit, uint64_t used, uint64_t want)
{
    uint64_t others = 0;
    for (int i = 0; i < ROUTERS; i++)
        others += i == me ? 0 : b->used[i] + b->reserved[i];
    uint64_t free = limit > others + used ? limit - others - used : 0;
    b->used[me] = used;
    b->reserved[me] = want < free ? want : free;
    return b->reserved[me];
}

static void test_pot_is_never_overspent_by_routers_together(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct rng rng;
        struct bank bank = {0};
        struct pot pots[ROUTERS];
        uint64_t grants[ROUTERS], limit;
        bool flies[ROUTERS] = {0};
        rng_init(&rng, seed);
        limit = 1 + rng_below(&rng, 500);
        for (int i = 0; i < ROUTERS; i++)
            pots[i] = pot(POT_BUDGET, limit);
        for (int step = 0; step < 2000; step++) {
            int i = (int)rng_below(&rng, ROUTERS);
            struct pot *p = &pots[i];
            uint64_t n = 1 + rng_below(&rng, 20), sum = 0;
            switch (rng_below(&rng, 4)) {
            case 0:
                if (pot_may(p, n, POT_SHARED, false) == POT_YES)
                    pot_take(p, n);
                break;
            case 1:
                pot_give_back(p, rng_below(&rng, p->used + 1), 0);
                break;
            case 2:
                if (!flies[i]) {
                    uint64_t want =
                        pot_claim(p, rng_below(&rng, 2) * n, rng_below(&rng, 4) == 0, 0);
                    grants[i] = bank_claim(&bank, i, limit, p->sent_used, want);
                    flies[i] = true;
                }
                break;
            default:
                if (flies[i])
                    pot_granted(p, grants[i], UINT64_MAX);
                flies[i] = false;
            }
            for (int j = 0; j < ROUTERS; j++)
                sum += pots[j].used + pots[j].reserved;
            if (sum > limit)
                fail_msg("seed %d: %d of %d", (int)seed, (int)sum, (int)limit);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pot_alone_counts_to_its_limit),
        cmocka_unit_test(test_pot_without_limit_counts_nothing),
        cmocka_unit_test(test_pot_gives_back_to_its_own_minute_only),
        cmocka_unit_test(test_pot_shared_uses_what_was_granted),
        cmocka_unit_test(test_pot_reckons_with_what_happens_under_a_claim),
        cmocka_unit_test(test_pot_away_has_a_share_of_what_comes_back),
        cmocka_unit_test(test_pot_ignores_an_answer_about_another_minute),
        cmocka_unit_test(test_pot_is_never_overspent_by_routers_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
