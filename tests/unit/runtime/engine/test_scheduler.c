#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/base/rng.h"
#include "runtime/engine/scheduler.h"

enum { CONTEXT = 128, PAGES_OF_CONTEXT = CONTEXT / KN_PAGE_TOKENS };

static const uint8_t no_salt[BLOCKHASH_SALT_BYTES];

/* A sequence without a model: only what the scheduler looks at. */
static struct sequence *fake(uint64_t id, uint32_t n_tokens, int32_t priority)
{
    struct sequence *q = calloc(1, sizeof(*q));
    q->pages = calloc(PAGES_OF_CONTEXT, sizeof(*q->pages));
    q->tokens = calloc(CONTEXT, sizeof(*q->tokens));
    prefix_init(&q->prefix, 1, no_salt);
    q->id = id;
    q->arrival = id;
    q->priority = priority;
    q->n_prompt = q->n_tokens = n_tokens;
    q->tokens_max = CONTEXT;
    return q;
}

static void free_fake(struct sequence *q)
{
    assert_int_equal(q->n_pages, 0);
    free(q->pages);
    free(q->tokens);
    free(q);
}

struct fixture {
    struct kvpool pool;
    struct prefixcache cache;
    struct scheduler s;
    struct sequence *all[64];
    uint64_t *kv; /* (pages, KN_PAGE_TOKENS): stands for what a page holds */
};

static void init_cached(struct fixture *f, uint32_t pages, uint32_t running_max,
                        uint32_t step_tokens_max, bool cached)
{
    struct err e;
    memset(f, 0, sizeof(*f));
    assert_int_equal(kvpool_init(&f->pool, pages, &e), 0);
    assert_int_equal(prefixcache_init(&f->cache, &f->pool, NULL, cached, &e), 0);
    const struct scheduler_limits limits = {
        .running_max = running_max, .step_tokens_max = step_tokens_max, .priority_rows = 1000000};
    assert_int_equal(scheduler_init(&f->s, &f->cache, &limits, &e), 0);
    f->kv = calloc((size_t)pages * KN_PAGE_TOKENS, sizeof(*f->kv));
}

static void init(struct fixture *f, uint32_t pages, uint32_t running_max, uint32_t step_tokens_max)
{
    init_cached(f, pages, running_max, step_tokens_max, false);
}

static struct sequence *add(struct fixture *f, uint64_t id, uint32_t n_tokens, int32_t priority)
{
    f->all[id] = fake(id, n_tokens, priority);
    scheduler_add(&f->s, f->all[id]);
    return f->all[id];
}

static void take_out(struct fixture *f, struct sequence *q)
{
    scheduler_remove(&f->s, q);
    f->all[q->id] = NULL;
    free_fake(q);
}

static void release(struct fixture *f)
{
    for (size_t i = 0; i < 64; i++)
        if (f->all[i])
            take_out(f, f->all[i]);
    assert_int_equal(prefixcache_available(&f->cache), f->pool.n_pages);
    assert_true(prefixcache_consistent(&f->cache));
    scheduler_release(&f->s);
    prefixcache_release(&f->cache);
    assert_int_equal(f->pool.n_free, f->pool.n_pages);
    free(f->kv);
    kvpool_release(&f->pool);
}

/* KV of a position depends on all tokens up to it, and on nothing else. */
static uint64_t kv_of(uint64_t before, uint32_t token)
{
    return (before + token + 1) * 0x9e3779b97f4a7c15u;
}

/* Writes the KV of the planned rows, and checks what stands before them: a page that was shared,
 * kept or taken wrongly has something else. */
static void write_kv(struct fixture *f, const struct sequence *q)
{
    uint64_t kv = 0;
    for (uint32_t i = 0; i < q->n_computed + q->step_rows; i++) {
        uint64_t *slot =
            &f->kv[(uint64_t)q->pages[i / KN_PAGE_TOKENS] * KN_PAGE_TOKENS + i % KN_PAGE_TOKENS];
        kv = kv_of(kv, q->tokens[i]);
        if (i >= q->n_computed)
            *slot = kv;
        else if (*slot != kv)
            fail_msg("sequence %d: the KV of position %u is another one's", (int)q->id, i);
    }
}

