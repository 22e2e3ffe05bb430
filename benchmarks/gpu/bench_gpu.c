/* bench_gpu: what each kernel reaches on the GPU that is here: `make gpu-bench`.
 *
 *     bench_gpu [small]        small: shapes that an emulator can do; the times mean nothing
 *
 * A kernel is captured many times in a graph and the graph is replayed, so that launches cost
 * little and the host nothing; weights are several copies in turn, so that no cache holds them.
 * Bandwidth is what a copy on the device reaches; the other rates are the data sheet's
 * (cost.h), by the name of the device. The share is that of the bound that takes the longest.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/gpu/bench.h"
#include "kernels/cuda_kernels.h"
#include "kernels/simt/cuda_api.h"
#include "runtime/base/clock.h"
#include "runtime/engine/gpu.h"

#define WEIGHT_COPIES 4
#define REPLAYS 5
#define WARM_ROUNDS 40

struct bench bench;

void bench_must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    fprintf(stderr, "bench_gpu: %s: %s\n", what, cudaGetErrorString(e));
    exit(2);
}

void *bench_memory(size_t bytes)
{
    void *p;
    bench_must(cudaMalloc(&p, bytes), "cudaMalloc");
    bench_must(cudaMemsetAsync(p, 1, bytes, bench.stream), "cudaMemset");
    return p;
}

/* ---- one kernel -------------------------------------------------------------------------------
 */

/* Seconds that it takes once; -1 where it is not served. */
static double seconds_of(bench_enqueue *enqueue, void *arg, int times)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    if (enqueue(arg, 0) != 0) {
        (void)cudaGetLastError();
        return -1;
    }
    bench_must(cudaStreamSynchronize(bench.stream), "kernel");
    bench_must(cudaStreamBeginCapture(bench.stream, cudaStreamCaptureModeThreadLocal), "capture");
    for (int i = 0; i < times; i++)
        bench_must((cudaError_t)enqueue(arg, i), "launch");
    bench_must(cudaStreamEndCapture(bench.stream, &graph), "capture");
    bench_must(cudaGraphInstantiate(&exec, graph, 0), "graph");
    double best = 1e9;
    for (int i = 0; i < (bench.small ? 1 : REPLAYS); i++) {
        uint64_t start = clock_mono_ns();
        bench_must(cudaGraphLaunch(exec, bench.stream), "graph");
        bench_must(cudaStreamSynchronize(bench.stream), "graph");
        double seconds = (double)(clock_mono_ns() - start) / 1e9 / times;
        best = seconds < best ? seconds : best;
    }
    bench_must(cudaGraphExecDestroy(exec), "graph");
    bench_must(cudaGraphDestroy(graph), "graph");
    return best;
}

void bench_report(const char *name, const struct gpu_cost *c, bench_enqueue *enqueue, void *arg)
{
    double seconds = seconds_of(enqueue, arg, bench.small ? 1 : 20);
    const char *bound;
    double least = gpu_seconds(c, &bench.rates, &bound);
    if (seconds < 0)
        printf("| %s | not served | | | |\n", name);
    else
        printf("| %s | %.1f | %.0f | %.2f | %.0f%% of %s |\n", name, seconds * 1e6,
               c->bytes / seconds / 1e9, (c->dp4a * 4 + c->imma) / seconds / 1e12,
               100 * least / seconds, bound);
    fflush(stdout);
}

/* ---- what they need ---------------------------------------------------------------------------
 */

static struct kn_act new_act(int64_t n, int64_t k)
{
    size_t blocks = (size_t)(n * ((k + KN_BLOCK - 1) / KN_BLOCK));
    return (struct kn_act){.q = bench_memory(blocks * KN_BLOCK),
                           .d = bench_memory(blocks * sizeof(float)),
                           .s = bench_memory(blocks * sizeof(int32_t)),
                           .h = bench_memory(blocks * sizeof(int32_t)),
                           .k = k};
}

static void free_act(struct kn_act *a)
{
    cudaFree(a->q);
    cudaFree(a->d);
    cudaFree(a->s);
    cudaFree(a->h);
}

