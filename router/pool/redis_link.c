#include "router/pool/redis_link.h"

#include <arpa/inet.h>
#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>
#include <hiredis/async.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/base/buf.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-function"
#include <hiredis/adapters/libevent.h>
#pragma GCC diagnostic pop

#define DIAL_MS_MIN 100
#define DIAL_MS_MAX 5000
/* More than any honest reply: 64 names, or a number for each of some thousand workers. */
#define REPLY_BYTES_MAX (4u << 20)
#define WORDS_BYTES_MAX (1u << 20)

enum link_state { LINK_IDLE, LINK_RESOLVING, LINK_CONNECTING, LINK_UP };

struct pending {
    redis_reply_fn *fn;
    uint32_t tag;
};

struct redis_link {
    struct event_base *base;
    struct evdns_base *dns; /* made when a name has to be resolved */
    struct evdns_getaddrinfo_request *resolving;
    redisAsyncContext *redis; /* CONNECTING and UP */
    enum link_state state;
    bool told;    /* that it is down */
    bool greeted; /* it has answered since it was connected */
    char *path;   /* of a unix socket, or NULL */
    char *host;
    uint16_t port;
    uint32_t db;
    char *password;
    uint32_t timeout_ms;
    void (*up)(void *ctx);
    void (*down)(void *ctx);
    void *ctx;
    struct rng rng;
    uint64_t dial_at_ms;
    uint32_t dial_ms;    /* the next pause */
    uint64_t waiting_ms; /* since when the oldest unanswered command, or the connection, waits */
    /* Replies come in order: a ring of what they are for. */
    struct pending pending[REDIS_LINK_PENDING_MAX];
    uint32_t first, n_pending;
    /* The command under construction: words one after the other, and where each ends. */
    struct buf words;
    size_t *ends;
    const char **argv;
    size_t *lens;
    size_t n_words, max_words;
    bool cmd_failed;
};

/* ---- the URL -------------------------------------------------------------------------------- */

static int parse_number(const char *s, size_t n, uint32_t max, uint32_t *out)
{
    uint64_t v = 0;
    if (n == 0 || n > 9)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    *out = (uint32_t)v;
    return v <= max ? 0 : -1;
}

/* "HOST", "HOST:PORT", "[V6]:PORT", each with "/DB" or without. */
static int parse_host(struct redis_link *l, const char *s)
{
    uint32_t port = 6379;
    size_t n = strcspn(s, "/");
    if (s[n] == '/' && s[n + 1] && parse_number(s + n + 1, strlen(s + n + 1), 65535, &l->db) < 0)
        return -1;
    const char *end = s + n;
    const char *name = s;
    const char *name_end;
    if (*s == '[') {
        name = s + 1;
        name_end = memchr(s, ']', n);
        if (!name_end)
            return -1;
        s = name_end + 1;
    } else {
        name_end = memchr(s, ':', n);
        name_end = name_end ? name_end : end;
        s = name_end;
    }
    if (s < end && (*s != ':' || parse_number(s + 1, (size_t)(end - s - 1), 65535, &port) < 0))
        return -1;
    if (name_end == name || name_end - name > 255 || port == 0)
        return -1;
    l->host = strndup(name, (size_t)(name_end - name));
    l->port = (uint16_t)port;
    return 0;
}

static int parse_url(struct redis_link *l, const char *url, struct err *e)
{
    if (strncmp(url, "unix:", 5) == 0 && url[5]) {
        const char *path = url + 5;
        l->path = strdup(strncmp(path, "//", 2) == 0 ? path + 2 : path);
        return l->path ? 0 : err_set(e, ERR_NOMEM, "no memory for the Redis URL");
    }
    if (strncmp(url, "redis://", 8) == 0 && parse_host(l, url + 8) == 0)
        return l->host ? 0 : err_set(e, ERR_NOMEM, "no memory for the Redis URL");
    return err_set(e, ERR_CONFIG, "redis: '%.100s' is not unix:PATH or redis://HOST:PORT/DB", url);
}

int redis_link_open(const struct redis_link_config *c, struct event_base *base,
                    struct redis_link **out, struct err *e)
{
    uint64_t seed;
    struct redis_link *l = calloc(1, sizeof(*l));
    if (!l)
        return err_set(e, ERR_NOMEM, "no memory for the Redis connection");
    l->base = base;
    l->timeout_ms = c->timeout_ms;
    l->up = c->up;
    l->down = c->down;
    l->ctx = c->ctx;
    l->dial_ms = DIAL_MS_MIN;
    buf_init(&l->words, WORDS_BYTES_MAX);
    rng_entropy(&seed, sizeof(seed));
    rng_init(&l->rng, seed);
    int rc = parse_url(l, c->url, e);
    if (rc == 0 && c->password && !(l->password = strdup(c->password)))
        rc = err_set(e, ERR_NOMEM, "no memory for the Redis connection");
    if (rc < 0)
        redis_link_free(l);
    else
        *out = l;
    return rc;
}

