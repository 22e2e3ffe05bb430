#include "runtime/rpc/rpc_stream.h"

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/slice.h>
#include <grpc/support/alloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/rpc/frame.h"

struct rpc_out {
    struct rpc_out *next;
    grpc_byte_buffer *bytes;
    size_t n;
};

static const int no_cause = 1; /* err codes are negative or 0 */

/* ---- events and their gauge --------------------------------------------------------------------
 */

static void gauge_unref(struct rpc_gauge *g)
{
    if (atomic_fetch_sub(&g->refs, 1) == 1)
        free(g);
}

void rpc_event_free(struct rpc_event *ev)
{
    if (!ev)
        return;
    if (ev->from_worker)
        argosy__from_worker__free_unpacked(ev->from_worker, NULL);
    if (ev->to_worker)
        argosy__to_worker__free_unpacked(ev->to_worker, NULL);
    if (ev->gauge) {
        atomic_fetch_sub(&ev->gauge->bytes, ev->bytes);
        gauge_unref(ev->gauge);
    }
    free(ev);
}

static struct rpc_event *event_new(const struct rpc_endpoint *ep, enum rpc_event_kind kind,
                                   uint64_t stream)
{
    struct rpc_event *ev = calloc(1, sizeof(*ev));
    if (ev) {
        ev->kind = kind;
        ev->stream = stream;
        ev->owner = ep->owner;
    }
    return ev;
}

/* ---- birth and death ---------------------------------------------------------------------------
 */

static bool claim_slot(struct rpc_endpoint *ep, struct rpc_stream *s)
{
    for (size_t i = 0; i < ep->n_slots; i++)
        if (!ep->slots[i]) {
            ep->slots[i] = s;
            s->id = ++ep->last_round * ep->n_slots + i;
            return true;
        }
    return false;
}

static struct rpc_stream *stream_alloc(const struct rpc_endpoint *ep, bool silent)
{
    struct rpc_stream *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->gauge = calloc(1, sizeof(*s->gauge));
    s->opened = silent ? NULL : event_new(ep, RPC_OPENED, 0);
    s->closed = silent ? NULL : event_new(ep, RPC_CLOSED, 0);
    if (s->gauge && (silent || (s->opened && s->closed)))
        return s;
    free(s->gauge);
    rpc_event_free(s->opened);
    rpc_event_free(s->closed);
    free(s);
    return NULL;
}

struct rpc_stream *rpc_stream_new(struct rpc_endpoint *ep, grpc_call *call, bool silent)
{
    struct rpc_stream *s = stream_alloc(ep, silent);
    if (!s)
        return NULL;
    s->endpoint = ep;
    s->silent = silent;
    s->tail = &s->head;
    s->why.code = no_cause;
    s->peer_details = grpc_empty_slice();
    atomic_init(&s->gauge->refs, 1);
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);
    for (int op = 0; op < RPC_OP_N; op++)
        s->tags[op] = (struct rpc_tag){(enum rpc_op)op, s};
    if (!silent && !claim_slot(ep, s)) {
        rpc_event_free(s->opened);
        rpc_event_free(s->closed);
        gauge_unref(s->gauge);
        free(s);
        return NULL;
    }
    if (!silent)
        s->opened->stream = s->closed->stream = s->id;
    s->call = call;
    s->next = ep->streams;
    if (s->next)
        s->next->prev = s;
    ep->streams = s;
    return s;
}

static void out_free(struct rpc_out *o)
{
    grpc_byte_buffer_destroy(o->bytes);
    free(o);
}

static void drop_queue(struct rpc_stream *s)
{
    while (s->head) {
        struct rpc_out *o = s->head;
        s->head = o->next;
        out_free(o);
    }
    s->tail = &s->head;
    s->out_bytes = 0;
}

