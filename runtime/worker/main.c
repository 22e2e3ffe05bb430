/* argosy-worker: engines and the service around them. Status 0: drained; 1: it could not serve, or
 * not any more; 2: the options are wrong, or a model cannot be served by them. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

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

static int serve(const struct worker_config *c)
{
    struct worker *worker = NULL;
    struct err e = {0};
    int rc = worker_open(c, &worker, &e);
    if (rc == 0) {
        atomic_store(&running, worker);
        rc = worker_run(worker, &e);
        atomic_store(&running, NULL);
    }
    if (rc < 0)
        log_error(worker ? "cannot go on" : "cannot serve", "why=%s", e.msg);
    int status = rc == ERR_CONFIG ? 2 : rc < 0;
    /* A load can't be broken off, but the kernel takes back what it has, its ranks too. */
    if (worker && worker_loads(worker))
        _exit(status);
    worker_free(worker);
    return status;
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
