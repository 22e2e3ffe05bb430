/* argosy-worker: one engine and the service around it. Status 0: drained; 1: it could not serve, or
 * not any more; 2: the options are wrong, or the model cannot be served by them. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "runtime/base/check.h"
#include "runtime/base/log.h"
#include "runtime/worker/worker.h"

static struct worker *_Atomic running;
static volatile sig_atomic_t signals;

/* The first asks to drain, the second does not ask. */
static void on_signal(int sig)
{
    struct worker *w = atomic_load(&running);
    if (signals++ || !w)
        _exit(128 + sig);
    worker_drain(w);
}

static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGINT, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* False: the parent was gone before the kernel knew that we care. */
static bool follow_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    return getppid() == parent;
}

static enum engine_speculation speculation(const char *name)
{
    static const char *const names[] = {[ENGINE_SPECULATE_OFF] = "off",
                                        [ENGINE_SPECULATE_LOOKUP] = "lookup",
                                        [ENGINE_SPECULATE_DRAFT] = "draft"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0)
            return (enum engine_speculation)i;
    return ENGINE_SPECULATE_AUTO;
}

static struct engine_config engine_options(const struct worker_config *c)
{
    return (struct engine_config){
        .model_path = worker_model_path(c),
        .isa = c->isa,
        .threads = (uint32_t)c->threads,
        .ranks = (uint32_t)c->tp,
        .ranks_patience_ms = (uint32_t)c->tp_timeout_ms,
        .kv_bytes = (uint64_t)c->kv_bytes,
        .kv_type = strcmp(c->kv_type, "int8") == 0 ? KN_KV_INT8 : KN_KV_F16,
        .context_max = (uint32_t)c->context_max,
        .sequences_max = (uint32_t)c->sequences_max,
        .waiting_max = (uint32_t)c->waiting_max,
        .step_tokens_max = (uint32_t)c->step_tokens_max,
        .stall_max = c->stall_max,
        .priority_tokens = (uint32_t)c->priority_tokens,
        .prefix_cache = c->prefix_cache,
        .speculate = speculation(c->speculate),
        .draft_model = c->draft_model,
        .draft_tokens_max = (uint32_t)c->draft_tokens_max,
    };
}

/* The adapters of the options; names lie in `names`. */
static void add_adapters(const struct worker_config *c, struct engine_adapter *adapters,
                         char (*names)[256], struct engine_config *ec)
{
    for (size_t i = 0; i < c->adapters.n; i++) {
        const char *path = worker_adapter(c->adapters.items[i], names[i], sizeof(names[i]));
        adapters[i] = (struct engine_adapter){.name = names[i], .path = path};
    }
    ec->adapters = adapters;
    ec->n_adapters = (uint32_t)c->adapters.n;
}

static int serve(const struct worker_config *c)
{
    static struct engine_adapter adapters[ENGINE_ADAPTERS_MAX];
    static char names[ENGINE_ADAPTERS_MAX][256];
    struct engine_config ec = engine_options(c);
    struct engine *engine = NULL;
    struct worker *worker = NULL;
    struct err e = {0};
    add_adapters(c, adapters, names, &ec);
    int rc = engine_open(&ec, &engine, &e);
    if (rc == 0)
        rc = worker_open(c, engine, &worker, &e);
    if (rc == 0) {
        atomic_store(&running, worker);
        rc = worker_run(worker, &e);
        atomic_store(&running, NULL);
    }
    if (rc < 0)
        log_error(worker ? "cannot go on" : "cannot serve", "why=%s", e.msg);
    worker_free(worker);
    if (engine)
        engine_free(engine);
    return rc == ERR_CONFIG ? 2 : rc < 0;
}

int main(int argc, char **argv)
{
    pid_t parent = getppid();
    struct worker_config config;
    enum config_action action;
    struct err e = {0};
    if (config_load(&worker_program, argc, argv, &config, &action, &e) < 0) {
        fprintf(stderr, "argosy-worker: %s\n", e.msg);
        return 2;
    }
    if (action == CONFIG_EXIT)
        return 0;
    log_init("argosy-worker", (enum log_level)log_level_parse(config.log_level));
    catch_signals();
    int status = 0;
    if (!config.die_with_parent || follow_parent(parent))
        status = serve(&config);
    config_release(&worker_program, &config);
    return status;
}
