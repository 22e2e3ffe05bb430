/* cpu_group.c: a pass of one rank of several: where what it computed meets what the others did.
 * Thread 0 exchanges while the others wait. */
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/engine/backend_cpu.h"
#include "runtime/engine/collective.h"

/* Where each rank's columns begin in bytes. */
struct bounds {
    size_t begin[SHARD_RANKS_MAX + 1];
};

static void exchange(struct cpu_pass *p, const struct collective_plane *planes, int n,
                     uint32_t root)
{
    struct cpu *c = p->cpu;
    threads_barrier(c->threads);
    if (p->thread == 0 && !c->group_failed)
        c->group_failed = collective_gather(c->group, planes, n, root, NULL) < 0;
    threads_barrier(c->threads);
}

static struct bounds floats(const struct cpu *c, const struct cpu_columns *by)
{
    struct bounds b;
    for (uint32_t r = 0; r <= c->group->size; r++)
        b.begin[r] = by->begin[r] * sizeof(float);
    return b;
}

/* Of rows that have `bytes` for each block of columns. */
static struct bounds blocks(const struct cpu *c, const struct cpu_columns *by, size_t bytes)
{
    struct bounds b;
    for (uint32_t r = 0; r <= c->group->size; r++)
        b.begin[r] = (by->begin[r] + KN_BLOCK - 1) / KN_BLOCK * bytes;
    return b;
}

static struct collective_plane plane_of(const struct cpu_pass *p, const void *src, void *dst,
                                        const struct bounds *b)
{
    uint32_t rank = p->cpu->group->rank;
    return (struct collective_plane){.src = src,
                                     .src_stride = b->begin[rank + 1] - b->begin[rank],
                                     .dst = dst,
                                     .dst_stride = b->begin[p->cpu->group->size],
                                     .rows = p->n_act,
                                     .begin = b->begin};
}

void cpu_gather_act(struct cpu_pass *p, const struct cpu_columns *by)
{
    const struct cpu *c = p->cpu;
    const struct cpu_act_room *to = &c->act;
    const struct kn_act *from = &p->act;
    struct bounds f = floats(c, by), q = blocks(c, by, KN_BLOCK), d = blocks(c, by, sizeof(float));
    struct collective_plane planes[] = {
        plane_of(p, from->q, to->q, &q), plane_of(p, from->d, to->d, &d),
        plane_of(p, from->s, to->s, &d), plane_of(p, from->h, to->h, &d),
        plane_of(p, from->f, to->f, &f),
    };
    /* Floats only where some matrix of the model reads them. */
    exchange(p, planes, from->f ? 5 : 4, COLLECTIVE_ALL);
    p->act = (struct kn_act){
        .f = to->f, .q = to->q, .d = to->d, .s = to->s, .h = to->h, .k = by->begin[c->group->size]};
}

void cpu_gather_x(struct cpu_pass *p)
{
    const struct cpu *c = p->cpu;
    struct bounds b = floats(c, &c->by_embd);
    struct collective_plane plane = plane_of(p, p->x + c->model->shard.embed.begin, p->x, &b);
    plane.src_stride = plane.dst_stride;
    exchange(p, &plane, 1, COLLECTIVE_ALL);
}

void cpu_gather_y(struct cpu_pass *p)
{
    const struct cpu *c = p->cpu;
    struct bounds b = floats(c, &c->by_embd);
    struct collective_plane plane = plane_of(p, c->y, c->whole, &b);
    exchange(p, &plane, 1, COLLECTIVE_ALL);
}

void cpu_gather_logits(struct cpu_pass *p)
{
    const struct cpu *c = p->cpu;
    struct bounds b = floats(c, &c->by_vocab);
    struct collective_plane plane = plane_of(p, c->logits, c->logits, &b);
    if (c->group->rank == 0)
        plane.src_stride = plane.dst_stride;
    exchange(p, &plane, 1, 0);
}

/* Sorts the batch's rows by the rank that has their embedding. Where each rank's begin goes into
 * `first`, in bytes. By one thread. */
static void sort_rows(struct cpu *c, struct bounds *first)
{
    uint32_t n = 0, own = c->group->rank, dim = c->model->h.n_embd;
    for (uint32_t r = 0; r < c->group->size; r++) {
        uint32_t begin = c->by_vocab.begin[r], end = c->by_vocab.begin[r + 1], owned = 0;
        first->begin[r] = (size_t)n * dim * sizeof(float);
        for (uint32_t i = 0; i < c->batch->n_rows; i++) {
            uint32_t id = c->batch->ids[i];
            if (id < begin || id >= end)
                continue;
            c->owned_rows[n++] = i;
            if (r == own)
                c->owned[owned++] = id - begin;
        }
    }
    first->begin[c->group->size] = (size_t)n * dim * sizeof(float);
    ASSERT(n == c->batch->n_rows);
}

void cpu_group_embed(struct cpu_pass *p, const struct kn_matrix *w, float scale)
{
    struct cpu *c = p->cpu;
    size_t row_bytes = c->model->h.n_embd * sizeof(float);
    struct collective_plane plane = {.rows = 1};
    struct bounds first;
    if (p->thread == 0) {
        sort_rows(c, &first);
        char *dst = (char *)c->whole, *own = dst + first.begin[c->group->rank];
        size_t n = (first.begin[c->group->rank + 1] - first.begin[c->group->rank]) / row_bytes;
        if (n > 0)
            c->ops->embed(w, c->owned, (int64_t)n, scale, (float *)(void *)own);
        plane = (struct collective_plane){.src = own, .dst = dst, .rows = 1, .begin = first.begin};
    }
    exchange(p, &plane, 1, COLLECTIVE_ALL);
    int64_t begin, end;
    threads_slice(c->n_threads, p->thread, p->rows, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        memcpy(p->x + c->owned_rows[i] * (uint64_t)c->model->h.n_embd,
               c->whole + i * (int64_t)c->model->h.n_embd, row_bytes);
    threads_barrier(c->threads);
}
