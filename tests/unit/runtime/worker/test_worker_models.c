/* A worker of several models: which of them are loaded, who waits, and what is told of it. Each
 * takes 100 MiB. */
#include "tests/unit/runtime/worker/worker_bench.h"

#include "runtime/base/log.h"

#define LOADED ARGOSY__MODEL_STATE__MODEL_LOADED
#define LOADING ARGOSY__MODEL_STATE__MODEL_LOADING
#define UNLOADED ARGOSY__MODEL_STATE__MODEL_UNLOADED
#define GONE ARGOSY__MODEL_STATE__MODEL_GONE
#define ENDLESS 1000000

static void prepare(struct bench *b, struct router *r, size_t n_models, int64_t memory_mib)
{
    static char *const models[] = {(char *)"fake=a.gguf", (char *)"b=b.gguf", (char *)"c=c.gguf"};
    memset(fakes, 0, sizeof(fakes));
    router_open(r);
    bench_prepare(b, r, 1);
    memcpy(b->models, models, sizeof(models));
    b->config.model.n = n_models;
    b->config.memory = memory_mib * (int64_t)FAKE_MIB;
}

/* Takes Hello and answers Welcome. */
static void attach(struct router *r)
{
    struct rpc_event *ev = expect(r, ARGOSY__FROM_WORKER__FRAME_HELLO);
    Argosy__Welcome w = ARGOSY__WELCOME__INIT;
    r->stream = ev->stream;
    w.lease_ms = 2000;
    rpc_event_free(ev);
    send_frame(r, ARGOSY__TO_WORKER__FRAME_WELCOME, &w);
}

static void start(struct router *r, uint64_t request, const char *model, uint32_t max_tokens)
{
    router_start(r, &(struct ask){
                        .request = request, .first = 10, .max_tokens = max_tokens, .model = model});
}

/* The next Load that says so of each model; the caller does not care for what comes before. */
static void expect_states(struct router *r, const Argosy__ModelState *states, size_t n)
{
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    for (bool same = false; !same;) {
        struct rpc_event *ev = expect(r, ARGOSY__FROM_WORKER__FRAME_LOAD);
        if (clock_mono_ms() > until)
            fail_msg("the models did not get there");
        const Argosy__Load *l = ev->from_worker->load;
        assert_int_equal(l->n_models, n);
        same = true;
        for (size_t i = 0; i < n; i++) {
            same &= l->models[i]->state == states[i];
            assert_int_equal(l->models[i]->kv_pages, l->models[i]->state == LOADED ? 64 : 0);
        }
        rpc_event_free(ev);
    }
}

#define EXPECT_STATES(r, ...)                                     \
    expect_states((r), (const Argosy__ModelState[]){__VA_ARGS__}, \
                  ARRAY_LEN(((const Argosy__ModelState[]){__VA_ARGS__})))

/* The next Load that has so many of the first and of the second model waiting. */
static void expect_waiting(struct router *r, uint32_t first, uint32_t second)
{
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    for (bool same = false; !same;) {
        struct rpc_event *ev = expect(r, ARGOSY__FROM_WORKER__FRAME_LOAD);
        const Argosy__Load *l = ev->from_worker->load;
        same = l->models[0]->waiting == first && l->models[1]->waiting == second;
        assert_int_equal(l->waiting, l->models[0]->waiting + l->models[1]->waiting);
        if (clock_mono_ms() > until)
            fail_msg("%u and %u do not come to wait", first, second);
        rpc_event_free(ev);
    }
}

