/* cuda_fast.c: fast mode on a GPU: the operations of a pass that exact mode has other forms of.
 *
 * Activations go into products as bf16, weights are bf16 rows as in the file, sums are fp32 in
 * cuBLASLt's order: of a row it depends on the batch, the GPU and the library. In fp8 the products
 * of layers are of e4m3, with a scale for each row of weights and of activations; embedding and
 * head stay bf16. Residual stream, norms, rope and KV are those of exact mode. Prompts attend on
 * tensor cores, but over int8 pages; rows of decoding as in exact mode. */
#include "runtime/engine/backend_cuda.h"

#include <string.h>

#include "runtime/base/check.h"

/* What NVIDIA recommends for Hopper; smaller GPUs use less of it. */
#define WORKSPACE_BYTES ((size_t)32 << 20)
#define ADDRESS_ALIGN 256u
/* What cuBLASLt's fp8 wants widths to be multiples of. */
#define FP8_WIDTH 16u
#define FP8_MAJOR_MIN 9

static bool lt_ok(struct cuda *c, cublasStatus_t rc, const char *what)
{
    if (rc != CUBLAS_STATUS_SUCCESS && c->failed.code == 0)
        err_set(&c->failed, rc == CUBLAS_STATUS_ALLOC_FAILED ? ERR_CONFIG : ERR_PEER,
                "GPU %d (%.60s): cuBLASLt: %s: %.200s", c->gpu.index, c->gpu.name, what,
                cublasLtGetStatusString(rc));
    return c->failed.code == 0;
}

/* ---- plans -------------------------------------------------------------------------------------
 */

static void free_plan(struct cuda_plan *p)
{
    if (p->a)
        (void)cublasLtMatrixLayoutDestroy(p->a);
    if (p->b)
        (void)cublasLtMatrixLayoutDestroy(p->b);
    if (p->y)
        (void)cublasLtMatrixLayoutDestroy(p->y);
    *p = (struct cuda_plan){.used = 0};
}

static bool set_alignment(struct cuda *c, uint32_t bytes)
{
    return lt_ok(c,
                 cublasLtMatmulPreferenceSetAttribute(c->fast.preference,
                                                      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                      &bytes, sizeof(bytes)),
                 "a preference") &&
           lt_ok(c,
                 cublasLtMatmulPreferenceSetAttribute(c->fast.preference,
                                                      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                                                      &bytes, sizeof(bytes)),
                 "a preference");
}

/* For p's key; what it has by then is freed by who frees p. */
static void make_plan(struct cuda *c, struct cuda_plan *p)
{
    const struct cuda_plan_key *k = &p->key;
    const struct cuda_fast *f = &c->fast;
    const cudaDataType type = k->fp8 ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    if (!lt_ok(
            c,
            cublasLtMatrixLayoutCreate(&p->a, type, (uint64_t)k->cols, (uint64_t)k->rows, k->cols),
            "a layout") ||
        !lt_ok(c, cublasLtMatrixLayoutCreate(&p->b, type, (uint64_t)k->cols, k->tokens, k->cols),
               "a layout") ||
        !lt_ok(c,
               cublasLtMatrixLayoutCreate(&p->y, CUDA_R_32F, (uint64_t)k->rows, k->tokens, k->ldy),
               "a layout") ||
        !set_alignment(c, k->alignment) ||
        !lt_ok(c,
               cublasLtMatmulAlgoGetHeuristic(f->lt, k->fp8 ? f->scaled : f->desc, p->a, p->b, p->y,
                                              p->y, f->preference, 1, &found, &n),
               "choosing an algorithm"))
        return;
    if (n == 0) {
        lt_ok(c, CUBLAS_STATUS_NOT_SUPPORTED, "choosing an algorithm");
        return;
    }
    p->algo = found.algo;
}

static bool is_same(const struct cuda_plan_key *a, const struct cuda_plan_key *b)
{
    return a->rows == b->rows && a->cols == b->cols && a->ldy == b->ldy && a->tokens == b->tokens &&
           a->alignment == b->alignment && a->fp8 == b->fp8;
}

