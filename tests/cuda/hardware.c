/* hardware.c: kernels/simt/simt.h over a real GPU, so that the tests of the kernels run on one as
 * they are: `make gpu-check` links this in place of the emulator.
 *
 * A fault of a kernel shows at the next copy. What only an emulator can tell (races, counts) is not
 * there: simt_has_shadow() is false. CUDA's device 0 is the one. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/simt/simt.h"

static struct simt_options options;
static struct simt_stats stats;
static char fault[256];

void simt_set(const struct simt_options *o)
{
    options = *o;
}

/* Whether it went well; says what did not. */
static bool is_done(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return true;
    snprintf(fault, sizeof(fault), "%s: %s", what, cudaGetErrorString(e));
    return false;
}

/* A test cannot go on without. */
static void must(cudaError_t e, const char *what)
{
    if (is_done(e, what))
        return;
    fprintf(stderr, "%s\n", fault);
    exit(1);
}

void *simt_malloc(size_t bytes, const char *name)
{
    void *p;

    must(cudaMalloc(&p, bytes ? bytes : 1), name);
    /* Floats of this are NaN, or tiny and negative: nothing that a sum hides. */
    must(cudaMemset(p, options.seed % 2 ? 0xff : 0x80, bytes), name);
    return p;
}

void simt_free(void *p)
{
    must(cudaFree(p), "cudaFree");
}

void simt_upload(void *device, const void *host, size_t bytes)
{
    must(cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice), "copy to the device");
}

bool simt_download(void *host, const void *device, size_t bytes)
{
    return is_done(cudaDeviceSynchronize(), "kernel") &&
           is_done(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "copy to the host");
}

const char *simt_fault(void)
{
    return fault[0] ? fault : cudaGetErrorString(cudaGetLastError());
}

int simt_sm(void)
{
    struct cudaDeviceProp p;

    must(cudaGetDeviceProperties(&p, 0), "properties of the device");
    return 10 * p.major + p.minor;
}

bool simt_has_shadow(void)
{
    return false;
}

const struct simt_stats *simt_last_stats(void)
{
    return &stats;
}
