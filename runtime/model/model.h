/* model.h: a transformer's weights in memory, as a checkpoint says them.
 *
 * The file is not trusted: every hyperparameter has bounds, every tensor is checked against them,
 * and a tensor that the architecture does not know is an error, because leaving it out would change
 * the tokens. Nothing is allocated before its size was checked against the file.
 *
 * Memory: the matrices lie in one block, packed for one instruction set, in the order in which a
 * pass reads them; the source pages are given back while packing. Vectors are fp32 in an arena.
 *
 * Thread: immutable after model_load, any number of threads may read.
 */
#ifndef ARGOSY_MODEL_MODEL_H
#define ARGOSY_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/model/shard.h"

struct arch;
struct checkpoint;
struct threads;

/* Bounds of what a file may say; real models stay well inside. */
#define MODEL_LAYERS_MAX 1024u
#define MODEL_WIDTH_MAX (1u << 16) /* n_embd, and heads * head_dim */
#define MODEL_FF_MAX (1u << 20)
#define MODEL_HEADS_MAX 1024u
#define MODEL_HEAD_DIM_MAX 256u
#define MODEL_VOCAB_MAX (1u << 22)
#define MODEL_CONTEXT_MAX (1u << 24)
#define MODEL_EXPERTS_MAX 1024u
#define MODEL_EXPERTS_USED_MAX 64u

struct hparams {
    uint32_t n_layers;
    uint32_t n_embd;
    uint32_t n_ff; /* of each expert where there are experts */
    uint32_t n_heads;
    uint32_t n_kv_heads; /* divides n_heads */
    uint32_t head_dim;
    uint32_t vocab;   /* rows of the embedding: ids are below it */
    uint32_t context; /* tokens it was trained for */
    float rms_eps;
    uint32_t n_experts;      /* 0: none */
    uint32_t n_experts_used; /* by a row */
    uint32_t window;         /* of the layers that have one; 0: no layer has */
    float attn_scale;        /* of q·k */
    float attn_softcap;      /* 0: none */
    float logit_softcap;     /* 0: none */
};

/* How positions are rotated. inv_freq is scaled as the model says. */
struct model_rope {
    enum kn_rope kind;
    uint32_t dim;     /* rotated elements of a head, even */
    double *inv_freq; /* (dim / 2) */
    double magnitude; /* of the rotated pairs; 1 unless a scaling says otherwise */
};

/* What an architecture does not have is NULL, or a matrix with data NULL. Shapes are those of the
 * whole model; a rank of several holds the rows that model.shard names (shard.h), the qkv bias cut
 * to its heads, and has no fused matrices. */
struct model_layer {
    const float *attn_norm; /* (n_embd) */
    struct kn_matrix qkv;   /* the next three as one */
    struct kn_matrix q;     /* (n_heads * head_dim, n_embd) */
    struct kn_matrix k;     /* (n_kv_heads * head_dim, n_embd) */
    struct kn_matrix v;     /* (n_kv_heads * head_dim, n_embd) */
    const float *qkv_bias;  /* ((n_heads + 2 * n_kv_heads) * head_dim): q, k, v */
    const float *q_norm;    /* (head_dim) */
    const float *k_norm;    /* (head_dim) */
    struct kn_matrix o;     /* (n_embd, n_heads * head_dim) */
    const float *attn_post; /* (n_embd): norm of what attention adds to the residual stream */
    const float *ffn_norm;  /* (n_embd) */
    struct kn_matrix gate;  /* (n_ff, n_embd) */
    struct kn_matrix up;    /* (n_ff, n_embd); (2 n_ff, n_embd), gate first, where gate is none */
    struct kn_matrix down;  /* (n_embd, n_ff) */
    const float *ffn_post;  /* (n_embd): as attn_post */
    /* Experts, in place of gate, up and down. */
    struct kn_matrix router;                           /* (n_experts, n_embd) */
    struct kn_matrix *gate_exps, *up_exps, *down_exps; /* (n_experts), each as above */
    bool local; /* sees h.window positions alone, and turns by local_rope if there is one */
};

struct model {
    const struct arch *arch;
    struct hparams h;
    enum kn_isa isa;
    struct shard shard;
    char manifest_sha256[65]; /* empty but on rank 0 */
    struct model_rope rope;
    struct model_rope local_rope; /* inv_freq NULL: local layers turn as the others */
    struct kn_matrix embed;       /* (vocab, n_embd) */
    struct kn_matrix head;        /* (vocab, n_embd); the embedding's data when they are tied */
    const float *out_norm;        /* (n_embd) */
    struct model_layer *layers;
    bool has_float_matrix; /* some matrix of a pass reads activations that are not quantised */
    uint64_t weight_bytes; /* packed matrices and vectors */
    void *block;           /* the packed matrices */
    size_t block_bytes;
    struct arena arena; /* layers and vectors */
};

/* Packs the weights of c for `isa` (available here) with all of `threads`. c may be closed after.
 * ERR_UNSUPPORTED names an architecture, type or option that is not served; ERR_FORMAT and
 * ERR_RANGE say what in the file is wrong. m is released on failure. */
int model_load(struct model *m, const struct checkpoint *c, enum kn_isa isa,
               struct threads *threads, struct err *e);
/* The part of `rank` of `ranks` (shard.h) alone. */
int model_load_rank(struct model *m, const struct checkpoint *c, enum kn_isa isa, uint32_t rank,
                    uint32_t ranks, struct threads *threads, struct err *e);
/* What model_load would make of c, without its weights and its manifest: the rest, and how many
 * bytes the weights will take. The caller releases m. */
int model_measure(struct model *m, const struct checkpoint *c, enum kn_isa isa, struct err *e);
/* Once a device has the matrices: gives their memory back. Their addresses stay what they were, for
 * who knows them by these; nothing may read there. */
void model_forget_matrices(struct model *m);
void model_release(struct model *m);

#endif
