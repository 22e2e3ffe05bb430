#include "runtime/text/hf_reader.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

/* ---- putting it together ----------------------------------------------------------------------
 */

static size_t verbatim(enum token_type type, const char *text, size_t n, char *out)
{
    (void)type;
    memcpy(out, text, n);
    return n;
}

static size_t decode_bytes(enum token_type type, const char *text, size_t n, char *out)
{
    return type == TOKEN_NORMAL ? bpe_decode(text, n, out) : verbatim(type, text, n, out);
}

static int byte_of_text(const char *s, size_t n)
{
    static const char digits[] = "0123456789ABCDEF";
    const char *hi, *lo;
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>' || !s[3] || !s[4] ||
        !(hi = strchr(digits, s[3])) || !(lo = strchr(digits, s[4])))
        return -1;
    return (int)((hi - digits) * 16 + (lo - digits));
}

static int type_tokens(struct hf_reader *l, struct vocab_text *texts)
{
    for (uint32_t i = 0; i < l->n_ids; i++) {
        texts[i] = (struct vocab_text){"", 0};
        l->types[i] = TOKEN_UNUSED;
    }
    for (size_t i = 0; i < l->n_entries; i++) {
        const struct hf_entry *x = &l->entries[i];
        const char *s = l->strings.data + x->at;
        if (l->types[x->id] != TOKEN_UNUSED)
            return err_set(l->e, ERR_FORMAT, "tokenizer.json: two tokens with id %u", x->id);
        texts[x->id] = (struct vocab_text){s, x->n};
        l->types[x->id] = l->byte_texts && byte_of_text(s, x->n) >= 0 ? TOKEN_BYTE : TOKEN_NORMAL;
    }
    for (uint32_t i = 0; i < l->n_tokens; i++) {
        const struct hf_added *x = &l->tokens[i];
        struct vocab_text *t = &texts[x->id];
        if (l->types[x->id] != TOKEN_UNUSED &&
            (t->n != x->content.n || memcmp(t->s, x->content.s, t->n)))
            return err_set(l->e, ERR_FORMAT,
                           "tokenizer.json: added token %u has another text in the vocabulary",
                           x->id);
        *t = x->content;
        l->types[x->id] = x->special ? TOKEN_CONTROL : TOKEN_USER_DEFINED;
    }
    return 0;
}

/* Added tokens that the model's own vocabulary lacks are none that it makes. */
static int hide_added(struct hf_reader *l)
{
    uint8_t *types = arena_memdup(&l->t->arena, l->types, l->n_ids);
    uint8_t *own = calloc((size_t)l->n_ids + 1, 1); /* n_ids may be 0 */
    bool ok = types && own;
    for (size_t i = 0; ok && i < l->n_entries; i++)
        own[l->entries[i].id] = 1;
    for (uint32_t id = 0; ok && id < l->n_ids; id++)
        types[id] = own[id] ? l->h->texts.types[id] : TOKEN_UNUSED;
    free(own);
    l->h->texts.types = types;
    return ok ? 0 : hf_fail(l, ERR_NOMEM, "no memory for tokens");
}

int hf_build_vocab(struct hf_reader *l)
{
    struct hf *h = l->h;
    struct arena *a = &l->t->arena;
    struct vocab_text *texts = calloc((size_t)l->n_ids + 1, sizeof(*texts));
    l->types = calloc((size_t)l->n_ids + 1, 1);
    int rc =
        texts && l->types ? type_tokens(l, texts) : hf_fail(l, ERR_NOMEM, "no memory for tokens");
    if (rc == 0 && l->n_ids == 0)
        rc = hf_fail(l, ERR_FORMAT, "there are no tokens");
    if (rc == 0)
        rc = vocab_build(&h->texts, texts, l->types, l->n_ids, a,
                         h->byte_level ? decode_bytes : verbatim, l->e);
    struct vocab seen = h->texts;
    if (rc == 0)
        rc = hide_added(l);
    if (rc == 0 && !h->byte_level && l->spaces)
        rc = vocab_build(&l->t->vocab, texts, l->types, l->n_ids, a, spmtext_decode_token, l->e);
    else if (rc == 0)
        l->t->vocab = seen;
    if (rc == 0)
        rc = specials_build(&l->t->special, &l->t->vocab,
                            1u << TOKEN_CONTROL | 1u << TOKEN_USER_DEFINED, a, l->e);
    if (rc == 0)
        rc = vocab_map_build(&h->map, &h->texts, 1u << TOKEN_NORMAL | 1u << TOKEN_USER_DEFINED, a,
                             l->e);
    free(texts);
    return rc;
}

