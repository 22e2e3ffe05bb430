#include "runtime/engine/scheduler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

/* One step in so many goes without prefills. */
#define MIXED_STEPS_MAX 31u

int scheduler_init(struct scheduler *s, struct prefixcache *cache,
                   const struct scheduler_limits *limits, struct err *e)
{
    ASSERT(limits->running_max > 0 && limits->step_tokens_max > 0);
    *s = (struct scheduler){.cache = cache, .limits = *limits};
    stepcost_init(&s->cost);
    s->running = calloc(limits->running_max, sizeof(struct sequence *));
    if (!s->running)
        return err_set(e, ERR_NOMEM, "scheduler: no memory for %u sequences", limits->running_max);
    return 0;
}

void scheduler_release(struct scheduler *s)
{
    free(s->running);
    *s = (struct scheduler){0};
}

static bool goes_before(const struct sequence *a, const struct sequence *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->arrival < b->arrival;
}

/* ---- pages ------------------------------------------------------------------------------------
 */

static void drop_pages(struct scheduler *s, struct sequence *q)
{
    while (q->n_pages > 0)
        prefixcache_drop(s->cache, q->pages[--q->n_pages]);
    prefix_rewind(&q->prefix);
    q->n_computed = 0;
    q->step_rows = 0;
    q->n_drafts = 0;
}

/* Pages for the first n tokens of q; false leaves those that it got. */
static bool take_pages(struct scheduler *s, struct sequence *q, uint32_t n)
{
    while (q->n_pages < sequence_pages(n))
        if (!prefixcache_take(s->cache, &q->pages[q->n_pages]))
            return false;
        else
            q->n_pages++;
    return true;
}

/* Gives back what only guesses needed. */
static void give_back(struct scheduler *s, struct sequence *q)
{
    while (q->n_pages > sequence_pages(q->n_tokens))
        prefixcache_drop(s->cache, q->pages[--q->n_pages]);
}

/* Blocks of q that may come from the cache: its last token is computed, for its logits, and every
 * one for a mean of their states. */
static uint32_t blocks_to_follow(const struct sequence *q)
{
    if (q->embedding.pooling == ENGINE_POOLING_MEAN)
        return 0;
    return (q->n_tokens - 1) / KN_PAGE_TOKENS;
}

/* Takes from the cache what it has behind q's last block. */
static void follow(struct scheduler *s, struct sequence *q)
{
    uint32_t n = blocks_to_follow(q), at;
    prefixcache_keep(s->cache, &q->prefix, q->tokens, n);
    while ((at = q->prefix.n_blocks) < n && at * KN_PAGE_TOKENS == q->n_computed) {
        /* It may have a page for the block already, which is not written yet. */
        uint32_t own = at < q->n_pages ? q->pages[at] : PREFIXCACHE_NONE;
        uint32_t page = prefixcache_follow(s->cache, &q->prefix, q->tokens, own);
        if (page == PREFIXCACHE_NONE)
            return;
        q->pages[at] = page;
        q->n_pages += own == PREFIXCACHE_NONE;
        q->n_computed += KN_PAGE_TOKENS;
        q->n_cached += q->restarted ? 0 : KN_PAGE_TOKENS;
    }
}

/* ---- the two lists ----------------------------------------------------------------------------
 */

void scheduler_add(struct scheduler *s, struct sequence *q)
{
    ASSERT(q->n_pages == 0 && q->prefix.n_blocks == 0);
    if (!q->restarted)
        q->rank = (int64_t)s->n_rows - (int64_t)q->priority * s->limits.priority_rows;
    struct sequence **at = &s->waiting;
    while (*at && goes_before(*at, q))
        at = &(*at)->next;
    q->next = *at;
    *at = q;
    q->state = SEQUENCE_WAITING;
    s->n_waiting++;
}

static void unlink_waiting(struct scheduler *s, struct sequence *q)
{
    struct sequence **at = &s->waiting;
    while (*at && *at != q)
        at = &(*at)->next;
    ASSERT(*at == q);
    *at = q->next;
    q->next = NULL;
    s->n_waiting--;
}

static void unlink_running(struct scheduler *s, struct sequence *q)
{
    uint32_t i = 0;
    while (i < s->n_running && s->running[i] != q)
        i++;
    ASSERT(i < s->n_running);
    s->n_running--;
    memmove(&s->running[i], &s->running[i + 1], (s->n_running - i) * sizeof(struct sequence *));
}

void scheduler_remove(struct scheduler *s, struct sequence *q)
{
    if (q->state == SEQUENCE_WAITING)
        unlink_waiting(s, q);
    else
        unlink_running(s, q);
    drop_pages(s, q);
}

static void preempt(struct scheduler *s, struct sequence *q)
{
    unlink_running(s, q);
    drop_pages(s, q);
    q->restarted = true;
    scheduler_add(s, q);
    s->n_preempted++;
}

static void admit(struct scheduler *s)
{
    struct sequence *q = s->waiting;
    uint32_t i = s->n_running++;
    unlink_waiting(s, q);
    for (; i > 0 && goes_before(q, s->running[i - 1]); i--)
        s->running[i] = s->running[i - 1];
    s->running[i] = q;
    q->state = SEQUENCE_RUNNING;
}

/* ---- a step -----------------------------------------------------------------------------------
 */

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Rows for those that decode. A sequence may be preempted by one before it in order, or by itself
 * when it is the last. */
