#include "runtime/base/config.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/base/version.h"

#define FILE_BYTES_MAX (1u << 20)
#define ITEMS_MAX 1024
#define OPTIONS_MAX 128
#define FLAGS_MAX 1024

/* ---- one value ---------------------------------------------------------------------------------
 */

static void *field(const struct config_option *o, void *out)
{
    return (char *)out + o->offset;
}

static int check_bounds(const struct config_option *o, double v, const char *text, struct err *e)
{
    if ((o->min == 0 && o->max == 0) || (v >= o->min && v <= o->max))
        return 0;
    return err_set(e, ERR_CONFIG, "must be from %.15g to %.15g, not %s", o->min, o->max, text);
}

struct unit {
    const char *suffix;
    int64_t factor;
};

static const struct unit bytes_units[] = {
    {"", 1},        {"k", 1 << 10}, {"K", 1 << 10},
    {"M", 1 << 20}, {"G", 1 << 30}, {"T", (int64_t)1 << 40},
};
static const struct unit ms_units[] = {
    {"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}};

/* A whole number and one of the units. */
static int parse_scaled(const struct config_option *o, const char *text, const struct unit *units,
                        size_t n_units, const char *want, int64_t *out, struct err *e)
{
    char *end;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    bool number = end != text && errno == 0 && text[0] != ' ' && text[0] != '+';
    for (size_t i = 0; number && i < n_units; i++) {
        int64_t scaled;
        if (strcmp(end, units[i].suffix) != 0)
            continue;
        if (__builtin_mul_overflow((int64_t)v, units[i].factor, &scaled))
            break;
        *out = scaled;
        return check_bounds(o, (double)scaled, text, e);
    }
    return err_set(e, ERR_CONFIG, "must be %s, not '%.60s'", want, text);
}

static int parse_int(const struct config_option *o, const char *text, int64_t *out, struct err *e)
{
    return parse_scaled(o, text, bytes_units, 1, "a whole number", out, e);
}

static int parse_not_negative(const struct config_option *o, const char *text,
                              const struct unit *units, size_t n_units, const char *want,
                              int64_t *out, struct err *e)
{
    int64_t v = 0;
    int rc = parse_scaled(o, text, units, n_units, want, &v, e);
    if (rc == 0 && v < 0)
        rc = err_set(e, ERR_CONFIG, "must not be negative");
    if (rc == 0)
        *out = v;
    return rc;
}

static int parse_double(const struct config_option *o, const char *text, double *out, struct err *e)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || !isfinite(v) || text[0] == ' ')
        return err_set(e, ERR_CONFIG, "must be a number, not '%.60s'", text);
    *out = v;
    return check_bounds(o, v, text, e);
}

static int parse_bool(const char *text, bool *out, struct err *e)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (strcmp(text, words[i]) == 0) {
            *out = i & 1;
            return 0;
        }
    return err_set(e, ERR_CONFIG, "must be true or false, not '%.60s'", text);
}

static int check_choice(const struct config_option *o, const char *text, struct err *e)
{
    size_t n = strlen(text);
    for (const char *c = o->choices; *c;) {
        size_t len = strcspn(c, "|");
        if (len == n && memcmp(c, text, n) == 0)
            return 0;
        c += len + (c[len] == '|');
    }
    return err_set(e, ERR_CONFIG, "must be one of %s, not '%.60s'", o->choices, text);
}

static int set_string(char **slot, const char *text, struct err *e)
{
    char *copy = text ? strdup(text) : NULL;
    if (text && !copy)
        return err_set(e, ERR_NOMEM, "no memory");
    free(*slot);
    *slot = copy;
    return 0;
}

static void list_clear(struct config_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i]);
    free(l->items);
    *l = (struct config_list){0};
}

static int list_add(struct config_list *l, const char *text, struct err *e)
{
    if (l->n == ITEMS_MAX)
        return err_set(e, ERR_CONFIG, "has more than %d items", ITEMS_MAX);
    char *copy = strdup(text);
    char **items = realloc(l->items, (l->n + 1) * sizeof(*items));
    if (items)
        l->items = items;
    if (!copy || !items) {
        free(copy);
        return err_set(e, ERR_NOMEM, "no memory");
    }
    l->items[l->n++] = copy;
    return 0;
}

