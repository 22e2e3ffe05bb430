/* worker.h: the service: takes requests from routers, steps the engines, sends tokens.
 *
 *      rpc threads ──mailbox──► the caller of worker_run ──► engine_submit / engine_cancel
 *                                        │ engine_step                       │
 *                                        └──► one Step frame a router ◄──────┘
 *
 * Threads: the thread in worker_run owns the engines, once they are open, and everything here.
 * worker_drain may be called from anywhere, a signal handler included.
 */
#ifndef ARGOSY_WORKER_WORKER_H
#define ARGOSY_WORKER_WORKER_H

#include <stdbool.h>

#include "runtime/worker/worker_config.h"

struct worker;

/* Loads the first model and starts to dial the routers. `config` is borrowed until worker_free. */
int worker_open(const struct worker_config *config, struct worker **out, struct err *e);

/* Serves until it has drained: told to by worker_drain or by a router, with nothing running any
 * more or the drain timeout over. ERR_PEER: its only model has lost a rank, or of several none can
 * be loaded any more; the streams to the routers are closed, so they start its requests elsewhere.
 */
int worker_run(struct worker *w, struct err *e);

/* New requests are refused from now on, running ones go on. Async-signal-safe. */
void worker_drain(struct worker *w);

/* A model is being loaded, or leaves: worker_free would wait for it. */
bool worker_loads(const struct worker *w);
void worker_free(struct worker *w);

#endif
