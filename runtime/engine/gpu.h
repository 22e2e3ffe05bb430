/* gpu.h: which device computes: the CPU, or a GPU by CUDA.
 *
 * A program without CUDA (cuda_absent.c) has the CPU alone, and says so to who asks for a GPU.
 * Any thread, one at a time.
 */
#ifndef ARGOSY_ENGINE_GPU_H
#define ARGOSY_ENGINE_GPU_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define GPU_CPU (-1)
/* Compute capability: the kernels are for sm_80 and what came after. */
#define GPU_MAJOR_MIN 8

struct gpu {
    int index; /* GPU_CPU: none */
    char name[128];
    int major, minor;
    uint64_t memory_bytes;
};

static inline bool gpu_computes(const struct gpu *g)
{
    return g->index != GPU_CPU;
}

/* What `device` says, for `ranks` (0 is 1) GPUs that follow one another, of which *out is the
 * first, with the memory of the smallest: "cpu"; "cuda" or "cuda:N", a GPU; "auto" or NULL: GPU 0
 * on where they are there and can be used, else the CPU. ERR_CONFIG: why a GPU that was asked for
 * can't be used. CUDA is asked in a child process, and what it answered is kept. */
int gpu_choose(const char *device, uint32_t ranks, struct gpu *out, struct err *e);
/* For tests, whose machine changes. */
void gpu_forget(void);

/* Of the CUDA side: GPU `index` of this machine. ERR_CONFIG: why it can't be used. */
int cuda_probe(int index, struct gpu *out, struct err *e);
/* Whether a process that is forked now may use CUDA: not once this one has. */
bool cuda_forks(void);

#endif
