/* child.h: one process that a cluster needs.
 *
 *     child_start ──► RUNS ──exit──► child_reap says how ──► child_start_later ──back-off──► RUNS
 *                                                       └──► nothing: it stays down
 *
 * A child gets /dev/null as input and a pipe for what it prints; its last lines are kept, for when
 * it dies. It is in a process group of its own, so that Ctrl-C reaches only the parent, which then
 * ends it; and the kernel ends it when the parent dies in any other way.
 *
 * Thread: that of the event loop. Strings in the config are borrowed for the child's life.
 */
#ifndef ARGOSY_CLI_CHILD_H
#define ARGOSY_CLI_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"

#define CHILD_LINES_KEPT 12
#define CHILD_LINE_BYTES 512

struct event;
struct event_base;

struct child_config {
    const char *name;  /* "worker 1" */
    char *const *argv; /* argv[0] is looked up in PATH when it has no slash */
    bool foreground;   /* keeps our terminal, group and output: a client, not a server */
    bool echo;         /* print its lines, with its name in front */
};

struct child {
    struct child_config config;
    struct event_base *base;
    pid_t pid; /* 0: it does not run */
    uint64_t started_ms;
    uint64_t backoff_ms; /* of the next child_start_later */
    uint32_t starts;
    struct event *output;  /* its pipe is readable */
    struct event *restart; /* the back-off is over */
    struct buf line;       /* unfinished */
    char kept[CHILD_LINES_KEPT][CHILD_LINE_BYTES];
    uint32_t lines; /* in all; the last ones are kept[(lines - 1) % CHILD_LINES_KEPT] … */
};

void child_init(struct child *c, struct event_base *base, const struct child_config *config);
/* The process must be gone (child_reap) or is left to itself. */
void child_release(struct child *c);

int child_start(struct child *c, struct err *e);
/* After the back-off: 0.2 s, doubled at each call up to 5 s, and 0.2 s again once it had run for
 * 30 s. Returns the milliseconds. */
uint64_t child_start_later(struct child *c);
/* Forgets a child_start_later. */
void child_stay_down(struct child *c);
/* True when the process has ended: then *status is waitpid's, and what it printed is read. */
bool child_reap(struct child *c, int *status);
void child_signal(const struct child *c, int sig);
/* "was killed by signal 9", "ended with status 1". */
void child_describe(int status, char *out, size_t n);
/* Its last lines to stderr, indented. */
void child_print_kept(const struct child *c);

#endif
