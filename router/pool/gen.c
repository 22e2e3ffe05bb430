/* gen.c: the life of a generation.
 *
 *              ┌────────────── refused, its worker is gone ─────────────┐
 *              ▼                                                        │
 *   start ──► pick ──Start──► running ──tokens──► … ──finish──► finish(), freed
 *              │ nobody                                │ deadline, moved too often
 *              ▼                                       ▼
 *           waiting ──somebody came──► pick          fail(), freed
 *              └──waited too long──► fail(), freed
 */
#include <stdlib.h>
#include <string.h>

#include "router/pool/pool_internal.h"
#include "runtime/base/check.h"
#include "runtime/base/log.h"

struct gen *gen_find(const struct pool *p, uint64_t id)
{
    uint32_t slot = (uint32_t)(id & ((1u << GEN_SLOT_BITS) - 1));
    if (slot >= p->config.gens_max || !p->gens[slot])
        return NULL;
    struct gen *g = p->gens[slot];
    return g->state == GEN_RUNNING && g->id == id ? g : NULL;
}

void gen_free(struct gen *g)
{
    free(g->out);
    free(g);
}

/* ---- what a worker has under way ------------------------------------------------------------ */

static void uncount(struct gen *g)
{
    struct policy_worker *v = &g->worker->view;
    v->inflight_prefill_tokens -= g->counted_prefill;
    v->inflight_output_tokens -= g->counted_output;
    v->inflight_prefills -= g->counted_waits;
    g->counted_prefill = g->counted_output = 0;
    g->counted_waits = false;
}

/* A prompt that is done, or gone: so is what its steps have computed. */
static void end_prefill(struct policy_worker *v, uint32_t tokens)
{
    v->prefill_done_tokens -= v->prefill_done_tokens < tokens ? v->prefill_done_tokens : tokens;
}

/* Tokens that the worker has to compute before the first new one. */
static uint32_t prefill_of(const struct gen *g)
{
    uint32_t n = g->r->n_prompt + g->n_out_sent;
    return g->n_out > g->n_out_sent ? 0 : n > g->cached_guess ? n - g->cached_guess : 1;
}

void gen_recount(struct gen *g)
{
    struct policy_worker *v = &g->worker->view;
    uint32_t left = g->r->max_tokens - g->n_out;
    uint32_t before = g->counted_prefill;
    uncount(g);
    g->counted_prefill = prefill_of(g);
    g->counted_waits = g->counted_prefill > 0;
    v->inflight_prefills += g->counted_waits;
    if (before > 0 && !g->counted_waits)
        end_prefill(v, before);
    g->counted_output = left < POLICY_OUTPUT_TOKENS_GUESS ? left : POLICY_OUTPUT_TOKENS_GUESS;
    v->inflight_prefill_tokens += g->counted_prefill;
    v->inflight_output_tokens += g->counted_output;
}

static void tell_place(const struct gen *g, const char *worker, bool moved)
{
    if (g->cb.place)
        g->cb.place(g->ctx, worker, moved);
}

void gen_join(struct gen *g, struct worker *w)
{
    g->state = GEN_RUNNING;
    g->worker = w;
    g->n_out_sent = g->n_out;
    gen_list_add(&w->gens, g);
    w->view.inflight++;
    g->tried_one = breaker_sent(w->breaker);
    gen_recount(g);
    memcpy(g->worker_id, w->id, sizeof(g->worker_id));
    w->gens_seen++;
    queue_joined(g, pool_now_ms(g->pool));
    tell_place(g, w->id, g->moved);
}

/* From its worker or from those that wait: afterwards it is nowhere. */
static void detach(struct gen *g)
{
    struct pool *p = g->pool;
    if (g->state == GEN_RUNNING) {
        if (g->tried_one)
            breaker_untried(g->worker->breaker, pool_now_ms(p));
        g->tried_one = false;
        end_prefill(&g->worker->view, g->counted_prefill);
        uncount(g);
        queue_detached(g);
        g->worker->view.inflight--;
        gen_list_remove(&g->worker->gens, g);
        g->worker = NULL;
        g->worker_id[0] = 0;
        p->flush_wanted = true;
    } else if (g->state == GEN_WAITING) {
        gen_list_remove(&p->waiting, g);
    } else if (g->state == GEN_QUEUED) {
        fairqueue_remove(&p->queue, &g->turn);
    }
    dueheap_remove(&p->due, &g->due);
    g->state = GEN_ENDED;
}

