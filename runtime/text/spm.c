/* SentencePiece's byte-pair encoding (tokenizer.ggml.model "llama"): Llama 2, Mistral, Phi-3,
 * Gemma 1 to 3.
 *
 * The normalised text starts as one symbol a character, but user-defined tokens are symbols from
 * the start, which nothing merges with. Of all neighbours that are a token together, those of the
 * highest score meet, leftmost first, until none are. What no token has goes to the fallback.
 *
 * Merging stays inside a word: text is cut wherever two bytes meet that stand side by side in no
 * token, which changes nothing, for no token reaches across. So a text of n bytes takes O(n log w)
 * for words of w characters, and a megabyte of one letter is one word. Tokens of type UNUSED are
 * never made, not even on the way to another.
 */
#include <stdlib.h>
#include <string.h>

#include "runtime/text/mergeheap.h"
#include "runtime/text/spmtext.h"
#include "runtime/text/utf8.h"

#define END UINT32_MAX /* no neighbour */

struct spm {
    struct spmtext text;
    struct spm_fallback fallback;
    struct specials user;
    struct vocab_map map;
    const float *scores;
    uint32_t *adjacent; /* a bit for each two bytes that stand side by side in a token */
};

/* ---- one word ---------------------------------------------------------------------------------
 */

struct symbol {
    uint32_t start, bytes; /* bytes 0: merged into the one before */
    uint32_t prev, next;
    uint32_t id; /* TOKENIZER_NONE: not looked up yet */
};

/* The scratch of one encode. */
struct words {
    const struct spm *spm;
    const struct tokenizer *t;
    const char *text;       /* the word's */
    struct symbol *symbols; /* room for `cap` */
    struct mergeheap heap;  /* room for 2 * cap: one a pair at the start, and a merge takes one and
                             * brings two */
    size_t cap;
    bool after_unknown; /* the last token is the unknown one, for text just before */
    struct tokenvec *out;
    struct err *e;
};

static int words_reserve(struct words *w, size_t n)
{
    void *symbols = w->symbols;
    int rc = mergeheap_reserve(&w->heap, &symbols, sizeof(*w->symbols), n, &w->cap, w->e);
    w->symbols = symbols;
    return rc;
}

/* Higher scores first: a float's bits in an order that integers have. */
static uint64_t order_of(float score, uint32_t left)
{
    uint32_t bits;
    score = 0.0f - score; /* and no negative zero */
    memcpy(&bits, &score, sizeof(bits));
    bits = bits >> 31 ? ~bits : bits | 1u << 31;
    return (uint64_t)bits << 32 | left;
}

/* Puts the pair that starts at symbol `left` into the heap if it is a token. */
static void offer(struct words *w, uint32_t left)
{
    const struct symbol *s = &w->symbols[left];
    if (s->next == END)
        return;
    uint32_t bytes = s->bytes + w->symbols[s->next].bytes;
    if (bytes > w->t->vocab.longest)
        return;
    uint32_t id = vocab_map_find(&w->spm->map, w->text + s->start, bytes);
    if (id != TOKENIZER_NONE)
        mergeheap_push(&w->heap,
                       (struct merge_candidate){
                           .order = order_of(w->spm->scores[id], left), .id = id, .bytes = bytes});
}

static void merge_all(struct words *w)
{
    while (w->heap.n) {
        struct merge_candidate c = mergeheap_pop(&w->heap);
        uint32_t left = (uint32_t)c.order;
        struct symbol *s = &w->symbols[left];
        if (s->bytes == 0 || s->next == END || s->bytes + w->symbols[s->next].bytes != c.bytes)
            continue; /* stale: one of the two has changed since */
        struct symbol *gone = &w->symbols[s->next];
        s->bytes = c.bytes;
        s->id = c.id;
        s->next = gone->next;
        gone->bytes = 0;
        if (s->next != END)
            w->symbols[s->next].prev = left;
        offer(w, left);
        if (s->prev != END)
            offer(w, s->prev);
    }
}

static int add_symbol(struct words *w, const struct symbol *s)
{
    const struct spm *m = w->spm;
    uint32_t id = s->id;
    if (id == TOKENIZER_NONE)
        id = vocab_map_find(&m->map, w->text + s->start, s->bytes);
    bool skip = id == TOKENIZER_NONE && w->after_unknown;
    w->after_unknown = id == TOKENIZER_NONE && !m->fallback.all_bytes;
    if (id != TOKENIZER_NONE)
        return tokenizer_out_err(tokenvec_add(w->out, id), w->out, w->e);
    return skip ? 0 : spm_fallback_add(&m->fallback, w->text + s->start, s->bytes, w->out, w->e);
}

