/* engine.c: the life of a request.
 *
 *     engine_submit ─► sequence ─► scheduler: waiting
 *     engine_step:     speculator_draft: guesses ─► scheduler_plan: rows and pages ─► batch
 *                      ─► backend_run: all threads ─► verifier_take: tokens ─► deltas; what
 * finished gives its pages back
 */
#include "runtime/engine/engine.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/memory.h"
#include "runtime/base/threads.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/gpu.h"
#include "runtime/engine/hostcache.h"
#include "runtime/engine/kvpool.h"
#include "runtime/engine/prefixcache.h"
#include "runtime/engine/rank.h"
#include "runtime/engine/ranks.h"
#include "runtime/engine/scheduler.h"
#include "runtime/engine/sequence.h"
#include "runtime/engine/speculator.h"
#include "runtime/engine/verifier.h"
#include "runtime/format/checkpoint.h"
#include "runtime/format/manifest.h"
#include "runtime/grammar/grammar_store.h"
#include "runtime/model/adapter.h"
#include "runtime/model/arch.h"
#include "runtime/model/model.h"
#include "runtime/text/checkpoint_text.h"
#include "runtime/text/tokenizer.h"

#define SEQUENCES_MAX 4096u
#define WAITING_MAX (1u << 20)
#define STEP_TOKENS_MAX (1u << 16)
#define PRIORITY_TOKENS (1u << 16)

struct engine {
    struct ranks *ranks; /* NULL: this process is the only one */
    struct err lost;     /* of the group, once it failed */
    struct buf message;  /* what a step tells the ranks */
    struct model model;
    struct adapter *adapters; /* (info.n_adapters) */
    struct engine_adapter *adapter_infos;
    struct tokenizer *tokenizer;
    struct grammar_store *grammars;
    struct threads *threads;
    struct backend *backend;
    struct gpu gpu; /* index GPU_CPU: it computes on the CPU */
    struct kvpool pool;
    struct hostcache host; /* no slots: KV stays on the device */
    uint32_t ahead;        /* pages that a step may take: they are saved on the host before */
    struct prefixcache cache;
    struct scheduler scheduler;
    struct speculator speculator;
    struct verifier verifier;
    struct sequence_limits limits;
    struct engine_info info;
    uint32_t *eog;
    uint32_t live_max; /* requests that run or wait */
    uint64_t arrivals;
    uint64_t steps;
    uint64_t (*clock_ns)(void);

    /* of a step */
    uint32_t *ids;                     /* (step_tokens_max) */
    struct kn_span *spans;             /* (sequences_max) */
    struct pooling *pools;             /* (sequences_max) */
    const struct adapter **adapter_of; /* (sequences_max): of the spans */
    struct engine_delta *deltas;       /* (live_max) */
    uint32_t n_deltas;
    uint64_t *evicted, *stored; /* (cache.n_blocks): news of the cache */
    struct sequence *finished;  /* what the deltas point into; freed by the next step */
};

/* ---- opening ----------------------------------------------------------------------------------
 */

static int choose_isa(const char *name, enum kn_isa *out, struct err *e)
{
    if (!name || strcmp(name, "auto") == 0) {
        *out = kn_isa_best();
        return 0;
    }
    for (int i = 0; i < KN_ISA_COUNT; i++) {
        if (strcmp(name, kn_isa_name((enum kn_isa)i)) != 0)
            continue;
        if (!kn_isa_available((enum kn_isa)i))
            return err_set(e, ERR_UNSUPPORTED, "isa '%s': not on this processor", name);
        *out = (enum kn_isa)i;
        return 0;
    }
    return err_set(e, ERR_CONFIG, "isa '%s': wanted auto, ref, avx2, avx512 or amx", name);
}

/* On a GPU weights are packed from the file's rows, which KN_ISA_REF keeps. */
static int choose_device(const struct engine_config *c, struct gpu *gpu, enum kn_isa *isa,
                         struct err *e)
{
    int rc = choose_isa(c->isa, isa, e);
    if (rc == 0)
        rc = gpu_choose(c->device ? c->device : "cpu", c->ranks, gpu, e);
    if (rc == 0 && gpu_computes(gpu))
        *isa = KN_ISA_REF;
    return rc;
}