/* A list gets one item more. */
static int set_value(const struct config_option *o, const char *text, void *out, struct err *e)
{
    void *f = field(o, out);
    int rc;
    switch (o->type) {
    case CONFIG_BOOL:
        return parse_bool(text, f, e);
    case CONFIG_INT:
        return parse_int(o, text, f, e);
    case CONFIG_BYTES:
        return parse_not_negative(o, text, bytes_units, ARRAY_LEN(bytes_units),
                                  "a size like 512, 64k, 4M or 2G", f, e);
    case CONFIG_MS:
        return parse_not_negative(o, text, ms_units, ARRAY_LEN(ms_units),
                                  "a time like 500ms, 5s or 2m", f, e);
    case CONFIG_DOUBLE:
        return parse_double(o, text, f, e);
    case CONFIG_CHOICE:
        rc = check_choice(o, text, e);
        return rc < 0 ? rc : set_string(f, text, e);
    case CONFIG_STRING:
        return set_string(f, text, e);
    case CONFIG_LIST:
        return list_add(f, text, e);
    }
    return err_set(e, ERR_CONFIG, "has a type that is not known");
}

void config_release(const struct config_program *p, void *out)
{
    for (size_t i = 0; i < p->n_options; i++) {
        const struct config_option *o = &p->options[i];
        if (!o->key)
            continue;
        if (o->type == CONFIG_STRING || o->type == CONFIG_CHOICE) {
            char **s = field(o, out);
            free(*s);
            *s = NULL;
        } else if (o->type == CONFIG_LIST) {
            list_clear(field(o, out));
        }
    }
}

