/* roofline: what a pass costs on a GPU at best, a kernel: `make roofline`.
 *
 * For each kernel of a pass in exact mode (kernels/NUMERICS.md): the bytes that it must move, its
 * operations, and the time that the slowest of memory and pipes needs for them at the rates of the
 * data sheet, on A100 and H100. No launch, no latency, no cache: a kernel can only be slower, so a
 * measured time divides by these. The bytes are those that the emulator's counts are held to.
 *
 * What exactness costs is in the fp32 column: above the int8 dot product of a block of 32, a
 * product of a row and a token takes a subtraction (the accumulator's magic number off), a multiply
 * and one or two fmaf, in the order of the contract. Any kernel with a scale for each block of 32
 * pays the same.
 */
#include <stdio.h>
#include <string.h>

#include "kernels/kernels.h"

struct device {
    const char *name;
    double bytes; /* a second, of DRAM */
    double fp32;  /* instructions a second over all lanes, an fma being one */
    double dp4a;  /* the same */
    double imma;  /* int8 multiply-adds a second of the tensor cores, dense */
};

/* NVIDIA A100 80GB SXM and H100 SXM data sheets; dp4a at 64 an SM and clock (CUDA C++ Programming
 * Guide, "Arithmetic Instructions", integer arithmetic). */
static const struct device devices[] = {
    {"A100", 2039e9, 9.75e12, 9.75e12, 312e12},
    {"H100", 3352e9, 33.5e12, 16.7e12, 989.5e12},
};
#define N_DEVICES 2

struct shape {
    const char *name;
    int type; /* of all matrices */
    int64_t n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, vocab;
};

/* From the models' config.json. */
static const struct shape shapes[] = {
    {"SmolLM2 135M", KN_Q4_1, 30, 576, 9, 3, 64, 1536, 49152},
    {"Llama 3.1 8B", KN_Q4_K, 32, 4096, 32, 8, 128, 14336, 128256},
    {"Llama 3.1 8B", KN_Q8_0, 32, 4096, 32, 8, 128, 14336, 128256},
};

/* n rows, each behind `context` positions; or one prompt of n rows from position 0. */
struct load {
    const char *name;
    int64_t n;
    int64_t context; /* 0: a prompt */
    int64_t picks;   /* rows whose logits are wanted */
};

static const struct load loads[] = {
    {"batch 1, context 1,024", 1, 1024, 1},
    {"batch 8, context 1,024", 8, 1024, 8},
    {"batch 64, context 1,024", 64, 1024, 64},
    {"prompt of 2,048", 2048, 0, 1},
};

struct cost {
    double bytes, fp32, dp4a, imma;
};

#define GEMV_TOKENS_MAX 8 /* KN_CUDA_TOKENS_MAX */

/* Activations of n rows of k columns, quantised: int8, d, s and h. */
static double act_bytes(int64_t n, int64_t k)
{
    double blocks = (double)n * (double)((k + KN_BLOCK - 1) / KN_BLOCK);
    return blocks * (KN_BLOCK + sizeof(float) + 2 * sizeof(int32_t));
}

static bool has_minimum(int type)
{
    return type == KN_Q4_1 || type == KN_Q5_1 || type == KN_Q4_K || type == KN_Q5_K;
}

static struct cost matmul(int type, int64_t rows, int64_t cols, int64_t n)
{
    double macs = (double)rows * (double)cols * (double)n, blocks = macs / KN_BLOCK;
    bool gemv = n <= GEMV_TOKENS_MAX;
    return (struct cost){
        .bytes = (double)rows * (double)(cols / kn_type_block(type)) *
                     (double)kn_type_block_bytes(type) +
                 act_bytes(n, cols) + (double)(n * rows) * sizeof(float),
        .fp32 = blocks * (has_minimum(type) ? 4 : 3),
        .dp4a = gemv ? macs / 4 : 0,
        .imma = gemv ? 0 : macs,
    };
}

