/* No stream dies: what runs at a worker that goes away goes on at another one with the next token,
 * waits a while for one, or fails in the end; never is a token lost, doubled or changed
 * (pool_world.h compares each with token_at). */
#include "tests/unit/router/pool/pool_world.h"

#define N 12

/* The worker of stream s says nothing but the truth from `from` on until it is done. */
static void run_to_the_end(struct world *w, uint64_t s, uint64_t request, uint32_t from)
{
    for (uint32_t i = from; i < N; i++)
        event_tokens(w, s, request, i, 1,
                     i + 1 == N ? ARGOSY__FINISH__FINISH_LENGTH : ARGOSY__FINISH__FINISH_NONE);
}

static void assert_continued(struct world *w, struct client *c, uint64_t stream, uint32_t k)
{
    struct sent *again = last_sent(w, SENT_START, stream);
    assert_non_null(again);
    assert_int_equal(again->n_output, k);
    assert_int_equal(again->max_tokens, N);
    for (uint32_t i = 0; i < k; i++)
        assert_int_equal(again->output[i], token_at(i));
    run_to_the_end(w, stream, again->request, k);
    assert_int_equal(c->n, N);
    assert_int_equal(c->finished, 1);
    assert_int_equal(c->usage.output_tokens, N);
    assert_int_equal(pool_gens_live(w->pool), 0);
}

static void test_death_at_every_token_goes_on_exactly(void **state)
{
    (void)state;
    for (uint32_t k = 0; k < N; k++) {
        struct world w;
        struct client c = client_of(N);
        world_init(&w, NULL);
        join(&w, 1, "a", 1);
        assert_true(client_start(&w, &c, NULL));
        join(&w, 2, "b", 1);
        uint64_t request = last_sent(&w, SENT_START, 1)->request;
        for (uint32_t i = 0; i < k; i++)
            event_tokens(&w, 1, request, i, 1, ARGOSY__FINISH__FINISH_NONE);
        event_closed(&w, 1);
        assert_string_equal(gen_worker_id(c.gen), "b");
        assert_continued(&w, &c, 2, k);
        assert_int_equal(pool_totals(w.pool).moved, 1);
        world_release(&w);
    }
}

static void test_all_tokens_without_the_last_word_is_length(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, N, ARGOSY__FINISH__FINISH_NONE);
    event_closed(&w, 1);
    assert_int_equal(c.finished, 1);
    assert_int_equal(c.why, GEN_LENGTH);
    world_release(&w);
}

static void test_silent_worker_is_left_after_its_lease(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    uint64_t old = last_sent(&w, SENT_START, 1)->request;
    event_tokens(&w, 1, old, 0, 5, ARGOSY__FINISH__FINISH_NONE);
    pass_ms(&w, 1500);
    join(&w, 2, "b", 1);
    event_load(&w, 1, false); /* any frame renews */
    pass_ms(&w, 1500);
    event_load(&w, 2, false);
    assert_string_equal(gen_worker_id(c.gen), "a");
    pass_ms(&w, 501);
    assert_int_equal(count_sent(&w, SENT_CLOSE, 1), 1);
    assert_string_equal(gen_worker_id(c.gen), "b");
    /* It wakes up: fenced. */
    event_tokens(&w, 1, old, 5, 3, ARGOSY__FINISH__FINISH_NONE);
    event_tokens(&w, 1, last_sent(&w, SENT_START, 2)->request, 5, 3, ARGOSY__FINISH__FINISH_STOP);
    assert_int_equal(c.n, 5);
    assert_continued(&w, &c, 2, 5);
    world_release(&w);
}

static void test_lease_is_forgiven_when_the_router_slept(void **state)
{
    (void)state;
    struct world w;
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    w.now_ms += 60000;
    pool_tick(w.pool);
    assert_int_equal(pool_workers_ready(w.pool, "m"), 1);
    pass_ms(&w, 2001);
    assert_int_equal(pool_workers_ready(w.pool, "m"), 0);
    world_release(&w);
}

