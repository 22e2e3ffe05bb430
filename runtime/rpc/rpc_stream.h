/* rpc_stream.h: one Attach call of either end, and the endpoint that drives it. Private to
 * runtime/rpc.
 *
 * Threads: an endpoint has one thread, which takes from the completion queue and handles what
 * comes. Other threads queue frames and ask for an end, under `lock`. One that finds nothing being
 * written writes its frame itself, and handles the end of the write, which gRPC mostly tells at
 * once: the endpoint's thread would have to be woken for it. In its place gRPC may hand it any
 * other batch that ended while it wrote. Batches are started under `lock`, but for that write,
 * which `writing` orders; gRPC never calls back into this code, so nothing is locked inside.
 *
 * The life of a stream:
 *
 *     new ──► OPEN ──close, or the peer's end──► CLOSING ──queue written──► ENDED ──► destroyed
 *              │                                    │                        ▲  when no batch is
 *              └──────────── cancelled ─────────────┴────────────────────────┘  pending
 *
 * A batch holds a share in `pending`; the batch that tells the call's end (tag CLOSED) is pending
 * from birth, so a stream outlives its call.
 */
#ifndef ARGOSY_RPC_RPC_STREAM_H
#define ARGOSY_RPC_RPC_STREAM_H

#include <grpc/grpc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "runtime/rpc/rpc.h"

#define RPC_ATTACH_METHOD "/argosy.Cluster/Attach"

/* How long an orderly end may take before the call is cancelled. */
#define RPC_CLOSE_MS 3000
#define RPC_STOP_MS 500
/* How soon the endpoint's thread looks at all streams: where nothing is known to wait for it, where
 * an end may take too long, where a frame that found no room is to be offered again. */
#define RPC_LOOK_MS 1000
#define RPC_LOOK_CLOSING_MS 100
#define RPC_LOOK_PARKED_MS 5

enum rpc_op {
    RPC_OP_OPEN,   /* initial metadata */
    RPC_OP_RECV,   /* one message: a list of frames */
    RPC_OP_SEND,   /* one message */
    RPC_OP_END,    /* our status (server) or half-close (client) */
    RPC_OP_CLOSED, /* the call is over */
    RPC_OP_LOOK,   /* nothing: wakes the endpoint's thread */
    RPC_OP_N,
    /* The server's own, without a stream. */
    RPC_OP_NEW_ATTACH,
    RPC_OP_NEW_UNKNOWN,
    RPC_OP_SHUTDOWN,
};

struct rpc_tag {
    enum rpc_op op;
    struct rpc_stream *stream;
};

/* Bytes of a stream's frames that the owner has not freed; shared by the stream and its events. */
struct rpc_gauge {
    atomic_size_t bytes;
    atomic_uint refs;
};

enum rpc_state { RPC_STREAM_OPEN, RPC_STREAM_CLOSING, RPC_STREAM_ENDED };

struct rpc_out; /* a packed frame in the queue */

struct rpc_stream {
    struct rpc_endpoint *endpoint;
    struct rpc_stream *prev, *next; /* all streams of the endpoint */
    uint64_t id;
    bool silent; /* refused at the door: the owner never hears of it */
    grpc_call *call;
    struct rpc_tag tags[RPC_OP_N];
    struct rpc_gauge *gauge;
    struct rpc_event *opened, *closed; /* taken at birth: an end is told whatever memory says */

    /* Under the endpoint's lock. */
    enum rpc_state state;
    unsigned pending;
    bool opening;     /* until initial metadata went out and, at a client, came in */
    unsigned writing; /* so many frames from head on are in `message`, which is being written */
    grpc_byte_buffer *message;
    bool held; /* in the endpoint's list */
    struct rpc_stream *next_held;
    bool end_sent;
    bool cancelled;
    uint64_t cancel_at_ms; /* CLOSING: when patience ends */
    struct mail *parked;   /* frames that the owner has no room for yet */
    struct rpc_out *head, **tail;
    size_t out_bytes;
    struct err why; /* the first cause; code 1: none yet */
    grpc_status_code status;

    /* gRPC's while a batch is pending, then that of the thread that handles its end. */
    grpc_byte_buffer *received;
    grpc_metadata_array initial, trailing;
    grpc_status_code peer_status; /* client */
    grpc_slice peer_details;      /* client */
    int peer_cancelled;           /* server */
};

