/* fake_engine.h: engine.h without a model, for the service's tests: a step gives every request
 * fake_burst tokens, prompt[0] + their places, or the rest. Included by one test program, whose
 * symbols win over the archive's.
 *
 * The prefix cache of the first model has the blocks 1 to fake_blocks at first. Each step stores
 * one more, and evicts the oldest when there are over FAKE_BLOCKS_MAX.
 *
 * A request that pools ends in its first step, with FAKE_WIDTH numbers: its pooling, then its first
 * token. A prompt that starts with FAKE_TOO_LONG can never run; one with FAKE_DEAD_END fails in its
 * first step, as it would anywhere.
 *
 * There are FAKE_MODELS models, a.gguf, b.gguf, …; what a test wants of them is in fakes. Tokens of
 * model i are i * FAKE_MODEL more, and so are its blocks. */
#ifndef ARGOSY_TESTS_FAKE_ENGINE_H
#define ARGOSY_TESTS_FAKE_ENGINE_H

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/engine/engine.h"

#define FAKE_MAX 16
#define FAKE_BURST_MAX 8
#define FAKE_TOO_LONG 666
#define FAKE_DEAD_END 777
#define FAKE_WIDTH 60000
#define FAKE_BLOCKS_MAX 20000

#define FAKE_MODELS 3
#define FAKE_MODEL 100000u
#define FAKE_MIB ((uint64_t)1 << 20)

static uint32_t fake_blocks;
static uint32_t fake_burst = 1;

/* A model. Zeroed it is loaded at once, and takes 100 MiB. */
static struct fake {
    atomic_bool hold;   /* a load waits */
    atomic_bool fails;  /* a load does */
    atomic_bool other;  /* the file has changed */
    bool twin;          /* it is model 0, under another name */
    atomic_uint opened; /* loads that came to an end */
    atomic_uint freed;
    struct engine *_Atomic engine; /* NULL: not loaded */
} fakes[FAKE_MODELS];

struct fake_request {
    uint64_t id;
    uint32_t first, n_out, max_tokens, n_top;
    bool want_logprobs;
    enum engine_pooling pooling;
};

struct engine {
    struct engine_info info;
    uint32_t model;
    struct grammar_store *grammars; /* NULL, or a test's */
    uint32_t cap;
    struct fake_request live[FAKE_MAX]; /* (n_live) */
    atomic_uint n_live;
    atomic_uint step_us;
    atomic_uint cancelled;
    atomic_bool lost; /* a rank */
    uint64_t steps;
    uint64_t blocks_at_start, block_first,
        block_told; /* told of: the first, and the one behind the last */
    uint64_t evicted[FAKE_BLOCKS_MAX], stored[FAKE_BLOCKS_MAX];
    struct engine_delta deltas[FAKE_MAX];
    uint32_t tokens[FAKE_MAX][FAKE_BURST_MAX];
    struct kn_sampled sampled[FAKE_MAX][FAKE_BURST_MAX];
    float embeddings[FAKE_MAX][FAKE_WIDTH];
};

/* A token of adapter i is i * FAKE_ADAPTER more. */
#define FAKE_ADAPTER 300
static const struct engine_adapter fake_adapters[] = {{.name = "a", .sha256 = "aa"},
                                                      {.name = "b", .sha256 = "bb"}};

static struct grammar_store *fake_grammars; /* a test's, or NULL */

static const char *fake_manifest(uint32_t model)
{
    static const char *const manifests[] = {"abc123", "bcd234", "cde345"};
    if (atomic_load(&fakes[model].other))
        return "changed";
    return manifests[fakes[model].twin ? 0 : model];
}

static struct engine *fake_open(uint32_t model, uint32_t cap)
{
    struct engine *g = calloc(1, sizeof(*g));
    g->model = model;
    g->cap = cap;
    g->grammars = fake_grammars;
    g->block_first = 1;
    g->blocks_at_start = model == 0 ? fake_blocks : 0;
    g->block_told = g->blocks_at_start + 1;
    atomic_store(&g->step_us, 1000);
    g->info = (struct engine_info){.architecture = "fake",
                                   .manifest_sha256 = fake_manifest(model),
                                   .isa = "ref",
                                   .context_tokens = 2048,
                                   .vocab = 1000,
                                   .kv_pages = 64,
                                   .page_tokens = 16,
                                   .sequences_max = cap,
                                   .weight_bytes = 80 * FAKE_MIB,
                                   .kv_bytes = 20 * FAKE_MIB,
                                   .adapters = model == 0 ? fake_adapters : NULL,
                                   .n_adapters = model == 0 ? 2 : 0};
    return g;
}

static int fake_index(const struct engine_config *c, uint32_t *model, struct err *e)
{
    *model = (uint32_t)(c->model_path[0] - 'a');
    return *model < FAKE_MODELS ? 0 : err_set(e, ERR_NOT_FOUND, "%s: no file", c->model_path);
}

int engine_outline(const struct engine_config *c, bool with_manifest, struct engine_outline *out,
                   struct err *e)
{
    uint32_t model;
    int rc = fake_index(c, &model, e);
    if (rc < 0)
        return rc;
    *out = (struct engine_outline){.context_tokens = 2048,
                                   .kv_pages = 64,
                                   .page_tokens = 16,
                                   .weight_bytes = 80 * FAKE_MIB,
                                   .kv_bytes = 20 * FAKE_MIB};
    if (with_manifest)
        strcpy(out->manifest_sha256, fake_manifest(model));
    return 0;
}

