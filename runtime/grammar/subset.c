/* subset.c: see subset.h. */
#include "runtime/grammar/subset.h"

#include <stdlib.h>
#include <string.h>

void subset_init(struct subset *s, struct syntax *y)
{
    memset(s, 0, sizeof *s);
    s->y = y;
    s->nfa.y = y;
}

void subset_release(struct subset *s)
{
    free(s->nfa.states);
    free(s->states);
    free(s->edges);
    free(s->calls);
    free(s->members);
    free(s->table);
    free(s->stamp);
    free(s->work);
    memset(s, 0, sizeof *s);
}

/* Room for n more; every list is bounded by the steps that fill it. */
static bool grow(struct syntax *y, void *pp, uint32_t *cap, uint32_t used, uint32_t n, size_t size)
{
    void **p = pp;
    if (!syntax_spend(y, n + 1u))
        return false;
    if ((uint64_t)used + n > UINT32_MAX / 4) {
        syntax_fault(y, ERR_LIMIT, "expands to too many states");
        return false;
    }
    if (used + n <= *cap)
        return true;
    uint32_t want = 2 * (used + n) + 64;
    void *grown = realloc(*p, want * size);
    if (!grown) {
        syntax_fault(y, ERR_NOMEM, "no memory");
        return false;
    }
    *p = grown;
    *cap = want;
    return true;
}

static int id_cmp(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, z = *(const uint32_t *)b;
    return x < z ? -1 : x > z;
}

/* What an NFA state can do next without a byte is gathered at members[n_members ..]. */
static bool close_over(struct subset *s, uint32_t seed, uint32_t *count)
{
    uint32_t depth = 0;
    s->work[depth++] = seed;
    while (depth) {
        uint32_t id = s->work[--depth];
        if (s->stamp[id] == s->now)
            continue;
        s->stamp[id] = s->now;
        const struct nfa_state *st = &s->nfa.states[id];
        if (st->kind == NFA_SPLIT) {
            /* Each state is pushed at most twice: work has room for that. */
            s->work[depth++] = st->out2;
            s->work[depth++] = st->out;
        } else if (st->kind != NFA_DEAD) {
            if (!grow(s->y, &s->members, &s->cap_members, s->n_members + *count, 1,
                      sizeof *s->members))
                return false;
            s->members[s->n_members + (*count)++] = id;
        }
    }
    return true;
}

static uint32_t hash_of(const uint32_t *ids, uint32_t n)
{
    uint32_t h = 2166136261u;
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ ids[i]) * 16777619u;
    return h ^ h >> 15;
}

static bool rehash(struct subset *s, uint32_t first)
{
    uint32_t n = s->n_states - first;
    if (s->table && 2 * (n + 1) < s->table_size)
        return true;
    uint32_t size = 256;
    while (size < 4 * (n + 1))
        size *= 2;
    uint32_t *table = calloc(size, sizeof *table);
    if (!table) {
        syntax_fault(s->y, ERR_NOMEM, "no memory");
        return false;
    }
    for (uint32_t q = first; q < s->n_states; q++) {
        uint32_t h = hash_of(s->members + s->states[q].members, s->states[q].n_members);
        while (table[h & (size - 1)])
            h++;
        table[h & (size - 1)] = q;
    }
    free(s->table);
    s->table = table;
    s->table_size = size;
    return true;
}

/* The state for the `count` members gathered past the end; 0 for none of them. */
static uint32_t intern(struct subset *s, uint32_t first, uint32_t count)
{
    if (!count || s->y->failed)
        return 0;
    uint32_t *ids = s->members + s->n_members;
    qsort(ids, count, sizeof *ids, id_cmp);
    if (!syntax_spend(s->y, 2 * (uint64_t)count) || !rehash(s, first))
        return 0;
    uint32_t h = hash_of(ids, count);
    for (uint32_t q; (q = s->table[h & (s->table_size - 1)]) != 0; h++)
        if (s->states[q].n_members == count &&
            !memcmp(s->members + s->states[q].members, ids, count * sizeof *ids))
            return q;
    if (s->n_states >= s->y->limits->states_max)
        return syntax_fault(s->y, ERR_LIMIT, "expands to more than %u states",
                            s->y->limits->states_max);
    if (!grow(s->y, &s->states, &s->cap_states, s->n_states, 1, sizeof *s->states))
        return 0;
    s->table[h & (s->table_size - 1)] = s->n_states;
    s->states[s->n_states] = (struct subset_state){.members = s->n_members, .n_members = count};
    s->n_members += count;
    return s->n_states++;
}

static void add_edge(struct subset *s, uint32_t q, uint32_t lo, uint32_t hi, uint32_t to)
{
    struct subset_state *st = &s->states[q];
    struct subset_edge *last = st->n_edges ? &s->edges[s->n_edges - 1] : NULL;
    if (last && last->to == to && last->hi + 1u == lo) {
        last->hi = (uint8_t)hi;
        return;
    }
    if (!grow(s->y, &s->edges, &s->cap_edges, s->n_edges, 1, sizeof *s->edges))
        return;
    s->edges[s->n_edges++] = (struct subset_edge){(uint8_t)lo, (uint8_t)hi, to};
    st->n_edges++;
}

