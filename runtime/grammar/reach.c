#include "runtime/grammar/reach.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LIST_MAX 512u
#define PREPARED_MAX 16u
#define KNOWN_MAX 64u

struct reaches {
    uint32_t n_states;
    size_t bytes_max;
    atomic_size_t bytes;
    _Atomic(struct reach *) of[]; /* (n_states): NULL: not found yet */
};

int reaches_create(uint32_t n_states, size_t bytes_max, struct reaches **out, struct err *e)
{
    struct reaches *r = calloc(1, sizeof(*r) + n_states * sizeof(r->of[0]));
    if (!r)
        return err_set(e, ERR_NOMEM, "no memory");
    r->n_states = n_states;
    r->bytes_max = bytes_max;
    *out = r;
    return 0;
}

void reach_free(struct reach *r)
{
    if (!r)
        return;
    free(r->tokens);
    free(r->mask);
    free(r->exits);
    free(r);
}

void reaches_free(struct reaches *r)
{
    if (!r)
        return;
    for (uint32_t i = 0; i < r->n_states; i++)
        reach_free(atomic_load_explicit(&r->of[i], memory_order_relaxed));
    free(r);
}

size_t reaches_memory_bytes(const struct reaches *r)
{
    return sizeof(*r) + r->n_states * sizeof(r->of[0]) + atomic_load(&r->bytes);
}

/* ---- finding one ------------------------------------------------------------------------------
 */

struct search {
    const struct automaton *a;
    const struct token_trie *trie;
    struct reach *r;
    uint32_t cap_exits;
    uint32_t known[KNOWN_MAX]; /* states that have an exit */
    uint32_t n_known;
    uint32_t slice;
    bool failed;
    uint32_t path[TRIE_TOKEN_BYTES_MAX + 1]; /* states by depth */
};

/* From the list to a bitmap. */
static bool widen(struct search *s)
{
    struct reach *r = s->r;
    if (r->mask)
        return true;
    r->mask = calloc(token_trie_mask_words(s->trie) + 1, sizeof(*r->mask));
    s->failed |= !r->mask;
    for (uint32_t i = 0; r->mask && i < r->n_tokens; i++)
        r->mask[r->tokens[i] / 32] |= 1u << (r->tokens[i] % 32);
    return r->mask != NULL;
}

static void emit(struct search *s, uint32_t token)
{
    struct reach *r = s->r;
    if (r->mask || (r->n_tokens == LIST_MAX && widen(s)))
        r->mask[token / 32] |= 1u << (token % 32);
    else if (!s->failed)
        r->tokens[r->n_tokens++] = token;
}

static void add_exit(struct search *s, uint32_t state, uint32_t node, bool goes_on)
{
    struct reach *r = s->r;
    uint32_t k = 0;
    while (k < s->n_known && s->known[k] != state)
        k++;
    if (k < s->n_known && !goes_on)
        return;
    if (k == s->n_known && k < KNOWN_MAX)
        s->known[s->n_known++] = state;
    if (r->n_exits == s->cap_exits) {
        uint32_t cap = s->cap_exits ? 2 * s->cap_exits : 16;
        struct reach_exit *more = realloc(r->exits, cap * sizeof(*more));
        if (!more) {
            s->failed = true;
            return;
        }
        r->exits = more;
        s->cap_exits = cap;
    }
    r->exits[r->n_exits++] = (struct reach_exit){state, node, s->slice};
}

/* One node and what is below it, `from` being the state above. */
static void explore(struct search *s, const struct trie_node *nodes, uint32_t node, uint32_t from)
{
    const struct automaton *a = s->a;
    const uint32_t *next = a->next;
    uint32_t n_classes = a->n_classes, end = node + nodes[node].skip;
    s->path[nodes[node].depth - 1] = from;
    for (uint32_t i = node; i < end && !s->failed;) {
        const struct trie_node *nd = &nodes[i];
        uint32_t to = next[(size_t)s->path[nd->depth - 1] * n_classes + a->class_of[nd->byte]];
        if (to == AUTOMATON_DEAD) {
            i += nd->skip;
            continue;
        }
        s->path[nd->depth] = to;
        if (nd->token != TOKENIZER_NONE)
            emit(s, nd->token);
        if (a->states[to].flags)
            add_exit(s, to, i, nd->skip > 1);
        i++;
    }
}

