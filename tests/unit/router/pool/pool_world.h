/* pool_world.h: a pool without network and without clock: frames that it sends are kept in a list,
 * events and time are the test's. Token i of every generation is token_at(i). */
#ifndef TESTS_POOL_WORLD_H
#define TESTS_POOL_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/cluster.pb-c.h"
#include "router/policy/policy.h"
#include "router/pool/pool.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "runtime/rpc/rpc.h"

#define VOCAB 1000
#define CONTEXT 4096
#define MANIFEST "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SENT_MAX 65536
#define STREAMS_MAX 4096
#define CLIENT_TOKENS_MAX 256

struct sent {
    enum { SENT_WELCOME, SENT_START, SENT_CANCEL, SENT_CLOSE } kind;
    uint64_t stream;
    uint64_t request;
    char refused[128];
    uint32_t n_prompt, n_output, max_tokens, deadline_ms;
    Argosy__Pooling pooling;
    char model[16], adapter[16];
    uint32_t output[CLIENT_TOKENS_MAX];
};

struct world {
    struct pool *pool;
    uint64_t now_ms;
    struct sent *sent;
    size_t n_sent;
    bool broken[STREAMS_MAX]; /* sending fails */
};

struct client {
    struct world *world;
    struct gen *gen;
    struct gen_request request;
    uint32_t tokens[CLIENT_TOKENS_MAX];
    uint32_t n;
    uint32_t n_logprobs;
    float embedding[4];
    uint32_t n_embedding;
    char embedded_by[64];
    int finished, failed;
    enum gen_finish why;
    enum gen_fault fault;
    struct gen_usage usage;
    uint32_t retry_after_ms;
    uint32_t cancel_at; /* cancels itself in the callback that brings it to so many tokens */
    struct client *cancel_other;
    bool cancel_when_over;
    struct client *start_other; /* started in finish or fail */
};

static inline uint32_t token_at(uint32_t i)
{
    return (i * 7919u + 13u) % VOCAB;
}

static inline uint64_t world_now(void *ctx)
{
    return ((struct world *)ctx)->now_ms;
}

static inline int world_send(void *ctx, uint64_t stream, const Argosy__ToWorker *f, struct err *e)
{
    struct world *w = ctx;
    assert_true(stream < STREAMS_MAX && w->n_sent < SENT_MAX);
    if (w->broken[stream])
        return err_set(e, ERR_PEER, "the stream is closed");
    struct sent *s = &w->sent[w->n_sent++];
    memset(s, 0, sizeof(*s));
    s->stream = stream;
    if (f->frame_case == ARGOSY__TO_WORKER__FRAME_WELCOME) {
        s->kind = SENT_WELCOME;
        snprintf(s->refused, sizeof(s->refused), "%s", f->welcome->refused);
    } else if (f->frame_case == ARGOSY__TO_WORKER__FRAME_START) {
        s->kind = SENT_START;
        s->request = f->start->request;
        s->n_prompt = (uint32_t)f->start->n_prompt;
        s->n_output = (uint32_t)f->start->n_output;
        s->max_tokens = f->start->max_tokens;
        s->deadline_ms = f->start->deadline_ms;
        s->pooling = f->start->pooling;
        snprintf(s->model, sizeof(s->model), "%s", f->start->model);
        snprintf(s->adapter, sizeof(s->adapter), "%s", f->start->adapter);
        assert_true(s->n_output <= CLIENT_TOKENS_MAX);
        for (uint32_t i = 0; i < s->n_output; i++)
            s->output[i] = f->start->output[i];
    } else if (f->frame_case == ARGOSY__TO_WORKER__FRAME_CANCEL) {
        s->kind = SENT_CANCEL;
        s->request = f->cancel->request;
    } else {
        fail_msg("an unexpected frame");
    }
    return 0;
}

static inline void world_close(void *ctx, uint64_t stream)
{
    struct world *w = ctx;
    assert_true(w->n_sent < SENT_MAX);
    w->sent[w->n_sent] = (struct sent){.kind = SENT_CLOSE, .stream = stream};
    w->n_sent++;
}

