/* Policies as pure functions: the same snapshot, state and seed give the same choice. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router/policy/policy.h"

#define N_MAX 16

struct fixture {
    struct policy_worker workers[N_MAX];
    const struct policy_worker *list[N_MAX];
    struct policy_snapshot snapshot;
    struct policy_request request;
    struct rng rng;
    unsigned char state[POLICY_STATE_BYTES_MAX];
};

static void init(struct fixture *f, uint32_t n)
{
    memset(f, 0, sizeof(*f));
    rng_init(&f->rng, 42);
    for (uint32_t i = 0; i < n; i++) {
        f->workers[i] = (struct policy_worker){
            .key = 100 + i, .sequences_max = 8, .inflight_max = 16, .kv_pages = 100};
        f->list[i] = &f->workers[i];
    }
    f->snapshot = (struct policy_snapshot){.workers = f->list, .n = n};
    f->request = (struct policy_request){.prompt_tokens = 100, .output_tokens = 100};
}

static uint32_t pick(struct fixture *f, const char *name)
{
    const struct policy *p = policy_find(name);
    assert_non_null(p);
    uint32_t i = p->pick(f->state, &f->snapshot, &f->request, &f->rng);
    assert_true(i < f->snapshot.n);
    return i;
}

static void count_names(void *ctx, const struct policy *p)
{
    assert_ptr_equal(policy_find(p->name), p);
    assert_true(p->state_bytes <= POLICY_STATE_BYTES_MAX);
    assert_true(p->summary && p->summary[0]);
    ++*(int *)ctx;
}

static void test_policies_are_found_by_name(void **state)
{
    (void)state;
    int n = 0;
    policy_each(count_names, &n);
    assert_int_equal(n, 7);
    assert_null(policy_find("fastest"));
}

static void count_picks(void *ctx, const struct policy *p)
{
    (void)ctx;
    struct fixture f, g;
    init(&f, 7);
    init(&g, 7);
    for (int i = 0; i < 100; i++)
        assert_int_equal(pick(&f, p->name), pick(&g, p->name));
    init(&f, 1);
    assert_int_equal(pick(&f, p->name), 0);
}

static void test_same_seed_same_choices(void **state)
{
    (void)state;
    policy_each(count_picks, NULL);
}

static void test_round_robin_takes_turns(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 3);
    for (uint32_t i = 0; i < 9; i++)
        assert_int_equal(pick(&f, "round_robin"), i % 3);
    /* The order of the snapshot is no matter, and neither is a worker that is missing once. */
    const struct policy_worker *swapped[] = {&f.workers[2], &f.workers[0], &f.workers[1]};
    f.snapshot.workers = swapped;
    assert_int_equal(pick(&f, "round_robin"), 1);
    f.snapshot.n = 2;
    assert_int_equal(pick(&f, "round_robin"), 0);
    f.snapshot.n = 3;
    assert_int_equal(pick(&f, "round_robin"), 1);
    assert_int_equal(pick(&f, "round_robin"), 2);
}

static void test_random_takes_all_alike(void **state)
{
    (void)state;
    struct fixture f;
    int counts[4] = {0};
    init(&f, 4);
    for (int i = 0; i < 4000; i++)
        counts[pick(&f, "random")]++;
    for (int i = 0; i < 4; i++)
        assert_in_range(counts[i], 850, 1150); /* 1000 ± 5.5 sigma */
}

static void test_least_load_breaks_ties_by_lot(void **state)
{
    (void)state;
    struct fixture f;
    int counts[4] = {0};
    init(&f, 4);
    f.workers[2].inflight_output_tokens = 1;
    for (int i = 0; i < 3000; i++)
        counts[pick(&f, "least_load")]++;
    assert_int_equal(counts[2], 0);
    assert_in_range(counts[0], 850, 1150);
    assert_in_range(counts[1], 850, 1150);
    assert_in_range(counts[3], 850, 1150);
}

