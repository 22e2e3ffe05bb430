/* cpu_pass.c: the operations of a pass on the CPU. Every thread runs all of this (backend.h). */
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/engine/backend_cpu.h"

static struct cpu_pass *of(struct pass *p)
{
    return (struct cpu_pass *)p;
}

static void barrier(struct cpu_pass *p)
{
    threads_barrier(p->cpu->threads);
}

static void slice(const struct cpu_pass *p, int64_t n, int64_t *begin, int64_t *end)
{
    threads_slice(p->cpu->n_threads, p->thread, n, begin, end);
}

/* What is gathered is all threads'. */
static bool is_private(const struct cpu_pass *p)
{
    return p->n_act <= CPU_PRIVATE_ROWS && !p->in_parts;
}

/* Shapes the pass's act as rows of k, in this thread's memory or the shared one. */
static void shape_act(struct cpu_pass *p, int64_t k)
{
    const struct cpu_act_room *r =
        is_private(p) ? &p->cpu->per_thread[p->thread].act : &p->cpu->act;
    p->act = (struct kn_act){.f = r->f, .q = r->q, .d = r->d, .s = r->s, .h = r->h, .k = k};
}

/* The rows of act that this thread makes; all of them when they are private. */
static void act_rows(const struct cpu_pass *p, int64_t *begin, int64_t *end)
{
    *begin = 0;
    *end = p->n_act;
    if (!is_private(p))
        slice(p, p->n_act, begin, end);
}

static void act_done(struct cpu_pass *p)
{
    if (!is_private(p))
        barrier(p);
}

/* The same for what a rank has k columns of: c->part, until end_act gathers it. */
static void begin_act(struct cpu_pass *p, int64_t k)
{
    const struct cpu_act_room *r = &p->cpu->part;
    p->in_parts = p->cpu->group != NULL;
    if (p->in_parts)
        p->act = (struct kn_act){.f = r->f, .q = r->q, .d = r->d, .s = r->s, .h = r->h, .k = k};
    else
        shape_act(p, k);
}

static void end_act(struct cpu_pass *p, const struct columns *by)
{
    if (p->in_parts)
        cpu_gather_act(p, by);
    else
        act_done(p);
    p->in_parts = false;
}

static void cpu_embed(struct pass *base, const struct kn_matrix *w, float scale)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end, d = w->cols;
    if (p->cpu->group) {
        cpu_group_embed(p, w, scale);
        return;
    }
    slice(p, p->rows, &begin, &end);
    if (end > begin)
        p->cpu->ops->embed(w, p->cpu->batch->ids + begin, end - begin, scale, p->x + begin * d);
    barrier(p);
}

static void cpu_norm(struct pass *base, const float *w, float w_offset, float eps)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end, d = p->cpu->model->h.n_embd;
    shape_act(p, d);
    act_rows(p, &begin, &end);
    if (end > begin)
        p->cpu->ops->rmsnorm_quantize(p->x, w, w_offset, eps, begin, end, d, &p->act);
    act_done(p);
}

/* Rows [begin, end) of w's tiles into y. */
static void matrix_rows(struct cpu_pass *p, const struct kn_matrix *w, int64_t tile_begin,
                        int64_t tile_end, bool accumulate, float *y, int64_t ldy)
{
    int64_t row_begin = tile_begin * KN_ROW_TILE, row_end = tile_end * KN_ROW_TILE;
    row_end = row_end < w->rows ? row_end : w->rows;
    if (row_end > row_begin && p->rows > 0)
        p->cpu->ops->matmul(w, &p->act, p->rows, row_begin, row_end, accumulate, y, ldy);
}

static int64_t tiles_of(const struct kn_matrix *w)
{
    return (w->rows + KN_ROW_TILE - 1) / KN_ROW_TILE;
}

/* Before y is written again: the others may still be reading it (cpu_gate). */
static void begin_y(struct cpu_pass *p)
{
    if (p->y_read)
        barrier(p);
    p->y_read = false;
}

