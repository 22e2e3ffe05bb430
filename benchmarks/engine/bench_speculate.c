/* bench_speculate.c: what guessing ahead gives. Not a test.
 *
 *     bench_speculate MODEL.gguf [DRAFT.gguf [TOKENS [THREADS]]]
 *
 * The same requests with nothing guessed, by prompt lookup, and by a draft model if one is given:
 * texts that repeat what they were given and texts that do not, greedy and with noise, 1, 4 and 8
 * at once: where one ends the next begins, and steps without prompts and with all places taken
 * count. Engines take turns, ROUNDS times, and each is shown at its best. Printed are the tokens a
 * second with nothing guessed, how many times as many there are with each drafter, as it would be
 * served (guesses where they pay) and with all guesses made, and which part of these was right.
 *
 * Before: how much longer a step is with more rows, which is what a guess costs.
 *
 * With one thread (THREADS 1) time is the processor's, so that a loaded machine tells of the work
 * and not of who else runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/engine/engine.h"
#include "runtime/text/tokenizer.h"

enum { ENGINES_MAX = 5, ROUNDS = 2, BATCH_MAX = 8, PROMPT_MAX = 2000 };

struct subject {
    const char *name;
    struct engine *engine;
    double best; /* tokens a second */
    uint64_t drafted, right;
};

static const char *const passages[] = {
    "The lighthouse at Cape Ashby was built in 1871 by the engineer Thomas Wren. It stands 42 "
    "metres "
    "above the sea and its lamp is seen for 31 kilometres. The keeper, Agnes Holt, lived there "
    "with "
    "her two daughters until 1919, when the lamp was changed to electric light.",
    "def total(items):\n    result = 0\n    for item in items:\n        if item.price > 0:\n"
    "            result = result + item.price * item.count\n    return result\n\n"
    "def average(items):\n    if len(items) == 0:\n        return 0\n"
    "    return total(items) / len(items)\n",
    "Ship the order 4471 to Marta Lindqvist, 18 Harbour Road, Visby. It holds three blue lamps, "
    "two "
    "oak chairs and a copper kettle. The chairs are fragile. Marta is at home after four in the "
    "afternoon, and her neighbour Olof takes parcels before that."};
static const char *const repeating[] = {"Repeat the following text word for word:\n",
                                        "Repeat the following code, with result renamed to sum:\n",
                                        "Quote all the sentences of this text one by one:\n"};
static const char *const open_ended[] = {"Write a short story about a fox who learns to swim.",
                                         "Explain why the sky is blue, to a child.",
                                         "Give me ideas for a birthday party in winter."};

static uint32_t n_threads; /* 0: one a core */