/* What the engine does behind a plan: the rows are computed, and where the last token was reached,
 * there is one more. */
static void compute_in(struct fixture *f, double seconds)
{
    bool samples[64];
    for (uint32_t i = 0; i < f->s.n_running; i++) {
        write_kv(f, f->s.running[i]);
        samples[i] = scheduler_samples(f->s.running[i]);
    }
    scheduler_computed(&f->s, seconds);
    for (uint32_t i = 0; i < f->s.n_running; i++)
        f->s.running[i]->n_tokens += samples[i];
}

static void compute(struct fixture *f)
{
    compute_in(f, 0);
}

static void test_scheduler_cuts_prefill_into_chunks(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 4, 10);
    struct sequence *q = add(&f, 0, 25, 0);
    const uint32_t rows[] = {10, 10, 5, 1, 1};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(scheduler_plan(&f.s), rows[i]);
        assert_int_equal(q->step_rows, rows[i]);
        assert_int_equal(scheduler_samples(q), i >= 2);
        compute(&f);
    }
    release(&f);
}

static void test_scheduler_decodes_before_it_prefills(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 4, 8);
    struct sequence *a = add(&f, 0, 3, 0), *b = add(&f, 1, 4, 0);
    assert_int_equal(scheduler_plan(&f.s), 7);
    compute(&f);
    struct sequence *c = add(&f, 2, 40, 5); /* higher priority, and still behind the decodes */
    assert_int_equal(scheduler_plan(&f.s), 8);
    assert_int_equal(a->step_rows, 1);
    assert_int_equal(b->step_rows, 1);
    assert_int_equal(c->step_rows, 6);
    release(&f);
}

static void test_scheduler_admits_by_priority_then_arrival(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 1, 100);
    add(&f, 0, 5, 0);
    add(&f, 1, 5, 0);
    add(&f, 2, 5, 7);
    add(&f, 3, 5, -1);
    add(&f, 4, 5, 7);
    const uint64_t order[] = {2, 4, 0, 1, 3};
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(scheduler_plan(&f.s), 5);
        assert_int_equal(f.s.n_running, 1);
        assert_int_equal(f.s.running[0]->id, order[i]);
        take_out(&f, f.s.running[0]);
    }
    assert_int_equal(scheduler_plan(&f.s), 0);
    release(&f);
}

static void test_scheduler_waits_for_pages(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 8, 4, 1000);
    struct sequence *a = add(&f, 0, 80, 0); /* 5 pages */
    struct sequence *b = add(&f, 1, 32, 0); /* 2, one more to go on, one for a: 4 */
    assert_int_equal(scheduler_plan(&f.s), 80);
    assert_int_equal(f.s.n_waiting, 1);
    assert_int_equal(b->state, SEQUENCE_WAITING);
    assert_int_equal(b->n_pages, 0);
    take_out(&f, a);
    assert_int_equal(scheduler_plan(&f.s), 32);
    assert_int_equal(b->state, SEQUENCE_RUNNING);
    release(&f);
}

static void test_scheduler_preempts_the_last_in_order(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 6, 3, 1000);
    struct sequence *low = add(&f, 0, 16, -3);
    assert_int_equal(scheduler_plan(&f.s), 16);
    compute(&f);
    struct sequence *early = add(&f, 1, 16, 0), *late = add(&f, 2, 16, 0);
    /* low grows to 2 pages; early takes 1 of the 4 left, and late finds 3: enough for neither more
     * nor less than its 2 and the 2 that run. */
    assert_int_equal(scheduler_plan(&f.s), 17);
    compute(&f);
    assert_int_equal(late->state, SEQUENCE_WAITING);
    for (int i = 0; i < 40 && low->state == SEQUENCE_RUNNING; i++) {
        scheduler_plan(&f.s);
        compute(&f);
    }
    assert_int_equal(low->state, SEQUENCE_WAITING);
    assert_int_equal(low->n_pages, 0);
    assert_int_equal(low->n_computed, 0);
    assert_true(low->n_tokens > 16);
    assert_int_equal(early->state, SEQUENCE_RUNNING);
    assert_true(f.s.n_preempted >= 1);
    release(&f);
}

