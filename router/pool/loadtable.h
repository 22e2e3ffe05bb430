/* loadtable.h: the pool's mirror in Redis, and what other routers say there.
 *
 *   argosy:{CLUSTER}:workers            set of worker ids
 *   argosy:{CLUSTER}:worker:ID          hash, leased: state, load, rates, device, …
 *   argosy:{CLUSTER}:routers            set of router ids
 *   argosy:{CLUSTER}:inflight:ROUTER    hash, leased: worker id → tokens; "@address" → its rpc
 * address argosy:{CLUSTER}:events             pub/sub: "join ID", "leave ID", "drain ID"
 *
 * (The braces are Redis Cluster's: all keys of a cluster of ours lie in one slot.)
 *
 * It is a hint and never an authority: nothing here waits for Redis, and without it the pool works
 * on with its own workers. Changes are written in batches on a timer, pipelined, a bounded number
 * of commands at a time. A Redis that is gone or hangs is dropped and dialled again with a back-off
 * and jitter; when it is back everything is written anew. What is read from it may have been
 * written by anybody.
 *
 * Thread: the event loop.
 */
#ifndef ARGOSY_ROUTER_POOL_LOADTABLE_H
#define ARGOSY_ROUTER_POOL_LOADTABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct event_base;
struct loadtable;
struct pool;

/* Strings are copied. */
struct loadtable_config {
    const char *url;       /* "redis://HOST:PORT/DB" or "unix:PATH" */
    const char *password;  /* or NULL */
    const char *cluster;   /* a name of letters, digits, '.', '_', '-' */
    const char *router_id; /* of the same letters; unique in the cluster */
    const char *address;   /* where workers reach this router; or NULL */
    uint32_t lease_ms;     /* of the keys */
    uint32_t period_ms;    /* between batches */
    uint32_t timeout_ms;   /* a Redis that owes an answer for longer is dropped */
};

/* Borrows the pool. ERR_CONFIG: a bad URL or name. An unreachable Redis is no error. */
int loadtable_open(const struct loadtable_config *config, struct event_base *base,
                   struct pool *pool, struct loadtable **out, struct err *e);
/* Takes this router's entries out, without waiting for the answer. NULL is fine. */
void loadtable_free(struct loadtable *t);
/* Redis is there and has taken everything. */
bool loadtable_in_sync(const struct loadtable *t);

#endif
