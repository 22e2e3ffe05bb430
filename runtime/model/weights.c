#include "runtime/model/weights.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/check.h"

/* "blk.I.PART". */
static void layer_name(uint32_t i, const char *part, char out[GGUF_NAME_MAX])
{
    int n = snprintf(out, GGUF_NAME_MAX, "blk.%u.%s", i, part);
    ASSERT(n > 0 && n < GGUF_NAME_MAX);
}

/* Rows of a matrix of layer i: PART.weight. */
struct wanted {
    const char *part;
    uint32_t rows, cols;
    struct shard_range held;
    struct kn_matrix *dst;
};

static struct shard_range all_of(uint32_t rows)
{
    return (struct shard_range){0, rows};
}

/* The range in units of `size`, behind `first`. */
static struct shard_range scaled(struct shard_range r, uint32_t size, uint32_t first)
{
    return (struct shard_range){first + r.begin * size, first + r.end * size};
}

static int load_matrices(struct loader *l, uint32_t i, const struct wanted *w, size_t n,
                         struct err *e)
{
    char name[GGUF_NAME_MAX];
    int rc = 0;
    for (size_t j = 0; j < n && rc == 0; j++) {
        layer_name(i, w[j].part, name);
        rc = loader_matrix(l, name, w[j].rows, w[j].cols, w[j].held, w[j].dst, e);
    }
    return rc;
}

static int load_norm(struct loader *l, uint32_t i, const char *part, uint32_t n, const float **out,
                     struct err *e)
{
    char name[GGUF_NAME_MAX];
    layer_name(i, part, name);
    return loader_vector(l, name, n, out, e);
}

/* The biases of q, k and v: all of them or none; of them what this rank holds. */
static int load_bias(struct loader *l, const struct hparams *h, struct model_layer *y, uint32_t i,
                     struct err *e)
{
    static const char *const parts[3] = {"attn_q.bias", "attn_k.bias", "attn_v.bias"};
    uint32_t width = h->n_heads * h->head_dim, kv_width = h->n_kv_heads * h->head_dim;
    const struct shard_range q = scaled(l->model->shard.q_heads, h->head_dim, 0);
    const struct shard_range kv = scaled(l->model->shard.kv_heads, h->head_dim, 0);
    const uint32_t n[3] = {width, kv_width, kv_width};
    const struct shard_range held[3] = {q, kv, kv};
    char name[3][GGUF_NAME_MAX];
    for (int j = 0; j < 3; j++)
        layer_name(i, parts[j], name[j]);
    if (!loader_has(l, name[0]) && !loader_has(l, name[1]) && !loader_has(l, name[2]))
        return 0;
    float *bias = arena_calloc(&l->model->arena, width + 2 * (size_t)kv_width, sizeof(*bias));
    if (!bias)
        return err_set(e, ERR_NOMEM, "model: no memory for biases");
    y->qkv_bias = bias;
    int rc = 0;
    for (int j = 0; j < 3 && rc == 0; bias += shard_count(held[j]), j++) {
        rc = loader_values(l, name[j], n[j], bias, e);
        if (rc == 0)
            memmove(bias, bias + held[j].begin, shard_count(held[j]) * sizeof(*bias));
    }
    return rc;
}

/* q, k and v. A rank's rows of a fused matrix do not lie together: they become three. */
static int load_qkv(struct loader *l, const struct hparams *h, struct model_layer *y, uint32_t i,
                    int parts, struct err *e)
{
    const struct shard *s = &l->model->shard;
    uint32_t dim = h->head_dim, d = h->n_embd, width = h->n_heads * dim, kv = h->n_kv_heads * dim;
    uint32_t all = width + 2 * kv;
    const struct wanted apart[] = {{"attn_q.weight", width, d, scaled(s->q_heads, dim, 0), &y->q},
                                   {"attn_k.weight", kv, d, scaled(s->kv_heads, dim, 0), &y->k},
                                   {"attn_v.weight", kv, d, scaled(s->kv_heads, dim, 0), &y->v}};
    const struct wanted fused = {"attn_qkv.weight", all, d, all_of(all), &y->qkv};
    const struct wanted cut[] = {
        {"attn_qkv.weight", all, d, scaled(s->q_heads, dim, 0), &y->q},
        {"attn_qkv.weight", all, d, scaled(s->kv_heads, dim, width), &y->k},
        {"attn_qkv.weight", all, d, scaled(s->kv_heads, dim, width + kv), &y->v}};
    if (!(parts & WEIGHTS_FUSED))
        return load_matrices(l, i, apart, ARRAY_LEN(apart), e);
    return s->ranks == 1 ? load_matrices(l, i, &fused, 1, e)
                         : load_matrices(l, i, cut, ARRAY_LEN(cut), e);
}

