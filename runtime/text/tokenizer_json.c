#include "runtime/text/tokenizer_json.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/mapping.h"
#include "runtime/text/hf_reader.h"

#define COMPONENT_BYTES_MAX (1u << 20) /* of one component as a tree */
#define COMPONENT_DEPTH_MAX 16

/* ---- parts ------------------------------------------------------------------------------------
 */

bool hf_is_null(const struct jsonpull_str *s)
{
    return s->n == 0 || jsonpull_is(s, "null");
}

int hf_fail(struct hf_reader *l, int code, const char *words)
{
    return err_set(l->e, code, "tokenizer.json: %s", words);
}

static int read_top(struct hf_reader *l, const char *text, size_t n)
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
    if (rc == 0 && !hf_is_null(&truncation))
        rc = hf_fail(l, ERR_UNSUPPORTED, "truncation is not served");
    if (rc == 0 && !hf_is_null(&padding))
        rc = hf_fail(l, ERR_UNSUPPORTED, "padding is not served");
    if (rc == 0 && hf_is_null(&l->model))
        rc = hf_fail(l, ERR_FORMAT, "there is no model");
    return rc;
}

/* A small part as a tree; *o is NULL for null. */
static int read_tree(struct hf_reader *l, const struct jsonpull_str *part, const char *name,
                     struct json_object **o)
{
    *o = NULL;
    if (hf_is_null(part))
        return 0;
    if (part->n > COMPONENT_BYTES_MAX)
        return err_set(l->e, ERR_LIMIT, "tokenizer.json: %s has %zu bytes", name, part->n);
    struct json_tokener *tok = json_tokener_new_ex(COMPONENT_DEPTH_MAX);
    if (!tok)
        return hf_fail(l, ERR_NOMEM, "no memory");
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

static int read_decoder(struct hf_reader *l, struct json_object *o, bool inner)
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

static int template_token(struct hf_reader *l, struct json_object *o, const char *name,
                          uint32_t *id)
{
    struct json_object *all = NULL, *token = NULL, *ids = NULL;
    if (*id != TOKENIZER_NONE)
        return hf_fail(l, ERR_UNSUPPORTED, "TemplateProcessing with two tokens side by side");
    if (!json_object_object_get_ex(o, "special_tokens", &all) ||
        !json_object_object_get_ex(all, name, &token) ||
        !json_object_object_get_ex(token, "ids", &ids) ||
        !json_object_is_type(ids, json_type_array) || json_object_array_length(ids) != 1)
        return hf_fail(l, ERR_UNSUPPORTED, "TemplateProcessing with a token that is not one id");
    int64_t v = json_object_get_int64(json_object_array_get_idx(ids, 0));
    if (v < 0 || v >= l->n_ids)
        return hf_fail(l, ERR_FORMAT, "TemplateProcessing with an id past the vocabulary");
    *id = (uint32_t)v;
    return 0;
}

static int read_template(struct hf_reader *l, struct json_object *o)
{
    struct json_object *single = NULL, *x = NULL;
    bool seen = false;
    int rc = 0;
    if (!json_object_object_get_ex(o, "single", &single) ||
        !json_object_is_type(single, json_type_array))
        return hf_fail(l, ERR_UNSUPPORTED, "TemplateProcessing without a list 'single'");
    for (size_t i = 0; i < json_object_array_length(single) && rc == 0; i++) {
        struct json_object *item = json_object_array_get_idx(single, i);
        if (json_object_object_get_ex(item, "SpecialToken", &x))
            rc = template_token(l, o, member(x, "id"), seen ? &l->t->eos : &l->t->bos);
        else if (json_object_object_get_ex(item, "Sequence", &x) && !seen &&
                 !strcmp(member(x, "id"), "A"))
            seen = true;
        else
            rc = hf_fail(l, ERR_UNSUPPORTED, "TemplateProcessing with a part that is not known");
    }
    l->t->add_bos = l->t->bos != TOKENIZER_NONE;
    l->t->add_eos = l->t->eos != TOKENIZER_NONE;
    return rc;
}

static int read_post_processor(struct hf_reader *l, struct json_object *o, bool inner)
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

/* ---- the whole --------------------------------------------------------------------------------
 */

/* Normaliser, pre-tokeniser and decoder: what tokens and texts look like. */
static int read_pipeline(struct hf_reader *l)
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
        rc = hf_fail(l, ERR_UNSUPPORTED, "no decoder is not served");
    if (rc == 0)
        rc = read_decoder(l, decoder, false);
    json_object_put(normalizer);
    json_object_put(pre);
    json_object_put(decoder);
    return rc;
}

static int load(struct hf_reader *l, const char *text, size_t n)
{
    struct json_object *post = NULL;
    int rc = read_top(l, text, n);
    if (rc == 0)
        rc = read_pipeline(l);
    if (rc == 0)
        rc = hf_read_model(l);
    if (rc == 0)
        rc = hf_read_vocab(l);
    if (rc == 0)
        rc = hf_read_added(l);
    if (rc == 0)
        rc = hf_build_vocab(l);
    if (rc < 0)
        return rc;
    hf_find_bytes(l);
    rc = l->h->is_unigram ? hf_finish_unigram(l) : hf_finish_bpe(l);
    if (rc == 0)
        rc = hf_build_matchers(l);
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
    struct hf_reader l = {.t = t, .e = e, .h = arena_alloc(&t->arena, sizeof(struct hf))};
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
    struct mapping m = {0};
    int rc = mapping_open(&m, path, e);
    if (rc < 0)
        return rc;
    rc = tokenizer_load_json_mem(m.bytes, m.n, out, e);
    mapping_release(&m);
    return rc < 0 && e ? err_prefix(e, "%s", path) : rc;
}