static int encode_word(struct words *w, const char *text, size_t n)
{
    int rc = words_reserve(w, n);
    if (rc < 0)
        return rc;
    uint32_t k = 0, at = 0;
    w->text = text;
    for (; at < n; k++) {
        uint32_t bytes = (uint32_t)utf8_next((const unsigned char *)text + at, n - at).n;
        w->symbols[k] = (struct symbol){.start = at,
                                        .bytes = bytes,
                                        .prev = k ? k - 1 : END,
                                        .next = k + 1,
                                        .id = TOKENIZER_NONE};
        at += bytes;
    }
    w->symbols[k - 1].next = END;
    w->heap.n = 0;
    for (uint32_t i = 0; i < k; i++)
        offer(w, i);
    merge_all(w);
    for (uint32_t i = 0; i != END && rc == 0; i = w->symbols[i].next)
        /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): w's owner frees what words_reserve took */
        rc = add_symbol(w, &w->symbols[i]);
    return rc;
}

/* ---- a text -----------------------------------------------------------------------------------
 */

static uint32_t *adjacent_word(const struct spm *m, unsigned char a, unsigned char b)
{
    return &m->adjacent[(a << 8 | b) / 32];
}

static bool adjacent(const struct spm *m, unsigned char a, unsigned char b)
{
    return *adjacent_word(m, a, b) >> b % 32 & 1;
}

/* Text without user-defined tokens, cut into words. */
static int encode_run(struct words *w, const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t start = 0, at = 0;
    int rc = 0;
    while (at < n && rc == 0) {
        at += utf8_next(p + at, n - at).n;
        if (at < n && adjacent(w->spm, p[at - 1], p[at]))
            continue;
        rc = encode_word(w, text + start, at - start);
        start = at;
    }
    return rc;
}

static int encode_normal(struct words *w, const char *text, size_t n)
{
    size_t at = 0;
    int rc = 0;
    while (at < n && rc == 0) {
        uint32_t id = TOKENIZER_NONE;
        size_t len = 0;
        size_t found = specials_find(&w->spm->user, text, n, at, &id, &len);
        if (found > at)
            rc = encode_run(w, text + at, found - at);
        if (rc == 0 && len) {
            rc = tokenizer_out_err(tokenvec_add(w->out, id), w->out, w->e);
            w->after_unknown = false;
        }
        at = found + len;
    }
    return rc;
}

static int encode(const struct tokenizer *t, const char *text, size_t n, struct tokenvec *out,
                  struct err *e)
{
    const struct spm *m = t->impl;
    struct words w = {.spm = m, .t = t, .out = out, .e = e};
    struct buf normal;
    buf_init(&normal, 0);
    int rc = spmtext_add(&m->text, &normal, text, n, e);
    if (rc == 0)
        rc = encode_normal(&w, buf_str(&normal), normal.len);
    free(w.symbols);
    free(w.heap.at);
    buf_release(&normal);
    return rc;
}

/* ---- the table of functions -------------------------------------------------------------------
 */

static int load_adjacent(struct spm *m, const struct vocab *v, struct arena *a, struct err *e)
{
    m->adjacent = arena_calloc(a, 65536 / 32, sizeof(*m->adjacent));
    if (!m->adjacent)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory");
    for (uint32_t id = 0; id < v->n; id++) {
        size_t n;
        const unsigned char *p = (const unsigned char *)vocab_bytes(v, id, &n);
        for (size_t i = 1; v->types[id] == TOKEN_NORMAL && i < n; i++)
            *adjacent_word(m, p[i - 1], p[i]) |= 1u << p[i] % 32;
    }
    return 0;
}

static int load(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    struct arena *a = &t->arena;
    struct spm *m = arena_alloc(a, sizeof(*m));
    if (!m)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory");
    t->impl = m;
    t->add_bos = true;
    m->text = (struct spmtext){.add_prefix = true};
    int rc = vocab_load(&t->vocab, g, a, spmtext_decode_token, e);
    if (rc == 0)
        rc = spm_fallback_load(&m->fallback, &t->vocab, g, e);
    if (rc == 0)
        rc = spm_load_scores(&t->vocab, g, a, &m->scores, e);
    if (rc == 0)
        rc = specials_build(&t->special, &t->vocab, 1u << TOKEN_CONTROL, a, e);
    if (rc == 0)
        rc = specials_build(&m->user, &t->vocab, 1u << TOKEN_USER_DEFINED, a, e);
    if (rc == 0)
        rc = spmtext_load(&m->text, &m->user, g, a, e);
    if (rc == 0)
        rc = vocab_map_build(&m->map, &t->vocab, 1u << TOKEN_NORMAL | 1u << TOKEN_USER_DEFINED, a,
                             e);
    if (rc == 0)
        rc = load_adjacent(m, &t->vocab, a, e);
    t->shrinks = m->text.squeeze || m->text.units || !m->fallback.all_bytes;
    return rc;
}

static uint32_t find(const struct tokenizer *t, const char *bytes, size_t n)
{
    const struct spm *m = t->impl;
    uint32_t id = vocab_map_find(&m->map, bytes, n);
    return id == TOKENIZER_NONE && n == 1 ? m->fallback.bytes[(unsigned char)*bytes] : id;
}

const struct tokenizer_model spm_model = {
    .name = "llama",
    .finds_user = true,
    .load = load,
    .encode = encode,
    .find = find,
};
