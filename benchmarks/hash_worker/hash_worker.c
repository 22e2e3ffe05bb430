/* hash_worker: argosy-worker around an engine that computes nothing (hash_engine.h), or many of
 * them in one process.
 *
 * To the router it is a worker of the model that it names: it has the model's manifest, and of the
 * file it reads the tokenizer alone. Its tokens are a function of prompt, seed and place
 * (hash_tokens.h), so any of them continues what another began, and whoever reads the answer can
 * tell that nothing of it is lost, doubled or another's.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "benchmarks/hash_worker/hash_engine.h"
#include "router/model_text.h"
#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/worker/device.h"
#include "runtime/worker/worker.h"

#define STACK_BYTES (256u << 10)

struct hash_config {
    struct worker_config worker; /* what argosy-worker has too */
    char *log_level;
    char *device;
    int64_t workers;
    int64_t step_us, prefill_rate, step_tokens;
    int64_t kv_pages, page_tokens;
};

#define AT(f) .offset = offsetof(struct hash_config, f)

static const struct config_option options[] = {
    {.help = "Cluster:"},
    {"routers", CONFIG_LIST, AT(worker.routers), "127.0.0.1:9090", 0, 0, NULL, "HOST:PORT",
     "Router to attach to, or unix:PATH; each worker attaches to all of them"},
    {"workers", CONFIG_INT, AT(workers), "1", 1, 16384, NULL, "N",
     "Workers in this process, each with its own attachments"},
    {"id", CONFIG_STRING, AT(worker.id), "hash", 0, 0, NULL, "NAME",
     "Name of the worker; of several, NAME-0, NAME-1, …"},
    {"labels", CONFIG_LIST, AT(worker.labels), NULL, 0, 0, NULL, "KEY=VALUE",
     "What routers may choose by: region, trust pool"},
    {"price", CONFIG_DOUBLE, AT(worker.price), "0", 0, 1e12, NULL, "NUMBER",
     "Price of a million tokens in the pool's unit; 0 is not priced"},
    {"device", CONFIG_STRING, AT(device), "hash:no device", 0, 0, NULL, "KIND:NAME",
     "What routers are told that this machine is"},
    {"tls_cert", CONFIG_STRING, AT(worker.tls_cert), NULL, 0, 0, NULL, "FILE",
     "The workers' certificate (PEM), for mTLS"},
    {"tls_key", CONFIG_STRING, AT(worker.tls_key), NULL, 0, 0, NULL, "FILE",
     "The key of tls_cert (PEM)"},
    {"tls_ca", CONFIG_STRING, AT(worker.tls_ca), NULL, 0, 0, NULL, "FILE",
     "Certificates that routers are checked against (PEM); turns TLS on"},
    {"heartbeat", CONFIG_MS, AT(worker.heartbeat_ms), "500ms", 20, 600000, NULL, "TIME",
     "Longest silence between load reports; a router's lease may shorten it"},
    {"backoff_min", CONFIG_MS, AT(worker.backoff_min_ms), "100ms", 10, 600000, NULL, "TIME",
     "Shortest wait before dialling a router again"},
    {"backoff_max", CONFIG_MS, AT(worker.backoff_max_ms), "10s", 10, 600000, NULL, "TIME",
     "Longest wait before dialling a router again"},
    {"keepalive", CONFIG_MS, AT(worker.keepalive_ms), "5s", 100, 600000, NULL, "TIME",
     "Interval of HTTP/2 pings"},
    {"out_bytes_max", CONFIG_BYTES, AT(worker.out_bytes_max), "16M", 1 << 20, 1 << 30, NULL,
     "BYTES", "What may wait to be sent to one router"},
    {"drain_timeout", CONFIG_MS, AT(worker.drain_timeout_ms), "30s", 0, 86400000, NULL, "TIME",
     "How long running requests may go on after SIGTERM"},
    {"die_with_parent", CONFIG_BOOL, AT(worker.die_with_parent), "no", 0, 0, NULL, NULL,
     "Drain when the process that started this one ends"},
    {.help = "Model:"},
    {"model", CONFIG_LIST, AT(worker.model), NULL, 0, 0, NULL, "NAME=PATH",
     "Name, and the GGUF file or folder whose manifest and vocabulary are told"},
    {"context_max", CONFIG_INT, AT(worker.context_max), "0", 0, 1 << 20, NULL, "N",
     "Tokens of one request at most; 0 is what the model was trained for"},
    {"kv_pages", CONFIG_INT, AT(kv_pages), "65536", 1, 1 << 30, NULL, "N",
     "Pages that requests fill with their tokens"},
    {"page_tokens", CONFIG_INT, AT(page_tokens), "16", 1, 4096, NULL, "N", "Tokens of a page"},
    {"sequences_max", CONFIG_INT, AT(worker.sequences_max), "256", 1, 4096, NULL, "N",
     "Requests that run at once"},
    {"waiting_max", CONFIG_INT, AT(worker.waiting_max), "64", 0, 65536, NULL, "N",
     "Requests that wait; one more is refused"},
    {.help = "Speed:"},
    {"step_us", CONFIG_INT, AT(step_us), "5000", 0, 60000000, NULL, "MICROSECONDS",
     "What a step takes, without prompts; 0 is none"},
    {"step_tokens", CONFIG_INT, AT(step_tokens), "1", 1, 4096, NULL, "N",
     "Tokens that a request gets in a step"},
    {"prefill_rate", CONFIG_INT, AT(prefill_rate), "0", 0, 1e12, NULL, "N",
     "Prompt tokens a second; 0 is at once"},
    {"step_tokens_max", CONFIG_INT, AT(worker.step_tokens_max), "2048", 1, 1 << 20, NULL, "N",
     "Prompt tokens that one step takes, where they take time"},
    {.help = "Log:"},
    {"log_level", CONFIG_CHOICE, AT(log_level), "warn", 0, 0, "debug|info|warn|error|off", NULL,
     "Least level that is logged to stderr"},
};