/* The next frame that a request has a part in: its index, or −1 when it was refused. */
static int64_t next_of(struct router *r, uint64_t request, bool *finished)
{
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    for (;;) {
        struct rpc_event *ev = router_next(r, PATIENCE_MS);
        int64_t index = -2;
        if (!ev || ev->kind != RPC_FRAME || clock_mono_ms() > until)
            fail_msg("nothing came of request %llu", (unsigned long long)request);
        const Argosy__FromWorker *f = ev->from_worker;
        if (f->frame_case == ARGOSY__FROM_WORKER__FRAME_REFUSED && f->refused->request == request)
            index = -1;
        for (size_t i = 0;
             f->frame_case == ARGOSY__FROM_WORKER__FRAME_STEP && i < f->step->n_deltas; i++)
            if (f->step->deltas[i]->request == request) {
                index = f->step->deltas[i]->index;
                *finished = f->step->deltas[i]->finish != ARGOSY__FINISH__FINISH_NONE;
            }
        rpc_event_free(ev);
        if (index > -2)
            return index;
    }
}

static void wait_count(const char *what, atomic_uint *count, unsigned n)
{
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    while (atomic_load(count) != n) {
        if (clock_mono_ms() > until)
            fail_msg("%s: %u instead of %u", what, atomic_load(count), n);
        usleep(1000);
    }
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void test_hello_offers_all_models(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 3, 250);
    bench_start(&b);
    struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_HELLO);
    const Argosy__Hello *h = ev->from_worker->hello;
    static const struct {
        const char *name, *manifest;
        int state;
    } want[] = {{"fake", "abc123", LOADED}, {"b", "bcd234", UNLOADED}, {"c", "cde345", UNLOADED}};
    assert_int_equal(h->n_models, 3);
    for (int i = 0; i < 3; i++) {
        assert_string_equal(h->models[i]->name, want[i].name);
        assert_string_equal(h->models[i]->manifest_sha256, want[i].manifest);
        assert_int_equal(h->models[i]->state, want[i].state);
        assert_int_equal(h->models[i]->context_tokens, 2048);
        assert_int_equal(h->models[i]->kv_pages, 64);
        assert_int_equal(h->models[i]->page_tokens, 16);
        assert_int_equal(h->models[i]->memory_bytes, 100 * FAKE_MIB);
        assert_int_equal(h->models[i]->n_adapters, i == 0 ? 2 : 0);
    }
    assert_int_equal(h->kv_pages, 64);
    assert_int_equal(h->sequences_max, 2);
    rpc_event_free(ev);
    assert_int_equal(atomic_load(&fakes[0].opened), 1);
    assert_int_equal(atomic_load(&fakes[1].opened), 0);
    bench_close(&b);
    router_close(&r);
}

static void test_requests_alternate_in_the_memory_of_one(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 150);
    bench_start(&b);
    attach(&r);
    for (uint32_t i = 0; i < 6; i++) {
        start(&r, i, i % 2 ? "b" : "fake", 20);
        expect_tokens(&r, i, 10 + (i % 2 ? FAKE_MODEL : 0), 0, 20);
        if (i % 2)
            EXPECT_STATES(&r, UNLOADED, LOADED);
        else
            EXPECT_STATES(&r, LOADED, UNLOADED);
    }
    assert_int_equal(atomic_load(&fakes[0].opened), 3);
    assert_int_equal(atomic_load(&fakes[1].opened), 3);
    bench_close(&b);
    assert_int_equal(atomic_load(&fakes[0].freed), 3);
    assert_int_equal(atomic_load(&fakes[1].freed), 3);
    router_close(&r);
}

static void test_streams_go_on_while_another_model_loads(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    bool finished;
    prepare(&b, &r, 2, 250);
    bench_start(&b);
    attach(&r);
    atomic_store(&fakes[1].hold, true);
    start(&r, 1, "b", 3);
    EXPECT_STATES(&r, LOADED, LOADING);
    start(&r, 2, "fake", 100);
    expect_tokens(&r, 2, 10, 0, 100);
    start(&r, 3, "fake", ENDLESS);
    assert_int_equal(next_of(&r, 3, &finished), 0);
    atomic_store(&fakes[1].hold, false);
    for (int64_t i = 0; i < 3; i++) /* both run */
        assert_int_equal(next_of(&r, 1, &finished), i);
    assert_true(finished);
    assert_true(next_of(&r, 3, &finished) > 0);
    router_cancel(&r, 3);
    bench_close(&b);
    router_close(&r);
}

