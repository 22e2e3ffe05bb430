#include "runtime/text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/text/tokenizer_internal.h"
#include "runtime/text/utf8.h"

static const struct tokenizer_model *const MODELS[] = {&bpe_model, &spm_model, &unigram_model};

/* Control tokens that end a text or a turn, by the names that model families give them: the
 * metadata names one EOS, and chat models stop at others too. */
static const struct {
    const char *name;
    bool ends_turn; /* stands for EOT when the metadata names none */
} EOG_NAMES[] = {
    {"<|im_end|>", true},     {"<|eot_id|>", true},       {"<end_of_turn>", true},
    {"<|end|>", true},        {"<|end_of_turn|>", true},  {"<EOT>", true},
    {"<|endoftext|>", false}, {"<|end_of_text|>", false}, {"</s>", false},
    {"<|eom_id|>", false},    {"<|return|>", false},      {"<｜end▁of▁sentence｜>", false},
};

/* ---- tokenvec ---------------------------------------------------------------------------------
 */

void tokenvec_init(struct tokenvec *v, size_t max)
{
    memset(v, 0, sizeof(*v));
    v->max = max;
}

void tokenvec_release(struct tokenvec *v)
{
    free(v->ids);
    tokenvec_init(v, v->max);
}

void tokenvec_clear(struct tokenvec *v)
{
    v->n = 0;
}

int tokenvec_add(struct tokenvec *v, uint32_t id)
{
    if (v->max && v->n >= v->max)
        return ERR_LIMIT;
    if (v->n == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 64;
        uint32_t *ids = cap > SIZE_MAX / sizeof(*ids) ? NULL : realloc(v->ids, cap * sizeof(*ids));
        if (!ids)
            return ERR_NOMEM;
        v->ids = ids;
        v->cap = cap;
    }
    v->ids[v->n++] = id;
    return 0;
}

int tokenizer_out_err(int rc, const struct tokenvec *out, struct err *e)
{
    if (rc == ERR_LIMIT)
        return err_set(e, rc, "the text has more than %zu tokens", out->max);
    if (rc < 0)
        return err_set(e, rc, "no memory for %zu tokens", out->n + 1);
    return 0;
}

/* ---- loading ----------------------------------------------------------------------------------
 */

static int load_id(const struct tokenizer *t, const struct gguf *g, const char *key, uint32_t *id,
                   struct err *e)
{
    *id = TOKENIZER_NONE;
    int rc = gguf_u32(g, key, GGUF_OPTIONAL, id, e);
    if (rc == 0 && *id != TOKENIZER_NONE && *id >= t->vocab.n)
        rc = err_set(e, ERR_FORMAT, "%s is %u, past the vocabulary of %u", key, *id, t->vocab.n);
    return rc;
}

static void add_eog(struct tokenizer *t, uint32_t id)
{
    if (id != TOKENIZER_NONE && !tokenizer_is_eog(t, id) && t->n_eog < TOKENIZER_EOG_MAX)
        t->eog[t->n_eog++] = id;
}

static int load_specials(struct tokenizer *t, const struct gguf *g, struct err *e)
{
    uint32_t eom = TOKENIZER_NONE;
    int rc = load_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos, e);
    if (rc == 0)
        rc = load_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos, e);
    if (rc == 0)
        rc = load_id(t, g, "tokenizer.ggml.eot_token_id", &t->eot, e);
    if (rc == 0)
        rc = load_id(t, g, "tokenizer.ggml.eom_token_id", &eom, e);
    if (rc == 0)
        rc = gguf_bool(g, "tokenizer.ggml.add_bos_token", GGUF_OPTIONAL, &t->add_bos, e);
    if (rc == 0)
        rc = gguf_bool(g, "tokenizer.ggml.add_eos_token", GGUF_OPTIONAL, &t->add_eos, e);
    if (rc < 0)
        return rc;
    add_eog(t, t->eos);
    add_eog(t, t->eot);
    add_eog(t, eom);
    tokenizer_find_eog(t);
    return 0;
}

