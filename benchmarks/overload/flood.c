/* flood: asks at a rate whatever the answers do, as many clients would who do not know of each
 * other (Poisson arrivals, the same in every run), and prints what became of it as one line of
 * JSON.
 *
 *     flood HOST:PORT BODY rate=N seconds=N
 *
 * BODY is a request with "stream":true. Each request takes a connection that is free, or a new one.
 * Times count from when the request should have left. Answers that end with [DONE] are good, 429
 * and 503 are refusals, all else is bad. After the last request it waits for what runs, 20 s at
 * most.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/rng.h"

#define CONNS_MAX 4000
#define IN_BYTES 8192u
#define WAIT_NS 20000000000u

struct conn {
    int fd;
    struct conn *next; /* among the free ones */
    uint64_t asked_ns, first_ns;
    int status;
    size_t body_left; /* of a refusal */
    bool in_body;
    char in[IN_BYTES];
    size_t n;
};

struct sample {
    double *ms;
    size_t n, max;
};

static struct flood {
    struct sockaddr_in address;
    char *request;
    size_t n_request;
    int epoll;
    struct conn *idle;
    size_t n_conns, running;
    size_t asked, good, refused, bad, unsent;
    struct sample ttft, refusal;
    uint64_t last_good_ns;
    char why[200]; /* of the first bad one */
} f;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void add(struct sample *s, uint64_t from_ns, uint64_t to_ns)
{
    if (s->n == s->max) {
        s->max = s->max ? s->max * 2 : 1024;
        s->ms = realloc(s->ms, s->max * sizeof(double));
        if (!s->ms)
            die("memory");
    }
    s->ms[s->n++] = (double)(to_ns - from_ns) / 1e6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(struct sample *s, double q)
{
    if (s->n == 0)
        return 0;
    qsort(s->ms, s->n, sizeof(double), by_value);
    size_t at = (size_t)(q * (double)s->n);
    return s->ms[at < s->n ? at : s->n - 1];
}

/* ---- connections ----------------------------------------------------------------------------- */

static struct conn *take_conn(void)
{
    int one = 1;
    struct conn *c = f.idle;
    if (c) {
        f.idle = c->next;
        return c;
    }
    if (f.n_conns == CONNS_MAX || !(c = calloc(1, sizeof(*c))))
        return NULL;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&f.address, sizeof(f.address)) < 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(f.epoll, EPOLL_CTL_ADD, c->fd, &ev);
    f.n_conns++;
    return c;
}

static void drop(struct conn *c)
{
    close(c->fd);
    free(c);
    f.n_conns--;
}

static void ask(uint64_t when_ns)
{
    struct conn *c = take_conn();
    if (!c) {
        f.unsent++;
        return;
    }
    f.asked++;
    f.running++;
    c->asked_ns = when_ns;
    c->first_ns = 0;
    c->status = 0;
    c->n = c->body_left = 0;
    c->in_body = false;
    if (write(c->fd, f.request, f.n_request) != (ssize_t)f.n_request)
        die("write");
}

/* ---- answers --------------------------------------------------------------------------------- */

static void over(struct conn *c, bool keep)
{
    f.running--;
    c->asked_ns = 0;
    if (!keep) {
        drop(c);
        return;
    }
    c->next = f.idle;
    f.idle = c;
}

static void blame(struct conn *c, const char *what)
{
    f.bad++;
    if (!f.why[0])
        snprintf(f.why, sizeof(f.why), "%s, status %d", what, c->status);
    over(c, false);
}

static bool take_head(struct conn *c)
{
    char *end = memmem(c->in, c->n, "\r\n\r\n", 4);
    if (!end)
        return false;
    *end = 0;
    c->status = atoi(c->in + 9);
    char *length = strcasestr(c->in, "\r\ncontent-length:");
    c->body_left = length ? strtoul(length + 17, NULL, 10) : 0;
    c->in_body = true;
    size_t used = (size_t)(end + 4 - c->in);
    memmove(c->in, c->in + used, c->n - used);
    c->n -= used;
    return true;
}

