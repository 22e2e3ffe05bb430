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
struct grammar_source;
struct policy;
struct policy_label;
struct rpc_event;
struct Argosy__ToWorker;
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

/* What is wanted of the prompt: tokens, or one vector (proto/cluster.proto, Pooling). */
enum gen_pooling { GEN_TOKENS, GEN_MEAN, GEN_LAST };

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
    int32_t priority;      /* higher goes first */
    uint64_t tenant;       /* who it is for, as far as fairness goes */
    uint8_t cache_salt[16];
    const char *traceparent; /* or NULL */
    /* Not GEN_TOKENS: max_tokens is 1, and nothing of stops, numbers of tokens and logprobs counts.
     */
    enum gen_pooling pooling;
    const struct grammar_source *grammar; /* compiled here before, so that it can be; or NULL */
    /* What its worker must have: labels, or "device", the kind of one (router/policy/policy.h). */
    const struct policy_label *wants; /* (n_wants) */
    uint32_t n_wants;
    double price_max; /* per million tokens; 0: any */
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
    GEN_FAULT_UNWANTED,  /* 503: workers are there, none with what the request wants */
    GEN_FAULT_BUSY,      /* 429 or 503 with retry_after_ms: everybody is full */
    GEN_FAULT_INVALID,   /* 400: the worker says that the request itself is wrong */
    GEN_FAULT_DEADLINE,  /* 504 */
    GEN_FAULT_WORKER,    /* 502: workers kept failing */
};

/* Exactly one of finish, embedding and fail is called, last; after pool_cancel neither. Pointers
 * are valid for the call. */
struct gen_callbacks {
    void (*tokens)(void *ctx, const uint32_t *ids, const struct gen_logprob *logprobs, uint32_t n);
    void (*finish)(void *ctx, enum gen_finish why, const struct gen_usage *usage);
    /* The n > 0 finite numbers that a request with a pooling wants, in place of finish. */
    void (*embedding)(void *ctx, const float *v, uint32_t n, const struct gen_usage *usage);
    void (*fail)(void *ctx, enum gen_fault fault, const char *detail, uint32_t retry_after_ms);
    /* Or NULL: it has come to a worker (the first time from inside pool_start), or, with NULL, has
     * left one: `moved` for another one, else it was refused there. Must call nothing here. */
    void (*place)(void *ctx, const char *worker, bool moved);
};

/* Starts a generation. NULL with err: nothing was started (no worker, all full), and no callback is
 * made; *fault says which. Otherwise callbacks come from the event loop, never from inside this
 * call. */
struct gen *pool_start(struct pool *p, const struct gen_request *r, const struct gen_callbacks *cb,
                       void *ctx, enum gen_fault *fault, struct err *e);
/* How long who was turned away by the last pool_start had better wait; 0: not known. */
uint32_t pool_retry_after_ms(const struct pool *p);
/* The client is gone, or has had enough: the worker is told at once. */
void pool_cancel(struct gen *g);
/* The worker now running it, for logs and the x-argosy-worker header; "" when between two. */
const char *gen_worker_id(const struct gen *g);

bool pool_has_model(const struct pool *p, const char *model);
/* Workers that can take a request for the model now. */
uint32_t pool_workers_ready(const struct pool *p, const char *model);
/* The longest context, prompt and output together, that an attached worker offers; 0: none is
 * attached. The model's own may be longer. */
uint32_t pool_context_tokens(const struct pool *p, const char *model);

/* The pool as /metrics, /ready and the explorer show it. Valid until the loop runs on. */
struct pool_worker_view {
    const char *id;
    const char *device_kind;
    const char *device_name;
    const char *state; /* "ready", "draining", "suspect", "broken" */
    uint32_t running, waiting, inflight;
    uint32_t kv_pages, kv_pages_used;
    uint64_t kv_host_bytes_used;                      /* KV pages of a GPU that lie on its host */
    uint64_t kv_pages_out, kv_pages_in;               /* copied there and back */
    double prefill_tokens_per_s, decode_tokens_per_s; /* measured; 0: not yet */
    uint64_t attached_ms;                             /* clock_mono_ms */
    uint64_t inflight_tokens; /* that this router has under way there: prompts and outputs */
    uint32_t sequences_max;
    double price;                      /* per million tokens; 0: not priced */
    const char *models;                /* names, separated by commas */
    const struct policy_label *labels; /* (n_labels), router/policy/policy.h */
    uint32_t n_labels;
    uint64_t tokens; /* that it gave this router */
    uint64_t gens;   /* that it was given by it */
};

