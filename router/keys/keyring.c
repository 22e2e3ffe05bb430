#include "router/keys/keyring_internal.h"

#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/pool/redis_link.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"

#define TICK_MS 50
/* A key that was not used for so long keeps nothing reserved. */
#define IDLE_MS 2000

/* ---- tenants --------------------------------------------------------------------------------- */

static uint64_t hash_of(const uint8_t hash[KEY_HASH_BYTES])
{
    uint64_t h;
    memcpy(&h, hash, sizeof(h));
    return h ? h : 1;
}

static struct tenant **bucket_of(struct keyring *r, const uint8_t hash[KEY_HASH_BYTES])
{
    return &r->buckets[hash_of(hash) & (TENANT_BUCKETS - 1)];
}

static struct tenant *find(struct keyring *r, const uint8_t hash[KEY_HASH_BYTES])
{
    struct tenant *t = *bucket_of(r, hash);
    while (t && !key_hash_is(t->key.hash, hash))
        t = t->next;
    return t;
}

struct tenant *keyring_find(struct keyring *r, const char *secret, size_t n)
{
    uint8_t hash[KEY_HASH_BYTES];
    if (key_hash(secret, n, hash, NULL) < 0)
        return NULL;
    struct tenant *t = find(r, hash);
    return t ? tenant_keep(t) : NULL;
}

struct tenant *tenant_keep(struct tenant *t)
{
    t->refs++;
    return t;
}

void tenant_put(struct tenant *t)
{
    ASSERT(t->refs > 0);
    if (--t->refs > 0)
        return;
    ASSERT(!t->waiting.first && !t->asking.first && !t->dirty && !t->in_flight);
    free(t);
}

const struct key *tenant_key(const struct tenant *t)
{
    return &t->key;
}

uint64_t tenant_hash(const struct tenant *t)
{
    return t->hash;
}

void tenant_turn(struct tenant *t)
{
    uint64_t minute = keyring_minute(), now_ms = clock_mono_ms();
    for (int i = 0; i < POT_KINDS; i++)
        pot_turn(&t->pots[i], minute, now_ms);
}

void tenant_mark(struct keyring *r, struct tenant *t)
{
    if (!r->redis || t->dirty)
        return;
    t->dirty = true;
    t->dirty_next = r->dirty;
    r->dirty = tenant_keep(t);
    event_active(r->turn, 0, 0);
}

static void set_limits(struct keyring *r, struct tenant *t, const struct key *k)
{
    const uint64_t limits[POT_KINDS] = {[POT_REQUESTS] = k->requests,
                                        [POT_TOKENS] = k->tokens,
                                        [POT_RUNNING] = k->concurrency,
                                        [POT_BUDGET] = k->budget};
    bool changed = false;
    t->key = *k;
    for (int i = 0; i < POT_KINDS; i++)
        changed = pot_set_limit(&t->pots[i], limits[i]) || changed;
    if (changed && t->used_ms)
        tenant_mark(r, t);
}

static void meet(struct keyring *r, const struct key *k)
{
    struct tenant *t = find(r, k->hash);
    if (!t) {
        t = calloc(1, sizeof(*t));
        if (!t) {
            log_error("no memory for a key", "name=\"%s\"", k->name);
            return;
        }
        t->hash = hash_of(k->hash);
        t->refs = 1; /* the table's */
        t->known = true;
        t->waiting.end = &t->waiting.first;
        t->asking.end = &t->asking.first;
        for (int i = 0; i < POT_KINDS; i++)
            pot_init(&t->pots[i], (enum pot_kind)i, 0);
        struct tenant **b = bucket_of(r, k->hash);
        t->next = *b;
        *b = t;
        t->key = *k;
    }
    if (t->seen)
        return; /* the file's word is the first */
    t->seen = true;
    set_limits(r, t, k);
}

static void forget(struct tenant **at)
{
    struct tenant *t = *at;
    *at = t->next;
    t->known = false;
    tenant_put(t);
}

void keyring_follow(struct keyring *r)
{
    uint32_t n = 0;
    for (size_t i = 0; i < r->from_file.n; i++)
        meet(r, &r->from_file.items[i]);
    for (size_t i = 0; i < r->from_redis.n; i++)
        meet(r, &r->from_redis.items[i]);
    for (size_t i = 0; i < TENANT_BUCKETS; i++)
        for (struct tenant **at = &r->buckets[i]; *at;) {
            if (!(*at)->seen) {
                forget(at);
                continue;
            }
            (*at)->seen = false;
            at = &(*at)->next;
            n++;
        }
    log_info("keys", "known=%u file=%zu redis=%zu", n, r->from_file.n, r->from_redis.n);
}

/* ---- time ------------------------------------------------------------------------------------ */

uint64_t keyring_minute(void)
{
    return (uint64_t)clock_wall_s() / 60;
}

