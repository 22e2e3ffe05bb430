/* roofline: what a pass costs on a GPU at best, a kernel: `make roofline`.
 *
 * For each kernel of a pass in exact mode (kernels/NUMERICS.md): the bytes that it must move, its
 * operations, and the time that the slowest of memory and pipes needs for them at the rates of the
 * data sheet, on A100, H100 and H200. No launch, no latency, no cache: a kernel can only be slower,
 * so a measured time divides by these. The bytes are those that the emulator's counts are held to.
 */
#include <stdio.h>

#include "benchmarks/gpu/cost.h"

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

static struct gpu_cost elementwise(double read, double written)
{
    return (struct gpu_cost){.bytes = read + written};
}

static void print_cost(const char *kernel, int64_t times, const struct gpu_cost *c, double total[])
{
    printf("| %s | %lld | %.3g | %.3g | %.3g |", kernel, (long long)times, c->bytes / 1e6,
           (c->dp4a * 4 + c->imma) / 1e9, c->fp32 / 1e9);
    for (int i = 0; i < N_GPU_RATES; i++) {
        const char *bound;
        double seconds = gpu_seconds(c, &gpu_rates[i], &bound);
        total[i] += seconds * (double)times;
        printf(" %.2f %s |", seconds * 1e6, bound);
    }
    printf("\n");
}

static void print_load(const struct shape *s, const struct load *l)
{
    double total[N_GPU_RATES] = {0}, n = (double)l->n;
    int64_t width = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    double x = n * (double)s->n_embd * sizeof(float), ff = n * (double)s->n_ff * sizeof(float),
           qkv = n * (double)(width + 2 * kv) * sizeof(float);

    printf("\n%s %s, %s\n\n| kernel | launches | MB | int8 GMAC | fp32 G | A100 µs | H100 µs | "
           "H200 µs |\n"
           "|---|---|---|---|---|---|---|---|\n",
           s->name, kn_type_name(s->type), l->name);
    const struct {
        const char *name;
        int64_t times;
        struct gpu_cost cost;
    } kernels[] = {
        {"embed", 1, elementwise(n * (double)s->n_embd, x)},
        {"rmsnorm_quantize", 2 * s->n_layers, elementwise(x, gpu_act_bytes(l->n, s->n_embd))},
        {"matmul q, k, v", s->n_layers, gpu_matmul(s->type, width + 2 * kv, s->n_embd, l->n)},
        {"rope_kv", s->n_layers, elementwise(qkv, n * (double)(width * 4 + 2 * kv * 2))},
        {"attention", s->n_layers,
         gpu_attention(l->n, l->context, s->n_heads, s->n_kv_heads, s->head_dim)},
        {"quantize", s->n_layers, elementwise(n * (double)width * 4, gpu_act_bytes(l->n, width))},
        {"matmul o", s->n_layers, gpu_matmul(s->type, s->n_embd, width, l->n)},
        {"matmul gate, up", s->n_layers, gpu_matmul(s->type, 2 * s->n_ff, s->n_embd, l->n)},
        {"swiglu_quantize", s->n_layers, elementwise(2 * ff, gpu_act_bytes(l->n, s->n_ff))},
        {"matmul down", s->n_layers, gpu_matmul(s->type, s->n_embd, s->n_ff, l->n)},
        {"matmul head", 1, gpu_matmul(s->type, s->vocab, s->n_embd, l->picks)},
        {"sample", 1, elementwise((double)(l->picks * s->vocab) * 4, 0)},
    };
    for (size_t i = 0; i < sizeof(kernels) / sizeof(*kernels); i++)
        print_cost(kernels[i].name, kernels[i].times, &kernels[i].cost, total);
    printf("| **all** | | | | |");
    for (int i = 0; i < N_GPU_RATES; i++)
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