struct matmul_bench {
    struct kn_matrix w[WEIGHT_COPIES];
    struct kn_act x;
    int64_t n;
    float *y;
};

static int enqueue_matmul(void *arg, int i)
{
    const struct matmul_bench *b = arg;
    const struct kn_matrix *w = &b->w[i % WEIGHT_COPIES];
    return kn_cuda_matmul(w, &b->x, b->n, 0, w->rows, false, b->y, w->rows, bench.stream);
}

static void bench_matmul(int type, int64_t rows, int64_t cols, const int64_t *tokens, int n_tokens)
{
    struct matmul_bench b;
    size_t bytes = kn_cuda_pack_bytes(type, rows, cols);
    int64_t most = tokens[n_tokens - 1];
    if (!bytes)
        return;
    for (int i = 0; i < WEIGHT_COPIES; i++)
        b.w[i] = (struct kn_matrix){
            .type = type, .rows = rows, .cols = cols, .data = bench_memory(bytes)};
    b.x = new_act(most, cols);
    b.y = bench_memory((size_t)(most * rows) * sizeof(float));
    for (int i = 0; i < n_tokens; i++) {
        struct gpu_cost c = gpu_matmul(type, rows, cols, tokens[i]);
        char name[96];
        b.n = tokens[i];
        snprintf(name, sizeof(name), "matmul %s %lld x %lld, %lld tokens", kn_type_name(type),
                 (long long)rows, (long long)cols, (long long)b.n);
        bench_report(name, &c, enqueue_matmul, &b);
    }
    for (int i = 0; i < WEIGHT_COPIES; i++)
        cudaFree((void *)(uintptr_t)b.w[i].data);
    free_act(&b.x);
    cudaFree(b.y);
}

struct attention_bench {
    bool flash;
    struct kn_cuda_attn a;
    uint32_t splits;
    float *part;
    struct kn_cuda_tile *tiles;
    int64_t n_tiles;
};

static int enqueue_attention(void *arg, int i)
{
    const struct attention_bench *b = arg;
    (void)i;
    if (b->flash)
        return kn_cuda_attention_flash(&b->a, b->tiles, b->n_tiles, bench.stream);
    return b->tiles ? kn_cuda_attention_prefill(&b->a, b->tiles, b->n_tiles, bench.stream)
                    : kn_cuda_attention(&b->a, b->splits, b->part, bench.stream);
}

static void *uploaded(const void *host, size_t bytes)
{
    void *p = bench_memory(bytes);
    bench_must(cudaMemcpyAsync(p, host, bytes, cudaMemcpyHostToDevice, bench.stream), "copy");
    bench_must(cudaStreamSynchronize(bench.stream), "copy");
    return p;
}

/* n sequences with a row behind `context` positions each; or one prompt of n rows, exactly or by
 * fast mode's kernel. */
