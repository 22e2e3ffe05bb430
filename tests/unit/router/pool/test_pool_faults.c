/* What the pool makes of workers that fail without being gone: tokens that don't come, errors,
 * worker ids that fail again and again; and how often it starts anew what it can't save. */
#include "tests/unit/router/pool/pool_world.h"

#define N 12
#define TIMEOUT_MS 5000

static struct pool_config patient(uint32_t token_timeout_ms)
{
    struct pool_config c = world_config();
    c.token_timeout_ms = token_timeout_ms;
    c.moves_share = 0.2;
    return c;
}

/* Its engine is stuck: it reports the same numbers again and again. */
static void report(struct world *w, uint64_t stream, uint32_t waiting, uint64_t steps)
{
    Argosy__Load load = ARGOSY__LOAD__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    load.running = 1;
    load.waiting = waiting;
    load.steps = steps;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_LOAD;
    f.load = &load;
    event_frame(w, stream, &f);
}

/* Time in which streams 1 and 2, where they are open, report. */
static void pass_alive(struct world *w, uint64_t ms, uint32_t waiting, uint64_t *steps)
{
    for (uint64_t t = 0; t < ms; t += 250) {
        pass_ms(w, ms - t < 250 ? ms - t : 250);
        for (uint64_t s = 1; s <= 2; s++)
            report(w, s, waiting, steps ? ++*steps : 1);
    }
}

static void step_of(struct world *w, uint64_t stream, uint64_t request, uint32_t index, uint32_t us,
                    uint32_t prefill)
{
    Argosy__Delta d = ARGOSY__DELTA__INIT;
    Argosy__Delta *list[] = {&d};
    Argosy__Step step = ARGOSY__STEP__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    uint32_t token = token_at(index);
    d.request = request;
    d.index = index;
    d.tokens = &token;
    d.n_tokens = 1;
    step.n_deltas = 1;
    step.deltas = list;
    step.duration_us = us;
    step.prefill_tokens = prefill;
    step.decode_tokens = prefill ? 0 : 1;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_STEP;
    f.step = &step;
    event_frame(w, stream, &f);
}

static void run_to_the_end(struct world *w, uint64_t stream, uint64_t request, uint32_t from)
{
    event_tokens(w, stream, request, from, N - from, ARGOSY__FINISH__FINISH_LENGTH);
}

/* One stream at a, with three tokens; then b joins. */
static uint64_t begin(struct world *w, struct client *c, const struct pool_config *config)
{
    world_init(w, config);
    join(w, 1, "a", 1);
    *c = client_of(N);
    assert_true(client_start(w, c, NULL));
    uint64_t request = last_sent(w, SENT_START, 1)->request;
    event_tokens(w, 1, request, 0, 3, ARGOSY__FINISH__FINISH_NONE);
    join(w, 2, "b", 1);
    return request;
}