static void test_scheduler_gives_a_lone_sequence_the_whole_pool(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, PAGES_OF_CONTEXT, 3, 1000);
    struct sequence *q = add(&f, 0, CONTEXT - 10, 0);
    for (int i = 0; i < 10; i++) {
        assert_true(scheduler_plan(&f.s) > 0);
        compute(&f);
    }
    assert_int_equal(q->n_tokens, CONTEXT);
    assert_int_equal(f.s.n_preempted, 0);
    release(&f);
}

static void fill(struct sequence *q, uint32_t from, uint32_t token)
{
    for (uint32_t i = from; i < CONTEXT; i++)
        q->tokens[i] = token;
}

static void test_scheduler_starts_behind_what_is_cached(void **state)
{
    (void)state;
    struct fixture f;
    init_cached(&f, 64, 4, 1000, true);
    struct sequence *a = add(&f, 0, 40, 0);
    assert_int_equal(scheduler_plan(&f.s), 40);
    compute(&f);
    struct sequence *b = add(&f, 1, 50, 0); /* as a, to its third block */
    fill(b, 35, 7);
    assert_int_equal(scheduler_plan(&f.s), 1 + 18);
    assert_int_equal(b->n_cached, 32);
    assert_int_equal(b->pages[1], a->pages[1]);
    assert_true(b->pages[2] != a->pages[2]);
    compute(&f);
    take_out(&f, a);
    take_out(&f, b);
    struct sequence *c =
        add(&f, 2, 32, 0); /* cached to its end: the last block is computed again */
    assert_int_equal(scheduler_plan(&f.s), 16);
    assert_int_equal(c->n_cached, 16);
    assert_true(scheduler_samples(c));
    compute(&f);
    assert_int_equal(c->prefix.n_blocks, 2);
    release(&f);
}

/* The second one waits for its turn in the step's budget, and by then finds the first one's work.
 */
static void test_scheduler_computes_a_common_prefix_once(void **state)
{
    (void)state;
    struct fixture f;
    init_cached(&f, 64, 4, 16, true);
    struct sequence *a = add(&f, 0, 50, 0), *b = add(&f, 1, 60, 0);
    uint32_t rows = 0;
    for (int i = 0; i < 20 && b->n_tokens == b->n_prompt; i++) {
        scheduler_plan(&f.s);
        rows += a->n_tokens == a->n_prompt ? a->step_rows : 0;
        rows += b->step_rows;
        compute(&f);
    }
    assert_int_equal(rows, 50 + 12);
    assert_int_equal(b->n_cached, 48);
    assert_memory_equal(a->pages, b->pages, 3 * sizeof(a->pages[0]));
    release(&f);
}

/* At the end of its first chunk it finds what the other one did in the same step, and gives back
 * the page that it had for it. */
static void test_scheduler_gives_back_pages_that_it_need_not_fill(void **state)
{
    (void)state;
    struct fixture f;
    init_cached(&f, 64, 4, 56, true);
    struct sequence *a = add(&f, 0, 40, 0), *b = add(&f, 1, 60, 0);
    assert_int_equal(scheduler_plan(&f.s), 40 + 16);
    compute(&f);
    assert_int_equal(b->n_pages, 4);
    assert_int_equal(scheduler_plan(&f.s), 1 + 28);
    assert_int_equal(b->n_cached, 16);
    assert_int_equal(b->pages[1], a->pages[1]);
    assert_int_equal(f.pool.n_pages - prefixcache_available(&f.cache), 3 + 2);
    compute(&f);
    release(&f);
}

/* A page in use costs nobody anything: with it, there is room. */
static void test_scheduler_admits_by_what_is_not_shared(void **state)
{
    (void)state;
    struct fixture f;
    init_cached(&f, 8, 4, 1000, true);
    struct sequence *a = add(&f, 0, 70, 0); /* 5 pages of 8 */
    scheduler_plan(&f.s);
    compute(&f);
    struct sequence *b = add(&f, 1, 72, 0), *c = add(&f, 2, 72, 0);
    fill(c, 0, 9);
    scheduler_plan(&f.s);
    assert_int_equal(b->state, SEQUENCE_RUNNING);
    assert_int_equal(b->n_cached, 64);
    assert_int_equal(c->state, SEQUENCE_WAITING);
    compute(&f);
    take_out(&f, a);
    take_out(&f, b);
    assert_true(f.cache.n_idle > 0);
    scheduler_plan(&f.s); /* idle pages make room */
    assert_int_equal(c->state, SEQUENCE_RUNNING);
    compute(&f);
    release(&f);
}

