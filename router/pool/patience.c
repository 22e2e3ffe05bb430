/* patience.c: how long the next token of a generation may take, at a worker that says it lives.
 *
 * Between two tokens: a step, as measured, many times over. Before the first one: what was ahead of
 * it when it was sent, as measured, several times over; where a worker lets generations wait, or
 * was never measured, as long as it makes steps; not while it loads the model. Never less than the
 * option says. Each time that a generation was moved for this it is given twice as long, so that
 * where all are slow it gets on.
 */
#include "router/pool/pool_internal.h"
#include "runtime/base/log.h"

/* A step that is so much longer than usual is none. */
#define STEPS 20
/* Prompts take turns with streams that run, and others may come first. */
#define PREFILLS 10
/* Nothing is known of the worker's speed. */
#define UNKNOWN 6
#define DOUBLINGS_MAX 10

static double step_s(const struct gen *g)
{
    const struct policy_worker *v = &g->worker->view;
    const struct policy_rates *r = worker_rates(g->worker, g->model);
    if (r->step_base_s > 0 || r->step_seq_s > 0)
        return r->step_base_s + r->step_seq_s * v->inflight;
    return r->decode_tokens_per_s > 0 ? v->inflight / r->decode_tokens_per_s : 0;
}

static uint64_t at_least(double s, uint64_t ms)
{
    return s * 1000 > (double)ms ? (uint64_t)(s * 1000) : ms;
}

static uint64_t between_ms(const struct gen *g)
{
    return at_least(STEPS * step_s(g), g->pool->config.token_timeout_ms);
}

static uint64_t first_ms(const struct gen *g)
{
    const struct policy_worker *v = &g->worker->view;
    const struct policy_rates *r = worker_rates(g->worker, g->model);
    uint64_t timeout_ms = g->pool->config.token_timeout_ms;
    if (!(r->prefill_tokens_per_s > 0))
        return UNKNOWN * timeout_ms;
    double ahead = (double)v->inflight_prefill_tokens + (double)v->others_tokens;
    return at_least(PREFILLS * (ahead / r->prefill_tokens_per_s + step_s(g)), timeout_ms);
}

static bool has_token(const struct gen *g)
{
    return g->n_out > g->n_out_sent;
}

/* When it is over; UINT64_MAX: never. */
static uint64_t end_ms(const struct gen *g)
{
    const struct pool *p = g->pool;
    uint32_t doublings = g->stalls < DOUBLINGS_MAX ? g->stalls : DOUBLINGS_MAX;
    uint64_t from_ms = g->token_ms > p->forgiven_ms ? g->token_ms : p->forgiven_ms;
    if (p->config.token_timeout_ms == 0)
        return UINT64_MAX;
    return from_ms + ((has_token(g) ? between_ms(g) : g->first_ms) << doublings);
}

static bool is_over(struct gen *g, uint64_t now_ms)
{
    const struct worker *w = g->worker;
    const struct worker_offer *o = worker_offer_of(w, g->model);
    if (now_ms < end_ms(g))
        return false;
    bool loads = o && o->state != ARGOSY__MODEL_STATE__MODEL_LOADED;
    bool may_wait = w->view.waiting > 0 || !(w->view.rates.prefill_tokens_per_s > 0);
    bool gets_on = may_wait && now_ms - w->steps_ms < between_ms(g);
    if (has_token(g) || !(loads || gets_on))
        return true;
    g->token_ms = now_ms; /* its model, those before it, or its own prompt take their time */
    return false;
}

void patience_begin(struct gen *g, uint64_t now_ms)
{
    g->token_ms = now_ms;
    g->first_ms = first_ms(g);
    patience_watch(g);
}

void patience_watch(struct gen *g)
{
    uint64_t at_ms = end_ms(g);
    dueheap_set(&g->pool->due, &g->due, at_ms < g->deadline_at_ms ? at_ms : g->deadline_at_ms);
}

void patience_due(struct gen *g, uint64_t now_ms)
{
    if (!is_over(g, now_ms)) {
        patience_watch(g);
        return;
    }
    log_warn("a token is too late", "worker=%s tokens=%u silent_ms=%llu", g->worker->id, g->n_out,
             (unsigned long long)(now_ms - g->token_ms));
    g->pool->stalled++;
    g->stalls++;
    gen_failed(g, "a token came too late", true);
}
