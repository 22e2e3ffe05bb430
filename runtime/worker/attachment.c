#include "runtime/worker/attachment.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/version.h"

/* Changes are reported at once, but no more often than this. */
#define LOAD_GAP_MS 20
#define LABELS_MAX 64

int attachment_init(struct attachment *a, const char *address, const struct identity *identity,
                    struct mailbox *events, struct err *e)
{
    const struct worker_config *c = identity->config;
    uint64_t seed;
    struct rpc_config rpc = {
        .address = address,
        .tls = {.cert_file = c->tls_cert, .key_file = c->tls_key, .ca_file = c->tls_ca},
        .out_bytes_max = (size_t)c->out_bytes_max,
        .keepalive_ms = (uint32_t)c->keepalive_ms,
        .owner = a,
    };
    *a = (struct attachment){.address = address,
                             .identity = identity,
                             .state = ATTACHMENT_DIALLING,
                             .heartbeat_ms = (uint64_t)c->heartbeat_ms};
    rng_entropy(&seed, sizeof(seed));
    rng_init(&a->rng, seed);
    if (rpc_client_open(&rpc, events, &a->client, e) < 0)
        return err_prefix(e, "%s", address);
    pulse_init(&a->pulse, a->client);
    return 0;
}

void attachment_release(struct attachment *a)
{
    rpc_client_free(a->client);
    a->client = NULL;
    pulse_release(&a->pulse);
}

void attachment_send(struct attachment *a, const Argosy__FromWorker *frame)
{
    struct err e;
    if (a->state == ATTACHMENT_ATTACHED && rpc_client_send(a->client, a->stream, frame, &e) < 0)
        log_debug("frame lost", "router=%s why=%s", a->address, e.msg);
}

/* ---- Hello -------------------------------------------------------------------------------------
 */

struct hello {
    Argosy__FromWorker frame;
    Argosy__Hello hello;
    Argosy__Device device;
    Argosy__ModelOffer models[WORKER_MODELS_MAX], *offers[WORKER_MODELS_MAX];
    Argosy__AdapterOffer adapters[ENGINE_ADAPTERS_MAX], *adapter_ptrs[ENGINE_ADAPTERS_MAX];
    Argosy__Hello__LabelsEntry labels[LABELS_MAX], *label_ptrs[LABELS_MAX];
    char keys[LABELS_MAX][256];
};

static void add_labels(struct hello *h, const struct config_list *list)
{
    for (size_t i = 0; i < list->n && i < LABELS_MAX; i++) {
        const char *eq = strchr(list->items[i], '=');
        argosy__hello__labels_entry__init(&h->labels[i]);
        snprintf(h->keys[i], sizeof(h->keys[i]), "%.*s", (int)(eq - list->items[i]),
                 list->items[i]);
        h->labels[i].key = h->keys[i];
        h->labels[i].value = (char *)eq + 1;
        h->label_ptrs[i] = &h->labels[i];
        h->hello.n_labels = i + 1;
    }
    h->hello.labels = h->label_ptrs;
}

/* Of the first model alone. */
static void add_adapters(struct hello *h, const struct offer *o)
{
    for (uint32_t i = 0; i < o->n_adapters; i++) {
        argosy__adapter_offer__init(&h->adapters[i]);
        h->adapters[i].name = (char *)o->adapters[i].name;
        h->adapters[i].sha256 = (char *)o->adapters[i].sha256;
        h->adapter_ptrs[i] = &h->adapters[i];
    }
    h->models[0].n_adapters = o->n_adapters;
    h->models[0].adapters = h->adapter_ptrs;
}

Argosy__ModelState attachment_state_of(const struct offer *o)
{
    static const Argosy__ModelState of[] = {
        [OFFER_UNLOADED] = ARGOSY__MODEL_STATE__MODEL_UNLOADED,
        [OFFER_LOADING] = ARGOSY__MODEL_STATE__MODEL_LOADING,
        [OFFER_LOADED] = ARGOSY__MODEL_STATE__MODEL_LOADED,
        [OFFER_UNLOADING] = ARGOSY__MODEL_STATE__MODEL_UNLOADED,
        [OFFER_GONE] = ARGOSY__MODEL_STATE__MODEL_GONE,
    };
    return of[o->state];
}

static void add_model(struct hello *h, const struct offer *o)
{
    size_t i = h->hello.n_models++;
    Argosy__ModelOffer *m = &h->models[i];
    argosy__model_offer__init(m);
    m->name = (char *)o->name;
    m->manifest_sha256 = (char *)o->outline.manifest_sha256;
    m->context_tokens = o->outline.context_tokens;
    m->exact = true;
    m->kv_pages = o->outline.kv_pages;
    m->kv_host_pages = o->outline.kv_host_pages;
    m->page_tokens = o->outline.page_tokens;
    m->memory_bytes = o->memory_bytes;
    m->state = attachment_state_of(o);
    if (o->state == OFFER_LOADED && h->hello.kv_pages <= UINT32_MAX - m->kv_pages)
        h->hello.kv_pages += m->kv_pages;
    h->offers[i] = m;
}