/* The first model is busy for good, as far as it goes; the second one gets in between. */
static void test_busy_model_makes_room_when_it_is_done(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    bool finished = false;
    prepare(&b, &r, 2, 150);
    bench_start(&b);
    attach(&r);
    start(&r, 1, "fake", 1000);
    assert_int_equal(next_of(&r, 1, &finished), 0);
    start(&r, 2, "b", 50);
    expect_waiting(&r, 0, 1);
    start(&r, 3, "fake", 50); /* waits, or b would never have its turn */
    expect_waiting(&r, 1, 1);
    while (!finished)
        assert_true(next_of(&r, 1, &finished) > 0);
    for (int64_t i = 0; i < 50; i++)
        assert_int_equal(next_of(&r, 2, &finished), i);
    assert_true(finished);
    for (int64_t i = 0; i < 50; i++)
        assert_int_equal(next_of(&r, 3, &finished), i);
    assert_int_equal(atomic_load(&fakes[0].opened), 2);
    assert_int_equal(atomic_load(&fakes[1].opened), 1);
    bench_close(&b);
    router_close(&r);
}

static void test_waiting_for_a_model_has_an_end(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    bool finished;
    prepare(&b, &r, 2, 150);
    b.config.load_wait_ms = 100;
    bench_start(&b);
    attach(&r);
    start(&r, 1, "fake", ENDLESS);
    assert_int_equal(next_of(&r, 1, &finished), 0);
    start(&r, 2, "b", 5);
    expect_refused(&r, 2, ARGOSY__REFUSED_REASON__REFUSED_FULL);
    /* Nobody waits any more: the model takes requests again. */
    start(&r, 3, "fake", 5);
    assert_int_equal(next_of(&r, 3, &finished), 0);
    router_cancel(&r, 1);
    assert_int_equal(atomic_load(&fakes[1].opened), 0);
    bench_close(&b);
    router_close(&r);
}

static void test_deadline_counts_while_waiting(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 250);
    bench_start(&b);
    attach(&r);
    atomic_store(&fakes[1].hold, true);
    uint32_t prompt[] = {1};
    Argosy__Sampling sampling = ARGOSY__SAMPLING__INIT;
    Argosy__Start s = ARGOSY__START__INIT;
    sampling.top_p = sampling.repetition_penalty = 1;
    s.request = 1;
    s.model = (char *)"b";
    s.prompt = prompt;
    s.n_prompt = 1;
    s.max_tokens = 5;
    s.sampling = &sampling;
    s.deadline_ms = 100;
    send_frame(&r, ARGOSY__TO_WORKER__FRAME_START, &s);
    expect_refused(&r, 1, ARGOSY__REFUSED_REASON__REFUSED_UNKNOWN);
    atomic_store(&fakes[1].hold, false);
    bench_close(&b);
    router_close(&r);
}

static void test_cancel_reaches_those_that_wait(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 250);
    bench_start(&b);
    attach(&r);
    atomic_store(&fakes[1].hold, true);
    start(&r, 1, "b", ENDLESS);
    start(&r, 2, "b", 7);
    EXPECT_STATES(&r, LOADED, LOADING);
    router_cancel(&r, 1);
    start(&r, 1, "fake", 3); /* the id is free: nothing of it is left */
    expect_tokens(&r, 1, 10, 0, 3);
    atomic_store(&fakes[1].hold, false);
    expect_tokens(&r, 2, 10 + FAKE_MODEL, 0, 7);
    bench_close(&b);
    router_close(&r);
}

static void test_router_that_goes_takes_those_that_wait_along(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 250);
    bench_start(&b);
    attach(&r);
    atomic_store(&fakes[1].hold, true);
    start(&r, 1, "b", ENDLESS);
    EXPECT_STATES(&r, LOADED, LOADING);
    rpc_server_close(r.server, r.stream);
    expect_closed(&r);
    attach(&r);
    atomic_store(&fakes[1].hold, false);
    EXPECT_STATES(&r, LOADED, LOADED);
    assert_int_equal(atomic_load(&atomic_load(&fakes[1].engine)->n_live), 0);
    start(&r, 1, "b", 4);
    expect_tokens(&r, 1, 10 + FAKE_MODEL, 0, 4);
    bench_close(&b);
    router_close(&r);
}

