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
#include "runtime/rpc/rpc_channel.h"

/* A message takes so many of the frames that wait, and so many bytes unless the first has more. */
#define GATHER_FRAMES 64
#define GATHER_BYTES (64u << 10)

struct rpc_out {
    struct rpc_out *next;
    grpc_slice bytes; /* head and frame */
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
    if (ev->gauge) {
        atomic_fetch_sub(&ev->gauge->bytes, ev->memory.used_bytes);
        gauge_unref(ev->gauge);
    }
    arena_release(&ev->memory);
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
    grpc_slice_unref(o->bytes);
    free(o);
}

/* All but what is being written. */
static void drop_unsent(struct rpc_stream *s)
{
    struct rpc_out **at = &s->head;
    s->out_bytes = 0;
    for (unsigned i = 0; i < s->writing; i++) {
        s->out_bytes += (*at)->n;
        at = &(*at)->next;
    }
    struct rpc_out *o = *at;
    *at = NULL;
    s->tail = at;
    while (o) {
        struct rpc_out *next = o->next;
        out_free(o);
        o = next;
    }
}

static void events_free(struct mail *m)
{
    while (m) {
        struct mail *next = m->next;
        rpc_event_free((struct rpc_event *)m);
        m = next;
    }
}

void rpc_stream_drop_parked(struct rpc_stream *s)
{
    if (!s->parked)
        return;
    events_free(s->parked);
    s->parked = NULL;
    s->endpoint->n_parked--;
}

static void unhold(struct rpc_stream *s)
{
    struct rpc_stream **at = &s->endpoint->held;
    if (!s->held)
        return;
    while (*at != s)
        at = &(*at)->next_held;
    *at = s->next_held;
    s->held = false;
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
    while (s->parked && !ep->stopping) {
        struct mail *next = s->parked->next;
        mailbox_post_always(ep->events, s->parked);
        s->parked = next;
        ep->n_parked -= !next;
    }
    rpc_stream_drop_parked(s);
    unhold(s);
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
    drop_unsent(s);
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
    return !s->opening && !s->writing && !s->end_sent && !s->cancelled &&
           s->state != RPC_STREAM_ENDED;
}

/* Makes the next message of what is queued, which is not empty. */
static void gather(struct rpc_stream *s)
{
    grpc_slice slices[GATHER_FRAMES];
    size_t bytes = 0;
    for (const struct rpc_out *o = s->head; o && s->writing < GATHER_FRAMES; o = o->next) {
        if (s->writing > 0 && bytes + o->n > GATHER_BYTES)
            break;
        bytes += o->n;
        slices[s->writing++] = o->bytes;
    }
    s->message = grpc_raw_byte_buffer_create(slices, s->writing);
}

void rpc_stream_pump(struct rpc_stream *s)
{
    if (!may_write(s))
        return;
    if (s->head) {
        grpc_op op = {.op = GRPC_OP_SEND_MESSAGE}; /* flags 0: a buffer hint stalls the stream */
        gather(s);
        op.data.send_message.send_message = s->message;
        rpc_stream_batch(s, RPC_OP_SEND, &op, 1);
    } else if (s->state == RPC_STREAM_CLOSING) {
        send_end(s);
    }
}

/* Frames stay in the queue until they are written, so that out_bytes counts them. */
static void sent(struct rpc_stream *s)
{
    for (; s->writing > 0; s->writing--) {
        struct rpc_out *o = s->head;
        s->head = o->next;
        s->out_bytes -= o->n;
        out_free(o);
    }
    if (!s->head)
        s->tail = &s->head;
    grpc_byte_buffer_destroy(s->message);
    s->message = NULL;
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
    uint8_t head[FRAME_HEAD_BYTES_MAX];
    size_t n_head = frame_head(n, head);
    *o = (struct rpc_out){.bytes = grpc_slice_malloc(n_head + n), .n = n_head + n};
    memcpy(GRPC_SLICE_START_PTR(o->bytes), head, n_head);
    protobuf_c_message_pack(frame, GRPC_SLICE_START_PTR(o->bytes) + n_head);
    return o;
}

static struct rpc_stream *find(struct rpc_endpoint *ep, uint64_t id)
{
    struct rpc_stream *s = ep->slots[id % ep->n_slots];
    return s && s->id == id ? s : NULL;
}

/* A write that its thread starts itself. The batch is counted and `writing` is set, so neither the
 * stream nor the message goes away. */
struct write {
    grpc_call *call; /* NULL: nothing is to be written */
    grpc_byte_buffer *message;
    struct rpc_tag *tag;
};

/* lock held. */
static void write_prepare(struct rpc_stream *s, struct write *w)
{
    if (!s->head || !may_write(s))
        return;
    gather(s);
    s->pending++;
    *w = (struct write){s->call, s->message, &s->tags[RPC_OP_SEND]};
}

/* lock not held. */
static void write_here(struct rpc_endpoint *ep, const struct write *w)
{
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE}; /* flags 0: a buffer hint stalls the stream */
    void *tag;
    int ok;
    op.data.send_message.send_message = w->message;
    grpc_completion_queue_thread_local_cache_init(ep->cq);
    grpc_call_error rc = grpc_call_start_batch(w->call, &op, 1, w->tag, NULL);
    ASSERT(rc == GRPC_CALL_OK);
    if (grpc_completion_queue_thread_local_cache_flush(ep->cq, &tag, &ok))
        rpc_endpoint_handle(ep, tag, ok != 0, true);
}

static void hold_back(struct rpc_stream *s)
{
    if (s->held)
        return;
    s->held = true;
    s->next_held = s->endpoint->held;
    s->endpoint->held = s;
}