static void test_scheduler_goes_on_from_the_cache_after_preemption(void **state)
{
    (void)state;
    struct fixture f;
    init_cached(&f, 10, 2, 1000, true);
    struct sequence *first = add(&f, 0, 20, 1), *last = add(&f, 1, 70, 0);
    fill(last, 0, 5);
    scheduler_plan(&f.s);
    for (int i = 0; i < 100 && f.s.n_preempted == 0; i++) {
        compute(&f);
        scheduler_plan(&f.s);
    }
    assert_int_equal(f.s.n_preempted, 1);
    assert_int_equal(last->state, SEQUENCE_WAITING);
    assert_int_equal(last->n_computed, 0);
    uint32_t n = last->n_tokens;
    compute(&f);
    take_out(&f, first);
    uint32_t rows = scheduler_plan(&f.s);
    assert_int_equal(last->state, SEQUENCE_RUNNING);
    assert_true(rows < n - 48);
    assert_int_equal(last->n_cached, 0); /* its own work is no news for the client */
    compute(&f);
    release(&f);
}

/* A step of streams takes 1, each row of a prompt 0.1: at most 1.75 times as long is 7 rows. */
static void test_scheduler_leaves_prompts_what_the_streams_can_spare(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 4, 100);
    f.s.limits.stall_max = 1.75;
    struct sequence *stream = add(&f, 0, 3, 0);
    scheduler_plan(&f.s);
    compute(&f);
    struct sequence *prompt = add(&f, 1, 120, 0);
    for (int k = 0; k < STEPCOST_PRICES; k++)
        f.s.cost.price[k] = 1e-9;
    f.s.cost.price[0] = 1 - 1.2 / 12;
    f.s.cost.price[1] = 1.2;
    assert_int_equal(scheduler_plan(&f.s), 8);
    assert_int_equal(stream->step_rows, 1);
    assert_int_equal(prompt->step_rows, 7);
    compute(&f);
    f.s.limits.stall_max = 1; /* nothing to spare: the prompt goes on all the same */
    assert_int_equal(scheduler_plan(&f.s), 2);
    assert_int_equal(prompt->step_rows, 1);
    compute(&f);
    f.s.limits.stall_max = 1.75;
    take_out(&f, stream); /* and alone, there is no limit */
    assert_int_equal(scheduler_plan(&f.s), 100);
    compute(&f);
    release(&f);
}

/* How long streams take without prompts stays known only if they have a step to themselves. */
static void test_scheduler_decodes_alone_now_and_then(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 4, 100);
    f.s.limits.stall_max = 1;
    add(&f, 0, 3, 0);
    scheduler_plan(&f.s);
    compute(&f);
    struct sequence *prompt = add(&f, 1, 120, 0);
    uint32_t n_alone = 0;
    for (int i = 0; i < 96; i++) {
        scheduler_plan(&f.s);
        n_alone += prompt->step_rows == 0;
        compute(&f);
    }
    assert_int_equal(n_alone, 3);
    assert_int_equal(prompt->n_computed, 93);
    release(&f);
}

static void test_scheduler_lets_a_short_prompt_pass_a_long_one(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 4, 10);
    struct sequence *a = add(&f, 0, 100, 0);
    assert_int_equal(scheduler_plan(&f.s), 10);
    compute(&f);
    struct sequence *b = add(&f, 1, 15, 0);
    scheduler_plan(&f.s);
    assert_int_equal(b->step_rows, 10);
    assert_int_equal(a->step_rows, 0);
    compute(&f);
    scheduler_plan(&f.s);
    assert_int_equal(b->step_rows, 5);
    assert_int_equal(a->step_rows, 5);
    compute(&f);
    release(&f);
}

