/* sequence.h: one request while it lives: its tokens, its pages, how it samples.
 *
 *     submit ──► WAITING ──► RUNNING ──► finished, freed
 *                   ▲           │
 *                   └─preempted─┘   pages dropped, tokens kept, computed again later
 *
 * Everything lies in the sequence's arena, taken at the start. Pages
 * belong to the sequence from scheduler.c taking them until it drops them.
 */
#ifndef ARGOSY_ENGINE_SEQUENCE_H
#define ARGOSY_ENGINE_SEQUENCE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/arena.h"
#include "runtime/engine/embedding.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/prefixcache.h"
#include "runtime/engine/sampler.h"

enum sequence_state { SEQUENCE_WAITING, SEQUENCE_RUNNING };

/* How guesses went lately: speculator.h. */
struct draft_record {
    float tried, right;
};

struct sequence {
    uint64_t id;
    int32_t priority;
    uint64_t arrival;     /* its number among all submitted: later is larger */
    int64_t rank;         /* scheduler.h: low first */
    uint64_t deadline_ms; /* 0: none */
    enum sequence_state state;

    uint32_t *tokens; /* (tokens_max): the prompt, then the output */
    uint32_t n_prompt;
    uint32_t n_tokens;
    uint32_t tokens_max; /* at most the context: it ends with LENGTH there */
    uint32_t n_computed; /* tokens whose KV is in the pages; below n_tokens */
    uint32_t step_rows;  /* how many more this step computes, guesses included */
    uint32_t n_drafts;   /* guesses of this step, in tokens behind n_tokens */

    struct draft_record drafted;
    uint32_t draft_lane; /* of a draft model (drafter_model.c): 1 + its number; 0: none */

    uint32_t *pages; /* (pages of tokens_max): the first n_pages are taken */
    uint32_t n_pages;
    struct prefix prefix; /* of its tokens: the first prefix.n_blocks pages are the cache's too */
    const struct adapter *adapter; /* what is added to the model for it, or NULL */
    uint32_t n_cached; /* tokens that came from the cache before it was first preempted */
    bool restarted;    /* it was preempted */

    struct embedding embedding; /* what it wants in place of tokens, or nothing */
    struct sampler sampler;
    enum engine_finish finish;
    const char *error;     /* static; with ENGINE_ERROR */
    bool hopeless;         /* as in engine_delta */
    struct sequence *next; /* in the list that it is in */
    struct arena arena;
};

/* Outlives the sequences. */
struct sequence_limits {
    uint32_t context;     /* prompt and output together */
    const char *manifest; /* of the model: part of every block's hash */
    uint32_t n_embd;
    const struct adapter *adapters; /* (n_adapters) */
    uint32_t n_adapters;
    struct sampler_model model;
};

/* A copy of the request. finish is set if its output is complete already. ERR_RANGE and ERR_LIMIT:
 * a request that can never run; the message is for the client. */
int sequence_create(const struct engine_request *r, const struct sequence_limits *limits,
                    struct sequence **out, struct err *e);
/* Its pages must have been dropped. NULL is fine. */
void sequence_free(struct sequence *s);

/* Takes the token that was sampled: appends it and decides how the sequence goes on. */
void sequence_accept(struct sequence *s, uint32_t token);

/* Guesses that can be of use: with all of them right, the next token still has room. */
static inline uint32_t sequence_drafts_max(const struct sequence *s)
{
    return s->embedding.pooling == ENGINE_POOLING_NONE ? s->tokens_max - s->n_tokens - 1 : 0;
}

/* Whether all its tokens but the last are computed: its next step gives a token for one row. */
static inline bool sequence_decodes(const struct sequence *s)
{
    return s->n_tokens - s->n_computed == 1;
}

/* Tokens of the output. */
static inline uint32_t sequence_output(const struct sequence *s)
{
    return s->n_tokens - s->n_prompt;
}

/* Pages that n tokens take. */
static inline uint32_t sequence_pages(uint32_t n)
{
    return (uint32_t)(((uint64_t)n + KN_PAGE_TOKENS - 1) / KN_PAGE_TOKENS);
}

#endif
