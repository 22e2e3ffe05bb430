/* bench_kernels.c: what the kernels reach on this machine, as a table. Not a test.
 *
 *     bench_kernels [threads]
 *
 * First each operation alone on one thread at the shapes of SmolLM2-135M, then all matmuls of a
 * forward pass of that model (random weights, Q4_1) shared by `threads` threads that meet at a
 * spinning barrier after each: the ceiling of tokens a second that an engine can reach. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/kernels.h"

#define N_MAX 512 /* tokens of the largest batch */
#define LAYERS 30
#define HIDDEN 576
#define FF 1536
#define FORMAT_COLS 768 /* near HIDDEN, and a multiple of 256 for the K formats */
#define VOCAB 49152
#define THREADS_MAX 64

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *get_memory(size_t bytes)
{
    void *p = NULL;

    if (posix_memalign(&p, 64, bytes) != 0) {
        fprintf(stderr, "bench_kernels: out of memory\n");
        exit(1);
    }
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)p)[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    return p;
}

static float *get_floats(int64_t n)
{
    float *x = get_memory((size_t)n * sizeof *x);

    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)((i * 7919) % 2001 - 1000) * 1e-3f;
    }
    return x;
}

static struct kn_act get_act(int64_t n, int64_t k)
{
    int64_t blocks = n * ((k + KN_BLOCK - 1) / KN_BLOCK);
    float *x = get_floats(n * k);
    struct kn_act a = {.f = get_floats(n * k),
                       .q = get_memory((size_t)blocks * KN_BLOCK),
                       .d = get_floats(blocks),
                       .s = get_memory((size_t)blocks * 4),
                       .h = get_memory((size_t)blocks * 4),
                       .k = k};

    kn_ops(KN_ISA_REF)->quantize(x, k, 0, n, &a);
    free(x);
    return a;
}

/* Random blocks; those that start with an fp16 scale get a small one. */
static struct kn_matrix get_matrix(enum kn_isa isa, int type, int64_t rows, int64_t cols)
{
    size_t block = kn_type_block_bytes(type);
    size_t bytes = (size_t)(rows * (cols / kn_type_block(type))) * block;
    uint8_t *src = get_memory(bytes), *data = get_memory(kn_pack_bytes(isa, type, rows, cols));

    for (size_t i = 1; i < bytes;
         i += type == KN_F32 || type == KN_F16 || type == KN_BF16 ? 2 : block) {
        src[i] = 0x10;
        if (type == KN_Q4_1) {
            src[i + 2] = 0x10;
        }
    }
    kn_pack(isa, type, rows, cols, src, data, 0, rows);
    free(src);
    return (struct kn_matrix){.type = type, .isa = isa, .rows = rows, .cols = cols, .data = data};
}

/* Runs `stmt` for a quarter of a second at least; `best` is the shortest run, so that other work on
 * the machine does not count. */
#define TIME(best, stmt)                                                    \
    do {                                                                    \
        double begin_ = now_s(), before_ = begin_, after_;                  \
        (best) = 1e9;                                                       \
        do {                                                                \
            stmt;                                                           \
            after_ = now_s();                                               \
            (best) = after_ - before_ < (best) ? after_ - before_ : (best); \
            before_ = after_;                                               \
        } while (after_ - begin_ < 0.25);                                   \
    } while (0)

/* ---- one operation, one thread -------------------------------------------------------------- */

static void bench_matmul(const struct kn_ops *ops, int type, int64_t rows, int64_t cols, int64_t n)
{
    struct kn_matrix w = get_matrix(ops->isa, type, rows, cols);
    struct kn_act x = get_act(n, cols);
    float *y = get_floats(n * rows);
    double s;

    TIME(s, ops->matmul(&w, &x, n, 0, rows, false, y, rows));
    printf("%-7s matmul %-6s %6ld x %5ld, n %3ld  %9.1f us  %7.1f GMAC/s  %6.1f GB/s\n",
           kn_isa_name(ops->isa), kn_type_name(type), (long)rows, (long)cols, (long)n, 1e6 * s,
           1e-9 * (double)(rows * cols * n) / s,
           1e-9 * (double)kn_pack_bytes(ops->isa, type, rows, cols) / s);
    free((void *)(uintptr_t)w.data);
    free(x.f);
    free(x.q);
    free(x.d);
    free(x.s);
    free(x.h);
    free(y);
}

