/* bench_exactness.c: what the contract of NUMERICS.md costs in the matmuls of a forward pass. Not a
 * test.
 *
 *     bench_exactness [rounds]
 *
 * The four matrices of a layer of SmolLM2-135M (3 layers for many tokens, else 30, so that weights
 * come from memory), random weights, one thread: the kernels as they are, and the same free of the
 * contract (free.h). In turn, best of the rounds, in processor time, which a shared machine leaves
 * alone. K is 768 for KN_Q4_K, a multiple of its unit, in place of 576. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/formats.h"
#include "kernels/numerics.h"
#include "kernels/table.h"

/* From here on, for blocks.h: one segment. */
#undef KN_SEGMENTS
#define KN_SEGMENTS 1
#define kn_segment(n, s) ((n) * (s))

#include "kernels/lanes.h"
#include "kernels/matmul/tile.h"

#include "kernels/lanes_avx2.h"

#include "kernels/matmul/blocks_avx2.h"

#include "benchmarks/exactness/free.h"

#include "kernels/lanes_avx512.h"

#include "kernels/matmul/blocks_avx512.h"

#include "benchmarks/exactness/free.h"

#define LAYERS_MAX 30
#define N_MAX 512
#define FF 1536

enum { QKV, OUT, GATE_UP, DOWN, N_MATRICES };

struct pass {
    enum kn_isa isa;
    struct kn_matrix w[LAYERS_MAX][N_MATRICES];
    struct kn_act hidden, ff; /* (N_MAX, …) */
    float *y;                 /* (N_MAX, 2 FF) */
};

static double now_s(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void *get_memory(size_t bytes)
{
    void *p = NULL;

    if (posix_memalign(&p, 64, bytes) != 0) {
        fprintf(stderr, "bench_exactness: out of memory\n");
        exit(1);
    }
    for (size_t i = 0; i < bytes; i++) {
        ((uint8_t *)p)[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    return p;
}

static struct kn_act get_act(int64_t k)
{
    int64_t blocks = N_MAX * (k / KN_BLOCK);
    float *x = get_memory((size_t)(N_MAX * k) * sizeof *x);
    struct kn_act a = {.q = get_memory((size_t)blocks * KN_BLOCK),
                       .d = get_memory((size_t)blocks * 4),
                       .s = get_memory((size_t)blocks * 4),
                       .h = get_memory((size_t)blocks * 4),
                       .k = k};

    for (int64_t i = 0; i < N_MAX * k; i++) {
        x[i] = (float)((i * 7919) % 2001 - 1000) * 1e-3f;
    }
    kn_ops(KN_ISA_REF)->quantize(x, k, 0, N_MAX, &a);
    free(x);
    return a;
}

/* Random quants; the scales at the start of a block are small. */
static struct kn_matrix get_matrix(enum kn_isa isa, int type, int64_t rows, int64_t cols)
{
    size_t block = kn_type_block_bytes(type);
    size_t bytes = (size_t)(rows * (cols / kn_type_block(type))) * block;
    uint8_t *src = get_memory(bytes), *data = get_memory(kn_pack_bytes(isa, type, rows, cols));

    for (size_t i = 1; i < bytes; i += block) {
        src[i] = 0x10;
        if (type != KN_Q8_0) {
            src[i + 2] = 0x10;
        }
    }
    kn_pack(isa, type, rows, cols, src, data, 0, rows);
    free(src);
    return (struct kn_matrix){.type = type, .isa = isa, .rows = rows, .cols = cols, .data = data};
}

static void forward(const struct pass *p, int layers, int64_t n, bool bound)
{
    for (int i = 0; i < layers * N_MATRICES; i++) {
        const struct kn_matrix *w = &p->w[i / N_MATRICES][i % N_MATRICES];
        const struct kn_act *x = i % N_MATRICES == DOWN ? &p->ff : &p->hidden;
        if (bound) {
            kn_ops(p->isa)->matmul(w, x, n, 0, w->rows, false, p->y, w->rows);
        } else if (p->isa == KN_ISA_AVX2) {
            free_matmul_avx2(w, x, n, 0, w->rows, p->y, w->rows);
        } else {
            free_matmul_avx512(w, x, n, 0, w->rows, p->y, w->rows);
        }
    }
}

static void compare(const struct pass *p, const char *type, int64_t n, int rounds)
{
    int layers = n > 64 ? 3 : LAYERS_MAX;
    double best[2] = {1e9, 1e9};

    for (int i = 0; i < 2 * rounds; i++) {
        double begin = now_s();
        forward(p, layers, n, i % 2 == 0);
        double s = (now_s() - begin) * LAYERS_MAX / layers;
        best[i % 2] = s < best[i % 2] ? s : best[i % 2];
    }
    printf("%-7s %-5s n %3ld   contract %8.2f ms   free %8.2f ms   cost %5.1f%%\n",
           kn_isa_name(p->isa), type, (long)n, 1e3 * best[0], 1e3 * best[1],
           100.0 * (best[0] / best[1] - 1.0));
}

static void bench(enum kn_isa isa, int type, int rounds)
{
    static const int64_t batches[] = {1, 8, N_MAX};
    int64_t hidden = type == KN_Q4_K ? 768 : 576;
    const int64_t shapes[N_MATRICES][2] = {
        {960, hidden}, {576, hidden}, {2 * FF, hidden}, {576, FF}};
    static struct pass p;

    p = (struct pass){.isa = isa, .hidden = get_act(hidden), .ff = get_act(FF)};
    p.y = get_memory((size_t)N_MAX * 2 * FF * sizeof(float));
    for (int i = 0; i < LAYERS_MAX * N_MATRICES; i++) {
        const int64_t *s = shapes[i % N_MATRICES];
        p.w[i / N_MATRICES][i % N_MATRICES] = get_matrix(isa, type, s[0], s[1]);
    }
    for (int i = 0; i < 3; i++) {
        compare(&p, kn_type_name(type), batches[i], batches[i] == 1 ? 4 * rounds : rounds);
    }
    /* The process ends after a few of these: what they hold stays. */
}

int main(int argc, char **argv)
{
    static const int types[] = {KN_Q4_1, KN_Q8_0, KN_Q4_K};
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 10;

    if (rounds < 1 || rounds > 1000) {
        fprintf(stderr, "usage: bench_exactness [rounds, 1 to 1000]\n");
        return 2;
    }
    for (int isa = KN_ISA_AVX2; isa <= KN_ISA_AVX512; isa++) {
        for (int t = 0; t < 3 && kn_isa_available((enum kn_isa)isa); t++) {
            bench((enum kn_isa)isa, types[t], (int)rounds);
        }
    }
    return 0;
}
