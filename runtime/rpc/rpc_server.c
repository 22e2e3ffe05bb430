/* rpc_server.c: the router's end. One request for an Attach and one for any other method are always
 * outstanding: without the second, a call to an unknown method would wait for ever. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/slice.h>
#include <grpc/support/alloc.h>

#include "runtime/base/check.h"
#include "runtime/rpc/rpc_channel.h"
#include "runtime/rpc/rpc_stream.h"

struct rpc_server {
    struct rpc_endpoint ep; /* first: on_tag gets it back */
    grpc_server *server;
    void *attach; /* the registered method */
    int port;
    unsigned requests; /* outstanding */
    bool shut_down;
    struct rpc_tag tag_attach, tag_unknown, tag_shutdown;
    grpc_call *attach_call, *unknown_call;
    gpr_timespec attach_deadline;
    grpc_metadata_array attach_metadata, unknown_metadata;
    grpc_call_details unknown_details;
};

static void request_attach(struct rpc_server *s)
{
    s->attach_call = NULL;
    grpc_metadata_array_init(&s->attach_metadata);
    grpc_call_error rc = grpc_server_request_registered_call(
        s->server, s->attach, &s->attach_call, &s->attach_deadline, &s->attach_metadata, NULL,
        s->ep.cq, s->ep.cq, &s->tag_attach);
    ASSERT(rc == GRPC_CALL_OK);
    s->requests++;
}

static void request_unknown(struct rpc_server *s)
{
    s->unknown_call = NULL;
    grpc_metadata_array_init(&s->unknown_metadata);
    grpc_call_details_init(&s->unknown_details);
    grpc_call_error rc =
        grpc_server_request_call(s->server, &s->unknown_call, &s->unknown_details,
                                 &s->unknown_metadata, s->ep.cq, s->ep.cq, &s->tag_unknown);
    ASSERT(rc == GRPC_CALL_OK);
    s->requests++;
}

static void watch_end(struct rpc_stream *st)
{
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};
    op.data.recv_close_on_server.cancelled = &st->peer_cancelled;
    rpc_stream_batch(st, RPC_OP_CLOSED, &op, 1);
}

static void refuse(struct rpc_server *s, grpc_call *call, grpc_status_code status, const char *why)
{
    struct rpc_stream *st = rpc_stream_new(&s->ep, call, true);
    if (!st) { /* no memory: the peer sees a cancelled call */
        grpc_call_cancel(call, NULL);
        grpc_call_unref(call);
        return;
    }
    watch_end(st);
    rpc_stream_close(st, false, status, ERR_LIMIT, why);
}

static void accept_call(struct rpc_server *s, grpc_call *call)
{
    struct rpc_stream *st = rpc_stream_new(&s->ep, call, false);
    if (!st) {
        refuse(s, call, GRPC_STATUS_RESOURCE_EXHAUSTED, "this router has all the workers it takes");
        return;
    }
    char *peer = grpc_call_get_peer(call);
    snprintf(st->opened->peer, sizeof(st->opened->peer), "%s", peer ? peer : "");
    gpr_free(peer);
    watch_end(st);
    grpc_op op = {.op = GRPC_OP_SEND_INITIAL_METADATA};
    st->opening = true;
    rpc_stream_batch(st, RPC_OP_OPEN, &op, 1);
    mailbox_post_always(s->ep.events, &st->opened->mail);
    st->opened = NULL;
    rpc_stream_recv(st);
}

static void on_tag(struct rpc_endpoint *ep, enum rpc_op op, bool ok)
{
    struct rpc_server *s = (struct rpc_server *)ep;
    grpc_call *call;
    switch (op) {
    case RPC_OP_NEW_ATTACH:
        call = s->attach_call;
        s->requests--;
        grpc_metadata_array_destroy(&s->attach_metadata);
        if (!ok)
            break;
        request_attach(s);
        if (ep->stopping)
            refuse(s, call, GRPC_STATUS_UNAVAILABLE, "shutting down");
        else
            accept_call(s, call);
        break;
    case RPC_OP_NEW_UNKNOWN:
        call = s->unknown_call;
        s->requests--;
        grpc_metadata_array_destroy(&s->unknown_metadata);
        grpc_call_details_destroy(&s->unknown_details);
        if (!ok)
            break;
        request_unknown(s);
        refuse(s, call, GRPC_STATUS_UNIMPLEMENTED, "only " RPC_ATTACH_METHOD " is served");
        break;
    default:
        s->shut_down = true;
        break;
    }
}

