/* http_backend: a model server that answers over HTTP as cheaply as it can be done, for the routers
 * that forward HTTP: what hash_worker is to ours.
 *
 *     http_backend PORT
 *
 * POST: an answer of "max_tokens" letters (hash_tokens.h) as a chat completion, in one piece or,
 * with "stream":true, as SSE with a chunk a letter: all at once, or "@pace MICROSECONDS" apart
 * where the prompt says so, and then all streams in step, as an engine's are. GET: what routers ask
 * to find out whether it lives. One thread, epoll; the request is searched for those three fields
 * and not parsed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "benchmarks/hash_worker/hash_tokens.h"
#include "runtime/base/clock.h"

#define IN_BYTES (256u << 10)
#define FDS_MAX 65536
#define HEAD_SSE \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

struct peer {
    int fd;
    char *in; /* (IN_BYTES) */
    size_t n_in;
    /* The stream that runs on it. */
    uint64_t hash;
    unsigned long sent, tokens;
    uint64_t step_us, due_ns;
    struct peer *prev, *next; /* of those with a pace */
    char *wait;               /* what the socket had no room for */
    size_t n_wait;
};

static struct peer *peers[FDS_MAX];
static struct peer *paced;
static int poll_fd;
static uint64_t n_answers;

/* ---- writing -----------------------------------------------------------------------------------
 */

static void watch(struct peer *p, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = p};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, p->fd, &ev);
}

static void say(struct peer *p, const char *data, size_t n)
{
    ssize_t k = p->n_wait ? 0 : write(p->fd, data, n);
    k = k < 0 ? 0 : k;
    if ((size_t)k == n)
        return;
    char *more = realloc(p->wait, p->n_wait + n - (size_t)k);
    if (!more)
        abort();
    p->wait = more;
    memcpy(p->wait + p->n_wait, data + k, n - (size_t)k);
    p->n_wait += n - (size_t)k;
    watch(p, EPOLLIN | EPOLLOUT);
}

static void say_rest(struct peer *p)
{
    ssize_t k = write(p->fd, p->wait, p->n_wait);
    if (k <= 0)
        return;
    p->n_wait -= (size_t)k;
    memmove(p->wait, p->wait + k, p->n_wait);
    if (p->n_wait == 0)
        watch(p, EPOLLIN);
}

/* ---- answers -----------------------------------------------------------------------------------
 */

static struct out {
    char data[IN_BYTES];
    size_t n;
} scratch;

static struct out *out_new(void)
{
    scratch.n = 0;
    return &scratch;
}

__attribute__((format(printf, 2, 3))) static void put(struct out *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    o->n += (size_t)vsnprintf(o->data + o->n, sizeof(o->data) - o->n, format, args);
    va_end(args);
}

static void put_event(struct out *o, const char *event, int n)
{
    put(o, "%x\r\n%.*s\r\n", (unsigned)n, n, event);
}

static void put_chunk(struct out *o, const struct peer *p, const char *delta, const char *finish)
{
    char event[512];
    int n = snprintf(event, sizeof(event),
                     "data: {\"id\":\"chatcmpl-%016llx\",\"object\":\"chat.completion.chunk\","
                     "\"created\":1700000000,\"model\":\"m\",\"system_fingerprint\":"
                     "\"fp_0123456789\",\"choices\":[{\"index\":0,\"delta\":{%s},\"logprobs\":"
                     "null,\"finish_reason\":%s}]}\n\n",
                     (unsigned long long)p->hash, delta, finish);
    put_event(o, event, n);
}

static void put_token(struct out *o, struct peer *p)
{
    char delta[32];
    snprintf(delta, sizeof(delta), "\"content\":\"%c\"",
             HASH_LETTERS[hash_letter(p->hash, p->sent++)]);
    put_chunk(o, p, delta, "null");
    if (p->sent < p->tokens)
        return;
    put_chunk(o, p, "", "\"length\"");
    put_event(o, "data: [DONE]\n\n", 14);
    put(o, "0\r\n\r\n");
}

static void answer_json(struct peer *p)
{
    struct out *o = out_new();
    char body[8192], text[4096];
    unsigned long n = p->tokens < sizeof(text) ? p->tokens : sizeof(text);
    for (unsigned long i = 0; i < n; i++)
        text[i] = HASH_LETTERS[hash_letter(p->hash, i)];
    int k = snprintf(body, sizeof(body),
                     "{\"id\":\"chatcmpl-%016llx\",\"object\":\"chat.completion\",\"created\":"
                     "1700000000,\"model\":\"m\",\"system_fingerprint\":\"fp_0123456789\","
                     "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
                     "\"%.*s\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"length\"}],"
                     "\"usage\":{\"prompt_tokens\":31,\"completion_tokens\":%lu,\"total_tokens\":"
                     "%lu,\"prompt_tokens_details\":{\"cached_tokens\":0}}}",
                     (unsigned long long)p->hash, (int)n, text, n, n + 31);
    put(o, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", k,
        body);
    say(p, o->data, o->n);
}

/* All streams of one pace fall due together, as the sequences of one step do. */
static void begin_pace(struct peer *p)
{
    uint64_t step_ns = p->step_us * 1000;
    p->due_ns = (clock_mono_ns() / step_ns + 1) * step_ns;
    p->next = paced;
    p->prev = NULL;
    if (paced)
        paced->prev = p;
    paced = p;
}

static void end_pace(struct peer *p)
{
    if (p->prev)
        p->prev->next = p->next;
    else
        paced = p->next;
    if (p->next)
        p->next->prev = p->prev;
    p->step_us = 0;
}

