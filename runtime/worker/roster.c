#include "runtime/worker/roster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/memory.h"
#include "runtime/engine/gpu.h"

#define MIB(bytes) ((unsigned long long)((bytes) + (1u << 20) - 1) >> 20)

/* ---- what there is to offer --------------------------------------------------------------------
 */

static int take_adapters(struct roster *r, struct err *e)
{
    const struct config_list *list = &r->config->adapters;
    if (list->n == 0)
        return 0;
    r->adapters = calloc(list->n, sizeof(*r->adapters));
    r->adapter_names = calloc(list->n, sizeof(*r->adapter_names));
    if (!r->adapters || !r->adapter_names)
        return err_set(e, ERR_NOMEM, "no memory for %zu adapters", list->n);
    for (size_t i = 0; i < list->n; i++) {
        r->adapters[i].name = r->adapter_names[i];
        r->adapters[i].path =
            worker_adapter(list->items[i], r->adapter_names[i], sizeof(r->adapter_names[i]));
    }
    r->offers[0].config.adapters = r->adapters;
    r->offers[0].config.n_adapters = (uint32_t)list->n;
    return 0;
}

static int add_offers(struct roster *r, struct err *e)
{
    const struct worker_config *c = r->config;
    r->offers = calloc(c->model.n, sizeof(*r->offers));
    if (!r->offers)
        return err_set(e, ERR_NOMEM, "no memory for %zu models", c->model.n);
    for (size_t i = 0; i < c->model.n; i++) {
        struct offer *o = &r->offers[r->n++];
        o->config = worker_engine_config(c, worker_model_path(c->model.items[i]));
        o->config.memory_bytes = r->memory_max;
        worker_model_name(c->model.items[i], c->fast, o->name, sizeof(o->name));
        int rc = jobs_init(&o->jobs, (uint32_t)(c->sequences_max + c->waiting_max), e);
        if (rc < 0)
            return rc;
    }
    return take_adapters(r, e);
}

static int check_fit(const struct roster *r, const struct offer *o, struct err *e)
{
    const struct engine_outline *l = &o->outline;
    if (r->memory_max == 0 || o->memory_bytes <= r->memory_max)
        return 0;
    return err_set(
        e, ERR_CONFIG,
        "model %s takes %llu MiB of weights and %llu MiB of KV pages: %llu MiB more than "
        "memory=%lluM; kv_bytes, context_max and kv_type=int8 make the pages smaller",
        o->name, MIB(l->weight_bytes), MIB(l->kv_bytes), MIB(o->memory_bytes - r->memory_max),
        MIB(r->memory_max));
}