static void test_token_that_is_late_moves(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct pool_config config = patient(TIMEOUT_MS);
    uint64_t request = begin(&w, &c, &config);
    pass_alive(&w, TIMEOUT_MS - 1, 0, NULL);
    assert_string_equal(gen_worker_id(c.gen), "a");
    pass_alive(&w, 2, 0, NULL);
    assert_string_equal(gen_worker_id(c.gen), "b");
    assert_int_equal(last_sent(&w, SENT_CANCEL, 1)->request, request);
    assert_int_equal(last_sent(&w, SENT_START, 2)->n_output, 3);
    assert_int_equal(count_sent(&w, SENT_CLOSE, 0), 0); /* others may run there */
    /* It wakes up. */
    event_tokens(&w, 1, request, 3, 2, ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(c.n, 3);
    run_to_the_end(&w, 2, last_sent(&w, SENT_START, 2)->request, 3);
    assert_int_equal(c.finished, 1);
    assert_int_equal(c.n, N);
    assert_int_equal(pool_totals(w.pool).stalled, 1);
    world_release(&w);
}

static void test_tokens_in_time_do_not_move(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct pool_config config = patient(TIMEOUT_MS);
    uint64_t request = begin(&w, &c, &config);
    for (uint32_t i = 3; i < N - 1; i++) {
        pass_alive(&w, TIMEOUT_MS - 1, 0, NULL);
        event_tokens(&w, 1, request, i, 1, ARGOSY__FINISH__FINISH_NONE);
    }
    assert_string_equal(gen_worker_id(c.gen), "a");
    world_release(&w);
}

static void test_patience_grows_with_the_steps_that_are_measured(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct pool_config config = patient(500);
    config.lease_ms = 60000;
    uint64_t request = begin(&w, &c, &config);
    for (uint32_t i = 3; i < 8; i++) /* steps of a second: 20 of them */
        step_of(&w, 1, request, i, 1000000, 0);
    pass_alive(&w, 10000, 0, NULL);
    assert_string_equal(gen_worker_id(c.gen), "a");
    pass_alive(&w, 10500, 0, NULL);
    assert_string_equal(gen_worker_id(c.gen), "b");
    world_release(&w);
}

static void test_first_token_is_waited_for_as_the_prompts_ahead_need(void **state)
{
    (void)state;
    struct world w;
    struct client c, d = client_of(N);
    struct pool_config config = patient(500);
    config.lease_ms = 60000;
    uint64_t request = begin(&w, &c, &config);
    event_closed(&w, 2);
    step_of(&w, 1, request, 3, 1000000, 4); /* four tokens a second: 16 take four seconds */
    event_tokens(&w, 1, request, 4, N - 4, ARGOSY__FINISH__FINISH_LENGTH);
    assert_true(client_start(&w, &d, NULL));
    join(&w, 2, "b", 2);
    pass_alive(&w, 39000, 0, NULL);
    assert_string_equal(gen_worker_id(d.gen), "a");
    pass_alive(&w, 3000, 0, NULL);
    assert_string_equal(gen_worker_id(d.gen), "b");
    world_release(&w);
}

static void test_worker_of_unknown_speed_gets_time(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    struct pool_config config = patient(500);
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    join(&w, 2, "b", 1);
    pass_alive(&w, 2900, 0, NULL);
    assert_string_equal(gen_worker_id(c.gen), "a");
    pass_alive(&w, 200, 0, NULL);
    assert_string_equal(gen_worker_id(c.gen), "b");
    world_release(&w);
}

static void test_worker_of_unknown_speed_that_makes_steps_gets_more(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    struct pool_config config = patient(500);
    uint64_t steps = 1;
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    join(&w, 2, "b", 1);
    pass_alive(&w, 60000, 0, &steps);
    assert_string_equal(gen_worker_id(c.gen), "a");
    world_release(&w);
}

static void test_one_that_waits_at_a_worker_that_gets_on_stays(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    struct pool_config config = patient(500);
    uint64_t steps = 1;
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    join(&w, 2, "b", 1);
    pass_alive(&w, 60000, 3, &steps);
    assert_string_equal(gen_worker_id(c.gen), "a");
    pass_alive(&w, 6500, 3, NULL); /* it does not get on any more */
    assert_string_equal(gen_worker_id(c.gen), "b");
    world_release(&w);
}

static void test_one_whose_model_is_being_loaded_waits(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    struct pool_config config = patient(500);
    Argosy__ModelLoad m = ARGOSY__MODEL_LOAD__INIT;
    Argosy__ModelLoad *list[] = {&m};
    Argosy__Load load = ARGOSY__LOAD__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    m.state = ARGOSY__MODEL_STATE__MODEL_LOADING;
    load.n_models = 1;
    load.models = list;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_LOAD;
    f.load = &load;
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    join(&w, 2, "b", 1);
    for (int i = 0; i < 100; i++) {
        event_frame(&w, 1, &f);
        event_load(&w, 2, false);
        pass_ms(&w, 250);
    }
    assert_string_equal(gen_worker_id(c.gen), "a");
    m.state = ARGOSY__MODEL_STATE__MODEL_LOADED;
    for (int i = 0; i < 26; i++) {
        event_frame(&w, 1, &f);
        event_load(&w, 2, false);
        pass_ms(&w, 250);
    }
    assert_string_equal(gen_worker_id(c.gen), "b");
    world_release(&w);
}

static void test_where_all_are_slow_patience_doubles(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct pool_config config = patient(500);
    begin(&w, &c, &config);
    event_closed(&w, 2);
    /* The only worker: after a moment it is asked again, 3000 ms × 2 for the first token. */
    pass_alive(&w, 600, 0, NULL);
    assert_int_equal(count_sent(&w, SENT_START, 1), 2);
    pass_alive(&w, 5800, 0, NULL);
    assert_int_equal(pool_totals(w.pool).stalled, 1);
    pass_alive(&w, 800, 0, NULL);
    assert_int_equal(pool_totals(w.pool).stalled, 2);
    world_release(&w);
}

static void test_router_that_slept_blames_nobody_for_late_tokens(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    struct pool_config config = patient(TIMEOUT_MS);
    begin(&w, &c, &config);
    w.now_ms += 60000;
    pool_tick(w.pool);
    assert_string_equal(gen_worker_id(c.gen), "a");
    assert_int_equal(pool_totals(w.pool).stalled, 0);
    world_release(&w);
}

/* ---- errors --------------------------------------------------------------------------------- */

static void fail_it(struct world *w, uint64_t stream, uint64_t request, uint32_t index,
                    bool hopeless)
{
    Argosy__Delta d = ARGOSY__DELTA__INIT;
    Argosy__Delta *list[] = {&d};
    Argosy__Step step = ARGOSY__STEP__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    d.request = request;
    d.index = index;
    d.finish = ARGOSY__FINISH__FINISH_ERROR;
    d.error = (char *)"said the worker";
    d.hopeless = hopeless;
    step.n_deltas = 1;
    step.deltas = list;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_STEP;
    f.step = &step;
    event_frame(w, stream, &f);
}

static void test_error_goes_to_another_worker(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) { /* whoever would be next */
        struct world w;
        struct client c;
        uint64_t request = begin(&w, &c, NULL);
        for (int k = 0; k < i; k++) {
            struct client d = client_of(N);
            assert_true(client_start(&w, &d, NULL));
            pool_cancel(d.gen);
        }
        fail_it(&w, 1, request, 3, false);
        assert_string_equal(gen_worker_id(c.gen), "b");
        world_release(&w);
    }
}