/* Short prompts without end: the long one waits for about as many tokens as it has itself. */
static void test_scheduler_starves_no_prompt(void **state)
{
    (void)state;
    struct fixture f;
    uint32_t others = 0, id = 1;
    init(&f, 640, 60, 10);
    struct sequence *a = add(&f, 0, 100, 0);
    for (int i = 0; i < 60 && a->n_tokens == a->n_prompt; i++) {
        if (id < 60)
            add(&f, id++, 10, 0);
        scheduler_plan(&f.s);
        for (uint32_t k = 0; k < f.s.n_running; k++)
            others += f.s.running[k] != a ? f.s.running[k]->step_rows : 0;
        compute(&f);
        for (uint32_t k = 1; k < id; k++)
            if (f.all[k] && f.all[k]->n_tokens > f.all[k]->n_prompt)
                take_out(&f, f.all[k]);
    }
    assert_int_equal(a->n_tokens, 101);
    assert_true(others >= 50 && others <= 120);
    release(&f);
}

static void test_scheduler_preempts_for_a_higher_priority(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 8, 2, 1000);
    struct sequence *low = add(&f, 0, 40, 0), *same = add(&f, 1, 20, 1);
    scheduler_plan(&f.s);
    compute(&f);
    struct sequence *also = add(&f, 2, 20, 0), *high = add(&f, 3, 60, 1);
    scheduler_plan(&f.s); /* no place: the lowest gives way, and not to its equal */
    assert_int_equal(low->state, SEQUENCE_WAITING);
    assert_int_equal(low->n_pages, 0);
    assert_int_equal(high->state, SEQUENCE_RUNNING);
    assert_int_equal(also->state, SEQUENCE_WAITING);
    assert_int_equal(same->step_rows, 1);
    assert_int_equal(f.s.n_preempted, 1);
    compute(&f);
    struct sequence *higher = add(&f, 4, 100, 2); /* 7 pages and more: both must go */
    scheduler_plan(&f.s);
    assert_int_equal(higher->state, SEQUENCE_RUNNING);
    assert_int_equal(high->state, SEQUENCE_WAITING);
    assert_int_equal(same->state, SEQUENCE_WAITING);
    compute(&f);
    take_out(&f, higher);
    scheduler_plan(&f.s);
    assert_int_equal(same->state, SEQUENCE_RUNNING); /* by arrival */
    compute(&f);
    release(&f);
}

/* Where preempting would not help, nobody loses anything. */
static void test_scheduler_preempts_only_if_that_is_enough(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 10, 4, 1000);
    struct sequence *peer = add(&f, 0, 80, 3), *low = add(&f, 1, 16, 0);
    scheduler_plan(&f.s);
    compute(&f);
    struct sequence *high = add(&f, 2, 80, 3);
    scheduler_plan(&f.s);
    assert_int_equal(peer->state, SEQUENCE_RUNNING);
    assert_int_equal(low->state, SEQUENCE_RUNNING);
    assert_int_equal(high->state, SEQUENCE_WAITING);
    assert_int_equal(f.s.n_preempted, 0);
    compute(&f);
    release(&f);
}

/* A level of priority is worth so many computed rows, and no more. */
static void test_scheduler_ages_what_waits(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 1, 100);
    f.s.limits.priority_rows = 50;
    add(&f, 0, 5, 0);
    add(&f, 1, 5, 0);
    uint32_t place = 0;
    for (uint32_t id = 2; id < 40 && f.all[1]; id++) {
        add(&f, id, 5, 1); /* one after another, all of higher priority */
        scheduler_plan(&f.s);
        assert_int_equal(f.s.n_running, 1);
        compute(&f);
        take_out(&f, f.s.running[0]);
        place = id;
    }
    assert_int_equal(place, 2 + 10 + 1); /* the ten that came within 50 rows go before both */
    release(&f);
}

/* Pages that the running sequences hold, shared ones once. */
static uint32_t pages_held(const struct scheduler *s)
{
    bool seen[64] = {false};
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_running; i++)
        for (uint32_t k = 0; k < s->running[i]->n_pages; k++) {
            uint32_t page = s->running[i]->pages[k];
            n += !seen[page];
            seen[page] = true;
        }
    return n;
}

/* Random arrivals, ends and cancellations over a pool that is too small: pages are never lost, they
 * hold what they should, the bounds hold, the running ones stay in order, and in the end everything
 * is done. Tokens are of a small alphabet, so that prompts begin the same. */
