#include "runtime/cli/key_command.h"

#include <argp.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/clock.h"
#include "runtime/cli/first_line.h"
#include "runtime/cli/key_store.h"

enum {
    OPT_REDIS = 256,
    OPT_PASSWORD_FILE,
    OPT_KEYS,
    OPT_CLUSTER,
    OPT_NAME,
    OPT_REQUESTS,
    OPT_TOKENS,
    OPT_CONCURRENCY,
    OPT_PRIORITY,
    OPT_POOL,
    OPT_BUDGET,
};

struct options {
    const char *action, *which;
    const char *file, *redis, *password_file, *cluster;
    struct key key;
    bool limits; /* one was given */
};

static const struct argp_option option_list[] = {
    {0, 0, 0, 0, "Where the keys are:", 1},
    {"redis", OPT_REDIS, "URL", 0, "In this Redis: unix:PATH or redis://HOST:PORT/DB", 1},
    {"redis-password-file", OPT_PASSWORD_FILE, "FILE", 0, "Its password is this file's first line",
     1},
    {"cluster", OPT_CLUSTER, "NAME", 0, "The cluster's name there (default)", 1},
    {"keys", OPT_KEYS, "FILE", 0, "In this file, the routers' --keys", 1},
    {0, 0, 0, 0, "What a new key may use; without one there is no such limit:", 2},
    {"name", OPT_NAME, "NAME", 0, "Whose it is", 2},
    {"requests", OPT_REQUESTS, "N", 0, "Requests a minute", 2},
    {"tokens", OPT_TOKENS, "N", 0, "Tokens a minute, prompts and answers", 2},
    {"concurrency", OPT_CONCURRENCY, "N", 0, "Requests at once", 2},
    {"budget", OPT_BUDGET, "N", 0, "Tokens in all; needs Redis", 2},
    {"priority", OPT_PRIORITY, "N", 0, "Lower goes first, -1000 to 1000 (0)", 2},
    {"pool", OPT_POOL, "LABEL=VALUE", 0, "Only workers that have this label", 2},
    {0}};

static error_t set_limit(struct options *o, const char *field, const char *arg,
                         struct argp_state *state)
{
    struct err e = {0};
    if (key_set(&o->key, field, arg, &e) < 0)
        argp_error(state, "--%s", e.msg);
    o->limits = true;
    return 0;
}

static void take_word(struct options *o, char *arg, struct argp_state *state)
{
    if (state->arg_num == 0)
        o->action = arg;
    else if (state->arg_num == 1)
        o->which = arg;
    else
        argp_error(state, "'%s' is too much", arg);
}

