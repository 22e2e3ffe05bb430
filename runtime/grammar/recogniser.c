/* recogniser.c: a sequence's way through a grammar (grammar.h), byte by byte.
 *
 *   config = (state of a rule's automaton, frame)          every reading of the bytes so far
 *   frame  = (rule, the byte at which it was called)       shared by all who call it there
 *   link   = frame ──► (state after the call, frame of the caller)
 *
 * This is Earley's recogniser with deterministic rules: a graph of frames in place of a stack, so
 * that ambiguity costs configs and not stacks. Frames made at the current byte never return at it,
 * since rules that match nothing are stepped over (automaton.h): only new frames get links, older
 * ones are immutable. A walk through the trie therefore undoes a byte by cutting three lists. A
 * call at its rule's very end hands its frame's links on (Leo's right recursion), so tails don't
 * pile up.
 *
 * A byte that would need more than stack_max frames or configs_max configs: the first is a dead
 * end (that deep is not generated), the second ends the mask with ERR_LIMIT.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/grammar/grammar_internal.h"

#define ROOT_FRAME 0u
#define NO_LINK UINT32_MAX

struct config {
    uint32_t state;
    uint32_t frame;
};

struct frame {
    uint32_t rule;
    uint32_t links; /* newest first */
};

struct link {
    uint32_t then;
    uint32_t frame;
    uint32_t next;
};

/* The lengths of the lists: what undoes a byte. */
struct mark {
    uint32_t configs, frames, links;
};

struct grammar_state {
    const struct grammar *g; /* borrowed */
    struct config *configs;
    struct frame *frames;
    struct link *links;
    struct mark at; /* in use */
    uint32_t cap_configs, cap_frames, cap_links;
    uint32_t now;         /* the first config of the set that stands */
    struct mark *path;    /* by depth in the trie; [0] is where a walk starts */
    uint32_t *path_first; /* the first config of the set at that depth */
    uint32_t *renumber;   /* scratch of compact, one a frame */
    uint64_t steps;
    bool overflow; /* configs_max was passed */
    bool full;     /* so was stack_max */
    bool ended;    /* a token that ends generation was accepted */
    size_t memory_bytes;
};

static void add_config(struct grammar_state *s, uint32_t first, uint32_t state, uint32_t frame)
{
    for (uint32_t i = first; i < s->at.configs; i++)
        if (s->configs[i].state == state && s->configs[i].frame == frame)
            return;
    s->steps += s->at.configs - first;
    if (s->at.configs - first >= s->g->limits.configs_max || s->at.configs == s->cap_configs) {
        s->overflow = true;
        return;
    }
    s->configs[s->at.configs++] = (struct config){state, frame};
}

/* False when the list is full. */
static bool add_link(struct grammar_state *s, uint32_t frame, uint32_t then, uint32_t caller)
{
    for (uint32_t l = s->frames[frame].links; l != NO_LINK; l = s->links[l].next)
        if (s->links[l].then == then && s->links[l].frame == caller)
            return true;
    if (s->at.links == s->cap_links) {
        s->full = true;
        return false;
    }
    s->links[s->at.links] = (struct link){then, caller, s->frames[frame].links};
    s->frames[frame].links = s->at.links++;
    return true;
}

/* The frame for `rule` called here; `old` is the number of frames before this byte. */
static uint32_t find_frame(struct grammar_state *s, uint32_t first, uint32_t old, uint32_t rule)
{
    for (uint32_t f = old; f < s->at.frames; f++)
        if (s->frames[f].rule == rule)
            return f;
    if (s->at.frames == s->cap_frames) {
        s->full = true;
        return NO_LINK;
    }
    uint32_t f = s->at.frames++;
    s->frames[f] = (struct frame){rule, NO_LINK};
    add_config(s, first, s->g->a.starts[rule], f);
    return f;
}

