/* up_options.h: what the user typed after `argosy up`. */
#ifndef ARGOSY_CLI_UP_OPTIONS_H
#define ARGOSY_CLI_UP_OPTIONS_H

#include <stdbool.h>

#define UP_WORKERS_MAX 64
#define UP_MODELS_MAX 16

struct up_options {
    const char *models[UP_MODELS_MAX]; /* (n_models) */
    unsigned n_models;
    const char *memory; /* of each worker; NULL: its own default */
    const char *host;
    const char *redis;      /* NULL: a child of ours */
    const char *rpc_listen; /* NULL: a unix socket in the cluster's own directory */
    const char *keys;       /* file of API keys that requests need; NULL: they need none */
    const char *once;       /* NULL: serve until Ctrl-C */
    long workers;
    long threads; /* of each worker; 0: the cores shared out */
    long port;    /* 0: any free one; −1: 8080, or with --once any free one */
    bool verbose;
};

/* Ends the program with a message when what was typed is wrong, as argp does. */
void up_options_parse(int argc, char **argv, struct up_options *out);

#endif
