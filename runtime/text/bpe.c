/* Byte-level BPE (tokenizer.ggml.model "gpt2"), as Hugging Face's tokenizers does it.
 *
 * A word starts as one token a byte. Of all neighbours that have a merge, those of the lowest rank
 * meet, leftmost first, until none has one (merges.h). A byte whose token the vocabulary lacks
 * vanishes before merging, as it does there.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/merges.h"
#include "runtime/text/nfc.h"
#include "runtime/text/pretokenizer.h"
#include "runtime/text/tokenizer_internal.h"
#include "runtime/text/utf8.h"

#define TEXT_TYPES (1u << TOKEN_NORMAL | 1u << TOKEN_USER_DEFINED | 1u << TOKEN_BYTE)

struct bpe {
    struct pretokenizer *pre;
    struct pretokenizer_traits traits;
    struct vocab_map map;
    uint32_t byte_ids[256];
    struct merges merges;
    /* (vocab.n), enum own_word: whether merging a token's bytes ends in that token. Found out when
     * a text first has such a word: most words are one token, and are then looked up, not merged.
     * Threads may find out the same at once, and write the same. */
    _Atomic uint8_t *own;
};

enum own_word { OWN_UNKNOWN, OWN_TOKEN, OWN_OTHER };

/* ---- the byte alphabet ------------------------------------------------------------------------
 */

/* GPT-2 writes a token's bytes as printable characters: those of Latin-1 that print stand for
 * themselves, and the 68 others for U+0100 on, in order. */
static bool prints(unsigned b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

/* The byte that a character stands for, or -1. */
static int byte_of(uint32_t code)
{
    if (code < 0x100)
        return prints(code) ? (int)code : -1;
    if (code >= 0x100 + 68)
        return -1;
    uint32_t k = code - 0x100;
    if (k < 0x21)
        return (int)k;
    if (k < 0x21 + 34)
        return (int)(k - 0x21 + 0x7F);
    return 0xAD;
}

size_t bpe_decode(const char *text, size_t n, char *out)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t k = 0;
    for (size_t i = 0; i < n;) {
        struct utf8_step c = utf8_next(p + i, n - i);
        int b = c.valid ? byte_of(utf8_code(p + i, c.n)) : -1;
        if (b < 0)
            return VOCAB_NOT_TEXT;
        out[k++] = (char)b;
        i += c.n;
    }
    return k;
}

/* A vocab_load decoder. */
static size_t decode_token(enum token_type type, const char *text, size_t n, char *out)
{
    if (type == TOKEN_NORMAL)
        return bpe_decode(text, n, out);
    memcpy(out, text, n);
    return n;
}

/* ---- merges -----------------------------------------------------------------------------------
 */

/* "left right", both in the byte alphabet, which has no space. Where a piece is no text token but a
 * special one, the merge is left out: text must never become a control token. */
static int add_merge(struct tokenizer *t, struct bpe *b, const struct gguf_str *s, uint32_t rank,
                     struct buf *scratch, struct err *e)
{
    const char *space = memchr(s->s, ' ', s->n);
    buf_clear(scratch);
    char *bytes = buf_reserve(scratch, s->n);
    if (!bytes)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for merge %u", rank);
    size_t nl = space ? (size_t)(space - s->s) : 0;
    size_t l = space ? bpe_decode(s->s, nl, bytes) : VOCAB_NOT_TEXT;
    size_t r =
        l != VOCAB_NOT_TEXT ? bpe_decode(space + 1, s->n - nl - 1, bytes + l) : VOCAB_NOT_TEXT;
    if (r == VOCAB_NOT_TEXT || l == 0 || r == 0)
        return err_set(e, ERR_FORMAT,
                       "tokenizer.ggml.merges: element %u is not two texts in the byte alphabet",
                       rank);
    const struct {
        const char *s;
        size_t n;
    } part[3] = {{bytes, l}, {bytes + l, r}, {bytes, l + r}};
    uint32_t ids[3];
    for (int i = 0; i < 3; i++) {
        ids[i] = vocab_map_find(&b->map, part[i].s, part[i].n);
        if (ids[i] != TOKENIZER_NONE)
            continue;
        if (specials_exact(&t->special, part[i].s, part[i].n) != TOKENIZER_NONE)
            return 0;
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.merges: element %u names no token", rank);
    }
    merges_add(&b->merges, ids[0], ids[1], ids[2], rank);
    return 0;
}