enum pot_mode keyring_mode(const struct keyring *r)
{
    return !r->redis ? POT_ALONE : r->redis_up ? POT_SHARED : POT_AWAY;
}

static bool holds(const struct tenant *t)
{
    for (int i = 0; i < POT_KINDS; i++)
        if (t->pots[i].limit && t->pots[i].reserved)
            return true;
    return t->pots[POT_RUNNING].used > 0 || t->pots[POT_BUDGET].used > 0;
}

/* A claim is renewed while there is something to lose, and once more when it is idle. */
static void tend(struct keyring *r, struct tenant *t, uint64_t now_ms)
{
    admit_expire(r, t, now_ms);
    if (!t->used_ms)
        return;
    tenant_turn(t);
    bool idle = now_ms - t->used_ms > IDLE_MS;
    bool renew = now_ms - t->claimed_ms > r->lease_ms / 3 && holds(t);
    if (renew || (idle && t->claimed_ms < t->used_ms + IDLE_MS))
        tenant_mark(r, t);
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    struct keyring *r = ctx;
    uint64_t now_ms = clock_mono_ms();
    if (r->redis)
        redis_link_tick(r->redis);
    mirror_tick(r, now_ms);
    for (size_t i = 0; r->redis && i < TENANT_BUCKETS; i++)
        for (struct tenant *t = r->buckets[i], *next; t; t = next) {
            next = t->next;
            tend(r, t, now_ms);
        }
    if (r->dirty)
        ledger_send(r); /* those that Redis had no room for */
}

static void on_turn(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    ledger_send(ctx);
}

/* ---- Redis comes and goes -------------------------------------------------------------------- */

static void on_up(void *ctx)
{
    struct keyring *r = ctx;
    r->redis_up = true;
    r->mirrored = r->looking = false;
    r->looked_ms = 0;
    for (size_t i = 0; i < TENANT_BUCKETS; i++)
        for (struct tenant *t = r->buckets[i]; t; t = t->next)
            if (t->used_ms)
                tenant_mark(r, t);
}

static void on_down(void *ctx)
{
    struct keyring *r = ctx;
    r->redis_up = false;
    mirror_down(r);
}

/* ---- opening --------------------------------------------------------------------------------- */

static int open_redis(struct keyring *r, const struct keyring_config *c, struct event_base *base,
                      struct err *e)
{
    struct redis_link_config lc = {.url = c->url,
                                   .password = c->password,
                                   .timeout_ms = c->timeout_ms,
                                   .up = on_up,
                                   .down = on_down,
                                   .ctx = r};
    uint64_t instance;
    rng_entropy(&instance, sizeof(instance));
    snprintf(r->claim_name, sizeof(r->claim_name), "%.63s-%016" PRIx64, c->router_id, instance);
    return redis_link_open(&lc, base, &r->redis, e);
}

int keyring_open(const struct keyring_config *c, struct event_base *base, struct keyring **out,
                 struct err *e)
{
    struct timeval tv = {.tv_usec = TICK_MS * 1000};
    struct keyring *r = calloc(1, sizeof(*r));
    if (!r)
        return err_set(e, ERR_NOMEM, "no memory for the keys");
    int rc = 0;
    r->wait_ms = c->wait_ms;
    r->lease_ms = c->lease_ms;
    r->version = -1;
    r->cluster = strdup(c->cluster ? c->cluster : "default");
    r->file = c->file ? strdup(c->file) : NULL;
    r->tick = event_new(base, -1, EV_PERSIST, on_tick, r);
    r->turn = event_new(base, -1, 0, on_turn, r);
    if (!r->cluster || (c->file && !r->file) || !r->tick || !r->turn || event_add(r->tick, &tv) < 0)
        rc = err_set(e, ERR_NOMEM, "no memory for the keys");
    if (rc == 0 && c->url)
        rc = open_redis(r, c, base, e);
    if (rc == 0 && r->file)
        rc = mirror_read_file(r, e);
    if (rc < 0)
        keyring_free(r);
    else
        *out = r;
    return rc;
}

void keyring_free(struct keyring *r)
{
    if (!r)
        return;
    if (r->redis)
        ledger_send(r);
    redis_link_free(r->redis); /* what is in flight is answered with NULL */
    while (r->dirty) {
        struct tenant *t = r->dirty;
        r->dirty = t->dirty_next;
        t->dirty = false;
        tenant_put(t);
    }
    for (size_t i = 0; i < TENANT_BUCKETS; i++)
        while (r->buckets[i])
            forget(&r->buckets[i]);
    if (r->tick)
        event_free(r->tick);
    if (r->turn)
        event_free(r->turn);
    keylist_release(&r->from_file);
    keylist_release(&r->from_redis);
    free(r->file);
    free(r->cluster);
    free(r);
}
