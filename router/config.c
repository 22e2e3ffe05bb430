#include "router/config.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "router/trace/otlp.h"
#include "runtime/base/check.h"

#define PLAIN_NAME "1 to 63 letters, digits, '.', '_', '-'"

#define AT(f) .offset = offsetof(struct router_config, f)

static const struct config_option options[] = {
    {.help = "Serving:"},
    {"listen", CONFIG_STRING, AT(listen), "127.0.0.1:8080", 0, 0, NULL, "HOST:PORT",
     "Where the OpenAI HTTP API is served; HOST is numeric, port 0 lets the system choose"},
    {"models", CONFIG_LIST, AT(models), NULL, 0, 0, NULL, "NAME=PATH",
     "A model that is served: its name and its GGUF file or folder; may be repeated"},
    {"kv_type", CONFIG_CHOICE, AT(kv_type), "f16", 0, 0, "f16|int8", NULL,
     "What the workers of these models keep KV in; those of another kind are not used"},
    {"fast", CONFIG_CHOICE, AT(fast), "off", 0, 0, "off|bf16|fp8", NULL,
     "Serve these models by workers with the same fast mode, whose tokens are not exact; others "
     "are "
     "not used"},
    {"adapters", CONFIG_LIST, AT(adapters), NULL, 0, 0, NULL, "NAME=MODEL=PATH",
     "A LoRA adapter that requests call as a model: its name, its model's, its folder; may be "
     "repeated"},
    {"policy", CONFIG_CHOICE, AT(policy), "predicted", 0, 0,
     "predicted|prefix_hash|session|least_load|power_of_two|round_robin|random", NULL,
     "How a worker is chosen"},
    {"deadline", CONFIG_MS, AT(deadline_ms), "10m", 1, 86400000, NULL, "TIME",
     "Longest time that a generation may take"},
    {"drain_timeout", CONFIG_MS, AT(drain_timeout_ms), "30s", 0, 86400000, NULL, "TIME",
     "How long streams may go on after SIGTERM, or at a worker that drains"},
    {"die_with_parent", CONFIG_BOOL, AT(die_with_parent), "no", 0, 0, NULL, NULL,
     "Drain when the process that started this one ends"},
    {.help = "Workers:"},
    {"rpc_listen", CONFIG_STRING, AT(rpc_listen), "127.0.0.1:9090", 0, 0, NULL, "HOST:PORT",
     "Where workers attach, or unix:PATH; port 0 lets the system choose"},
    {"rpc_advertise", CONFIG_STRING, AT(rpc_advertise), NULL, 0, 0, NULL, "HOST:PORT",
     "The address that workers and other routers are told; without it rpc_listen"},
    {"tls_cert", CONFIG_STRING, AT(tls_cert), NULL, 0, 0, NULL, "FILE",
     "This router's certificate (PEM); turns TLS for workers on"},
    {"tls_key", CONFIG_STRING, AT(tls_key), NULL, 0, 0, NULL, "FILE", "The key of tls_cert (PEM)"},
    {"tls_ca", CONFIG_STRING, AT(tls_ca), NULL, 0, 0, NULL, "FILE",
     "Certificates that workers are checked against (PEM): mutual TLS"},
    {"lease", CONFIG_MS, AT(lease_ms), "700ms", 200, 600000, NULL, "TIME",
     "A worker that is silent for longer is taken for dead"},
    {"worker_wait", CONFIG_MS, AT(worker_wait_ms), "10s", 0, 600000, NULL, "TIME",
     "How long a generation waits when no worker is attached for its model; 0 refuses it"},
    {"moves_max", CONFIG_INT, AT(moves_max), "3", 0, 100, NULL, "N",
     "How often in a row a generation moves to another worker because its own failed"},
    {"moves_share", CONFIG_DOUBLE, AT(moves_share), "0.2", 0, 100, NULL, "SHARE",
     "Moves of generations that moved before, for each request that comes; a few are always free"},
    {"token_timeout", CONFIG_MS, AT(token_timeout_ms), "5s", 0, 3600000, NULL, "TIME",
     "Shortest wait for a token before a generation moves, at a worker that reports; 0 is endless"},
    {"keepalive", CONFIG_MS, AT(keepalive_ms), "10s", 1000, 3600000, NULL, "TIME",
     "Interval of HTTP/2 pings to a worker"},
    {.help = "Load table:"},
    {"redis", CONFIG_STRING, AT(redis), NULL, 0, 0, NULL, "URL",
     "Redis with the load table, unix:PATH or redis://HOST:PORT/DB; without it there is none"},
    {"redis_password_file", CONFIG_STRING, AT(redis_password_file), NULL, 0, 0, NULL, "FILE",
     "The first line of this file is the password of Redis"},
    {"redis_period", CONFIG_MS, AT(redis_period_ms), "250ms", 10, 60000, NULL, "TIME",
     "Time between two batches of writes"},
    {"redis_timeout", CONFIG_MS, AT(redis_timeout_ms), "2s", 100, 600000, NULL, "TIME",
     "A Redis that owes an answer for longer is dropped and dialled again"},
    {"cluster", CONFIG_STRING, AT(cluster), "default", 0, 0, NULL, "NAME",
     "Name of the cluster; routers with one Redis and one name share a load table"},
    {"router_id", CONFIG_STRING, AT(router_id), NULL, 0, 0, NULL, "NAME",
     "Name of this router in the load table; without it host name and process id"},
    {.help = "Keys:"},
    {"auth", CONFIG_CHOICE, AT(auth), "off", 0, 0, "off|keys", NULL,
     "Whether requests need an API key"},
    {"keys", CONFIG_STRING, AT(keys), NULL, 0, 0, NULL, "FILE",
     "File of API keys, beside those in Redis; read again when it changes"},
    {"metrics_open", CONFIG_BOOL, AT(metrics_open), "no", 0, 0, NULL, NULL,
     "/metrics needs no key"},
    {"quota_wait", CONFIG_MS, AT(quota_wait_ms), "200ms", 1, 10000, NULL, "TIME",
     "How long a request waits for Redis to tell what its key has left"},
    {"quota_lease", CONFIG_MS, AT(quota_lease_ms), "10s", 500, 600000, NULL, "TIME",
     "What a router that is gone had reserved of a key's limits is free again after it"},
    {.help = "Limits of the pool:"},
    {"workers_max", CONFIG_INT, AT(workers_max), "1024", 1, 65536, NULL, "N",
     "Workers attached at once"},
    {"generations_max", CONFIG_INT, AT(generations_max), "16384", 1, 1 << 20, NULL, "N",
     "Generations under way at once"},
    {"queue_max", CONFIG_INT, AT(queue_max), "1024", 0, 1 << 20, NULL, "N",
     "New generations that may wait, for a worker to attach or for one that has room"},
    {"queue_wait", CONFIG_MS, AT(queue_wait_ms), "5s", 0, 600000, NULL, "TIME",
     "Longest predicted wait for room; what would wait longer is refused at once, as all is with "
     "0"},
    {"queue_age", CONFIG_MS, AT(queue_age_ms), "1s", 1, 600000, NULL, "TIME",
     "Waiting that is worth one step of priority"},
    {"worker_queue_max", CONFIG_INT, AT(worker_queue_max), "4", 0, 65536, NULL, "N",
     "Generations sent to a worker beyond those that it runs at once"},
    {"prefix_index_bytes", CONFIG_BYTES, AT(prefix_index_bytes), "64M", 1 << 20, 1 << 30, NULL,
     "BYTES", "Memory for what is known of the workers' prefix caches"},
    {"out_bytes_max", CONFIG_BYTES, AT(out_bytes_max), "64M", 4 << 20, 1 << 30, NULL, "BYTES",
     "What may wait to be sent to one worker; a worker that does not read is dropped"},
    {.help = "Limits of HTTP:"},
    {"connections_max", CONFIG_INT, AT(connections_max), "10000", 1, 1000000, NULL, "N",
     "Connections at once"},
    {"client_connections_max", CONFIG_INT, AT(client_connections_max), "4096", 1, 1000000, NULL,
     "N", "Connections at once from one address"},
    {"connection_requests_max", CONFIG_INT, AT(connection_requests_max), "100000", 1, 1000000000,
     NULL, "N", "Requests that a connection carries before it is closed"},
    {"header_bytes_max", CONFIG_BYTES, AT(header_bytes_max), "32k", 1024, 1 << 20, NULL, "BYTES",
     "Request line and headers; 431 past it"},
    {"body_bytes_max", CONFIG_BYTES, AT(body_bytes_max), "8M", 1024, 1 << 30, NULL, "BYTES",
     "Body of a request; 413 past it"},
    {"bodies_bytes_max", CONFIG_BYTES, AT(bodies_bytes_max), "256M", 1024, 1099511627776.0, NULL,
     "BYTES", "Bodies of all requests together; 503 past it"},
    {"request_bytes_max", CONFIG_BYTES, AT(request_bytes_max), "128M", 1 << 20, 2147483648.0, NULL,
     "BYTES", "Memory that one request may take"},
    {"output_bytes_max", CONFIG_BYTES, AT(output_bytes_max), "1M", 4096, 1 << 30, NULL, "BYTES",
     "Unsent answer of a connection; a client that is slower is cut off"},
    {"header_timeout", CONFIG_MS, AT(header_timeout_ms), "10s", 10, 3600000, NULL, "TIME",
     "From a request's first byte to the end of its headers; 408 past it"},
    {"body_timeout", CONFIG_MS, AT(body_timeout_ms), "30s", 10, 3600000, NULL, "TIME",
     "From there to the end of its body; 408 past it"},
    {"idle_timeout", CONFIG_MS, AT(idle_timeout_ms), "75s", 10, 3600000, NULL, "TIME",
     "A connection without a request is closed after it"},
    {"write_timeout", CONFIG_MS, AT(write_timeout_ms), "30s", 10, 3600000, NULL, "TIME",
     "A client that takes nothing for so long is gone"},
    {"choices_max", CONFIG_INT, AT(choices_max), "128", 1, 4096, NULL, "N",
     "Answers that one request may ask for: prompts times n"},
    {"stop_max", CONFIG_INT, AT(stop_max), "16", 1, 64, NULL, "N", "Stop strings of a request"},
    {"stop_bytes_max", CONFIG_BYTES, AT(stop_bytes_max), "1k", 1, 1024, NULL, "BYTES",
     "Length of a stop string"},
    {"cors_origin", CONFIG_STRING, AT(cors_origin), NULL, 0, 0, NULL, "ORIGIN",
     "What Access-Control-Allow-Origin says; without it the header is not sent"},
    {.help = "Seeing:"},
    {"explorer", CONFIG_BOOL, AT(explorer), "yes", 0, 0, NULL, NULL,
     "Serve /explorer, the page that shows the pool, and its JSON"},
    {"explorer_viewers_max", CONFIG_INT, AT(explorer_viewers_max), "32", 1, 10000, NULL, "N",
     "Pages of the explorer that are live at once; 503 past it"},
    {"metrics", CONFIG_BOOL, AT(metrics), "yes", 0, 0, NULL, NULL, "Serve /metrics"},
    {"otlp", CONFIG_STRING, AT(otlp), NULL, 0, 0, NULL, "URL",
     "Where each request's spans are sent: http://HOST:PORT of a collector of OTLP over HTTP"},
    {"otlp_queue_bytes", CONFIG_BYTES, AT(otlp_queue_bytes), "4M", 1 << 16, 1 << 30, NULL, "BYTES",
     "Spans that may wait for the collector; more are dropped"},
    {.help = "Log:"},
    {"log_level", CONFIG_CHOICE, AT(log_level), "info", 0, 0, "debug|info|warn|error|off", NULL,
     "Least level that is logged to stderr"},
};

