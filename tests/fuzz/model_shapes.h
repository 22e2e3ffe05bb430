/* model_shapes.h: the architectures as lists of tensors, for the generators of model files. */
#ifndef ARGOSY_FUZZ_MODEL_SHAPES_H
#define ARGOSY_FUZZ_MODEL_SHAPES_H

#include <stdio.h>

#include "tests/fuzz/recipe.h"

#define SHAPE_VOCAB 48u

enum shape_part {
    SHAPE_BIAS = 1,
    SHAPE_QK_NORM = 2,
    SHAPE_POST_NORM = 4,
    SHAPE_FUSED = 8,
    SHAPE_EXPERTS = 16
};

struct shape_family {
    const char *arch, *model_type, *class_name;
    int parts;
};

static const struct shape_family shape_families[] = {
    {"llama", "llama", "LlamaForCausalLM", 0},
    {"llama", "mistral", "MistralForCausalLM", 0},
    {"llama", "mixtral", "MixtralForCausalLM", SHAPE_EXPERTS},
    {"qwen2", "qwen2", "Qwen2ForCausalLM", SHAPE_BIAS},
    {"qwen3", "qwen3", "Qwen3ForCausalLM", SHAPE_QK_NORM},
    {"qwen3moe", "qwen3_moe", "Qwen3MoeForCausalLM", SHAPE_QK_NORM | SHAPE_EXPERTS},
    {"gemma3", "gemma3_text", "Gemma3ForCausalLM", SHAPE_QK_NORM | SHAPE_POST_NORM},
    {"phi3", "phi3", "Phi3ForCausalLM", SHAPE_FUSED},
};
#define SHAPE_FAMILIES (sizeof(shape_families) / sizeof(shape_families[0]))

struct shape {
    const struct shape_family *family;
    uint32_t layers, embd, ff, heads, kv_heads, head_dim, experts;
    bool tied;
};

static inline void shape_choose(struct shape *s, uint32_t family, struct recipe *r, bool wide)
{
    *s = (struct shape){.family = &shape_families[family % SHAPE_FAMILIES],
                        .layers = 1 + recipe_pick(r, 2),
                        .heads = 2,
                        .head_dim = 16};
    s->kv_heads = 1 + recipe_pick(r, 2);
    s->embd = wide ? 256 : 32;
    s->head_dim = wide ? 128 : 16;
    s->ff = wide ? 256 : 64;
    s->experts = s->family->parts & SHAPE_EXPERTS ? 2 : 0;
    s->tied = recipe_pick(r, 2);
}

/* A tensor: rows 0 for a vector of cols; n matrices of experts, 0 for what is one. */
typedef void shape_emit(void *arg, const char *name, uint32_t rows, uint32_t cols, uint32_t n);

static inline void shape_layer(const struct shape *s, uint32_t i, shape_emit *emit, void *arg)
{
    uint32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim, d = s->embd;
    int parts = s->family->parts;
    bool fused = parts & SHAPE_FUSED, experts = parts & SHAPE_EXPERTS;
    const struct {
        const char *part;
        uint32_t rows, cols, n;
        bool is_there;
    } tensors[] = {
        {"attn_norm.weight", 0, d, 0, true},
        {"attn_q.weight", q, d, 0, !fused},
        {"attn_k.weight", kv, d, 0, !fused},
        {"attn_v.weight", kv, d, 0, !fused},
        {"attn_qkv.weight", q + 2 * kv, d, 0, fused},
        {"attn_q.bias", 0, q, 0, parts & SHAPE_BIAS},
        {"attn_k.bias", 0, kv, 0, parts & SHAPE_BIAS},
        {"attn_v.bias", 0, kv, 0, parts & SHAPE_BIAS},
        {"attn_q_norm.weight", 0, s->head_dim, 0, parts & SHAPE_QK_NORM},
        {"attn_k_norm.weight", 0, s->head_dim, 0, parts & SHAPE_QK_NORM},
        {"attn_output.weight", d, q, 0, true},
        {"post_attention_norm.weight", 0, d, 0, parts & SHAPE_POST_NORM},
        {"ffn_norm.weight", 0, d, 0, true},
        {"ffn_gate.weight", s->ff, d, 0, !fused && !experts},
        {"ffn_up.weight", fused ? 2 * s->ff : s->ff, d, 0, !experts},
        {"ffn_down.weight", d, s->ff, 0, !experts},
        {"ffn_gate_inp.weight", s->experts, d, 0, experts},
        {"ffn_gate_exps.weight", s->ff, d, s->experts, experts},
        {"ffn_up_exps.weight", s->ff, d, s->experts, experts},
        {"ffn_down_exps.weight", d, s->ff, s->experts, experts},
        {"post_ffw_norm.weight", 0, d, 0, parts & SHAPE_POST_NORM},
    };
    for (size_t j = 0; j < sizeof(tensors) / sizeof(tensors[0]); j++) {
        char name[64];
        snprintf(name, sizeof(name), "blk.%u.%s", i, tensors[j].part);
        if (tensors[j].is_there)
            emit(arg, name, tensors[j].rows, tensors[j].cols, tensors[j].n);
    }
}

static inline void shape_tensors(const struct shape *s, shape_emit *emit, void *arg)
{
    emit(arg, "token_embd.weight", SHAPE_VOCAB, s->embd, 0);
    emit(arg, "output_norm.weight", 0, s->embd, 0);
    if (!s->tied)
        emit(arg, "output.weight", SHAPE_VOCAB, s->embd, 0);
    for (uint32_t i = 0; i < s->layers; i++)
        shape_layer(s, i, emit, arg);
}

#endif
