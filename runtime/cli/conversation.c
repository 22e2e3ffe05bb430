#include "runtime/cli/conversation.h"

#include <argp.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/buf.h"
#include "runtime/base/json.h"
#include "runtime/cli/endpoint.h"
#include "runtime/cli/first_line.h"
#include "runtime/cli/reply.h"

#define HISTORY_BYTES_MAX (4u << 20)
#define MODELS_BYTES_MAX (1u << 20)
#define STATUS_INTERRUPTED 130
#define AUTHORIZATION "Bearer "

struct conversation_options {
    const char *url;
    const char *model; /* NULL: the first one that the endpoint lists */
    const char *prompt;
    const char *key_file; /* or NULL */
    const char *system;
    double temperature; /* NAN: the server's default */
    long max_tokens;    /* 0: the server's default */
};

struct conversation {
    const struct conversation_options *options;
    struct endpoint endpoint;
    char *model;
    struct buf history; /* messages as JSON, separated by commas */
};

enum { OPT_TEMPERATURE = 256, OPT_MAX_TOKENS, OPT_SYSTEM, OPT_KEY_FILE };

static const struct argp_option option_list[] = {
    {"url", 'u', "URL", 0, "The endpoint (http://127.0.0.1:8080)", 0},
    {"model", 'm', "NAME", 0, "The model (the first that the endpoint lists)", 0},
    {"key-file", OPT_KEY_FILE, "FILE", 0, "The API key is this file's first line", 0},
    {"system", OPT_SYSTEM, "TEXT", 0, "A system message", 0},
    {"temperature", OPT_TEMPERATURE, "T", 0, "0 always takes the most likely token", 0},
    {"max-tokens", OPT_MAX_TOKENS, "N", 0, "Tokens of one answer at most", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct conversation_options *o = state->input;
    char *end = NULL;
    switch (key) {
    case 'u':
        o->url = arg;
        break;
    case 'm':
        o->model = arg;
        break;
    case OPT_KEY_FILE:
        o->key_file = arg;
        break;
    case OPT_SYSTEM:
        o->system = arg;
        break;
    case OPT_TEMPERATURE:
        o->temperature = strtod(arg, &end);
        if (end == arg || *end || !(o->temperature >= 0 && o->temperature <= 2))
            argp_error(state, "--temperature is a number from 0 to 2, not '%s'", arg);
        break;
    case OPT_MAX_TOKENS:
        errno = 0;
        o->max_tokens = strtol(arg, &end, 10);
        if (errno || end == arg || *end || o->max_tokens < 1)
            argp_error(state, "--max-tokens is a number of at least 1, not '%s'", arg);
        break;
    case ARGP_KEY_ARG:
        if (o->prompt)
            argp_error(state, "one PROMPT: put quotes around it");
        o->prompt = arg;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static const struct argp argp = {
    option_list,
    parse_option,
    "[PROMPT]",
    "Talks to a model; the answer streams.\vWithout PROMPT it is a conversation: /clear forgets "
    "it, /exit or Ctrl-D ends it, Ctrl-C stops the answer.",
    NULL,
    NULL,
    NULL};

/* ---- what is said ------------------------------------------------------------------------- */

static void add_message(struct buf *history, const char *role, const char *text, size_t n)
{
    struct json w;
    if (history->len)
        buf_addc(history, ',');
    json_init(&w, history);
    json_obj(&w);
    json_key(&w, "role");
    json_str(&w, role);
    json_key(&w, "content");
    json_strn(&w, text, n);
    json_obj_end(&w);
}

static void start_history(struct conversation *c)
{
    buf_clear(&c->history);
    if (c->options->system)
        add_message(&c->history, "system", c->options->system, strlen(c->options->system));
}

static void write_request(const struct conversation *c, struct buf *out)
{
    struct json w;
    json_init(&w, out);
    json_obj(&w);
    json_key(&w, "model");
    json_str(&w, c->model);
    json_key(&w, "stream");
    json_bool(&w, true);
    if (!isnan(c->options->temperature)) {
        json_key(&w, "temperature");
        json_double(&w, c->options->temperature);
    }
    if (c->options->max_tokens) {
        json_key(&w, "max_tokens");
        json_int(&w, c->options->max_tokens);
    }
    json_key(&w, "messages");
    json_arr(&w);
    json_raw(&w, buf_str(&c->history), c->history.len);
    json_arr_end(&w);
    json_obj_end(&w);
}

/* One question, one answer. 0, ENDPOINT_INTERRUPTED or an error. */
static int ask(struct conversation *c, const char *prompt, size_t n, struct err *e)
{
    struct buf body;
    struct reply reply;
    size_t before = c->history.len;
    buf_init(&body, HISTORY_BYTES_MAX + 4096);
    reply_init(&reply);
    add_message(&c->history, "user", prompt, n);
    write_request(c, &body);

    int rc = ERR_LIMIT;
    if (c->history.failed || body.failed)
        err_set(e, rc, "the conversation is too long: /clear forgets it");
    else
        rc = endpoint_call(&c->endpoint, "/chat/completions", &body, reply_feed, &reply, e);
    if (rc == 0 && !reply.done)
        rc = err_set(e, ERR_PEER, "the answer broke off");
    if (reply.text.len)
        putchar('\n');

    if (rc >= 0 && reply.text.len) {
        add_message(&c->history, "assistant", buf_str(&reply.text), reply.text.len);
    } else {
        /* As if it had not been asked. */
        c->history.len = before;
        c->history.failed = false;
        if (c->history.data)
            c->history.data[before] = '\0';
    }
    reply_release(&reply);
    buf_release(&body);
    return rc;
}

/* ---- the model that the endpoint lists first ----------------------------------------------- */

static int on_models(void *ctx, const char *bytes, size_t n, struct err *e)
{
    struct buf *b = ctx;
    buf_add(b, bytes, n);
    return b->failed ? err_set(e, ERR_LIMIT, "the list of models is too long") : 0;
}

static int find_model(struct conversation *c, struct err *e)
{
    struct buf body;
    if (c->options->model) {
        c->model = strdup(c->options->model);
        return c->model ? 0 : err_set(e, ERR_NOMEM, "no memory");
    }
    buf_init(&body, MODELS_BYTES_MAX);
    int rc = endpoint_call(&c->endpoint, "/models", NULL, on_models, &body, e);
    if (rc == 0) {
        c->model = reply_first_model(&body);
        if (!c->model)
            rc = err_set(e, ERR_PEER, "the endpoint lists no model");
    }
    buf_release(&body);
    return rc;
}

/* ---- the conversation ---------------------------------------------------------------------- */

static int report(int rc, const struct err *e)
{
    if (rc < 0)
        fprintf(stderr, "argosy chat: %s\n", e->msg);
    return rc == 0 ? EXIT_SUCCESS : rc == ENDPOINT_INTERRUPTED ? STATUS_INTERRUPTED : EXIT_FAILURE;
}

static int converse(struct conversation *c)
{
    char *line = NULL;
    size_t cap = 0;
    bool typed = isatty(STDIN_FILENO);
    int status = EXIT_SUCCESS;
    if (typed)
        printf("%s at %s:%u. /clear forgets, /exit or Ctrl-D ends, Ctrl-C stops an answer.\n",
               c->model, c->endpoint.host, c->endpoint.port);
    for (;;) {
        if (typed) {
            printf("> ");
            fflush(stdout);
        }
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        if (n == 0)
            continue;
        if (!strcmp(line, "/exit") || !strcmp(line, "/quit")) {
            typed = false;
            break;
        }
        if (!strcmp(line, "/clear")) {
            start_history(c);
            continue;
        }
        struct err e = {0};
        int rc = ask(c, line, (size_t)n, &e);
        if (rc < 0)
            status = EXIT_FAILURE;
        report(rc, &e);
    }
    if (typed)
        putchar('\n');
    free(line);
    return status;
}

static int read_key(struct conversation *c, char *text, size_t n, struct err *e)
{
    size_t before = strlen(AUTHORIZATION);
    if (!c->options->key_file)
        return 0;
    memcpy(text, AUTHORIZATION, before + 1);
    c->endpoint.authorization = text;
    return first_line_read(c->options->key_file, text + before, n - before, e);
}

int conversation_main(int argc, char **argv)
{
    struct conversation_options options = {.url = "http://127.0.0.1:8080", .temperature = NAN};
    struct conversation c = {.options = &options};
    struct err e = {0};
    char authorization[512];
    argp_parse(&argp, argc, argv, 0, NULL, &options);

    buf_init(&c.history, HISTORY_BYTES_MAX);
    int status = EXIT_FAILURE;
    int rc = endpoint_init(&c.endpoint, options.url, &e);
    if (rc == 0)
        rc = read_key(&c, authorization, sizeof authorization, &e);
    if (rc == 0)
        rc = find_model(&c, &e);
    if (rc != 0) {
        status = report(rc, &e);
        goto out;
    }
    start_history(&c);
    if (options.prompt)
        status = report(ask(&c, options.prompt, strlen(options.prompt), &e), &e);
    else
        status = converse(&c);
out:
    endpoint_release(&c.endpoint);
    buf_release(&c.history);
    free(c.model);
    return status;
}