/* A default is our own text: that it does not parse is our own mistake. */
static int set_defaults(const struct config_program *p, void *out, struct err *e)
{
    for (size_t i = 0; i < p->n_options; i++) {
        const struct config_option *o = &p->options[i];
        if (!o->key || !o->def)
            continue;
        int rc = set_value(o, o->def, out, e);
        ASSERT(rc == 0 || rc == ERR_NOMEM);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- YAML: one mapping, scalars and lists of scalars -------------------------------------------
 */

struct yaml {
    const struct config_program *program;
    void *out;
    const char *name;
    yaml_parser_t parser;
    yaml_event_t event; /* the one in hand */
    bool seen[OPTIONS_MAX];
    struct err *e;
};

static int yaml_error(struct yaml *y, const char *what)
{
    return err_set(y->e, ERR_CONFIG, "%s:%zu: %s", y->name, y->event.start_mark.line + 1, what);
}

static int yaml_next(struct yaml *y)
{
    yaml_event_delete(&y->event);
    if (yaml_parser_parse(&y->parser, &y->event))
        return 0;
    if (y->parser.error == YAML_MEMORY_ERROR)
        return err_set(y->e, ERR_NOMEM, "%s: no memory", y->name);
    return err_set(y->e, ERR_CONFIG, "%s:%zu: %s", y->name, y->parser.problem_mark.line + 1,
                   y->parser.problem ? y->parser.problem : "not YAML");
}

/* The scalar in hand as a C string; borrowed until the next event. NULL: not plain text. */
static const char *yaml_text(struct yaml *y)
{
    const char *s = (const char *)y->event.data.scalar.value;
    return strlen(s) == y->event.data.scalar.length ? s : NULL;
}

static const struct config_option *find_key(const struct config_program *p, const char *key)
{
    for (size_t i = 0; i < p->n_options; i++)
        if (p->options[i].key && strcmp(p->options[i].key, key) == 0)
            return &p->options[i];
    return NULL;
}

/* `key:` with nothing behind it. */
static bool is_null(const struct yaml *y)
{
    const char *s = (const char *)y->event.data.scalar.value;
    return y->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (!*s || strcmp(s, "~") == 0 || strcmp(s, "null") == 0);
}

/* Puts "name:line: key: " in front of what set_value said. */
static int yaml_set(struct yaml *y, const struct config_option *o)
{
    struct err e = {0};
    const char *text = yaml_text(y);
    int rc = text ? set_value(o, text, y->out, &e) : err_set(&e, ERR_CONFIG, "holds a NUL");
    if (rc < 0)
        return err_set(y->e, rc, "%s:%zu: %s: %s", y->name, y->event.start_mark.line + 1, o->key,
                       e.msg);
    return 0;
}

static int yaml_unset(struct yaml *y, const struct config_option *o)
{
    if (o->type == CONFIG_STRING)
        return set_string(field(o, y->out), NULL, y->e);
    if (o->type == CONFIG_LIST)
        return 0;
    return err_set(y->e, ERR_CONFIG, "%s:%zu: %s: has no value", y->name,
                   y->event.start_mark.line + 1, o->key);
}

static int yaml_list(struct yaml *y, const struct config_option *o)
{
    int rc;
    while ((rc = yaml_next(y)) == 0 && y->event.type != YAML_SEQUENCE_END_EVENT) {
        if (y->event.type != YAML_SCALAR_EVENT)
            return err_set(y->e, ERR_CONFIG, "%s:%zu: %s: must be a list of plain values", y->name,
                           y->event.start_mark.line + 1, o->key);
        rc = yaml_set(y, o);
        if (rc < 0)
            return rc;
    }
    return rc;
}

/* The value of a key is the event in hand. */
static int yaml_value(struct yaml *y, const struct config_option *o)
{
    if (o->type == CONFIG_LIST)
        list_clear(field(o, y->out));
    if (y->event.type == YAML_SCALAR_EVENT)
        return is_null(y) ? yaml_unset(y, o) : yaml_set(y, o);
    if (y->event.type == YAML_SEQUENCE_START_EVENT && o->type == CONFIG_LIST)
        return yaml_list(y, o);
    return err_set(y->e, ERR_CONFIG, "%s:%zu: %s: must be %s", y->name,
                   y->event.start_mark.line + 1, o->key,
                   o->type == CONFIG_LIST ? "a list" : "a plain value");
}

static int yaml_mapping(struct yaml *y)
{
    int rc;
    while ((rc = yaml_next(y)) == 0 && y->event.type != YAML_MAPPING_END_EVENT) {
        const char *key = y->event.type == YAML_SCALAR_EVENT ? yaml_text(y) : NULL;
        if (!key)
            return yaml_error(y, "a key must be plain text");
        const struct config_option *o = find_key(y->program, key);
        if (!o)
            return err_set(y->e, ERR_CONFIG, "%s:%zu: %.80s: no such option", y->name,
                           y->event.start_mark.line + 1, key);
        bool *seen = &y->seen[o - y->program->options];
        if (*seen)
            return err_set(y->e, ERR_CONFIG, "%s:%zu: %s: given twice", y->name,
                           y->event.start_mark.line + 1, o->key);
        *seen = true;
        rc = yaml_next(y);
        if (rc == 0)
            rc = yaml_value(y, o);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int yaml_document(struct yaml *y)
{
    int rc;
    for (int documents = 0; (rc = yaml_next(y)) == 0;) {
        switch (y->event.type) {
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT:
            break;
        case YAML_STREAM_END_EVENT:
            return 0;
        case YAML_DOCUMENT_START_EVENT:
            if (documents++)
                return yaml_error(y, "more than one document");
            break;
        case YAML_MAPPING_START_EVENT:
            rc = yaml_mapping(y);
            if (rc < 0)
                return rc;
            break;
        default:
            if (y->event.type == YAML_SCALAR_EVENT && is_null(y))
                break; /* comments alone */
            return yaml_error(y, "must be a mapping of options to values");
        }
    }
    return rc;
}

int config_parse_yaml(const struct config_program *p, const char *text, size_t n, const char *name,
                      void *out, struct err *e)
{
    struct err unused;
    struct yaml y = {.program = p, .out = out, .name = name, .e = e ? e : &unused};
    ASSERT(p->n_options <= OPTIONS_MAX);
    if (n > FILE_BYTES_MAX)
        return err_set(e, ERR_CONFIG, "%s: over %u bytes", name, FILE_BYTES_MAX);
    if (!yaml_parser_initialize(&y.parser))
        return err_set(e, ERR_NOMEM, "%s: no memory", name);
    yaml_parser_set_input_string(&y.parser, (const unsigned char *)text, n);
    yaml_parser_set_encoding(&y.parser, YAML_UTF8_ENCODING);
    int rc = yaml_document(&y);
    yaml_event_delete(&y.event);
    yaml_parser_delete(&y.parser);
    return rc;
}

static int load_file(const struct config_program *p, const char *path, void *out, struct err *e)
{
    struct buf text;
    char chunk[4096];
    size_t n;
    FILE *f = fopen(path, "rbe");
    if (!f)
        return err_sys(e, errno, "%s", path);
    buf_init(&text, FILE_BYTES_MAX);
    while (!text.failed && (n = fread(chunk, 1, sizeof(chunk), f)) > 0)
        buf_add(&text, chunk, n);
    int rc = 0;
    if (ferror(f))
        rc = err_sys(e, errno, "%s", path);
    else if (text.failed)
        rc = err_set(e, ERR_CONFIG, "%s: over %u bytes", path, FILE_BYTES_MAX);
    else
        rc = config_parse_yaml(p, buf_str(&text), text.len, path, out, e);
    fclose(f);
    buf_release(&text);
    return rc;
}

/* ---- flags -------------------------------------------------------------------------------------
 */

enum { KEY_CONFIG = 1000, KEY_CHECK, KEY_HELP, KEY_VERSION, KEY_OPTION };

/* A flag that was given; applied after the file. */
struct flag {
    const struct config_option *option;
    const char *text;
};

struct flags {
    const struct config_program *program;
    const char *config_file;
    bool check, exit;
    struct flag given[FLAGS_MAX];
    size_t n_given;
    struct err *e;
    int rc;
};

static int flags_fail(struct flags *f, const char *what, const char *arg)
{
    if (f->rc == 0)
        f->rc = err_set(f->e, ERR_CONFIG, "%s: '%.200s' (see --help)", what, arg);
    return EINVAL;
}

static error_t on_flag(int key, char *arg, struct argp_state *state)
{
    struct flags *f = state->input;
    switch (key) {
    case KEY_CONFIG:
        f->config_file = arg;
        return 0;
    case KEY_CHECK:
        f->check = true;
        return 0;
    case KEY_HELP:
        if (!f->exit)
            argp_help(state->root_argp, stdout,
                      ARGP_HELP_SHORT_USAGE | ARGP_HELP_LONG | ARGP_HELP_DOC, state->name);
        f->exit = true;
        return 0;
    case KEY_VERSION:
        if (!f->exit)
            printf("%s %s\n", f->program->name, ARGOSY_VERSION);
        f->exit = true;
        return 0;
    case ARGP_KEY_ARG:
        return flags_fail(f, "an argument that is not expected", arg);
    case ARGP_KEY_ERROR:
        return flags_fail(
            f, "an option that is not known, or lacks its value",
            state->next > 0 && state->next <= state->argc ? state->argv[state->next - 1] : "?");
    default:
        if (key < KEY_OPTION || key >= KEY_OPTION + (int)f->program->n_options)
            return ARGP_ERR_UNKNOWN;
        if (f->n_given == FLAGS_MAX)
            return flags_fail(f, "too many options", arg ? arg : "");
        f->given[f->n_given++] = (struct flag){
            &f->program->options[key - KEY_OPTION],
            arg ? arg : "true",
        };
        return 0;
    }
}

static const char *arg_name(const struct config_option *o)
{
    static const char *const names[] = {
        [CONFIG_BOOL] = "BOOL",     [CONFIG_INT] = "N",         [CONFIG_BYTES] = "BYTES",
        [CONFIG_MS] = "TIME",       [CONFIG_DOUBLE] = "NUMBER", [CONFIG_STRING] = "TEXT",
        [CONFIG_CHOICE] = "CHOICE", [CONFIG_LIST] = "ITEM",
    };
    if (o->arg)
        return o->arg;
    return o->type == CONFIG_CHOICE ? o->choices : names[o->type];
}

/* What argp wants of the table: names with dashes, help with the default. Strings in `text`. */
static int build_options(const struct config_program *p, struct argp_option *out, struct buf *text,
                         struct err *e)
{
    size_t name_at[OPTIONS_MAX], doc_at[OPTIONS_MAX];
    int group = 1;
    for (size_t i = 0; i < p->n_options; i++) {
        const struct config_option *o = &p->options[i];
        name_at[i] = text->len;
        for (const char *c = o->key ? o->key : ""; *c; c++)
            buf_addc(text, *c == '_' ? '-' : *c);
        buf_addc(text, 0);
        doc_at[i] = text->len;
        buf_adds(text, o->help ? o->help : "");
        if (o->key && o->def)
            buf_addf(text, " (default: %s)", o->def);
        buf_addc(text, 0);
    }
    if (text->failed)
        return err_set(e, ERR_NOMEM, "no memory for the options");
    for (size_t i = 0; i < p->n_options; i++) {
        const struct config_option *o = &p->options[i];
        group += !o->key;
        out[i] = (struct argp_option){
            .name = o->key ? text->data + name_at[i] : NULL,
            .key = o->key ? KEY_OPTION + (int)i : 0,
            .arg = o->key ? arg_name(o) : NULL,
            .flags = o->key && o->type == CONFIG_BOOL ? OPTION_ARG_OPTIONAL : 0,
            .doc = text->data + doc_at[i],
            .group = group,
        };
    }
    static const struct argp_option own[] = {
        {NULL, 0, NULL, 0, "Configuration:", 100},
        {"config", KEY_CONFIG, "FILE", 0, "Read options from this YAML file; flags win", 100},
        {"check-config", KEY_CHECK, NULL, 0, "Check the options, say ok, and end", 100},
        {"help", KEY_HELP, NULL, 0, "Show this list", 100},
        {"version", KEY_VERSION, NULL, 0, "Show the version", 100},
        {0},
    };
    memcpy(out + p->n_options, own, sizeof(own));
    return 0;
}

static int parse_flags(struct flags *f, int argc, char **argv, struct err *e)
{
    struct argp_option options[OPTIONS_MAX + 8];
    struct buf text;
    ASSERT(f->program->n_options <= OPTIONS_MAX);
    buf_init(&text, 0);
    int rc = build_options(f->program, options, &text, e);
    if (rc == 0) {
        struct argp argp = {.options = options, .parser = on_flag, .doc = f->program->summary};
        error_t bad = argp_parse(
            &argp, argc, argv, ARGP_NO_EXIT | ARGP_NO_ERRS | ARGP_NO_HELP | ARGP_IN_ORDER, NULL, f);
        rc = f->rc;
        if (bad && rc == 0)
            rc = err_sys(e, bad, "the command line");
    }
    buf_release(&text);
    return rc;
}

/* The first flag of a list replaces what the file says; the next ones add. */
static int apply_flags(const struct flags *f, void *out, struct err *e)
{
    bool seen[OPTIONS_MAX] = {false};
    for (size_t i = 0; i < f->n_given; i++) {
        const struct config_option *o = f->given[i].option;
        bool *again = &seen[o - f->program->options];
        if (o->type == CONFIG_LIST && !*again)
            list_clear(field(o, out));
        *again = true;
        int rc = set_value(o, f->given[i].text, out, e);
        if (rc < 0) {
            char name[80];
            snprintf(name, sizeof(name), "%s", o->key);
            for (char *c = name; *c; c++)
                *c = *c == '_' ? '-' : *c;
            return err_prefix(e, "--%s", name);
        }
    }
    return 0;
}

/* The struct's size is not known here: each field is zeroed for itself. */
static void zero_fields(const struct config_program *p, void *out)
{
    for (size_t i = 0; i < p->n_options; i++) {
        const struct config_option *o = &p->options[i];
        static const size_t sizes[] = {
            [CONFIG_BOOL] = sizeof(bool),     [CONFIG_INT] = sizeof(int64_t),
            [CONFIG_BYTES] = sizeof(int64_t), [CONFIG_MS] = sizeof(int64_t),
            [CONFIG_DOUBLE] = sizeof(double), [CONFIG_STRING] = sizeof(char *),
            [CONFIG_CHOICE] = sizeof(char *), [CONFIG_LIST] = sizeof(struct config_list),
        };
        if (o->key)
            memset(field(o, out), 0, sizes[o->type]);
    }
}

int config_load(const struct config_program *p, int argc, char **argv, void *out,
                enum config_action *action, struct err *e)
{
    struct err unused;
    e = e ? e : &unused;
    *action = CONFIG_RUN;
    zero_fields(p, out);
    struct flags *f = calloc(1, sizeof(*f));
    if (!f)
        return err_set(e, ERR_NOMEM, "no memory for the options");
    f->program = p;
    f->e = e;
    int rc = parse_flags(f, argc, argv, e);
    if (rc < 0 || f->exit)
        goto out;
    rc = set_defaults(p, out, e);
    if (rc == 0 && f->config_file)
        rc = load_file(p, f->config_file, out, e);
    if (rc == 0)
        rc = apply_flags(f, out, e);
    if (rc == 0 && p->check)
        rc = p->check(out, e);
    if (rc == 0 && f->check)
        puts("ok");
out:
    if (rc < 0 || f->exit || f->check) {
        *action = CONFIG_EXIT;
        config_release(p, out);
    }
    free(f);
    return rc;
}
