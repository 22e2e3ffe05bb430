#include "runtime/text/merges.h"

#include <stdlib.h>

#include "runtime/base/rng.h"

#define NO_PAIR UINT64_MAX /* an empty slot: TOKENIZER_NONE twice */
#define END UINT32_MAX     /* no neighbour */

struct merge {
    uint64_t pair; /* left id << 32 | right id */
    uint32_t rank;
    uint32_t id; /* of the two together */
};

static uint64_t pair_of(uint32_t left, uint32_t right)
{
    return (uint64_t)left << 32 | right;
}

static struct merge *merge_slot(const struct merges *m, uint64_t pair)
{
    uint64_t h = (pair ^ m->seed) * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 32) * 0xD6E8FEB86659FD93u;
    uint32_t i = (uint32_t)(h >> 32) & m->mask;
    while (m->slots[i].pair != pair && m->slots[i].pair != NO_PAIR)
        i = (i + 1) & m->mask;
    return &m->slots[i];
}

int merges_init(struct merges *m, uint32_t count, struct arena *a, struct err *e)
{
    uint32_t cap = 16;
    while (cap - cap / 4 < count) /* at most three quarters full */
        cap *= 2;
    m->mask = cap - 1;
    rng_entropy(&m->seed, sizeof(m->seed));
    m->slots = arena_calloc(a, cap, sizeof(*m->slots));
    if (!m->slots)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for %u merges", count);
    for (uint32_t i = 0; i < cap; i++)
        m->slots[i].pair = NO_PAIR;
    return 0;
}

void merges_add(struct merges *m, uint32_t left, uint32_t right, uint32_t id, uint32_t rank)
{
    *merge_slot(m, pair_of(left, right)) =
        (struct merge){.pair = pair_of(left, right), .rank = rank, .id = id};
}

static bool is_few(const struct mergeword *w)
{
    return w->symbols == w->few_symbols;
}

void mergeword_init(struct mergeword *w)
{
    w->symbols = w->few_symbols;
    w->heap.at = w->few_candidates;
    w->cap = MERGEWORD_FEW;
}

int mergeword_start(struct mergeword *w, const struct merges *m, size_t n, struct err *e)
{
    w->merges = m;
    w->n = 0;
    w->heap.n = 0;
    if (n <= w->cap)
        return 0;
    if (is_few(w)) {
        w->symbols = NULL;
        w->heap.at = NULL;
    }
    void *symbols = w->symbols;
    int rc = mergeheap_reserve(&w->heap, &symbols, sizeof(*w->symbols), n, &w->cap, e);
    w->symbols = symbols;
    return rc;
}

void mergeword_add(struct mergeword *w, uint32_t id)
{
    uint32_t k = w->n++;
    w->symbols[k] = (struct merge_symbol){.id = id, .prev = k ? k - 1 : END, .next = k + 1};
}

/* Puts the pair that starts at symbol `left` into the heap if it has a merge. */
static void offer(struct mergeword *w, uint32_t left)
{
    const struct merge_symbol *s = &w->symbols[left];
    if (s->next == END)
        return;
    const struct merge *m = merge_slot(w->merges, pair_of(s->id, w->symbols[s->next].id));
    if (m->pair != NO_PAIR)
        mergeheap_push(&w->heap,
                       (struct merge_candidate){.order = pair_of(m->rank, left), .id = m->id});
}

/* The candidate is stale when a symbol of its pair has changed since: the pair there makes another
 * token. */
static bool still_there(const struct mergeword *w, struct merge_candidate c)
{
    const struct merge_symbol *s = &w->symbols[(uint32_t)c.order];
    if (s->id == TOKENIZER_NONE || s->next == END)
        return false;
    const struct merge *m = merge_slot(w->merges, pair_of(s->id, w->symbols[s->next].id));
    return m->pair != NO_PAIR && m->id == c.id;
}

static void merge_all(struct mergeword *w)
{
    while (w->heap.n) {
        struct merge_candidate c = mergeheap_pop(&w->heap);
        if (!still_there(w, c))
            continue;
        uint32_t left = (uint32_t)c.order;
        struct merge_symbol *s = &w->symbols[left], *gone = &w->symbols[s->next];
        s->id = c.id;
        s->next = gone->next;
        gone->id = TOKENIZER_NONE;
        if (s->next != END)
            w->symbols[s->next].prev = left;
        offer(w, left);
        if (s->prev != END)
            offer(w, s->prev);
    }
}

int mergeword_finish(struct mergeword *w, struct tokenvec *out, struct err *e)
{
    int rc = 0;
    if (w->n == 0)
        return 0;
    w->symbols[w->n - 1].next = END;
    for (uint32_t i = 0; i < w->n; i++)
        offer(w, i);
    merge_all(w);
    for (uint32_t i = 0; i != END && rc == 0; i = w->symbols[i].next)
        rc = tokenizer_out_err(tokenvec_add(out, w->symbols[i].id), out, e);
    return rc;
}

void mergeword_release(struct mergeword *w)
{
    if (is_few(w))
        return;
    free(w->symbols);
    free(w->heap.at);
}
