/* cpu_pool.c: the states of rows behind the output norm, added up for embeddings. */
#include "runtime/engine/backend_cpu.h"

/* This thread's columns of the rows of k, each position behind the one before. */
static void add_columns(const struct pooling *k, const float *x, int64_t d, int64_t begin,
                        int64_t end)
{
    for (uint32_t i = 0; i < k->rows; i++) {
        const float *row = x + (k->row + i) * d;
        for (int64_t j = begin; j < end; j++)
            k->sum[j] = k->sum[j] + (double)row[j];
    }
}

/* In place: nobody takes logits of a row that is pooled. */
void cpu_pool(struct pass *base, const float *w, float w_offset, float eps)
{
    struct cpu_pass *p = (struct cpu_pass *)base;
    const struct cpu *c = p->cpu;
    const struct batch *b = c->batch;
    int64_t begin, end, d = c->model->h.n_embd;
    if (b->n_pools == 0 || !b->pools) /* which are rank 0's */
        return;
    threads_slice(c->n_threads, p->thread, b->n_rows, &begin, &end);
    for (uint32_t i = 0; i < b->n_pools; i++) {
        int64_t first = b->pools[i].row, last = first + b->pools[i].rows;
        first = first > begin ? first : begin;
        last = last < end ? last : end;
        if (first < last)
            c->ops->rmsnorm(p->x + first * d, w, w_offset, eps, last - first, d, p->x + first * d);
    }
    threads_barrier(c->threads);
    threads_slice(c->n_threads, p->thread, d, &begin, &end);
    for (uint32_t i = 0; i < b->n_pools; i++)
        add_columns(&b->pools[i], p->x, d, begin, end);
}
