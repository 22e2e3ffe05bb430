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

static bool is_private(const struct cpu_pass *p)
{
    return p->rows <= CPU_PRIVATE_ROWS;
}

/* Shapes the pass's act as rows of k, in this thread's memory or the shared one. */
static void shape_act(struct cpu_pass *p, int64_t k)
{
    const struct cpu_act_room *r =
        is_private(p) ? &p->cpu->per_thread[p->thread].act : &p->cpu->act;
    p->act = (struct kn_act){.f = r->f, .q = r->q, .d = r->d, .s = r->s, .k = k};
}

/* The rows of act that this thread makes; all of them when they are private. */
static void act_rows(const struct cpu_pass *p, int64_t *begin, int64_t *end)
{
    *begin = 0;
    *end = p->rows;
    if (!is_private(p))
        slice(p, p->rows, begin, end);
}

static void act_done(struct cpu_pass *p)
{
    if (!is_private(p))
        barrier(p);
}

static void cpu_embed(struct pass *base, const struct kn_matrix *w, float scale)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end, d = w->cols;
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

static void cpu_project(struct pass *base, const struct kn_matrix *const *w, int n,
                        const float *bias)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end, tiles = 0, ldy = 0, first = 0, column = 0;
    for (int i = 0; i < n; i++) {
        tiles += tiles_of(w[i]);
        ldy += w[i]->rows;
    }
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
        }
        first += t;
        column += w[i]->rows;
    }
    barrier(p);
}

static void cpu_project_add(struct pass *base, const struct kn_matrix *w)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end;
    slice(p, tiles_of(w), &begin, &end);
    matrix_rows(p, w, begin, end, true, p->x, w->rows);
    barrier(p);
}

static void cpu_gate(struct pass *base, enum pass_gate kind)
{
    struct cpu_pass *p = of(base);
    const struct kn_ops *ops = p->cpu->ops;
    int64_t begin, end, ff = p->cpu->model->h.n_ff;
    shape_act(p, ff);
    act_rows(p, &begin, &end);
    if (end > begin)
        (kind == PASS_GEGLU ? ops->geglu_quantize : ops->swiglu_quantize)(p->cpu->y, 2 * ff, begin,
                                                                          end, ff, &p->act);
    act_done(p);
}

/* ---- attention --------------------------------------------------------------------------------
 */

/* Rows of a span from `row` to the end of its page, or of the span. */
static uint32_t rows_to_page_end(const struct kn_span *span, uint32_t row)
{
    uint32_t to_end = KN_PAGE_TOKENS - (span->pos + row) % KN_PAGE_TOKENS;
    return to_end < span->rows - row ? to_end : span->rows - row;
}

/* Rotates and stores this thread's share of the batch's rows. A page is one thread's: its tokens
 * lie side by side in one cache line. */
static void store_kv(struct cpu_pass *p, const struct kn_kv *kv, const struct pass_attention *a,
                     int64_t ldy)
{
    const struct cpu *c = p->cpu;
    int64_t begin, end, page = 0;
    slice(p, c->n_page_parts, &begin, &end);
    for (uint32_t i = 0; i < c->batch->n_spans && page < end; i++) {
        const struct kn_span *s = &c->batch->spans[i];
        for (uint32_t row = 0, n; row < s->rows && page < end; row += n, page++) {
            n = rows_to_page_end(s, row);
            struct kn_span part = {.page_table = s->page_table, .pos = s->pos + row, .rows = n};
            if (page >= begin)
                c->ops->rope_kv(c->y + (int64_t)(c->span_begin[i] + row) * ldy, ldy, a->n_heads, kv,
                                &part, &c->rope, a->rope);
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
                            .n_heads = a->n_heads,
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
    const struct hparams *h = &c->model->h;
    int64_t width = (int64_t)h->n_heads * h->head_dim, begin, end;
    int64_t ldy = width + 2 * (int64_t)h->n_kv_heads * h->head_dim;
    const struct kn_kv kv = {.pages = c->kv + layer * c->page_elems,
                             .page_stride = c->page_elems * h->n_layers,
                             .n_kv_heads = (int)h->n_kv_heads,
                             .head_dim = (int)h->head_dim};
    const float *out = c->out;

    store_kv(p, &kv, a, ldy);
    barrier(p);
    if (wants_parts(p, a)) {
        attend_parts(p, &kv, a, ldy, width);
        out = c->per_thread[p->thread].out;
    } else {
        attend_units(p, layer, &kv, a, ldy, width);
    }
    shape_act(p, width);
    act_rows(p, &begin, &end);
    if (end > begin)
        c->ops->quantize(out, width, begin, end, &p->act);
    act_done(p);
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
    barrier(p);
}

static void cpu_head(struct pass *base, const struct kn_matrix *w)
{
    struct cpu_pass *p = of(base);
    int64_t begin, end;
    slice(p, tiles_of(w), &begin, &end);
    matrix_rows(p, w, begin, end, false, p->cpu->logits, w->rows);
    barrier(p);
}

const struct pass_ops cpu_pass_ops = {
    .embed = cpu_embed,
    .norm = cpu_norm,
    .project = cpu_project,
    .attend = cpu_attend,
    .gate = cpu_gate,
    .project_add = cpu_project_add,
    .select = cpu_select,
    .head = cpu_head,
};
