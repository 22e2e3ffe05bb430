/* bench_decision.c: what a decision costs: the prompt's hashes, who has them, who may, and the
 * pick.
 *
 *     bench_decision [WORKERS [TOKENS [ROUNDS]]]     1,000 workers, 8,192 tokens, 20,000 rounds
 *
 * Workers have random loads and rates and caches: half of them the first eighth of every prompt (a
 * system's), two of them most of it. Time by the processor's clock of this thread, so that others
 * on the machine cost cache misses and nothing more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "router/policy/policy.h"
#include "router/pool/prefix_index.h"
#include "runtime/base/blockhash.h"
#include "runtime/base/check.h"

#define PAGE 16
#define PROMPTS 64
#define MANIFEST "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* As far apart as in the router's struct worker. */
struct place {
    struct policy_worker view;
    uint32_t slot;
    char rest[512];
};

struct bench {
    uint32_t n_workers, n_tokens, n_blocks;
    struct place *places;
    const struct policy_worker **all, **admitted;
    uint32_t *cached;
    uint32_t *prompts; /* (PROMPTS, n_tokens) */
    uint64_t *hashes;
    struct prefix_index *index;
    struct rng rng;
    unsigned char state[POLICY_STATE_BYTES_MAX];
};

static double cpu_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void *need(void *p)
{
    ASSERT(p);
    return p;
}

static void hash_prompt(struct bench *b, uint32_t prompt)
{
    static const uint8_t salt[BLOCKHASH_SALT_BYTES];
    const uint32_t *tokens = b->prompts + (size_t)prompt * b->n_tokens;
    uint64_t h = blockhash_root(MANIFEST, salt);
    for (uint32_t i = 0; i < b->n_blocks; i++)
        b->hashes[i] = h = blockhash_next(h, tokens + (size_t)i * PAGE, PAGE);
}

static void fill_workers(struct bench *b)
{
    for (uint32_t w = 0; w < b->n_workers; w++) {
        double slower = 1 + (double)rng_below(&b->rng, 30);
        b->places[w].slot = prefix_index_join(b->index);
        b->places[w].view = (struct policy_worker){
            .key = rng_u64(&b->rng),
            .loaded = true,
            .others = (uint32_t)rng_below(&b->rng, 8),
            .inflight = (uint32_t)rng_below(&b->rng, 32),
            .inflight_prefill_tokens = rng_below(&b->rng, 20000),
            .sequences_max = 64,
            .inflight_max = 128,
            .kv_pages = 10000,
            .kv_pages_used = (uint32_t)rng_below(&b->rng, 10000),
            .page_tokens = PAGE,
            .rates = {20000 / slower, 1000 / slower, 0.01 * slower, 0.0002 * slower,
                      10000 / slower},
        };
        b->all[w] = &b->places[w].view;
    }
}

static void fill_caches(struct bench *b)
{
    for (uint32_t p = 0; p < PROMPTS; p++) {
        hash_prompt(b, p);
        for (uint32_t w = 0; w < b->n_workers; w += 2)
            prefix_index_store(b->index, b->places[w].slot, b->hashes, b->n_blocks / 8);
        for (int i = 0; i < 2; i++) {
            uint32_t w = (uint32_t)rng_below(&b->rng, b->n_workers);
            prefix_index_store(b->index, b->places[w].slot, b->hashes,
                               b->n_blocks - (uint32_t)rng_below(&b->rng, b->n_blocks / 2));
        }
    }
}

static void fill_prompts(struct bench *b)
{
    for (uint32_t p = 0; p < PROMPTS; p++)
        for (uint32_t i = 0; i < b->n_tokens; i++)
            b->prompts[(size_t)p * b->n_tokens + i] =
                i < b->n_tokens / 8 ? i * 7 : (uint32_t)rng_below(&b->rng, 100000);
}

