#include "router/model_text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/format/checkpoint.h"
#include "runtime/format/peft.h"
#include "runtime/grammar/grammar_store.h"
#include "runtime/text/chat.h"
#include "runtime/text/checkpoint_text.h"
#include "runtime/text/tokenizer.h"

/* Names stand in requests, metrics and lists: visible ASCII, without what separates those. */
static bool name_is_plain(const char *s, size_t n)
{
    if (n == 0 || n > 128)
        return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] <= ' ' || s[i] > '~' || strchr("\",=\\", s[i]))
            return false;
    return true;
}

static int split_spec(const char *spec, struct model_text *m, struct err *e)
{
    const char *eq = strchr(spec, '=');
    if (!eq || !eq[1])
        return err_set(e, ERR_CONFIG, "model '%.200s' is not written NAME=PATH", spec);
    if (!name_is_plain(spec, (size_t)(eq - spec)))
        return err_set(e, ERR_CONFIG,
                       "the model's name in '%.200s' is not 1 to 128 visible ASCII characters "
                       "without , \" and \\",
                       spec);
    m->name = strndup(spec, (size_t)(eq - spec));
    m->path = strdup(eq + 1);
    return m->name && m->path ? 0 : err_set(e, ERR_NOMEM, "no memory for a model");
}

static int read_context(const struct gguf *g, struct model_text *m, struct err *e)
{
    struct gguf_str arch;
    struct buf key;
    int rc = gguf_str(g, "general.architecture", GGUF_REQUIRED, &arch, e);
    if (rc < 0)
        return rc;
    if (arch.n > 64)
        return err_set(e, ERR_FORMAT, "general.architecture has %zu bytes", arch.n);
    buf_init(&key, 0);
    buf_add(&key, arch.s, arch.n);
    buf_adds(&key, ".context_length");
    rc = key.failed ? err_set(e, ERR_NOMEM, "no memory for a key")
                    : gguf_u32(g, buf_str(&key), GGUF_REQUIRED, &m->context_tokens, e);
    buf_release(&key);
    if (rc == 0 && m->context_tokens == 0)
        rc = err_set(e, ERR_FORMAT, "the model's context_length is 0");
    return rc;
}

/* A token's text, malloc'd; NULL when the model has no such token. */
static int token_text(const struct tokenizer *t, uint32_t id, char **out, struct err *e)
{
    size_t n;
    *out = NULL;
    if (id == TOKENIZER_NONE)
        return 0;
    const char *s = tokenizer_token_bytes(t, id, true, &n);
    *out = strndup(s, n);
    return *out ? 0 : err_set(e, ERR_NOMEM, "no memory for a token's text");
}

static uint32_t longest_token(const struct tokenizer *t)
{
    size_t longest = 0;
    for (uint32_t id = 0; id < tokenizer_vocab_size(t); id++) {
        size_t n;
        tokenizer_token_bytes(t, id, true, &n);
        longest = n > longest ? n : longest;
    }
    return (uint32_t)longest;
}

/* A template that can't be used is no reason not to serve completions: chat_refusal says why. */
static int compile_template(const struct buf *text, struct model_text *m, struct err *e)
{
    struct err why = {0};
    char *bos = NULL;
    char *eos = NULL;
    int rc = token_text(m->tokenizer, tokenizer_bos(m->tokenizer), &bos, e);
    if (rc == 0)
        rc = token_text(m->tokenizer, tokenizer_eos(m->tokenizer), &eos, e);
    if (rc == 0 && chat_template_compile(buf_str(text), text->len, bos, eos, &m->chat, &why) < 0) {
        m->chat = NULL;
        m->chat_refusal = strdup(why.msg);
        if (!m->chat_refusal)
            rc = err_set(e, ERR_NOMEM, "no memory for a model");
    }
    free(bos);
    free(eos);
    return rc;
}

static int read_template(const struct checkpoint *c, struct model_text *m, struct err *e)
{
    struct buf text;
    buf_init(&text, 0);
    int rc = chat_template_read(c, &text, e);
    if (rc > 0) {
        rc = compile_template(&text, m, e);
    } else if (rc == 0) {
        m->chat_refusal = strdup("it has no chat template");
        rc = m->chat_refusal ? 0 : err_set(e, ERR_NOMEM, "no memory for a model");
    }
    buf_release(&text);
    return rc;
}

