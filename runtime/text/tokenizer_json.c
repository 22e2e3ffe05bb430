#include "runtime/text/tokenizer_json.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/check.h"
#include "runtime/format/jsonpull.h"
#include "runtime/text/hf.h"

#define COMPONENT_BYTES_MAX (1u << 20) /* of one component as a tree */
#define COMPONENT_DEPTH_MAX 16

/* A token of the file. Its text is in struct loader's `strings`. */
struct entry {
    uint32_t id;
    size_t at, n;
    double score;
};

/* The file's parts as text, and what is gathered from them. */
struct loader {
    struct tokenizer *t;
    struct hf *h;
    struct err *e;
    struct jsonpull_str added, normalizer, pre_tokenizer, post_processor, decoder, model;
    struct jsonpull_str vocab, merges;
    struct buf strings;
    struct entry *entries;
    size_t n_entries, cap_entries;
    struct hf_added *tokens; /* (n_tokens); contents in t's arena */
    uint32_t n_tokens;
    uint32_t n_ids;
    struct buf unk_token;
    bool has_unk_token;
    bool spaces;     /* the decoder makes U+2581 a space */
    bool byte_texts; /* the decoder makes "<0x41>" a byte */
    uint64_t unk_id;
    bool has_unk_id;
    uint8_t *types; /* (n_ids) */
};

/* ---- parts ------------------------------------------------------------------------------------
 */

static bool is_null(const struct jsonpull_str *s)
{
    return s->n == 0 || jsonpull_is(s, "null");
}

static int fail(struct loader *l, int code, const char *words)
{
    return err_set(l->e, code, "tokenizer.json: %s", words);
}

static int read_top(struct loader *l, const char *text, size_t n)
{
    struct jsonpull_str truncation = {0}, padding = {0}, version = {0}, key;
    const struct {
        const char *name;
        struct jsonpull_str *out;
    } parts[] = {
        {"version", &version},
        {"truncation", &truncation},
        {"padding", &padding},
        {"added_tokens", &l->added},
        {"normalizer", &l->normalizer},
        {"pre_tokenizer", &l->pre_tokenizer},
        {"post_processor", &l->post_processor},
        {"decoder", &l->decoder},
        {"model", &l->model},
    };
    struct jsonpull j;
    jsonpull_init(&j, text, n, "tokenizer.json", l->e);
    int more = 0, rc = jsonpull_object(&j);
    while (rc == 0 && (more = jsonpull_key(&j, &key)) > 0) {
        struct jsonpull_str *out = NULL;
        for (size_t i = 0; i < ARRAY_LEN(parts); i++)
            if (jsonpull_is(&key, parts[i].name))
                out = parts[i].out;
        rc = out ? jsonpull_skip(&j, out)
                 : jsonpull_fail(&j, ERR_UNSUPPORTED, "a part that is not known");
    }
    rc = rc == 0 && more == 0 ? jsonpull_end(&j) : j.failed;
    jsonpull_release(&j);
    if (rc == 0 && !is_null(&truncation))
        rc = fail(l, ERR_UNSUPPORTED, "truncation is not served");
    if (rc == 0 && !is_null(&padding))
        rc = fail(l, ERR_UNSUPPORTED, "padding is not served");
    if (rc == 0 && is_null(&l->model))
        rc = fail(l, ERR_FORMAT, "there is no model");
    return rc;
}

/* A small part as a tree; *o is NULL for null. */
static int read_tree(struct loader *l, const struct jsonpull_str *part, const char *name,
                     struct json_object **o)
{
    *o = NULL;
    if (is_null(part))
        return 0;
    if (part->n > COMPONENT_BYTES_MAX)
        return err_set(l->e, ERR_LIMIT, "tokenizer.json: %s has %zu bytes", name, part->n);
    struct json_tokener *tok = json_tokener_new_ex(COMPONENT_DEPTH_MAX);
    if (!tok)
        return fail(l, ERR_NOMEM, "no memory");
    *o = json_tokener_parse_ex(tok, part->s, (int)part->n);
    json_tokener_free(tok);
    if (!*o || !json_object_is_type(*o, json_type_object)) {
        json_object_put(*o);
        *o = NULL;
        return err_set(l->e, ERR_FORMAT, "tokenizer.json: %s is no object, or nested too deep",
                       name);
    }
    return 0;
}