static void give_slot_back(struct gen *g)
{
    struct pool *p = g->pool;
    queue_left(g);
    p->gens[g->slot] = NULL;
    p->free_slots[p->n_free_slots++] = g->slot;
}

/* ---- waiting -------------------------------------------------------------------------------- */

static void wait_for_worker(struct gen *g)
{
    struct pool *p = g->pool;
    uint64_t now_ms = pool_now_ms(p);
    uint64_t at_ms = g->deadline_at_ms;
    if (g->give_up_at_ms == 0)
        g->give_up_at_ms = now_ms + p->config.worker_wait_ms;
    if (g->give_up_at_ms < at_ms)
        at_ms = g->give_up_at_ms;
    if (g->retry_at_ms && g->retry_at_ms < at_ms)
        at_ms = g->retry_at_ms;
    g->state = GEN_WAITING;
    gen_list_add(&p->waiting, g);
    dueheap_set(&p->due, &g->due, at_ms);
}

/* A stream that a client reads already is not turned away; a new one waits as long as in the queue,
 * if the queue could take it. */
static bool may_wait_for_room(struct gen *g)
{
    const struct pool *p = g->pool;
    uint64_t now_ms = pool_now_ms(p);
    if (g->moved)
        return true;
    if (!g->full_until_ms) {
        if (p->queue.n + p->waiting.n >= p->config.queue_max)
            return false;
        g->full_until_ms = now_ms + p->config.queue_wait_ms;
    }
    return now_ms < g->full_until_ms;
}

/* Every worker has refused it, or is full: it comes again when the shortest of them said, or fails
 * with `why`. */
static void wait_for_room(struct gen *g, const char *why)
{
    if (!may_wait_for_room(g)) {
        gen_fail(g, GEN_FAULT_BUSY, why, g->retry_after_ms);
        return;
    }
    uint32_t ms = g->retry_after_ms < GEN_RETRY_MS_MIN ? GEN_RETRY_MS_MIN : g->retry_after_ms;
    if (ms > GEN_RETRY_MS_MAX)
        ms = GEN_RETRY_MS_MAX;
    g->retry_at_ms = pool_now_ms(g->pool) + ms;
    g->n_tried = 0;
    g->avoid = 0;
    g->retry_after_ms = 0;
    if (!g->moved)
        g->give_up_at_ms = g->full_until_ms;
    wait_for_worker(g);
}

static void all_are_full(struct gen *g)
{
    static const char why[] = "all workers are full";
    /* A stream that a client reads already is not turned away like a new one. */
    bool waits = g->moved || g->give_up_at_ms;
    if (g->n_tried > 0 || (waits && g->avoid)) {
        wait_for_room(g, why);
    } else if (waits) {
        g->retry_at_ms = 0; /* the next place is its */
        wait_for_worker(g);
    } else if (g->turn.since_ms) {
        queue_put_back(g);
    } else {
        gen_fail(g, GEN_FAULT_BUSY, why, g->retry_after_ms);
    }
}

