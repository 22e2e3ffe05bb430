/* roster.h: the models that this worker offers, and which of them are in memory.
 *
 *      UNLOADED ──a Start waits, there is room──► LOADING ──► LOADED
 *          ▲                                         │           │ idle, or others need the room,
 *          └──────────────── UNLOADING ◄─────────────┼───────────┘ or its ranks are lost
 *                                                    ▼
 *                     GONE: it could not be loaded, or is another model than was offered
 *
 * Room is counted as weights and KV pages, by what the files say before a load and by what was
 * taken after. Where it is too little, models go that nobody uses, the least recently used first;
 * where those are not enough, the ones that are in use take no more requests until they can go, so
 * that a model that is always busy keeps no other one out. One load is decided on at a time, for
 * the Start that has waited longest.
 *
 * Engines are opened and freed on the opener's thread (opener.h). Everything here is the engine
 * thread's.
 */
#ifndef ARGOSY_WORKER_ROSTER_H
#define ARGOSY_WORKER_ROSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/engine/engine.h"
#include "runtime/worker/jobs.h"
#include "runtime/worker/opener.h"
#include "runtime/worker/worker_config.h"

enum offer_state { OFFER_UNLOADED, OFFER_LOADING, OFFER_LOADED, OFFER_UNLOADING, OFFER_GONE };

/* A model. */
struct offer {
    char name[256]; /* what requests call it */
    struct engine_config config;
    struct engine_outline outline;
    struct engine_adapter *adapters; /* (n_adapters): names and hashes */
    uint32_t n_adapters;
    enum offer_state state;
    struct opening opening;
    struct engine *engine; /* LOADED: ours */
    uint64_t memory_bytes; /* that it takes, or would */
    struct jobs jobs;      /* that live in the engine */
    bool busy;             /* the engine has something to do */
    bool yields;           /* takes nothing new: its memory is wanted */
    uint64_t used_ms;      /* when it last had something to do */
    uint64_t run_ns;       /* its turn: time of its steps, since it was busy */
};

/* ctx is worker's. */
struct roster_events {
    void (*wake)(void *ctx); /* any thread: roster_poll has something to do */
    void (*loaded)(void *ctx, struct offer *o);
    void (*leaves)(void *ctx, struct offer *o); /* the engine is there still, without jobs */
    void *ctx;
};

struct roster {
    const struct worker_config *config; /* borrowed */
    struct roster_events events;
    struct offer *offers; /* (n) */
    uint32_t n;
    struct engine_adapter *adapters; /* (config.adapters.n): of the first model */
    char (*adapter_names)[256];
    struct opener *opener;
    uint64_t memory_max; /* 0: no limit */
    uint64_t turn_ns;    /* run_ns of the offer that stepped last */
};

/* Checks that every model can be loaded and fits, and loads the first. Not zeroed before; released
 * by the caller after an error, too. ERR_CONFIG says what does not fit, and what would help. */
int roster_init(struct roster *r, const struct worker_config *config,
                const struct roster_events *events, struct err *e);
/* Nobody has a job any more. Waits for what the opener is at. */
void roster_release(struct roster *r);

/* NULL: not offered, or gone. */
struct offer *roster_find(struct roster *r, const char *name);
/* The one to step next: of those that are busy, the one that had least time. NULL: none is. */
struct offer *roster_next(struct roster *r);
/* It has stepped for so long, and is busy still or not. */
void roster_stepped(struct roster *r, struct offer *o, uint64_t ns, bool busy, uint64_t now_ms);
/* It has got a job. */
void roster_used(struct roster *r, struct offer *o);
/* Takes what the opener has done. True: some model's state is another one now. */
bool roster_poll(struct roster *r, uint64_t now_ms);
/* Loads and unloads. `wanted`: the model of the Start that has waited longest for one; NULL: none.
 * Returns when it wants to be called again, if nothing happens until then. */
uint64_t roster_tick(struct roster *r, struct offer *wanted, uint64_t now_ms);
/* LOADED, without jobs: out of memory with it. */
void roster_unload(struct roster *r, struct offer *o);
/* A model is being loaded or freed. */
bool roster_busy(const struct roster *r);
/* None is left that is not gone. */
bool roster_empty(const struct roster *r);

#endif
