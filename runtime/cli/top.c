/* top.c: `argosy top`: asks the router for its snapshot, draws it, listens to the keyboard. */
#include "runtime/cli/top.h"

#include <argp.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/cli/endpoint.h"
#include "runtime/cli/first_line.h"
#include "runtime/cli/top_view.h"

#define SNAPSHOT_BYTES_MAX (8u << 20)
#define PAGE 10
#define AUTHORIZATION "Bearer "
/* The alternate screen, and no cursor; and back. */
#define ENTER "\033[?1049h\033[?25l"
#define LEAVE "\033[?25h\033[?1049l"

struct top_options {
    const char *url;
    const char *key_file; /* or NULL */
    double interval_s;
    bool once;
};

enum { OPT_ONCE = 256, OPT_KEY_FILE };

static const struct argp_option option_list[] = {
    {"url", 'u', "URL", 0, "The router (http://127.0.0.1:8080)", 0},
    {"key-file", OPT_KEY_FILE, "FILE", 0, "The API key is this file's first line", 0},
    {"interval", 'i', "SECONDS", 0, "Between two looks, 0.2 to 60 (1)", 0},
    {"once", OPT_ONCE, NULL, 0, "Print one look and end", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct top_options *o = state->input;
    char *end = NULL;
    switch (key) {
    case 'u':
        o->url = arg;
        break;
    case 'i':
        o->interval_s = strtod(arg, &end);
        if (end == arg || *end || !(o->interval_s >= 0.2 && o->interval_s <= 60))
            argp_error(state, "--interval is a number from 0.2 to 60, not '%s'", arg);
        break;
    case OPT_KEY_FILE:
        o->key_file = arg;
        break;
    case OPT_ONCE:
        o->once = true;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "there is nothing to be said but options");
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
    "Shows the workers of a router, live.\vKeys: s sorts by name, tokens or use; the arrows and "
    "PgUp, "
    "PgDn scroll; q ends. It reads /explorer/snapshot, which --explorer=no turns off.",
    NULL,
    NULL,
    NULL};

/* ---- one look ---------------------------------------------------------------------------------
 */

static int keep(void *ctx, const char *bytes, size_t n, struct err *e)
{
    struct buf *b = ctx;
    buf_add(b, bytes, n);
    return b->failed ? err_set(e, ERR_LIMIT, "the snapshot is too large") : 0;
}

static int look(struct endpoint *p, struct top_view *v, struct err *e)
{
    struct buf json;
    buf_init(&json, SNAPSHOT_BYTES_MAX);
    int rc = endpoint_call(p, "/explorer/snapshot", NULL, keep, &json, e);
    if (rc == 0)
        rc = top_view_read(v, buf_str(&json), json.len, e);
    buf_release(&json);
    return rc;
}

static int read_key(struct endpoint *p, const char *file, char *text, size_t n, struct err *e)
{
    size_t before = strlen(AUTHORIZATION);
    if (!file)
        return 0;
    memcpy(text, AUTHORIZATION, before + 1);
    p->authorization = text;
    return first_line_read(file, text + before, n - before, e);
}

/* The router's root: a URL that names the API below it is taken for it too. */
static int open_endpoint(struct endpoint *p, const char *url, struct err *e)
{
    int rc = endpoint_init(p, url, e);
    size_t n = strlen(p->prefix);
    if (rc == 0 && n >= 3 && strcmp(p->prefix + n - 3, "/v1") == 0)
        p->prefix[n - 3] = 0;
    return rc;
}

/* ---- the terminal -----------------------------------------------------------------------------
 */

static struct termios before;
static volatile sig_atomic_t ended, resized;

static void on_end(int sig)
{
    (void)sig;
    ended = 1;
}

static void on_resize(int sig)
{
    (void)sig;
    resized = 1;
}

static void write_all(const char *text, size_t n)
{
    while (n > 0) {
        ssize_t m = write(STDOUT_FILENO, text, n);
        if (m < 0 && errno != EINTR)
            return;
        if (m > 0) {
            text += m;
            n -= (size_t)m;
        }
    }
}

static int enter_screen(struct err *e)
{
    struct sigaction end = {.sa_handler = on_end}, resize = {.sa_handler = on_resize};
    struct termios raw;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &before) != 0)
        return err_set(e, ERR_CONFIG, "this is no terminal: --once prints one look");
    sigaction(SIGINT, &end, NULL);
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGHUP, &end, NULL);
    sigaction(SIGWINCH, &resize, NULL);
    raw = before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    write_all(ENTER, sizeof(ENTER) - 1);
    return 0;
}

