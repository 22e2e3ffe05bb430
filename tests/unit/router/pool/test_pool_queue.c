/* New generations when everybody is full: who waits, who is refused at once, who is next. */
#include "tests/unit/router/pool/pool_world.h"

#define LONG_MS 4000

static void world_queue(struct world *w)
{
    struct pool_config c = world_config();
    c.worker_queue_max = 0;
    c.queue_max = 4;
    c.queue_wait_ms = 5000;
    c.queue_age_ms = 1000;
    world_init(w, &c);
}

static void join_one(struct world *w, uint64_t stream, const char *id, const char *region)
{
    event_opened(w, stream);
    event_hello(w,
                (struct hello){
                    .stream = stream, .id = id, .epoch = 1, .sequences_max = 1, .region = region});
}

/* A worker that runs one at a time, busy; what it runs takes LONG_MS, as the pool has learnt. */
static void world_busy(struct world *w, struct client *running)
{
    struct client first = client_of(4);
    world_queue(w);
    join_one(w, 1, "one", NULL);
    assert_true(client_start(w, &first, NULL));
    pass_ms(w, 1000);
    event_load(w, 1, false);
    for (int i = 0; i < LONG_MS / 1000 - 1; i++) {
        event_load(w, 1, false);
        pass_ms(w, 1000);
    }
    event_tokens(w, 1, last_sent(w, SENT_START, 1)->request, 0, 4, ARGOSY__FINISH__FINISH_LENGTH);
    assert_int_equal(first.finished, 1);
    *running = client_of(4);
    running->request.tenant = 9;
    assert_true(client_start(w, running, NULL));
    assert_string_equal(gen_worker_id(running->gen), "one");
}

/* The one that runs at the worker is done. */
static void finish_one(struct world *w)
{
    event_tokens(w, 1, last_sent(w, SENT_START, 1)->request, 0, 4, ARGOSY__FINISH__FINISH_LENGTH);
}

static bool runs(const struct client *c)
{
    return !c->finished && !c->failed && gen_worker_id(c->gen)[0];
}

static void test_one_waits_for_room_and_is_served(void **state)
{
    (void)state;
    struct world w;
    struct client a, b = client_of(4);
    world_busy(&w, &a);
    assert_true(client_start(&w, &b, NULL));
    assert_false(runs(&b));
    assert_int_equal(pool_totals(w.pool).queued, 1);
    finish_one(&w);
    assert_int_equal(a.finished, 1);
    assert_true(runs(&b));
    assert_int_equal(pool_totals(w.pool).queued, 0);
    finish_one(&w);
    assert_int_equal(b.finished, 1);
    assert_int_equal(pool_gens_live(w.pool), 0);
    world_release(&w);
}

static void test_what_would_wait_too_long_is_refused_at_once(void **state)
{
    (void)state;
    struct world w;
    struct err e = {0};
    struct client a, b = client_of(4), c = client_of(4), d = client_of(4);
    world_busy(&w, &a);
    d.request.deadline_ms = LONG_MS - 1;
    assert_false(client_start(&w, &d, &e)); /* it would be over before its turn */
    assert_int_equal(d.fault, GEN_FAULT_BUSY);
    assert_true(client_start(&w, &b, NULL)); /* 4 s, of 5 s */
    assert_false(client_start(&w, &c, &e));  /* 8 s */
    assert_int_equal(c.fault, GEN_FAULT_BUSY);
    assert_int_equal(e.code, ERR_BUSY);
    assert_in_range(pool_retry_after_ms(w.pool), 3000, 4500);
    assert_int_equal(pool_gens_live(w.pool), 2);
    world_release(&w);
}

static void test_the_queue_is_bounded(void **state)
{
    (void)state;
    struct world w;
    struct client all[8];
    world_queue(&w);
    join_one(&w, 1, "one", NULL);
    for (int i = 0; i < 8; i++) { /* how long they take is not known yet */
        all[i] = client_of(4);
        assert_int_equal(client_start(&w, &all[i], NULL), i < 5);
    }
    assert_int_equal(pool_totals(w.pool).queued, 4);
    world_release(&w);
}