/* ---- commands ------------------------------------------------------------------------------- */

static void end_word(struct redis_link *l)
{
    if (l->n_words == l->max_words) {
        size_t max = l->max_words ? l->max_words * 2 : 32;
        size_t *ends = realloc(l->ends, max * sizeof(*ends));
        l->ends = ends ? ends : l->ends;
        const char **argv = realloc(l->argv, max * sizeof(*argv));
        l->argv = argv ? argv : l->argv;
        size_t *lens = realloc(l->lens, max * sizeof(*lens));
        l->lens = lens ? lens : l->lens;
        if (!ends || !argv || !lens) {
            l->cmd_failed = true;
            return;
        }
        l->max_words = max;
    }
    l->ends[l->n_words++] = l->words.len;
}

void redis_cmd(struct redis_link *l, const char *name)
{
    buf_clear(&l->words);
    l->n_words = 0;
    l->cmd_failed = false;
    redis_cmd_str(l, name);
}

void redis_cmd_str(struct redis_link *l, const char *s)
{
    buf_adds(&l->words, s);
    end_word(l);
}

void redis_cmd_fmt(struct redis_link *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_addvf(&l->words, fmt, ap);
    va_end(ap);
    end_word(l);
}

static void on_reply(redisAsyncContext *redis, void *reply, void *priv)
{
    (void)priv;
    struct redis_link *l = redis->data;
    struct pending p = l->pending[l->first];
    l->first = (l->first + 1) % REDIS_LINK_PENDING_MAX;
    l->n_pending--;
    l->waiting_ms = clock_mono_ms();
    if (reply && !l->greeted) {
        l->greeted = true;
        l->told = false;
        log_info("Redis is there", "at=%s", l->path ? l->path : l->host);
    }
    p.fn(l->ctx, p.tag, reply);
}

bool redis_cmd_send(struct redis_link *l, redis_reply_fn *fn, uint32_t tag)
{
    size_t at = 0;
    if (!l->redis || l->redis->err || l->n_pending == REDIS_LINK_PENDING_MAX || l->cmd_failed ||
        l->words.failed)
        return false;
    for (size_t i = 0; i < l->n_words; i++) {
        l->argv[i] = buf_str(&l->words) + at;
        l->lens[i] = l->ends[i] - at;
        at = l->ends[i];
    }
    if (redisAsyncCommandArgv(l->redis, on_reply, NULL, (int)l->n_words, l->argv, l->lens) !=
        REDIS_OK)
        return false;
    if (l->n_pending == 0)
        l->waiting_ms = clock_mono_ms();
    l->pending[(l->first + l->n_pending++) % REDIS_LINK_PENDING_MAX] =
        (struct pending){.fn = fn, .tag = tag};
    return true;
}

bool redis_link_is_up(const struct redis_link *l)
{
    return l->state == LINK_UP;
}

uint32_t redis_link_room(const struct redis_link *l)
{
    return l->state == LINK_UP ? REDIS_LINK_PENDING_MAX - l->n_pending : 0;
}

/* ---- connecting and losing ------------------------------------------------------------------ */

/* The context is gone, or about to be: plans the next dial. */
static void lost(struct redis_link *l, const char *why)
{
    bool was_up = l->state == LINK_UP;
    l->state = LINK_IDLE;
    l->redis = NULL;
    /* Half of the pause, and half by lot: routers that lost it together don't return together. */
    l->dial_at_ms = clock_mono_ms() + l->dial_ms / 2 + rng_below(&l->rng, l->dial_ms / 2 + 1);
    l->dial_ms = l->dial_ms * 2 < DIAL_MS_MAX ? l->dial_ms * 2 : DIAL_MS_MAX;
    if (!l->told)
        log_warn("Redis is away, the service goes on without", "why=\"%s\"", why);
    l->told = true;
    if (was_up)
        l->down(l->ctx);
}

/* Drops the context; hiredis answers what is pending with NULL. */
static void drop(struct redis_link *l, const char *why)
{
    redisAsyncContext *redis = l->redis;
    if (!redis)
        return;
    l->redis = NULL; /* nothing more is sent by the callbacks that run now */
    redis->onDisconnect = NULL;
    redisAsyncFree(redis);
    lost(l, why);
}

static void on_disconnect(const redisAsyncContext *redis, int status)
{
    struct redis_link *l = redis->data;
    lost(l, status == REDIS_OK ? "closed" : redis->errstr);
}

static void on_greeting(void *ctx, uint32_t tag, const redisReply *reply)
{
    (void)ctx;
    if (reply && reply->type == REDIS_REPLY_ERROR)
        log_error("Redis refuses", "command=%s why=\"%s\"", tag ? "SELECT" : "AUTH", reply->str);
}

