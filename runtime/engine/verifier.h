/* verifier.h: which tokens a step gives, and which guesses were right.
 *
 * A sequence that decodes has a row for its last token and one for each guess behind it, and a pick
 * for every row. The first pick is the next token, whatever was guessed. If it is the first guess,
 * then the row of that guess was the right input, so the second pick is the token after, and so on.
 * The sampler notes each token before the next one is sampled, so penalties, masks and stops are
 * what they would be one token a step: the tokens are the same bits with guesses or without.
 *
 *     row:   last   guess 0   guess 1   guess 2
 *     pick:    a ──=── b ──≠── (the rest counts for nothing: tokens a, b)
 *
 * Picks of one place of all sequences are sampled together, so threads share them out.
 * Thread: the engine's. Memory: taken in verifier_init.
 */
#ifndef ARGOSY_ENGINE_VERIFIER_H
#define ARGOSY_ENGINE_VERIFIER_H

#include "runtime/engine/backend.h"
#include "runtime/engine/sequence.h"

/* What a step gave one sequence. */
struct verified {
    struct sequence *sequence;
    uint32_t first;   /* of its picks */
    uint32_t n_picks; /* 1, and one for each guess */
    uint32_t
        n_taken; /* tokens that were accepted; 0: the first's logits are not finite, or refused */
};

struct verifier {
    struct pick *picks;         /* (picks_max) */
    struct kn_sampled *sampled; /* (picks_max): as the picks */
    uint64_t *digests;          /* (picks_max): as the picks; NULL: not wanted */
    struct verified *of;        /* (sequences_max) */
    uint32_t *which, *turn;     /* (sequences_max) scratch: picks and sequences of a round */
    uint32_t n_picks, n_of;
};

int verifier_init(struct verifier *v, uint32_t picks_max, uint32_t sequences_max, bool digests,
                  struct err *e);
void verifier_release(struct verifier *v);

void verifier_clear(struct verifier *v);
/* Picks for the rows of q's last token and its guesses, which begin at `row` of the batch. */
void verifier_add(struct verifier *v, struct sequence *q, uint32_t row);

/* After the run of the batch with these picks: sequences accept their tokens, step_rows is lowered
 * to the rows that were right, n_drafts to the guesses that were. */
void verifier_take(struct verifier *v, struct backend *b, struct batch *batch);

#endif
