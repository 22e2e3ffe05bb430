/* llama.c: the Llama architecture (Llama 2 and 3, SmolLM2 and others that share its GGUF name).
 *
 * Touvron et al., "LLaMA" (2023): pre-norm RMS, rotary positions on neighbouring pairs (the GGUF
 * permutation of q and k), grouped-query attention, SwiGLU. Llama 3's scaling of the rotation comes
 * as a tensor of factors. Mixtures of experts under this name are not served.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/model/arch.h"
#include "runtime/model/loader.h"
#include "runtime/model/pass.h"

#define ROPE_FREQS "rope_freqs.weight"

/* ---- hyperparameters --------------------------------------------------------------------------
 */

static int load_heads(struct loader *l, struct hparams *h, struct err *e)
{
    int rc =
        loader_u32(l, "attention.head_count", GGUF_REQUIRED, 1, MODEL_HEADS_MAX, &h->n_heads, e);
    if (rc < 0)
        return rc;
    h->n_kv_heads = h->n_heads;
    rc = loader_u32(l, "attention.head_count_kv", GGUF_OPTIONAL, 1, h->n_heads, &h->n_kv_heads, e);
    if (rc < 0)
        return rc;
    if (h->n_heads % h->n_kv_heads)
        return err_set(e, ERR_RANGE, "model: %u heads do not share %u KV heads evenly", h->n_heads,
                       h->n_kv_heads);
    uint32_t dim = h->n_embd / h->n_heads;
    if (h->n_embd % h->n_heads && !gguf_has(l->gguf, "llama.attention.key_length"))
        return err_set(e, ERR_RANGE, "model: embedding length %u does not divide into %u heads",
                       h->n_embd, h->n_heads);
    uint32_t value_dim;
    rc = loader_u32(l, "attention.key_length", GGUF_OPTIONAL, 8, MODEL_HEAD_DIM_MAX, &dim, e);
    value_dim = dim;
    if (rc == 0)
        rc = loader_u32(l, "attention.value_length", GGUF_OPTIONAL, dim, dim, &value_dim, e);
    if (rc == 0 && dim % 8)
        rc = err_set(e, ERR_UNSUPPORTED, "model: heads of %u elements: not a multiple of 8", dim);
    if (rc == 0 && (uint64_t)dim * h->n_heads > MODEL_WIDTH_MAX)
        rc = err_set(e, ERR_RANGE, "model: %u heads of %u elements are too wide", h->n_heads, dim);
    h->head_dim = dim;
    return rc;
}

static int load_hparams(struct loader *l, struct hparams *h, struct err *e)
{
    uint32_t experts = 0, window = 0;
    int rc = loader_u32(l, "block_count", GGUF_REQUIRED, 1, MODEL_LAYERS_MAX, &h->n_layers, e);
    if (rc == 0)
        rc = loader_u32(l, "embedding_length", GGUF_REQUIRED, 1, MODEL_WIDTH_MAX, &h->n_embd, e);
    if (rc == 0)
        rc = loader_u32(l, "feed_forward_length", GGUF_REQUIRED, 1, MODEL_FF_MAX, &h->n_ff, e);
    if (rc == 0)
        rc = loader_u32(l, "context_length", GGUF_REQUIRED, 1, MODEL_CONTEXT_MAX, &h->context, e);
    if (rc == 0)
        rc = loader_f32(l, "attention.layer_norm_rms_epsilon", GGUF_REQUIRED, 0, 1, &h->rms_eps, e);
    if (rc == 0)
        rc = loader_u32(l, "expert_count", GGUF_OPTIONAL, 0, UINT32_MAX, &experts, e);
    if (rc == 0 && experts)
        rc = err_set(e, ERR_UNSUPPORTED, "model: llama with %u experts is not served", experts);
    if (rc == 0)
        rc = loader_u32(l, "attention.sliding_window", GGUF_OPTIONAL, 0, UINT32_MAX, &window, e);
    if (rc == 0 && window && window < h->context)
        rc = err_set(e, ERR_UNSUPPORTED, "model: llama with a window of %u is not served", window);
    return rc == 0 ? load_heads(l, h, e) : rc;
}

/* ---- positions --------------------------------------------------------------------------------
 */