/* Many at once are not taken for dead before four leases are over; few of many are. */
static void test_crowd_that_falls_silent_gets_time(void **state)
{
    (void)state;
    enum { CROWD = 20, LEASE_MS = 2000 };
    struct world w;
    struct pool_config config = world_config();
    config.workers_max = CROWD;
    world_init(&w, &config);
    for (uint64_t i = 1; i <= CROWD; i++) {
        char id[16];
        snprintf(id, sizeof(id), "w%u", (unsigned)i);
        join(&w, i, id, 1);
    }
    pass_ms(&w, 2 * LEASE_MS);
    assert_int_equal(pool_totals(w.pool).workers, CROWD);
    for (uint64_t i = 1; i <= CROWD - 2; i++)
        event_load(&w, i, false);
    pass_ms(&w, LEASE_MS / 2);
    assert_int_equal(pool_totals(w.pool).workers, CROWD - 2);
    pass_ms(&w, 3 * LEASE_MS);
    assert_int_equal(pool_totals(w.pool).workers, CROWD - 2);
    pass_ms(&w, LEASE_MS);
    assert_int_equal(pool_totals(w.pool).workers, 0);
    world_release(&w);
}

static void test_newer_attachment_takes_over(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    uint64_t old = last_sent(&w, SENT_START, 1)->request;
    event_tokens(&w, 1, old, 0, 5, ARGOSY__FINISH__FINISH_NONE);
    join(&w, 2, "a", 2);
    event_tokens(&w, 1, old, 5, 1, ARGOSY__FINISH__FINISH_NONE);
    event_closed(&w, 1);
    assert_int_equal(c.n, 5);
    assert_continued(&w, &c, 2, 5);
    world_release(&w);
}

static void test_moves_are_bounded(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    for (uint64_t s = 1; s <= 4; s++) {
        assert_int_equal(c.failed, 0);
        join(&w, s + 1, "a", s + 1);
        if (s > 1) /* two in a row: a moment's wait */
            pass_ms(&w, s == 2 ? 101 : 401);
        assert_int_equal(count_sent(&w, SENT_START, 0), s < 4 ? s + 1 : 4);
    }
    assert_int_equal(c.failed, 1);
    assert_int_equal(c.fault, GEN_FAULT_WORKER);
    world_release(&w);
}

static void test_error_of_the_worker_moves(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, 2, ARGOSY__FINISH__FINISH_ERROR);
    pass_ms(&w, 21); /* nobody else is there */
    assert_int_equal(count_sent(&w, SENT_START, 1), 2);
    assert_continued(&w, &c, 1, 2);
    world_release(&w);
}

static void test_no_worker_waits_then_runs(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    world_init(&w, NULL);
    assert_true(client_start(&w, &c, NULL));
    assert_string_equal(gen_worker_id(c.gen), "");
    pass_ms(&w, 9000);
    assert_int_equal(c.failed, 0);
    join(&w, 1, "a", 1);
    assert_continued(&w, &c, 1, 0);
    world_release(&w);
}

static void test_no_worker_fails_after_the_wait(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    world_init(&w, NULL);
    assert_true(client_start(&w, &c, NULL));
    pass_ms(&w, 9999);
    assert_int_equal(c.failed, 0);
    pass_ms(&w, 2);
    assert_int_equal(c.failed, 1);
    assert_int_equal(c.fault, GEN_FAULT_NO_WORKER);
    world_release(&w);
}