static const char *member(struct json_object *o, const char *key)
{
    struct json_object *v = NULL;
    return json_object_object_get_ex(o, key, &v) && json_object_is_type(v, json_type_string)
               ? json_object_get_string(v)
               : "";
}

/* ---- decoder and post-processor ---------------------------------------------------------------
 */

static int read_decoder(struct loader *l, struct json_object *o, bool inner)
{
    const char *type = member(o, "type");
    struct json_object *list = NULL, *pattern = NULL;
    int rc = 0;
    if (!strcmp(type, "Sequence") && !inner && json_object_object_get_ex(o, "decoders", &list) &&
        json_object_is_type(list, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(list) && rc == 0; i++)
            rc = read_decoder(l, json_object_array_get_idx(list, i), true);
        return rc;
    }
    if (!strcmp(type, "ByteLevel") && l->h->byte_level)
        return 0;
    if (!strcmp(type, "Fuse") || (!strcmp(type, "Strip") && !strcmp(member(o, "content"), " ")))
        return 0;
    if (!strcmp(type, "ByteFallback")) {
        l->byte_texts = true;
        return 0;
    }
    if (!strcmp(type, "Metaspace") && !strcmp(member(o, "replacement"), SPM_SPACE)) {
        l->spaces = true;
        return 0;
    }
    if (!strcmp(type, "Replace") && json_object_object_get_ex(o, "pattern", &pattern) &&
        !strcmp(member(pattern, "String"), SPM_SPACE) && !strcmp(member(o, "content"), " ")) {
        l->spaces = true;
        return 0;
    }
    return err_set(l->e, ERR_UNSUPPORTED, "tokenizer.json: decoder '%.60s' is not served here",
                   type);
}

static int template_token(struct loader *l, struct json_object *o, const char *name, uint32_t *id)
{
    struct json_object *all = NULL, *token = NULL, *ids = NULL;
    if (*id != TOKENIZER_NONE)
        return fail(l, ERR_UNSUPPORTED, "TemplateProcessing with two tokens side by side");
    if (!json_object_object_get_ex(o, "special_tokens", &all) ||
        !json_object_object_get_ex(all, name, &token) ||
        !json_object_object_get_ex(token, "ids", &ids) ||
        !json_object_is_type(ids, json_type_array) || json_object_array_length(ids) != 1)
        return fail(l, ERR_UNSUPPORTED, "TemplateProcessing with a token that is not one id");
    int64_t v = json_object_get_int64(json_object_array_get_idx(ids, 0));
    if (v < 0 || v >= l->n_ids)
        return fail(l, ERR_FORMAT, "TemplateProcessing with an id past the vocabulary");
    *id = (uint32_t)v;
    return 0;
}

static int read_template(struct loader *l, struct json_object *o)
{
    struct json_object *single = NULL, *x = NULL;
    bool seen = false;
    int rc = 0;
    if (!json_object_object_get_ex(o, "single", &single) ||
        !json_object_is_type(single, json_type_array))
        return fail(l, ERR_UNSUPPORTED, "TemplateProcessing without a list 'single'");
    for (size_t i = 0; i < json_object_array_length(single) && rc == 0; i++) {
        struct json_object *item = json_object_array_get_idx(single, i);
        if (json_object_object_get_ex(item, "SpecialToken", &x))
            rc = template_token(l, o, member(x, "id"), seen ? &l->t->eos : &l->t->bos);
        else if (json_object_object_get_ex(item, "Sequence", &x) && !seen &&
                 !strcmp(member(x, "id"), "A"))
            seen = true;
        else
            rc = fail(l, ERR_UNSUPPORTED, "TemplateProcessing with a part that is not known");
    }
    l->t->add_bos = l->t->bos != TOKENIZER_NONE;
    l->t->add_eos = l->t->eos != TOKENIZER_NONE;
    return rc;
}

