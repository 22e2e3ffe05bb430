/* policy.h: which worker takes a request.
 *
 * A policy is a pure function over a snapshot: no I/O, no clock, no allocation. Time and the random
 * numbers are passed in, what a policy remembers is its explicit state, so that the router and a
 * simulator run the very same code and the same seed gives the same choices.
 *
 * One policy is one file with one struct policy; policy.c lists them.
 */
#ifndef ARGOSY_ROUTER_POLICY_POLICY_H
#define ARGOSY_ROUTER_POLICY_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/rng.h"

#define POLICY_NONE UINT32_MAX
#define POLICY_STATE_BYTES_MAX 64
/* The key of a want that asks for a kind of device and not for a label. */
#define POLICY_WANT_DEVICE "device"
/* What an output is taken to be long when the client allows more: few use all they may. */
#define POLICY_OUTPUT_TOKENS_GUESS 256

enum policy_worker_state {
    POLICY_READY,
    POLICY_SUSPECT,  /* silent for a good part of its lease: only when nobody else is there */
    POLICY_DRAINING, /* takes nothing new */
};

struct policy_label {
    const char *key;
    const char *value;
};

/* Measured from Step frames. 0: not known yet. A step of b sequences that decode takes about
 * step_base_s + b * step_seq_s. */
struct policy_rates {
    double prefill_tokens_per_s;
    double decode_tokens_per_s; /* of all sequences together, at the batches seen lately */
    double step_base_s;
    double step_seq_s;
    /* Of steps in which sequences decode too: what such a step computes of prompts, by its time. */
    double mixed_tokens_per_s;
};

/* One worker as a policy sees it. */
struct policy_worker {
    uint64_t key; /* hash of its id: the same in every router and after a restart */
    enum policy_worker_state state;
    uint32_t running, waiting;        /* as it last said; other routers' requests included */
    uint32_t inflight;                /* requests of this router there, counted when sent */
    uint32_t inflight_prefills;       /* of them, those that gave no token yet */
    uint64_t inflight_prefill_tokens; /* their prompts, less what is taken to be cached there */
    uint64_t prefill_done_tokens;     /* of that, what its steps have computed */
    uint64_t inflight_output_tokens;  /* still to come, each request's share at most the guess */
    uint32_t others;                  /* requests of other routers there, when it last said */
    uint64_t others_tokens;           /* and their tokens under way, when those last said */
    uint32_t sequences_max;
    uint32_t inflight_max;                         /* more are not sent */
    uint32_t kv_pages, kv_pages_used, page_tokens; /* of the request's model */
    bool loaded; /* the request's model; otherwise the worker loads it first */
    struct policy_rates rates;
    double price; /* per million tokens; 0: not priced */
    const char *device_kind;
    const struct policy_label *labels; /* (n_labels) */
    uint32_t n_labels;
};

struct policy_request {
    uint32_t prompt_tokens;       /* tokens that are out already included */
    uint32_t output_tokens;       /* that may still come */
    uint64_t session_hash;        /* 0: none */
    const uint64_t *block_hashes; /* (n_blocks), chained: equal hash, equal prefix */
    uint32_t n_blocks;
    uint32_t block_tokens;
    const struct policy_label *wants; /* (n_wants): the worker must have each */
    uint32_t n_wants;
    double price_max; /* 0: any */
};

/* The workers that may take the request: see policy_gather. */
struct policy_snapshot {
    const struct policy_worker *const *workers; /* (n), n > 0 */
    const uint32_t
        *cached_blocks; /* (n): leading blocks of the request each has; NULL: not known */
    uint32_t n;
    uint64_t now_ms;
    double output_tokens; /* of what ended lately, on average; 0: not known */
};

/* Bits: what a policy looks at, and is costly to find out. */
enum policy_need { POLICY_NEEDS_HASHES = 1, POLICY_NEEDS_CACHED = 2 };