static int check_config(const struct engine_config *c, struct err *e)
{
    if (!c->model_path)
        return err_set(e, ERR_CONFIG, "model_path is missing");
    if (c->sequences_max < 1 || c->sequences_max > SEQUENCES_MAX)
        return err_set(e, ERR_CONFIG, "sequences_max is %u, wanted 1 to %u", c->sequences_max,
                       SEQUENCES_MAX);
    if (c->step_tokens_max < 1 || c->step_tokens_max > STEP_TOKENS_MAX)
        return err_set(e, ERR_CONFIG, "step_tokens_max is %u, wanted 1 to %u", c->step_tokens_max,
                       STEP_TOKENS_MAX);
    if (c->stall_max != 0 && !(c->stall_max >= 1 && c->stall_max <= 1e6))
        return err_set(e, ERR_CONFIG, "stall_max is %g, wanted 0, or 1 to 1e6", c->stall_max);
    if (c->kv_host_bytes > 0 && !c->prefix_cache)
        return err_set(e, ERR_CONFIG,
                       "kv_host_bytes is for pages of the prefix cache, which is "
                       "off");
    if (c->ranks > SHARD_RANKS_MAX)
        return err_set(e, ERR_CONFIG, "ranks is %u, wanted at most %u", c->ranks, SHARD_RANKS_MAX);
    if (c->waiting_max > WAITING_MAX)
        return err_set(e, ERR_CONFIG, "waiting_max is %u, wanted at most %u", c->waiting_max,
                       WAITING_MAX);
    return 0;
}

static int list_eog(struct engine *g, struct err *e)
{
    uint32_t n = 0, vocab = tokenizer_vocab_size(g->tokenizer);
    if (vocab > g->model.h.vocab)
        return err_set(e, ERR_FORMAT, "the tokenizer has %u tokens, the embedding %u rows", vocab,
                       g->model.h.vocab);
    for (uint32_t id = 0; id < vocab; id++)
        n += tokenizer_is_eog(g->tokenizer, id);
    g->eog = calloc(n ? n : 1, sizeof(*g->eog));
    if (!g->eog)
        return err_set(e, ERR_NOMEM, "engine: no memory");
    g->limits.model.eog = g->eog;
    for (uint32_t id = 0; id < vocab; id++)
        if (tokenizer_is_eog(g->tokenizer, id))
            g->eog[g->limits.model.n_eog++] = id;
    return 0;
}

static struct collective *group_of(const struct engine *g)
{
    return g->ranks ? ranks_collective(g->ranks) : NULL;
}

/* All ranks have come as far as this one; or the first fault among them. */
static int agree(const struct engine *g, int rc, struct err *e)
{
    struct err own = {0};
    if (rc < 0 && e)
        own = *e;
    return g->ranks ? collective_agree(group_of(g), rc, &own, e) : rc;
}

/* Loads the weights, each rank its part. The ranks are forked before there are threads. */
static int load_weights(struct engine *g, const struct engine_config *c, enum kn_isa isa,
                        struct checkpoint *file, struct err *e)
{
    uint32_t ranks = c->ranks > 1 ? c->ranks : 1;
    struct rank_setup setup = {.file = file, .isa = isa, .threads = c->threads, .gpu = g->gpu};
    int rc = 0;
    if (ranks > 1 && gpu_computes(&g->gpu) && !cuda_forks())
        return err_set(e, ERR_CONFIG,
                       "device=cuda: this process has used a GPU already, so it can't start ranks "
                       "(tp) for another model: start a worker for each");
    if (setup.threads == 0 && ranks > 1)
        setup.threads = threads_cores() / ranks > 1 ? threads_cores() / ranks : 1;
    if (ranks > 1)
        rc = ranks_start(ranks, rank_serve, &setup, &g->ranks, e);
    if (rc == 0)
        rc = threads_create(setup.threads, &g->threads, e);
    if (rc == 0)
        rc = model_load_rank(&g->model, file, setup.isa, 0, ranks, g->threads, e);
    if (rc == 0)
        rc = shard_check(&g->model.h, ranks, e);
    return agree(g, rc, e);
}

/* What changes tokens besides the files. */
static int add_options(const struct engine_config *c, char manifest[65], struct err *e)
{
    const struct manifest_options o = {.kv_int8 = c->kv_type == KN_KV_INT8,
                                       .fast = fast_name(c->fast)};
    return manifest_add(manifest, &o, e);
}

