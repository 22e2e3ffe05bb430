/* The prefix cache over two tiers: random users against a plain model of it, and bytes that are
 * followed from page to slot and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/rng.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/prefixcache.h"

enum { PAGES = 10, SLOTS_MAX = 40, BLOCKS = 4, TOKENS = BLOCKS * KN_PAGE_TOKENS, USERS = 3 };
enum { STEMS = 4, BRANCHES = 3, KEYS = STEMS * BRANCHES * BLOCKS };

static const uint8_t no_salt[BLOCKHASH_SALT_BYTES];

/* What lies where: the block's key, or 0 for what nobody wants. */
struct device {
    struct backend base;
    uint64_t pages[PAGES], slots[SLOTS_MAX];
    uint32_t n_out, n_in;
};

static void page_out(struct backend *b, uint32_t page, uint32_t slot)
{
    struct device *d = (struct device *)b;
    assert_true(page < PAGES && slot < SLOTS_MAX);
    d->slots[slot] = d->pages[page];
    d->n_out++;
}

static void page_in(struct backend *b, uint32_t slot, uint32_t page)
{
    struct device *d = (struct device *)b;
    assert_true(page < PAGES && slot < SLOTS_MAX);
    d->pages[page] = d->slots[slot];
    d->n_in++;
}

/* ---- the model ---------------------------------------------------------------------------------
 */

/* Of one block, by its key: when it was last used, in either place. */
struct place {
    bool device, host;
    uint32_t users;
    uint64_t idle_at, host_at;
};

struct plain {
    struct place places[KEYS + 1];
    uint32_t n_slots, n_private; /* pages of users that are not cached */
    uint64_t now;
};

static struct place *oldest(struct plain *m, bool host)
{
    struct place *found = NULL;
    for (uint32_t i = 1; i <= KEYS; i++) {
        struct place *p = &m->places[i];
        if (host ? p->host && (!found || p->host_at < found->host_at)
                 : p->device && p->users == 0 && (!found || p->idle_at < found->idle_at))
            found = p;
    }
    return found;
}

static uint32_t count(const struct plain *m, bool host)
{
    uint32_t n = 0;
    for (uint32_t i = 1; i <= KEYS; i++)
        n += host ? m->places[i].host : m->places[i].device;
    return n;
}

static uint32_t n_free(const struct plain *m)
{
    return PAGES - m->n_private - count(m, false);
}

static void to_host(struct plain *m, struct place *p)
{
    if (m->n_slots == 0 || p->host)
        return;
    if (count(m, true) == m->n_slots)
        oldest(m, true)->host = false;
    p->host = true;
    p->host_at = ++m->now;
}

/* One page less for the cache. */
static void give_way(struct plain *m)
{
    if (n_free(m) > 0)
        return;
    struct place *p = oldest(m, false);
    to_host(m, p);
    p->device = false;
    p->host_at = ++m->now;
}

static void save_ahead(struct plain *m, uint32_t pages)
{
    uint32_t n = pages > n_free(m) ? pages - n_free(m) : 0;
    struct place *idle[PAGES];
    uint32_t n_idle = 0;
    n = n < m->n_slots / 2 ? n : m->n_slots / 2;
    for (uint32_t i = 1; i <= KEYS; i++)
        if (m->places[i].device && m->places[i].users == 0)
            idle[n_idle++] = &m->places[i];
    for (uint32_t i = 0; i < n && i < n_idle; i++) {
        uint32_t best = i;
        for (uint32_t k = i; k < n_idle; k++)
            best = idle[k]->idle_at < idle[best]->idle_at ? k : best;
        struct place *p = idle[best];
        idle[best] = idle[i];
        idle[i] = p;
        to_host(m, p);
    }
}

/* ---- users of both -----------------------------------------------------------------------------
 */

struct user {
    uint32_t tokens[TOKENS];
    uint64_t keys[BLOCKS];
    struct prefix x;
    uint32_t pages[BLOCKS];
    uint32_t n;
};

struct fixture {
    struct kvpool pool;
    struct hostcache host;
    struct prefixcache c;
    struct device device;
    struct plain plain;
    uint64_t picture[PAGES + SLOTS_MAX]; /* a router's */
    uint32_t n_picture;
};

static void init(struct fixture *f, uint32_t n_slots)
{
    struct err e;
    *f = (struct fixture){.device.base = {.page_out = page_out, .page_in = page_in},
                          .plain.n_slots = n_slots};
    assert_int_equal(kvpool_init(&f->pool, PAGES, &e), 0);
    assert_int_equal(hostcache_init(&f->host, n_slots, &f->device.base, &e), 0);
    assert_int_equal(prefixcache_init(&f->c, &f->pool, &f->host, true, &e), 0);
}

