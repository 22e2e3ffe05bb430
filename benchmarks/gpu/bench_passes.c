/* bench_passes.c: tokens a second of whole passes through the CUDA backend: graphs, attention,
 * sampling and all, over a model of a real one's shape whose weights are any bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/gpu/bench.h"
#include "runtime/base/clock.h"
#include "runtime/base/memory.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/gpu.h"
#include "runtime/model/arch.h"
#include "runtime/model/model.h"

#define BATCH_MAX 256u
#define PASSES 10

/* Llama 3 8B: a quarter of its layers, and its head. */
static const struct hparams llama3 = {.n_layers = 8,
                                      .n_embd = 4096,
                                      .n_ff = 14336,
                                      .n_heads = 32,
                                      .n_kv_heads = 8,
                                      .head_dim = 128,
                                      .vocab = 128256,
                                      .context = 8192,
                                      .rms_eps = 1e-5f,
                                      .attn_scale = 0.088f};
static const struct hparams tiny = {.n_layers = 1,
                                    .n_embd = 64,
                                    .n_ff = 64,
                                    .n_heads = 2,
                                    .n_kv_heads = 1,
                                    .head_dim = 32,
                                    .vocab = 128,
                                    .context = 256,
                                    .rms_eps = 1e-5f,
                                    .attn_scale = 0.177f};

struct passes {
    struct model model;
    struct backend *backend;
    double *inv_freq;
    float *ones;
    uint32_t context, pages_each;
    uint32_t *ids, *pages;
    struct kn_span spans[BATCH_MAX];
    struct pick picks[BATCH_MAX];
};

static void *must_have(void *p)
{
    if (!p) {
        fprintf(stderr, "bench_gpu: no memory\n");
        exit(2);
    }
    return p;
}

static void must_be(int rc, const struct err *e)
{
    if (rc < 0) {
        fprintf(stderr, "bench_gpu: %s\n", e->msg);
        exit(2);
    }
}

/* ---- a model without a file --------------------------------------------------------------------
 */

/* The next matrix: its bytes lie at the end of those before. Counts only while there is no block.
 */
static struct kn_matrix matrix(struct model *m, size_t *at, int64_t rows, int64_t cols)
{
    struct kn_matrix w = {.type = KN_Q4_1, .isa = KN_ISA_REF, .rows = rows, .cols = cols};
    w.data = (char *)m->block + *at;
    *at += kn_pack_bytes(w.isa, w.type, rows, cols);
    return w;
}

static size_t lay_out(struct passes *p)
{
    struct model *m = &p->model;
    const struct hparams *h = &m->h;
    int64_t width = h->n_heads * h->head_dim, kv = h->n_kv_heads * h->head_dim;
    size_t at = 0;
    m->embed = matrix(m, &at, h->vocab, h->n_embd);
    m->head = m->embed;
    m->out_norm = p->ones;
    for (uint32_t i = 0; i < h->n_layers; i++)
        m->layers[i] = (struct model_layer){.attn_norm = p->ones,
                                            .q = matrix(m, &at, width, h->n_embd),
                                            .k = matrix(m, &at, kv, h->n_embd),
                                            .v = matrix(m, &at, kv, h->n_embd),
                                            .o = matrix(m, &at, h->n_embd, width),
                                            .ffn_norm = p->ones,
                                            .gate = matrix(m, &at, h->n_ff, h->n_embd),
                                            .up = matrix(m, &at, h->n_ff, h->n_embd),
                                            .down = matrix(m, &at, h->n_embd, h->n_ff)};
    return at;
}

static void make_model(struct passes *p, const struct hparams *h)
{
    struct model *m = &p->model;
    *m = (struct model){.arch = &arch_llama, .h = *h, .isa = KN_ISA_REF};
    shard_of(h, 0, 1, &m->shard);
    p->inv_freq = must_have(calloc(h->head_dim / 2, sizeof(*p->inv_freq)));
    m->rope = (struct model_rope){
        .kind = KN_ROPE_NORM, .dim = h->head_dim, .inv_freq = p->inv_freq, .magnitude = 1};
    m->layers = must_have(calloc(h->n_layers, sizeof(*m->layers)));
    p->ones = must_have(malloc(h->n_embd * sizeof(float)));
    for (uint32_t i = 0; i < h->n_embd; i++)
        p->ones[i] = 1;
    m->block_bytes = lay_out(p);
    m->block = must_have(memory_map(m->block_bytes));
    memset(m->block, 0x11, m->block_bytes);
    lay_out(p);
}

