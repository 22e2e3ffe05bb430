/* lora.h: rows of a batch that follow one another with one adapter, which are multiplied together.
 */
#ifndef ARGOSY_ENGINE_LORA_H
#define ARGOSY_ENGINE_LORA_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/engine/backend.h"

struct lora_run {
    const struct adapter *adapter;
    int64_t begin, end; /* rows of the batch */
    uint32_t next_span;
};

/* The run behind *r, from {0} on; false behind the last. */
static inline bool lora_next_run(const struct batch *b, struct lora_run *r)
{
    uint32_t at = r->next_span;
    int64_t row = r->end;
    while (b->adapters && at < b->n_spans && !b->adapters[at])
        row += b->spans[at++].rows;
    if (!b->adapters || at == b->n_spans)
        return false;
    *r = (struct lora_run){.adapter = b->adapters[at], .begin = row, .end = row, .next_span = at};
    while (r->next_span < b->n_spans && b->adapters[r->next_span] == r->adapter)
        r->end += b->spans[r->next_span++].rows;
    return true;
}

#endif
