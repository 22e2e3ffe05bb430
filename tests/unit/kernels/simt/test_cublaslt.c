/* cuBLASLt over the emulated device: products against double arithmetic, late as on hardware and
 * again from a graph; what the library refuses is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <math.h>

#include "kernels/simt/cublaslt_api.h"
#include "kernels/simt/simt.h"

enum { M = 32, N = 5, K = 48, LDX = 64, LDY = 36, WORKSPACE = 8192 };

/* y (N, LDY) = x (N, LDX) * W', W (M, K). */
struct setup {
    cudaStream_t stream;
    cublasLtHandle_t lt;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulPreference_t preference;
    void *w, *x, *y, *workspace;
    float *scales; /* (M) of W, then (N) of x */
    char *host;    /* pinned */
    bool ints;
};

static void set_machine(int major, int minor)
{
    simt_machine_set(&(struct simt_machine){
        .devices = 1, .major = major, .minor = minor, .driver = 13000, .memory = 1 << 20});
}

static void set_op(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t which, int32_t v)
{
    assert_int_equal(cublasLtMatmulDescSetAttribute(desc, which, &v, sizeof v),
                     CUBLAS_STATUS_SUCCESS);
}

static void begin(struct setup *s, cudaDataType in, cudaDataType out, unsigned seed)
{
    bool ints = in == CUDA_R_8I;
    size_t most = WORKSPACE;
    *s = (struct setup){.ints = ints};
    set_machine(9, 0);
    simt_set(&(struct simt_options){.seed = seed, .eager_copies = seed % 3 == 0});
    assert_int_equal(cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaMalloc(&s->w, sizeof(float) * M * K), cudaSuccess);
    assert_int_equal(cudaMalloc(&s->x, sizeof(float) * N * LDX), cudaSuccess);
    assert_int_equal(cudaMalloc(&s->y, sizeof(float) * N * LDY), cudaSuccess);
    assert_int_equal(cudaMalloc((void **)&s->scales, sizeof(float) * (M + N)), cudaSuccess);
    assert_int_equal(cudaMalloc(&s->workspace, WORKSPACE), cudaSuccess);
    assert_int_equal(cudaMallocHost((void **)&s->host, 1 << 16), cudaSuccess);
    assert_int_equal(cublasLtCreate(&s->lt), 0);
    assert_int_equal(cublasLtMatmulDescCreate(&s->desc,
                                              ints ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                              ints ? CUDA_R_32I : CUDA_R_32F),
                     0);
    set_op(s->desc, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
    assert_int_equal(cublasLtMatrixLayoutCreate(&s->a, in, K, M, K), 0);
    assert_int_equal(cublasLtMatrixLayoutCreate(&s->b, in, K, N, LDX), 0);
    assert_int_equal(cublasLtMatrixLayoutCreate(&s->d, out, M, N, LDY), 0);
    assert_int_equal(cublasLtMatmulPreferenceCreate(&s->preference), 0);
    assert_int_equal(cublasLtMatmulPreferenceSetAttribute(s->preference,
                                                          CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                          &most, sizeof most),
                     0);
}

static void end(struct setup *s)
{
    cublasLtMatmulPreferenceDestroy(s->preference);
    cublasLtMatrixLayoutDestroy(s->a);
    cublasLtMatrixLayoutDestroy(s->b);
    cublasLtMatrixLayoutDestroy(s->d);
    cublasLtMatmulDescDestroy(s->desc);
    cublasLtDestroy(s->lt);
    cudaStreamDestroy(s->stream);
    cudaFree(s->w);
    cudaFree(s->x);
    cudaFree(s->y);
    cudaFree(s->scales);
    cudaFree(s->workspace);
    cudaFreeHost(s->host);
    assert_int_equal(simt_machine_taken(), 0);
}

static cublasStatus_t heuristic(struct setup *s, cublasLtMatmulHeuristicResult_t *r)
{
    int found = -1;
    cublasStatus_t rc = cublasLtMatmulAlgoGetHeuristic(s->lt, s->desc, s->a, s->b, s->d, s->d,
                                                       s->preference, 1, r, &found);
    assert_int_equal(found, rc == CUBLAS_STATUS_SUCCESS);
    return rc;
}

static cublasStatus_t multiply(struct setup *s, double alpha, double beta, size_t workspace)
{
    cublasLtMatmulHeuristicResult_t r;
    float floats[2] = {(float)alpha, (float)beta};
    int32_t ints[2] = {(int32_t)alpha, (int32_t)beta};
    bool as_ints = s->ints;
    cublasStatus_t rc = heuristic(s, &r);

    if (rc != CUBLAS_STATUS_SUCCESS)
        return rc;
    const void *ab[2] = {as_ints ? (void *)&ints[0] : &floats[0],
                         as_ints ? (void *)&ints[1] : &floats[1]};
    return cublasLtMatmul(s->lt, s->desc, ab[0], s->w, s->a, s->x, s->b, ab[1], s->y, s->d, s->y,
                          s->d, &r.algo, s->workspace, workspace, s->stream);
}

/* ---- numbers, apart from the emulator's own ----------------------------------------------------
 */

/* Small multiples of a power of two that every type here has exactly. */
static int small(unsigned i)
{
    return (int)(i * 2654435761u >> 13) % 8 - 3;
}

/* The bits of v / 4 (of v, for integers), v in -3 .. 4. */
static void put(char *to, size_t i, cudaDataType type, int v)
{
    static const uint16_t half[] = {0, 0x3400, 0x3800, 0x3a00, 0x3c00}; /* 0, 1/4 .. 1 */
    static const uint16_t brain[] = {0, 0x3e80, 0x3f00, 0x3f40, 0x3f80};
    static const uint8_t e4m3[] = {0, 0x28, 0x30, 0x34, 0x38};
    float f = (float)v / 4;
    unsigned m = (unsigned)abs(v);
    uint16_t h = (uint16_t)((type == CUDA_R_16F ? half[m] : brain[m]) | (v < 0 ? 0x8000 : 0));
    uint8_t b = type == CUDA_R_8I ? (uint8_t)v : (uint8_t)(e4m3[m] | (v < 0 ? 0x80 : 0));

    switch (type) {
    case CUDA_R_32F:
        memcpy(to + i * 4, &f, 4);
        break;
    case CUDA_R_16F:
    case CUDA_R_16BF:
        memcpy(to + i * 2, &h, 2);
        break;
    default:
        memcpy(to + i, &b, 1);
        break;
    }
}

static size_t bytes_of(cudaDataType t)
{
    return t == CUDA_R_32F || t == CUDA_R_32I ? 4 : t == CUDA_R_16F || t == CUDA_R_16BF ? 2 : 1;
}

static void up(struct setup *s, void *to, const void *from, size_t bytes)
{
    assert_int_equal(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, s->stream), 0);
}

