/* cuda_pass.c: the operations of a pass on a GPU: each queues its kernels and returns. */
#include "runtime/base/check.h"
#include "runtime/engine/backend_cuda.h"

static struct cuda_pass *of(struct pass *p)
{
    return (struct cuda_pass *)p;
}

/* Nothing is queued behind an error. */
static bool goes_on(const struct cuda_pass *p)
{
    return p->cuda->failed.code == 0 && p->rows > 0;
}

static struct kn_act *shape_act(struct cuda_pass *p, int64_t k)
{
    p->cuda->act.k = k;
    return &p->cuda->act;
}

/* The same for what a rank has k columns of, until end_act gathers it. */
static struct kn_act *begin_act(struct cuda_pass *p, int64_t k)
{
    if (!p->cuda->group)
        return shape_act(p, k);
    p->cuda->part_act.k = k;
    return &p->cuda->part_act;
}

static void end_act(struct cuda_pass *p, const struct columns *by)
{
    if (p->cuda->group && p->rows > 0)
        cuda_gather_act(p, by);
}

static void cuda_embed(struct pass *base, const struct kn_matrix *w, float scale)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    if (c->group) {
        c->embed = w;
        c->embed_scale = scale;
        if (!c->embedded)
            cuda_group_embed(c, w, scale);
        return;
    }
    const struct kn_matrix m = cuda_matrix(c, w);
    if (goes_on(p))
        cuda_ok(c, kn_cuda_embed(&m, c->device.ids, p->rows, scale, p->x, c->stream), "embed");
}

static void cuda_norm(struct pass *base, const float *w, float w_offset, float eps)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t d = c->model->h.n_embd;
    const struct kn_act *act = shape_act(p, d);
    if (goes_on(p))
        cuda_ok(c,
                kn_cuda_rmsnorm_quantize(p->x, cuda_vector(c, w), w_offset, eps, 0, p->rows, d, act,
                                         c->stream),
                "rmsnorm");
}

static void multiply(struct cuda_pass *p, const struct kn_matrix *w, bool accumulate, float *y,
                     int64_t ldy)
{
    struct cuda *c = p->cuda;
    if (w->rows == 0 || !goes_on(p)) /* a rank may have none */
        return;
    if (c->limits.fast) {
        cuda_fast_multiply(p, w, accumulate, y, ldy);
        return;
    }
    const struct kn_matrix m = cuda_matrix(c, w);
    cuda_ok(c, kn_cuda_matmul(&m, &c->act, p->rows, 0, m.rows, accumulate, y, ldy, c->stream),
            "matmul");
}

static void cuda_project(struct pass *base, const struct kn_matrix *const *w, int n,
                         const float *bias)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t ldy = 0, column = 0;
    for (int i = 0; i < n; i++)
        ldy += w[i]->rows;
    for (int i = 0; i < n; column += w[i]->rows, i++)
        multiply(p, w[i], false, c->y + column, ldy);
    if (bias && ldy > 0 && goes_on(p))
        cuda_ok(c, kn_cuda_add_bias(c->y, ldy, p->rows, ldy, cuda_vector(c, bias), c->stream),
                "add_bias");
    column = 0;
    for (int i = 0; i < n; column += w[i]->rows, i++)
        cuda_lora(c, w[i], c->y + column, ldy);
}

/* The end of what adds to x. */
static void x_done(struct cuda_pass *p)
{
    if (p->cuda->group && p->rows > 0)
        cuda_gather_x(p);
}

static void cuda_project_add(struct pass *base, const struct kn_matrix *w)
{
    struct cuda_pass *p = of(base);
    multiply(p, w, true, cuda_own_x(p), p->cuda->model->h.n_embd);
    cuda_lora(p->cuda, w, cuda_own_x(p), p->cuda->model->h.n_embd);
    x_done(p);
}

static void cuda_add_norm(struct pass *base, const float *w, float w_offset, float eps)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    if (c->group && p->rows > 0)
        cuda_gather_y(p);
    if (goes_on(p))
        cuda_ok(c,
                kn_cuda_add_norm(c->group ? c->whole : c->y, cuda_vector(c, w), w_offset, eps,
                                 p->rows, c->model->h.n_embd, p->x, c->stream),
                "add_norm");
}

static void cuda_gate(struct pass *base, enum pass_gate kind)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t ff = c->n_ff;
    const struct kn_act *act = begin_act(p, ff);
    if (ff > 0 && goes_on(p))
        cuda_ok(c,
                (kind == PASS_GEGLU ? kn_cuda_geglu_quantize : kn_cuda_swiglu_quantize)(
                    c->y, 2 * ff, 0, p->n_act, ff, act, c->stream),
                "gate");
    end_act(p, &c->by.ff);
}

/* ---- attention ---------------------------------------------------------------------------------
 */