int tokenizer_set_ends(struct tokenizer *t, uint32_t bos, uint32_t eos, struct err *e)
{
    if ((bos != TOKENIZER_NONE && bos >= t->vocab.n) ||
        (eos != TOKENIZER_NONE && eos >= t->vocab.n))
        return err_set(e, ERR_RANGE, "BOS or EOS is past the vocabulary of %u", t->vocab.n);
    t->bos = bos != TOKENIZER_NONE ? bos : t->bos;
    t->eos = eos != TOKENIZER_NONE ? eos : t->eos;
    add_eog(t, t->eos);
    tokenizer_find_eog(t);
    return 0;
}

int tokenizer_add_end(struct tokenizer *t, uint32_t id, struct err *e)
{
    if (id >= t->vocab.n)
        return err_set(e, ERR_RANGE, "token %u is past the vocabulary of %u", id, t->vocab.n);
    add_eog(t, id);
    if (!tokenizer_is_eog(t, id))
        return err_set(e, ERR_LIMIT, "more than %u tokens end a text", TOKENIZER_EOG_MAX);
    return 0;
}

void tokenizer_find_eog(struct tokenizer *t)
{
    for (size_t i = 0; i < ARRAY_LEN(EOG_NAMES); i++) {
        const char *text = EOG_NAMES[i].name;
        uint32_t id = specials_exact(&t->special, text, strlen(text));
        add_eog(t, id);
        if (EOG_NAMES[i].ends_turn && t->eot == TOKENIZER_NONE && id != t->eos)
            t->eot = id;
    }
}

static const struct tokenizer_model *find_model(const struct gguf_str *name)
{
    for (size_t i = 0; i < ARRAY_LEN(MODELS); i++)
        if (strlen(MODELS[i]->name) == name->n && !memcmp(MODELS[i]->name, name->s, name->n))
            return MODELS[i];
    return NULL;
}

int tokenizer_load(const struct gguf *g, struct tokenizer **out, struct err *e)
{
    struct gguf_str name;
    size_t file_bytes;
    int rc = gguf_str(g, "tokenizer.ggml.model", GGUF_REQUIRED, &name, e);
    if (rc < 0)
        return rc;
    const struct tokenizer_model *model = find_model(&name);
    if (!model)
        return err_set(e, ERR_UNSUPPORTED, "tokenizer.ggml.model '%.*s' is not served",
                       (int)(name.n < 40 ? name.n : 40), name.s);
    struct tokenizer *t = calloc(1, sizeof(*t));
    if (!t)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory");
    gguf_mapping(g, &file_bytes);
    arena_init(&t->arena,
               TOKENIZER_MEMORY_BASE + (file_bytes < SIZE_MAX / 64 ? file_bytes : SIZE_MAX / 64) *
                                           TOKENIZER_MEMORY_PER_FILE_BYTE);
    t->model = model;
    rc = model->load(t, g, e);
    if (rc == 0 && !model->finds_user)
        rc = specials_build(&t->user, &t->vocab, 1u << TOKEN_USER_DEFINED, &t->arena, e);
    if (rc == 0)
        rc = load_specials(t, g, e);
    if (rc < 0)
        tokenizer_free(t);
    else
        *out = t;
    return rc;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    if (t->model->release)
        t->model->release(t);
    arena_release(&t->arena);
    free(t);
}

size_t tokenizer_memory_bytes(const struct tokenizer *t)
{
    size_t more = t->model->memory_bytes ? t->model->memory_bytes(t) : 0;
    return sizeof(*t) + t->arena.used_bytes + more;
}

/* ---- encoding ---------------------------------------------------------------------------------
 */

static int add_id(struct tokenvec *out, uint32_t id, struct err *e)
{
    return tokenizer_out_err(tokenvec_add(out, id), out, e);
}

