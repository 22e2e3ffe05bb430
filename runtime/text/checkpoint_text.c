#include "runtime/text/checkpoint_text.h"

#include <json-c/json.h>
#include <string.h>

#include "runtime/text/tokenizer.h"
#include "runtime/text/tokenizer_json.h"

#define DOC_BYTES_MAX (16u << 20) /* tokenizer_config.json may list all added tokens */
#define DOC_DEPTH_MAX 32
#define ENDS_MAX 16

static const char *const doc_names[] = {[CHECKPOINT_CONFIG] = "config.json",
                                        [CHECKPOINT_GENERATION_CONFIG] = "generation_config.json",
                                        [CHECKPOINT_TOKENIZER_CONFIG] = "tokenizer_config.json"};

/* *out is NULL where there is no such file; the caller's to json_object_put. */
static int parse(const struct checkpoint *c, enum checkpoint_doc which, struct json_object **out,
                 struct err *e)
{
    struct checkpoint_text doc = checkpoint_doc(c, which);
    *out = NULL;
    if (!doc.s)
        return 0;
    if (doc.n > DOC_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "%s: %zu bytes; the limit is %u", doc_names[which], doc.n,
                       DOC_BYTES_MAX);
    struct json_tokener *tok = json_tokener_new_ex(DOC_DEPTH_MAX);
    if (!tok)
        return err_set(e, ERR_NOMEM, "%s: no memory", doc_names[which]);
    *out = json_tokener_parse_ex(tok, doc.s, (int)doc.n);
    json_tokener_free(tok);
    if (json_object_is_type(*out, json_type_object))
        return 0;
    json_object_put(*out);
    *out = NULL;
    return err_set(e, ERR_FORMAT, "%s: not a JSON object", doc_names[which]);
}

/* ---- which tokens start and end a text --------------------------------------------------------
 */

/* BOS, the EOS that templates write, and every token that ends generation. */
struct ends {
    uint32_t bos, eos;
    uint32_t list[ENDS_MAX];
    uint32_t n;
};

/* One of tokenizer_config.json's tokens: its text, or an object with it. */
static int named_token(const struct tokenizer *t, struct json_object *config, const char *key,
                       uint32_t *id, struct err *e)
{
    struct json_object *v = NULL;
    *id = TOKENIZER_NONE;
    if (!config || !json_object_object_get_ex(config, key, &v) || !v)
        return 0;
    if (json_object_is_type(v, json_type_object))
        json_object_object_get_ex(v, "content", &v);
    if (!json_object_is_type(v, json_type_string))
        return err_set(e, ERR_FORMAT, "tokenizer_config.json: %s is not a token's text", key);
    *id = tokenizer_find(t, json_object_get_string(v), (size_t)json_object_get_string_len(v));
    if (*id == TOKENIZER_NONE)
        return err_set(e, ERR_FORMAT, "tokenizer_config.json: %s is no token of tokenizer.json",
                       key);
    return 0;
}

static int token_id(const struct tokenizer *t, struct json_object *v, const char *key, uint32_t *id,
                    struct err *e)
{
    int64_t n = json_object_get_int64(v);
    if (!json_object_is_type(v, json_type_int) || n < 0)
        return err_set(e, ERR_FORMAT, "%s is not a token's id", key);
    /* Some files name an id that is a row of the embedding and no token. */
    *id = n < tokenizer_vocab_size(t) ? (uint32_t)n : TOKENIZER_NONE;
    return 0;
}

/* bos_token_id, and eos_token_id, one or a list, of a file that may be NULL. */
static int numbered_tokens(const struct tokenizer *t, struct json_object *config, struct ends *out,
                           struct err *e)
{
    struct json_object *v = NULL;
    uint32_t id;
    int rc = 0;
    if (config && out->bos == TOKENIZER_NONE &&
        json_object_object_get_ex(config, "bos_token_id", &v) && v)
        rc = token_id(t, v, "bos_token_id", &out->bos, e);
    v = NULL;
    if (rc < 0 || out->n > 0 || !config || !json_object_object_get_ex(config, "eos_token_id", &v) ||
        !v)
        return rc;
    bool list = json_object_is_type(v, json_type_array);
    size_t n = list ? json_object_array_length(v) : 1;
    if (n > ENDS_MAX)
        return err_set(e, ERR_LIMIT, "eos_token_id: more than %u tokens", ENDS_MAX);
    for (size_t i = 0; i < n && rc == 0; i++) {
        rc = token_id(t, list ? json_object_array_get_idx(v, i) : v, "eos_token_id", &id, e);
        if (rc == 0 && id != TOKENIZER_NONE)
            out->list[out->n++] = id;
    }
    return rc;
}