/* What RPC_CLOSED says: our own reason first, then the peer's. */
static void fill_why(struct rpc_stream *s, struct err *why)
{
    if (s->why.code != no_cause) {
        *why = s->why;
    } else if (s->endpoint->is_server) {
        if (s->peer_cancelled)
            /* gRPC ends a call for these by itself and keeps the reason from us. */
            err_set(why, ERR_PEER, "the worker vanished, or sent a frame that is too large");
        else
            err_set(why, ERR_OK, "ended");
    } else if (s->peer_status == GRPC_STATUS_OK) {
        err_set(why, ERR_OK, "the router ended the stream");
    } else {
        char *details = grpc_slice_to_c_string(s->peer_details);
        err_set(why, ERR_PEER, "gRPC status %d: %s", (int)s->peer_status, details);
        gpr_free(details);
    }
}

void rpc_stream_finish(struct rpc_stream *s)
{
    struct rpc_endpoint *ep = s->endpoint;
    ASSERT(s->pending == 0);
    if (s->parked) {
        ep->n_parked--;
        if (ep->stopping)
            rpc_event_free(s->parked);
        else
            mailbox_post_always(ep->events, &s->parked->mail);
    }
    if (!s->silent) {
        fill_why(s, &s->closed->why);
        mailbox_post_always(ep->events, &s->closed->mail);
        ep->slots[s->id % ep->n_slots] = NULL;
    }
    if (s->prev)
        s->prev->next = s->next;
    else
        ep->streams = s->next;
    if (s->next)
        s->next->prev = s->prev;
    drop_queue(s);
    rpc_event_free(s->opened);
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_slice_unref(s->peer_details);
    grpc_call_unref(s->call);
    gauge_unref(s->gauge);
    free(s);
}

/* ---- writing -----------------------------------------------------------------------------------
 */

void rpc_stream_batch(struct rpc_stream *s, enum rpc_op op, const grpc_op *ops, size_t n)
{
    s->pending++;
    grpc_call_error rc = grpc_call_start_batch(s->call, ops, n, &s->tags[op], NULL);
    /* A batch is refused only when it breaks the API's rules; a dead call fails it later. */
    ASSERT(rc == GRPC_CALL_OK);
}

static void look_within(struct rpc_endpoint *ep, uint32_t ms)
{
    if (ms < ep->look_in_ms)
        ep->look_in_ms = ms;
}

static void begin_closing(struct rpc_stream *s)
{
    s->state = RPC_STREAM_CLOSING;
    s->cancel_at_ms = clock_mono_ms() + RPC_CLOSE_MS;
    look_within(s->endpoint, RPC_LOOK_CLOSING_MS);
}

static void send_end(struct rpc_stream *s)
{
    grpc_op ops[2] = {{.op = GRPC_OP_SEND_CLOSE_FROM_CLIENT}};
    size_t n = 1;
    grpc_slice details = grpc_empty_slice();
    s->end_sent = true;
    if (s->endpoint->is_server) {
        n = 0;
        if (s->silent) /* others sent it when they opened */
            ops[n++] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
        if (s->status != GRPC_STATUS_OK)
            details = grpc_slice_from_copied_string(s->why.msg);
        ops[n] = (grpc_op){.op = GRPC_OP_SEND_STATUS_FROM_SERVER};
        ops[n].data.send_status_from_server.status = s->status;
        ops[n].data.send_status_from_server.status_details = &details;
        n++;
    }
    rpc_stream_batch(s, RPC_OP_END, ops, n);
    grpc_slice_unref(details);
}

static bool may_write(const struct rpc_stream *s)
{
    return !s->opening && !s->sending && !s->end_sent && !s->cancelled &&
           s->state != RPC_STREAM_ENDED;
}

void rpc_stream_pump(struct rpc_stream *s)
{
    if (!may_write(s))
        return;
    struct rpc_out *o = s->head;
    if (o) {
        grpc_op op = {.op = GRPC_OP_SEND_MESSAGE}; /* flags 0: a buffer hint stalls the stream */
        op.data.send_message.send_message = o->bytes;
        s->sending = true;
        rpc_stream_batch(s, RPC_OP_SEND, &op, 1);
    } else if (s->state == RPC_STREAM_CLOSING) {
        send_end(s);
    }
}

