/* The service between a fake engine and routers that the test plays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>

#include "runtime/base/log.h"
#include "runtime/grammar/grammar_store.h"
#include "tests/unit/runtime/text/tiny_model.h"
#include "tests/unit/runtime/worker/worker_bench.h"

/* ---- tests -------------------------------------------------------------------------------------
 */

static void test_worker_streams_a_request(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 7, .first = 100, .max_tokens = 50});
    expect_tokens(&r, 7, 100, 0, 50);
    /* The id is free again. */
    router_start(&r, &(struct ask){.request = 7, .first = 200, .max_tokens = 3});
    expect_tokens(&r, 7, 200, 0, 3);
    bench_close(&b);
    router_close(&r);
}

static void test_worker_sends_the_logprobs_that_were_asked_for(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 1, .first = 5, .max_tokens = 1, .top_logprobs = 3});
    struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_STEP);
    const Argosy__Delta *d = ev->from_worker->step->deltas[0];
    assert_int_equal(d->n_logprobs, 1);
    assert_true(d->logprobs[0]->logprob == -0.5f);
    assert_int_equal(d->logprobs[0]->n_top_ids, 3);
    assert_int_equal(d->logprobs[0]->top_ids[2], 7);
    assert_true(d->logprobs[0]->top_logprobs[2] == -2.5f);
    rpc_event_free(ev);
    bench_close(&b);
    router_close(&r);
}

/* Three vectors of 240 kB in one step are over what one frame takes. */
static void test_worker_sends_embeddings(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    uint32_t n = 0, frames = 0, decoded = 0;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    atomic_store(&b.engine->step_us, 50000);
    for (uint32_t i = 0; i < 3; i++)
        router_start(&r, &(struct ask){.request = i,
                                       .first = 100 + i,
                                       .max_tokens = 1,
                                       .pooling = i % 2 ? ARGOSY__POOLING__POOLING_MEAN
                                                        : ARGOSY__POOLING__POOLING_LAST});
    for (; n < 3; frames++) {
        struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_STEP);
        const Argosy__Step *s = ev->from_worker->step;
        for (size_t i = 0; i < s->n_deltas; i++, n++) {
            const Argosy__Delta *d = s->deltas[i];
            assert_int_equal(d->n_embedding, FAKE_WIDTH);
            assert_true(d->embedding[0] ==
                        (d->request % 2 ? ENGINE_POOLING_MEAN : ENGINE_POOLING_LAST));
            assert_true(d->embedding[1] == (float)(100 + d->request));
            assert_int_equal(d->finish, ARGOSY__FINISH__FINISH_STOP);
        }
        assert_true(s->n_deltas <= 2);
        decoded += s->decode_tokens;
        rpc_event_free(ev);
    }
    assert_true(frames >= 2);
    assert_int_equal(decoded, 3); /* each step's numbers are told once */
    router_start(&r, &(struct ask){.request = 9, .first = 1, .max_tokens = 1, .pooling = 7});
    expect_refused(&r, 9, ARGOSY__REFUSED_REASON__REFUSED_INVALID);
    bench_close(&b);
    router_close(&r);
}

/* Its grammar is compiled by another thread: the Start waits, is cancelled, or goes with its router
 * meanwhile. */
static void test_worker_starts_when_the_grammar_is_compiled(void **state)
{
    (void)state;
    const struct tiny_model vocab = {.pre = "gpt-2", .bos = 254, .eos = 255};
    struct grammar_store_limits limits;
    struct tokenizer *tokenizer;
    struct router r;
    struct bench b;
    struct err e;
    grammar_store_limits_default(&limits);
    assert_int_equal(tiny_model_load(&vocab, &tokenizer, &e), 0);
    assert_int_equal(grammar_store_create(tokenizer, &limits, &fake_grammars, &e), 0);
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    for (uint64_t id = 1; id < 4; id++) {
        router_start(
            &r, &(struct ask){.request = id, .first = 5, .max_tokens = 3, .regex = "[a-z]{1,90}"});
        expect_tokens(&r, id, 5, 0, 3);
    }
    router_start(&r, &(struct ask){
                         .request = 5, .first = 5, .max_tokens = 100000, .regex = "(a{1,99}b){9}"});
    router_cancel(&r, 5);
    router_start(&r, &(struct ask){
                         .request = 6, .first = 5, .max_tokens = 100000, .regex = "(a{1,99}c){9}"});
    bench_close(&b);
    router_close(&r);
    grammar_store_free(fake_grammars);
    fake_grammars = NULL;
    tokenizer_free(tokenizer);
}

