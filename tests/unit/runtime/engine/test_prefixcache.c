#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/rng.h"
#include "runtime/engine/prefixcache.h"

enum { PAGES = 12, BLOCKS = 4, TOKENS = BLOCKS * KN_PAGE_TOKENS };

static const uint8_t no_salt[BLOCKHASH_SALT_BYTES];

struct fixture {
    struct kvpool pool;
    struct prefixcache c;
};

static void init(struct fixture *f, uint32_t pages, bool enabled)
{
    struct err e;
    assert_int_equal(kvpool_init(&f->pool, pages, &e), 0);
    assert_int_equal(prefixcache_init(&f->c, &f->pool, NULL, enabled, &e), 0);
}

static void release(struct fixture *f)
{
    assert_true(prefixcache_consistent(&f->c));
    assert_int_equal(prefixcache_available(&f->c), f->pool.n_pages);
    prefixcache_release(&f->c);
    assert_int_equal(f->pool.n_free, f->pool.n_pages);
    assert_true(kvpool_consistent(&f->pool));
    kvpool_release(&f->pool);
}

static struct prefixcache_block *block_at(struct fixture *f, uint32_t page)
{
    return &f->c.blocks[f->c.block_of[page]];
}

/* A user of the cache: what a sequence is to it. */
struct user {
    uint32_t tokens[TOKENS];
    struct prefix x;
    uint32_t pages[BLOCKS];
    uint32_t n;
};

static void make(struct user *u, uint32_t first, const uint8_t *salt)
{
    memset(u, 0, sizeof(*u));
    for (uint32_t i = 0; i < TOKENS; i++)
        u->tokens[i] = first + i;
    prefix_init(&u->x, blockhash_root("a model", salt), salt);
}

/* Computes its blocks up to n, behind those that are cached. Returns how many were. */
static uint32_t compute(struct fixture *f, struct user *u, uint32_t n)
{
    uint32_t hits = 0, page;
    while (u->n < n && (page = prefixcache_follow(&f->c, &u->x, u->tokens, PREFIXCACHE_NONE)) !=
                           PREFIXCACHE_NONE) {
        u->pages[u->n++] = page;
        hits++;
    }
    while (u->n < n) {
        assert_true(prefixcache_take(&f->c, &u->pages[u->n]));
        u->pages[u->n] = prefixcache_store(&f->c, &u->x, u->tokens, u->pages[u->n]);
        u->n++;
    }
    assert_true(prefixcache_consistent(&f->c));
    return hits;
}

static void leave(struct fixture *f, struct user *u)
{
    while (u->n > 0)
        prefixcache_drop(&f->c, u->pages[--u->n]);
    prefix_rewind(&u->x);
    assert_true(prefixcache_consistent(&f->c));
}

static void test_prefixcache_shares_with_those_that_run_and_those_that_ended(void **state)
{
    (void)state;
    struct fixture f;
    struct user a, b;
    init(&f, PAGES, true);
    make(&a, 0, no_salt);
    b = a;
    assert_int_equal(compute(&f, &a, 3), 0);
    assert_int_equal(compute(&f, &b, 4), 3);
    assert_memory_equal(a.pages, b.pages, 3 * sizeof(a.pages[0]));
    assert_int_equal(prefixcache_available(&f.c), PAGES - 4);
    leave(&f, &a);
    assert_int_equal(prefixcache_available(&f.c), PAGES - 4);
    leave(&f, &b);
    assert_int_equal(prefixcache_available(&f.c), PAGES);
    assert_int_equal(f.c.n_idle, 4);
    assert_int_equal(compute(&f, &a, 4), 4);
    leave(&f, &a);
    release(&f);
}

static void test_prefixcache_keeps_tenants_apart(void **state)
{
    (void)state;
    static const uint8_t salt[BLOCKHASH_SALT_BYTES] = {[15] = 1};
    struct fixture f;
    struct user a, b, c;
    init(&f, PAGES, true);
    make(&a, 0, no_salt);
    make(&b, 0, salt);
    c = b;
    compute(&f, &a, 2);
    assert_int_equal(compute(&f, &b, 2), 0);
    assert_int_equal(compute(&f, &c, 2), 2);
    leave(&f, &a);
    leave(&f, &b);
    leave(&f, &c);
    release(&f);
}

/* Equal tokens behind another prefix are another block. */
static void test_prefixcache_matches_whole_prefixes(void **state)
{
    (void)state;
    struct fixture f;
    struct user a, b;
    init(&f, PAGES, true);
    make(&a, 0, no_salt);
    b = a;
    b.tokens[3]++;
    compute(&f, &a, 3);
    assert_int_equal(compute(&f, &b, 3), 0);
    leave(&f, &a);
    leave(&f, &b);
    release(&f);
}

