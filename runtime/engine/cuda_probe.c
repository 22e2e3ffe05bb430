/* cuda_probe.c: what GPU there is, and whether it will do. */
#include <stdio.h>

#include "kernels/simt/cuda_api.h"
#include "runtime/engine/backend_cuda.h"

static int no_driver(struct err *e)
{
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        return err_set(e, ERR_CONFIG, "device=cuda: NVIDIA's driver is not installed here");
    return err_set(e, ERR_CONFIG,
                   "device=cuda: NVIDIA's driver is too old: it serves CUDA %d.%d, this program "
                   "wants %d.%d",
                   driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
}

#ifdef ARGOSY_CUDA
static bool used;

void cuda_use(void)
{
    used = true;
}

bool cuda_forks(void)
{
    return !used;
}
#else
/* The emulated device can be forked at any time. */
void cuda_use(void)
{
}

bool cuda_forks(void)
{
    return true;
}
#endif

int cuda_probe(int index, struct gpu *out, struct err *e)
{
    struct cudaDeviceProp p;
    int n = 0;
    cudaError_t rc = cudaGetDeviceCount(&n);
    if (rc == cudaErrorInsufficientDriver)
        return no_driver(e);
    if (rc == cudaErrorNoDevice || (rc == cudaSuccess && n == 0))
        return err_set(e, ERR_CONFIG, "device=cuda: there is no GPU on this machine");
    if (rc == cudaSuccess && index >= n)
        return err_set(e, ERR_CONFIG, "device=cuda:%d: this machine has %d GPU%s, from cuda:0 on",
                       index, n, n == 1 ? "" : "s");
    if (rc == cudaSuccess)
        rc = cudaGetDeviceProperties(&p, index);
    if (rc != cudaSuccess)
        return err_set(e, ERR_CONFIG, "device=cuda:%d: %s", index, cudaGetErrorString(rc));
    if (p.major < GPU_MAJOR_MIN)
        return err_set(e, ERR_CONFIG,
                       "device=cuda:%d: %.100s is too old: it has compute capability %d.%d, wanted "
                       "at least %d.0 (A100)",
                       index, p.name, p.major, p.minor, GPU_MAJOR_MIN);
    *out = (struct gpu){
        .index = index, .major = p.major, .minor = p.minor, .memory_bytes = p.totalGlobalMem};
    snprintf(out->name, sizeof(out->name), "%.127s", p.name);
    return 0;
}
