/* tiny_llama.h: a small Llama with random weights and a byte vocabulary, written as a GGUF file in
 * memory. Each hyperparameter can be given a value that the tensors do not have, and each tensor
 * can be left out or bent, for tests of what a file may not say. */
#ifndef ARGOSY_TESTS_TINY_LLAMA_H
#define ARGOSY_TESTS_TINY_LLAMA_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/kernels.h"
#include "runtime/base/rng.h"
#include "tests/unit/runtime/text/tiny_model.h"

#define TINY_VOCAB 258u /* the bytes, <|im_start|>, <|im_end|> */
#define TINY_EOS 257u
#define TINY_EXTRA_MAX 8

struct tiny_llama {
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads; /* what the tensors are made for */
    uint32_t type;                                        /* of the matrices */
    bool untied;
    bool rope_factors;
    bool qkv_bias;
    uint32_t n_experts, n_experts_used; /* 0: a feed-forward of its own */
    uint64_t seed;
    uint64_t context; /* 0: 512 */

    const char *arch;       /* NULL: "llama" */
    const char *left_out;   /* a tensor or metadata key */
    const char *bent;       /* a tensor with one row (or element) more */
    const char *added;      /* a tensor that nobody knows */
    const char *not_finite; /* a tensor whose first value is infinite: fp32 ones, or an F16 scale */
    struct {
        const char *key; /* "llama.block_count": says this instead */
        uint64_t value;
    } extra[TINY_EXTRA_MAX];
};

static const struct tiny_llama tiny_llama_small = {.n_layers = 2,
                                                   .n_embd = 64,
                                                   .n_ff = 96,
                                                   .n_heads = 4,
                                                   .n_kv_heads = 2,
                                                   .type = KN_Q4_1,
                                                   .untied = true,
                                                   .seed = 1};

struct tiny_writer {
    const struct tiny_llama *m;
    struct buf head; /* everything before the data */
    struct buf data;
    uint64_t n_kvs, n_tensors;
    struct rng rng;
};

static inline bool tiny_is(const char *wanted, const char *name)
{
    return wanted && strcmp(wanted, name) == 0;
}

static inline void tiny_kv_u64(struct tiny_writer *w, const char *key, uint64_t v)
{
    if (tiny_is(w->m->left_out, key))
        return;
    for (int i = 0; i < TINY_EXTRA_MAX; i++)
        if (tiny_is(w->m->extra[i].key, key))
            v = w->m->extra[i].value;
    tiny_add_key(&w->head, key, GGUF_U64);
    tiny_add_u64(&w->head, v);
    w->n_kvs++;
}

static inline void tiny_kv_f32(struct tiny_writer *w, const char *key, float v)
{
    if (tiny_is(w->m->left_out, key))
        return;
    tiny_add_key(&w->head, key, GGUF_F32);
    buf_add(&w->head, &v, sizeof(v));
    w->n_kvs++;
}

/* Roughly normal, so that activations stay where a real model's are. */
static inline float tiny_random(struct tiny_writer *w)
{
    double sum = 0;
    for (int i = 0; i < 4; i++)
        sum += rng_unit(&w->rng);
    return (float)((sum - 2.0) * 1.7);
}

/* Towards zero; what is too small for a normal number is 0. */
static inline uint16_t tiny_f16(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof(u));
    uint32_t sign = (u >> 16) & 0x8000, exponent = (u >> 23) & 0xff;
    if (exponent <= 112)
        return (uint16_t)sign;
    if (exponent >= 143)
        return (uint16_t)(sign | 0x7c00);
    return (uint16_t)(sign | (exponent - 112) << 10 | ((u >> 13) & 0x3ff));
}

/* A row of a matrix: a block type's scales are small, its quants anything. */
static inline void tiny_row(struct tiny_writer *w, uint32_t type, uint64_t cols, bool infinite)
{
    float size = 1.0f / sqrtf((float)cols);
    size_t bytes = kn_type_block_bytes((int)type);
    for (uint64_t c = 0; c < cols; c += (uint64_t)kn_type_block((int)type)) {
        unsigned char block[64];
        float x = infinite && c == 0 ? INFINITY : tiny_random(w) * size;
        for (size_t i = 0; i < bytes; i++)
            block[i] = (unsigned char)rng_u64(&w->rng);
        uint16_t d = tiny_f16(type == KN_F16 ? x : type == KN_Q8_0 ? x / 64 : x / 4);
        uint16_t m = tiny_f16(-7.5f * x / 4);
        if (type == KN_F32)
            memcpy(block, &x, sizeof(x));
        else
            memcpy(block, &d, sizeof(d));
        if (type == KN_Q4_1)
            memcpy(block + 2, &m, sizeof(m));
        buf_add(&w->data, block, bytes);
    }
}