static int linear_scaling(struct loader *l, double *scale, struct err *e)
{
    struct gguf_str type = {.s = "", .n = 0};
    float factor = 1;
    int rc = gguf_str(l->gguf, "llama.rope.scaling.type", GGUF_OPTIONAL, &type, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scale_linear", GGUF_OPTIONAL, 0x1p-20f, 0x1p20f, &factor, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.scaling.factor", GGUF_OPTIONAL, 0x1p-20f, 0x1p20f, &factor, e);
    if (rc < 0)
        return rc;
    bool none = type.n == 4 && memcmp(type.s, "none", 4) == 0;
    bool linear = type.n == 0 || (type.n == 6 && memcmp(type.s, "linear", 6) == 0);
    if (!none && !linear)
        return err_set(e, ERR_UNSUPPORTED, "model: llama.rope.scaling.type '%.*s' is not served",
                       type.n > 32 ? 32 : (int)type.n, type.s);
    *scale = none ? 1.0 : (double)factor;
    return 0;
}

static int load_rope(struct loader *l, struct model *m, struct err *e)
{
    const struct hparams *h = &m->h;
    struct model_rope *r = &m->rope;
    float base = 10000;
    double scale = 1;
    r->kind = KN_ROPE_NORM;
    r->magnitude = 1;
    r->dim = h->head_dim;
    int rc = loader_u32(l, "rope.dimension_count", GGUF_OPTIONAL, 2, h->head_dim, &r->dim, e);
    if (rc == 0)
        rc = loader_f32(l, "rope.freq_base", GGUF_OPTIONAL, 1, 0x1p60f, &base, e);
    if (rc == 0)
        rc = linear_scaling(l, &scale, e);
    if (rc < 0)
        return rc;
    if (r->dim % 2)
        return err_set(e, ERR_RANGE, "model: %u rotated elements: not even", r->dim);
    const float *factors = NULL;
    r->inv_freq = arena_calloc(&m->arena, r->dim / 2, sizeof(*r->inv_freq));
    if (!r->inv_freq)
        return err_set(e, ERR_NOMEM, "model: no memory for the rotation");
    if (loader_has(l, ROPE_FREQS))
        rc = loader_vector(l, ROPE_FREQS, r->dim / 2, &factors, e);
    if (rc < 0)
        return rc;
    kn_rope_inv_freq((double)base, (int)r->dim, r->inv_freq);
    for (uint32_t i = 0; i < r->dim / 2; i++) {
        if (factors && !(factors[i] >= 0x1p-20f && factors[i] <= 0x1p20f))
            return err_set(e, ERR_RANGE, "model: %s: factor %u is %g", ROPE_FREQS, i,
                           (double)factors[i]);
        r->inv_freq[i] /= scale * (factors ? (double)factors[i] : 1.0);
    }
    return 0;
}

/* ---- weights ----------------------------------------------------------------------------------
 */

/* The biases of q, k and v: all of them or none. */
static int load_bias(struct loader *l, const struct hparams *h, struct model_layer *y, uint32_t i,
                     struct err *e)
{
    const char *which[3] = {"q", "k", "v"};
    uint32_t width = h->n_heads * h->head_dim, kv_width = h->n_kv_heads * h->head_dim;
    uint32_t n[3] = {width, kv_width, kv_width};
    char name[3][GGUF_NAME_MAX];
    for (int j = 0; j < 3; j++)
        snprintf(name[j], sizeof(name[j]), "blk.%u.attn_%s.bias", i, which[j]);
    if (!loader_has(l, name[0]) && !loader_has(l, name[1]) && !loader_has(l, name[2]))
        return 0;
    float *bias = arena_calloc(&l->model->arena, width + 2 * (size_t)kv_width, sizeof(*bias));
    if (!bias)
        return err_set(e, ERR_NOMEM, "model: no memory for biases");
    y->qkv_bias = bias;
    int rc = 0;
    for (int j = 0; j < 3 && rc == 0; bias += n[j], j++)
        rc = loader_values(l, name[j], n[j], bias, e);
    return rc;
}