static int read_post_processor(struct loader *l, struct json_object *o, bool inner)
{
    const char *type = member(o, "type");
    struct json_object *list = NULL;
    int rc = 0;
    if (!strcmp(type, "Sequence") && !inner && json_object_object_get_ex(o, "processors", &list) &&
        json_object_is_type(list, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(list) && rc == 0; i++)
            rc = read_post_processor(l, json_object_array_get_idx(list, i), true);
        return rc;
    }
    if (!strcmp(type, "ByteLevel")) /* changes offsets alone */
        return 0;
    if (!strcmp(type, "TemplateProcessing"))
        return read_template(l, o);
    return err_set(l->e, ERR_UNSUPPORTED, "tokenizer.json: post_processor '%.60s' is not served",
                   type);
}

/* ---- the model's scalars ----------------------------------------------------------------------
 */

/* null, or a string of no bytes. */
static int want_empty(struct jsonpull *j, const char *words)
{
    struct jsonpull_str s;
    if (jsonpull_peek(j) == 'n')
        return jsonpull_skip(j, NULL);
    int rc = jsonpull_string(j, &s);
    return rc == 0 && s.n ? jsonpull_fail(j, ERR_UNSUPPORTED, words) : rc;
}

static int read_dropout(struct jsonpull *j)
{
    double v = 0;
    if (jsonpull_peek(j) == 'n')
        return jsonpull_skip(j, NULL);
    int rc = jsonpull_double(j, &v);
    return rc == 0 && v != 0.0 ? jsonpull_fail(j, ERR_UNSUPPORTED, "dropout is not served") : rc;
}

static int read_unk_token(struct loader *l, struct jsonpull *j)
{
    struct jsonpull_str s;
    if (jsonpull_peek(j) == 'n')
        return jsonpull_skip(j, NULL);
    int rc = jsonpull_string(j, &s);
    if (rc == 0) {
        l->has_unk_token = true;
        buf_clear(&l->unk_token);
        buf_add(&l->unk_token, s.s, s.n);
    }
    return rc;
}

static int read_member(struct loader *l, struct jsonpull *j, const struct jsonpull_str *key,
                       bool *typed)
{
    struct jsonpull_str s;
    int rc;
    if (jsonpull_is(key, "type")) {
        rc = jsonpull_string(j, &s);
        l->h->is_unigram = rc == 0 && jsonpull_is(&s, "Unigram");
        *typed = rc == 0 && (l->h->is_unigram || jsonpull_is(&s, "BPE"));
        return rc < 0 || *typed
                   ? rc
                   : jsonpull_fail(j, ERR_UNSUPPORTED, "a model that is neither BPE nor Unigram");
    }
    if (jsonpull_is(key, "vocab"))
        return jsonpull_skip(j, &l->vocab);
    if (jsonpull_is(key, "merges"))
        return jsonpull_skip(j, &l->merges);
    if (jsonpull_is(key, "dropout"))
        return read_dropout(j);
    if (jsonpull_is(key, "unk_token"))
        return read_unk_token(l, j);
    if (jsonpull_is(key, "continuing_subword_prefix"))
        return want_empty(j, "continuing_subword_prefix is not served");
    if (jsonpull_is(key, "end_of_word_suffix"))
        return want_empty(j, "end_of_word_suffix is not served");
    if (jsonpull_is(key, "fuse_unk"))
        return jsonpull_bool(j, &l->h->fuse_unknown);
    if (jsonpull_is(key, "byte_fallback"))
        return jsonpull_bool(j, &l->h->byte_fallback);
    if (jsonpull_is(key, "ignore_merges"))
        return jsonpull_bool(j, &l->h->ignore_merges);
    if (jsonpull_is(key, "unk_id")) {
        if (jsonpull_peek(j) == 'n')
            return jsonpull_skip(j, NULL);
        l->has_unk_id = true;
        return jsonpull_u64(j, &l->unk_id);
    }
    return jsonpull_fail(j, ERR_UNSUPPORTED, "a member of the model that is not known");
}