/* Hashes that are equal by an evil chance: whatever differs, there is no hit, and nothing is stored
 * over it. */
static void test_prefixcache_survives_collisions(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct fixture f;
        struct user a, b;
        uint32_t n_used, page;
        init(&f, PAGES, true);
        make(&a, 0, no_salt);
        b = a;
        compute(&f, &a, 2);
        struct prefixcache_block *second = block_at(&f, a.pages[1]);
        if (kind == 0)
            second->tokens[KN_PAGE_TOKENS - 1]++; /* as if other tokens had its hash */
        else if (kind == 1)
            second->parent = 7; /* another prefix */
        else
            block_at(&f, a.pages[0])->salt[0]++; /* another tenant */
        assert_int_equal(prefixcache_look(&f.c, &b.x, b.tokens, 2, &n_used), kind < 2 ? 1 : 0);
        while ((page = prefixcache_follow(&f.c, &b.x, b.tokens, PREFIXCACHE_NONE)) !=
               PREFIXCACHE_NONE)
            b.pages[b.n++] = page;
        assert_int_equal(b.n, kind < 2 ? 1 : 0);
        assert_true(prefixcache_take(&f.c, &page));
        assert_int_equal(prefixcache_store(&f.c, &b.x, b.tokens, page), page);
        assert_true(b.x.ended);
        b.pages[b.n++] = page;
        second->parent = f.c.block_of[a.pages[0]];
        leave(&f, &b);
        assert_false(b.x.ended);
        leave(&f, &a);
        assert_int_equal(f.c.n_idle, 2);
        release(&f);
    }
}

/* Two that computed the same at the same time end up with one page. */
static void test_prefixcache_merges_equal_blocks(void **state)
{
    (void)state;
    struct fixture f;
    struct user a, b;
    init(&f, PAGES, true);
    make(&a, 0, no_salt);
    b = a;
    assert_true(prefixcache_take(&f.c, &a.pages[0]) && prefixcache_take(&f.c, &b.pages[0]));
    a.n = b.n = 1;
    a.pages[0] = prefixcache_store(&f.c, &a.x, a.tokens, a.pages[0]);
    b.pages[0] = prefixcache_store(&f.c, &b.x, b.tokens, b.pages[0]);
    assert_int_equal(a.pages[0], b.pages[0]);
    assert_int_equal(prefixcache_available(&f.c), PAGES - 1);
    leave(&f, &b);
    leave(&f, &a);
    release(&f);
}

static void test_prefixcache_evicts_the_least_recently_used(void **state)
{
    (void)state;
    struct fixture f;
    struct user u[3], again;
    uint32_t n_used;
    init(&f, PAGES, true);
    for (uint32_t i = 0; i < 3; i++) {
        make(&u[i], 1000 * i, no_salt);
        compute(&f, &u[i], 4); /* all 12 pages */
    }
    leave(&f, &u[1]);
    leave(&f, &u[0]);
    leave(&f, &u[2]);
    make(&again, 1000, no_salt);
    assert_int_equal(compute(&f, &again, 4), 4); /* now u[0] is the oldest */
    leave(&f, &again);
    make(&again, 5000, no_salt);
    compute(&f, &again, 3);
    /* The ends of a prefix go before its beginning. */
    assert_int_equal(prefixcache_look(&f.c, &u[0].x, u[0].tokens, 4, &n_used), 1);
    assert_int_equal(prefixcache_look(&f.c, &u[1].x, u[1].tokens, 4, &n_used), 4);
    assert_int_equal(prefixcache_look(&f.c, &u[2].x, u[2].tokens, 4, &n_used), 4);
    assert_int_equal(n_used, 0);
    assert_int_equal(
        prefixcache_look(
            &f.c,
            &(struct prefix){.root = again.x.root, .hash = again.x.root, .block = PREFIXCACHE_NONE},
            again.tokens, 4, &n_used),
        3);
    assert_int_equal(n_used, 3);
    leave(&f, &again);
    release(&f);
}

static void test_prefixcache_never_evicts_what_is_in_use(void **state)
{
    (void)state;
    struct fixture f;
    struct user a;
    uint32_t pages[PAGES];
    init(&f, PAGES, true);
    make(&a, 0, no_salt);
    compute(&f, &a, 4);
    for (uint32_t i = 0; i < PAGES - 4; i++)
        assert_true(prefixcache_take(&f.c, &pages[i]));
    assert_false(prefixcache_take(&f.c, &pages[PAGES - 1]));
    for (uint32_t i = 0; i < PAGES - 4; i++)
        prefixcache_drop(&f.c, pages[i]);
    leave(&f, &a);
    release(&f);
}

