/* The prefix index beside a naive model: every worker's cache as a plain set of blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "router/pool/prefix_index.h"
#include "runtime/base/blockhash.h"
#include "runtime/base/rng.h"

#define MIB ((size_t)1 << 20)

static struct prefix_index *open_index(size_t bytes_max, uint32_t workers_max)
{
    struct err e = {0};
    struct prefix_index *x;
    assert_int_equal(prefix_index_open(bytes_max, workers_max, 7, &x, &e), 0);
    return x;
}

/* ---- the model: a tree of blocks; a worker that has one has those above it ------------------- */

#define BLOCKS 600
#define WORKERS 40

struct model {
    uint64_t hash[BLOCKS];
    int parent[BLOCKS]; /* -1: none */
    bool has[WORKERS][BLOCKS];
    uint32_t slot[WORKERS]; /* PREFIX_INDEX_NONE: it is not here */
};

static void model_init(struct model *m, struct rng *rng)
{
    memset(m, 0, sizeof(*m));
    for (int b = 0; b < BLOCKS; b++) {
        /* Mostly long chains, with some forks. */
        m->parent[b] = b == 0              ? -1
                       : rng_below(rng, 8) ? b - 1
                                           : (int)rng_below(rng, (uint64_t)b) - 1;
        m->hash[b] = rng_u64(rng) | 1;
    }
    for (int w = 0; w < WORKERS; w++)
        m->slot[w] = PREFIX_INDEX_NONE;
}

static uint32_t path_of(const struct model *m, int block, int *path)
{
    uint32_t n = 0;
    for (int b = block; b >= 0; b = m->parent[b])
        path[n++] = b;
    for (uint32_t i = 0; i < n / 2; i++) {
        int other = path[i];
        path[i] = path[n - 1 - i];
        path[n - 1 - i] = other;
    }
    return n;
}

static void model_store(struct model *m, struct prefix_index *x, int w, int block)
{
    int path[BLOCKS];
    uint32_t n = path_of(m, block, path);
    for (uint32_t i = 0; i < n; i++) {
        if (m->has[w][path[i]])
            continue;
        m->has[w][path[i]] = true;
        prefix_index_store(x, m->slot[w], &m->hash[path[i]], 1);
    }
}

/* As a worker does it: what stands on it goes first. */
static void model_evict(struct model *m, struct prefix_index *x, int w, int block)
{
    if (!m->has[w][block])
        return;
    m->has[w][block] = false;
    for (int b = 0; b < BLOCKS; b++)
        if (m->parent[b] == block)
            model_evict(m, x, w, b);
    prefix_index_evict(x, m->slot[w], &m->hash[block], 1);
}

static void check_depths(const struct model *m, struct prefix_index *x, int block, bool exact)
{
    int path[BLOCKS];
    uint64_t hashes[BLOCKS];
    uint32_t n = path_of(m, block, path);
    for (uint32_t i = 0; i < n; i++)
        hashes[i] = m->hash[path[i]];
    const uint32_t *depths = prefix_index_look(x, hashes, n);
    for (int w = 0; w < WORKERS; w++) {
        uint32_t depth = 0;
        if (m->slot[w] == PREFIX_INDEX_NONE)
            continue;
        while (depth < n && m->has[w][path[depth]])
            depth++;
        if (exact)
            assert_int_equal(depths[m->slot[w]], depth);
        else
            assert_true(depths[m->slot[w]] <= depth);
    }
}

static void random_step(struct model *m, struct prefix_index *x, struct rng *rng, bool exact)
{
    int w = (int)rng_below(rng, WORKERS);
    int block = (int)rng_below(rng, BLOCKS);
    uint64_t what = rng_below(rng, 20);
    if (what == 0 && m->slot[w] != PREFIX_INDEX_NONE) {
        prefix_index_leave(x, m->slot[w]);
        m->slot[w] = PREFIX_INDEX_NONE;
        memset(m->has[w], 0, sizeof(m->has[w]));
    } else if (m->slot[w] == PREFIX_INDEX_NONE) {
        m->slot[w] = prefix_index_join(x);
    } else if (what < 10) {
        model_store(m, x, w, block);
    } else if (what < 14) {
        model_evict(m, x, w, block);
    } else {
        check_depths(m, x, block, exact);
    }
}

static void test_is_what_a_naive_model_says(void **state)
{
    (void)state;
    static struct model m;
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct rng rng;
        rng_init(&rng, seed);
        struct prefix_index *x = open_index(MIB, WORKERS);
        model_init(&m, &rng);
        for (int i = 0; i < 6000; i++)
            random_step(&m, x, &rng, true);
        prefix_index_free(x);
    }
}