static void norm_heads(struct cuda_pass *p, const struct pass_attention *a, int64_t ldy)
{
    struct cuda *c = p->cuda;
    const float *q = a->q_norm ? cuda_vector(c, a->q_norm) : NULL;
    const float *k = a->k_norm ? cuda_vector(c, a->k_norm) : NULL;
    if ((q || k) && goes_on(p))
        cuda_ok(c,
                kn_cuda_norm_heads(c->y, ldy, p->rows, (int)c->n_heads, (int)c->n_kv_heads,
                                   (int)c->model->h.head_dim, q, k, a->norm_eps, c->stream),
                "norm_heads");
}

/* Rows [first, first + n) of the batch. */
static struct kn_cuda_attn rows_from(const struct kn_cuda_attn *a, int64_t first, int64_t n)
{
    struct kn_cuda_attn some = *a;
    some.q += first * a->ldq;
    some.out += first * a->ldo;
    some.rows.pos += first;
    some.rows.table_at += first;
    some.rows.n = n;
    return some;
}

/* Rows that are each a sequence's only one, by split of their contexts, as many at once as `part`
 * has room for. */
static void attend_single(struct cuda_pass *p, const struct kn_cuda_attn *a, int64_t first,
                          int64_t n)
{
    struct cuda *c = p->cuda;
    uint32_t splits = c->splits;
    size_t row_bytes = kn_cuda_attention_part_bytes(1, a->n_heads, a->kv.head_dim, splits);
    int64_t most = (int64_t)(c->part_bytes / row_bytes);
    for (int64_t i = 0, rows; i < n && goes_on(p); i += rows) {
        rows = n - i < most ? n - i : most;
        const struct kn_cuda_attn some = rows_from(a, first + i, rows);
        cuda_ok(c, kn_cuda_attention(&some, splits, c->part, c->stream), "attention");
    }
}

/* On tensor cores: not for int8 pages. */
static bool has_flash(const struct cuda *c)
{
    return c->limits.fast && c->limits.kv_type == KN_KV_F16;
}

uint32_t cuda_tile_rows(const struct cuda *c)
{
    int n = (int)c->n_heads, n_kv = (int)c->n_kv_heads;
    if (n == 0)
        return 1;
    return has_flash(c) ? kn_cuda_attention_flash_rows(n, n_kv, (int)c->model->h.head_dim)
                        : kn_cuda_attention_rows(n, n_kv);
}

/* The batch's rows: those of prompts share what they read, in tiles (backend_cuda.c). */
static void attend_all(struct cuda_pass *p, const struct kn_cuda_attn *a)
{
    struct cuda *c = p->cuda;
    const struct batch *b = c->batch;
    int64_t row = 0, first = 0;
    for (uint32_t i = 0; i < b->n_spans; i++) {
        if (b->spans[i].rows > 1) {
            attend_single(p, a, first, row - first);
            first = row + b->spans[i].rows;
        }
        row += b->spans[i].rows;
    }
    attend_single(p, a, first, row - first);
    if (c->n_tiles > 0 && goes_on(p))
        cuda_ok(c,
                (has_flash(c) ? kn_cuda_attention_flash : kn_cuda_attention_prefill)(
                    a, c->device.tiles, c->n_tiles, c->stream),
                "attention");
}

/* q, k and v of the rows are in y; what comes of them in out. A rank may have no heads. */
void cuda_attend_heads(struct cuda_pass *p, uint32_t layer, const struct pass_attention *a)
{
    struct cuda *c = p->cuda;
    int head_dim = (int)c->model->h.head_dim;
    int64_t width = (int64_t)c->n_heads * head_dim;
    int64_t ldy = width + 2 * (int64_t)c->n_kv_heads * head_dim;
    const struct kn_rope_table *rope = a->local_rope ? &c->local_rope : &c->rope;
    const struct kn_kv kv = {.pages = c->kv + layer * c->page_elems,
                             .page_stride = c->page_elems * c->model->h.n_layers,
                             .n_kv_heads = (int)c->n_kv_heads,
                             .head_dim = head_dim,
                             .type = c->limits.kv_type};
    const struct kn_cuda_rows rows = {.pos = c->device.pos,
                                      .table = c->device.table,
                                      .table_at = c->device.table_at,
                                      .n = p->rows};
    const struct kn_cuda_attn attn = {.q = c->y,
                                      .ldq = ldy,
                                      .out = c->out,
                                      .ldo = width,
                                      .kv = kv,
                                      .rows = rows,
                                      .n_heads = (int)c->n_heads,
                                      .scale = a->scale,
                                      .window = a->window,
                                      .softcap = a->softcap};

    norm_heads(p, a, ldy);
    if (goes_on(p))
        cuda_ok(c,
                kn_cuda_rope_kv(c->y, ldy, (int)c->n_heads, &kv, &rows, rope, a->rope, c->stream),
                "rope");
    attend_all(p, &attn);
}

