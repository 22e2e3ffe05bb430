#include "runtime/engine/backend_cpu.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/memory.h"
#include "runtime/engine/collective.h"
#include "runtime/engine/picking.h"
#include "runtime/model/arch.h"

#define LINE_BYTES 64u

/* ---- memory -----------------------------------------------------------------------------------
 */

/* One buffer of the backend's block. */
struct room {
    void *dst; /* of any pointer type: where its address goes */
    uint64_t n;
    size_t elem_bytes;
};

#define ROOMS_MAX 48

struct rooms {
    struct room v[ROOMS_MAX];
    size_t n;
};

static void want(struct rooms *r, void *dst, uint64_t n, size_t elem_bytes)
{
    ASSERT(r->n < ROOMS_MAX);
    r->v[r->n++] = (struct room){dst, n, elem_bytes};
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static void want_act(struct rooms *r, const struct cpu *c, struct cpu_act_room *a, uint64_t rows,
                     uint64_t k)
{
    uint64_t blocks = (k + KN_BLOCK - 1) / KN_BLOCK;
    want(r, &a->q, rows * blocks * KN_BLOCK, sizeof(*a->q));
    want(r, &a->d, rows * blocks, sizeof(*a->d));
    want(r, &a->s, rows * blocks, sizeof(*a->s));
    want(r, &a->h, rows * blocks, sizeof(*a->h));
    if (c->model->has_float_matrix || c->limits.adapter_rank > 0)
        want(r, &a->f, rows * k, sizeof(*a->f));
}

/* Takes all the rooms as one block. No sum can wrap: rows and widths are bounded (model.h), and
 * every room is checked. */
static int take_rooms(const struct rooms *r, void **block, size_t *bytes, struct err *e)
{
    uint64_t total = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (r->v[i].n > (UINT64_C(1) << 46) / r->v[i].elem_bytes)
            return err_set(e, ERR_NOMEM, "engine: a buffer of %llu elements is too large",
                           (unsigned long long)r->v[i].n);
        total += (r->v[i].n * r->v[i].elem_bytes + LINE_BYTES - 1) & ~(uint64_t)(LINE_BYTES - 1);
    }
    *block = memory_map((size_t)total);
    if (!*block)
        return err_set(e, ERR_NOMEM, "engine: no memory for %llu bytes of buffers",
                       (unsigned long long)total);
    *bytes = (size_t)total;
    char *at = *block;
    for (size_t i = 0; i < r->n; i++) {
        memcpy(r->v[i].dst, &at, sizeof(at));
        at += (r->v[i].n * r->v[i].elem_bytes + LINE_BYTES - 1) & ~(uint64_t)(LINE_BYTES - 1);
    }
    return 0;
}

static uint64_t rank_page_elems(const struct model *m, enum kn_kv_type type, const struct shard *s)
{
    int kv_heads = (int)shard_count(s->kv_heads);
    return kv_heads ? (uint64_t)kn_kv_page_elems(type, kv_heads, (int)m->h.head_dim) : 0;
}

uint64_t backend_page_bytes(const struct model *m, enum kn_kv_type type)
{
    uint64_t elems = 0;
    for (uint32_t r = 0; r < m->shard.ranks; r++) {
        struct shard s;
        shard_of(&m->h, r, m->shard.ranks, &s);
        elems += rank_page_elems(m, type, &s);
    }
    return elems * m->h.n_layers * sizeof(uint16_t);
}

/* The widest row that becomes act, and the widest of y. */
static uint64_t act_width(const struct hparams *h)
{
    return most(most(h->n_embd, (uint64_t)h->n_heads * h->head_dim), h->n_ff);
}

static uint64_t y_elems(const struct cpu *c, uint64_t rows)
{
    const struct hparams *h = &c->model->h;
    uint64_t qkv = ((uint64_t)c->n_heads + 2 * (uint64_t)c->n_kv_heads) * h->head_dim;
    uint64_t ffn = most(2 * (uint64_t)c->n_ff, c->n_embd);
    if (h->n_experts == 0)
        return rows * most(qkv, ffn);
    return most(rows * most(qkv, most(c->n_embd, h->n_experts)), rows * h->n_experts_used * ffn);
}

