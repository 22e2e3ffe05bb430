/* One machine's cluster: `up` owns every process of it.
 *
 *     STARTING ──/ready says yes──► SERVING ──Ctrl-C, or the one answer is given──► ENDING ──► gone
 *        └────────────────── a child ends: say why ──────────────────────────────────▲
 *
 * While STARTING a child that ends is a fault of the set-up and ends everything; while SERVING it
 * is started again. One thread, one event loop. */
#include "runtime/cli/up.h"

#include <event2/event.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/cli/child.h"
#include "runtime/cli/plan.h"
#include "runtime/cli/probe.h"
#include "runtime/cli/up_options.h"

#define START_S 300
#define END_S 5
#define CHILDREN_MAX (UP_WORKERS_MAX + 3) /* redis, router, workers, the one answer */

enum up_state { STARTING, SERVING, ENDING };

struct up {
    struct up_options options;
    struct plan plan;
    struct event_base *base;
    struct child children[CHILDREN_MAX];
    char names[CHILDREN_MAX][32];
    uint32_t n_children;
    struct child *once; /* the client of --once, when it was started */
    struct probe probe;
    struct event *signals[4];
    struct event *timer; /* STARTING: it takes too long; ENDING: time to kill */
    uint64_t started_ms;
    enum up_state state;
    int status;
};

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("argosy: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void set_timer(struct up *u, int seconds)
{
    struct timeval tv = {.tv_sec = seconds};
    evtimer_add(u->timer, &tv);
}

static void signal_all(const struct up *u, int sig)
{
    for (uint32_t i = 0; i < u->n_children; i++)
        child_signal(&u->children[i], sig);
}

static void leave_if_alone(struct up *u)
{
    for (uint32_t i = 0; i < u->n_children; i++)
        if (u->children[i].pid)
            return;
    event_base_loopbreak(u->base);
}

static void end(struct up *u, int status)
{
    if (u->state == ENDING)
        return;
    u->state = ENDING;
    u->status = status;
    for (uint32_t i = 0; i < u->n_children; i++)
        child_stay_down(&u->children[i]);
    signal_all(u, SIGTERM);
    set_timer(u, END_S);
    leave_if_alone(u);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct up *u = arg;
    if (u->state == ENDING) {
        signal_all(u, SIGKILL);
        return;
    }
    say("not ready after %d s. What the parts said last:", START_S);
    for (uint32_t i = 0; i < u->n_children; i++) {
        say("%s:", u->children[i].config.name);
        child_print_kept(&u->children[i]);
    }
    end(u, EXIT_FAILURE);
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    (void)what;
    struct up *u = arg;
    if (u->state == ENDING) {
        /* Asked twice: no more waiting. */
        signal_all(u, SIGKILL);
        return;
    }
    if (!u->options.once)
        say("ending");
    end(u, u->state == SERVING && !u->options.once ? EXIT_SUCCESS : 128 + (int)sig);
}

/* ---- the children ---------------------------------------------------------------------------- */

static struct child *start_child(struct up *u, char **argv, bool foreground, const char *name)
{
    ASSERT(u->n_children < CHILDREN_MAX);
    char *copy = u->names[u->n_children];
    snprintf(copy, sizeof u->names[0], "%s", name);
    struct child *c = &u->children[u->n_children++];
    struct child_config config = {
        .name = copy, .argv = argv, .foreground = foreground, .echo = u->options.verbose};
    struct err e = {0};
    child_init(c, u->base, &config);
    if (child_start(c, &e) != 0) {
        say("%s", e.msg);
        end(u, EXIT_FAILURE);
    }
    return c;
}

static void on_child_end(struct up *u, struct child *c, int wait_status)
{
    char how[80];
    if (c == u->once) {
        end(u, WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : EXIT_FAILURE);
        return;
    }
    if (u->state == ENDING)
        return;
    child_describe(wait_status, how, sizeof how);
    if (u->state == STARTING) {
        say("%s %s. What it said:", c->config.name, how);
        child_print_kept(c);
        end(u, EXIT_FAILURE);
        return;
    }
    uint64_t wait_ms = child_start_later(c);
    say("%s %s; starting it again in %.1f s%s", c->config.name, how, (double)wait_ms / 1000,
        c->lines && !u->options.verbose ? ". What it said last:" : "");
    if (!u->options.verbose)
        child_print_kept(c);
}

static void on_child_signal(evutil_socket_t sig, short what, void *arg)
{
    (void)sig;
    (void)what;
    struct up *u = arg;
    int status;
    for (uint32_t i = 0; i < u->n_children; i++)
        if (child_reap(&u->children[i], &status))
            on_child_end(u, &u->children[i], status);
    if (u->state == ENDING)
        leave_if_alone(u);
}

/* ---- the start ------------------------------------------------------------------------------- */

/* Separated by commas; cut to `cap`. */
static const char *model_names(const struct plan *p, char *names, size_t cap)
{
    size_t n = 0;
    names[0] = '\0';
    for (unsigned i = 0; i < p->n_models && n < cap; i++)
        n += (size_t)snprintf(names + n, cap - n, "%s%s", i ? ", " : "", p->models[i].name);
    return names;
}

static void print_welcome(const struct up *u)
{
    const struct plan *p = &u->plan;
    char names[UP_MODELS_MAX * (MODEL_NAME_BYTES + 2)];
    bool v6 = strchr(p->host, ':') != NULL;
    char url[160];
    snprintf(url, sizeof url, v6 ? "http://[%s]:%u/v1" : "http://%s:%u/v1", p->host, p->port);
    printf("\nReady in %.1f s: %s on %ld worker%s, %u thread%s each.\n\n"
           "Endpoint   %s\n\n",
           (double)(clock_mono_ms() - u->started_ms) / 1000, model_names(p, names, sizeof names),
           u->options.workers, u->options.workers == 1 ? "" : "s", p->threads,
           p->threads == 1 ? "" : "s", url);
    printf("curl       curl -N %s/chat/completions -H 'Content-Type: application/json'%s -d '{\n"
           "             \"model\": \"%s\", \"stream\": true, \"temperature\": 0, \"messages\": [\n"
           "               {\"role\": \"system\", \"content\": \"You are a helpful assistant.\"},\n"
           "               {\"role\": \"user\", \"content\": \"What is the capital of "
           "France?\"}]}'\n\n",
           url, u->options.keys ? " -H \"Authorization: Bearer $ARGOSY_KEY\"" : "",
           p->models[0].name);
    printf("Python     from openai import OpenAI\n"
           "           client = OpenAI(base_url=\"%s\", api_key=\"%s\")\n"
           "           answer = client.chat.completions.create(\n"
           "               model=\"%s\", temperature=0, messages=[\n"
           "                   {\"role\": \"system\", \"content\": \"You are a helpful "
           "assistant.\"},\n"
           "                   {\"role\": \"user\", \"content\": \"What is the capital of "
           "France?\"}])\n"
           "           print(answer.choices[0].message.content)\n\n",
           url, u->options.keys ? "the key" : "none", p->models[0].name);
    printf("Terminal   %s/argosy chat%s%.*s%s\n\nCtrl-C ends it.\n", p->bin_dir,
           p->port == 8080 ? "" : " --url ", p->port == 8080 ? 0 : (int)strlen(url), url,
           u->options.keys ? " --key-file FILE" : "");
    fflush(stdout);
}

static void on_ready(void *arg)
{
    struct up *u = arg;
    if (u->state != STARTING)
        return;
    u->state = SERVING;
    evtimer_del(u->timer);
    if (u->plan.once)
        u->once = start_child(u, u->plan.once, true, "the answer's client");
    else
        print_welcome(u);
}

static int prepare_loop(struct up *u, struct err *e)
{
    static const int ending[] = {SIGINT, SIGTERM, SIGHUP};
    signal(SIGPIPE, SIG_IGN);
    u->base = event_base_new();
    u->timer = u->base ? evtimer_new(u->base, on_timer, u) : NULL;
    if (!u->timer)
        return err_set(e, ERR_NOMEM, "can't make an event loop");
    for (size_t i = 0; i < ARRAY_LEN(u->signals); i++) {
        bool ends = i < ARRAY_LEN(ending);
        u->signals[i] = evsignal_new(u->base, ends ? ending[i] : SIGCHLD,
                                     ends ? on_signal : on_child_signal, u);
        if (!u->signals[i] || event_add(u->signals[i], NULL) != 0)
            return err_set(e, ERR_NOMEM, "can't watch signals");
    }
    return 0;
}

static void start_all(struct up *u)
{
    struct plan *p = &u->plan;
    if (p->redis)
        start_child(u, p->redis, false, "redis-server");
    start_child(u, p->router, false, "router");
    for (uint32_t i = 0; i < (uint32_t)u->options.workers; i++) {
        char name[32];
        snprintf(name, sizeof name, "worker %u", i + 1);
        start_child(u, p->workers[i], false, name);
    }
    set_timer(u, START_S);
    if (probe_start(&u->probe, u->base, p->host, p->port, on_ready, u) != 0) {
        say("no memory");
        end(u, EXIT_FAILURE);
    }
}

static void release(struct up *u)
{
    probe_release(&u->probe);
    for (uint32_t i = 0; i < u->n_children; i++)
        child_release(&u->children[i]);
    for (size_t i = 0; i < ARRAY_LEN(u->signals); i++)
        if (u->signals[i])
            event_free(u->signals[i]);
    if (u->timer)
        event_free(u->timer);
    if (u->base)
        event_base_free(u->base);
    plan_release(&u->plan);
}

int up_main(int argc, char **argv)
{
    static struct up u; /* too large for the stack */
    struct err e = {0};
    u.started_ms = clock_mono_ms();
    u.status = EXIT_FAILURE;
    up_options_parse(argc, argv, &u.options);
    int rc = plan_init(&u.plan, &u.options, &e);
    if (rc == 0)
        rc = prepare_loop(&u, &e);
    if (rc != 0) {
        say("%s", e.msg);
        goto out;
    }
    char names[UP_MODELS_MAX * (MODEL_NAME_BYTES + 2)];
    if (!u.options.once)
        say("starting %s: redis-server, router, %ld worker%s",
            model_names(&u.plan, names, sizeof names), u.options.workers,
            u.options.workers == 1 ? "" : "s");
    start_all(&u);
    event_base_dispatch(u.base);
out:
    release(&u);
    return u.status;
}