/* W and x; what lies between x's rows nobody writes. */
static void fill(struct setup *s, cudaDataType type)
{
    static char buffer[sizeof(float) * N * LDX];
    size_t size = bytes_of(type);

    for (unsigned i = 0; i < M * K; i++)
        put(s->host + 64, i, type, small(i));
    up(s, s->w, s->host + 64, M * K * size);
    assert_int_equal(cudaStreamSynchronize(s->stream), 0);
    for (unsigned r = 0; r < N; r++) {
        for (unsigned i = 0; i < K; i++)
            put(buffer, i, type, small(7777 + r * K + i));
        up(s, (char *)s->x + r * LDX * size, buffer, K * size);
    }
}

static double expected(unsigned row, unsigned r, double unit)
{
    double sum = 0;
    for (unsigned i = 0; i < K; i++)
        sum += small(row * K + i) * unit * small(7777 + r * K + i) * unit;
    return sum;
}

static double read_y(struct setup *s, cudaDataType type, unsigned row, unsigned r)
{
    size_t size = bytes_of(type);
    char *to = s->host + 16;
    union {
        uint32_t u;
        float f;
        int32_t i;
    } v = {0};

    assert_int_equal(cudaMemcpyAsync(to, (char *)s->y + (r * LDY + row) * size, size,
                                     cudaMemcpyDeviceToHost, s->stream),
                     0);
    assert_int_equal(cudaStreamSynchronize(s->stream), 0);
    memcpy(&v.u, to, size);
    if (type == CUDA_R_16BF)
        v.u <<= 16;
    return type == CUDA_R_32I ? (double)v.i : (double)v.f;
}

