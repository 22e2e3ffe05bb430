/* The policies that look at prompts: predicted, prefix_hash, session. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router/policy/policy.h"

#define N_MAX 32

struct fixture {
    struct policy_worker workers[N_MAX];
    const struct policy_worker *list[N_MAX];
    uint32_t cached[N_MAX];
    uint64_t hashes[64];
    struct policy_snapshot snapshot;
    struct policy_request request;
    struct rng rng;
};

/* A GPU's rates; the others are so many times slower. */
static struct policy_rates rates_of(double slower)
{
    return (struct policy_rates){.prefill_tokens_per_s = 20000 / slower,
                                 .mixed_tokens_per_s = 10000 / slower,
                                 .decode_tokens_per_s = 1000 / slower,
                                 .step_base_s = 0.01 * slower,
                                 .step_seq_s = 0.0002 * slower};
}

static void init(struct fixture *f, uint32_t n)
{
    memset(f, 0, sizeof(*f));
    rng_init(&f->rng, 42);
    for (uint32_t i = 0; i < n; i++) {
        f->workers[i] = (struct policy_worker){.key = 1000003 * (i + 1),
                                               .sequences_max = 64,
                                               .inflight_max = 128,
                                               .kv_pages = 100000,
                                               .page_tokens = 16,
                                               .rates = rates_of(1)};
        f->list[i] = &f->workers[i];
    }
    for (uint64_t i = 0; i < 64; i++)
        f->hashes[i] = 77 + i;
    f->snapshot = (struct policy_snapshot){.workers = f->list, .cached_blocks = f->cached, .n = n};
    f->request = (struct policy_request){.prompt_tokens = 1024,
                                         .output_tokens = 100,
                                         .block_hashes = f->hashes,
                                         .n_blocks = 63,
                                         .block_tokens = 16};
}

static uint32_t pick(struct fixture *f, const char *name)
{
    const struct policy *p = policy_find(name);
    assert_non_null(p);
    uint32_t i = p->pick(NULL, &f->snapshot, &f->request, &f->rng);
    assert_true(i < f->snapshot.n);
    return i;
}

/* ---- predicted ------------------------------------------------------------------------------ */

static void test_predicted_takes_who_has_the_prompt(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 8);
    f.cached[5] = 40;
    f.cached[6] = 20;
    assert_int_equal(pick(&f, "predicted"), 5);
    /* 640 tokens are 0.032 s there: with so much of others' prompts before it, it is no gain. */
    f.workers[5].inflight = f.workers[5].inflight_prefills = 1;
    f.workers[5].inflight_prefill_tokens = 600;
    assert_int_equal(pick(&f, "predicted"), 6);
    /* Most of that is computed already. */
    f.workers[5].prefill_done_tokens = 500;
    assert_int_equal(pick(&f, "predicted"), 5);
}

static void test_predicted_gives_each_what_it_can_carry(void **state)
{
    (void)state;
    static const double slower[] = {1, 3, 200};
    struct fixture f;
    uint32_t counts[3] = {0};
    init(&f, 3);
    for (int i = 0; i < 3; i++)
        f.workers[i].rates = rates_of(slower[i]);
    /* A burst: nothing ends meanwhile. */
    for (int i = 0; i < 120; i++) {
        uint32_t chosen = pick(&f, "predicted");
        counts[chosen]++;
        f.workers[chosen].inflight++;
        f.workers[chosen].inflight_prefills++;
        f.workers[chosen].inflight_prefill_tokens += f.request.prompt_tokens;
    }
    assert_in_range(counts[0], 75, 105);
    assert_in_range(counts[1], 15, 45);
    assert_int_equal(counts[2], 0); /* 10 s for one prompt: more than the others take for all */
}

static void test_predicted_spares_the_streams_there(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 2);
    f.workers[0].inflight = 20; /* they decode */
    assert_int_equal(pick(&f, "predicted"), 1);
    /* The same, as another router's. */
    init(&f, 2);
    f.workers[0].others = 20;
    assert_int_equal(pick(&f, "predicted"), 1);
    init(&f, 2);
    f.workers[1].others = 2;
    f.workers[1].others_tokens = 5000; /* more than two outputs */
    f.workers[0].others = 2;
    assert_int_equal(pick(&f, "predicted"), 0);
}

static void test_predicted_minds_places_and_pages(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 2);
    f.cached[0] = 10;
    assert_int_equal(pick(&f, "predicted"), 0);
    f.workers[0].inflight = 80; /* 16 of them wait for one of 64 places */
    f.workers[1].inflight = 63;
    assert_int_equal(pick(&f, "predicted"), 1);
    init(&f, 2);
    f.cached[0] = 30;
    f.workers[0].kv_pages_used = 99990;
    assert_int_equal(pick(&f, "predicted"), 1);
}

static void test_predicted_draws_lots_among_equals(void **state)
{
    (void)state;
    struct fixture f;
    int counts[4] = {0};
    init(&f, 4);
    f.workers[2].inflight = 30;
    for (int i = 0; i < 4; i++)
        f.workers[i].rates.step_base_s *= 1 + 0.0001 * i; /* noise of measuring */
    for (int i = 0; i < 3000; i++)
        counts[pick(&f, "predicted")]++;
    assert_int_equal(counts[2], 0);
    assert_in_range(counts[0], 850, 1150);
    assert_in_range(counts[1], 850, 1150);
    assert_in_range(counts[3], 850, 1150);
    /* Nobody knows anything. */
    init(&f, 4);
    memset(counts, 0, sizeof(counts));
    for (int i = 0; i < 4; i++)
        f.workers[i].rates = (struct policy_rates){0};
    f.snapshot.cached_blocks = NULL;
    for (int i = 0; i < 4000; i++)
        counts[pick(&f, "predicted")]++;
    for (int i = 0; i < 4; i++)
        assert_in_range(counts[i], 850, 1150);
}