/* Valid UTF-8, special tokens in it. */
static int encode_valid(const struct tokenizer *t, const char *text, size_t n, bool special,
                        struct tokenvec *out, struct err *e)
{
    const struct specials *specials = special ? &t->special : &t->user;
    if (n && t->model->encode_text)
        return t->model->encode_text(t, text, n, special, out, e);
    size_t at = 0;
    int rc = 0;
    while (at < n && rc == 0) {
        uint32_t id = TOKENIZER_NONE;
        size_t len = 0;
        size_t found = specials_find(specials, text, n, at, &id, &len);
        if (found > at)
            rc = t->model->encode(t, text + at, found - at, out, e);
        if (rc == 0 && len)
            rc = add_id(out, id, e);
        at = found + len;
    }
    return rc;
}

static int encode_text(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                       struct tokenvec *out, struct err *e)
{
    bool special = flags & TOKENIZER_PARSE_SPECIAL;
    if (utf8_valid_bytes(text, n) == n)
        return encode_valid(t, text, n, special, out, e);
    struct buf clean;
    buf_init(&clean, 0);
    utf8_add_lossy(&clean, text, n);
    int rc = clean.failed ? err_set(e, ERR_NOMEM, "tokenizer: no memory for %zu bytes", n)
                          : encode_valid(t, buf_str(&clean), clean.len, special, out, e);
    buf_release(&clean);
    return rc;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                     struct tokenvec *out, struct err *e)
{
    bool bos = (flags & TOKENIZER_ADD_BOS_EOS) && t->add_bos && t->bos != TOKENIZER_NONE;
    bool eos = (flags & TOKENIZER_ADD_BOS_EOS) && t->add_eos && t->eos != TOKENIZER_NONE;
    if (n > TOKENIZER_TEXT_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "a text of %zu bytes; the limit is %u", n,
                       TOKENIZER_TEXT_BYTES_MAX);
    /* Refuses what cannot fit before any work is done on it. */
    if (out->max && !t->shrinks && n / (t->vocab.longest ? t->vocab.longest : 1) > out->max)
        return tokenizer_out_err(ERR_LIMIT, out, e);
    int rc = bos ? add_id(out, t->bos, e) : 0;
    if (rc == 0)
        rc = encode_text(t, text, n, flags, out, e);
    if (rc == 0 && eos)
        rc = add_id(out, t->eos, e);
    return rc;
}

/* ---- looking at tokens ------------------------------------------------------------------------
 */

const char *tokenizer_token_bytes(const struct tokenizer *t, uint32_t id, bool special, size_t *n)
{
    *n = 0;
    if (id >= t->vocab.n || (!special && t->vocab.types[id] == TOKEN_CONTROL))
        return "";
    return vocab_bytes(&t->vocab, id, n);
}

enum token_type tokenizer_token_type(const struct tokenizer *t, uint32_t id)
{
    return id < t->vocab.n ? (enum token_type)t->vocab.types[id] : TOKEN_UNUSED;
}

uint32_t tokenizer_find(const struct tokenizer *t, const char *bytes, size_t n)
{
    uint32_t id = specials_exact(&t->special, bytes, n);
    return id != TOKENIZER_NONE ? id : t->model->find(t, bytes, n);
}

uint32_t tokenizer_vocab_size(const struct tokenizer *t)
{
    return t->vocab.n;
}

uint32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

uint32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

uint32_t tokenizer_eot(const struct tokenizer *t)
{
    return t->eot;
}

bool tokenizer_add_bos(const struct tokenizer *t)
{
    return t->add_bos;
}

bool tokenizer_add_eos(const struct tokenizer *t)
{
    return t->add_eos;
}

bool tokenizer_is_eog(const struct tokenizer *t, uint32_t id)
{
    for (uint32_t i = 0; i < t->n_eog; i++)
        if (t->eog[i] == id)
            return true;
    return false;
}