/* With room for a tenth: it knows less, and nothing that is not so. */
static void test_evicts_and_says_nothing_wrong(void **state)
{
    (void)state;
    static struct model m;
    for (uint64_t seed = 0; seed < 10; seed++) {
        struct rng rng;
        rng_init(&rng, seed);
        struct prefix_index *x = open_index(0, WORKERS);
        assert_int_equal(prefix_index_max(x), 64);
        model_init(&m, &rng);
        for (int i = 0; i < 6000; i++) {
            random_step(&m, x, &rng, false);
            assert_true(prefix_index_used(x) <= 64);
        }
        prefix_index_free(x);
    }
}

/* A slot that is given to another worker has nothing of the last one's. */
static void test_who_left_is_forgotten(void **state)
{
    (void)state;
    struct prefix_index *x = open_index(MIB, 4);
    uint64_t hashes[100];
    for (uint64_t i = 0; i < 100; i++)
        hashes[i] = i + 1;
    for (int round = 0; round < 50; round++) {
        uint32_t slot = prefix_index_join(x);
        assert_int_not_equal(slot, PREFIX_INDEX_NONE);
        assert_int_equal(prefix_index_look(x, hashes, 100)[slot], 0);
        prefix_index_store(x, slot, hashes, 100);
        assert_int_equal(prefix_index_look(x, hashes, 100)[slot], 100);
        prefix_index_leave(x, slot);
        assert_int_equal(prefix_index_look(x, hashes, 100)[slot], 0);
        prefix_index_store(x, slot, hashes, 100); /* late frames do nothing */
        assert_int_equal(prefix_index_look(x, hashes, 100)[slot], 0);
    }
    prefix_index_free(x);
}

static void test_a_worker_holds_no_more_than_it_has_pages(void **state)
{
    (void)state;
    struct prefix_index *x = open_index(MIB, 4);
    uint32_t liar = prefix_index_join(x);
    prefix_index_limit(x, liar, 10);
    for (uint64_t h = 1; h <= 1000; h++)
        prefix_index_store(x, liar, &h, 1);
    assert_int_equal(prefix_index_used(x), 10);
    uint64_t h = 1;
    prefix_index_evict(x, liar, &h, 1);
    assert_int_equal(prefix_index_used(x), 9);
    h = 5000;
    prefix_index_store(x, liar, &h, 1);
    assert_int_equal(prefix_index_look(x, &h, 1)[liar], 1);
    prefix_index_free(x);
}

/* What is asked for stays while ten times as much goes by. */
static void test_what_is_wanted_stays(void **state)
{
    (void)state;
    struct prefix_index *x = open_index(100000, 4);
    uint32_t slot = prefix_index_join(x);
    uint64_t prompt[32];
    for (uint64_t i = 0; i < 32; i++)
        prompt[i] = i + 1;
    prefix_index_store(x, slot, prompt, 32);
    for (uint64_t h = 1000; h < 1000 + 10 * prefix_index_max(x); h++) {
        prefix_index_store(x, slot, &h, 1);
        if (h % 100 == 0)
            prefix_index_touch(x, prompt, 32);
    }
    assert_int_equal(prefix_index_look(x, prompt, 32)[slot], 32);
    assert_int_equal(prefix_index_used(x), prefix_index_max(x));
    prefix_index_free(x);
}

/* ---- memory --------------------------------------------------------------------------------- */

static size_t rss_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long size = 0, pages = 0;
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%lu %lu", &size, &pages), 2);
    fclose(f);
    return pages * 4096;
}

static void test_ten_million_prefixes_leave_memory_flat(void **state)
{
    (void)state;
    struct rng rng;
    rng_init(&rng, 3);
    struct prefix_index *x = open_index(16 * MIB, 1024);
    uint32_t slots[16];
    size_t before = rss_bytes();
    size_t full = 0;
    for (int i = 0; i < 16; i++)
        slots[i] = prefix_index_join(x);
    for (int i = 0; i < 10000000; i++) {
        uint64_t hash = rng_u64(&rng);
        prefix_index_store(x, slots[i % 16], &hash, 1);
        if (i == 1000000)
            full = rss_bytes();
    }
    size_t after = rss_bytes();
    print_message("RSS: +%zu KiB at 1 million, +%zu KiB at 10 million\n", (full - before) / 1024,
                  (after - before) / 1024);
    assert_true(prefix_index_used(x) == prefix_index_max(x));
    assert_true(after < full + MIB / 4);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they keep shadows */
    assert_true(after - before < 17 * MIB);
#endif
    prefix_index_free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_what_a_naive_model_says),
        cmocka_unit_test(test_evicts_and_says_nothing_wrong),
        cmocka_unit_test(test_who_left_is_forgotten),
        cmocka_unit_test(test_a_worker_holds_no_more_than_it_has_pages),
        cmocka_unit_test(test_what_is_wanted_stays),
        cmocka_unit_test(test_ten_million_prefixes_leave_memory_flat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