/* n 0: one tensor; else n of them as one, an expert each. */
static inline void tiny_tensors_of(struct tiny_writer *w, const char *name, uint32_t type,
                                   uint64_t cols, uint64_t rows, uint64_t n)
{
    static const char zeros[32];
    if (tiny_is(w->m->left_out, name))
        return;
    if (tiny_is(w->m->bent, name)) {
        cols += rows == 0;
        rows += rows > 0;
    }
    tiny_add_str(&w->head, name, strlen(name));
    tiny_add_u32(&w->head, n > 0 ? 3 : rows > 0 ? 2 : 1);
    tiny_add_u64(&w->head, cols);
    if (rows > 0)
        tiny_add_u64(&w->head, rows);
    if (n > 0)
        tiny_add_u64(&w->head, n);
    tiny_add_u32(&w->head, type);
    tiny_add_u64(&w->head, w->data.len);
    for (uint64_t r = 0; r < (rows > 0 ? rows : 1) * (n > 0 ? n : 1); r++)
        tiny_row(w, type, cols, r == 0 && tiny_is(w->m->not_finite, name));
    buf_add(&w->data, zeros, -w->data.len & 31);
    w->n_tensors++;
}

/* rows 0: a vector. */
static inline void tiny_tensor(struct tiny_writer *w, const char *name, uint32_t type,
                               uint64_t cols, uint64_t rows)
{
    tiny_tensors_of(w, name, type, cols, rows, 0);
}

static inline void tiny_layer(struct tiny_writer *w, uint32_t i)
{
    const struct tiny_llama *m = w->m;
    uint32_t kv = m->n_embd / m->n_heads * m->n_kv_heads;
    const struct {
        const char *name;
        uint32_t cols, rows;
    } tensors[] = {
        {"attn_norm.weight", m->n_embd, 0},
        {"attn_q.weight", m->n_embd, m->n_embd},
        {"attn_k.weight", m->n_embd, kv},
        {"attn_v.weight", m->n_embd, kv},
        {"attn_output.weight", m->n_embd, m->n_embd},
        {"ffn_norm.weight", m->n_embd, 0},
        {"ffn_gate.weight", m->n_embd, m->n_ff},
        {"ffn_up.weight", m->n_embd, m->n_ff},
        {"ffn_down.weight", m->n_ff, m->n_embd},
        {"attn_q.bias", m->n_embd, 0},
        {"attn_k.bias", kv, 0},
        {"attn_v.bias", kv, 0},
    };
    size_t n = sizeof(tensors) / sizeof(tensors[0]) - (m->qkv_bias ? 0 : 3);
    char name[64];
    for (size_t j = 0; j < n; j++) {
        if (m->n_experts > 0 && strncmp(tensors[j].name, "ffn_", 4) == 0 && tensors[j].rows > 0)
            continue;
        snprintf(name, sizeof(name), "blk.%u.%s", i, tensors[j].name);
        tiny_tensor(w, name, tensors[j].rows ? m->type : (uint32_t)KN_F32, tensors[j].cols,
                    tensors[j].rows);
    }
    if (m->n_experts == 0)
        return;
    snprintf(name, sizeof(name), "blk.%u.ffn_gate_inp.weight", i);
    tiny_tensor(w, name, KN_F32, m->n_embd, m->n_experts);
    snprintf(name, sizeof(name), "blk.%u.ffn_gate_exps.weight", i);
    tiny_tensors_of(w, name, m->type, m->n_embd, m->n_ff, m->n_experts);
    snprintf(name, sizeof(name), "blk.%u.ffn_up_exps.weight", i);
    tiny_tensors_of(w, name, m->type, m->n_embd, m->n_ff, m->n_experts);
    snprintf(name, sizeof(name), "blk.%u.ffn_down_exps.weight", i);
    tiny_tensors_of(w, name, m->type, m->n_ff, m->n_embd, m->n_experts);
}

