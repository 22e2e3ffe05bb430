/* worker_bench.h: routers that a test plays, and a worker between them and fake engines. */
#ifndef ARGOSY_TESTS_WORKER_BENCH_H
#define ARGOSY_TESTS_WORKER_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/rpc/rpc.h"
#include "runtime/worker/worker.h"
#include "tests/unit/runtime/worker/fake_engine.h"

#define PATIENCE_MS 20000

/* ---- a router ----------------------------------------------------------------------------------
 */

struct router {
    struct mailbox box;
    struct mail *list;
    struct rpc_server *server;
    char address[64];
    uint64_t stream, epoch;
};

static inline void router_listen(struct router *r)
{
    struct rpc_config c = {.address = r->address[0] ? r->address : "127.0.0.1:0",
                           .streams_max = 4,
                           .out_bytes_max = 1 << 20,
                           .keepalive_ms = 5000};
    struct err e;
    if (rpc_server_open(&c, &r->box, &r->server, &e) < 0)
        fail_msg("%s", e.msg);
    snprintf(r->address, sizeof(r->address), "127.0.0.1:%d", rpc_server_port(r->server));
}

static inline void router_open(struct router *r)
{
    memset(r, 0, sizeof(*r));
    assert_int_equal(mailbox_init(&r->box, 10000, NULL), 0);
    router_listen(r);
}

static inline void router_drop_events(struct router *r)
{
    for (;;) {
        if (!r->list)
            r->list = mailbox_take(&r->box);
        struct mail *m = r->list;
        if (!m)
            return;
        r->list = m->next;
        rpc_event_free((struct rpc_event *)m);
    }
}

static inline void router_stop(struct router *r)
{
    rpc_server_free(r->server);
    r->server = NULL;
    router_drop_events(r);
}

static inline void router_close(struct router *r)
{
    router_stop(r);
    mailbox_release(&r->box);
}

static inline struct rpc_event *router_next(struct router *r, int patience_ms)
{
    uint64_t until = clock_mono_ms() + (uint64_t)patience_ms;
    while (!r->list) {
        r->list = mailbox_take(&r->box);
        if (!r->list && clock_mono_ms() > until)
            return NULL;
        if (!r->list)
            mailbox_wait(&r->box, 20);
    }
    struct rpc_event *ev = (struct rpc_event *)r->list;
    r->list = r->list->next;
    return ev;
}

/* The next frame of this kind; others are dropped. The caller frees. */
static inline struct rpc_event *expect(struct router *r, Argosy__FromWorker__FrameCase kind)
{
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    for (;;) {
        struct rpc_event *ev = router_next(r, PATIENCE_MS);
        if (!ev || clock_mono_ms() > until)
            fail_msg("frame %d did not come", (int)kind);
        if (ev->kind == RPC_CLOSED)
            fail_msg("closed: %s", ev->why.msg);
        if (ev->kind == RPC_FRAME && ev->from_worker->frame_case == kind)
            return ev;
        rpc_event_free(ev);
    }
}

/* Drops what the stream still says. A worker that sees the end may be back before this end has told
 * of it: what other streams say is kept. */
static inline void expect_closed(struct router *r)
{
    struct mail *kept = NULL, **tail = &kept;
    for (bool closed = false; !closed;) {
        struct rpc_event *ev = router_next(r, PATIENCE_MS);
        if (!ev)
            fail_msg("the stream did not close");
        if (ev->stream != r->stream) {
            ev->mail.next = NULL;
            *tail = &ev->mail;
            tail = &ev->mail.next;
            continue;
        }
        closed = ev->kind == RPC_CLOSED;
        rpc_event_free(ev);
    }
    *tail = r->list;
    r->list = kept;
}