static int load_attention(struct loader *l, const struct hparams *h, struct model_layer *y,
                          uint32_t i, int parts, struct err *e)
{
    const struct wanted out = {"attn_output.weight", h->n_embd, h->n_heads * h->head_dim,
                               l->model->shard.embed, &y->o};
    int rc = load_qkv(l, h, y, i, parts, e);
    if (rc == 0)
        rc = load_matrices(l, i, &out, 1, e);
    if (rc == 0)
        rc = load_norm(l, i, "attn_norm.weight", h->n_embd, &y->attn_norm, e);
    if (rc == 0 && parts & WEIGHTS_QKV_BIAS)
        rc = load_bias(l, h, y, i, e);
    if (rc == 0 && parts & WEIGHTS_QK_NORM)
        rc = load_norm(l, i, "attn_q_norm.weight", h->head_dim, &y->q_norm, e);
    if (rc == 0 && parts & WEIGHTS_QK_NORM)
        rc = load_norm(l, i, "attn_k_norm.weight", h->head_dim, &y->k_norm, e);
    if (rc == 0 && parts & WEIGHTS_POST_NORM)
        rc = load_norm(l, i, "post_attention_norm.weight", h->n_embd, &y->attn_post, e);
    return rc;
}

static int load_experts(struct loader *l, const struct hparams *h, struct model_layer *y,
                        uint32_t i, struct err *e)
{
    const struct shard *s = &l->model->shard;
    const struct {
        const char *part;
        uint32_t rows, cols;
        struct shard_range held;
        struct kn_matrix **dst;
    } experts[] = {{"ffn_gate_exps.weight", h->n_ff, h->n_embd, s->ff, &y->gate_exps},
                   {"ffn_up_exps.weight", h->n_ff, h->n_embd, s->ff, &y->up_exps},
                   {"ffn_down_exps.weight", h->n_embd, h->n_ff, s->embed, &y->down_exps}};
    const struct wanted router = {"ffn_gate_inp.weight", h->n_experts, h->n_embd,
                                  all_of(h->n_experts), &y->router};
    char name[GGUF_NAME_MAX];
    int rc = load_matrices(l, i, &router, 1, e);
    for (size_t j = 0; j < ARRAY_LEN(experts) && rc == 0; j++) {
        layer_name(i, experts[j].part, name);
        rc = loader_matrices(l, name, h->n_experts, experts[j].rows, experts[j].cols,
                             experts[j].held, experts[j].dst, e);
    }
    return rc;
}

/* As load_qkv. */
static int load_gate_up(struct loader *l, const struct hparams *h, struct model_layer *y,
                        uint32_t i, int parts, struct err *e)
{
    const struct shard *s = &l->model->shard;
    uint32_t d = h->n_embd, ff = h->n_ff;
    const struct wanted apart[] = {{"ffn_gate.weight", ff, d, s->ff, &y->gate},
                                   {"ffn_up.weight", ff, d, s->ff, &y->up}};
    const struct wanted fused = {"ffn_up.weight", 2 * ff, d, all_of(2 * ff), &y->up};
    const struct wanted cut[] = {{"ffn_up.weight", 2 * ff, d, s->ff, &y->gate},
                                 {"ffn_up.weight", 2 * ff, d, scaled(s->ff, 1, ff), &y->up}};
    if (!(parts & WEIGHTS_FUSED))
        return load_matrices(l, i, apart, ARRAY_LEN(apart), e);
    return s->ranks == 1 ? load_matrices(l, i, &fused, 1, e)
                         : load_matrices(l, i, cut, ARRAY_LEN(cut), e);
}

static int load_ffn(struct loader *l, const struct hparams *h, struct model_layer *y, uint32_t i,
                    int parts, struct err *e)
{
    const struct wanted down = {"ffn_down.weight", h->n_embd, h->n_ff, l->model->shard.embed,
                                &y->down};
    int rc = load_norm(l, i, "ffn_norm.weight", h->n_embd, &y->ffn_norm, e);
    if (rc == 0 && h->n_experts > 0)
        return load_experts(l, h, y, i, e);
    if (rc == 0)
        rc = load_gate_up(l, h, y, i, parts, e);
    if (rc == 0)
        rc = load_matrices(l, i, &down, 1, e);
    if (rc == 0 && parts & WEIGHTS_POST_NORM)
        rc = load_norm(l, i, "post_ffw_norm.weight", h->n_embd, &y->ffn_post, e);
    return rc;
}

int weights_load(struct loader *l, struct model *m, int parts, struct err *e)
{
    struct hparams *h = &m->h;
    int rc = loader_rows(l, "token_embd.weight", MODEL_VOCAB_MAX, &h->vocab, e);
    if (rc < 0)
        return rc;
    shard_of(h, m->shard.rank, m->shard.ranks, &m->shard);
    m->layers = arena_calloc(&m->arena, h->n_layers, sizeof(*m->layers));
    if (!m->layers)
        return err_set(e, ERR_NOMEM, "model: no memory for %u layers", h->n_layers);
    for (uint32_t i = 0; i < h->n_layers && rc == 0; i++) {
        rc = load_attention(l, h, &m->layers[i], i, parts, e);
        if (rc == 0)
            rc = load_ffn(l, h, &m->layers[i], i, parts, e);
    }
    if (rc == 0)
        rc = loader_vector(l, "output_norm.weight", h->n_embd, &m->out_norm, e);
    if (rc == 0)
        rc = loader_matrix(l, "token_embd.weight", h->vocab, h->n_embd, m->shard.vocab, &m->embed,
                           e);
    if (rc == 0 && loader_has(l, "output.weight"))
        rc = loader_matrix(l, "output.weight", h->vocab, h->n_embd, m->shard.vocab, &m->head, e);
    return rc;
}
