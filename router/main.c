/* main.c: argosy-router.
 *
 *   config ──► models ──► event base ──► rpc server ──► pool ──► load table ──► HTTP ──► loop
 *
 * Threads: this one runs the loop and everything in it. The rpc server has one of its own, which
 * only posts into the mailbox; the mailbox's eventfd wakes the loop.
 */
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "router/config.h"
#include "router/http/http.h"
#include "router/keys/keyring.h"
#include "router/model_text.h"
#include "router/policy/policy.h"
#include "router/pool/loadtable.h"
#include "router/pool/pool.h"
#include "router/trace/otlp.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "runtime/format/manifest.h"
#include "runtime/rpc/rpc.h"
#include "runtime/text/tokenizer.h"

#define MAILBOX_MESSAGES_MAX 65536
#define DRAIN_CHECK_MS 20
#define PASSWORD_BYTES_MAX 512
/* A drained router waits so long for a collector. */
#define SPANS_WAIT_MS 2000
/* A Redis that pauses for a moment loses nothing; a dead router's counts stay for so long. */
#define TABLE_LEASE_MS 10000

struct router {
    struct router_config config;
    struct model_texts texts;
    struct event_base *base;
    struct mailbox mailbox;
    bool has_mailbox;
    struct rpc_server *rpc;
    struct pool *pool;
    struct loadtable *table;
    struct keyring *keys; /* NULL: requests need none */
    char id[64];
    struct otlp *otlp;
    struct http *http;
    struct event *mail_event, *term_event, *int_event, *drain_event, *flush_event;
    char rpc_address[160]; /* where workers reach it */
    uint64_t drain_until_ms, spans_until_ms;
    bool draining;
};

/* ---- what the loop calls -------------------------------------------------------------------- */

static void on_mail(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    struct router *r = ctx;
    struct mail *m = mailbox_take(&r->mailbox);
    while (m) {
        struct rpc_event *ev = (struct rpc_event *)m;
        m = m->next;
        pool_event(r->pool, ev);
        rpc_event_free(ev);
    }
}

static void on_drain(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    struct router *r = ctx;
    uint32_t running = http_requests_running(r->http);
    if (running > 0 && clock_mono_ms() < r->drain_until_ms)
        return;
    if (r->otlp && !otlp_is_idle(r->otlp)) {
        r->spans_until_ms = r->spans_until_ms ? r->spans_until_ms : clock_mono_ms() + SPANS_WAIT_MS;
        otlp_flush(r->otlp);
        if (clock_mono_ms() < r->spans_until_ms)
            return;
    }
    log_info("router ends", "unfinished=%u", running);
    event_base_loopbreak(r->base);
}

static void on_signal(evutil_socket_t fd, short what, void *ctx)
{
    (void)what;
    struct router *r = ctx;
    struct timeval tv = {.tv_usec = DRAIN_CHECK_MS * 1000};
    if (r->draining) {
        log_warn("router ends at once", "signal=%d", (int)fd);
        event_base_loopbreak(r->base);
        return;
    }
    log_info("router drains", "signal=%d running=%u", (int)fd, http_requests_running(r->http));
    r->draining = true;
    r->drain_until_ms = clock_mono_ms() + (uint64_t)r->config.drain_timeout_ms;
    http_stop_accepting(r->http);
    event_add(r->drain_event, &tv);
    on_drain(-1, 0, r);
}

static void on_flush(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    rpc_server_flush(((struct router *)ctx)->rpc);
}

/* Once what is ready now has been looked at: what it sends to a worker goes in one message. */
static int link_send(void *ctx, uint64_t stream, const Argosy__ToWorker *frame, struct err *e)
{
    struct router *r = ctx;
    event_active(r->flush_event, EV_WRITE, 0);
    return rpc_server_hold(r->rpc, stream, frame, e);
}

static void link_close(void *ctx, uint64_t stream)
{
    rpc_server_close(((struct router *)ctx)->rpc, stream);
}

/* ---- putting it together -------------------------------------------------------------------- */