static int check(const void *out, struct err *e)
{
    const struct hash_config *c = out;
    if (c->worker.model.n != 1 || !strchr(c->worker.model.items[0], '='))
        return err_set(e, ERR_CONFIG, "model: wanted NAME=PATH, once");
    if (c->worker.routers.n == 0)
        return err_set(e, ERR_CONFIG, "routers: none is given");
    if (!strchr(c->device, ':'))
        return err_set(e, ERR_CONFIG, "device: wanted KIND:NAME");
    if (!*c->worker.id || strlen(c->worker.id) > 200)
        return err_set(e, ERR_CONFIG, "id: must have 1 to 200 bytes");
    for (size_t i = 0; i < c->worker.labels.n; i++)
        if (!strchr(c->worker.labels.items[i], '='))
            return err_set(e, ERR_CONFIG, "labels: '%.80s' is not KEY=VALUE",
                           c->worker.labels.items[i]);
    return c->worker.backoff_min_ms > c->worker.backoff_max_ms
               ? err_set(e, ERR_CONFIG, "backoff_min is over backoff_max")
               : 0;
}

static const struct config_program program = {
    .name = "hash_worker",
    .summary = "Attaches to routers as workers do, and answers with tokens that can be checked.",
    .options = options,
    .n_options = ARRAY_LEN(options),
    .check = check,
};

/* ---- the device --------------------------------------------------------------------------------
 */

static const char *device_of_options;

/* In place of runtime/worker/device.c's. */
void device_probe(const char *option, uint32_t ranks, struct device *d)
{
    (void)option;
    (void)ranks;
    const char *colon = strchr(device_of_options, ':');
    *d = (struct device){.memory_bytes = 0};
    snprintf(d->kind, sizeof(d->kind), "%.*s", (int)(colon - device_of_options), device_of_options);
    snprintf(d->name, sizeof(d->name), "%s", colon + 1);
}

/* ---- the workers -------------------------------------------------------------------------------
 */

struct hash_unit {
    struct worker_config config; /* the options, with an id of its own */
    char id[256];
    struct worker *worker;
    pthread_t thread;
    bool runs;
    int rc;
};

/* Its signals come to the main thread alone. */
static void *unit_run(void *arg)
{
    struct hash_unit *u = arg;
    struct err e;
    u->rc = worker_run(u->worker, &e);
    if (u->rc < 0)
        log_error("cannot go on", "id=%s why=%s", u->id, e.msg);
    return NULL;
}

static int unit_open(struct hash_unit *u, const struct hash_config *c, uint32_t i, struct err *e)
{
    u->config = c->worker;
    if (c->workers == 1)
        snprintf(u->id, sizeof(u->id), "%s", c->worker.id);
    else
        snprintf(u->id, sizeof(u->id), "%s-%u", c->worker.id, i);
    u->config.id = u->id;
    /* Of no matter to a hash engine. */
    u->config.kv_type = (char *)"f16";
    u->config.fast = (char *)"off";
    u->config.speculate = (char *)"off";
    return worker_open(&u->config, &u->worker, e);
}

