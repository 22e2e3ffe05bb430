/* adapter.h: a LoRA adapter's matrices beside a model's, W + scale * B A, never merged with them:
 * rows of several adapters and of none are computed in one batch (kernels/NUMERICS.md, "LoRA").
 *
 * Hu et al., "LoRA: Low-rank adaptation of large language models" (2021).
 *
 * Which matrices it has is told by its tensors, named as PEFT does:
 *     base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight    (rank, columns of W)
 *     base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight    (rows of W, rank)
 * Every tensor is used or refused by name. B's rows go where W's are: a model that has the pairs of
 * a head of q and k side by side (GGUF's Llama) gets them so.
 *
 * Memory: one block, packed for the model's instruction set, in the file's own types. Thread:
 * immutable after adapter_load, any number of threads may read.
 */
#ifndef ARGOSY_MODEL_ADAPTER_H
#define ARGOSY_MODEL_ADAPTER_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "runtime/base/err.h"

struct model;

#define ADAPTER_NAME_BYTES 256
#define ADAPTER_PLACES 8 /* matrices of a layer that may have one */

struct adapter_matrix {
    struct kn_matrix a; /* (rank, columns of W) */
    struct kn_matrix b; /* (rows of W, rank) */
};

struct adapter {
    char name[ADAPTER_NAME_BYTES];
    char sha256[65]; /* runtime/format/peft.h */
    uint32_t rank;
    float scale;
    uint32_t n_matrices;
    struct adapter_matrix *matrices; /* (n_layers, ADAPTER_PLACES); data NULL: none there */
    void *block;
    size_t block_bytes;
};

/* The folder `path` for m, which holds all of its model's rows. *out is released on failure. */
int adapter_load(const struct model *m, const char *name, const char *path, struct adapter *out,
                 struct err *e);
void adapter_release(struct adapter *a);

/* What a adds to w, a matrix of m's layers; NULL: nothing. */
const struct adapter_matrix *adapter_find(const struct adapter *a, const struct model *m,
                                          const struct kn_matrix *w);

#endif
