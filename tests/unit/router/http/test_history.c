/* Percentiles and the ring behind the explorer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/http/history.h"
#include "router/pool/pool.h"

static struct pool_worker_view views[400];
static uint32_t n_views;

void pool_each_worker(const struct pool *p, void (*fn)(void *ctx, const struct pool_worker_view *w),
                      void *ctx)
{
    (void)p;
    for (uint32_t i = 0; i < n_views; i++)
        fn(ctx, &views[i]);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Against the sorted values themselves. */
static void test_percentiles_are_right_to_a_bin(void **state)
{
    (void)state;
    static double values[5000];
    struct sketch s = {{0}, 0};
    srand(7);
    for (int i = 0; i < 5000; i++) {
        double u = (double)rand() / RAND_MAX;
        values[i] = 0.0005 + 4 * u * u * u;
        sketch_add(&s, values[i], 1);
    }
    qsort(values, 5000, sizeof(*values), compare);
    static const double shares[] = {0.01, 0.5, 0.95, 0.99, 1.0};
    for (int i = 0; i < 5; i++) {
        double true_one = values[(int)(shares[i] * 5000) - 1];
        double found = sketch_percentile(&s, shares[i]);
        if (found < true_one / 1.06 || found > true_one * 1.06)
            fail_msg("%g: %g, not %g", shares[i], found, true_one);
    }
}

static void test_percentiles_of_nothing_and_of_extremes(void **state)
{
    (void)state;
    struct sketch s = {{0}, 0};
    assert_true(sketch_percentile(&s, 0.5) == 0);
    sketch_add(&s, 0, 1);
    sketch_add(&s, 1e9, 1);
    assert_true(sketch_percentile(&s, 0.5) < 2e-4);
    assert_true(sketch_percentile(&s, 1) > 300);
    struct sketch sum = s;
    sketch_merge(&sum, &s);
    assert_int_equal(sum.total, 4);
}

static void test_a_sample_has_what_its_second_had(void **state)
{
    (void)state;
    struct history *h = calloc(1, sizeof(*h));
    n_views = 1;
    views[0] = (struct pool_worker_view){.id = "w", .kv_pages = 10, .kv_pages_used = 4};
    history_tokens(h, 30);
    history_request(h, true, 11);
    history_request(h, false, 5);
    history_first(h, 0.2);
    history_each(h, 0.01, 29);
    history_tick(h, NULL, 3, 2, 1000);
    const struct history_sample *s = history_at(h, 0);
    assert_int_equal(h->n, 1);
    assert_int_equal(s->wall_s, 1000);
    assert_int_equal(s->tokens, 30);
    assert_int_equal(s->requests, 2);
    assert_int_equal(s->failed, 1);
    assert_int_equal(s->prompt_tokens, 16);
    assert_int_equal(s->running, 3);
    assert_int_equal(s->waiting, 2);
    assert_int_equal(s->workers, 1);
    assert_true(s->kv > 0.39f && s->kv < 0.41f);
    assert_true(s->first_s[0] > 0.19f && s->first_s[0] < 0.21f);
    assert_true(s->each_s[2] > 0.0095f && s->each_s[2] < 0.0105f);
    /* The next second starts empty; times stay for the window. */
    for (int i = 1; i <= HISTORY_WINDOW_S; i++)
        history_tick(h, NULL, 0, 0, 1000 + i);
    assert_int_equal(history_at(h, 1)->tokens, 0);
    assert_true(history_at(h, HISTORY_WINDOW_S - 1)->first_s[0] > 0);
    assert_true(history_at(h, HISTORY_WINDOW_S)->first_s[0] == 0);
    history_release(h);
    free(h);
}

static void test_the_ring_keeps_the_latest(void **state)
{
    (void)state;
    struct history *h = calloc(1, sizeof(*h));
    n_views = 0;
    for (int i = 0; i < HISTORY_SAMPLES + 50; i++)
        history_tick(h, NULL, 0, 0, i);
    assert_int_equal(h->n, HISTORY_SAMPLES);
    assert_int_equal(history_at(h, 0)->wall_s, 50);
    assert_int_equal(history_at(h, HISTORY_SAMPLES - 1)->wall_s, HISTORY_SAMPLES + 49);
    history_release(h);
    free(h);
}

static void test_a_worker_has_a_track_until_it_is_long_gone(void **state)
{
    (void)state;
    struct history *h = calloc(1, sizeof(*h));
    n_views = 2;
    views[0] = (struct pool_worker_view){.id = "one", .tokens = 100, .running = 70000};
    views[1] = (struct pool_worker_view){.id = "two", .tokens = 5, .waiting = 3};
    history_tick(h, NULL, 0, 0, 0);
    views[0].tokens = 140;
    views[1].tokens = 1; /* it attached anew */
    history_tick(h, NULL, 0, 0, 1);
    history_tick(h, NULL, 0, 0, 2);
    const struct track *one = history_track(h, "one"), *two = history_track(h, "two");
    assert_int_equal(one->n, 2);
    assert_true(track_at(one, 0)->tokens_per_s == 0); /* what was before is not of this time */
    assert_true(track_at(one, 1)->tokens_per_s == 40.0f / TRACK_PERIOD_S);
    assert_int_equal(track_at(one, 1)->running, UINT16_MAX);
    assert_true(track_at(two, 1)->tokens_per_s == 1.0f / TRACK_PERIOD_S);
    assert_int_equal(track_at(two, 1)->waiting, 3);
    views[0] = views[1];
    n_views = 1;
    for (int i = 3; i < 3 + TRACK_PERIOD_S * (TRACK_SAMPLES + 10); i++)
        history_tick(h, NULL, 0, 0, i);
    assert_null(history_track(h, "one"));
    assert_int_equal(history_track(h, "two")->n, TRACK_SAMPLES);
    history_release(h);
    free(h);
}

static void test_tracks_are_bounded(void **state)
{
    (void)state;
    static char ids[400][16];
    struct history *h = calloc(1, sizeof(*h));
    n_views = 400;
    for (uint32_t i = 0; i < n_views; i++) {
        snprintf(ids[i], sizeof(ids[i]), "w%u", i);
        views[i] = (struct pool_worker_view){.id = ids[i]};
    }
    history_tick(h, NULL, 0, 0, 0);
    assert_int_equal(h->n_tracks, TRACKS_MAX);
    assert_int_equal(history_at(h, 0)->workers, 400);
    assert_non_null(history_track(h, "w0"));
    assert_null(history_track(h, "w399"));
    history_release(h);
    assert_int_equal(h->n_tracks, 0);
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles_are_right_to_a_bin),
        cmocka_unit_test(test_percentiles_of_nothing_and_of_extremes),
        cmocka_unit_test(test_a_sample_has_what_its_second_had),
        cmocka_unit_test(test_the_ring_keeps_the_latest),
        cmocka_unit_test(test_a_worker_has_a_track_until_it_is_long_gone),
        cmocka_unit_test(test_tracks_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
