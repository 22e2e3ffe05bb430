#include "runtime/text/trie.h"

#include <stdlib.h>
#include <string.h>

/* The sorted tokens that a node's path is the start of: [lo, hi). */
struct range {
    uint32_t lo, hi, depth;
};

static size_t common_start(const struct vocab *v, uint32_t a, uint32_t b)
{
    size_t na, nb, k = 0;
    const char *p = vocab_bytes(v, a, &na), *q = vocab_bytes(v, b, &nb);
    while (k < na && k < nb && p[k] == q[k])
        k++;
    return k;
}

/* Nodes that the sorted tokens make, the root among them. */
static size_t count_nodes(const struct specials *s)
{
    size_t total = 1;
    for (uint32_t i = 0; i < s->n; i++) {
        size_t n;
        vocab_bytes(s->vocab, s->ids[i], &n);
        total += n - (i ? common_start(s->vocab, s->ids[i - 1], s->ids[i]) : 0);
    }
    return total;
}

/* Gives node i its token and its children, which go to the end; returns how many nodes there are
 * then. */
static uint32_t expand(struct trie *t, const struct specials *s, struct range *ranges, uint32_t i,
                       uint32_t n_nodes)
{
    struct range r = ranges[i];
    size_t n;
    t->nodes[i] = (struct trie_node){.children = n_nodes, .id = TOKENIZER_NONE};
    /* The tokens that end here come first, the lowest id before others. */
    while (r.lo < r.hi && (vocab_bytes(s->vocab, s->ids[r.lo], &n), n == r.depth)) {
        if (t->nodes[i].id == TOKENIZER_NONE)
            t->nodes[i].id = s->ids[r.lo];
        r.lo++;
    }
    for (uint32_t k = r.lo; k < r.hi; k++) {
        unsigned char b = (unsigned char)vocab_bytes(s->vocab, s->ids[k], &n)[r.depth];
        if (k == r.lo || b != t->bytes[n_nodes - 1]) {
            t->bytes[n_nodes] = b;
            ranges[n_nodes] = (struct range){.lo = k, .depth = r.depth + 1};
            t->nodes[i].n_children++;
            n_nodes++;
        }
        ranges[n_nodes - 1].hi = k + 1;
    }
    return n_nodes;
}

int trie_build(struct trie *t, const struct vocab *v, unsigned types, struct arena *a,
               struct err *e)
{
    struct specials sorted = {0};
    int rc = specials_build(&sorted, v, types, a, e);
    if (rc < 0)
        return rc;
    size_t n = count_nodes(&sorted);
    struct range *ranges = n < UINT32_MAX ? calloc(n, sizeof(*ranges)) : NULL;
    t->nodes = arena_calloc(a, n, sizeof(*t->nodes));
    t->bytes = arena_alloc(a, n);
    if (ranges && t->nodes && t->bytes) {
        uint32_t n_nodes = 1;
        ranges[0] = (struct range){.hi = sorted.n};
        for (uint32_t i = 0; i < n_nodes; i++)
            n_nodes = expand(t, &sorted, ranges, i, n_nodes);
    } else {
        rc = err_set(e, ERR_NOMEM, "tokenizer: no memory for a trie of %zu nodes", n);
    }
    free(ranges);
    return rc;
}
