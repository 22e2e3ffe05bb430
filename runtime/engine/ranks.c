#include "runtime/engine/ranks.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/check.h"
#include "runtime/model/shard.h"

struct ranks {
    uint32_t size;
    struct collective_region *region;
    struct collective *collective;
    pid_t pids[SHARD_RANKS_MAX]; /* 0: none, or reaped */
    struct err ended;            /* of the first child that did */
};

int ranks_watch(void *arg, struct err *e)
{
    return ranks_check(arg, e);
}

/* ---- a child ----------------------------------------------------------------------------------
 */

static void let_go_of_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1); /* it was gone before the kernel knew that we care */
    /* Ctrl-C goes to the whole terminal: rank 0 drains, and ends its children behind that. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    close_range(STDERR_FILENO + 1, ~0u, 0);
}

_Noreturn static void be_rank(struct collective_region *region, uint32_t rank, pid_t parent,
                              void (*serve)(struct collective *c, void *arg), void *arg)
{
    struct collective *c;
    let_go_of_parent(parent);
    if (collective_open(region, rank, NULL, NULL, &c, NULL) < 0)
        _exit(1);
    serve(c, arg);
    _exit(0);
}

/* ---- rank 0 -----------------------------------------------------------------------------------
 */

int ranks_start(uint32_t n, void (*serve)(struct collective *c, void *arg), void *arg,
                struct ranks **out, struct err *e)
{
    ASSERT(n >= 2 && n <= SHARD_RANKS_MAX);
    pid_t parent = getpid();
    struct ranks *r = calloc(1, sizeof(*r));
    if (!r)
        return err_set(e, ERR_NOMEM, "no memory for %u ranks", n);
    r->size = n;
    int rc = collective_region_create(n, &r->region, e);
    if (rc == 0)
        rc = collective_open(r->region, 0, ranks_watch, r, &r->collective, e);
    for (uint32_t i = 1; i < n && rc == 0; i++) {
        r->pids[i] = fork();
        if (r->pids[i] == 0)
            be_rank(r->region, i, parent, serve, arg);
        if (r->pids[i] < 0) {
            rc = err_sys(e, errno, "cannot start rank %u of %u", i, n);
            r->pids[i] = 0;
        }
    }
    if (rc < 0) {
        ranks_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

struct collective *ranks_collective(struct ranks *r)
{
    return r->collective;
}

static void note_end(struct ranks *r, uint32_t rank, int status)
{
    r->pids[rank] = 0;
    if (r->ended.code < 0)
        return;
    if (WIFSIGNALED(status))
        err_set(&r->ended, ERR_PEER, "rank %u was killed by signal %d", rank, WTERMSIG(status));
    else
        err_set(&r->ended, ERR_PEER, "rank %u ended with status %d", rank, WEXITSTATUS(status));
}

int ranks_check(struct ranks *r, struct err *e)
{
    for (uint32_t i = 1; i < r->size; i++) {
        int status;
        if (r->pids[i] > 0 && waitpid(r->pids[i], &status, WNOHANG) == r->pids[i])
            note_end(r, i, status);
    }
    return r->ended.code < 0 ? err_set(e, r->ended.code, "%s", r->ended.msg) : 0;
}

void ranks_free(struct ranks *r)
{
    if (!r)
        return;
    for (uint32_t i = 1; i < r->size; i++)
        if (r->pids[i] > 0)
            kill(r->pids[i], SIGKILL);
    for (uint32_t i = 1; i < r->size; i++)
        while (r->pids[i] > 0 && waitpid(r->pids[i], NULL, 0) < 0 && errno == EINTR)
            ;
    collective_free(r->collective);
    collective_region_free(r->region);
    free(r);
}