static void bench_attention(int64_t n, int64_t context, int n_heads, int n_kv_heads, int head_dim,
                            bool flash)
{
    struct attention_bench b = {.flash = flash};
    int64_t length = context ? context : n, n_sequences = context ? n : 1;
    int64_t pages = (length + KN_PAGE_TOKENS - 1) / KN_PAGE_TOKENS;
    int64_t elems = kn_kv_page_elems(KN_KV_F16, n_kv_heads, head_dim), width = n_heads * head_dim;
    size_t words = sizeof(uint32_t);
    uint32_t *pos = malloc((size_t)n * words), *at = malloc((size_t)n * words),
             *table = malloc((size_t)(pages * n_sequences) * words);
    struct kn_cuda_tile *tiles = malloc((size_t)n * sizeof(*tiles));
    if (!pos || !at || !table || !tiles)
        exit(2);
    for (int64_t i = 0; i < n; i++) {
        pos[i] = (uint32_t)(context ? context - 1 : i);
        at[i] = (uint32_t)(context ? i * pages : 0);
    }
    for (int64_t i = 0; i < pages * n_sequences; i++)
        table[i] = (uint32_t)i;
    b.a = (struct kn_cuda_attn){
        .q = bench_memory((size_t)(n * width) * sizeof(float)),
        .ldq = width,
        .out = bench_memory((size_t)(n * width) * sizeof(float)),
        .ldo = width,
        .kv = {bench_memory((size_t)(pages * n_sequences * elems) * sizeof(uint16_t)), elems,
               n_kv_heads, head_dim, KN_KV_F16},
        .rows = {uploaded(pos, (size_t)n * words),
                 uploaded(table, (size_t)(pages * n_sequences) * words),
                 uploaded(at, (size_t)n * words), n},
        .n_heads = n_heads,
        .scale = 0.1f,
    };
    if (context) {
        b.splits = (uint32_t)((length + KN_ATTN_SPLIT - 1) / KN_ATTN_SPLIT);
        b.part = bench_memory(kn_cuda_attention_part_bytes(n, n_heads, head_dim, b.splits));
    } else {
        uint32_t rows = flash ? kn_cuda_attention_flash_rows(n_heads, n_kv_heads, head_dim)
                              : kn_cuda_attention_rows(n_heads, n_kv_heads);
        for (uint32_t end = (uint32_t)n; end > 0; end = tiles[b.n_tiles++].row) {
            uint32_t begin = (end - 1) / rows * rows;
            tiles[b.n_tiles] = (struct kn_cuda_tile){begin, end - begin};
        }
        b.tiles = uploaded(tiles, (size_t)b.n_tiles * sizeof(*tiles));
    }
    struct gpu_cost c = gpu_attention(n, context, n_heads, n_kv_heads, head_dim);
    char name[96];
    snprintf(name, sizeof(name),
             context ? "attention, %lld rows at %lld"
             : flash ? "flash attention, prompt of %lld"
                     : "attention, prompt of %lld",
             (long long)n, (long long)context);
    bench_report(name, &c, enqueue_attention, &b);
    cudaFree((void *)(uintptr_t)b.a.q);
    cudaFree(b.a.out);
    cudaFree(b.a.kv.pages);
    cudaFree((void *)(uintptr_t)b.a.rows.pos);
    cudaFree((void *)(uintptr_t)b.a.rows.table);
    cudaFree((void *)(uintptr_t)b.a.rows.table_at);
    cudaFree(b.part);
    cudaFree(b.tiles);
    free(pos);
    free(at);
    free(table);
    free(tiles);
}

struct row_bench {
    float *x, *w, *y;
    struct kn_act act;
    int64_t n, d;
};

static int enqueue_norm(void *arg, int i)
{
    const struct row_bench *b = arg;
    (void)i;
    return kn_cuda_rmsnorm_quantize(b->x, b->w, 0, 1e-5f, 0, b->n, b->d, &b->act, bench.stream);
}

static int enqueue_quantize(void *arg, int i)
{
    const struct row_bench *b = arg;
    (void)i;
    return kn_cuda_quantize(b->x, b->d, 0, b->n, &b->act, bench.stream);
}

static int enqueue_swiglu(void *arg, int i)
{
    const struct row_bench *b = arg;
    (void)i;
    return kn_cuda_swiglu_quantize(b->y, 2 * b->d, 0, b->n, b->d, &b->act, bench.stream);
}

static void bench_rows(int64_t n, int64_t d)
{
    struct row_bench b = {.x = bench_memory((size_t)(n * d) * sizeof(float)),
                          .w = bench_memory((size_t)d * sizeof(float)),
                          .y = bench_memory((size_t)(2 * n * d) * sizeof(float)),
                          .act = new_act(n, d),
                          .n = n,
                          .d = d};
    double floats = (double)(n * d) * sizeof(float), act = gpu_act_bytes(n, d);
    char name[96];
    snprintf(name, sizeof(name), "rmsnorm_quantize, %lld x %lld", (long long)n, (long long)d);
    bench_report(name, &(struct gpu_cost){.bytes = floats + act}, enqueue_norm, &b);
    snprintf(name, sizeof(name), "quantize, %lld x %lld", (long long)n, (long long)d);
    bench_report(name, &(struct gpu_cost){.bytes = floats + act}, enqueue_quantize, &b);
    snprintf(name, sizeof(name), "swiglu_quantize, %lld x %lld", (long long)n, (long long)d);
    bench_report(name, &(struct gpu_cost){.bytes = 2 * floats + act}, enqueue_swiglu, &b);
    cudaFree(b.x);
    cudaFree(b.w);
    cudaFree(b.y);
    free_act(&b.act);
}