static void test_wait_queue_is_bounded(void **state)
{
    (void)state;
    struct world w;
    struct err e;
    struct client c[5];
    struct pool_config config = world_config();
    world_init(&w, NULL);
    for (int i = 0; i < 5; i++) {
        c[i] = client_of(N);
        assert_int_equal(client_start(&w, &c[i], &e), i < 4);
    }
    assert_int_equal(c[4].fault, GEN_FAULT_NO_WORKER);
    pool_cancel(c[1].gen);
    assert_true(client_start(&w, &c[4], &e));
    join(&w, 1, "a", 1);
    assert_int_equal(count_sent(&w, SENT_START, 1), 4);
    world_release(&w);
    config.worker_wait_ms = 0;
    world_init(&w, &config);
    c[0] = client_of(N);
    assert_false(client_start(&w, &c[0], &e));
    world_release(&w);
}

static void test_worker_that_restarts_keeps_its_streams(void **state)
{
    (void)state;
    struct world w;
    struct client c[6];
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    for (uint32_t i = 0; i < 6; i++) {
        c[i] = client_of(N);
        assert_true(client_start(&w, &c[i], NULL));
        event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, i + 1,
                     ARGOSY__FINISH__FINISH_NONE);
    }
    event_closed(&w, 1); /* more than queue_max: what runs already always waits */
    pass_ms(&w, 3000);
    join(&w, 2, "a", 2);
    assert_int_equal(count_sent(&w, SENT_START, 2), 6);
    for (size_t i = 0, n = w.n_sent; i < n; i++)
        if (w.sent[i].kind == SENT_START && w.sent[i].stream == 2)
            run_to_the_end(&w, 2, w.sent[i].request, w.sent[i].n_output);
    for (int i = 0; i < 6; i++)
        assert_int_equal(c[i].finished, 1);
    world_release(&w);
}

static void test_moved_stream_is_not_turned_away_when_all_are_full(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    join(&w, 2, "b", 1);
    event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, 3, ARGOSY__FINISH__FINISH_NONE);
    event_closed(&w, 1);
    event_refused(&w, 2, last_sent(&w, SENT_START, 2)->request,
                  ARGOSY__REFUSED_REASON__REFUSED_FULL, 300);
    assert_int_equal(c.failed, 0);
    assert_int_equal(count_sent(&w, SENT_START, 2), 1);
    pass_ms(&w, 301);
    assert_int_equal(count_sent(&w, SENT_START, 2), 2);
    assert_continued(&w, &c, 2, 3);
    world_release(&w);
}

static void test_send_that_fails_picks_another(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    struct client before = client_of(N);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &before, NULL));
    join(&w, 2, "b", 1);
    uint64_t request = last_sent(&w, SENT_START, 1)->request;
    w.broken[1] = true;
    assert_true(client_start(&w, &c, NULL));
    assert_string_equal(gen_worker_id(c.gen), "b");
    while (count_sent(&w, SENT_CLOSE, 1) == 0) {
        /* Round robin: one of two in a row was meant for it. */
        pool_cancel(c.gen);
        assert_true(client_start(&w, &c, NULL));
        assert_string_equal(gen_worker_id(c.gen), "b");
    }
    /* What it says after that is not heard, and what it had moves when its stream is closed. */
    event_tokens(&w, 1, request, 0, 2, ARGOSY__FINISH__FINISH_NONE);
    assert_int_equal(before.n, 0);
    event_closed(&w, 1);
    assert_string_equal(gen_worker_id(before.gen), "b");
    struct client d = client_of(N);
    assert_true(client_start(&w, &d, NULL));
    assert_string_equal(gen_worker_id(d.gen), "b");
    assert_int_equal(pool_workers_ready(w.pool, "m"), 1);
    world_release(&w);
}

static void test_draining_worker_ends_what_it_has(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    struct client late = client_of(N);
    world_init(&w, NULL);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    uint64_t request = last_sent(&w, SENT_START, 1)->request;
    event_load(&w, 1, true);
    assert_int_equal(pool_workers_ready(w.pool, "m"), 0);
    assert_true(client_start(&w, &late, NULL));
    assert_string_equal(gen_worker_id(late.gen), "");
    run_to_the_end(&w, 1, request, 0);
    assert_int_equal(c.finished, 1);
    event_load(&w, 1, false);
    assert_string_equal(gen_worker_id(late.gen), "a");
    world_release(&w);
}