static int open_rpc(struct router *r, struct err *e)
{
    const struct router_config *c = &r->config;
    struct rpc_config rc = {
        .address = c->rpc_listen,
        .tls = {.cert_file = c->tls_cert, .key_file = c->tls_key, .ca_file = c->tls_ca},
        .streams_max = (uint32_t)c->workers_max,
        .out_bytes_max = (size_t)c->out_bytes_max,
        .keepalive_ms = (uint32_t)c->keepalive_ms,
    };
    char host[128];
    uint16_t port;
    if (mailbox_init(&r->mailbox, MAILBOX_MESSAGES_MAX, e) < 0)
        return e->code;
    r->has_mailbox = true;
    if (rpc_server_open(&rc, &r->mailbox, &r->rpc, e) < 0)
        return e->code;
    if (c->rpc_advertise)
        snprintf(r->rpc_address, sizeof(r->rpc_address), "%s", c->rpc_advertise);
    else if (strncmp(c->rpc_listen, "unix:", 5) == 0)
        snprintf(r->rpc_address, sizeof(r->rpc_address), "%s", c->rpc_listen);
    else if (router_split_address(c->rpc_listen, host, sizeof(host), &port, e) < 0)
        return e->code;
    else
        snprintf(r->rpc_address, sizeof(r->rpc_address), strchr(host, ':') ? "[%s]:%d" : "%s:%d",
                 host, rpc_server_port(r->rpc));
    return 0;
}

static int open_pool(struct router *r, struct err *e)
{
    const struct router_config *c = &r->config;
    struct pool_link link = {.send = link_send, .close = link_close, .ctx = r};
    struct pool_model *models = calloc(r->texts.n, sizeof(*models));
    if (!models)
        return err_set(e, ERR_NOMEM, "no memory for the models");
    for (size_t i = 0; i < r->texts.n; i++)
        models[i] = (struct pool_model){.adapter_sha256 = r->texts.items[i].adapter_sha256,
                                        .base = r->texts.items[i].base,
                                        .name = r->texts.items[i].name,
                                        .manifest_sha256 = r->texts.items[i].manifest_sha256,
                                        .vocab = tokenizer_vocab_size(r->texts.items[i].tokenizer)};
    struct pool_config pc = {
        .models = models,
        .n_models = r->texts.n,
        .policy = policy_find(c->policy),
        .lease_ms = (uint32_t)c->lease_ms,
        .workers_max = (uint32_t)c->workers_max,
        .gens_max = (uint32_t)c->generations_max,
        .queue_max = (uint32_t)c->queue_max,
        .queue_wait_ms = (uint32_t)c->queue_wait_ms,
        .queue_age_ms = (uint32_t)c->queue_age_ms,
        .worker_wait_ms = (uint32_t)c->worker_wait_ms,
        .worker_queue_max = (uint32_t)c->worker_queue_max,
        .moves_max = (uint32_t)c->moves_max,
        .moves_share = c->moves_share,
        .token_timeout_ms = (uint32_t)c->token_timeout_ms,
        .deadline_ms = (uint32_t)c->deadline_ms,
        .drain_ms = (uint32_t)c->drain_timeout_ms,
        .prefix_index_bytes = (size_t)c->prefix_index_bytes,
    };
    rng_entropy(&pc.seed, sizeof(pc.seed));
    int rc = pool_open(&pc, r->base, &link, &r->pool, e);
    free(models);
    return rc;
}

/* The first line of a file, into n bytes of text. */
static int read_line(const char *path, char *text, size_t n, struct err *e)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return err_set(e, ERR_CONFIG, "%s: cannot be opened", path);
    bool read = fgets(text, (int)n, f) != NULL;
    fclose(f);
    if (!read)
        return err_set(e, ERR_CONFIG, "%s: cannot be read, or is empty", path);
    text[strcspn(text, "\r\n")] = 0;
    return 0;
}

