/* merges.h: byte-pair encoding over ids: which pairs meet, in which order.
 *
 * Of all neighbours in a word that have a merge, those of the lowest rank meet, leftmost first,
 * until none has one. The word is a doubly linked list and the candidates lie in a heap, so that a
 * word of n symbols takes O(n log n): a megabyte of one letter is no attack. A struct merges is
 * immutable once filled and shared; a struct mergeword has one owner. Only the tokenizer's own
 * files include this one.
 */
#ifndef ARGOSY_TEXT_MERGES_H
#define ARGOSY_TEXT_MERGES_H

#include "runtime/text/mergeheap.h"
#include "runtime/text/tokenizer_internal.h"

#define MERGES_MAX (1u << 24)

struct merges {
    uint64_t seed;
    uint32_t mask;
    struct merge *slots; /* (mask + 1), open addressing */
};

/* Room for `count` merges, at most MERGES_MAX. */
int merges_init(struct merges *m, uint32_t count, struct arena *a, struct err *e);
/* left and right become id. A pair that is there already is replaced. */
void merges_add(struct merges *m, uint32_t left, uint32_t right, uint32_t id, uint32_t rank);

#define MERGEWORD_FEW 48u

struct merge_symbol {
    uint32_t id; /* TOKENIZER_NONE: merged into the one before */
    uint32_t prev, next;
};

/* One word after the other; not to be moved in between. */
struct mergeword {
    const struct merges *merges;
    struct merge_symbol *symbols; /* room for `cap` */
    struct mergeheap heap; /* room for 2 * cap: one a pair at the start, and a merge takes one
                            * and brings two */
    size_t cap;
    uint32_t n;
    /* Room for the words that there are; longer ones take memory. */
    struct merge_symbol few_symbols[MERGEWORD_FEW];
    struct merge_candidate few_candidates[2 * MERGEWORD_FEW];
};

void mergeword_init(struct mergeword *w);
/* Starts a word of at most n symbols. */
int mergeword_start(struct mergeword *w, const struct merges *m, size_t n, struct err *e);
void mergeword_add(struct mergeword *w, uint32_t id);
/* Merges, and appends what is left. */
int mergeword_finish(struct mergeword *w, struct tokenvec *out, struct err *e);
void mergeword_release(struct mergeword *w);

#endif
