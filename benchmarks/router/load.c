/* load: asks an OpenAI server for chat answers over HTTP/1.1 and prints what it saw as one line of
 * JSON. One thread, epoll, connections that are kept.
 *
 *     load HOST:PORT BODY [connections=N] [requests=N] [rate=N] [tokens=N] [hold=SECONDS]
 *
 * BODY is the request's JSON; with "stream":true in it, answers are read as SSE. `rate` is requests
 * a second at fixed times whatever the answers do, and latency counts from those times; without it
 * each connection asks again as soon as it has its answer. Every answer is checked: its text must
 * be `tokens` letters that follow each other (hash_tokens.h). `hold`: once every connection has got
 * text, says "holding" and waits, with the answers unfinished; then leaves.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "benchmarks/hash_worker/hash_tokens.h"
#include "runtime/base/clock.h"

#define IN_BYTES (64u << 10)
#define TEXT_BYTES 4096u
#define TIMEOUT_NS 60000000000u /* without news */

enum phase { HEAD, SIZED, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, DONE };

struct client {
    int fd;
    bool busy, fresh; /* asked; no answer came over this connection yet */
    enum phase phase;
    size_t left; /* of a body or a chunk */
    char in[IN_BYTES];
    size_t n_in;
    /* The answer so far. */
    char line[IN_BYTES]; /* a line of the body that is not complete */
    size_t n_line;
    char text[TEXT_BYTES];
    size_t n_text;
    int status;
    bool done_seen; /* data: [DONE] */
    bool closes;
    uint64_t asked_ns, first_ns;
};

struct load {
    struct sockaddr_in address;
    char *request;
    size_t n_request;
    bool stream;
    size_t n_clients, n_requests, tokens;
    double rate, hold_s;
    struct client *clients;
    int epoll;
    /* What came out. */
    size_t n_asked, n_done, n_bad;
    size_t n_first; /* connections with text, for hold */
    double *latency_us, *first_us;
    char bad[512]; /* the first answer that was wrong */
    uint64_t news_ns;
};

static void die(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- connections -------------------------------------------------------------------------------
 */

static void dial(struct load *l, struct client *c)
{
    int one = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&l->address, sizeof(l->address)) < 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &ev);
    c->fresh = true;
}

static void ask(struct load *l, struct client *c, uint64_t when_ns)
{
    c->phase = HEAD;
    c->n_in = c->n_line = c->n_text = 0;
    c->status = 0;
    c->done_seen = c->closes = false;
    c->first_ns = 0;
    c->busy = true;
    c->asked_ns = when_ns;
    l->n_asked++;
    if (write(c->fd, l->request, l->n_request) != (ssize_t)l->n_request) {
        close(c->fd); /* it was closed while nobody asked */
        dial(l, c);
        if (write(c->fd, l->request, l->n_request) != (ssize_t)l->n_request)
            die("write");
    }
}

/* ---- answers -----------------------------------------------------------------------------------
 */

/* Adds what stands behind "content":" and "text":" in a piece of JSON. */
static void take_text(struct load *l, struct client *c, const char *json, size_t n)
{
    static const char *const keys[] = {"\"content\":\"", "\"text\":\""};
    for (size_t k = 0; k < 2; k++) {
        size_t len = strlen(keys[k]);
        const char *at = memmem(json, n, keys[k], len);
        if (!at)
            continue;
        for (at += len; at < json + n && *at != '"'; at++)
            if (c->n_text < TEXT_BYTES)
                c->text[c->n_text++] = *at;
    }
    if (c->n_text && !c->first_ns) {
        c->first_ns = clock_mono_ns();
        l->n_first++;
    }
}

static void take_line(struct load *l, struct client *c)
{
    if (memcmp(c->line, "data: [DONE]", c->n_line < 12 ? c->n_line : 12) == 0 && c->n_line >= 12)
        c->done_seen = true;
    else
        take_text(l, c, c->line, c->n_line);
    c->n_line = 0;
}

static void take_body(struct load *l, struct client *c, const char *data, size_t n)
{
    while (n > 0) {
        const char *end = l->stream ? memchr(data, '\n', n) : NULL;
        size_t k = end ? (size_t)(end - data) : n;
        if (c->n_line + k > sizeof(c->line)) {
            c->status = -1; /* too long a line: a wrong answer */
            c->n_line = 0;
            return;
        }
        memcpy(c->line + c->n_line, data, k);
        c->n_line += k;
        if (!end)
            return;
        if (c->n_line)
            take_line(l, c);
        data = end + 1;
        n -= k + 1;
    }
}

static void note_bad(struct load *l, const struct client *c)
{
    if (l->n_bad++ == 0)
        snprintf(l->bad, sizeof(l->bad), "status %d, %zu letters, done %d: %.*s", c->status,
                 c->n_text, c->done_seen, (int)(c->n_text < 200 ? c->n_text : 200), c->text);
}

