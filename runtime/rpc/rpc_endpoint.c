#include <grpc/grpc.h>
#include <grpc/support/log.h>
#include <grpc/support/time.h>
#include <stdlib.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/rpc/rpc_stream.h"

/* gRPC tells of every failed dial at error level; the owner hears of those by RPC_CLOSED. */
static void forward_log(gpr_log_func_args *args)
{
    if (args->severity == GPR_LOG_SEVERITY_ERROR)
        log_debug("grpc", "%s", args->message);
}

int rpc_endpoint_init(struct rpc_endpoint *ep, const struct rpc_config *config, size_t n_slots,
                      struct mailbox *events, struct err *e)
{
    ep->slots = calloc(n_slots, sizeof(void *));
    if (!ep->slots)
        return err_set(e, ERR_NOMEM, "rpc: no memory for %zu streams", n_slots);
    ep->n_slots = n_slots;
    ep->events = events;
    ep->owner = config->owner;
    ep->out_bytes_max = config->out_bytes_max;
    ep->look_in_ms = RPC_LOOK_MS;
    pthread_mutex_init(&ep->lock, NULL);
    gpr_set_log_function(forward_log);
    grpc_init();
    ep->cq = grpc_completion_queue_create_for_next(NULL);
    return 0;
}

/* Cancels what should have ended, offers what was parked. Returns how soon to look again. */
static uint32_t look(struct rpc_endpoint *ep, uint64_t now_ms)
{
    pthread_mutex_lock(&ep->lock);
    ep->look_in_ms = RPC_LOOK_MS;
    for (struct rpc_stream *s = ep->streams, *next; s; s = next) {
        next = s->next;
        if (s->state == RPC_STREAM_CLOSING) {
            ep->look_in_ms = RPC_LOOK_CLOSING_MS;
            if (now_ms >= s->cancel_at_ms)
                rpc_stream_cancel(s);
        }
        rpc_stream_unpark(s);
    }
    if (ep->n_parked)
        ep->look_in_ms = RPC_LOOK_PARKED_MS;
    uint32_t in_ms = ep->look_in_ms;
    pthread_mutex_unlock(&ep->lock);
    return in_ms;
}

uint32_t rpc_endpoint_handle(struct rpc_endpoint *ep, const struct rpc_tag *tag, bool ok,
                             bool foreign)
{
    struct rpc_incoming in = {0};
    pthread_mutex_lock(&ep->lock);
    if (tag->stream && tag->op == RPC_OP_RECV) {
        pthread_mutex_unlock(&ep->lock);
        rpc_stream_take(tag->stream, ok, &in);
        pthread_mutex_lock(&ep->lock);
    }
    if (tag->stream)
        rpc_stream_handle(tag->stream, tag->op, ok, &in, foreign);
    else
        ep->on_tag(ep, tag->op, ok);
    if (ep->stopping && !ep->streams && ep->may_leave(ep))
        rpc_endpoint_leave(ep);
    uint32_t look_in_ms = ep->look_in_ms;
    pthread_mutex_unlock(&ep->lock);
    return look_in_ms;
}

static void *run(void *arg)
{
    struct rpc_endpoint *ep = arg;
    uint64_t look_ms = 0;
    for (;;) {
        /* A stream that another thread closes is looked at within a second at the latest. */
        uint64_t now_ms = clock_mono_ms();
        if (now_ms >= look_ms)
            look_ms = now_ms + look(ep, now_ms);
        gpr_timespec until =
            gpr_time_from_millis((int64_t)(look_ms > now_ms ? look_ms - now_ms : 0), GPR_TIMESPAN);
        until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), until);
        grpc_event ev = grpc_completion_queue_next(ep->cq, until, NULL);
        if (ev.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (ev.type != GRPC_OP_COMPLETE)
            continue;
        uint32_t in_ms = rpc_endpoint_handle(ep, ev.tag, ev.success != 0, false);
        if (now_ms + in_ms < look_ms)
            look_ms = now_ms + in_ms;
    }
}

int rpc_endpoint_start(struct rpc_endpoint *ep, struct err *e)
{
    int rc = pthread_create(&ep->thread, NULL, run, ep);
    return rc ? err_sys(e, rc, "rpc: pthread_create") : 0;
}

void rpc_endpoint_leave(struct rpc_endpoint *ep)
{
    if (!ep->cq_down)
        grpc_completion_queue_shutdown(ep->cq);
    ep->cq_down = true;
}

void rpc_endpoint_stop(struct rpc_endpoint *ep)
{
    pthread_mutex_lock(&ep->lock);
    ep->stopping = true;
    for (struct rpc_stream *s = ep->streams; s; s = s->next) {
        rpc_stream_close(s, false, GRPC_STATUS_UNAVAILABLE, ERR_OK, "shutting down");
        s->cancel_at_ms = clock_mono_ms() + RPC_STOP_MS;
        if (s->parked) { /* nobody will make room */
            rpc_stream_drop_parked(s);
            rpc_stream_recv(s);
        }
    }
    if (!ep->streams && ep->may_leave(ep))
        rpc_endpoint_leave(ep);
    pthread_mutex_unlock(&ep->lock);
}

void rpc_endpoint_join(struct rpc_endpoint *ep)
{
    pthread_join(ep->thread, NULL);
}

void rpc_endpoint_release(struct rpc_endpoint *ep)
{
    ASSERT(!ep->streams);
    if (!ep->cq_down) { /* never started */
        grpc_completion_queue_shutdown(ep->cq);
        while (grpc_completion_queue_next(ep->cq, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
               GRPC_QUEUE_SHUTDOWN)
            continue;
    }
    grpc_completion_queue_destroy(ep->cq);
    pthread_mutex_destroy(&ep->lock);
    free(ep->slots);
    grpc_shutdown_blocking();
}
