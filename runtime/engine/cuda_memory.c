/* cuda_memory.c: what lies on the GPU: weights, registers, KV pages; and the staging. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/engine/backend_cuda.h"
#include "runtime/model/adapter.h"

#define ALIGN UINT64_C(256)
/* What CUDA and the driver take besides: contexts, the kernels themselves. */
#define RESERVE (UINT64_C(256) << 20)
#define ROOMS_MAX 40
/* For attention by split, of many sequences or one that is long: one with all its context fits. */
#define PART_BYTES (UINT64_C(64) << 20)
/* For what ranks exchange at a time. */
#define EXCHANGE_BYTES (UINT64_C(32) << 20)
/* Of a pick, for its penalties' and bias's lists, on average. */
#define PICK_LIST_BYTES (UINT64_C(16) << 10)

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGN - 1) & ~(ALIGN - 1);
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- the model's matrices and vectors ----------------------------------------------------------
 */

struct walk {
    void (*matrix)(void *ctx, const struct kn_matrix *w);
    void (*vector)(void *ctx, const float *v, uint64_t n);
    void (*array)(void *ctx, const struct kn_matrix *w, uint32_t n); /* behind its matrices */
    void *ctx;
};

static void visit(const struct walk *k, const struct kn_matrix *w)
{
    if (k->matrix && w->data && w->rows > 0) /* a rank may have none */
        k->matrix(k->ctx, w);
}

static void visit_all(const struct walk *k, const struct kn_matrix *w, uint32_t n)
{
    for (uint32_t i = 0; w && i < n; i++)
        visit(k, &w[i]);
    if (w && n > 0 && w->rows > 0 && k->array)
        k->array(k->ctx, w, n);
}

static void visit_vector(const struct walk *k, const float *v, uint64_t n)
{
    if (k->vector && v && n > 0)
        k->vector(k->ctx, v, n);
}

static void walk_layer(const struct walk *k, const struct model *m, const struct model_layer *y)
{
    const struct hparams *h = &m->h;
    uint32_t heads = shard_count(m->shard.q_heads) + 2 * shard_count(m->shard.kv_heads);
    const struct kn_matrix *const each[] = {&y->qkv,  &y->q,  &y->k,    &y->v,     &y->o,
                                            &y->gate, &y->up, &y->down, &y->router};
    for (size_t i = 0; i < ARRAY_LEN(each); i++)
        visit(k, each[i]);
    visit_all(k, y->gate_exps, h->n_experts);
    visit_all(k, y->up_exps, h->n_experts);
    visit_all(k, y->down_exps, h->n_experts);
    visit_vector(k, y->attn_norm, h->n_embd);
    visit_vector(k, y->attn_post, h->n_embd);
    visit_vector(k, y->ffn_norm, h->n_embd);
    visit_vector(k, y->ffn_post, h->n_embd);
    visit_vector(k, y->q_norm, h->head_dim);
    visit_vector(k, y->k_norm, h->head_dim);
    visit_vector(k, y->qkv_bias, (uint64_t)heads * h->head_dim);
}

static void walk_adapter(const struct walk *k, const struct model *m, const struct adapter *a)
{
    for (uint32_t i = 0; i < m->h.n_layers * ADAPTER_PLACES; i++) {
        visit(k, &a->matrices[i].a);
        visit(k, &a->matrices[i].b);
    }
}

/* Everything once, but a head that is the embedding; and the adapters. */
static void walk(const struct walk *k, const struct model *m, const struct backend_limits *limits)
{
    visit(k, &m->embed);
    if (m->head.data != m->embed.data)
        visit(k, &m->head);
    visit_vector(k, m->out_norm, m->h.n_embd);
    for (uint32_t i = 0; i < m->h.n_layers; i++)
        walk_layer(k, m, &m->layers[i]);
    for (uint32_t i = 0; i < limits->n_adapters; i++)
        walk_adapter(k, m, &limits->adapters[i]);
}

/* ---- what is not served ------------------------------------------------------------------------
 */

