#include "benchmarks/policy/sim/engine.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

#define PARAMETERS 8.03e9
#define WEIGHT_BYTES 8.03e9
#define LAYERS 32
#define WIDTH 4096
#define KV_BYTES (2.0 * LAYERS * 1024 * 2) /* a token: 8 heads of 128, K and V, fp16 */
#define COMPUTE_SHARE 0.5
#define BANDWIDTH_SHARE 0.7
#define MEMORY_SHARE 0.9
#define CHUNK_TOKENS_MAX 2048
#define CHUNK_S_MAX 0.1
#define CHUNK_TOKENS_MIN 16
#define NONE UINT32_MAX

const struct device device_h100 = {"H100", 989e12, 3.35e12, 80e9, 0.002, 256};
const struct device device_a100 = {"A100", 312e12, 2.04e12, 80e9, 0.002, 256};
const struct device device_4090 = {"4090", 165e12, 1.008e12, 24e9, 0.002, 64};
const struct device device_cpu = {"CPU", 1.5e12, 80e9, 32e9, 0.001, 8};

double device_step_s(const struct device *d, double prefill, double prefill_context, double decode,
                     double decode_context)
{
    double flop = 2 * PARAMETERS * (prefill + decode) +
                  4.0 * LAYERS * WIDTH * (prefill_context + decode_context);
    double bytes = WEIGHT_BYTES + KV_BYTES * decode_context;
    double compute_s = flop / (d->flops * COMPUTE_SHARE);
    double read_s = bytes / (d->bytes_per_s * BANDWIDTH_SHARE);
    return d->overhead_s + (compute_s > read_s ? compute_s : read_s);
}

uint64_t device_kv_tokens(const struct device *d)
{
    return (uint64_t)((d->memory_bytes * MEMORY_SHARE - WEIGHT_BYTES - 1e9) / KV_BYTES);
}

static void *need(void *p)
{
    ASSERT(p);
    return p;
}

void engine_init(struct engine *g, const struct device *d, uint64_t kv_tokens,
                 uint32_t block_tokens)
{
    *g = (struct engine){.device = d,
                         .kv_tokens = kv_tokens,
                         .block_tokens = block_tokens,
                         .free_block = NONE,
                         .oldest = NONE,
                         .newest = NONE};
    g->max_blocks = block_tokens ? (uint32_t)(kv_tokens / block_tokens) + 1 : 1;
    for (g->n_buckets = 16; g->n_buckets < g->max_blocks;)
        g->n_buckets *= 2;
    g->blocks = need(calloc(g->max_blocks, sizeof(*g->blocks)));
    g->buckets = need(malloc(g->n_buckets * sizeof(*g->buckets)));
    memset(g->buckets, 0xff, g->n_buckets * sizeof(*g->buckets));
}

void engine_release(struct engine *g)
{
    free(g->blocks);
    free(g->buckets);
    free(g->waiting);
    free(g->stored);
    free(g->evicted);
}

/* ---- the cache ------------------------------------------------------------------------------ */

static void note(uint64_t **list, size_t *n, size_t *max, uint64_t hash)
{
    if (*n == *max) {
        *max = *max ? *max * 2 : 64;
        *list = need(realloc(*list, *max * sizeof(**list)));
    }
    (*list)[(*n)++] = hash;
}

static uint32_t *bucket_of(const struct engine *g, uint64_t hash)
{
    return &g->buckets[(hash >> 20) & (g->n_buckets - 1)];
}

static uint32_t find(const struct engine *g, uint64_t hash)
{
    uint32_t b = *bucket_of(g, hash);
    while (b != NONE && g->blocks[b].hash != hash)
        b = g->blocks[b].next;
    return b;
}

static void remove_idle(struct engine *g, uint32_t b)
{
    struct cached_block *k = &g->blocks[b];
    *(k->older == NONE ? &g->oldest : &g->blocks[k->older].newer) = k->newer;
    *(k->newer == NONE ? &g->newest : &g->blocks[k->newer].older) = k->older;
    g->n_idle--;
}

static void add_idle(struct engine *g, uint32_t b)
{
    struct cached_block *k = &g->blocks[b];
    k->newer = NONE;
    k->older = g->newest;
    *(g->newest == NONE ? &g->oldest : &g->blocks[g->newest].newer) = b;
    g->newest = b;
    g->n_idle++;
}

