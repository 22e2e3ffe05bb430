#include "runtime/model/hparams.h"

#include <math.h>
#include <stdio.h>

#include "runtime/base/check.h"

static int load_head_dim(struct loader *l, struct hparams *h, struct err *e)
{
    uint32_t dim = h->n_embd / h->n_heads, value_dim;
    if (h->n_embd % h->n_heads && !loader_has_key(l, "attention.key_length"))
        return err_set(e, ERR_RANGE, "model: embedding length %u does not divide into %u heads",
                       h->n_embd, h->n_heads);
    int rc = loader_u32(l, "attention.key_length", GGUF_OPTIONAL, 8, MODEL_HEAD_DIM_MAX, &dim, e);
    value_dim = dim;
    if (rc == 0)
        rc = loader_u32(l, "attention.value_length", GGUF_OPTIONAL, dim, dim, &value_dim, e);
    if (rc == 0 && dim % 8)
        rc = err_set(e, ERR_UNSUPPORTED, "model: heads of %u elements: not a multiple of 8", dim);
    if (rc == 0 && (uint64_t)dim * h->n_heads > MODEL_WIDTH_MAX)
        rc = err_set(e, ERR_RANGE, "model: %u heads of %u elements are too wide", h->n_heads, dim);
    h->head_dim = dim;
    h->attn_scale = 1.0f / sqrtf((float)dim);
    return rc;
}

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
    return load_head_dim(l, h, e);
}

int hparams_load(struct loader *l, struct hparams *h, struct err *e)
{
    int rc = loader_u32(l, "block_count", GGUF_REQUIRED, 1, MODEL_LAYERS_MAX, &h->n_layers, e);
    if (rc == 0)
        rc = loader_u32(l, "embedding_length", GGUF_REQUIRED, 1, MODEL_WIDTH_MAX, &h->n_embd, e);
    if (rc == 0)
        rc = loader_u32(l, "feed_forward_length", GGUF_REQUIRED, 1, MODEL_FF_MAX, &h->n_ff, e);
    if (rc == 0)
        rc = loader_u32(l, "context_length", GGUF_REQUIRED, 1, MODEL_CONTEXT_MAX, &h->context, e);
    if (rc == 0)
        rc = loader_f32(l, "attention.layer_norm_rms_epsilon", GGUF_REQUIRED, 0, 1, &h->rms_eps, e);
    return rc == 0 ? load_heads(l, h, e) : rc;
}

int hparams_load_window(struct loader *l, struct hparams *h, struct err *e)
{
    uint32_t window = 0;
    int rc = loader_u32(l, "attention.sliding_window", GGUF_OPTIONAL, 0, UINT32_MAX, &window, e);
    h->window = window < h->context ? window : 0;
    return rc;
}

int hparams_refuse_window(struct loader *l, const struct hparams *h, struct err *e)
{
    struct hparams found = *h;
    int rc = hparams_load_window(l, &found, e);
    if (rc == 0 && found.window)
        rc = err_set(e, ERR_UNSUPPORTED, "model: %s with a window of %u is not served", l->prefix,
                     found.window);
    return rc;
}

int hparams_load_experts(struct loader *l, struct hparams *h, struct err *e)
{
    static const char *const others[] = {
        "expert_shared_count",  "expert_shared_feed_forward_length",
        "expert_weights_scale", "expert_group_count",
        "expert_gating_func",   "leading_dense_block_count",
    };
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (loader_has_key(l, others[i]))
            return err_set(e, ERR_UNSUPPORTED, "model: %s with %s is not served", l->prefix,
                           others[i]);
    int rc = loader_u32(l, "expert_count", GGUF_REQUIRED, 1, MODEL_EXPERTS_MAX, &h->n_experts, e);
    if (rc == 0) {
        uint32_t most =
            h->n_experts < MODEL_EXPERTS_USED_MAX ? h->n_experts : MODEL_EXPERTS_USED_MAX;
        rc = loader_u32(l, "expert_used_count", GGUF_REQUIRED, 1, most, &h->n_experts_used, e);
    }
    if (rc == 0)
        rc = loader_u32(l, "expert_feed_forward_length", GGUF_OPTIONAL, 1, MODEL_FF_MAX, &h->n_ff,
                        e);
    return rc;
}
