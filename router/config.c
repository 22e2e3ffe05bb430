#include "router/config.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

#define AT(field) offsetof(struct router_config, field)

#define S(k, d, a, h)                                                                    \
    {                                                                                    \
        .key = #k, .type = CONFIG_STRING, .offset = AT(k), .def = d, .arg = a, .help = h \
    }
#define N(k, t, d, lo, hi, a, h)                                                                   \
    {                                                                                              \
        .key = #k, .type = t, .offset = AT(k), .def = d, .min = lo, .max = hi, .arg = a, .help = h \
    }

static const struct config_option options[] = {
    S(listen, "127.0.0.1:8080", "HOST:PORT",
      "Where the OpenAI HTTP API is served; port 0 lets the system choose."),
    S(rpc_listen, "127.0.0.1:9090", "HOST:PORT",
      "Where workers attach: HOST:PORT, port 0 lets the system choose, or unix:PATH."),
    S(rpc_advertise, NULL, "HOST:PORT",
      "The address that workers and other routers are told; without it rpc_listen."),
    S(rpc_cert_file, NULL, "FILE", "PEM certificate of this router; turns TLS for workers on."),
    S(rpc_key_file, NULL, "FILE", "PEM key of rpc_cert_file."),
    S(rpc_ca_file, NULL, "FILE",
      "PEM certificates that a worker's must be signed by; turns mutual TLS on."),
    {.key = "models",
     .type = CONFIG_LIST,
     .offset = AT(models),
     .arg = "NAME=PATH",
     .help = "A model that is served: its name and its GGUF file; may be repeated."},
    {.key = "policy",
     .type = CONFIG_CHOICE,
     .offset = AT(policy),
     .def = "least_load",
     .choices = "least_load|power_of_two|round_robin|random",
     .arg = "NAME",
     .help = "How a worker is chosen."},
    S(cluster, "default", "NAME",
      "Name of the cluster: routers that share a Redis and a name share a load table."),
    S(router_id, NULL, "ID",
      "Name of this router in the load table; without it host name and process id."),
    S(redis, NULL, "URL",
      "The load table's Redis, unix:PATH or redis://HOST:PORT/DB; without it there is no load "
      "table."),
    S(redis_password_file, NULL, "FILE", "A file whose first line is the password of Redis."),
    N(redis_period_ms, CONFIG_MS, "250ms", 10, 60000, "TIME",
      "Time between two batches of writes to Redis."),
    N(redis_timeout_ms, CONFIG_MS, "2s", 100, 600000, "TIME",
      "A Redis that owes an answer for longer is dropped and dialled again."),
    N(lease_ms, CONFIG_MS, "3s", 200, 600000, "TIME",
      "A worker that is silent for longer is taken for dead; workers report every 500 ms."),
    N(deadline_ms, CONFIG_MS, "10m", 1, 86400000, "TIME",
      "Longest time that a generation may take."),
    N(worker_wait_ms, CONFIG_MS, "10s", 0, 600000, "TIME",
      "How long a generation waits when no worker is attached for its model; 0 refuses it at "
      "once."),
    N(drain_ms, CONFIG_MS, "30s", 0, 3600000, "TIME",
      "How long running streams may go on when this router or a worker drains."),
    N(workers_max, CONFIG_INT, "1024", 1, 65536, "N", "Workers attached at once."),
    N(generations_max, CONFIG_INT, "16384", 1, 1048576, "N", "Generations under way at once."),
    N(queue_max, CONFIG_INT, "1024", 0, 1048576, "N",
      "Generations that may wait for a worker to attach."),
    N(worker_queue_max, CONFIG_INT, "256", 0, 1000000, "N",
      "Generations sent to a worker beyond those that it runs at once."),
    N(moves_max, CONFIG_INT, "3", 0, 100, "N",
      "How often a generation moves because its worker failed."),
    N(rpc_out_bytes_max, CONFIG_BYTES, "64M", 65536, 4294967296.0, "BYTES",
      "Frames queued to one worker; one that does not read is closed."),
    N(rpc_keepalive_ms, CONFIG_MS, "10s", 1000, 3600000, "TIME",
      "Time between HTTP/2 pings to a worker."),
    N(connections_max, CONFIG_INT, "10000", 1, 1000000, "N", "HTTP connections at once."),
    N(header_bytes_max, CONFIG_BYTES, "32k", 1024, 1048576, "BYTES",
      "Request line and headers of a request; more is answered with 431."),
    N(body_bytes_max, CONFIG_BYTES, "8M", 1024, 1073741824, "BYTES",
      "Body of a request; more is answered with 413."),
    N(request_bytes_max, CONFIG_BYTES, "128M", 1048576, 4294967295.0, "BYTES",
      "Memory that one request may take."),
    N(output_bytes_max, CONFIG_BYTES, "1M", 4096, 1073741824, "BYTES",
      "Unsent answer of a connection; a client that is slower is cut off."),
    N(header_timeout_ms, CONFIG_MS, "10s", 10, 3600000, "TIME",
      "From a request's first byte to the end of its headers."),
    N(body_timeout_ms, CONFIG_MS, "30s", 10, 3600000, "TIME",
      "From the end of the headers to the end of the body."),
    N(idle_timeout_ms, CONFIG_MS, "75s", 10, 3600000, "TIME",
      "A connection without a request is closed after it."),
    N(write_timeout_ms, CONFIG_MS, "30s", 10, 3600000, "TIME",
      "A client that takes nothing for so long is gone."),
    N(choices_max, CONFIG_INT, "128", 1, 4096, "N",
      "Answers that one request may ask for: prompts times n."),
    N(stop_max, CONFIG_INT, "16", 1, 64, "N", "Stop strings of a request."),
    N(stop_bytes_max, CONFIG_BYTES, "1k", 1, 1024, "BYTES", "Length of a stop string."),
    S(cors_origin, NULL, "ORIGIN",
      "What Access-Control-Allow-Origin says; without it the header is not sent."),
    {.key = "log_level",
     .type = CONFIG_CHOICE,
     .offset = AT(log_level),
     .def = "info",
     .choices = "debug|info|warn|error|off",
     .arg = "LEVEL",
     .help = "The least level that is logged."},
    {.key = "die_with_parent",
     .type = CONFIG_BOOL,
     .offset = AT(die_with_parent),
     .def = "false",
     .help = "End when the process that started this one ends."},
};