static void test_least_load_knows_speed(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 2);
    f.workers[0].rates =
        (struct policy_rates){.prefill_tokens_per_s = 100, .decode_tokens_per_s = 10};
    f.workers[1].rates =
        (struct policy_rates){.prefill_tokens_per_s = 10000, .decode_tokens_per_s = 1000};
    /* 2 s and 20 s idle against 0.02 s + 0.2 s: it may have 100 times as much. */
    f.workers[1].inflight_output_tokens = 10500;
    assert_int_equal(pick(&f, "least_load"), 1);
    f.workers[1].inflight_output_tokens = 11500;
    assert_int_equal(pick(&f, "least_load"), 0);
    /* Nobody has measured the first: it is taken to be like the other one. */
    f.workers[0].rates = (struct policy_rates){0};
    f.workers[1].inflight_output_tokens = 1;
    assert_int_equal(pick(&f, "least_load"), 0);
    f.workers[0].inflight_output_tokens = 2;
    assert_int_equal(pick(&f, "least_load"), 1);
}

static void test_least_load_counts_everything(void **state)
{
    (void)state;
    struct fixture f;
    struct policy_rates same = {.prefill_tokens_per_s = 1000, .decode_tokens_per_s = 100};
    uint32_t cached[2] = {0, 5};
    init(&f, 2);
    f.workers[0].rates = f.workers[1].rates = same;
    f.workers[0].inflight_prefill_tokens = 1;
    assert_int_equal(pick(&f, "least_load"), 1);
    f.workers[1].others_tokens = 1;
    assert_int_equal(pick(&f, "least_load"), 0);
    f.workers[0].kv_pages_used = 90;
    assert_int_equal(pick(&f, "least_load"), 1);
    f.workers[0].kv_pages_used = 100; /* full: bad, and a number still */
    f.workers[1].inflight_output_tokens = 10000;
    assert_int_equal(pick(&f, "least_load"), 0);
    init(&f, 2);
    f.workers[1].inflight_prefill_tokens = 70;
    f.snapshot.cached_blocks = cached;
    f.request.block_tokens = 16; /* 80 of the prompt's tokens are there */
    assert_int_equal(pick(&f, "least_load"), 1);
    f.workers[1].inflight_prefill_tokens = 90;
    assert_int_equal(pick(&f, "least_load"), 0);
}

/* (100 + 1) / 1000 + (100 + 1) / 100 + 0.15 * 0.5 / 0.5, by hand. */
static void test_load_is_the_formula(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 1);
    f.workers[0].rates =
        (struct policy_rates){.prefill_tokens_per_s = 1000, .decode_tokens_per_s = 100};
    f.workers[0].inflight_prefill_tokens = 1;
    f.workers[0].inflight_output_tokens = 1;
    f.workers[0].kv_pages_used = 50;
    struct policy_rates typical = policy_typical_rates(&f.snapshot);
    double load_s = policy_load_s(&f.snapshot, 0, &f.request, &typical);
    assert_true(load_s > 0.101 + 1.01 + 0.15 - 1e-12 && load_s < 0.101 + 1.01 + 0.15 + 1e-12);
}

static void test_power_of_two_avoids_the_loaded(void **state)
{
    (void)state;
    struct fixture f;
    int counts[8] = {0};
    init(&f, 8);
    f.workers[3].inflight_output_tokens = 100000;
    for (int i = 0; i < 2000; i++)
        counts[pick(&f, "power_of_two")]++;
    assert_int_equal(counts[3], 0); /* two that are drawn are never the same one */
    for (int i = 0; i < 8; i++)
        assert_true(i == 3 || counts[i] > 200);
}

static void test_gather_takes_who_may(void **state)
{
    (void)state;
    static const struct policy_label eu[] = {{"region", "eu"}, {"pool", "trusted"}};
    static const struct policy_label us[] = {{"region", "us"}};
    static const struct policy_label want[] = {{"region", "eu"}};
    const struct policy_worker *out[N_MAX];
    struct fixture f;
    init(&f, 4);
    assert_int_equal(policy_gather(f.list, 4, &f.request, out), 4);
    f.workers[0].state = POLICY_SUSPECT;
    f.workers[1].state = POLICY_DRAINING;
    f.workers[2].inflight = 16;
    assert_true(policy_admits(&f.workers[0], &f.request));
    assert_false(policy_admits(&f.workers[1], &f.request));
    assert_false(policy_admits(&f.workers[2], &f.request));
    assert_int_equal(policy_gather(f.list, 4, &f.request, out), 1);
    assert_ptr_equal(out[0], &f.workers[3]);
    f.workers[3].inflight = 16; /* suspects only when nobody is ready */
    assert_int_equal(policy_gather(f.list, 4, &f.request, out), 1);
    assert_ptr_equal(out[0], &f.workers[0]);
    init(&f, 3);
    f.workers[0].labels = eu;
    f.workers[0].n_labels = 2;
    f.workers[1].labels = us;
    f.workers[1].n_labels = 1;
    f.request.wants = want;
    f.request.n_wants = 1;
    assert_int_equal(policy_gather(f.list, 3, &f.request, out), 1);
    assert_ptr_equal(out[0], &f.workers[0]);
    f.workers[0].price = 2;
    f.request.price_max = 1;
    assert_int_equal(policy_gather(f.list, 3, &f.request, out), 0);
    f.request.price_max = 2;
    assert_int_equal(policy_gather(f.list, 3, &f.request, out), 1);
}

