/* loadtable.c: what is written to the load table, and what is read from it.
 *
 * Each tick: what changed since it was last written, and everything once a third of a lease, so
 * that a table that was flushed, lost or written over heals by itself. A hash and its lease are one
 * MULTI, so that no key without a lease is left behind.
 */
#include "router/pool/loadtable.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "router/pool/pool.h"
#include "router/pool/redis_link.h"
#include "runtime/base/clock.h"
#include "runtime/base/fnv.h"
#include "runtime/base/log.h"

#define NAME_BYTES 64
#define ADDRESS_BYTES 128
/* Names looked at in one round, drawn by Redis: more routers than this are seen in turns. */
#define NAMES_MAX 64
/* Batches between two looks at the other routers. */
#define READ_EVERY 4
#define TOKENS_MAX 1000000000000u
/* Commands that a worker needs at most in a tick. */
#define WORKER_COMMANDS 8

/* A worker as it was last written. */
struct shadow {
    char id[NAME_BYTES];
    char state[16];
    uint64_t hash; /* of what is written; 0: nothing */
    uint64_t inflight_tokens;
    uint64_t written_ms;
    bool announced; /* its join was published */
    bool seen;      /* in this tick */
};

/* One look at the in-flight counts of other routers: a command each, summed by worker. */
struct look {
    uint32_t n_pending;
    bool failed;
    char (*ids)[NAME_BYTES]; /* (n): workers of this router when the look began */
    uint64_t *tokens;        /* (n) */
    size_t n;
    char addresses[NAMES_MAX][ADDRESS_BYTES];
    size_t n_addresses;
};

struct loadtable {
    struct redis_link *redis;
    struct pool *pool;
    struct event *timer;
    char cluster[NAME_BYTES];
    char router_id[NAME_BYTES];
    char address[ADDRESS_BYTES];
    uint32_t lease_ms;
    uint32_t ticks;
    struct shadow *shadows;
    size_t n_shadows, max_shadows;
    size_t hint; /* where the next one is likely to be */
    uint64_t inflight_hash;
    uint64_t inflight_written_ms;
    uint64_t refused_ms; /* when Redis last said no to a write; 0: not on this connection */
    bool told_refused;
    bool in_sync;
    char routers[NAMES_MAX][NAME_BYTES];
    uint32_t n_routers;
    char suspects[NAMES_MAX][NAME_BYTES]; /* workers whose lease is being looked at */
    uint32_t n_suspects_pending;
    struct look look;
};

/* ---- words ---------------------------------------------------------------------------------- */

static void add_key(struct loadtable *t, const char *what, const char *id)
{
    redis_cmd_fmt(t->redis, "argosy:{%s}:%s%s", t->cluster, what, id);
}

static bool name_is_plain(const char *s, size_t n)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-";
    if (n == 0 || n >= NAME_BYTES)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!s[i] || !strchr(letters, s[i]))
            return false;
    return true;
}

static bool address_is_plain(const char *s, size_t n)
{
    if (n == 0 || n >= ADDRESS_BYTES)
        return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || s[i] > '~')
            return false;
    return true;
}

/* What another router wrote, or whoever: 0 unless it is a decent number. */
static uint64_t parse_tokens(const redisReply *r)
{
    uint64_t v = 0;
    if (r->type != REDIS_REPLY_STRING || r->len == 0 || r->len > 15)
        return 0;
    for (size_t i = 0; i < r->len; i++) {
        if (r->str[i] < '0' || r->str[i] > '9')
            return 0;
        v = v * 10 + (uint64_t)(r->str[i] - '0');
    }
    return v < TOKENS_MAX ? v : TOKENS_MAX;
}

static uint64_t hash_str(uint64_t h, const char *s)
{
    return fnv1a(h, s, strlen(s) + 1);
}

/* ---- writing -------------------------------------------------------------------------------- */

/* The error in a reply, or inside that of an EXEC; NULL: none. */
static const redisReply *error_in(const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR)
        return reply;
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
        if (reply->element[i]->type == REDIS_REPLY_ERROR)
            return reply->element[i];
    return NULL;
}

static void on_written(void *ctx, uint32_t tag, const redisReply *reply)
{
    (void)tag;
    struct loadtable *t = ctx;
    const redisReply *error = reply ? error_in(reply) : NULL;
    if (reply && !error)
        return;
    t->refused_ms = clock_mono_ms();
    t->in_sync = false;
    if (error && !t->told_refused) {
        log_warn("Redis refuses what is written to the load table", "why=\"%s\"", error->str);
        t->told_refused = true;
    }
}

