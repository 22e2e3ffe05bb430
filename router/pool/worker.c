/* worker.c: the life of an attachment.
 *
 *   opened ──Hello──► attached ──Load.draining──► draining ──drain_ms──► its generations move
 *      │ no Hello in     │ silent past its lease, protocol broken,            │
 *      ▼ a lease         ▼ a newer attachment of the same worker              ▼
 *   closed            removed: each generation goes on elsewhere          closed by the worker
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/pool/pool_internal.h"
#include "runtime/base/buf.h"
#include "runtime/base/fnv.h"
#include "runtime/base/log.h"
#include "runtime/rpc/rpc.h"

#define SEQUENCES_MAX 65536
/* A crowd that comes back all at once takes longer than a lease to say who they are. */
#define HELLO_MS 10000
/* Of so many workers a third silent at once: this router or its network is behind, for a process
 * that ends closes its stream. They get so many leases. */
#define CROWD_MIN 16
#define CROWD_LEASES 4

static struct worker **bucket_of(const struct pool *p, uint64_t stream)
{
    return &p->buckets[(stream * 0x9e3779b97f4a7c15u >> 32) & (p->n_buckets - 1)];
}

struct worker *worker_find(const struct pool *p, uint64_t stream)
{
    struct worker *w = *bucket_of(p, stream);
    while (w && w->stream != stream)
        w = w->next_in_bucket;
    return w;
}

static uint64_t lease_end_ms(const struct pool *p, const struct worker *w)
{
    uint32_t ms = p->config.lease_ms;
    return w->heard_ms + (!w->attached && ms < HELLO_MS ? HELLO_MS : ms);
}

void worker_open(struct pool *p, uint64_t stream, const char *peer)
{
    struct worker *w = NULL;
    if (p->n_workers < p->config.workers_max)
        w = calloc(1, sizeof(*w));
    if (!w) {
        log_warn("worker turned away", "peer=%s why=\"the pool is full\" workers=%u", peer,
                 p->n_workers);
        p->link.close(p->link.ctx, stream);
        return;
    }
    w->stream = stream;
    w->heard_ms = pool_now_ms(p);
    snprintf(w->peer, sizeof(w->peer), "%s", peer);
    w->due.kind = DUE_WORKER;
    dueheap_set(&p->due, &w->due, lease_end_ms(p, w));
    w->place = p->n_workers;
    p->workers[p->n_workers++] = w;
    struct worker **b = bucket_of(p, stream);
    w->next_in_bucket = *b;
    *b = w;
}

void worker_free(struct worker *w)
{
    for (uint32_t i = 0; i < w->view.n_labels; i++) {
        free((char *)w->labels[i].key);
        free((char *)w->labels[i].value);
    }
    free(w->labels);
    free(w->offers);
    free(w->model_names);
    free(w);
}

void worker_remove(struct pool *p, struct worker *w, bool close, const char *why)
{
    struct worker **at = bucket_of(p, w->stream);
    while (*at != w)
        at = &(*at)->next_in_bucket;
    *at = w->next_in_bucket;
    p->workers[w->place] = p->workers[--p->n_workers];
    p->workers[w->place]->place = w->place;
    dueheap_remove(&p->due, &w->due);
    blocks_leave(p, w);
    w->unreachable = true;
    if (close)
        p->link.close(p->link.ctx, w->stream);
    if (w->attached)
        log_info("worker left", "id=%s epoch=%llu moved=%u why=\"%s\"", w->id,
                 (unsigned long long)w->epoch, w->gens.n, why);
    if (w->gens.n > 0 && !w->draining)
        worker_fault(p, w, why);
    /* It is out of the table: neither a pick nor a callback can put a generation on it. */
    while (w->gens.head)
        gen_move(w->gens.head, !w->draining, false);
    if (w->breaker)
        breakers_left(w->breaker, pool_now_ms(p));
    worker_free(w);
}

void worker_fault(struct pool *p, struct worker *w, const char *what)
{
    uint64_t now_ms = pool_now_ms(p);
    if (!breaker_fault(w->breaker, now_ms))
        return;
    p->opened++;
    log_warn("worker is not trusted", "id=%s for_ms=%llu why=\"%s\"", w->id,
             (unsigned long long)(w->breaker->until_ms - now_ms), what);
}

