/* worker.h: the service: takes requests from routers, steps the engine, sends tokens.
 *
 *      rpc threads ──mailbox──► the caller of worker_run ──► engine_submit / engine_cancel
 *                                        │ engine_step                       │
 *                                        └──► one Step frame a router ◄──────┘
 *
 * Threads: the thread in worker_run owns the engine and everything here. worker_drain may be called
 * from anywhere, a signal handler included.
 */
#ifndef ARGOSY_WORKER_WORKER_H
#define ARGOSY_WORKER_WORKER_H

#include "runtime/engine/engine.h"
#include "runtime/worker/worker_config.h"

struct worker;

/* Starts to dial the routers. `config` and `engine` are borrowed until worker_free. */
int worker_open(const struct worker_config *config, struct engine *engine, struct worker **out,
                struct err *e);

/* Serves until it has drained: told to by worker_drain or by a router, with nothing running any
 * more or the drain timeout over. ERR_PEER: the engine has lost a rank; the streams to the routers
 * are closed, so they start its requests elsewhere. */
int worker_run(struct worker *w, struct err *e);

/* New requests are refused from now on, running ones go on. Async-signal-safe. */
void worker_drain(struct worker *w);

void worker_free(struct worker *w);

#endif