static void test_error_that_every_worker_would_give_is_not_tried_again(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    uint64_t request = begin(&w, &c, NULL);
    size_t starts = count_sent(&w, SENT_START, 0);
    fail_it(&w, 1, request, 3, true);
    assert_int_equal(c.failed, 1);
    assert_int_equal(c.fault, GEN_FAULT_INVALID);
    assert_int_equal(count_sent(&w, SENT_START, 0), starts);
    assert_int_equal(pool_gens_live(w.pool), 0);
    world_release(&w);
}

/* ---- breakers ------------------------------------------------------------------------------- */

static struct pool_config alone(void)
{
    struct pool_config c = world_config();
    c.lease_ms = 600000;
    c.moves_max = 50;
    return c;
}

static void fail_three(struct world *w)
{
    for (int i = 0; i < 3; i++) {
        struct client c = client_of(N);
        assert_true(client_start(w, &c, NULL));
        fail_it(w, 1, last_sent(w, SENT_START, 1)->request, 0, false);
        pool_cancel(c.gen);
    }
}

static void test_worker_that_fails_is_left_alone_then_tried_with_one(void **state)
{
    (void)state;
    struct world w;
    struct client c[3];
    struct pool_config config = alone();
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    fail_three(&w);
    assert_int_equal(pool_totals(w.pool).opened, 1);
    assert_int_equal(pool_workers_ready(w.pool, "m"), 0);
    size_t starts = count_sent(&w, SENT_START, 1);
    for (int i = 0; i < 3; i++) {
        c[i] = client_of(N);
        assert_true(client_start(&w, &c[i], NULL)); /* they wait */
    }
    pass_ms(&w, 900);
    assert_int_equal(count_sent(&w, SENT_START, 1), starts);
    pass_ms(&w, 600);
    assert_int_equal(count_sent(&w, SENT_START, 1), starts + 1);
    event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, 1, ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(count_sent(&w, SENT_START, 1), starts + 3);
    assert_int_equal(pool_workers_ready(w.pool, "m"), 1);
    world_release(&w);
}

/* An embedding has no token: its end is what closes the breaker. */
static void test_trial_may_be_an_embedding(void **state)
{
    (void)state;
    struct world w;
    const float v[] = {1, 2};
    struct client c = client_of(1), d = client_of(N), e = client_of(N);
    struct pool_config config = alone();
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    fail_three(&w);
    pass_ms(&w, 1001);
    c.request.pooling = GEN_MEAN;
    assert_true(client_start(&w, &c, NULL));
    struct delta end = {.request = last_sent(&w, SENT_START, 1)->request,
                        .finish = ARGOSY__FINISH__FINISH_STOP,
                        .embedding = v,
                        .n_embedding = 2};
    event_step(&w, 1, &end, 1);
    assert_int_equal(c.finished, 1);
    assert_true(client_start(&w, &d, NULL));
    assert_true(client_start(&w, &e, NULL));
    assert_string_equal(gen_worker_id(e.gen), "a");
    world_release(&w);
}

/* Which of n new generations a gets; all of them leave again. */
static uint32_t tries_of_a(struct world *w, uint32_t n)
{
    uint32_t at_a = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct client c = client_of(N);
        assert_true(client_start(w, &c, NULL));
        at_a += strcmp(gen_worker_id(c.gen), "a") == 0;
        pool_cancel(c.gen);
    }
    return at_a;
}