static inline void tiny_tensors(struct tiny_writer *w)
{
    const struct tiny_llama *m = w->m;
    tiny_tensor(w, "token_embd.weight", m->type, m->n_embd, TINY_VOCAB);
    tiny_tensor(w, "output_norm.weight", KN_F32, m->n_embd, 0);
    if (m->untied)
        tiny_tensor(w, "output.weight", m->type, m->n_embd, TINY_VOCAB);
    for (uint32_t i = 0; i < m->n_layers; i++)
        tiny_layer(w, i);
    if (m->added)
        tiny_tensor(w, m->added, KN_F32, 32, 0);
    if (!m->rope_factors)
        return;
    /* As Llama 3 has them: one for fast rotations, 8 for slow ones. */
    uint32_t half = m->n_embd / m->n_heads / 2;
    uint64_t at = w->data.len;
    tiny_tensor(w, "rope_freqs.weight", KN_F32, half, 0);
    for (uint32_t i = 0; i < half; i++) {
        float factor = 1.0f + 7.0f * (float)i / (float)half;
        memcpy(w->data.data + at + i * sizeof(factor), &factor, sizeof(factor));
    }
}

/* The file in `out`, which the caller releases. */
static inline void tiny_llama_write(const struct tiny_llama *m, struct buf *out)
{
    static const char *const control[] = {"<|im_start|>", "<|im_end|>"};
    static const char zeros[32];
    const struct tiny_model vocab = {
        .pre = "gpt-2", .control = control, .n_control = 2, .bos = 256, .eos = TINY_EOS};
    const char *arch = m->arch ? m->arch : "llama";
    struct tiny_writer w = {.m = m};
    rng_init(&w.rng, m->seed);
    buf_init(&w.head, 0);
    buf_init(&w.data, 0);
    tiny_model_write(&w.head, &vocab);
    if (!tiny_is(m->left_out, "general.architecture")) {
        tiny_add_key(&w.head, "general.architecture", GGUF_STRING);
        tiny_add_str(&w.head, arch, strlen(arch));
        w.n_kvs++;
    }
    tiny_kv_u64(&w, "llama.block_count", m->n_layers);
    tiny_kv_u64(&w, "llama.embedding_length", m->n_embd);
    tiny_kv_u64(&w, "llama.feed_forward_length", m->n_ff);
    tiny_kv_u64(&w, "llama.attention.head_count", m->n_heads);
    tiny_kv_u64(&w, "llama.attention.head_count_kv", m->n_kv_heads);
    tiny_kv_u64(&w, "llama.context_length", m->context ? m->context : 512);
    tiny_kv_u64(&w, "llama.expert_count", m->n_experts);
    if (m->n_experts > 0)
        tiny_kv_u64(&w, "llama.expert_used_count", m->n_experts_used);
    tiny_kv_u64(&w, "llama.rope.dimension_count", m->n_embd / m->n_heads);
    tiny_kv_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_kv_f32(&w, "llama.rope.freq_base", 10000.0f);
    uint64_t n_kvs;
    memcpy(&n_kvs, w.head.data + 16, sizeof(n_kvs));
    n_kvs += w.n_kvs;
    tiny_tensors(&w);
    memcpy(w.head.data + 8, &w.n_tensors, sizeof(w.n_tensors));
    memcpy(w.head.data + 16, &n_kvs, sizeof(n_kvs));
    buf_add(&w.head, zeros, -w.head.len & 31);
    buf_add(out, w.head.data, w.head.len);
    buf_add(out, w.data.data, w.data.len);
    buf_release(&w.head);
    buf_release(&w.data);
}

#define TINY_PATH_BYTES 64

/* The same as a file of its own name, for engine_open: path (TINY_PATH_BYTES) gets it, and the
 * caller unlinks it. */
static inline void tiny_llama_file(const struct tiny_llama *m, char *path)
{
    struct buf b;
    buf_init(&b, 0);
    tiny_llama_write(m, &b);
    snprintf(path, TINY_PATH_BYTES, "%s", "/tmp/tiny_llama_XXXXXX");
    int fd = mkstemp(path);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!f || fwrite(b.data, 1, b.len, f) != b.len || fclose(f) != 0)
        abort();
    buf_release(&b);
}

#endif
