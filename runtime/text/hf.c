#include "runtime/text/hf.h"

#include <string.h>

#include "runtime/text/utf8.h"

/* The scratch of one encode. */
struct run {
    const struct tokenizer *t;
    const struct hf *h;
    bool special;
    bool start; /* the part at hand starts where all text does */
    const char *text;
    const char *normal; /* of the part at hand */
    struct buf normal_text;
    struct hf_pieces pieces;
    struct mergeword word;
    pcre2_match_data *match;
    struct tokenvec *out;
    struct err *e;
};

/* ---- one word ---------------------------------------------------------------------------------
 */

/* The symbols that stand for a character without a token, or false. */
static bool add_bytes(struct run *r, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (r->h->bytes[(unsigned char)p[i]] == TOKENIZER_NONE)
            return false;
    for (size_t i = 0; i < n; i++)
        mergeword_add(&r->word, r->h->bytes[(unsigned char)p[i]]);
    return true;
}

static void add_characters(struct run *r, const char *word, size_t n)
{
    const struct hf *h = r->h;
    bool unknown = false; /* one waits to be added; it joins those behind it where they fuse */
    for (size_t i = 0, k; i < n; i += k) {
        k = h->byte_level ? 1 : utf8_next((const unsigned char *)word + i, n - i).n;
        uint32_t id =
            h->byte_level ? h->bytes[(unsigned char)word[i]] : vocab_map_find(&h->map, word + i, k);
        if (id != TOKENIZER_NONE) {
            if (unknown)
                mergeword_add(&r->word, h->unknown);
            unknown = false;
            mergeword_add(&r->word, id);
        } else if (!(h->byte_fallback && add_bytes(r, word + i, k)) &&
                   h->unknown != TOKENIZER_NONE) {
            if (unknown && !h->fuse_unknown)
                mergeword_add(&r->word, h->unknown);
            unknown = true;
        }
    }
    if (unknown)
        mergeword_add(&r->word, h->unknown);
}

static int encode_word(struct run *r, const char *word, size_t n)
{
    const struct hf *h = r->h;
    if (h->is_unigram)
        return unigram_encode(&h->unigram, word, n, r->out, r->e);
    if (h->ignore_merges) {
        uint32_t id = vocab_map_find(&h->map, word, n);
        if (id != TOKENIZER_NONE)
            return tokenizer_out_err(tokenvec_add(r->out, id), r->out, r->e);
    }
    int rc = mergeword_start(&r->word, &h->merges, n, r->e);
    if (rc < 0)
        return rc;
    add_characters(r, word, n);
    return mergeword_finish(&r->word, r->out, r->e);
}

/* ---- parts of a text --------------------------------------------------------------------------
 */

/* An hf_part_fn over normalised text. */
static int encode_normal_part(void *arg, uint32_t id, size_t start, size_t end)
{
    struct run *r = arg;
    if (id != TOKENIZER_NONE)
        return tokenizer_out_err(tokenvec_add(r->out, id), r->out, r->e);
    int rc = hf_pretokenize(&r->h->pretokenizers, r->match, r->start && start == 0,
                            r->normal + start, end - start, &r->pieces, r->e);
    for (size_t i = 0; i < r->pieces.n && rc == 0; i++) {
        struct hf_piece p = r->pieces.at[i];
        rc = encode_word(r, buf_str(&r->pieces.text) + p.start, p.end - p.start);
    }
    return rc;
}

/* An hf_part_fn over raw text. */
static int encode_raw_part(void *arg, uint32_t id, size_t start, size_t end)
{
    struct run *r = arg;
    if (id != TOKENIZER_NONE)
        return tokenizer_out_err(tokenvec_add(r->out, id), r->out, r->e);
    int rc = hf_normalize(&r->h->normalizers, r->match, r->text + start, end - start,
                          &r->normal_text, r->e);
    if (rc < 0)
        return rc;
    r->start = start == 0;
    r->normal = buf_str(&r->normal_text);
    return hf_matcher_scan(&r->h->normal, r->special, r->normal, r->normal_text.len,
                           encode_normal_part, r);
}

static int encode_text(const struct tokenizer *t, const char *text, size_t n, bool special,
                       struct tokenvec *out, struct err *e)
{
    const struct hf *h = t->impl;
    struct run r;
    r.t = t;
    r.h = h;
    r.special = special;
    r.start = false;
    r.text = text;
    r.normal = NULL;
    r.pieces = (struct hf_pieces){0};
    r.out = out;
    r.e = e;
    mergeword_init(&r.word);
    buf_init(&r.normal_text, 0);
    buf_init(&r.pieces.text, 0);
    r.match = pcre2_match_data_create(1, NULL);
    int rc = r.match ? hf_matcher_scan(&h->raw, special, text, n, encode_raw_part, &r)
                     : err_set(e, ERR_NOMEM, "tokenizer: no memory");
    pcre2_match_data_free(r.match);
    mergeword_release(&r.word);
    hf_pieces_release(&r.pieces);
    buf_release(&r.normal_text);
    return rc;
}

/* ---- the table of functions -------------------------------------------------------------------
 */

static void release(struct tokenizer *t)
{
    struct hf *h = t->impl;
    if (!h)
        return;
    hf_ops_release(&h->normalizers);
    hf_ops_release(&h->pretokenizers);
}

static size_t code_bytes(const struct hf_ops *ops)
{
    size_t total = 0, n;
    for (int i = 0; i < ops->n; i++) {
        if (!ops->at[i].code)
            continue;
        if (pcre2_pattern_info(ops->at[i].code, PCRE2_INFO_SIZE, &n) == 0)
            total += n;
        if (pcre2_pattern_info(ops->at[i].code, PCRE2_INFO_JITSIZE, &n) == 0)
            total += n;
    }
    return total;
}

static size_t memory_bytes(const struct tokenizer *t)
{
    const struct hf *h = t->impl;
    return code_bytes(&h->normalizers) + code_bytes(&h->pretokenizers);
}

/* By what the token stands for in text, which is not always what the model's texts have. */
static uint32_t find(const struct tokenizer *t, const char *bytes, size_t n)
{
    const struct hf *h = t->impl;
    struct buf b;
    buf_init(&b, 0);
    for (size_t i = 0; i < n; i++)
        if (bytes[i] == ' ' && !h->byte_level)
            buf_adds(&b, SPM_SPACE);
        else
            buf_addc(&b, bytes[i]);
    uint32_t id = vocab_map_find(&h->map, buf_str(&b), b.len);
    buf_release(&b);
    return id == TOKENIZER_NONE && n == 1 ? h->bytes[(unsigned char)*bytes] : id;
}

const struct tokenizer_model hf_model = {
    .name = "tokenizer.json",
    .finds_user = true,
    .release = release,
    .memory_bytes = memory_bytes,
    .encode_text = encode_text,
    .find = find,
};
