/* scheduler.h: which sequences compute how many rows in a step, and who holds the pages.
 *
 * Order: a sequence's rank is the rows that were computed before it came, less priority_rows for
 * each level of its priority; low ranks first, then arrival. So a higher priority goes first, but
 * no further ahead than that: whoever waits is overtaken only by what comes within that many rows.
 *
 * A step is planned like this:
 *   1. If the first of those waiting finds no place or no pages, and running ones of lower priority
 *      behind it in order have them, those are preempted.
 *   2. Every running sequence that decodes gets its one row, in order, while the step has room.
 *      Where it needs a new page and none is to be had, the last running sequence in order is
 *      preempted.
 *   3. Those get rows for their guesses too (speculator.h), while there is room and pages are to be
 *      had without preempting anybody.
 *   4. The first of those waiting is admitted while there is a place, and pages for all its tokens,
 *      one more, and one for each that runs. Nobody overtakes it.
 *   5. What is left goes to prefills in chunks, in the order of rank plus the tokens still to do: a
 *      short prompt passes a long one that came before it, and no prompt waits for more tokens of
 *      later ones than it has itself. While sequences decode, they get only so many rows that the
 *      step is predicted to take at most stall_max times what it takes without (stepcost.h), but
 *      one row at least; now and then a step goes without them, so that this time stays known.
 * Preempted: its pages are dropped, and it waits again and goes on later (with the same bits) from
 * what the prefix cache still has of it.
 * A prefill that stands at the end of a block first takes what the prefix cache has behind it: at
 * its admission, and again when another one has computed the same since. Its last token is always
 * computed.
 *
 * It knows nothing of models and has no clock: pages are numbers, rows are counts, and how long a
 * step took is told. Thread: the engine's. Memory: the table of running ones; sequences are the
 * engine's.
 */
#ifndef ARGOSY_ENGINE_SCHEDULER_H
#define ARGOSY_ENGINE_SCHEDULER_H

#include <stdint.h>

#include "runtime/engine/prefixcache.h"
#include "runtime/engine/sequence.h"
#include "runtime/engine/stepcost.h"

struct scheduler_limits {
    uint32_t running_max;
    uint32_t step_tokens_max;
    uint32_t priority_rows; /* what a level of priority is worth */
    double stall_max;       /* 0: prefills take all of step_tokens_max */
};

struct scheduler {
    struct prefixcache *cache; /* borrowed */
    struct scheduler_limits limits;
    struct sequence **running; /* (running_max), in order */
    uint32_t n_running;
    struct sequence *waiting; /* linked by `next`, in order */
    uint32_t n_waiting;
    uint64_t n_preempted; /* since the start */
    uint64_t n_rows;      /* computed since the start: the clock of ranks */
    struct stepcost cost;
    struct stepcost_work work; /* of the plan */
    uint32_t n_mixed;          /* steps in a row that had both decodes and prefills */
};

int scheduler_init(struct scheduler *s, struct prefixcache *cache,
                   const struct scheduler_limits *limits, struct err *e);
/* Sequences still inside are the caller's to take out first. */
void scheduler_release(struct scheduler *s);

/* Puts a sequence without pages among those waiting. */
void scheduler_add(struct scheduler *s, struct sequence *q);
/* Takes it out, wherever it is, and drops its pages. */
void scheduler_remove(struct scheduler *s, struct sequence *q);

/* Plans a step: sets step_rows of every running sequence, and sees that pages are there for them.
 * Returns the rows in all; 0 only when nothing runs and nothing can be admitted. */
uint32_t scheduler_plan(struct scheduler *s);

/* The rows of the plan are computed, in so many seconds (0: not measured): their KV counts, and
 * full blocks go into the prefix cache. step_rows has been lowered to what was right, and n_tokens
 * raised; pages that only wrong guesses had are given back. */
void scheduler_computed(struct scheduler *s, double seconds);

/* Whether a sequence's rows of this step reach its last token, so that the next one is sampled. */
static inline bool scheduler_samples(const struct sequence *q)
{
    return q->step_rows > 0 && q->n_computed + q->step_rows >= q->n_tokens;
}

#endif