static void test_prefixcache_does_nothing_when_it_is_off(void **state)
{
    (void)state;
    struct fixture f;
    struct user a, b;
    uint32_t n_used, cursor = 0, n_evicted, n_stored;
    uint64_t hashes[PAGES];
    init(&f, PAGES, false);
    make(&a, 0, no_salt);
    b = a;
    compute(&f, &a, 3);
    assert_int_equal(compute(&f, &b, 3), 0);
    assert_int_equal(prefixcache_look(&f.c, &b.x, b.tokens, 4, &n_used), 0);
    prefixcache_news(&f.c, hashes, &n_evicted, hashes, &n_stored);
    assert_int_equal(n_evicted + n_stored, 0);
    assert_int_equal(prefixcache_list(&f.c, &cursor, hashes, PAGES), 0);
    leave(&f, &a);
    leave(&f, &b);
    assert_int_equal(f.pool.n_free, PAGES);
    release(&f);
}

/* ---- news -------------------------------------------------------------------------------------
 */

/* A router's picture: a set of hashes. */
struct picture {
    uint64_t hashes[4 * PAGES];
    uint32_t n;
};

static int place_of(const struct picture *p, uint64_t hash)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->hashes[i] == hash)
            return (int)i;
    return -1;
}

static void hear(struct picture *p, struct fixture *f)
{
    uint64_t evicted[PAGES], stored[PAGES];
    uint32_t n_evicted, n_stored;
    prefixcache_news(&f->c, evicted, &n_evicted, stored, &n_stored);
    assert_true(n_evicted <= PAGES && n_stored <= PAGES);
    for (uint32_t i = 0; i < n_evicted; i++) {
        int at = place_of(p, evicted[i]);
        assert_true(at >= 0);
        p->hashes[at] = p->hashes[--p->n];
    }
    for (uint32_t i = 0; i < n_stored; i++) {
        assert_int_equal(place_of(p, stored[i]), -1);
        p->hashes[p->n++] = stored[i];
    }
}

/* The picture is exactly what can be found. */
static void check_picture(const struct picture *p, const struct fixture *f)
{
    uint32_t n = 0, cursor = 0, listed = 0, got;
    uint64_t part[5];
    for (uint32_t i = 0; i < PAGES; i++) {
        if (f->c.blocks[i].hash == 0)
            continue;
        assert_true(place_of(p, f->c.blocks[i].hash) >= 0);
        n++;
    }
    assert_int_equal(p->n, n);
    do { /* and the list says the same */
        got = prefixcache_list(&f->c, &cursor, part, 5);
        for (uint32_t i = 0; i < got; i++)
            assert_true(place_of(p, part[i]) >= 0);
        listed += got;
    } while (got == 5);
    assert_int_equal(listed, n);
}

static void test_prefixcache_news_add_up_to_what_is_cached(void **state)
{
    (void)state;
    struct fixture f;
    struct picture p = {.n = 0};
    struct rng rng;
    uint32_t heard = 0;
    rng_init(&rng, 9);
    init(&f, PAGES, true);
    for (int i = 0; i < 4000; i++) {
        struct user u[2];
        for (int k = 0; k < 2; k++) {
            make(&u[k], (uint32_t)rng_below(&rng, 6), no_salt);
            compute(&f, &u[k], 1 + (uint32_t)rng_below(&rng, BLOCKS));
        }
        if (rng_below(&rng, 3) == 0) {
            hear(&p, &f);
            check_picture(&p, &f);
            heard++;
        }
        leave(&f, &u[i % 2]);
        leave(&f, &u[1 - i % 2]);
    }
    assert_true(heard > 1000);
    release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prefixcache_shares_with_those_that_run_and_those_that_ended),
        cmocka_unit_test(test_prefixcache_keeps_tenants_apart),
        cmocka_unit_test(test_prefixcache_matches_whole_prefixes),
        cmocka_unit_test(test_prefixcache_survives_collisions),
        cmocka_unit_test(test_prefixcache_merges_equal_blocks),
        cmocka_unit_test(test_prefixcache_evicts_the_least_recently_used),
        cmocka_unit_test(test_prefixcache_never_evicts_what_is_in_use),
        cmocka_unit_test(test_prefixcache_does_nothing_when_it_is_off),
        cmocka_unit_test(test_prefixcache_news_add_up_to_what_is_cached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
