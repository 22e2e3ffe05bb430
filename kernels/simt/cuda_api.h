/* cuda_api.h: the part of CUDA's runtime API that this project's host side calls. With ARGOSY_CUDA
 * it is CUDA's own; without, the same names over the emulator (runtime.c, stream.c), so that the
 * host side is tested without a GPU or CUDA. What is not declared here is not there to be linked.
 *
 * The emulated device: memory comes from simt_malloc and is hidden from the host; streams are
 * queues. Unless simt_options.eager_copies, nothing of a stream happens before somebody waits for
 * it, the host or another stream by an event, which has it happen up to there: both happen on
 * hardware. A copy from or to memory that is not cudaMallocHost's is finished
 * when the call returns, as CUDA may have it. A fault of a kernel is cudaErrorLaunchFailure at the
 * next call that can tell, and from then on of every one. One host thread at a time. */
#ifndef ARGOSY_KERNELS_SIMT_CUDA_API_H
#define ARGOSY_KERNELS_SIMT_CUDA_API_H

#ifdef ARGOSY_CUDA

#include <cuda_runtime_api.h>

#else

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Numbers and names are CUDA's. */
typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901
} cudaError_t;

typedef struct simt_stream *cudaStream_t;
typedef struct simt_event *cudaEvent_t;
typedef struct simt_graph *cudaGraph_t;
typedef struct simt_graph *cudaGraphExec_t;

enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3
};
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
#define cudaStreamNonBlocking 1u
#define cudaEventDisableTiming 2u

/* What is asked of it. */
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    int major, minor;
    int multiProcessorCount;
};

cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t e);

cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device);
cudaError_t cudaSetDevice(int device);

cudaError_t cudaMemGetInfo(size_t *left, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
/* Page-locked memory of the host. */
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaFreeHost(void *p);

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
/* cudaErrorNotReady while there is something to do. */
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s);

/* Only with cudaEventDisableTiming. An event outlives the waits for it that are queued. */
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
/* Behind all that s has so far. */
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t s);
/* What comes to s from now on waits for what the event was recorded behind last. */
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t event, unsigned flags);

cudaError_t cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);

#ifdef __cplusplus
}
#endif

#endif
#endif
