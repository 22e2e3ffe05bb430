#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/rng.h"

/* The first outputs of splitmix64 for seed 1234567, as published with the algorithm. */
static void test_rng_is_splitmix64(void **state)
{
    (void)state;
    static const uint64_t want[] = {6457827717110365317u, 3203168211198807973u,
                                    9817491932198370423u, 4593380528125082431u,
                                    16408922859458223821u};
    struct rng r;
    rng_init(&r, 1234567);
    for (int i = 0; i < 5; i++)
        assert_true(rng_u64(&r) == want[i]);
}

static void test_rng_below_fills_its_range_evenly(void **state)
{
    (void)state;
    struct rng r;
    int seen[10] = {0};
    rng_init(&r, 3);
    for (int i = 0; i < 100000; i++) {
        uint64_t v = rng_below(&r, 10);
        assert_true(v < 10);
        seen[v]++;
    }
    for (int i = 0; i < 10; i++) /* 10,000 each; 6 standard deviations are 570 */
        assert_in_range(seen[i], 9430, 10570);
    assert_int_equal(rng_below(&r, 1), 0);
}

static void test_rng_unit_is_below_one(void **state)
{
    (void)state;
    struct rng r;
    double sum = 0;
    rng_init(&r, 4);
    for (int i = 0; i < 100000; i++) {
        double v = rng_unit(&r);
        assert_true(v >= 0 && v < 1);
        sum += v;
    }
    assert_true(sum > 49400 && sum < 50600);
}

static void test_rng_entropy_differs(void **state)
{
    (void)state;
    unsigned char a[32], b[32];
    rng_entropy(a, sizeof(a));
    rng_entropy(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rng_is_splitmix64),
        cmocka_unit_test(test_rng_below_fills_its_range_evenly),
        cmocka_unit_test(test_rng_unit_is_below_one),
        cmocka_unit_test(test_rng_entropy_differs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