static void finish(struct load *l, struct client *c)
{
    uint64_t now = clock_mono_ns();
    if (!l->stream)
        take_line(l, c);
    if (c->status != 200 || c->n_text != l->tokens || !hash_text_is_whole(c->text, c->n_text) ||
        (l->stream && !c->done_seen))
        note_bad(l, c);
    l->latency_us[l->n_done] = (double)(now - c->asked_ns) / 1e3;
    l->first_us[l->n_done] = c->first_ns ? (double)(c->first_ns - c->asked_ns) / 1e3 : 0;
    l->n_done++;
    c->busy = c->fresh = false;
    c->phase = DONE;
}

/* True: the head is whole. */
static bool take_head(struct client *c, size_t *used)
{
    char *end = memmem(c->in, c->n_in, "\r\n\r\n", 4);
    if (!end)
        return false;
    *end = 0;
    *used = (size_t)(end + 4 - c->in);
    c->status = (int)strtol(c->in + 9, NULL, 10);
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    c->closes = strcasestr(c->in, "\r\nconnection: close") != NULL;
    c->left = length ? strtoul(length + 17, NULL, 10) : 0;
    c->phase = length ? SIZED : CHUNK_SIZE;
    return true;
}

/* A part of the answer from `p`; returns how much it was, 0: more must come first. */
static size_t take_part(struct load *l, struct client *c, const char *p, size_t n)
{
    const char *end;
    size_t k;
    switch (c->phase) {
    case SIZED:
    case CHUNK_DATA:
        k = n < c->left ? n : c->left;
        take_body(l, c, p, k);
        c->left -= k;
        if (c->left == 0 && c->phase == CHUNK_DATA)
            c->phase = CHUNK_END;
        else if (c->left == 0)
            finish(l, c);
        return k;
    case CHUNK_SIZE:
    case CHUNK_END:
    case TRAILER:
        end = memmem(p, n, "\r\n", 2);
        if (!end)
            return 0;
        if (c->phase == CHUNK_SIZE) {
            c->left = strtoul(p, NULL, 16);
            c->phase = c->left ? CHUNK_DATA : TRAILER;
        } else if (c->phase == CHUNK_END) {
            c->phase = CHUNK_SIZE;
        } else {
            finish(l, c);
        }
        return (size_t)(end + 2 - p);
    default:
        return 0;
    }
}

static void take_input(struct load *l, struct client *c)
{
    size_t used = 0, k = 1;
    if (c->phase == HEAD && !take_head(c, &used))
        return;
    while (k > 0 && c->phase != DONE && used < c->n_in)
        used += k = take_part(l, c, c->in + used, c->n_in - used);
    memmove(c->in, c->in + used, c->n_in - used);
    c->n_in -= used;
}

static void on_readable(struct load *l, struct client *c)
{
    ssize_t n = read(c->fd, c->in + c->n_in, sizeof(c->in) - 1 - c->n_in);
    if (n < 0 && errno == EAGAIN)
        return;
    l->news_ns = clock_mono_ns();
    if (n <= 0) {
        close(c->fd);
        if (c->busy) {
            if (!c->fresh && c->phase == HEAD && c->n_in == 0) { /* it closed as we asked */
                dial(l, c);
                l->n_asked--;
                ask(l, c, c->asked_ns);
                return;
            }
            c->status = -2;
            finish(l, c);
        }
        dial(l, c);
        return;
    }
    c->n_in += (size_t)n;
    if (c->busy)
        take_input(l, c);
    if (!c->busy && c->closes) {
        close(c->fd);
        dial(l, c);
    }
}

/* ---- the run -----------------------------------------------------------------------------------
 */

static struct client *idle_client(struct load *l, size_t *from)
{
    for (size_t i = 0; i < l->n_clients; i++) {
        struct client *c = &l->clients[(*from + i) % l->n_clients];
        if (!c->busy) {
            *from = (*from + i + 1) % l->n_clients;
            return c;
        }
    }
    return NULL;
}

/* Returns how long to wait for events, ms. */
static int ask_more(struct load *l, uint64_t start_ns)
{
    static size_t at;
    if (l->rate <= 0) {
        for (size_t i = 0; i < l->n_clients && l->n_asked < l->n_requests; i++)
            if (!l->clients[i].busy)
                ask(l, &l->clients[i], clock_mono_ns());
        return 1000;
    }
    while (l->n_asked < l->n_requests) {
        uint64_t due = start_ns + (uint64_t)((double)l->n_asked * 1e9 / l->rate);
        uint64_t now = clock_mono_ns();
        struct client *c;
        if (due > now)
            return (int)((due - now) / 1000000); /* 0: spins for less than 1 ms */
        if (!(c = idle_client(l, &at)))
            break;
        ask(l, c, due);
    }
    return 1000;
}