static void test_no_more_wait_than_may(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 250);
    bench_start(&b);
    attach(&r);
    atomic_store(&fakes[1].hold, true);
    for (uint64_t i = 1; i <= 5; i++) /* 2 run, 2 wait */
        start(&r, i, "b", 1);
    expect_refused(&r, 5, ARGOSY__REFUSED_REASON__REFUSED_FULL);
    atomic_store(&fakes[1].hold, false);
    bench_close(&b);
    router_close(&r);
}

/* A load that fails takes its model out of the offers, and nothing else. */
static void expect_gone(struct router *r, struct bench *b)
{
    bool finished;
    start(r, 1, "fake", ENDLESS);
    assert_int_equal(next_of(r, 1, &finished), 0);
    start(r, 2, "b", 5);
    EXPECT_STATES(r, LOADED, GONE); /* before the refusal, or the router would ask again */
    expect_refused(r, 2, ARGOSY__REFUSED_REASON__REFUSED_MODEL);
    start(r, 3, "b", 5);
    expect_refused(r, 3, ARGOSY__REFUSED_REASON__REFUSED_MODEL);
    assert_true(next_of(r, 1, &finished) > 0);
    router_cancel(r, 1);
    assert_int_equal(atomic_load(&fakes[1].opened), 1);
    bench_close(b);
    assert_int_equal(b->rc, 0);
    router_close(r);
}

static void test_model_that_cannot_be_loaded_is_gone(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 250);
    atomic_store(&fakes[1].fails, true);
    bench_start(&b);
    attach(&r);
    expect_gone(&r, &b);
}

static void test_model_whose_file_changed_is_gone(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 250);
    bench_start(&b);
    attach(&r);
    atomic_store(&fakes[1].other, true);
    expect_gone(&r, &b);
    assert_int_equal(atomic_load(&fakes[1].freed), 1);
}

static void test_worker_ends_when_no_model_is_left(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 150);
    bench_start(&b);
    attach(&r);
    atomic_store(&fakes[0].fails, true);
    atomic_store(&fakes[1].fails, true);
    start(&r, 1, "b", 1); /* pushes the first one out for nothing */
    expect_refused(&r, 1, ARGOSY__REFUSED_REASON__REFUSED_MODEL);
    start(&r, 2, "fake", 1);
    expect_closed(&r);
    bench_join(&b);
    assert_int_equal(b.rc, ERR_PEER);
    router_close(&r);
}

static void test_drain_does_not_wait_for_a_load(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 250);
    bench_start(&b);
    attach(&r);
    atomic_store(&fakes[1].hold, true);
    start(&r, 1, "b", 5);
    EXPECT_STATES(&r, LOADED, LOADING);
    worker_drain(b.worker);
    expect_refused(&r, 1, ARGOSY__REFUSED_REASON__REFUSED_DRAINING);
    expect_closed(&r);
    pthread_join(b.thread, NULL);
    assert_int_equal(b.rc, 0);
    assert_true(worker_loads(b.worker)); /* main.c ends here; we wait */
    atomic_store(&fakes[1].hold, false);
    worker_free(b.worker);
    assert_int_equal(atomic_load(&fakes[1].freed), 1);
    router_close(&r);
}

