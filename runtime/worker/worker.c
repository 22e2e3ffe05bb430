#include "runtime/worker/worker.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "runtime/worker/attachment.h"
#include "runtime/worker/cachefeed.h"
#include "runtime/worker/heartbeat.h"
#include "runtime/worker/reception.h"
#include "runtime/worker/report.h"
#include "runtime/worker/roster.h"

/* Frames that wait for this thread; beyond it routers feel flow control. */
#define MAIL_MAX 4096
/* How long the streams may take to end, after the last request. */
#define FAREWELL_MS 1000

struct worker {
    const struct worker_config *config;
    struct mailbox mailbox;
    struct roster roster;
    struct reception reception;
    struct identity identity;
    struct attachment *attachments; /* (n_attachments) */
    size_t n_attachments;
    struct heartbeat *heartbeat;
    struct cachefeed cachefeed;
    atomic_bool drain;    /* asked for */
    bool draining;        /* under way */
    uint64_t drain_by_ms; /* then what still runs is given up */
    uint64_t steps;
};

/* ---- what the roster tells ---------------------------------------------------------------------
 */

static void on_opener(void *ctx)
{
    struct worker *w = ctx;
    mailbox_wake(&w->mailbox);
}

static void on_loaded(void *ctx, struct offer *o)
{
    struct worker *w = ctx;
    reception_loaded(&w->reception, o);
}

static void on_leaves(void *ctx, struct offer *o)
{
    struct worker *w = ctx;
    cachefeed_leaves(&w->cachefeed, o, w->attachments, w->n_attachments);
    reception_leaves(&w->reception, o);
}

/* ---- open and free -----------------------------------------------------------------------------
 */

static void fill_identity(struct worker *w)
{
    struct identity *id = &w->identity;
    if (w->config->id) {
        snprintf(id->id, sizeof(id->id), "%s", w->config->id);
    } else {
        uint64_t r;
        rng_entropy(&r, sizeof(r));
        snprintf(id->id, sizeof(id->id), "w-%016llx", (unsigned long long)r);
    }
    device_probe(w->config->device, (uint32_t)w->config->tp, &id->device);
    id->roster = &w->roster;
    id->config = w->config;
}

static int open_attachments(struct worker *w, struct err *e)
{
    const struct config_list *routers = &w->config->routers;
    w->attachments = calloc(routers->n, sizeof(*w->attachments));
    if (!w->attachments)
        return err_set(e, ERR_NOMEM, "no memory for %zu routers", routers->n);
    if (heartbeat_create(&w->heartbeat, e) < 0)
        return e->code;
    for (size_t i = 0; i < routers->n; i++) {
        int rc =
            attachment_init(&w->attachments[i], routers->items[i], &w->identity, &w->mailbox, e);
        if (rc < 0)
            return rc;
        heartbeat_add(w->heartbeat, &w->attachments[i].pulse);
        w->n_attachments++;
    }
    return heartbeat_start(w->heartbeat, e);
}

static void say_hello(const struct worker *w)
{
    for (uint32_t i = 0; i < w->roster.n; i++) {
        const struct offer *o = &w->roster.offers[i];
        log_info("worker", "id=%s model=%s manifest=%.16s pages=%u bytes=%llu routers=%zu",
                 w->identity.id, o->name, o->outline.manifest_sha256, o->outline.kv_pages,
                 (unsigned long long)o->memory_bytes, w->n_attachments);
    }
}

static int open_all(struct worker *w, struct err *e)
{
    const struct roster_events events = {on_opener, on_loaded, on_leaves, w};
    reception_init(&w->reception, &w->roster, &w->mailbox, w->config);
    int rc = cachefeed_init(&w->cachefeed, &w->roster, e);
    if (rc == 0)
        rc = roster_init(&w->roster, w->config, &events, e);
    if (rc == 0) {
        fill_identity(w);
        rc = open_attachments(w, e);
    }
    return rc;
}

int worker_open(const struct worker_config *config, struct worker **out, struct err *e)
{
    struct worker *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(e, ERR_NOMEM, "no memory for a worker");
    w->config = config;
    int rc = mailbox_init(&w->mailbox, MAIL_MAX, e);
    if (rc < 0) {
        free(w);
        return rc;
    }
    rc = open_all(w, e);
    if (rc < 0) {
        worker_free(w);
        return rc;
    }
    say_hello(w);
    *out = w;
    return 0;
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    heartbeat_free(w->heartbeat);
    for (size_t i = 0; i < w->n_attachments; i++)
        attachment_release(&w->attachments[i]);
    w->n_attachments = 0;
    for (struct mail *m = mailbox_take(&w->mailbox), *next; m; m = next) {
        next = m->next;
        rpc_event_free((struct rpc_event *)m);
    }
    reception_release(&w->reception);
    roster_release(&w->roster);
    cachefeed_release(&w->cachefeed);
    mailbox_release(&w->mailbox);
    free(w->attachments);
    free(w);
}