/* True: the answer is over, and the connection is another's or gone. */
static bool take_bytes(struct conn *c, uint64_t at_ns)
{
    if (!c->in_body && !take_head(c))
        return false;
    if (c->status == 200) {
        if (!c->first_ns && memmem(c->in, c->n, "data: ", 6)) {
            c->first_ns = at_ns;
            add(&f.ttft, c->asked_ns, at_ns);
        }
        if (memmem(c->in, c->n, "[DONE]\n\n\r\n0\r\n\r\n", 15)) {
            f.good++;
            f.last_good_ns = at_ns;
            over(c, true);
            return true;
        }
        size_t keep = c->n < 64 ? c->n : 64; /* an end that is cut in two */
        memmove(c->in, c->in + c->n - keep, keep);
        c->n = keep;
        return false;
    }
    if (c->n < c->body_left)
        return false;
    if (c->status != 429 && c->status != 503) {
        blame(c, "answer");
        return true;
    }
    f.refused++;
    add(&f.refusal, c->asked_ns, at_ns);
    over(c, true);
    return true;
}

static void on_readable(struct conn *c)
{
    for (;;) {
        ssize_t n = read(c->fd, c->in + c->n, IN_BYTES - c->n);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0 || !c->asked_ns) {
            if (c->asked_ns) {
                blame(c, "closed");
                return;
            }
            struct conn **at = &f.idle;
            while (*at && *at != c)
                at = &(*at)->next;
            if (*at)
                *at = c->next;
            drop(c);
            return;
        }
        c->n += (size_t)n;
        if (take_bytes(c, now_ns()))
            return;
    }
}

/* ---- the run --------------------------------------------------------------------------------- */

static void run(double rate, double seconds)
{
    uint64_t begun_ns = now_ns(), end_ns = 0;
    double next_s = 0;
    struct rng rng;
    rng_init(&rng, 1);
    while (next_s < seconds || f.running > 0) {
        uint64_t at_ns = now_ns();
        while (next_s < seconds && begun_ns + (uint64_t)(next_s * 1e9) <= at_ns) {
            ask(begun_ns + (uint64_t)(next_s * 1e9));
            next_s -= log(1 - rng_unit(&rng)) / rate;
        }
        if (next_s >= seconds && !end_ns)
            end_ns = at_ns + WAIT_NS;
        if (end_ns && at_ns > end_ns)
            break;
        struct epoll_event evs[256];
        int got = epoll_wait(f.epoll, evs, 256, 1);
        for (int i = 0; i < got; i++)
            on_readable(evs[i].data.ptr);
    }
    double took_s = (double)((f.last_good_ns ? f.last_good_ns : now_ns()) - begun_ns) / 1e9;
    if (took_s < seconds)
        took_s = seconds;
    printf("{\"rate\":%.1f,\"seconds\":%.2f,\"asked\":%zu,\"good\":%zu,\"refused\":%zu,\"bad\":%zu,"
           "\"unsent\":%zu,\"unfinished\":%zu,\"good_per_s\":%.2f,\"ttft_p50_ms\":%.2f,"
           "\"ttft_p99_ms\":%.2f,\"refusal_p50_ms\":%.2f,\"refusal_p99_ms\":%.2f,"
           "\"refusal_max_ms\":%.2f,\"why\":\"%s\"}\n",
           rate, took_s, f.asked, f.good, f.refused, f.bad, f.unsent, f.running,
           (double)f.good / took_s, quantile(&f.ttft, 0.5), quantile(&f.ttft, 0.99),
           quantile(&f.refusal, 0.5), quantile(&f.refusal, 0.99), quantile(&f.refusal, 1), f.why);
}

int main(int argc, char **argv)
{
    double rate = 0, seconds = 0;
    struct rlimit limit;
    for (int i = 3; i < argc; i++)
        if (sscanf(argv[i], "rate=%lf", &rate) != 1 &&
            sscanf(argv[i], "seconds=%lf", &seconds) != 1)
            rate = -1;
    char *colon = argc > 2 ? strrchr(argv[1], ':') : NULL;
    if (!colon || rate <= 0 || seconds <= 0) {
        fprintf(stderr, "usage: flood HOST:PORT BODY rate=N seconds=N\n");
        return 2;
    }
    *colon = 0;
    f.address.sin_family = AF_INET;
    f.address.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, argv[1], &f.address.sin_addr) != 1)
        die("HOST is an IPv4 address");
    int n =
        asprintf(&f.request,
                 "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 strlen(argv[2]), argv[2]);
    if (n < 0)
        die("memory");
    f.n_request = (size_t)n;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    f.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (f.epoll < 0)
        die("epoll");
    run(rate, seconds);
    return 0;
}
