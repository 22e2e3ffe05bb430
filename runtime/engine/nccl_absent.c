/* nccl_absent.c: in place of collective_nccl.c, in programs that were built without NCCL. */
#include "runtime/engine/collective_nccl.h"

int collective_nccl_open(struct collective *control, cudaStream_t stream, size_t staging_bytes,
                         int (*watch)(void *arg, struct err *e), void *arg, struct collective **out,
                         struct err *e)
{
    (void)control;
    (void)stream;
    (void)staging_bytes;
    (void)watch;
    (void)arg;
    (void)out;
    return err_set(e, ERR_CONFIG,
                   "device=cuda: several ranks (tp) want NCCL, and this program was built without "
                   "it (make builds it with NCCL where nccl.h is)");
}