static void check(const struct fixture *f)
{
    uint32_t n_device = 0, n_host = 0;
    assert_true(prefixcache_consistent(&f->c));
    assert_true(hostcache_consistent(&f->host));
    for (uint32_t i = 0; i < f->c.n_blocks; i++) {
        n_device += f->c.blocks[i].page != PREFIXCACHE_NONE;
        n_host += f->c.blocks[i].slot != PREFIXCACHE_NONE;
    }
    assert_int_equal(n_device, count(&f->plain, false));
    assert_int_equal(n_host, count(&f->plain, true));
    assert_int_equal(f->host.n_out, f->device.n_out);
    assert_int_equal(f->host.n_in, f->device.n_in);
}

static void release(struct fixture *f)
{
    check(f);
    assert_int_equal(prefixcache_available(&f->c), PAGES);
    prefixcache_release(&f->c);
    assert_int_equal(f->pool.n_free, PAGES);
    assert_true(kvpool_consistent(&f->pool));
    hostcache_release(&f->host);
    kvpool_release(&f->pool);
}

/* Prompts of a stem are the same for two blocks, and then of a branch. */
static void make(struct user *u, uint32_t stem, uint32_t branch)
{
    memset(u, 0, sizeof(*u));
    for (uint32_t i = 0; i < TOKENS; i++)
        u->tokens[i] = 1000 * stem + (i < TOKENS / 2 ? 0 : 100 * branch) + i;
    for (uint32_t i = 0; i < BLOCKS; i++)
        u->keys[i] = 1 + (stem * BRANCHES + (i < BLOCKS / 2 ? 0 : branch)) * BLOCKS + i;
    prefix_init(&u->x, blockhash_root("a model", no_salt), no_salt);
}

static void keep(struct fixture *f, struct user *u, uint32_t n)
{
    uint32_t end = u->n;
    prefixcache_keep(&f->c, &u->x, u->tokens, n);
    while (end < n && (f->plain.places[u->keys[end]].device || f->plain.places[u->keys[end]].host))
        end++;
    while (end-- > u->n)
        if (!f->plain.places[u->keys[end]].device)
            f->plain.places[u->keys[end]].host_at = ++f->plain.now;
}

/* Whether the model has the block, and then one more user of it. */
static bool expect(struct plain *m, struct place *p, bool own)
{
    if (!p->device && !p->host)
        return false;
    if (!p->device) {
        if (!own)
            give_way(m);
        if (!p->host) /* it went for another one */
            return false;
        p->device = true;
    }
    m->n_private -= own;
    p->users++;
    return true;
}

static uint32_t take(struct fixture *f)
{
    uint32_t page;
    give_way(&f->plain);
    assert_true(prefixcache_take(&f->c, &page));
    f->plain.n_private++;
    f->device.pages[page] = 0; /* somebody writes there */
    return page;
}

/* The next block: from the cache, or computed. own: with a page at hand. */
static bool go_on(struct fixture *f, struct user *u, bool own)
{
    struct place *p = &f->plain.places[u->keys[u->n]];
    uint32_t page = own ? take(f) : PREFIXCACHE_NONE;
    uint32_t got = prefixcache_follow(&f->c, &u->x, u->tokens, page);
    bool hit = expect(&f->plain, p, own);
    assert_int_equal(got != PREFIXCACHE_NONE, hit);
    if (!hit) {
        page = own ? page : take(f);
        f->device.pages[page] = u->keys[u->n];
        got = prefixcache_store(&f->c, &u->x, u->tokens, page);
        f->plain.n_private--;
        p->device = true;
        p->users++;
    }
    assert_int_equal(f->device.pages[got], u->keys[u->n]);
    u->pages[u->n++] = got;
    return hit;
}

static void leave(struct fixture *f, struct user *u)
{
    while (u->n > 0) {
        struct place *p = &f->plain.places[u->keys[--u->n]];
        assert_int_equal(f->device.pages[u->pages[u->n]], u->keys[u->n]);
        prefixcache_drop(&f->c, u->pages[u->n]);
        if (--p->users == 0)
            p->idle_at = ++f->plain.now;
    }
    prefix_rewind(&u->x);
}