static void test_scheduler_gets_everything_done(void **state)
{
    uint64_t hits = 0;
    (void)state;
    for (uint64_t seed = 0; seed < 80; seed++) {
        struct fixture f;
        struct rng rng;
        rng_init(&rng, seed);
        uint32_t running_max = 1 + (uint32_t)rng_below(&rng, 6);
        uint32_t step_max = 1 + (uint32_t)rng_below(&rng, 40), next = 0;
        init_cached(&f, PAGES_OF_CONTEXT + (uint32_t)rng_below(&rng, 8), running_max, step_max,
                    seed % 4 > 0);
        if (seed % 3)
            f.s.limits.priority_rows = 1 + (uint32_t)rng_below(&rng, 2000);
        if (seed % 2)
            f.s.limits.stall_max = 1 + rng_unit(&rng);
        for (int step = 0; step < 20000; step++) {
            if (next < 40 && rng_below(&rng, 4) == 0) {
                struct sequence *q = fake(next, 1 + (uint32_t)rng_below(&rng, CONTEXT - 2),
                                          (int32_t)rng_below(&rng, 3));
                for (uint32_t i = 0; i < 6; i++)
                    fill(q, 24 * i, (uint32_t)rng_below(&rng, 2));
                f.all[next++] = q;
                scheduler_add(&f.s, q);
            }
            uint32_t rows = scheduler_plan(&f.s), sum = 0;
            for (uint32_t i = 0; i < f.s.n_running; i++) {
                struct sequence *q = f.s.running[i];
                sum += q->step_rows;
                assert_true(sequence_pages(q->n_computed + q->step_rows) <= q->n_pages);
                if (i > 0)
                    assert_true(f.s.running[i - 1]->rank <= q->rank);
            }
            assert_int_equal(sum, rows);
            assert_true(rows <= step_max && f.s.n_running <= running_max);
            assert_int_equal(pages_held(&f.s), f.pool.n_pages - prefixcache_available(&f.cache));
            assert_true(prefixcache_consistent(&f.cache));
            assert_int_equal(rows == 0, f.s.n_running + f.s.n_waiting == 0);
            compute_in(&f, rng_unit(&rng));
            for (size_t i = 0; i < 64; i++)
                if (f.all[i] && (f.all[i]->n_tokens == CONTEXT || rng_below(&rng, 300) == 0)) {
                    hits += f.all[i]->n_cached;
                    take_out(&f, f.all[i]);
                }
            if (next == 40 && f.s.n_running + f.s.n_waiting == 0)
                break;
        }
        assert_int_equal(f.s.n_running + f.s.n_waiting, 0);
        release(&f);
    }
    assert_true(hits > 20000);
}

/* ---- guesses ----------------------------------------------------------------------------------
 */

/* A step of which every sequence that decodes has `right` right guesses; the KV of the wrong ones
 * is written too. */
static void compute_guesses(struct fixture *f, uint32_t right)
{
    for (uint32_t i = 0; i < f->s.n_running; i++) {
        struct sequence *q = f->s.running[i];
        write_kv(f, q);
        if (!scheduler_samples(q))
            continue;
        uint32_t n = right < q->n_drafts ? right : q->n_drafts;
        q->step_rows -= q->n_drafts - n;
        q->n_tokens += n + 1;
        q->n_drafts = 0;
    }
    scheduler_computed(&f->s, 0);
}

static void test_scheduler_gives_guesses_the_rows_behind_the_decodes(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 64, 4, 6);
    struct sequence *a = add(&f, 0, 3, 0), *b = add(&f, 1, 3, 0);
    scheduler_plan(&f.s);
    compute(&f);
    struct sequence *c = add(&f, 2, 30, 0);
    a->n_drafts = 3;
    b->n_drafts = 3;
    assert_int_equal(scheduler_plan(&f.s), 6); /* 2 decodes, then guesses in order */
    assert_int_equal(a->step_rows, 4);
    assert_int_equal(b->step_rows, 2);
    assert_int_equal(b->n_drafts, 1);
    assert_true(scheduler_samples(a) && scheduler_samples(b));
    compute_guesses(&f, 3);
    assert_int_equal(a->n_tokens, 8);
    assert_int_equal(a->n_computed, 7);
    assert_int_equal(b->n_tokens, 6);
    assert_int_equal(scheduler_plan(&f.s), 6); /* nobody guesses: the prompt gets the rest */
    assert_int_equal(c->step_rows, 4);
    release(&f);
}