static void send_word(struct loadtable *t, const char *name)
{
    redis_cmd(t->redis, name);
    redis_cmd_send(t->redis, on_written, 0);
}

static void send_lease(struct loadtable *t, const char *what, const char *id)
{
    redis_cmd(t->redis, "PEXPIRE");
    add_key(t, what, id);
    redis_cmd_fmt(t->redis, "%u", t->lease_ms);
    redis_cmd_send(t->redis, on_written, 0);
}

/* SADD, SREM, DEL: a command on a key, with a member or without. */
static void send_key(struct loadtable *t, const char *command, const char *what, const char *id,
                     const char *member)
{
    redis_cmd(t->redis, command);
    add_key(t, what, id);
    if (member)
        redis_cmd_str(t->redis, member);
    redis_cmd_send(t->redis, on_written, 0);
}

static void publish(struct loadtable *t, const char *event, const char *id)
{
    redis_cmd(t->redis, "PUBLISH");
    add_key(t, "events", "");
    redis_cmd_fmt(t->redis, "%s %s", event, id);
    redis_cmd_send(t->redis, on_written, 0);
}

static void add_uint(struct loadtable *t, const char *field, uint64_t v)
{
    redis_cmd_str(t->redis, field);
    redis_cmd_fmt(t->redis, "%llu", (unsigned long long)v);
}

static void add_str(struct loadtable *t, const char *field, const char *v)
{
    redis_cmd_str(t->redis, field);
    redis_cmd_str(t->redis, v);
}

static void write_worker(struct loadtable *t, const struct pool_worker_view *v)
{
    send_word(t, "MULTI");
    redis_cmd(t->redis, "HSET");
    add_key(t, "worker:", v->id);
    add_str(t, "state", v->state);
    add_str(t, "device", v->device_kind);
    add_str(t, "device_name", v->device_name);
    add_str(t, "models", v->models);
    add_uint(t, "capacity", v->sequences_max);
    add_uint(t, "running", v->running);
    add_uint(t, "waiting", v->waiting);
    add_uint(t, "kv_pages", v->kv_pages);
    add_uint(t, "kv_pages_used", v->kv_pages_used);
    redis_cmd_str(t->redis, "prefill_tokens_per_s");
    redis_cmd_fmt(t->redis, "%.1f", v->prefill_tokens_per_s);
    redis_cmd_str(t->redis, "decode_tokens_per_s");
    redis_cmd_fmt(t->redis, "%.1f", v->decode_tokens_per_s);
    redis_cmd_str(t->redis, "price");
    redis_cmd_fmt(t->redis, "%g", v->price);
    add_str(t, "router", t->router_id);
    redis_cmd_send(t->redis, on_written, 0);
    send_lease(t, "worker:", v->id);
    send_word(t, "EXEC");
    send_key(t, "SADD", "workers", "", v->id);
}

static uint64_t hash_of_view(const struct pool_worker_view *v)
{
    uint64_t numbers[] = {v->running,       v->waiting,
                          v->kv_pages_used, (uint64_t)(v->prefill_tokens_per_s * 10),
                          v->sequences_max, (uint64_t)(v->decode_tokens_per_s * 10)};
    uint64_t h = fnv1a(FNV_SEED, numbers, sizeof(numbers));
    h = hash_str(hash_str(hash_str(h, v->state), v->models), v->device_name);
    return h ? h : 1;
}

static struct shadow *shadow_of(struct loadtable *t, const char *id)
{
    /* The pool lists its workers in the same order every time, or nearly so. */
    for (size_t i = 0; i < t->n_shadows; i++) {
        size_t at = (t->hint + i) % t->n_shadows;
        if (strcmp(t->shadows[at].id, id) == 0) {
            t->hint = at + 1;
            return &t->shadows[at];
        }
    }
    if (t->n_shadows == t->max_shadows) {
        size_t max = t->max_shadows ? t->max_shadows * 2 : 16;
        struct shadow *more = realloc(t->shadows, max * sizeof(*more));
        if (!more)
            return NULL;
        t->shadows = more;
        t->max_shadows = max;
    }
    struct shadow *s = &t->shadows[t->n_shadows++];
    memset(s, 0, sizeof(*s));
    snprintf(s->id, sizeof(s->id), "%s", id);
    return s;
}