static uint64_t now_ns(void)
{
    struct timespec t;
    if (n_threads != 1)
        return clock_mono_ns();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* A step, and how long it took. */
static bool timed_step(struct engine *g, struct engine_step *s, double *seconds)
{
    uint64_t begin_ns = now_ns();
    bool more = engine_step(g, s);
    *seconds = (double)(now_ns() - begin_ns) / 1e9;
    return more;
}

static void die(const struct err *e)
{
    fprintf(stderr, "bench_speculate: %s\n", e->msg);
    exit(1);
}

static struct engine *open_engine(const char *path, const char *draft, enum engine_speculation s,
                                  bool always)
{
    struct engine *g;
    struct err e;
    const struct engine_config c = {.model_path = path,
                                    .threads = n_threads,
                                    .clock_ns = now_ns,
                                    .sequences_max = BATCH_MAX,
                                    .waiting_max = BATCH_MAX,
                                    .step_tokens_max = 256,
                                    .context_max = 2048,
                                    .kv_bytes = (uint64_t)512 << 20,
                                    .speculate = s,
                                    .draft_model = draft,
                                    .draft_tokens_max = 4,
                                    .draft_always = always};
    if (engine_open(&c, &g, &e) < 0)
        die(&e);
    return g;
}

static void submit(struct engine *g, uint64_t id, bool repeats, float temperature, uint32_t tokens)
{
    char text[PROMPT_MAX];
    struct tokenvec ids;
    struct err e;
    snprintf(text, sizeof(text), "<|im_start|>user\n%s%s<|im_end|>\n<|im_start|>assistant\n",
             repeats ? repeating[id % 3] : open_ended[id % 3], repeats ? passages[id % 3] : "");
    tokenvec_init(&ids, 0);
    if (tokenizer_encode(engine_tokenizer(g), text, strlen(text), TOKENIZER_PARSE_SPECIAL, &ids,
                         &e) < 0)
        die(&e);
    const struct engine_request r = {
        .id = id,
        .prompt = ids.ids,
        .n_prompt = (uint32_t)ids.n,
        .max_tokens = tokens,
        .ignore_eos = true,
        .sampling = {
            .temperature = temperature, .top_p = 0.95f, .repetition_penalty = 1, .seed = 11 + id}};
    if (engine_submit(g, &r, &e) < 0)
        die(&e);
    tokenvec_release(&ids);
}

static void run(struct subject *s, uint32_t batch, bool repeats, float temperature, uint32_t tokens)
{
    struct engine_load before = engine_load(s->engine), now = before;
    struct engine_step step;
    uint64_t n = 0, next = 0, all = batch < 2 ? 3 : 2 * (uint64_t)batch;
    double seconds = 0, took;
    do {
        for (; next < all && now.running + now.waiting < batch; now = engine_load(s->engine))
            submit(s->engine, next++, repeats, temperature, tokens);
        uint32_t running = now.running;
        timed_step(s->engine, &step, &took);
        now = engine_load(s->engine);
        if (step.prefill_tokens > 0 || running < batch)
            continue;
        seconds += took;
        n += step.decode_tokens;
    } while (now.running + now.waiting > 0);
    double rate = seconds > 0 ? (double)n / seconds : 0;
    s->best = rate > s->best ? rate : s->best;
    s->drafted = now.drafted - before.drafted;
    s->right = now.drafts_right - before.drafts_right;
}

static void bench(struct subject *all, uint32_t n, uint32_t batch, bool repeats, float temperature,
                  uint32_t tokens)
{
    for (uint32_t i = 0; i < n; i++)
        all[i].best = 0;
    for (uint32_t round = 0; round < ROUNDS; round++)
        for (uint32_t i = 0; i < n; i++)
            run(&all[i], batch, repeats, temperature, tokens);
    printf("%-9s %4.1f %5u %8.0f", repeats ? "repeats" : "does not", (double)temperature, batch,
           all[0].best);
    for (uint32_t i = 1; i < n; i++)
        printf("  %5.2f %4.0f%%", all[i].best / all[0].best,
               all[i].drafted ? 100.0 * (double)all[i].right / (double)all[i].drafted : 0);
    printf("\n");
    fflush(stdout);
}

/* Steps of so many rows, in turns. */
static void bench_rows(struct engine *g)
{
    double best[BATCH_MAX + 1] = {0};
    struct engine_step step;
    double took;
    for (uint32_t round = 0; round < ROUNDS; round++)
        for (uint32_t batch = 1; batch <= BATCH_MAX; batch++) {
            for (uint32_t i = 0; i < batch; i++)
                submit(g, i, false, 0, 24);
            while (timed_step(g, &step, &took))
                if (step.prefill_tokens == 0 && step.decode_tokens == batch &&
                    (best[batch] == 0 || took < best[batch]))
                    best[batch] = took;
        }
    printf("rows of a step:     ");
    for (uint32_t i = 1; i <= BATCH_MAX; i++)
        printf(" %5u", i);
    printf("\ntimes as long as 1: ");
    for (uint32_t i = 1; i <= BATCH_MAX; i++)
        printf(" %5.2f", best[i] / best[1]);
    printf("\n\n");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const uint32_t batches[] = {1, 4, 8};
    if (argc < 2) {
        fprintf(stderr, "usage: bench_speculate MODEL.gguf [DRAFT.gguf [TOKENS [THREADS]]]\n");
        return 2;
    }
    const char *draft = argc > 2 && argv[2][0] ? argv[2] : NULL;
    uint32_t tokens = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 120, n = 3;
    n_threads = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 0;
    log_init("bench_speculate", LOG_LEVEL_WARN);
    struct subject all[ENGINES_MAX] = {
        {.name = "nothing", .engine = open_engine(argv[1], NULL, ENGINE_SPECULATE_OFF, false)},
        {.name = "lookup", .engine = open_engine(argv[1], NULL, ENGINE_SPECULATE_LOOKUP, false)},
        {.name = "always", .engine = open_engine(argv[1], NULL, ENGINE_SPECULATE_LOOKUP, true)}};
    if (draft) {
        all[n++] = (struct subject){
            .name = "draft", .engine = open_engine(argv[1], draft, ENGINE_SPECULATE_DRAFT, false)};
        all[n++] = (struct subject){
            .name = "always", .engine = open_engine(argv[1], draft, ENGINE_SPECULATE_DRAFT, true)};
    }
    bench_rows(all[0].engine);
    printf("%-9s %4s %5s %8s", "text", "temp", "batch", "tokens/s");
    for (uint32_t i = 1; i < n; i++)
        printf("  %11s", all[i].name);
    printf("\n");
    for (int repeats = 1; repeats >= 0; repeats--)
        for (int hot = 0; hot < 2; hot++)
            for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++)
                bench(all, n, batches[i], repeats, hot ? 0.8f : 0.0f, tokens);
    for (uint32_t i = 0; i < n; i++)
        engine_free(all[i].engine);
    return 0;
}
