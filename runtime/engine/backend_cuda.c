#include "runtime/engine/backend_cuda.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/engine/collective_nccl.h"
#include "runtime/model/arch.h"

bool cuda_ok(struct cuda *c, int rc, const char *what)
{
    if (rc != 0 && c->failed.code == 0)
        err_set(&c->failed, rc == cudaErrorMemoryAllocation ? ERR_CONFIG : ERR_PEER,
                "GPU %d (%.60s): %s: %.200s", c->gpu.index, c->gpu.name, what,
                rc < 0 ? "the kernel does not serve this" : cudaGetErrorString((cudaError_t)rc));
    return c->failed.code == 0;
}

/* ---- a run -------------------------------------------------------------------------------------
 */

/* Rows of spans that have several, the last ones first: they see most. And how many splits the
 * other rows may have, rounded up, so that few graphs serve all. */
static void plan_attention(struct cuda *c, const struct batch *batch)
{
    uint32_t row = 0;
    uint32_t most = cuda_tile_rows(c);
    uint32_t last = 0; /* position of rows that are alone */
    c->n_tiles = 0;
    for (uint32_t i = 0; i < batch->n_spans; row += batch->spans[i].rows, i++) {
        if (batch->spans[i].rows == 1 && batch->spans[i].pos > last)
            last = batch->spans[i].pos;
        uint32_t end = batch->spans[i].rows > 1 ? batch->spans[i].rows : 0;
        while (end > 0) {
            uint32_t begin = (end - 1) / most * most;
            c->host.tiles[c->n_tiles++] = (struct kn_cuda_tile){row + begin, end - begin};
            end = begin;
        }
    }
    c->splits = 1;
    while (c->splits < last / KN_ATTN_SPLIT + 1)
        c->splits *= 2;
}

/* What differs from step to step goes to the staging, and up. */
static void stage(struct cuda *c, const struct batch *batch)
{
    struct cuda_staging *s = &c->host;
    uint32_t row = 0, pages = 0;
    if (c->group)
        cuda_group_stage(c);
    else
        memcpy(s->ids, batch->ids, batch->n_rows * sizeof(*s->ids));
    for (uint32_t i = 0; i < batch->n_spans; i++) {
        const struct kn_span *span = &batch->spans[i];
        uint32_t n = (span->pos + span->rows - 1) / KN_PAGE_TOKENS + 1;
        ASSERT(n <= c->table_max - pages);
        memcpy(s->table + pages, span->page_table, n * sizeof(*s->table));
        for (uint32_t r = 0; r < span->rows; r++, row++) {
            s->pos[row] = span->pos + r;
            s->table_at[row] = pages;
        }
        pages += n;
    }
    ASSERT(row == batch->n_rows);
    plan_attention(c, batch);
    for (uint32_t i = 0; i < batch->n_picks; i++)
        s->picks[i] = batch->picks[i].row;
    size_t bytes = (size_t)((char *)(s->table + pages) - (char *)s->block);
    cuda_ok(c, cudaMemcpyAsync(c->device.block, s->block, bytes, cudaMemcpyHostToDevice, c->stream),
            "copying the batch");
}

void cuda_bring_down(struct cuda *c, void *to, const void *from, size_t bytes)
{
    if (c->failed.code == 0)
        cuda_ok(c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, c->stream),
                "copying results");
}

/* Of all rows behind the last layer. */
static void bring_down_states(struct cuda *c)
{
    cuda_bring_down(c, c->host_x, c->x,
                    (size_t)c->batch->n_rows * c->model->h.n_embd * sizeof(*c->host_x));
    c->x_is_there = true;
}

static void add_pools(struct cuda *c)
{
    int64_t d = c->model->h.n_embd;
    for (uint32_t i = 0; i < c->batch->n_pools; i++) {
        const struct pooling *k = &c->batch->pools[i];
        for (uint32_t r = 0; r < k->rows; r++)
            for (int64_t j = 0; j < d; j++)
                k->sum[j] = k->sum[j] + (double)c->host_x[(k->row + r) * d + j];
    }
}

void cuda_queue_pass(struct cuda *c)
{
    uint32_t rows = c->batch->n_rows;
    struct cuda_pass p = {.base.ops = c->limits.fast ? &c->fast.ops : &cuda_pass_ops,
                          .cuda = c,
                          .rows = rows,
                          .n_act = rows,
                          .x = c->x};
    c->model->arch->forward(c->model, &p.base);
    if (!c->group)
        cuda_queue_sample(c);
}

/* All that was queued is done, the other ranks' share too. */
static bool finish(struct cuda *c)
{
    struct err e;
    if (c->failed.code == 0 && c->group && collective_wait(c->group, &e) < 0)
        err_set(&c->failed, ERR_PEER, "%s", e.msg);
    return c->failed.code == 0 && cuda_ok(c, cudaStreamSynchronize(c->stream), "computing");
}

/* The tokens, where they are picked. */
static void queue_picks(struct cuda *c)
{
    if (c->group)
        cuda_queue_sample(c);
    cuda_queue_logits(c);
    if (c->batch->n_pools > 0)
        bring_down_states(c);
}

