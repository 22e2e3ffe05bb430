#include "runtime/text/hf_reader.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

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

static int read_unk_token(struct hf_reader *l, struct jsonpull *j)
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

static int read_member(struct hf_reader *l, struct jsonpull *j, const struct jsonpull_str *key,
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

int hf_read_model(struct hf_reader *l)
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
        rc = hf_fail(l, ERR_UNSUPPORTED, "a model without a type");
    return rc;
}

/* ---- tokens -----------------------------------------------------------------------------------
 */

static int add_entry(struct hf_reader *l, struct jsonpull *j, const struct jsonpull_str *text,
                     uint64_t id, double score)
{
    if (id >= TOKENIZER_VOCAB_MAX)
        return jsonpull_fail(j, ERR_LIMIT, "an id of 8388608 or more");
    if (l->n_entries == l->cap_entries) {
        size_t cap = l->cap_entries ? 2 * l->cap_entries : 1024;
        struct hf_entry *p = realloc(l->entries, cap * sizeof(*p));
        if (!p)
            return jsonpull_fail(j, ERR_NOMEM, "no memory for tokens");
        l->entries = p;
        l->cap_entries = cap;
    }
    l->entries[l->n_entries++] =
        (struct hf_entry){.id = (uint32_t)id, .at = l->strings.len, .n = text->n, .score = score};
    buf_add(&l->strings, text->s, text->n);
    if (id >= l->n_ids)
        l->n_ids = (uint32_t)id + 1;
    return l->strings.failed ? jsonpull_fail(j, ERR_NOMEM, "no memory for tokens") : 0;
}

/* {"text": id, ...} */
static int read_bpe_vocab(struct hf_reader *l, struct jsonpull *j)
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
static int read_unigram_vocab(struct hf_reader *l, struct jsonpull *j)
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

int hf_read_vocab(struct hf_reader *l)
{
    struct jsonpull j;
    if (hf_is_null(&l->vocab))
        return hf_fail(l, ERR_FORMAT, "the model has no vocab");
    jsonpull_init(&j, l->vocab.s, l->vocab.n, "tokenizer.json: vocab", l->e);
    int rc = l->h->is_unigram ? read_unigram_vocab(l, &j) : read_bpe_vocab(l, &j);
    jsonpull_release(&j);
    return rc;
}

static int read_added_member(struct hf_reader *l, struct jsonpull *j,
                             const struct jsonpull_str *key, struct hf_added *t)
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

int hf_read_added(struct hf_reader *l)
{
    struct jsonpull j;
    struct jsonpull_str key;
    size_t cap = 0;
    if (hf_is_null(&l->added))
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