static inline struct pool_config world_config(void)
{
    static const struct pool_model models[] = {
        {.name = "m", .manifest_sha256 = MANIFEST, .vocab = VOCAB},
        {.name = "other", .manifest_sha256 = MANIFEST, .vocab = VOCAB},
    };
    return (struct pool_config){
        .models = models,
        .n_models = 2,
        .policy = policy_find("round_robin"),
        .seed = 1,
        .lease_ms = 2000,
        .workers_max = 8,
        .gens_max = 64,
        .queue_max = 4,
        .worker_wait_ms = 10000,
        .worker_queue_max = 4,
        .moves_max = 3,
        .deadline_ms = 600000,
        .drain_ms = 5000,
    };
}

static inline void world_init(struct world *w, const struct pool_config *config)
{
    struct err e = {0};
    struct pool_config c = config ? *config : world_config();
    struct pool_link link = {.send = world_send, .close = world_close, .ctx = w};
    memset(w, 0, sizeof(*w));
    w->now_ms = 1000000;
    log_init("test", LOG_LEVEL_OFF);
    w->sent = calloc(SENT_MAX, sizeof(*w->sent));
    c.now_ms = world_now;
    c.now_ctx = w;
    assert_int_equal(pool_open(&c, NULL, &link, &w->pool, &e), 0);
}

static inline void world_release(struct world *w)
{
    pool_free(w->pool);
    free(w->sent);
}

/* ---- events --------------------------------------------------------------------------------- */

static inline void event_frame(struct world *w, uint64_t stream, Argosy__FromWorker *f)
{
    struct rpc_event ev = {.kind = RPC_FRAME, .stream = stream, .from_worker = f};
    pool_event(w->pool, &ev);
}

static inline void event_opened(struct world *w, uint64_t stream)
{
    struct rpc_event ev = {.kind = RPC_OPENED, .stream = stream, .peer = "test"};
    pool_event(w->pool, &ev);
}

static inline void event_closed(struct world *w, uint64_t stream)
{
    struct rpc_event ev = {.kind = RPC_CLOSED, .stream = stream};
    pool_event(w->pool, &ev);
}

struct hello {
    uint64_t stream;
    const char *id;
    uint64_t epoch;
    uint32_t protocol; /* 0: the right one */
    const char *model;
    const char *manifest;
    uint32_t context;
    uint32_t sequences_max;
    const char *adapter; /* sha256; NULL: it has none */
    const char *region;  /* a label; NULL: it has none */
    double price;
};

static inline void event_hello(struct world *w, struct hello h)
{
    Argosy__ModelOffer offer = ARGOSY__MODEL_OFFER__INIT;
    Argosy__ModelOffer *offers[] = {&offer};
    Argosy__Device device = ARGOSY__DEVICE__INIT;
    Argosy__Hello hello = ARGOSY__HELLO__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    offer.name = (char *)(h.model ? h.model : "m");
    offer.manifest_sha256 = (char *)(h.manifest ? h.manifest : MANIFEST);
    offer.context_tokens = h.context ? h.context : CONTEXT;
    Argosy__AdapterOffer adapter = ARGOSY__ADAPTER_OFFER__INIT;
    Argosy__AdapterOffer *adapters[] = {&adapter};
    adapter.name = (char *)"named otherwise";
    adapter.sha256 = (char *)h.adapter;
    offer.adapters = adapters;
    offer.n_adapters = h.adapter != NULL;
    device.kind = (char *)"cpu";
    device.name = (char *)"a test's";
    hello.worker_id = (char *)h.id;
    hello.epoch = h.epoch;
    hello.protocol = h.protocol ? h.protocol : RPC_PROTOCOL_VERSION;
    hello.device = &device;
    hello.models = offers;
    hello.n_models = 1;
    Argosy__Hello__LabelsEntry region = ARGOSY__HELLO__LABELS_ENTRY__INIT;
    Argosy__Hello__LabelsEntry *labels[] = {&region};
    region.key = (char *)"region";
    region.value = (char *)h.region;
    hello.labels = labels;
    hello.n_labels = h.region != NULL;
    hello.price = h.price;
    hello.kv_pages = 100;
    hello.page_tokens = 16;
    hello.sequences_max = h.sequences_max ? h.sequences_max : 8;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_HELLO;
    f.hello = &hello;
    event_frame(w, h.stream, &f);
}