static void bench_attention(const struct kn_ops *ops, enum kn_kv_type type, uint32_t pos,
                            uint32_t rows)
{
    int heads = 9, kv_heads = 3, hd = 64;
    uint32_t pages = (pos + rows + 15) / 16, table[1024];
    int64_t elems = kn_kv_page_elems(type, kv_heads, hd);
    uint16_t *kv = get_memory((size_t)(pages * elems) * 2);
    float *q = get_floats(rows * heads * hd), *out = get_floats(rows * heads * hd);
    double s, work = 0.0;

    for (int64_t i = 0; i < pages * elems; i++) {
        kv[i] &= 0x3bff; /* below 1 */
    }
    for (uint32_t i = 0; i < pages; i++) {
        table[i] = i;
    }
    for (uint32_t i = 0; i < rows; i++) {
        work += 2.0 * heads * hd * (pos + i + 1);
    }
    struct kn_attn a = {.q = q,
                        .ldq = heads * hd,
                        .out = out,
                        .ldo = heads * hd,
                        .kv = {kv, elems, kv_heads, hd, type},
                        .span = {table, pos, rows},
                        .n_heads = heads,
                        .scale = 0.125f};
    TIME(s, ops->attention(&a, 0, rows, 0, kv_heads));
    printf("%-7s attention %s pos %4u, rows %3u      %9.1f us  %7.1f GMAC/s\n",
           kn_isa_name(ops->isa), type == KN_KV_INT8 ? "int8" : "f16 ", pos, rows, 1e6 * s,
           1e-9 * work / s);
    free(kv);
    free(q);
    free(out);
}

static void bench_elementwise(const struct kn_ops *ops)
{
    float *x = get_floats(64 * 2 * FF), *w = get_floats(HIDDEN);
    struct kn_act a = get_act(64, FF), h = get_act(64, HIDDEN);
    double s;

    TIME(s, ops->rmsnorm_quantize(x, w, 0.0f, 1e-5f, 0, 64, HIDDEN, &h));
    printf("%-7s rmsnorm_quantize 64 x %d            %9.1f us  %7.2f ns an element\n",
           kn_isa_name(ops->isa), HIDDEN, 1e6 * s, 1e9 * s / (64 * HIDDEN));
    TIME(s, ops->quantize(x, HIDDEN, 0, 64, &h));
    printf("%-7s quantize 64 x %d                    %9.1f us  %7.2f ns an element\n",
           kn_isa_name(ops->isa), HIDDEN, 1e6 * s, 1e9 * s / (64 * HIDDEN));
    TIME(s, ops->swiglu_quantize(x, 2 * FF, 0, 64, FF, &a));
    printf("%-7s swiglu_quantize 64 x %d            %9.1f us  %7.2f ns an element\n",
           kn_isa_name(ops->isa), FF, 1e6 * s, 1e9 * s / (64 * FF));
    free(x);
    free(w);
}

static void bench_sample(const struct kn_ops *ops, const char *what, struct kn_sampling p)
{
    float *logits = get_floats(VOCAB), *work = get_floats(VOCAB);
    void *scratch = get_memory(kn_sample_scratch_bytes(VOCAB));
    struct kn_sampled out;
    double s;

    for (int i = 0; i < VOCAB; i++) {
        logits[i] *= 12.0f;
    }
    TIME(s, (memcpy(work, logits, VOCAB * sizeof *work),
             ops->sample(work, VOCAB, &p, 1, scratch, &out)));
    printf("%-7s sample %-27s     %9.1f us\n", kn_isa_name(ops->isa), what, 1e6 * s);
    free(logits);
    free(work);
    free(scratch);
}

/* ---- all matmuls of a forward pass ---------------------------------------------------------- */

enum { QKV, OUT, GATE_UP, DOWN, N_MATRICES };

struct pass {
    const struct kn_ops *ops;
    struct kn_matrix w[LAYERS][N_MATRICES];
    struct kn_matrix head;
    struct kn_act hidden, ff; /* (N_MAX, …) */
    float *y;                 /* (N_MAX, 2 FF) */
    float *logits;            /* (32, VOCAB) */
    int n_threads;
    atomic_int arrived;
    atomic_int round;
    atomic_int batch; /* tokens of the next pass; negative: the end */
};

struct pass_thread {
    struct pass *pass;
    int index;
};

static void meet(struct pass *p)
{
    int round = atomic_load(&p->round);

    if (atomic_fetch_add(&p->arrived, 1) == p->n_threads - 1) {
        atomic_store(&p->arrived, 0);
        atomic_fetch_add(&p->round, 1);
        return;
    }
    while (atomic_load_explicit(&p->round, memory_order_acquire) == round) {
        __builtin_ia32_pause();
    }
}

static void share(struct pass *p, int index, const struct kn_matrix *w, const struct kn_act *x,
                  int64_t n, float *y)
{
    int64_t tiles = (w->rows + KN_ROW_TILE - 1) / KN_ROW_TILE;
    int64_t begin = tiles * index / p->n_threads * KN_ROW_TILE;
    int64_t end = tiles * (index + 1) / p->n_threads * KN_ROW_TILE;

    p->ops->matmul(w, x, n, begin, end < w->rows ? end : w->rows, false, y, w->rows);
    meet(p);
}

static void forward(struct pass *p, int index, int64_t n)
{
    for (int l = 0; l < LAYERS; l++) {
        share(p, index, &p->w[l][QKV], &p->hidden, n, p->y);
        share(p, index, &p->w[l][OUT], &p->hidden, n, p->y);
        share(p, index, &p->w[l][GATE_UP], &p->hidden, n, p->y);
        share(p, index, &p->w[l][DOWN], &p->ff, n, p->y);
    }
    share(p, index, &p->head, &p->hidden, n <= 32 ? n : 1, p->logits); /* prefill: the last token */
}

