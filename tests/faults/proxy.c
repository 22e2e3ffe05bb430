/* proxy: a bad network between a worker and its router, or a router and its Redis.
 *
 *     proxy TARGET      HOST:PORT or unix:PATH; prints "port N", then obeys lines on its input
 *
 *   delay MS            of every piece, in both directions
 *   slice N             bytes that are written at once; 0: all there are
 *   cut up|down|both    nothing is carried that way (up: to the target) until pass; the ends stay
 * open, and what was under way arrives late, as after a partition pass                no delay, no
 * slices, no cut, new connections welcome close, reset        all connections, in order or by RST
 *   half                the target's ends are closed, and the others never hear of it
 *   refuse              resets whoever dials, until pass
 *   replay [OLD NEW]    dials the target and says once more what the last connection said at first,
 *                       with the bytes OLD put for NEW (hex, of one length)
 *   count               answers with the number of connections
 *
 * Each line is answered with "ok", or "ok N". One thread; ends with its input.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/base/clock.h"

#define PAIRS_MAX 4096
#define PIECE_BYTES 16384
#define QUEUE_BYTES_MAX (1u << 20)
#define RECORD_BYTES 4096

struct piece {
    struct piece *next;
    uint64_t due_ms;
    size_t at, n;
    unsigned char bytes[PIECE_BYTES];
};

struct flow {
    int from, to;
    bool up;
    bool ended; /* `from` has said its last */
    bool told;  /* so has `to` heard */
    size_t queued;
    struct piece *head, **tail;
};

struct pair {
    int client, target;
    bool dead;
    bool deaf; /* its client is never told of anything any more */
    struct flow up, down;
};

static struct pair *pairs[PAIRS_MAX];
static size_t n_pairs;
static struct sockaddr_storage target;
static socklen_t target_bytes;
static unsigned char record[RECORD_BYTES];
static size_t n_record;
static const struct pair *recorded;

static struct {
    uint64_t delay_ms;
    size_t slice;
    bool cut_up, cut_down, refuse;
} mode;

static void fatal(const char *what)
{
    perror(what);
    exit(1);
}

/* ---- connections ---------------------------------------------------------------------------- */

static int dial(void)
{
    int fd = socket(target.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&target, target_bytes) < 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (target.ss_family == AF_INET)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    return fd;
}

static void reset(int fd)
{
    struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
}

static void pair_add(int client, int to)
{
    struct pair *p = n_pairs < PAIRS_MAX ? calloc(1, sizeof(*p)) : NULL;
    if (!p) {
        reset(client);
        reset(to);
        return;
    }
    p->client = client;
    p->target = to;
    p->up = (struct flow){.from = client, .to = to, .up = true};
    p->down = (struct flow){.from = to, .to = client};
    p->up.tail = &p->up.head;
    p->down.tail = &p->down.head;
    pairs[n_pairs++] = p;
    recorded = p;
    n_record = 0;
}

static void flow_free(struct flow *f)
{
    while (f->head) {
        struct piece *next = f->head->next;
        free(f->head);
        f->head = next;
    }
}

static void pair_end(struct pair *p, bool hard)
{
    void (*end)(int) = reset;
    if (p->client >= 0)
        hard ? end(p->client) : (void)close(p->client);
    if (p->target >= 0)
        hard ? end(p->target) : (void)close(p->target);
    p->client = p->target = -1;
    p->dead = true;
}

static void bury(void)
{
    for (size_t i = 0; i < n_pairs;) {
        struct pair *p = pairs[i];
        if (!p->dead) {
            i++;
            continue;
        }
        flow_free(&p->up);
        flow_free(&p->down);
        recorded = recorded == p ? NULL : recorded;
        free(p);
        pairs[i] = pairs[--n_pairs];
    }
}

static void welcome(int listener)
{
    int client = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0)
        return;
    int to = mode.refuse ? -1 : dial();
    if (to < 0) {
        reset(client);
        return;
    }
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    pair_add(client, to);
}

/* ---- bytes ---------------------------------------------------------------------------------- */

static bool is_cut(const struct flow *f)
{
    return f->up ? mode.cut_up : mode.cut_down;
}

