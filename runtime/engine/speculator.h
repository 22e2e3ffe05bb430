/* speculator.h: how many tokens are guessed for whom.
 *
 * A row more makes a step longer, by little while weights are read for few rows, by a whole share
 * once the step is bound by arithmetic. So a step's guesses are as many as give the most tokens a
 * second, by what is measured as it goes: how often guesses of a sequence were right lately, how
 * long steps take (stepcost.h), and the guessing. Where guessing does not pay there is none, but
 * for a try now and then: what is not tried recovers slowly towards the guess of the start. While a
 * prompt is computed the step is bound by arithmetic, and nothing is guessed.
 *
 * Which tokens come out never depends on any of this (verifier.h), so it may depend on time.
 * Thread: the engine's.
 */
#ifndef ARGOSY_ENGINE_SPECULATOR_H
#define ARGOSY_ENGINE_SPECULATOR_H

#include "runtime/engine/drafter.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/scheduler.h"
#include "runtime/engine/verifier.h"

#define SPECULATOR_DRAFTS_MAX 64u /* of one step */
#define SPECULATOR_TOKENS_MAX 16u /* of one sequence in one step */
/* With more sequences than this a step is bound by arithmetic, and nothing is guessed. */
#define SPECULATOR_SEQUENCES_MAX 64u

struct speculator {
    struct drafter *drafter; /* NULL: nothing is guessed */
    bool owned;              /* the drafter is ours */
    bool adapts;
    uint64_t (*clock_ns)(void);
    uint32_t tokens_max;         /* of one sequence */
    uint32_t drafts_max;         /* of a step */
    struct sequence **of;        /* (sequences_max) those that decode */
    uint32_t *order;             /* (drafts_max) whose guess comes in next, the best first */
    struct draft_record all;     /* over all sequences: what is believed of a new one */
    double draft_s;              /* of one guess deep, for all sequences; 0: not seen */
    uint64_t n_drafted, n_right; /* since the start */
};

/* Guesses of a step at most. */
uint32_t speculator_drafts_max(const struct engine_config *c);

int speculator_init(struct speculator *s, const struct engine_config *c,
                    const struct drafter_host *host, struct err *e);
void speculator_release(struct speculator *s);

/* Before a plan: guesses for those that decode. */
void speculator_draft(struct speculator *s, const struct scheduler *of);
/* After a step's tokens are taken, with their rows still in step_rows. */
void speculator_learn(struct speculator *s, const struct verifier *v);
/* The sequence is about to be freed. */
void speculator_forget(struct speculator *s, const struct sequence *q);

#endif
