/* cpu_group.c: a pass of one rank of several: where what it computed meets what the others did.
 * Thread 0 exchanges while the others wait. */
#include <string.h>

#include "runtime/engine/backend_cpu.h"
#include "runtime/engine/collective.h"

static void exchange(struct cpu_pass *p, const struct collective_plane *planes, int n,
                     uint32_t root)
{
    struct cpu *c = p->cpu;
    threads_barrier(c->threads);
    if (p->thread == 0 && !c->group_failed)
        c->group_failed = collective_gather(c->group, planes, n, root, NULL) < 0;
    threads_barrier(c->threads);
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

void cpu_gather_act(struct cpu_pass *p, const struct columns *by)
{
    const struct cpu *c = p->cpu;
    const struct cpu_act_room *to = &c->act;
    const struct kn_act *from = &p->act;
    uint32_t ranks = c->group->size;
    struct bounds f = columns_of_floats(by, ranks), q = columns_of_blocks(by, ranks, KN_BLOCK),
                  d = columns_of_blocks(by, ranks, sizeof(float));
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
    struct bounds b = columns_of_floats(&c->by.embd, c->group->size);
    struct collective_plane plane = plane_of(p, p->x + c->model->shard.embed.begin, p->x, &b);
    plane.src_stride = plane.dst_stride;
    exchange(p, &plane, 1, COLLECTIVE_ALL);
}

void cpu_gather_y(struct cpu_pass *p)
{
    const struct cpu *c = p->cpu;
    struct bounds b = columns_of_floats(&c->by.embd, c->group->size);
    struct collective_plane plane = plane_of(p, c->y, c->whole, &b);
    exchange(p, &plane, 1, COLLECTIVE_ALL);
}

void cpu_gather_logits(struct cpu_pass *p)
{
    const struct cpu *c = p->cpu;
    struct bounds b = columns_of_floats(&c->by.vocab, c->group->size);
    struct collective_plane plane = plane_of(p, c->logits, c->logits, &b);
    if (c->group->rank == 0)
        plane.src_stride = plane.dst_stride;
    exchange(p, &plane, 1, 0);
}

void cpu_group_embed(struct cpu_pass *p, const struct kn_matrix *w, float scale)
{
    struct cpu *c = p->cpu;
    size_t row_bytes = c->model->h.n_embd * sizeof(float);
    uint32_t own = c->group->rank;
    struct collective_plane plane = {.rows = 1};
    struct bounds parts;
    if (p->thread == 0) {
        struct columns first;
        columns_sort_rows(c->batch, &c->by.vocab, c->group->size, own, c->owned, c->owned_rows,
                          &first);
        uint32_t n = first.begin[own + 1] - first.begin[own];
        float *rows = c->whole + (uint64_t)first.begin[own] * c->model->h.n_embd;
        if (n > 0)
            c->ops->embed(w, c->owned, n, scale, rows);
        for (uint32_t r = 0; r <= c->group->size; r++)
            parts.begin[r] = first.begin[r] * row_bytes;
        plane = (struct collective_plane){
            .src = rows, .dst = c->whole, .rows = 1, .begin = parts.begin};
    }
    exchange(p, &plane, 1, COLLECTIVE_ALL);
    int64_t begin, end;
    threads_slice(c->n_threads, p->thread, p->rows, &begin, &end);
    for (int64_t i = begin; i < end; i++)
        memcpy(p->x + c->owned_rows[i] * (uint64_t)c->model->h.n_embd,
               c->whole + i * (int64_t)c->model->h.n_embd, row_bytes);
    threads_barrier(c->threads);
}