static void want_experts(struct rooms *r, struct cpu *c)
{
    const struct hparams *h = &c->model->h;
    uint64_t slots = (uint64_t)c->limits.rows_max * h->n_experts_used;
    want(r, &c->expert_ids, slots, sizeof(*c->expert_ids));
    want(r, &c->expert_weights, slots, sizeof(*c->expert_weights));
    want(r, &c->expert_slots, slots, sizeof(*c->expert_slots));
    want(r, &c->slot_rows, slots, sizeof(*c->slot_rows));
    want(r, &c->expert_begin, h->n_experts + 1u, sizeof(*c->expert_begin));
    want_act(r, c, &c->slot, slots, h->n_embd);
}

static void want_group(struct rooms *r, struct cpu *c)
{
    const struct hparams *h = &c->model->h;
    uint64_t rows = c->limits.rows_max;
    uint64_t width = most((uint64_t)c->n_heads * h->head_dim, c->n_ff);
    want_act(r, c, &c->part, rows * most(h->n_experts_used, 1), width);
    want(r, &c->whole, rows * h->n_embd, sizeof(float));
    want(r, &c->owned, rows, sizeof(uint32_t));
    want(r, &c->owned_rows, rows, sizeof(uint32_t));
}

/* Rank 0's become those of all. */
static uint64_t logits_width(const struct cpu *c)
{
    const struct shard *s = &c->model->shard;
    return s->rank == 0 ? c->model->h.vocab : shard_count(s->vocab);
}

static int take_shared(struct cpu *c, struct err *e)
{
    const struct hparams *h = &c->model->h;
    const struct backend_limits *l = &c->limits;
    uint64_t rows = l->rows_max, width = (uint64_t)c->n_heads * h->head_dim;
    uint64_t splits = l->context / KN_ATTN_SPLIT + 1,
             angles = (uint64_t)l->context * (c->model->rope.dim / 2),
             local_angles = (uint64_t)l->context * (c->model->local_rope.dim / 2);
    struct rooms r = {.n = 0};

    want(&r, &c->x, rows * h->n_embd, sizeof(float));
    want(&r, &c->picked, (uint64_t)l->picks_max * h->n_embd, sizeof(float));
    want(&r, &c->y, y_elems(c, rows), sizeof(float));
    want(&r, &c->out, rows * width, sizeof(float));
    want(&r, &c->parts, c->n_heads * splits * (h->head_dim + 2u), sizeof(float));
    want_act(&r, c, &c->act, rows * most(h->n_experts_used, 1), act_width(h));
    if (h->n_experts > 0)
        want_experts(&r, c);
    if (c->group)
        want_group(&r, c);
    if (l->adapter_rank > 0)
        want(&r, &c->lora, CPU_LORA_MATRICES * rows * l->adapter_rank, sizeof(float));
    want(&r, &c->span_begin, rows + 1, sizeof(uint32_t));
    want(&r, &c->units, rows * c->n_kv_heads, sizeof(struct cpu_unit));
    want(&r, &c->next_unit, h->n_layers, sizeof(*c->next_unit));
    want(&r, &c->per_thread, c->n_threads, sizeof(*c->per_thread));
    want(&r, &c->rope_cos, angles, sizeof(float));
    want(&r, &c->rope_sin, angles, sizeof(float));
    want(&r, &c->local_cos, local_angles, sizeof(float));
    want(&r, &c->local_sin, local_angles, sizeof(float));
    want(&r, &c->logits, l->picks_max * logits_width(c), sizeof(float));
    want(&r, &c->kv, (uint64_t)l->kv_pages * h->n_layers * (uint64_t)c->page_elems,
         sizeof(uint16_t));
    return take_rooms(&r, &c->block, &c->block_bytes, e);
}

