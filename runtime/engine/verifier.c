#include "runtime/engine/verifier.h"

#include <stdlib.h>

int verifier_init(struct verifier *v, uint32_t picks_max, uint32_t sequences_max, bool digests,
                  struct err *e)
{
    *v = (struct verifier){0};
    v->picks = calloc(picks_max, sizeof(*v->picks));
    v->sampled = calloc(picks_max, sizeof(*v->sampled));
    v->digests = digests ? calloc(picks_max, sizeof(*v->digests)) : NULL;
    v->of = calloc(sequences_max, sizeof(*v->of));
    v->which = calloc(sequences_max, sizeof(*v->which));
    v->turn = calloc(sequences_max, sizeof(*v->turn));
    if (v->picks && v->sampled && (v->digests || !digests) && v->of && v->which && v->turn)
        return 0;
    verifier_release(v);
    return err_set(e, ERR_NOMEM, "engine: no memory");
}

void verifier_release(struct verifier *v)
{
    free(v->picks);
    free(v->sampled);
    free(v->digests);
    free(v->of);
    free(v->which);
    free(v->turn);
    *v = (struct verifier){0};
}

void verifier_clear(struct verifier *v)
{
    v->n_picks = v->n_of = 0;
}

void verifier_add(struct verifier *v, struct sequence *q, uint32_t row)
{
    struct verified *d = &v->of[v->n_of++];
    *d = (struct verified){.sequence = q, .first = v->n_picks, .n_picks = 1 + q->n_drafts};
    for (uint32_t i = 0; i < d->n_picks; i++)
        v->picks[v->n_picks++] = (struct pick){
            .row = row + i, .position = q->n_tokens + i, .want_digest = v->digests != NULL};
    v->picks[d->first].sampling = sampler_params(&q->sampler);
}

/* Takes the pick that is d's turn. True when the one behind it counts too. */
static bool take_pick(struct verifier *v, struct verified *d)
{
    struct sequence *q = d->sequence;
    uint32_t at = d->first + d->n_taken;
    const struct pick *k = &v->picks[at];
    if (!k->finite || sampler_refusal(&q->sampler))
        return false; /* behind a guess: its token comes first in the next step, and fails then */
    bool guessed = d->n_taken + 1 < d->n_picks && q->tokens[q->n_tokens] == k->sampled.id;
    v->sampled[at] = k->sampled;
    if (v->digests)
        v->digests[at] = k->logits_digest;
    sequence_accept(q, k->sampled.id);
    d->n_taken++;
    return guessed && q->finish == ENGINE_GOES_ON;
}

static void settle(const struct verified *d)
{
    struct sequence *q = d->sequence;
    uint32_t right = d->n_taken > 0 ? d->n_taken - 1 : 0;
    q->step_rows -= q->n_drafts - right;
    q->n_drafts = right;
}

void verifier_take(struct verifier *v, struct backend *b, struct batch *batch)
{
    uint32_t n = v->n_of;
    for (uint32_t i = 0; i < n; i++)
        v->turn[i] = i;
    while (n > 0) {
        uint32_t n_next = 0;
        for (uint32_t i = 0; i < n; i++) {
            struct verified *d = &v->of[v->turn[i]];
            if (!take_pick(v, d))
                continue;
            uint32_t next = d->first + d->n_taken;
            v->picks[next].sampling = sampler_params(&d->sequence->sampler);
            v->which[n_next] = next;
            v->turn[n_next++] = v->turn[i];
        }
        n = n_next;
        if (n > 0)
            backend_sample(b, batch, v->which, n);
    }
    for (uint32_t i = 0; i < v->n_of; i++)
        settle(&v->of[i]);
}
