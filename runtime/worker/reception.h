/* reception.h: what becomes of the Starts and Cancels of routers.
 *
 *      Start ──► its model's engine ──► runs
 *        │ ▲
 *        │ └─ the model is loaded, the grammar compiled
 *        ├──► parked, in order, while the model is loaded or its grammar compiled
 *        └──► Refused: not served here, invalid, full, draining, or it has waited too long
 *
 * Memory: the parked frames, at most as many as may run and wait. Engine thread only, but for the
 * word that a grammar is compiled.
 */
#ifndef ARGOSY_WORKER_RECEPTION_H
#define ARGOSY_WORKER_RECEPTION_H

#include <stdatomic.h>

#include "runtime/base/mailbox.h"
#include "runtime/rpc/rpc.h"
#include "runtime/worker/attachment.h"
#include "runtime/worker/roster.h"

struct parked;

struct reception {
    struct roster *roster;   /* borrowed */
    struct mailbox *mailbox; /* borrowed: woken when a grammar is compiled */
    struct parked *parked;   /* oldest first */
    uint32_t n_parked, parked_max;
    uint64_t wait_ms; /* for a model, at most */
    bool draining;
    atomic_bool compiled; /* some grammar was */
};

void reception_init(struct reception *r, struct roster *roster, struct mailbox *mailbox,
                    const struct worker_config *config);
void reception_release(struct reception *r);

/* True: the event is kept. */
bool reception_start(struct reception *r, struct attachment *a, struct rpc_event *ev);
void reception_cancel(struct reception *r, struct attachment *a, uint64_t request);
/* Everything of this attachment (NULL: of all) is given up, and nobody told. */
void reception_forget(struct reception *r, const struct attachment *a);
/* Nothing new from now on: what is parked is refused. */
void reception_drain(struct reception *r);
/* The model computes no more: its requests have to go on elsewhere. */
void reception_lost(struct reception *r, struct offer *o, const char *why);

/* Starts what has what it waited for, refuses what waited too long. Returns when it wants to be
 * called again. */
uint64_t reception_tick(struct reception *r, uint64_t now_ms);
/* The model to load next, or NULL. */
struct offer *reception_wanted(const struct reception *r);
/* Requests that run, wait in an engine or are parked. */
uint32_t reception_requests(const struct reception *r);
/* Those that are parked for this model. */
uint32_t reception_waiting(const struct reception *r, const struct offer *o);

/* For roster_events: their grammars are heard of. */
void reception_loaded(struct reception *r, struct offer *o);
void reception_leaves(struct reception *r, struct offer *o);

#endif