static int load_model(struct engine *g, const struct engine_config *c, struct err *e)
{
    enum kn_isa isa = KN_ISA_REF;
    struct grammar_store_limits grammars;
    struct checkpoint *file = NULL;
    int rc = choose_device(c, &g->gpu, &isa, e);
    if (rc == 0)
        rc = checkpoint_open(c->model_path, &file, e);
    if (rc < 0)
        return rc;
    rc = fast_prepare(c, &g->gpu, file, e);
    if (rc == 0)
        rc = load_weights(g, c, isa, file, e);
    if (rc == 0)
        rc = tokenizer_open(file, &g->tokenizer, e);
    checkpoint_close(file);
    if (rc == 0)
        rc = add_options(c, g->model.manifest_sha256, e);
    if (rc == 0)
        rc = list_eog(g, e);
    grammar_store_limits_default(&grammars);
    if (rc == 0)
        rc = grammar_store_create(g->tokenizer, &grammars, &g->grammars, e);
    return rc < 0 && e ? err_prefix(e, "%s", c->model_path) : rc;
}

/* Slots of the host: never so many that a block's number would not fit. */
static int size_host(const struct engine_config *c, uint64_t page_bytes, struct backend_limits *l,
                     struct err *e)
{
    uint64_t most = UINT32_MAX - 1 - l->kv_pages, slots = c->kv_host_bytes / page_bytes;
    if (c->ranks > 1)
        return err_set(e, ERR_CONFIG, "kv_host_bytes is not served by several GPUs (tp)");
    if (slots == 0)
        return err_set(e, ERR_CONFIG, "kv_host_bytes: no room for a page of %llu bytes",
                       (unsigned long long)page_bytes);
    l->host_slots = (uint32_t)(slots < most ? slots : most);
    return 0;
}

/* How many pages there are, and with them how long a context can be: a request alone must fit. */
static int size_cache(const struct model *m, const struct engine_config *c, const struct gpu *gpu,
                      struct backend_limits *l, struct err *e)
{
    uint64_t page_bytes = backend_page_bytes(m, c->kv_type), pages = c->kv_bytes / page_bytes;
    uint32_t context = m->h.context;
    if (c->context_max > 0 && c->context_max < context)
        context = c->context_max;
    if (c->kv_bytes == 0) {
        uint64_t gpus = c->ranks > 1 ? c->ranks : 1;
        uint64_t memory = gpu_computes(gpu) ? gpus * gpu->memory_bytes : memory_of_machine();
        uint64_t most = (c->memory_bytes ? c->memory_bytes : memory) / 4 / page_bytes;
        pages = 4 * (uint64_t)sequence_pages(context);
        pages = pages < most ? pages : most;
    }
    pages = pages < UINT32_MAX ? pages : UINT32_MAX;
    if (pages == 0)
        return err_set(e, ERR_CONFIG, "kv_bytes: no room for a page of %llu bytes",
                       (unsigned long long)page_bytes);
    if (pages * KN_PAGE_TOKENS < context)
        context = (uint32_t)(pages * KN_PAGE_TOKENS);
    if (context < 2)
        return err_set(e, ERR_CONFIG, "a context of %u token has no room for an answer", context);
    *l = (struct backend_limits){.rows_max = c->step_tokens_max,
                                 .picks_max = c->sequences_max + speculator_drafts_max(c),
                                 .context = context,
                                 .kv_pages = (uint32_t)pages,
                                 .kv_type = c->kv_type,
                                 .fast = c->fast};
    if (l->picks_max > l->rows_max)
        l->picks_max = l->rows_max;
    return c->kv_host_bytes > 0 && gpu_computes(gpu) ? size_host(c, page_bytes, l, e) : 0;
}