static void compare(struct setup *s, cudaDataType out, double unit, double times)
{
    for (unsigned row = 0; row < M; row++)
        for (unsigned r = 0; r < N; r++) {
            double want = times * expected(row, r, unit), got = read_y(s, out, row, r);
            /* sums of quarters' squares are exact in fp32; bf16 rounds them once */
            double allowed = out == CUDA_R_16BF ? fabs(want) / 256 : 0;
            assert_true(fabs(got - want) <= allowed);
        }
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void test_products_are_those_of_double_arithmetic(void **state)
{
    static const cudaDataType types[][2] = {
        {CUDA_R_16BF, CUDA_R_32F}, {CUDA_R_16F, CUDA_R_32F},   {CUDA_R_32F, CUDA_R_32F},
        {CUDA_R_8I, CUDA_R_32I},   {CUDA_R_16BF, CUDA_R_16BF}, {CUDA_R_8F_E4M3, CUDA_R_32F}};
    (void)state;
    for (unsigned t = 0; t < sizeof types / sizeof *types; t++)
        for (unsigned seed = 0; seed < 4; seed++) {
            struct setup s;
            bool ints = types[t][0] == CUDA_R_8I;
            begin(&s, types[t][0], types[t][1], seed);
            fill(&s, types[t][0]);
            assert_int_equal(multiply(&s, 1, 0, WORKSPACE), 0);
            compare(&s, types[t][1], ints ? 1 : 0.25, 1);
            if (types[t][1] != CUDA_R_16BF) { /* y = 2 x W' + 3 y */
                assert_int_equal(multiply(&s, 2, 3, WORKSPACE), 0);
                compare(&s, types[t][1], ints ? 1 : 0.25, 5);
            }
            end(&s);
        }
}

static void test_scales_of_rows_and_columns_count(void **state)
{
    (void)state;
    float scales[M + N];
    for (unsigned i = 0; i < M + N; i++)
        scales[i] = i % 2 == 0 ? 0.5f : 4.0f;
    for (int by_row = 0; by_row < 2; by_row++) {
        struct setup s;
        begin(&s, CUDA_R_8F_E4M3, CUDA_R_32F, 1);
        const float *columns = s.scales + M;
        fill(&s, CUDA_R_8F_E4M3);
        up(&s, s.scales, scales, sizeof scales);
        assert_int_equal(cublasLtMatmulDescSetAttribute(s.desc,
                                                        CUBLASLT_MATMUL_DESC_A_SCALE_POINTER,
                                                        &s.scales, sizeof s.scales),
                         0);
        assert_int_equal(cublasLtMatmulDescSetAttribute(s.desc,
                                                        CUBLASLT_MATMUL_DESC_B_SCALE_POINTER,
                                                        &columns, sizeof columns),
                         0);
        int32_t mode = by_row ? CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F
                              : CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F;
        set_op(s.desc, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
        set_op(s.desc, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
        assert_int_equal(multiply(&s, 1, 0, WORKSPACE), 0);
        for (unsigned row = 0; row < M; row++)
            for (unsigned r = 0; r < N; r++) {
                double by = (double)scales[by_row ? row : 0] * scales[by_row ? M + r : M];
                assert_true(read_y(&s, CUDA_R_32F, row, r) == by * expected(row, r, 0.25));
            }
        set_machine(8, 9); /* which has fp8, but no scales of rows */
        assert_int_equal(multiply(&s, 1, 0, WORKSPACE), by_row ? CUBLAS_STATUS_NOT_SUPPORTED : 0);
        set_machine(8, 0);
        assert_int_equal(multiply(&s, 1, 0, WORKSPACE), CUBLAS_STATUS_NOT_SUPPORTED);
        set_machine(9, 0);
        assert_int_equal(cudaStreamSynchronize(s.stream), 0);
        end(&s);
    }
}

/* Nothing happens before the wait, and a graph computes what is there when it is launched. */
static void test_a_product_has_its_turn(void **state)
{
    struct setup s;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    (void)state;
    begin(&s, CUDA_R_16BF, CUDA_R_32F, 1);
    assert_int_equal(cudaStreamBeginCapture(s.stream, cudaStreamCaptureModeThreadLocal), 0);
    assert_int_equal(multiply(&s, 1, 0, WORKSPACE), 0);
    assert_int_equal(cudaStreamEndCapture(s.stream, &graph), 0);
    assert_int_equal(cudaGraphInstantiate(&exec, graph, 0), 0);
    fill(&s, CUDA_R_16BF);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cudaMemsetAsync(s.y, 0, sizeof(float) * N * LDY, s.stream), 0);
        assert_int_equal(cudaGraphLaunch(exec, s.stream), 0);
        compare(&s, CUDA_R_32F, 0.25, 1);
    }
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    end(&s);
}

static void test_reads_of_what_nobody_wrote_are_faults(void **state)
{
    struct setup s;
    (void)state;
    if (!simt_has_shadow())
        skip();
    begin(&s, CUDA_R_16BF, CUDA_R_32F, 1);
    assert_int_equal(multiply(&s, 1, 0, WORKSPACE), 0);
    assert_int_equal(cudaStreamSynchronize(s.stream), cudaErrorLaunchFailure);
    set_machine(9, 0);
    end(&s);
}

static void check_refused(struct setup *s, cublasLtMatrixLayout_t *which, cudaDataType type,
                          uint64_t rows, uint64_t cols, int64_t ld, cublasStatus_t status)
{
    cublasLtMatmulHeuristicResult_t r;
    cublasLtMatrixLayout_t own = *which;

    assert_int_equal(cublasLtMatrixLayoutCreate(which, type, rows, cols, ld), 0);
    assert_int_equal(heuristic(s, &r), status);
    cublasLtMatrixLayoutDestroy(*which);
    *which = own;
}

static void test_wrong_layouts_are_refused(void **state)
{
    const cublasStatus_t invalid = CUBLAS_STATUS_INVALID_VALUE, no = CUBLAS_STATUS_NOT_SUPPORTED;
    struct setup s;
    (void)state;
    begin(&s, CUDA_R_16BF, CUDA_R_32F, 1);
    check_refused(&s, &s.a, CUDA_R_16BF, M, K, M, invalid);     /* not turned */
    check_refused(&s, &s.a, CUDA_R_16BF, K, M, K - 1, invalid); /* columns overlap */
    check_refused(&s, &s.b, CUDA_R_16BF, K - 1, N, LDX, invalid);
    check_refused(&s, &s.d, CUDA_R_32F, M, N + 1, LDY, invalid);
    check_refused(&s, &s.b, CUDA_R_16F, K, N, LDX, no); /* two types */
    check_refused(&s, &s.d, CUDA_R_16F, M, N, LDY, no);
    end(&s);
    begin(&s, CUDA_R_8F_E4M3, CUDA_R_32F, 1);
    check_refused(&s, &s.b, CUDA_R_8F_E4M3, K, N, LDX + 1, no);
    set_op(s.desc, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_N);
    check_refused(&s, &s.a, CUDA_R_8F_E4M3, M, K, M, no);
    end(&s);
}

static void test_an_address_is_as_aligned_as_was_said(void **state)
{
    struct setup s;
    uint32_t alignment = 4, odd = 12;
    (void)state;
    begin(&s, CUDA_R_16BF, CUDA_R_32F, 1);
    fill(&s, CUDA_R_16BF);
    cublasLtMatrixLayoutDestroy(s.d);
    assert_int_equal(cublasLtMatrixLayoutCreate(&s.d, CUDA_R_32F, M, N - 1, LDY), 0);
    cublasLtMatrixLayoutDestroy(s.b);
    assert_int_equal(cublasLtMatrixLayoutCreate(&s.b, CUDA_R_16BF, K, N - 1, LDX), 0);
    s.y = (char *)s.y + 4;
    assert_int_equal(multiply(&s, 1, 0, WORKSPACE), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(
        cublasLtMatmulPreferenceSetAttribute(
            s.preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &odd, sizeof odd),
        CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(
        cublasLtMatmulPreferenceSetAttribute(
            s.preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment, sizeof alignment),
        0);
    assert_int_equal(multiply(&s, 1, 0, WORKSPACE), 0);
    assert_int_equal(cudaStreamSynchronize(s.stream), 0);
    s.y = (char *)s.y - 4;
    end(&s);
}

static void test_wrong_memory_and_attributes_are_refused(void **state)
{
    struct setup s;
    size_t small_attribute = 1;
    int32_t value = 5;
    const float *w = NULL;
    (void)state;
    begin(&s, CUDA_R_16BF, CUDA_R_32F, 1);
    fill(&s, CUDA_R_16BF);
    assert_int_equal(multiply(&s, 1, 0, 16), CUBLAS_STATUS_INVALID_VALUE); /* of workspace */
    w = s.w;
    s.w = s.host; /* not the device's */
    assert_int_equal(multiply(&s, 1, 0, WORKSPACE), CUBLAS_STATUS_INVALID_VALUE);
    memcpy(&s.w, &w, sizeof s.w);
    assert_int_equal(cublasLtMatmulDescSetAttribute(s.desc, (cublasLtMatmulDescAttributes_t)7,
                                                    &value, sizeof value),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(
        cublasLtMatmulDescSetAttribute(s.desc, CUBLASLT_MATMUL_DESC_TRANSA, &value, sizeof value),
        CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(
        cublasLtMatmulDescSetAttribute(s.desc, CUBLASLT_MATMUL_DESC_TRANSA, &small_attribute, 1),
        CUBLAS_STATUS_INVALID_VALUE);
    end(&s);
    simt_machine_set(&(struct simt_machine){.devices = 0, .driver = 13000});
    assert_int_equal(cublasLtCreate(&s.lt), CUBLAS_STATUS_NOT_INITIALIZED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_are_those_of_double_arithmetic),
        cmocka_unit_test(test_scales_of_rows_and_columns_count),
        cmocka_unit_test(test_a_product_has_its_turn),
        cmocka_unit_test(test_reads_of_what_nobody_wrote_are_faults),
        cmocka_unit_test(test_wrong_layouts_are_refused),
        cmocka_unit_test(test_an_address_is_as_aligned_as_was_said),
        cmocka_unit_test(test_wrong_memory_and_attributes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
