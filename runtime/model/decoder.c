#include "runtime/model/decoder.h"

#include "runtime/model/model.h"
#include "runtime/model/pass.h"

struct pass_attention decoder_attention(const struct model *m, const struct model_layer *y)
{
    const struct hparams *h = &m->h;
    return (struct pass_attention){
        .n_heads = (int)h->n_heads,
        .scale = h->attn_scale,
        .window = y->local ? h->window : 0,
        .softcap = h->attn_softcap,
        .rope = m->rope.kind,
        .local_rope = y->local && m->local_rope.inv_freq,
        .q_norm = y->q_norm,
        .k_norm = y->k_norm,
        .norm_eps = h->rms_eps,
    };
}

void decoder_project_qkv(const struct model_layer *y, struct pass *p)
{
    const struct kn_matrix *const apart[] = {&y->q, &y->k, &y->v};
    const struct kn_matrix *const fused[] = {&y->qkv};
    if (y->qkv.data)
        p->ops->project(p, fused, 1, y->qkv_bias);
    else
        p->ops->project(p, apart, 3, y->qkv_bias);
}

static void feed_forward(const struct model_layer *y, struct pass *p)
{
    const struct kn_matrix *const apart[] = {&y->gate, &y->up};
    const struct kn_matrix *const fused[] = {&y->up};
    if (y->gate.data)
        p->ops->project(p, apart, 2, NULL);
    else
        p->ops->project(p, fused, 1, NULL);
    p->ops->gate(p, PASS_SWIGLU);
    p->ops->project_add(p, &y->down);
}

static void experts(const struct model_layer *y, struct pass *p)
{
    const struct kn_matrix *const router[] = {&y->router};
    const struct kn_matrix *const gate_up[] = {y->gate_exps, y->up_exps};
    p->ops->project(p, router, 1, NULL);
    p->ops->route(p);
    p->ops->project_experts(p, gate_up, 2);
    p->ops->gate(p, PASS_SWIGLU);
    p->ops->combine_experts(p, y->down_exps);
}

void decoder_forward(const struct model *m, struct pass *p)
{
    const struct hparams *h = &m->h;
    const struct pass_ops *op = p->ops;

    op->embed(p, &m->embed, 1.0f);
    for (uint32_t i = 0; i < h->n_layers; i++) {
        const struct model_layer *y = &m->layers[i];
        const struct pass_attention attention = decoder_attention(m, y);

        op->norm(p, y->attn_norm, 0.0f, h->rms_eps);
        decoder_project_qkv(y, p);
        op->attend(p, i, &attention);
        op->project_add(p, &y->o);
        op->norm(p, y->ffn_norm, 0.0f, h->rms_eps);
        if (h->n_experts > 0)
            experts(y, p);
        else
            feed_forward(y, p);
    }
    op->pool(p, m->out_norm, 0.0f, h->rms_eps);
    op->select(p);
    op->norm(p, m->out_norm, 0.0f, h->rms_eps);
    op->head(p, &m->head);
}
