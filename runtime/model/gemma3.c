/* gemma3.c: Gemma 3 (text). Kamath et al., "Gemma 3 technical report" (2025).
 *
 * Embeddings times sqrt(n_embd); norms before and behind attention and feed-forward; a norm of each
 * head of q and k; GeGLU. Five layers of six see a window and turn by a base of their own. GGUF
 * stores norm weights with the reference's 1 added, so they are used as they are.
 */
#include <math.h>

#include "runtime/model/arch.h"
#include "runtime/model/decoder.h"
#include "runtime/model/hparams.h"
#include "runtime/model/pass.h"
#include "runtime/model/rope.h"
#include "runtime/model/weights.h"

#define PATTERN_KEY "attention.sliding_window_pattern"
#define LAYERS_27B 62u

/* q·k's scale is 1 / sqrt(head_dim), but in the 27B, whose file does not say so. */
static int load_scales(struct loader *l, struct hparams *h, struct err *e)
{
    uint32_t query_dim = h->n_embd / h->n_heads;
    if (h->n_layers == LAYERS_27B)
        h->attn_scale = 1.0f / sqrtf((float)query_dim);
    int rc = loader_f32(l, "attention.scale", GGUF_OPTIONAL, 0x1p-20f, 0x1p20f, &h->attn_scale, e);
    if (rc == 0)
        rc =
            loader_f32(l, "attn_logit_softcapping", GGUF_OPTIONAL, 0, 0x1p20f, &h->attn_softcap, e);
    if (rc == 0)
        rc = loader_f32(l, "final_logit_softcapping", GGUF_OPTIONAL, 0, 0x1p20f, &h->logit_softcap,
                        e);
    return rc;
}

/* Which layers are local: every one but each sixth, another number, or a list of all layers. */
static int load_pattern(struct loader *l, struct model *m, struct err *e)
{
    struct gguf_array list = {.count = 0};
    uint32_t every = 6;
    int64_t v;
    bool is_list = loader_is_array(l, PATTERN_KEY);
    int rc = is_list ? loader_array(l, PATTERN_KEY, &list, e)
                     : loader_u32(l, PATTERN_KEY, GGUF_OPTIONAL, 1, UINT32_MAX, &every, e);
    if (rc == 0 && is_list && list.count != m->h.n_layers)
        return err_set(e, ERR_FORMAT, "model: %s.%s: %llu values for %u layers", l->prefix,
                       PATTERN_KEY, (unsigned long long)list.count, m->h.n_layers);
    for (uint32_t i = 0; rc == 0 && m->h.window && i < m->h.n_layers; i++) {
        m->layers[i].local = (i + 1) % every != 0;
        if (is_list && !gguf_next_i64(&list, &v))
            return err_set(e, ERR_FORMAT, "model: %s.%s is not a list of numbers", l->prefix,
                           PATTERN_KEY);
        if (is_list)
            m->layers[i].local = v != 0;
    }
    return rc;
}

static int load(struct loader *l, struct model *m, struct err *e)
{
    struct hparams *h = &m->h;
    int rc = hparams_load(l, h, e);
    if (rc == 0)
        rc = load_scales(l, h, e);
    /* A window over the whole context still marks the layers that turn by the local base. */
    if (rc == 0)
        rc = loader_u32(l, "attention.sliding_window", GGUF_OPTIONAL, 0, UINT32_MAX, &h->window, e);
    if (rc == 0)
        rc = rope_load(l, KN_ROPE_NEOX, &m->rope, e);
    if (rc == 0)
        rc = rope_load_local(l, &m->rope, "rope.freq_base_swa", 10000, &m->local_rope, e);
    if (rc == 0)
        rc = weights_load(l, m, WEIGHTS_QK_NORM | WEIGHTS_POST_NORM, e);
    return rc == 0 ? load_pattern(l, m, e) : rc;
}

static void forward(const struct model *m, struct pass *p)
{
    const struct hparams *h = &m->h;
    const struct pass_ops *op = p->ops;

    op->embed(p, &m->embed, sqrtf((float)h->n_embd));
    for (uint32_t i = 0; i < h->n_layers; i++) {
        const struct model_layer *y = &m->layers[i];
        const struct pass_attention attention = decoder_attention(m, y);
        const struct kn_matrix *const o[] = {&y->o};
        const struct kn_matrix *const gate_up[] = {&y->gate, &y->up};
        const struct kn_matrix *const down[] = {&y->down};

        op->norm(p, y->attn_norm, 0.0f, h->rms_eps);
        decoder_project_qkv(y, p);
        op->attend(p, i, &attention);
        op->project(p, o, 1, NULL);
        op->add_norm(p, y->attn_post, 0.0f, h->rms_eps);
        op->norm(p, y->ffn_norm, 0.0f, h->rms_eps);
        op->project(p, gate_up, 2, NULL);
        op->gate(p, PASS_GEGLU);
        op->project(p, down, 1, NULL);
        op->add_norm(p, y->ffn_post, 0.0f, h->rms_eps);
    }
    op->pool(p, m->out_norm, 0.0f, h->rms_eps);
    op->select(p);
    op->norm(p, m->out_norm, 0.0f, h->rms_eps);
    op->head(p, &m->head);
    if (h->logit_softcap > 0)
        op->softcap(p, h->logit_softcap);
}

const struct arch arch_gemma3 = {.name = "gemma3", .load = load, .forward = forward};