static void evict_oldest(struct engine *g)
{
    uint32_t b = g->oldest;
    uint32_t *at = bucket_of(g, g->blocks[b].hash);
    remove_idle(g, b);
    while (*at != b)
        at = &g->blocks[*at].next;
    *at = g->blocks[b].next;
    note(&g->evicted, &g->n_evicted, &g->max_evicted, g->blocks[b].hash);
    g->blocks[b].next = g->free_block;
    g->free_block = b;
    g->n_blocks--;
}

static uint64_t kv_all(const struct engine *g)
{
    return g->private_used + (uint64_t)g->n_blocks * g->block_tokens;
}

uint64_t engine_kv_used(const struct engine *g)
{
    return g->private_used + (uint64_t)(g->n_blocks - g->n_idle) * g->block_tokens;
}

/* Makes room for so many tokens more, if there is. */
static bool make_room(struct engine *g, uint64_t tokens)
{
    if (engine_kv_used(g) + tokens > g->kv_tokens)
        return false;
    while (kv_all(g) + tokens > g->kv_tokens)
        evict_oldest(g);
    return true;
}

static void use(struct engine *g, uint32_t b)
{
    if (g->blocks[b].users++ == 0)
        remove_idle(g, b);
}

uint32_t engine_cached_blocks(const struct engine *g, const uint64_t *hashes, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && find(g, hashes[i]) != NONE)
        i++;
    return i;
}

/* The sequence's next block is computed: from private tokens to a block that others can use. */
static void store(struct engine *g, struct seq *s)
{
    uint64_t hash = s->hashes[s->n_held];
    uint32_t b = find(g, hash);
    g->private_used -= g->block_tokens;
    s->n_held++;
    if (b != NONE) {
        use(g, b);
        return;
    }
    b = g->free_block;
    if (b != NONE)
        g->free_block = g->blocks[b].next;
    else
        b = g->n_fresh++;
    ASSERT(b < g->max_blocks);
    g->blocks[b] = (struct cached_block){.hash = hash, .next = *bucket_of(g, hash), .users = 1};
    *bucket_of(g, hash) = b;
    g->n_blocks++;
    note(&g->stored, &g->n_stored, &g->max_stored, hash);
}

static void give_back(struct engine *g, struct seq *s)
{
    g->private_used -= s->computed - s->n_held * g->block_tokens;
    while (s->n_held > 0) { /* the last ones first: they are evicted first */
        uint32_t b = find(g, s->hashes[--s->n_held]);
        if (--g->blocks[b].users == 0)
            add_idle(g, b);
    }
    s->computed = 0;
}

void engine_replay(struct engine *g, struct seq *s)
{
    uint32_t cached = engine_cached_blocks(g, s->hashes, s->request->n_blocks);
    for (uint32_t i = 0; i < cached; i++)
        use(g, find(g, s->hashes[i]));
    s->n_held = cached;
    s->computed = cached * g->block_tokens;
    while (s->n_held < s->request->n_blocks && make_room(g, g->block_tokens)) {
        g->private_used += g->block_tokens;
        s->computed += g->block_tokens;
        store(g, s);
    }
    give_back(g, s);
    g->n_stored = g->n_evicted = 0;
}

/* ---- sequences ------------------------------------------------------------------------------ */

static uint32_t target_of(const struct seq *s)
{
    return s->request->prompt + s->generated;
}

static bool decodes(const struct seq *s)
{
    return s->generated > 0 && s->computed == target_of(s) - 1;
}

void engine_add(struct engine *g, struct seq *s)
{
    if (g->n_waiting == g->max_waiting) {
        uint32_t max = g->max_waiting ? g->max_waiting * 2 : 64;
        struct seq **more = need(calloc(max, sizeof(*more)));
        for (uint32_t i = 0; i < g->n_waiting; i++)
            more[i] = g->waiting[(g->waiting_at + i) % g->max_waiting];
        free(g->waiting);
        g->waiting = more;
        g->waiting_at = 0;
        g->max_waiting = max;
    }
    g->waiting[(g->waiting_at + g->n_waiting++) % g->max_waiting] = s;
}

static void add_first(struct engine *g, struct seq *s)
{
    engine_add(g, s); /* makes room */
    g->n_waiting--;
    g->waiting_at = (g->waiting_at + g->max_waiting - 1) % g->max_waiting;
    g->waiting[g->waiting_at] = s;
    g->n_waiting++;
}

