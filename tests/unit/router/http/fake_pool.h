/* fake_pool.h: router/pool/pool.h without workers: each generation says a script, one token a turn
 * of the event loop. A test program includes it once and sets what `fake` shall do. */
#ifndef ARGOSY_TESTS_FAKE_POOL_H
#define ARGOSY_TESTS_FAKE_POOL_H

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "router/pool/pool.h"
#include "runtime/grammar/grammar.h"

#define FAKE_TOKENS_MAX 4096

struct gen {
    const struct gen_request *r;
    const struct gen_callbacks *cb;
    void *ctx;
    struct event *timer;
    uint32_t at;
};

static struct fake {
    struct event_base *base;
    /* What is said, and how it ends. */
    uint32_t script[FAKE_TOKENS_MAX];
    uint32_t n;
    uint32_t step;        /* tokens a callback; 0: 1 */
    bool forever;         /* over and over, up to max_tokens */
    bool hold;            /* nothing is said */
    bool stop_at_end;     /* GEN_STOP at the script's end */
    int fail_at;          /* fails before this token; -1: never */
    enum gen_fault fault; /* with it */
    bool refuse;          /* pool_start fails with `fault` */
    uint32_t live_max;    /* past it pool_start fails with GEN_FAULT_BUSY; 0: none */
    uint32_t retry_after_ms;
    uint32_t workers;
    uint32_t delay_us; /* between callbacks */
    /* What was seen. */
    uint32_t started, cancelled, live;
    uint64_t seeds[16];
    struct gen_request last;
    uint32_t last_prompt[1024];
} fake;
/* What the last one had to follow. */
static struct grammar_source fake_grammar;
static char fake_grammar_text[1024];

static void fake_reset(struct event_base *base)
{
    memset(&fake, 0, sizeof(fake));
    memset(&fake_grammar, 0, sizeof(fake_grammar));
    fake.base = base;
    fake.fail_at = -1;
    fake.workers = 1;
    fake.stop_at_end = true;
}

static void fake_say(const char *text)
{
    fake.n = 0;
    for (const char *p = text; *p; p++)
        fake.script[fake.n++] = (unsigned char)*p;
}

static void fake_free(struct gen *g)
{
    event_free(g->timer);
    free(g);
    fake.live--;
}

static void fake_logprobs(struct gen_logprob *lp, uint32_t *ids, float *values, uint32_t id,
                          uint32_t n_top)
{
    for (uint32_t i = 0; i < n_top; i++) {
        ids[i] = i == 0 ? id : 'A' + i;
        values[i] = -0.5f - (float)i;
    }
    *lp = (struct gen_logprob){-0.5f, n_top, ids, values};
}

static void fake_turn(evutil_socket_t fd, short what, void *arg)
{
    struct gen *g = arg;
    (void)fd;
    (void)what;
    uint32_t ids[64];
    struct gen_logprob lps[64];
    uint32_t top_ids[20];
    float top_values[20];
    uint32_t n = 0;
    uint32_t step = fake.step ? fake.step : 1;
    if (fake.hold)
        return;
    if (fake.fail_at >= 0 && g->at >= (uint32_t)fake.fail_at) {
        (g->cb->fail)(g->ctx, fake.fault, "as told", 1500); /* `fail` is a macro of cmocka */
        fake_free(g);
        return;
    }
    if (g->r->pooling != GEN_TOKENS) {
        float v[3] = {3, (float)g->r->prompt[0], g->r->pooling == GEN_MEAN ? -1.5f : 4};
        struct gen_usage used = {.prompt_tokens = g->r->n_prompt};
        g->cb->embedding(g->ctx, v, 3, &used);
        fake_free(g);
        return;
    }
    while (n < step && g->at < g->r->max_tokens && (fake.forever || g->at < fake.n)) {
        ids[n] = fake.script[g->at % fake.n];
        fake_logprobs(&lps[n], top_ids, top_values, ids[n], g->r->top_logprobs);
        n++;
        g->at++;
    }
    bool last = g->at == g->r->max_tokens || (!fake.forever && g->at == fake.n);
    struct timeval tv = {0, fake.delay_us};
    struct gen_usage usage = {g->r->n_prompt, g->at, 2};
    enum gen_finish why = g->at == fake.n && fake.stop_at_end ? GEN_STOP : GEN_LENGTH;
    uint32_t cancelled = fake.cancelled;
    if (!last)
        event_add(g->timer, &tv);
    if (n)
        g->cb->tokens(g->ctx, ids, g->r->logprobs ? lps : NULL, n);
    if (!last || fake.cancelled != cancelled)
        return; /* the callback may cancel: g is gone then */
    g->cb->finish(g->ctx, why, &usage);
    fake_free(g);
}

struct gen *pool_start(struct pool *p, const struct gen_request *r, const struct gen_callbacks *cb,
                       void *ctx, enum gen_fault *fault, struct err *e)
{
    (void)p;
    if (fake.refuse) {
        *fault = fake.fault;
        err_set(e, ERR_BUSY, "as told");
        return NULL;
    }
    if (fake.live_max && fake.live == fake.live_max) {
        *fault = GEN_FAULT_BUSY;
        err_set(e, ERR_BUSY, "full");
        return NULL;
    }
    struct gen *g = calloc(1, sizeof(*g));
    *g = (struct gen){r, cb, ctx, NULL, 0};
    fake.seeds[fake.started++ % 16] = r->sampling.seed;
    fake.live++;
    fake.last = *r;
    if (r->grammar) {
        fake_grammar = *r->grammar;
        snprintf(fake_grammar_text, sizeof(fake_grammar_text), "%s", r->grammar->text);
    }
    memcpy(fake.last_prompt, r->prompt,
           (r->n_prompt < 1024 ? r->n_prompt : 1024) * sizeof(*r->prompt));
    g->timer = event_new(fake.base, -1, 0, fake_turn, g);
    struct timeval tv = {0, fake.delay_us};
    event_add(g->timer, &tv);
    return g;
}

uint32_t pool_retry_after_ms(const struct pool *p)
{
    (void)p;
    return fake.retry_after_ms;
}

void pool_cancel(struct gen *g)
{
    fake.cancelled++;
    fake_free(g);
}

const char *gen_worker_id(const struct gen *g)
{
    (void)g;
    return "worker-1";
}

bool pool_has_model(const struct pool *p, const char *model)
{
    (void)p;
    return strcmp(model, "tiny") == 0;
}

uint32_t pool_workers_ready(const struct pool *p, const char *model)
{
    (void)p;
    (void)model;
    return fake.workers;
}

struct pool_totals pool_totals(const struct pool *p)
{
    (void)p;
    return (struct pool_totals){.workers = fake.workers, .moved = 3};
}

void pool_each_worker(const struct pool *p, void (*fn)(void *ctx, const struct pool_worker_view *w),
                      void *ctx)
{
    struct pool_worker_view w = {.id = "wor\"ker-1",
                                 .device_kind = "cpu",
                                 .device_name = "test",
                                 .state = "ready",
                                 .kv_pages = 8,
                                 .kv_pages_used = 2,
                                 .kv_host_bytes_used = 4096,
                                 .kv_pages_out = 5,
                                 .kv_pages_in = 3,
                                 .models = "other,tiny"};
    (void)p;
    fn(ctx, &w);
}

#endif