/* The key's plan; of those of its set, the one used the longest ago makes room. */
static const struct cuda_plan *plan_of(struct cuda *c, const struct cuda_plan_key *key)
{
    struct cuda_fast *f = &c->fast;
    uint64_t hash = (uint64_t)key->rows * 31 + (uint64_t)key->cols * 17 + (uint64_t)key->ldy * 7;
    struct cuda_plan *set = f->plans[(hash + key->tokens) % CUDA_PLAN_SETS], *oldest = set;
    for (uint32_t i = 0; i < CUDA_PLAN_WAYS; i++) {
        if (set[i].used > 0 && is_same(&set[i].key, key)) {
            set[i].used = ++f->uses;
            return &set[i];
        }
        if (set[i].used < oldest->used)
            oldest = &set[i];
    }
    free_plan(oldest);
    oldest->key = *key;
    make_plan(c, oldest);
    oldest->used = ++f->uses;
    return oldest;
}

static uint32_t alignment_of(const void *p)
{
    uintptr_t at = (uintptr_t)p | ADDRESS_ALIGN;
    return (uint32_t)(at & -at);
}

/* Whether the matrix is e4m3 on the device. */
static bool is_fp8(const struct cuda *c, const struct kn_matrix *w)
{
    return c->limits.fast == FAST_FP8 && w->data != c->model->embed.data &&
           w->data != c->model->head.data;
}

/* For the next product, which takes the addresses with it. weights: of w, as cuda_fast_pack has it.
 */
static bool point_to_scales(struct cuda *c, const struct kn_matrix *w, const void *weights)
{
    const void *of_w = (const char *)weights + w->rows * w->cols, *of_act = c->fast.scale;
    return lt_ok(c,
                 cublasLtMatmulDescSetAttribute(
                     c->fast.scaled, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &of_w, sizeof(of_w)),
                 "scales") &&
           lt_ok(c,
                 cublasLtMatmulDescSetAttribute(
                     c->fast.scaled, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &of_act, sizeof(of_act)),
                 "scales");
}

void cuda_fast_multiply(struct cuda_pass *p, const struct kn_matrix *w, bool accumulate, float *y,
                        int64_t ldy)
{
    static const float one = 1, zero = 0;
    struct cuda *c = p->cuda;
    const struct cuda_fast *f = &c->fast;
    bool fp8 = is_fp8(c, w);
    const void *weights = cuda_matrix(c, w).data;
    if (fp8 && !point_to_scales(c, w, weights))
        return;
    const struct cuda_plan *plan = plan_of(c, &(struct cuda_plan_key){.rows = w->rows,
                                                                      .cols = w->cols,
                                                                      .ldy = ldy,
                                                                      .tokens = p->rows,
                                                                      .alignment = alignment_of(y),
                                                                      .fp8 = fp8});
    const void *act = fp8 ? (const void *)f->narrow : f->act;
    if (c->failed.code == 0)
        lt_ok(c,
              cublasLtMatmul(f->lt, fp8 ? f->scaled : f->desc, &one, weights, plan->a, act, plan->b,
                             accumulate ? &one : &zero, y, plan->y, y, plan->y, &plan->algo,
                             f->workspace, WORKSPACE_BYTES, c->stream),
              "a product");
}

/* ---- operations --------------------------------------------------------------------------------
 */

static struct cuda_pass *of(struct pass *p)
{
    return (struct cuda_pass *)p;
}

static bool goes_on(const struct cuda_pass *p)
{
    return p->cuda->failed.code == 0 && p->rows > 0;
}

/* act (rows, k) is there: in fp8, as products read it too. */
static void end_act(struct cuda_pass *p, int64_t k)
{
    struct cuda *c = p->cuda;
    if (c->limits.fast == FAST_FP8 && goes_on(p))
        cuda_ok(c, kn_cuda_fp8(c->fast.act, p->rows, k, c->fast.narrow, c->fast.scale, c->stream),
                "fp8");
}