static void leave_screen(void)
{
    write_all(LEAVE, sizeof(LEAVE) - 1);
    tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

static struct winsize screen_size(void)
{
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row < 2 || size.ws_col < 20)
        size = (struct winsize){.ws_row = 24, .ws_col = 80};
    return size;
}

/* ---- live -------------------------------------------------------------------------------------
 */

struct live {
    struct top_view view;
    enum top_order order;
    uint32_t first; /* worker of the list */
    struct err why; /* of the last look; code 0: it went well */
};

static void draw(struct live *l)
{
    struct winsize size = screen_size();
    struct buf out;
    buf_init(&out, 1u << 20);
    top_view_sort(&l->view, l->order);
    buf_adds(&out, "\033[H");
    if (l->why.code)
        buf_addf(&out, "%.*s\033[K\r\n", (int)size.ws_col, l->why.msg);
    /* One row stays free: a line end in the last one would scroll. */
    top_draw(&l->view, size.ws_col, size.ws_row - 1u - (l->why.code != 0), l->first, true,
             "\033[K\r\n", &out);
    buf_adds(&out, "\033[J");
    write_all(buf_str(&out), out.len);
    buf_release(&out);
}

static void scroll(struct live *l, int64_t by)
{
    int64_t to = (int64_t)l->first + by, last = l->view.n ? l->view.n - 1 : 0;
    l->first = (uint32_t)(to < 0 ? 0 : to > last ? last : to);
}

/* False: it was q. */
static bool take_keys(struct live *l)
{
    char keys[32];
    ssize_t n = read(STDIN_FILENO, keys, sizeof(keys) - 1);
    if (n == 0)
        return false;
    keys[n > 0 ? n : 0] = 0;
    if (strchr(keys, 'q'))
        return false;
    if (strchr(keys, 's'))
        l->order = (enum top_order)((l->order + 1) % TOP_ORDERS);
    if (strstr(keys, "\033[A"))
        scroll(l, -1);
    if (strstr(keys, "\033[B"))
        scroll(l, 1);
    if (strstr(keys, "\033[5~"))
        scroll(l, -PAGE);
    if (strstr(keys, "\033[6~"))
        scroll(l, PAGE);
    return true;
}

static int run_live(struct endpoint *p, const struct top_options *o, struct err *e)
{
    struct live l = {.order = TOP_BY_NAME};
    if (enter_screen(e) < 0)
        return e->code;
    bool more = true;
    while (more && !ended) {
        uint64_t until_ms = clock_mono_ms() + (uint64_t)(o->interval_s * 1000);
        l.why.code = 0;
        if (look(p, &l.view, &l.why) == ENDPOINT_INTERRUPTED)
            break;
        draw(&l);
        for (uint64_t now_ms; more && !ended && (now_ms = clock_mono_ms()) < until_ms;) {
            struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
            int ready = poll(&fd, 1, (int)(until_ms - now_ms));
            if (ready > 0)
                more = take_keys(&l);
            if (ready > 0 || resized)
                draw(&l);
            resized = 0;
        }
    }
    leave_screen();
    top_view_release(&l.view);
    return 0;
}

static int run_once(struct endpoint *p, struct err *e)
{
    struct top_view v = {0};
    struct buf out;
    int rc = look(p, &v, e);
    if (rc != 0)
        return rc;
    buf_init(&out, 1u << 20);
    top_view_sort(&v, TOP_BY_NAME);
    top_draw(&v, isatty(STDOUT_FILENO) ? screen_size().ws_col : 120, 0, 0, false, "\n", &out);
    write_all(buf_str(&out), out.len);
    buf_release(&out);
    top_view_release(&v);
    return 0;
}

int top_main(int argc, char **argv)
{
    struct top_options o = {.url = "http://127.0.0.1:8080", .interval_s = 1};
    struct endpoint p = {0};
    struct err e = {0};
    if (argp_parse(&argp, argc, argv, 0, NULL, &o) != 0)
        return EXIT_FAILURE;
    signal(SIGPIPE, SIG_IGN);
    char authorization[512];
    int rc = open_endpoint(&p, o.url, &e);
    if (rc == 0)
        rc = read_key(&p, o.key_file, authorization, sizeof(authorization), &e);
    if (rc == 0)
        rc = o.once ? run_once(&p, &e) : run_live(&p, &o, &e);
    endpoint_release(&p);
    if (rc < 0)
        fprintf(stderr, "argosy top: %s\n", e.msg);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
