/* pool.h: the workers that are attached to this router, and the generations that run on them.
 *
 * What: takes a tokenised request, picks a worker by policy, starts it there, hands the tokens
 * back; when the worker goes away mid-stream, another one goes on with the very next token.
 *
 * Thread: the router's event loop, for every call and every callback. A callback may call
 * pool_cancel and pool_start; it must not free the pool.
 */
#ifndef ARGOSY_ROUTER_POOL_POOL_H
#define ARGOSY_ROUTER_POOL_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct event_base;
struct pool;
struct gen; /* one generation: one choice of one request */

/* Sampling as the client asked for it, checked already (proto/cluster.proto, Sampling). */
struct gen_sampling {
    float temperature;
    uint32_t top_k;
    float top_p;
    float min_p;
    uint64_t seed; /* always set: drawn by the router when the client gave none */
    float presence_penalty;
    float frequency_penalty;
    float repetition_penalty;
    const uint32_t *bias_ids;
    const float *bias_values;
    uint32_t n_bias;
};

/* Borrowed for the life of the generation: it lives in the request's arena. */
struct gen_request {
    const char *model; /* a name that pool_has_model knows */
    const uint32_t *prompt;
    uint32_t n_prompt;
    uint32_t max_tokens; /* resolved: never 0, fits the context */
    uint32_t min_tokens;
    bool ignore_eos;
    const char *const *stop;
    uint32_t n_stop;
    const uint32_t *stop_ids;
    uint32_t n_stop_ids;
    struct gen_sampling sampling;
    bool logprobs;
    uint32_t top_logprobs;
    uint64_t session_hash; /* of the client's session or user; 0: none */
    uint32_t deadline_ms;  /* from now; 0: the pool's default */
    int32_t priority;
    uint8_t cache_salt[16];
    const char *traceparent; /* or NULL */
};

struct gen_logprob {
    float logprob;
    uint32_t n_top;
    const uint32_t *top_ids;
    const float *top_logprobs;
};

enum gen_finish { GEN_STOP, GEN_LENGTH };

struct gen_usage {
    uint32_t prompt_tokens;
    uint32_t output_tokens;
    uint32_t cached_tokens;
};

/* Why a generation ended without a finish; the HTTP status follows from it. */
enum gen_fault {
    GEN_FAULT_NO_WORKER, /* 503: nobody serves the model now */
    GEN_FAULT_BUSY,      /* 429 or 503 with retry_after_ms: everybody is full */
    GEN_FAULT_INVALID,   /* 400: the worker says that the request itself is wrong */
    GEN_FAULT_DEADLINE,  /* 504 */
    GEN_FAULT_WORKER,    /* 502: workers kept failing */
};

/* Exactly one of finish and fail is called, last; after pool_cancel neither. Pointers are valid for
 * the call. */
struct gen_callbacks {
    void (*tokens)(void *ctx, const uint32_t *ids, const struct gen_logprob *logprobs, uint32_t n);
    void (*finish)(void *ctx, enum gen_finish why, const struct gen_usage *usage);
    void (*fail)(void *ctx, enum gen_fault fault, const char *detail, uint32_t retry_after_ms);
};

/* Starts a generation. NULL with err: nothing was started (no worker, all full), and no callback is
 * made; *fault says which. Otherwise callbacks come from the event loop, never from inside this
 * call. */
struct gen *pool_start(struct pool *p, const struct gen_request *r, const struct gen_callbacks *cb,
                       void *ctx, enum gen_fault *fault, struct err *e);
/* The client is gone, or has had enough: the worker is told at once. */
void pool_cancel(struct gen *g);
/* The worker now running it, for logs and the x-argosy-worker header; "" when between two. */
const char *gen_worker_id(const struct gen *g);

/* Workers that can take a request for the model now. */
uint32_t pool_workers_ready(const struct pool *p, const char *model);

/* The pool as /metrics, /ready and the explorer show it. Valid until the loop runs on. */
struct pool_worker_view {
    const char *id;
    const char *device_kind;
    const char *device_name;
    const char *state; /* "ready", "draining", "suspect" */
    uint32_t running, waiting, inflight;
    uint32_t kv_pages, kv_pages_used;
    double prefill_tokens_per_s, decode_tokens_per_s; /* measured; 0: not yet */
    uint64_t attached_ms;
};

struct pool_totals {
    uint32_t workers;
    uint32_t running, waiting, inflight;
    uint64_t moved; /* generations that went on elsewhere */
    uint64_t refused, failed;
};

struct pool_totals pool_totals(const struct pool *p);
/* Calls fn for each worker. */
void pool_each_worker(const struct pool *p, void (*fn)(void *ctx, const struct pool_worker_view *w),
                      void *ctx);

#endif
