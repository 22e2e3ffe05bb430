/* pool.c: opens the pool, hands events and timers to whom they concern, shows it to others. */
#include "router/pool/pool.h"

#include <stdlib.h>
#include <string.h>

#include "router/pool/pool_internal.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/rpc/rpc.h"

/* Tenants that have nothing under way and are remembered. */
#define TENANTS_KEPT 1024

uint64_t pool_now_ms(const struct pool *p)
{
    return p->config.now_ms ? p->config.now_ms(p->config.now_ctx) : clock_mono_ms();
}

int pool_model_index(const struct pool *p, const char *name)
{
    for (size_t i = 0; i < p->n_models; i++)
        if (strcmp(p->models[i].name, name) == 0)
            return (int)i;
    return -1;
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    struct pool *p = ctx;
    p->armed_ms = UINT64_MAX;
    pool_tick(p);
}

void pool_arm(struct pool *p)
{
    uint64_t at_ms = pool_due_ms(p);
    if (!p->timer || at_ms == p->armed_ms)
        return;
    p->armed_ms = at_ms;
    if (at_ms == UINT64_MAX) {
        event_del(p->timer);
        return;
    }
    uint64_t now_ms = pool_now_ms(p);
    uint64_t wait_ms = at_ms > now_ms ? at_ms - now_ms : 0;
    struct timeval tv = {.tv_sec = (time_t)(wait_ms / 1000),
                         .tv_usec = (suseconds_t)(wait_ms % 1000 * 1000)};
    event_add(p->timer, &tv);
}

static int copy_models(struct pool *p, const struct pool_config *c, struct err *e)
{
    p->models = calloc(c->n_models ? c->n_models : 1, sizeof(*p->models));
    if (!p->models)
        return err_set(e, ERR_NOMEM, "no memory for the models");
    for (size_t i = 0; i < c->n_models; i++) {
        const char *adapter = c->models[i].adapter_sha256;
        p->models[i].vocab = c->models[i].vocab;
        p->models[i].base = c->models[i].base;
        p->models[i].adapter_sha256 = strdup(adapter ? adapter : "");
        p->models[i].name = strdup(c->models[i].name);
        p->models[i].manifest_sha256 = strdup(c->models[i].manifest_sha256);
        p->n_models++;
        if (!p->models[i].name || !p->models[i].manifest_sha256 || !p->models[i].adapter_sha256)
            return err_set(e, ERR_NOMEM, "no memory for the models");
    }
    return 0;
}

static int check_config(const struct pool_config *c, struct err *e)
{
    if (c->n_models > POOL_MODELS_MAX)
        return err_set(e, ERR_CONFIG, "more than %d models", POOL_MODELS_MAX);
    if (c->gens_max == 0 || c->gens_max > 1u << GEN_SLOT_BITS)
        return err_set(e, ERR_CONFIG, "the limit of live generations is not in [1, %u]",
                       1u << GEN_SLOT_BITS);
    if (c->workers_max == 0 || c->workers_max > 1u << 16)
        return err_set(e, ERR_CONFIG, "the limit of workers is not in [1, 65536]");
    if (c->lease_ms == 0)
        return err_set(e, ERR_CONFIG, "the lease is zero");
    ASSERT(c->policy && c->policy->state_bytes <= POLICY_STATE_BYTES_MAX);
    return 0;
}

static void *pointers(size_t n)
{
    return calloc(n, sizeof(void *));
}

static int take_memory(struct pool *p, struct err *e)
{
    const struct pool_config *c = &p->config;
    p->n_buckets = 16;
    while (p->n_buckets < 2 * c->workers_max)
        p->n_buckets *= 2;
    p->workers = pointers(c->workers_max);
    p->buckets = pointers(p->n_buckets);
    p->candidates = pointers(c->workers_max);
    p->admitted = pointers(c->workers_max);
    p->gens = pointers(c->gens_max);
    p->free_slots = calloc(c->gens_max, sizeof(*p->free_slots));
    if (!p->workers || !p->buckets || !p->candidates || !p->admitted || !p->gens || !p->free_slots)
        return err_set(e, ERR_NOMEM, "no memory for %u workers and %u generations", c->workers_max,
                       c->gens_max);
    /* The lowest slot on top of the stack. */
    for (uint32_t i = 0; i < c->gens_max; i++)
        p->free_slots[i] = c->gens_max - 1 - i;
    p->n_free_slots = c->gens_max;
    int rc = breakers_init(&p->breakers, 2 * c->workers_max, e);
    if (rc == 0)
        rc = blocks_open(p, e);
    if (rc == 0)
        rc =
            fairqueue_init(&p->queue, c->queue_max, c->gens_max + TENANTS_KEPT, c->queue_age_ms, e);
    return rc < 0 ? rc : dueheap_init(&p->due, c->workers_max + c->gens_max, e);
}