enum picked gen_place(struct gen *g)
{
    struct pool *p = g->pool;
    struct err why = {0};
    enum picked picked = PICKED_LATER;
    if (!g->moved_again || budget_allows(&p->budget, pool_now_ms(p)))
        picked = gen_dispatch(g, &why);
    switch (picked) {
    case PICKED:
        if (g->moved_again)
            budget_spend(&p->budget);
        g->give_up_at_ms = g->retry_at_ms = g->avoid = 0;
        g->moved_again = false;
        break;
    case PICKED_LATER:
        g->retry_at_ms = pool_now_ms(p) + BUDGET_WAIT_MS;
        wait_for_worker(g);
        break;
    case PICKED_BROKEN: /* retry_at_ms: when one is tried */
        wait_for_worker(g);
        break;
    case PICKED_NOBODY:
        g->retry_at_ms = 0;
        wait_for_worker(g);
        break;
    case PICKED_ALL_FULL:
        all_are_full(g);
        break;
    case PICKED_TOO_LONG:
        if (g->moved)
            wait_for_worker(g);
        else
            gen_fail(g, GEN_FAULT_INVALID, "no worker has a context that long", 0);
        break;
    case PICKED_UNWANTED:
        /* One that has begun to wait goes on: workers may come one after the other. */
        if (g->moved || g->give_up_at_ms)
            wait_for_worker(g);
        else
            gen_fail(g, GEN_FAULT_UNWANTED, why.msg, 0);
        break;
    case PICKED_UNSENDABLE:
        gen_fail(g, GEN_FAULT_INVALID, why.msg, 0);
        break;
    }
    return picked;
}

void gen_wake_waiting(struct pool *p)
{
    for (struct gen *g = p->waiting.head; g; g = g->next)
        g->retry_at_ms = 0;
    p->flush_wanted = true;
}

void gen_flush_waiting(struct pool *p)
{
    bool hopeless[POOL_MODELS_MAX] = {false};
    if (!p->flush_wanted)
        return;
    p->flush_wanted = false;
    uint64_t now_ms = p->waiting.n ? pool_now_ms(p) : 0;
    /* Each of those that wait now gets one try; the ones that stay go to the end, in order. A
     * callback may take some away. */
    for (uint32_t left = p->waiting.n; left > 0 && p->waiting.head; left--) {
        struct gen *g = p->waiting.head;
        uint32_t model = g->model;
        gen_list_remove(&p->waiting, g);
        if (hopeless[model] || g->retry_at_ms > now_ms) {
            gen_list_add(&p->waiting, g);
            continue;
        }
        dueheap_remove(&p->due, &g->due);
        g->state = GEN_ENDED;
        enum picked picked = gen_place(g);
        hopeless[model] =
            picked == PICKED_NOBODY || picked == PICKED_ALL_FULL || picked == PICKED_BROKEN;
    }
    queue_flush(p); /* streams that clients read already went first */
}

/* What takes one worker away often takes many, one after the other, and the next may be among them:
 * a generation that lost two in a row lets the moment pass. */
static bool wait_for_calm(struct gen *g)
{
    uint32_t ms = GEN_CALM_MS;
    for (uint32_t i = 2; i < g->moves && ms < GEN_RETRY_MS_MAX; i++)
        ms *= 4;
    if (ms >= g->pool->config.worker_wait_ms)
        return false;
    g->retry_at_ms = pool_now_ms(g->pool) + ms;
    wait_for_worker(g);
    return true;
}

/* ---- events of one generation --------------------------------------------------------------- */

void gen_move(struct gen *g, bool fault, bool tell)
{
    struct pool *p = g->pool;
    if (tell)
        start_cancel(g);
    detach(g);
    p->moved++;
    g->moved = true;
    tell_place(g, NULL, true);
    g->moves += fault;
    g->moved_again = fault && g->moves > 1;
    g->n_tried = 0;
    if (g->n_out >= g->r->max_tokens)
        gen_finish(g, GEN_LENGTH); /* only the word that it is over was lost */
    else if (g->moves > p->config.moves_max)
        gen_fail(g, GEN_FAULT_WORKER, "the workers that ran it failed", 0);
    else if (fault && g->moves > 1 && wait_for_calm(g))
        return;
    else
        gen_place(g);
}

void gen_failed(struct gen *g, const char *what, bool tell)
{
    struct worker *w = g->worker;
    g->avoid = w->stream;
    worker_fault(g->pool, w, what);
    gen_move(g, true, tell);
}

/* It was the one that its worker was tried with. */
static void trust(struct gen *g)
{
    if (!g->tried_one)
        return;
    g->tried_one = false;
    breaker_token(g->worker->breaker);
    log_info("worker is trusted again", "id=%s", g->worker->id);
    gen_wake_waiting(g->pool);
}