static void test_scheduler_preempts_nobody_for_a_guess(void **state)
{
    (void)state;
    struct fixture f;
    init(&f, 3, 2, 64);
    struct sequence *a = add(&f, 0, 13, 0), *b = add(&f, 1, 13, 0);
    scheduler_plan(&f.s);
    compute(&f);
    a->n_drafts = b->n_drafts = 5; /* 14 tokens: each wants a second page, and there is one */
    assert_int_equal(scheduler_plan(&f.s), 6 + 3);
    assert_int_equal(a->n_drafts, 5);
    assert_int_equal(b->n_drafts, 2);
    assert_int_equal(f.s.n_preempted, 0);
    compute_guesses(&f, 0);
    assert_int_equal(f.pool.n_free, 1); /* given back: a has 15 tokens */
    b->n_drafts = 5;
    assert_int_equal(scheduler_plan(&f.s), 1 + 6);
    compute_guesses(&f, 5);
    assert_int_equal(f.pool.n_free, 0);
    assert_int_equal(b->n_tokens, 21);
    release(&f);
}

/* Wrong guesses fill a page: the block that is cached is that of the tokens that came. */
static void test_scheduler_caches_no_guess(void **state)
{
    (void)state;
    struct fixture f;
    init_cached(&f, 64, 2, 64, true);
    struct sequence *a = add(&f, 0, 12, 0);
    scheduler_plan(&f.s);
    compute(&f);
    a->n_drafts = 6;
    for (uint32_t i = 0; i < 6; i++)
        a->tokens[13 + i] = 7; /* two of them are right */
    assert_int_equal(scheduler_plan(&f.s), 7);
    compute_guesses(&f, 2);
    assert_int_equal(a->n_tokens, 16);
    assert_int_equal(a->prefix.n_blocks, 0);
    a->tokens[15] = 3;
    assert_int_equal(scheduler_plan(&f.s), 1);
    compute(&f);
    assert_int_equal(a->prefix.n_blocks, 1);
    struct sequence *b = add(&f, 1, 18, 0);
    memcpy(b->tokens, a->tokens, 16 * sizeof(*b->tokens));
    scheduler_plan(&f.s);
    assert_int_equal(b->n_cached, 16);
    compute(&f); /* checks the KV of the page */
    release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scheduler_cuts_prefill_into_chunks),
        cmocka_unit_test(test_scheduler_decodes_before_it_prefills),
        cmocka_unit_test(test_scheduler_admits_by_priority_then_arrival),
        cmocka_unit_test(test_scheduler_waits_for_pages),
        cmocka_unit_test(test_scheduler_preempts_the_last_in_order),
        cmocka_unit_test(test_scheduler_gives_a_lone_sequence_the_whole_pool),
        cmocka_unit_test(test_scheduler_starts_behind_what_is_cached),
        cmocka_unit_test(test_scheduler_computes_a_common_prefix_once),
        cmocka_unit_test(test_scheduler_gives_back_pages_that_it_need_not_fill),
        cmocka_unit_test(test_scheduler_admits_by_what_is_not_shared),
        cmocka_unit_test(test_scheduler_goes_on_from_the_cache_after_preemption),
        cmocka_unit_test(test_scheduler_leaves_prompts_what_the_streams_can_spare),
        cmocka_unit_test(test_scheduler_decodes_alone_now_and_then),
        cmocka_unit_test(test_scheduler_lets_a_short_prompt_pass_a_long_one),
        cmocka_unit_test(test_scheduler_starves_no_prompt),
        cmocka_unit_test(test_scheduler_preempts_for_a_higher_priority),
        cmocka_unit_test(test_scheduler_preempts_only_if_that_is_enough),
        cmocka_unit_test(test_scheduler_ages_what_waits),
        cmocka_unit_test(test_scheduler_gets_everything_done),
        cmocka_unit_test(test_scheduler_gives_guesses_the_rows_behind_the_decodes),
        cmocka_unit_test(test_scheduler_preempts_nobody_for_a_guess),
        cmocka_unit_test(test_scheduler_caches_no_guess),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
