#include "runtime/format/hf_names.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/check.h"

#define HEAD "lm_head"
#define OLD_FREQUENCIES ".rotary_emb.inv_freq"
#define STEM_MAX 64

struct hf_pair {
    const char *gguf, *hf;
};

static const struct hf_pair top[] = {
    {"token_embd", "model.embed_tokens"},
    {"output_norm", "model.norm"},
    {"output", HEAD},
};

/* Of a layer; the first that fits. */
static const struct hf_pair gemma[] = {
    {"post_attention_norm", "post_attention_layernorm"},
    {"ffn_norm", "pre_feedforward_layernorm"},
    {"post_ffw_norm", "post_feedforward_layernorm"},
};
static const struct hf_pair mixtral[] = {
    {"ffn_gate_inp", "block_sparse_moe.gate"},
    {"ffn_gate_exps", "block_sparse_moe.experts.%u.w1"},
    {"ffn_up_exps", "block_sparse_moe.experts.%u.w3"},
    {"ffn_down_exps", "block_sparse_moe.experts.%u.w2"},
};
static const struct hf_pair phi3[] = {
    {"ffn_up", "mlp.gate_up_proj"},
};
static const struct hf_pair all[] = {
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_qkv", "self_attn.qkv_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_exps", "mlp.experts.%u.gate_proj"},
    {"ffn_up_exps", "mlp.experts.%u.up_proj"},
    {"ffn_down_exps", "mlp.experts.%u.down_proj"},
};

static const char *find(const struct hf_pair *pairs, size_t n, const char *gguf)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(pairs[i].gguf, gguf) == 0)
            return pairs[i].hf;
    return NULL;
}

static const char *find_part(const struct hf_layout *l, const char *part)
{
    const char *hf = NULL;
    if (l->family->gemma)
        hf = find(gemma, ARRAY_LEN(gemma), part);
    if (l->family->mixtral)
        hf = find(mixtral, ARRAY_LEN(mixtral), part);
    if (strcmp(l->family->model_type, "phi3") == 0)
        hf = find(phi3, ARRAY_LEN(phi3), part);
    return hf ? hf : find(all, ARRAY_LEN(all), part);
}

/* "STEM.weight" in two. */
static bool split(const char *name, char stem[STEM_MAX], const char **kind)
{
    const char *dot = strrchr(name, '.');
    if (!dot || (size_t)(dot - name) >= STEM_MAX)
        return false;
    memcpy(stem, name, (size_t)(dot - name));
    stem[dot - name] = '\0';
    *kind = dot + 1;
    return true;
}

/* model.layers.I.PART.KIND, PART having the expert's number where it wants one. */
static void layer_name(const char *hf, uint32_t layer, uint32_t expert, const char *kind,
                       char out[HF_NAME_MAX])
{
    const char *hole = strstr(hf, "%u");
    int n = hole ? snprintf(out, HF_NAME_MAX, "model.layers.%u.%.*s%u%s.%s", layer,
                            (int)(hole - hf), hf, expert, hole + 2, kind)
                 : snprintf(out, HF_NAME_MAX, "model.layers.%u.%s.%s", layer, hf, kind);
    ASSERT(n > 0 && n < HF_NAME_MAX);
}

bool hf_name(const struct hf_layout *l, const char *name, uint32_t part, struct hf_place *out)
{
    char stem[STEM_MAX];
    const char *kind, *hf;
    unsigned layer;
    int used = 0;
    *out = (struct hf_place){.apart = false};
    if (!split(name, stem, &kind))
        return false;
    const char *of_layer = stem;
    if (sscanf(stem, "blk.%u.%n", &layer, &used) == 1 && used > 0) {
        of_layer = stem + used;
        hf = find_part(l, of_layer);
        if (!hf)
            return false;
        layer_name(hf, layer, part, kind, out->name);
        out->apart = strstr(hf, "%u") != NULL;
    } else {
        hf = find(top, ARRAY_LEN(top), stem);
        if (!hf || (l->tied && strcmp(hf, HEAD) == 0))
            return false;
        snprintf(out->name, HF_NAME_MAX, "%s.%s", hf, kind);
    }
    bool q_or_k = strcmp(of_layer, "attn_q") == 0 || strcmp(of_layer, "attn_k") == 0;
    size_t n = strlen(of_layer);
    out->router = strcmp(of_layer, "ffn_gate_inp") == 0;
    out->head_dim = l->family->permuted && q_or_k ? l->head_dim : 0;
    out->plus = l->family->gemma && n > 5 && strcmp(of_layer + n - 5, "_norm") == 0 ? 1 : 0;
    return true;
}

bool hf_name_is_spare(const struct hf_layout *l, const char *name)
{
    size_t n = strlen(name), m = strlen(OLD_FREQUENCIES);
    return (l->tied && strcmp(name, HEAD ".weight") == 0) ||
           (n > m && strcmp(name + n - m, OLD_FREQUENCIES) == 0);
}