static int load_adapters(struct engine *g, const struct engine_config *c,
                         struct backend_limits *limits, struct err *e)
{
    int rc = 0;
    if (c->n_adapters == 0)
        return 0;
    if (c->n_adapters > ENGINE_ADAPTERS_MAX)
        return err_set(e, ERR_CONFIG, "%u adapters, at most %u are taken", c->n_adapters,
                       ENGINE_ADAPTERS_MAX);
    if (g->ranks)
        return err_set(e, ERR_UNSUPPORTED, "adapters are not served by several ranks");
    g->adapters = calloc(c->n_adapters, sizeof(*g->adapters));
    g->adapter_infos = calloc(c->n_adapters, sizeof(*g->adapter_infos));
    if (!g->adapters || !g->adapter_infos)
        return err_set(e, ERR_NOMEM, "engine: no memory");
    for (uint32_t i = 0; rc == 0 && i < c->n_adapters; i++) {
        struct adapter *a = &g->adapters[i];
        rc = adapter_load(&g->model, c->adapters[i].name, c->adapters[i].path, a, e);
        if (rc < 0)
            return rc;
        g->limits.n_adapters++;
        g->adapter_infos[i] = (struct engine_adapter){.name = a->name, .sha256 = a->sha256};
        limits->adapters = g->adapters;
        limits->n_adapters = g->limits.n_adapters;
        limits->adapter_rank = a->rank > limits->adapter_rank ? a->rank : limits->adapter_rank;
        log_info("adapter loaded", "name=%s sha256=%.16s rank=%u matrices=%u bytes=%zu", a->name,
                 a->sha256, a->rank, a->n_matrices, a->block_bytes);
    }
    return rc;
}

static void release_adapters(struct engine *g)
{
    for (uint32_t i = 0; i < g->limits.n_adapters; i++)
        adapter_release(&g->adapters[i]);
    free(g->adapters);
    free(g->adapter_infos);
}

/* Takes the memory of a step on all ranks. */
static int create_backend(struct engine *g, const struct engine_config *c,
                          const struct backend_limits *limits, struct err *e)
{
    int rc = g->ranks ? rank_send_limits(group_of(g), limits, e) : 0;
    if (rc < 0)
        return rc;
    const struct gpu_group group = {.control = group_of(g),
                                    .watch = ranks_watch,
                                    .arg = g->ranks,
                                    .patience_ms = c->ranks_patience_ms};
    rc = gpu_computes(&g->gpu)
             ? backend_cuda_create(&g->model, &g->gpu, g->ranks ? &group : NULL, limits,
                                   &g->backend, e)
             : backend_cpu_create(&g->model, g->threads, group_of(g), limits, &g->backend, e);
    if (rc == 0 && gpu_computes(&g->gpu))
        model_forget_matrices(&g->model);
    rc = agree(g, rc, e);
    if (rc == 0 && g->ranks)
        collective_set_patience(group_of(g), c->ranks_patience_ms);
    return rc;
}

static int open_cache(struct engine *g, const struct engine_config *c,
                      const struct backend_limits *l, struct err *e)
{
    int rc = kvpool_init(&g->pool, l->kv_pages, e);
    if (rc == 0)
        rc = hostcache_init(&g->host, l->host_slots, g->backend, e);
    g->ahead = l->rows_max / KN_PAGE_TOKENS + c->sequences_max;
    if (c->kv_host_bytes > 0 && l->host_slots == 0)
        log_warn("kv_host_bytes is not used",
                 "why=\"the CPU's KV pages are in the host's memory\"");
    return rc == 0 ? prefixcache_init(&g->cache, &g->pool, &g->host, c->prefix_cache, e) : rc;
}

/* A draft model is the CPU's, also where the model itself is a GPU's. */
static int open_speculator(struct engine *g, const struct engine_config *c,
                           const struct backend_limits *l, struct err *e)
{
    enum kn_isa isa = KN_ISA_REF;
    int rc = choose_isa(c->isa, &isa, e);
    if (rc < 0)
        return rc;
    const struct drafter_host host = {.threads = g->threads,
                                      .tokenizer = g->tokenizer,
                                      .isa = isa,
                                      .vocab = g->model.h.vocab,
                                      .context = l->context,
                                      .kv_pages = l->kv_pages,
                                      .kv_type = l->kv_type,
                                      .sequences_max = c->sequences_max,
                                      .step_tokens_max = c->step_tokens_max};
    return speculator_init(&g->speculator, c, &host, e);
}

static int take_tables(struct engine *g, const struct engine_config *c, struct err *e)
{
    uint32_t cached_max = c->prefix_cache ? g->cache.n_blocks : 1;
    g->live_max = c->sequences_max + c->waiting_max;
    g->ids = calloc(c->step_tokens_max, sizeof(*g->ids));
    g->spans = calloc(c->sequences_max, sizeof(*g->spans));
    g->pools = calloc(c->sequences_max, sizeof(*g->pools));
    g->adapter_of = calloc(c->sequences_max, sizeof(struct adapter *));
    g->deltas = calloc(g->live_max, sizeof(*g->deltas));
    g->evicted = calloc(cached_max, sizeof(*g->evicted));
    g->stored = calloc(cached_max, sizeof(*g->stored));
    if (!g->ids || !g->spans || !g->pools || !g->adapter_of || !g->deltas || !g->evicted ||
        !g->stored)
        return err_set(e, ERR_NOMEM, "engine: no memory");
    return 0;
}

