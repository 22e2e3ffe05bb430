/* token_trie.c: see token_trie.h. */
#include "runtime/grammar/token_trie.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/arena.h"
#include "runtime/text/utf8.h"

struct twin {
    uint32_t token, same_as;
};

struct tree {
    struct trie_node *nodes;
    uint32_t n;
    uint32_t roots[256]; /* by first byte; TRIE_NONE */
};

struct token_trie {
    struct arena arena;
    uint32_t vocab;
    uint32_t depth_max;
    const struct token_text *tokens;
    struct tree trees[TRIE_SLICES];
    uint32_t *masks[TRIE_REST]; /* (TRIE_CHARS_MAX, mask words): up to that many characters */
    struct twin *twins;
    uint32_t n_twins;
    uint32_t *eog_ids; /* (n_eog) */
    uint32_t n_eog;
};

/* Only while building. */
struct entry {
    const char *bytes;
    uint32_t n;
    uint32_t token;
    uint8_t slice;
    uint8_t chars;
};

bool token_trie_slice_has(enum trie_slice slice, uint8_t b)
{
    bool lower = b >= 'a' && b <= 'z';
    bool word = lower || (b >= 'A' && b <= 'Z') || (b >= '0' && b <= '9') || b == '_' || b == '-';
    switch (slice) {
    case TRIE_LOWER:
        return lower;
    case TRIE_WORD:
        return word;
    case TRIE_TEXT:
        return b >= 0x20 && b < 0x7f && b != '"' && b != '\\';
    default:
        return false;
    }
}

static void classify(struct entry *en)
{
    const uint8_t *p = (const uint8_t *)en->bytes;
    enum trie_slice slice = TRIE_LOWER;
    uint32_t chars = 0;
    for (size_t i = 0; i < en->n; chars++) {
        struct utf8_step step = utf8_next(p + i, en->n - i);
        size_t k = step.n;
        if (!step.valid || (k == 1 && !token_trie_slice_has(TRIE_TEXT, p[i]))) {
            slice = TRIE_REST;
            break;
        }
        while (slice < TRIE_TEXT && (k > 1 || !token_trie_slice_has(slice, p[i])))
            slice++;
        i += k;
    }
    if (chars >= TRIE_CHARS_MAX)
        slice = TRIE_REST;
    en->slice = (uint8_t)slice;
    en->chars = (uint8_t)(chars < TRIE_CHARS_MAX ? chars : 0);
}

static int entry_cmp(const void *va, const void *vb)
{
    const struct entry *a = va, *b = vb;
    if (a->slice != b->slice)
        return a->slice < b->slice ? -1 : 1;
    uint32_t n = a->n < b->n ? a->n : b->n;
    int c = memcmp(a->bytes, b->bytes, n);
    if (c)
        return c;
    if (a->n != b->n)
        return a->n < b->n ? -1 : 1;
    return a->token < b->token ? -1 : a->token > b->token;
}

static uint32_t common_prefix(const struct entry *a, const struct entry *b)
{
    uint32_t n = a->n < b->n ? a->n : b->n, i = 0;
    while (i < n && a->bytes[i] == b->bytes[i])
        i++;
    return i;
}

/* One tree from its sorted entries. `twins` may be NULL for the pass that counts. */
static uint32_t tree_fill(const struct entry *en, size_t n, struct trie_node *nodes,
                          struct twin *twins, uint32_t *n_twins)
{
    uint32_t open[TRIE_TOKEN_BYTES_MAX + 1]; /* node at each depth of the path */
    uint32_t depth = 0, count = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t keep = i ? common_prefix(&en[i - 1], &en[i]) : 0;
        if (i && keep == en[i].n && en[i - 1].n == en[i].n) {
            if (nodes)
                twins[*n_twins] = (struct twin){en[i].token, nodes[open[depth]].token};
            ++*n_twins;
            continue;
        }
        for (; depth > keep; depth--)
            if (nodes)
                nodes[open[depth]].skip = count - open[depth];
        for (; depth < en[i].n; count++) {
            open[++depth] = count;
            if (nodes)
                nodes[count] = (struct trie_node){TOKENIZER_NONE, 1,
                                                  (uint8_t)en[i].bytes[depth - 1], (uint8_t)depth};
        }
        if (nodes)
            nodes[open[depth]].token = en[i].token;
    }
    for (; nodes && depth > 0; depth--)
        nodes[open[depth]].skip = count - open[depth];
    return count;
}