static bool refresh_is_due(const struct loadtable *t, uint64_t written_ms)
{
    return clock_mono_ms() - written_ms >= t->lease_ms / 3;
}

static void write_if_changed(void *ctx, const struct pool_worker_view *v)
{
    struct loadtable *t = ctx;
    struct shadow *s = shadow_of(t, v->id);
    if (!s)
        return;
    s->seen = true;
    s->inflight_tokens = v->inflight_tokens;
    uint64_t hash = hash_of_view(v);
    bool write = hash != s->hash || refresh_is_due(t, s->written_ms);
    if (!write || redis_link_room(t->redis) < WORKER_COMMANDS)
        return;
    write_worker(t, v);
    if (!s->announced)
        publish(t, "join", s->id);
    else if (strcmp(v->state, "draining") == 0 && strcmp(s->state, "draining") != 0)
        publish(t, "drain", s->id);
    s->announced = true;
    s->hash = hash;
    s->written_ms = clock_mono_ms();
    snprintf(s->state, sizeof(s->state), "%s", v->state);
}

static void write_leave(struct loadtable *t, const char *id)
{
    send_key(t, "DEL", "worker:", id, NULL);
    send_key(t, "SREM", "workers", "", id);
    publish(t, "leave", id);
}

static void write_workers(struct loadtable *t)
{
    for (size_t i = 0; i < t->n_shadows; i++)
        t->shadows[i].seen = false;
    pool_each_worker(t->pool, write_if_changed, t);
    for (size_t i = 0; i < t->n_shadows;) {
        struct shadow *s = &t->shadows[i];
        if (s->seen || (s->announced && redis_link_room(t->redis) < WORKER_COMMANDS)) {
            i++;
            continue;
        }
        if (s->announced)
            write_leave(t, s->id);
        *s = t->shadows[--t->n_shadows];
    }
}

static void write_inflight(struct loadtable *t)
{
    uint64_t hash = FNV_SEED;
    for (size_t i = 0; i < t->n_shadows; i++) {
        hash = hash_str(hash, t->shadows[i].id);
        hash = fnv1a(hash, &t->shadows[i].inflight_tokens, sizeof(uint64_t));
    }
    if ((hash == t->inflight_hash && !refresh_is_due(t, t->inflight_written_ms)) ||
        redis_link_room(t->redis) < WORKER_COMMANDS)
        return;
    send_word(t, "MULTI");
    send_key(t, "DEL", "inflight:", t->router_id, NULL);
    redis_cmd(t->redis, "HSET");
    add_key(t, "inflight:", t->router_id);
    /* Never an empty hash: Redis would not keep it, and with it the router. */
    add_str(t, "@address", t->address);
    for (size_t i = 0; i < t->n_shadows; i++)
        add_uint(t, t->shadows[i].id, t->shadows[i].inflight_tokens);
    redis_cmd_send(t->redis, on_written, 0);
    send_lease(t, "inflight:", t->router_id);
    send_word(t, "EXEC");
    send_key(t, "SADD", "routers", "", t->router_id);
    t->inflight_hash = hash;
    t->inflight_written_ms = clock_mono_ms();
}

/* ---- reading: other routers ----------------------------------------------------------------- */

static void look_clear(struct look *k)
{
    free(k->ids);
    free(k->tokens);
    *k = (struct look){0};
}

static void look_end(struct loadtable *t)
{
    struct look *k = &t->look;
    const char *addresses[NAMES_MAX];
    for (size_t i = 0; i < k->n_addresses; i++)
        addresses[i] = k->addresses[i];
    if (!k->failed) {
        for (size_t i = 0; i < k->n; i++)
            pool_set_others(t->pool, k->ids[i], k->tokens[i]);
        pool_set_routers(t->pool, addresses, k->n_addresses);
    }
    look_clear(k);
}

/* An expired key: the router is dead, and so is its place in the set. */
static void forget_router(struct loadtable *t, uint32_t i)
{
    log_info("router is gone from the load table", "id=%s", t->routers[i]);
    send_key(t, "SREM", "routers", "", t->routers[i]);
}