static void cuda_run(struct backend *b, struct batch *batch)
{
    struct cuda *c = (struct cuda *)b;
    ASSERT(batch->n_rows <= c->limits.rows_max && batch->n_picks <= c->limits.picks_max);
    c->batch = batch;
    c->x_is_there = false;
    c->embedded = false;
    cuda_ok(c, cudaSetDevice(c->gpu.index), "choosing the GPU");
    if (c->failed.code < 0)
        return;
    stage(c, batch);
    if (cuda_picks(c))
        cuda_queue_samplings(c);
    cuda_run_pass(c);
    if (cuda_picks(c))
        queue_picks(c);
    if (finish(c) && cuda_picks(c)) {
        add_pools(c);
        cuda_answer_picks(c);
    }
}

static void cuda_sample(struct backend *b, struct batch *batch, const uint32_t *which, uint32_t n)
{
    struct cuda *c = (struct cuda *)b;
    ASSERT(batch == c->batch);
    for (uint32_t i = 0; i < n && c->failed.code == 0; i++)
        cuda_sample_on_host(c, which[i]);
}

static const float *cuda_logits(struct backend *b, uint32_t pick)
{
    const struct cuda *c = (const struct cuda *)b;
    return c->host_logits + (uint64_t)pick * c->model->h.vocab;
}

static const float *cuda_hidden(struct backend *b, uint32_t row)
{
    struct cuda *c = (struct cuda *)b;
    if (!c->x_is_there) {
        bring_down_states(c);
        cuda_ok(c, cudaStreamSynchronize(c->stream), "copying states");
    }
    return c->host_x + (uint64_t)row * c->model->h.n_embd;
}

static int cuda_check(struct backend *b, struct err *e)
{
    const struct cuda *c = (const struct cuda *)b;
    return c->failed.code < 0 ? err_set(e, ERR_PEER, "%s", c->failed.msg) : 0;
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void cuda_free(struct backend *b)
{
    struct cuda *c = (struct cuda *)b;
    cudaSetDevice(c->gpu.index);
    if (c->stream) {
        if (!c->group || c->group->lost.code == 0)
            cudaStreamSynchronize(c->stream);
        cuda_free_graphs(c);
        collective_free(c->group);
        cudaStreamDestroy(c->stream);
    }
    cuda_close_offload(c);
    cuda_fast_release(c);
    cuda_free_memory(c);
    free(c);
}

/* What this GPU computes, and what the others do. */
static void share_out(struct cuda *c)
{
    const struct model *m = c->model;
    c->n_heads = shard_count(m->shard.q_heads);
    c->n_kv_heads = shard_count(m->shard.kv_heads);
    c->n_ff = shard_count(m->shard.ff);
    c->n_embd = shard_count(m->shard.embed);
    c->page_elems = kn_kv_page_elems(c->limits.kv_type, (int)c->n_kv_heads, (int)m->h.head_dim);
    group_columns_of(m, &c->by);
}

static int take_device(struct cuda *c, struct err *e)
{
    cuda_use();
    if (cuda_ok(c, cudaSetDevice(c->gpu.index), "choosing the GPU") &&
        cuda_ok(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "a stream"))
        return 0;
    return err_set(e, ERR_CONFIG, "%s", c->failed.msg);
}

/* All ranks have come as far as this one; or the first fault among them. */
static int agree(const struct gpu_group *group, int rc, struct err *e)
{
    struct err own = {0};
    if (rc < 0)
        own = *e;
    return group ? collective_agree(group->control, rc, &own, e) : rc;
}

static int open_group(struct cuda *c, const struct gpu_group *group, struct err *e)
{
    int rc = collective_nccl_open(group->control, c->stream, cuda_exchange_bytes(c), group->watch,
                                  group->arg, &c->group, e);
    if (rc == 0)
        collective_set_patience(c->group, group->patience_ms);
    return rc;
}

int backend_cuda_create(const struct model *m, const struct gpu *gpu, const struct gpu_group *group,
                        const struct backend_limits *limits, struct backend **out, struct err *e)
{
    ASSERT(group ? group->control->rank == m->shard.rank && group->control->size == m->shard.ranks
                 : m->shard.ranks == 1);
    struct err here;
    struct cuda *c = calloc(1, sizeof(*c));
    e = e ? e : &here;
    if (!c)
        return err_set(e, ERR_NOMEM, "engine: no memory");
    c->base = (struct backend){.run = cuda_run,
                               .sample = cuda_sample,
                               .logits = cuda_logits,
                               .hidden = cuda_hidden,
                               .check = cuda_check,
                               .free = cuda_free};
    c->model = m;
    c->gpu = *gpu;
    c->limits = *limits;
    c->ops = kn_ops(kn_isa_best());
    share_out(c);
    int rc = cuda_refuse(m, limits, e);
    if (rc == 0)
        rc = take_device(c, e);
    if (rc == 0 && limits->fast)
        rc = cuda_fast_open(c, e);
    rc = agree(group, rc, e);
    if (rc == 0 && group)
        rc = open_group(c, group, e);
    if (rc == 0)
        rc = cuda_take_memory(c, e);
    if (rc == 0)
        rc = cuda_open_offload(c, e);
    if (rc < 0) {
        cuda_free(&c->base);
        return rc;
    }
    *out = &c->base;
    return 0;
}