static bool call(struct grammar_state *s, uint32_t first, uint32_t old, struct config from,
                 const struct automaton_call *c)
{
    uint32_t f = find_frame(s, first, old, c->rule);
    if (f == NO_LINK)
        return false;
    bool tail = s->g->a.states[c->then].flags & AUTOMATON_LAST;
    if (!tail || from.frame == ROOT_FRAME || from.frame >= old)
        return add_link(s, f, c->then, from.frame);
    for (uint32_t l = s->frames[from.frame].links; l != NO_LINK; l = s->links[l].next) {
        s->steps++;
        if (!add_link(s, f, s->links[l].then, s->links[l].frame))
            return false;
    }
    return true;
}

/* Adds all that the configs from `first` on lead to without a byte. */
static bool close_set(struct grammar_state *s, uint32_t first, uint32_t old)
{
    const struct automaton *a = &s->g->a;
    for (uint32_t i = first; i < s->at.configs; i++) {
        struct config c = s->configs[i];
        const struct automaton_state *st = &a->states[c.state];
        if (!st->flags)
            continue;
        s->steps += 4;
        if ((st->flags & AUTOMATON_ACCEPTS) && c.frame < old)
            for (uint32_t l = s->frames[c.frame].links; l != NO_LINK; l = s->links[l].next)
                add_config(s, first, s->links[l].then, s->links[l].frame);
        for (uint32_t k = 0; k < st->n_calls; k++)
            if (!call(s, first, old, c, &a->calls[st->calls + k]))
                return false;
    }
    return !s->overflow;
}

/* From the set [from, end) over one byte to a new set behind `at`. False: the byte does not fit, or
 * a limit was reached; the caller cuts the lists back. */
static bool advance(struct grammar_state *s, uint32_t from, uint32_t end, uint8_t byte)
{
    const struct automaton *a = &s->g->a;
    uint32_t first = s->at.configs, flags = 0;
    s->steps += end - from + 1;
    for (uint32_t i = from; i < end; i++) {
        uint32_t to = automaton_next(a, s->configs[i].state, byte);
        if (to == AUTOMATON_DEAD)
            continue;
        flags |= a->states[to].flags;
        add_config(s, first, to, s->configs[i].frame);
    }
    if (first == s->at.configs || s->overflow)
        return false;
    return !flags || close_set(s, first, s->at.frames);
}

/* The set that stood stays where it is until compact, so that a failure undoes all. */
static bool take_bytes(struct grammar_state *s, const char *bytes, size_t n)
{
    uint32_t above = s->at.configs, from = s->now, end = above;
    for (size_t i = 0; i < n; i++) {
        if (!advance(s, from, end, (uint8_t)bytes[i]))
            return false;
        memmove(s->configs + above, s->configs + end, (s->at.configs - end) * sizeof *s->configs);
        s->at.configs -= end - above;
        from = above;
        end = s->at.configs;
    }
    s->now = from;
    return true;
}

/* Keeps the frames and links that the set can still return to, in their order. */
static void compact(struct grammar_state *s)
{
    uint32_t *to = s->renumber, *work = to + s->cap_frames, depth = 0, frames = 0, links = 0;
    for (uint32_t f = 0; f < s->at.frames; f++)
        to[f] = NO_LINK;
    work[depth++] = ROOT_FRAME;
    to[ROOT_FRAME] = 0;
    for (uint32_t i = s->now; i < s->at.configs; i++)
        if (to[s->configs[i].frame] == NO_LINK) {
            to[s->configs[i].frame] = 0;
            work[depth++] = s->configs[i].frame;
        }
    while (depth) {
        uint32_t f = work[--depth];
        for (uint32_t l = s->frames[f].links; l != NO_LINK; l = s->links[l].next)
            if (to[s->links[l].frame] == NO_LINK) {
                to[s->links[l].frame] = 0;
                work[depth++] = s->links[l].frame;
            }
    }
    for (uint32_t f = 0; f < s->at.frames; f++)
        if (to[f] != NO_LINK)
            to[f] = frames++;
    struct link *kept = s->links + s->cap_links;
    for (uint32_t f = 0; f < s->at.frames; f++) {
        if (to[f] == NO_LINK)
            continue;
        uint32_t first = links;
        for (uint32_t l = s->frames[f].links; l != NO_LINK; l = s->links[l].next, links++)
            kept[links] = (struct link){s->links[l].then, to[s->links[l].frame], links + 1};
        if (links > first)
            kept[links - 1].next = NO_LINK;
        s->frames[to[f]] = (struct frame){s->frames[f].rule, links > first ? first : NO_LINK};
    }
    memcpy(s->links, kept, links * sizeof *kept);
    for (uint32_t i = s->now; i < s->at.configs; i++)
        s->configs[i].frame = to[s->configs[i].frame];
    memmove(s->configs, s->configs + s->now, (s->at.configs - s->now) * sizeof *s->configs);
    s->at = (struct mark){s->at.configs - s->now, frames, links};
    s->now = 0;
}