static void test_without_queue_wait_nobody_waits(void **state)
{
    (void)state;
    struct world w;
    struct pool_config config = world_config();
    struct client a = client_of(4), b = client_of(4);
    config.worker_queue_max = 0;
    world_init(&w, &config);
    join_one(&w, 1, "one", NULL);
    assert_true(client_start(&w, &a, NULL));
    assert_false(client_start(&w, &b, NULL));
    assert_int_equal(b.fault, GEN_FAULT_BUSY);
    world_release(&w);
}

static void test_tenants_take_turns(void **state)
{
    (void)state;
    struct world w;
    struct client many[3], few = client_of(4), running = client_of(4);
    world_queue(&w);
    join_one(&w, 1, "one", NULL);
    running.request.tenant = 1;
    assert_true(client_start(&w, &running, NULL));
    for (int i = 0; i < 3; i++) {
        many[i] = client_of(4);
        many[i].request.tenant = 1;
        assert_true(client_start(&w, &many[i], NULL));
    }
    few.request.tenant = 2;
    assert_true(client_start(&w, &few, NULL));
    finish_one(&w);
    finish_one(&w);
    assert_true(runs(&few) || few.finished); /* second at the latest, of four */
    finish_one(&w);
    finish_one(&w);
    finish_one(&w);
    assert_int_equal(many[0].finished + many[1].finished + many[2].finished + few.finished, 4);
    world_release(&w);
}

static void test_priority_goes_first(void **state)
{
    (void)state;
    struct world w;
    struct client running = client_of(4), low = client_of(4), high = client_of(4);
    world_queue(&w);
    join_one(&w, 1, "one", NULL);
    high.request.priority = 1;
    assert_true(client_start(&w, &running, NULL));
    assert_true(client_start(&w, &low, NULL));
    assert_true(client_start(&w, &high, NULL));
    finish_one(&w);
    assert_true(runs(&high));
    assert_false(runs(&low));
    world_release(&w);
}

static void test_who_waits_can_leave_and_runs_out_of_time(void **state)
{
    (void)state;
    struct world w;
    struct client running = client_of(4), gone = client_of(4), late = client_of(4),
                  never = client_of(4);
    world_queue(&w);
    join_one(&w, 1, "one", NULL);
    late.request.deadline_ms = 1500;
    assert_true(client_start(&w, &running, NULL));
    assert_true(client_start(&w, &gone, NULL));
    assert_true(client_start(&w, &late, NULL));
    assert_true(client_start(&w, &never, NULL));
    pool_cancel(gone.gen);
    for (int i = 0; i < 2; i++) {
        pass_ms(&w, 1000);
        event_load(&w, 1, false);
    }
    assert_int_equal(late.failed, 1);
    assert_int_equal(late.fault, GEN_FAULT_DEADLINE);
    for (int i = 0; i < 19; i++) {
        pass_ms(&w, 1000);
        event_load(&w, 1, false);
    }
    assert_int_equal(never.failed, 1);
    assert_int_equal(never.fault, GEN_FAULT_BUSY);
    assert_true(never.retry_after_ms > 0);
    assert_int_equal(gone.failed + gone.finished, 0);
    assert_int_equal(pool_totals(w.pool).queued, 0);
    world_release(&w);
}

static void test_who_needs_another_worker_holds_nobody_up(void **state)
{
    static const struct policy_label in_eu[] = {{"region", "eu"}};
    (void)state;
    struct world w;
    struct client at_eu = client_of(4), at_us = client_of(4), eu = client_of(4), any = client_of(4);
    world_queue(&w);
    join_one(&w, 1, "us", "us");
    join_one(&w, 2, "eu", "eu");
    at_eu.request.wants = eu.request.wants = in_eu;
    at_eu.request.n_wants = eu.request.n_wants = 1;
    assert_true(client_start(&w, &at_eu, NULL));
    assert_true(client_start(&w, &at_us, NULL));
    assert_string_equal(gen_worker_id(at_us.gen), "us");
    assert_true(client_start(&w, &eu, NULL));
    assert_true(client_start(&w, &any, NULL));
    finish_one(&w); /* the one at us */
    assert_true(runs(&any));
    assert_false(runs(&eu));
    finish_one(&w);
    struct client next = client_of(4);
    assert_true(client_start(&w, &next, NULL)); /* us is free, though somebody waits */
    pass_ms(&w, 0);
    assert_true(runs(&next));
    world_release(&w);
}

