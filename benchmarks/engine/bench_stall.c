/* bench_stall.c: what a long prompt does to the streams that run. Not a test.
 *
 *     bench_stall MODEL.gguf [prompt_tokens [busy]]
 *
 * With 1 and with 4 streams, and for some stall_max: the streams decode alone, a long prompt
 * arrives and is computed, and they decode alone again. Printed are the times between a stream's
 * tokens, alone and while the prompt is computed, how many times longer their 99th percentile is
 * then, and the prompt's tokens a second.
 *
 * busy: for a machine that has other things to do. One thread, and all times are its processor
 * time, those that the engine measures too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/engine/engine.h"

#define WARM_STEPS 20
#define ALONE_STEPS 200
#define STEPS_MAX 10000
#define LONG_ID 1000000u

static uint64_t processor_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t (*now_ns)(void) = clock_mono_ns;

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts. */
static double percentile(double *ms, uint32_t n, double p)
{
    qsort(ms, n, sizeof(*ms), compare);
    return n == 0 ? 0 : ms[(uint32_t)(p * (n - 1))];
}

static void submit(struct engine *g, uint64_t id, uint32_t n_prompt, uint32_t max_tokens)
{
    struct err e;
    uint32_t *prompt = malloc(n_prompt * sizeof(*prompt));
    if (!prompt)
        abort();
    for (uint32_t i = 0; i < n_prompt; i++)
        prompt[i] = (uint32_t)(id * 7919 + i * 31) % engine_info(g)->vocab;
    struct engine_request r = {.id = id,
                               .prompt = prompt,
                               .n_prompt = n_prompt,
                               .max_tokens = max_tokens,
                               .ignore_eos = true,
                               .sampling = {.top_p = 1, .repetition_penalty = 1}};
    if (engine_submit(g, &r, &e) < 0) {
        fprintf(stderr, "bench_stall: %s\n", e.msg);
        exit(1);
    }
    free(prompt);
}

/* Steps at most n times, or until the long prompt's first token; the times of the steps in which
 * every stream got a token. Returns how many. */
static uint32_t run(struct engine *g, uint32_t n, double *ms)
{
    struct engine_step s;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t begin = now_ns();
        engine_step(g, &s);
        ms[i] = (double)(now_ns() - begin) / 1e6;
        for (uint32_t k = 0; k < s.n_deltas; k++)
            if (s.deltas[k].id == LONG_ID)
                return i + 1;
    }
    return n;
}

static void bench(const char *path, double stall_max, uint32_t streams, uint32_t n_prompt)
{
    static double ms[STEPS_MAX], alone[2 * ALONE_STEPS];
    struct engine *g;
    struct err e;
    const struct engine_config c = {.model_path = path,
                                    .sequences_max = streams + 1,
                                    .threads = now_ns == processor_ns,
                                    .clock_ns = now_ns,
                                    .step_tokens_max = 256,
                                    .stall_max = stall_max,
                                    .kv_bytes = (uint64_t)1 << 30};
    if (engine_open(&c, &g, &e) < 0) {
        fprintf(stderr, "bench_stall: %s\n", e.msg);
        exit(1);
    }
    for (uint32_t i = 0; i < streams; i++)
        submit(g, i, 16, engine_info(g)->context_tokens);
    run(g, WARM_STEPS, ms);
    uint32_t n_alone = run(g, ALONE_STEPS, alone);
    submit(g, LONG_ID, n_prompt, 1);
    uint64_t begin = now_ns();
    uint32_t n = run(g, STEPS_MAX, ms);
    double seconds = (double)(now_ns() - begin) / 1e9;
    n_alone += run(g, ALONE_STEPS, alone + n_alone);
    double alone50 = percentile(alone, n_alone, 0.5), alone99 = percentile(alone, n_alone, 0.99);
    double with50 = percentile(ms, n, 0.5), with99 = percentile(ms, n, 0.99);
    printf("%7u %9.2f %7.2f %7.2f %7.2f %7.2f %8.2f %9.0f\n", streams, stall_max, alone50, alone99,
           with50, with99, with99 / alone99, n_prompt / seconds);
    fflush(stdout);
    engine_free(g);
}

int main(int argc, char **argv)
{
    static const double stalls[] = {0, 1.6, 3};
    if (argc < 2) {
        fprintf(stderr, "usage: bench_stall MODEL.gguf [prompt_tokens [busy]]\n");
        return 2;
    }
    uint32_t n_prompt = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 8000;
    if (argc > 3)
        now_ns = processor_ns;
    log_init("bench_stall", LOG_LEVEL_WARN);
    printf("streams, then a prompt of %u tokens; milliseconds between tokens\n", n_prompt);
    printf("%7s %9s %15s %15s %8s %9s\n", "", "", "alone", "with it", "p99", "prompt");
    printf("%7s %9s %7s %7s %7s %7s %8s %9s\n", "streams", "stall_max", "p50", "p99", "p50", "p99",
           "times", "tokens/s");
    for (uint32_t streams = 1; streams <= 4; streams += 3)
        for (size_t i = 0; i < sizeof(stalls) / sizeof(stalls[0]); i++)
            bench(argv[1], stalls[i], streams, n_prompt);
    return 0;
}
