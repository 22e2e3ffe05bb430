/* plan.h: what `argosy up` is about to start: the models, the port, the directory of the sockets
 * and the command line of every process.
 *
 * plan_init makes the directory and plan_release removes it. Everything else is memory.
 */
#ifndef ARGOSY_CLI_PLAN_H
#define ARGOSY_CLI_PLAN_H

#include <limits.h>
#include <stdint.h>

#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/cli/model_ref.h"
#include "runtime/cli/up_options.h"

struct plan {
    struct arena arena;                     /* all strings below */
    struct model_ref models[UP_MODELS_MAX]; /* (n_models); the first is loaded at start */
    unsigned n_models;
    char bin_dir[PATH_MAX]; /* where this program and its sisters are */
    char dir[96];           /* of the sockets; "" until it is made */
    const char *host;       /* where we reach the endpoint ourselves */
    uint16_t port;
    uint32_t threads;         /* of each worker */
    const char *redis_socket; /* NULL: somebody else's Redis */
    const char *rpc_address;
    char **redis; /* NULL: somebody else's */
    char **router;
    char **workers[UP_WORKERS_MAX];
    char **once; /* NULL: serve until Ctrl-C */
};

int plan_init(struct plan *p, const struct up_options *o, struct err *e);
void plan_release(struct plan *p);

#endif
