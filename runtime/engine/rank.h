/* rank.h: what a rank behind rank 0 does, and how rank 0 tells it to.
 *
 *     rank 0                                          the others
 *     ranks_start ──────────fork────────────────────► rank_serve
 *     model_load_rank                                 model_load_rank
 *     collective_agree ◄────────────────────────────► collective_agree
 *     rank_send_limits ─────────────────────────────► backend_cpu_create, or _cuda_
 *     collective_agree ◄────────────────────────────► collective_agree
 *     each step: rank_send_batch ───────────────────► reads it
 *     backend_run ◄──exchanges of every operation───► backend_run
 *
 * Rank 0 alone has the scheduler, the tokenizer and the sampler: what a batch is to the others is
 * ids, spans with their pages, and the rows whose logits are wanted.
 *
 * Thread: the one that owns the engine; rank_serve: the only one of its process.
 */
#ifndef ARGOSY_ENGINE_RANK_H
#define ARGOSY_ENGINE_RANK_H

#include "kernels/kernels.h"
#include "runtime/base/buf.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/collective.h"
#include "runtime/engine/gpu.h"

struct checkpoint;

struct rank_setup {
    struct checkpoint *file; /* open before the fork; each process closes its own */
    enum kn_isa isa;
    uint32_t threads; /* of each rank */
    struct gpu gpu;   /* rank 0's: the others have those behind it. Or the CPU */
};

/* For ranks_start, with a struct rank_setup: returns when the group has failed or never came up. */
void rank_serve(struct collective *c, void *setup);

int rank_send_limits(struct collective *c, const struct backend_limits *limits, struct err *e);

/* `scratch` is the caller's, kept from one batch to the next. */
int rank_send_batch(struct collective *c, const struct batch *batch, struct buf *scratch,
                    struct err *e);

#endif
