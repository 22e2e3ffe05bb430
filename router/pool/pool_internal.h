/* pool_internal.h: what the files of the pool share. Nobody else includes it.
 *
 *   rpc event ──► pool.c ──► worker.c  attach, Hello, Load, lease, leave
 *                    │           │ the worker is gone: each of its generations
 *                    │           ▼
 *                    ├──► gen.c     start, wait, move, end; start.c: its frames
 *                    │      pick.c      at which worker? blocks.c: who has its prompt cached?
 *                    │      patience.c  is the next token too late?
 *                    │      breaker.c   is the worker trusted?
 *                    │      budget.c    may it move once more?
 *                    └──► step.c    Step frames: check every delta, deliver it
 *
 * No function here frees a worker or a generation that its caller still holds, with one exception:
 * a callback (tokens, finish, fail) may end any generation. After one, look generations up again.
 */
#ifndef ARGOSY_ROUTER_POOL_INTERNAL_H
#define ARGOSY_ROUTER_POOL_INTERNAL_H

#include <event2/event.h>

#include "proto/cluster.pb-c.h"
#include "router/policy/policy.h"
#include "router/pool/breaker.h"
#include "router/pool/budget.h"
#include "router/pool/dueheap.h"
#include "router/pool/fairqueue.h"
#include "router/pool/pool.h"
#include "router/pool/prefix_index.h"
#include "router/pool/rates.h"

#define WORKER_ID_BYTES 64
#define WORKER_MODELS_MAX 64
#define WORKER_LABELS_MAX 64
#define WORKER_LABEL_BYTES_MAX 255
#define POOL_MODELS_MAX 64
#define POOL_ROUTERS_MAX 64
#define BLOCK_TOKENS_MAX                                                     \
    1024 /* of a worker's pages; the blocks of larger ones are not looked at \
          */
/* Workers that may refuse a generation in one round of tries. */
#define GEN_TRIES_MAX 8
#define GEN_RETRY_MS_MIN 20
#define GEN_RETRY_MS_MAX 2000
/* After the second worker in a row that failed it; four times as long after the next. */
#define GEN_CALM_MS 100
/* So many tokens of one worker: it is not this generation that its workers fail at. */
#define GEN_WELL_TOKENS 16
/* The low bits of a request number are the generation's place in gens[], the rest is a serial. */
#define GEN_SLOT_BITS 20

enum due_kind { DUE_WORKER, DUE_GEN };

struct gen_list {
    struct gen *head, *tail;
    uint32_t n;
};

struct worker_offer {
    uint32_t model; /* in pool.models */
    uint32_t place; /* in Hello.models, and so in Load.models */
    uint32_t context_tokens;
    Argosy__ModelState state;
    uint32_t kv_pages, kv_pages_used, page_tokens;
    /* Of the model's own steps, at the first offer of its place: adapters run in the same ones. */
    struct rates rates;
    struct policy_rates measured;
};

/* An attachment: one stream. A worker that comes back is another struct worker. */
struct worker {
    struct policy_worker view; /* first: policies hand it back */
    struct due due;            /* lease, or the time to say Hello, or the end of draining */
    uint64_t stream;
    struct worker *next_in_bucket;
    uint32_t place;   /* in pool.workers */
    bool attached;    /* its Hello was accepted */
    bool unreachable; /* a send failed, or it was closed by us: RPC_CLOSED is under way */
    bool draining;
    bool drained;      /* draining went on for too long, its generations were moved */
    uint64_t heard_ms, /* its last frame, or the opening */
        attached_ms, draining_ms;
    uint64_t steps, steps_ms; /* of its engine, and when they last grew */
    struct breaker *breaker;  /* once attached */
    uint64_t epoch;
    char id[WORKER_ID_BYTES];
    char device_kind[16];
    char device_name[96];
    char peer[64];
    struct worker_offer *offers;
    uint32_t n_offers;
    uint32_t kv_pages, kv_pages_used; /* of all its models; the view has those of one */
    uint32_t kv_host_pages;           /* beside them; cached blocks lie on either */
    uint64_t kv_host_bytes_used, kv_pages_out, kv_pages_in;
    char *model_names; /* for the view */
    struct policy_label *labels;
    struct rates rates; /* of all its models; the view has those of one */
    struct policy_rates measured;
    uint32_t index_slot; /* in pool.index, while attached */
    struct gen_list gens;
    uint64_t tokens_seen, gens_seen; /* for the view */
};

enum gen_state { GEN_WAITING, GEN_QUEUED, GEN_RUNNING, GEN_ENDED };

enum picked {
    PICKED,
    PICKED_NOBODY,    /* no worker is there for the model */
    PICKED_UNWANTED,  /* they are, and none has what is wanted */
    PICKED_ALL_FULL,  /* they are, and take no more now, or have refused it */
    PICKED_BROKEN,    /* they are, and none is trusted now */
    PICKED_LATER,     /* it has moved too often for now */
    PICKED_TOO_LONG,  /* they are, with a smaller context */
    PICKED_UNSENDABLE /* the request itself can't be sent */
};