/* A step that guessed right gives several tokens, each with its own logprobs. */
static void test_worker_sends_several_tokens_of_a_step(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {4, 4, 2};
    struct router r;
    struct bench b;
    uint32_t at = 0;
    fake_burst = 4;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 1, .first = 5, .max_tokens = 10, .top_logprobs = 2});
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_STEP);
        const Argosy__Delta *d = ev->from_worker->step->deltas[0];
        assert_int_equal(d->index, at);
        assert_int_equal(d->n_tokens, sizes[i]);
        assert_int_equal(d->n_logprobs, sizes[i]);
        for (uint32_t k = 0; k < sizes[i]; k++, at++) {
            assert_int_equal(d->tokens[k], 5 + at);
            assert_int_equal(d->logprobs[k]->top_ids[1], 5 + at + 1);
        }
        assert_int_equal(d->finish,
                         at == 10 ? ARGOSY__FINISH__FINISH_LENGTH : ARGOSY__FINISH__FINISH_NONE);
        rpc_event_free(ev);
    }
    bench_close(&b);
    router_close(&r);
    fake_burst = 1;
}

static void test_worker_runs_the_adapter_that_is_asked_for(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 1, .first = 100, .max_tokens = 3, .adapter = "bb"});
    expect_tokens(&r, 1, 100 + 2 * FAKE_ADAPTER, 0, 3);
    router_start(&r, &(struct ask){.request = 2, .first = 100, .max_tokens = 3, .adapter = "cc"});
    expect_refused(&r, 2, ARGOSY__REFUSED_REASON__REFUSED_MODEL);
    bench_close(&b);
    router_close(&r);
}

static void test_worker_reports_load_on_change_and_in_silence(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    for (int i = 0; i < 4; i++) /* nothing changes: these are heartbeats */
        rpc_event_free(expect(&r, ARGOSY__FROM_WORKER__FRAME_LOAD));
    /* A heartbeat is 200 ms, ten steps: what changed is told before. */
    atomic_store(&b.engine->step_us, 20000);
    router_start(&r, &(struct ask){.request = 1, .first = 5, .max_tokens = 100});
    int steps = 0;
    for (bool running = false; !running;) {
        struct rpc_event *ev = router_next(&r, PATIENCE_MS);
        assert_non_null(ev);
        assert_int_equal(ev->kind, RPC_FRAME);
        const Argosy__FromWorker *f = ev->from_worker;
        steps += f->frame_case == ARGOSY__FROM_WORKER__FRAME_STEP;
        running = f->frame_case == ARGOSY__FROM_WORKER__FRAME_LOAD && f->load->running == 1;
        rpc_event_free(ev);
    }
    assert_true(steps <= 4);
    bench_close(&b);
    router_close(&r);
}

static void test_worker_tells_what_every_worker_would_say(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 3, .first = FAKE_DEAD_END, .max_tokens = 9});
    struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_STEP);
    const Argosy__Delta *d = ev->from_worker->step->deltas[0];
    assert_int_equal(d->finish, ARGOSY__FINISH__FINISH_ERROR);
    assert_string_equal(d->error, "a dead end");
    assert_true(d->hopeless);
    rpc_event_free(ev);
    bench_close(&b);
    router_close(&r);
}

/* A heartbeat is 200 ms, the step takes 1.5 s. */
static void test_worker_reports_load_within_a_long_step(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    atomic_store(&b.engine->step_us, 1500000);
    router_start(&r, &(struct ask){.request = 1, .first = 5, .max_tokens = 1});
    int loads = 0;
    for (bool stepped = false; !stepped;) {
        struct rpc_event *ev = router_next(&r, PATIENCE_MS);
        assert_non_null(ev);
        assert_int_equal(ev->kind, RPC_FRAME);
        const Argosy__FromWorker *f = ev->from_worker;
        stepped = f->frame_case == ARGOSY__FROM_WORKER__FRAME_STEP;
        loads += f->frame_case == ARGOSY__FROM_WORKER__FRAME_LOAD;
        rpc_event_free(ev);
    }
    assert_true(loads >= 4); /* two at most come before the step */
    bench_close(&b);
    router_close(&r);
}