static uint32_t plan_decodes(struct scheduler *s, uint32_t room)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < s->n_running && rows < room; i++) {
        struct sequence *q = s->running[i];
        if (!sequence_decodes(q))
            continue;
        while (!take_pages(s, q, q->n_tokens) && s->running[s->n_running - 1] != q)
            preempt(s, s->running[s->n_running - 1]);
        if (q->n_pages < sequence_pages(q->n_tokens)) {
            preempt(s, q);
            break;
        }
        q->step_rows = 1;
        rows++;
    }
    return rows;
}

/* Rows for guesses, as far as they fit; and what the step has so far. */
static void plan_drafts(struct scheduler *s, uint32_t room)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < s->n_running; i++) {
        struct sequence *q = s->running[i];
        uint32_t n = q->step_rows == 0 ? 0 : min_u32(q->n_drafts, room - rows);
        if (n > 0 && !take_pages(s, q, q->n_tokens + n))
            n = min_u32(n, q->n_pages * KN_PAGE_TOKENS - q->n_tokens);
        q->n_drafts = n;
        q->step_rows += n;
        rows += n;
        stepcost_add(&s->work, q->n_computed, q->step_rows, q->step_rows);
    }
}

/* Pages that q needs to be admitted beside so many. Alone it may have everything: the context is no
 * longer than the pool. */
static uint64_t pages_wanted(const struct sequence *q, uint32_t n_others)
{
    return n_others == 0 ? sequence_pages(q->n_tokens)
                         : (uint64_t)sequence_pages(q->n_tokens + 1) + n_others;
}

static bool can_admit(const struct scheduler *s, const struct sequence *q)
{
    if (s->n_running == s->limits.running_max)
        return false;
    /* Cached pages that others use cost nothing; idle ones are taken like free ones. */
    uint32_t n_used;
    prefixcache_look(s->cache, &q->prefix, q->tokens, blocks_to_follow(q), &n_used);
    return pages_wanted(q, s->n_running) - n_used <= prefixcache_available(s->cache);
}

/* Preempts those of lower priority behind the first of the waiting, from the last on, if that is
 * enough to admit it. What it may share is not counted: a victim may be who shares it. */
static void make_way(struct scheduler *s)
{
    struct sequence *q = s->waiting;
    if (!q || can_admit(s, q))
        return;
    uint64_t pages = prefixcache_available(s->cache);
    for (uint32_t left = s->n_running; left > 0;) {
        const struct sequence *v = s->running[--left];
        if (v->priority >= q->priority || !goes_before(q, v))
            return;
        pages += prefixcache_owned(s->cache, v->pages, v->n_pages);
        if (pages < pages_wanted(q, left))
            continue;
        while (s->n_running > left)
            preempt(s, s->running[s->n_running - 1]);
        return;
    }
}

static void plan_admissions(struct scheduler *s)
{
    while (s->waiting && can_admit(s, s->waiting)) {
        struct sequence *q = s->waiting;
        admit(s);
        follow(s, q);
        bool taken = take_pages(s, q, q->n_tokens);
        ASSERT(taken);
    }
}

static int64_t prefill_rank(const struct sequence *q)
{
    return q->rank + (q->n_tokens - q->n_computed);
}

/* The next without rows: it prefills, or there is no room for any. */
static struct sequence *next_prefill(const struct scheduler *s)
{
    struct sequence *best = NULL;
    for (uint32_t i = 0; i < s->n_running; i++) {
        struct sequence *q = s->running[i];
        if (q->step_rows == 0 && (!best || prefill_rank(q) < prefill_rank(best)))
            best = q;
    }
    return best;
}

/* limit: seconds that the step may be predicted to take. */
static void plan_prefills(struct scheduler *s, double limit)
{
    uint32_t decoding = s->work.rows;
    for (struct sequence *q; s->work.rows < s->limits.step_tokens_max && (q = next_prefill(s));) {
        follow(s, q);
        uint32_t room = s->limits.step_tokens_max - s->work.rows,
                 rest = q->n_tokens - q->n_computed;
        uint32_t rows = stepcost_rows(&s->cost, &s->work, q->n_computed, rest, room, limit);
        if (rows == 0 && s->work.rows > decoding)
            return;
        q->step_rows = rows > 0 ? rows : 1;
        stepcost_add(&s->work, q->n_computed, q->step_rows, scheduler_samples(q));
    }
}

uint32_t scheduler_plan(struct scheduler *s)
{
    for (uint32_t i = 0; i < s->n_running; i++)
        s->running[i]->step_rows = 0;
    s->work = (struct stepcost_work){0};
    make_way(s);
    plan_drafts(s, s->limits.step_tokens_max - plan_decodes(s, s->limits.step_tokens_max));
    plan_admissions(s);
    uint32_t decoding = s->work.rows;
    bool limited = decoding > 0 && s->limits.stall_max > 0;
    if (!limited)
        plan_prefills(s, INFINITY);
    else if (s->n_mixed < MIXED_STEPS_MAX)
        plan_prefills(s, s->limits.stall_max * stepcost_predict(&s->cost, &s->work));
    s->n_mixed = limited && s->work.rows > decoding ? s->n_mixed + 1 : 0;
    return s->work.rows;
}

void scheduler_computed(struct scheduler *s, double seconds)
{
    s->n_rows += s->work.rows;
    stepcost_learn(&s->cost, &s->work, seconds);
    for (uint32_t i = 0; i < s->n_running; i++) {
        struct sequence *q = s->running[i];
        q->n_computed += q->step_rows;
        give_back(s, q);
        for (uint32_t at; (at = q->prefix.n_blocks) < q->n_computed / KN_PAGE_TOKENS;) {
            q->pages[at] = prefixcache_store(s->cache, &q->prefix, q->tokens, q->pages[at]);
            if (q->prefix.n_blocks == at)
                break;
        }
    }
}