void hf_find_bytes(struct hf_reader *l)
{
    struct hf *h = l->h;
    memset(h->bytes, 0xFF, sizeof(h->bytes));
    for (int i = 0; h->byte_level && i < 256; i++) {
        char byte = (char)i;
        h->bytes[i] = vocab_map_find(&h->map, &byte, 1);
    }
    for (size_t i = 0; !h->byte_level && i < l->n_entries; i++) {
        const struct hf_entry *x = &l->entries[i];
        int b = byte_of_text(l->strings.data + x->at, x->n);
        if (b >= 0)
            h->bytes[b] = x->id;
    }
}

/* The id of a piece of a merge; *special when it is a token that text must not become. */
static uint32_t piece_id(struct hf_reader *l, const char *s, size_t n, struct buf *scratch,
                         bool *special)
{
    buf_clear(scratch);
    char *out = buf_reserve(scratch, n + 1);
    if (!out)
        return TOKENIZER_NONE;
    size_t k = l->h->byte_level ? bpe_decode(s, n, out) : verbatim(TOKEN_NORMAL, s, n, out);
    uint32_t id = k == VOCAB_NOT_TEXT ? TOKENIZER_NONE : vocab_map_find(&l->h->map, out, k);
    *special = *special ||
               (id == TOKENIZER_NONE && specials_exact(&l->t->special, s, n) != TOKENIZER_NONE);
    return id;
}

/* whole: both texts, the first of n bytes. */
static int add_merge(struct hf_reader *l, struct jsonpull *j, const struct buf *whole, size_t n,
                     uint32_t rank, struct buf *scratch)
{
    bool special = false;
    const char *s = buf_str(whole);
    uint32_t left = piece_id(l, s, n, scratch, &special);
    uint32_t right = piece_id(l, s + n, whole->len - n, scratch, &special);
    uint32_t both = piece_id(l, s, whole->len, scratch, &special);
    if (special)
        return 0;
    if (left == TOKENIZER_NONE || right == TOKENIZER_NONE || both == TOKENIZER_NONE)
        return jsonpull_fail(j, ERR_FORMAT, "a merge that names no token");
    merges_add(&l->h->merges, left, right, both, rank);
    return 0;
}

/* "left right" or ["left", "right"]: both into `whole`, *n the bytes of the first. */
static int read_merge(struct jsonpull *j, struct buf *whole, size_t *n)
{
    struct jsonpull_str s;
    buf_clear(whole);
    if (jsonpull_peek(j) != '[') {
        int rc = jsonpull_string(j, &s);
        if (rc < 0)
            return rc;
        const char *space = memchr(s.s, ' ', s.n);
        *n = space ? (size_t)(space - s.s) : s.n;
        if (*n == 0 || *n + 1 >= s.n || memchr(space + 1, ' ', s.n - *n - 1))
            return jsonpull_fail(j, ERR_FORMAT, "a merge is two texts and a space");
        buf_add(whole, s.s, *n);
        buf_add(whole, space + 1, s.n - *n - 1);
        return 0;
    }
    int rc = jsonpull_array(j);
    for (int i = 0; i < 2 && rc == 0; i++) {
        *n = whole->len;
        if (jsonpull_item(j) <= 0 || jsonpull_string(j, &s) < 0)
            return jsonpull_fail(j, ERR_FORMAT, "a merge is two texts");
        buf_add(whole, s.s, s.n);
    }
    return rc == 0 && jsonpull_item(j) != 0 ? jsonpull_fail(j, ERR_FORMAT, "a merge is two texts")
                                            : rc;
}

static int count_items(struct jsonpull *j, uint32_t *count)
{
    int more = 0, rc = jsonpull_array(j);
    for (*count = 0; rc == 0 && (more = jsonpull_item(j)) > 0; ++*count)
        rc = *count < MERGES_MAX ? jsonpull_skip(j, NULL)
                                 : jsonpull_fail(j, ERR_LIMIT, "more than 2^24 merges");
    return rc < 0 ? rc : more;
}

