/* collective_nccl.h: the ranks' exchange between GPUs, by NCCL: struct collective over planes of
 * device memory.
 *
 * collective_gather queues on the stream and returns; collective_wait is where a step ends and
 * where a rank that is gone is noticed. The group fails as collective.h has it: rank 0 judges,
 * aborts the communicator, and the others' wait returns too.
 */
#ifndef ARGOSY_ENGINE_COLLECTIVE_NCCL_H
#define ARGOSY_ENGINE_COLLECTIVE_NCCL_H

#include "kernels/simt/cuda_api.h"
#include "runtime/engine/collective.h"

/* control: the same ranks over shared memory, by which they meet; it outlives this, as the stream
 * does. staging_bytes: device memory that this takes now; what is larger goes in several rounds. It
 * holds a row of each plane at least. watch: as collective_open's, asked by rank 0. Called by all
 * ranks together: returns when all have come, or ERR_PEER when control has failed. */
int collective_nccl_open(struct collective *control, cudaStream_t stream, size_t staging_bytes,
                         int (*watch)(void *arg, struct err *e), void *arg, struct collective **out,
                         struct err *e);

#endif