static int read_model(struct loader *l)
{
    struct jsonpull j;
    struct jsonpull_str key;
    bool typed = false;
    jsonpull_init(&j, l->model.s, l->model.n, "tokenizer.json: model", l->e);
    int more = 0, rc = jsonpull_object(&j);
    while (rc == 0 && (more = jsonpull_key(&j, &key)) > 0)
        rc = read_member(l, &j, &key, &typed);
    if (rc == 0)
        rc = more;
    jsonpull_release(&j);
    if (rc == 0 && !typed)
        rc = fail(l, ERR_UNSUPPORTED, "a model without a type");
    return rc;
}

/* ---- tokens -----------------------------------------------------------------------------------
 */

static int add_entry(struct loader *l, struct jsonpull *j, const struct jsonpull_str *text,
                     uint64_t id, double score)
{
    if (id >= TOKENIZER_VOCAB_MAX)
        return jsonpull_fail(j, ERR_LIMIT, "an id of 8388608 or more");
    if (l->n_entries == l->cap_entries) {
        size_t cap = l->cap_entries ? 2 * l->cap_entries : 1024;
        struct entry *p = realloc(l->entries, cap * sizeof(*p));
        if (!p)
            return jsonpull_fail(j, ERR_NOMEM, "no memory for tokens");
        l->entries = p;
        l->cap_entries = cap;
    }
    l->entries[l->n_entries++] =
        (struct entry){.id = (uint32_t)id, .at = l->strings.len, .n = text->n, .score = score};
    buf_add(&l->strings, text->s, text->n);
    if (id >= l->n_ids)
        l->n_ids = (uint32_t)id + 1;
    return l->strings.failed ? jsonpull_fail(j, ERR_NOMEM, "no memory for tokens") : 0;
}

/* {"text": id, ...} */
static int read_bpe_vocab(struct loader *l, struct jsonpull *j)
{
    struct jsonpull_str text;
    uint64_t id;
    int more = 0, rc = jsonpull_object(j);
    while (rc == 0 && (more = jsonpull_key(j, &text)) > 0) {
        size_t at = l->strings.len; /* the text does not outlive the next call */
        rc = add_entry(l, j, &text, 0, 0);
        if (rc == 0)
            rc = jsonpull_u64(j, &id);
        if (rc == 0 && id >= TOKENIZER_VOCAB_MAX)
            rc = jsonpull_fail(j, ERR_LIMIT, "an id of 8388608 or more");
        if (rc == 0) {
            ASSERT(l->entries[l->n_entries - 1].at == at);
            l->entries[l->n_entries - 1].id = (uint32_t)id;
            l->n_ids = id >= l->n_ids ? (uint32_t)id + 1 : l->n_ids;
        }
    }
    return rc < 0 ? rc : more;
}

/* [["text", score], ...] */
static int read_unigram_vocab(struct loader *l, struct jsonpull *j)
{
    struct jsonpull_str text;
    uint32_t id = 0;
    int more = 0, rc = jsonpull_array(j);
    for (; rc == 0 && (more = jsonpull_item(j)) > 0; id++) {
        rc = jsonpull_array(j);
        if (rc == 0 && jsonpull_item(j) > 0 && jsonpull_string(j, &text) == 0)
            rc = add_entry(l, j, &text, id, 0);
        else
            rc = jsonpull_fail(j, ERR_FORMAT, "a text and a score are wanted");
        if (rc == 0 &&
            (jsonpull_item(j) <= 0 || jsonpull_double(j, &l->entries[l->n_entries - 1].score) < 0 ||
             jsonpull_item(j) != 0))
            rc = jsonpull_fail(j, ERR_FORMAT, "a text and a score are wanted");
    }
    return rc < 0 ? rc : more;
}

static int read_vocab(struct loader *l)
{
    struct jsonpull j;
    if (is_null(&l->vocab))
        return fail(l, ERR_FORMAT, "the model has no vocab");
    jsonpull_init(&j, l->vocab.s, l->vocab.n, "tokenizer.json: vocab", l->e);
    int rc = l->h->is_unigram ? read_unigram_vocab(l, &j) : read_bpe_vocab(l, &j);
    jsonpull_release(&j);
    return rc;
}

