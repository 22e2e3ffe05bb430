/* nccl_api.h: the part of NCCL that this project calls. With ARGOSY_CUDA it is NCCL's own; without,
 * the same names over the emulator (nccl.c): ranks are processes of one machine that share memory.
 *
 * Operations are queued on a stream and done when somebody waits for it or asks it, as far as the
 * other ranks have come. A communicator that is aborted leaves its operations undone, here and, in
 * time, for its peers, who see ncclRemoteError; a rank that dies leaves them unfinished for ever,
 * as NCCL's may. */
#ifndef ARGOSY_KERNELS_SIMT_NCCL_API_H
#define ARGOSY_KERNELS_SIMT_NCCL_API_H

#include "kernels/simt/cuda_api.h"

#ifdef ARGOSY_CUDA

#include <nccl.h>

#else

#ifdef __cplusplus
extern "C" {
#endif

/* Numbers and names are NCCL's. */
typedef enum {
    ncclSuccess = 0,
    ncclUnhandledCudaError = 1,
    ncclSystemError = 2,
    ncclInvalidArgument = 4,
    ncclInvalidUsage = 5,
    ncclRemoteError = 6
} ncclResult_t;
typedef enum { ncclChar = 0 } ncclDataType_t;
typedef struct {
    char internal[128];
} ncclUniqueId;
typedef struct simt_comm *ncclComm_t;

const char *ncclGetErrorString(ncclResult_t r);
ncclResult_t ncclGetUniqueId(ncclUniqueId *id);
/* Returns when all ranks have come. */
ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank);
ncclResult_t ncclCommDestroy(ncclComm_t comm);
ncclResult_t ncclCommAbort(ncclComm_t comm);
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error);

ncclResult_t ncclGroupStart(void);
ncclResult_t ncclGroupEnd(void);
ncclResult_t ncclBroadcast(const void *from, void *to, size_t n, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream);
ncclResult_t ncclSend(const void *from, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);
ncclResult_t ncclRecv(void *to, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
#ifdef __cplusplus
extern "C" {
#endif
/* The worker opens NVIDIA's library at the first use (runtime/engine/nccl_library.c): NULL once it
 * is there, else why it is not, and then no call of it may be made. */
const char *nccl_library(void);
#ifdef __cplusplus
}
#endif

#endif