static void fast_embed(struct pass *base, const struct kn_matrix *w, float scale)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    if (goes_on(p))
        cuda_ok(c,
                kn_cuda_embed_bf16(cuda_matrix(c, w).data, w->cols, c->device.ids, p->rows, scale,
                                   p->x, c->stream),
                "embed");
}

static void fast_norm(struct pass *base, const float *w, float w_offset, float eps)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    if (goes_on(p))
        cuda_ok(c,
                kn_cuda_rmsnorm_bf16(p->x, cuda_vector(c, w), w_offset, eps, p->rows,
                                     c->model->h.n_embd, c->fast.act, c->stream),
                "rmsnorm");
    end_act(p, c->model->h.n_embd);
}

static void fast_attend(struct pass *base, uint32_t layer, const struct pass_attention *a)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t width = (int64_t)c->model->h.n_heads * c->model->h.head_dim;
    cuda_attend_heads(p, layer, a);
    if (goes_on(p))
        cuda_ok(c, kn_cuda_bf16(c->out, width, p->rows, width, c->fast.act, c->stream), "bf16");
    end_act(p, width);
}

static void fast_gate(struct pass *base, enum pass_gate kind)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t ff = c->model->h.n_ff;
    if (goes_on(p))
        cuda_ok(c,
                (kind == PASS_GEGLU ? kn_cuda_geglu_bf16 : kn_cuda_swiglu_bf16)(
                    c->y, 2 * ff, p->rows, ff, c->fast.act, c->stream),
                "gate");
    end_act(p, ff);
}

/* ---- life --------------------------------------------------------------------------------------
 */

