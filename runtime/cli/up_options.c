#include "runtime/cli/up_options.h"

#include <argp.h>
#include <errno.h>
#include <stdlib.h>

enum { OPT_HOST = 256, OPT_REDIS, OPT_RPC_LISTEN, OPT_ONCE, OPT_THREADS, OPT_MEMORY, OPT_KEYS };

static const struct argp_option option_list[] = {
    {"model", 'm', "NAME|PATH", 0,
     "A folder of models/, or a .gguf file or model folder; may be repeated (smollm2-135m)", 0},
    {"workers", 'w', "N", 0, "Worker processes (1)", 0},
    {"threads", OPT_THREADS, "N", 0, "Threads of each worker (the cores, shared out)", 0},
    {"memory", OPT_MEMORY, "BYTES", 0,
     "What the models of a worker may take together, such as 16G (the machine's)", 0},
    {"port", 'p', "PORT", 0, "Where the endpoint listens; 0: any free port (8080)", 0},
    {"host", OPT_HOST, "ADDRESS", 0, "… and on which address (127.0.0.1)", 0},
    {"redis", OPT_REDIS, "URL", 0, "Use this Redis instead of starting one", 0},
    {"rpc-listen", OPT_RPC_LISTEN, "HOST:PORT", 0,
     "Where more workers can attach (a private unix socket)", 0},
    {"keys", OPT_KEYS, "FILE", 0,
     "Requests need an API key of this file, which `argosy key --keys=FILE` makes", 0},
    {"once", OPT_ONCE, "PROMPT", 0, "Stream the answer to PROMPT and end", 0},
    {"verbose", 'v', NULL, 0, "Show what the parts of the cluster log", 0},
    {0},
};

static long number(struct argp_state *state, const char *what, const char *arg, long min, long max)
{
    char *end = NULL;
    errno = 0;
    long v = strtol(arg, &end, 10);
    if (errno || end == arg || *end || v < min || v > max)
        argp_error(state, "--%s is a number from %ld to %ld, not '%s'", what, min, max, arg);
    return v;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct up_options *o = state->input;
    switch (key) {
    case 'm':
        if (o->n_models == UP_MODELS_MAX)
            argp_error(state, "--model can be given %d times at most", UP_MODELS_MAX);
        else
            o->models[o->n_models++] = arg;
        break;
    case OPT_MEMORY:
        o->memory = arg;
        break;
    case 'w':
        o->workers = number(state, "workers", arg, 1, UP_WORKERS_MAX);
        break;
    case OPT_THREADS:
        o->threads = number(state, "threads", arg, 1, 1024);
        break;
    case 'p':
        o->port = number(state, "port", arg, 0, 65535);
        break;
    case OPT_HOST:
        o->host = arg;
        break;
    case OPT_REDIS:
        o->redis = arg;
        break;
    case OPT_RPC_LISTEN:
        o->rpc_listen = arg;
        break;
    case OPT_KEYS:
        o->keys = arg;
        break;
    case OPT_ONCE:
        o->once = arg;
        break;
    case 'v':
        o->verbose = true;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "'%s' is too much: 'up' takes options only", arg);
        break;
    case ARGP_KEY_END:
        if (o->once && o->keys)
            argp_error(state, "--once has no API key, so it does not go with --keys");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    option_list,
    parse_option,
    NULL,
    "Starts a Redis, a router and workers on this machine, and ends them at Ctrl-C.\v"
    "A part that dies is started again. Status 0: ended by Ctrl-C, or the one answer was given.",
    NULL,
    NULL,
    NULL};

void up_options_parse(int argc, char **argv, struct up_options *out)
{
    *out = (struct up_options){.host = "127.0.0.1", .workers = 1, .port = -1};
    argp_parse(&argp, argc, argv, 0, NULL, out);
    if (out->n_models == 0)
        out->models[out->n_models++] = "smollm2-135m";
}
