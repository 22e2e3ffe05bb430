/* rpc_client.c: the worker's end. Each dial has a channel of its own, so that gRPC's back-off never
 * delays the owner's. */
#include <stdlib.h>
#include <string.h>

#include <grpc/slice.h>

#include "runtime/rpc/rpc_channel.h"
#include "runtime/rpc/rpc_stream.h"

struct rpc_client {
    struct rpc_endpoint ep; /* first */
    char *address;
    struct rpc_args args;
    grpc_channel_credentials *creds;
    grpc_channel *channel; /* of the last dial */
};

static void on_tag(struct rpc_endpoint *ep, enum rpc_op op, bool ok)
{
    (void)ep, (void)op, (void)ok; /* a client has no tags without a stream */
}

static bool may_leave(struct rpc_endpoint *ep)
{
    (void)ep;
    return true;
}

static void start_call(struct rpc_stream *s)
{
    grpc_op ops[2] = {{.op = GRPC_OP_RECV_STATUS_ON_CLIENT}};
    ops[0].data.recv_status_on_client.trailing_metadata = &s->trailing;
    ops[0].data.recv_status_on_client.status = &s->peer_status;
    ops[0].data.recv_status_on_client.status_details = &s->peer_details;
    rpc_stream_batch(s, RPC_OP_CLOSED, ops, 1);
    ops[0] = (grpc_op){.op = GRPC_OP_SEND_INITIAL_METADATA};
    ops[1] = (grpc_op){.op = GRPC_OP_RECV_INITIAL_METADATA};
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &s->initial;
    s->opening = true;
    rpc_stream_batch(s, RPC_OP_OPEN, ops, 2);
}

int rpc_client_dial(struct rpc_client *c, struct err *e)
{
    int rc = 0;
    pthread_mutex_lock(&c->ep.lock);
    if (c->ep.streams) {
        pthread_mutex_unlock(&c->ep.lock);
        return err_set(e, ERR_BUSY, "the last stream has not closed yet");
    }
    if (c->channel)
        grpc_channel_destroy(c->channel);
    c->channel = grpc_channel_create(c->address, c->creds, &c->args.args);
    grpc_call *call = grpc_channel_create_call(c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->ep.cq,
                                               grpc_slice_from_static_string(RPC_ATTACH_METHOD),
                                               NULL, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    struct rpc_stream *s = rpc_stream_new(&c->ep, call, false);
    if (s) {
        start_call(s);
    } else {
        grpc_call_unref(call);
        rc = err_set(e, ERR_NOMEM, "rpc: no memory for a stream");
    }
    pthread_mutex_unlock(&c->ep.lock);
    return rc;
}

static void client_release(struct rpc_client *c)
{
    if (c->channel)
        grpc_channel_destroy(c->channel);
    if (c->creds)
        grpc_channel_credentials_release(c->creds);
    rpc_endpoint_release(&c->ep);
    free(c->address);
    free(c);
}

int rpc_client_open(const struct rpc_config *config, struct mailbox *events,
                    struct rpc_client **out, struct err *e)
{
    struct rpc_client *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(e, ERR_NOMEM, "rpc: no memory for a client");
    int rc = rpc_endpoint_init(&c->ep, config, 1, events, e);
    if (rc < 0) {
        free(c);
        return rc;
    }
    c->ep.on_tag = on_tag;
    c->ep.may_leave = may_leave;
    rpc_args_client(&c->args, config);
    c->args.args.args = c->args.items;
    c->address = strdup(config->address);
    rc = c->address ? rpc_client_credentials(config, &c->creds, e)
                    : err_set(e, ERR_NOMEM, "rpc: no memory for a client");
    if (rc == 0)
        rc = rpc_endpoint_start(&c->ep, e);
    if (rc < 0) {
        client_release(c);
        return rc;
    }
    rc = rpc_client_dial(c, e);
    if (rc < 0) {
        rpc_client_free(c);
        return rc;
    }
    *out = c;
    return 0;
}

int rpc_client_send(struct rpc_client *c, uint64_t stream, const Argosy__FromWorker *frame,
                    struct err *e)
{
    return rpc_endpoint_send(&c->ep, stream, &frame->base, false, e);
}

void rpc_client_close(struct rpc_client *c, uint64_t stream)
{
    rpc_endpoint_close(&c->ep, stream);
}

void rpc_client_free(struct rpc_client *c)
{
    if (!c)
        return;
    rpc_endpoint_stop(&c->ep);
    rpc_endpoint_join(&c->ep);
    client_release(c);
}