static void on_inflight(void *ctx, uint32_t tag, const redisReply *reply)
{
    struct loadtable *t = ctx;
    struct look *k = &t->look;
    if (!reply) {
        k->failed = true;
    } else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == k->n + 1) {
        const redisReply *address = reply->element[0];
        if (address->type == REDIS_REPLY_NIL)
            forget_router(t, tag);
        else if (address->type == REDIS_REPLY_STRING &&
                 address_is_plain(address->str, address->len) && k->n_addresses < NAMES_MAX)
            memcpy(k->addresses[k->n_addresses++], address->str, address->len + 1);
        for (size_t i = 0; i < k->n; i++)
            k->tokens[i] += parse_tokens(reply->element[i + 1]);
    }
    if (--k->n_pending == 0)
        look_end(t);
}

static void send_look(struct loadtable *t)
{
    struct look *k = &t->look;
    if (k->n_pending > 0 || t->n_routers == 0)
        return;
    k->ids = calloc(t->n_shadows + 1, sizeof(*k->ids));
    k->tokens = calloc(t->n_shadows + 1, sizeof(*k->tokens));
    if (!k->ids || !k->tokens) {
        look_clear(k);
        return;
    }
    for (; k->n < t->n_shadows; k->n++)
        memcpy(k->ids[k->n], t->shadows[k->n].id, NAME_BYTES);
    for (uint32_t r = 0; r < t->n_routers; r++) {
        redis_cmd(t->redis, "HMGET");
        add_key(t, "inflight:", t->routers[r]);
        redis_cmd_str(t->redis, "@address");
        for (size_t i = 0; i < k->n; i++)
            redis_cmd_str(t->redis, k->ids[i]);
        k->n_pending += redis_cmd_send(t->redis, on_inflight, r);
    }
    if (k->n_pending == 0)
        look_clear(k);
}

static void on_routers(void *ctx, uint32_t tag, const redisReply *reply)
{
    (void)tag;
    struct loadtable *t = ctx;
    /* The names of a look that is under way stay as they are. */
    if (!reply || reply->type != REDIS_REPLY_ARRAY || t->look.n_pending > 0)
        return;
    bool had_others = t->n_routers > 0;
    t->n_routers = 0;
    for (size_t i = 0; i < reply->elements && t->n_routers < NAMES_MAX; i++) {
        const redisReply *r = reply->element[i];
        if (r->type == REDIS_REPLY_STRING && name_is_plain(r->str, r->len) &&
            strcmp(r->str, t->router_id) != 0)
            memcpy(t->routers[t->n_routers++], r->str, r->len + 1);
    }
    if (t->n_routers > 0) {
        send_look(t);
    } else if (had_others) {
        for (size_t i = 0; i < t->n_shadows; i++)
            pool_set_others(t->pool, t->shadows[i].id, 0);
        pool_set_routers(t->pool, NULL, 0);
    }
}

/* ---- reading: workers whose lease has run out ----------------------------------------------- */

static void on_exists(void *ctx, uint32_t tag, const redisReply *reply)
{
    struct loadtable *t = ctx;
    t->n_suspects_pending--;
    if (reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == 0)
        send_key(t, "SREM", "workers", "", t->suspects[tag]);
}

static void on_workers(void *ctx, uint32_t tag, const redisReply *reply)
{
    (void)tag;
    struct loadtable *t = ctx;
    if (!reply || reply->type != REDIS_REPLY_ARRAY || t->n_suspects_pending > 0)
        return;
    uint32_t n = 0;
    for (size_t i = 0; i < reply->elements && n < NAMES_MAX; i++) {
        const redisReply *r = reply->element[i];
        if (r->type != REDIS_REPLY_STRING || !name_is_plain(r->str, r->len))
            continue;
        memcpy(t->suspects[n], r->str, r->len + 1);
        redis_cmd(t->redis, "EXISTS");
        add_key(t, "worker:", t->suspects[n]);
        t->n_suspects_pending += redis_cmd_send(t->redis, on_exists, n);
        n++;
    }
}

static void ask_for_names(struct loadtable *t, const char *set, redis_reply_fn *fn)
{
    redis_cmd(t->redis, "SRANDMEMBER");
    add_key(t, set, "");
    redis_cmd_fmt(t->redis, "%d", NAMES_MAX);
    redis_cmd_send(t->redis, fn, 0);
}

/* ---- the connection and the clock ----------------------------------------------------------- */