static int unit_start(struct hash_unit *u, struct err *e)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    int rc = pthread_create(&u->thread, &attr, unit_run, u);
    pthread_attr_destroy(&attr);
    u->runs = rc == 0;
    return rc ? err_sys(e, rc, "pthread_create") : 0;
}

/* Waits for SIGTERM, or for the last worker to drain by itself. A second SIGTERM does not ask. */
static void wait_for_end(struct hash_unit *units, size_t n)
{
    sigset_t set;
    int sig;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    sigwait(&set, &sig);
    for (size_t i = 0; sig != SIGUSR1 && i < n; i++)
        worker_drain(units[i].worker);
    sigdelset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Its end is the main thread's cue where no signal is. */
static void *join_all(void *arg)
{
    struct hash_unit **range = arg;
    for (struct hash_unit *u = range[0]; u < range[1]; u++)
        if (u->runs)
            pthread_join(u->thread, NULL);
    kill(getpid(), SIGUSR1);
    return NULL;
}

static int run_all(struct hash_unit *units, size_t n, struct err *e)
{
    struct hash_unit *range[2] = {units, units + n};
    pthread_t joiner;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = unit_start(&units[i], e);
    for (size_t i = 0; rc < 0 && i < n; i++)
        worker_drain(units[i].worker);
    if (pthread_create(&joiner, NULL, join_all, range) != 0)
        return err_set(e, ERR_NOMEM, "no thread");
    wait_for_end(units, n);
    pthread_join(joiner, NULL);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = units[i].rc;
    return rc;
}

static int serve_units(const struct hash_config *c, struct err *e)
{
    size_t n = (size_t)c->workers;
    struct hash_unit *units = calloc(n, sizeof(*units));
    int rc = units ? 0 : err_set(e, ERR_NOMEM, "no memory for %zu workers", n);
    for (uint32_t i = 0; rc == 0 && i < n; i++)
        rc = unit_open(&units[i], c, i, e);
    if (rc == 0)
        rc = run_all(units, n, e);
    for (size_t i = 0; units && i < n; i++)
        worker_free(units[i].worker);
    free(units);
    return rc;
}

static int serve(const struct hash_config *c, struct err *e)
{
    struct model_texts texts = {0};
    int rc = model_texts_load(c->worker.model.items, 1, &texts, e);
    if (rc < 0)
        return rc;
    uint32_t context = texts.items[0].context_tokens;
    struct hash_model m = {
        .manifest_sha256 = texts.items[0].manifest_sha256,
        .tokenizer = texts.items[0].tokenizer,
        .context_tokens = c->worker.context_max && c->worker.context_max < context
                              ? (uint32_t)c->worker.context_max
                              : context,
        .step_us = (uint64_t)c->step_us,
        .prefill_rate = (uint64_t)c->prefill_rate,
        .prefill_chunk = c->prefill_rate ? (uint32_t)c->worker.step_tokens_max : UINT32_MAX,
        .step_tokens = (uint32_t)c->step_tokens,
        .kv_pages = (uint32_t)c->kv_pages,
        .page_tokens = (uint32_t)c->page_tokens,
        .sequences_max = (uint32_t)c->worker.sequences_max,
        .waiting_max = (uint32_t)c->worker.waiting_max,
    };
    rc = hash_model_letters(&m, e);
    hash_model_use(&m);
    if (rc == 0)
        rc = serve_units(c, e);
    model_texts_release(&texts);
    return rc;
}

/* Threads inherit it: the main thread takes the signals with sigwait. */
static void block_signals(void)
{
    struct rlimit files;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* an attachment is a socket and an eventfd */
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

int main(int argc, char **argv)
{
    pid_t parent = getppid();
    struct hash_config config = {0}; /* more than the options: what only argosy-worker has */
    enum config_action action;
    struct err e = {0};
    if (config_load(&program, argc, argv, &config, &action, &e) < 0) {
        fprintf(stderr, "hash_worker: %s\n", e.msg);
        return 2;
    }
    if (action == CONFIG_EXIT)
        return 0;
    log_init("hash_worker", (enum log_level)log_level_parse(config.log_level));
    device_of_options = config.device;
    block_signals();
    if (config.worker.die_with_parent)
        prctl(PR_SET_PDEATHSIG, SIGTERM);
    int rc = config.worker.die_with_parent && getppid() != parent ? 0 : serve(&config, &e);
    if (rc < 0)
        log_error("cannot serve", "why=\"%s\"", e.msg);
    config_release(&program, &config);
    return rc < 0 ? 1 : 0;
}
