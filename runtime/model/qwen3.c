/* qwen3.c: Qwen 3: as Qwen 2, with a norm of each head of q and k in place of the biases.
 * Yang et al., "Qwen3 technical report" (2025). */
#include "runtime/model/arch.h"
#include "runtime/model/decoder.h"
#include "runtime/model/hparams.h"
#include "runtime/model/rope.h"
#include "runtime/model/weights.h"

static int load(struct loader *l, struct model *m, struct err *e)
{
    int rc = hparams_load(l, &m->h, e);
    if (rc == 0)
        rc = hparams_refuse_window(l, &m->h, e);
    if (rc == 0)
        rc = rope_load(l, KN_ROPE_NEOX, &m->rope, e);
    if (rc == 0)
        rc = weights_load(l, m, WEIGHTS_QKV_BIAS | WEIGHTS_QK_NORM, e);
    return rc;
}

const struct arch arch_qwen3 = {.name = "qwen3", .load = load, .forward = decoder_forward};