static void describe(struct engine *g, const struct engine_config *c,
                     const struct backend_limits *l)
{
    g->limits.context = l->context;
    g->limits.manifest = g->model.manifest_sha256;
    g->limits.n_embd = g->model.h.n_embd;
    g->limits.adapters = g->adapters;
    g->limits.model.tokenizer = g->tokenizer;
    g->limits.model.vocab = g->model.h.vocab;
    g->clock_ns = c->clock_ns ? c->clock_ns : clock_mono_ns;
    g->limits.model.grammars = g->grammars;
    g->info =
        (struct engine_info){.architecture = g->model.arch->name,
                             .manifest_sha256 = g->model.manifest_sha256,
                             .isa = gpu_computes(&g->gpu) ? "cuda" : kn_isa_name(g->model.isa),
                             .context_tokens = l->context,
                             .vocab = g->model.h.vocab,
                             .n_embd = g->model.h.n_embd,
                             .kv_pages = l->kv_pages,
                             .kv_host_pages = l->host_slots,
                             .page_tokens = KN_PAGE_TOKENS,
                             .sequences_max = c->sequences_max,
                             .weight_bytes = g->model.weight_bytes,
                             .kv_bytes = l->kv_pages * backend_page_bytes(&g->model, c->kv_type),
                             .adapters = g->adapter_infos,
                             .n_adapters = g->limits.n_adapters};
}

static int open_scheduler(struct engine *g, const struct engine_config *c, struct err *e)
{
    const struct scheduler_limits limits = {.running_max = c->sequences_max,
                                            .step_tokens_max = c->step_tokens_max,
                                            .priority_rows = c->priority_tokens ? c->priority_tokens
                                                                                : PRIORITY_TOKENS,
                                            .stall_max = c->stall_max};
    return scheduler_init(&g->scheduler, &g->cache, &limits, e);
}

static int outline(const struct engine_config *c, const struct checkpoint *file,
                   const struct gpu *gpu, enum kn_isa isa, struct engine_outline *out,
                   struct err *e)
{
    struct model m;
    struct backend_limits limits;
    int rc = model_measure(&m, file, isa, e);
    if (rc < 0)
        return rc;
    rc = size_cache(&m, c, gpu, &limits, e);
    if (rc == 0)
        *out = (struct engine_outline){.context_tokens = limits.context,
                                       .kv_pages = limits.kv_pages,
                                       .kv_host_pages = limits.host_slots,
                                       .page_tokens = KN_PAGE_TOKENS,
                                       .weight_bytes = m.weight_bytes,
                                       .kv_bytes =
                                           limits.kv_pages * backend_page_bytes(&m, c->kv_type)};
    model_release(&m);
    return rc;
}

int engine_outline(const struct engine_config *config, bool with_manifest,
                   struct engine_outline *out, struct err *e)
{
    enum kn_isa isa = KN_ISA_REF;
    struct gpu gpu;
    struct checkpoint *file = NULL;
    int rc = check_config(config, e);
    if (rc == 0)
        rc = choose_device(config, &gpu, &isa, e);
    if (rc == 0)
        rc = checkpoint_open(config->model_path, &file, e);
    if (rc < 0)
        return rc;
    rc = fast_prepare(config, &gpu, file, e);
    if (rc == 0)
        rc = outline(config, file, &gpu, isa, out, e);
    if (rc == 0 && with_manifest)
        rc = checkpoint_manifest(file, out->manifest_sha256, e);
    checkpoint_close(file);
    if (rc == 0 && with_manifest)
        rc = add_options(config, out->manifest_sha256, e);
    return rc < 0 && e ? err_prefix(e, "%s", config->model_path) : rc;
}

