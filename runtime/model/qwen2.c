/* qwen2.c: Qwen 2 and 2.5: Llama's pass with biases on q, k and v, and rotation of pairs half a
 * head apart. Yang et al., "Qwen2 technical report" (2024). */
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
        rc = weights_load(l, m, WEIGHTS_QKV_BIAS, e);
    return rc;
}

const struct arch arch_qwen2 = {.name = "qwen2", .load = load, .forward = decoder_forward};
