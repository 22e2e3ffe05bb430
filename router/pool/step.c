/* step.c: the new tokens of a Step frame, from a worker that may be wrong or hostile.
 *
 * Each delta is checked before any of it is delivered. Tokens that the client has already are
 * compared and dropped; anything else that does not fit is a fault of the worker, which is closed.
 * Deltas of requests that are not this attachment's are ignored: they were cancelled or moved.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "router/pool/pool_internal.h"
#include "runtime/rpc/frame.h"

static int check_logprobs(const struct gen *g, const Argosy__Delta *d, uint32_t vocab,
                          struct err *e)
{
    if (!g->r->logprobs)
        return 0; /* not asked for: not looked at */
    if (d->n_logprobs != d->n_tokens)
        return err_set(e, ERR_PEER, "%zu logprobs for %zu tokens", d->n_logprobs, d->n_tokens);
    for (size_t i = 0; i < d->n_logprobs; i++) {
        const Argosy__TokenLogprobs *l = d->logprobs[i];
        if (l->n_top_ids != l->n_top_logprobs || l->n_top_ids > FRAME_TOP_LOGPROBS_MAX)
            return err_set(e, ERR_PEER, "%zu top ids with %zu logprobs", l->n_top_ids,
                           l->n_top_logprobs);
        if (isnan(l->logprob))
            return err_set(e, ERR_PEER, "a logprob that is not a number");
        for (size_t j = 0; j < l->n_top_ids; j++)
            if (l->top_ids[j] >= vocab || isnan(l->top_logprobs[j]))
                return err_set(e, ERR_PEER, "a top logprob of no token");
    }
    return 0;
}

static int check_delta(const struct gen *g, const Argosy__Delta *d, struct err *e)
{
    uint32_t vocab = g->pool->models[g->model].vocab;
    if (d->index > g->n_out)
        return err_set(e, ERR_PEER, "token %u came where %u was next", d->index, g->n_out);
    if ((uint64_t)d->index + d->n_tokens > g->r->max_tokens)
        return err_set(e, ERR_PEER, "more than the %u tokens asked for", g->r->max_tokens);
    if (g->r->pooling != GEN_TOKENS && d->n_tokens > 0)
        return err_set(e, ERR_PEER, "tokens where an embedding was wanted");
    if (g->r->pooling != GEN_TOKENS && d->n_embedding == 0 &&
        (d->finish == ARGOSY__FINISH__FINISH_STOP || d->finish == ARGOSY__FINISH__FINISH_LENGTH))
        return err_set(e, ERR_PEER, "an end without the embedding that was wanted");
    if (d->n_tokens == 0 && d->finish == ARGOSY__FINISH__FINISH_NONE)
        return err_set(e, ERR_PEER, "a delta that says nothing");
    for (size_t i = 0; i < d->n_tokens; i++) {
        size_t at = d->index + i;
        if (d->tokens[i] >= vocab)
            return err_set(e, ERR_PEER, "token id %u of a vocabulary of %u", d->tokens[i], vocab);
        if (at < g->n_out && d->tokens[i] != g->out[at])
            return err_set(e, ERR_PEER, "token %zu was %u and is now %u", at, g->out[at],
                           d->tokens[i]);
    }
    return check_logprobs(g, d, vocab, e);
}

static int append(struct gen *g, const uint32_t *ids, uint32_t n)
{
    uint64_t need = (uint64_t)g->n_out + n;
    if (need > g->cap_out) {
        uint64_t cap = g->cap_out ? (uint64_t)g->cap_out * 2 : 64;
        if (cap > g->r->max_tokens)
            cap = g->r->max_tokens;
        if (cap < need)
            cap = need;
        uint32_t *out = realloc(g->out, cap * sizeof(*out));
        if (!out)
            return -1;
        g->out = out;
        g->cap_out = (uint32_t)cap;
    }
    memcpy(g->out + g->n_out, ids, n * sizeof(*ids));
    g->n_out += n;
    return 0;
}