static bool wants_read(const struct pair *p, const struct flow *f)
{
    return !p->deaf && !f->ended && !is_cut(f) && f->queued < QUEUE_BYTES_MAX;
}

static void take(struct pair *p, struct flow *f)
{
    struct piece *b = malloc(sizeof(*b));
    if (!b)
        fatal("malloc");
    ssize_t n = read(f->from, b->bytes, sizeof(b->bytes));
    if (n <= 0) {
        free(b);
        if (n == 0)
            f->ended = true;
        else if (errno != EAGAIN && errno != EINTR)
            pair_end(p, true);
        return;
    }
    b->n = (size_t)n;
    b->at = 0;
    b->next = NULL;
    b->due_ms = clock_mono_ms() + mode.delay_ms;
    *f->tail = b;
    f->tail = &b->next;
    f->queued += b->n;
    if (f->up && p == recorded && n_record < RECORD_BYTES) {
        size_t more = b->n < RECORD_BYTES - n_record ? b->n : RECORD_BYTES - n_record;
        memcpy(record + n_record, b->bytes, more);
        n_record += more;
    }
}

/* Returns when it wants to be called again, in ms; -1: never by itself. */
static int give(struct pair *p, struct flow *f, uint64_t now_ms)
{
    while (f->head && !is_cut(f) && !p->deaf) {
        struct piece *b = f->head;
        if (b->due_ms > now_ms)
            return (int)(b->due_ms - now_ms);
        size_t n = b->n - b->at;
        n = mode.slice && n > mode.slice ? mode.slice : n;
        ssize_t done = send(f->to, b->bytes + b->at, n, MSG_NOSIGNAL);
        if (done < 0 && (errno == EAGAIN || errno == EINTR))
            return 1;
        if (done < 0) {
            pair_end(p, true);
            return -1;
        }
        b->at += (size_t)done;
        f->queued -= (size_t)done;
        if (b->at == b->n) {
            f->head = b->next;
            f->tail = f->head ? f->tail : &f->head;
            free(b);
        }
    }
    if (f->ended && !f->head && !f->told && !p->deaf) {
        f->told = true;
        shutdown(f->to, SHUT_WR);
        if (p->up.told && p->down.told)
            pair_end(p, false);
    }
    return -1;
}

/* ---- commands ------------------------------------------------------------------------------- */

static size_t from_hex(const char *text, unsigned char *out, size_t cap)
{
    size_t n = 0;
    unsigned v;
    while (n < cap && sscanf(text + 2 * n, "%2x", &v) == 1 && text[2 * n + 1])
        out[n++] = (unsigned char)v;
    return n;
}

static void replay(const char *was, const char *is)
{
    unsigned char a[32], b[32], said[RECORD_BYTES];
    size_t n = from_hex(was, a, sizeof(a));
    int fd = dial();
    if (fd < 0 || from_hex(is, b, sizeof(b)) != n)
        fatal("replay");
    memcpy(said, record, n_record);
    for (size_t i = 0; n && i + n <= n_record; i++)
        if (memcmp(said + i, a, n) == 0)
            memcpy(said + i, b, n);
    size_t left = n_record;
    int nobody[2];
    if (pipe(nobody) < 0 || send(fd, said, left, MSG_NOSIGNAL) != (ssize_t)left)
        fatal("replay");
    close(nobody[1]);
    /* What the target answers goes nowhere; it is closed with the others. */
    pair_add(nobody[0], fd);
    pairs[n_pairs - 1]->deaf = true;
}

static void each(void (*fn)(struct pair *p))
{
    for (size_t i = 0; i < n_pairs; i++)
        fn(pairs[i]);
}

static void end_hard(struct pair *p)
{
    pair_end(p, true);
}

static void end_soft(struct pair *p)
{
    pair_end(p, false);
}

static void end_half(struct pair *p)
{
    if (p->target >= 0)
        close(p->target);
    p->target = -1;
    p->deaf = true;
}

