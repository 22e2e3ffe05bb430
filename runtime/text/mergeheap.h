/* mergeheap.h: which pair of neighbours a byte-pair encoding merges next.
 *
 * A binary heap of candidates in memory of the caller's, smallest order first. Nothing is ever
 * taken out of its middle: the caller finds out whether what it pops is stale.
 */
#ifndef ARGOSY_TEXT_MERGEHEAP_H
#define ARGOSY_TEXT_MERGEHEAP_H

#include <stddef.h>
#include <stdint.h>

struct merge_candidate {
    uint64_t order; /* rank << 32 | index of the left symbol: the smallest goes first */
    uint32_t id;    /* what the two become */
    uint32_t bytes; /* of the two together; for who tells stale ones by it */
};

struct mergeheap {
    struct merge_candidate *at; /* borrowed; the caller sees to the room */
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

#endif