static void on_connect(const redisAsyncContext *redis, int status)
{
    struct redis_link *l = redis->data;
    if (status != REDIS_OK) {
        lost(l, redis->errstr); /* hiredis frees the context */
        return;
    }
    l->state = LINK_UP;
    l->greeted = false;
    l->waiting_ms = clock_mono_ms();
    if (l->password) {
        redis_cmd(l, "AUTH");
        redis_cmd_str(l, l->password);
        redis_cmd_send(l, on_greeting, 0);
    }
    if (l->db) {
        redis_cmd(l, "SELECT");
        redis_cmd_fmt(l, "%u", l->db);
        redis_cmd_send(l, on_greeting, 1);
    }
    l->up(l->ctx);
}

static void connect_to(struct redis_link *l, const char *address)
{
    redisAsyncContext *redis =
        l->path ? redisAsyncConnectUnix(l->path) : redisAsyncConnect(address, l->port);
    if (!redis || redis->err) {
        lost(l, redis ? redis->errstr : "no memory");
        if (redis)
            redisAsyncFree(redis);
        return;
    }
    redis->data = l;
    l->redis = redis;
    l->state = LINK_CONNECTING;
    l->first = l->n_pending = 0;
    l->waiting_ms = clock_mono_ms();
    if (redisLibeventAttach(redis, l->base) != REDIS_OK) {
        drop(l, "no memory");
        return;
    }
    redisAsyncSetConnectCallback(redis, on_connect);
    redisAsyncSetDisconnectCallback(redis, on_disconnect);
}

static void on_resolved(int result, struct evutil_addrinfo *found, void *ctx)
{
    struct redis_link *l = ctx;
    char address[INET6_ADDRSTRLEN];
    if (result == EVUTIL_EAI_CANCEL)
        return;
    l->resolving = NULL;
    if (result != 0 || getnameinfo(found->ai_addr, (socklen_t)found->ai_addrlen, address,
                                   sizeof(address), NULL, 0, NI_NUMERICHOST) != 0)
        lost(l, evutil_gai_strerror(result));
    else
        connect_to(l, address);
    if (found)
        evutil_freeaddrinfo(found);
}

/* hiredis would resolve a name with getaddrinfo, and the loop would stand still for it. */
static void resolve(struct redis_link *l)
{
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    if (!l->dns)
        l->dns = evdns_base_new(l->base, EVDNS_BASE_INITIALIZE_NAMESERVERS |
                                             EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (!l->dns) {
        lost(l, "no name server is configured");
        return;
    }
    l->state = LINK_RESOLVING;
    l->waiting_ms = clock_mono_ms();
    /* The callback may have come already when this returns NULL. */
    struct evdns_getaddrinfo_request *r =
        evdns_getaddrinfo(l->dns, l->host, NULL, &hints, on_resolved, l);
    if (l->state == LINK_RESOLVING)
        l->resolving = r;
}

static void dial(struct redis_link *l)
{
    unsigned char numeric[16];
    if (l->path || inet_pton(AF_INET, l->host, numeric) == 1 ||
        inet_pton(AF_INET6, l->host, numeric) == 1)
        connect_to(l, l->host);
    else
        resolve(l);
}

void redis_link_tick(struct redis_link *l)
{
    uint64_t now_ms = clock_mono_ms();
    bool late = now_ms - l->waiting_ms > l->timeout_ms;
    switch (l->state) {
    case LINK_IDLE:
        if (now_ms >= l->dial_at_ms)
            dial(l);
        break;
    case LINK_RESOLVING:
        if (late) {
            if (l->resolving)
                evdns_getaddrinfo_cancel(l->resolving);
            l->resolving = NULL;
            lost(l, "its name is not resolved");
        }
        break;
    case LINK_CONNECTING:
        if (late)
            drop(l, "it does not take the connection");
        break;
    case LINK_UP:
        if (l->n_pending > 0 && late)
            drop(l, "it does not answer");
        else if (l->redis->c.reader->len > REPLY_BYTES_MAX)
            drop(l, "its reply is too long");
        else if (l->greeted && l->n_pending == 0)
            l->dial_ms = DIAL_MS_MIN; /* it has answered all: trusted again */
        break;
    }
}

void redis_link_free(struct redis_link *l)
{
    if (!l)
        return;
    if (l->state == LINK_UP)
        redisAsyncHandleWrite(l->redis);
    l->told = true;
    drop(l, "");
    if (l->resolving)
        evdns_getaddrinfo_cancel(l->resolving);
    if (l->dns)
        evdns_base_free(l->dns, 0);
    if (l->password)
        explicit_bzero(l->password, strlen(l->password));
    buf_release(&l->words);
    free(l->ends);
    free(l->argv);
    free(l->lens);
    free(l->password);
    free(l->path);
    free(l->host);
    free(l);
}
