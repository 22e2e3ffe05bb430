/* weights.h: the tensors that architectures share, by their names in GGUF.
 *
 * Internal to runtime/model. Thread: the one that loads.
 */
#ifndef ARGOSY_MODEL_WEIGHTS_H
#define ARGOSY_MODEL_WEIGHTS_H

#include "runtime/base/err.h"
#include "runtime/model/loader.h"
#include "runtime/model/model.h"

/* What a layer has beyond the plain one. Experts are there when h.n_experts says so. */
enum weights_part {
    WEIGHTS_QKV_BIAS = 1, /* all three or none, as the file has it */
    WEIGHTS_QK_NORM = 2,
    WEIGHTS_POST_NORM = 4,
    WEIGHTS_FUSED = 8, /* q, k and v are one matrix, and so are gate and up */
};

/* The embedding's rows as h.vocab, all layers (zeroed but for their weights), output norm and head.
 * `parts`: weights_part bits. */
int weights_load(struct loader *l, struct model *m, int parts, struct err *e);

#endif