static int build_trees(struct token_trie *t, const struct entry *en, size_t n, struct err *e)
{
    uint32_t n_twins = 0;
    for (size_t at = 0, end; at < n; at = end) {
        for (end = at; end < n && en[end].slice == en[at].slice;)
            end++;
        struct tree *tree = &t->trees[en[at].slice];
        tree->n = tree_fill(en + at, end - at, NULL, NULL, &n_twins);
        tree->nodes = arena_calloc(&t->arena, tree->n, sizeof *tree->nodes);
        if (!tree->nodes)
            return err_set(e, ERR_NOMEM, "token trie: no memory");
    }
    t->twins = arena_calloc(&t->arena, n_twins + 1, sizeof *t->twins);
    if (!t->twins)
        return err_set(e, ERR_NOMEM, "token trie: no memory");
    for (size_t at = 0, end; at < n; at = end) {
        for (end = at; end < n && en[end].slice == en[at].slice;)
            end++;
        tree_fill(en + at, end - at, t->trees[en[at].slice].nodes, t->twins, &t->n_twins);
    }
    for (int s = 0; s < TRIE_SLICES; s++) {
        struct tree *tree = &t->trees[s];
        for (int b = 0; b < 256; b++)
            tree->roots[b] = TRIE_NONE;
        for (uint32_t i = 0; i < tree->n; i += tree->nodes[i].skip)
            tree->roots[tree->nodes[i].byte] = i;
    }
    return 0;
}

static int build_masks(struct token_trie *t, const struct entry *en, size_t n, struct err *e)
{
    size_t words = token_trie_mask_words(t);
    for (int s = 0; s < TRIE_REST; s++) {
        t->masks[s] = arena_calloc(&t->arena, TRIE_CHARS_MAX * words, sizeof(uint32_t));
        if (!t->masks[s])
            return err_set(e, ERR_NOMEM, "token trie: no memory");
    }
    for (size_t i = 0; i < n; i++)
        for (uint32_t c = en[i].chars; en[i].slice != TRIE_REST && c < TRIE_CHARS_MAX; c++)
            t->masks[en[i].slice][c * words + en[i].token / 32] |= 1u << (en[i].token % 32);
    return 0;
}

static size_t collect(struct token_trie *t, const struct token_text *tokens, struct entry *en)
{
    size_t k = 0;
    for (uint32_t i = 0; i < t->vocab; i++) {
        if (tokens[i].is_eog) {
            t->eog_ids[t->n_eog++] = i;
            continue;
        }
        if (!tokens[i].n || tokens[i].n > TRIE_TOKEN_BYTES_MAX)
            continue;
        en[k] = (struct entry){t->tokens[i].bytes, (uint32_t)tokens[i].n, i, 0, 0};
        classify(&en[k++]);
        if (tokens[i].n > t->depth_max)
            t->depth_max = (uint32_t)tokens[i].n;
    }
    return k;
}

static int copy_tokens(struct token_trie *t, const struct token_text *tokens, struct err *e)
{
    struct token_text *copy = arena_calloc(&t->arena, t->vocab + 1u, sizeof *copy);
    uint32_t n_eog = 0;
    for (uint32_t i = 0; i < t->vocab; i++)
        n_eog += tokens[i].is_eog;
    t->eog_ids = arena_calloc(&t->arena, n_eog + 1, sizeof *t->eog_ids);
    if (!copy || !t->eog_ids)
        return err_set(e, ERR_NOMEM, "token trie: no memory");
    for (uint32_t i = 0; i < t->vocab; i++) {
        copy[i] = tokens[i];
        copy[i].bytes = arena_strndup(&t->arena, tokens[i].n ? tokens[i].bytes : "", tokens[i].n);
        if (!copy[i].bytes)
            return err_set(e, ERR_NOMEM, "token trie: no memory");
    }
    t->tokens = copy;
    return 0;
}

