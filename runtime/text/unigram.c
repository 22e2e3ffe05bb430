/* Unigram (tokenizer.ggml.model "t5"): of all ways to cut the text into tokens, the one whose
 * scores add up to the most, found from left to right over a trie (Viterbi); a character without a
 * token costs 10 more than the worst token. O(n) for tokens of bounded length.
 *
 * Ties and rounding are part of the result. SentencePiece adds up in single precision, and gives
 * user-defined tokens a score that always wins; a GGUF file is read that way. */
#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/unigram.h"
#include "runtime/text/utf8.h"

#define USER_BONUS 0.1 /* for each byte but the first: above any log probability */

/* The model of a GGUF file. */
struct unigram_file {
    struct spmtext text;
    struct specials user;
    struct unigram search;
};

/* The best way to cut the text up to here. */
struct cut {
    double score;
    uint32_t start; /* of the last token; NOWHERE: not reached yet */
    uint32_t id;    /* TOKENIZER_NONE: unknown */
};

#define NOWHERE UINT32_MAX

static void improve(const struct unigram *u, struct cut *c, double score, uint32_t start,
                    uint32_t id)
{
    if (u->single)
        score = (double)(float)score; /* the sum of two floats, rounded as theirs */
    if (c->start == NOWHERE || score > c->score)
        *c = (struct cut){.score = score, .start = start, .id = id};
}

/* Every token that starts at `at`. */
static void extend(const struct unigram *u, struct cut *cuts, const unsigned char *p, size_t n,
                   uint32_t at)
{
    uint32_t character = (uint32_t)utf8_next(p + at, n - at).n;
    double best = cuts[at].score;
    bool known = false;
    uint32_t node = 0;
    for (uint32_t i = at; i < n && (node = trie_step(&u->trie, node, p[i])); i++) {
        uint32_t id = u->trie.nodes[node].id;
        if (id == TOKENIZER_NONE)
            continue;
        improve(u, &cuts[i + 1], u->scores[id] + best, at, id);
        known = known || i + 1 - at == character;
    }
    if (!known)
        improve(u, &cuts[at + character], u->unknown_score + best, at, TOKENIZER_NONE);
}

/* Turns the links around: cuts[i].start becomes the end of the token that starts at i. */
static void reverse(struct cut *cuts, size_t n)
{
    uint32_t at = (uint32_t)n, end = 0, id = TOKENIZER_NONE;
    while (at) {
        struct cut c = cuts[at];
        cuts[at].start = end;
        cuts[at].id = id;
        end = at;
        at = c.start;
        id = c.id;
    }
    cuts[0].start = end;
    cuts[0].id = id;
}

static int add_ids(const struct unigram *u, const struct cut *cuts, const char *text, size_t n,
                   struct tokenvec *out, struct err *e)
{
    int rc = 0;
    for (uint32_t at = 0; at < n && rc == 0;) {
        uint32_t start = at, id = cuts[at].id;
        at = cuts[at].start;
        if (id != TOKENIZER_NONE) {
            rc = tokenizer_out_err(tokenvec_add(out, id), out, e);
            continue;
        }
        while (at < n && cuts[at].id == TOKENIZER_NONE) /* unknown ones make one run */
            at = cuts[at].start;
        rc = spm_fallback_add(&u->fallback, text + start, at - start, out, e);
    }
    return rc;
}

int unigram_encode(const struct unigram *u, const char *text, size_t n, struct tokenvec *out,
                   struct err *e)
{
    const unsigned char *p = (const unsigned char *)text;
    struct cut *cuts = calloc(n + 1, sizeof(*cuts));
    if (!cuts)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for %zu bytes", n);
    for (size_t i = 1; i <= n; i++)
        cuts[i].start = NOWHERE;
    for (uint32_t at = 0; at < n; at += (uint32_t)utf8_next(p + at, n - at).n)
        extend(u, cuts, p, n, at);
    reverse(cuts, n);
    int rc = add_ids(u, cuts, text, n, out, e);
    free(cuts);
    return rc;
}

static int encode(const struct tokenizer *t, const char *text, size_t n, struct tokenvec *out,
                  struct err *e)
{
    const struct unigram_file *u = t->impl;
    struct buf normal;
    buf_init(&normal, 0);
    int rc = spmtext_add(&u->text, &normal, text, n, e);
    if (rc == 0)
        rc = unigram_encode(&u->search, buf_str(&normal), normal.len, out, e);
    buf_release(&normal);
    return rc;
}

/* ---- the table of functions -------------------------------------------------------------------
 */

static int load_scores(struct unigram_file *u, const struct vocab *v, const struct gguf *g,
                       struct arena *a, struct err *e)
{
    const float *scores;
    float least = FLT_MAX;
    int rc = spm_load_scores(v, g, a, &scores, e);
    if (rc < 0)
        return rc;
    double *out = arena_calloc(a, v->n, sizeof(*out));
    if (!out)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for %u scores", v->n);
    for (uint32_t id = 0; id < v->n; id++) {
        size_t n;
        const char *bytes = vocab_bytes(v, id, &n);
        out[id] = (double)scores[id];
        if (v->types[id] == TOKEN_NORMAL)
            least = scores[id] < least ? scores[id] : least;
        if (v->types[id] == TOKEN_USER_DEFINED)
            out[id] =
                (double)(float)(USER_BONUS * (double)spmtext_written_bytes(bytes, n) - USER_BONUS);
    }
    u->search.scores = out;
    u->search.unknown_score = (double)(least - (float)UNIGRAM_UNKNOWN_PENALTY);
    u->search.single = true;
    return 0;
}

static int load(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    struct arena *a = &t->arena;
    struct unigram_file *u = arena_alloc(a, sizeof(*u));
    if (!u)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory");
    t->impl = u;
    t->add_eos = true;
    t->shrinks = true;
    u->text = (struct spmtext){.add_prefix = true, .squeeze = true};
    int rc = vocab_load(&t->vocab, g, a, spmtext_decode_token, e);
    if (rc == 0)
        rc = spm_fallback_load(&u->search.fallback, &t->vocab, g, e);
    if (rc == 0)
        rc = load_scores(u, &t->vocab, g, a, e);
    if (rc == 0)
        rc = specials_build(&t->special, &t->vocab, 1u << TOKEN_CONTROL, a, e);
    if (rc == 0)
        rc = specials_build(&u->user, &t->vocab, 1u << TOKEN_USER_DEFINED, a, e);
    if (rc == 0)
        rc = spmtext_load(&u->text, &u->user, g, a, e);
    if (rc == 0)
        rc = trie_build(&u->search.trie, &t->vocab, 1u << TOKEN_NORMAL | 1u << TOKEN_USER_DEFINED,
                        a, e);
    return rc;
}

static uint32_t find(const struct tokenizer *t, const char *bytes, size_t n)
{
    const struct unigram_file *u = t->impl;
    uint32_t node = 0;
    size_t i = 0;
    while (i < n && (node = trie_step(&u->search.trie, node, (unsigned char)bytes[i])))
        i++;
    uint32_t id = n && i == n ? u->search.trie.nodes[node].id : TOKENIZER_NONE;
    return id == TOKENIZER_NONE && n == 1 ? u->search.fallback.bytes[(unsigned char)*bytes] : id;
}

const struct tokenizer_model unigram_model = {
    .name = "t5",
    .finds_user = true,
    .load = load,
    .encode = encode,
    .find = find,
};
