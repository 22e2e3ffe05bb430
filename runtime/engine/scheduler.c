#include "runtime/engine/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

int scheduler_init(struct scheduler *s, struct prefixcache *cache, uint32_t running_max,
                   uint32_t step_tokens_max, struct err *e)
{
    ASSERT(running_max > 0 && step_tokens_max > 0);
    *s = (struct scheduler){
        .cache = cache, .running_max = running_max, .step_tokens_max = step_tokens_max};
    s->running = calloc(running_max, sizeof(struct sequence *));
    if (!s->running)
        return err_set(e, ERR_NOMEM, "scheduler: no memory for %u sequences", running_max);
    return 0;
}

void scheduler_release(struct scheduler *s)
{
    free(s->running);
    *s = (struct scheduler){0};
}

static bool goes_before(const struct sequence *a, const struct sequence *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->arrival < b->arrival;
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
    uint32_t n = blocks_to_follow(q), at, page;
    while ((at = q->prefix.n_blocks) < n && at * KN_PAGE_TOKENS == q->n_computed &&
           (page = prefixcache_follow(s->cache, &q->prefix, q->tokens)) != PREFIXCACHE_NONE) {
        if (at < q->n_pages)
            prefixcache_drop(s->cache, q->pages[at]); /* taken for it, and not written yet */
        else
            q->n_pages++;
        q->pages[at] = page;
        q->n_computed += KN_PAGE_TOKENS;
        q->n_cached += q->restarted ? 0 : KN_PAGE_TOKENS;
    }
}

/* ---- the two lists ----------------------------------------------------------------------------
 */

void scheduler_add(struct scheduler *s, struct sequence *q)
{
    ASSERT(q->n_pages == 0 && q->prefix.n_blocks == 0);
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

/* Rows for guesses, as far as they fit. */
static uint32_t plan_drafts(struct scheduler *s, uint32_t room)
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
    }
    return rows;
}

static uint32_t plan_prefills(struct scheduler *s, uint32_t room)
{
    uint32_t rows = 0;
    for (uint32_t i = 0; i < s->n_running && rows < room; i++) {
        struct sequence *q = s->running[i];
        if (sequence_decodes(q))
            continue;
        follow(s, q);
        q->step_rows = min_u32(q->n_tokens - q->n_computed, room - rows);
        rows += q->step_rows;
    }
    return rows;
}

static bool can_admit(const struct scheduler *s, const struct sequence *q)
{
    if (s->n_running == s->running_max)
        return false;
    /* Alone it may have everything; the context is no longer than the pool. */
    uint64_t wanted = (uint64_t)sequence_pages(q->n_tokens);
    if (s->n_running > 0)
        wanted = (uint64_t)sequence_pages(q->n_tokens + 1) + s->n_running;
    /* Cached pages that others use cost nothing; idle ones are taken like free ones. */
    uint32_t n_used;
    prefixcache_look(s->cache, &q->prefix, q->tokens, blocks_to_follow(q), &n_used);
    return wanted - n_used <= prefixcache_available(s->cache);
}

static uint32_t plan_admissions(struct scheduler *s, uint32_t room)
{
    uint32_t rows = 0;
    while (s->waiting && rows < room && can_admit(s, s->waiting)) {
        struct sequence *q = s->waiting;
        admit(s);
        follow(s, q);
        bool taken = take_pages(s, q, q->n_tokens);
        ASSERT(taken);
        q->step_rows = min_u32(q->n_tokens - q->n_computed, room - rows);
        rows += q->step_rows;
    }
    return rows;
}

uint32_t scheduler_plan(struct scheduler *s)
{
    uint32_t room = s->step_tokens_max;
    for (uint32_t i = 0; i < s->n_running; i++)
        s->running[i]->step_rows = 0;
    uint32_t rows = plan_decodes(s, room);
    rows += plan_drafts(s, room - rows);
    rows += plan_prefills(s, room - rows);
    return rows + plan_admissions(s, room - rows);
}

void scheduler_computed(struct scheduler *s)
{
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