int router_split_address(const char *text, char *host, size_t n, uint16_t *port, struct err *e)
{
    const char *start = text;
    const char *end = strrchr(text, ':');
    const char *digits = end ? end + 1 : NULL;
    char *rest;
    if (end && *text == '[') {
        start = text + 1;
        end = end > start && end[-1] == ']' ? end - 1 : NULL;
    } else if (end && memchr(text, ':', (size_t)(end - text))) {
        end = NULL;
    }
    if (!end || end == start || (size_t)(end - start) >= n || *digits < '0' || *digits > '9')
        return err_set(e, ERR_CONFIG, "'%.100s' is not HOST:PORT", text);
    unsigned long v = strtoul(digits, &rest, 10);
    if (*rest || v > 65535)
        return err_set(e, ERR_CONFIG, "'%.100s': the port is not in [0, 65535]", text);
    memcpy(host, start, (size_t)(end - start));
    host[end - start] = 0;
    *port = (uint16_t)v;
    return 0;
}

static bool name_is_plain(const char *s)
{
    return *s && strlen(s) < 64 &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
               strlen(s);
}

static int check(const void *out, struct err *e)
{
    const struct router_config *c = out;
    char host[128];
    uint16_t port;
    if (router_split_address(c->listen, host, sizeof(host), &port, e) < 0)
        return err_prefix(e, "listen");
    if (strncmp(c->rpc_listen, "unix:", 5) != 0 &&
        router_split_address(c->rpc_listen, host, sizeof(host), &port, e) < 0)
        return err_prefix(e, "rpc_listen");
    if (c->models.n == 0)
        return err_set(e, ERR_CONFIG, "models: none is given");
    for (size_t i = 0; i < c->models.n; i++)
        if (!strchr(c->models.items[i], '='))
            return err_set(e, ERR_CONFIG, "models: '%.200s' is not NAME=PATH", c->models.items[i]);
    if (!name_is_plain(c->cluster))
        return err_set(e, ERR_CONFIG, "cluster: '%.64s' is not " PLAIN_NAME, c->cluster);
    if (c->router_id && !name_is_plain(c->router_id))
        return err_set(e, ERR_CONFIG, "router_id: '%.64s' is not " PLAIN_NAME, c->router_id);
    if (!c->tls_cert != !c->tls_key)
        return err_set(e, ERR_CONFIG, "tls_cert and tls_key go together");
    if (c->tls_ca && !c->tls_cert)
        return err_set(e, ERR_CONFIG, "tls_ca needs tls_cert and tls_key");
    if (strcmp(c->auth, "keys") == 0 && !c->keys && !c->redis)
        return err_set(e, ERR_CONFIG, "auth: keys come from a file (keys) or from redis");
    if (c->redis_password_file && !c->redis)
        return err_set(e, ERR_CONFIG, "redis_password_file without redis");
    return c->otlp && otlp_check_url(c->otlp, e) < 0 ? err_prefix(e, "otlp") : 0;
}

const struct config_program router_program = {
    .name = "argosy-router",
    .summary = "serves the OpenAI API in front of a pool of workers",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .check = check,
};