static void test_worker_cancels_at_once(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_cancel(&r, 99); /* unknown: nothing happens */
    router_start(&r, &(struct ask){.request = 1, .first = 5, .max_tokens = 100000});
    wait_live(&b, 1);
    router_cancel(&r, 1);
    wait_live(&b, 0);
    assert_int_equal(atomic_load(&b.engine->cancelled), 1);
    bench_close(&b);
    router_close(&r);
}

static void test_worker_refuses_with_the_reason(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 1, .first = 1, .max_tokens = 5, .model = "other"});
    expect_refused(&r, 1, ARGOSY__REFUSED_REASON__REFUSED_MODEL);
    router_start(&r, &(struct ask){.request = 2, .first = FAKE_TOO_LONG, .max_tokens = 5});
    expect_refused(&r, 2, ARGOSY__REFUSED_REASON__REFUSED_INVALID);
    router_start(&r, &(struct ask){.request = 3, .first = 1, .max_tokens = 0});
    expect_refused(&r, 3, ARGOSY__REFUSED_REASON__REFUSED_INVALID);
    router_start(&r, &(struct ask){.request = 4, .first = 1, .max_tokens = 5, .temperature = -1});
    expect_refused(&r, 4, ARGOSY__REFUSED_REASON__REFUSED_INVALID);
    for (uint64_t id = 10; id < 13; id++)
        router_start(&r, &(struct ask){.request = id, .first = 1, .max_tokens = 100000});
    router_start(&r, &(struct ask){.request = 13, .first = 1, .max_tokens = 100000});
    expect_refused(&r, 13, ARGOSY__REFUSED_REASON__REFUSED_FULL); /* the engine takes 3 */
    for (uint64_t id = 10; id < 13; id++)
        router_cancel(&r, id);
    wait_live(&b, 0);
    bench_close(&b);
    router_close(&r);
}

static void test_worker_drops_a_router_that_uses_an_id_twice(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 1, .first = 1, .max_tokens = 100000});
    router_start(&r, &(struct ask){.request = 1, .first = 1, .max_tokens = 100000});
    expect_closed(&r);
    wait_live(&b, 0);
    router_attach(&r); /* and comes back */
    bench_close(&b);
    router_close(&r);
}

static void test_worker_drains_when_a_router_asks(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    atomic_store(&b.engine->step_us, 5000);
    router_start(&r, &(struct ask){.request = 1, .first = 1, .max_tokens = 60});
    wait_live(&b, 1);
    Argosy__Drain d = ARGOSY__DRAIN__INIT;
    d.why = (char *)"maintenance";
    send_frame(&r, ARGOSY__TO_WORKER__FRAME_DRAIN, &d);
    for (bool draining = false; !draining;) {
        struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_LOAD);
        draining = ev->from_worker->load->draining;
        rpc_event_free(ev);
    }
    router_start(&r, &(struct ask){.request = 2, .first = 1, .max_tokens = 5});
    bool refused = false, finished = false;
    while (!refused || !finished) {
        struct rpc_event *ev = router_next(&r, PATIENCE_MS);
        assert_non_null(ev);
        assert_int_equal(ev->kind, RPC_FRAME);
        const Argosy__FromWorker *f = ev->from_worker;
        if (f->frame_case == ARGOSY__FROM_WORKER__FRAME_REFUSED) {
            assert_int_equal(f->refused->request, 2);
            assert_int_equal(f->refused->reason, ARGOSY__REFUSED_REASON__REFUSED_DRAINING);
            refused = true;
        } else if (f->frame_case == ARGOSY__FROM_WORKER__FRAME_STEP) {
            finished |= f->step->deltas[0]->finish == ARGOSY__FINISH__FINISH_LENGTH;
        }
        rpc_event_free(ev);
    }
    expect_closed(&r);
    bench_join(&b);
    router_close(&r);
}

static void test_worker_gives_up_after_the_drain_timeout(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    b.config.drain_timeout_ms = 300;
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 1, .first = 1, .max_tokens = 1000000});
    wait_live(&b, 1);
    uint64_t before = clock_mono_ms();
    worker_drain(b.worker);
    expect_closed(&r);
    bench_join(&b);
    assert_true(clock_mono_ms() - before >= 290);
    router_close(&r);
}