void grammar_state_clear(struct grammar_state *s)
{
    s->at = (struct mark){.frames = 1};
    s->frames[ROOT_FRAME] = (struct frame){s->g->root, NO_LINK};
    s->now = 0;
    s->ended = false;
    s->overflow = false;
    s->configs[s->at.configs++] = (struct config){s->g->a.starts[s->g->root], ROOT_FRAME};
    /* grammar_state_create has tried it. */
    close_set(s, 0, 1);
}

int grammar_state_create(const struct grammar *g, struct grammar_state **out, struct err *e)
{
    uint32_t depth = token_trie_depth_max(g->trie) + 2;
    uint32_t configs = 16 * g->limits.configs_max + 4 * depth, frames = g->limits.stack_max;
    uint32_t links = 4 * frames;
    struct grammar_state *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "grammar: no memory");
    s->g = g;
    s->cap_configs = configs;
    s->cap_frames = frames;
    s->cap_links = links;
    s->configs = calloc(configs, sizeof *s->configs);
    s->frames = calloc(frames, sizeof *s->frames);
    s->links = calloc(2 * (size_t)links, sizeof *s->links);
    s->path = calloc(depth, sizeof *s->path);
    s->path_first = calloc(depth, sizeof *s->path_first);
    s->renumber = calloc(2 * (size_t)frames, sizeof *s->renumber);
    s->memory_bytes = sizeof *s + configs * sizeof *s->configs +
                      frames * (sizeof *s->frames + 2 * sizeof *s->renumber) +
                      2 * (size_t)links * sizeof *s->links +
                      depth * (sizeof *s->path + sizeof *s->path_first);
    int rc = 0;
    if (!s->configs || !s->frames || !s->links || !s->path || !s->path_first || !s->renumber)
        rc = err_set(e, ERR_NOMEM, "grammar: no memory");
    else
        grammar_state_clear(s);
    if (!rc && s->overflow)
        rc = err_set(e, ERR_LIMIT, "grammar: starts in more than %u ways", g->limits.configs_max);
    if (rc)
        grammar_state_free(s);
    else
        *out = s;
    return rc;
}

void grammar_state_free(struct grammar_state *s)
{
    if (!s)
        return;
    free(s->configs);
    free(s->frames);
    free(s->links);
    free(s->path);
    free(s->path_first);
    free(s->renumber);
    free(s);
}

size_t grammar_state_memory_bytes(const struct grammar_state *s)
{
    return s->memory_bytes;
}

bool grammar_is_accepting(const struct grammar_state *s)
{
    for (uint32_t i = s->now; i < s->at.configs && !s->ended; i++)
        if (s->configs[i].frame == ROOT_FRAME &&
            (s->g->a.states[s->configs[i].state].flags & AUTOMATON_ACCEPTS))
            return true;
    return false;
}

/* Sets the bits of all tokens of nodes [i, n) of a tree that fit. The set at the depth above node i
 * is in path. False: a limit was passed. */
