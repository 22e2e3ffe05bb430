/* levels.c: see levels.h. By rounds: a state takes k characters if each character leads to a state
 * that takes k - 1; and likewise for what some characters survive. */
#include "runtime/grammar/levels.h"

#include <string.h>

#define LEVEL_MAX (TRIE_CHARS_MAX - 1)

/* The shapes of a UTF-8 character: the ranges of its bytes. */
static const struct shape {
    uint8_t n;
    uint8_t range[4][2];
} shapes[] = {
    {2, {{0xc2, 0xdf}, {0x80, 0xbf}}},
    {3, {{0xe0, 0xe0}, {0xa0, 0xbf}, {0x80, 0xbf}}},
    {3, {{0xe1, 0xec}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {3, {{0xed, 0xed}, {0x80, 0x9f}, {0x80, 0xbf}}},
    {3, {{0xee, 0xef}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {4, {{0xf0, 0xf0}, {0x90, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {4, {{0xf1, 0xf3}, {0x80, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {4, {{0xf4, 0xf4}, {0x80, 0x8f}, {0x80, 0xbf}, {0x80, 0xbf}}},
};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

struct classes {
    uint32_t n;
    uint8_t id[256];
};

struct levels {
    const struct automaton *a;
    struct classes first;           /* the slice's one-byte characters */
    struct classes of[N_SHAPES][4]; /* the classes of each shape's bytes */
    uint32_t n_shapes;              /* of this slice: 0 or all */
    uint8_t slice;
    bool every; /* takes (every character), or outlives (some character) */
};

static uint8_t *level(const struct levels *lv, uint32_t q)
{
    struct automaton_state *st = &lv->a->states[q];
    return lv->every ? &st->takes[lv->slice] : &st->outlives[lv->slice];
}

/* Whether every (or some) way through the shape's bytes from depth d on ends at `want` or higher.
 */
static bool through(const struct levels *lv, uint32_t q, size_t shape, uint32_t d, uint32_t want)
{
    const struct classes *c = &lv->of[shape][d];
    bool last = d + 1u == shapes[shape].n;
    for (uint32_t i = 0; i < c->n; i++) {
        uint32_t to = lv->a->next[(size_t)q * lv->a->n_classes + c->id[i]];
        bool leaves = to && !lv->every && lv->a->states[to].flags;
        bool ok =
            to && (leaves || (last ? *level(lv, to) >= want : through(lv, to, shape, d + 1, want)));
        if (ok != lv->every)
            return ok;
    }
    return lv->every;
}

static bool reaches(const struct levels *lv, uint32_t q, uint32_t want)
{
    for (uint32_t i = 0; i < lv->first.n; i++) {
        uint32_t to = lv->a->next[(size_t)q * lv->a->n_classes + lv->first.id[i]];
        bool ok = to && *level(lv, to) >= want;
        if (ok != lv->every)
            return ok;
    }
    for (size_t s = 0; s < lv->n_shapes; s++) {
        bool ok = through(lv, q, s, 0, want);
        if (ok != lv->every)
            return ok;
    }
    return lv->every;
}

static void collect(const struct automaton *a, struct classes *c, const bool bytes[256])
{
    bool seen[256] = {false};
    c->n = 0;
    for (int b = 0; b < 256; b++) {
        if (bytes[b] && !seen[a->class_of[b]])
            c->id[c->n++] = a->class_of[b];
        if (bytes[b])
            seen[a->class_of[b]] = true;
    }
}

static void prepare(struct levels *lv, enum trie_slice slice)
{
    bool bytes[256];
    for (int b = 0; b < 256; b++)
        bytes[b] = token_trie_slice_has(slice, (uint8_t)b);
    collect(lv->a, &lv->first, bytes);
    lv->slice = (uint8_t)slice;
    lv->n_shapes = slice == TRIE_TEXT ? N_SHAPES : 0;
    for (size_t s = 0; s < lv->n_shapes; s++)
        for (uint32_t d = 0; d < shapes[s].n; d++) {
            for (int b = 0; b < 256; b++)
                bytes[b] = b >= shapes[s].range[d][0] && b <= shapes[s].range[d][1];
            collect(lv->a, &lv->of[s][d], bytes);
        }
}

/* Where a round loses no state, all that are left go on for ever. */
static bool rounds(struct levels *lv, struct syntax *y)
{
    uint32_t before = 0;
    for (uint32_t k = 1; k <= LEVEL_MAX; k++) {
        uint32_t count = 0;
        for (uint32_t q = 1; q < lv->a->n_states; q++) {
            uint8_t *l = level(lv, q);
            if (*l == k - 1 && syntax_spend(y, 8) && reaches(lv, q, k - 1))
                *l = (uint8_t)k;
            count += *l >= k;
        }
        if (y->failed)
            return false;
        if (k > 1 && count == before) {
            for (uint32_t q = 1; q < lv->a->n_states; q++)
                if (*level(lv, q) >= k)
                    *level(lv, q) = LEVEL_MAX;
            return true;
        }
        before = count;
    }
    return true;
}

bool levels_compute(struct automaton *a, struct syntax *y)
{
    struct levels lv = {.a = a};
    for (int slice = 0; slice < TRIE_REST; slice++) {
        prepare(&lv, (enum trie_slice)slice);
        lv.every = true;
        if (!rounds(&lv, y))
            return false;
        /* Where the rule may end or call another, what follows is not known here. */
        lv.every = false;
        for (uint32_t q = 1; q < a->n_states; q++)
            if (a->states[q].flags)
                a->states[q].outlives[slice] = LEVEL_MAX;
        if (!rounds(&lv, y))
            return false;
    }
    return true;
}