int pool_open(const struct pool_config *config, struct event_base *base,
              const struct pool_link *link, struct pool **out, struct err *e)
{
    *out = NULL;
    int rc = check_config(config, e);
    if (rc < 0)
        return rc;
    struct pool *p = calloc(1, sizeof(*p));
    if (!p)
        return err_set(e, ERR_NOMEM, "no memory for the pool");
    p->config = *config;
    p->config.models = NULL;
    p->link = *link;
    p->armed_ms = UINT64_MAX;
    rng_init(&p->rng, config->seed);
    budget_init(&p->budget, config->moves_share, pool_now_ms(p));
    if ((rc = copy_models(p, config, e)) < 0 || (rc = take_memory(p, e)) < 0)
        goto out;
    if (base && !(p->timer = evtimer_new(base, on_timer, p)))
        rc = err_set(e, ERR_NOMEM, "no memory for the pool's timer");
out:
    if (rc < 0)
        pool_free(p);
    else
        *out = p;
    return rc;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; p->gens && i < p->config.gens_max; i++)
        if (p->gens[i])
            gen_free(p->gens[i]);
    while (p->n_workers > 0)
        worker_free(p->workers[--p->n_workers]);
    if (p->timer)
        event_free(p->timer);
    pool_set_routers(p, NULL, 0);
    for (size_t i = 0; i < p->n_models; i++) {
        free((char *)p->models[i].name);
        free((char *)p->models[i].manifest_sha256);
        free((char *)p->models[i].adapter_sha256);
    }
    fairqueue_release(&p->queue);
    dueheap_release(&p->due);
    breakers_release(&p->breakers);
    blocks_release(p);
    free(p->models);
    free(p->workers);
    free(p->buckets);
    free(p->candidates);
    free(p->admitted);
    free(p->gens);
    free(p->free_slots);
    free(p->logprobs);
    free(p);
}

void pool_event(struct pool *p, const struct rpc_event *ev)
{
    struct worker *w = worker_find(p, ev->stream);
    switch (ev->kind) {
    case RPC_OPENED:
        if (!w)
            worker_open(p, ev->stream, ev->peer);
        break;
    case RPC_FRAME:
        /* A stream that is not in the table was closed by us: its late frames end here. */
        if (w && !w->unreachable && ev->from_worker)
            worker_frame(p, w, ev->from_worker);
        break;
    case RPC_CLOSED:
        if (w)
            worker_remove(p, w, false, ev->why.msg);
        break;
    }
    gen_flush_waiting(p);
    pool_arm(p);
}

/* This process itself was stopped, or busy for too long: the frames that renew the leases are
 * there but unread, and so are tokens. Every worker gets a lease from now. */
static void forgive_lateness(struct pool *p, uint64_t now_ms)
{
    const struct due *top = dueheap_top(&p->due);
    if (!top || now_ms < top->at_ms + p->config.lease_ms / 2)
        return;
    p->forgiven_ms = now_ms;
    for (uint32_t i = 0; i < p->n_workers; i++)
        p->workers[i]->heard_ms = now_ms;
}

void pool_tick(struct pool *p)
{
    uint64_t now_ms = pool_now_ms(p);
    struct due *d;
    forgive_lateness(p, now_ms);
    while ((d = dueheap_top(&p->due)) && d->at_ms <= now_ms) {
        dueheap_remove(&p->due, d);
        if (d->kind == DUE_WORKER)
            worker_due(p, (struct worker *)((char *)d - offsetof(struct worker, due)), now_ms);
        else
            gen_due((struct gen *)((char *)d - offsetof(struct gen, due)), now_ms);
    }
    gen_flush_waiting(p);
    pool_arm(p);
}

uint64_t pool_due_ms(const struct pool *p)
{
    const struct due *top = dueheap_top(&p->due);
    return top ? top->at_ms : UINT64_MAX;
}