static void test_worker_leaves_when_a_rank_is_lost(void **state)
{
    (void)state;
    for (int busy = 0; busy < 2; busy++) {
        struct router r;
        struct bench b;
        router_open(&r);
        bench_open(&b, &r, 1);
        router_attach(&r);
        if (busy) {
            router_start(&r, &(struct ask){.request = 1, .first = 1, .max_tokens = 1000000});
            wait_live(&b, 1);
        }
        atomic_store(&b.engine->lost, true);
        expect_closed(&r);
        bench_join(&b);
        assert_int_equal(b.rc, ERR_PEER);
        router_close(&r);
    }
}

static void test_worker_comes_back_after_a_router_restart(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 1, .first = 1, .max_tokens = 1000000});
    wait_live(&b, 1);
    router_stop(&r);
    wait_live(&b, 0); /* nobody hears it any more */
    usleep(100000);   /* some dials fail */
    router_listen(&r);
    router_attach(&r); /* with a higher epoch */
    router_start(&r, &(struct ask){.request = 1, .first = 40, .max_tokens = 10});
    expect_tokens(&r, 1, 40, 0, 10);
    bench_close(&b);
    router_close(&r);
}

static void test_worker_serves_two_routers_with_the_same_ids(void **state)
{
    (void)state;
    struct router r[2];
    struct bench b;
    router_open(&r[0]);
    router_open(&r[1]);
    bench_open(&b, r, 2);
    router_attach(&r[0]);
    router_attach(&r[1]);
    router_start(&r[0], &(struct ask){.request = 1, .first = 100, .max_tokens = 300});
    router_start(&r[1], &(struct ask){.request = 1, .first = 500, .max_tokens = 300});
    expect_tokens(&r[0], 1, 100, 0, 300);
    expect_tokens(&r[1], 1, 500, 0, 300);
    /* One router's end is nothing to the other one. */
    router_start(&r[1], &(struct ask){.request = 2, .first = 7, .max_tokens = 300});
    router_stop(&r[0]);
    expect_tokens(&r[1], 2, 7, 0, 300);
    bench_close(&b);
    router_close(&r[0]);
    router_close(&r[1]);
}

/* What a router knows of the cache: whether a block is there. */
struct picture {
    bool has[FAKE_BLOCKS_MAX + 1000];
    uint32_t n, frames;
};

/* Takes the next CacheEvents. */
static void hear_of_cache(struct router *r, struct picture *p)
{
    struct rpc_event *ev = expect(r, ARGOSY__FROM_WORKER__FRAME_CACHE_EVENTS);
    const Argosy__CacheEvents *m = ev->from_worker->cache_events;
    assert_true(m->n_evicted + m->n_stored > 0);
    for (size_t i = 0; i < m->n_evicted; i++) {
        assert_in_range(m->evicted[i], 1, ARRAY_LEN(p->has) - 1);
        p->n -= p->has[m->evicted[i]];
        p->has[m->evicted[i]] = false;
    }
    for (size_t i = 0; i < m->n_stored; i++) {
        assert_in_range(m->stored[i], 1, ARRAY_LEN(p->has) - 1);
        p->n += !p->has[m->stored[i]];
        p->has[m->stored[i]] = true;
    }
    p->frames++;
    rpc_event_free(ev);
}

static void test_worker_tells_of_its_cache(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    struct picture *p = calloc(1, sizeof(*p));
    router_open(&r);
    bench_open(&b, &r, 1);
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 1, .first = 1, .max_tokens = 200});
    while (p->n < 200)
        hear_of_cache(&r, p);
    assert_true(p->has[1] && p->has[200] && !p->has[201]);
    print_message("200 steps of 1 ms: %u frames\n", p->frames);
    assert_true(p->frames <= 100); /* news of 20 ms go together */
    bench_close(&b);
    router_close(&r);
    free(p);
}

