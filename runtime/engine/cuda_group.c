/* cuda_group.c: a pass of one GPU of several: where what it computed meets what the others did, on
 * its stream. The exchange is of device memory (collective_nccl.h); cpu_group.c is the CPU's. */
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/engine/backend_cuda.h"

static void exchange(struct cuda *c, const struct collective_plane *planes, int n, uint32_t root)
{
    struct err e;
    if (c->failed.code == 0 && collective_gather(c->group, planes, n, root, &e) < 0)
        err_set(&c->failed, ERR_PEER, "%s", e.msg);
}

static struct bounds floats(const struct cuda *c, const struct columns *by)
{
    return columns_of_floats(by, c->group->size);
}

static struct collective_plane plane_of(const struct cuda *c, const void *src, void *dst,
                                        uint32_t rows, const struct bounds *b)
{
    uint32_t rank = c->group->rank;
    return (struct collective_plane){.src = src,
                                     .src_stride = b->begin[rank + 1] - b->begin[rank],
                                     .dst = dst,
                                     .dst_stride = b->begin[c->group->size],
                                     .rows = rows,
                                     .begin = b->begin};
}

void cuda_gather_act(struct cuda_pass *p, const struct columns *by)
{
    struct cuda *c = p->cuda;
    const struct kn_act *from = &c->part_act, *to = &c->act;
    uint32_t ranks = c->group->size, n = p->n_act;
    struct bounds f = floats(c, by), q = columns_of_blocks(by, ranks, KN_BLOCK),
                  d = columns_of_blocks(by, ranks, sizeof(float));
    const struct collective_plane planes[] = {
        plane_of(c, from->q, to->q, n, &q), plane_of(c, from->d, to->d, n, &d),
        plane_of(c, from->s, to->s, n, &d), plane_of(c, from->h, to->h, n, &d),
        plane_of(c, from->f, to->f, n, &f),
    };
    exchange(c, planes, from->f ? 5 : 4, COLLECTIVE_ALL);
    c->act.k = by->begin[ranks];
}

void cuda_gather_x(struct cuda_pass *p)
{
    struct cuda *c = p->cuda;
    struct bounds b = floats(c, &c->by.embd);
    struct collective_plane plane = plane_of(c, cuda_own_x(p), p->x, p->rows, &b);
    plane.src_stride = plane.dst_stride;
    exchange(c, &plane, 1, COLLECTIVE_ALL);
}

void cuda_gather_y(struct cuda_pass *p)
{
    struct cuda *c = p->cuda;
    struct bounds b = floats(c, &c->by.embd);
    const struct collective_plane plane = plane_of(c, c->y, c->whole, p->rows, &b);
    exchange(c, &plane, 1, COLLECTIVE_ALL);
}

void cuda_gather_logits(struct cuda_pass *p)
{
    struct cuda *c = p->cuda;
    struct bounds b = floats(c, &c->by.vocab);
    struct collective_plane plane = plane_of(c, c->logits, c->logits, p->rows, &b);
    if (c->group->rank == 0)
        plane.src_stride = plane.dst_stride;
    exchange(c, &plane, 1, 0);
}

/* ---- embedding ---------------------------------------------------------------------------------
 */

void cuda_group_stage(struct cuda *c)
{
    struct cuda_staging *s = &c->host;
    /* s->places is the list of the rows first, then its inverse: where each row's is. */
    uint32_t *list = c->owned_rows;
    columns_sort_rows(c->batch, &c->by.vocab, c->group->size, c->group->rank, s->ids, list,
                      &c->owned);
    for (uint32_t i = 0; i < c->batch->n_rows; i++)
        s->places[list[i]] = i;
}

/* Outside of what is recorded: how many rows are whose differs from batch to batch. */
void cuda_group_embed(struct cuda *c, const struct kn_matrix *w, float scale)
{
    uint32_t own = c->group->rank, begin = c->owned.begin[own], n = c->owned.begin[own + 1] - begin;
    uint64_t dim = c->model->h.n_embd;
    float *rows = c->whole + begin * dim;
    struct bounds parts;
    if (n > 0 && c->failed.code == 0) {
        const struct kn_matrix m = cuda_matrix(c, w);
        cuda_ok(c, kn_cuda_embed(&m, c->device.ids, n, scale, rows, c->stream), "embed");
    }
    for (uint32_t r = 0; r <= c->group->size; r++)
        parts.begin[r] = c->owned.begin[r] * dim * sizeof(float);
    struct collective_plane plane = plane_of(c, rows, c->whole, 1, &parts);
    exchange(c, &plane, 1, COLLECTIVE_ALL);
    if (c->failed.code == 0)
        cuda_ok(c,
                kn_cuda_gather(c->whole, c->device.places, c->batch->n_rows, (int64_t)dim, c->x,
                               c->stream),
                "gather");
}
