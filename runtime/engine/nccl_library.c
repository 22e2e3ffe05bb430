/* nccl_library.c: NCCL, opened when ranks on GPUs ask for it, behind its own names: linked against
 * it, a worker would not start where it is not installed. In programs with CUDA alone. */
#include "kernels/simt/nccl_api.h"

#include <stdbool.h>

#include "runtime/base/check.h"
#include "runtime/base/library.h"

/* X(name): what kernels/simt/nccl_api.h has. */
#define CALLS(X)             \
    X(ncclBroadcast)         \
    X(ncclCommAbort)         \
    X(ncclCommDestroy)       \
    X(ncclCommGetAsyncError) \
    X(ncclCommInitRank)      \
    X(ncclGetErrorString)    \
    X(ncclGetUniqueId)       \
    X(ncclGroupEnd)          \
    X(ncclGroupStart)        \
    X(ncclRecv)              \
    X(ncclSend)

#define MEMBER(name) __typeof__(name) *name;
static struct {
    CALLS(MEMBER)
} calls;

const char *nccl_library(void)
{
#define ROW(name) {#name, &calls.name},
    static const struct library_call rows[] = {CALLS(ROW)};
    static bool open;
    const char *why = open ? NULL : library_open("libnccl.so.2", rows, ARRAY_LEN(rows));
    open = !why;
    return why;
}

const char *ncclGetErrorString(ncclResult_t r)
{
    return calls.ncclGetErrorString(r);
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    return calls.ncclGetUniqueId(id);
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank)
{
    return calls.ncclCommInitRank(comm, ranks, id, rank);
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    return calls.ncclCommDestroy(comm);
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    return calls.ncclCommAbort(comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    return calls.ncclCommGetAsyncError(comm, error);
}

/* These two are declared without a prototype there. */
ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);

ncclResult_t ncclGroupStart(void)
{
    return calls.ncclGroupStart();
}

ncclResult_t ncclGroupEnd(void)
{
    return calls.ncclGroupEnd();
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    return calls.ncclBroadcast(from, to, n, type, root, comm, stream);
}

ncclResult_t ncclSend(const void *from, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return calls.ncclSend(from, n, type, peer, comm, stream);
}

ncclResult_t ncclRecv(void *to, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream)
{
    return calls.ncclRecv(to, n, type, peer, comm, stream);
}