static bool walk(struct grammar_state *s, const struct trie_node *nodes, uint32_t i, uint32_t n,
                 uint32_t *bits)
{
    const struct automaton *a = &s->g->a;
    while (i < n) {
        const struct trie_node *nd = &nodes[i];
        const struct mark *up = &s->path[nd->depth - 1];
        uint32_t from = s->path_first[nd->depth - 1], end = up->configs;
        struct mark *here = &s->path[nd->depth];
        if (end - from == 1) {
            uint32_t to = automaton_next(a, s->configs[from].state, nd->byte);
            s->steps++;
            if (to == AUTOMATON_DEAD) {
                i += nd->skip;
                continue;
            }
            if (!a->states[to].flags && end < s->cap_configs) {
                s->configs[end] = (struct config){to, s->configs[from].frame};
                *here = (struct mark){end + 1, up->frames, up->links};
                goto fits;
            }
        }
        s->at = *up;
        if (!advance(s, from, end, nd->byte)) {
            if (s->overflow)
                return false;
            i += nd->skip;
            continue;
        }
        *here = s->at;
    fits:
        s->path_first[nd->depth] = end;
        if (nd->token != TOKENIZER_NONE)
            bits[nd->token / 32] |= 1u << (nd->token % 32);
        i++;
        if (s->steps > s->g->limits.mask_steps_max)
            return false;
    }
    return true;
}

/* All trees with the whole set: slow, and needs nothing. */
static bool walk_all(struct grammar_state *s, uint32_t *bits)
{
    bool ok = true;
    struct mark keep = s->at;
    for (int slice = 0; slice < TRIE_SLICES && ok; slice++) {
        uint32_t n;
        const struct trie_node *nodes = token_trie_nodes(s->g->trie, (enum trie_slice)slice, &n);
        s->path[0] = s->at;
        s->path_first[0] = s->now;
        ok = walk(s, nodes, 0, n, bits);
        s->at = keep;
    }
    return ok;
}

enum outcome { DONE, OVER, SLOWLY };

/* The tokens that leave the rule of `frame` at exits[0, n), all in one state: what the calls and
 * the callers there make of the rest of them. */
static enum outcome leave(struct grammar_state *s, const struct reach_exit *exits, uint32_t n,
                          uint32_t frame, uint32_t *bits)
{
    struct mark keep = s->at;
    uint32_t first = s->at.configs;
    bool ok = true;
    add_config(s, first, exits[0].state, frame);
    if (s->overflow || !close_set(s, first, s->at.frames)) {
        /* A set that is full is no reason to leave out what other readings of it would say. */
        s->at = keep;
        return s->overflow ? OVER : SLOWLY;
    }
    struct mark set = s->at;
    /* The first is the rule itself: its own way on is in the reach. */
    for (uint32_t i = 0; i < n && ok && set.configs > first + 1; i++) {
        uint32_t n_nodes;
        const struct trie_node *nodes =
            token_trie_nodes(s->g->trie, (enum trie_slice)exits[i].slice, &n_nodes);
        const struct trie_node *nd = &nodes[exits[i].node];
        s->path[nd->depth] = set;
        s->path_first[nd->depth] = first + 1;
        ok = walk(s, nodes, exits[i].node + 1, exits[i].node + nd->skip, bits);
    }
    s->at = keep;
    return ok ? DONE : OVER;
}

static void add_reach(const struct grammar_state *s, const struct reach *r, uint32_t *bits)
{
    size_t words = token_trie_mask_words(s->g->trie);
    for (size_t w = 0; r->mask && w < words; w++)
        bits[w] |= r->mask[w];
    for (uint32_t i = 0; i < r->n_tokens; i++)
        bits[r->tokens[i] / 32] |= 1u << (r->tokens[i] % 32);
}