static bool may_leave(struct rpc_endpoint *ep)
{
    struct rpc_server *s = (struct rpc_server *)ep;
    return s->shut_down && s->requests == 0;
}

static int listen_on(struct rpc_server *s, const struct rpc_config *config, struct err *e)
{
    struct rpc_args args;
    grpc_server_credentials *creds = NULL;
    int rc = rpc_server_credentials(config, &creds, e);
    if (rc < 0)
        return rc;
    rpc_args_server(&args, config);
    s->server = grpc_server_create(&args.args, NULL);
    grpc_server_register_completion_queue(s->server, s->ep.cq, NULL);
    s->attach =
        grpc_server_register_method(s->server, RPC_ATTACH_METHOD, NULL, GRPC_SRM_PAYLOAD_NONE, 0);
    s->port = grpc_server_add_http2_port(s->server, config->address, creds);
    grpc_server_credentials_release(creds);
    if (s->port == 0)
        return err_set(e, ERR_IO, "%s: cannot be listened on", config->address);
    if (strncmp(config->address, "unix:", 5) == 0)
        s->port = 0;
    grpc_server_start(s->server);
    return 0;
}

/* The server's thread is not there yet: what it would have drained is drained here. */
static void abandon(struct rpc_server *s)
{
    if (s->server) {
        grpc_server_shutdown_and_notify(s->server, s->ep.cq, &s->tag_shutdown);
        grpc_event ev;
        do
            ev = grpc_completion_queue_next(s->ep.cq, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        while (ev.tag != &s->tag_shutdown);
        grpc_server_destroy(s->server);
    }
    rpc_endpoint_release(&s->ep);
    free(s);
}

int rpc_server_open(const struct rpc_config *config, struct mailbox *events,
                    struct rpc_server **out, struct err *e)
{
    struct rpc_server *s = calloc(1, sizeof(*s));
    if (!s)
        return err_set(e, ERR_NOMEM, "rpc: no memory for a server");
    int rc =
        rpc_endpoint_init(&s->ep, config, config->streams_max ? config->streams_max : 1, events, e);
    if (rc < 0) {
        free(s);
        return rc;
    }
    s->ep.is_server = true;
    s->ep.on_tag = on_tag;
    s->ep.may_leave = may_leave;
    s->tag_attach = (struct rpc_tag){RPC_OP_NEW_ATTACH, NULL};
    s->tag_unknown = (struct rpc_tag){RPC_OP_NEW_UNKNOWN, NULL};
    s->tag_shutdown = (struct rpc_tag){RPC_OP_SHUTDOWN, NULL};
    rc = listen_on(s, config, e);
    if (rc == 0)
        rc = rpc_endpoint_start(&s->ep, e);
    if (rc < 0) {
        abandon(s);
        return rc;
    }
    pthread_mutex_lock(&s->ep.lock);
    request_attach(s);
    request_unknown(s);
    pthread_mutex_unlock(&s->ep.lock);
    *out = s;
    return 0;
}

int rpc_server_port(const struct rpc_server *s)
{
    return s->port;
}

void rpc_server_free(struct rpc_server *s)
{
    if (!s)
        return;
    grpc_server_shutdown_and_notify(s->server, s->ep.cq, &s->tag_shutdown);
    rpc_endpoint_stop(&s->ep);
    rpc_endpoint_join(&s->ep);
    grpc_server_destroy(s->server);
    rpc_endpoint_release(&s->ep);
    free(s);
}

int rpc_server_send(struct rpc_server *s, uint64_t stream, const Argosy__ToWorker *frame,
                    struct err *e)
{
    return rpc_endpoint_send(&s->ep, stream, &frame->base, false, e);
}

int rpc_server_hold(struct rpc_server *s, uint64_t stream, const Argosy__ToWorker *frame,
                    struct err *e)
{
    return rpc_endpoint_send(&s->ep, stream, &frame->base, true, e);
}

void rpc_server_flush(struct rpc_server *s)
{
    rpc_endpoint_flush(&s->ep);
}

void rpc_server_close(struct rpc_server *s, uint64_t stream)
{
    rpc_endpoint_close(&s->ep, stream);
}