int engine_open(const struct engine_config *config, struct engine **out, struct err *e)
{
    uint64_t begin_ms = clock_mono_ms();
    struct backend_limits limits;
    int rc = check_config(config, e);
    if (rc < 0)
        return rc;
    struct engine *g = calloc(1, sizeof(*g));
    if (!g)
        return err_set(e, ERR_NOMEM, "engine: no memory");
    buf_init(&g->message, 0);
    rc = load_model(g, config, e);
    if (rc == 0)
        rc = size_cache(&g->model, config, &g->gpu, &limits, e);
    if (rc == 0)
        rc = load_adapters(g, config, &limits, e);
    if (rc == 0)
        rc = create_backend(g, config, &limits, e);
    if (rc == 0)
        rc = open_cache(g, config, &limits, e);
    if (rc == 0)
        rc = open_scheduler(g, config, e);
    if (rc == 0)
        rc = open_speculator(g, config, &limits, e);
    if (rc == 0)
        rc = verifier_init(&g->verifier, limits.picks_max, config->sequences_max,
                           config->logits_digests, e);
    if (rc == 0)
        rc = take_tables(g, config, e);
    if (rc < 0) {
        engine_free(g);
        return rc;
    }
    describe(g, config, &limits);
    log_info(
        "model loaded",
        "path=%s architecture=%s device=%s isa=%s ranks=%u threads=%u weight_bytes=%llu context=%u "
        "kv_pages=%u "
        "kv_bytes=%llu load_ms=%llu",
        config->model_path, g->info.architecture, gpu_computes(&g->gpu) ? g->gpu.name : "cpu",
        g->info.isa, g->model.shard.ranks, threads_count(g->threads),
        (unsigned long long)g->info.weight_bytes, g->info.context_tokens, g->info.kv_pages,
        (unsigned long long)g->info.kv_bytes, (unsigned long long)(clock_mono_ms() - begin_ms));
    *out = g;
    return 0;
}

static void free_finished(struct engine *g)
{
    while (g->finished) {
        struct sequence *q = g->finished;
        g->finished = q->next;
        sequence_free(q);
    }
}

static void discard(struct engine *g, struct sequence *q)
{
    scheduler_remove(&g->scheduler, q);
    speculator_forget(&g->speculator, q);
    sequence_free(q);
}

void engine_free(struct engine *g)
{
    if (!g)
        return;
    free_finished(g);
    while (g->scheduler.n_running > 0)
        discard(g, g->scheduler.running[0]);
    while (g->scheduler.waiting)
        discard(g, g->scheduler.waiting);
    speculator_release(&g->speculator);
    verifier_release(&g->verifier);
    scheduler_release(&g->scheduler);
    prefixcache_release(&g->cache);
    hostcache_release(&g->host);
    kvpool_release(&g->pool);
    backend_free(g->backend);
    ranks_free(g->ranks);
    buf_release(&g->message);
    release_adapters(g);
    model_release(&g->model);
    threads_free(g->threads);
    grammar_store_free(g->grammars);
    tokenizer_free(g->tokenizer);
    free(g->eog);
    free(g->ids);
    free(g->spans);
    free(g->pools);
    free(g->adapter_of);
    free(g->deltas);
    free(g->evicted);
    free(g->stored);
    free(g);
}

const struct engine_info *engine_info(const struct engine *g)
{
    return &g->info;
}

const struct tokenizer *engine_tokenizer(const struct engine *g)
{
    return g->tokenizer;
}

struct grammar_store *engine_grammars(const struct engine *g)
{
    return g->grammars;
}

/* ---- requests ---------------------------------------------------------------------------------
 */

static struct sequence *find_live(const struct engine *g, uint64_t id)
{
    const struct scheduler *s = &g->scheduler;
    for (uint32_t i = 0; i < s->n_running; i++)
        if (s->running[i]->id == id)
            return s->running[i];
    for (struct sequence *q = s->waiting; q; q = q->next)
        if (q->id == id)
            return q;
    return NULL;
}

int engine_submit(struct engine *g, const struct engine_request *r, struct err *e)
{
    struct sequence *q;
    if (g->scheduler.n_running + g->scheduler.n_waiting >= g->live_max)
        return err_set(e, ERR_BUSY, "%u requests run and %u wait: no more are taken",
                       g->scheduler.n_running, g->scheduler.n_waiting);
    if (find_live(g, r->id))
        return err_set(e, ERR_RANGE, "request %llu is there already", (unsigned long long)r->id);
    int rc = sequence_create(r, &g->limits, &q, e);
    if (rc < 0)
        return rc;
    q->arrival = g->arrivals++;
    scheduler_add(&g->scheduler, q);
    return 0;
}

void engine_cancel(struct engine *g, uint64_t id)
{
    struct sequence *q = find_live(g, id);
    if (q)
        discard(g, q);
}

