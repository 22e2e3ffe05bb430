/* loader.h: how an architecture asks a checkpoint for its hyperparameters and weights.
 *
 * Asking for a matrix checks type and shape and notes it; the packing happens at the end, over all
 * matrices at once and on all threads (model.c). Asking for a vector makes it fp32 on the spot.
 * Keys and names are GGUF's, whatever the checkpoint is.
 *
 * Internal to runtime/model. Thread: the one that loads.
 */
#ifndef ARGOSY_MODEL_LOADER_H
#define ARGOSY_MODEL_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"
#include "runtime/format/checkpoint.h"
#include "runtime/model/model.h"

/* A matrix to be packed. */
struct loader_matrix {
    struct kn_matrix *dst;
    struct checkpoint_tensor src;
    uint64_t first; /* the row of src that is row 0 of dst */
    size_t offset;  /* of its packed form in the model's block */
};

struct loader {
    const struct checkpoint *file;
    const struct gguf *meta; /* its */
    struct model *model;
    const char *prefix;             /* "llama": of the metadata keys */
    struct loader_matrix *matrices; /* (n_matrices), model.c frees it */
    size_t n_matrices, room;        /* of matrices */
    size_t block_bytes;             /* of the matrices noted so far */
    bool *used;                     /* by index in the checkpoint: which tensors were asked for */
};

/* Metadata PREFIX.key, checked to lie in [min, max]. Optional ones leave *out as it was, and what
 * it was is checked too. */
int loader_u32(struct loader *l, const char *key, enum gguf_need need, uint32_t min, uint32_t max,
               uint32_t *out, struct err *e);
/* The same; also refuses what is not finite. */
int loader_f32(struct loader *l, const char *key, enum gguf_need need, float min, float max,
               float *out, struct err *e);

/* As gguf_str. */
int loader_str(struct loader *l, const char *key, enum gguf_need need, struct gguf_str *out,
               struct err *e);
/* Whether the file has PREFIX.key; whether it is an array; that array. */
bool loader_has_key(const struct loader *l, const char *key);
bool loader_is_array(const struct loader *l, const char *key);
int loader_array(struct loader *l, const char *key, struct gguf_array *out, struct err *e);

/* Whether the file has a tensor of that name. */
bool loader_has(const struct loader *l, const char *name);
/* Its rows (the second dimension), for what only a tensor's shape tells. */
int loader_rows(struct loader *l, const char *name, uint32_t max, uint32_t *rows, struct err *e);
/* The rows `part` of the tensor `name`, rows × cols, into *dst; it may be none. */
int loader_matrix(struct loader *l, const char *name, uint32_t rows, uint32_t cols,
                  struct shard_range part, struct kn_matrix *dst, struct err *e);
/* The tensor `name` as n such matrices, one behind another; *dst (n) is the model's arena's. */
int loader_matrices(struct loader *l, const char *name, uint32_t n, uint32_t rows, uint32_t cols,
                    struct shard_range part, struct kn_matrix **dst, struct err *e);
/* The tensor `name` of n elements as fp32 into dst (n). Values must be finite. */
int loader_values(struct loader *l, const char *name, uint32_t n, float *dst, struct err *e);
/* The same into the model's arena. */
int loader_vector(struct loader *l, const char *name, uint32_t n, const float **out, struct err *e);

#endif