static void test_trial_that_fails_waits_for_longer_and_one_that_leaves_is_none(void **state)
{
    (void)state;
    struct world w;
    struct pool_config config = alone();
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    fail_three(&w);
    join(&w, 2, "b", 1);
    assert_int_equal(tries_of_a(&w, 8), 0);
    pass_ms(&w, 1001);
    assert_in_range(tries_of_a(&w, 8), 2, 8);
    struct client c[2] = {client_of(N), client_of(N)};
    for (int i = 0; i < 2; i++)
        assert_true(client_start(&w, &c[i], NULL));
    struct client *at_a = &c[strcmp(gen_worker_id(c[0].gen), "a") != 0];
    assert_string_equal(gen_worker_id(at_a->gen), "a");
    fail_it(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, false);
    assert_string_equal(gen_worker_id(at_a->gen), "b");
    pass_ms(&w, 1900);
    assert_int_equal(tries_of_a(&w, 8), 0);
    pass_ms(&w, 200);
    assert_in_range(tries_of_a(&w, 8), 2, 8);
    world_release(&w);
}

static void test_breaker_outlives_the_attachment(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N), d = client_of(N), e = client_of(N);
    struct pool_config config = alone();
    world_init(&w, &config);
    for (uint64_t s = 1; s <= 3; s++) { /* it crashes with what it runs */
        join(&w, s, "a", s);
        if (s == 1)
            assert_true(client_start(&w, &c, NULL));
        assert_string_equal(gen_worker_id(c.gen), "a");
        event_closed(&w, s);
    }
    join(&w, 4, "a", 4);
    assert_true(client_start(&w, &d, NULL));
    assert_string_equal(gen_worker_id(d.gen), ""); /* a new one waits */
    join(&w, 5, "b", 1);
    assert_string_equal(gen_worker_id(d.gen), "b");
    for (int i = 0; i < 4; i++) {
        e = client_of(N);
        assert_true(client_start(&w, &e, NULL));
        assert_string_equal(gen_worker_id(e.gen), "b");
    }
    world_release(&w);
}

static void test_stream_goes_on_where_nobody_is_trusted(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    struct pool_config config = alone();
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    fail_three(&w);
    join(&w, 2, "b", 1);
    assert_true(client_start(&w, &c, NULL));
    assert_string_equal(gen_worker_id(c.gen), "b");
    event_tokens(&w, 2, last_sent(&w, SENT_START, 2)->request, 0, 4, ARGOSY__FINISH__FINISH_NONE);
    event_closed(&w, 2);
    assert_string_equal(gen_worker_id(c.gen), "a"); /* at once */
    run_to_the_end(&w, 1, last_sent(&w, SENT_START, 1)->request, 4);
    assert_int_equal(c.finished, 1);
    world_release(&w);
}

static void test_what_clients_do_is_no_fault(void **state)
{
    (void)state;
    struct world w;
    struct pool_config config = alone();
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    for (int i = 0; i < 20; i++) {
        struct client c = client_of(N);
        assert_true(client_start(&w, &c, NULL));
        uint64_t request = last_sent(&w, SENT_START, 1)->request;
        if (i % 4 == 0)
            pool_cancel(c.gen);
        else if (i % 4 == 1)
            fail_it(&w, 1, request, 0, true);
        else
            event_refused(&w, 1, request,
                          i % 4 == 2 ? ARGOSY__REFUSED_REASON__REFUSED_INVALID
                                     : ARGOSY__REFUSED_REASON__REFUSED_FULL,
                          50);
    }
    assert_int_equal(pool_totals(w.pool).opened, 0);
    struct client c = client_of(N);
    assert_true(client_start(&w, &c, NULL));
    event_load(&w, 1, true);
    event_closed(&w, 1); /* nor is that it drains */
    join(&w, 2, "a", 2);
    assert_string_equal(gen_worker_id(c.gen), "a");
    world_release(&w);
}

/* ---- many at once -----------------------------------------------------------------------------
 */

static uint64_t runs_at(struct world *w, struct client *c)
{
    struct sent *s = last_sent(w, SENT_START, 0);
    return *gen_worker_id(c->gen) ? s->stream : 0;
}