static int read_ends(const struct checkpoint *c, const struct tokenizer *t, struct ends *out,
                     struct err *e)
{
    static const enum checkpoint_doc numbered[] = {CHECKPOINT_GENERATION_CONFIG, CHECKPOINT_CONFIG};
    struct json_object *config = NULL;
    int rc = parse(c, CHECKPOINT_TOKENIZER_CONFIG, &config, e);
    if (rc == 0)
        rc = named_token(t, config, "bos_token", &out->bos, e);
    if (rc == 0)
        rc = named_token(t, config, "eos_token", &out->eos, e);
    json_object_put(config);
    for (int i = 0; i < 2 && rc == 0; i++) {
        rc = parse(c, numbered[i], &config, e);
        if (rc == 0)
            rc = numbered_tokens(t, config, out, e);
        json_object_put(config);
    }
    if (out->eos == TOKENIZER_NONE && out->n > 0)
        out->eos = out->list[0];
    return rc;
}

static int open_folder(const struct checkpoint *c, struct tokenizer **out, struct err *e)
{
    struct checkpoint_text doc = checkpoint_doc(c, CHECKPOINT_TOKENIZER);
    struct ends ends = {.bos = TOKENIZER_NONE, .eos = TOKENIZER_NONE};
    struct tokenizer *t = NULL;
    if (!doc.s)
        return err_set(e, ERR_NOT_FOUND, "tokenizer.json is missing");
    int rc = tokenizer_load_json_mem(doc.s, doc.n, &t, e);
    if (rc < 0)
        return rc;
    rc = read_ends(c, t, &ends, e);
    if (rc == 0)
        rc = tokenizer_set_ends(t, ends.bos, ends.eos, e);
    for (uint32_t i = 0; i < ends.n && rc == 0; i++)
        rc = tokenizer_add_end(t, ends.list[i], e);
    if (rc < 0)
        tokenizer_free(t);
    else
        *out = t;
    return rc;
}

int tokenizer_open(const struct checkpoint *c, struct tokenizer **out, struct err *e)
{
    return checkpoint_is_folder(c) ? open_folder(c, out, e)
                                   : tokenizer_load(checkpoint_meta(c), out, e);
}

/* ---- the chat template ------------------------------------------------------------------------
 */

/* The template's text in tokenizer_config.json's value, or NULL. */
static struct json_object *default_template(struct json_object *v)
{
    if (!json_object_is_type(v, json_type_array))
        return json_object_is_type(v, json_type_string) ? v : NULL;
    for (size_t i = 0; i < json_object_array_length(v); i++) {
        struct json_object *one = json_object_array_get_idx(v, i), *name = NULL, *text = NULL;
        if (!json_object_is_type(one, json_type_object))
            continue;
        json_object_object_get_ex(one, "name", &name);
        json_object_object_get_ex(one, "template", &text);
        if (json_object_is_type(name, json_type_string) &&
            json_object_is_type(text, json_type_string) &&
            strcmp(json_object_get_string(name), "default") == 0)
            return text;
    }
    return NULL;
}

static int template_of_folder(const struct checkpoint *c, struct buf *out, struct err *e)
{
    struct checkpoint_text doc = checkpoint_doc(c, CHECKPOINT_CHAT_TEMPLATE);
    struct json_object *config = NULL, *v = NULL;
    if (doc.s) {
        buf_add(out, doc.s, doc.n);
        return 1;
    }
    int rc = parse(c, CHECKPOINT_TOKENIZER_CONFIG, &config, e);
    if (rc == 0 && config && json_object_object_get_ex(config, "chat_template", &v) &&
        (v = default_template(v))) {
        buf_add(out, json_object_get_string(v), (size_t)json_object_get_string_len(v));
        rc = 1;
    }
    json_object_put(config);
    return rc;
}

int chat_template_read(const struct checkpoint *c, struct buf *out, struct err *e)
{
    struct gguf_str text;
    int rc;
    if (checkpoint_is_folder(c)) {
        rc = template_of_folder(c, out, e);
    } else {
        if (!gguf_has(checkpoint_meta(c), "tokenizer.chat_template"))
            return 0;
        rc = gguf_str(checkpoint_meta(c), "tokenizer.chat_template", GGUF_REQUIRED, &text, e);
        if (rc == 0)
            buf_add(out, text.s, text.n);
        rc = rc == 0 ? 1 : rc;
    }
    return rc > 0 && out->failed ? err_set(e, ERR_NOMEM, "no memory for a chat template") : rc;
}