static int read_added_member(struct loader *l, struct jsonpull *j, const struct jsonpull_str *key,
                             struct hf_added *t)
{
    struct jsonpull_str s;
    uint64_t id;
    const struct {
        const char *name;
        bool *out;
    } flags[] = {{"special", &t->special},
                 {"single_word", &t->single_word},
                 {"lstrip", &t->lstrip},
                 {"rstrip", &t->rstrip},
                 {"normalized", &t->normalized}};
    int rc;
    if (jsonpull_is(key, "id")) {
        rc = jsonpull_u64(j, &id);
        t->id = id < TOKENIZER_VOCAB_MAX ? (uint32_t)id : TOKENIZER_NONE;
        return rc;
    }
    if (jsonpull_is(key, "content")) {
        rc = jsonpull_string(j, &s);
        if (rc == 0)
            t->content = (struct vocab_text){arena_strndup(&l->t->arena, s.s, s.n), s.n};
        return rc == 0 && !t->content.s ? jsonpull_fail(j, ERR_NOMEM, "no memory") : rc;
    }
    for (size_t i = 0; i < ARRAY_LEN(flags); i++)
        if (jsonpull_is(key, flags[i].name))
            return jsonpull_bool(j, flags[i].out);
    return jsonpull_fail(j, ERR_UNSUPPORTED, "a member of an added token that is not known");
}

static int read_added(struct loader *l)
{
    struct jsonpull j;
    struct jsonpull_str key;
    size_t cap = 0;
    if (is_null(&l->added))
        return 0;
    jsonpull_init(&j, l->added.s, l->added.n, "tokenizer.json: added_tokens", l->e);
    int rc = jsonpull_array(&j);
    while (rc == 0 && jsonpull_item(&j) > 0) {
        struct hf_added t = {.id = TOKENIZER_NONE};
        rc = jsonpull_object(&j);
        while (rc == 0 && jsonpull_key(&j, &key) > 0)
            rc = read_added_member(l, &j, &key, &t);
        if (rc == 0 && (t.id == TOKENIZER_NONE || !t.content.s))
            rc = jsonpull_fail(&j, ERR_FORMAT, "an added token has an id below 2^23 and a content");
        if (rc < 0 || t.content.n == 0)
            continue;
        if (l->n_tokens == cap) {
            struct hf_added *p = realloc(l->tokens, (cap = 2 * cap + 64) * sizeof(*p));
            if (!p) {
                jsonpull_fail(&j, ERR_NOMEM, "no memory");
                break;
            }
            l->tokens = p;
        }
        l->tokens[l->n_tokens++] = t;
        l->n_ids = t.id >= l->n_ids ? t.id + 1 : l->n_ids;
    }
    rc = j.failed;
    jsonpull_release(&j);
    return rc;
}

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