/* One worker idle, with the times worked out by hand:
 * 1.5 * 1024 / 20000 + 0.0102 + 0.1 * 100 * 0.0102 = 0.1890 s against what the other has before it.
 */
static void test_predicted_is_the_formula(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 2);
    f.request.output_tokens = 100;
    f.workers[1].rates.prefill_tokens_per_s *= 2; /* 0.1455 s */
    f.workers[1].rates.mixed_tokens_per_s *= 4;
    f.workers[1].inflight_prefills = f.workers[1].inflight = 1;
    f.workers[1].inflight_prefill_tokens = 1250; /* + 0.0313: 0.1768 */
    assert_int_equal(pick(&f, "predicted"), 1);
    f.workers[1].inflight_prefill_tokens = 1450; /* + 0.0363: 0.1818 */
    assert_int_equal(pick(&f, "predicted"), 0);
}

/* ---- the counts ------------------------------------------------------------------------------ */

static void test_a_step_is_shared_out_over_the_routers(void **state)
{
    (void)state;
    struct policy_worker w = {.inflight = 3, .inflight_prefill_tokens = 1000};
    policy_note_load(&w, 4, 1);
    assert_int_equal(w.others, 2);
    w.inflight = 5; /* two more since: the others are two still */
    w.others_tokens = 2 * POLICY_OUTPUT_TOKENS_GUESS + 3000;
    policy_note_prefill(&w, 400);
    assert_int_equal(w.prefill_done_tokens, 100);
    w.others_tokens = 0;
    policy_note_prefill(&w, 400);
    assert_int_equal(w.prefill_done_tokens, 500);
    policy_note_prefill(&w, 4000000000u); /* no more than there is */
    assert_int_equal(w.prefill_done_tokens, 1000);
    policy_note_load(&w, UINT32_MAX, 7);
    assert_int_equal(w.others, UINT32_MAX - 5);
}

/* ---- prefix_hash, session -------------------------------------------------------------------- */

static void test_prefix_hash_keeps_beginnings_together(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t counts[16] = {0};
    init(&f, 16);
    uint32_t home = pick(&f, "prefix_hash");
    f.hashes[40] = 1; /* beyond the first 256 tokens */
    f.request.n_blocks = 50;
    assert_int_equal(pick(&f, "prefix_hash"), home);
    for (uint64_t key = 0; key < 1600; key++) {
        f.hashes[15] = key * 7919;
        counts[pick(&f, "prefix_hash")]++;
    }
    for (int i = 0; i < 16; i++)
        assert_in_range(counts[i], 55, 150); /* 100 ± 5 sigma */
    f.request.n_blocks = 0;                  /* too short: anywhere */
    memset(counts, 0, sizeof(counts));
    for (int i = 0; i < 1600; i++)
        counts[pick(&f, "prefix_hash")]++;
    for (int i = 0; i < 16; i++)
        assert_in_range(counts[i], 55, 150);
}

static void test_a_worker_that_goes_moves_only_its_own(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t before[200];
    init(&f, 16);
    for (uint64_t key = 0; key < 200; key++) {
        f.request.session_hash = key + 1;
        before[key] = pick(&f, "session");
    }
    f.list[7] = f.list[15];
    f.snapshot.n = 15;
    for (uint64_t key = 0; key < 200; key++) {
        f.request.session_hash = key + 1;
        const struct policy_worker *now = f.list[pick(&f, "session")];
        if (before[key] != 7)
            assert_ptr_equal(now, &f.workers[before[key]]);
    }
}

static void test_nobody_gets_much_more_than_its_share(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 4);
    f.workers[3].rates = rates_of(10);
    f.request.session_hash = 99; /* all of one session */
    for (int i = 0; i < 310; i++)
        f.workers[pick(&f, "session")].inflight++;
    for (int i = 0; i < 3; i++) /* 100 each by speed */
        assert_in_range(f.workers[i].inflight, 1, 126);
    assert_in_range(f.workers[3].inflight, 0, 13);
}

static void test_without_a_session_it_is_predicted(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 4);
    f.cached[2] = 63;
    for (int i = 0; i < 10; i++)
        assert_int_equal(pick(&f, "session"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_predicted_takes_who_has_the_prompt),
        cmocka_unit_test(test_predicted_gives_each_what_it_can_carry),
        cmocka_unit_test(test_predicted_spares_the_streams_there),
        cmocka_unit_test(test_predicted_minds_places_and_pages),
        cmocka_unit_test(test_predicted_draws_lots_among_equals),
        cmocka_unit_test(test_predicted_is_the_formula),
        cmocka_unit_test(test_a_step_is_shared_out_over_the_routers),
        cmocka_unit_test(test_prefix_hash_keeps_beginnings_together),
        cmocka_unit_test(test_a_worker_that_goes_moves_only_its_own),
        cmocka_unit_test(test_nobody_gets_much_more_than_its_share),
        cmocka_unit_test(test_without_a_session_it_is_predicted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