static void test_draining_for_too_long_moves(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    struct pool_config config = world_config();
    config.lease_ms = 1000000;
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    event_tokens(&w, 1, last_sent(&w, SENT_START, 1)->request, 0, 3, ARGOSY__FINISH__FINISH_NONE);
    event_load(&w, 1, true);
    join(&w, 2, "b", 1);
    pass_ms(&w, 4999);
    assert_string_equal(gen_worker_id(c.gen), "a");
    pass_ms(&w, 2);
    assert_string_equal(gen_worker_id(c.gen), "b");
    assert_int_equal(count_sent(&w, SENT_CANCEL, 1), 1);
    assert_continued(&w, &c, 2, 3);
    world_release(&w);
}

static void test_draining_without_another_worker_goes_on(void **state)
{
    (void)state;
    struct world w;
    struct client c = client_of(N);
    struct pool_config config = world_config();
    config.lease_ms = 1000000;
    world_init(&w, &config);
    join(&w, 1, "a", 1);
    assert_true(client_start(&w, &c, NULL));
    uint64_t request = last_sent(&w, SENT_START, 1)->request;
    event_load(&w, 1, true);
    pass_ms(&w, 60000);
    run_to_the_end(&w, 1, request, 0);
    assert_int_equal(c.finished, 1);
    world_release(&w);
}

/* ---- chance --------------------------------------------------------------------------------- */

/* A worker of the torture: it knows what it was told and answers truthfully, when it answers. */
struct chance {
    struct world w;
    struct rng rng;
    struct client clients[32];
    bool live[32];
    uint64_t next_stream;
    uint64_t streams[6]; /* 0: worker i is away */
    uint64_t epochs[6];
    size_t seen; /* frames looked at */
    struct job {
        uint64_t stream, request;
        uint32_t at, max;
    } jobs[4096];
    size_t n_jobs;
};

static void take_frames(struct chance *t)
{
    for (; t->seen < t->w.n_sent; t->seen++) {
        struct sent *s = &t->w.sent[t->seen];
        if (s->kind == SENT_START && t->n_jobs < 4096)
            t->jobs[t->n_jobs++] = (struct job){s->stream, s->request, s->n_output, s->max_tokens};
        for (size_t i = 0; s->kind == SENT_CANCEL && i < t->n_jobs; i++)
            if (t->jobs[i].request == s->request)
                t->jobs[i--] = t->jobs[--t->n_jobs];
        for (int i = 0; s->kind == SENT_CLOSE && i < 6; i++)
            if (t->streams[i] == s->stream)
                t->streams[i] = 0;
    }
    t->w.n_sent = t->seen = 0;
}

static void worker_acts(struct chance *t)
{
    char id[8];
    size_t i = rng_below(&t->rng, 6);
    snprintf(id, sizeof(id), "w%zu", i);
    if (t->streams[i] == 0 || rng_below(&t->rng, 4) == 0) {
        uint64_t old = t->streams[i];
        if (old && rng_below(&t->rng, 2) == 0)
            event_closed(&t->w, old);
        t->streams[i] = ++t->next_stream;
        assert_true(t->next_stream < STREAMS_MAX);
        event_opened(&t->w, t->streams[i]);
        event_hello(&t->w,
                    (struct hello){.stream = t->streams[i], .id = id, .epoch = ++t->epochs[i]});
        if (old)
            event_closed(&t->w, old);
    } else {
        event_load(&t->w, t->streams[i], rng_below(&t->rng, 8) == 0);
    }
}