/* y = x W', sums in fp32. */
static bool describe(struct cuda *c, cublasLtMatmulDesc_t *desc)
{
    int32_t turned = CUBLAS_OP_T;
    return lt_ok(c, cublasLtMatmulDescCreate(desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "a description") &&
           lt_ok(c,
                 cublasLtMatmulDescSetAttribute(*desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                                sizeof(turned)),
                 "a description");
}

/* Of rows with a scale each, on both sides. */
static bool describe_scaled(struct cuda *c)
{
    struct cuda_fast *f = &c->fast;
    int32_t rows = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    return describe(c, &f->scaled) &&
           lt_ok(c,
                 cublasLtMatmulDescSetAttribute(f->scaled, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, &rows,
                                                sizeof(rows)),
                 "a scale for each row") &&
           lt_ok(c,
                 cublasLtMatmulDescSetAttribute(f->scaled, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, &rows,
                                                sizeof(rows)),
                 "a scale for each row");
}

static bool describe_product(struct cuda *c)
{
    struct cuda_fast *f = &c->fast;
    size_t most = WORKSPACE_BYTES;
    return lt_ok(c, cublasLtCreate(&f->lt), "starting") && describe(c, &f->desc) &&
           lt_ok(c, cublasLtMatmulPreferenceCreate(&f->preference), "a preference") &&
           lt_ok(c,
                 cublasLtMatmulPreferenceSetAttribute(
                     f->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof(most)),
                 "a preference");
}

static int refuse_fp8(const struct cuda *c, struct err *e)
{
    const struct hparams *h = &c->model->h;
    const uint32_t widths[] = {h->n_embd, h->n_ff, h->n_heads * h->head_dim,
                               h->n_kv_heads * h->head_dim};
    if (c->gpu.major < FP8_MAJOR_MIN)
        return err_set(
            e, ERR_CONFIG,
            "fast=fp8: %.100s has compute capability %d.%d, wanted at least %d.0 (H100); "
            "fast=bf16 serves it",
            c->gpu.name, c->gpu.major, c->gpu.minor, FP8_MAJOR_MIN);
    for (size_t i = 0; i < ARRAY_LEN(widths); i++)
        if (widths[i] % FP8_WIDTH != 0)
            return err_set(e, ERR_CONFIG,
                           "fast=fp8: a width of the model is %u, wanted multiples of %u; "
                           "fast=bf16 serves it",
                           widths[i], FP8_WIDTH);
    return 0;
}

int cuda_fast_open(struct cuda *c, struct err *e)
{
    const char *why = cublaslt_library();
    bool fp8 = c->limits.fast == FAST_FP8;
    if (why)
        return err_set(e, ERR_CONFIG, "fast=%s: cuBLASLt is not installed here: %.200s",
                       fast_name(c->limits.fast), why);
    int rc = fp8 ? refuse_fp8(c, e) : 0;
    if (rc < 0)
        return rc;
    c->fast.ops = cuda_pass_ops;
    c->fast.ops.embed = fast_embed;
    c->fast.ops.norm = fast_norm;
    c->fast.ops.attend = fast_attend;
    c->fast.ops.gate = fast_gate;
    return describe_product(c) && (!fp8 || describe_scaled(c))
               ? 0
               : err_set(e, c->failed.code, "%s", c->failed.msg);
}

void cuda_fast_release(struct cuda *c)
{
    struct cuda_fast *f = &c->fast;
    for (uint32_t i = 0; i < CUDA_PLAN_SETS; i++)
        for (uint32_t k = 0; k < CUDA_PLAN_WAYS; k++)
            free_plan(&f->plans[i][k]);
    if (f->preference)
        (void)cublasLtMatmulPreferenceDestroy(f->preference);
    if (f->desc)
        (void)cublasLtMatmulDescDestroy(f->desc);
    if (f->scaled)
        (void)cublasLtMatmulDescDestroy(f->scaled);
    if (f->lt)
        (void)cublasLtDestroy(f->lt);
}

size_t cuda_fast_workspace_bytes(void)
{
    return WORKSPACE_BYTES;
}

/* ---- weights -----------------------------------------------------------------------------------
 */

size_t cuda_fast_pack_bytes(const struct cuda *c, const struct kn_matrix *w)
{
    size_t n = (size_t)w->rows * (size_t)w->cols;
    return is_fp8(c, w) ? n + (size_t)w->rows * sizeof(float) : n * sizeof(uint16_t);
}

/* Nearest, ties to even. A value that is not finite stays so. */
static uint16_t bf16_of(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof(u));
    if ((u & 0x7fffffff) > 0x7f800000)
        return 0x7fff;
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static void pack_bf16(const struct kn_matrix *w, uint16_t *to)
{
    float part[256];
    int64_t n = w->rows * w->cols;
    size_t bytes = kn_type_block_bytes(w->type);
    if (w->type == KN_BF16) {
        memcpy(to, w->data, (size_t)n * sizeof(*to));
        return;
    }
    for (int64_t i = 0, step; i < n; i += step) {
        step = n - i < (int64_t)ARRAY_LEN(part) ? n - i : (int64_t)ARRAY_LEN(part);
        kn_dequantize_row(w->type, (const char *)w->data + (size_t)i * bytes, step, part);
        for (int64_t k = 0; k < step; k++)
            to[i + k] = bf16_of(part[k]);
    }
}

void cuda_fast_pack(const struct cuda *c, const struct kn_matrix *w, void *to)
{
    ASSERT(kn_type_block(w->type) == 1); /* checkpoint_keep_floats */
    if (!is_fp8(c, w)) {
        pack_bf16(w, to);
        return;
    }
    float *scales = (float *)(void *)((char *)to + w->rows * w->cols); /* 16 divides cols */
    size_t row_bytes = (size_t)w->cols * kn_type_block_bytes(w->type);
    for (int64_t r = 0; r < w->rows; r++)
        scales[r] =
            kn_cuda_pack_fp8(w->type, w->cols, (const char *)w->data + (size_t)r * row_bytes,
                             (uint8_t *)to + r * w->cols);
}
