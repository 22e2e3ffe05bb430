/* gen_queue.c: new generations that wait because everybody is full, and how long that will be.
 *
 *   full ──► predicted wait > queue_wait, or the deadline, or the queue is full ──► refused at once
 *    │
 *    └─► fairqueue ──a place is free──► who is next by fairqueue.h ──► placed
 *              └── waited for four times as long as was allowed ──► refused after all
 *
 * A prediction is Little's law: those that run leave at running / mean time a second.
 */
#include <stddef.h>

#include "router/pool/pool_internal.h"
#include "runtime/base/check.h"

/* Of the mean time that a generation takes: the last hundred or so count. */
#define SERVICE_KEEP 0.98
/* Who is first may need a worker that others do not: by its labels, its price, its context. When so
 * many of a model found no room, the rest waits for the next place. */
#define PASSES_MAX 4
/* Predictions err: what has waited so many times as long as was allowed is refused after all. */
#define WAIT_TIMES_MAX 4
#define RETRY_MS_MIN 250
#define RETRY_MS_MAX 30000

static struct gen *gen_of(struct fairqueue_item *i)
{
    return (struct gen *)(void *)((char *)i - offsetof(struct gen, turn));
}

/* ---- what it costs --------------------------------------------------------------------------- */

static uint32_t expected_of(const struct gen *g)
{
    return g->r->max_tokens < POLICY_OUTPUT_TOKENS_GUESS ? g->r->max_tokens
                                                         : POLICY_OUTPUT_TOKENS_GUESS;
}

void queue_joined(struct gen *g, uint64_t now_ms)
{
    struct pool *p = g->pool;
    p->service[g->model].running++;
    if (g->begun_ms)
        return; /* it has moved */
    g->begun_ms = now_ms;
    g->charged_output = expected_of(g);
    fairqueue_charge(&p->queue, &g->turn,
                     (int64_t)g->r->n_prompt * FAIRQUEUE_PROMPT_COST +
                         (int64_t)g->charged_output * FAIRQUEUE_OUTPUT_COST);
}

void queue_heard(struct gen *g)
{
    if (g->n_out <= g->charged_output)
        return;
    fairqueue_charge(&g->pool->queue, &g->turn,
                     (int64_t)(g->n_out - g->charged_output) * FAIRQUEUE_OUTPUT_COST);
    g->charged_output = g->n_out;
}

void queue_detached(struct gen *g)
{
    g->pool->service[g->model].running--;
}

/* What it was charged for and did not take goes back; the mean time learns from what was served. */
void queue_left(struct gen *g)
{
    struct pool *p = g->pool;
    struct service *s = &p->service[g->model];
    if (g->begun_ms) {
        double ms = (double)(pool_now_ms(p) - g->begun_ms);
        fairqueue_charge(&p->queue, &g->turn,
                         -(int64_t)(g->charged_output - g->n_out) * FAIRQUEUE_OUTPUT_COST);
        s->mean_ms = s->n++ ? s->mean_ms * SERVICE_KEEP + ms * (1 - SERVICE_KEEP) : ms;
    }
    fairqueue_leave(&p->queue, &g->turn);
}

/* ---- waiting --------------------------------------------------------------------------------- */

bool queue_has(const struct pool *p, uint32_t model)
{
    return p->queue.n_of_kind[model] > 0;
}

static uint64_t predict_ms(const struct gen *g)
{
    const struct service *s = &g->pool->service[g->model];
    uint32_t ahead = fairqueue_ahead(&g->pool->queue, g->r->tenant, g->model, g->turn.priority) + 1;
    uint32_t running = s->running ? s->running : 1;
    return (uint64_t)(s->mean_ms * ahead / running);
}

static uint32_t retry_after(struct pool *p, uint64_t wait_ms)
{
    uint64_t ms = wait_ms > p->config.queue_wait_ms ? wait_ms - p->config.queue_wait_ms : 0;
    ms = ms < RETRY_MS_MIN ? RETRY_MS_MIN : ms > RETRY_MS_MAX ? RETRY_MS_MAX : ms;
    return (uint32_t)(ms + rng_below(&p->rng, ms / 2 + 1)); /* not all come back together */
}

static void put(struct gen *g)
{
    struct pool *p = g->pool;
    uint64_t until_ms = g->turn.since_ms + WAIT_TIMES_MAX * (uint64_t)p->config.queue_wait_ms;
    g->state = GEN_QUEUED;
    bool has_room = fairqueue_add(&p->queue, &g->turn);
    ASSERT(has_room);
    dueheap_set(&p->due, &g->due, until_ms < g->deadline_at_ms ? until_ms : g->deadline_at_ms);
}

bool queue_add(struct gen *g, struct err *e)
{
    struct pool *p = g->pool;
    uint64_t now_ms = pool_now_ms(p);
    bool first = !queue_has(p, g->model);
    g->turn.kind = g->model;
    g->turn.priority = g->r->priority;
    g->turn.since_ms = now_ms;
    uint64_t wait_ms = predict_ms(g);
    p->retry_after_ms = retry_after(p, wait_ms);
    if (p->config.queue_wait_ms == 0 || p->queue.n + p->waiting.n >= p->config.queue_max) {
        err_set(e, ERR_BUSY, "all workers of the model %s are full", g->r->model);
        return false;
    }
    if (wait_ms > p->config.queue_wait_ms || now_ms + wait_ms > g->deadline_at_ms) {
        err_set(e, ERR_BUSY, "all workers of the model %s are full, for %llu ms by the look of it",
                g->r->model, (unsigned long long)wait_ms);
        return false;
    }
    put(g);
    /* Those before it may wait for workers that it does not need: a look, as soon as may be. */
    if (!first)
        dueheap_set(&p->due, &g->due, now_ms);
    return true;
}

void queue_put_back(struct gen *g)
{
    put(g);
    fairqueue_pass(&g->pool->queue, &g->turn);
}

void queue_due(struct gen *g, uint64_t now_ms)
{
    struct pool *p = g->pool;
    uint64_t until_ms = g->turn.since_ms + WAIT_TIMES_MAX * (uint64_t)p->config.queue_wait_ms;
    if (now_ms >= until_ms) {
        gen_fail(g, GEN_FAULT_BUSY, "all workers are full, and were for too long",
                 retry_after(p, predict_ms(g)));
        return;
    }
    p->flush_wanted = true;
    dueheap_set(&p->due, &g->due, until_ms < g->deadline_at_ms ? until_ms : g->deadline_at_ms);
}

/* A callback may start and end others: each time the one that is first now. */
void queue_flush(struct pool *p)
{
    struct fairqueue_item *i;
    uint8_t passes[POOL_MODELS_MAX] = {0};
    uint64_t full = 0, now_ms = p->queue.n ? pool_now_ms(p) : 0;
    fairqueue_begin_round(&p->queue);
    while ((i = fairqueue_first(&p->queue, full, now_ms))) {
        struct gen *g = gen_of(i);
        uint32_t model = g->model;
        fairqueue_remove(&p->queue, i);
        dueheap_remove(&p->due, &g->due);
        g->state = GEN_ENDED;
        if (gen_place(g) == PICKED_ALL_FULL && ++passes[model] == PASSES_MAX)
            full |= 1ull << model;
    }
}
