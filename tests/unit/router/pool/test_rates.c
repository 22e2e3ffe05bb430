/* The heap of what is due, and rates learnt from steps of a worker whose true speed is known. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "router/pool/dueheap.h"
#include "router/pool/rates.h"
#include "runtime/base/rng.h"

static void assert_near(double got, double want, double share)
{
    if (!(fabs(got - want) <= fabs(want) * share))
        fail_msg("%g is not near %g", got, want);
}

/* Steps of 5 ms + 1 ms a sequence; a prompt token takes 0.5 ms. */
static uint32_t step_us(uint32_t prefill, uint32_t batch)
{
    return 500 * prefill + (batch ? 5000 + 1000 * batch : 0);
}

static void test_rates_of_a_steady_worker(void **state)
{
    (void)state;
    struct rates r = {0};
    struct policy_rates out = {0};
    struct rng rng;
    rng_init(&rng, 1);
    for (int i = 0; i < 500; i++) {
        uint32_t batch = 1 + (uint32_t)rng_below(&rng, 16);
        rates_add_step(&r, step_us(0, batch), 0, batch, &out);
    }
    assert_near(out.step_base_s, 0.005, 0.01);
    assert_near(out.step_seq_s, 0.001, 0.01);
    for (int i = 0; i < 50; i++)
        rates_add_step(&r, step_us(256, 0), 256, 0, &out);
    assert_near(out.prefill_tokens_per_s, 2000, 0.01);
    /* Mixed steps say the same, once the decode part is known. */
    for (int i = 0; i < 500; i++)
        rates_add_step(&r, step_us(128, 8), 128, 8, &out);
    assert_near(out.prefill_tokens_per_s, 2000, 0.02);
}

static void test_rates_follow_a_change(void **state)
{
    (void)state;
    struct rates r = {0};
    struct policy_rates out = {0};
    for (int i = 0; i < 500; i++)
        rates_add_step(&r, 10000, 0, 1, &out);
    assert_near(out.decode_tokens_per_s, 100, 0.001);
    for (int i = 0; i < 300; i++)
        rates_add_step(&r, 100000, 0, 1, &out);
    assert_near(out.decode_tokens_per_s, 10, 0.05);
}

static void test_rates_ignore_nonsense(void **state)
{
    (void)state;
    struct rates r = {0};
    struct policy_rates out = {0};
    rates_add_step(&r, 0, 100, 100, &out);
    rates_add_step(&r, 1000, 0, 0, &out);
    rates_add_step(&r, 1000, 10, 4, &out); /* decode is not known: nothing to subtract */
    assert_true(out.prefill_tokens_per_s == 0 && out.decode_tokens_per_s == 0);
    rates_add_step(&r, UINT32_MAX, UINT32_MAX, 0, &out);
    rates_add_step(&r, 1, 0, UINT32_MAX, &out);
    rates_add_step(&r, UINT32_MAX, 0, 1, &out);
    rates_add_step(&r, 1, UINT32_MAX, UINT32_MAX, &out);
    assert_true(isfinite(out.prefill_tokens_per_s) && isfinite(out.decode_tokens_per_s));
    assert_true(isfinite(out.step_base_s) && isfinite(out.step_seq_s));
    assert_true(out.step_base_s >= 0 && out.step_seq_s >= 0);
}

static void test_dueheap_gives_the_earliest(void **state)
{
    (void)state;
    enum { N = 200 };
    struct dueheap h;
    struct due nodes[N];
    struct rng rng;
    memset(nodes, 0, sizeof(nodes));
    rng_init(&rng, 3);
    assert_int_equal(dueheap_init(&h, N, NULL), 0);
    assert_null(dueheap_top(&h));
    for (int round = 0; round < 20000; round++) {
        struct due *d = &nodes[rng_below(&rng, N)];
        uint64_t least = UINT64_MAX;
        uint32_t n = 0;
        if (rng_below(&rng, 3) == 0)
            dueheap_remove(&h, d);
        else
            dueheap_set(&h, d, rng_below(&rng, 1000));
        for (int i = 0; i < N; i++) {
            n += nodes[i].place > 0;
            if (nodes[i].place > 0 && nodes[i].at_ms < least)
                least = nodes[i].at_ms;
        }
        assert_int_equal(h.n, n);
        assert_true(n == 0 ? !dueheap_top(&h) : dueheap_top(&h)->at_ms == least);
    }
    dueheap_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates_of_a_steady_worker),
        cmocka_unit_test(test_rates_follow_a_change),
        cmocka_unit_test(test_rates_ignore_nonsense),
        cmocka_unit_test(test_dueheap_gives_the_earliest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
