/* pick.c: which worker a generation goes to, or why to none. */
#include <string.h>

#include "router/pool/pool_internal.h"
#include "runtime/base/check.h"

static bool was_tried(const struct gen *g, const struct worker *w)
{
    if (g->avoid == w->stream)
        return true;
    for (uint32_t i = 0; i < g->n_tried; i++)
        if (g->tried[i] == w->stream)
            return true;
    return false;
}

/* Where nobody is trusted: what a client reads already goes on, of others one is tried. */
static bool admits_alone(const struct gen *g, const struct worker *w, uint64_t now_ms)
{
    return g->moved || breaker_admits_alone(w->breaker, now_ms);
}

/* Fills p->candidates with workers that serve the model, match the request, have the context, were
 * not tried and are trusted, or, `alone`, need not be. */
static uint32_t gather_candidates(struct gen *g, const struct policy_request *request,
                                  uint64_t now_ms, bool alone, enum picked *if_none)
{
    struct pool *p = g->pool;
    uint64_t context = (uint64_t)g->r->n_prompt + g->r->max_tokens;
    uint32_t n = 0;
    bool too_long = false;
    bool can_later = false;
    uint64_t trusted_ms = UINT64_MAX;
    bool unwanted = false;
    for (uint32_t i = 0; i < p->n_workers; i++) {
        struct worker *w = p->workers[i];
        const struct worker_offer *o = worker_offer_of(w, g->model);
        if (!w->attached || w->unreachable || w->draining || !o)
            continue;
        if (!policy_matches(&w->view, request)) {
            unwanted = true;
            continue;
        }
        if (o->context_tokens < context) {
            too_long = true;
            continue;
        }
        if (!(breaker_admits(w->breaker, now_ms) || (alone && admits_alone(g, w, now_ms)))) {
            uint64_t again_ms = breaker_again_ms(w->breaker, now_ms);
            trusted_ms = again_ms < trusted_ms ? again_ms : trusted_ms;
            continue;
        }
        can_later = true;
        if (was_tried(g, w))
            continue;
        worker_refresh(p, w, now_ms);
        worker_show(w, o);
        p->candidates[n++] = &w->view;
    }
    *if_none = can_later  ? PICKED_ALL_FULL
               : too_long ? PICKED_TOO_LONG
               : unwanted ? PICKED_UNWANTED
                          : PICKED_NOBODY;
    if (!can_later && trusted_ms != UINT64_MAX) {
        *if_none = PICKED_BROKEN;
        g->retry_at_ms = trusted_ms;
    }
    return n;
}

static struct worker *pick(struct gen *g, uint64_t now_ms, enum picked *if_none)
{
    struct pool *p = g->pool;
    struct policy_request request = {
        .prompt_tokens = g->r->n_prompt + g->n_out,
        .output_tokens = g->r->max_tokens - g->n_out,
        .session_hash = g->r->session_hash,
        .wants = g->r->wants,
        .n_wants = g->r->n_wants,
        .price_max = g->r->price_max,
    };
    uint32_t n = gather_candidates(g, &request, now_ms, false, if_none);
    if (*if_none == PICKED_BROKEN)
        n = gather_candidates(g, &request, now_ms, true, if_none);
    n = policy_gather(p->candidates, n, &request, p->admitted);
    if (n == 0)
        return NULL;
    blocks_hash(g, &request);
    struct policy_snapshot snapshot = {.workers = p->admitted,
                                       .cached_blocks = blocks_look(p, &request, n),
                                       .n = n,
                                       .now_ms = now_ms,
                                       .output_tokens = p->output_tokens};
    uint32_t chosen = p->config.policy->pick(p->policy_state, &snapshot, &request, &p->rng);
    ASSERT(chosen < n);
    blocks_picked(g, &request, chosen);
    return (struct worker *)p->admitted[chosen];
}

/* Says what no worker of the model has. */
static void explain_unwanted(const struct gen *g, struct err *e)
{
    struct pool *p = g->pool;
    struct policy_request request = {
        .wants = g->r->wants, .n_wants = g->r->n_wants, .price_max = g->r->price_max};
    char why[ERR_MSG_BYTES];
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->n_workers; i++)
        if (p->workers[i]->attached && worker_offer_of(p->workers[i], g->model))
            p->candidates[n++] = &p->workers[i]->view;
    policy_mismatch(p->candidates, n, &request, why, sizeof(why));
    err_set(e, ERR_NOT_FOUND, "%s", why);
}

/* Sends it to a worker, if there is one. On anything but PICKED the generation is nowhere still. */
enum picked gen_dispatch(struct gen *g, struct err *e)
{
    struct pool *p = g->pool;
    uint64_t now_ms = pool_now_ms(p);
    enum picked if_none;
    struct worker *w;
    while ((w = pick(g, now_ms, &if_none))) {
        g->id = ++p->serial << GEN_SLOT_BITS | g->slot;
        if (start_send(g, w, now_ms, e) == 0) {
            gen_join(g, w);
            patience_begin(g, now_ms);
            return PICKED;
        }
        /* An unreachable worker is no candidate any more; any other failure is the frame's. */
        if (!w->unreachable)
            return PICKED_UNSENDABLE;
    }
    if (if_none == PICKED_UNWANTED)
        explain_unwanted(g, e);
    return if_none;
}