/* ---- passes ------------------------------------------------------------------------------------
 */

static const struct kn_sampling greedy = {.top_p = 1, .repetition_penalty = 1};

/* Seconds of the fastest: the first ones load and record. */
static double seconds_of(struct passes *p, struct batch *b)
{
    double best = 1e9;
    for (int i = 0; i < (bench.small ? 3 : PASSES); i++) {
        struct err e;
        uint64_t begin_ns = clock_mono_ns();
        backend_run(p->backend, b);
        double seconds = (double)(clock_mono_ns() - begin_ns) / 1e9;
        must_be(backend_check(p->backend, &e), &e);
        best = seconds < best ? seconds : best;
    }
    return best;
}

static void report(const char *what, uint32_t n, double seconds)
{
    printf("| %s %u | %.2f | %.0f |\n", what, n, seconds * 1e3, n / seconds);
    fflush(stdout);
}

/* n sequences, each with a row behind half a context. */
static void decode(struct passes *p, uint32_t n)
{
    struct batch b = {.ids = p->ids,
                      .n_rows = n,
                      .spans = p->spans,
                      .n_spans = n,
                      .picks = p->picks,
                      .n_picks = n};
    for (uint32_t i = 0; i < n; i++) {
        p->spans[i] = (struct kn_span){
            .page_table = p->pages + i * p->pages_each, .pos = p->context / 2, .rows = 1};
        p->picks[i] = (struct pick){.row = i, .position = p->context / 2 + 1, .sampling = &greedy};
    }
    report("decode, batch of", n, seconds_of(p, &b));
}

static void prefill(struct passes *p, uint32_t n)
{
    struct batch b = {.ids = p->ids,
                      .n_rows = n,
                      .spans = p->spans,
                      .n_spans = 1,
                      .picks = p->picks,
                      .n_picks = 1};
    p->spans[0] = (struct kn_span){.page_table = p->pages, .pos = 0, .rows = n};
    p->picks[0] = (struct pick){.row = n - 1, .position = n, .sampling = &greedy};
    report("prompt of", n, seconds_of(p, &b));
}

static void open_passes(struct passes *p)
{
    uint32_t batch = bench.small ? 4 : BATCH_MAX;
    struct gpu gpu;
    struct err e;
    make_model(p, bench.small ? &tiny : &llama3);
    p->context = bench.small ? 64 : 2048;
    p->pages_each = p->context / KN_PAGE_TOKENS;
    const struct backend_limits limits = {.rows_max = p->context > batch ? p->context : batch,
                                          .picks_max = batch,
                                          .context = p->context,
                                          .kv_pages = batch * p->pages_each,
                                          .kv_type = KN_KV_F16};
    p->ids = must_have(calloc(limits.rows_max, sizeof(*p->ids)));
    p->pages = must_have(calloc(limits.kv_pages, sizeof(*p->pages)));
    for (uint32_t i = 0; i < limits.kv_pages; i++)
        p->pages[i] = i;
    must_be(gpu_choose("cuda", 1, &gpu, &e), &e);
    must_be(backend_cuda_create(&p->model, &gpu, NULL, &limits, &p->backend, &e), &e);
}

void bench_passes(void)
{
    struct passes p = {.context = 0};
    open_passes(&p);
    printf("\nWhole passes, Q4_1, %s, contexts of %u\n\n| | ms | tokens/s |\n|---|---|---|\n",
           bench.small ? "a tiny model" : "8 of Llama 3 8B's 32 layers with its head",
           p.context / 2);
    for (uint32_t n = 1; n <= (bench.small ? 4 : BATCH_MAX); n *= 2)
        decode(&p, n);
    prefill(&p, bench.small ? 16 : 512);
    prefill(&p, bench.small ? 64 : 2048);
    backend_free(p.backend);
    memory_unmap(p.model.block, p.model.block_bytes);
    free(p.model.layers);
    free(p.inv_freq);
    free(p.ones);
    free(p.ids);
    free(p.pages);
}