/* What blocks.c and gen.c do for one request. */
static uint32_t decide(struct bench *b, const struct policy *policy, uint32_t prompt)
{
    struct policy_request r = {.prompt_tokens = b->n_tokens, .output_tokens = 512};
    if (policy->needs) {
        hash_prompt(b, prompt);
        r.block_hashes = b->hashes;
        r.n_blocks = b->n_blocks;
        r.block_tokens = PAGE;
    }
    uint32_t n = policy_gather(b->all, b->n_workers, &r, b->admitted);
    struct policy_snapshot s = {.workers = b->admitted, .n = n, .output_tokens = 200};
    if (policy->needs & POLICY_NEEDS_CACHED) {
        const uint32_t *depths = prefix_index_look(b->index, b->hashes, b->n_blocks);
        for (uint32_t i = 0; i < n; i++)
            b->cached[i] = depths[((const struct place *)b->admitted[i])->slot];
        s.cached_blocks = b->cached;
    }
    return policy->pick(b->state, &s, &r, &b->rng);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

struct task {
    struct bench *b;
    uint32_t rounds;
    double *us;
};

static void measure(void *ctx, const struct policy *policy)
{
    struct task *t = ctx;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < t->rounds; i++) {
        double start = cpu_us();
        sum += decide(t->b, policy, i % PROMPTS);
        t->us[i] = cpu_us() - start;
    }
    qsort(t->us, t->rounds, sizeof(*t->us), by_value);
    printf("| %s | %.1f | %.1f | %.1f |%s\n", policy->name, t->us[t->rounds / 2],
           t->us[t->rounds / 100 * 99], t->us[t->rounds - 1], sum == 1 ? " " : "");
}

static void measure_hashes(const struct task *t)
{
    for (uint32_t i = 0; i < t->rounds; i++) {
        double start = cpu_us();
        hash_prompt(t->b, i % PROMPTS);
        t->us[i] = cpu_us() - start;
    }
    qsort(t->us, t->rounds, sizeof(*t->us), by_value);
    printf("| of which: the prompt's hashes | %.1f | %.1f | %.1f |\n", t->us[t->rounds / 2],
           t->us[t->rounds / 100 * 99], t->us[t->rounds - 1]);
}

int main(int argc, char **argv)
{
    struct bench b = {.n_workers = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000,
                      .n_tokens = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 8192};
    uint32_t rounds = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 20000;
    struct err e = {0};
    if (b.n_workers < 1 || b.n_workers > 60000 || b.n_tokens < 256 || b.n_tokens > 1u << 20 ||
        rounds < 100) {
        fprintf(stderr, "usage: bench_decision [WORKERS [TOKENS [ROUNDS]]]\n");
        return 2;
    }
    b.n_blocks = (b.n_tokens - 1) / PAGE;
    rng_init(&b.rng, 1);
    b.places = need(calloc(b.n_workers, sizeof(*b.places)));
    b.all = need(calloc(b.n_workers, sizeof(*b.all)));
    b.admitted = need(calloc(b.n_workers, sizeof(*b.admitted)));
    b.cached = need(calloc(b.n_workers, sizeof(*b.cached)));
    b.prompts = need(calloc((size_t)PROMPTS * b.n_tokens, sizeof(*b.prompts)));
    b.hashes = need(calloc(b.n_blocks, sizeof(*b.hashes)));
    struct task t = {&b, rounds, need(calloc(rounds, sizeof(double)))};
    if (prefix_index_open((size_t)64 << 20, b.n_workers, 1, &b.index, &e) < 0) {
        fprintf(stderr, "bench_decision: %s\n", e.msg);
        return 1;
    }
    fill_prompts(&b);
    fill_workers(&b);
    fill_caches(&b);
    printf("%u workers, a prompt of %u tokens, %u decisions: microseconds of one thread\n\n"
           "| policy | p50 | p99 | most |\n|---|---|---|---|\n",
           b.n_workers, b.n_tokens, rounds);
    policy_each(measure, &t);
    measure_hashes(&t);
    return 0;
}
