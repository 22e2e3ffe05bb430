/* What a request wants of its worker: who has it runs it; when nobody has, that is said at once. */
#include "tests/unit/router/pool/pool_world.h"

static void join_in(struct world *w, uint64_t stream, const char *id, const char *region,
                    double price)
{
    event_opened(w, stream);
    event_hello(w, (struct hello){
                       .stream = stream, .id = id, .epoch = 1, .region = region, .price = price});
}

static const struct policy_label in_eu[] = {{"region", "eu"}};
static const struct policy_label on_gpu[] = {{"device", "cuda"}};

static void test_who_has_the_label_runs_it(void **state)
{
    (void)state;
    struct world w;
    struct err e = {0};
    world_init(&w, NULL);
    join_in(&w, 1, "us", "us", 0);
    join_in(&w, 2, "eu", "eu", 5);
    for (int i = 0; i < 4; i++) {
        struct client c = client_of(4);
        c.request.wants = in_eu;
        c.request.n_wants = 1;
        assert_true(client_start(&w, &c, &e));
        assert_string_equal(gen_worker_id(c.gen), "eu");
        pool_cancel(c.gen);
    }
    world_release(&w);
}

static void expect_unwanted(struct world *w, struct client *c, const char *why)
{
    struct err e = {0};
    assert_false(client_start(w, c, &e));
    assert_int_equal(c->fault, GEN_FAULT_UNWANTED);
    assert_string_equal(e.msg, why);
    assert_int_equal(pool_gens_live(w->pool), 0);
}

static void test_what_nobody_has_is_an_error_at_once(void **state)
{
    (void)state;
    struct world w;
    struct err e = {0};
    world_init(&w, NULL);
    join_in(&w, 1, "us", "us", 4);
    struct client c = client_of(4);
    c.request.wants = in_eu;
    c.request.n_wants = 1;
    expect_unwanted(&w, &c, "no worker has region=eu");
    c.request.wants = on_gpu;
    expect_unwanted(&w, &c, "no worker has device=cuda");
    c.request.n_wants = 0;
    c.request.price_max = 2;
    expect_unwanted(&w, &c, "no worker costs at most 2");
    /* Who has it and is full is another matter. */
    struct client many[12];
    for (int i = 0; i < 12; i++) {
        many[i] = client_of(4);
        assert_true(client_start(&w, &many[i], &e));
    }
    c.request.price_max = 4;
    assert_false(client_start(&w, &c, &e));
    assert_int_equal(c.fault, GEN_FAULT_BUSY);
    world_release(&w);
}

/* Its worker is gone, and only one without the label is there: it waits for another. */
static void test_a_stream_that_moved_waits_for_its_label(void **state)
{
    (void)state;
    struct world w;
    struct err e = {0};
    world_init(&w, NULL);
    join_in(&w, 1, "us", "us", 0);
    join_in(&w, 2, "eu", "eu", 0);
    struct client c = client_of(4);
    c.request.wants = in_eu;
    c.request.n_wants = 1;
    assert_true(client_start(&w, &c, &e));
    event_tokens(&w, 2, last_sent(&w, SENT_START, 2)->request, 0, 2, ARGOSY__FINISH__FINISH_NONE);
    event_closed(&w, 2);
    assert_int_equal(c.failed, 0);
    assert_null(last_sent(&w, SENT_START, 1));
    join_in(&w, 3, "eu2", "eu", 0);
    assert_string_equal(gen_worker_id(c.gen), "eu2");
    assert_int_equal(last_sent(&w, SENT_START, 3)->n_output, 2);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_has_the_label_runs_it),
        cmocka_unit_test(test_what_nobody_has_is_an_error_at_once),
        cmocka_unit_test(test_a_stream_that_moved_waits_for_its_label),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
