/* rpc_channel.h: how the two ends of a connection are set up: credentials and gRPC's arguments.
 * Private to runtime/rpc. */
#ifndef ARGOSY_RPC_RPC_CHANNEL_H
#define ARGOSY_RPC_RPC_CHANNEL_H

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include "runtime/rpc/frame.h"
#include "runtime/rpc/rpc.h"

#define RPC_ARGS_MAX 20
/* The largest frame and its head. */
#define RPC_MESSAGE_BYTES_MAX (RPC_FRAME_BYTES_MAX + FRAME_HEAD_BYTES_MAX)

/* Keys are borrowed from gRPC's macros, which are char * there only for C's sake. */
struct rpc_args {
    grpc_arg items[RPC_ARGS_MAX];
    grpc_channel_args args;
};

void rpc_args_server(struct rpc_args *a, const struct rpc_config *config);
void rpc_args_client(struct rpc_args *a, const struct rpc_config *config);

/* Reads the files of config->tls, or plain credentials without them. The caller releases. */
int rpc_server_credentials(const struct rpc_config *config, grpc_server_credentials **out,
                           struct err *e);
int rpc_client_credentials(const struct rpc_config *config, grpc_channel_credentials **out,
                           struct err *e);

#endif