static void hear(struct fixture *f)
{
    uint64_t evicted[PAGES + SLOTS_MAX], stored[PAGES + SLOTS_MAX];
    uint32_t n_evicted, n_stored, n_blocks = 0;
    prefixcache_news(&f->c, evicted, &n_evicted, stored, &n_stored);
    for (uint32_t i = 0, at; i < n_evicted; i++) {
        for (at = 0; at < f->n_picture && f->picture[at] != evicted[i]; at++)
            ;
        assert_true(at < f->n_picture);
        f->picture[at] = f->picture[--f->n_picture];
    }
    memcpy(f->picture + f->n_picture, stored, n_stored * sizeof(*stored));
    f->n_picture += n_stored;
    for (uint32_t i = 0, at; i < f->c.n_blocks; i++) {
        if (f->c.blocks[i].hash == 0)
            continue;
        n_blocks++;
        for (at = 0; at < f->n_picture && f->picture[at] != f->c.blocks[i].hash; at++)
            ;
        assert_true(at < f->n_picture);
    }
    assert_int_equal(n_blocks, f->n_picture);
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void run(uint32_t n_slots, uint64_t seed, uint32_t *n_in)
{
    struct fixture f;
    struct user users[USERS];
    struct rng rng;
    rng_init(&rng, seed);
    init(&f, n_slots);
    memset(users, 0, sizeof(users));
    for (int i = 0; i < 3000; i++) {
        struct user *u = &users[rng_below(&rng, USERS)];
        leave(&f, u);
        make(u, (uint32_t)rng_below(&rng, STEMS), (uint32_t)rng_below(&rng, BRANCHES));
        uint32_t n = (uint32_t)rng_below(&rng, BLOCKS);
        if (prefixcache_available(&f.c) < n)
            continue;
        if (rng_below(&rng, 4) > 0)
            keep(&f, u, n);
        while (u->n < n)
            go_on(&f, u, rng_below(&rng, 3) == 0);
        if (rng_below(&rng, 3) == 0) {
            uint32_t pages = (uint32_t)rng_below(&rng, 8);
            prefixcache_save_ahead(&f.c, pages);
            save_ahead(&f.plain, pages);
        }
        check(&f);
        if (rng_below(&rng, 4) == 0)
            hear(&f);
    }
    for (int i = 0; i < USERS; i++)
        leave(&f, &users[i]);
    hear(&f);
    *n_in = f.device.n_in;
    release(&f);
}

static void test_two_tiers_are_what_a_plain_model_says(void **state)
{
    (void)state;
    static const uint32_t slots[] = {0, 1, 2, 5, 12, SLOTS_MAX};
    uint32_t n_in[6];
    for (uint64_t seed = 1; seed <= 5; seed++) {
        for (uint32_t i = 0; i < 6; i++)
            run(slots[i], seed, &n_in[i]);
        assert_int_equal(n_in[0], 0);
        assert_true(n_in[5] > 300 && n_in[3] > 0);
    }
}

/* A block that came back has its slot still: it is evicted for nothing. */
static void test_what_came_from_the_host_is_not_copied_there_again(void **state)
{
    (void)state;
    struct fixture f;
    struct user a, b;
    init(&f, 20);
    make(&a, 0, 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < BLOCKS; i++)
            assert_int_equal(go_on(&f, &a, false), round > 0);
        leave(&f, &a);
        for (uint32_t stem = 1; stem < 4; stem++) { /* 12 blocks push it out */
            make(&b, stem, 0);
            for (int i = 0; i < BLOCKS; i++)
                go_on(&f, &b, false);
            leave(&f, &b);
        }
    }
    assert_true(f.device.n_in > 2 * BLOCKS);
    assert_int_equal(f.device.n_out, 4 * BLOCKS); /* each once */
    release(&f);
}

/* What was saved ahead is evicted without a copy. */
static void test_saving_ahead_takes_the_copy_from_the_eviction(void **state)
{
    (void)state;
    struct fixture f;
    struct user a;
    uint32_t pages[PAGES];
    init(&f, 20);
    make(&a, 0, 0);
    for (int i = 0; i < BLOCKS; i++)
        go_on(&f, &a, false);
    leave(&f, &a);
    prefixcache_save_ahead(&f.c, PAGES - BLOCKS); /* so many are free */
    assert_int_equal(f.device.n_out, 0);
    prefixcache_save_ahead(&f.c, PAGES);
    save_ahead(&f.plain, PAGES);
    assert_int_equal(f.device.n_out, BLOCKS);
    check(&f);
    for (uint32_t i = 0; i < PAGES; i++)
        pages[i] = take(&f);
    assert_int_equal(f.device.n_out, BLOCKS);
    for (uint32_t i = 0; i < PAGES; i++)
        prefixcache_drop(&f.c, pages[i]);
    f.plain.n_private = 0;
    release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_tiers_are_what_a_plain_model_says),
        cmocka_unit_test(test_what_came_from_the_host_is_not_copied_there_again),
        cmocka_unit_test(test_saving_ahead_takes_the_copy_from_the_eviction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