/* From what the files say of themselves, which takes no time. */
static int check_all(struct roster *r, struct err *e)
{
    for (uint32_t i = 0; i < r->n; i++) {
        struct offer *o = &r->offers[i];
        int rc = engine_outline(&o->config, false, &o->outline, e);
        if (rc < 0)
            return rc;
        o->memory_bytes = o->outline.weight_bytes + o->outline.kv_bytes;
        rc = check_fit(r, o, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Of all but the first, which is hashed as it is loaded. Two names of one model would be told apart
 * by nobody: the hashes of their blocks are the same. */
static int take_manifests(struct roster *r, struct err *e)
{
    for (uint32_t i = 1; i < r->n; i++) {
        struct offer *o = &r->offers[i];
        int rc = engine_outline(&o->config, true, &o->outline, e);
        if (rc < 0)
            return rc;
        for (uint32_t k = 0; k < i; k++)
            if (strcmp(r->offers[k].outline.manifest_sha256, o->outline.manifest_sha256) == 0)
                return err_set(e, ERR_CONFIG, "models %s and %s are the same", r->offers[k].name,
                               o->name);
    }
    return 0;
}

/* ---- loads -------------------------------------------------------------------------------------
 */

static void begin_load(struct roster *r, struct offer *o)
{
    if (r->n > 1 || r->config->unload_after_ms > 0)
        log_info("model loads", "name=%s", o->name);
    o->state = OFFER_LOADING;
    o->opening = (struct opening){.config = &o->config};
    opener_post(r->opener, &o->opening);
}

static void begin_free(struct roster *r, struct offer *o, struct engine *engine)
{
    o->state = OFFER_UNLOADING;
    o->opening = (struct opening){.engine = engine};
    opener_post(r->opener, &o->opening);
}

void roster_unload(struct roster *r, struct offer *o)
{
    struct engine *engine = o->engine;
    ASSERT(o->state == OFFER_LOADED && o->jobs.n == 0);
    log_info("model leaves memory", "name=%s bytes=%llu", o->name,
             (unsigned long long)o->memory_bytes);
    r->events.leaves(r->events.ctx, o);
    o->engine = NULL;
    o->busy = o->yields = false;
    begin_free(r, o, engine);
}

static bool same_adapters(const struct offer *o, const struct engine_info *info)
{
    if (o->n_adapters != info->n_adapters)
        return false;
    for (uint32_t i = 0; i < o->n_adapters; i++)
        if (strcmp(o->adapters[i].sha256, info->adapters[i].sha256) != 0)
            return false;
    return true;
}

static int copy_adapters(struct offer *o, const struct engine_info *info, struct err *e)
{
    if (info->n_adapters == 0)
        return 0;
    o->adapters = calloc(info->n_adapters, sizeof(*o->adapters));
    if (!o->adapters)
        return err_set(e, ERR_NOMEM, "no memory for %u adapters", info->n_adapters);
    for (uint32_t i = 0; i < info->n_adapters; i++) {
        o->adapters[i].name = strdup(info->adapters[i].name);
        o->adapters[i].sha256 = strdup(info->adapters[i].sha256);
        o->n_adapters = i + 1;
        if (!o->adapters[i].name || !o->adapters[i].sha256)
            return err_set(e, ERR_NOMEM, "no memory for %u adapters", info->n_adapters);
    }
    return 0;
}

/* What was offered of it from now on is what was just loaded. */
static int learn(struct offer *o, const struct engine_info *info, struct err *e)
{
    struct engine_outline *l = &o->outline;
    snprintf(l->manifest_sha256, sizeof(l->manifest_sha256), "%s", info->manifest_sha256);
    l->context_tokens = info->context_tokens;
    l->kv_pages = info->kv_pages;
    l->kv_host_pages = info->kv_host_pages;
    l->page_tokens = info->page_tokens;
    return copy_adapters(o, info, e);
}

static void become_loaded(struct roster *r, struct offer *o, struct engine *engine, uint64_t now_ms)
{
    const struct engine_info *info = engine_info(engine);
    uint64_t taken = info->weight_bytes + info->kv_bytes;
    o->engine = engine;
    o->state = OFFER_LOADED;
    /* Of several ranks the outline knows all, the engine its own. */
    o->memory_bytes = taken > o->memory_bytes || o->config.ranks <= 1 ? taken : o->memory_bytes;
    o->used_ms = now_ms;
    o->busy = false;
    r->events.loaded(r->events.ctx, o);
}

static void lose(struct offer *o, const char *why)
{
    log_error("model is gone", "name=%s why=\"%s\"", o->name, why);
    o->state = OFFER_GONE;
}

static void take_load(struct roster *r, struct offer *o, uint64_t now_ms)
{
    struct engine *engine = o->opening.engine;
    if (o->opening.rc < 0) {
        lose(o, o->opening.err.msg);
        return;
    }
    const struct engine_info *info = engine_info(engine);
    if (strcmp(info->manifest_sha256, o->outline.manifest_sha256) == 0 && same_adapters(o, info)) {
        become_loaded(r, o, engine, now_ms);
        return;
    }
    begin_free(r, o, engine);
    lose(o, "its files are not those that were offered");
}

bool roster_poll(struct roster *r, uint64_t now_ms)
{
    struct opening *work;
    bool changed = false;
    while ((work = opener_take(r->opener))) {
        struct offer *o = r->offers;
        while (&o->opening != work)
            o++;
        if (o->state == OFFER_LOADING)
            take_load(r, o, now_ms);
        else if (o->state == OFFER_UNLOADING)
            o->state = OFFER_UNLOADED;
        changed = true;
    }
    return changed;
}

/* ---- open and free -----------------------------------------------------------------------------
 */

static int load_first(struct roster *r, struct err *e)
{
    struct offer *o = &r->offers[0];
    begin_load(r, o);
    opener_wait(r->opener);
    struct engine *engine = o->opening.engine;
    if (o->opening.rc < 0) {
        o->state = OFFER_UNLOADED;
        return err_set(e, o->opening.rc, "%s", o->opening.err.msg);
    }
    int rc = learn(o, engine_info(engine), e);
    become_loaded(r, o, engine, clock_mono_ms());
    return rc == 0 ? check_fit(r, o, e) : rc;
}

/* Of what computes; of a GPU less a sixteenth, for what its driver and the engines take besides. */
static uint64_t machine_memory(const struct worker_config *c)
{
    struct gpu gpu;
    uint64_t ranks = (uint64_t)c->tp;
    if (gpu_choose(c->device, (uint32_t)ranks, &gpu, NULL) == 0 && gpu_computes(&gpu))
        return ranks * (gpu.memory_bytes - gpu.memory_bytes / 16);
    return memory_of_machine();
}

/* Ranks on GPUs are forked before the process uses CUDA, so once. */
static int check_ranks(const struct worker_config *c, struct err *e)
{
    struct gpu gpu;
    if (c->tp <= 1 || (c->model.n <= 1 && c->unload_after_ms == 0))
        return 0;
    int rc = gpu_choose(c->device, (uint32_t)c->tp, &gpu, e);
    if (rc < 0 || !gpu_computes(&gpu))
        return rc;
    return err_set(e, ERR_CONFIG,
                   "device=cuda: a worker of several ranks (tp) serves one model, and keeps it "
                   "loaded: start a worker for each, without unload_after");
}

int roster_init(struct roster *r, const struct worker_config *config,
                const struct roster_events *events, struct err *e)
{
    *r = (struct roster){.config = config, .events = *events};
    r->memory_max = (uint64_t)config->memory;
    if (r->memory_max == 0 && config->model.n > 1)
        r->memory_max = machine_memory(config);
    int rc = check_ranks(config, e);
    if (rc == 0)
        rc = add_offers(r, e);
    if (rc == 0 && r->memory_max > 0)
        rc = check_all(r, e);
    if (rc == 0)
        rc = opener_create(events->wake, events->ctx, &r->opener, e);
    if (rc == 0)
        rc = load_first(r, e);
    return rc == 0 ? take_manifests(r, e) : rc;
}

void roster_release(struct roster *r)
{
    for (uint32_t i = 0; i < r->n; i++) {
        if (r->offers[i].state == OFFER_LOADED)
            roster_unload(r, &r->offers[i]);
    }
    opener_free(r->opener);
    for (uint32_t i = 0; i < r->n; i++) {
        struct offer *o = &r->offers[i];
        /* Loaded after anybody had a use for it; no ranks, or they ended with their thread. */
        engine_free(o->opening.engine);
        for (uint32_t k = 0; k < o->n_adapters; k++) {
            free((char *)o->adapters[k].name);
            free((char *)o->adapters[k].sha256);
        }
        free(o->adapters);
        jobs_release(&o->jobs);
    }
    free(r->offers);
    free(r->adapters);
    free(r->adapter_names);
    *r = (struct roster){0};
}

/* ---- whose turn it is --------------------------------------------------------------------------
 */

struct offer *roster_find(struct roster *r, const char *name)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (strcmp(r->offers[i].name, name) == 0)
            return r->offers[i].state == OFFER_GONE ? NULL : &r->offers[i];
    return NULL;
}

struct offer *roster_next(struct roster *r)
{
    struct offer *next = NULL;
    for (uint32_t i = 0; i < r->n; i++) {
        struct offer *o = &r->offers[i];
        if (o->busy && (!next || o->run_ns < next->run_ns))
            next = o;
    }
    return next;
}

void roster_used(struct roster *r, struct offer *o)
{
    /* Who was idle has not saved time up. */
    if (!o->busy && o->run_ns < r->turn_ns)
        o->run_ns = r->turn_ns;
    o->busy = true;
}

void roster_stepped(struct roster *r, struct offer *o, uint64_t ns, bool busy, uint64_t now_ms)
{
    r->turn_ns = o->run_ns;
    o->run_ns += ns;
    o->busy = busy;
    o->used_ms = now_ms;
}

/* ---- room --------------------------------------------------------------------------------------
 */

static uint64_t bytes_in(const struct roster *r, enum offer_state state)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < r->n; i++)
        sum += r->offers[i].state == state ? r->offers[i].memory_bytes : 0;
    return sum;
}

