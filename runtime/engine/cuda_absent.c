/* cuda_absent.c: in place of the CUDA side, in programs that were built without nvcc. */
#include "runtime/base/check.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/gpu.h"

int cuda_probe(int index, struct gpu *out, struct err *e)
{
    (void)index;
    (void)out;
    return err_set(e, ERR_CONFIG,
                   "device=cuda: this program was built without CUDA and has the CPU alone (make "
                   "builds it with CUDA where nvcc is)");
}

bool cuda_forks(void)
{
    return true;
}

int backend_cuda_create(const struct model *m, const struct gpu *gpu, const struct gpu_group *group,
                        const struct backend_limits *limits, struct backend **out, struct err *e)
{
    (void)m;
    (void)group;
    (void)gpu;
    (void)limits;
    (void)out;
    return err_set(e, ERR_CONFIG, "this program was built without CUDA");
}