bool worker_loads(const struct worker *w)
{
    return roster_busy(&w->roster);
}

void worker_drain(struct worker *w)
{
    atomic_store(&w->drain, true);
    mailbox_wake(&w->mailbox);
}

/* ---- what routers say --------------------------------------------------------------------------
 */

/* True: the event is kept. */
static bool on_frame(struct worker *w, struct attachment *a, struct rpc_event *ev)
{
    const Argosy__ToWorker *f = ev->to_worker;
    switch (f->frame_case) {
    case ARGOSY__TO_WORKER__FRAME_WELCOME:
        attachment_welcome(a, f->welcome);
        break;
    case ARGOSY__TO_WORKER__FRAME_START:
        return reception_start(&w->reception, a, ev);
    case ARGOSY__TO_WORKER__FRAME_CANCEL:
        reception_cancel(&w->reception, a, f->cancel->request);
        break;
    case ARGOSY__TO_WORKER__FRAME_DRAIN:
        log_info("a router asks to drain", "router=%s why=%s", a->address, f->drain->why);
        atomic_store(&w->drain, true);
        break;
    default:
        break;
    }
    return false;
}

static void on_event(struct worker *w, struct rpc_event *ev)
{
    struct attachment *a = ev->owner;
    switch (ev->kind) {
    case RPC_OPENED:
        attachment_opened(a, ev, clock_mono_ms());
        break;
    case RPC_FRAME:
        if (a->state == ATTACHMENT_ATTACHED && on_frame(w, a, ev))
            return;
        break;
    case RPC_CLOSED:
        /* The router starts them elsewhere; what we would say about them has no way back. */
        reception_forget(&w->reception, a);
        attachment_closed(a, ev, clock_mono_ms());
        break;
    }
    rpc_event_free(ev);
}

static void take_mail(struct worker *w)
{
    for (struct mail *m = mailbox_take(&w->mailbox), *next; m; m = next) {
        next = m->next;
        on_event(w, (struct rpc_event *)m);
    }
}

/* ---- the loop ----------------------------------------------------------------------------------
 */

static void begin_drain(struct worker *w)
{
    w->draining = true;
    w->drain_by_ms = clock_mono_ms() + (uint64_t)w->config->drain_timeout_ms;
    log_info("draining", "requests=%u timeout_ms=%lld", reception_requests(&w->reception),
             (long long)w->config->drain_timeout_ms);
    reception_drain(&w->reception);
}