static void check_matrix(void *ctx, const struct kn_matrix *w)
{
    struct err *e = ctx;
    if (e->code == 0 && !kn_cuda_serves(w->type, w->rows, w->cols))
        err_set(e, ERR_CONFIG,
                "device=cuda: a matrix of %lld x %lld of type %s is not served on a GPU; "
                "device=cpu serves it",
                (long long)w->rows, (long long)w->cols, kn_type_name(w->type));
}

static int refuse(struct err *e, const char *what)
{
    return err_set(e, ERR_CONFIG, "device=cuda: %s not served on a GPU; device=cpu serves it",
                   what);
}

int cuda_refuse(const struct model *m, const struct backend_limits *limits, struct err *e)
{
    struct err found = {0};
    const struct walk check = {.matrix = check_matrix, .ctx = &found};
    if (m->h.n_experts > KN_CUDA_EXPERTS_MAX)
        return refuse(e, "so many experts are");
    if (limits->fast && m->h.n_experts > 0)
        return err_set(e, ERR_CONFIG, "fast=%s: experts are not served so; fast=off serves them",
                       fast_name(limits->fast));
    walk(&check, m, limits);
    return found.code < 0 ? err_set(e, found.code, "%s", found.msg) : 0;
}

/* ---- weights -----------------------------------------------------------------------------------
 */

/* Counts, then brings up. */
struct upload {
    struct cuda *c;
    uint64_t bytes;   /* so far */
    uint64_t largest; /* of a matrix */
    size_t n;
    void *packed; /* largest bytes of the host; NULL: only counts */
};

static void put(struct upload *u, const void *key, const void *from, uint64_t bytes)
{
    struct cuda *c = u->c;
    if (u->packed) {
        char *to = (char *)c->weight_block + u->bytes;
        c->weights[u->n] = (struct cuda_weight){key, to};
        cuda_ok(c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, c->stream),
                "copying weights");
    }
    u->bytes += aligned(bytes);
    u->n++;
}

static void put_matrix(void *ctx, const struct kn_matrix *w)
{
    struct upload *u = ctx;
    bool fast = u->c->limits.fast != FAST_OFF;
    uint64_t bytes =
        fast ? cuda_fast_pack_bytes(u->c, w) : kn_cuda_pack_bytes(w->type, w->rows, w->cols);
    u->largest = most(u->largest, bytes);
    if (u->packed && fast)
        cuda_fast_pack(u->c, w, u->packed);
    else if (u->packed)
        kn_cuda_pack(w->type, w->rows, w->cols, w->data, u->packed);
    put(u, w->data, u->packed, bytes);
}

static void put_vector(void *ctx, const float *v, uint64_t n)
{
    put(ctx, v, v, n * sizeof(*v));
}

/* Its matrices were the last to be put. */
static void put_array(void *ctx, const struct kn_matrix *w, uint32_t n)
{
    struct upload *u = ctx;
    const void **at = u->packed;
    for (uint32_t i = 0; at && i < n; i++)
        at[i] = u->c->weights[u->n - n + i].device;
    u->largest = most(u->largest, n * sizeof(*at));
    put(u, w, at, n * sizeof(*at));
}

static int by_host(const void *a, const void *b)
{
    const struct cuda_weight *x = a, *y = b;
    return (uintptr_t)x->host < (uintptr_t)y->host ? -1 : (uintptr_t)x->host > (uintptr_t)y->host;
}

static struct upload measure(struct cuda *c)
{
    struct upload u = {.c = c};
    const struct walk count = {put_matrix, put_vector, put_array, &u};
    walk(&count, c->model, &c->limits);
    return u;
}

