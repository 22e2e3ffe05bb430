/* cpu_lora.c: what the adapters of a batch's rows add to a product (kernels/NUMERICS.md, "LoRA").
 *
 *     cpu_lora_down:  u = scale * A x, rows shared out; up to CPU_PRIVATE_ROWS rows each thread for
 *                     itself, as their act
 *     cpu_lora_up:    y += B u, in the rows of W that the thread has just multiplied
 *
 * Rows of spans that follow one another with one adapter are multiplied together. A batch without
 * adapters passes by.
 */
#include "runtime/engine/backend_cpu.h"
#include "runtime/engine/lora.h"
#include "runtime/model/adapter.h"

static bool is_private(const struct cpu_pass *p)
{
    return p->rows <= CPU_PRIVATE_ROWS;
}

/* Where the u of a run is, for the i-th matrix of a product: rows of the adapter's rank, from the
 * place of its first row on. */
static float *room_of(const struct cpu_pass *p, const struct lora_run *r, int i)
{
    const struct cpu *c = p->cpu;
    int64_t rank = c->limits.adapter_rank;
    if (is_private(p))
        return c->per_thread[p->thread].lora + (i * CPU_PRIVATE_ROWS + r->begin) * rank;
    return c->lora + (i * (int64_t)c->limits.rows_max + r->begin) * rank;
}

static void multiply_down(struct cpu_pass *p, const struct lora_run *r,
                          const struct adapter_matrix *m, int64_t from, int64_t to, float *u)
{
    int64_t rank = r->adapter->rank, k = p->act.k;
    struct kn_act x = {.f = p->act.f + from * k, .k = k};
    u += (from - r->begin) * rank;
    p->cpu->ops->matmul(&m->a, &x, to - from, 0, rank, false, u, rank);
    for (int64_t i = 0; i < (to - from) * rank; i++)
        u[i] = r->adapter->scale * u[i];
}

void cpu_lora_down(struct cpu_pass *p, const struct kn_matrix *const *w, int n)
{
    const struct cpu *c = p->cpu;
    int64_t begin = 0, end = p->rows;
    struct lora_run r = {.next_span = 0};
    if (!c->batch->adapters)
        return;
    if (!is_private(p))
        threads_slice(c->n_threads, p->thread, p->rows, &begin, &end);
    while (lora_next_run(c->batch, &r)) {
        int64_t from = r.begin > begin ? r.begin : begin, to = r.end < end ? r.end : end;
        for (int i = 0; i < n && from < to; i++) {
            const struct adapter_matrix *m = adapter_find(r.adapter, c->model, w[i]);
            if (m)
                multiply_down(p, &r, m, from, to, room_of(p, &r, i));
        }
    }
    if (!is_private(p))
        threads_barrier(c->threads);
}

void cpu_lora_up(struct cpu_pass *p, const struct kn_matrix *w, int i, int64_t row_begin,
                 int64_t row_end, float *y, int64_t ldy)
{
    const struct cpu *c = p->cpu;
    struct lora_run r = {.next_span = 0};
    if (!c->batch->adapters || row_begin >= row_end)
        return;
    while (lora_next_run(c->batch, &r)) {
        const struct adapter_matrix *m = adapter_find(r.adapter, c->model, w);
        if (!m)
            continue;
        struct kn_act u = {.f = room_of(p, &r, i), .k = r.adapter->rank};
        c->ops->matmul(&m->b, &u, r.end - r.begin, row_begin, row_end, true, y + r.begin * ldy,
                       ldy);
    }
}