static void cuda_attend(struct pass *base, uint32_t layer, const struct pass_attention *a)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t width = (int64_t)c->n_heads * c->model->h.head_dim;
    const struct kn_act *act = begin_act(p, width);
    if (width > 0)
        cuda_attend_heads(p, layer, a);
    if (width > 0 && goes_on(p))
        cuda_ok(c, kn_cuda_quantize(c->out, width, 0, p->rows, act, c->stream), "quantize");
    end_act(p, &c->by.heads);
}

/* ---- experts -----------------------------------------------------------------------------------
 */

/* act stays the rows': the first matrices read a slot's row where it is. */
static void cuda_route(struct pass *base)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    const struct hparams *h = &c->model->h;
    if (goes_on(p))
        cuda_ok(c,
                kn_cuda_route(c->y, h->n_experts, p->rows, (int)h->n_experts,
                              (int)h->n_experts_used, c->expert_ids, c->expert_weights,
                              c->expert_slots, c->slot_rows, c->expert_begin, c->route_scratch,
                              c->stream),
                "route");
    p->n_act = p->rows * h->n_experts_used;
}

/* Each expert's slots with its matrix. x_rows: rows of act; NULL: act has the slots themselves. */
static void multiply_experts(struct cuda_pass *p, const struct kn_matrix *w, const uint32_t *x_rows,
                             float *y, int64_t ldy)
{
    struct cuda *c = p->cuda;
    if (w->rows > 0 && goes_on(p))
        cuda_ok(c,
                kn_cuda_matmul_experts(w, cuda_experts(c, w), (int)c->model->h.n_experts, &c->act,
                                       x_rows, c->expert_begin, p->n_act, y, ldy, c->stream),
                "matmul of experts");
}

static void cuda_project_experts(struct pass *base, const struct kn_matrix *const *w, int n)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t ldy = 0, column = 0;
    for (int i = 0; i < n; i++)
        ldy += w[i]->rows;
    for (int i = 0; i < n; column += w[i]->rows, i++)
        multiply_experts(p, w[i], c->slot_rows, c->y + column, ldy);
}

static void cuda_combine_experts(struct pass *base, const struct kn_matrix *w)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    const struct hparams *h = &c->model->h;
    multiply_experts(p, w, NULL, c->y, w->rows);
    p->n_act = p->rows;
    if (w->rows > 0 && goes_on(p))
        cuda_ok(c,
                kn_cuda_combine(c->y, c->expert_slots, c->expert_weights, p->rows,
                                (int)h->n_experts_used, w->rows, cuda_own_x(p), h->n_embd,
                                c->stream),
                "combine");
    x_done(p);
}

/* ---- the end -----------------------------------------------------------------------------------
 */

/* In place, as nobody takes logits of these rows; backend_cuda.c adds them up behind the pass. */
static void cuda_pool(struct pass *base, const float *w, float w_offset, float eps)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t d = c->model->h.n_embd;
    for (uint32_t i = 0; i < c->batch->n_pools && cuda_picks(c) && goes_on(p); i++) {
        const struct pooling *k = &c->batch->pools[i];
        float *x = p->x + k->row * d;
        cuda_ok(c, kn_cuda_rmsnorm(x, cuda_vector(c, w), w_offset, eps, k->rows, d, x, c->stream),
                "rmsnorm");
    }
}

static void cuda_select(struct pass *base)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    p->rows = c->batch->n_picks;
    p->n_act = p->rows;
    if (goes_on(p))
        cuda_ok(c,
                kn_cuda_gather(p->x, c->device.picks, p->rows, c->model->h.n_embd, c->picked,
                               c->stream),
                "gather");
    p->x = c->picked;
}

static void cuda_head(struct pass *base, const struct kn_matrix *w)
{
    struct cuda_pass *p = of(base);
    /* Rank 0's rows become whole where they are. */
    multiply(p, w, false, p->cuda->logits, cuda_picks(p->cuda) ? p->cuda->model->h.vocab : w->rows);
    if (p->cuda->group && p->rows > 0)
        cuda_gather_logits(p);
}

static void cuda_softcap(struct pass *base, float cap)
{
    struct cuda_pass *p = of(base);
    struct cuda *c = p->cuda;
    int64_t vocab = c->model->h.vocab;
    if (cuda_picks(c) && goes_on(p))
        cuda_ok(c, kn_cuda_softcap(c->logits, vocab, p->rows, vocab, cap, c->stream), "softcap");
}

const struct pass_ops cuda_pass_ops = {
    .embed = cuda_embed,
    .norm = cuda_norm,
    .project = cuda_project,
    .attend = cuda_attend,
    .gate = cuda_gate,
    .project_add = cuda_project_add,
    .add_norm = cuda_add_norm,
    .route = cuda_route,
    .project_experts = cuda_project_experts,
    .combine_experts = cuda_combine_experts,
    .pool = cuda_pool,
    .select = cuda_select,
    .head = cuda_head,
    .softcap = cuda_softcap,
};