static void expect_mismatch(const struct fixture *f, const char *why)
{
    char text[256];
    for (uint32_t i = 0; i < f->snapshot.n; i++)
        assert_false(policy_matches(f->list[i], &f->request));
    policy_mismatch(f->list, f->snapshot.n, &f->request, text, sizeof(text));
    assert_string_equal(text, why);
}

static void test_a_mismatch_names_what_nobody_has(void **state)
{
    (void)state;
    static const struct policy_label eu[] = {{"region", "eu"}, {"device", "a label"}};
    static const struct policy_label us[] = {{"region", "us"}};
    struct policy_label want[] = {{"region", "eu"}, {"device", "cuda"}};
    struct fixture f;
    init(&f, 2);
    f.workers[0].labels = eu;
    f.workers[0].n_labels = 2;
    f.workers[0].device_kind = "cpu";
    f.workers[0].price = 3;
    f.workers[1].labels = us;
    f.workers[1].n_labels = 1;
    f.workers[1].device_kind = "cpu";
    f.workers[1].price = 1;
    f.request.wants = want;
    f.request.n_wants = 2;
    /* "device" is the kind of device, whatever a label of that name says. */
    expect_mismatch(&f, "no worker has device=cuda");
    want[1].value = "cpu";
    assert_true(policy_matches(&f.workers[0], &f.request));
    assert_false(policy_matches(&f.workers[1], &f.request));
    f.request.price_max = 2;
    expect_mismatch(&f, "no worker has all of what is wanted together");
    f.request.price_max = 0.5;
    expect_mismatch(&f, "no worker costs at most 0.5");
    want[0].value = "mars";
    expect_mismatch(&f, "no worker has region=mars");
    want[0].key = "planet";
    expect_mismatch(&f, "no worker has planet=mars");
}

/* Who has the model loaded goes first, until all of those are busy. */
static void test_gather_prefers_who_has_the_model(void **state)
{
    (void)state;
    const struct policy_worker *out[N_MAX];
    struct fixture f;
    init(&f, 3);
    for (int i = 0; i < 3; i++)
        f.workers[i].sequences_max = 4;
    f.workers[1].loaded = f.workers[2].loaded = true;
    assert_int_equal(policy_gather(f.list, 3, &f.request, out), 2);
    assert_ptr_equal(out[0], &f.workers[1]);
    assert_ptr_equal(out[1], &f.workers[2]);
    f.workers[1].inflight = 4;
    assert_int_equal(policy_gather(f.list, 3, &f.request, out), 2);
    f.workers[2].inflight = 4;
    assert_int_equal(policy_gather(f.list, 3, &f.request, out), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies_are_found_by_name),
        cmocka_unit_test(test_same_seed_same_choices),
        cmocka_unit_test(test_round_robin_takes_turns),
        cmocka_unit_test(test_random_takes_all_alike),
        cmocka_unit_test(test_least_load_breaks_ties_by_lot),
        cmocka_unit_test(test_least_load_knows_speed),
        cmocka_unit_test(test_least_load_counts_everything),
        cmocka_unit_test(test_load_is_the_formula),
        cmocka_unit_test(test_power_of_two_avoids_the_loaded),
        cmocka_unit_test(test_gather_takes_who_may),
        cmocka_unit_test(test_a_mismatch_names_what_nobody_has),
        cmocka_unit_test(test_gather_prefers_who_has_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