static void *pass_worker(void *arg)
{
    struct pass_thread *t = arg;

    for (;;) {
        meet(t->pass);
        int n = atomic_load(&t->pass->batch);
        if (n < 0) {
            return NULL;
        }
        forward(t->pass, t->index, n);
    }
}

static void bench_pass(enum kn_isa isa, int n_threads)
{
    static const int64_t shapes[N_MATRICES][2] = {
        {960, HIDDEN}, {HIDDEN, HIDDEN}, {2 * FF, HIDDEN}, {HIDDEN, FF}};
    static const int batches[] = {1, 2, 4, 8, 16, 32, N_MAX};
    static struct pass p;
    static struct pass_thread threads[THREADS_MAX];
    pthread_t ids[THREADS_MAX];

    memset(&p, 0, sizeof p);
    p.ops = kn_ops(isa);
    p.n_threads = n_threads;
    for (int i = 0; i < LAYERS * N_MATRICES; i++) {
        const int64_t *s = shapes[i % N_MATRICES];
        p.w[i / N_MATRICES][i % N_MATRICES] = get_matrix(isa, KN_Q4_1, s[0], s[1]);
    }
    p.head = get_matrix(isa, KN_Q4_1, VOCAB, HIDDEN);
    p.hidden = get_act(N_MAX, HIDDEN);
    p.ff = get_act(N_MAX, FF);
    p.y = get_floats((int64_t)N_MAX * 2 * FF);
    p.logits = get_floats((int64_t)32 * VOCAB);
    for (int i = 0; i < n_threads; i++) {
        threads[i] = (struct pass_thread){&p, i};
        if (i > 0 && pthread_create(&ids[i], NULL, pass_worker, &threads[i]) != 0) {
            fprintf(stderr, "bench_kernels: no thread\n");
            exit(1);
        }
    }
    for (size_t b = 0; b < sizeof batches / sizeof batches[0]; b++) {
        double s;
        atomic_store(&p.batch, batches[b]);
        TIME(s, (meet(&p), forward(&p, 0, batches[b])));
        printf("%-7s all matmuls, %d threads, n %3d        %9.2f ms  %7.0f tok/s\n",
               kn_isa_name(isa), n_threads, batches[b], 1e3 * s, batches[b] / s);
    }
    atomic_store(&p.batch, -1);
    meet(&p);
    for (int i = 1; i < n_threads; i++) {
        pthread_join(ids[i], NULL);
    }
    for (int i = 0; i < LAYERS * N_MATRICES; i++) {
        free((void *)(uintptr_t)p.w[i / N_MATRICES][i % N_MATRICES].data);
    }
    free((void *)(uintptr_t)p.head.data);
    free(p.y);
    free(p.logits);
}

int main(int argc, char **argv)
{
    int n_threads = argc > 1 ? atoi(argv[1]) : 2;
    static const int types[] = {KN_Q4_0, KN_Q4_1, KN_Q5_0, KN_Q5_1,   KN_Q8_0,  KN_Q2_K, KN_Q3_K,
                                KN_Q4_K, KN_Q5_K, KN_Q6_K, KN_IQ4_NL, KN_MXFP4, KN_F16,  KN_F32};
    static const int64_t batches[] = {1, 4, 8, 64};

    if (n_threads < 1 || n_threads > THREADS_MAX) {
        fprintf(stderr, "usage: bench_kernels [threads, 1 to %d]\n", THREADS_MAX);
        return 2;
    }
    for (int i = 1; i < KN_ISA_COUNT; i++) {
        if (!kn_isa_available((enum kn_isa)i)) {
            continue;
        }
        const struct kn_ops *ops = kn_ops((enum kn_isa)i);
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
            for (int b = 0; b < 4; b++) {
                bench_matmul(ops, types[t], 2 * FF, FORMAT_COLS, batches[b]);
            }
        }
        bench_matmul(ops, KN_Q4_1, VOCAB, HIDDEN, 1);
        for (int type = KN_KV_F16; type <= KN_KV_INT8; type++) {
            bench_attention(ops, (enum kn_kv_type)type, 511, 1);
            bench_attention(ops, (enum kn_kv_type)type, 2047, 1);
            bench_attention(ops, (enum kn_kv_type)type, 0, 512);
        }
        bench_elementwise(ops);
        struct kn_sampling p = {.temperature = 0.0f, .top_p = 1.0f, .repetition_penalty = 1.0f};
        bench_sample(ops, "greedy", p);
        p.temperature = 0.8f;
        bench_sample(ops, "temperature 0.8", p);
        p.top_p = 0.95f;
        p.top_k = 40;
        bench_sample(ops, "top_k 40, top_p 0.95", p);
        p.want_logprobs = true;
        p.n_top = 5;
        bench_sample(ops, "the same, logprobs", p);
        bench_pass((enum kn_isa)i, n_threads);
    }
    return 0;
}