/* The pool's scratch, filled from the frame; NULL when there is no memory. */
static const struct gen_logprob *logprobs_of(struct pool *p, const struct gen *g,
                                             const Argosy__Delta *d, size_t skip)
{
    size_t n = d->n_tokens - skip;
    if (n > p->n_logprobs) {
        struct gen_logprob *more = realloc(p->logprobs, n * sizeof(*more));
        if (!more)
            return NULL;
        p->logprobs = more;
        p->n_logprobs = n;
    }
    for (size_t i = 0; i < n; i++) {
        const Argosy__TokenLogprobs *l = d->logprobs[skip + i];
        size_t n_top = l->n_top_ids < g->r->top_logprobs ? l->n_top_ids : g->r->top_logprobs;
        p->logprobs[i] = (struct gen_logprob){.logprob = l->logprob,
                                              .n_top = (uint32_t)n_top,
                                              .top_ids = l->top_ids,
                                              .top_logprobs = l->top_logprobs};
    }
    return p->logprobs;
}

/* False: the generation has ended meanwhile. */
static bool deliver_tokens(struct pool *p, struct gen *g, const Argosy__Delta *d)
{
    size_t skip = g->n_out - d->index;
    const struct gen_logprob *logprobs = NULL;
    uint64_t id = g->id;
    if (d->n_tokens <= skip)
        return true;
    uint32_t n = (uint32_t)(d->n_tokens - skip);
    if ((g->r->logprobs && !(logprobs = logprobs_of(p, g, d, skip))) ||
        append(g, d->tokens + skip, n) < 0) {
        start_cancel(g);
        gen_fail(g, GEN_FAULT_BUSY, "the router is out of memory", 1000);
        return false;
    }
    if (d->index == 0 && skip == 0)
        g->cached_tokens = d->cached_tokens < g->r->n_prompt ? d->cached_tokens : g->r->n_prompt;
    gen_heard(g, g->n_out - n == g->n_out_sent);
    g->worker->tokens_seen += n;
    g->cb.tokens(g->ctx, d->tokens + skip, logprobs, n);
    return gen_find(p, id) == g;
}

static void deliver_finish(struct pool *p, struct gen *g, const Argosy__Delta *d)
{
    bool ended =
        d->finish == ARGOSY__FINISH__FINISH_STOP || d->finish == ARGOSY__FINISH__FINISH_LENGTH;
    if (g->r->pooling != GEN_TOKENS && ended) {
        gen_ends_well(g);
        gen_embed(g, d->embedding, (uint32_t)d->n_embedding);
        return;
    }
    if (ended)
        gen_ends_well(g);
    switch (d->finish) {
    case ARGOSY__FINISH__FINISH_NONE:
        break;
    case ARGOSY__FINISH__FINISH_STOP:
        gen_finish(g, GEN_STOP);
        break;
    case ARGOSY__FINISH__FINISH_LENGTH:
        gen_finish(g, GEN_LENGTH);
        break;
    case ARGOSY__FINISH__FINISH_CANCELLED:
        gen_move(g, false, false); /* not by us: the worker gives it back */
        break;
    default:
        if (pool_now_ms(p) >= g->deadline_at_ms)
            gen_fail(g, GEN_FAULT_DEADLINE, "the deadline has passed", 0);
        else if (d->hopeless)
            gen_fail(g, GEN_FAULT_INVALID, d->error[0] ? d->error : "no worker can run it", 0);
        else
            gen_failed(g, d->error, false);
        break;
    }
}

int step_apply(struct pool *p, struct worker *w, const Argosy__Step *step, struct err *e)
{
    for (size_t i = 0; i < step->n_deltas; i++) {
        const Argosy__Delta *d = step->deltas[i];
        struct gen *g = gen_find(p, d->request);
        if (!g || g->worker != w)
            continue;
        int rc = check_delta(g, d, e);
        if (rc < 0)
            return rc;
        if (deliver_tokens(p, g, d))
            deliver_finish(p, g, d);
    }
    return 0;
}