struct policy {
    const char *name;
    const char *summary; /* one sentence, for the manual */
    /* Bytes of state, zeroed at start, at most POLICY_STATE_BYTES_MAX; 0: none. */
    size_t state_bytes;
    unsigned needs; /* enum policy_need */
    /* An index below s->n. */
    uint32_t (*pick)(void *state, const struct policy_snapshot *s, const struct policy_request *r,
                     struct rng *rng);
};

/* NULL when there is none of that name. */
const struct policy *policy_find(const char *name);
/* Calls fn for each policy, in the manual's order. */
void policy_each(void (*fn)(void *ctx, const struct policy *p), void *ctx);

/* Has the worker what the request asks for: each label, the kind of device, the price? */
bool policy_matches(const struct policy_worker *w, const struct policy_request *r);
/* When none of them matches: why, naming what nobody has. */
void policy_mismatch(const struct policy_worker *const *all, uint32_t n,
                     const struct policy_request *r, char *text, size_t text_n);
/* May the worker take the request now: what it wants, state, room? */
bool policy_admits(const struct policy_worker *w, const struct policy_request *r);
/* Puts those of `all` that admit the request into `out` (n places) and returns how many: the ready
 * ones, or, when none is ready, the suspects. Of them, those
 * that have its model loaded, as long as one of those would run it at once. */
uint32_t policy_gather(const struct policy_worker *const *all, uint32_t n,
                       const struct policy_request *r, const struct policy_worker **out);

/* The moving average of the outputs' lengths, for policy_snapshot, after one more of x tokens. */
double policy_average(double average, double x);

/* Keep the worker's counts, for the pool: it has said how many requests it has; a step of its has
 * computed so many tokens of prompts, of this router's requests and others'. */
void policy_note_load(struct policy_worker *w, uint32_t running, uint32_t waiting);
void policy_note_prefill(struct policy_worker *w, uint32_t tokens);

/* ---- for the policies ----------------------------------------------------------------------- */

/* Seconds until the worker has done what is under way there and this request too; lower is better.
 * See load.c. */
double policy_load_s(const struct policy_snapshot *s, uint32_t index,
                     const struct policy_request *r, const struct policy_rates *typical);
/* Means of the rates that are known in the snapshot, for workers whose own are not. */
struct policy_rates policy_typical_rates(const struct policy_snapshot *s);

/* Prompt tokens of the request that the worker has to compute; at least 1. */
static inline uint32_t policy_uncached_tokens(const struct policy_snapshot *s, uint32_t index,
                                              const struct policy_request *r)
{
    uint64_t cached = s->cached_blocks ? (uint64_t)s->cached_blocks[index] * r->block_tokens : 0;
    return cached < r->prompt_tokens ? r->prompt_tokens - (uint32_t)cached : 1;
}

/* What is left of the prompts under way there. */
static inline uint64_t policy_prefill_left(const struct policy_worker *w)
{
    return w->inflight_prefill_tokens > w->prefill_done_tokens
               ? w->inflight_prefill_tokens - w->prefill_done_tokens
               : 0;
}

/* Prompt tokens that other routers' requests have before them there, about. */
static inline double policy_others_prefill(const struct policy_worker *w)
{
    /* Of their tokens, what can't be output is prompt. */
    double output = (double)w->others * POLICY_OUTPUT_TOKENS_GUESS;
    return (double)w->others_tokens > output ? (double)w->others_tokens - output : 0;
}

/* The tokens that a request is taken to bring still: as many as others did, or the guess. */
uint32_t policy_output_guess(const struct policy_snapshot *s, const struct policy_request *r);
/* The worker that the key belongs to, or the next one of the key's order whose load is at most 1.25
 * times its share. See bounded.c. */
uint32_t policy_pick_bounded(const struct policy_snapshot *s, uint64_t key);

extern const struct policy policy_predicted;
extern const struct policy policy_prefix_hash;
extern const struct policy policy_session;
extern const struct policy policy_round_robin;
extern const struct policy policy_random;
extern const struct policy policy_power_of_two;
extern const struct policy policy_least_load;

#endif