void rpc_endpoint_flush(struct rpc_endpoint *ep)
{
    for (;;) {
        struct write w = {0};
        pthread_mutex_lock(&ep->lock);
        struct rpc_stream *s = ep->held;
        if (s) {
            unhold(s);
            write_prepare(s, &w);
        }
        pthread_mutex_unlock(&ep->lock);
        if (!s)
            return;
        if (w.call)
            write_here(ep, &w);
    }
}

int rpc_endpoint_send(struct rpc_endpoint *ep, uint64_t id, const ProtobufCMessage *frame,
                      bool hold, struct err *e)
{
    struct write w = {0};
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
        o = NULL;
        if (hold)
            hold_back(s);
        else
            write_prepare(s, &w);
    }
    pthread_mutex_unlock(&ep->lock);
    if (o)
        out_free(o);
    if (w.call)
        write_here(ep, &w);
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

/* NULL with 0: nothing to deliver. */
static int unpack_frame(const struct rpc_stream *s, const uint8_t *data, size_t n,
                        struct rpc_event **out, struct err *e)
{
    *out = NULL;
    struct rpc_event *ev = event_new(s->endpoint, RPC_FRAME, s->id);
    if (!ev)
        return err_set(e, ERR_NOMEM, "no memory for a frame");
    int rc = s->endpoint->is_server
                 ? frame_unpack_from_worker(data, n, &ev->memory, &ev->from_worker, e)
                 : frame_unpack_to_worker(data, n, &ev->memory, &ev->to_worker, e);
    if (rc == 0 && (ev->from_worker || ev->to_worker)) {
        *out = ev;
        return 0;
    }
    rpc_event_free(ev);
    return rc;
}

/* The frames of a message up to the first that breaks a bound. */
static int unpack_list(const struct rpc_stream *s, grpc_slice slice, struct mail **tail,
                       struct err *e)
{
    struct frame_list list = {.data = GRPC_SLICE_START_PTR(slice), .n = GRPC_SLICE_LENGTH(slice)};
    struct rpc_event *ev;
    size_t n, bytes = 0;
    const uint8_t *frame;
    int rc;
    while ((rc = frame_next(&list, &frame, &n, e)) > 0) {
        if ((rc = unpack_frame(s, frame, n, &ev, e)) < 0)
            return rc;
        if (!ev)
            continue;
        *tail = &ev->mail;
        tail = &ev->mail.next;
        bytes += ev->memory.used_bytes;
        if (bytes > frame_budget(RPC_FRAME_BYTES_MAX))
            return err_set(e, ERR_FORMAT, "a message of %zu bytes expands too much", list.n);
    }
    return rc;
}

/* The message that came, as events; NULL with 0: nothing to deliver. */
static int unpack_received(struct rpc_stream *s, struct mail **out, struct err *e)
{
    grpc_byte_buffer_reader reader;
    *out = NULL;
    /* gRPC would inflate without a bound: neither end compresses, so nobody may. */
    if (s->received->data.raw.compression != GRPC_COMPRESS_NONE)
        return err_set(e, ERR_UNSUPPORTED, "compressed frames are not accepted");
    if (grpc_byte_buffer_length(s->received) > RPC_MESSAGE_BYTES_MAX)
        return err_set(e, ERR_RANGE, "a message of %zu bytes is over the limit of %u",
                       grpc_byte_buffer_length(s->received), RPC_MESSAGE_BYTES_MAX);
    if (!grpc_byte_buffer_reader_init(&reader, s->received))
        return err_set(e, ERR_FORMAT, "a message that cannot be read");
    grpc_slice slice = grpc_byte_buffer_reader_readall(&reader);
    int rc = unpack_list(s, slice, out, e);
    grpc_slice_unref(slice);
    grpc_byte_buffer_reader_destroy(&reader);
    return rc;
}

/* Counted before it is posted: its receiver may free it at once. */
static bool deliver(struct rpc_stream *s, struct rpc_event *ev)
{
    struct rpc_gauge *g = s->gauge;
    size_t bytes = ev->memory.used_bytes;
    if (atomic_load(&g->bytes) > RPC_IN_BYTES_MAX)
        return false;
    ev->gauge = g;
    atomic_fetch_add(&g->refs, 1);
    atomic_fetch_add(&g->bytes, bytes);
    if (mailbox_post(s->endpoint->events, &ev->mail))
        return true;
    ev->gauge = NULL;
    atomic_fetch_sub(&g->bytes, bytes);
    gauge_unref(g);
    return false;
}

/* Returns those that found no room. */
static struct mail *deliver_all(struct rpc_stream *s, struct mail *m)
{
    while (m) {
        struct mail *next = m->next;
        if (!deliver(s, (struct rpc_event *)m)) {
            m->next = next; /* the mailbox touches it even so */
            return m;
        }
        m = next;
    }
    return NULL;
}

void rpc_stream_unpark(struct rpc_stream *s)
{
    struct rpc_endpoint *ep = s->endpoint;
    if (!s->parked || (s->parked = deliver_all(s, s->parked)))
        return;
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
    in->rc = unpack_received(s, &in->frames, &in->why);
    grpc_byte_buffer_destroy(s->received);
    in->frames = deliver_all(s, in->frames);
}

static void park(struct rpc_stream *s, struct mail *frames, bool foreign)
{
    struct rpc_endpoint *ep = s->endpoint;
    s->parked = frames;
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
        events_free(in->frames);
        fail(s, &in->why);
    } else if (in->frames && !ep->stopping) {
        park(s, in->frames, foreign);
    } else {
        events_free(in->frames);
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