static int type_tokens(struct loader *l, struct vocab_text *texts)
{
    for (uint32_t i = 0; i < l->n_ids; i++) {
        texts[i] = (struct vocab_text){"", 0};
        l->types[i] = TOKEN_UNUSED;
    }
    for (size_t i = 0; i < l->n_entries; i++) {
        const struct entry *x = &l->entries[i];
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
static int hide_added(struct loader *l)
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
    return ok ? 0 : fail(l, ERR_NOMEM, "no memory for tokens");
}

static int build_vocab(struct loader *l)
{
    struct hf *h = l->h;
    struct arena *a = &l->t->arena;
    struct vocab_text *texts = calloc((size_t)l->n_ids + 1, sizeof(*texts));
    l->types = calloc((size_t)l->n_ids + 1, 1);
    int rc = texts && l->types ? type_tokens(l, texts) : fail(l, ERR_NOMEM, "no memory for tokens");
    if (rc == 0 && l->n_ids == 0)
        rc = fail(l, ERR_FORMAT, "there are no tokens");
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

static void find_bytes(struct loader *l)
{
    struct hf *h = l->h;
    memset(h->bytes, 0xFF, sizeof(h->bytes));
    for (int i = 0; h->byte_level && i < 256; i++) {
        char byte = (char)i;
        h->bytes[i] = vocab_map_find(&h->map, &byte, 1);
    }
    for (size_t i = 0; !h->byte_level && i < l->n_entries; i++) {
        const struct entry *x = &l->entries[i];
        int b = byte_of_text(l->strings.data + x->at, x->n);
        if (b >= 0)
            h->bytes[b] = x->id;
    }
}

/* The id of a piece of a merge; *special when it is a token that text must not become. */
static uint32_t piece_id(struct loader *l, const char *s, size_t n, struct buf *scratch,
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
static int add_merge(struct loader *l, struct jsonpull *j, const struct buf *whole, size_t n,
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

static int read_merges(struct loader *l)
{
    struct jsonpull j;
    struct buf whole, scratch;
    uint32_t count = 0;
    size_t n = 0;
    if (is_null(&l->merges))
        return fail(l, ERR_FORMAT, "the model has no merges");
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
            rc = whole.failed ? fail(l, ERR_NOMEM, "no memory for merges")
                              : add_merge(l, &j, &whole, n, rank, &scratch);
    }
    jsonpull_release(&j);
    buf_release(&whole);
    buf_release(&scratch);
    return rc;
}

static int finish_bpe(struct loader *l)
{
    struct hf *h = l->h;
    h->unknown = TOKENIZER_NONE;
    for (size_t i = 0; l->has_unk_token && i < l->n_entries; i++)
        if (l->entries[i].n == l->unk_token.len &&
            !memcmp(l->strings.data + l->entries[i].at, buf_str(&l->unk_token), l->unk_token.len))
            h->unknown = l->entries[i].id;
    if (l->has_unk_token && h->unknown == TOKENIZER_NONE)
        return fail(l, ERR_FORMAT, "unk_token is not in the vocabulary");
    return read_merges(l);
}

static int finish_unigram(struct loader *l)
{
    struct hf *h = l->h;
    struct unigram *u = &h->unigram;
    double least = INFINITY;
    double *scores = arena_calloc(&l->t->arena, l->n_ids, sizeof(*scores));
    if (!scores)
        return fail(l, ERR_NOMEM, "no memory for scores");
    if (h->byte_level)
        return fail(l, ERR_UNSUPPORTED, "Unigram with ByteLevel is not served");
    if (l->has_unk_id && l->unk_id >= l->n_ids)
        return fail(l, ERR_FORMAT, "unk_id is past the vocabulary");
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
        return fail(l, ERR_UNSUPPORTED, "Unigram with neither unk_id nor a token for every byte");
    return trie_build(&u->trie, &h->texts,
                      1u << TOKEN_NORMAL | 1u << TOKEN_USER_DEFINED | 1u << TOKEN_BYTE,
                      &l->t->arena, l->e);
}

/* Tokens that are found in normalised text are normalised themselves. */
static int build_matchers(struct loader *l)
{
    struct hf *h = l->h;
    struct arena *a = &l->t->arena;
    struct hf_added *sorted = calloc((size_t)l->n_tokens + 1, sizeof(*sorted));
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    uint32_t n_raw = 0, n_normal = 0;
    struct buf b;
    int rc = sorted && match ? 0 : fail(l, ERR_NOMEM, "no memory");
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
            rc = fail(l, ERR_NOMEM, "no memory");
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

/* Normaliser, pre-tokeniser and decoder: what tokens and texts look like. */
static int read_pipeline(struct loader *l)
{
    struct json_object *normalizer = NULL, *pre = NULL, *decoder = NULL;
    int rc = read_tree(l, &l->normalizer, "normalizer", &normalizer);
    if (rc == 0)
        rc = hf_read_normalizer(&l->h->normalizers, normalizer, &l->t->arena, l->e);
    if (rc == 0)
        rc = read_tree(l, &l->pre_tokenizer, "pre_tokenizer", &pre);
    if (rc == 0)
        rc = hf_read_pretokenizer(&l->h->pretokenizers, pre, &l->h->byte_level, &l->t->arena, l->e);
    if (rc == 0)
        rc = read_tree(l, &l->decoder, "decoder", &decoder);
    if (rc == 0 && !decoder)
        rc = fail(l, ERR_UNSUPPORTED, "no decoder is not served");
    if (rc == 0)
        rc = read_decoder(l, decoder, false);
    json_object_put(normalizer);
    json_object_put(pre);
    json_object_put(decoder);
    return rc;
}

static int load(struct loader *l, const char *text, size_t n)
{
    struct json_object *post = NULL;
    int rc = read_top(l, text, n);
    if (rc == 0)
        rc = read_pipeline(l);
    if (rc == 0)
        rc = read_model(l);
    if (rc == 0)
        rc = read_vocab(l);
    if (rc == 0)
        rc = read_added(l);
    if (rc == 0)
        rc = build_vocab(l);
    if (rc < 0)
        return rc;
    find_bytes(l);
    rc = l->h->is_unigram ? finish_unigram(l) : finish_bpe(l);
    if (rc == 0)
        rc = build_matchers(l);
    if (rc == 0)
        rc = read_tree(l, &l->post_processor, "post_processor", &post);
    if (rc == 0 && post)
        rc = read_post_processor(l, post, false);
    json_object_put(post);
    if (rc == 0)
        rc = tokenizer_set_ends(l->t, l->t->bos, l->t->eos, l->e);
    return rc;
}

int tokenizer_load_json_mem(const char *text, size_t n, struct tokenizer **out, struct err *e)
{
    if (n > TOKENIZER_JSON_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "tokenizer.json: %zu bytes; the limit is %u", n,
                       TOKENIZER_JSON_BYTES_MAX);
    struct tokenizer *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory");
    arena_init(&t->arena, TOKENIZER_MEMORY_BASE + n * TOKENIZER_MEMORY_PER_FILE_BYTE);
    t->model = &hf_model;
    t->bos = t->eos = t->eot = TOKENIZER_NONE;
    t->shrinks = true;
    struct loader l = {.t = t, .e = e, .h = arena_alloc(&t->arena, sizeof(struct hf))};
    buf_init(&l.strings, 0);
    buf_init(&l.unk_token, 0);
    t->impl = l.h;
    int rc = l.h ? load(&l, text, n) : err_set(e, ERR_NOMEM, "tokenizer: no memory");
    buf_release(&l.strings);
    buf_release(&l.unk_token);
    free(l.entries);
    free(l.tokens);
    free(l.types);
    if (rc < 0)
        tokenizer_free(t);
    else
        *out = t;
    return rc;
}

int tokenizer_load_json(const char *path, struct tokenizer **out, struct err *e)
{
    struct stat st;
    struct buf b;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block */
    if (fd < 0)
        return err_sys(e, errno, "%s", path);
    buf_init(&b, (size_t)TOKENIZER_JSON_BYTES_MAX + 1);
    if (fstat(fd, &st) < 0)
        rc = err_sys(e, errno, "%s", path);
    else if (!S_ISREG(st.st_mode))
        rc = err_set(e, ERR_IO, "%s: not a regular file", path);
    else if (st.st_size > TOKENIZER_JSON_BYTES_MAX)
        rc = err_set(e, ERR_LIMIT, "%s: more than %u bytes", path, TOKENIZER_JSON_BYTES_MAX);
    while (rc == 0) {
        char *p = buf_reserve(&b, 1u << 20);
        ssize_t k = p ? read(fd, p, 1u << 20) : 0;
        if (!p)
            rc = err_set(e, ERR_NOMEM, "%s: no memory", path);
        else if (k < 0 && errno != EINTR)
            rc = err_sys(e, errno, "%s", path);
        else if (k == 0)
            break;
        else if (k > 0)
            b.len += (size_t)k;
    }
    close(fd);
    if (rc == 0) {
        rc = tokenizer_load_json_mem(buf_str(&b), b.len, out, e);
        if (rc < 0 && e)
            err_prefix(e, "%s", path);
    }
    buf_release(&b);
    return rc;
}