/* The frame stays at the head until it is written, so that out_bytes counts it. */
static void sent(struct rpc_stream *s)
{
    struct rpc_out *o = s->head;
    s->sending = false;
    s->head = o->next;
    if (!s->head)
        s->tail = &s->head;
    s->out_bytes -= o->n;
    out_free(o);
}

void rpc_stream_cancel(struct rpc_stream *s)
{
    if (s->cancelled)
        return;
    s->cancelled = true;
    grpc_call_cancel_with_status(s->call,
                                 s->status == GRPC_STATUS_OK ? GRPC_STATUS_CANCELLED : s->status,
                                 s->why.code == no_cause ? "cancelled" : s->why.msg, NULL);
}

/* Everything behind the frame that is being written. */
static void drop_unsent(struct rpc_stream *s)
{
    if (!s->sending) {
        drop_queue(s);
        return;
    }
    struct rpc_out *writing = s->head;
    s->head = writing->next;
    drop_queue(s);
    writing->next = NULL;
    s->head = writing;
    s->tail = &writing->next;
    s->out_bytes = writing->n;
}

void rpc_stream_close(struct rpc_stream *s, bool drop, grpc_status_code status, int code,
                      const char *why)
{
    if (s->why.code == no_cause) {
        err_set(&s->why, code, "%s", why);
        s->status = status;
    }
    if (s->state == RPC_STREAM_ENDED)
        return;
    if (s->state == RPC_STREAM_OPEN)
        begin_closing(s);
    if (drop)
        drop_unsent(s);
    if (drop && !s->endpoint->is_server)
        rpc_stream_cancel(s); /* a client has no status to send: it leaves */
    rpc_stream_pump(s);
}

/* NULL: *rc says why. */
static struct rpc_out *pack(const ProtobufCMessage *frame, int *rc, struct err *e)
{
    size_t n = protobuf_c_message_get_packed_size(frame);
    struct rpc_out *o = NULL;
    if (n > RPC_FRAME_BYTES_MAX)
        *rc = err_set(e, ERR_LIMIT, "a frame of %zu bytes is over the limit of %u", n,
                      RPC_FRAME_BYTES_MAX);
    else if (!(o = malloc(sizeof(*o))))
        *rc = err_set(e, ERR_NOMEM, "no memory for a frame of %zu bytes", n);
    if (!o)
        return NULL;
    grpc_slice slice = grpc_slice_malloc(n);
    protobuf_c_message_pack(frame, GRPC_SLICE_START_PTR(slice));
    *o = (struct rpc_out){.bytes = grpc_raw_byte_buffer_create(&slice, 1), .n = n};
    grpc_slice_unref(slice);
    return o;
}

static struct rpc_stream *find(struct rpc_endpoint *ep, uint64_t id)
{
    struct rpc_stream *s = ep->slots[id % ep->n_slots];
    return s && s->id == id ? s : NULL;
}

/* The batch is counted and `sending` is set, so neither the stream nor its frame goes away. */
static void write_here(struct rpc_endpoint *ep, grpc_call *call, struct rpc_tag *of,
                       grpc_byte_buffer *bytes)
{
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE}; /* flags 0: a buffer hint stalls the stream */
    void *tag;
    int ok;
    op.data.send_message.send_message = bytes;
    grpc_completion_queue_thread_local_cache_init(ep->cq);
    grpc_call_error rc = grpc_call_start_batch(call, &op, 1, of, NULL);
    ASSERT(rc == GRPC_CALL_OK);
    if (grpc_completion_queue_thread_local_cache_flush(ep->cq, &tag, &ok))
        rpc_endpoint_handle(ep, tag, ok != 0, true);
}