struct gen {
    struct pool *pool;
    uint64_t id; /* request number on the wire; another one at each worker */
    uint32_t slot;
    enum gen_state state;
    struct fairqueue_item turn; /* who it is for, and its place while it is QUEUED */
    uint64_t begun_ms;          /* when it was first sent to a worker; 0: not yet */
    uint32_t charged_output;    /* tokens that its tenant was charged for */
    struct gen *prev, *next;    /* among the worker's, or those that wait */
    struct worker *worker;      /* while running */
    struct due due;
    const struct gen_request *r;
    struct gen_callbacks cb;
    void *ctx;
    uint32_t model;
    uint32_t *out; /* delivered so far */
    uint32_t n_out, cap_out;
    uint32_t n_out_sent; /* of them, sent along with the last Start */
    uint32_t cached_tokens;
    uint32_t cached_guess; /* tokens that its worker was taken to have, when it was picked */
    uint64_t deadline_at_ms, give_up_at_ms, retry_at_ms;
    uint64_t full_until_ms; /* of a new one that all refused for want of room: how long it waits */
    uint64_t token_ms,
        first_ms;     /* patience.c: its last token here, or its Start; until its first */
    uint32_t stalls;  /* how often it waited for a token for too long */
    bool moved_again; /* and so counts for the budget */
    bool tried_one;   /* its worker's breaker waits for what it does */
    uint64_t avoid;   /* the stream where it failed last */
    bool moved;       /* it has run at a worker before */
    uint32_t moves;   /* because that one failed */
    uint64_t tried[GEN_TRIES_MAX]; /* streams that refused it in this round */
    uint32_t n_tried;
    uint32_t retry_after_ms;                  /* the shortest that a refusal named; 0: none */
    uint32_t counted_prefill, counted_output; /* in the worker's view */
    bool counted_waits;                       /* among the inflight_prefills there */
    char worker_id[WORKER_ID_BYTES];
};

struct pool {
    struct pool_config config;
    struct pool_model *models;
    size_t n_models;
    struct pool_link link;
    struct event *timer; /* NULL without an event base */
    uint64_t armed_ms;
    struct dueheap due;

    struct worker **workers; /* (n_workers), Hello said or not */
    uint32_t n_workers;
    struct worker **buckets; /* by stream; a power of two */
    uint32_t n_buckets;
    const struct policy_worker **candidates; /* scratch of a pick, (workers_max) each */
    const struct policy_worker **admitted;
    struct prefix_index *index; /* NULL: nothing is known of caches */
    uint32_t page_tokens;       /* of its blocks; 0: no worker yet */
    uint64_t *hashes;           /* scratch of a pick, (cap_hashes) */
    uint32_t cap_hashes;
    uint32_t *cached_blocks; /* scratch of a pick, (workers_max): as admitted */
    char *routers[POOL_ROUTERS_MAX];
    size_t n_routers;

    struct gen **gens; /* (gens_max); NULL: free */
    uint32_t *free_slots;
    uint32_t n_free_slots;
    uint64_t serial;
    struct gen_list waiting; /* for a worker to come; streams that lost theirs */
    struct fairqueue queue;  /* new ones, for room */
    struct service {
        double mean_ms; /* from a generation's Start to its end */
        uint64_t n;
        uint32_t running;
    } service[POOL_MODELS_MAX];
    uint32_t retry_after_ms;      /* of the last that was turned away */
    bool flush_wanted;            /* somebody who waits may find a place now */
    struct gen_logprob *logprobs; /* scratch of a delta */
    size_t n_logprobs;

    struct breakers breakers;
    struct budget budget;
    uint64_t forgiven_ms;   /* this process was late: nobody is blamed for what was before */
    uint64_t crowd_seen_ms; /* when the silent were counted, and what that said */
    bool crowd_silent;

    double output_tokens; /* of generations that finished lately, on average; 0: none yet */
    struct rng rng;
    _Alignas(16) unsigned char policy_state[POLICY_STATE_BYTES_MAX];
    uint64_t moved, refused, failed, stalled, opened;
};

/* pool.c */
uint64_t pool_now_ms(const struct pool *p);
/* Points the timer at what is due next. */
void pool_arm(struct pool *p);
int pool_model_index(const struct pool *p, const char *name); /* -1: unknown */

