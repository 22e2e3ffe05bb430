/* token_trie.h: a vocabulary as a tree of bytes, cut into slices.
 *
 * Built once per tokenizer, immutable, shared by any number of threads; it copies what it needs.
 *
 * The tree lies in an array in preorder: a walk goes forward through it, and past a whole subtree
 * where the bytes don't fit. Tokens are cut into slices: those made of lower-case letters, of ASCII
 * letters, digits, '_' and '-', and of characters that may stand unescaped in a JSON string, each
 * with bitmaps by length in characters; the rest has none. Where an automaton takes any characters
 * of a slice for n more characters, its bitmap replaces the walk.
 */
#ifndef ARGOSY_GRAMMAR_TOKEN_TRIE_H
#define ARGOSY_GRAMMAR_TOKEN_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"
#include "runtime/text/tokenizer.h"

#define TRIE_TOKEN_BYTES_MAX 255 /* a longer token is never allowed by a mask */
#define TRIE_CHARS_MAX 24        /* slices hold tokens shorter than this, in characters */
#define TRIE_VOCAB_MAX (1u << 22)
#define TRIE_NONE UINT32_MAX

enum trie_slice { TRIE_LOWER, TRIE_WORD, TRIE_TEXT, TRIE_REST, TRIE_SLICES };

struct trie_node {
    uint32_t token; /* TOKENIZER_NONE where none ends here */
    uint32_t skip;  /* nodes in this subtree, this one among them */
    uint8_t byte;
    uint8_t depth; /* bytes from the root: 1 for a token's first */
};

struct token_text {
    const char *bytes;
    size_t n;    /* 0: stands for no text, never allowed unless it ends generation */
    bool is_eog; /* ends generation: allowed where the grammar may end, whatever its bytes */
};

struct token_trie;

int token_trie_create(const struct token_text *tokens, uint32_t n, struct token_trie **out,
                      struct err *e);
int token_trie_of_tokenizer(const struct tokenizer *t, struct token_trie **out, struct err *e);
void token_trie_free(struct token_trie *t);

uint32_t token_trie_vocab_size(const struct token_trie *t);
/* uint32 words in a mask. */
size_t token_trie_mask_words(const struct token_trie *t);
size_t token_trie_memory_bytes(const struct token_trie *t);
const char *token_trie_bytes(const struct token_trie *t, uint32_t token, size_t *n);
bool token_trie_is_eog(const struct token_trie *t, uint32_t token);
uint32_t token_trie_depth_max(const struct token_trie *t);

const struct trie_node *token_trie_nodes(const struct token_trie *t, enum trie_slice slice,
                                         uint32_t *n);
/* The node of a slice's tree for this first byte, or TRIE_NONE. */
uint32_t token_trie_root(const struct token_trie *t, enum trie_slice slice, uint8_t byte);
/* The tokens of a slice of at most `chars` characters, as a mask. chars < TRIE_CHARS_MAX; NULL
 * where there are none. */
const uint32_t *token_trie_slice_mask(const struct token_trie *t, enum trie_slice slice,
                                      uint32_t chars);
/* Whether a byte is a one-byte character of the slice; TRIE_TEXT also takes every character of more
 * bytes. */
bool token_trie_slice_has(enum trie_slice slice, uint8_t byte);
/* Adds to a mask what the trees leave out: tokens with the bytes of another token. */
void token_trie_add_twins(const struct token_trie *t, uint32_t *bits);
void token_trie_add_eog(const struct token_trie *t, uint32_t *bits);

#endif
