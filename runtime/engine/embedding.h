/* embedding.h: a request that wants a vector of its prompt in place of tokens.
 *
 * The states behind the output norm are pooled: their mean over all positions, or the last one's
 * (kernels/NUMERICS.md, "Pooling"). States are not kept, so a mean takes nothing from the prefix
 * cache; the last one's state needs its own row alone, which is always computed. What a request
 * leaves in the cache is the same as any other's. A preempted one starts over.
 *
 * Memory: the sequence's arena. Thread: the engine's.
 */
#ifndef ARGOSY_ENGINE_EMBEDDING_H
#define ARGOSY_ENGINE_EMBEDDING_H

#include "runtime/base/arena.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"

struct embedding {
    enum engine_pooling pooling; /* NONE: the request wants tokens, the rest is unused */
    uint32_t width;
    double *sum; /* (width) */
    float *v;    /* (width), once it is finished */
};

int embedding_init(struct embedding *m, enum engine_pooling pooling, uint32_t width,
                   struct arena *a, struct err *e);

/* Which of a sequence's rows of this step count: `rows` from the batch's row `row` on, the first at
 * `position` of `n_prompt`. False: none. */
bool embedding_rows(struct embedding *m, uint32_t row, uint32_t rows, uint32_t position,
                    uint32_t n_prompt, struct pooling *out);

/* All rows are in. Returns the vector; NULL when it is not finite. */
const float *embedding_finish(struct embedding *m, uint32_t n_prompt);

#endif