static inline void send_frame(struct router *r, Argosy__ToWorker__FrameCase kind, void *m)
{
    Argosy__ToWorker f = ARGOSY__TO_WORKER__INIT;
    f.frame_case = kind;
    f.start = m; /* a union of pointers */
    struct err e;
    if (rpc_server_send(r->server, r->stream, &f, &e) < 0)
        fail_msg("%s", e.msg);
}

/* Takes Hello and answers Welcome. */
static inline void router_attach(struct router *r)
{
    struct rpc_event *ev = expect(r, ARGOSY__FROM_WORKER__FRAME_HELLO);
    const Argosy__Hello *h = ev->from_worker->hello;
    r->stream = ev->stream;
    assert_true(h->epoch > r->epoch);
    r->epoch = h->epoch;
    assert_int_equal(h->protocol, RPC_PROTOCOL_VERSION);
    assert_string_equal(h->worker_id, "tester");
    assert_int_equal(h->n_models, 1);
    assert_string_equal(h->models[0]->name, "fake");
    assert_string_equal(h->models[0]->manifest_sha256, "abc123");
    assert_int_equal(h->models[0]->context_tokens, 2048);
    assert_int_equal(h->models[0]->n_adapters, 2);
    assert_string_equal(h->models[0]->adapters[1]->name, "b");
    assert_string_equal(h->models[0]->adapters[1]->sha256, "bb");
    assert_int_equal(h->kv_pages, 64);
    assert_int_equal(h->n_labels, 1);
    assert_string_equal(h->labels[0]->key, "region");
    assert_string_equal(h->labels[0]->value, "eu");
    assert_string_equal(h->device->kind, "cpu");
    assert_true(h->device->name[0] && h->device->memory_bytes > 0);
    rpc_event_free(ev);
    Argosy__Welcome w = ARGOSY__WELCOME__INIT;
    w.lease_ms = 2000;
    send_frame(r, ARGOSY__TO_WORKER__FRAME_WELCOME, &w);
}

struct ask {
    uint64_t request;
    uint32_t first, max_tokens;
    uint32_t top_logprobs;
    const char *model;
    const char *regex; /* or NULL */
    float temperature;
    int pooling;
    const char *adapter;
};

static inline void router_start(struct router *r, const struct ask *ask)
{
    uint32_t prompt[] = {ask->first, 2, 3};
    Argosy__Sampling sampling = ARGOSY__SAMPLING__INIT;
    Argosy__Start s = ARGOSY__START__INIT;
    sampling.top_p = sampling.repetition_penalty = 1;
    sampling.temperature = ask->temperature;
    s.request = ask->request;
    s.model = (char *)(ask->model ? ask->model : "fake");
    s.prompt = prompt;
    s.n_prompt = ARRAY_LEN(prompt);
    s.max_tokens = ask->max_tokens;
    s.sampling = &sampling;
    s.logprobs = ask->top_logprobs > 0;
    s.top_logprobs = ask->top_logprobs;
    s.pooling = (Argosy__Pooling)ask->pooling;
    if (ask->adapter)
        s.adapter = (char *)ask->adapter;
    Argosy__Grammar grammar = ARGOSY__GRAMMAR__INIT;
    grammar.kind = ARGOSY__GRAMMAR_KIND__GRAMMAR_REGEX;
    grammar.text = (char *)ask->regex;
    s.grammar = ask->regex ? &grammar : NULL;
    send_frame(r, ARGOSY__TO_WORKER__FRAME_START, &s);
}

static inline void router_cancel(struct router *r, uint64_t request)
{
    Argosy__Cancel c = ARGOSY__CANCEL__INIT;
    c.request = request;
    send_frame(r, ARGOSY__TO_WORKER__FRAME_CANCEL, &c);
}