bool pool_has_model(const struct pool *p, const char *model)
{
    return pool_model_index(p, model) >= 0;
}

uint32_t pool_workers_ready(const struct pool *p, const char *model)
{
    int m = pool_model_index(p, model);
    uint32_t n = 0;
    uint64_t now_ms = pool_now_ms(p);
    for (uint32_t i = 0; m >= 0 && i < p->n_workers; i++) {
        const struct worker *w = p->workers[i];
        n += w->attached && !w->unreachable && !w->draining && breaker_admits(w->breaker, now_ms) &&
             worker_offer_of(w, (uint32_t)m);
    }
    return n;
}

uint32_t pool_context_tokens(const struct pool *p, const char *model)
{
    int m = pool_model_index(p, model);
    uint32_t tokens = 0;
    for (uint32_t i = 0; m >= 0 && i < p->n_workers; i++) {
        const struct worker_offer *o = worker_offer_of(p->workers[i], (uint32_t)m);
        if (o && o->context_tokens > tokens)
            tokens = o->context_tokens;
    }
    return tokens;
}

struct pool_totals pool_totals(const struct pool *p)
{
    struct pool_totals t = {.queued = p->queue.n,
                            .moved = p->moved,
                            .refused = p->refused,
                            .failed = p->failed,
                            .stalled = p->stalled,
                            .opened = p->opened};
    for (uint32_t i = 0; i < p->n_workers; i++) {
        const struct worker *w = p->workers[i];
        if (!w->attached)
            continue;
        t.workers++;
        t.running += w->view.running;
        t.waiting += w->view.waiting;
        t.inflight += w->view.inflight;
    }
    return t;
}

uint32_t pool_retry_after_ms(const struct pool *p)
{
    return p->retry_after_ms;
}

uint32_t pool_gens_live(const struct pool *p)
{
    return p->config.gens_max - p->n_free_slots;
}

static const char *state_name(enum policy_worker_state s)
{
    static const char *const names[] = {"ready", "suspect", "draining"};
    return names[s];
}

void pool_each_worker(const struct pool *p, void (*fn)(void *ctx, const struct pool_worker_view *w),
                      void *ctx)
{
    uint64_t now_ms = pool_now_ms(p);
    for (uint32_t i = 0; i < p->n_workers; i++) {
        struct worker *w = p->workers[i];
        if (!w->attached)
            continue;
        worker_refresh(p, w, now_ms);
        struct pool_worker_view v = {
            .id = w->id,
            .device_kind = w->device_kind,
            .device_name = w->device_name,
            .state = breaker_admits(w->breaker, now_ms) ? state_name(w->view.state) : "broken",
            .running = w->view.running,
            .waiting = w->view.waiting,
            .inflight = w->view.inflight,
            .kv_pages = w->kv_pages,
            .kv_pages_used = w->kv_pages_used,
            .kv_host_bytes_used = w->kv_host_bytes_used,
            .kv_pages_out = w->kv_pages_out,
            .kv_pages_in = w->kv_pages_in,
            .prefill_tokens_per_s = w->measured.prefill_tokens_per_s,
            .decode_tokens_per_s = w->measured.decode_tokens_per_s,
            .attached_ms = w->attached_ms,
            .inflight_tokens = policy_prefill_left(&w->view) + w->view.inflight_output_tokens,
            .sequences_max = w->view.sequences_max,
            .price = w->view.price,
            .models = w->model_names,
            .labels = w->labels,
            .n_labels = w->view.n_labels,
            .tokens = w->tokens_seen,
            .gens = w->gens_seen,
        };
        fn(ctx, &v);
    }
}

void pool_set_others(struct pool *p, const char *worker_id, uint64_t tokens)
{
    for (uint32_t i = 0; i < p->n_workers; i++)
        if (p->workers[i]->attached && strcmp(p->workers[i]->id, worker_id) == 0)
            p->workers[i]->view.others_tokens = tokens;
}

void pool_set_routers(struct pool *p, const char *const *addresses, size_t n)
{
    while (p->n_routers > 0)
        free(p->routers[--p->n_routers]);
    for (size_t i = 0; i < n && p->n_routers < POOL_ROUTERS_MAX; i++) {
        char *copy = strdup(addresses[i]);
        if (copy)
            p->routers[p->n_routers++] = copy;
    }
}