struct engine_load engine_load(const struct engine *g)
{
    return (struct engine_load){.running = g->scheduler.n_running,
                                .waiting = g->scheduler.n_waiting,
                                .kv_pages_used = g->pool.n_pages - prefixcache_available(&g->cache),
                                .kv_pages_idle = g->cache.n_idle,
                                .kv_host_bytes_used =
                                    g->host.n_used * (g->info.kv_bytes / g->info.kv_pages),
                                .kv_pages_out = g->host.n_out,
                                .kv_pages_in = g->host.n_in,
                                .steps = g->steps,
                                .preempted = g->scheduler.n_preempted,
                                .drafted = g->speculator.n_drafted,
                                .drafts_right = g->speculator.n_right};
}

void engine_cache_news(struct engine *g, struct engine_cache_news *out)
{
    *out = (struct engine_cache_news){.evicted = g->evicted, .stored = g->stored};
    prefixcache_news(&g->cache, g->evicted, &out->n_evicted, g->stored, &out->n_stored);
}

uint32_t engine_cache_blocks(const struct engine *g, uint32_t *cursor, uint64_t *hashes,
                             uint32_t cap)
{
    return prefixcache_list(&g->cache, cursor, hashes, cap);
}

/* ---- a step -----------------------------------------------------------------------------------
 */

static struct engine_delta *add_delta(struct engine *g, const struct sequence *q, uint32_t n_tokens)
{
    ASSERT(g->n_deltas < g->live_max);
    struct engine_delta *d = &g->deltas[g->n_deltas++];
    *d = (struct engine_delta){.id = q->id,
                               .index = sequence_output(q) - n_tokens,
                               .n_tokens = n_tokens,
                               .tokens = q->tokens + q->n_tokens - n_tokens,
                               .finish = q->finish,
                               .error = q->error,
                               .hopeless = q->hopeless};
    if (d->index == 0 && n_tokens > 0)
        d->cached_tokens = q->n_cached < q->n_prompt ? q->n_cached : q->n_prompt;
    return d;
}

/* Its pages are free at once; the rest stays until the deltas have been read. */
static void finish(struct engine *g, struct sequence *q)
{
    scheduler_remove(&g->scheduler, q);
    speculator_forget(&g->speculator, q);
    q->next = g->finished;
    g->finished = q;
}

static void fail(struct engine *g, struct sequence *q, const char *why)
{
    q->finish = ENGINE_ERROR;
    q->error = why;
    add_delta(g, q, 0);
    finish(g, q);
}

static bool leaves(struct engine *g, struct sequence *q, uint64_t now_ms)
{
    if (q->finish != ENGINE_GOES_ON) { /* complete when it came */
        add_delta(g, q, 0);
        finish(g, q);
        return true;
    }
    if (q->deadline_ms != 0 && q->deadline_ms <= now_ms) {
        fail(g, q, "the request's deadline has passed");
        return true;
    }
    return false;
}

static void let_leave(struct engine *g)
{
    struct scheduler *s = &g->scheduler;
    uint64_t now_ms = clock_mono_ms();
    for (uint32_t i = 0; i < s->n_running;)
        i += leaves(g, s->running[i], now_ms) ? 0 : 1;
    for (struct sequence *q = s->waiting, *next; q; q = next) {
        next = q->next;
        leaves(g, q, now_ms);
    }
}

static void add_rows(struct engine *g, struct batch *b, struct sequence *q)
{
    memcpy(g->ids + b->n_rows, q->tokens + q->n_computed, q->step_rows * sizeof(*g->ids));
    g->adapter_of[b->n_spans] = q->adapter;
    if (q->adapter)
        b->adapters = g->adapter_of;
    g->spans[b->n_spans++] =
        (struct kn_span){.page_table = q->pages, .pos = q->n_computed, .rows = q->step_rows};
    if (embedding_rows(&q->embedding, b->n_rows, q->step_rows, q->n_computed, q->n_prompt,
                       &g->pools[b->n_pools]))
        b->n_pools++;
    b->n_rows += q->step_rows;
    if (q->embedding.pooling == ENGINE_POOLING_NONE && scheduler_samples(q))
        verifier_add(&g->verifier, q, b->n_rows - 1 - q->n_drafts);
}