int rpc_endpoint_send(struct rpc_endpoint *ep, uint64_t id, const ProtobufCMessage *frame,
                      struct err *e)
{
    grpc_byte_buffer *bytes = NULL; /* to be written here, to `call` */
    grpc_call *call = NULL;
    struct rpc_tag *tag = NULL;
    int rc = 0;
    struct rpc_out *o = pack(frame, &rc, e);
    if (!o)
        return rc;
    pthread_mutex_lock(&ep->lock);
    struct rpc_stream *s = find(ep, id);
    if (!s || s->state != RPC_STREAM_OPEN || s->cancelled) {
        rc = err_set(e, ERR_PEER, "the stream is closed");
    } else if (o->n > ep->out_bytes_max || s->out_bytes > ep->out_bytes_max - o->n) {
        struct err why;
        rc = err_set(&why, ERR_LIMIT, "the peer does not read: %zu bytes wait, limit %zu",
                     s->out_bytes, ep->out_bytes_max);
        err_set(e, rc, "%s", why.msg);
        rpc_stream_close(s, true, GRPC_STATUS_RESOURCE_EXHAUSTED, rc, why.msg);
        rpc_stream_cancel(s); /* it would not read a status either */
    } else {
        *s->tail = o;
        s->tail = &o->next;
        s->out_bytes += o->n;
        if (may_write(s)) {
            s->sending = true;
            s->pending++;
            bytes = s->head->bytes;
            call = s->call;
            tag = &s->tags[RPC_OP_SEND];
        }
        o = NULL;
    }
    pthread_mutex_unlock(&ep->lock);
    if (o)
        out_free(o);
    if (bytes)
        write_here(ep, call, tag, bytes);
    return rc;
}

void rpc_endpoint_close(struct rpc_endpoint *ep, uint64_t id)
{
    pthread_mutex_lock(&ep->lock);
    struct rpc_stream *s = find(ep, id);
    if (s)
        rpc_stream_close(s, false, GRPC_STATUS_OK, ERR_OK, "closed by this side");
    pthread_mutex_unlock(&ep->lock);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

void rpc_stream_recv(struct rpc_stream *s)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &s->received;
    rpc_stream_batch(s, RPC_OP_RECV, &op, 1);
}

static int unpack_slice(struct rpc_stream *s, grpc_slice slice, struct rpc_event *ev, struct err *e)
{
    const uint8_t *data = GRPC_SLICE_START_PTR(slice);
    size_t n = GRPC_SLICE_LENGTH(slice);
    return s->endpoint->is_server
               ? frame_unpack_from_worker(data, n, &ev->from_worker, &ev->bytes, e)
               : frame_unpack_to_worker(data, n, &ev->to_worker, &ev->bytes, e);
}

/* The message that came, as an event; NULL with 0: nothing to deliver. */
static int unpack_received(struct rpc_stream *s, struct rpc_event **out, struct err *e)
{
    grpc_byte_buffer_reader reader;
    struct rpc_event *ev = NULL;
    int rc;
    *out = NULL;
    /* gRPC would inflate without a bound: neither end compresses, so nobody may. */
    if (s->received->data.raw.compression != GRPC_COMPRESS_NONE)
        return err_set(e, ERR_UNSUPPORTED, "compressed frames are not accepted");
    if (grpc_byte_buffer_length(s->received) > RPC_FRAME_BYTES_MAX)
        return err_set(e, ERR_RANGE, "a frame of %zu bytes is over the limit of %u",
                       grpc_byte_buffer_length(s->received), RPC_FRAME_BYTES_MAX);
    if (!grpc_byte_buffer_reader_init(&reader, s->received))
        return err_set(e, ERR_FORMAT, "a frame that cannot be read");
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    ev = event_new(s->endpoint, RPC_FRAME, s->id);
    rc = ev ? unpack_slice(s, slice, ev, e) : err_set(e, ERR_NOMEM, "no memory for a frame");
    grpc_slice_unref(slice);
    grpc_byte_buffer_reader_destroy(&reader);
    if (rc == 0 && (ev->from_worker || ev->to_worker)) {
        ev->gauge = s->gauge;
        atomic_fetch_add(&s->gauge->refs, 1);
        atomic_fetch_add(&s->gauge->bytes, ev->bytes);
        *out = ev;
    } else {
        rpc_event_free(ev);
    }
    return rc;
}