static void cpu_project(struct pass *base, const struct kn_matrix *const *w, int n,
                        const float *bias)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end, tiles = 0, ldy = 0, first = 0, column = 0;
    begin_y(p);
    for (int i = 0; i < n; i++) {
        tiles += tiles_of(w[i]);
        ldy += w[i]->rows;
    }
    cpu_lora_down(p, w, n);
    slice(p, tiles, &begin, &end);
    for (int i = 0; i < n; i++) {
        int64_t t = tiles_of(w[i]);
        int64_t from = begin > first ? begin - first : 0, to = end - first < t ? end - first : t;
        if (to > from) {
            matrix_rows(p, w[i], from, to, false, p->cpu->y + column, ldy);
            int64_t r = from * KN_ROW_TILE;
            int64_t stop = to * KN_ROW_TILE < w[i]->rows ? to * KN_ROW_TILE : w[i]->rows;
            if (bias)
                p->cpu->ops->add_bias(p->cpu->y + column + r, ldy, p->rows, stop - r,
                                      bias + column + r);
            cpu_lora_up(p, w[i], i, r, stop, p->cpu->y + column, ldy);
        }
        first += t;
        column += w[i]->rows;
    }
    barrier(p);
}

/* Where this rank's columns of x begin. */
static float *own_x(const struct cpu_pass *p)
{
    return p->x + p->cpu->model->shard.embed.begin;
}

/* The end of what adds to x. */
static void x_done(struct cpu_pass *p)
{
    if (p->cpu->group)
        cpu_gather_x(p);
    else
        barrier(p);
}

static void cpu_project_add(struct pass *base, const struct kn_matrix *w)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end;
    cpu_lora_down(p, &w, 1);
    slice(p, tiles_of(w), &begin, &end);
    matrix_rows(p, w, begin, end, true, own_x(p), p->cpu->model->h.n_embd);
    cpu_lora_up(p, w, 0, begin * KN_ROW_TILE,
                end * KN_ROW_TILE < w->rows ? end * KN_ROW_TILE : w->rows, own_x(p),
                p->cpu->model->h.n_embd);
    x_done(p);
    p->y_read = false;
}

/* Rows in order, so that x + rmsnorm(y) is the sum of two finished numbers. */
static void cpu_add_norm(struct pass *base, const float *w, float w_offset, float eps)
{
    struct cpu_pass *p = of(base);
    const struct kn_ops *ops = p->cpu->ops;
    int64_t begin, end, d = p->cpu->model->h.n_embd;
    float *y = p->cpu->y;
    if (p->cpu->group) {
        cpu_gather_y(p);
        y = p->cpu->whole;
    }
    slice(p, p->rows, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        float *row = y + i * d;
        ops->rmsnorm(row, w, w_offset, eps, 1, d, row);
        ops->add_bias(p->x + i * d, d, 1, d, row);
    }
    barrier(p);
}

static void cpu_gate(struct pass *base, enum pass_gate kind)
{
    struct cpu_pass *p = of(base);
    const struct kn_ops *ops = p->cpu->ops;
    int64_t begin, end, ff = p->cpu->n_ff;
    begin_act(p, ff);
    act_rows(p, &begin, &end);
    if (end > begin && ff > 0)
        (kind == PASS_GEGLU ? ops->geglu_quantize : ops->swiglu_quantize)(p->cpu->y, 2 * ff, begin,
                                                                          end, ff, &p->act);
    end_act(p, &p->cpu->by.ff);
    p->y_read = is_private(p);
}

/* ---- attention --------------------------------------------------------------------------------
 */

/* Rows of a span from `row` to the end of its page, or of the span. */
static uint32_t rows_to_page_end(const struct kn_span *span, uint32_t row)
{
    uint32_t to_end = KN_PAGE_TOKENS - (span->pos + row) % KN_PAGE_TOKENS;
    return to_end < span->rows - row ? to_end : span->rows - row;
}

/* The heads of q and k, each to norm 1 and times its weights. */
static void norm_heads(const struct cpu *c, float *row, const struct pass_attention *a)
{
    const struct hparams *h = &c->model->h;
    float *k = row + (int64_t)c->n_heads * h->head_dim;
    if (a->q_norm)
        c->ops->rmsnorm(row, a->q_norm, 0.0f, a->norm_eps, c->n_heads, h->head_dim, row);
    if (a->k_norm)
        c->ops->rmsnorm(k, a->k_norm, 0.0f, a->norm_eps, c->n_kv_heads, h->head_dim, k);
}

