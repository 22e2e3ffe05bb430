/* heartbeat.h: a worker that computes is not silent: load reports that no step holds back.
 *
 * The engine thread reports the load between steps, and here. Where it has said nothing for a
 * heartbeat, because a step takes long, a thread of our own repeats what it said last. So a
 * router's lease need not fit a step: it says that the process lives and can be reached. Whether
 * the engine gets on is seen by Load.steps and by the tokens.
 *
 * Threads: pulse_* are the engine thread's. A pulse's mutex is held while a frame is queued, so
 * that an older report never follows a newer one; the rpc endpoint's is taken inside.
 */
#ifndef ARGOSY_WORKER_HEARTBEAT_H
#define ARGOSY_WORKER_HEARTBEAT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/rpc/rpc.h"

struct heartbeat;

/* Of one attachment. */
struct pulse {
    struct rpc_client *client;
    struct heartbeat *heartbeat; /* once added */
    pthread_mutex_t lock;
    struct pulse *next;
    /* Under the lock. */
    uint64_t stream;    /* 0: nothing was reported on one that is open */
    Argosy__Load *load; /* the last report; NULL: none, or no memory to keep it */
    uint64_t sent_at_ms, every_ms;
};

void pulse_init(struct pulse *p, struct rpc_client *client);
void pulse_release(struct pulse *p);
/* Sends a report, and repeats a copy of it from now on, every so often. */
int pulse_send(struct pulse *p, uint64_t stream, const Argosy__Load *load, uint64_t every_ms,
               uint64_t now_ms, struct err *e);
/* The stream is gone. */
void pulse_end(struct pulse *p);

int heartbeat_create(struct heartbeat **out, struct err *e);
/* Before the thread starts; the pulse is borrowed until heartbeat_free. */
void heartbeat_add(struct heartbeat *h, struct pulse *p);
int heartbeat_start(struct heartbeat *h, struct err *e);
/* NULL is fine. */
void heartbeat_free(struct heartbeat *h);

#endif
