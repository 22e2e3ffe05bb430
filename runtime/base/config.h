/* config.h: one struct of options a program, filled from defaults, a YAML file and flags, in that
 * order.
 *
 * A program describes its struct once, in a table of struct config_option; the YAML keys, the flags
 * (key `kv_bytes` is --kv-bytes), --help and the checks follow from it. An unknown key, a value of
 * the wrong type or outside its bounds is an error that names file and line, or the flag.
 *
 * Strings in the filled struct are owned by it: config_release frees them.
 */
#ifndef ARGOSY_BASE_CONFIG_H
#define ARGOSY_BASE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

enum config_type {
    CONFIG_BOOL,   /* bool: true/false/yes/no/on/off */
    CONFIG_INT,    /* int64_t, within [min, max] */
    CONFIG_BYTES,  /* int64_t: 512, 64k, 4M, 2G (powers of 1024), within [min, max] */
    CONFIG_MS,     /* int64_t milliseconds: 500, 500ms, 5s, 2m */
    CONFIG_DOUBLE, /* double, within [min, max] */
    CONFIG_STRING, /* char *, NULL when unset */
    CONFIG_CHOICE, /* char *, one of `choices`, separated by | */
    CONFIG_LIST,   /* struct config_list: a YAML sequence of scalars; the flag may be repeated */
};

struct config_list {
    char **items;
    size_t n;
};

/* An option with a NULL key is a heading of --help: its `help` stands over those that follow. */
struct config_option {
    const char *key;
    enum config_type type;
    size_t offset;   /* of the field in the program's struct */
    const char *def; /* written as in YAML; NULL: unset (strings, lists) or zero */
    double min, max; /* both 0: unbounded */
    const char *choices;
    const char *arg;  /* how --help names the value: "FILE", "HOST:PORT" */
    const char *help; /* one sentence */
};

struct config_program {
    const char *name;    /* "argosy-worker" */
    const char *summary; /* one sentence */
    const struct config_option *options;
    size_t n_options;
    /* NULL, or what no single option can say: run last, by --check-config too. */
    int (*check)(const void *out, struct err *e);
};

enum config_action { CONFIG_RUN, CONFIG_EXIT };

/* Fills `out`, whose fields of the option table it zeroes first. Handles --config FILE,
 * --check-config, --help and --version itself: then *action is CONFIG_EXIT, what they print is
 * printed, and 0 is returned; `out` is empty. After an error, too, `out` holds nothing to release.
 */
int config_load(const struct config_program *p, int argc, char **argv, void *out,
                enum config_action *action, struct err *e);
/* The YAML part alone, over text in memory; for tests and the fuzzer. Keeps what `out` holds; the
 * caller releases, after an error too. `name` stands in messages: "name:line: key: …". */
int config_parse_yaml(const struct config_program *p, const char *text, size_t n, const char *name,
                      void *out, struct err *e);
void config_release(const struct config_program *p, void *out);

#endif
