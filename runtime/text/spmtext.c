#include "runtime/text/spmtext.h"

#include <math.h>
#include <string.h>

#include "runtime/text/utf8.h"

#define SPACE_BYTES 3u /* of SPM_SPACE */
/* NFKC makes at most 11 bytes of one (U+FDFA); a file with more is after our memory. */
#define GROWTH_MAX 16u
#define NO_RULE SIZE_MAX

/* ---- loading ----------------------------------------------------------------------------------
 */

/* The blob: u32 bytes of the double array, the double array, the strings. */
static int load_rules(struct spmtext *s, const struct gguf *g, struct arena *a, struct err *e)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    struct gguf_array blob = {0};
    int64_t v;
    uint32_t trie_bytes;
    int rc = gguf_array(g, key, GGUF_OPTIONAL, &blob, e);
    if (rc < 0 || blob.count == 0)
        return rc;
    if ((blob.type != GGUF_U8 && blob.type != GGUF_I8) || blob.count < sizeof(trie_bytes))
        return err_set(e, ERR_FORMAT, "%s: wanted 4 bytes or more", key);
    size_t n = (size_t)blob.count;
    char *bytes = arena_alloc(a, n + 1); /* a NUL behind the last string, whatever the file says */
    if (!bytes)
        return err_set(e, ERR_NOMEM, "%s: no memory for %zu bytes", key, n);
    for (size_t i = 0; i < n && gguf_next_i64(&blob, &v); i++)
        bytes[i] = (char)v;
    memcpy(&trie_bytes, bytes, sizeof(trie_bytes));
    n -= sizeof(trie_bytes);
    if (trie_bytes > n || trie_bytes % sizeof(uint32_t) || trie_bytes == 0)
        return err_set(e, ERR_FORMAT, "%s: a double array of %u bytes in %zu", key, trie_bytes, n);
    s->units = (const uint32_t *)(const void *)(bytes + sizeof(trie_bytes));
    s->n_units = trie_bytes / sizeof(uint32_t);
    s->strings = bytes + sizeof(trie_bytes) + trie_bytes;
    s->n_strings = n - trie_bytes;
    return 0;
}

/* User-defined tokens as SentencePiece looks for them in text: written with U+2581. */
static int load_keep(struct spmtext *s, const struct specials *user, struct arena *a, struct err *e)
{
    size_t total = 0, n;
    for (uint32_t i = 0; i < user->n; i++) {
        const char *bytes = vocab_bytes(user->vocab, user->ids[i], &n);
        total += spmtext_written_bytes(bytes, n) + 1;
    }
    char *out = arena_alloc(a, total);
    uint32_t *starts = arena_calloc(a, (size_t)user->n + 1, sizeof(*starts));
    uint8_t *types = arena_alloc(a, user->n);
    if (!out || !starts || !types || total >= UINT32_MAX)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for %u tokens", user->n);
    uint32_t at = 0;
    for (uint32_t i = 0; i < user->n; i++) {
        const char *bytes = vocab_bytes(user->vocab, user->ids[i], &n);
        for (; n; n--, bytes++) {
            size_t k = *bytes == ' ' ? SPACE_BYTES : 1;
            memcpy(out + at, *bytes == ' ' ? SPM_SPACE : bytes, k);
            at += (uint32_t)k;
        }
        types[i] = TOKEN_USER_DEFINED;
        starts[i + 1] = ++at;
    }
    s->written = (struct vocab){.n = user->n, .bytes = out, .starts = starts, .types = types};
    return specials_build(&s->keep, &s->written, 1u << TOKEN_USER_DEFINED, a, e);
}

int spmtext_load(struct spmtext *s, const struct specials *user, const struct gguf *g,
                 struct arena *a, struct err *e)
{
    int rc = gguf_bool(g, "tokenizer.ggml.add_space_prefix", GGUF_OPTIONAL, &s->add_prefix, e);
    if (rc == 0)
        rc = gguf_bool(g, "tokenizer.ggml.remove_extra_whitespaces", GGUF_OPTIONAL, &s->squeeze, e);
    if (rc == 0)
        rc = load_rules(s, g, a, e);
    return rc == 0 ? load_keep(s, user, a, e) : rc;
}

