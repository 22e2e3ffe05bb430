/* cuda_lora.c: what the adapters of a batch's rows add to a product on a GPU (kernels/NUMERICS.md,
 * "LoRA"): of each run of rows with one adapter, u = scale * A x, y += B u, three launches. */
#include "runtime/engine/backend_cuda.h"
#include "runtime/engine/lora.h"
#include "runtime/model/adapter.h"

static void add_run(struct cuda *c, const struct lora_run *r, const struct adapter_matrix *m,
                    float *y, int64_t ldy)
{
    const struct kn_matrix a = cuda_matrix(c, &m->a), b = cuda_matrix(c, &m->b);
    int64_t rank = r->adapter->rank, n = r->end - r->begin;
    const struct kn_act x = {.f = c->act.f + r->begin * c->act.k, .k = c->act.k};
    const struct kn_act u = {.f = c->lora, .k = rank};
    if (c->failed.code == 0)
        cuda_ok(c, kn_cuda_matmul(&a, &x, n, 0, rank, false, c->lora, rank, c->stream),
                "matmul of an adapter");
    if (c->failed.code == 0)
        cuda_ok(c, kn_cuda_scale(c->lora, n * rank, r->adapter->scale, c->stream), "scale");
    if (c->failed.code == 0)
        cuda_ok(c, kn_cuda_matmul(&b, &u, n, 0, b.rows, true, y + r->begin * ldy, ldy, c->stream),
                "matmul of an adapter");
}

void cuda_lora(struct cuda *c, const struct kn_matrix *w, float *y, int64_t ldy)
{
    struct lora_run r = {.next_span = 0};
    while (lora_next_run(c->batch, &r)) {
        const struct adapter_matrix *m = adapter_find(r.adapter, c->model, w);
        if (m)
            add_run(c, &r, m, y, ldy);
    }
}