static void answer_stream(struct peer *p)
{
    struct out *o = out_new();
    put(o, HEAD_SSE);
    put_chunk(o, p, "\"role\":\"assistant\",\"content\":\"\"", "null");
    while (!p->step_us && p->sent < p->tokens)
        put_token(o, p);
    say(p, o->data, o->n);
    if (p->step_us)
        begin_pace(p);
}

/* Returns how long to wait for events, ms. */
static int step(void)
{
    uint64_t now = clock_mono_ns(), next = UINT64_MAX;
    for (struct peer *p = paced, *after; p; p = after) {
        after = p->next;
        if (p->due_ns <= now) {
            struct out *o = out_new();
            put_token(o, p);
            say(p, o->data, o->n);
            p->due_ns += p->step_us * 1000;
            p->due_ns = p->due_ns < now ? now : p->due_ns;
            if (p->sent >= p->tokens) {
                end_pace(p);
                continue;
            }
        }
        next = p->due_ns < next ? p->due_ns : next;
    }
    if (next == UINT64_MAX)
        return 1000;
    now = clock_mono_ns();
    return next > now ? (int)((next - now + 999999) / 1000000) : 0;
}

/* ---- requests ----------------------------------------------------------------------------------
 */

static void answer_get(struct peer *p)
{
    static const char body[] = "{\"object\":\"list\",\"data\":[{\"id\":\"m\",\"object\":\"model\","
                               "\"owned_by\":\"bench\",\"max_model_len\":8192}],\"status\":\"ok\","
                               "\"model_path\":\"m\",\"served_model_name\":\"m\","
                               "\"is_generation\":true,\"dp_size\":1}";
    struct out *o = out_new();
    put(o, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
        sizeof(body) - 1, body);
    say(p, o->data, o->n);
}

static unsigned long number_behind(const char *body, const char *key, unsigned long otherwise)
{
    const char *at = strstr(body, key);
    if (!at)
        return otherwise;
    at += strlen(key);
    return strtoul(at + strspn(at, "\": "), NULL, 10);
}

/* Whether the member is there and true, with blanks or without. */
static bool wants_stream(const char *body)
{
    const char *at = strstr(body, "\"stream\":");
    return at && strncmp(at + 9 + strspn(at + 9, " "), "true", 4) == 0;
}

static void answer_post(struct peer *p, const char *body)
{
    p->hash = hash_mix(++n_answers);
    p->tokens = number_behind(body, "\"max_tokens\":", 0);
    if (p->tokens == 0) /* sglang-router writes the newer name */
        p->tokens = number_behind(body, "\"max_completion_tokens\":", 16);
    p->sent = 0;
    p->step_us = 0;
    if (!wants_stream(body)) {
        answer_json(p);
        return;
    }
    p->step_us = number_behind(body, "@pace ", 0);
    answer_stream(p);
}

/* True: a whole request was answered. */
static bool take_request(struct peer *p)
{
    p->in[p->n_in] = 0;
    char *end = memmem(p->in, p->n_in, "\r\n\r\n", 4);
    if (!end)
        return false;
    size_t head = (size_t)(end + 4 - p->in), n = 0;
    *end = 0;
    const char *length = strcasestr(p->in, "\r\ncontent-length:");
    bool chunked = strcasestr(p->in, "\r\ntransfer-encoding:") != NULL;
    *end = '\r';
    if (length)
        n = strtoul(length + 17, NULL, 10);
    if (chunked) { /* some routers send so: one or more chunks up to the empty one */
        char *last = memmem(p->in + head, p->n_in - head, "\r\n0\r\n\r\n", 7);
        if (!last)
            return false;
        n = (size_t)(last + 7 - p->in) - head;
    }
    if (p->n_in < head + n)
        return false;
    char kept = p->in[head + n];
    p->in[head + n] = 0;
    if (strncmp(p->in, "POST", 4) == 0)
        answer_post(p, p->in + head);
    else
        answer_get(p);
    p->in[head + n] = kept;
    p->n_in -= head + n;
    memmove(p->in, p->in + head + n, p->n_in);
    return true;
}

static void drop(struct peer *p)
{
    if (p->step_us)
        end_pace(p);
    peers[p->fd] = NULL;
    close(p->fd);
    free(p->in);
    free(p->wait);
    free(p);
}

static void on_peer(struct peer *p, uint32_t events)
{
    if (p->n_wait && (events & EPOLLOUT))
        say_rest(p);
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t n = read(p->fd, p->in + p->n_in, IN_BYTES - 1 - p->n_in);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) {
        drop(p);
        return;
    }
    p->n_in += (size_t)n;
    while (p->n_in && take_request(p))
        continue;
}

static void take_peer(int listen_fd)
{
    int one = 1, fd;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct peer *p = fd < FDS_MAX ? calloc(1, sizeof(*p)) : NULL;
        if (!p || !(p->in = malloc(IN_BYTES)))
            abort();
        p->fd = fd;
        peers[fd] = p;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        struct epoll_event ev = {.events = EPOLLIN, .data.ptr = p};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &ev);
    }
}

static int listen_on(uint16_t port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4096) < 0) {
        perror("http_backend: listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    struct epoll_event events[256], ev = {.events = EPOLLIN, .data.ptr = NULL};
    struct rlimit files;
    if (argc != 2) {
        fprintf(stderr, "usage: http_backend PORT\n");
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int listen_fd = listen_on((uint16_t)strtoul(argv[1], NULL, 10));
    poll_fd = epoll_create1(EPOLL_CLOEXEC);
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listen_fd, &ev);
    for (;;) {
        int n = epoll_wait(poll_fd, events, 256, step());
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                on_peer(events[i].data.ptr, events[i].events);
            else
                take_peer(listen_fd);
        }
    }
}
