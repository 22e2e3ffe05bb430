#include "runtime/cli/child.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/clock.h"

#define BACKOFF_FIRST_MS 200
#define BACKOFF_MAX_MS 5000
#define BACKOFF_FORGET_MS 30000

void child_init(struct child *c, struct event_base *base, const struct child_config *config)
{
    memset(c, 0, sizeof *c);
    c->config = *config;
    c->base = base;
    c->backoff_ms = BACKOFF_FIRST_MS;
    buf_init(&c->line, CHILD_LINE_BYTES - 1);
}

static void close_output(struct child *c)
{
    if (!c->output)
        return;
    int fd = event_get_fd(c->output);
    event_free(c->output);
    close(fd);
    c->output = NULL;
}

void child_release(struct child *c)
{
    close_output(c);
    if (c->restart)
        event_free(c->restart);
    c->restart = NULL;
    buf_release(&c->line);
}

/* ---- what it prints ------------------------------------------------------------------------ */

static void keep_line(struct child *c)
{
    if (c->config.echo)
        fprintf(stderr, "%s | %s\n", c->config.name, buf_str(&c->line));
    snprintf(c->kept[c->lines % CHILD_LINES_KEPT], CHILD_LINE_BYTES, "%s", buf_str(&c->line));
    c->lines++;
    buf_clear(&c->line);
}

static void read_output(struct child *c)
{
    char bytes[4096];
    ssize_t n;
    while ((n = read(event_get_fd(c->output), bytes, sizeof bytes)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (bytes[i] == '\n')
                keep_line(c);
            else if (c->line.len < c->line.max_bytes) /* the rest of a long line is dropped */
                buf_addc(&c->line, bytes[i]);
        }
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        if (c->line.len)
            keep_line(c);
        close_output(c);
    }
}

static void on_output(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    read_output(arg);
}

void child_print_kept(const struct child *c)
{
    uint32_t n = c->lines < CHILD_LINES_KEPT ? c->lines : CHILD_LINES_KEPT;
    for (uint32_t i = c->lines - n; i < c->lines; i++)
        fprintf(stderr, "    %s\n", c->kept[i % CHILD_LINES_KEPT]);
}

/* ---- its life ------------------------------------------------------------------------------- */

/* In the new process; never returns. */
static _Noreturn void become(const struct child *c, pid_t parent, int out)
{
    /* Set before looking: a parent that died in between is seen by getppid. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    signal(SIGPIPE, SIG_DFL);
    if (!c->config.foreground) {
        setpgid(0, 0);
        int null = open("/dev/null", O_RDONLY);
        dup2(null, STDIN_FILENO);
        dup2(out, STDOUT_FILENO);
        dup2(out, STDERR_FILENO);
    }
    execvp(c->config.argv[0], c->config.argv);
    dprintf(STDERR_FILENO, "can't run %s: %s\n", c->config.argv[0], strerror(errno));
    _exit(127);
}

int child_start(struct child *c, struct err *e)
{
    int fds[2] = {-1, -1};
    if (!c->config.foreground && pipe2(fds, O_CLOEXEC) != 0)
        return err_sys(e, errno, "can't make a pipe for %s", c->config.name);
    close_output(c);
    pid_t parent = getpid();
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        int rc = err_sys(e, errno, "can't start %s", c->config.name);
        if (fds[0] >= 0) {
            close(fds[0]);
            close(fds[1]);
        }
        return rc;
    }
    if (pid == 0)
        become(c, parent, fds[1]);
    c->pid = pid;
    c->starts++;
    c->started_ms = clock_mono_ms();
    if (fds[0] < 0)
        return 0;
    close(fds[1]);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    c->output = event_new(c->base, fds[0], EV_READ | EV_PERSIST, on_output, c);
    if (!c->output) {
        close(fds[0]);
        return err_set(e, ERR_NOMEM, "no memory for %s", c->config.name);
    }
    event_add(c->output, NULL);
    return 0;
}

static void on_restart(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct child *c = arg;
    struct err e = {0};
    if (child_start(c, &e) == 0) {
        fprintf(stderr, "argosy: %s runs again (pid %d)\n", c->config.name, (int)c->pid);
        return;
    }
    uint64_t wait_ms = child_start_later(c);
    fprintf(stderr, "argosy: %s; trying again in %.1f s\n", e.msg, (double)wait_ms / 1000);
}

uint64_t child_start_later(struct child *c)
{
    if (clock_mono_ms() - c->started_ms >= BACKOFF_FORGET_MS)
        c->backoff_ms = BACKOFF_FIRST_MS;
    uint64_t wait_ms = c->backoff_ms;
    c->backoff_ms = wait_ms * 2 < BACKOFF_MAX_MS ? wait_ms * 2 : BACKOFF_MAX_MS;
    struct timeval tv = {.tv_sec = (time_t)(wait_ms / 1000),
                         .tv_usec = (suseconds_t)(wait_ms % 1000 * 1000)};
    if (!c->restart)
        c->restart = evtimer_new(c->base, on_restart, c);
    if (c->restart)
        evtimer_add(c->restart, &tv);
    return wait_ms;
}

void child_stay_down(struct child *c)
{
    if (c->restart)
        evtimer_del(c->restart);
}

bool child_reap(struct child *c, int *status)
{
    if (c->pid == 0 || waitpid(c->pid, status, WNOHANG) != c->pid)
        return false;
    c->pid = 0;
    if (c->output)
        read_output(c);
    return true;
}

void child_signal(const struct child *c, int sig)
{
    if (c->pid > 0)
        kill(c->pid, sig);
}

void child_describe(int status, char *out, size_t n)
{
    if (WIFSIGNALED(status))
        snprintf(out, n, "was killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(out, n, "ended with status %d", WEXITSTATUS(status));
}
