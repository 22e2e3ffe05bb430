/* phi3.c: Phi-3 and Phi-4: Llama's pass with q, k and v in one matrix and gate and up in another,
 * rotation of pairs half a head apart (of a part of the head in Phi-4-mini), long contexts by
 * factors of the frequencies (rope.h), and a window of every layer where the file says so.
 * Abdin et al., "Phi-3 technical report" (2024). */
#include "runtime/model/arch.h"
#include "runtime/model/decoder.h"
#include "runtime/model/hparams.h"
#include "runtime/model/rope.h"
#include "runtime/model/weights.h"

static int load(struct loader *l, struct model *m, struct err *e)
{
    int rc = hparams_load(l, &m->h, e);
    if (rc == 0)
        rc = hparams_load_window(l, &m->h, e);
    if (rc == 0)
        rc = rope_load(l, KN_ROPE_NEOX, &m->rope, e);
    if (rc == 0)
        rc = weights_load(l, m, WEIGHTS_FUSED, e);
    for (uint32_t i = 0; rc == 0 && i < m->h.n_layers; i++)
        m->layers[i].local = m->h.window > 0;
    return rc;
}

const struct arch arch_phi3 = {.name = "phi3", .load = load, .forward = decoder_forward};