int spm_load_scores(const struct vocab *v, const struct gguf *g, struct arena *a,
                    const float **scores, struct err *e)
{
    struct gguf_array in = {0};
    int rc = gguf_array(g, "tokenizer.ggml.scores", GGUF_REQUIRED, &in, e);
    if (rc < 0)
        return rc;
    if (in.count != v->n)
        return err_set(e, ERR_FORMAT, "tokenizer.ggml.scores has %llu elements for %u tokens",
                       (unsigned long long)in.count, v->n);
    float *out = arena_calloc(a, v->n, sizeof(*out));
    if (!out)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for %u scores", v->n);
    for (uint32_t i = 0; i < v->n; i++)
        if (!gguf_next_f32(&in, &out[i]) || !isfinite(out[i]))
            return err_set(e, ERR_FORMAT, "tokenizer.ggml.scores: element %u is no finite float",
                           i);
    *scores = out;
    return 0;
}

/* ---- normalising ------------------------------------------------------------------------------
 */

/* The longest rule that text starts with: its length, and in *value the offset of its replacement;
 * or NO_RULE. The array's format is that of Yata's darts-clone: a unit is a label, an offset to its
 * children, and whether one of those is a value. */
static size_t longest_rule(const struct spmtext *s, const unsigned char *text, size_t n,
                           size_t *value)
{
    size_t best = NO_RULE, at = 0;
    uint32_t unit = s->units[0];
    for (size_t i = 0; i < n; i++) {
        at ^= (size_t)(unit >> 10) << (unit >> 6 & 8);
        at ^= text[i];
        if (at >= s->n_units)
            break;
        unit = s->units[at];
        if ((unit & (1u << 31 | 0xFF)) != text[i])
            break;
        size_t leaf = at ^ (size_t)(unit >> 10) << (unit >> 6 & 8);
        if (!(unit >> 8 & 1) || leaf >= s->n_units)
            continue;
        size_t offset = s->units[leaf] & 0x7FFFFFFFu;
        if (offset < s->n_strings) {
            best = i + 1;
            *value = offset;
        }
    }
    return best;
}

/* What text starts with: *took bytes of it, and what they become, *n bytes. */
static const char *next_piece(const struct spmtext *s, const char *text, size_t left, size_t *took,
                              size_t *n)
{
    uint32_t id;
    size_t len, value;
    if ((len = specials_prefix(&s->keep, text, left, &id))) {
        *took = *n = len;
        return text;
    }
    if (s->units && (len = longest_rule(s, (const unsigned char *)text, left, &value)) != NO_RULE) {
        *took = len;
        *n = strlen(s->strings + value);
        return s->strings + value;
    }
    *took = *n = utf8_next((const unsigned char *)text, left).n;
    return text;
}

/* Every U+2581 becomes a space. */
static size_t unescape(char *out, const char *text, size_t n)
{
    const char *p;
    size_t k = 0;
    while ((p = memmem(text, n, SPM_SPACE, SPACE_BYTES))) {
        size_t before = (size_t)(p - text);
        memmove(out + k, text, before);
        k += before;
        out[k++] = ' ';
        text = p + SPACE_BYTES;
        n -= before + SPACE_BYTES;
    }
    memmove(out + k, text, n);
    return k + n;
}

static bool is_space(const char *p, size_t n)
{
    return n == 1 && *p == ' ';
}

static void add_pieces(const struct spmtext *s, struct buf *out, const char *text, size_t left)
{
    size_t took, n;
    const char *p;
    bool after_space = s->squeeze;
    while (s->squeeze && left && (p = next_piece(s, text, left, &took, &n)) && is_space(p, n)) {
        text += took;
        left -= took;
    }
    if (left && s->add_prefix)
        buf_addc(out, ' ');
    for (; left && !out->failed; text += took, left -= took) {
        p = next_piece(s, text, left, &took, &n);
        for (; after_space && n && *p == ' '; p++, n--)
            continue;
        buf_add(out, p, n);
        if (n)
            after_space = s->squeeze && p[n - 1] == ' ';
    }
}