static void expand_bytes(struct subset *s, uint32_t first, uint32_t q)
{
    bool cut[257] = {false};
    uint32_t n = s->states[q].n_members;
    for (uint32_t i = 0; i < n; i++) {
        const struct nfa_state *st = &s->nfa.states[s->members[s->states[q].members + i]];
        if (st->kind == NFA_RANGE)
            cut[st->lo] = cut[st->hi + 1] = true;
    }
    for (uint32_t lo = 0, hi; lo < 256 && !s->y->failed; lo = hi) {
        for (hi = lo + 1; hi < 256 && !cut[hi];)
            hi++;
        uint32_t count = 0;
        s->now++;
        if (!syntax_spend(s->y, n / 4 + 1))
            return;
        for (uint32_t i = 0; i < n; i++) {
            struct nfa_state st = s->nfa.states[s->members[s->states[q].members + i]];
            if (st.kind == NFA_RANGE && st.lo <= lo && lo <= st.hi &&
                !close_over(s, st.out, &count))
                return;
        }
        uint32_t to = intern(s, first, count);
        if (to)
            add_edge(s, q, lo, hi - 1, to);
    }
}

/* Calls of the same rule lead to one state. */
static void expand_calls(struct subset *s, uint32_t first, uint32_t q)
{
    uint32_t n = s->states[q].n_members, n_calls = 0, at = s->n_calls;
    for (uint32_t i = 0; i < n && !s->y->failed; i++) {
        struct nfa_state st = s->nfa.states[s->members[s->states[q].members + i]];
        bool known = st.kind != NFA_CALL;
        for (uint32_t k = 0; k < n_calls && !known; k++)
            known = s->calls[at + k].rule == st.rule;
        if (!syntax_spend(s->y, n_calls + 1u) || known)
            continue;
        uint32_t count = 0;
        s->now++;
        for (uint32_t j = i; j < n; j++) {
            struct nfa_state other = s->nfa.states[s->members[s->states[q].members + j]];
            if (other.kind == NFA_CALL && other.rule == st.rule &&
                !close_over(s, other.out, &count))
                return;
        }
        uint32_t to = intern(s, first, count);
        if (!to || !grow(s->y, &s->calls, &s->cap_calls, s->n_calls, 1, sizeof *s->calls))
            continue;
        s->calls[s->n_calls++] = (struct automaton_call){st.rule, to};
        n_calls++;
    }
    s->states[q].calls = at;
    s->states[q].n_calls = n_calls;
}

/* Marks what can reach the rule's end, and cuts the ways to what can't. */
static void trim(struct subset *s, uint32_t first)
{
    for (bool changed = true; changed && syntax_spend(s->y, s->n_states - first);) {
        changed = false;
        for (uint32_t q = s->n_states; q-- > first;) {
            struct subset_state *st = &s->states[q];
            bool lives = st->lives || st->accepts;
            for (uint32_t i = 0; i < st->n_edges && !lives; i++)
                lives = s->states[s->edges[st->edges + i].to].lives;
            for (uint32_t i = 0; i < st->n_calls && !lives; i++)
                lives = s->states[s->calls[st->calls + i].then].lives;
            changed |= lives != st->lives;
            st->lives = lives;
        }
    }
    for (uint32_t q = first; q < s->n_states; q++) {
        struct subset_state *st = &s->states[q];
        uint32_t kept = 0;
        for (uint32_t i = 0; i < st->n_edges; i++)
            if (s->states[s->edges[st->edges + i].to].lives)
                s->edges[st->edges + kept++] = s->edges[st->edges + i];
        st->n_edges = kept;
        kept = 0;
        for (uint32_t i = 0; i < st->n_calls; i++)
            if (s->states[s->calls[st->calls + i].then].lives)
                s->calls[st->calls + kept++] = s->calls[st->calls + i];
        st->n_calls = kept;
    }
}

static bool scratch(struct subset *s)
{
    free(s->table);
    s->table = NULL;
    s->n_members = 0;
    uint32_t need = s->nfa.n;
    if (need > s->cap_stamp) {
        free(s->stamp);
        free(s->work);
        s->cap_stamp = 0;
        s->stamp = calloc(need, sizeof *s->stamp);
        s->work = calloc(2 * (size_t)need + 2, sizeof *s->work);
        if (!s->stamp || !s->work) {
            syntax_fault(s->y, ERR_NOMEM, "no memory");
            return false;
        }
        s->cap_stamp = need;
        s->now = 0;
    }
    return true;
}

uint32_t subset_add_rule(struct subset *s, uint32_t body)
{
    if (!s->n_states) {
        if (!grow(s->y, &s->states, &s->cap_states, 0, 1, sizeof *s->states))
            return 0;
        s->states[s->n_states++] = (struct subset_state){.lives = false};
    }
    uint32_t start = nfa_build(&s->nfa, body), count = 0, first = s->n_states;
    if (!start || !scratch(s))
        return 0;
    s->now++;
    if (!close_over(s, start, &count) || !intern(s, first, count))
        return 0;
    for (uint32_t q = first; q < s->n_states && !s->y->failed; q++) {
        s->states[q].edges = s->n_edges;
        for (uint32_t i = 0; i < s->states[q].n_members; i++)
            s->states[q].accepts |=
                s->nfa.states[s->members[s->states[q].members + i]].kind == NFA_ACCEPT;
        expand_bytes(s, first, q);
        expand_calls(s, first, q);
    }
    if (s->y->failed)
        return 0;
    trim(s, first);
    return s->states[first].lives ? first : 0;
}