/* Takes in who waits, in order, while there are places and room for the whole prompt. */
static void admit(struct engine *g)
{
    while (g->n_waiting > 0 && g->n_running < g->device->sequences_max) {
        struct seq *s = g->waiting[g->waiting_at];
        uint32_t cached = engine_cached_blocks(g, s->hashes, s->request->n_blocks);
        uint32_t idle = 0;
        for (uint32_t i = 0; i < cached; i++)
            idle += g->blocks[find(g, s->hashes[i])].users == 0;
        uint64_t need_tokens = target_of(s) - (cached - idle) * g->block_tokens;
        uint64_t spare = g->n_running ? g->kv_tokens / 50 : 0;
        if (engine_kv_used(g) + need_tokens + spare > g->kv_tokens)
            return;
        for (uint32_t i = 0; i < cached; i++)
            use(g, find(g, s->hashes[i]));
        s->n_held = cached;
        s->computed = cached * g->block_tokens;
        if (!s->started)
            s->cached_tokens = s->computed;
        s->started = true;
        g->waiting_at = (g->waiting_at + 1) % g->max_waiting;
        g->n_waiting--;
        g->running[g->n_running++] = s;
    }
}

static void preempt_last(struct engine *g)
{
    struct seq *s = g->running[--g->n_running];
    give_back(g, s);
    add_first(g, s);
    g->preempted++;
}

/* Room for a token of each that decodes; then chunks of prompts, in their order. */
static void plan(struct engine *g, double *prefill_context, double *decode_context)
{
    uint32_t budget = CHUNK_TOKENS_MAX;
    g->step_prefill = g->step_decode = 0;
    *prefill_context = *decode_context = 0;
    for (uint32_t i = 0; i < g->n_running; i++) {
        struct seq *s = g->running[i];
        s->chunk = 0;
        while (decodes(s) && !make_room(g, 1) && g->n_running > i + 1)
            preempt_last(g);
        if (!decodes(s) || !make_room(g, 1))
            continue;
        s->chunk = 1;
        g->private_used++;
        g->step_decode++;
        *decode_context += s->computed;
    }
    double token_s = 2 * PARAMETERS / (g->device->flops * COMPUTE_SHARE);
    if (budget * token_s > CHUNK_S_MAX)
        budget = (uint32_t)(CHUNK_S_MAX / token_s);
    if (budget < CHUNK_TOKENS_MIN)
        budget = CHUNK_TOKENS_MIN;
    for (uint32_t i = 0; i < g->n_running && budget > 0; i++) {
        struct seq *s = g->running[i];
        if (s->chunk > 0 || decodes(s))
            continue;
        uint32_t left = target_of(s) - s->computed;
        s->chunk = left < budget ? left : budget;
        while (s->chunk > 0 && !make_room(g, s->chunk))
            s->chunk /= 2;
        g->private_used += s->chunk;
        budget -= s->chunk;
        g->step_prefill += s->chunk;
        *prefill_context += (double)s->chunk * (s->computed + s->chunk / 2.0);
    }
}

bool engine_begin_step(struct engine *g)
{
    double prefill_context, decode_context;
    if (g->stepping)
        return false;
    admit(g);
    if (g->n_running == 0)
        return false;
    do
        plan(g, &prefill_context, &decode_context);
    while (g->step_prefill + g->step_decode == 0 && g->n_running > 1 && (preempt_last(g), true));
    if (g->step_prefill + g->step_decode == 0)
        return false;
    g->stepping = true;
    g->step_s =
        device_step_s(g->device, g->step_prefill, prefill_context, g->step_decode, decode_context);
    return true;
}

void engine_end_step(struct engine *g, void (*on_token)(void *ctx, struct seq *s), void *ctx)
{
    uint32_t n = 0;
    g->stepping = false;
    g->busy_s += g->step_s;
    g->computed_tokens += g->step_prefill;
    for (uint32_t i = 0; i < g->n_running; i++) {
        struct seq *s = g->running[i];
        bool got = s->chunk > 0 && s->computed + s->chunk == target_of(s);
        s->computed += s->chunk;
        s->chunk = 0;
        while (s->n_held < s->request->n_blocks && (s->n_held + 1) * g->block_tokens <= s->computed)
            store(g, s);
        s->generated += got;
        bool over = got && s->generated >= s->request->output;
        if (over)
            give_back(g, s);
        else
            g->running[n++] = s;
        if (got)
            on_token(ctx, s);
    }
    g->n_running = n;
}
