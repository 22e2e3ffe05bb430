/* tiny_model.h: a model's text side, made in memory: a byte-level vocabulary (token b is byte b,
 * and a few more) and a small chat template. For tests and fuzz targets of router/http. */
#ifndef ARGOSY_TESTS_TINY_MODEL_H
#define ARGOSY_TESTS_TINY_MODEL_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/model_text.h"
#include "runtime/base/buf.h"
#include "runtime/format/gguf.h"
#include "runtime/grammar/grammar_store.h"
#include "runtime/text/chat.h"
#include "runtime/text/tokenizer.h"

enum { TINY_IM_START = 256, TINY_IM_END, TINY_END, TINY_HE, TINY_VOCAB };
#define TINY_CONTEXT 512

#define TINY_TEMPLATE                                                                        \
    "{% for m in messages %}{% if m.role == 'fail' %}{{ raise_exception('no') }}{% endif %}" \
    "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"          \
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

static inline void tiny_u32(struct buf *b, uint32_t v)
{
    buf_add(b, &v, sizeof(v));
}

static inline void tiny_u64(struct buf *b, uint64_t v)
{
    buf_add(b, &v, sizeof(v));
}

static inline void tiny_str(struct buf *b, const char *s)
{
    tiny_u64(b, strlen(s));
    buf_adds(b, s);
}

static inline void tiny_key_str(struct buf *b, const char *key, const char *value)
{
    tiny_str(b, key);
    tiny_u32(b, GGUF_STRING);
    tiny_str(b, value);
}

static inline void tiny_key_u32(struct buf *b, const char *key, uint32_t value)
{
    tiny_str(b, key);
    tiny_u32(b, GGUF_U32);
    tiny_u32(b, value);
}

/* GPT-2's alphabet: bytes that are not printable are moved to U+0100 and on. */
static inline void tiny_byte_token(unsigned byte, unsigned *moved, char out[4])
{
    bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    unsigned code = printable ? byte : 256 + (*moved)++;
    if (code < 0x80) {
        snprintf(out, 4, "%c", (char)code);
        return;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    out[2] = 0;
}

static inline void tiny_tokens(struct buf *b)
{
    unsigned moved = 0;
    tiny_str(b, "tokenizer.ggml.tokens");
    tiny_u32(b, GGUF_ARRAY);
    tiny_u32(b, GGUF_STRING);
    tiny_u64(b, TINY_VOCAB);
    for (unsigned i = 0; i < 256; i++) {
        char text[4];
        tiny_byte_token(i, &moved, text);
        tiny_str(b, text);
    }
    tiny_str(b, "<|im_start|>");
    tiny_str(b, "<|im_end|>");
    tiny_str(b, "<|endoftext|>");
    tiny_str(b, "he");
    tiny_str(b, "tokenizer.ggml.token_type");
    tiny_u32(b, GGUF_ARRAY);
    tiny_u32(b, GGUF_I32);
    tiny_u64(b, TINY_VOCAB);
    for (unsigned i = 0; i < TINY_VOCAB; i++)
        tiny_u32(b, i >= TINY_IM_START && i <= TINY_END ? TOKEN_CONTROL : TOKEN_NORMAL);
    tiny_str(b, "tokenizer.ggml.merges");
    tiny_u32(b, GGUF_ARRAY);
    tiny_u32(b, GGUF_STRING);
    tiny_u64(b, 1);
    tiny_str(b, "h e");
}

static inline void tiny_gguf(struct buf *b)
{
    buf_init(b, 0);
    buf_adds(b, "GGUF");
    tiny_u32(b, 3);
    tiny_u64(b, 0); /* tensors */
    tiny_u64(b, 9); /* keys */
    tiny_key_str(b, "general.architecture", "llama");
    tiny_key_u32(b, "llama.context_length", TINY_CONTEXT);
    tiny_key_str(b, "tokenizer.ggml.model", "gpt2");
    tiny_key_str(b, "tokenizer.ggml.pre", "gpt2");
    tiny_tokens(b);
    tiny_key_u32(b, "tokenizer.ggml.eos_token_id", TINY_IM_END);
    tiny_key_u32(b, "tokenizer.ggml.bos_token_id", TINY_END);
}

/* One model, "tiny". Ends the program on a failure. */
static inline void tiny_model_init(struct model_texts *texts)
{
    struct buf bytes;
    struct gguf *g = NULL;
    struct err e = {0};
    struct model_text *m = calloc(1, sizeof(*m));
    struct grammar_store_limits grammars;
    grammar_store_limits_default(&grammars);
    tiny_gguf(&bytes);
    if (!m || gguf_open_mem(bytes.data, bytes.len, &g, &e) < 0 ||
        tokenizer_load(g, &m->tokenizer, &e) < 0 ||
        chat_template_compile(TINY_TEMPLATE, strlen(TINY_TEMPLATE), NULL, "<|im_end|>", &m->chat,
                              &e) < 0 ||
        grammar_store_create(m->tokenizer, &grammars, &m->grammars, &e) < 0) {
        fprintf(stderr, "tiny model: %s\n", e.msg);
        abort();
    }
    gguf_close(g);
    buf_release(&bytes);
    m->name = strdup("tiny");
    m->path = strdup("");
    m->context_tokens = TINY_CONTEXT;
    m->token_bytes_max = 13; /* <|endoftext|> */
    m->created_s = 1700000000;
    memset(m->manifest_sha256, 'a', 64);
    *texts = (struct model_texts){m, 1};
}

#endif