static void test_a_stream_that_lost_its_worker_goes_first(void **state)
{
    (void)state;
    struct world w;
    struct client at_one = client_of(4), at_two = client_of(4), fresh = client_of(4);
    world_queue(&w);
    join_one(&w, 1, "one", NULL);
    join_one(&w, 2, "two", NULL);
    assert_true(client_start(&w, &at_one, NULL));
    assert_true(client_start(&w, &at_two, NULL));
    struct client *lost = strcmp(gen_worker_id(at_one.gen), "two") == 0 ? &at_one : &at_two;
    assert_true(client_start(&w, &fresh, NULL));
    event_closed(&w, 2);
    pass_ms(&w, 500);
    event_load(&w, 1, false);
    finish_one(&w);
    pass_ms(&w, 500);
    assert_true(runs(lost));
    assert_false(runs(&fresh));
    world_release(&w);
}

static void start_at_one(struct world *w, struct client *c)
{
    join(w, 1, "a", 1);
    assert_true(client_start(w, c, NULL));
}

/* It has a place, but no KV pages. */
static void refuse(struct world *w, uint32_t retry_after_ms)
{
    event_refused(w, 1, last_sent(w, SENT_START, 1)->request, ARGOSY__REFUSED_REASON__REFUSED_FULL,
                  retry_after_ms);
}

static void test_refused_for_want_of_room_waits_and_comes_again(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    world_queue(&w);
    start_at_one(&w, &c);
    refuse(&w, 300);
    assert_int_equal(c.failed, 0);
    assert_int_equal(count_sent(&w, SENT_START, 1), 1);
    pass_ms(&w, 301);
    assert_int_equal(count_sent(&w, SENT_START, 1), 2);
    event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, 3, ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(c.n, 3);
    world_release(&w);
}

static void test_refused_for_want_of_room_waits_no_longer_than_in_the_queue(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    world_queue(&w);
    start_at_one(&w, &c);
    uint64_t began_ms = w.now_ms;
    for (uint32_t asked = 1; !c.failed && asked < 1000; asked++) {
        assert_int_equal(count_sent(&w, SENT_START, 1), asked);
        refuse(&w, 400);
        pass_ms(&w, 401);
    }
    assert_int_equal(c.failed, 1);
    assert_int_equal(c.fault, GEN_FAULT_BUSY);
    assert_in_range(w.now_ms - began_ms, 5000, 6000);
    assert_int_not_equal(c.retry_after_ms, 0);
    world_release(&w);
}

static void test_refused_for_want_of_room_is_told_at_once_when_the_queue_is_full(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(10);
    struct pool_config config = world_config();
    config.queue_wait_ms = 5000;
    config.queue_max = 0;
    world_init(&w, &config);
    start_at_one(&w, &c);
    refuse(&w, 300);
    assert_int_equal(c.fault, GEN_FAULT_BUSY);
    assert_int_equal(c.retry_after_ms, 300);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_waits_for_room_and_is_served),
        cmocka_unit_test(test_what_would_wait_too_long_is_refused_at_once),
        cmocka_unit_test(test_the_queue_is_bounded),
        cmocka_unit_test(test_without_queue_wait_nobody_waits),
        cmocka_unit_test(test_tenants_take_turns),
        cmocka_unit_test(test_priority_goes_first),
        cmocka_unit_test(test_who_waits_can_leave_and_runs_out_of_time),
        cmocka_unit_test(test_who_needs_another_worker_holds_nobody_up),
        cmocka_unit_test(test_a_stream_that_lost_its_worker_goes_first),
        cmocka_unit_test(test_refused_for_want_of_room_waits_and_comes_again),
        cmocka_unit_test(test_refused_for_want_of_room_waits_no_longer_than_in_the_queue),
        cmocka_unit_test(test_refused_for_want_of_room_is_told_at_once_when_the_queue_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