/* Apart from the shared block, so that no thread's line is another's. */
static int take_private(struct cpu *c, struct err *e)
{
    const struct hparams *h = &c->model->h;
    for (uint32_t i = 0; i < c->n_threads; i++) {
        struct cpu_thread *t = &c->per_thread[i];
        struct rooms r = {.n = 0};
        want_act(&r, c, &t->act, CPU_PRIVATE_ROWS, act_width(h));
        want(&r, &t->out, CPU_PRIVATE_ROWS * (uint64_t)c->n_heads * h->head_dim, sizeof(float));
        if (c->limits.adapter_rank > 0)
            want(&r, &t->lora, CPU_LORA_MATRICES * CPU_PRIVATE_ROWS * c->limits.adapter_rank,
                 sizeof(float));
        want(&r, &t->scratch, kn_sample_scratch_bytes(h->vocab), 1);
        int rc = take_rooms(&r, &t->block, &t->block_bytes, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- a run ------------------------------------------------------------------------------------
 */

/* Notes where spans begin and cuts the step's attention into units. Long contexts first: the last
 * rows of a span cost most, and what is taken last should be small. */
static void plan(struct cpu *c, struct batch *batch)
{
    int kv_heads = (int)c->n_kv_heads;
    uint32_t row = 0, n = 0, page_parts = 0;
    c->batch = batch;
    for (uint32_t i = 0; i < batch->n_spans; i++) {
        uint32_t pos = batch->spans[i].pos, rows = batch->spans[i].rows;
        page_parts += (pos + rows - 1) / KN_PAGE_TOKENS - pos / KN_PAGE_TOKENS + 1;
        c->span_begin[i] = row;
        row += rows;
        while (rows > 0) {
            uint32_t begin = (rows - 1) / CPU_ATTENTION_ROWS * CPU_ATTENTION_ROWS;
            for (int head = 0; head < kv_heads; head++)
                c->units[n++] = (struct cpu_unit){i, begin, rows, head, head + 1};
            rows = begin;
        }
    }
    c->span_begin[batch->n_spans] = row;
    ASSERT(row == batch->n_rows);
    c->n_units = n;
    c->n_page_parts = page_parts;
    for (uint32_t i = 0; i < c->model->h.n_layers; i++)
        atomic_store_explicit(&c->next_unit[i], 0, memory_order_relaxed);
    atomic_store_explicit(&c->next_pick, 0, memory_order_relaxed);
}

static void sample_pick(struct cpu *c, uint32_t thread, uint32_t i)
{
    struct pick *k = &c->batch->picks[i];
    uint32_t vocab = c->model->h.vocab;
    if (k->sampling && k->finite)
        c->ops->sample(c->logits + (uint64_t)i * vocab, vocab, k->sampling, k->position,
                       c->per_thread[thread].scratch, &k->sampled);
}

static void pick_tokens(struct cpu *c, uint32_t thread)
{
    uint32_t vocab = c->model->h.vocab;
    for (;;) {
        uint32_t i = atomic_fetch_add_explicit(&c->next_pick, 1, memory_order_relaxed);
        if (i >= c->batch->n_picks)
            return;
        struct pick *k = &c->batch->picks[i];
        const float *logits = c->logits + (uint64_t)i * vocab;
        picking_examine(k, logits, vocab);
        sample_pick(c, thread, i);
    }
}

static void run_thread(void *arg, uint32_t thread)
{
    struct cpu *c = arg;
    uint32_t rows = c->batch->n_rows;
    struct cpu_pass p = {.base.ops = &cpu_pass_ops,
                         .cpu = c,
                         .thread = thread,
                         .rows = rows,
                         .n_act = rows,
                         .x = c->x};
    c->model->arch->forward(c->model, &p.base);
    if (c->model->shard.rank == 0)
        pick_tokens(c, thread);
}

static void cpu_run(struct backend *b, struct batch *batch)
{
    struct cpu *c = (struct cpu *)b;
    ASSERT(batch->n_rows <= c->limits.rows_max && batch->n_picks <= c->limits.picks_max);
    plan(c, batch);
    threads_run(c->threads, run_thread, c);
}

static void sample_thread(void *arg, uint32_t thread)
{
    struct cpu *c = arg;
    for (;;) {
        uint32_t i = atomic_fetch_add_explicit(&c->next_pick, 1, memory_order_relaxed);
        if (i >= c->n_which)
            return;
        sample_pick(c, thread, c->which[i]);
    }
}

static void cpu_sample(struct backend *b, struct batch *batch, const uint32_t *which, uint32_t n)
{
    struct cpu *c = (struct cpu *)b;
    ASSERT(batch == c->batch);
    c->which = which;
    c->n_which = n;
    atomic_store_explicit(&c->next_pick, 0, memory_order_relaxed);
    if (n == 1)
        sample_thread(c, 0); /* the others may sleep on */
    else
        threads_run(c->threads, sample_thread, c);
}

static const float *cpu_logits(struct backend *b, uint32_t pick)
{
    const struct cpu *c = (const struct cpu *)b;
    return c->logits + (uint64_t)pick * c->model->h.vocab;
}

static const float *cpu_hidden(struct backend *b, uint32_t row)
{
    const struct cpu *c = (const struct cpu *)b;
    return c->x + (uint64_t)row * c->model->h.n_embd;
}

static void fill_rope(void *arg, uint32_t thread)
{
    struct cpu *c = arg;
    int64_t begin, end;
    threads_slice(c->n_threads, thread, c->limits.context, &begin, &end);
    const struct model_rope *r = &c->model->rope, *local = &c->model->local_rope;
    kn_rope_fill(r->inv_freq, (int)r->dim, r->magnitude, (uint32_t)begin, (uint32_t)end,
                 c->rope_cos, c->rope_sin);
    if (local->inv_freq)
        kn_rope_fill(local->inv_freq, (int)local->dim, local->magnitude, (uint32_t)begin,
                     (uint32_t)end, c->local_cos, c->local_sin);
}

/* ---- life -------------------------------------------------------------------------------------
 */

static void cpu_free(struct backend *b)
{
    struct cpu *c = (struct cpu *)b;
    for (uint32_t i = 0; c->per_thread && i < c->n_threads; i++)
        memory_unmap(c->per_thread[i].block, c->per_thread[i].block_bytes);
    memory_unmap(c->block, c->block_bytes);
    free(c);
}

/* What this rank computes, and what the others do. */
static void share_out(struct cpu *c)
{
    const struct model *m = c->model;
    const struct shard *own = &m->shard;
    c->n_heads = shard_count(own->q_heads);
    c->n_kv_heads = shard_count(own->kv_heads);
    c->n_ff = shard_count(own->ff);
    c->n_embd = shard_count(own->embed);
    c->page_elems = (int64_t)rank_page_elems(m, c->limits.kv_type, own);
    group_columns_of(m, &c->by);
}

int backend_cpu_create(const struct model *m, struct threads *threads, struct collective *group,
                       const struct backend_limits *limits, struct backend **out, struct err *e)
{
    ASSERT(kn_isa_available(m->isa) && limits->rows_max > 0);
    ASSERT(group ? group->rank == m->shard.rank && group->size == m->shard.ranks
                 : m->shard.ranks == 1);
    struct cpu *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(e, ERR_NOMEM, "engine: no memory");
    c->base = (struct backend){.run = cpu_run,
                               .sample = cpu_sample,
                               .logits = cpu_logits,
                               .hidden = cpu_hidden,
                               .free = cpu_free};
    c->model = m;
    c->ops = kn_ops(m->isa);
    c->threads = threads;
    c->n_threads = threads_count(threads);
    c->limits = *limits;
    c->group = group;
    share_out(c);
    int rc = take_shared(c, e);
    if (rc == 0)
        rc = take_private(c, e);
    if (rc < 0) {
        cpu_free(&c->base);
        return rc;
    }
    threads_run(threads, fill_rope, c);
    c->rope = (struct kn_rope_table){c->rope_cos, c->rope_sin, (int)m->rope.dim, limits->context};
    c->local_rope = c->rope;
    if (m->local_rope.inv_freq)
        c->local_rope = (struct kn_rope_table){c->local_cos, c->local_sin, (int)m->local_rope.dim,
                                               limits->context};
    *out = &c->base;
    return 0;
}