/* Norms, rotates and stores this thread's share of the batch's rows. A page is one thread's: its
 * tokens lie side by side in one cache line. */
static void store_kv(struct cpu_pass *p, const struct kn_kv *kv, const struct pass_attention *a,
                     int64_t ldy)
{
    const struct cpu *c = p->cpu;
    const struct kn_rope_table *rope = a->local_rope ? &c->local_rope : &c->rope;
    int64_t begin, end, page = 0;
    slice(p, c->n_page_parts, &begin, &end);
    for (uint32_t i = 0; i < c->batch->n_spans && page < end; i++) {
        const struct kn_span *s = &c->batch->spans[i];
        for (uint32_t row = 0, n; row < s->rows && page < end; row += n, page++) {
            n = rows_to_page_end(s, row);
            struct kn_span part = {.page_table = s->page_table, .pos = s->pos + row, .rows = n};
            if (page < begin)
                continue;
            float *qkv = c->y + (int64_t)(c->span_begin[i] + row) * ldy;
            for (uint32_t j = 0; j < n; j++)
                norm_heads(c, qkv + j * ldy, a);
            c->ops->rope_kv(qkv, ldy, (int)c->n_heads, kv, &part, rope, a->rope);
        }
    }
}

static struct kn_attn attention_of(const struct cpu *c, uint32_t span, const struct kn_kv *kv,
                                   const struct pass_attention *a, int64_t ldy, int64_t ldo)
{
    uint32_t row = c->span_begin[span];
    return (struct kn_attn){.q = c->y + row * ldy,
                            .ldq = ldy,
                            .out = c->out + row * ldo,
                            .ldo = ldo,
                            .kv = *kv,
                            .span = c->batch->spans[span],
                            .n_heads = (int)c->n_heads,
                            .scale = a->scale,
                            .window = a->window,
                            .softcap = a->softcap};
}

/* Units are taken as threads get to them: rows cost what their context costs. */
static void attend_units(struct cpu_pass *p, uint32_t layer, const struct kn_kv *kv,
                         const struct pass_attention *a, int64_t ldy, int64_t ldo)
{
    struct cpu *c = p->cpu;
    for (;;) {
        uint32_t i = atomic_fetch_add_explicit(&c->next_unit[layer], 1, memory_order_relaxed);
        if (i >= c->n_units)
            break;
        const struct cpu_unit *u = &c->units[i];
        struct kn_attn attn = attention_of(c, u->span, kv, a, ldy, ldo);
        c->ops->attention(&attn, u->row_begin, u->row_end, u->head_begin, u->head_end);
    }
    barrier(p);
}

/* A single row of a long context: its splits are shared out, and every thread merges them into
 * memory of its own. */
static void attend_parts(struct cpu_pass *p, const struct kn_kv *kv, const struct pass_attention *a,
                         int64_t ldy, int64_t ldo)
{
    struct cpu *c = p->cpu;
    struct kn_attn attn = attention_of(c, 0, kv, a, ldy, ldo);
    int64_t begin, end, splits = attn.span.pos / KN_ATTN_SPLIT + 1;
    attn.out = c->per_thread[p->thread].out;
    slice(p, kv->n_kv_heads * splits, &begin, &end);
    while (begin < end) {
        int64_t head = begin / splits, from = begin % splits;
        int64_t to = from + (end - begin) < splits ? from + (end - begin) : splits;
        c->ops->attention_part(&attn, 0, (int)head, (int)head + 1, (uint32_t)from, (uint32_t)to,
                               c->parts);
        begin += to - from;
    }
    barrier(p);
    c->ops->attention_merge(&attn, 0, 0, kv->n_kv_heads, c->parts);
}

static bool wants_parts(const struct cpu_pass *p, const struct pass_attention *a)
{
    return p->rows == 1 && p->cpu->n_threads > 1 && a->window == 0 &&
           p->cpu->batch->spans[0].pos >= KN_ATTN_SPLIT;
}

