/* engine.h: a worker as the simulator has it: an engine that batches continuously, with a roofline
 * in place of kernels, and a prefix cache.
 *
 * A step takes one token of each sequence that decodes and a chunk of the prompts that wait, in
 * their order: at most CHUNK_TOKENS_MAX, and no more than takes CHUNK_S_MAX. It lasts
 *
 *     overhead + max(FLOP / (peak * COMPUTE_SHARE), bytes / (bandwidth * BANDWIDTH_SHARE))
 *     FLOP  = 2 * parameters * tokens + 4 * layers * width * (context of each token)
 *     bytes = weights + KV of every sequence that decodes
 *
 * of an 8-billion-parameter model in 8 bits (shapes of Llama 3.1 8B, KV in fp16). KV that runs out
 * preempts the youngest sequence, which is computed anew. A block of a prompt, once computed, is
 * cached, and evicted least recently used first, children before parents.
 */
#ifndef ARGOSY_BENCH_POLICY_ENGINE_H
#define ARGOSY_BENCH_POLICY_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "benchmarks/policy/sim/trace.h"

#define ENGINE_SEQUENCES_MAX 256

struct device {
    const char *name;
    double flops, bytes_per_s, memory_bytes; /* peak, dense 16-bit */
    double overhead_s;
    uint32_t sequences_max;
};

extern const struct device device_h100, device_a100, device_4090, device_cpu;

/* A request at a worker. */
struct seq {
    const struct trace_request *request;
    const uint64_t *hashes; /* (request->n_blocks) */
    void *ctx;              /* the simulator's */
    uint32_t computed;      /* tokens whose KV is there */
    uint32_t generated;
    uint32_t n_held;        /* leading blocks that it holds in the cache */
    uint32_t chunk;         /* tokens in the step that runs */
    uint32_t cached_tokens; /* of its first start */
    bool started;           /* it was admitted once */
};

struct cached_block {
    uint64_t hash;
    uint32_t next;         /* in its bucket */
    uint32_t users;        /* sequences */
    uint32_t older, newer; /* of those without users */
};

struct engine {
    const struct device *device;
    uint64_t kv_tokens;    /* all there is */
    uint64_t private_used; /* tokens of sequences that are in no block of the cache */
    uint32_t block_tokens;
    struct cached_block *blocks; /* (max_blocks) */
    uint32_t *buckets;
    uint32_t n_buckets, max_blocks, n_fresh, n_blocks, free_block, oldest, newest, n_idle;
    struct seq *running[ENGINE_SEQUENCES_MAX];
    uint32_t n_running;
    struct seq **waiting; /* a ring */
    uint32_t waiting_at, n_waiting, max_waiting;
    bool stepping;
    double step_s; /* of the step that runs */
    uint32_t step_prefill, step_decode;
    double busy_s;
    uint64_t preempted, computed_tokens;
    /* What happened to the cache since the last look, as a worker's CacheEvents. */
    uint64_t *stored, *evicted;
    size_t n_stored, n_evicted, max_stored, max_evicted;
};

/* Seconds of a step: tokens of prompts with the sum of their contexts, sequences that decode with
 * the sum of theirs. */
double device_step_s(const struct device *d, double prefill, double prefill_context, double decode,
                     double decode_context);
/* Tokens of KV that it has room for. */
uint64_t device_kv_tokens(const struct device *d);

void engine_init(struct engine *g, const struct device *d, uint64_t kv_tokens,
                 uint32_t block_tokens);
void engine_release(struct engine *g);
void engine_add(struct engine *g, struct seq *s);
/* Begins a step if there is something to do; then step_s is how long it takes. */
bool engine_begin_step(struct engine *g);
/* Ends it: calls on_token for each sequence that got one; those that are complete are gone
 * afterwards. */
void engine_end_step(struct engine *g, void (*on_token)(void *ctx, struct seq *s), void *ctx);
/* Blocks of a prompt that are in the cache. */
uint32_t engine_cached_blocks(const struct engine *g, const uint64_t *hashes, uint32_t n);
/* The cache alone, as if the sequence had run by itself. */
void engine_replay(struct engine *g, struct seq *s);
/* Tokens of KV that nobody else can have: of sequences, cached blocks in use included. */
uint64_t engine_kv_used(const struct engine *g);

#endif
