/* cublaslt.c: cuBLASLt's calls on the emulated device: a product is a task of the stream, like a
 * launch. It reads what the device has when its turn comes, and spoils its workspace. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/numerics.h"
#include "kernels/simt/cublaslt_api.h"
#include "kernels/simt/internal.h"

#define WORKSPACE_WISH 4096u /* of every other seed, as far as the preference has it */

struct simt_lt {
    int unused;
};

struct simt_lt_layout {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
};

struct simt_lt_desc {
    cublasComputeType_t compute;
    cublasOperation_t op[2];             /* of A, of B */
    const float *scale[2];               /* of the device; NULL: 1 */
    cublasLtMatmulMatrixScale_t mode[2]; /* of the scales */
};

struct simt_lt_preference {
    uint64_t workspace_bytes;
    uint32_t alignment[4]; /* bytes, of the addresses of A, B, C, D */
};

/* A product in the queue: the descriptors may be gone when it runs. */
struct product {
    struct simt_lt_desc desc;
    struct simt_lt_layout a_layout, b_layout, d_layout, c_layout;
    const void *a, *b, *c;
    void *d, *workspace;
    size_t workspace_bytes;
    uint64_t m, n, k;
    double alpha, beta;
};

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "success";
    case CUBLAS_STATUS_NOT_INITIALIZED:
        return "the library was not initialized";
    case CUBLAS_STATUS_ALLOC_FAILED:
        return "the resource allocation failed";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an invalid value was used as an argument";
    case CUBLAS_STATUS_ARCH_MISMATCH:
        return "an absent device architectural feature is required";
    case CUBLAS_STATUS_EXECUTION_FAILED:
        return "the function failed to launch on the GPU";
    case CUBLAS_STATUS_INTERNAL_ERROR:
        return "an internal operation failed";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality is not supported";
    }
    return "unknown status";
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static cublasStatus_t create(void *out, const void *init, size_t bytes)
{
    void *p = malloc(bytes);

    if (p == NULL) {
        return CUBLAS_STATUS_ALLOC_FAILED;
    }
    memcpy(p, init, bytes);
    memcpy(out, &p, sizeof p);
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t destroy(void *p)
{
    free(p);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *lt)
{
    int n;

    if (cudaGetDeviceCount(&n) != cudaSuccess || n == 0) {
        return CUBLAS_STATUS_NOT_INITIALIZED;
    }
    return create(lt, &(struct simt_lt){0}, sizeof **lt);
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t lt)
{
    return destroy(lt);
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    const struct simt_lt_desc init = {.compute = compute};
    bool floats = compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F;
    bool ints = compute == CUBLAS_COMPUTE_32I && scale == CUDA_R_32I;

    return floats || ints ? create(desc, &init, sizeof init) : CUBLAS_STATUS_INVALID_VALUE;
}

/* Refused here is what is not served: no caller shall think that it has an effect. */
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    int32_t number = -1;
    bool is_pointer = attribute == CUBLASLT_MATMUL_DESC_A_SCALE_POINTER ||
                      attribute == CUBLASLT_MATMUL_DESC_B_SCALE_POINTER;

    if (value == NULL || bytes != (is_pointer ? sizeof(void *) : sizeof number)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (!is_pointer) {
        memcpy(&number, value, sizeof number);
    }
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
    case CUBLASLT_MATMUL_DESC_TRANSB:
        if (number != CUBLAS_OP_N && number != CUBLAS_OP_T) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
        desc->op[attribute - CUBLASLT_MATMUL_DESC_TRANSA] = (cublasOperation_t)number;
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
        memcpy(&desc->scale[attribute - CUBLASLT_MATMUL_DESC_A_SCALE_POINTER], value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
        if (number != CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F &&
            number != CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
        desc->mode[attribute - CUBLASLT_MATMUL_DESC_A_SCALE_MODE] =
            (cublasLtMatmulMatrixScale_t)number;
        return CUBLAS_STATUS_SUCCESS;
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    return destroy(desc);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    const struct simt_lt_layout init = {type, rows, cols, ld};

    return create(layout, &init, sizeof init);
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    return destroy(layout);
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    const struct simt_lt_preference init = {.alignment = {256, 256, 256, 256}};

    return create(preference, &init, sizeof init);
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    uint32_t alignment;

    if (value == NULL) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
        if (bytes != sizeof preference->workspace_bytes) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
        memcpy(&preference->workspace_bytes, value, bytes);
        return CUBLAS_STATUS_SUCCESS;
    }
    if (attribute < CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES ||
        attribute > CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES || bytes != sizeof alignment) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    memcpy(&alignment, value, bytes);
    if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] = alignment;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    return destroy(preference);
}

/* ---- what is served -------------------------------------------------------------------------- */

/* 0: not served. */
static size_t size_of(cudaDataType type)
{
    switch (type) {
    case CUDA_R_32F:
    case CUDA_R_32I:
        return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF:
        return 2;
    case CUDA_R_8I:
    case CUDA_R_8F_E4M3:
        return 1;
    }
    return 0;
}

static size_t span_of(const struct simt_lt_layout *l)
{
    return ((l->cols - 1) * (uint64_t)l->ld + l->rows) * size_of(l->type);
}

static bool is_shaped(const struct simt_lt_layout *l, uint64_t rows, uint64_t cols)
{
    return l->rows == rows && l->cols == cols && rows > 0 && cols > 0 && l->ld >= (int64_t)rows;
}

static cublasStatus_t check_types(const struct product *p)
{
    cudaDataType in = p->a_layout.type, out = p->d_layout.type;
    bool scaled = p->desc.scale[0] != NULL || p->desc.scale[1] != NULL || p->desc.mode[0] != 0 ||
                  p->desc.mode[1] != 0;
    bool tn = p->desc.op[0] == CUBLAS_OP_T && p->desc.op[1] == CUBLAS_OP_N;
    bool ints = p->desc.compute == CUBLAS_COMPUTE_32I;
    bool lds_by_16 = p->a_layout.ld % 16 == 0 && p->b_layout.ld % 16 == 0;
    struct cudaDeviceProp device;
    bool served = false;

    if (p->b_layout.type != in || p->c_layout.type != out || (scaled && in != CUDA_R_8F_E4M3)) {
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    if (in == CUDA_R_8I) {
        served = ints && out == CUDA_R_32I && tn && p->m % 4 == 0 && p->k % 4 == 0 &&
                 p->a_layout.ld % 4 == 0 && p->b_layout.ld % 4 == 0;
    } else if (in == CUDA_R_8F_E4M3) {
        bool by_row = p->desc.mode[0] == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
        if (cudaGetDeviceProperties(&device, 0) != cudaSuccess) {
            return CUBLAS_STATUS_NOT_INITIALIZED;
        }
        int level = device.major * 10 + device.minor;
        served = !ints && (out == CUDA_R_32F || out == CUDA_R_16BF) && tn && level >= 89 &&
                 p->m % 16 == 0 && p->k % 16 == 0 && lds_by_16 &&
                 p->desc.mode[0] == p->desc.mode[1] &&
                 (!by_row || (level == 90 && p->desc.scale[0] != NULL && p->desc.scale[1] != NULL));
    } else {
        served = !ints && (in == CUDA_R_16F || in == CUDA_R_16BF || in == CUDA_R_32F) &&
                 (out == CUDA_R_32F || out == in);
    }
    return served ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* p has desc and layouts; fills in the shape. */
static cublasStatus_t check_shapes(struct product *p)
{
    bool at = p->desc.op[0] == CUBLAS_OP_T, bt = p->desc.op[1] == CUBLAS_OP_T;

    p->m = p->d_layout.rows;
    p->n = p->d_layout.cols;
    p->k = at ? p->a_layout.rows : p->a_layout.cols;
    if (!is_shaped(&p->a_layout, at ? p->k : p->m, at ? p->m : p->k) ||
        !is_shaped(&p->b_layout, bt ? p->n : p->k, bt ? p->k : p->n) ||
        !is_shaped(&p->c_layout, p->m, p->n) || !is_shaped(&p->d_layout, p->m, p->n)) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    return check_types(p);
}

/* An algorithm is for one problem, which it has in it. */
static cublasLtMatmulAlgo_t algo_of(const struct product *p)
{
    cublasLtMatmulAlgo_t algo = {{0}};

    algo.data[0] = p->m << 32 | p->k;
    algo.data[1] = p->n << 32 | (uint64_t)p->desc.op[0] << 1 | (uint64_t)p->desc.op[1];
    algo.data[2] = (uint64_t)p->a_layout.type << 32 | (uint64_t)p->d_layout.type;
    algo.data[3] = (uint64_t)p->a_layout.ld << 32 | (uint64_t)p->b_layout.ld;
    algo.data[4] = (uint64_t)p->c_layout.ld << 32 | (uint64_t)p->d_layout.ld;
    return algo;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *found)
{
    struct product p = {
        .desc = *desc, .a_layout = *a, .b_layout = *b, .c_layout = *c, .d_layout = *d};
    cublasStatus_t rc = check_shapes(&p);

    (void)lt;
    *found = 0;
    if (wanted < 1) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    if (rc != CUBLAS_STATUS_SUCCESS) {
        return rc;
    }
    uint64_t wish = simt_options.seed % 2 != 0 ? WORKSPACE_WISH : 0,
             most = preference->workspace_bytes;
    results[0] = (cublasLtMatmulHeuristicResult_t){
        .algo = algo_of(&p), .workspaceSize = wish < most ? wish : most, .wavesCount = 1};
    results[0].algo.data[5] = results[0].workspaceSize;
    for (int i = 0; i < 4; i++) {
        results[0].algo.data[6] |= (uint64_t)(preference->alignment[i] & 0xffff) << 16 * i;
    }
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- the product ----------------------------------------------------------------------------- */

/* S.EEEE.MMM, bias 7, no infinities; NaN is all ones. */
static float e4m3_to_float(uint8_t b)
{
    int exponent = b >> 3 & 15, mantissa = b & 7;
    float v =
        exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);

    v = (b & 0x7f) == 0x7f ? NAN : v;
    return b & 0x80 ? -v : v;
}

static double number_at(const void *p, size_t i, cudaDataType type)
{
    switch (type) {
    case CUDA_R_32F:
        return ((const float *)p)[i];
    case CUDA_R_32I:
        return ((const int32_t *)p)[i];
    case CUDA_R_16F:
        return kn_f16_to_f32(((const uint16_t *)p)[i]);
    case CUDA_R_16BF:
        return kn_float((uint32_t)((const uint16_t *)p)[i] << 16);
    case CUDA_R_8I:
        return ((const int8_t *)p)[i];
    case CUDA_R_8F_E4M3:
        return e4m3_to_float(((const uint8_t *)p)[i]);
    }
    return NAN;
}

static void put_number(void *p, size_t i, cudaDataType type, double v)
{
    switch (type) {
    case CUDA_R_32I:
        ((int32_t *)p)[i] = (int32_t)v;
        break;
    case CUDA_R_16F:
        ((uint16_t *)p)[i] = kn_f32_to_f16((float)v);
        break;
    case CUDA_R_16BF:
        ((uint16_t *)p)[i] = simt_float_to_bfloat16((float)v);
        break;
    default:
        ((float *)p)[i] = (float)v;
        break;
    }
}

static void *get(size_t n, size_t size)
{
    void *p = calloc(n, size);

    if (p == NULL) {
        perror("simt: no memory");
        abort();
    }
    return p;
}

/* A matrix to the host, by columns of `rows`, without what lies between them. NULL: somebody reads
 * what nobody wrote. Freed by the caller. */
static double *fetch(const void *device, const struct simt_lt_layout *l)
{
    size_t size = size_of(l->type);
    double *out = get(l->rows * l->cols, sizeof *out);
    void *column = get(l->rows, size);
    bool ok = true;

    for (uint64_t j = 0; j < l->cols && ok; j++) {
        ok = simt_download(column, (const char *)device + j * (uint64_t)l->ld * size,
                           l->rows * size);
        for (uint64_t i = 0; i < l->rows && ok; i++) {
            out[j * l->rows + i] = number_at(column, i, l->type);
        }
    }
    free(column);
    if (!ok) {
        free(out);
        return NULL;
    }
    return out;
}

/* The scales of A's rows or B's columns; false: as above. */
static bool fetch_scales(const struct product *p, int which, float *scales, uint64_t n)
{
    const float *from = p->desc.scale[which];
    bool by_row = p->desc.mode[which] == CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    float one = 1;

    if (from != NULL && by_row) {
        return simt_download(scales, from, n * sizeof *scales);
    }
    if (from != NULL && !simt_download(&one, from, sizeof one)) {
        return false;
    }
    for (uint64_t i = 0; i < n; i++) {
        scales[i] = one;
    }
    return true;
}

/* Of row i and column j. Floats are added in fp32, from where the seed says; integers exactly. */
static double dot(const struct product *p, const double *a, const double *b, uint64_t i, uint64_t j)
{
    bool at = p->desc.op[0] == CUBLAS_OP_T, bt = p->desc.op[1] == CUBLAS_OP_T;
    uint64_t start = simt_options.seed % p->k;
    double exact = 0;
    float sum = 0;

    for (uint64_t n = 0; n < p->k; n++) {
        uint64_t x = start + n < p->k ? start + n : start + n - p->k;
        double product = a[at ? i * p->k + x : x * p->m + i] * b[bt ? x * p->n + j : j * p->k + x];
        exact += product;
        sum += (float)product;
    }
    return p->desc.compute == CUBLAS_COMPUTE_32I ? exact : (double)sum;
}

static void multiply(const struct product *p, const double *a, const double *b, const double *c,
                     const float *a_scales, const float *b_scales)
{
    size_t size = size_of(p->d_layout.type);
    void *column = get(p->m, size);

    for (uint64_t j = 0; j < p->n; j++) {
        for (uint64_t i = 0; i < p->m; i++) {
            double v = p->alpha * dot(p, a, b, i, j);
            v = p->desc.compute == CUBLAS_COMPUTE_32F ? v * a_scales[i] * b_scales[j] : v;
            put_number(column, i, p->d_layout.type, c != NULL ? v + p->beta * c[j * p->m + i] : v);
        }
        simt_upload((char *)p->d + j * (uint64_t)p->d_layout.ld * size, column, p->m * size);
    }
    free(column);
}

static void run(const void *argument)
{
    const struct product *p = argument;
    double *a = fetch(p->a, &p->a_layout), *b = fetch(p->b, &p->b_layout);
    double *c = p->beta != 0 ? fetch(p->c, &p->c_layout) : NULL;
    float *a_scales = get(p->m, sizeof *a_scales), *b_scales = get(p->n, sizeof *b_scales);

    bool ok = a != NULL && b != NULL && (p->beta == 0 || c != NULL) &&
              fetch_scales(p, 0, a_scales, p->m) && fetch_scales(p, 1, b_scales, p->n);
    if (ok) {
        multiply(p, a, b, c, a_scales, b_scales);
    } else {
        simt_runtime_fail();
    }
    if (p->workspace_bytes > 0) {
        simt_fill(p->workspace, 0xff, p->workspace_bytes);
    }
    free(a);
    free(b);
    free(c);
    free(a_scales);
    free(b_scales);
}

static cublasStatus_t check_memory(const struct product *p)
{
    uintptr_t together = (uintptr_t)p->a | (uintptr_t)p->b;
    cudaDataType in = p->a_layout.type;
    bool aligned = in == CUDA_R_8F_E4M3 ? together % 16 == 0 : in != CUDA_R_8I || together % 4 == 0;

    if (!simt_on_device(p->a, span_of(&p->a_layout)) ||
        !simt_on_device(p->b, span_of(&p->b_layout)) ||
        !simt_on_device(p->d, span_of(&p->d_layout)) ||
        (p->beta != 0 && !simt_on_device(p->c, span_of(&p->c_layout))) ||
        (p->c == p->d && p->c_layout.ld != p->d_layout.ld) ||
        (p->workspace_bytes > 0 && !simt_on_device(p->workspace, p->workspace_bytes))) {
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    return aligned ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* As the algorithm counts on it. */
static bool is_aligned(const struct product *p, const cublasLtMatmulAlgo_t *algo)
{
    const void *const at[] = {p->a, p->b, p->c, p->d};

    for (int i = 0; i < 4; i++) {
        uint64_t alignment = algo->data[6] >> 16 * i & 0xffff;
        if ((i != 2 || p->beta != 0) && (uintptr_t)at[i] % alignment != 0) {
            return false;
        }
    }
    return true;
}

static double scalar(const struct simt_lt_desc *desc, const void *p)
{
    return number_at(p, 0, desc->compute == CUBLAS_COMPUTE_32I ? CUDA_R_32I : CUDA_R_32F);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    struct product p = {.desc = *desc,
                        .a_layout = *a_layout,
                        .b_layout = *b_layout,
                        .c_layout = *c_layout,
                        .d_layout = *d_layout,
                        .a = a,
                        .b = b,
                        .c = c,
                        .d = d,
                        .workspace = workspace,
                        .alpha = scalar(desc, alpha),
                        .beta = scalar(desc, beta)};
    cublasStatus_t rc = check_shapes(&p);

    (void)lt;
    if (rc == CUBLAS_STATUS_SUCCESS && algo != NULL) {
        cublasLtMatmulAlgo_t own = algo_of(&p);
        p.workspace_bytes = algo->data[5];
        if (memcmp(own.data, algo->data, 5 * sizeof own.data[0]) != 0 ||
            p.workspace_bytes > workspace_bytes || !is_aligned(&p, algo)) {
            return CUBLAS_STATUS_INVALID_VALUE;
        }
    }
    rc = rc == CUBLAS_STATUS_SUCCESS ? check_memory(&p) : rc;
    if (rc != CUBLAS_STATUS_SUCCESS) {
        return rc;
    }
    return simt_stream_run(stream, run, &p, sizeof p) == 0 ? CUBLAS_STATUS_SUCCESS
                                                           : CUBLAS_STATUS_EXECUTION_FAILED;
}
