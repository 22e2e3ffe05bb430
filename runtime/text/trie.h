/* trie.h: all tokens that a text starts with, shortest first, a step a byte.
 *
 * Built once from a vocabulary, breadth first, so that the children of a node lie side by side in
 * order of their bytes. 13 bytes a node, at most one node a byte of the tokens. Immutable; any
 * thread. Only the tokenizer's own files include this one.
 */
#ifndef ARGOSY_TEXT_TRIE_H
#define ARGOSY_TEXT_TRIE_H

#include "runtime/text/tokenizer_internal.h"

struct trie_node {
    uint32_t children; /* the index of the first */
    uint32_t id;       /* of the token that ends here, or TOKENIZER_NONE */
    uint32_t n_children;
};

struct trie {
    struct trie_node *nodes; /* nodes[0]: the root */
    unsigned char *bytes;    /* bytes[i]: what leads to nodes[i] */
};

/* Takes tokens of the types whose bits (1u << type) are in `types`; of equal ones the lowest id. */
int trie_build(struct trie *t, const struct vocab *v, unsigned types, struct arena *a,
               struct err *e);

/* The node that byte b leads to from `node`, or 0. Start with node 0. */
static inline uint32_t trie_step(const struct trie *t, uint32_t node, unsigned char b)
{
    uint32_t lo = t->nodes[node].children, hi = lo + t->nodes[node].n_children, end = hi;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->bytes[mid] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < end && t->bytes[lo] == b ? lo : 0;
}

#endif
