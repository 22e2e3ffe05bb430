/* drafter_lookup.c: prompt lookup: texts that quote, summarise or edit what they were given, or
 * repeat themselves.
 *
 * The place with the longest tail in common with the end of the text is taken, the latest of equal
 * ones, and what followed there is the guess. Where it reaches the end it goes on in itself, so a
 * text that repeats is guessed as far as wanted. Work: one pass over at most WINDOW tokens. */
#include <stdlib.h>

#include "runtime/engine/drafter.h"
#include "runtime/engine/sequence.h"

#define WINDOW 16384u
#define TAIL_MIN 2u /* tokens in common; one alone is followed by anything */
#define TAIL_MAX 12u

/* Tokens that the texts ending before `a` and `b` have in common there; b < a. */
static uint32_t tail(const uint32_t *tokens, uint32_t a, uint32_t b)
{
    uint32_t n = 0;
    while (n < TAIL_MAX && n < b && tokens[a - 1 - n] == tokens[b - 1 - n])
        n++;
    return n;
}

/* Where the text that followed begins; 0: nowhere. */
static uint32_t find(const uint32_t *tokens, uint32_t n)
{
    uint32_t last = tokens[n - 1], stop = n > WINDOW ? n - WINDOW : 0, best = 0;
    uint32_t longest = TAIL_MIN - 1;
    for (uint32_t at = n - 1; at > stop && longest < TAIL_MAX; at--) {
        if (tokens[at - 1] != last)
            continue;
        uint32_t common = tail(tokens, n, at);
        if (common > longest) {
            longest = common;
            best = at;
        }
    }
    return best;
}

static bool draft(struct drafter *d, struct sequence *const *sequences, uint32_t n)
{
    (void)d;
    for (uint32_t i = 0; i < n; i++) {
        struct sequence *q = sequences[i];
        uint32_t from = find(q->tokens, q->n_tokens);
        if (from == 0)
            q->n_drafts = 0;
        for (uint32_t k = 0; k < q->n_drafts; k++)
            q->tokens[q->n_tokens + k] = q->tokens[from + k];
    }
    return true;
}

static void free_lookup(struct drafter *d)
{
    free(d);
}

int drafter_lookup_create(struct drafter **out, struct err *e)
{
    struct drafter *d = malloc(sizeof(*d));
    if (!d)
        return err_set(e, ERR_NOMEM, "engine: no memory");
    *d = (struct drafter){.draft = draft, .free = free_lookup, .cheap = true};
    *out = d;
    return 0;
}