static inline void join(struct world *w, uint64_t stream, const char *id, uint64_t epoch)
{
    event_opened(w, stream);
    event_hello(w, (struct hello){.stream = stream, .id = id, .epoch = epoch});
}

static inline void event_load(struct world *w, uint64_t stream, bool draining)
{
    Argosy__Load load = ARGOSY__LOAD__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    load.draining = draining;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_LOAD;
    f.load = &load;
    event_frame(w, stream, &f);
}

static inline void event_refused(struct world *w, uint64_t stream, uint64_t request,
                                 Argosy__RefusedReason why, uint32_t retry_after_ms)
{
    Argosy__Refused r = ARGOSY__REFUSED__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    r.request = request;
    r.reason = why;
    r.detail = (char *)"said the worker";
    r.retry_after_ms = retry_after_ms;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_REFUSED;
    f.refused = &r;
    event_frame(w, stream, &f);
}

struct delta {
    uint64_t request;
    uint32_t index;
    uint32_t n;
    const uint32_t *tokens; /* NULL: the right ones */
    Argosy__Finish finish;
    uint32_t n_logprobs;
    uint32_t cached;
    const float *embedding;
    uint32_t n_embedding;
};

static inline void event_step(struct world *w, uint64_t stream, const struct delta *deltas,
                              size_t n)
{
    Argosy__Delta *all = calloc(n ? n : 1, sizeof(*all));
    Argosy__Delta **list = calloc(n ? n : 1, sizeof(*list));
    uint32_t(*tokens)[CLIENT_TOKENS_MAX] = calloc(n ? n : 1, sizeof(*tokens));
    Argosy__TokenLogprobs one = ARGOSY__TOKEN_LOGPROBS__INIT;
    Argosy__TokenLogprobs *logprobs[CLIENT_TOKENS_MAX];
    uint32_t top_ids[2] = {1, 2};
    float top[2] = {-0.5f, -1.5f};
    one.logprob = -0.5f;
    one.n_top_ids = one.n_top_logprobs = 2;
    one.top_ids = top_ids;
    one.top_logprobs = top;
    for (size_t i = 0; i < CLIENT_TOKENS_MAX; i++)
        logprobs[i] = &one;
    for (size_t i = 0; i < n; i++) {
        argosy__delta__init(&all[i]);
        for (uint32_t j = 0; j < deltas[i].n; j++)
            tokens[i][j] = deltas[i].tokens ? deltas[i].tokens[j] : token_at(deltas[i].index + j);
        all[i].request = deltas[i].request;
        all[i].index = deltas[i].index;
        all[i].n_tokens = deltas[i].n;
        all[i].tokens = tokens[i];
        all[i].finish = deltas[i].finish;
        all[i].n_logprobs = deltas[i].n_logprobs;
        all[i].logprobs = logprobs;
        all[i].cached_tokens = deltas[i].cached;
        all[i].embedding = (float *)deltas[i].embedding;
        all[i].n_embedding = deltas[i].n_embedding;
        list[i] = &all[i];
    }
    Argosy__Step step = ARGOSY__STEP__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    step.n_deltas = n;
    step.deltas = list;
    step.duration_us = 1000;
    step.decode_tokens = (uint32_t)n;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_STEP;
    f.step = &step;
    event_frame(w, stream, &f);
    free(tokens);
    free(list);
    free(all);
}

static inline void event_tokens(struct world *w, uint64_t stream, uint64_t request, uint32_t index,
                                uint32_t n, Argosy__Finish finish)
{
    struct delta d = {.request = request, .index = index, .n = n, .finish = finish};
    event_step(w, stream, &d, 1);
}