int engine_open(const struct engine_config *c, struct engine **out, struct err *e)
{
    uint32_t model;
    int rc = fake_index(c, &model, e);
    if (rc < 0)
        return rc;
    while (atomic_load(&fakes[model].hold))
        usleep(1000);
    atomic_fetch_add(&fakes[model].opened, 1);
    if (atomic_load(&fakes[model].fails))
        return err_set(e, ERR_NOMEM, "no memory for the fake");
    *out = fake_open(model, 3);
    atomic_store(&fakes[model].engine, *out);
    return 0;
}

void engine_free(struct engine *g)
{
    if (!g)
        return;
    atomic_store(&fakes[g->model].engine, NULL);
    atomic_fetch_add(&fakes[g->model].freed, 1);
    free(g);
}

struct grammar_store *engine_grammars(const struct engine *g)
{
    return g->grammars;
}

const struct engine_info *engine_info(const struct engine *g)
{
    return &g->info;
}

int engine_submit(struct engine *g, const struct engine_request *r, struct err *e)
{
    uint32_t n = atomic_load(&g->n_live);
    if (r->prompt[0] == FAKE_TOO_LONG)
        return err_set(e, ERR_RANGE, "longer than the context");
    if (n == g->cap)
        return err_set(e, ERR_BUSY, "the queue is full");
    g->live[n] =
        (struct fake_request){r->id,
                              r->prompt[0] + r->adapter * FAKE_ADAPTER + g->model * FAKE_MODEL,
                              r->n_output,
                              r->max_tokens,
                              r->sampling.n_top,
                              r->sampling.want_logprobs,
                              r->pooling};
    atomic_store(&g->n_live, n + 1);
    return 0;
}

static void fake_remove(struct engine *g, uint32_t i)
{
    uint32_t n = atomic_load(&g->n_live) - 1;
    memmove(&g->live[i], &g->live[i + 1], (n - i) * sizeof(g->live[0]));
    atomic_store(&g->n_live, n);
}

void engine_cancel(struct engine *g, uint64_t id)
{
    for (uint32_t i = 0; i < atomic_load(&g->n_live); i++)
        if (g->live[i].id == id) {
            fake_remove(g, i);
            atomic_fetch_add(&g->cancelled, 1);
            return;
        }
}

static void fake_sample(struct kn_sampled *s, uint32_t token)
{
    *s = (struct kn_sampled){.id = token, .logprob = -0.5f};
    for (uint32_t i = 0; i < KN_TOP_LOGPROBS_MAX; i++) {
        s->top_ids[i] = token + i;
        s->top_logprobs[i] = -0.5f - (float)i;
    }
}

bool engine_step(struct engine *g, struct engine_step *out)
{
    uint32_t n = atomic_load(&g->n_live);
    usleep(atomic_load(&g->step_us));
    for (uint32_t i = 0; i < n; i++) {
        struct fake_request *r = &g->live[i];
        if (r->pooling != ENGINE_POOLING_NONE) {
            r->n_out = r->max_tokens;
            g->embeddings[i][0] = (float)r->pooling;
            g->embeddings[i][1] = (float)r->first;
            g->deltas[i] = (struct engine_delta){.id = r->id,
                                                 .embedding = g->embeddings[i],
                                                 .n_embedding = FAKE_WIDTH,
                                                 .finish = ENGINE_STOP};
            continue;
        }
        if (r->first == FAKE_DEAD_END) {
            r->n_out = r->max_tokens;
            g->deltas[i] = (struct engine_delta){
                .id = r->id, .finish = ENGINE_ERROR, .error = "a dead end", .hopeless = true};
            continue;
        }
        uint32_t left = r->max_tokens - r->n_out, n_tokens = left < fake_burst ? left : fake_burst;
        for (uint32_t k = 0; k < n_tokens; k++) {
            g->tokens[i][k] = r->first + r->n_out + k;
            fake_sample(&g->sampled[i][k], g->tokens[i][k]);
        }
        r->n_out += n_tokens;
        g->deltas[i] = (struct engine_delta){
            .id = r->id,
            .index = r->n_out - n_tokens,
            .n_tokens = n_tokens,
            .tokens = g->tokens[i],
            .sampled = r->want_logprobs ? g->sampled[i] : NULL,
            .finish = r->n_out == r->max_tokens ? ENGINE_LENGTH : ENGINE_GOES_ON,
        };
    }
    for (uint32_t i = n; i-- > 0;)
        if (g->live[i].n_out == g->live[i].max_tokens)
            fake_remove(g, i);
    g->steps++;
    *out = (struct engine_step){.deltas = g->deltas, .n_deltas = n, .decode_tokens = n};
    return atomic_load(&g->n_live) > 0;
}

void engine_cache_news(struct engine *g, struct engine_cache_news *out)
{
    *out = (struct engine_cache_news){.evicted = g->evicted, .stored = g->stored};
    while (g->block_told < g->blocks_at_start + 1 + g->steps)
        g->stored[out->n_stored++] = g->block_told++ + g->model * FAKE_MODEL;
    while (g->block_told - g->block_first > FAKE_BLOCKS_MAX)
        g->evicted[out->n_evicted++] = g->block_first++ + g->model * FAKE_MODEL;
}

uint32_t engine_cache_blocks(const struct engine *g, uint32_t *cursor, uint64_t *hashes,
                             uint32_t cap)
{
    uint32_t n = 0;
    if (*cursor < g->block_first) /* a block's number, so that what goes meanwhile moves nothing */
        *cursor = (uint32_t)g->block_first;
    while (n < cap && *cursor < g->block_told)
        hashes[n++] = (*cursor)++ + g->model * FAKE_MODEL;
    return n;
}

int engine_check(struct engine *g, struct err *e)
{
    return atomic_load(&g->lost) ? err_set(e, ERR_PEER, "rank 1 was lost") : 0;
}

struct engine_load engine_load(const struct engine *g)
{
    return (struct engine_load){.running = atomic_load(&g->n_live), .steps = g->steps};
}

#endif