/* q·k and the weighted sum of v: an fma each, an element, head and pair of positions. */
static struct cost attention(const struct shape *s, const struct load *l)
{
    double pairs =
        l->context ? (double)l->n * (double)l->context : (double)l->n * (double)(l->n + 1) / 2;
    double kv = (double)(2 * s->n_kv_heads * s->head_dim) * sizeof(uint16_t);
    double width = (double)(s->n_heads * s->head_dim);
    return (struct cost){
        .bytes = (l->context ? pairs : (double)l->n) * kv + 2 * (double)l->n * width * 4,
        .fp32 = 2 * pairs * width,
    };
}

static struct cost elementwise(double read, double written)
{
    return (struct cost){.bytes = read + written};
}

static void print_cost(const char *kernel, int64_t times, const struct cost *c, double total[])
{
    printf("| %s | %lld | %.3g | %.3g | %.3g |", kernel, (long long)times, c->bytes / 1e6,
           (c->dp4a * 4 + c->imma) / 1e9, c->fp32 / 1e9);
    for (int i = 0; i < N_DEVICES; i++) {
        const struct device *d = &devices[i];
        const char *bound = "memory";
        double t = c->bytes / d->bytes;
        if (c->fp32 / d->fp32 > t) {
            t = c->fp32 / d->fp32;
            bound = "fp32";
        }
        if (c->dp4a / d->dp4a > t) {
            t = c->dp4a / d->dp4a;
            bound = "dp4a";
        }
        if (c->imma / d->imma > t) {
            t = c->imma / d->imma;
            bound = "tensor cores";
        }
        total[i] += t * (double)times;
        printf(" %.2f %s |", t * 1e6, bound);
    }
    printf("\n");
}

static void print_load(const struct shape *s, const struct load *l)
{
    double total[N_DEVICES] = {0}, n = (double)l->n;
    int64_t width = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    double x = n * (double)s->n_embd * sizeof(float), ff = n * (double)s->n_ff * sizeof(float),
           qkv = n * (double)(width + 2 * kv) * sizeof(float);

    printf("\n%s %s, %s\n\n| kernel | launches | MB | int8 GMAC | fp32 G | A100 µs | H100 µs |\n"
           "|---|---|---|---|---|---|---|\n",
           s->name, kn_type_name(s->type), l->name);
    const struct {
        const char *name;
        int64_t times;
        struct cost cost;
    } kernels[] = {
        {"embed", 1, elementwise(n * (double)s->n_embd, x)},
        {"rmsnorm_quantize", 2 * s->n_layers, elementwise(x, act_bytes(l->n, s->n_embd))},
        {"matmul q, k, v", s->n_layers, matmul(s->type, width + 2 * kv, s->n_embd, l->n)},
        {"rope_kv", s->n_layers, elementwise(qkv, n * (double)(width * 4 + 2 * kv * 2))},
        {"attention", s->n_layers, attention(s, l)},
        {"quantize", s->n_layers, elementwise(n * (double)width * 4, act_bytes(l->n, width))},
        {"matmul o", s->n_layers, matmul(s->type, s->n_embd, width, l->n)},
        {"matmul gate, up", s->n_layers, matmul(s->type, 2 * s->n_ff, s->n_embd, l->n)},
        {"swiglu_quantize", s->n_layers, elementwise(2 * ff, act_bytes(l->n, s->n_ff))},
        {"matmul down", s->n_layers, matmul(s->type, s->n_embd, s->n_ff, l->n)},
        {"matmul head", 1, matmul(s->type, s->vocab, s->n_embd, l->picks)},
        {"sample", 1, elementwise((double)(l->picks * s->vocab) * 4, 0)},
    };
    for (size_t i = 0; i < sizeof(kernels) / sizeof(*kernels); i++)
        print_cost(kernels[i].name, kernels[i].times, &kernels[i].cost, total);
    printf("| **all** | | | | |");
    for (int i = 0; i < N_DEVICES; i++)
        printf(" **%.0f**: %.0f tok/s |", total[i] * 1e6, n / total[i]);
    printf("\n");
}

int main(void)
{
    for (size_t i = 0; i < sizeof(shapes) / sizeof(*shapes); i++)
        for (size_t j = 0; j < sizeof(loads) / sizeof(*loads); j++)
            print_load(&shapes[i], &loads[j]);
    return 0;
}