static int load_merges(struct tokenizer *t, struct bpe *b, const struct gguf *g, struct err *e)
{
    struct gguf_array a = {0};
    struct gguf_str s;
    struct buf scratch;
    int rc = gguf_array(g, "tokenizer.ggml.merges", GGUF_REQUIRED, &a, e);
    if (rc < 0)
        return rc;
    if (a.type != GGUF_STRING || a.count > MERGES_MAX)
        return err_set(e, ERR_FORMAT,
                       "tokenizer.ggml.merges: wanted at most %u strings, found %llu", MERGES_MAX,
                       (unsigned long long)a.count);
    rc = merges_init(&b->merges, (uint32_t)a.count, &t->arena, e);
    if (rc < 0)
        return rc;
    buf_init(&scratch, 0);
    for (uint32_t rank = 0; rc == 0 && gguf_next_str(&a, &s); rank++)
        rc = add_merge(t, b, &s, rank, &scratch, e);
    buf_release(&scratch);
    return rc;
}

/* ---- one word ---------------------------------------------------------------------------------
 */

/* The scratch of one tokenizer_encode. */
struct words {
    const struct bpe *bpe;
    struct mergeword word;
    struct tokenvec *out;
    struct err *e;
};

/* A pretokenizer_word_fn. */
static int encode_word(void *arg, const char *word, size_t n)
{
    struct words *w = arg;
    const struct bpe *b = w->bpe;
    uint32_t whole = vocab_map_find(&b->map, word, n);
    _Atomic uint8_t *own = whole != TOKENIZER_NONE ? &b->own[whole] : NULL;
    uint8_t known = own ? atomic_load_explicit(own, memory_order_relaxed) : OWN_OTHER;
    if (known == OWN_TOKEN || (own && b->traits.ignore_merges))
        return tokenizer_out_err(tokenvec_add(w->out, whole), w->out, w->e);
    size_t before = w->out->n;
    int rc = mergeword_start(&w->word, &b->merges, n, w->e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = b->byte_ids[(unsigned char)word[i]];
        if (id != TOKENIZER_NONE)
            mergeword_add(&w->word, id);
    }
    rc = mergeword_finish(&w->word, w->out, w->e);
    if (rc == 0 && known == OWN_UNKNOWN) {
        bool one = w->out->n == before + 1 && w->out->ids[before] == whole;
        atomic_store_explicit(own, one ? OWN_TOKEN : OWN_OTHER, memory_order_relaxed);
    }
    return rc;
}

/* ---- the table of functions -------------------------------------------------------------------
 */

static int load(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    struct gguf_str pre;
    int rc = gguf_str(g, "tokenizer.ggml.pre", GGUF_REQUIRED, &pre, e);
    if (rc < 0)
        return rc;
    struct bpe *b = arena_alloc(&t->arena, sizeof(*b));
    if (!b)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory");
    t->impl = b;
    rc = pretokenizer_create(pre.s, pre.n, &b->pre, e);
    if (rc < 0)
        return rc;
    b->traits = *pretokenizer_traits(b->pre);
    t->add_bos = b->traits.add_bos;
    rc = vocab_load(&t->vocab, g, &t->arena, decode_token, e);
    if (rc == 0)
        rc = specials_build(&t->special, &t->vocab, 1u << TOKEN_CONTROL | 1u << TOKEN_USER_DEFINED,
                            &t->arena, e);
    if (rc == 0)
        rc = vocab_map_build(&b->map, &t->vocab, TEXT_TYPES, &t->arena, e);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < 256; i++) {
        char byte = (char)i;
        b->byte_ids[i] = vocab_map_find(&b->map, &byte, 1);
    }
    b->own = arena_calloc(&t->arena, t->vocab.n, sizeof(*b->own));
    if (!b->own)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for %u tokens", t->vocab.n);
    return load_merges(t, b, g, e);
}

static void release(struct tokenizer *t)
{
    struct bpe *b = t->impl;
    if (b)
        pretokenizer_free(b->pre);
}

static size_t memory_bytes(const struct tokenizer *t)
{
    const struct bpe *b = t->impl;
    return pretokenizer_memory_bytes(b->pre);
}

static int encode(const struct tokenizer *t, const char *text, size_t n, struct tokenvec *out,
                  struct err *e)
{
    const struct bpe *b = t->impl;
    struct words w;
    struct buf normal;
    int rc = 0;
    w.bpe = b;
    w.out = out;
    w.e = e;
    mergeword_init(&w.word);
    buf_init(&normal, 0);
    if (b->traits.nfc && !nfc_is_plain(text, n)) {
        if (!nfc_add(&normal, text, n) || normal.failed)
            rc = err_set(e, ERR_NOMEM, "tokenizer: no memory to normalise %zu bytes", n);
        text = buf_str(&normal);
        n = normal.len;
    }
    if (rc == 0)
        rc = pretokenizer_split(b->pre, text, n, encode_word, &w, e);
    mergeword_release(&w.word);
    buf_release(&normal);
    return rc;
}

static uint32_t find(const struct tokenizer *t, const char *bytes, size_t n)
{
    const struct bpe *b = t->impl;
    return vocab_map_find(&b->map, bytes, n);
}

const struct tokenizer_model bpe_model = {
    .name = "gpt2",
    .load = load,
    .release = release,
    .memory_bytes = memory_bytes,
    .encode = encode,
    .find = find,
};