static void search_slice(struct search *s, enum trie_slice slice, uint32_t state)
{
    uint32_t n;
    const struct trie_node *nodes = token_trie_nodes(s->trie, slice, &n);
    s->slice = slice;
    if (n == 0)
        return;
    if (slice < TRIE_REST) {
        const struct automaton_state *st = &s->a->states[state];
        uint32_t takes = st->takes[slice];
        const uint32_t *mask = token_trie_slice_mask(s->trie, slice, takes);
        size_t words = token_trie_mask_words(s->trie);
        for (size_t w = 0; takes && mask && widen(s) && w < words; w++)
            s->r->mask[w] |= mask[w];
        if (takes >= st->outlives[slice])
            return;
    }
    for (int b = 0; b < 256; b++) {
        uint32_t root = token_trie_root(s->trie, slice, (uint8_t)b);
        if (root != TRIE_NONE && automaton_next(s->a, state, (uint8_t)b) != AUTOMATON_DEAD)
            explore(s, nodes, root, state);
    }
}

static int by_state(const void *va, const void *vb)
{
    const struct reach_exit *a = va, *b = vb;
    if (a->state != b->state)
        return a->state < b->state ? -1 : 1;
    if (a->slice != b->slice)
        return a->slice < b->slice ? -1 : 1;
    return a->node < b->node ? -1 : a->node > b->node;
}

/* Gives back what the lists have too much. */
static void tighten(struct reach *r, const struct token_trie *trie)
{
    if (r->mask || r->n_tokens == 0) {
        free(r->tokens);
        r->tokens = NULL;
        r->n_tokens = 0;
    } else {
        uint32_t *less = realloc(r->tokens, r->n_tokens * sizeof(*less));
        r->tokens = less ? less : r->tokens;
    }
    if (r->n_exits) {
        struct reach_exit *less = realloc(r->exits, r->n_exits * sizeof(*less));
        r->exits = less ? less : r->exits;
        qsort(r->exits, r->n_exits, sizeof(*r->exits), by_state);
    }
    r->bytes = sizeof(*r) + r->n_tokens * sizeof(*r->tokens) + r->n_exits * sizeof(*r->exits) +
               (r->mask ? (token_trie_mask_words(trie) + 1) * sizeof(*r->mask) : 0);
}

static struct reach *find(const struct automaton *a, const struct token_trie *trie, uint32_t state)
{
    struct search s = {.a = a, .trie = trie, .r = calloc(1, sizeof(*s.r))};
    if (!s.r)
        return NULL;
    s.r->tokens = malloc(LIST_MAX * sizeof(*s.r->tokens));
    s.failed = !s.r->tokens;
    for (int slice = 0; slice < TRIE_SLICES && !s.failed; slice++)
        search_slice(&s, (enum trie_slice)slice, state);
    if (s.failed) {
        reach_free(s.r);
        return NULL;
    }
    tighten(s.r, trie);
    return s.r;
}

const struct reach *reaches_get(struct reaches *r, const struct automaton *a,
                                const struct token_trie *trie, uint32_t state, struct reach **own)
{
    struct reach *there = atomic_load_explicit(&r->of[state], memory_order_acquire), *none = NULL;
    *own = NULL;
    if (there)
        return there;
    there = find(a, trie, state);
    if (!there)
        return NULL;
    if (atomic_fetch_add(&r->bytes, there->bytes) + there->bytes > r->bytes_max ||
        !atomic_compare_exchange_strong_explicit(&r->of[state], &none, there, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        atomic_fetch_sub(&r->bytes, there->bytes);
        *own = there;
    }
    return there;
}

void reaches_prepare(struct reaches *r, const struct automaton *a, const struct token_trie *trie)
{
    uint32_t n = 0;
    for (uint32_t q = 1; q < a->n_states && n < PREPARED_MAX; q++) {
        struct reach *own;
        if (a->states[q].takes[TRIE_TEXT] < TRIE_CHARS_MAX - 1)
            continue;
        n++;
        reaches_get(r, a, trie, q, &own);
        reach_free(own);
    }
}