static void test_idle_models_are_unloaded(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 250);
    b.config.unload_after_ms = 150;
    bench_start(&b);
    attach(&r);
    start(&r, 1, "b", 300); /* takes longer than that, and stays */
    expect_tokens(&r, 1, 10 + FAKE_MODEL, 0, 300);
    EXPECT_STATES(&r, UNLOADED, UNLOADED);
    assert_int_equal(atomic_load(&fakes[1].opened), 1);
    start(&r, 2, "fake", 5);
    expect_tokens(&r, 2, 10, 0, 5);
    /* A router that comes now is offered all of them still. */
    EXPECT_STATES(&r, UNLOADED, UNLOADED);
    rpc_server_close(r.server, r.stream);
    expect_closed(&r);
    struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_HELLO);
    assert_int_equal(ev->from_worker->hello->n_models, 2);
    assert_int_equal(ev->from_worker->hello->kv_pages, 64);
    assert_int_equal(ev->from_worker->hello->models[0]->state, UNLOADED);
    assert_int_equal(ev->from_worker->hello->models[0]->n_adapters, 2);
    rpc_event_free(ev);
    bench_close(&b);
    router_close(&r);
}

static void test_least_recently_used_goes_first(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 3, 250);
    bench_start(&b);
    attach(&r);
    start(&r, 1, "b", 30);
    expect_tokens(&r, 1, 10 + FAKE_MODEL, 0, 30);
    start(&r, 2, "fake", 30);
    expect_tokens(&r, 2, 10, 0, 30);
    start(&r, 3, "c", 5);
    expect_tokens(&r, 3, 10 + 2 * FAKE_MODEL, 0, 5);
    EXPECT_STATES(&r, LOADED, UNLOADED, LOADED);
    bench_close(&b);
    router_close(&r);
}

/* Of one model only: its requests are for other workers, those of the rest go on here. */
static void test_lost_ranks_are_one_models_loss(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    bool finished;
    prepare(&b, &r, 2, 250);
    bench_start(&b);
    attach(&r);
    start(&r, 1, "fake", ENDLESS);
    start(&r, 2, "b", ENDLESS);
    assert_int_equal(next_of(&r, 2, &finished), 0);
    atomic_store(&atomic_load(&fakes[1].engine)->lost, true);
    for (int64_t i; (i = next_of(&r, 2, &finished)) >= 0;)
        assert_false(finished);
    assert_true(next_of(&r, 1, &finished) >= 0);
    start(&r, 3, "b", 3); /* with new ranks */
    for (int64_t i = 0; i < 3; i++)
        assert_int_equal(next_of(&r, 3, &finished), i);
    assert_int_equal(atomic_load(&fakes[1].opened), 2);
    router_cancel(&r, 1);
    bench_close(&b);
    assert_int_equal(b.rc, 0);
    router_close(&r);
}

/* Steps of 10 ms, and a router hears of blocks: 1 to … of the first model, FAKE_MODEL + 1 to … of
 * the second. What is unloaded takes its blocks along. */
static void test_blocks_go_with_their_model(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    bool has[2][FAKE_BLOCKS_MAX + 1000] = {{false}};
    uint32_t n[2] = {0};
    fake_blocks = 10000; /* more than a frame takes */
    prepare(&b, &r, 2, 150);
    bench_start(&b);
    attach(&r);
    start(&r, 1, "b", 20);
    while (n[0] > 0 || n[1] < 20) {
        struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_CACHE_EVENTS);
        const Argosy__CacheEvents *m = ev->from_worker->cache_events;
        for (size_t i = 0; i < m->n_evicted; i++) {
            bool *it = &has[m->evicted[i] / FAKE_MODEL][m->evicted[i] % FAKE_MODEL];
            n[m->evicted[i] / FAKE_MODEL] -= *it;
            *it = false;
        }
        for (size_t i = 0; i < m->n_stored; i++) {
            bool *it = &has[m->stored[i] / FAKE_MODEL][m->stored[i] % FAKE_MODEL];
            n[m->stored[i] / FAKE_MODEL] += !*it;
            *it = true;
        }
        rpc_event_free(ev);
    }
    /* A router that comes now hears of the second alone. */
    rpc_server_close(r.server, r.stream);
    expect_closed(&r);
    attach(&r);
    for (n[1] = 0; n[1] < 20;) {
        struct rpc_event *ev = expect(&r, ARGOSY__FROM_WORKER__FRAME_CACHE_EVENTS);
        const Argosy__CacheEvents *m = ev->from_worker->cache_events;
        assert_int_equal(m->n_evicted, 0);
        for (size_t i = 0; i < m->n_stored; i++)
            assert_int_equal(m->stored[i] / FAKE_MODEL, 1);
        n[1] += (uint32_t)m->n_stored;
        rpc_event_free(ev);
    }
    fake_blocks = 0;
    bench_close(&b);
    router_close(&r);
}