static void on_up(void *ctx)
{
    struct loadtable *t = ctx;
    for (size_t i = 0; i < t->n_shadows; i++)
        t->shadows[i].hash = 0;
    t->inflight_hash = 0;
    t->refused_ms = 0;
}

static void on_down(void *ctx)
{
    struct loadtable *t = ctx;
    t->in_sync = false;
    /* What other routers have under way is not known any more. */
    for (size_t i = 0; i < t->n_shadows; i++)
        pool_set_others(t->pool, t->shadows[i].id, 0);
}

static void on_batch_done(void *ctx, uint32_t tag, const redisReply *reply)
{
    (void)tag;
    struct loadtable *t = ctx;
    /* Within a lease everything is written anew: what was refused is refused again, or taken. */
    if (!reply || error_in(reply) ||
        (t->refused_ms && clock_mono_ms() - t->refused_ms < t->lease_ms))
        return;
    if (t->told_refused)
        log_info("Redis takes what is written again", "cluster=%s", t->cluster);
    t->told_refused = false;
    t->in_sync = true;
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    struct loadtable *t = ctx;
    redis_link_tick(t->redis);
    /* With most of the room taken, the last batches are still under way. */
    if (redis_link_room(t->redis) < REDIS_LINK_PENDING_MAX / 2)
        return;
    write_workers(t);
    write_inflight(t);
    if (t->ticks++ % READ_EVERY == 0) {
        ask_for_names(t, "routers", on_routers);
        ask_for_names(t, "workers", on_workers);
    }
    redis_cmd(t->redis, "PING");
    redis_cmd_send(t->redis, on_batch_done, 0);
}

bool loadtable_in_sync(const struct loadtable *t)
{
    return t->in_sync;
}

static int copy_names(struct loadtable *t, const struct loadtable_config *c, struct err *e)
{
    if (!name_is_plain(c->cluster, strlen(c->cluster)))
        return err_set(e, ERR_CONFIG, "the cluster's name is not letters, digits, '.', '_', '-'");
    if (!name_is_plain(c->router_id, strlen(c->router_id)))
        return err_set(e, ERR_CONFIG, "the router's id is not letters, digits, '.', '_', '-'");
    if (c->address && *c->address && !address_is_plain(c->address, strlen(c->address)))
        return err_set(e, ERR_CONFIG, "'%.64s' is not an address", c->address);
    snprintf(t->cluster, sizeof(t->cluster), "%s", c->cluster);
    snprintf(t->router_id, sizeof(t->router_id), "%s", c->router_id);
    snprintf(t->address, sizeof(t->address), "%s", c->address ? c->address : "");
    return 0;
}

int loadtable_open(const struct loadtable_config *c, struct event_base *base, struct pool *pool,
                   struct loadtable **out, struct err *e)
{
    struct timeval period = {.tv_sec = c->period_ms / 1000, .tv_usec = c->period_ms % 1000 * 1000};
    struct loadtable *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(e, ERR_NOMEM, "no memory for the load table");
    struct redis_link_config link = {.url = c->url,
                                     .password = c->password,
                                     .timeout_ms = c->timeout_ms,
                                     .up = on_up,
                                     .down = on_down,
                                     .ctx = t};
    t->pool = pool;
    t->lease_ms = c->lease_ms;
    int rc = copy_names(t, c, e);
    if (rc < 0 || (rc = redis_link_open(&link, base, &t->redis, e)) < 0)
        goto out;
    t->timer = event_new(base, -1, EV_PERSIST, on_tick, t);
    if (!t->timer || event_add(t->timer, &period) < 0)
        rc = err_set(e, ERR_NOMEM, "no memory for the load table's timer");
    event_active(t->timer, EV_TIMEOUT, 0);
out:
    if (rc < 0)
        loadtable_free(t);
    else
        *out = t;
    return rc;
}

void loadtable_free(struct loadtable *t)
{
    if (!t)
        return;
    for (size_t i = 0; t->redis && i < t->n_shadows; i++)
        if (t->shadows[i].announced)
            write_leave(t, t->shadows[i].id);
    if (t->redis) {
        send_key(t, "DEL", "inflight:", t->router_id, NULL);
        send_key(t, "SREM", "routers", "", t->router_id);
        redis_link_free(t->redis);
    }
    look_clear(&t->look);
    if (t->timer)
        event_free(t->timer);
    free(t->shadows);
    free(t);
}