/* ---- the device -------------------------------------------------------------------------------
 */

struct copy_bench {
    void *from, *to;
    size_t bytes;
};

static int enqueue_copy(void *arg, int i)
{
    const struct copy_bench *b = arg;
    (void)i;
    return (int)cudaMemcpyAsync(b->to, b->from, b->bytes, cudaMemcpyDeviceToDevice, bench.stream);
}

/* Of the GPU that is here: the sheet's bench.rates of the one with its name (others: A100's), and
 * the bandwidth of a copy. */
static void find_rates(const struct cudaDeviceProp *p)
{
    bench.rates = gpu_rates[0];
    for (int i = 0; i < N_GPU_RATES; i++)
        if (strstr(p->name, gpu_rates[i].name))
            bench.rates = gpu_rates[i];
    struct copy_bench b = {.bytes = bench.small ? 1u << 20 : 1u << 30};
    b.from = bench_memory(b.bytes);
    b.to = bench_memory(b.bytes);
    double seconds = 1e9;
    for (int i = 0; i < (bench.small ? 1 : WARM_ROUNDS); i++) { /* clocks rise only under load */
        double now = seconds_of(enqueue_copy, &b, 4);
        seconds = now > 0 && now < seconds ? now : seconds;
    }
    if (seconds < 1e9)
        bench.rates.bytes = 2 * (double)b.bytes / seconds;
    cudaFree(b.from);
    cudaFree(b.to);
    printf("%s: %d SMs, a copy moves %.0f GB/s; other rates are the %s's data sheet\n\n", p->name,
           p->multiProcessorCount, bench.rates.bytes / 1e9, bench.rates.name);
}

int main(int argc, char **argv)
{
    static const int types[] = {KN_Q4_1, KN_Q4_K, KN_Q6_K, KN_Q8_0};
    static const int64_t tokens[] = {1, 2, 4, 8, 16, 64, 256, 2048}, few[] = {1, 8, 16};
    struct cudaDeviceProp p;
    struct gpu gpu;
    struct err e;
    bench.small = argc > 1 && strcmp(argv[1], "small") == 0;
    if (gpu_choose("cuda", 1, &gpu, &e) < 0) { /* before anything else uses CUDA (gpu.h) */
        fprintf(stderr, "bench_gpu: %s\n", e.msg);
        return 2;
    }
    bench_must(cudaSetDevice(0), "device 0");
    bench_must(cudaGetDeviceProperties(&p, 0), "device 0");
    bench_must(cudaStreamCreateWithFlags(&bench.stream, cudaStreamNonBlocking), "stream");
    find_rates(&p);
    printf("| kernel | µs | GB/s | int8 TMAC/s | share |\n|---|---|---|---|---|\n");
    for (int i = 0; i < 4; i++)
        if (bench.small)
            bench_matmul(types[i], 64, 256, few, 3);
        else
            bench_matmul(types[i], 14336, 4096, tokens, 8);
    if (bench.small)
        bench_library(64, 256, few, 3);
    else
        bench_library(14336, 4096, tokens, 8);
    bench_attention(bench.small ? 2 : 1, bench.small ? 200 : 8192, 32, 8, 128, false);
    bench_attention(bench.small ? 3 : 64, bench.small ? 100 : 4096, 32, 8, 128, false);
    bench_attention(bench.small ? 20 : 2048, 0, 32, 8, 128, false);
    bench_attention(bench.small ? 20 : 2048, 0, 32, 8, 128, true);
    bench_rows(bench.small ? 2 : 2048, bench.small ? 256 : 4096);
    bench_must(cudaStreamDestroy(bench.stream), "stream");
    bench_passes();
    return 0;
}