static int read_merges(struct hf_reader *l)
{
    struct jsonpull j;
    struct buf whole, scratch;
    uint32_t count = 0;
    size_t n = 0;
    if (hf_is_null(&l->merges))
        return hf_fail(l, ERR_FORMAT, "the model has no merges");
    buf_init(&whole, 0);
    buf_init(&scratch, 0);
    jsonpull_init(&j, l->merges.s, l->merges.n, "tokenizer.json: merges", l->e);
    int rc = count_items(&j, &count);
    jsonpull_release(&j);
    jsonpull_init(&j, l->merges.s, l->merges.n, "tokenizer.json: merges", l->e);
    if (rc == 0)
        rc = merges_init(&l->h->merges, count, &l->t->arena, l->e);
    if (rc == 0)
        rc = jsonpull_array(&j);
    for (uint32_t rank = 0; rc == 0 && jsonpull_item(&j) > 0; rank++) {
        rc = read_merge(&j, &whole, &n);
        if (rc == 0)
            rc = whole.failed ? hf_fail(l, ERR_NOMEM, "no memory for merges")
                              : add_merge(l, &j, &whole, n, rank, &scratch);
    }
    jsonpull_release(&j);
    buf_release(&whole);
    buf_release(&scratch);
    return rc;
}

int hf_finish_bpe(struct hf_reader *l)
{
    struct hf *h = l->h;
    h->unknown = TOKENIZER_NONE;
    for (size_t i = 0; l->has_unk_token && i < l->n_entries; i++)
        if (l->entries[i].n == l->unk_token.len &&
            !memcmp(l->strings.data + l->entries[i].at, buf_str(&l->unk_token), l->unk_token.len))
            h->unknown = l->entries[i].id;
    if (l->has_unk_token && h->unknown == TOKENIZER_NONE)
        return hf_fail(l, ERR_FORMAT, "unk_token is not in the vocabulary");
    return read_merges(l);
}

int hf_finish_unigram(struct hf_reader *l)
{
    struct hf *h = l->h;
    struct unigram *u = &h->unigram;
    double least = INFINITY;
    double *scores = arena_calloc(&l->t->arena, l->n_ids, sizeof(*scores));
    if (!scores)
        return hf_fail(l, ERR_NOMEM, "no memory for scores");
    if (h->byte_level)
        return hf_fail(l, ERR_UNSUPPORTED, "Unigram with ByteLevel is not served");
    if (l->has_unk_id && l->unk_id >= l->n_ids)
        return hf_fail(l, ERR_FORMAT, "unk_id is past the vocabulary");
    for (size_t i = 0; i < l->n_entries; i++) {
        scores[l->entries[i].id] = l->entries[i].score;
        least = l->entries[i].score < least ? l->entries[i].score : least;
    }
    u->scores = scores;
    u->unknown_score = least - UNIGRAM_UNKNOWN_PENALTY;
    u->fallback.unknown = l->has_unk_id ? (uint32_t)l->unk_id : TOKENIZER_NONE;
    u->fallback.plain_spaces = true;
    u->fallback.all_bytes = h->byte_fallback;
    memcpy(u->fallback.bytes, h->bytes, sizeof(h->bytes));
    for (int i = 0; i < 256; i++)
        u->fallback.all_bytes = u->fallback.all_bytes && h->bytes[i] != TOKENIZER_NONE;
    if (!u->fallback.all_bytes && !l->has_unk_id)
        return hf_fail(l, ERR_UNSUPPORTED,
                       "Unigram with neither unk_id nor a token for every byte");
    return trie_build(&u->trie, &h->texts,
                      1u << TOKEN_NORMAL | 1u << TOKEN_USER_DEFINED | 1u << TOKEN_BYTE,
                      &l->t->arena, l->e);
}

/* Tokens that are found in normalised text are normalised themselves. */
int hf_build_matchers(struct hf_reader *l)
{
    struct hf *h = l->h;
    struct arena *a = &l->t->arena;
    struct hf_added *sorted = calloc((size_t)l->n_tokens + 1, sizeof(*sorted));
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    uint32_t n_raw = 0, n_normal = 0;
    struct buf b;
    int rc = sorted && match ? 0 : hf_fail(l, ERR_NOMEM, "no memory");
    buf_init(&b, 0);
    for (uint32_t i = 0; i < l->n_tokens && rc == 0; i++) {
        struct hf_added t = l->tokens[i];
        if (!t.normalized) {
            sorted[n_raw++] = t;
            continue;
        }
        rc = hf_normalize(&h->normalizers, match, t.content.s, t.content.n, &b, l->e);
        t.content = (struct vocab_text){arena_strndup(a, buf_str(&b), b.len), b.len};
        if (rc == 0 && !t.content.s)
            rc = hf_fail(l, ERR_NOMEM, "no memory");
        sorted[l->n_tokens - ++n_normal] = t;
    }
    if (rc == 0)
        rc = hf_matcher_build(&h->raw, sorted, n_raw, a, l->e);
    if (rc == 0)
        rc = hf_matcher_build(&h->normal, sorted + l->n_tokens - n_normal, n_normal, a, l->e);
    buf_release(&b);
    pcre2_match_data_free(match);
    free(sorted);
    return rc;
}