/* The one that was used longest ago, of those that are idle, or of those that do not yield yet. */
static struct offer *oldest(struct roster *r, bool idle)
{
    struct offer *found = NULL;
    for (uint32_t i = 0; i < r->n; i++) {
        struct offer *o = &r->offers[i];
        if (o->state == OFFER_LOADED && !o->yields && (o->jobs.n == 0) == idle &&
            (!found || o->used_ms < found->used_ms))
            found = o;
    }
    return found;
}

static uint64_t idle_bytes(const struct roster *r)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        const struct offer *o = &r->offers[i];
        sum += o->state == OFFER_LOADED && o->jobs.n == 0 ? o->memory_bytes : 0;
    }
    return sum;
}

static bool fits(const struct roster *r, uint64_t held, uint64_t more)
{
    return r->memory_max == 0 || held + more <= r->memory_max;
}

/* Loads it, or makes a step towards the room that it needs. */
static void make_room(struct roster *r, struct offer *wanted)
{
    struct offer *o;
    uint64_t need = wanted->memory_bytes;
    uint64_t held = bytes_in(r, OFFER_LOADED) + bytes_in(r, OFFER_LOADING);
    if (fits(r, held + bytes_in(r, OFFER_UNLOADING), need)) {
        begin_load(r, wanted);
        return;
    }
    if (fits(r, held - idle_bytes(r), need)) {
        while (!fits(r, held, need) && (o = oldest(r, true))) {
            held -= o->memory_bytes;
            roster_unload(r, o);
        }
        return;
    }
    /* Not before those that are in use can go is any gain in unloading the idle ones. */
    held -= idle_bytes(r);
    while (!fits(r, held, need) && (o = oldest(r, false))) {
        o->yields = true;
        held -= o->memory_bytes;
    }
}

/* The first that will be idle for long enough is then. */
static uint64_t unload_idle(struct roster *r, uint64_t now_ms)
{
    uint64_t next = UINT64_MAX, after = (uint64_t)r->config->unload_after_ms;
    for (uint32_t i = 0; after > 0 && i < r->n; i++) {
        struct offer *o = &r->offers[i];
        if (o->state != OFFER_LOADED || o->jobs.n > 0)
            continue;
        if (o->used_ms + after <= now_ms)
            roster_unload(r, o);
        else if (o->used_ms + after < next)
            next = o->used_ms + after;
    }
    return next;
}

uint64_t roster_tick(struct roster *r, struct offer *wanted, uint64_t now_ms)
{
    for (uint32_t i = 0; i < r->n; i++)
        r->offers[i].yields = false;
    if (wanted && wanted->state == OFFER_UNLOADED)
        make_room(r, wanted);
    return unload_idle(r, now_ms);
}

bool roster_busy(const struct roster *r)
{
    return r->opener && opener_busy(r->opener);
}

bool roster_empty(const struct roster *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (r->offers[i].state != OFFER_GONE)
            return false;
    return true;
}
