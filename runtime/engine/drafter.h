/* drafter.h: who guesses the next tokens of a sequence.
 *
 * A guess costs time when it is wrong and never changes a token (verifier.h), so a drafter may be
 * as wrong as it likes. One file each: drafter_lookup.c.
 *
 * Thread: the engine's.
 */
#ifndef ARGOSY_ENGINE_DRAFTER_H
#define ARGOSY_ENGINE_DRAFTER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct sequence;

struct drafter {
    /* Guesses for n sequences, of which all tokens but the last are computed: up to n_drafts (at
     * least 1) ids of the vocabulary each, written to tokens from n_tokens on. Sets n_drafts to how
     * many it has. */
    void (*draft)(struct drafter *d, struct sequence *const *sequences, uint32_t n);
    /* What is kept for this sequence can go. May be NULL. */
    void (*forget)(struct drafter *d, const struct sequence *q);
    void (*free)(struct drafter *d);
    bool cheap; /* a guess costs nothing to make, only to check */
};

/* What came the last time after the same tokens, in prompt and output. */
int drafter_lookup_create(struct drafter **out, struct err *e);

static inline void drafter_free(struct drafter *d)
{
    if (d)
        d->free(d);
}

#endif