static void cpu_attend(struct pass *base, uint32_t layer, const struct pass_attention *a)
{
    struct cpu_pass *p = of(base);
    struct cpu *c = p->cpu;
    int64_t head_dim = c->model->h.head_dim, width = c->n_heads * head_dim, begin, end;
    int64_t ldy = width + 2 * c->n_kv_heads * head_dim;
    const struct kn_kv kv = {.pages = c->kv + layer * c->page_elems,
                             .page_stride = c->page_elems * c->model->h.n_layers,
                             .n_kv_heads = (int)c->n_kv_heads,
                             .head_dim = (int)head_dim,
                             .type = c->limits.kv_type};
    const float *out = c->out;

    if (width > 0) { /* a rank may have no heads */
        store_kv(p, &kv, a, ldy);
        barrier(p);
        if (wants_parts(p, a)) {
            attend_parts(p, &kv, a, ldy, width);
            out = c->per_thread[p->thread].out;
        } else {
            attend_units(p, layer, &kv, a, ldy, width);
        }
    }
    begin_act(p, width);
    act_rows(p, &begin, &end);
    if (end > begin && width > 0)
        c->ops->quantize(out, width, begin, end, &p->act);
    end_act(p, &c->by.heads);
}

/* ---- experts ----------------------------------------------------------------------------------
 */

/* Gives every choice of a row its slot. One thread does it for all: a count and a pass. */
static void assign_slots(struct cpu *c, uint32_t rows)
{
    const struct hparams *h = &c->model->h;
    uint32_t n = rows * h->n_experts_used, *next = c->expert_begin;
    memset(next, 0, (h->n_experts + 1u) * sizeof(*next));
    for (uint32_t i = 0; i < n; i++)
        next[c->expert_ids[i] + 1]++;
    for (uint32_t i = 0; i < h->n_experts; i++)
        next[i + 1] += next[i];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = next[c->expert_ids[i]]++;
        c->expert_slots[i] = slot;
        c->slot_rows[slot] = i / h->n_experts_used;
    }
    memmove(next + 1, next, h->n_experts * sizeof(*next)); /* ends are the next ones' begins */
    next[0] = 0;
}

/* Row `from` of a to row `to` of b. */
static void copy_act(const struct kn_act *a, int64_t from, struct kn_act *b, int64_t to)
{
    int64_t nb = (a->k + KN_BLOCK - 1) / KN_BLOCK;
    if (a->f)
        memcpy(b->f + to * a->k, a->f + from * a->k, (size_t)a->k * sizeof(*a->f));
    memcpy(b->q + to * nb * KN_BLOCK, a->q + from * nb * KN_BLOCK, (size_t)nb * KN_BLOCK);
    memcpy(b->d + to * nb, a->d + from * nb, (size_t)nb * sizeof(*a->d));
    memcpy(b->s + to * nb, a->s + from * nb, (size_t)nb * sizeof(*a->s));
    memcpy(b->h + to * nb, a->h + from * nb, (size_t)nb * sizeof(*a->h));
}