static struct batch make_batch(struct engine *g, struct engine_step *out)
{
    struct batch b = {
        .ids = g->ids, .spans = g->spans, .picks = g->verifier.picks, .pools = g->pools};
    verifier_clear(&g->verifier);
    for (uint32_t i = 0; i < g->scheduler.n_running; i++) {
        struct sequence *q = g->scheduler.running[i];
        bool decodes = sequence_decodes(q) && q->n_tokens > q->n_prompt;
        if (q->step_rows == 0)
            continue;
        add_rows(g, &b, q);
        out->prefill_tokens += decodes ? 0 : q->step_rows - q->n_drafts;
        out->decode_tokens += decodes ? 1 : 0;
    }
    b.n_picks = g->verifier.n_picks;
    return b;
}

static void tell(struct engine *g, const struct verified *d)
{
    struct sequence *q = d->sequence;
    if (d->n_taken == 0) {
        const char *why = sampler_refusal(&q->sampler);
        q->hopeless = why != NULL; /* the output is a dead end of its grammar */
        fail(g, q, why ? why : "the model's logits are not finite");
        return;
    }
    struct engine_delta *delta = add_delta(g, q, d->n_taken);
    if (q->sampler.params.want_logprobs)
        delta->sampled = &g->verifier.sampled[d->first];
    if (g->verifier.digests)
        delta->logits_digests = &g->verifier.digests[d->first];
    if (q->finish != ENGINE_GOES_ON)
        finish(g, q);
}

/* Those that want a vector and have all their rows. */
static void take_embeddings(struct engine *g)
{
    for (uint32_t i = 0; i < g->scheduler.n_running;) {
        struct sequence *q = g->scheduler.running[i];
        if (q->embedding.pooling == ENGINE_POOLING_NONE || q->n_computed < q->n_prompt) {
            i++;
            continue;
        }
        const float *v = embedding_finish(&q->embedding, q->n_prompt);
        if (!v) {
            fail(g, q, "the model's states are not finite");
            continue;
        }
        q->finish = ENGINE_STOP;
        struct engine_delta *d = add_delta(g, q, 0);
        d->embedding = v;
        d->n_embedding = q->embedding.width;
        finish(g, q);
    }
}

/* False: a rank is lost or the device has failed, and the batch means nothing. */
static bool run(struct engine *g, struct batch *b)
{
    struct collective *group = group_of(g);
    if (group && rank_send_batch(group, b, &g->message, &g->lost) < 0)
        return false;
    backend_run(g->backend, b);
    if (group)
        g->lost = group->lost;
    if (g->lost.code == 0)
        backend_check(g->backend, &g->lost);
    return g->lost.code == 0;
}

int engine_check(struct engine *g, struct err *e)
{
    if (g->ranks && g->lost.code == 0)
        ranks_check(g->ranks, &g->lost);
    return g->lost.code < 0 ? err_set(e, g->lost.code, "%s", g->lost.msg) : 0;
}

static void compute(struct engine *g, struct engine_step *out)
{
    struct verifier *v = &g->verifier;
    if (g->lost.code < 0)
        return;
    speculator_draft(&g->speculator, &g->scheduler);
    if (scheduler_plan(&g->scheduler) == 0)
        return;
    backend_page_fence(g->backend);
    prefixcache_save_ahead(&g->cache, g->ahead); /* beside the run */
    struct batch b = make_batch(g, out);
    uint64_t begin_ns = g->clock_ns();
    if (!run(g, &b)) {
        *out = (struct engine_step){0};
        return;
    }
    double seconds = (double)(g->clock_ns() - begin_ns) / 1e9;
    verifier_take(v, g->backend, &b);
    for (uint32_t i = 0; i < v->n_of; i++)
        out->decode_tokens += v->of[i].sequence->n_drafts;
    speculator_learn(&g->speculator, v);
    scheduler_computed(&g->scheduler, seconds);
    for (uint32_t i = 0; i < v->n_of; i++)
        tell(g, &v->of[i]);
    take_embeddings(g);
    g->steps++;
}

bool engine_step(struct engine *g, struct engine_step *out)
{
    uint64_t begin_ns = clock_mono_ns();
    *out = (struct engine_step){0};
    free_finished(g);
    g->n_deltas = 0;
    let_leave(g);
    compute(g, out);
    out->deltas = g->deltas;
    out->n_deltas = g->n_deltas;
    out->duration_us = (uint32_t)((clock_mono_ns() - begin_ns) / 1000);
    return g->scheduler.n_running + g->scheduler.n_waiting > 0;
}