int spmtext_add(const struct spmtext *s, struct buf *out, const char *text, size_t n, struct err *e)
{
    size_t from = out->len;
    if (s->units || s->squeeze) {
        out->max_bytes = out->len + 64 + GROWTH_MAX * n;
        add_pieces(s, out, text, n);
        out->max_bytes = 0;
    } else {
        if (n && s->add_prefix)
            buf_addc(out, ' ');
        buf_add(out, text, n);
    }
    if (out->failed)
        return err_set(e, ERR_LIMIT,
                       "tokenizer: %zu bytes of text become more than %u times as many, or more "
                       "than there is memory for",
                       n, GROWTH_MAX);
    if (out->len == from)
        return 0;
    out->len = from + unescape(out->data + from, out->data + from, out->len - from);
    while (s->squeeze && out->len > from && out->data[out->len - 1] == ' ')
        out->len--;
    return 0;
}

/* ---- tokens -----------------------------------------------------------------------------------
 */

static int hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

size_t spmtext_written_bytes(const char *bytes, size_t n)
{
    size_t total = n;
    for (size_t i = 0; i < n; i++)
        total += bytes[i] == ' ' ? SPACE_BYTES - 1 : 0;
    return total;
}

size_t spmtext_decode_token(enum token_type type, const char *text, size_t n, char *out)
{
    if (type == TOKEN_BYTE) {
        if (n != 6 || memcmp(text, "<0x", 3) || hex(text[3]) < 0 || hex(text[4]) < 0 ||
            text[5] != '>')
            return VOCAB_NOT_TEXT;
        *out = (char)(hex(text[3]) * 16 + hex(text[4]));
        return 1;
    }
    if (type != TOKEN_CONTROL)
        return unescape(out, text, n);
    memcpy(out, text, n);
    return n;
}

int spm_fallback_load(struct spm_fallback *f, const struct vocab *v, const struct gguf *g,
                      struct err *e)
{
    f->unknown = TOKENIZER_NONE;
    memset(f->bytes, 0xFF, sizeof(f->bytes));
    for (uint32_t id = v->n; id-- > 0;) { /* so that the lowest id stays */
        size_t n;
        const char *bytes = vocab_bytes(v, id, &n);
        if (v->types[id] == TOKEN_BYTE)
            f->bytes[(unsigned char)*bytes] = id;
        if (v->types[id] == TOKEN_UNKNOWN)
            f->unknown = id;
    }
    int rc = gguf_u32(g, "tokenizer.ggml.unknown_token_id", GGUF_OPTIONAL, &f->unknown, e);
    if (rc < 0)
        return rc;
    if (f->unknown != TOKENIZER_NONE && f->unknown >= v->n)
        return err_set(e, ERR_FORMAT,
                       "tokenizer.ggml.unknown_token_id is %u, past the vocabulary of %u",
                       f->unknown, v->n);
    f->all_bytes = true;
    for (int i = 0; i < 256; i++)
        f->all_bytes = f->all_bytes && f->bytes[i] != TOKENIZER_NONE;
    if (!f->all_bytes && f->unknown == TOKENIZER_NONE)
        return err_set(e, ERR_FORMAT,
                       "tokenizer.ggml.tokens: no unknown token, and not one for every byte");
    return 0;
}

int spm_fallback_add(const struct spm_fallback *f, const char *run, size_t n, struct tokenvec *out,
                     struct err *e)
{
    int rc = 0;
    if (!f->all_bytes)
        return tokenizer_out_err(tokenvec_add(out, f->unknown), out, e);
    for (size_t i = 0; i < n; i++) {
        bool written = run[i] == ' ' && !f->plain_spaces;
        const char *bytes = written ? SPM_SPACE : run + i;
        size_t k = written ? SPACE_BYTES : 1;
        for (size_t j = 0; j < k && rc == 0; j++)
            rc = tokenvec_add(out, f->bytes[(unsigned char)bytes[j]]);
    }
    return tokenizer_out_err(rc, out, e);
}
