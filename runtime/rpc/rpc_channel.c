#include "runtime/rpc/rpc_channel.h"

#include <errno.h>
#include <grpc/compression.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"

#define PEM_BYTES_MAX (1u << 20)
#define DIAL_TIMEOUT_MS 5000
#define HANDSHAKE_TIMEOUT_MS 10000
#define METADATA_BYTES_MAX 16384
#define WINDOW_BYTES (256 << 10)
/* A worker needs one; a connection that opens more has lost its way. */
#define CALLS_PER_CONNECTION_MAX 8

static void add(struct rpc_args *a, const char *key, int value)
{
    ASSERT(a->args.num_args < RPC_ARGS_MAX);
    a->items[a->args.num_args++] =
        (grpc_arg){.type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value};
}

static void add_common(struct rpc_args *a, const struct rpc_config *config)
{
    a->args = (grpc_channel_args){.num_args = 0, .args = a->items};
    add(a, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)RPC_MESSAGE_BYTES_MAX);
    add(a, GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, (int)RPC_MESSAGE_BYTES_MAX);
    add(a, GRPC_ARG_MAX_METADATA_SIZE, METADATA_BYTES_MAX);
    /* Inflating has no bound in gRPC: compressed frames come up as they are and are refused. */
    add(a, GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
    add(a, GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1 << GRPC_COMPRESS_NONE);
    add(a, GRPC_ARG_ENABLE_CHANNELZ, 0);
    /* Pings that measure the link cost more than the frames of an idle worker; what they would find
     * out is said here: a prompt of 64k tokens is under way without a pause. */
    add(a, GRPC_ARG_HTTP2_BDP_PROBE, 0);
    add(a, GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, WINDOW_BYTES);
    if (config->keepalive_ms) {
        add(a, GRPC_ARG_KEEPALIVE_TIME_MS, (int)config->keepalive_ms);
        add(a, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, (int)config->keepalive_ms);
        add(a, GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
        add(a, GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    }
}

void rpc_args_server(struct rpc_args *a, const struct rpc_config *config)
{
    add_common(a, config);
    add(a, GRPC_ARG_MAX_CONCURRENT_STREAMS, CALLS_PER_CONNECTION_MAX);
    add(a, GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, HANDSHAKE_TIMEOUT_MS);
    add(a, GRPC_ARG_ALLOW_REUSEPORT, 0); /* a second router on the port is an error */
    /* Workers choose how often they ping: none is a strike. */
    add(a, GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 100);
    add(a, GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
}

void rpc_args_client(struct rpc_args *a, const struct rpc_config *config)
{
    add_common(a, config);
    add(a, GRPC_ARG_ENABLE_RETRIES, 0); /* the owner's back-off decides */
    add(a, GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    add(a, GRPC_ARG_ENABLE_HTTP_PROXY, 0); /* options come from the config, not the environment */
    add(a, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);              /* a connection for each dial */
    add(a, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, DIAL_TIMEOUT_MS); /* also bounds one connect */
}

static int read_file(const char *path, struct buf *out, struct err *e)
{
    FILE *f = fopen(path, "rbe");
    char chunk[4096];
    size_t n;
    if (!f)
        return err_sys(e, errno, "%s", path);
    while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
        buf_add(out, chunk, n);
    int rc = ferror(f) ? err_set(e, ERR_IO, "%s: cannot be read", path) : 0;
    fclose(f);
    if (rc == 0 && out->failed)
        rc = err_set(e, ERR_LIMIT, "%s: over %u bytes", path, PEM_BYTES_MAX);
    return rc;
}

struct pem {
    struct buf cert, key, ca;
    grpc_ssl_pem_key_cert_pair pair;
};

static void pem_release(struct pem *p)
{
    if (p->key.data)
        explicit_bzero(p->key.data, p->key.len);
    buf_release(&p->cert);
    buf_release(&p->key);
    buf_release(&p->ca);
}

static int pem_load(struct pem *p, const struct rpc_tls *tls, struct err *e)
{
    int rc = 0;
    buf_init(&p->cert, PEM_BYTES_MAX);
    buf_init(&p->key, PEM_BYTES_MAX);
    buf_init(&p->ca, PEM_BYTES_MAX);
    if (!tls->cert_file != !tls->key_file)
        rc = err_set(e, ERR_CONFIG, "TLS wants a certificate and its key, not one of them");
    if (rc == 0 && tls->cert_file)
        rc = read_file(tls->cert_file, &p->cert, e);
    if (rc == 0 && tls->key_file)
        rc = read_file(tls->key_file, &p->key, e);
    if (rc == 0 && tls->ca_file)
        rc = read_file(tls->ca_file, &p->ca, e);
    p->pair = (grpc_ssl_pem_key_cert_pair){buf_str(&p->key), buf_str(&p->cert)};
    return rc;
}

static bool wants_tls(const struct rpc_tls *tls)
{
    return tls->cert_file || tls->key_file || tls->ca_file;
}

int rpc_server_credentials(const struct rpc_config *config, grpc_server_credentials **out,
                           struct err *e)
{
    const struct rpc_tls *tls = &config->tls;
    struct pem p;
    if (!wants_tls(tls)) {
        *out = grpc_insecure_server_credentials_create();
        return 0;
    }
    int rc = pem_load(&p, tls, e);
    if (rc == 0 && !tls->cert_file)
        rc = err_set(e, ERR_CONFIG, "TLS at a server wants a certificate and its key");
    if (rc == 0) {
        *out = grpc_ssl_server_credentials_create_ex(
            tls->ca_file ? buf_str(&p.ca) : NULL, &p.pair, 1,
            tls->ca_file ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                         : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            NULL);
        if (!*out)
            rc = err_set(e, ERR_CONFIG, "%s: not a certificate that serves", tls->cert_file);
    }
    pem_release(&p);
    return rc;
}

int rpc_client_credentials(const struct rpc_config *config, grpc_channel_credentials **out,
                           struct err *e)
{
    const struct rpc_tls *tls = &config->tls;
    struct pem p;
    if (!wants_tls(tls)) {
        *out = grpc_insecure_credentials_create();
        return 0;
    }
    int rc = pem_load(&p, tls, e);
    if (rc == 0) {
        *out = grpc_ssl_credentials_create_ex(tls->ca_file ? buf_str(&p.ca) : NULL,
                                              tls->cert_file ? &p.pair : NULL, NULL, NULL);
        if (!*out)
            rc = err_set(e, ERR_CONFIG, "the TLS files do not serve");
    }
    pem_release(&p);
    return rc;
}
