/* bench_engine.c: tokens a second of the engine, through engine.h. Not a test.
 *
 *     bench_engine MODEL.gguf ISA THREADS CELL…
 *
 * CELL is one of
 *     prefill:N          a prompt of N tokens, until its first token
 *     decode:B:CONTEXT:N N steps of B streams behind prompts of CONTEXT tokens, one token each
 *     load               nothing more than opening the engine and one token
 * and may be followed by `@T`: sampled at temperature T. One line each: CELL, tokens a second.
 * Before them, what the model costs: `open_ms`, `weight_bytes` and `peak_bytes` (the process's
 * memory, at its peak, once the model is open), `file_bytes`, `read_bytes` (bytes of weights that a
 * step reads), and `macs` (multiply-adds of a token in the layers' matrices) and `head_macs`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/engine/engine.h"
#include "runtime/format/gguf.h"

#define STREAMS_MAX 64u
#define STEP_TOKENS 512u

/* Sequential ids, so that each request of the process is another one. */
static uint64_t next_id = 1;

static void die(const char *what)
{
    fprintf(stderr, "bench_engine: %s\n", what);
    exit(1);
}

/* ---- what the file asks of a machine ----------------------------------------------------------
 */

static void describe_file(const char *path)
{
    struct gguf *g;
    struct err e;
    uint64_t read = 0, macs = 0, head = 0;
    size_t file_bytes;
    if (gguf_open(path, &g, &e) < 0)
        die(e.msg);
    bool tied = !gguf_find_tensor(g, "output.weight");
    for (uint64_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        bool is_head = !strcmp(t->name, tied ? "token_embd.weight" : "output.weight");
        if (t->n_dims != 2 || (!tied && !strcmp(t->name, "token_embd.weight")))
            continue;
        read += t->bytes;
        *(is_head ? &head : &macs) += t->ne[0] * t->ne[1];
    }
    gguf_mapping(g, &file_bytes);
    printf("file_bytes %zu\nread_bytes %llu\nmacs %llu\nhead_macs %llu\n", file_bytes,
           (unsigned long long)read, (unsigned long long)macs, (unsigned long long)head);
    gguf_close(g);
}

static struct engine *open_engine(const char *path, const char *isa, uint32_t threads)
{
    struct engine *g;
    struct err e;
    struct rusage usage;
    const struct engine_config c = {.model_path = path,
                                    .isa = isa,
                                    .threads = threads,
                                    .sequences_max = STREAMS_MAX,
                                    .waiting_max = STREAMS_MAX,
                                    .step_tokens_max = STEP_TOKENS,
                                    .context_max = 8192,
                                    .kv_bytes = (uint64_t)1 << 30};
    uint64_t begin = clock_mono_ns();
    if (engine_open(&c, &g, &e) < 0)
        die(e.msg);
    printf("open_ms %.1f\n", (double)(clock_mono_ns() - begin) / 1e6);
    getrusage(RUSAGE_SELF, &usage);
    printf("weight_bytes %llu\npeak_bytes %ld\n", (unsigned long long)engine_info(g)->weight_bytes,
           usage.ru_maxrss * 1024);
    return g;
}

/* ---- cells ------------------------------------------------------------------------------------
 */

static uint64_t submit(struct engine *g, uint32_t n_prompt, uint32_t max_tokens, float temperature)
{
    struct err e;
    uint32_t *prompt = malloc((n_prompt + 1) * sizeof(*prompt));
    if (!prompt)
        die("no memory");
    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = (uint32_t)(next_id * 7919 + i * 31) % engine_info(g)->vocab;
    struct engine_request r = {
        .id = next_id++,
        .prompt = prompt,
        .n_prompt = n_prompt,
        .max_tokens = max_tokens,
        .ignore_eos = true,
        .sampling = {
            .temperature = temperature, .top_p = 1, .repetition_penalty = 1, .seed = next_id}};
    if (engine_submit(g, &r, &e) < 0)
        die(e.msg);
    free(prompt);
    return r.id;
}

/* Steps until all streams that have a step's token had it: the prompts are computed. */
static void reach_decode(struct engine *g, uint32_t streams)
{
    struct engine_step s;
    do {
        engine_step(g, &s);
        for (uint32_t i = 0; i < s.n_deltas; i++)
            if (s.deltas[i].finish == ENGINE_ERROR)
                die(s.deltas[i].error);
    } while (s.decode_tokens < streams);
}

static double decode(struct engine *g, uint32_t streams, uint32_t context, uint32_t steps,
                     float temperature)
{
    struct engine_step s;
    uint64_t ids[STREAMS_MAX], tokens = 0;
    for (uint32_t i = 0; i < streams; i++)
        ids[i] = submit(g, context, engine_info(g)->context_tokens - context, temperature);
    reach_decode(g, streams);
    uint64_t begin = clock_mono_ns();
    for (uint32_t i = 0; i < steps; i++) {
        engine_step(g, &s);
        tokens += s.decode_tokens;
    }
    double seconds = (double)(clock_mono_ns() - begin) / 1e9;
    for (uint32_t i = 0; i < streams; i++)
        engine_cancel(g, ids[i]);
    return (double)tokens / seconds;
}

static double prefill(struct engine *g, uint32_t n)
{
    struct engine_step s;
    submit(g, n, 1, 0);
    uint64_t begin = clock_mono_ns();
    while (engine_step(g, &s))
        if (s.n_deltas > 0 && s.deltas[0].finish == ENGINE_ERROR)
            die(s.deltas[0].error);
    return n / ((double)(clock_mono_ns() - begin) / 1e9);
}

static double run_cell(struct engine *g, const char *cell)
{
    const char *at = strchr(cell, '@');
    float temperature = at ? strtof(at + 1, NULL) : 0;
    unsigned streams, context, steps;
    if (sscanf(cell, "prefill:%u", &context) == 1)
        return prefill(g, context);
    if (sscanf(cell, "decode:%u:%u:%u", &streams, &context, &steps) == 3 && streams > 0 &&
        streams <= STREAMS_MAX && context > 0 && context + steps + 2 < 8192)
        return decode(g, streams, context, steps, temperature);
    if (strcmp(cell, "load") == 0)
        return prefill(g, 1);
    die("a CELL is prefill:N, decode:STREAMS:CONTEXT:STEPS or load");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: bench_engine MODEL.gguf ISA THREADS CELL…\n");
        return 2;
    }
    log_init("bench_engine", LOG_LEVEL_WARN);
    struct engine *g = open_engine(argv[1], argv[2], (uint32_t)strtoul(argv[3], NULL, 10));
    describe_file(argv[1]);
    for (int i = 4; i < argc; i++) {
        printf("%s %.2f\n", argv[i], run_cell(g, argv[i]));
        fflush(stdout);
    }
    engine_free(g);
    return 0;
}