static void check(struct options *o, struct argp_state *state)
{
    bool create = o->action && strcmp(o->action, "create") == 0;
    bool list = o->action && strcmp(o->action, "list") == 0;
    bool revoke = o->action && strcmp(o->action, "revoke") == 0;
    if (!create && !list && !revoke)
        argp_error(state, "say create, list or revoke");
    if (revoke != (o->which != NULL))
        argp_error(state,
                   revoke ? "revoke which? Its name, or the first digits of its id"
                          : "'%s' is too much",
                   o->which ? o->which : "");
    if (!create && o->limits)
        argp_error(state, "limits are given to a new key alone");
    if (!o->file == !o->redis)
        argp_error(state, "say where the keys are: --redis URL or --keys FILE");
    if (o->file && o->key.budget)
        argp_error(state, "a budget needs Redis: a router alone would forget what was used");
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    switch (key) {
    case OPT_REDIS:
        o->redis = arg;
        return 0;
    case OPT_PASSWORD_FILE:
        o->password_file = arg;
        return 0;
    case OPT_KEYS:
        o->file = arg;
        return 0;
    case OPT_CLUSTER:
        o->cluster = arg;
        return 0;
    case OPT_NAME:
        return set_limit(o, "name", arg, state);
    case OPT_REQUESTS:
        return set_limit(o, "requests", arg, state);
    case OPT_TOKENS:
        return set_limit(o, "tokens", arg, state);
    case OPT_CONCURRENCY:
        return set_limit(o, "concurrency", arg, state);
    case OPT_BUDGET:
        return set_limit(o, "budget", arg, state);
    case OPT_PRIORITY:
        return set_limit(o, "priority", arg, state);
    case OPT_POOL:
        return set_limit(o, "pool", arg, state);
    case ARGP_KEY_ARG:
        take_word(o, arg, state);
        return 0;
    case ARGP_KEY_END:
        check(o, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp argp = {
    option_list,
    parse_option,
    "create\nlist\nrevoke NAME|ID",
    "Makes, lists and revokes API keys: for routers with --auth=keys.\v"
    "A key is printed once, when it is made; only its SHA-256 is kept. Routers know of a change "
    "within two seconds.",
    NULL,
    NULL,
    NULL};

/* ---- what is done ---------------------------------------------------------------------------- */

static int create(struct key_store *s, struct key *k, struct err *e)
{
    char secret[KEY_SECRET_BYTES];
    char id[KEY_ID_BYTES];
    key_make_secret(secret);
    k->created_s = clock_wall_s();
    int rc = key_hash(secret, strlen(secret), k->hash, e);
    if (rc == 0)
        rc = key_store_add(s, k, e);
    if (rc == 0) {
        key_id(k, id);
        fprintf(stderr, "Key %.12s%s%s. This is the only time that it is shown:\n", id,
                k->name[0] ? " of " : "", k->name);
        printf("%s\n", secret);
    }
    explicit_bzero(secret, sizeof(secret));
    return rc;
}

static void print_limit(uint64_t v)
{
    if (v)
        printf(" %11" PRIu64, v);
    else
        printf(" %11s", "-");
}

static int list(struct key_store *s, struct err *e)
{
    struct keylist all;
    int rc = key_store_list(s, &all, e);
    if (rc < 0)
        return rc;
    printf("%-12s %-16s %11s %11s %11s %11s %8s  %-16s %s\n", "ID", "NAME", "REQUESTS/M",
           "TOKENS/M", "AT ONCE", "BUDGET", "PRIORITY", "POOL", "CREATED");
    for (size_t i = 0; i < all.n; i++) {
        const struct key *k = &all.items[i];
        char id[KEY_ID_BYTES], when[32] = "-";
        time_t t = (time_t)k->created_s;
        struct tm tm;
        if (t && gmtime_r(&t, &tm))
            strftime(when, sizeof(when), "%Y-%m-%d", &tm);
        key_id(k, id);
        printf("%.12s %-16s", id, k->name[0] ? k->name : "-");
        print_limit(k->requests);
        print_limit(k->tokens);
        print_limit(k->concurrency);
        print_limit(k->budget);
        printf(" %8d  %-16s %s\n", k->priority, k->pool[0] ? k->pool : "-", when);
    }
    keylist_release(&all);
    return 0;
}

static bool is_called(const struct key *k, const char *which)
{
    char id[KEY_ID_BYTES];
    key_id(k, id);
    return strcmp(k->name, which) == 0 ||
           (strlen(which) >= 8 && strncmp(id, which, strlen(which)) == 0);
}

static int revoke(struct key_store *s, const char *which, struct err *e)
{
    struct keylist all;
    const struct key *found = NULL;
    int rc = key_store_list(s, &all, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; rc == 0 && i < all.n; i++) {
        if (!is_called(&all.items[i], which))
            continue;
        if (found)
            rc = err_set(e, ERR_RANGE, "several keys are called '%.64s': say the id", which);
        found = &all.items[i];
    }
    if (!found)
        rc =
            err_set(e, ERR_NOT_FOUND, "no key has the name '%.64s' or an id that begins so", which);
    if (rc == 0)
        rc = key_store_remove(s, found, e);
    if (rc == 0) {
        char id[KEY_ID_BYTES];
        key_id(found, id);
        printf("%.12s %s is revoked\n", id, found->name);
    }
    keylist_release(&all);
    return rc;
}

int key_command_main(int argc, char **argv)
{
    struct options o = {.cluster = "default"};
    struct key_store s;
    struct err e = {0};
    char password[512];
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    int rc = o.password_file ? first_line_read(o.password_file, password, sizeof(password), &e) : 0;
    if (rc == 0)
        rc = key_store_open(&s, o.file, o.redis, o.password_file ? password : NULL, o.cluster, &e);
    explicit_bzero(password, sizeof(password));
    if (rc == 0) {
        if (strcmp(o.action, "create") == 0)
            rc = create(&s, &o.key, &e);
        else if (strcmp(o.action, "list") == 0)
            rc = list(&s, &e);
        else
            rc = revoke(&s, o.which, &e);
        key_store_close(&s);
    }
    if (rc < 0)
        fprintf(stderr, "argosy key: %s\n", e.msg);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