static void obey(char *line)
{
    char word[16] = "", a[72] = "", b[72] = "";
    size_t answer = SIZE_MAX;
    sscanf(line, "%15s %71s %71s", word, a, b);
    if (!strcmp(word, "delay"))
        mode.delay_ms = strtoull(a, NULL, 10);
    else if (!strcmp(word, "slice"))
        mode.slice = strtoull(a, NULL, 10);
    else if (!strcmp(word, "cut"))
        mode.cut_up = strcmp(a, "down"), mode.cut_down = strcmp(a, "up");
    else if (!strcmp(word, "pass"))
        memset(&mode, 0, sizeof(mode));
    else if (!strcmp(word, "refuse"))
        mode.refuse = true;
    else if (!strcmp(word, "close"))
        each(end_soft);
    else if (!strcmp(word, "reset"))
        each(end_hard);
    else if (!strcmp(word, "half"))
        each(end_half);
    else if (!strcmp(word, "replay"))
        replay(a, b);
    else if (!strcmp(word, "count"))
        answer = n_pairs;
    else
        exit(2);
    if (answer == SIZE_MAX)
        puts("ok");
    else
        printf("ok %zu\n", answer);
    fflush(stdout);
}

static void read_commands(void)
{
    static char text[1024];
    static size_t have;
    ssize_t n = read(STDIN_FILENO, text + have, sizeof(text) - 1 - have);
    if (n <= 0)
        exit(0);
    have += (size_t)n;
    text[have] = 0;
    for (char *end; (end = strchr(text, '\n'));) {
        *end = 0;
        obey(text);
        have -= (size_t)(end + 1 - text);
        memmove(text, end + 1, have + 1);
    }
}

/* ---- the loop ------------------------------------------------------------------------------- */

static int serve(struct pollfd *fds, int listener)
{
    int wait_ms = -1;
    nfds_t n = 2;
    uint64_t now_ms = clock_mono_ms();
    size_t served = n_pairs;
    for (size_t i = 0; i < served; i++) {
        struct pair *p = pairs[i];
        for (int k = 0; k < 2 && !p->dead; k++) {
            int ms = give(p, k ? &p->down : &p->up, now_ms);
            wait_ms = ms >= 0 && (wait_ms < 0 || ms < wait_ms) ? ms : wait_ms;
        }
        for (int k = 0; k < 2; k++) {
            struct flow *f = k ? &p->down : &p->up;
            bool reads = !p->dead && wants_read(p, f);
            fds[n++] = (struct pollfd){.fd = reads ? f->from : -1, .events = POLLIN};
        }
    }
    fds[0] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = listener, .events = POLLIN};
    if (poll(fds, n, wait_ms) < 0)
        return errno == EINTR ? 0 : -1;
    for (size_t i = 0; i < served; i++)
        for (int k = 0; k < 2 && !pairs[i]->dead; k++)
            if (fds[2 + 2 * i + (size_t)k].revents)
                take(pairs[i], k ? &pairs[i]->down : &pairs[i]->up);
    if (fds[1].revents)
        welcome(listener);
    if (fds[0].revents)
        read_commands();
    bury();
    return 0;
}

static void aim(const char *text)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&target;
    struct sockaddr_in *in = (struct sockaddr_in *)&target;
    const char *colon = strrchr(text, ':');
    char host[64];
    if (strncmp(text, "unix:", 5) == 0) {
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof(un->sun_path), "%s", text + 5);
        target_bytes = sizeof(*un);
        return;
    }
    if (!colon || colon - text >= (int)sizeof(host))
        exit(2);
    snprintf(host, sizeof(host), "%.*s", (int)(colon - text), text);
    in->sin_family = AF_INET;
    in->sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
    if (inet_pton(AF_INET, host, &in->sin_addr) != 1)
        exit(2);
    target_bytes = sizeof(*in);
}

int main(int argc, char **argv)
{
    static struct pollfd fds[2 + 2 * PAIRS_MAX];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(at);
    struct rlimit files;
    if (argc != 2)
        return 2;
    aim(argv[1]);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, n) < 0 ||
        listen(listener, 4096) < 0 || getsockname(listener, (struct sockaddr *)&at, &n) < 0)
        fatal("listen");
    printf("port %u\n", ntohs(at.sin_port));
    fflush(stdout);
    while (serve(fds, listener) == 0)
        ;
    fatal("poll");
}
