#include "runtime/text/stopmatch.h"

#include <stdlib.h>
#include <string.h>

#define BYTES_MAX (1u << 20)

/* A node stands for a start of a stop string. Node 0 is the empty one; 0 as a link means none. */
struct stop_node {
    uint32_t child;   /* first of the nodes one byte longer */
    uint32_t sibling; /* next child of the same parent */
    uint32_t fail;    /* the longest proper tail of this one that is a node too */
    uint32_t end;     /* one past its last byte in text, so the node's string ends there */
    uint32_t depth;   /* its length */
    uint32_t match;   /* the longest stop string that it ends with, or STOPMATCH_NONE */
    uint32_t match_bytes;
};

static uint32_t child_of(const struct stopmatch *m, uint32_t node, char byte)
{
    uint32_t c = m->nodes[node].child;
    while (c && m->text[m->nodes[c].end - 1] != byte)
        c = m->nodes[c].sibling;
    return c;
}

/* The node of the longest tail of (node's string + byte). */
static uint32_t step(const struct stopmatch *m, uint32_t node, char byte)
{
    for (;;) {
        uint32_t c = child_of(m, node, byte);
        if (c || node == 0)
            return c;
        node = m->nodes[node].fail;
    }
}

/* Adds text[begin, end) as string `index`; *n_nodes grows. */
static void add(struct stopmatch *m, uint32_t begin, uint32_t end, uint32_t index,
                uint32_t *n_nodes)
{
    uint32_t at = 0;
    for (uint32_t i = begin; i < end; i++) {
        uint32_t c = child_of(m, at, m->text[i]);
        if (!c) {
            c = (*n_nodes)++;
            m->nodes[c] = (struct stop_node){.sibling = m->nodes[at].child,
                                             .end = i + 1,
                                             .depth = i + 1 - begin,
                                             .match = STOPMATCH_NONE};
            m->nodes[at].child = c;
        }
        at = c;
    }
    if (m->nodes[at].match == STOPMATCH_NONE) {
        m->nodes[at].match = index;
        m->nodes[at].match_bytes = end - begin;
    }
}

/* Sets the fail links, shortest nodes first: queue is room for every node. */
static void link_tails(struct stopmatch *m, uint32_t *queue)
{
    uint32_t head = 0, tail = 1;
    queue[0] = 0;
    while (head < tail) {
        uint32_t parent = queue[head++];
        for (uint32_t c = m->nodes[parent].child; c; c = m->nodes[c].sibling) {
            struct stop_node *node = &m->nodes[c];
            if (parent)
                node->fail = step(m, m->nodes[parent].fail, m->text[node->end - 1]);
            if (node->match == STOPMATCH_NONE) {
                node->match = m->nodes[node->fail].match;
                node->match_bytes = m->nodes[node->fail].match_bytes;
            }
            queue[tail++] = c;
        }
    }
}

static int check(const size_t *lens, size_t n, const struct stopmatch_limits *lim, size_t *total,
                 struct err *e)
{
    size_t most = lim->max_bytes < BYTES_MAX ? lim->max_bytes : BYTES_MAX;
    *total = 0;
    if (n > lim->max_strings)
        return err_set(e, ERR_LIMIT, "%zu stop strings; at most %u", n, lim->max_strings);
    for (size_t i = 0; i < n; i++) {
        if (lens[i] == 0)
            return err_set(e, ERR_RANGE, "stop string %zu is empty", i);
        if (lens[i] > most - *total)
            return err_set(e, ERR_LIMIT, "stop strings have more than %zu bytes together", most);
        *total += lens[i];
    }
    return 0;
}

int stopmatch_init(struct stopmatch *m, const char *const *strings, const size_t *lens, size_t n,
                   const struct stopmatch_limits *lim, struct err *e)
{
    size_t total;
    memset(m, 0, sizeof(*m));
    m->hit = STOPMATCH_NONE;
    int rc = check(lens, n, lim, &total, e);
    if (rc < 0 || total == 0)
        return rc;
    uint32_t *queue = calloc(total + 1, sizeof(*queue));
    m->nodes = calloc(1, (total + 1) * sizeof(*m->nodes) + total);
    if (!queue || !m->nodes) {
        free(queue);
        stopmatch_release(m);
        return err_set(e, ERR_NOMEM, "no memory for %zu bytes of stop strings", total);
    }
    m->text = (char *)(m->nodes + total + 1);
    m->nodes[0].match = STOPMATCH_NONE;
    uint32_t n_nodes = 1, at = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(m->text + at, strings[i], lens[i]);
        add(m, at, at + (uint32_t)lens[i], (uint32_t)i, &n_nodes);
        at += (uint32_t)lens[i];
    }
    link_tails(m, queue);
    free(queue);
    return 0;
}

void stopmatch_release(struct stopmatch *m)
{
    free(m->nodes);
    memset(m, 0, sizeof(*m));
    m->hit = STOPMATCH_NONE;
}

void stopmatch_clear(struct stopmatch *m)
{
    m->state = 0;
    m->hit = STOPMATCH_NONE;
}

size_t stopmatch_held_bytes(const struct stopmatch *m)
{
    return m->nodes && m->hit == STOPMATCH_NONE ? m->nodes[m->state].depth : 0;
}

/* Appends the first n bytes of (what `node` stands for + piece). */
static void let_out(const struct stopmatch *m, uint32_t node, const char *piece, size_t n,
                    struct buf *out)
{
    const struct stop_node *held = &m->nodes[node];
    size_t first = n < held->depth ? n : held->depth;
    buf_add(out, m->text + held->end - held->depth, first);
    buf_add(out, piece, n - first);
}

bool stopmatch_feed(struct stopmatch *m, const char *piece, size_t n, struct buf *out)
{
    if (m->hit != STOPMATCH_NONE)
        return true;
    if (!m->nodes) {
        buf_add(out, piece, n);
        return false;
    }
    uint32_t before = m->state;
    size_t held = m->nodes[before].depth;
    for (size_t i = 0; i < n; i++) {
        m->state = step(m, m->state, piece[i]);
        const struct stop_node *now = &m->nodes[m->state];
        if (now->match == STOPMATCH_NONE)
            continue;
        let_out(m, before, piece, held + i + 1 - now->match_bytes, out);
        m->hit = now->match;
        return true;
    }
    let_out(m, before, piece, held + n - m->nodes[m->state].depth, out);
    return false;
}

void stopmatch_flush(struct stopmatch *m, struct buf *out)
{
    if (m->nodes && m->hit == STOPMATCH_NONE)
        let_out(m, m->state, "", m->nodes[m->state].depth, out);
    m->state = 0;
}