static void cpu_route(struct pass *base)
{
    struct cpu_pass *p = of(base);
    struct cpu *c = p->cpu;
    const struct hparams *h = &c->model->h;
    int64_t begin, end, used = h->n_experts_used;
    slice(p, p->rows, &begin, &end);
    c->ops->route(c->y + begin * h->n_experts, h->n_experts, end - begin, (int)h->n_experts,
                  (int)used, c->expert_ids + begin * used, c->expert_weights + begin * used);
    barrier(p);
    if (p->thread == 0)
        assign_slots(c, p->rows);
    barrier(p);
    p->n_act = p->rows * h->n_experts_used;
    const struct cpu_act_room *r = &c->slot;
    struct kn_act slots = {.f = r->f, .q = r->q, .d = r->d, .s = r->s, .h = r->h, .k = p->act.k};
    slice(p, p->n_act, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        copy_act(&p->act, c->slot_rows[i], &slots, i);
    p->act = slots;
    barrier(p);
}

/* The first tile of `slots` units of work each that begins at or behind `work`. */
static int64_t tile_at(int64_t work, int64_t slots)
{
    return work > 0 ? (work + slots - 1) / slots : 0;
}

/* Multiplies each expert's slots with its matrix, into columns from `column` of y. Threads share
 * the work by slots and tiles, so that an expert that many rows chose is not one thread's. */
static void expert_matrices(struct cpu_pass *p, const struct kn_matrix *w, int64_t column,
                            int64_t ldy)
{
    const struct cpu *c = p->cpu;
    int64_t begin, end, first = 0, tiles = tiles_of(w);
    slice(p, tiles * p->n_act, &begin, &end);
    for (uint32_t e = 0; e < c->model->h.n_experts; e++) {
        int64_t slot = c->expert_begin[e], slots = c->expert_begin[e + 1] - slot;
        if (slots == 0)
            continue;
        int64_t from = tile_at(begin - first, slots), to = tile_at(end - first, slots);
        to = to < tiles ? to : tiles;
        first += tiles * slots;
        if (from >= to)
            continue;
        struct kn_act act = kn_act_from(&p->act, slot);
        int64_t row_end = to * KN_ROW_TILE < w->rows ? to * KN_ROW_TILE : w->rows;
        c->ops->matmul(&w[e], &act, slots, from * KN_ROW_TILE, row_end, false,
                       c->y + slot * ldy + column, ldy);
    }
}

static void cpu_project_experts(struct pass *base, const struct kn_matrix *const *w, int n)
{
    struct cpu_pass *p = of(base);
    int64_t ldy = 0, column = 0;
    for (int i = 0; i < n; i++)
        ldy += w[i]->rows;
    for (int i = 0; i < n; column += w[i]->rows, i++)
        expert_matrices(p, w[i], column, ldy);
    barrier(p);
}

static void cpu_combine_experts(struct pass *base, const struct kn_matrix *w)
{
    struct cpu_pass *p = of(base);
    struct cpu *c = p->cpu;
    int64_t begin, end, d = w->rows, used = c->model->h.n_experts_used;
    begin_y(p);
    expert_matrices(p, w, 0, d);
    barrier(p);
    p->n_act = p->rows;
    slice(p, p->rows, &begin, &end);
    for (int64_t i = begin; i < end && d > 0; i++)
        c->ops->combine(c->y, c->expert_slots + i * used, c->expert_weights + i * used, (int)used,
                        d, own_x(p) + i * c->model->h.n_embd);
    x_done(p);
}

/* ---- the end ----------------------------------------------------------------------------------
 */

static void cpu_select(struct pass *base)
{
    struct cpu_pass *p = of(base);
    struct cpu *c = p->cpu;
    int64_t begin, end, d = c->model->h.n_embd;
    slice(p, c->batch->n_picks, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        memcpy(c->picked + i * d, c->x + c->batch->picks[i].row * d, (size_t)d * sizeof(float));
    p->x = c->picked;
    p->rows = c->batch->n_picks;
    p->n_act = p->rows;
    barrier(p);
}

/* Rank 0's rows become whole where they are. */
static int64_t logits_stride(const struct cpu *c, const struct kn_matrix *w)
{
    return c->model->shard.rank == 0 ? c->model->h.vocab : w->rows;
}

static void cpu_head(struct pass *base, const struct kn_matrix *w)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end;
    slice(p, tiles_of(w), &begin, &end);
    matrix_rows(p, w, begin, end, false, p->cpu->logits, logits_stride(p->cpu, w));
    if (p->cpu->group)
        cpu_gather_logits(p);
    else
        barrier(p);
}

static void cpu_softcap(struct pass *base, float cap)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end;
    if (p->cpu->model->shard.rank != 0)
        return;
    slice(p, (int64_t)p->rows * p->cpu->model->h.vocab, &begin, &end);
    p->cpu->ops->softcap(p->cpu->logits + begin, end - begin, cap);
    barrier(p);
}

const struct pass_ops cpu_pass_ops = {
    .embed = cpu_embed,
    .norm = cpu_norm,
    .project = cpu_project,
    .attend = cpu_attend,
    .gate = cpu_gate,
    .project_add = cpu_project_add,
    .add_norm = cpu_add_norm,
    .route = cpu_route,
    .project_experts = cpu_project_experts,
    .combine_experts = cpu_combine_experts,
    .pool = cpu_pool,
    .select = cpu_select,
    .head = cpu_head,
    .softcap = cpu_softcap,
};
