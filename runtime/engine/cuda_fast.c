/* cuda_fast.c: fast mode on a GPU: the operations of a pass that exact mode has other forms of.
 *
 * Activations go into products as bf16, weights are bf16 rows as in the file, sums are fp32 in
 * cuBLASLt's order: of a row it depends on the batch, the GPU and the library. Residual stream,
 * norms, rope and KV are those of exact mode. Prompts attend on tensor cores, but over int8 pages;
 * rows of decoding as in exact mode. */
#include "runtime/engine/backend_cuda.h"

#include <string.h>

#include "runtime/base/check.h"

/* What NVIDIA recommends for Hopper; smaller GPUs use less of it. */
#define WORKSPACE_BYTES ((size_t)32 << 20)
#define ADDRESS_ALIGN 256u

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
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    if (!lt_ok(c,
               cublasLtMatrixLayoutCreate(&p->a, CUDA_R_16BF, (uint64_t)k->cols, (uint64_t)k->rows,
                                          k->cols),
               "a layout") ||
        !lt_ok(
            c,
            cublasLtMatrixLayoutCreate(&p->b, CUDA_R_16BF, (uint64_t)k->cols, k->tokens, k->cols),
            "a layout") ||
        !lt_ok(c,
               cublasLtMatrixLayoutCreate(&p->y, CUDA_R_32F, (uint64_t)k->rows, k->tokens, k->ldy),
               "a layout") ||
        !set_alignment(c, k->alignment) ||
        !lt_ok(c,
               cublasLtMatmulAlgoGetHeuristic(f->lt, f->desc, p->a, p->b, p->y, p->y, f->preference,
                                              1, &found, &n),
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
           a->alignment == b->alignment;
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

/* y (rows, ldy) = w act, or added to it. */
static void multiply(struct cuda_pass *p, const struct kn_matrix *w, bool accumulate, float *y,
                     int64_t ldy)
{
    static const float one = 1, zero = 0;
    struct cuda *c = p->cuda;
    const struct cuda_fast *f = &c->fast;
    if (c->failed.code < 0 || p->rows == 0)
        return;
    const struct cuda_plan *plan =
        plan_of(c, &(struct cuda_plan_key){.rows = w->rows,
                                           .cols = w->cols,
                                           .ldy = ldy,
                                           .tokens = p->rows,
                                           .alignment = alignment_of(y)});
    if (c->failed.code == 0)
        lt_ok(c,
              cublasLtMatmul(f->lt, f->desc, &one, cuda_matrix(c, w).data, plan->a, f->act, plan->b,
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
}

static void fast_project(struct pass *base, const struct kn_matrix *const *w, int n,
                         const float *bias)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t ldy = 0, column = 0;
    for (int i = 0; i < n; i++)
        ldy += w[i]->rows;
    for (int i = 0; i < n; column += w[i]->rows, i++)
        multiply(p, w[i], false, c->y + column, ldy);
    if (bias && goes_on(p))
        cuda_ok(c, kn_cuda_add_bias(c->y, ldy, p->rows, ldy, cuda_vector(c, bias), c->stream),
                "add_bias");
}

static void fast_attend(struct pass *base, uint32_t layer, const struct pass_attention *a)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t width = (int64_t)c->model->h.n_heads * c->model->h.head_dim;
    cuda_attend_heads(p, layer, a);
    if (goes_on(p))
        cuda_ok(c, kn_cuda_bf16(c->out, width, p->rows, width, c->fast.act, c->stream), "bf16");
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
}

static void fast_project_add(struct pass *base, const struct kn_matrix *w)
{
    struct cuda_pass *p = of(base);
    multiply(p, w, true, p->x, p->cuda->model->h.n_embd);
}

static void fast_head(struct pass *base, const struct kn_matrix *w)
{
    struct cuda_pass *p = of(base);
    multiply(p, w, false, p->cuda->logits, p->cuda->model->h.vocab);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static bool describe_product(struct cuda *c)
{
    struct cuda_fast *f = &c->fast;
    int32_t turned = CUBLAS_OP_T;
    size_t most = WORKSPACE_BYTES;
    return lt_ok(c, cublasLtCreate(&f->lt), "starting") &&
           lt_ok(c, cublasLtMatmulDescCreate(&f->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                 "a description") &&
           lt_ok(c,
                 cublasLtMatmulDescSetAttribute(f->desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                                sizeof(turned)),
                 "a description") &&
           lt_ok(c, cublasLtMatmulPreferenceCreate(&f->preference), "a preference") &&
           lt_ok(c,
                 cublasLtMatmulPreferenceSetAttribute(
                     f->preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof(most)),
                 "a preference");
}

int cuda_fast_open(struct cuda *c, struct err *e)
{
    const char *why = cublaslt_library();
    if (why)
        return err_set(e, ERR_CONFIG, "fast=bf16: cuBLASLt is not installed here: %.200s", why);
    c->fast.ops = cuda_pass_ops;
    c->fast.ops.embed = fast_embed;
    c->fast.ops.norm = fast_norm;
    c->fast.ops.project = fast_project;
    c->fast.ops.attend = fast_attend;
    c->fast.ops.gate = fast_gate;
    c->fast.ops.project_add = fast_project_add;
    c->fast.ops.head = fast_head;
    return describe_product(c) ? 0 : err_set(e, c->failed.code, "%s", c->failed.msg);
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
    if (f->lt)
        (void)cublasLtDestroy(f->lt);
}

size_t cuda_fast_workspace_bytes(void)
{
    return WORKSPACE_BYTES;
}

/* ---- weights -----------------------------------------------------------------------------------
 */

size_t cuda_fast_pack_bytes(const struct kn_matrix *w)
{
    return (size_t)w->rows * (size_t)w->cols * sizeof(uint16_t);
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

void cuda_fast_pack(const struct kn_matrix *w, void *to)
{
    float part[256];
    uint16_t *out = to;
    int64_t n = w->rows * w->cols;
    size_t bytes = kn_type_block_bytes(w->type);
    ASSERT(kn_type_block(w->type) == 1); /* checkpoint_keep_floats */
    if (w->type == KN_BF16) {
        memcpy(to, w->data, cuda_fast_pack_bytes(w));
        return;
    }
    for (int64_t i = 0, step; i < n; i += step) {
        step = n - i < (int64_t)ARRAY_LEN(part) ? n - i : (int64_t)ARRAY_LEN(part);
        kn_dequantize_row(w->type, (const char *)w->data + (size_t)i * bytes, step, part);
        for (int64_t k = 0; k < step; k++)
            out[i + k] = bf16_of(part[k]);
    }
}