static void fill_hello(struct hello *h, const struct attachment *a)
{
    const struct identity *id = a->identity;
    argosy__from_worker__init(&h->frame);
    argosy__hello__init(&h->hello);
    argosy__device__init(&h->device);
    h->frame.frame_case = ARGOSY__FROM_WORKER__FRAME_HELLO;
    h->frame.hello = &h->hello;
    h->device.kind = (char *)id->device.kind;
    h->device.name = (char *)id->device.name;
    h->device.count = 1;
    h->device.memory_bytes = id->device.memory_bytes;
    h->hello.worker_id = (char *)id->id;
    h->hello.epoch = a->epoch;
    h->hello.protocol = RPC_PROTOCOL_VERSION;
    h->hello.software = (char *)"argosy-worker " ARGOSY_VERSION;
    h->hello.device = &h->device;
    h->hello.models = h->offers;
    for (uint32_t i = 0; i < id->roster->n; i++)
        add_model(h, &id->roster->offers[i]);
    add_adapters(h, &id->roster->offers[0]);
    if (h->hello.kv_pages == 0) /* none is loaded now */
        h->hello.kv_pages = h->models[0].kv_pages;
    h->hello.page_tokens = h->models[0].page_tokens;
    h->hello.sequences_max = (uint32_t)id->config->sequences_max;
    h->hello.price = id->config->price;
    add_labels(h, &id->config->labels);
}

void attachment_opened(struct attachment *a, const struct rpc_event *ev, uint64_t now_ms)
{
    /* Wall time grows over restarts, the counter when the clock stands still or is set back. */
    uint64_t epoch = clock_wall_ns();
    a->epoch = epoch > a->epoch ? epoch : a->epoch + 1;
    a->state = ATTACHMENT_ATTACHED;
    a->stream = ev->stream;
    a->attached_at_ms = now_ms;
    a->welcomed = false;
    a->welcome_by_ms = now_ms + ATTACHMENT_WELCOME_MS;
    a->load_at_ms = 0;
    a->cache_offer = 0;
    a->cache_cursor = 0;
    a->cache_told = false;
    struct hello *h = calloc(1, sizeof(*h));
    if (!h) {
        rpc_client_close(a->client, a->stream);
        return;
    }
    fill_hello(h, a);
    attachment_send(a, &h->frame);
    free(h);
    log_info("attached", "router=%s peer=%s epoch=%llu", a->address, ev->peer,
             (unsigned long long)a->epoch);
}

void attachment_welcome(struct attachment *a, const Argosy__Welcome *w)
{
    a->welcome_by_ms = UINT64_MAX;
    if (w->refused[0]) {
        log_warn("refused by the router", "router=%s why=%s", a->address, w->refused);
        rpc_client_close(a->client, a->stream);
        return;
    }
    a->welcomed = true;
    uint64_t most = (uint64_t)a->identity->config->heartbeat_ms;
    uint64_t third = w->lease_ms / 3;
    a->heartbeat_ms = w->lease_ms == 0 || third >= most ? most : third ? third : 1;
    log_debug("welcome", "router=%s lease_ms=%u", a->address, w->lease_ms);
}

/* Full jitter over an exponential: workers that lost a router together do not come back together.
 */
static uint64_t backoff_ms(struct attachment *a)
{
    const struct worker_config *c = a->identity->config;
    uint64_t low = (uint64_t)c->backoff_min_ms, high = (uint64_t)c->backoff_max_ms, top = low;
    for (uint32_t i = 0; i < a->failures && top < high; i++)
        top *= 2;
    top = top < high ? top : high;
    return low + rng_below(&a->rng, top - low + 1);
}

void attachment_closed(struct attachment *a, const struct rpc_event *ev, uint64_t now_ms)
{
    bool was_attached = a->state == ATTACHMENT_ATTACHED;
    /* A router that takes workers only to drop them is not dialled at full speed. */
    if (was_attached && a->welcomed &&
        now_ms - a->attached_at_ms >= (uint64_t)a->identity->config->backoff_max_ms)
        a->failures = 0;
    a->failures += a->failures < 32;
    a->state = ATTACHMENT_WAITING;
    pulse_end(&a->pulse);
    a->dial_at_ms = now_ms + backoff_ms(a);
    enum log_level level = ev->why.code == ERR_OK             ? LOG_LEVEL_INFO
                           : was_attached || a->failures == 1 ? LOG_LEVEL_WARN
                                                              : LOG_LEVEL_DEBUG;
    log_write(level, was_attached ? "detached" : "router not reached", "router=%s why=\"%s\"",
              a->address, ev->why.msg);
}