static inline void pass_ms(struct world *w, uint64_t ms)
{
    /* In steps of what is due, as a timer would. */
    uint64_t end = w->now_ms + ms;
    while (pool_due_ms(w->pool) <= end) {
        if (pool_due_ms(w->pool) > w->now_ms)
            w->now_ms = pool_due_ms(w->pool);
        pool_tick(w->pool);
    }
    w->now_ms = end;
}

/* ---- what was sent -------------------------------------------------------------------------- */

/* The last frame of that kind, to `stream` (0: to any); NULL: none. */
static inline struct sent *last_sent(struct world *w, int kind, uint64_t stream)
{
    for (size_t i = w->n_sent; i-- > 0;)
        if ((int)w->sent[i].kind == kind && (stream == 0 || w->sent[i].stream == stream))
            return &w->sent[i];
    return NULL;
}

static inline size_t count_sent(const struct world *w, int kind, uint64_t stream)
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_sent; i++)
        n += (int)w->sent[i].kind == kind && (stream == 0 || w->sent[i].stream == stream);
    return n;
}

/* ---- clients -------------------------------------------------------------------------------- */

static inline bool client_start(struct world *w, struct client *c, struct err *e);

static inline void client_tokens(void *ctx, const uint32_t *ids, const struct gen_logprob *logprobs,
                                 uint32_t n)
{
    struct client *c = ctx;
    assert_int_equal(c->finished + c->failed, 0);
    assert_true(n > 0 && c->n + n <= CLIENT_TOKENS_MAX);
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(ids[i], token_at(c->n));
        c->tokens[c->n++] = ids[i];
        c->n_logprobs += logprobs && logprobs[i].logprob == -0.5f;
    }
    if (c->cancel_other) {
        pool_cancel(c->cancel_other->gen);
        c->cancel_other = NULL;
    }
    if (c->cancel_at && c->n >= c->cancel_at)
        pool_cancel(c->gen);
}

static inline void client_over(struct client *c)
{
    assert_int_equal(c->finished + c->failed, 1);
    if (c->cancel_when_over)
        pool_cancel(c->gen);
    if (c->start_other)
        assert_true(client_start(c->world, c->start_other, NULL));
}

static inline void client_finish(void *ctx, enum gen_finish why, const struct gen_usage *usage)
{
    struct client *c = ctx;
    c->finished++;
    c->why = why;
    c->usage = *usage;
    client_over(c);
}

static inline void client_embedding(void *ctx, const float *v, uint32_t n,
                                    const struct gen_usage *usage)
{
    struct client *c = ctx;
    assert_true(n <= 4);
    memcpy(c->embedding, v, n * sizeof(*v));
    c->n_embedding = n;
    snprintf(c->embedded_by, sizeof(c->embedded_by), "%s", gen_worker_id(c->gen));
    c->finished++;
    c->usage = *usage;
    client_over(c);
}

static inline void client_fail(void *ctx, enum gen_fault fault, const char *detail,
                               uint32_t retry_after_ms)
{
    struct client *c = ctx;
    assert_non_null(detail);
    c->failed++;
    c->fault = fault;
    c->retry_after_ms = retry_after_ms;
    client_over(c);
}

static const uint32_t world_prompt[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static inline struct client client_of(uint32_t max_tokens)
{
    return (struct client){.request = {.model = "m",
                                       .prompt = world_prompt,
                                       .n_prompt = 16,
                                       .max_tokens = max_tokens,
                                       .sampling = {.top_p = 1, .repetition_penalty = 1}}};
}

static inline bool client_start(struct world *w, struct client *c, struct err *e)
{
    static const struct gen_callbacks callbacks = {.tokens = client_tokens,
                                                   .finish = client_finish,
                                                   .embedding = client_embedding,
                                                   .fail = client_fail};
    c->world = w;
    c->gen = pool_start(w->pool, &c->request, &callbacks, c, &c->fault, e);
    return c->gen != NULL;
}

#endif
