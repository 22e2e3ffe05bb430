/* llama.c: the Llama architecture: Llama 2 and 3, SmolLM2, Mistral, Mixtral and others that share
 * its GGUF name.
 *
 * Touvron et al., "LLaMA" (2023): pre-norm RMS, rotary positions on neighbouring pairs (the GGUF
 * permutation of q and k), grouped-query attention, SwiGLU. Llama 3's scaling of the rotation comes
 * as a tensor of factors. Mistral's window (Jiang et al., 2023) is of every layer; Mixtral's
 * experts (2024) are chosen by the softmax of the chosen ones.
 */
#include "runtime/model/arch.h"
#include "runtime/model/decoder.h"
#include "runtime/model/hparams.h"
#include "runtime/model/rope.h"
#include "runtime/model/weights.h"

static int load(struct loader *l, struct model *m, struct err *e)
{
    uint32_t experts = 0;
    int rc = hparams_load(l, &m->h, e);
    if (rc == 0)
        rc = hparams_load_window(l, &m->h, e);
    if (rc == 0)
        rc = loader_u32(l, "expert_count", GGUF_OPTIONAL, 0, MODEL_EXPERTS_MAX, &experts, e);
    if (rc == 0 && experts > 0)
        rc = hparams_load_experts(l, &m->h, e);
    if (rc == 0)
        rc = rope_load(l, KN_ROPE_NORM, &m->rope, e);
    if (rc == 0)
        rc = weights_load(l, m, WEIGHTS_QKV_BIAS, e);
    for (uint32_t i = 0; rc == 0 && i < m->h.n_layers; i++)
        m->layers[i].local = m->h.window > 0;
    return rc;
}

const struct arch arch_llama = {.name = "llama", .load = load, .forward = decoder_forward};