/* What one reading lets follow. */
static enum outcome add_reading(struct grammar_state *s, struct config c, uint32_t *bits)
{
    struct reach *own;
    const struct reach *r = reaches_get(s->g->reaches, &s->g->a, s->g->trie, c.state, &own);
    enum outcome outcome = DONE;
    if (!r)
        return SLOWLY;
    add_reach(s, r, bits);
    s->steps += r->n_tokens + r->n_exits + (r->mask ? token_trie_mask_words(s->g->trie) / 16 : 0);
    for (uint32_t i = 0, end; i < r->n_exits && outcome == DONE; i = end) {
        for (end = i; end < r->n_exits && r->exits[end].state == r->exits[i].state;)
            end++;
        outcome = leave(s, r->exits + i, end - i, c.frame, bits);
    }
    reach_free(own);
    return s->steps > s->g->limits.mask_steps_max ? OVER : outcome;
}

int grammar_mask(struct grammar_state *s, uint32_t *bits, struct err *e)
{
    const struct token_trie *trie = s->g->trie;
    memset(bits, 0, token_trie_mask_words(trie) * sizeof *bits);
    if (s->ended)
        return 0;
    s->steps = 0;
    s->overflow = false;
    enum outcome outcome = DONE;
    for (uint32_t i = s->now, end = s->at.configs; i < end && outcome == DONE; i++)
        outcome = add_reading(s, s->configs[i], bits);
    if (outcome == SLOWLY) {
        memset(bits, 0, token_trie_mask_words(trie) * sizeof *bits);
        outcome = walk_all(s, bits) ? DONE : OVER;
    }
    if (outcome == OVER)
        return err_set(e, ERR_LIMIT, "grammar: %s",
                       s->overflow ? "too many readings of what was generated"
                                   : "the next token takes too many steps");
    token_trie_add_twins(trie, bits);
    if (grammar_is_accepting(s))
        token_trie_add_eog(trie, bits);
    return 0;
}

int grammar_accept(struct grammar_state *s, uint32_t token, struct err *e)
{
    size_t n;
    const char *bytes = token_trie_bytes(s->g->trie, token, &n);
    if (token_trie_is_eog(s->g->trie, token)) {
        if (!grammar_is_accepting(s))
            return err_set(e, ERR_RANGE, "grammar: ends before it is complete");
        s->ended = true;
        return 0;
    }
    struct mark keep = s->at;
    uint32_t now = s->now;
    s->overflow = false;
    s->full = false;
    if (s->ended || !n || n > TRIE_TOKEN_BYTES_MAX || !take_bytes(s, bytes, n)) {
        s->at = keep;
        s->now = now;
        if (s->overflow || s->full)
            return err_set(e, ERR_LIMIT, "grammar: what was generated has too many readings");
        return err_set(e, ERR_RANGE, "grammar: token %u does not fit", token);
    }
    compact(s);
    return 0;
}

/* The one byte that may follow, -1 when there are none or several. */
static int only_byte(const struct grammar_state *s, uint32_t from, uint32_t end)
{
    int only = -1;
    for (uint32_t i = from; i < end; i++)
        for (int b = 0; b < 256; b++) {
            if (automaton_next(&s->g->a, s->configs[i].state, (uint8_t)b) == AUTOMATON_DEAD)
                continue;
            if (only >= 0 && only != b)
                return -1;
            only = b;
        }
    return only;
}

size_t grammar_forced(struct grammar_state *s, char *out, size_t n)
{
    struct mark keep = s->at;
    uint32_t above = s->at.configs, from = s->now, end = above, now = s->now;
    size_t k = 0;
    s->overflow = false;
    while (k < n && !grammar_is_accepting(s)) {
        int b = only_byte(s, from, end);
        if (b < 0 || !advance(s, from, end, (uint8_t)b))
            break;
        memmove(s->configs + above, s->configs + end, (s->at.configs - end) * sizeof *s->configs);
        s->at.configs -= end - above;
        from = above;
        end = s->at.configs;
        s->now = from;
        out[k++] = (char)b;
    }
    s->at = keep;
    s->now = now;
    return k;
}