/* A full cache does not fit a frame; and a router that comes back starts from nothing. */
static void test_worker_tells_all_of_its_cache_after_attaching(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    struct picture *p = calloc(1, sizeof(*p));
    fake_blocks = FAKE_BLOCKS_MAX;
    router_open(&r);
    bench_open(&b, &r, 1);
    for (int i = 0; i < 2; i++) {
        router_attach(&r);
        while (p->n < FAKE_BLOCKS_MAX)
            hear_of_cache(&r, p);
        assert_true(p->has[1] && p->has[FAKE_BLOCKS_MAX]);
        assert_int_equal(p->frames, 3);
        memset(p, 0, sizeof(*p));
        rpc_server_close(r.server, r.stream);
        expect_closed(&r);
    }
    router_attach(&r);
    router_start(&r, &(struct ask){.request = 1, .first = 1, .max_tokens = 300});
    while (!p->has[FAKE_BLOCKS_MAX + 300] || p->n < FAKE_BLOCKS_MAX)
        hear_of_cache(&r, p);
    assert_int_equal(p->n, FAKE_BLOCKS_MAX);
    assert_true(!p->has[300] && p->has[301]);
    fake_blocks = 0;
    bench_close(&b);
    router_close(&r);
    free(p);
}

static void test_worker_goes_away_when_refused(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    router_open(&r);
    bench_open(&b, &r, 1);
    struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_HELLO);
    r.stream = ev->stream;
    r.epoch = ev->from_worker->hello->epoch;
    rpc_event_free(ev);
    Argosy__Welcome w = ARGOSY__WELCOME__INIT;
    w.refused = (char *)"banned";
    send_frame(&r, ARGOSY__TO_WORKER__FRAME_WELCOME, &w);
    expect_closed(&r);
    router_attach(&r); /* it asks again, later */
    bench_close(&b);
    router_close(&r);
}

static int count_fds(void)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static long rss_kb(void)
{
    long pages = 0, total;
    FILE *f = fopen("/proc/self/statm", "r");
    if (fscanf(f, "%ld %ld", &total, &pages) != 2)
        pages = 0;
    fclose(f);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static void test_worker_reattaches_a_thousand_times_without_leaking(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    int fds = 0;
    long rss = 0;
    router_open(&r);
    bench_open(&b, &r, 1);
    for (int i = 0; i < 1000; i++) {
        router_attach(&r);
        rpc_server_close(r.server, r.stream);
        expect_closed(&r);
        if (i == 100) {
            fds = count_fds();
            rss = rss_kb();
        }
    }
    router_attach(&r);
    int fds_after = count_fds();
    long rss_after = rss_kb();
    print_message("descriptors %d → %d, memory %ld → %ld KiB\n", fds, fds_after, rss, rss_after);
    assert_in_range(fds_after, fds - 4, fds + 4);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    assert_true(rss_after - rss < 2048);
#endif
    bench_close(&b);
    router_close(&r);
}

int main(void)
{
    log_init("test", LOG_LEVEL_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_streams_a_request),
        cmocka_unit_test(test_worker_sends_the_logprobs_that_were_asked_for),
        cmocka_unit_test(test_worker_sends_embeddings),
        cmocka_unit_test(test_worker_sends_several_tokens_of_a_step),
        cmocka_unit_test(test_worker_runs_the_adapter_that_is_asked_for),
        cmocka_unit_test(test_worker_reports_load_on_change_and_in_silence),
        cmocka_unit_test(test_worker_tells_what_every_worker_would_say),
        cmocka_unit_test(test_worker_reports_load_within_a_long_step),
        cmocka_unit_test(test_worker_cancels_at_once),
        cmocka_unit_test(test_worker_refuses_with_the_reason),
        cmocka_unit_test(test_worker_drops_a_router_that_uses_an_id_twice),
        cmocka_unit_test(test_worker_starts_when_the_grammar_is_compiled),
        cmocka_unit_test(test_worker_drains_when_a_router_asks),
        cmocka_unit_test(test_worker_gives_up_after_the_drain_timeout),
        cmocka_unit_test(test_worker_leaves_when_a_rank_is_lost),
        cmocka_unit_test(test_worker_comes_back_after_a_router_restart),
        cmocka_unit_test(test_worker_serves_two_routers_with_the_same_ids),
        cmocka_unit_test(test_worker_tells_of_its_cache),
        cmocka_unit_test(test_worker_tells_all_of_its_cache_after_attaching),
        cmocka_unit_test(test_worker_goes_away_when_refused),
        cmocka_unit_test(test_worker_reattaches_a_thousand_times_without_leaking),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