int worker_send(struct pool *p, struct worker *w, const Argosy__ToWorker *frame, struct err *e)
{
    int rc = p->link.send(p->link.ctx, w->stream, frame, e);
    if (rc == 0 || w->unreachable)
        return rc;
    if (rc == ERR_NOMEM || protobuf_c_message_get_packed_size(&frame->base) > RPC_FRAME_BYTES_MAX)
        return rc;
    /* Its RPC_CLOSED will move what runs there; until then nothing new goes to it. */
    w->unreachable = true;
    p->link.close(p->link.ctx, w->stream);
    return rc;
}

void worker_refresh(const struct pool *p, struct worker *w, uint64_t now_ms)
{
    if (w->draining)
        w->view.state = POLICY_DRAINING;
    else
        w->view.state =
            now_ms - w->heard_ms > p->config.lease_ms / 2 ? POLICY_SUSPECT : POLICY_READY;
}

static const struct worker_offer *find_offer(const struct worker *w, uint32_t model)
{
    for (uint32_t i = 0; i < w->n_offers; i++)
        if (w->offers[i].model == model)
            return &w->offers[i];
    return NULL;
}

const struct worker_offer *worker_offer_of(const struct worker *w, uint32_t model)
{
    const struct worker_offer *o = find_offer(w, model);
    return o && o->state != ARGOSY__MODEL_STATE__MODEL_GONE ? o : NULL;
}

/* NULL: there is none. */
static struct worker_offer *first_at(const struct worker *w, uint32_t place)
{
    for (uint32_t i = 0; i < w->n_offers; i++)
        if (w->offers[i].place == place)
            return &w->offers[i];
    return NULL;
}

const struct policy_rates *worker_rates(const struct worker *w, uint32_t model)
{
    const struct worker_offer *o = find_offer(w, model);
    return o ? &first_at(w, o->place)->measured : &w->measured;
}

void worker_show(struct worker *w, const struct worker_offer *o)
{
    w->view.rates = first_at(w, o->place)->measured;
    w->view.loaded = o->state == ARGOSY__MODEL_STATE__MODEL_LOADED;
    w->view.kv_pages = o->kv_pages;
    w->view.kv_pages_used = o->kv_pages_used;
    w->view.page_tokens = o->page_tokens;
}

/* ---- Hello ---------------------------------------------------------------------------------- */