static int load_one(const char *spec, struct model_text *m, struct err *e)
{
    struct checkpoint *c = NULL;
    struct stat st;
    struct grammar_store_limits grammars;
    grammar_store_limits_default(&grammars);
    int rc = split_spec(spec, m, e);
    if (rc < 0)
        return rc;
    if ((rc = checkpoint_open(m->path, &c, e)) < 0)
        goto out;
    if ((rc = tokenizer_open(c, &m->tokenizer, e)) < 0 ||
        (rc = read_context(checkpoint_meta(c), m, e)) < 0 || (rc = read_template(c, m, e)) < 0 ||
        (rc = grammar_store_create(m->tokenizer, &grammars, &m->grammars, e)) < 0)
        goto out;
    m->token_bytes_max = longest_token(m->tokenizer);
    m->created_s = stat(m->path, &st) == 0 ? (int64_t)st.st_mtime : 0;
    rc = checkpoint_manifest(c, m->manifest_sha256, e);
out:
    checkpoint_close(c);
    return rc < 0 ? err_prefix(e, "model %s (%s)", m->name, m->path) : 0;
}

int model_texts_load(char *const *specs, size_t n, struct model_texts *out, struct err *e)
{
    int rc = 0;
    *out = (struct model_texts){0};
    out->items = calloc(n ? n : 1, sizeof(*out->items));
    if (!out->items)
        return err_set(e, ERR_NOMEM, "no memory for %zu models", n);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct model_text *m = &out->items[i];
        out->n++;
        rc = load_one(specs[i], m, e);
        for (size_t j = 0; rc == 0 && j < i; j++) {
            ASSERT(m->name && out->items[j].name);
            if (strcmp(out->items[j].name, m->name) == 0)
                rc = err_set(e, ERR_CONFIG, "the model %s is given twice", m->name);
        }
    }
    if (rc < 0)
        model_texts_release(out);
    return rc;
}

/* ---- adapters -------------------------------------------------------------------------------- */

/* NAME=MODEL=PATH. */
static int split_adapter(const struct model_texts *m, const char *spec, struct model_text *t,
                         struct err *e)
{
    const char *eq = strchr(spec, '='), *second = eq ? strchr(eq + 1, '=') : NULL;
    if (!second || !second[1])
        return err_set(e, ERR_CONFIG, "adapter '%.200s' is not written NAME=MODEL=PATH", spec);
    if (!name_is_plain(spec, (size_t)(eq - spec)))
        return err_set(e, ERR_CONFIG,
                       "the adapter's name in '%.200s' is not 1 to 128 visible ASCII characters "
                       "without , \" and \\",
                       spec);
    size_t n = (size_t)(second - eq - 1), at = 0;
    while (at < m->n && (m->items[at].adapter_sha256[0] || strlen(m->items[at].name) != n ||
                         memcmp(m->items[at].name, eq + 1, n) != 0))
        at++;
    if (at == m->n)
        return err_set(e, ERR_CONFIG, "adapter '%.200s': its model is not among the models", spec);
    *t = m->items[at];
    t->base = at;
    t->name = strndup(spec, (size_t)(eq - spec));
    t->path = strdup(second + 1);
    t->adapter_sha256[0] = '?'; /* what follows may fail: nothing of the model's is its own */
    return t->name && t->path ? 0 : err_set(e, ERR_NOMEM, "no memory for an adapter");
}

static int add_adapter(struct model_texts *m, const char *spec, struct err *e)
{
    struct model_text t;
    struct peft p = {0};
    struct stat st;
    int rc = split_adapter(m, spec, &t, e);
    if (rc == ERR_CONFIG)
        return rc;
    bool taken = t.name && model_texts_find(m, t.name);
    m->items[m->n++] = t;
    if (rc < 0)
        return rc;
    if (taken)
        return err_set(e, ERR_CONFIG, "the name %s is given twice", t.name);
    if (peft_open(t.path, &p, e) < 0)
        return err_prefix(e, "adapter %s (%s)", t.name, t.path);
    memcpy(m->items[m->n - 1].adapter_sha256, p.sha256, sizeof(p.sha256));
    m->items[m->n - 1].created_s = stat(t.path, &st) == 0 ? (int64_t)st.st_mtime : 0;
    peft_close(&p);
    return 0;
}

int model_texts_add_adapters(struct model_texts *m, char *const *specs, size_t n, struct err *e)
{
    int rc = 0;
    struct model_text *items = realloc(m->items, (m->n + n + 1) * sizeof(*items));
    if (!items)
        return err_set(e, ERR_NOMEM, "no memory for %zu adapters", n);
    m->items = items;
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = add_adapter(m, specs[i], e);
    return rc;
}

void model_texts_release(struct model_texts *m)
{
    for (size_t i = 0; i < m->n; i++) {
        struct model_text *t = &m->items[i];
        free(t->name);
        free(t->path);
        if (t->adapter_sha256[0])
            continue; /* the rest is its model's */
        free(t->chat_refusal);
        grammar_store_free(t->grammars);
        tokenizer_free(t->tokenizer);
        if (t->chat)
            chat_template_free(t->chat);
    }
    free(m->items);
    *m = (struct model_texts){0};
}

const struct model_text *model_texts_find(const struct model_texts *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->items[i].name, name) == 0)
            return &m->items[i];
    return NULL;
}
