/* cublaslt_library.c: cuBLASLt, opened when fast mode asks for it, behind its own names. In
 * programs with CUDA alone.
 *
 * Linked against it, a worker would not start where it is not installed, and each start would cost
 * 0.1 s and 200 MB of mappings (half a second more from a cold disk), fast or not. */
#include "kernels/simt/cublaslt_api.h"

#include <stdbool.h>

#include "runtime/base/check.h"
#include "runtime/base/library.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define LIBRARY "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)

/* X(name): what kernels/simt/cublaslt_api.h has. */
#define CALLS(X)                            \
    X(cublasLtCreate)                       \
    X(cublasLtDestroy)                      \
    X(cublasLtGetStatusString)              \
    X(cublasLtMatmul)                       \
    X(cublasLtMatmulAlgoGetHeuristic)       \
    X(cublasLtMatmulDescCreate)             \
    X(cublasLtMatmulDescDestroy)            \
    X(cublasLtMatmulDescSetAttribute)       \
    X(cublasLtMatmulPreferenceCreate)       \
    X(cublasLtMatmulPreferenceDestroy)      \
    X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatrixLayoutCreate)           \
    X(cublasLtMatrixLayoutDestroy)

#define MEMBER(name) __typeof__(name) *name;
static struct {
    CALLS(MEMBER)
} calls;

const char *cublaslt_library(void)
{
#define ROW(name) {#name, &calls.name},
    static const struct library_call rows[] = {CALLS(ROW)};
    static bool open;
    const char *why = open ? NULL : library_open(LIBRARY, rows, ARRAY_LEN(rows));
    open = !why;
    return why;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *lt)
{
    return calls.cublasLtCreate(lt);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lt)
{
    return calls.cublasLtDestroy(lt);
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return calls.cublasLtGetStatusString(status);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    return calls.cublasLtMatmul(lt, desc, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d,
                                d_layout, algo, workspace, workspace_bytes, stream);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    return calls.cublasLtMatmulAlgoGetHeuristic(lt, desc, a, b, c, d, preference, wanted, results,
                                                found);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    return calls.cublasLtMatmulDescCreate(desc, compute, scale);
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    return calls.cublasLtMatmulDescDestroy(desc);
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    return calls.cublasLtMatmulDescSetAttribute(desc, attribute, value, bytes);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    return calls.cublasLtMatmulPreferenceCreate(preference);
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    return calls.cublasLtMatmulPreferenceDestroy(preference);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    return calls.cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, bytes);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    return calls.cublasLtMatrixLayoutCreate(layout, type, rows, cols, ld);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    return calls.cublasLtMatrixLayoutDestroy(layout);
}