/* ---- load --------------------------------------------------------------------------------------
 */

static void send_load(struct attachment *a, const struct load_report *load, uint64_t steps,
                      uint64_t now_ms)
{
    Argosy__Load m = ARGOSY__LOAD__INIT;
    Argosy__ModelLoad models[WORKER_MODELS_MAX], *list[WORKER_MODELS_MAX];
    struct err e;
    m.running = load->running;
    m.waiting = load->waiting;
    m.kv_pages_used = load->kv_pages_used;
    m.steps = steps;
    m.draining = load->draining;
    m.models = list;
    m.n_models = a->identity->roster->n;
    for (size_t i = 0; i < m.n_models; i++) {
        argosy__model_load__init(&models[i]);
        models[i].state = (Argosy__ModelState)load->models[i].state;
        models[i].running = load->models[i].running;
        models[i].waiting = load->models[i].waiting;
        models[i].kv_pages_used = load->models[i].kv_pages_used;
        models[i].kv_pages = load->models[i].kv_pages;
        models[i].kv_host_pages = load->models[i].kv_host_pages;
        models[i].kv_host_bytes_used = load->models[i].kv_host_bytes_used;
        models[i].kv_pages_out = load->models[i].kv_pages_out;
        models[i].kv_pages_in = load->models[i].kv_pages_in;
        list[i] = &models[i];
    }
    if (pulse_send(&a->pulse, a->stream, &m, a->heartbeat_ms, now_ms, &e) < 0)
        log_debug("frame lost", "router=%s why=%s", a->address, e.msg);
    a->load = *load;
    a->load_at_ms = now_ms;
}

static bool load_changed(const struct attachment *a, const struct load_report *load)
{
    return a->load.running != load->running || a->load.waiting != load->waiting ||
           a->load.kv_pages_used != load->kv_pages_used || a->load.draining != load->draining ||
           memcmp(a->load.models, load->models, sizeof(load->models)) != 0;
}

static bool states_changed(const struct attachment *a, const struct load_report *load)
{
    for (uint32_t i = 0; i < a->identity->roster->n; i++)
        if (a->load.models[i].state != load->models[i].state)
            return true;
    return false;
}

static uint64_t tick_load(struct attachment *a, const struct load_report *load, uint64_t steps,
                          uint64_t now_ms)
{
    bool changed = load_changed(a, load);
    uint64_t due = a->load_at_ms + (changed ? LOAD_GAP_MS : a->heartbeat_ms);
    /* What the router must not miss by a moment: it would send more. */
    if (load->draining != a->load.draining || a->load_at_ms == 0 || states_changed(a, load))
        due = now_ms;
    if (due > now_ms)
        return due;
    send_load(a, load, steps, now_ms);
    return now_ms + a->heartbeat_ms;
}

/* Of one that is attached. */
static uint64_t tick_welcome(struct attachment *a, uint64_t now_ms)
{
    if (now_ms < a->welcome_by_ms)
        return a->welcome_by_ms;
    log_warn("no Welcome: does the router speak our protocol?",
             "router=%s waited_ms=%u protocol=%u", a->address, ATTACHMENT_WELCOME_MS,
             RPC_PROTOCOL_VERSION);
    a->welcome_by_ms = UINT64_MAX;
    rpc_client_close(a->client, a->stream);
    return UINT64_MAX;
}

uint64_t attachment_tick(struct attachment *a, const struct load_report *load, uint64_t steps,
                         uint64_t now_ms)
{
    struct err e;
    if (a->state == ATTACHMENT_ATTACHED) {
        uint64_t next = tick_load(a, load, steps, now_ms), welcome = tick_welcome(a, now_ms);
        return next < welcome ? next : welcome;
    }
    if (a->state == ATTACHMENT_DIALLING || load->draining)
        return UINT64_MAX;
    if (a->dial_at_ms > now_ms)
        return a->dial_at_ms;
    if (rpc_client_dial(a->client, &e) < 0) {
        log_warn("cannot dial", "router=%s why=%s", a->address, e.msg);
        a->dial_at_ms = now_ms + backoff_ms(a);
        return a->dial_at_ms;
    }
    a->state = ATTACHMENT_DIALLING;
    return UINT64_MAX;
}

void attachment_refuse(struct attachment *a, uint64_t request, Argosy__RefusedReason reason,
                       const char *detail, uint32_t retry_after_ms)
{
    Argosy__Refused m = ARGOSY__REFUSED__INIT;
    Argosy__FromWorker f = ARGOSY__FROM_WORKER__INIT;
    m.request = request;
    m.reason = reason;
    m.detail = (char *)detail;
    m.retry_after_ms = retry_after_ms;
    f.frame_case = ARGOSY__FROM_WORKER__FRAME_REFUSED;
    f.refused = &m;
    attachment_send(a, &f);
}