/* "HOST-PID", of the letters that an id may have. */
static void default_router_id(char *id, size_t n)
{
    char host[48] = "router";
    gethostname(host, sizeof(host) - 1);
    for (char *p = host; *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9')))
            *p = '-';
    snprintf(id, n, "%s-%d", host, (int)getpid());
}

/* ERR_CONFIG: there should be a password, and is none. */
static int read_password(const struct router_config *c, char *password, size_t n, struct err *e)
{
    if (!c->redis_password_file || read_line(c->redis_password_file, password, n, e) == 0)
        return 0;
    return err_prefix(e, "redis_password_file");
}

static int open_table(struct router *r, const char *password, struct err *e)
{
    const struct router_config *c = &r->config;
    if (!c->redis)
        return 0;
    struct loadtable_config lc = {
        .url = c->redis,
        .password = password,
        .cluster = c->cluster,
        .router_id = r->id,
        .address = r->rpc_address,
        .lease_ms = (uint32_t)c->lease_ms,
        .period_ms = (uint32_t)c->redis_period_ms,
        .timeout_ms = (uint32_t)c->redis_timeout_ms,
    };
    return loadtable_open(&lc, r->base, r->pool, &r->table, e);
}

static int open_keys(struct router *r, const char *password, struct err *e)
{
    const struct router_config *c = &r->config;
    if (strcmp(c->auth, "keys") != 0)
        return 0;
    struct keyring_config kc = {
        .file = c->keys,
        .url = c->redis,
        .password = password,
        .cluster = c->cluster,
        .router_id = r->id,
        .timeout_ms = (uint32_t)c->redis_timeout_ms,
        .wait_ms = (uint32_t)c->quota_wait_ms,
        .lease_ms = (uint32_t)c->quota_lease_ms,
    };
    return keyring_open(&kc, r->base, &r->keys, e);
}

/* What uses Redis. */
static int open_shared(struct router *r, struct err *e)
{
    const struct router_config *c = &r->config;
    char text[PASSWORD_BYTES_MAX];
    const char *password = c->redis_password_file ? text : NULL;
    if (c->router_id)
        snprintf(r->id, sizeof(r->id), "%s", c->router_id);
    else
        default_router_id(r->id, sizeof(r->id));
    int rc = read_password(c, text, sizeof(text), e);
    if (rc == 0)
        rc = open_table(r, password, e);
    if (rc == 0)
        rc = open_keys(r, password, e);
    explicit_bzero(text, sizeof(text));
    return rc;
}

static int open_otlp(struct router *r, struct err *e)
{
    struct otlp_config oc = {.url = r->config.otlp,
                             .instance = r->id,
                             .queue_bytes_max = (size_t)r->config.otlp_queue_bytes};
    return r->config.otlp ? otlp_open(&oc, r->base, &r->otlp, e) : 0;
}

static int open_http(struct router *r, struct err *e)
{
    const struct router_config *c = &r->config;
    struct http_config hc = http_config_default();
    char host[128];
    if (router_split_address(c->listen, host, sizeof(host), &hc.port, e) < 0)
        return e->code;
    hc.address = host;
    hc.connections_max = (uint32_t)c->connections_max;
    hc.client_connections_max = (uint32_t)c->client_connections_max;
    hc.connection_requests_max = (uint32_t)c->connection_requests_max;
    hc.header_bytes_max = (uint32_t)c->header_bytes_max;
    hc.body_bytes_max = (uint32_t)c->body_bytes_max;
    hc.bodies_bytes_max = (uint64_t)c->bodies_bytes_max;
    hc.request_bytes_max = (uint32_t)c->request_bytes_max;
    hc.output_bytes_max = (uint32_t)c->output_bytes_max;
    hc.header_timeout_ms = (uint32_t)c->header_timeout_ms;
    hc.body_timeout_ms = (uint32_t)c->body_timeout_ms;
    hc.idle_timeout_ms = (uint32_t)c->idle_timeout_ms;
    hc.write_timeout_ms = (uint32_t)c->write_timeout_ms;
    hc.choices_max = (uint32_t)c->choices_max;
    hc.stop_max = (uint32_t)c->stop_max;
    hc.stop_bytes_max = (uint32_t)c->stop_bytes_max;
    hc.deadline_ms = (uint32_t)c->deadline_ms;
    hc.keys = r->keys;
    hc.metrics_open = c->metrics_open;
    hc.otlp = r->otlp;
    hc.explorer = c->explorer;
    hc.viewers_max = (uint32_t)c->explorer_viewers_max;
    hc.metrics = c->metrics;
    hc.cors_origin = c->cors_origin;
    int rc = http_open(r->base, &hc, r->pool, &r->texts, &r->http, e);
    if (rc == 0)
        log_info("router is up", "http=%s port=%u workers=%s", host, http_port(r->http),
                 r->rpc_address);
    return rc;
}

static int open_events(struct router *r, struct err *e)
{
    r->mail_event = event_new(r->base, mailbox_fd(&r->mailbox), EV_READ | EV_PERSIST, on_mail, r);
    r->term_event = evsignal_new(r->base, SIGTERM, on_signal, r);
    r->int_event = evsignal_new(r->base, SIGINT, on_signal, r);
    r->drain_event = event_new(r->base, -1, EV_PERSIST, on_drain, r);
    if (!r->mail_event || !r->term_event || !r->int_event || !r->drain_event ||
        event_add(r->mail_event, NULL) < 0 || event_add(r->term_event, NULL) < 0 ||
        event_add(r->int_event, NULL) < 0)
        return err_set(e, ERR_NOMEM, "the event loop can't be set up");
    return 0;
}

static int router_open(struct router *r, struct err *e)
{
    int rc = model_texts_load(r->config.models.items, r->config.models.n, &r->texts, e);
    const struct manifest_options options = {.kv_int8 = strcmp(r->config.kv_type, "int8") == 0,
                                             .fast = r->config.fast};
    for (size_t i = 0; rc == 0 && i < r->texts.n; i++)
        rc = manifest_add(r->texts.items[i].manifest_sha256, &options, e);
    if (rc == 0)
        rc = model_texts_add_adapters(&r->texts, r->config.adapters.items, r->config.adapters.n, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < r->texts.n; i++)
        if (!r->texts.items[i].chat)
            log_warn("model has no chat", "model=%s why=\"%s\"", r->texts.items[i].name,
                     r->texts.items[i].chat_refusal);
    r->base = event_base_new();
    r->flush_event = r->base ? event_new(r->base, -1, 0, on_flush, r) : NULL;
    if (!r->flush_event)
        return err_set(e, ERR_NOMEM, "no event loop");
    if ((rc = open_rpc(r, e)) < 0 || (rc = open_pool(r, e)) < 0 || (rc = open_shared(r, e)) < 0 ||
        (rc = open_otlp(r, e)) < 0 || (rc = open_http(r, e)) < 0)
        return rc;
    return open_events(r, e);
}

static void router_release(struct router *r)
{
    struct event *events[] = {r->mail_event, r->term_event, r->int_event, r->drain_event,
                              r->flush_event};
    struct mail *m;
    http_free(r->http);
    keyring_free(r->keys);
    otlp_free(r->otlp);
    loadtable_free(r->table);
    if (r->rpc)
        rpc_server_free(r->rpc);
    pool_free(r->pool);
    for (size_t i = 0; i < ARRAY_LEN(events); i++)
        if (events[i])
            event_free(events[i]);
    while (r->has_mailbox && (m = mailbox_take(&r->mailbox)))
        while (m) {
            struct mail *next = m->next;
            rpc_event_free((struct rpc_event *)m);
            m = next;
        }
    if (r->has_mailbox)
        mailbox_release(&r->mailbox);
    if (r->base)
        event_base_free(r->base);
    model_texts_release(&r->texts);
}

/* ---- the process ---------------------------------------------------------------------------- */

/* Connections are file descriptors: as many as the system allows. */
static void raise_fd_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int tie_to_parent(struct err *e)
{
    pid_t parent = getppid();
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
        return err_set(e, ERR_IO, "prctl refuses die_with_parent");
    return getppid() == parent ? 0 : err_set(e, ERR_IO, "the parent is gone already");
}

int main(int argc, char **argv)
{
    struct router r = {0};
    struct err e = {0};
    enum config_action action = CONFIG_RUN;
    if (config_load(&router_program, argc, argv, &r.config, &action, &e) < 0) {
        fprintf(stderr, "argosy-router: %s\n", e.msg);
        return 2;
    }
    if (action == CONFIG_EXIT)
        return 0;
    log_init("argosy-router", (enum log_level)log_level_parse(r.config.log_level));
    signal(SIGPIPE, SIG_IGN);
    raise_fd_limit();
    int rc = r.config.die_with_parent ? tie_to_parent(&e) : 0;
    if (rc == 0)
        rc = router_open(&r, &e);
    if (rc == 0)
        event_base_dispatch(r.base);
    router_release(&r);
    config_release(&router_program, &r.config);
    if (rc < 0)
        log_error("router ends", "why=\"%s\"", e.msg);
    return rc < 0 ? 1 : 0;
}