void gen_ends_well(struct gen *g)
{
    trust(g);
    breaker_good(g->worker->breaker);
}

void gen_heard(struct gen *g, bool first)
{
    struct worker *w = g->worker;
    g->token_ms = w->heard_ms;
    gen_recount(g);
    queue_heard(g);
    if (g->n_out - g->n_out_sent >= GEN_WELL_TOKENS)
        g->moves = 0;
    if (!first)
        return;
    patience_watch(g); /* the next ones are waited for otherwise than the first */
    trust(g);
}

void gen_refused(struct gen *g, const Argosy__Refused *r)
{
    struct worker *w = g->worker;
    bool invalid = r->reason == ARGOSY__REFUSED_REASON__REFUSED_INVALID;
    if (g->n_out > g->n_out_sent) {
        gen_move(g, true, false);
        return;
    }
    g->pool->refused++;
    detach(g);
    tell_place(g, NULL, false);
    if (invalid && !g->moved) {
        gen_fail(g, GEN_FAULT_INVALID, r->detail, 0);
        return;
    }
    g->tried[g->n_tried++] = w->stream;
    if (r->retry_after_ms && (!g->retry_after_ms || r->retry_after_ms < g->retry_after_ms))
        g->retry_after_ms = r->retry_after_ms;
    if (g->n_tried < GEN_TRIES_MAX)
        gen_place(g);
    else
        wait_for_room(g, "all workers that were asked are full");
}

void gen_due(struct gen *g, uint64_t now_ms)
{
    if (now_ms >= g->deadline_at_ms) {
        if (g->state == GEN_RUNNING)
            start_cancel(g);
        gen_fail(g, GEN_FAULT_DEADLINE, "the deadline has passed", 0);
        return;
    }
    if (g->state == GEN_RUNNING) {
        patience_due(g, now_ms);
        return;
    }
    if (g->state == GEN_QUEUED) {
        queue_due(g, now_ms);
        return;
    }
    ASSERT(g->state == GEN_WAITING);
    if (now_ms >= g->give_up_at_ms) {
        if (g->moved)
            gen_fail(g, GEN_FAULT_WORKER, "its worker is gone and no other took over", 0);
        else if (g->full_until_ms)
            gen_fail(g, GEN_FAULT_BUSY, "all workers are full, and were for too long",
                     GEN_RETRY_MS_MAX);
        else
            gen_fail(g, GEN_FAULT_NO_WORKER, "no worker came", 0);
        return;
    }
    detach(g);
    gen_place(g);
}

/* ---- the end -------------------------------------------------------------------------------- */

void gen_fail(struct gen *g, enum gen_fault fault, const char *detail, uint32_t retry_after_ms)
{
    detach(g);
    give_slot_back(g);
    g->pool->failed++;
    g->cb.fail(g->ctx, fault, detail, retry_after_ms);
    gen_free(g);
}

static struct gen_usage usage_of(const struct gen *g)
{
    return (struct gen_usage){.prompt_tokens = g->r->n_prompt,
                              .output_tokens = g->n_out,
                              .cached_tokens = g->cached_tokens};
}

/* The worker's name stays for the callback. */
void gen_embed(struct gen *g, const float *v, uint32_t n)
{
    struct gen_usage usage = usage_of(g);
    char worker_id[WORKER_ID_BYTES];
    memcpy(worker_id, g->worker_id, sizeof(worker_id));
    detach(g);
    memcpy(g->worker_id, worker_id, sizeof(worker_id));
    give_slot_back(g);
    g->cb.embedding(g->ctx, v, n, &usage);
    gen_free(g);
}

void gen_finish(struct gen *g, enum gen_finish why)
{
    struct gen_usage usage = usage_of(g);
    g->pool->output_tokens = policy_average(g->pool->output_tokens, g->n_out);
    detach(g);
    give_slot_back(g);
    g->cb.finish(g->ctx, why, &usage);
    gen_free(g);
}