/* The newest frame counts itself: one is let through whatever its size. */
static bool has_room(const struct rpc_stream *s, const struct rpc_event *ev)
{
    return atomic_load(&s->gauge->bytes) - ev->bytes <= RPC_IN_BYTES_MAX;
}

void rpc_stream_unpark(struct rpc_stream *s)
{
    struct rpc_endpoint *ep = s->endpoint;
    if (!s->parked || !has_room(s, s->parked) || !mailbox_post(ep->events, &s->parked->mail))
        return;
    s->parked = NULL;
    ep->n_parked--;
    rpc_stream_recv(s);
}

/* It is not read any more. */
static void fail(struct rpc_stream *s, const struct err *why)
{
    rpc_stream_close(s, true, GRPC_STATUS_INVALID_ARGUMENT, why->code, why->msg);
}

void rpc_stream_take(struct rpc_stream *s, bool ok, struct rpc_incoming *in)
{
    *in = (struct rpc_incoming){.last = !ok || !s->received};
    if (in->last)
        return;
    in->rc = unpack_received(s, &in->ev, &in->why);
    grpc_byte_buffer_destroy(s->received);
    if (in->ev && has_room(s, in->ev) && mailbox_post(s->endpoint->events, &in->ev->mail))
        in->ev = NULL;
}

static void park(struct rpc_stream *s, struct rpc_event *ev, bool foreign)
{
    struct rpc_endpoint *ep = s->endpoint;
    s->parked = ev;
    ep->n_parked++;
    look_within(ep, RPC_LOOK_PARKED_MS);
    if (foreign)
        rpc_stream_batch(s, RPC_OP_LOOK, NULL, 0);
}

static void received(struct rpc_stream *s, struct rpc_incoming *in, bool foreign)
{
    struct rpc_endpoint *ep = s->endpoint;
    if (in->last) {
        /* The peer's last word. A client waits for the status; a server gives one. */
        if (ep->is_server && s->state == RPC_STREAM_OPEN) {
            begin_closing(s);
            rpc_stream_pump(s);
        }
    } else if (in->rc < 0) {
        fail(s, &in->why);
    } else if (in->ev && !ep->stopping) {
        park(s, in->ev, foreign);
    } else {
        rpc_event_free(in->ev);
        rpc_stream_recv(s);
    }
}

/* ---- what the queue says -----------------------------------------------------------------------
 */

static void opened(struct rpc_stream *s, bool ok)
{
    struct rpc_endpoint *ep = s->endpoint;
    s->opening = false;
    if (!ep->is_server) {
        if (!ok)
            return; /* the status says why */
        char *peer = grpc_call_get_peer(s->call);
        snprintf(s->opened->peer, sizeof(s->opened->peer), "%s", peer ? peer : "");
        gpr_free(peer);
        mailbox_post_always(ep->events, &s->opened->mail);
        s->opened = NULL;
        rpc_stream_recv(s);
    }
    rpc_stream_pump(s);
}

void rpc_stream_handle(struct rpc_stream *s, enum rpc_op op, bool ok, struct rpc_incoming *in,
                       bool foreign)
{
    s->pending--;
    switch (op) {
    case RPC_OP_OPEN:
        opened(s, ok);
        break;
    case RPC_OP_RECV:
        received(s, in, foreign);
        break;
    case RPC_OP_SEND:
        sent(s);
        rpc_stream_pump(s);
        break;
    case RPC_OP_CLOSED:
        s->state = RPC_STREAM_ENDED;
        break;
    default:
        break;
    }
    if (s->pending == 0 && s->state == RPC_STREAM_ENDED)
        rpc_stream_finish(s);
}