/* The copies are finished when their calls return, because `packed` is not page-locked. */
static int bring_up(struct cuda *c, const struct upload *measured, struct err *e)
{
    struct upload u = {.c = c, .packed = malloc(measured->largest ? measured->largest : 1)};
    const struct walk copy = {put_matrix, put_vector, put_array, &u};
    c->weights = calloc(measured->n ? measured->n : 1, sizeof(*c->weights));
    if (!u.packed || !c->weights) {
        free(u.packed);
        return err_set(e, ERR_NOMEM, "engine: no memory to pack weights");
    }
    walk(&copy, c->model, &c->limits);
    free(u.packed);
    c->n_weights = u.n;
    qsort(c->weights, c->n_weights, sizeof(*c->weights), by_host);
    return 0;
}

static void *find(const struct cuda *c, const void *host)
{
    const struct cuda_weight key = {.host = host};
    const struct cuda_weight *w =
        bsearch(&key, c->weights, c->n_weights, sizeof(*c->weights), by_host);
    ASSERT(w);
    return w->device;
}

struct kn_matrix cuda_matrix(const struct cuda *c, const struct kn_matrix *w)
{
    struct kn_matrix d = *w;
    d.data = find(c, w->data);
    return d;
}

const float *cuda_vector(const struct cuda *c, const float *v)
{
    return find(c, v);
}

const void *const *cuda_experts(const struct cuda *c, const struct kn_matrix *w)
{
    return find(c, w);
}

/* ---- registers ---------------------------------------------------------------------------------
 */

struct room {
    void *dst; /* of any pointer type: where its address goes */
    uint64_t bytes;
};

struct rooms {
    struct room v[ROOMS_MAX];
    size_t n;
    uint64_t bytes;
};

/* No product can wrap: rows and widths are bounded (model.h), and pages were counted in bytes. */
static void want(struct rooms *r, void *dst, uint64_t n, size_t elem_bytes)
{
    ASSERT(r->n < ROOMS_MAX);
    r->v[r->n++] = (struct room){dst, n * elem_bytes};
    r->bytes += aligned(n * elem_bytes);
}

