/* drafter.h: who guesses the next tokens of a sequence.
 *
 * A guess costs time when it is wrong and never changes a token (verifier.h), so a drafter may be
 * as wrong as it likes. One file each: drafter_lookup.c, drafter_model.c.
 *
 * Thread: the engine's.
 */
#ifndef ARGOSY_ENGINE_DRAFTER_H
#define ARGOSY_ENGINE_DRAFTER_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "runtime/base/err.h"

struct sequence;
struct threads;
struct tokenizer;

struct drafter {
    /* Guesses for n sequences, of which all tokens but the last are computed: up to n_drafts (at
     * least 1) ids of the vocabulary each, written to tokens from n_tokens on. Sets n_drafts to how
     * many it has. False when the time it took says nothing: it had something to catch up with. */
    bool (*draft)(struct drafter *d, struct sequence *const *sequences, uint32_t n);
    /* What is kept for this sequence can go. May be NULL. */
    void (*forget)(struct drafter *d, const struct sequence *q);
    void (*free)(struct drafter *d);
    bool cheap; /* a guess costs nothing to make, only to check */
};

/* What came the last time after the same tokens, in prompt and output. */
int drafter_lookup_create(struct drafter **out, struct err *e);

/* The engine that a draft model works for. Borrowed things outlive the drafter. */
struct drafter_host {
    struct threads *threads;
    const struct tokenizer *tokenizer;
    enum kn_isa isa;
    uint32_t vocab;    /* ids that may be guessed */
    uint32_t context;  /* tokens of a sequence at most */
    uint32_t kv_pages; /* of the engine; the draft model gets as many of its own */
    enum kn_kv_type kv_type;
    uint32_t sequences_max;   /* that run at once */
    uint32_t step_tokens_max; /* what it computes in one call, to catch up */
};

/* A smaller model with the same tokens, of its own memory. It samples with the sequence's own
 * parameters, seed and positions: the noise is the same, so it agrees with the model wherever their
 * distributions are near, at any temperature. ERR_CONFIG: it has other tokens. */
int drafter_model_create(const char *path, const struct drafter_host *host, struct drafter **out,
                         struct err *e);

static inline void drafter_free(struct drafter *d)
{
    if (d)
        d->free(d);
}

#endif