static int load_layer(struct loader *l, const struct hparams *h, struct model_layer *y, uint32_t i,
                      struct err *e)
{
    uint32_t width = h->n_heads * h->head_dim, kv_width = h->n_kv_heads * h->head_dim;
    const struct {
        const char *name;
        uint32_t rows, cols;
        struct kn_matrix *dst;
    } matrices[] = {
        {"attn_q", width, h->n_embd, &y->q},        {"attn_k", kv_width, h->n_embd, &y->k},
        {"attn_v", kv_width, h->n_embd, &y->v},     {"attn_output", h->n_embd, width, &y->o},
        {"ffn_gate", h->n_ff, h->n_embd, &y->gate}, {"ffn_up", h->n_ff, h->n_embd, &y->up},
        {"ffn_down", h->n_embd, h->n_ff, &y->down},
    };
    char name[GGUF_NAME_MAX];
    int rc = 0;
    for (size_t j = 0; j < sizeof(matrices) / sizeof(matrices[0]) && rc == 0; j++) {
        snprintf(name, sizeof(name), "blk.%u.%s.weight", i, matrices[j].name);
        rc = loader_matrix(l, name, matrices[j].rows, matrices[j].cols, matrices[j].dst, e);
    }
    if (rc == 0) {
        snprintf(name, sizeof(name), "blk.%u.attn_norm.weight", i);
        rc = loader_vector(l, name, h->n_embd, &y->attn_norm, e);
    }
    if (rc == 0) {
        snprintf(name, sizeof(name), "blk.%u.ffn_norm.weight", i);
        rc = loader_vector(l, name, h->n_embd, &y->ffn_norm, e);
    }
    return rc == 0 ? load_bias(l, h, y, i, e) : rc;
}

static int load(struct loader *l, struct model *m, struct err *e)
{
    struct hparams *h = &m->h;
    int rc = load_hparams(l, h, e);
    if (rc == 0)
        rc = loader_rows(l, "token_embd.weight", MODEL_VOCAB_MAX, &h->vocab, e);
    if (rc == 0)
        rc = load_rope(l, m, e);
    if (rc < 0)
        return rc;
    m->layers = arena_calloc(&m->arena, h->n_layers, sizeof(*m->layers));
    if (!m->layers)
        return err_set(e, ERR_NOMEM, "model: no memory for %u layers", h->n_layers);
    for (uint32_t i = 0; i < h->n_layers && rc == 0; i++)
        rc = load_layer(l, h, &m->layers[i], i, e);
    if (rc == 0)
        rc = loader_vector(l, "output_norm.weight", h->n_embd, &m->out_norm, e);
    if (rc == 0)
        rc = loader_matrix(l, "token_embd.weight", h->vocab, h->n_embd, &m->embed, e);
    if (rc == 0 && loader_has(l, "output.weight"))
        rc = loader_matrix(l, "output.weight", h->vocab, h->n_embd, &m->head, e);
    return rc;
}

/* ---- the pass ---------------------------------------------------------------------------------
 */

static void forward(const struct model *m, struct pass *p)
{
    const struct hparams *h = &m->h;
    const struct pass_ops *op = p->ops;
    const struct pass_attention attention = {
        .n_heads = (int)h->n_heads,
        .scale = 1.0f / sqrtf((float)h->head_dim),
        .rope = m->rope.kind,
    };

    op->embed(p, &m->embed, 1.0f);
    for (uint32_t i = 0; i < h->n_layers; i++) {
        const struct model_layer *y = &m->layers[i];
        const struct kn_matrix *const qkv[] = {&y->q, &y->k, &y->v};
        const struct kn_matrix *const gate_up[] = {&y->gate, &y->up};

        op->norm(p, y->attn_norm, 0.0f, h->rms_eps);
        op->project(p, qkv, 3, y->qkv_bias);
        op->attend(p, i, &attention);
        op->project_add(p, &y->o);
        op->norm(p, y->ffn_norm, 0.0f, h->rms_eps);
        op->project(p, gate_up, 2, NULL);
        op->gate(p, PASS_SWIGLU);
        op->project_add(p, &y->down);
    }
    op->select(p);
    op->norm(p, m->out_norm, 0.0f, h->rms_eps);
    op->head(p, &m->head);
}

const struct arch arch_llama = {.name = "llama", .load = load, .forward = forward};