static void want_act(struct rooms *r, const struct cuda *c, struct kn_act *a, uint64_t rows,
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

static uint64_t part_bytes(const struct cuda *c)
{
    const struct hparams *h = &c->model->h;
    uint32_t splits = 2 * (c->limits.context / KN_ATTN_SPLIT + 1); /* rounded up at most */
    uint64_t row = kn_cuda_attention_part_bytes(1, (int)c->n_heads, (int)h->head_dim, splits);
    uint64_t all = row * c->limits.rows_max;
    return most(row, all < PART_BYTES ? all : PART_BYTES);
}

static uint64_t packed_bytes(const struct cuda *c)
{
    uint64_t mask = ((uint64_t)c->model->h.vocab + 31) / 32 * sizeof(uint32_t);
    return c->limits.picks_max * (sizeof(struct kn_cuda_sampling) + mask + PICK_LIST_BYTES);
}

static void plan_picking(struct cuda *c, struct rooms *r)
{
    const struct backend_limits *l = &c->limits;
    c->packed_bytes = packed_bytes(c);
    want(r, &c->packed, c->packed_bytes, 1);
    want(r, &c->sampled, l->picks_max, sizeof(*c->sampled));
    want(r, &c->finite, l->picks_max, sizeof(*c->finite));
    want(r, &c->sample_scratch, kn_cuda_sample_scratch_bytes(l->picks_max, c->model->h.vocab), 1);
}

/* Rank 0's become those of all. */
static uint64_t logits_width(const struct cuda *c)
{
    return cuda_picks(c) ? c->model->h.vocab : shard_count(c->model->shard.vocab);
}

static void plan_registers(struct cuda *c, struct rooms *r)
{
    const struct hparams *h = &c->model->h;
    const struct backend_limits *l = &c->limits;
    uint64_t rows = l->rows_max, width = (uint64_t)c->n_heads * h->head_dim;
    uint64_t qkv = width + 2 * (uint64_t)c->n_kv_heads * h->head_dim;
    uint64_t angles = (uint64_t)l->context * (c->model->rope.dim / 2);
    uint64_t local_angles = (uint64_t)l->context * (c->model->local_rope.dim / 2);

    want(r, &c->x, rows * h->n_embd, sizeof(float));
    want(r, &c->picked, (uint64_t)l->picks_max * h->n_embd, sizeof(float));
    uint64_t slots = rows * most(h->n_experts_used, 1);
    uint64_t ffn = most(2 * (uint64_t)c->n_ff, c->n_embd);
    want(r, &c->y, most(rows * most(most(qkv, h->n_embd), h->n_experts), slots * ffn),
         sizeof(float));
    want(r, &c->out, rows * width, sizeof(float));
    want(r, &c->logits, l->picks_max * logits_width(c), sizeof(float));
    c->part_bytes = part_bytes(c);
    want(r, &c->part, c->part_bytes, 1);
    uint64_t widest = most(most(h->n_embd, (uint64_t)h->n_heads * h->head_dim), h->n_ff);
    if (l->fast) {
        want(r, &c->fast.act, rows * widest, sizeof(*c->fast.act));
        if (l->fast == FAST_FP8) {
            want(r, &c->fast.narrow, rows * widest, sizeof(*c->fast.narrow));
            want(r, &c->fast.scale, rows, sizeof(*c->fast.scale));
        }
        want(r, &c->fast.workspace, cuda_fast_workspace_bytes(), 1);
    } else {
        want_act(r, c, &c->act, slots, widest);
    }
    if (c->model->shard.ranks > 1) {
        want_act(r, c, &c->part_act, slots, most(width, c->n_ff));
        want(r, &c->whole, rows * h->n_embd, sizeof(float));
    }
    if (h->n_experts > 0) {
        want(r, &c->expert_ids, slots, sizeof(uint32_t));
        want(r, &c->expert_weights, slots, sizeof(float));
        want(r, &c->expert_slots, slots, sizeof(uint32_t));
        want(r, &c->slot_rows, slots, sizeof(uint32_t));
        want(r, &c->expert_begin, h->n_experts + 1u, sizeof(uint32_t));
        want(r, &c->route_scratch, kn_cuda_route_scratch_bytes(l->rows_max, (int)h->n_experts), 1);
    }
    if (l->adapter_rank > 0)
        want(r, &c->lora, rows * l->adapter_rank, sizeof(float));
    want(r, &c->rope_cos, angles, sizeof(float));
    want(r, &c->rope_sin, angles, sizeof(float));
    if (cuda_picks(c))
        plan_picking(c, r);
    if (local_angles > 0) {
        want(r, &c->local_cos, local_angles, sizeof(float));
        want(r, &c->local_sin, local_angles, sizeof(float));
    }
}

static uint64_t kv_bytes(const struct cuda *c)
{
    return (uint64_t)c->limits.kv_pages * c->model->h.n_layers * (uint64_t)c->page_elems *
           sizeof(*c->kv);
}

/* Activations of all rows that a step may have, or as many at a time as fit; of a row at least. */
size_t cuda_exchange_bytes(const struct cuda *c)
{
    const struct hparams *h = &c->model->h;
    uint64_t width = most(most((uint64_t)h->n_heads * h->head_dim, h->n_ff), h->n_embd);
    uint64_t row = most(width * sizeof(float) * 3, h->vocab * sizeof(float));
    uint64_t all = row * c->limits.rows_max * most(h->n_experts_used, 1);
    return most(row, all < EXCHANGE_BYTES ? all : EXCHANGE_BYTES);
}

/* ---- staging -----------------------------------------------------------------------------------
 */

/* Every row may be of another sequence with a whole context, but pages are each of one sequence,
 * or shared by several that begin alike. */
static uint64_t table_max(const struct backend_limits *l)
{
    uint64_t pages = ((uint64_t)l->context + KN_PAGE_TOKENS - 1) / KN_PAGE_TOKENS;
    return pages * l->rows_max;
}

static void lay_out(const struct cuda *c, struct cuda_staging *s)
{
    const struct backend_limits *l = &c->limits;
    uint32_t *at = s->block;
    s->ids = at;
    s->places = s->ids + l->rows_max;
    s->pos = s->places + l->rows_max;
    s->table_at = s->pos + l->rows_max;
    s->picks = s->table_at + l->rows_max;
    s->tiles = (struct kn_cuda_tile *)(void *)(s->picks + l->picks_max);
    s->table = (uint32_t *)(void *)(s->tiles + l->rows_max);
}

static uint64_t staging_bytes(const struct cuda *c)
{
    const struct backend_limits *l = &c->limits;
    uint64_t words = 4 * (uint64_t)l->rows_max + l->picks_max + table_max(l);
    return words * sizeof(uint32_t) + (uint64_t)l->rows_max * sizeof(struct kn_cuda_tile);
}

static bool take_locked(struct cuda *c, void *dst, uint64_t bytes)
{
    void *p = NULL;
    if (!cuda_ok(c, cudaMallocHost(&p, bytes ? bytes : 1), "page-locked memory"))
        return false;
    memcpy(dst, &p, sizeof(p));
    return true;
}

static int take_host(struct cuda *c, struct err *e)
{
    const struct hparams *h = &c->model->h;
    const struct backend_limits *l = &c->limits;
    uint64_t picks = cuda_picks(c) ? l->picks_max : 0;
    if (take_locked(c, &c->host.block, c->staging_bytes) &&
        take_locked(c, &c->host_logits, picks * h->vocab * sizeof(float)) &&
        take_locked(c, &c->host_x, (uint64_t)l->rows_max * h->n_embd * sizeof(float)) &&
        take_locked(c, &c->host_packed, c->packed_bytes) &&
        take_locked(c, &c->host_sampled, picks * sizeof(*c->host_sampled)) &&
        take_locked(c, &c->host_finite, picks * sizeof(*c->host_finite))) {
        c->scratch = malloc(kn_sample_scratch_bytes(h->vocab));
        c->pick_list = calloc(l->picks_max ? l->picks_max : 1, sizeof(*c->pick_list));
        c->owned_rows = calloc(l->rows_max, sizeof(*c->owned_rows));
        if (!c->scratch || !c->pick_list || !c->owned_rows)
            err_set(&c->failed, ERR_NOMEM, "engine: no memory");
    }
    if (c->failed.code < 0)
        return err_set(e, c->failed.code, "%s", c->failed.msg);
    lay_out(c, &c->host);
    return 0;
}

/* ---- angles ------------------------------------------------------------------------------------
 */

static int fill_rope(struct cuda *c, const struct model_rope *r, float *to_cos, float *to_sin,
                     struct kn_rope_table *table, struct err *e)
{
    size_t n = (size_t)c->limits.context * (r->dim / 2), bytes = n * sizeof(float);
    float *cos = malloc(bytes ? bytes : 1), *sin = malloc(bytes ? bytes : 1);
    if (cos && sin) {
        kn_rope_fill(r->inv_freq, (int)r->dim, r->magnitude, 0, c->limits.context, cos, sin);
        cuda_ok(c, cudaMemcpyAsync(to_cos, cos, bytes, cudaMemcpyHostToDevice, c->stream),
                "copying angles");
        cuda_ok(c, cudaMemcpyAsync(to_sin, sin, bytes, cudaMemcpyHostToDevice, c->stream),
                "copying angles");
        cuda_ok(c, cudaStreamSynchronize(c->stream), "copying angles");
        *table = (struct kn_rope_table){to_cos, to_sin, (int)r->dim, c->limits.context};
    }
    int rc = cos && sin ? 0 : err_set(e, ERR_NOMEM, "engine: no memory for angles");
    free(cos);
    free(sin);
    return rc;
}

static int fill_ropes(struct cuda *c, struct err *e)
{
    const struct model *m = c->model;
    int rc = fill_rope(c, &m->rope, c->rope_cos, c->rope_sin, &c->rope, e);
    c->local_rope = c->rope;
    if (rc == 0 && m->local_rope.inv_freq)
        rc = fill_rope(c, &m->local_rope, c->local_cos, c->local_sin, &c->local_rope, e);
    return rc;
}

/* ---- taking and giving back --------------------------------------------------------------------
 */

#define MIB(bytes) ((unsigned long long)(((bytes) + (1u << 20) - 1) >> 20))

static int too_little(const struct cuda *c, uint64_t weights, uint64_t buffers, uint64_t left,
                      struct err *e)
{
    uint64_t need = weights + buffers + kv_bytes(c) + RESERVE;
    return err_set(e, ERR_CONFIG,
                   "device=cuda:%d: %lluM of memory are missing: %lluM of weights, %lluM of KV "
                   "pages and %lluM of buffers want %lluM, and %.60s has %lluM free; kv_bytes and "
                   "context_max make the pages smaller, step_tokens_max and sequences_max the "
                   "buffers",
                   c->gpu.index, MIB(need - left), MIB(weights), MIB(kv_bytes(c)),
                   MIB(buffers + RESERVE), MIB(need), c->gpu.name, MIB(left));
}

static bool take(struct cuda *c, void *dst, uint64_t bytes)
{
    void *p = NULL;
    ASSERT(c->n_blocks < ARRAY_LEN(c->blocks));
    if (!cuda_ok(c, cudaMalloc(&p, bytes ? bytes : ALIGN), "memory of the GPU"))
        return false;
    c->blocks[c->n_blocks++] = p;
    memcpy(dst, &p, sizeof(p));
    return true;
}

static int take_device(struct cuda *c, const struct upload *weights, struct err *e)
{
    struct rooms r = {.n = 0};
    size_t left = 0, total = 0;
    plan_registers(c, &r);
    c->staging_bytes = staging_bytes(c);
    r.bytes += c->staging_bytes;
    if (!cuda_ok(c, cudaMemGetInfo(&left, &total), "asking for free memory"))
        return err_set(e, ERR_CONFIG, "%s", c->failed.msg);
    if (weights->bytes + r.bytes + kv_bytes(c) + RESERVE > left)
        return too_little(c, weights->bytes, r.bytes, left, e);
    bool ok = take(c, &c->weight_block, weights->bytes) && take(c, &c->kv, kv_bytes(c)) &&
              take(c, &c->device.block, c->staging_bytes);
    for (size_t i = 0; ok && i < r.n; i++)
        ok = take(c, r.v[i].dst, r.v[i].bytes);
    if (!ok)
        return err_set(e, ERR_CONFIG, "%s", c->failed.msg);
    lay_out(c, &c->device);
    /* Slots that nobody wrote are read, with those that somebody did, and not used. */
    if (!cuda_ok(c, cudaMemsetAsync(c->kv, 0, kv_bytes(c), c->stream), "clearing the KV pages"))
        return err_set(e, ERR_CONFIG, "%s", c->failed.msg);
    return 0;
}

int cuda_take_memory(struct cuda *c, struct err *e)
{
    struct upload weights = measure(c);
    c->table_max = (uint32_t)table_max(&c->limits);
    int rc = take_device(c, &weights, e);
    if (rc == 0)
        rc = take_host(c, e);
    if (rc == 0)
        rc = bring_up(c, &weights, e);
    if (rc == 0)
        rc = fill_ropes(c, e);
    return rc == 0 && c->failed.code < 0 ? err_set(e, c->failed.code, "%s", c->failed.msg) : rc;
}

void cuda_free_memory(struct cuda *c)
{
    for (size_t i = 0; i < c->n_blocks; i++)
        cudaFree(c->blocks[i]);
    cudaFreeHost(c->host.block);
    cudaFreeHost(c->host_logits);
    cudaFreeHost(c->host_x);
    cudaFreeHost(c->host_packed);
    cudaFreeHost(c->host_sampled);
    cudaFreeHost(c->host_finite);
    free(c->owned_rows);
    free(c->pick_list);
    free(c->weights);
    free(c->scratch);
}