int token_trie_create(const struct token_text *tokens, uint32_t n, struct token_trie **out,
                      struct err *e)
{
    if (!n || n > TRIE_VOCAB_MAX)
        return err_set(e, ERR_LIMIT, "token trie: a vocabulary of %u tokens", n);
    struct entry *en = NULL;
    struct token_trie *t = calloc(1, sizeof *t);
    int rc = t ? 0 : err_set(e, ERR_NOMEM, "token trie: no memory");
    if (rc)
        goto out;
    arena_init(&t->arena, 0);
    t->vocab = n;
    rc = copy_tokens(t, tokens, e);
    if (rc)
        goto out;
    en = calloc(n, sizeof *en);
    if (!en) {
        rc = err_set(e, ERR_NOMEM, "token trie: no memory");
        goto out;
    }
    size_t k = collect(t, tokens, en);
    qsort(en, k, sizeof *en, entry_cmp);
    rc = build_trees(t, en, k, e);
    if (!rc)
        rc = build_masks(t, en, k, e);
out:
    free(en);
    if (rc)
        token_trie_free(t);
    else
        *out = t;
    return rc;
}

int token_trie_of_tokenizer(const struct tokenizer *tk, struct token_trie **out, struct err *e)
{
    uint32_t n = tokenizer_vocab_size(tk);
    struct token_text *tokens = calloc(n + 1u, sizeof *tokens);
    if (!tokens)
        return err_set(e, ERR_NOMEM, "token trie: no memory");
    for (uint32_t i = 0; i < n; i++) {
        enum token_type type = tokenizer_token_type(tk, i);
        tokens[i].is_eog = tokenizer_is_eog(tk, i);
        if (type == TOKEN_NORMAL || type == TOKEN_USER_DEFINED || type == TOKEN_BYTE)
            tokens[i].bytes = tokenizer_token_bytes(tk, i, false, &tokens[i].n);
    }
    int rc = token_trie_create(tokens, n, out, e);
    free(tokens);
    return rc;
}

void token_trie_free(struct token_trie *t)
{
    if (!t)
        return;
    arena_release(&t->arena);
    free(t);
}

uint32_t token_trie_vocab_size(const struct token_trie *t)
{
    return t->vocab;
}

size_t token_trie_mask_words(const struct token_trie *t)
{
    return ((size_t)t->vocab + 31) / 32;
}

size_t token_trie_memory_bytes(const struct token_trie *t)
{
    return sizeof *t + t->arena.used_bytes;
}

const char *token_trie_bytes(const struct token_trie *t, uint32_t token, size_t *n)
{
    *n = token < t->vocab ? t->tokens[token].n : 0;
    return *n ? t->tokens[token].bytes : "";
}

bool token_trie_is_eog(const struct token_trie *t, uint32_t token)
{
    return token < t->vocab && t->tokens[token].is_eog;
}

uint32_t token_trie_depth_max(const struct token_trie *t)
{
    return t->depth_max;
}

const struct trie_node *token_trie_nodes(const struct token_trie *t, enum trie_slice slice,
                                         uint32_t *n)
{
    *n = t->trees[slice].n;
    return t->trees[slice].nodes;
}

uint32_t token_trie_root(const struct token_trie *t, enum trie_slice slice, uint8_t byte)
{
    return t->trees[slice].roots[byte];
}

const uint32_t *token_trie_slice_mask(const struct token_trie *t, enum trie_slice slice,
                                      uint32_t chars)
{
    return t->trees[slice].n ? t->masks[slice] + chars * token_trie_mask_words(t) : NULL;
}

void token_trie_add_twins(const struct token_trie *t, uint32_t *bits)
{
    for (uint32_t i = 0; i < t->n_twins; i++) {
        uint32_t to = t->twins[i].token, from = t->twins[i].same_as;
        bits[to / 32] |= (bits[from / 32] >> (from % 32) & 1u) << (to % 32);
    }
}

void token_trie_add_eog(const struct token_trie *t, uint32_t *bits)
{
    for (uint32_t i = 0; i < t->n_eog; i++)
        bits[t->eog_ids[i] / 32] |= 1u << (t->eog_ids[i] % 32);
}