static void hold(struct load *l)
{
    printf("holding\n");
    fflush(stdout);
    usleep((useconds_t)(l->hold_s * 1e6));
}

static void run(struct load *l)
{
    struct epoll_event events[256];
    uint64_t start_ns = clock_mono_ns();
    l->news_ns = start_ns;
    while (l->n_done < l->n_requests) {
        int wait = ask_more(l, start_ns);
        int n = epoll_wait(l->epoll, events, 256, wait);
        for (int i = 0; i < n; i++) {
            struct client *c = events[i].data.ptr;
            on_readable(l, c);
            /* The next one at once, not after all others of this round. */
            if (l->rate <= 0 && !c->busy && l->n_asked < l->n_requests)
                ask(l, c, clock_mono_ns());
        }
        if (l->hold_s > 0 && l->n_first >= l->n_clients) {
            hold(l);
            return;
        }
        if (clock_mono_ns() - l->news_ns > TIMEOUT_NS) {
            fprintf(stderr, "load: no news for 60 s; %zu of %zu done\n", l->n_done, l->n_requests);
            exit(1);
        }
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at_share(double *v, size_t n, double share)
{
    qsort(v, n, sizeof(*v), by_value);
    return n ? v[(size_t)((double)(n - 1) * share)] : 0;
}

static void print_result(struct load *l, double seconds)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    double cpu_ms = (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
                    (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
    printf("{\"done\": %zu, \"bad\": %zu, \"seconds\": %.4f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"first_p50_us\": %.1f, \"first_p99_us\": %.1f, \"load_cpu_ms\": %.1f}\n",
           l->n_done, l->n_bad, seconds, at_share(l->latency_us, l->n_done, 0.5),
           at_share(l->latency_us, l->n_done, 0.99), at_share(l->first_us, l->n_done, 0.5),
           at_share(l->first_us, l->n_done, 0.99), cpu_ms);
    if (l->n_bad)
        fprintf(stderr, "load: wrong answers: %zu, the first: %s\n", l->n_bad, l->bad);
}

static void read_options(struct load *l, int argc, char **argv)
{
    for (int i = 3; i < argc; i++) {
        char *eq = strchr(argv[i], '=');
        double v = eq ? strtod(eq + 1, NULL) : 0;
        if (!strncmp(argv[i], "connections=", 12))
            l->n_clients = (size_t)v;
        else if (!strncmp(argv[i], "requests=", 9))
            l->n_requests = (size_t)v;
        else if (!strncmp(argv[i], "tokens=", 7))
            l->tokens = (size_t)v;
        else if (!strncmp(argv[i], "rate=", 5))
            l->rate = v;
        else if (!strncmp(argv[i], "hold=", 5))
            l->hold_s = v;
        else {
            fprintf(stderr, "load: %s?\n", argv[i]);
            exit(2);
        }
    }
}

static void make_request(struct load *l, const char *where, const char *body)
{
    size_t cap = strlen(body) + 512;
    l->request = malloc(cap);
    if (!l->request)
        die("malloc");
    l->n_request = (size_t)snprintf(l->request, cap,
                                    "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\n"
                                    "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n"
                                    "%s",
                                    where, strlen(body), body);
    l->stream = strstr(body, "\"stream\":true") != NULL;
}

static void open_all(struct load *l, const char *where)
{
    char host[64];
    const char *colon = strrchr(where, ':');
    struct rlimit files;
    if (!colon || (size_t)(colon - where) >= sizeof(host))
        exit(2);
    memcpy(host, where, (size_t)(colon - where));
    host[colon - where] = 0;
    l->address.sin_family = AF_INET;
    l->address.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, host, &l->address.sin_addr) != 1)
        exit(2);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    l->clients = calloc(l->n_clients, sizeof(*l->clients));
    l->latency_us = calloc(l->n_requests + l->n_clients, sizeof(double));
    l->first_us = calloc(l->n_requests + l->n_clients, sizeof(double));
    if (!l->clients || !l->latency_us || !l->first_us)
        die("calloc");
    for (size_t i = 0; i < l->n_clients; i++)
        dial(l, &l->clients[i]);
}

int main(int argc, char **argv)
{
    static struct load l = {.n_clients = 1, .n_requests = 1, .tokens = 1};
    if (argc < 3) {
        fprintf(stderr, "usage: load HOST:PORT BODY [connections=N] [requests=N] [rate=N] "
                        "[tokens=N] [hold=SECONDS]\n");
        return 2;
    }
    read_options(&l, argc, argv);
    make_request(&l, argv[1], argv[2]);
    open_all(&l, argv[1]);
    uint64_t start_ns = clock_mono_ns();
    run(&l);
    print_result(&l, (double)(clock_mono_ns() - start_ns) / 1e9);
    return l.n_bad ? 3 : 0;
}
