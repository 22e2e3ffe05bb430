/* hparams.h: the hyperparameters that architectures share, read from a file and held to bounds.
 *
 * Internal to runtime/model. Thread: the one that loads.
 */
#ifndef ARGOSY_MODEL_HPARAMS_H
#define ARGOSY_MODEL_HPARAMS_H

#include "runtime/base/err.h"
#include "runtime/model/loader.h"
#include "runtime/model/model.h"

/* Layers, widths, heads, context and epsilon; attn_scale becomes 1 / sqrt(head_dim). */
int hparams_load(struct loader *l, struct hparams *h, struct err *e);

/* h->window; 0 when the file has none, or one that reaches over the whole context. */
int hparams_load_window(struct loader *l, struct hparams *h, struct err *e);
/* For architectures whose layers all see everything: refuses a file that says otherwise. */
int hparams_refuse_window(struct loader *l, const struct hparams *h, struct err *e);

/* n_experts and n_experts_used; n_ff where the file has a width for experts. Refuses what is known
 * of other mixtures: experts that all rows share, other gates and scales. */
int hparams_load_experts(struct loader *l, struct hparams *h, struct err *e);

#endif
