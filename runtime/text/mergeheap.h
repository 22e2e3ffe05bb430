/* mergeheap.h: which pair of neighbours a byte-pair encoding merges next.
 *
 * A binary heap of candidates in memory of the caller's, smallest order first. Nothing is ever
 * taken out of its middle: the caller finds out whether what it pops is stale.
 */
#ifndef ARGOSY_TEXT_MERGEHEAP_H
#define ARGOSY_TEXT_MERGEHEAP_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "runtime/base/err.h"

struct merge_candidate {
    uint64_t order; /* rank << 32 | index of the left symbol: the smallest goes first */
    uint32_t id;    /* what the two become */
    uint32_t bytes; /* of the two together; for who tells stale ones by it */
};

struct mergeheap {
    struct merge_candidate *at; /* the caller sees to the room, and frees it */
    size_t n;
};

static inline void mergeheap_push(struct mergeheap *h, struct merge_candidate c)
{
    size_t i = h->n++;
    while (i && c.order < h->at[(i - 1) / 2].order) {
        h->at[i] = h->at[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->at[i] = c;
}

/* h->n > 0. */
static inline struct merge_candidate mergeheap_pop(struct mergeheap *h)
{
    struct merge_candidate top = h->at[0], last = h->at[--h->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->at[child + 1].order < h->at[child].order)
            child++;
        if (last.order <= h->at[child].order)
            break;
        h->at[i] = h->at[child];
        i = child;
    }
    h->at[i] = last;
    return top;
}

/* Room for a word of n symbols, each of `bytes` at *symbols, and for twice as many candidates; *cap
 * is how many symbols there is room for. What was there is lost. The caller frees both. */
static inline int mergeheap_reserve(struct mergeheap *h, void **symbols, size_t bytes, size_t n,
                                    size_t *cap, struct err *e)
{
    if (n <= *cap)
        return 0;
    size_t room = n < 256 ? 256 : n;
    free(*symbols);
    free(h->at);
    *symbols = malloc(room * bytes); /* both are written before they are read */
    h->at = malloc(room * 2 * sizeof(*h->at));
    *cap = *symbols && h->at ? room : 0;
    return *cap ? 0 : err_set(e, ERR_NOMEM, "tokenizer: no memory for a word of %zu bytes", n);
}

#endif
