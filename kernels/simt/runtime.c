/* runtime.c: the emulated machine: its device, memory, errors. The other half of cuda_api.h is in
 * stream.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/simt/cublaslt_api.h"
#include "kernels/simt/cuda_api.h"
#include "kernels/simt/internal.h"

#define VERSION 13000 /* of the runtime that this stands for */

static struct simt_machine machine = {
    .devices = 1, .major = 8, .minor = 0, .driver = VERSION, .memory = (size_t)80 << 30};
static size_t taken;      /* bytes of the device's memory */
static unsigned n_malloc; /* calls so far */
static bool failed;       /* a kernel's fault: nothing works any more */
static cudaError_t last;

struct block {
    struct block *next;
    void *p;
    size_t bytes;
};
static struct block *on_device, *pinned;

void simt_machine_set(const struct simt_machine *m)
{
    machine = *m;
    n_malloc = 0;
    failed = false;
    last = cudaSuccess;
}

int simt_sm(void)
{
    return simt_options.sm != 0 ? simt_options.sm : 10 * machine.major + machine.minor;
}

size_t simt_machine_taken(void)
{
    return taken;
}

const char *cublaslt_library(void)
{
    return machine.lacks_cublaslt ? "libcublasLt.so.13: there is no such file" : NULL;
}

/* ---- errors ---------------------------------------------------------------------------------- */

void simt_runtime_fail(void)
{
    failed = true;
}

bool simt_runtime_failed(void)
{
    return failed;
}

cudaError_t simt_runtime_result(cudaError_t e)
{
    if (failed) {
        e = cudaErrorLaunchFailure;
    }
    if (e != cudaSuccess && e != cudaErrorNotReady) { /* which is no error */
        last = e;
    }
    return e;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last;

    if (!failed) {
        last = cudaSuccess;
    }
    return e;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidConfiguration:
        return "invalid configuration argument";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
        return "invalid resource handle";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorLaunchFailure:
        return simt_faulted() ? simt_fault() : "unspecified launch failure";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
        return "operation failed due to a previous error during capture";
    }
    return "unrecognized error code";
}

/* ---- the device ------------------------------------------------------------------------------ */

static cudaError_t usable(void)
{
    return machine.driver < VERSION ? cudaErrorInsufficientDriver
           : machine.devices == 0   ? cudaErrorNoDevice
                                    : cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = machine.driver;
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = VERSION;
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = usable() == cudaSuccess ? machine.devices : 0;
    return simt_runtime_result(usable());
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device)
{
    if (device < 0 || device >= machine.devices) {
        return simt_runtime_result(cudaErrorInvalidDevice);
    }
    *p = (struct cudaDeviceProp){.name = "emulated GPU",
                                 .totalGlobalMem = machine.memory,
                                 .major = machine.major,
                                 .minor = machine.minor,
                                 .multiProcessorCount = 108};
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaSetDevice(int device)
{
    if (usable() != cudaSuccess) {
        return simt_runtime_result(usable());
    }
    return simt_runtime_result(device < 0 || device >= machine.devices ? cudaErrorInvalidDevice
                                                                       : cudaSuccess);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void note(struct block **list, void *p, size_t bytes)
{
    struct block *b = malloc(sizeof *b);

    if (b == NULL) {
        perror("simt: no memory");
        abort();
    }
    *b = (struct block){*list, p, bytes};
    *list = b;
}

/* Its bytes; false when it is not on the list. */
static bool forget(struct block **list, const void *p, size_t *bytes)
{
    for (struct block **at = list; *at != NULL; at = &(*at)->next) {
        struct block *b = *at;
        if (b->p == p) {
            *bytes = b->bytes;
            *at = b->next;
            free(b);
            return true;
        }
    }
    return false;
}

static bool is_in(const struct block *list, const void *p, size_t bytes)
{
    for (const struct block *b = list; b != NULL; b = b->next) {
        uintptr_t at = (uintptr_t)p - (uintptr_t)b->p;
        if ((uintptr_t)p >= (uintptr_t)b->p && at <= b->bytes && bytes <= b->bytes - at) {
            return true;
        }
    }
    return false;
}

bool simt_on_device(const void *p, size_t bytes)
{
    return is_in(on_device, p, bytes);
}

bool simt_pinned(const void *p, size_t bytes)
{
    return is_in(pinned, p, bytes);
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total)
{
    *total = machine.memory;
    *left = machine.memory > taken ? machine.memory - taken : 0;
    return simt_runtime_result(usable());
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    if (simt_stream_refuses()) {
        return simt_runtime_result(cudaErrorStreamCaptureUnsupported);
    }
    if (usable() != cudaSuccess) {
        return simt_runtime_result(usable());
    }
    if (++n_malloc == machine.fail_malloc || taken + bytes > machine.memory) {
        return simt_runtime_result(cudaErrorMemoryAllocation);
    }
    *p = simt_malloc(bytes, "cudaMalloc");
    simt_hide(*p);
    note(&on_device, *p, bytes);
    taken += bytes;
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaFree(void *p)
{
    size_t bytes;

    if (p == NULL) {
        return simt_runtime_result(cudaSuccess);
    }
    if (!forget(&on_device, p, &bytes)) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    taken -= bytes;
    simt_free(p);
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaMallocHost(void **p, size_t bytes)
{
    if (usable() != cudaSuccess) {
        return simt_runtime_result(usable());
    }
    if (++n_malloc == machine.fail_malloc) {
        return simt_runtime_result(cudaErrorMemoryAllocation);
    }
    if (posix_memalign(p, 4096, bytes != 0 ? bytes : 1) != 0) {
        return simt_runtime_result(cudaErrorMemoryAllocation);
    }
    note(&pinned, *p, bytes);
    return simt_runtime_result(cudaSuccess);
}

cudaError_t cudaFreeHost(void *p)
{
    size_t bytes;

    if (p == NULL) {
        return simt_runtime_result(cudaSuccess);
    }
    if (!forget(&pinned, p, &bytes)) {
        return simt_runtime_result(cudaErrorInvalidValue);
    }
    free(p);
    return simt_runtime_result(cudaSuccess);
}