/* worker.c */
void worker_open(struct pool *p, uint64_t stream, const char *peer);
void worker_frame(struct pool *p, struct worker *w, const Argosy__FromWorker *frame);
struct worker *worker_find(const struct pool *p, uint64_t stream);
/* Takes it out of the pool and moves its generations; `close` also ends the stream. Frees w. */
void worker_remove(struct pool *p, struct worker *w, bool close, const char *why);
void worker_due(struct pool *p, struct worker *w, uint64_t now_ms);
/* Brings view.state up to date. */
void worker_refresh(const struct pool *p, struct worker *w, uint64_t now_ms);
/* NULL: it does not offer the model, or no more. */
const struct worker_offer *worker_offer_of(const struct worker *w, uint32_t model);
/* How fast it is with this model. */
const struct policy_rates *worker_rates(const struct worker *w, uint32_t model);
/* Makes the view that of a worker of this offer's model. */
void worker_show(struct worker *w, const struct worker_offer *o);
/* After an error the worker is unreachable, or (w->unreachable is false) it is the frame's fault.
 */
int worker_send(struct pool *p, struct worker *w, const Argosy__ToWorker *frame, struct err *e);
void worker_free(struct worker *w);
/* Its own doing, whatever became of it. */
void worker_fault(struct pool *p, struct worker *w, const char *what);

/* genlist.c */
void gen_list_add(struct gen_list *l, struct gen *g);
void gen_list_remove(struct gen_list *l, struct gen *g);

/* gen.c */
struct gen *gen_find(const struct pool *p, uint64_t id);
/* Takes it from its worker (who is told when `tell`), and finds it another place or a wait. */
void gen_move(struct gen *g, bool fault, bool tell);
/* Its worker has failed it: it goes on, at another one if there is one. */
void gen_failed(struct gen *g, const char *what, bool tell);
/* It is about to finish; its worker has done what it should. */
void gen_ends_well(struct gen *g);
/* It got tokens; `first`: of this worker. */
void gen_heard(struct gen *g, bool first);
void gen_refused(struct gen *g, const Argosy__Refused *refused);
void gen_due(struct gen *g, uint64_t now_ms);
void gen_fail(struct gen *g, enum gen_fault fault, const char *detail, uint32_t retry_after_ms);
void gen_finish(struct gen *g, enum gen_finish why);
void gen_embed(struct gen *g, const float *v, uint32_t n);
/* The worker's counts after n_out grew. */
void gen_recount(struct gen *g);
/* A worker has come: what the others said about retrying is no matter. */
void gen_wake_waiting(struct pool *p);
/* If flush_wanted: gives those who wait a try. */
void gen_flush_waiting(struct pool *p);
void gen_free(struct gen *g);

/* blocks.c */
int blocks_open(struct pool *p, struct err *e);
void blocks_release(struct pool *p);
void blocks_attach(struct pool *p, struct worker *w);
void blocks_leave(struct pool *p, struct worker *w);
void blocks_events(struct pool *p, struct worker *w, const Argosy__CacheEvents *events);
/* Fills in the request's block hashes, if the policy looks at them. */
void blocks_hash(struct gen *g, struct policy_request *request);
/* What the first n of p->admitted have of the request's blocks; NULL: not known. */
const uint32_t *blocks_look(struct pool *p, const struct policy_request *request, uint32_t n);
/* The chosen one will want these blocks. */
void blocks_picked(struct gen *g, const struct policy_request *request, uint32_t chosen);

/* It runs there from now on. */
void gen_join(struct gen *g, struct worker *w);

/* pick.c: sends it to a worker, if there is one. On anything but PICKED the generation is nowhere
 * still; err says why for UNWANTED and UNSENDABLE. */
enum picked gen_dispatch(struct gen *g, struct err *e);
/* Finds a place for a generation that has begun and is nowhere now. It may have ended when this
 * returns. */
enum picked gen_place(struct gen *g);

/* gen_queue.c */
bool queue_has(const struct pool *p, uint32_t model);
/* A new one waits for room. False: it is refused, and e and p->retry_after_ms say why. */
bool queue_add(struct gen *g, struct err *e);
/* It was first, and there was no room after all. */
void queue_put_back(struct gen *g);
void queue_flush(struct pool *p);
void queue_due(struct gen *g, uint64_t now_ms);
/* Its life, as its tenant is charged for it. */
void queue_joined(struct gen *g, uint64_t now_ms);
void queue_heard(struct gen *g);
void queue_detached(struct gen *g);
void queue_left(struct gen *g);

/* start.c */
int start_check(const struct gen_request *r, struct err *e);
int start_send(struct gen *g, struct worker *w, uint64_t now_ms, struct err *e);
/* Best effort: a worker that can't be told is on its way out. */
void start_cancel(struct gen *g);

/* patience.c: a worker has it from now on; its counts include it. */
void patience_begin(struct gen *g, uint64_t now_ms);
/* Sets what is due next of a generation that runs. */
void patience_watch(struct gen *g);
/* It is due, before its deadline: moves it if its next token is too late. */
void patience_due(struct gen *g, uint64_t now_ms);

/* step.c: 0, or the worker broke the protocol and err says how. */
int step_apply(struct pool *p, struct worker *w, const Argosy__Step *step, struct err *e);

#endif
