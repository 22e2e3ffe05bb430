/* bench_library.c: what NVIDIA's library takes for the products that matmul does: int8 with sums in
 * int32, which is matmul without the contract and without scales, and bf16. */
#include <stdio.h>
#include <stdlib.h>

#include "benchmarks/gpu/bench.h"
#include "kernels/simt/cublaslt_api.h"

#define WORKSPACE ((size_t)32 << 20)
#define COPIES 4 /* of the weights, so that no cache holds them */

struct product {
    cublasLtHandle_t lt;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, y;
    cublasLtMatmulHeuristicResult_t plan;
    void *weights[COPIES], *rows, *out, *workspace;
    bool integer;
};

static void must_lt(cublasStatus_t s, const char *what)
{
    if (s == CUBLAS_STATUS_SUCCESS)
        return;
    fprintf(stderr, "bench_gpu: cuBLASLt: %s: %s\n", what, cublasLtGetStatusString(s));
    exit(2);
}

static int enqueue_product(void *arg, int i)
{
    const struct product *p = arg;
    const int one = 1, zero = 0;
    const float onef = 1, zerof = 0;
    const void *alpha = p->integer ? (const void *)&one : &onef;
    const void *beta = p->integer ? (const void *)&zero : &zerof;
    return cublasLtMatmul(p->lt, p->desc, alpha, p->weights[i % COPIES], p->w, p->rows, p->x, beta,
                          p->out, p->y, p->out, p->y, &p->plan.algo, p->workspace, WORKSPACE,
                          bench.stream) == CUBLAS_STATUS_SUCCESS
               ? 0
               : 1;
}

/* False where the library has no way to do it. */
static bool plan(struct product *p, int64_t rows, int64_t cols, int64_t n)
{
    const cudaDataType in = p->integer ? CUDA_R_8I : CUDA_R_16BF,
                       out = p->integer ? CUDA_R_32I : CUDA_R_32F;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const size_t workspace = WORKSPACE;
    cublasLtMatmulPreference_t preference;
    int found = 0;
    must_lt(cublasLtMatmulDescCreate(&p->desc, p->integer ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                     out),
            "descriptor");
    must_lt(cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                           sizeof(transposed)),
            "descriptor");
    must_lt(cublasLtMatrixLayoutCreate(&p->w, in, (uint64_t)cols, (uint64_t)rows, cols), "layout");
    must_lt(cublasLtMatrixLayoutCreate(&p->x, in, (uint64_t)cols, (uint64_t)n, cols), "layout");
    must_lt(cublasLtMatrixLayoutCreate(&p->y, out, (uint64_t)rows, (uint64_t)n, rows), "layout");
    must_lt(cublasLtMatmulPreferenceCreate(&preference), "preference");
    must_lt(cublasLtMatmulPreferenceSetAttribute(preference,
                                                 CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                 &workspace, sizeof(workspace)),
            "preference");
    cublasStatus_t s = cublasLtMatmulAlgoGetHeuristic(p->lt, p->desc, p->w, p->x, p->y, p->y,
                                                      preference, 1, &p->plan, &found);
    must_lt(cublasLtMatmulPreferenceDestroy(preference), "preference");
    return s == CUBLAS_STATUS_SUCCESS && found > 0;
}

static void unplan(struct product *p)
{
    must_lt(cublasLtMatmulDescDestroy(p->desc), "descriptor");
    must_lt(cublasLtMatrixLayoutDestroy(p->w), "layout");
    must_lt(cublasLtMatrixLayoutDestroy(p->x), "layout");
    must_lt(cublasLtMatrixLayoutDestroy(p->y), "layout");
}

/* The least that it moves; operations are bounded by the tensor cores, of which the sheets have
 * int8.
 */
static struct gpu_cost cost(const struct product *p, int64_t rows, int64_t cols, int64_t n)
{
    double elems = (double)(rows * cols + n * cols), macs = (double)rows * (double)cols * (double)n;
    return (struct gpu_cost){.bytes =
                                 elems * (p->integer ? 1 : 2) + (double)(n * rows) * sizeof(float),
                             .imma = p->integer ? macs : 2 * macs};
}

static void bench_product(struct product *p, int64_t rows, int64_t cols, const int64_t *tokens,
                          int n_tokens)
{
    int64_t most = tokens[n_tokens - 1], width = p->integer ? 1 : 2;
    for (int i = 0; i < COPIES; i++)
        p->weights[i] = bench_memory((size_t)(rows * cols * width));
    p->rows = bench_memory((size_t)(most * cols * width));
    p->out = bench_memory((size_t)(most * rows) * sizeof(float));
    for (int i = 0; i < n_tokens; i++) {
        const struct gpu_cost c = cost(p, rows, cols, tokens[i]);
        char name[96];
        snprintf(name, sizeof(name), "cuBLASLt %s %lld x %lld, %lld tokens",
                 p->integer ? "int8" : "bf16", (long long)rows, (long long)cols,
                 (long long)tokens[i]);
        if (plan(p, rows, cols, tokens[i]))
            bench_report(name, &c, enqueue_product, p);
        else
            printf("| %s | not served | | | |\n", name);
        unplan(p);
    }
    for (int i = 0; i < COPIES; i++)
        cudaFree(p->weights[i]);
    cudaFree(p->rows);
    cudaFree(p->out);
}

void bench_library(int64_t rows, int64_t cols, const int64_t *tokens, int n_tokens)
{
    struct product p = {.integer = true};
    const char *why = cublaslt_library();
    if (why) {
        printf("| cuBLASLt | not installed here: %s | | | |\n", why);
        return;
    }
    must_lt(cublasLtCreate(&p.lt), "create");
    p.workspace = bench_memory(WORKSPACE);
    bench_product(&p, rows, cols, tokens, n_tokens);
    p.integer = false;
    bench_product(&p, rows, cols, tokens, n_tokens);
    cudaFree(p.workspace);
    must_lt(cublasLtDestroy(p.lt), "destroy");
}