/* Ids stand in Redis keys, metrics, headers and logs. */
static bool id_is_plain(const char *id)
{
    size_t n = strlen(id);
    if (n == 0 || n >= WORKER_ID_BYTES)
        return false;
    return strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static int check_hello(const Argosy__Hello *h, struct err *e)
{
    if (h->protocol != RPC_PROTOCOL_VERSION)
        return err_set(e, ERR_UNSUPPORTED, "protocol %u is spoken here, not %u",
                       RPC_PROTOCOL_VERSION, h->protocol);
    if (!id_is_plain(h->worker_id))
        return err_set(e, ERR_FORMAT, "the worker id is not 1 to %d letters, digits, '.', '_', '-'",
                       WORKER_ID_BYTES - 1);
    if (h->sequences_max == 0 || h->sequences_max > SEQUENCES_MAX)
        return err_set(e, ERR_RANGE, "sequences_max %u is not in [1, %d]", h->sequences_max,
                       SEQUENCES_MAX);
    if (h->kv_pages == 0 || h->page_tokens == 0)
        return err_set(e, ERR_RANGE, "no KV pages are offered");
    if (h->n_models == 0 || h->n_models > WORKER_MODELS_MAX)
        return err_set(e, ERR_RANGE, "%zu models are offered, not 1 to %d", h->n_models,
                       WORKER_MODELS_MAX);
    if (h->n_labels > WORKER_LABELS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d labels", WORKER_LABELS_MAX);
    for (size_t i = 0; i < h->n_labels; i++)
        if (strlen(h->labels[i]->key) > WORKER_LABEL_BYTES_MAX ||
            strlen(h->labels[i]->value) > WORKER_LABEL_BYTES_MAX)
            return err_set(e, ERR_LIMIT, "a label is longer than %d bytes", WORKER_LABEL_BYTES_MAX);
    if (!(h->price >= 0 && h->price < 1e12))
        return err_set(e, ERR_RANGE, "the price is not a sane number");
    return 0;
}

static bool has_adapter(const Argosy__ModelOffer *o, const char *sha256)
{
    for (size_t i = 0; i < o->n_adapters; i++)
        if (strcasecmp(o->adapters[i]->sha256, sha256) == 0)
            return true;
    return false;
}

static void add_offer(struct worker *w, const Argosy__Hello *h, uint32_t place, uint32_t model)
{
    const Argosy__ModelOffer *o = h->models[place];
    w->offers[w->n_offers++] =
        (struct worker_offer){.model = model,
                              .place = place,
                              .context_tokens = o->context_tokens,
                              .state = o->state,
                              .kv_pages = o->kv_pages ? o->kv_pages : h->kv_pages,
                              .page_tokens = o->page_tokens ? o->page_tokens : h->page_tokens};
}

/* The model's adapters that both have. */
static void take_adapters(const struct pool *p, struct worker *w, const Argosy__Hello *h,
                          uint32_t place, size_t model, struct buf *names)
{
    const Argosy__ModelOffer *o = h->models[place];
    for (size_t i = 0; i < p->n_models; i++) {
        const struct pool_model *m = &p->models[i];
        if (!m->adapter_sha256[0] || m->base != model || !has_adapter(o, m->adapter_sha256))
            continue;
        add_offer(w, h, place, (uint32_t)i);
        buf_addf(names, ",%s", m->name);
    }
}

static int take_offers(const struct pool *p, struct worker *w, const Argosy__Hello *h,
                       struct err *e)
{
    struct buf names;
    int rc = 0;
    buf_init(&names, 0);
    w->offers = calloc(p->n_models + 1, sizeof(*w->offers)); /* each of ours once at most */
    if (!w->offers)
        return err_set(e, ERR_NOMEM, "no memory for the worker's models");
    for (uint32_t i = 0; i < h->n_models; i++) {
        const Argosy__ModelOffer *o = h->models[i];
        int m = pool_model_index(p, o->name);
        if (m < 0 || p->models[m].adapter_sha256[0] || find_offer(w, (uint32_t)m))
            continue;
        if (strcasecmp(o->manifest_sha256, p->models[m].manifest_sha256) != 0) {
            rc = err_set(e, ERR_PEER,
                         "model %.64s: the worker's manifest is %.64s, the router's is %s", o->name,
                         o->manifest_sha256, p->models[m].manifest_sha256);
            log_warn("model not taken from a worker", "id=\"%.63s\" why=\"%s\"", w->id, e->msg);
            continue; /* its others may be the same here and there */
        }
        add_offer(w, h, i, (uint32_t)m);
        buf_addf(&names, "%s%s", names.len ? "," : "", p->models[m].name);
        take_adapters(p, w, h, i, (size_t)m, &names);
    }
    if (w->n_offers > 0)
        rc = 0;
    else if (rc == 0)
        rc = err_set(e, ERR_PEER, "none of its models is served here (the first is %.64s)",
                     h->models[0]->name);
    if (rc == 0 && !(w->model_names = buf_detach(&names)))
        rc = err_set(e, ERR_NOMEM, "no memory for the worker's models");
    buf_release(&names);
    return rc;
}

static int take_labels(struct worker *w, const Argosy__Hello *h, struct err *e)
{
    if (h->n_labels == 0)
        return 0;
    w->labels = calloc(h->n_labels, sizeof(*w->labels));
    if (!w->labels)
        return err_set(e, ERR_NOMEM, "no memory for the worker's labels");
    w->view.labels = w->labels;
    for (size_t i = 0; i < h->n_labels; i++) {
        w->labels[i].key = strdup(h->labels[i]->key);
        w->labels[i].value = strdup(h->labels[i]->value);
        w->view.n_labels++;
        if (!w->labels[i].key || !w->labels[i].value)
            return err_set(e, ERR_NOMEM, "no memory for the worker's labels");
    }
    return 0;
}

static int welcome(struct pool *p, struct worker *w, const char *refused)
{
    Argosy__Welcome body = ARGOSY__WELCOME__INIT;
    Argosy__ToWorker frame = ARGOSY__TO_WORKER__INIT;
    body.lease_ms = p->config.lease_ms;
    body.n_routers = refused ? 0 : p->n_routers;
    body.routers = p->routers;
    if (refused)
        body.refused = (char *)refused;
    frame.frame_case = ARGOSY__TO_WORKER__FRAME_WELCOME;
    frame.welcome = &body;
    return p->link.send(p->link.ctx, w->stream, &frame, NULL);
}

static void refuse(struct pool *p, struct worker *w, const char *why)
{
    log_warn("worker refused", "id=\"%.63s\" peer=%s why=\"%s\"", w->id, w->peer, why);
    welcome(p, w, why);
    worker_remove(p, w, true, why);
}

static struct worker *find_attached(const struct pool *p, const char *id)
{
    for (uint32_t i = 0; i < p->n_workers; i++)
        if (p->workers[i]->attached && strcmp(p->workers[i]->id, id) == 0)
            return p->workers[i];
    return NULL;
}

static uint32_t clamp_u32(uint64_t n)
{
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static void describe(struct pool *p, struct worker *w, const Argosy__Hello *h)
{
    uint64_t inflight_max = (uint64_t)h->sequences_max + p->config.worker_queue_max;
    w->epoch = h->epoch;
    w->view.key = fnv1a(FNV_SEED, h->worker_id, strlen(h->worker_id));
    w->view.sequences_max = h->sequences_max;
    w->view.inflight_max = inflight_max < UINT32_MAX ? (uint32_t)inflight_max : UINT32_MAX;
    w->kv_pages = h->kv_pages;
    for (size_t i = 0; i < h->n_models; i++)
        if (h->models[i]->state == ARGOSY__MODEL_STATE__MODEL_LOADED)
            w->kv_host_pages = clamp_u32((uint64_t)w->kv_host_pages + h->models[i]->kv_host_pages);
    w->view.price = h->price;
    snprintf(w->device_kind, sizeof(w->device_kind), "%s", h->device ? h->device->kind : "");
    snprintf(w->device_name, sizeof(w->device_name), "%s", h->device ? h->device->name : "");
    w->view.device_kind = w->device_kind;
}

static void take_hello(struct pool *p, struct worker *w, const Argosy__Hello *h)
{
    struct err why = {0};
    if (w->attached) {
        worker_remove(p, w, true, "it said Hello twice");
        return;
    }
    snprintf(w->id, sizeof(w->id), "%s", h->worker_id);
    if (check_hello(h, &why) < 0 || take_offers(p, w, h, &why) < 0 || take_labels(w, h, &why) < 0) {
        refuse(p, w, why.msg);
        return;
    }
    struct worker *older = find_attached(p, w->id);
    if (older && older->epoch >= h->epoch) {
        err_set(&why, ERR_PEER, "worker %s is attached with epoch %llu, this one has %llu", w->id,
                (unsigned long long)older->epoch, (unsigned long long)h->epoch);
        refuse(p, w, why.msg);
        return;
    }
    describe(p, w, h);
    w->attached_ms = pool_now_ms(p);
    if (welcome(p, w, NULL) < 0) {
        worker_remove(p, w, true, "its Welcome could not be sent");
        return;
    }
    /* Attached before the older one goes: what runs there may move here. */
    w->attached = true;
    dueheap_set(&p->due, &w->due, lease_end_ms(p, w));
    w->breaker = breakers_joined(&p->breakers, w->view.key, w->id);
    w->steps_ms = w->attached_ms;
    blocks_attach(p, w);
    gen_wake_waiting(p);
    log_info("worker joined", "id=%s epoch=%llu peer=%s device=\"%s\" models=%s kv_pages=%u", w->id,
             (unsigned long long)w->epoch, w->peer, w->device_name, w->model_names, h->kv_pages);
    if (older)
        worker_remove(p, older, true, "it attached anew");
}

/* ---- the other frames ----------------------------------------------------------------------- */

static void set_draining(struct pool *p, struct worker *w, bool draining)
{
    if (w->draining == draining)
        return;
    w->draining = draining;
    w->drained = false;
    w->draining_ms = pool_now_ms(p);
    if (draining) {
        uint64_t end_ms = w->draining_ms + p->config.drain_ms;
        if (end_ms < w->due.at_ms)
            dueheap_set(&p->due, &w->due, end_ms);
    } else {
        p->flush_wanted = true;
    }
    log_info(draining ? "worker drains" : "worker takes requests again", "id=%s running=%u", w->id,
             w->gens.n);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static void take_model_load(struct pool *p, const struct worker *w, struct worker_offer *o,
                            const Argosy__ModelLoad *l)
{
    if (o->state != l->state) {
        log_info(
            "worker's model", "id=%s model=%s state=%s", w->id, p->models[o->model].name,
            protobuf_c_enum_descriptor_get_value(&argosy__model_state__descriptor, l->state)->name);
        p->flush_wanted = true;
    }
    o->state = l->state;
    o->kv_pages = l->kv_pages ? l->kv_pages : o->kv_pages;
    o->kv_pages_used = least(l->kv_pages_used, o->kv_pages);
}

/* Of all models together. */
static void take_pages(struct worker *w, const Argosy__Load *l)
{
    uint64_t kv_pages = 0, kv_host_pages = 0;
    w->kv_host_bytes_used = w->kv_pages_out = w->kv_pages_in = 0;
    for (size_t i = 0; i < l->n_models; i++) {
        kv_pages += l->models[i]->kv_pages;
        kv_host_pages += l->models[i]->kv_host_pages;
        w->kv_host_bytes_used += l->models[i]->kv_host_bytes_used;
        w->kv_pages_out += l->models[i]->kv_pages_out;
        w->kv_pages_in += l->models[i]->kv_pages_in;
    }
    if (l->n_models > 0) {
        w->kv_pages = clamp_u32(kv_pages);
        w->kv_host_pages = clamp_u32(kv_host_pages);
    }
    w->kv_pages_used = least(l->kv_pages_used, w->kv_pages);
}

static void take_load(struct pool *p, struct worker *w, const Argosy__Load *l)
{
    policy_note_load(&w->view, l->running, l->waiting);
    for (uint32_t i = 0; i < w->n_offers; i++) {
        struct worker_offer *o = &w->offers[i];
        if (o->place < l->n_models)
            take_model_load(p, w, o, l->models[o->place]);
        else
            o->kv_pages_used = least(l->kv_pages_used, o->kv_pages);
    }
    take_pages(w, l);
    if (l->steps != w->steps) {
        w->steps = l->steps;
        w->steps_ms = w->heard_ms;
    }
    set_draining(p, w, l->draining);
}

static void take_refused(struct pool *p, struct worker *w, const Argosy__Refused *r)
{
    struct gen *g = gen_find(p, r->request);
    if (r->reason == ARGOSY__REFUSED_REASON__REFUSED_DRAINING)
        set_draining(p, w, true);
    if (g && g->worker == w)
        gen_refused(g, r);
}

/* A step is of one model, that of any of its generations. NULL: they are all gone, or of others. */
static struct worker_offer *offer_of_step(const struct pool *p, const struct worker *w,
                                          const Argosy__Step *s)
{
    for (size_t i = 0; i < s->n_deltas; i++) {
        const struct gen *g = gen_find(p, s->deltas[i]->request);
        const struct worker_offer *o = g && g->worker == w ? find_offer(w, g->model) : NULL;
        if (o)
            return first_at(w, o->place);
    }
    bool one_model = w->n_offers && w->offers[w->n_offers - 1].place == w->offers[0].place;
    return one_model ? &w->offers[0] : NULL;
}

static void take_step(struct pool *p, struct worker *w, const Argosy__Step *s)
{
    struct err why = {0};
    w->steps_ms = w->heard_ms;
    policy_note_prefill(&w->view, s->prefill_tokens);
    rates_add_step(&w->rates, s->duration_us, s->prefill_tokens, s->decode_tokens, &w->measured);
    struct worker_offer *o = offer_of_step(p, w, s);
    if (o)
        rates_add_step(&o->rates, s->duration_us, s->prefill_tokens, s->decode_tokens,
                       &o->measured);
    if (step_apply(p, w, s, &why) < 0) {
        log_warn("worker broke the protocol", "id=%s why=\"%s\"", w->id, why.msg);
        worker_remove(p, w, true, why.msg);
    }
}

void worker_frame(struct pool *p, struct worker *w, const Argosy__FromWorker *frame)
{
    bool was_suspect = w->view.state == POLICY_SUSPECT;
    w->heard_ms = pool_now_ms(p);
    if (was_suspect)
        p->flush_wanted = true;
    if (frame->frame_case == ARGOSY__FROM_WORKER__FRAME_HELLO) {
        take_hello(p, w, frame->hello);
        return;
    }
    if (!w->attached) {
        worker_remove(p, w, true, "its first frame was no Hello");
        return;
    }
    switch (frame->frame_case) {
    case ARGOSY__FROM_WORKER__FRAME_LOAD:
        take_load(p, w, frame->load);
        break;
    case ARGOSY__FROM_WORKER__FRAME_STEP:
        take_step(p, w, frame->step);
        break;
    case ARGOSY__FROM_WORKER__FRAME_REFUSED:
        take_refused(p, w, frame->refused);
        break;
    case ARGOSY__FROM_WORKER__FRAME_CACHE_EVENTS:
        blocks_events(p, w, frame->cache_events);
        break;
    default:
        /* Frames of a later version are ignored. */
        break;
    }
}

/* ---- time ----------------------------------------------------------------------------------- */

/* Draining took too long. Only generations that another worker can take now are moved. */
static void end_draining(struct pool *p, struct worker *w)
{
    uint32_t n = 0;
    struct gen *g = w->gens.head;
    w->drained = true;
    while (g) {
        if (pool_workers_ready(p, g->r->model) == 0) {
            g = g->next;
            continue;
        }
        gen_move(g, false, true);
        n++;
        /* From the start: a callback may have ended whatever was next. */
        g = w->gens.head;
    }
    if (n > 0)
        log_info("draining worker's generations moved", "id=%s moved=%u", w->id, n);
}

static bool crowd_is_silent(struct pool *p, uint64_t now_ms)
{
    if (p->crowd_seen_ms == now_ms)
        return p->crowd_silent;
    uint32_t all = 0;
    uint32_t silent = 0;
    for (uint32_t i = 0; i < p->n_workers; i++) {
        const struct worker *w = p->workers[i];
        all += w->attached;
        silent += w->attached && now_ms - w->heard_ms > p->config.lease_ms / 2;
    }
    p->crowd_seen_ms = now_ms;
    p->crowd_silent = all >= CROWD_MIN && silent > all / 3;
    return p->crowd_silent;
}

void worker_due(struct pool *p, struct worker *w, uint64_t now_ms)
{
    uint64_t end_of_lease_ms = lease_end_ms(p, w);
    if (w->attached && now_ms >= end_of_lease_ms &&
        now_ms < w->heard_ms + (uint64_t)CROWD_LEASES * p->config.lease_ms &&
        crowd_is_silent(p, now_ms))
        end_of_lease_ms = now_ms + p->config.lease_ms / 4 + 1; /* looked at again then */
    if (now_ms >= end_of_lease_ms) {
        log_warn("worker is silent", "id=\"%s\" peer=%s silent_ms=%llu", w->id, w->peer,
                 (unsigned long long)(now_ms - w->heard_ms));
        worker_remove(p, w, true, w->attached ? "its lease ran out" : "it never said Hello");
        return;
    }
    uint64_t next_ms = end_of_lease_ms;
    if (w->draining && !w->drained) {
        uint64_t end_ms = w->draining_ms + p->config.drain_ms;
        if (now_ms >= end_ms)
            end_draining(p, w);
        else if (end_ms < next_ms)
            next_ms = end_ms;
    }
    dueheap_set(&p->due, &w->due, next_ms);
}