struct pool_totals {
    uint32_t workers;
    uint32_t running, waiting, inflight;
    uint32_t queued; /* new generations that wait for room */
    uint64_t moved;  /* generations that went on elsewhere */
    uint64_t refused, failed;
    uint64_t stalled; /* times that a token was late for too long */
    uint64_t opened;  /* times that a worker was no longer trusted */
};

struct pool_totals pool_totals(const struct pool *p);
/* Calls fn for each worker. */
void pool_each_worker(const struct pool *p, void (*fn)(void *ctx, const struct pool_worker_view *w),
                      void *ctx);

/* ---- for main and the load table ------------------------------------------------------------ */

/* A model that workers may offer here. Strings are copied. */
struct pool_model {
    const char *name;
    const char *manifest_sha256; /* hex; an offer of another one is refused */
    uint32_t vocab;              /* token ids from workers are below it */
    /* An adapter is a model whose generations run with it on workers that have the very same one.
     * NULL or "": none. */
    const char *adapter_sha256;
    size_t base; /* of an adapter: its model's place */
};

/* Limits. All are positive. */
struct pool_config {
    const struct pool_model *models;
    size_t n_models;
    const struct policy *policy; /* router/policy/policy.h */
    uint64_t seed;               /* of the policy's ties */
    uint32_t lease_ms;           /* a worker that is silent for longer is dead */
    uint32_t workers_max;        /* attached at once */
    uint32_t gens_max;           /* live at once */
    uint32_t queue_max;          /* new ones that wait: for a worker to come, or for room */
    uint32_t queue_wait_ms;    /* predicted, for room: more is refused; 0: nobody waits for room */
    uint32_t queue_age_ms;     /* of waiting are worth one step of priority */
    uint32_t worker_wait_ms;   /* and for how long */
    uint32_t worker_queue_max; /* generations at one worker beyond those it runs at once */
    uint32_t moves_max;        /* workers in a row that may fail a generation, less one */
    double moves_share;        /* of requests: later moves of one generation (budget.h) */
    uint32_t token_timeout_ms; /* shortest patience with a token (patience.c); 0: endless */
    uint32_t deadline_ms;      /* of a generation that names none */
    uint32_t drain_ms;         /* after it, a draining worker's generations move */
    /* For who has which blocks of prompts; 0: nothing is known of that. */
    size_t prefix_index_bytes;
    /* Milliseconds that never go back. NULL: clock_mono_ms. A simulator passes its own. */
    uint64_t (*now_ms)(void *ctx);
    void *now_ctx;
};

/* How frames leave: rpc_server_send and rpc_server_close, or a test's own. Neither calls back. */
struct pool_link {
    int (*send)(void *ctx, uint64_t stream, const struct Argosy__ToWorker *frame, struct err *e);
    void (*close)(void *ctx, uint64_t stream);
    void *ctx;
};

/* `base` NULL: no timers of its own, the caller calls pool_tick when pool_due_ms says so. */
int pool_open(const struct pool_config *config, struct event_base *base,
              const struct pool_link *link, struct pool **out, struct err *e);
/* Generations that still live are dropped without a callback. */
void pool_free(struct pool *p);
/* One event of the rpc server, borrowed. Callbacks are made from inside. */
void pool_event(struct pool *p, const struct rpc_event *ev);
/* Does what is due: leases, deadlines, waits. */
void pool_tick(struct pool *p);
/* When pool_tick has something to do next; UINT64_MAX: nothing. */
uint64_t pool_due_ms(const struct pool *p);
/* Generations that live, waiting ones included. */
uint32_t pool_gens_live(const struct pool *p);
/* Tokens that other routers have under way at a worker; unknown ids are ignored. */
void pool_set_others(struct pool *p, const char *worker_id, uint64_t tokens);
/* Addresses of the other routers, told to each worker in Welcome; copied, at most 64. */
void pool_set_routers(struct pool *p, const char *const *addresses, size_t n);

#endif