static struct load_report report_load(const struct worker *w)
{
    struct load_report all = {.draining = w->draining};
    for (uint32_t i = 0; i < w->roster.n; i++) {
        const struct offer *o = &w->roster.offers[i];
        struct model_report *m = &all.models[i];
        m->state = attachment_state_of(o);
        m->waiting = reception_waiting(&w->reception, o);
        if (o->state == OFFER_LOADED) {
            struct engine_load load = engine_load(o->engine);
            const struct engine_info *info = engine_info(o->engine);
            m->running = load.running;
            m->waiting += load.waiting;
            m->kv_pages_used = load.kv_pages_used;
            m->kv_pages = info->kv_pages;
            m->kv_host_pages = info->kv_host_pages;
            m->kv_host_bytes_used = load.kv_host_bytes_used;
            m->kv_pages_out = load.kv_pages_out;
            m->kv_pages_in = load.kv_pages_in;
        }
        all.running += m->running;
        all.waiting += m->waiting;
        all.kv_pages_used += m->kv_pages_used;
    }
    return all;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Returns when there is more to tell. */
static uint64_t tell_load(struct worker *w, uint64_t now_ms)
{
    uint64_t next = UINT64_MAX;
    struct load_report load = report_load(w);
    for (size_t i = 0; i < w->n_attachments; i++)
        next = least(next, attachment_tick(&w->attachments[i], &load, w->steps, now_ms));
    return next;
}

/* Models come and go, and requests that waited for them start. */
static uint64_t tick_models(struct worker *w, uint64_t now_ms)
{
    /* A model that is gone is told of before its Starts are refused, or they would come again. */
    if (roster_poll(&w->roster, now_ms))
        tell_load(w, now_ms);
    /* What waited for a model starts there before anybody else may push it out again. */
    reception_tick(&w->reception, now_ms);
    struct offer *wanted = w->draining ? NULL : reception_wanted(&w->reception);
    uint64_t next = roster_tick(&w->roster, wanted, now_ms);
    return least(next, reception_tick(&w->reception, now_ms));
}

/* Models, load reports, news of the cache and dials that are due. Returns when the next one is. */
static uint64_t tick(struct worker *w)
{
    uint64_t now = clock_mono_ms();
    uint64_t next = tick_models(w, now);
    next = least(next, cachefeed_tick(&w->cachefeed, w->attachments, w->n_attachments, now));
    return least(next, tell_load(w, now));
}

static void step(struct worker *w, struct offer *o)
{
    struct engine_step s = {0};
    struct err e;
    uint64_t begin_ns = clock_mono_ns();
    bool busy = engine_step(o->engine, &s);
    uint64_t end_ns = clock_mono_ns();
    roster_stepped(&w->roster, o, end_ns - begin_ns, busy, end_ns / 1000000);
    w->steps++;
    cachefeed_stepped(&w->cachefeed);
    for (size_t i = 0; s.n_deltas && i < w->n_attachments; i++) {
        struct attachment *a = &w->attachments[i];
        if (report_step(a, &o->jobs, &s, w->steps, &e) < 0) {
            /* Tokens are missing from the stream: the router has to start these again. */
            log_error("a step is lost", "router=%s why=%s", a->address, e.msg);
            rpc_client_close(a->client, a->stream);
        }
    }
    report_retire(&o->jobs, &s);
}

static bool drained(const struct worker *w)
{
    return w->draining &&
           (reception_requests(&w->reception) == 0 || clock_mono_ms() >= w->drain_by_ms);
}

static void wait_until(struct worker *w, uint64_t when_ms)
{
    uint64_t now = clock_mono_ms();
    uint64_t wait = when_ms > now ? when_ms - now : 0;
    mailbox_wait(&w->mailbox, wait > 60000 ? 60000 : (int)wait);
}

/* What is queued goes out before the streams end. */
static void farewell(struct worker *w)
{
    uint64_t until = clock_mono_ms() + FAREWELL_MS;
    uint32_t left = reception_requests(&w->reception);
    if (w->draining && left)
        log_warn("drain timeout", "given_up=%u", left);
    reception_forget(&w->reception, NULL);
    for (size_t i = 0; i < w->n_attachments; i++)
        if (w->attachments[i].state == ATTACHMENT_ATTACHED)
            rpc_client_close(w->attachments[i].client, w->attachments[i].stream);
    for (;;) {
        bool open = false;
        for (size_t i = 0; i < w->n_attachments; i++)
            open |= w->attachments[i].state == ATTACHMENT_ATTACHED;
        if (!open || clock_mono_ms() >= until)
            return;
        wait_until(w, until);
        take_mail(w);
    }
}

/* A model that lost a rank can be loaded again, where others are served meanwhile. */
static int check_models(struct worker *w, struct err *e)
{
    for (uint32_t i = 0; i < w->roster.n; i++) {
        struct offer *o = &w->roster.offers[i];
        int rc = o->state == OFFER_LOADED ? engine_check(o->engine, e) : 0;
        if (rc < 0 && w->roster.n == 1)
            return rc;
        if (rc < 0)
            reception_lost(&w->reception, o, e->msg);
    }
    return roster_empty(&w->roster) ? err_set(e, ERR_PEER, "no model is left to serve") : 0;
}

static void say_drained(const struct worker *w)
{
    uint64_t drafted = 0, right = 0;
    for (uint32_t i = 0; i < w->roster.n; i++) {
        const struct offer *o = &w->roster.offers[i];
        if (o->state != OFFER_LOADED)
            continue;
        struct engine_load load = engine_load(o->engine);
        drafted += load.drafted;
        right += load.drafts_right;
    }
    log_info("drained", "steps=%llu drafted=%llu drafts_right=%llu", (unsigned long long)w->steps,
             (unsigned long long)drafted, (unsigned long long)right);
}

int worker_run(struct worker *w, struct err *e)
{
    while (!drained(w)) {
        int rc = check_models(w, e);
        if (rc < 0) {
            farewell(w);
            return rc;
        }
        take_mail(w);
        if (!w->draining && atomic_load(&w->drain))
            begin_drain(w);
        uint64_t next = tick(w);
        if (drained(w))
            break;
        if (w->draining && w->drain_by_ms < next)
            next = w->drain_by_ms;
        struct offer *o = roster_next(&w->roster);
        if (o)
            step(w, o);
        else
            wait_until(w, next);
    }
    farewell(w);
    say_drained(w);
    return 0;
}