const struct config_program router_program = {
    .name = "argosy-router",
    .summary = "serves the OpenAI API in front of a pool of workers",
    .options = options,
    .n_options = ARRAY_LEN(options),
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

int router_config_check(const struct router_config *c, struct err *e)
{
    char host[128];
    uint16_t port;
    if (router_split_address(c->listen, host, sizeof(host), &port, e) < 0)
        return err_prefix(e, "listen");
    if (strncmp(c->rpc_listen, "unix:", 5) != 0 &&
        router_split_address(c->rpc_listen, host, sizeof(host), &port, e) < 0)
        return err_prefix(e, "rpc_listen");
    if (c->models.n == 0)
        return err_set(e, ERR_CONFIG, "models: none is given (--models NAME=PATH)");
    if (!name_is_plain(c->cluster))
        return err_set(e, ERR_CONFIG, "cluster: '%.64s' is not letters, digits, '.', '_', '-'",
                       c->cluster);
    if (c->router_id && !name_is_plain(c->router_id))
        return err_set(e, ERR_CONFIG, "router_id: '%.64s' is not letters, digits, '.', '_', '-'",
                       c->router_id);
    if (!c->rpc_cert_file != !c->rpc_key_file)
        return err_set(e, ERR_CONFIG, "rpc_cert_file and rpc_key_file go together");
    if (c->rpc_ca_file && !c->rpc_cert_file)
        return err_set(e, ERR_CONFIG, "rpc_ca_file needs rpc_cert_file and rpc_key_file");
    return 0;
}