static void test_workers_that_go_one_after_the_other_do_not_use_its_moves_up(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    char id[16];
    world_init(&w, NULL);
    for (uint64_t s = 1; s <= 8; s++) {
        snprintf(id, sizeof(id), "w%llu", (unsigned long long)s);
        join(&w, s, id, 1);
    }
    assert_true(client_start(&w, &c, NULL));
    /* Always the one that runs it, while there is one; then the rest, but one. */
    uint32_t closed = 0;
    bool gone[9] = {false};
    for (uint64_t s; (s = runs_at(&w, &c)); closed++, gone[s] = true)
        event_closed(&w, s);
    assert_int_equal(closed, 2);
    for (uint64_t s = 1; closed < 7; s++)
        if (!gone[s]) {
            event_closed(&w, s);
            closed++;
        }
    assert_int_equal(c.failed, 0);
    pass_ms(&w, 101);
    uint64_t last = runs_at(&w, &c);
    assert_true(last > 0);
    run_to_the_end(&w, last, last_sent(&w, SENT_START, last)->request, 0);
    assert_int_equal(c.finished, 1);
    world_release(&w);
}

static void test_moves_are_counted_in_a_row(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(200);
    struct pool_config config = world_config();
    char id[16];
    uint32_t n = 0;
    world_init(&w, &config);
    join(&w, 1, "w1", 1);
    assert_true(client_start(&w, &c, NULL));
    for (uint64_t s = 1; s <= 10; s++) {
        uint64_t request = last_sent(&w, SENT_START, s)->request;
        for (uint32_t i = 0; i < 16; i++, n++)
            event_tokens(&w, s, request, n, 1, ARGOSY__FINISH__FINISH_NONE);
        snprintf(id, sizeof(id), "w%llu", (unsigned long long)s + 1);
        join(&w, s + 1, id, 1);
        event_closed(&w, s);
        assert_string_equal(gen_worker_id(c.gen), id);
    }
    assert_int_equal(c.failed, 0);
    world_release(&w);
}

/* ---- the budget ----------------------------------------------------------------------------- */

/* 40 streams at workers that die at once, again and again: all of them get their first move, then
 * 128 are free, then about 10 a second. */
static void test_dying_pool_is_not_hammered(void **state)
{
    (void)state;
    struct world w;
    struct client c[40];
    struct pool_config config = patient(0);
    config.moves_max = 100;
    config.worker_queue_max = 64;
    config.worker_wait_ms = 60000;
    char id[16];
    world_init(&w, &config);
    join(&w, 1, "w1", 1);
    for (int i = 0; i < 40; i++) {
        c[i] = client_of(N);
        assert_true(client_start(&w, &c[i], NULL));
    }
    for (uint64_t s = 1; s <= 10; s++) {
        snprintf(id, sizeof(id), "w%llu", (unsigned long long)s + 1);
        join(&w, s + 1, id, 1);
        event_closed(&w, s);
    }
    assert_int_equal(count_sent(&w, SENT_START, 0), 40 + 40 + 128);
    size_t before = count_sent(&w, SENT_START, 0);
    pass_ms(&w, 1000);
    assert_in_range(count_sent(&w, SENT_START, 0) - before, 8, 11);
    for (int i = 0; i < 40; i++)
        assert_int_equal(c[i].failed, 0);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_token_that_is_late_moves),
        cmocka_unit_test(test_tokens_in_time_do_not_move),
        cmocka_unit_test(test_patience_grows_with_the_steps_that_are_measured),
        cmocka_unit_test(test_first_token_is_waited_for_as_the_prompts_ahead_need),
        cmocka_unit_test(test_worker_of_unknown_speed_gets_time),
        cmocka_unit_test(test_worker_of_unknown_speed_that_makes_steps_gets_more),
        cmocka_unit_test(test_one_that_waits_at_a_worker_that_gets_on_stays),
        cmocka_unit_test(test_one_whose_model_is_being_loaded_waits),
        cmocka_unit_test(test_where_all_are_slow_patience_doubles),
        cmocka_unit_test(test_router_that_slept_blames_nobody_for_late_tokens),
        cmocka_unit_test(test_error_goes_to_another_worker),
        cmocka_unit_test(test_error_that_every_worker_would_give_is_not_tried_again),
        cmocka_unit_test(test_worker_that_fails_is_left_alone_then_tried_with_one),
        cmocka_unit_test(test_trial_may_be_an_embedding),
        cmocka_unit_test(test_trial_that_fails_waits_for_longer_and_one_that_leaves_is_none),
        cmocka_unit_test(test_breaker_outlives_the_attachment),
        cmocka_unit_test(test_stream_goes_on_where_nobody_is_trusted),
        cmocka_unit_test(test_what_clients_do_is_no_fault),
        cmocka_unit_test(test_workers_that_go_one_after_the_other_do_not_use_its_moves_up),
        cmocka_unit_test(test_moves_are_counted_in_a_row),
        cmocka_unit_test(test_dying_pool_is_not_hammered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
