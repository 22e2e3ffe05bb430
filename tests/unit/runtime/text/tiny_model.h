/* tiny_model.h: a byte-level BPE vocabulary written as a GGUF file in memory, for tests and
 * fuzzing. Ids: 0 to 255 the bytes, then what each merge makes, then control tokens, then
 * user-defined ones. */
#ifndef ARGOSY_TESTS_TINY_MODEL_H
#define ARGOSY_TESTS_TINY_MODEL_H

#include <string.h>

#include "runtime/base/buf.h"
#include "runtime/format/gguf.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/utf8.h"

struct tiny_model {
    const char *model; /* NULL: "gpt2" */
    const char *pre;
    const char *const (*merges)[2]; /* in bytes; ranks by position */
    size_t n_merges;
    const char *const *control;
    size_t n_control;
    const char *const *user;
    size_t n_user;
    const char *raw_merge; /* one more merge, as the file writes it */
    uint32_t n_types_less; /* leave out so many of the token types */
    int64_t bos, eos;      /* below 0: left out */
    bool add_bos, add_eos;
};

/* GPT-2's byte alphabet: what prints stands for itself, the rest follows from U+0100 on. */
static inline void tiny_add_byte(struct buf *b, unsigned byte)
{
    uint32_t code = 0x100;
    for (unsigned k = 0; k <= byte; k++) {
        bool prints = (k >= '!' && k <= '~') || (k >= 0xA1 && k != 0xAD);
        if (k == byte)
            utf8_add_code(b, prints ? k : code);
        code += !prints;
    }
}

static inline void tiny_add_alphabet(struct buf *b, const char *s)
{
    for (; *s; s++)
        tiny_add_byte(b, (unsigned char)*s);
}

static inline void tiny_add_u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof(v));
}

static inline void tiny_add_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof(v));
}

static inline void tiny_add_str(struct buf *b, const char *s, size_t n)
{
    tiny_add_u64(b, n);
    buf_add(b, s, n);
}

static inline void tiny_add_key(struct buf *b, const char *key, uint32_t type)
{
    tiny_add_str(b, key, strlen(key));
    tiny_add_u32(b, type);
}

static inline void tiny_add_array(struct buf *b, const char *key, uint32_t type, uint64_t n)
{
    tiny_add_key(b, key, GGUF_ARRAY);
    tiny_add_u32(b, type);
    tiny_add_u64(b, n);
}

static inline void tiny_add_tokens(struct buf *b, const struct tiny_model *m, size_t n)
{
    struct buf t;
    buf_init(&t, 0);
    tiny_add_array(b, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (unsigned i = 0; i < 256; i++) {
        buf_clear(&t);
        tiny_add_byte(&t, i);
        tiny_add_str(b, buf_str(&t), t.len);
    }
    for (size_t i = 0; i < m->n_merges; i++) {
        buf_clear(&t);
        tiny_add_alphabet(&t, m->merges[i][0]);
        tiny_add_alphabet(&t, m->merges[i][1]);
        tiny_add_str(b, buf_str(&t), t.len);
    }
    for (size_t i = 0; i < m->n_control; i++)
        tiny_add_str(b, m->control[i], strlen(m->control[i]));
    for (size_t i = 0; i < m->n_user; i++)
        tiny_add_str(b, m->user[i], strlen(m->user[i]));
    buf_release(&t);
}

static inline void tiny_add_merges(struct buf *b, const struct tiny_model *m)
{
    struct buf t;
    buf_init(&t, 0);
    tiny_add_array(b, "tokenizer.ggml.merges", GGUF_STRING, m->n_merges + (m->raw_merge != NULL));
    for (size_t i = 0; i < m->n_merges; i++) {
        buf_clear(&t);
        tiny_add_alphabet(&t, m->merges[i][0]);
        buf_addc(&t, ' ');
        tiny_add_alphabet(&t, m->merges[i][1]);
        tiny_add_str(b, buf_str(&t), t.len);
    }
    if (m->raw_merge)
        tiny_add_str(b, m->raw_merge, strlen(m->raw_merge));
    buf_release(&t);
}

static inline void tiny_model_write(struct buf *b, const struct tiny_model *m)
{
    const char *model = m->model ? m->model : "gpt2";
    size_t n = 256 + m->n_merges + m->n_control + m->n_user;
    buf_adds(b, "GGUF");
    tiny_add_u32(b, 3);
    tiny_add_u64(b, 0);
    tiny_add_u64(b, 7 + (m->bos >= 0) + (m->eos >= 0));
    tiny_add_key(b, "tokenizer.ggml.model", GGUF_STRING);
    tiny_add_str(b, model, strlen(model));
    tiny_add_key(b, "tokenizer.ggml.pre", GGUF_STRING);
    tiny_add_str(b, m->pre, strlen(m->pre));
    tiny_add_tokens(b, m, n);
    tiny_add_array(b, "tokenizer.ggml.token_type", GGUF_I32, n - m->n_types_less);
    for (size_t i = 0; i < n - m->n_types_less; i++)
        tiny_add_u32(b, i < 256 + m->n_merges                  ? TOKEN_NORMAL
                        : i < 256 + m->n_merges + m->n_control ? TOKEN_CONTROL
                                                               : TOKEN_USER_DEFINED);
    tiny_add_merges(b, m);
    tiny_add_key(b, "tokenizer.ggml.add_bos_token", GGUF_BOOL);
    buf_addc(b, m->add_bos);
    tiny_add_key(b, "tokenizer.ggml.add_eos_token", GGUF_BOOL);
    buf_addc(b, m->add_eos);
    if (m->bos >= 0)
        tiny_add_key(b, "tokenizer.ggml.bos_token_id", GGUF_U32);
    if (m->bos >= 0)
        tiny_add_u32(b, (uint32_t)m->bos);
    if (m->eos >= 0)
        tiny_add_key(b, "tokenizer.ggml.eos_token_id", GGUF_U32);
    if (m->eos >= 0)
        tiny_add_u32(b, (uint32_t)m->eos);
}

/* Writes the model, loads it, and closes the file again. */
static inline int tiny_model_load(const struct tiny_model *m, struct tokenizer **out, struct err *e)
{
    struct buf b;
    struct gguf *g = NULL;
    buf_init(&b, 0);
    tiny_model_write(&b, m);
    int rc = gguf_open_mem(buf_str(&b), b.len, &g, e);
    if (rc == 0)
        rc = tokenizer_load(g, out, e);
    gguf_close(g);
    buf_release(&b);
    return rc;
}

#endif
