/* scheduler.h: which sequences compute how many rows in a step, and who holds the pages.
 *
 * Order everywhere: higher priority first, then arrival. A step is planned like this:
 *   1. Every running sequence that decodes gets its one row, in order, while the step has room.
 *      Where it needs a new page and none is to be had, the last running sequence in order is
 *      preempted: its pages are dropped, and it waits again and goes on later (with the same bits)
 *      from what the prefix cache still has of it.
 *   2. Those get rows for their guesses too (speculator.h), while there is room and pages are to be
 *      had without preempting anybody.
 *   3. What is left of step_tokens_max goes to prefills, in order, in chunks.
 *   4. The first of those waiting is admitted while there is a place, room in the step, and pages
 *      for all its tokens, one more, and one for each that runs. Nobody overtakes it.
 * A prefill that stands at the end of a block first takes what the prefix cache has behind it: at
 * its admission, and again when another one has computed the same since. Its last token is always
 * computed.
 *
 * It knows nothing of models: pages are numbers and rows are counts.
 * Thread: the engine's. Memory: the table of running ones; sequences are the engine's.
 */
#ifndef ARGOSY_ENGINE_SCHEDULER_H
#define ARGOSY_ENGINE_SCHEDULER_H

#include <stdint.h>

#include "runtime/engine/prefixcache.h"
#include "runtime/engine/sequence.h"

struct scheduler {
    struct prefixcache *cache; /* borrowed */
    struct sequence **running; /* (running_max), in order */
    uint32_t n_running;
    uint32_t running_max;
    uint32_t step_tokens_max;
    struct sequence *waiting; /* linked by `next`, in order */
    uint32_t n_waiting;
    uint64_t n_preempted; /* since the start */
};

int scheduler_init(struct scheduler *s, struct prefixcache *cache, uint32_t running_max,
                   uint32_t step_tokens_max, struct err *e);
/* Sequences still inside are the caller's to take out first. */
void scheduler_release(struct scheduler *s);

/* Puts a sequence without pages among those waiting. */
void scheduler_add(struct scheduler *s, struct sequence *q);
/* Takes it out, wherever it is, and drops its pages. */
void scheduler_remove(struct scheduler *s, struct sequence *q);

/* Plans a step: sets step_rows of every running sequence, and sees that pages are there for them.
 * Returns the rows in all; 0 only when nothing runs and nothing can be admitted. */
uint32_t scheduler_plan(struct scheduler *s);

/* The rows of the plan are computed: their KV counts, and full blocks go into the prefix cache.
 * step_rows has been lowered to what was right, and n_tokens raised; pages that only wrong guesses
 * had are given back. */
void scheduler_computed(struct scheduler *s);

/* Whether a sequence's rows of this step reach its last token, so that the next one is sampled. */
static inline bool scheduler_samples(const struct sequence *q)
{
    return q->step_rows > 0 && q->n_computed + q->step_rows >= q->n_tokens;
}

#endif
