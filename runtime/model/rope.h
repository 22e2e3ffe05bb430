/* rope.h: how a file says that positions turn.
 *
 * Served: a base; scaling none, linear, yarn; factors a frequency, in one tensor (Llama 3) or in
 * two of which the context picks one (longrope). All in own double arithmetic
 * (kernels/NUMERICS.md).
 *
 * longrope has short and long factors. Which it is must not depend on the request (the KV of a
 * prefix is shared) nor on the machine: a file whose context is longer than the one it was trained
 * for first takes the long ones, always.
 *
 * Internal to runtime/model. Thread: the one that loads.
 */
#ifndef ARGOSY_MODEL_ROPE_H
#define ARGOSY_MODEL_ROPE_H

#include "runtime/base/err.h"
#include "runtime/model/loader.h"
#include "runtime/model/model.h"

/* Into *r, whose inv_freq is the model's arena's. */
int rope_load(struct loader *l, enum kn_rope kind, struct model_rope *r, struct err *e);
/* An unscaled one as wide as `like`, of the base at `key` or, without it, of `base`. */
int rope_load_local(struct loader *l, const struct model_rope *like, const char *key, float base,
                    struct model_rope *r, struct err *e);

#endif