static void expect_no_start(struct bench *b, int code, const char *words)
{
    struct err e;
    assert_int_equal(worker_open(&b->config, &b->worker, &e), code);
    if (!strstr(e.msg, words))
        fail_msg("'%s' is not in '%s'", words, e.msg);
}

static void test_start_says_what_does_not_fit(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 2, 99);
    expect_no_start(&b, ERR_CONFIG,
                    "model fake takes 80 MiB of weights and 20 MiB of KV pages: 1 MiB more than "
                    "memory=99M; kv_bytes, context_max");
    assert_int_equal(atomic_load(&fakes[0].opened), 0);
    b.config.model.n = 1;
    expect_no_start(&b, ERR_CONFIG, "1 MiB more than memory=99M");
    b.config.model.n = 2;
    b.config.memory = 0;
    fakes[1].twin = true;
    expect_no_start(&b, ERR_CONFIG, "models fake and b are the same");
    fakes[1].twin = false;
    b.models[1] = (char *)"b=nowhere.gguf";
    expect_no_start(&b, ERR_NOT_FOUND, "nowhere.gguf: no file");
    b.models[1] = (char *)"b=b.gguf";
    atomic_store(&fakes[0].fails, true);
    expect_no_start(&b, ERR_NOMEM, "no memory for the fake");
    assert_int_equal(atomic_load(&fakes[0].opened), atomic_load(&fakes[0].freed) + 1);
    router_close(&r);
}

static void test_loads_come_one_after_the_other(void **state)
{
    (void)state;
    struct router r;
    struct bench b;
    prepare(&b, &r, 3, 350);
    bench_start(&b);
    attach(&r);
    atomic_store(&fakes[1].hold, true);
    start(&r, 1, "b", 1);
    start(&r, 2, "c", 1);
    EXPECT_STATES(&r, LOADED, LOADING, UNLOADED);
    atomic_store(&fakes[1].hold, false);
    wait_count("loads of c", &fakes[2].opened, 1);
    EXPECT_STATES(&r, LOADED, LOADED, LOADED);
    bench_close(&b);
    router_close(&r);
}

int main(void)
{
    log_init("test", LOG_LEVEL_OFF);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello_offers_all_models),
        cmocka_unit_test(test_requests_alternate_in_the_memory_of_one),
        cmocka_unit_test(test_streams_go_on_while_another_model_loads),
        cmocka_unit_test(test_busy_model_makes_room_when_it_is_done),
        cmocka_unit_test(test_waiting_for_a_model_has_an_end),
        cmocka_unit_test(test_deadline_counts_while_waiting),
        cmocka_unit_test(test_cancel_reaches_those_that_wait),
        cmocka_unit_test(test_router_that_goes_takes_those_that_wait_along),
        cmocka_unit_test(test_no_more_wait_than_may),
        cmocka_unit_test(test_model_that_cannot_be_loaded_is_gone),
        cmocka_unit_test(test_model_whose_file_changed_is_gone),
        cmocka_unit_test(test_worker_ends_when_no_model_is_left),
        cmocka_unit_test(test_drain_does_not_wait_for_a_load),
        cmocka_unit_test(test_idle_models_are_unloaded),
        cmocka_unit_test(test_least_recently_used_goes_first),
        cmocka_unit_test(test_lost_ranks_are_one_models_loss),
        cmocka_unit_test(test_blocks_go_with_their_model),
        cmocka_unit_test(test_start_says_what_does_not_fit),
        cmocka_unit_test(test_loads_come_one_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
