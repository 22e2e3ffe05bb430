/* bench.h: what the parts of bench_gpu share. One thread. */
#ifndef ARGOSY_BENCHMARKS_GPU_BENCH_H
#define ARGOSY_BENCHMARKS_GPU_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "benchmarks/gpu/cost.h"
#include "kernels/simt/cuda_api.h"

struct bench {
    cudaStream_t stream;
    bool small; /* shapes that an emulator can do; the times mean nothing */
    struct gpu_rates rates;
};
extern struct bench bench;

/* Queues the kernel for the i-th time: 0, or what it returned. */
typedef int bench_enqueue(void *arg, int i);

/* Ends the program with the words where e is an error. */
void bench_must(cudaError_t e, const char *what);
/* Of the device, filled with ones. */
void *bench_memory(size_t bytes);
/* A row of the table: time, bandwidth, rate, share of the bound of c. */
void bench_report(const char *name, const struct gpu_cost *c, bench_enqueue *enqueue, void *arg);

/* bench_library.c: y (n, rows) = x (n, cols) W' by cuBLASLt, in int8 and bf16, without a contract.
 */
void bench_library(int64_t rows, int64_t cols, const int64_t *tokens, int n_tokens);
/* bench_passes.c: steps of a whole model, decoding by batch and prompts. */
void bench_passes(void);

#endif