struct rpc_endpoint {
    pthread_mutex_t lock;
    pthread_t thread;
    grpc_completion_queue *cq;
    struct mailbox *events; /* borrowed */
    void *owner;
    bool is_server;
    size_t out_bytes_max;
    struct rpc_stream **slots; /* (n_slots) of streams by id % n_slots */
    size_t n_slots;
    uint64_t last_round;        /* ids are round * n_slots + slot */
    struct rpc_stream *streams; /* list */
    struct rpc_stream *held;    /* list: have frames that wait for a flush */
    bool stopping;
    bool cq_down;
    unsigned n_parked;
    uint32_t look_in_ms; /* how soon the thread is to look at all streams */
    /* What the thread does with a server's own tags, and whether it may leave. */
    void (*on_tag)(struct rpc_endpoint *ep, enum rpc_op op, bool ok);
    bool (*may_leave)(struct rpc_endpoint *ep);
};

/* Starts gRPC and the queue; the thread comes with rpc_endpoint_start. */
int rpc_endpoint_init(struct rpc_endpoint *ep, const struct rpc_config *config, size_t n_slots,
                      struct mailbox *events, struct err *e);
int rpc_endpoint_start(struct rpc_endpoint *ep, struct err *e);
/* No stream is taken on any more, and those that are there end: the thread leaves afterwards. */
void rpc_endpoint_stop(struct rpc_endpoint *ep);
void rpc_endpoint_join(struct rpc_endpoint *ep);
/* The thread was joined or never started. */
void rpc_endpoint_release(struct rpc_endpoint *ep);
/* Ends the queue once nothing will use it. lock held. */
void rpc_endpoint_leave(struct rpc_endpoint *ep);

/* Finds a slot and takes `call` over. NULL: no slot, or no memory; the call stays the caller's.
 * lock held. */
struct rpc_stream *rpc_stream_new(struct rpc_endpoint *ep, grpc_call *call, bool silent);
/* Starts the batch of `op` and counts it. lock held. */
void rpc_stream_batch(struct rpc_stream *s, enum rpc_op op, const grpc_op *ops, size_t n);
/* lock held. */
void rpc_stream_recv(struct rpc_stream *s);
/* Writes what is queued or the end, if nothing is being written. lock held. */
void rpc_stream_pump(struct rpc_stream *s);
/* Ends after what is queued (drop: without it); the first cause stays. lock held. */
void rpc_stream_close(struct rpc_stream *s, bool drop, grpc_status_code status, int code,
                      const char *why);
/* At once, without a word to the peer. lock held. */
void rpc_stream_cancel(struct rpc_stream *s);
/* What a RECV brought. */
struct rpc_incoming {
    struct mail *frames; /* those that are not delivered yet */
    bool last;           /* nothing came: the peer has no more to say */
    int rc;              /* negative: the peer broke the protocol, why says how */
    struct err why;
};

/* Before the end of a RECV is handled: unpacks the message and delivers it where there is room.
 * lock not held: what takes time does not keep others from writing. */
void rpc_stream_take(struct rpc_stream *s, bool ok, struct rpc_incoming *in);
/* A batch came back; may free the stream. `in`: with RECV. foreign: this is not the endpoint's
 * thread. lock held. */
void rpc_stream_handle(struct rpc_stream *s, enum rpc_op op, bool ok, struct rpc_incoming *in,
                       bool foreign);
/* Delivers what was parked, if there is room now. lock held. */
void rpc_stream_unpark(struct rpc_stream *s);
/* lock held. */
void rpc_stream_drop_parked(struct rpc_stream *s);
/* Frees a stream without a pending batch. lock held. */
void rpc_stream_finish(struct rpc_stream *s);

/* A batch came back; foreign: to a thread that is not the endpoint's. Says how soon all streams are
 * to be looked at. lock not held. */
uint32_t rpc_endpoint_handle(struct rpc_endpoint *ep, const struct rpc_tag *tag, bool ok,
                             bool foreign);

/* The calls of rpc.h that both ends share. */
int rpc_endpoint_send(struct rpc_endpoint *ep, uint64_t id, const ProtobufCMessage *frame,
                      bool hold, struct err *e);
void rpc_endpoint_flush(struct rpc_endpoint *ep);
void rpc_endpoint_close(struct rpc_endpoint *ep, uint64_t id);

#endif