void pool_cancel(struct gen *g)
{
    struct pool *p = g->pool;
    if (p->gens[g->slot] != g)
        return; /* it is in its last callback */
    if (g->state == GEN_RUNNING)
        start_cancel(g);
    detach(g);
    give_slot_back(g);
    gen_free(g);
    pool_arm(p);
}

const char *gen_worker_id(const struct gen *g)
{
    return g->worker_id;
}

/* ---- the start ------------------------------------------------------------------------------ */

static struct gen *gen_new(struct pool *p, const struct gen_request *r,
                           const struct gen_callbacks *cb, void *ctx, uint32_t model)
{
    struct gen *g = calloc(1, sizeof(*g));
    if (!g)
        return NULL;
    uint32_t deadline_ms = r->deadline_ms ? r->deadline_ms : p->config.deadline_ms;
    g->pool = p;
    g->state = GEN_ENDED; /* nowhere yet */
    g->slot = p->free_slots[--p->n_free_slots];
    g->due.kind = DUE_GEN;
    g->r = r;
    g->cb = *cb;
    g->ctx = ctx;
    g->model = model;
    g->deadline_at_ms = pool_now_ms(p) + deadline_ms;
    p->gens[g->slot] = g;
    return g;
}

static int start_fault(struct gen *g, enum picked picked, enum gen_fault *fault, struct err *e)
{
    struct pool *p = g->pool;
    switch (picked) {
    case PICKED:
        return 0;
    case PICKED_NOBODY:
    case PICKED_BROKEN:
    case PICKED_LATER:
        if (p->waiting.n < p->config.queue_max && p->config.worker_wait_ms > 0) {
            wait_for_worker(g);
            return 0;
        }
        *fault = GEN_FAULT_NO_WORKER;
        return err_set(e, ERR_NOT_FOUND, "no worker serves the model %s now", g->r->model);
    case PICKED_UNWANTED:
        *fault = GEN_FAULT_UNWANTED;
        return ERR_NOT_FOUND;
    case PICKED_ALL_FULL:
        *fault = GEN_FAULT_BUSY;
        return queue_add(g, e) ? 0 : ERR_BUSY;
    case PICKED_TOO_LONG:
        *fault = GEN_FAULT_INVALID;
        return err_set(e, ERR_RANGE, "no worker of the model %s has a context of %llu tokens",
                       g->r->model,
                       (unsigned long long)g->r->n_prompt + (unsigned long long)g->r->max_tokens);
    case PICKED_UNSENDABLE:
        *fault = GEN_FAULT_INVALID;
        return ERR_LIMIT;
    }
    return 0;
}

struct gen *pool_start(struct pool *p, const struct gen_request *r, const struct gen_callbacks *cb,
                       void *ctx, enum gen_fault *fault, struct err *e)
{
    int model = pool_model_index(p, r->model);
    p->retry_after_ms = 0;
    if (model < 0) {
        *fault = GEN_FAULT_NO_WORKER;
        err_set(e, ERR_NOT_FOUND, "the model %.64s is not served here", r->model);
        return NULL;
    }
    *fault = GEN_FAULT_INVALID;
    if (start_check(r, e) < 0)
        return NULL;
    *fault = GEN_FAULT_BUSY;
    if (p->n_free_slots == 0) {
        err_set(e, ERR_LIMIT, "%u generations are under way, no more are taken",
                p->config.gens_max);
        return NULL;
    }
    struct gen *g = gen_new(p, r, cb, ctx, (uint32_t)model);
    if (!g) {
        err_set(e, ERR_NOMEM, "no memory for a generation");
        return NULL;
    }
    if (fairqueue_enter(&p->queue, &g->turn, r->tenant) < 0) {
        give_slot_back(g);
        gen_free(g);
        err_set(e, ERR_NOMEM, "no memory for a generation");
        return NULL;
    }
    budget_request(&p->budget);
    enum picked picked = queue_has(p, g->model) ? PICKED_ALL_FULL : gen_dispatch(g, e);
    if (start_fault(g, picked, fault, e) < 0) {
        give_slot_back(g);
        gen_free(g);
        return NULL;
    }
    pool_arm(p);
    return g;
}
