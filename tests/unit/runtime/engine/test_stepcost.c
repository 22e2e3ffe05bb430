/* The machine under test is a formula that the filter does not know, with noise and interruptions.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "runtime/base/rng.h"
#include "runtime/engine/stepcost.h"

/* Milliseconds: reading the weights or computing with them, whichever is more; few rows are dearer;
 * attention. */
static double machine(const struct stepcost_work *w, double speed)
{
    double rows = w->rows, matrices = rows * (rows < 16 ? 0.6 : 0.42);
    return speed * (0.3 + fmax(3.5, matrices) + 0.1 * w->picks + 2e-4 * (double)w->seen +
                    1.4e-4 * (double)w->read);
}

static double noisy(struct rng *rng, double ms)
{
    double sum = 0;
    for (int i = 0; i < 12; i++)
        sum += rng_unit(rng);
    return ms / 1e3 * exp(0.1 * (sum - 6)) * (rng_below(rng, 50) == 0 ? 3 : 1);
}

static struct stepcost_work decoding(uint32_t streams, uint32_t pos)
{
    struct stepcost_work w = {0};
    for (uint32_t i = 0; i < streams; i++)
        stepcost_add(&w, pos, 1, 1);
    return w;
}

static void test_stepcost_counts_the_work(void **state)
{
    (void)state;
    struct stepcost_work w = {0};
    stepcost_add(&w, 10, 1, 1); /* sees 0 to 10 */
    assert_int_equal(w.seen, 11);
    assert_int_equal(w.read, 11);
    stepcost_add(&w, 4, 3, 0); /* 5, 6 and 7 */
    assert_int_equal(w.rows, 4);
    assert_int_equal(w.picks, 1);
    assert_int_equal(w.seen, 11 + 18);
    assert_int_equal(w.read, 11 + 7);
}

static void test_stepcost_rows_are_the_most_that_fit(void **state)
{
    (void)state;
    struct stepcost c;
    stepcost_init(&c);
    struct stepcost_work w = decoding(2, 100);
    for (uint32_t pos = 0; pos < 8000; pos += 500)
        for (uint32_t rest = 1; rest < 400; rest += 57)
            for (double times = 1; times < 6; times += 0.35) {
                double limit = times * stepcost_predict(&c, &w);
                uint32_t rows = stepcost_rows(&c, &w, pos, rest, 256, limit), most = 0;
                for (uint32_t n = 1; n <= 256 && n <= rest; n++) {
                    struct stepcost_work with = w;
                    stepcost_add(&with, pos, n, n == rest);
                    most = stepcost_predict(&c, &with) <= limit ? n : most;
                }
                assert_int_equal(rows, most);
            }
    assert_int_equal(stepcost_rows(&c, &w, 7, 1000, 256, INFINITY), 256);
}

/* A prompt of 8,000 tokens beside streams, on a machine that turns slower and faster on the way:
 * the true times of the steps it shares, against those of the streams alone. */
static void test_stepcost_holds_the_limit_on_a_machine_it_learns(void **state)
{
    (void)state;
    for (uint32_t streams = 1; streams <= 16; streams *= 4) {
        struct stepcost c;
        struct rng rng;
        uint32_t pos = 0, step = 0, n_over = 0, n_warm = 0;
        double with = 0, alone = 0, speed = 1;
        rng_init(&rng, streams);
        stepcost_init(&c);
        for (uint32_t i = 0; i < 50; i++) {
            struct stepcost_work w = decoding(streams, 16 + i);
            stepcost_learn(&c, &w, noisy(&rng, machine(&w, speed)));
        }
        for (; pos < 8000 && step < 8000; step++) {
            speed = step == 300 ? 2 : step == 600 ? 0.8 : speed;
            struct stepcost_work w = decoding(streams, 66 + step);
            double base = machine(&w, speed), limit = 1.7 * stepcost_predict(&c, &w);
            uint32_t n = step % 32 == 0 ? 0 : stepcost_rows(&c, &w, pos, 8000 - pos, 256, limit);
            n = n == 0 && step % 32 ? 1 : n;
            stepcost_add(&w, pos, n, pos + n == 8000);
            double ms = machine(&w, speed);
            n_warm += n > 0 && step > 50;
            n_over += n > 0 && step > 50 && ms > 2.2 * base;
            with += ms;
            alone += base;
            pos += n;
            stepcost_learn(&c, &w, noisy(&rng, ms));
        }
        assert_int_equal(pos, 8000);
        assert_true(n_over * 100 <= n_warm);
        assert_true(with > 1.4 * alone && with < 1.9 * alone); /* and what it may have, it uses */
    }
}

static void test_stepcost_survives_measurements_that_mean_nothing(void **state)
{
    (void)state;
    const double odd[] = {0, -1, NAN, INFINITY, 1e300, 1e-300, 1e6, 1e-9};
    struct stepcost c;
    struct rng rng;
    rng_init(&rng, 3);
    stepcost_init(&c);
    for (int i = 0; i < 20000; i++) {
        if (i % 100 == 0)
            stepcost_init(&c);
        struct stepcost_work w =
            decoding((uint32_t)rng_below(&rng, 9), (uint32_t)rng_below(&rng, 99));
        stepcost_add(&w, (uint32_t)rng_below(&rng, 1u << 20), (uint32_t)rng_below(&rng, 4000), 1);
        stepcost_learn(&c, &w, rng_below(&rng, 3) ? rng_unit(&rng) : odd[rng_below(&rng, 8)]);
        for (int k = 0; k < STEPCOST_PRICES; k++)
            assert_true(isfinite(c.price[k]) && c.price[k] > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stepcost_counts_the_work),
        cmocka_unit_test(test_stepcost_rows_are_the_most_that_fit),
        cmocka_unit_test(test_stepcost_holds_the_limit_on_a_machine_it_learns),
        cmocka_unit_test(test_stepcost_survives_measurements_that_mean_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
