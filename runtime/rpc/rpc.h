/* rpc.h: the Attach stream between a worker and a router, over the gRPC C core.
 *
 * Only runtime/rpc includes <grpc/grpc.h>. Both ends look alike: events come into a mailbox
 * that the owner's thread empties; frames go out through rpc_send from any thread.
 *
 * Threads: each endpoint has one of its own that drains a completion queue. It never runs the
 * owner's code. A message carries what waits to be sent, many frames where many do. Memory: a frame
 * is at most RPC_FRAME_BYTES_MAX; a stream's outbound queue is
 * bounded by `out_bytes_max`, and a peer that does not read until it is full is closed. Frames that
 * the owner has not freed are bounded too (RPC_IN_BYTES_MAX a stream, and the mailbox's own limit):
 * beyond that the stream is not read, and the peer feels it as flow control.
 */
#ifndef ARGOSY_RPC_RPC_H
#define ARGOSY_RPC_RPC_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/base/mailbox.h"

#include "proto/cluster.pb-c.h"

#define RPC_PROTOCOL_VERSION 4
#define RPC_FRAME_BYTES_MAX (4u << 20)
#define RPC_IN_BYTES_MAX (64u << 20)

enum rpc_event_kind {
    RPC_OPENED, /* server: a worker attached; client: the router is reached */
    RPC_FRAME,
    RPC_CLOSED, /* last event of a stream; why says what happened */
};

/* The receiver frees it with rpc_event_free. */
struct rpc_event {
    struct mail mail; /* first */
    enum rpc_event_kind kind;
    uint64_t stream;                 /* never reused within an endpoint; never 0 */
    Argosy__FromWorker *from_worker; /* RPC_FRAME at the server */
    Argosy__ToWorker *to_worker;     /* RPC_FRAME at the client */
    char peer[64];                   /* RPC_OPENED: address of the other end */
    struct err why;                  /* RPC_CLOSED; code ERR_OK: ended in order */
    void *owner;                     /* as in rpc_config: tells endpoints of one mailbox apart */
    /* Private: what the frame counts against its stream's share of memory. A zeroed event has none.
     */
    struct arena memory; /* the frame's */
    struct rpc_gauge *gauge;
};

void rpc_event_free(struct rpc_event *ev);

/* All NULL: no TLS. A server needs cert_file and key_file, a client ca_file, and with mTLS all. */
struct rpc_tls {
    const char *cert_file;
    const char *key_file;
    const char *ca_file; /* of the other side; the server then demands a certificate */
};

struct rpc_config {
    const char
        *address; /* "127.0.0.1:9090", "unix:/path"; port 0 lets the system choose (server) */
    struct rpc_tls tls;
    uint32_t streams_max;  /* server: attached at once */
    size_t out_bytes_max;  /* queued to one stream */
    void *owner;           /* comes back in every event; never touched */
    uint32_t keepalive_ms; /* HTTP/2 pings: a dead peer is found within three of these */
};

struct rpc_server;
struct rpc_client;

/* Events go to `events`, borrowed until rpc_server_free has returned. */
int rpc_server_open(const struct rpc_config *config, struct mailbox *events,
                    struct rpc_server **out, struct err *e);
/* The port that was bound; 0 for a unix socket. */
int rpc_server_port(const struct rpc_server *s);
/* Closes every stream, stops the thread, frees. No event is posted afterwards. */
void rpc_server_free(struct rpc_server *s);
/* Packs and queues. Any thread. ERR_PEER: no such stream (its RPC_CLOSED is under way or taken). */
int rpc_server_send(struct rpc_server *s, uint64_t stream, const Argosy__ToWorker *frame,
                    struct err *e);
/* Like rpc_server_send, but the frame may wait for rpc_server_flush: for an owner that sends
 * several in one turn. */
int rpc_server_hold(struct rpc_server *s, uint64_t stream, const Argosy__ToWorker *frame,
                    struct err *e);
/* Any thread. */
void rpc_server_flush(struct rpc_server *s);
/* Ends a stream after what is queued; RPC_CLOSED follows. Any thread. */
void rpc_server_close(struct rpc_server *s, uint64_t stream);

/* Dials and opens one stream; RPC_OPENED or RPC_CLOSED follows. The owner dials again after
 * RPC_CLOSED with rpc_client_dial, when its back-off says so. */
int rpc_client_open(const struct rpc_config *config, struct mailbox *events,
                    struct rpc_client **out, struct err *e);
int rpc_client_dial(struct rpc_client *c, struct err *e);
int rpc_client_send(struct rpc_client *c, uint64_t stream, const Argosy__FromWorker *frame,
                    struct err *e);
void rpc_client_close(struct rpc_client *c, uint64_t stream);
void rpc_client_free(struct rpc_client *c);

#endif