/* Reads tokens [from, n) of one request, the only one that runs, to its end. */
static inline void expect_tokens(struct router *r, uint64_t request, uint32_t first, uint32_t from,
                                 uint32_t n)
{
    for (uint32_t i = from; i < n; i++) {
        struct rpc_event *ev = expect(r, ARGOSY__FROM_WORKER__FRAME_STEP);
        const Argosy__Step *s = ev->from_worker->step;
        assert_int_equal(s->n_deltas, 1);
        assert_int_equal(s->deltas[0]->request, request);
        assert_int_equal(s->deltas[0]->index, i);
        assert_int_equal(s->deltas[0]->n_tokens, 1);
        assert_int_equal(s->deltas[0]->tokens[0], first + i);
        assert_int_equal(s->deltas[0]->finish,
                         i + 1 == n ? ARGOSY__FINISH__FINISH_LENGTH : ARGOSY__FINISH__FINISH_NONE);
        rpc_event_free(ev);
    }
}

static inline void expect_refused(struct router *r, uint64_t request, Argosy__RefusedReason reason)
{
    struct rpc_event *ev = expect(r, ARGOSY__FROM_WORKER__FRAME_REFUSED);
    const Argosy__Refused *m = ev->from_worker->refused;
    assert_int_equal(m->request, request);
    assert_int_equal(m->reason, reason);
    assert_true(m->detail[0] != 0);
    assert_int_equal(m->retry_after_ms > 0, reason == ARGOSY__REFUSED_REASON__REFUSED_FULL);
    rpc_event_free(ev);
}

/* ---- a worker ----------------------------------------------------------------------------------
 */

struct bench {
    struct worker_config config;
    struct engine *engine; /* of the first model, as long as it is loaded */
    struct worker *worker;
    pthread_t thread;
    int rc; /* of worker_run */
    char *addresses[4];
    char *labels[1];
    char *models[FAKE_MODELS];
};

static inline void *run(void *arg)
{
    struct bench *b = arg;
    struct err e;
    b->rc = worker_run(b->worker, &e);
    return NULL;
}

/* Of one model; what a test wants otherwise it changes before bench_start. */
static inline void bench_prepare(struct bench *b, struct router *routers, size_t n)
{
    memset(b, 0, sizeof(*b));
    b->labels[0] = (char *)"region=eu";
    b->models[0] = (char *)"fake=a.gguf";
    for (size_t i = 0; i < n; i++)
        b->addresses[i] = routers[i].address;
    b->config = (struct worker_config){
        .routers = {b->addresses, n},
        .id = (char *)"tester",
        .labels = {b->labels, 1},
        .heartbeat_ms = 200,
        .backoff_min_ms = 1,
        .backoff_max_ms = 4,
        .keepalive_ms = 5000,
        .out_bytes_max = 1 << 20,
        .drain_timeout_ms = 10000,
        .model = {b->models, 1},
        .load_wait_ms = 60000,
        .kv_type = (char *)"f16",
        .fast = (char *)"off",
        .speculate = (char *)"auto",
        .sequences_max = 2,
        .waiting_max = 2,
    };
}

static inline void bench_start(struct bench *b)
{
    struct err e;
    if (worker_open(&b->config, &b->worker, &e) < 0)
        fail_msg("%s", e.msg);
    b->engine = atomic_load(&fakes[0].engine);
    pthread_create(&b->thread, NULL, run, b);
}

static inline void bench_open(struct bench *b, struct router *routers, size_t n)
{
    bench_prepare(b, routers, n);
    bench_start(b);
}

/* The worker ends by itself after a drain. */
static inline void bench_join(struct bench *b)
{
    pthread_join(b->thread, NULL);
    worker_free(b->worker);
}

static inline void bench_close(struct bench *b)
{
    worker_drain(b->worker);
    bench_join(b);
}

static inline void wait_live(struct bench *b, unsigned n)
{
    uint64_t until = clock_mono_ms() + PATIENCE_MS;
    while (atomic_load(&b->engine->n_live) != n) {
        if (clock_mono_ms() > until)
            fail_msg("the engine has %u requests instead of %u", atomic_load(&b->engine->n_live),
                     n);
        usleep(1000);
    }
}

#endif
