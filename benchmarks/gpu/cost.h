/* cost.h: what a kernel must at least move and compute, and the rates of the GPUs that are known.
 *
 * Exact mode (kernels/NUMERICS.md): above the int8 dot product of a block of 32, a product of a row
 * and a token takes two fmaf as a rule, with a minimum a subtraction and a multiply more. Any
 * kernel with a scale for each block of 32 pays the same.
 */
#ifndef ARGOSY_BENCHMARKS_GPU_COST_H
#define ARGOSY_BENCHMARKS_GPU_COST_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/cuda_kernels.h"

struct gpu_rates {
    const char *name;
    double bytes; /* a second, of DRAM */
    double fp32;  /* instructions a second over all lanes, an fma being one */
    double dp4a;  /* the same */
    double imma;  /* int8 multiply-adds a second of the tensor cores, dense */
};

/* NVIDIA A100 80GB SXM, H100 SXM and H200 SXM data sheets; dp4a at 64 an SM and clock (CUDA C++
 * Programming Guide, "Arithmetic Instructions", integer arithmetic). */
static const struct gpu_rates gpu_rates[] = {
    {"A100", 2039e9, 9.75e12, 9.75e12, 312e12},
    {"H100", 3352e9, 33.5e12, 16.7e12, 989.5e12},
    {"H200", 4800e9, 33.5e12, 16.7e12, 989.5e12},
};
#define N_GPU_RATES 3

struct gpu_cost {
    double bytes, fp32, dp4a, imma;
};

/* Seconds that the slowest of memory and pipes needs; *bound: its name. */
static inline double gpu_seconds(const struct gpu_cost *c, const struct gpu_rates *r,
                                 const char **bound)
{
    const struct {
        const char *name;
        double seconds;
    } pipes[] = {{"memory", c->bytes / r->bytes},
                 {"fp32", c->fp32 / r->fp32},
                 {"dp4a", c->dp4a / r->dp4a},
                 {"tensor cores", c->imma / r->imma}};
    int most = 0;
    for (int i = 1; i < 4; i++)
        most = pipes[i].seconds > pipes[most].seconds ? i : most;
    *bound = pipes[most].name;
    return pipes[most].seconds;
}

/* Activations of n rows of k columns, quantised: int8, d, s and h. */
static inline double gpu_act_bytes(int64_t n, int64_t k)
{
    double blocks = (double)n * (double)((k + KN_BLOCK - 1) / KN_BLOCK);
    return blocks * (KN_BLOCK + sizeof(float) + 2 * sizeof(int32_t));
}

static inline bool gpu_has_minimum(int type)
{
    return type == KN_Q4_1 || type == KN_Q5_1 || type == KN_Q2_K || type == KN_Q4_K ||
           type == KN_Q5_K;
}

/* fp32 instructions that a product of a row and a token takes a block of 32: with dp4a a conversion
 * is one, with tensor cores (kernels/matmul/gemm.cu) a subtraction, or none. */
static inline int gpu_block_fp32(int type, bool gemv)
{
    if (gemv) {
        return gpu_has_minimum(type) ? 4 : 3;
    }
    return type == KN_Q6_K || type == KN_Q2_K ? 5 : gpu_has_minimum(type) ? 4 : 2;
}

static inline struct gpu_cost gpu_matmul(int type, int64_t rows, int64_t cols, int64_t n)
{
    double macs = (double)rows * (double)cols * (double)n, blocks = macs / KN_BLOCK;
    bool gemv = n <= KN_CUDA_TOKENS_MAX;
    return (struct gpu_cost){
        .bytes = (double)rows * (double)(cols / kn_type_block(type)) *
                     (double)kn_type_block_bytes(type) +
                 gpu_act_bytes(n, cols) + (double)(n * rows) * sizeof(float),
        .fp32 = blocks * gpu_block_fp32(type, gemv),
        .dp4a = gemv ? macs / 4 : 0,
        .imma = gemv ? 0 : macs,
    };
}

/* n rows, each behind `context` positions; or, 0, one prompt of n rows from position 0. An fma for
 * q·k and one for the sum of v, an element, head and pair of positions. */
static inline struct gpu_cost gpu_attention(int64_t n, int64_t context, int64_t n_heads,
                                            int64_t n_kv_heads, int64_t head_dim)
{
    double pairs = context ? (double)n * (double)context : (double)n * (double)(n + 1) / 2;
    double kv = (double)(2 * n_kv_heads * head_dim) * sizeof(uint16_t);
    double width = (double)(n_heads * head_dim);
    return (struct gpu_cost){
        .bytes = (context ? pairs : (double)n) * kv + 2 * (double)n * width * sizeof(float),
        .fp32 = 2 * pairs * width,
    };
}

#endif
