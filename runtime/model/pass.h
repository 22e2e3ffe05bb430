/* pass.h: what an architecture sees of the device that computes it.
 *
 * A pass takes a batch of rows (tokens at positions of sequences) through the model. The
 * architecture (llama.c and its like) writes it down as straight-line calls on struct pass_ops,
 * once for all backends (runtime/engine/backend.h). Between the calls the backend keeps a few
 * registers, so that it may fuse as it likes:
 *
 *     x    (rows, n_embd)  the residual stream, fp32
 *     act  (rows, any)     input of the next matrices, quantised
 *     y    (rows, wide)    output of the last `project`: q|k|v, gate|up, or what `add_norm` takes
 *
 * Between `route` and `combine_experts`, act and y have a row for each of a row's experts.
 *
 * A backend may run `forward` in many threads side by side, so `forward` makes the same calls in
 * each and writes to nothing.
 */
#ifndef ARGOSY_MODEL_PASS_H
#define ARGOSY_MODEL_PASS_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/kernels.h"

struct pass;

enum pass_gate { PASS_SWIGLU, PASS_GEGLU };

/* One layer's attention. */
struct pass_attention {
    int n_heads;
    float scale;
    uint32_t window; /* 0: the whole context */
    float softcap;   /* 0: none */
    enum kn_rope rope;
    bool local_rope; /* by the model's local_rope */
    /* (head_dim): rmsnorm of each head of q and of k before they turn. NULL: none. */
    const float *q_norm, *k_norm;
    float norm_eps;
};

/* Weights and biases are the model's and outlive the pass. */
struct pass_ops {
    /* x = scale * rows of w at the batch's ids */
    void (*embed)(struct pass *p, const struct kn_matrix *w, float scale);
    /* act = rmsnorm(x) */
    void (*norm)(struct pass *p, const float *w, float w_offset, float eps);
    /* y = [w[0] act | w[1] act | …] + bias (their rows in all, or NULL) */
    void (*project)(struct pass *p, const struct kn_matrix *const *w, int n, const float *bias);
    /* rotates q and k of y, stores k and v in the layer's pages; act = attention */
    void (*attend)(struct pass *p, uint32_t layer, const struct pass_attention *a);
    /* act = silu(y.gate) * y.up, or gelu */
    void (*gate)(struct pass *p, enum pass_gate kind);
    /* x += w act */
    void (*project_add)(struct pass *p, const struct kn_matrix *w);
    /* x += rmsnorm(y), y being a `project` to n_embd */
    void (*add_norm)(struct pass *p, const float *w, float w_offset, float eps);

    /* Mixtures of experts. y is the router's logits: picks h.n_experts_used of h.n_experts for each
     * row; act = the rows of act, one for each of them */
    void (*route)(struct pass *p);
    /* y = [w[0][e] act | w[1][e] act | …] of the row's expert e; each w[i] (h.n_experts) */
    void (*project_experts)(struct pass *p, const struct kn_matrix *const *w, int n);
    /* x += weighted sum of w[e] act over the row's experts, ids ascending */
    void (*combine_experts)(struct pass *p, const struct kn_matrix *w);

    /* Adds up rows of rmsnorm(x) for the requests that want an embedding. */
    void (*pool)(struct pass *p, const float *w, float w_offset, float eps);
    /* Keeps the rows of x whose logits are wanted, for norm and head; the rest is finished. */
    void (*select)(struct pass *p);
    /* logits = w act */
    void (*head)(struct pass *p, const struct kn_matrix *w);
    /* logits = cap * tanh(logits / cap), behind head */
    void (*softcap)(struct pass *p, float cap);
};

/* A backend's own pass begins with this. */
struct pass {
    const struct pass_ops *ops;
};

#endif