static void job_acts(struct chance *t)
{
    if (t->n_jobs == 0)
        return;
    size_t i = rng_below(&t->rng, t->n_jobs);
    struct job *j = &t->jobs[i];
    uint64_t dice = rng_below(&t->rng, 20);
    uint32_t n = 1 + (uint32_t)rng_below(&t->rng, 3);
    if (n > j->max - j->at)
        n = j->max - j->at;
    struct job was = *j;
    j->at += n;
    bool done = j->at == j->max;
    if (done || dice == 0)
        *j = t->jobs[--t->n_jobs];
    if (dice == 0)
        event_refused(&t->w, was.stream, was.request, ARGOSY__REFUSED_REASON__REFUSED_FULL, 50);
    else
        event_tokens(&t->w, was.stream, was.request, was.at, n,
                     done ? ARGOSY__FINISH__FINISH_LENGTH : ARGOSY__FINISH__FINISH_NONE);
}

static void client_acts(struct chance *t)
{
    size_t i = rng_below(&t->rng, 32);
    struct client *c = &t->clients[i];
    if (t->live[i] && !c->finished && !c->failed) {
        if (rng_below(&t->rng, 40) == 0) {
            pool_cancel(c->gen);
            t->live[i] = false;
        }
        return;
    }
    *c = client_of(1 + (uint32_t)rng_below(&t->rng, 40));
    t->live[i] = client_start(&t->w, c, NULL);
}

static void test_chance(void **state)
{
    (void)state;
    uint32_t finished = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct chance *t = calloc(1, sizeof(*t));
        struct pool_config config = world_config();
        config.policy = policy_find(seed % 2 ? "least_load" : "power_of_two");
        config.moves_max = 50;
        rng_init(&t->rng, seed);
        world_init(&t->w, &config);
        for (int step = 0; step < 4000; step++) {
            uint64_t dice = rng_below(&t->rng, 100);
            if (dice < 4)
                worker_acts(t);
            else if (dice < 15)
                client_acts(t);
            else if (dice < 18)
                pass_ms(&t->w, rng_below(&t->rng, 300));
            else
                job_acts(t);
            take_frames(t);
        }
        for (int i = 0; i < 32; i++) {
            struct client *c = &t->clients[i];
            if (c->finished && c->n != c->request.max_tokens)
                fail_msg("seed %llu: %u of %u tokens", (unsigned long long)seed, c->n,
                         c->request.max_tokens);
            finished += c->finished > 0;
            if (t->live[i] && !c->finished && !c->failed)
                pool_cancel(c->gen);
        }
        assert_int_equal(pool_gens_live(t->w.pool), 0);
        assert_int_equal(pool_totals(t->w.pool).inflight, 0);
        world_release(&t->w);
        free(t);
    }
    assert_true(finished > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_death_at_every_token_goes_on_exactly),
        cmocka_unit_test(test_all_tokens_without_the_last_word_is_length),
        cmocka_unit_test(test_silent_worker_is_left_after_its_lease),
        cmocka_unit_test(test_lease_is_forgiven_when_the_router_slept),
        cmocka_unit_test(test_crowd_that_falls_silent_gets_time),
        cmocka_unit_test(test_newer_attachment_takes_over),
        cmocka_unit_test(test_moves_are_bounded),
        cmocka_unit_test(test_error_of_the_worker_moves),
        cmocka_unit_test(test_no_worker_waits_then_runs),
        cmocka_unit_test(test_no_worker_fails_after_the_wait),
        cmocka_unit_test(test_wait_queue_is_bounded),
        cmocka_unit_test(test_worker_that_restarts_keeps_its_streams),
        cmocka_unit_test(test_moved_stream_is_not_turned_away_when_all_are_full),
        cmocka_unit_test(test_send_that_fails_picks_another),
        cmocka_unit_test(test_draining_worker_ends_what_it_has),
        cmocka_unit_test(test_draining_for_too_long_moves),
        cmocka_unit_test(test_draining_without_another_worker_goes_on),
        cmocka_unit_test(test_chance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
