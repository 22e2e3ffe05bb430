#include "runtime/worker/worker.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/base/rng.h"
#include "runtime/grammar/grammar_store.h"
#include "runtime/worker/attachment.h"
#include "runtime/worker/cachefeed.h"
#include "runtime/worker/heartbeat.h"
#include "runtime/worker/intake.h"
#include "runtime/worker/jobs.h"
#include "runtime/worker/report.h"

/* Frames that wait for this thread; beyond it routers feel flow control. */
#define MAIL_MAX 4096
/* What a router should wait before it offers a refused request again. */
#define RETRY_AFTER_MS 200
/* How long the streams may take to end, after the last request. */
#define FAREWELL_MS 1000

struct worker {
    const struct worker_config *config;
    struct engine *engine;
    struct mailbox mailbox;
    struct identity identity;
    struct attachment *attachments; /* (n_attachments) */
    size_t n_attachments;
    struct heartbeat *heartbeat;
    struct jobs jobs;
    struct mail *parked; /* Starts whose grammar is being compiled: rpc_events */
    uint32_t n_parked;
    atomic_bool compiled; /* something was */
    struct cachefeed cachefeed;
    atomic_bool drain;    /* asked for */
    bool draining;        /* under way */
    uint64_t drain_by_ms; /* then what still runs is given up */
    bool busy;            /* the engine has something to do */
    uint64_t steps;
};

/* ---- Starts that wait for their grammar, in order -----------------------------------------------
 */

/* The link to it; to NULL where there is none. */
static struct mail **find_parked(struct worker *w, const struct attachment *a, uint64_t request)
{
    struct mail **at = &w->parked;
    for (; *at; at = &(*at)->next) {
        const struct rpc_event *ev = (const struct rpc_event *)*at;
        if (ev->owner == a && ev->to_worker->start->request == request)
            break;
    }
    return at;
}

static void park(struct worker *w, struct rpc_event *ev)
{
    struct mail **at = &w->parked;
    while (*at)
        at = &(*at)->next;
    ev->mail.next = NULL;
    *at = &ev->mail;
    w->n_parked++;
}

static void drop_parked(struct worker *w, struct mail **at)
{
    struct rpc_event *ev = (struct rpc_event *)*at;
    *at = ev->mail.next;
    w->n_parked--;
    rpc_event_free(ev);
}

/* a NULL: everybody's. */
static void drop_all_parked(struct worker *w, const struct attachment *a)
{
    for (struct mail **at = &w->parked; *at;) {
        if (!a || ((const struct rpc_event *)*at)->owner == a)
            drop_parked(w, at);
        else
            at = &(*at)->next;
    }
}

/* On the store's thread. */
static void on_compiled(void *ctx)
{
    struct worker *w = ctx;
    atomic_store(&w->compiled, true);
    mailbox_wake(&w->mailbox);
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
    worker_model_name(w->config, id->model, sizeof(id->model));
    device_probe(&id->device);
    id->engine = engine_info(w->engine);
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

int worker_open(const struct worker_config *config, struct engine *engine, struct worker **out,
                struct err *e)
{
    struct worker *w = calloc(1, sizeof(*w));
    if (!w)
        return err_set(e, ERR_NOMEM, "no memory for a worker");
    w->config = config;
    w->engine = engine;
    int rc = mailbox_init(&w->mailbox, MAIL_MAX, e);
    if (rc < 0) {
        free(w);
        return rc;
    }
    if (engine_grammars(engine))
        grammar_store_notify(engine_grammars(engine), on_compiled, w);
    fill_identity(w);
    rc = jobs_init(&w->jobs, (uint32_t)(config->sequences_max + config->waiting_max), e);
    if (rc == 0)
        rc = cachefeed_init(&w->cachefeed, engine, e);
    if (rc == 0)
        rc = open_attachments(w, e);
    if (rc < 0) {
        worker_free(w);
        return rc;
    }
    log_info("worker", "id=%s model=%s manifest=%.16s isa=%s pages=%u routers=%zu", w->identity.id,
             w->identity.model, w->identity.engine->manifest_sha256, w->identity.engine->isa,
             w->identity.engine->kv_pages, w->n_attachments);
    *out = w;
    return 0;
}

/* owner NULL: everybody's. */
static void cancel_all(struct worker *w, const struct attachment *owner)
{
    for (struct job *job = NULL; (job = jobs_next(&w->jobs, owner, job));) {
        engine_cancel(w->engine, jobs_engine_id(&w->jobs, job));
        jobs_remove(&w->jobs, job);
    }
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    heartbeat_free(w->heartbeat);
    for (size_t i = 0; i < w->n_attachments; i++)
        attachment_release(&w->attachments[i]);
    for (struct mail *m = mailbox_take(&w->mailbox), *next; m; m = next) {
        next = m->next;
        rpc_event_free((struct rpc_event *)m);
    }
    if (engine_grammars(w->engine))
        grammar_store_notify(engine_grammars(w->engine), NULL, NULL);
    drop_all_parked(w, NULL);
    cancel_all(w, NULL);
    jobs_release(&w->jobs);
    cachefeed_release(&w->cachefeed);
    mailbox_release(&w->mailbox);
    free(w->attachments);
    free(w);
}

void worker_drain(struct worker *w)
{
    atomic_store(&w->drain, true);
    mailbox_wake(&w->mailbox);
}

/* ---- what routers say --------------------------------------------------------------------------
 */

/* 0: it runs or waits. 1: its grammar is being compiled. */
static int submit(struct worker *w, struct attachment *a, const Argosy__Start *s, uint32_t adapter,
                  struct err *e)
{
    struct engine_request r;
    struct grammar_source grammar;
    int rc = intake_request(s, clock_mono_ms(), &r, &grammar, e);
    if (rc < 0)
        return rc;
    r.adapter = adapter;
    if (r.grammar && engine_grammars(w->engine)) {
        if (w->jobs.n + w->n_parked >= w->jobs.cap)
            return err_set(e, ERR_BUSY, "%u requests run and wait", w->jobs.n + w->n_parked);
        rc = grammar_store_ask(engine_grammars(w->engine), r.grammar, e);
        if (rc <= 0)
            return rc < 0 ? rc : 1;
    }
    struct job *job = jobs_add(&w->jobs, a, s->request, &r.id);
    if (!job)
        return err_set(e, ERR_BUSY, "%u requests run and wait", w->jobs.n);
    job->top_logprobs = r.sampling.n_top;
    log_debug("request", "request=%llu prompt_tokens=%u output_tokens=%u trace=%s",
              (unsigned long long)s->request, r.n_prompt, r.n_output,
              s->traceparent[0] ? s->traceparent : "-");
    rc = engine_submit(w->engine, &r, e);
    if (rc < 0)
        jobs_remove(&w->jobs, job);
    else
        w->busy = true;
    return rc;
}

/* True: the event is parked. */
static bool on_start(struct worker *w, struct attachment *a, struct rpc_event *ev)
{
    const Argosy__Start *s = ev->to_worker->start;
    struct err e;
    uint32_t adapter;
    int rc = 0;
    if (jobs_by_request(&w->jobs, a, s->request) || *find_parked(w, a, s->request)) {
        /* A Refused would be taken for the other one's: there is no way to go on. */
        log_error("a router used an id twice", "router=%s request=%llu", a->address,
                  (unsigned long long)s->request);
        rpc_client_close(a->client, a->stream);
    } else if (w->draining) {
        attachment_refuse(a, s->request, ARGOSY__REFUSED_REASON__REFUSED_DRAINING,
                          "this worker drains", 0);
    } else if (strcmp(s->model, w->identity.model) != 0) {
        attachment_refuse(a, s->request, ARGOSY__REFUSED_REASON__REFUSED_MODEL,
                          "the model is not served here", 0);
    } else if (!intake_adapter(engine_info(w->engine), s->adapter, &adapter)) {
        attachment_refuse(a, s->request, ARGOSY__REFUSED_REASON__REFUSED_MODEL,
                          "the adapter is not served here", 0);
    } else if ((rc = submit(w, a, s, adapter, &e)) < 0) {
        Argosy__RefusedReason reason = intake_reason(e.code);
        bool full = reason == ARGOSY__REFUSED_REASON__REFUSED_FULL;
        attachment_refuse(a, s->request, reason, e.msg, full ? RETRY_AFTER_MS : 0);
    }
    if (rc > 0)
        park(w, ev);
    return rc > 0;
}

static void unpark(struct worker *w)
{
    struct mail *m = w->parked;
    if (!m || !atomic_exchange(&w->compiled, false))
        return;
    w->parked = NULL;
    w->n_parked = 0;
    for (struct mail *next; m; m = next) {
        struct rpc_event *ev = (struct rpc_event *)m;
        next = m->next;
        if (!on_start(w, ev->owner, ev))
            rpc_event_free(ev);
    }
}

static void on_cancel(struct worker *w, struct attachment *a, uint64_t request)
{
    struct job *job = jobs_by_request(&w->jobs, a, request);
    struct mail **parked = find_parked(w, a, request);
    if (*parked)
        drop_parked(w, parked);
    if (!job)
        return; /* it ended while the word was under way */
    engine_cancel(w->engine, jobs_engine_id(&w->jobs, job));
    jobs_remove(&w->jobs, job);
}

/* True: the event is kept. */
static bool on_frame(struct worker *w, struct attachment *a, struct rpc_event *ev)
{
    const Argosy__ToWorker *f = ev->to_worker;
    switch (f->frame_case) {
    case ARGOSY__TO_WORKER__FRAME_WELCOME:
        attachment_welcome(a, f->welcome);
        break;
    case ARGOSY__TO_WORKER__FRAME_START:
        return on_start(w, a, ev);
    case ARGOSY__TO_WORKER__FRAME_CANCEL:
        on_cancel(w, a, f->cancel->request);
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
        cancel_all(w, a);
        drop_all_parked(w, a);
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
    log_info("draining", "requests=%u timeout_ms=%lld", w->jobs.n,
             (long long)w->config->drain_timeout_ms);
}

/* Load reports, news of the cache and dials that are due. Returns when the next one is. */
static uint64_t tick(struct worker *w)
{
    struct engine_load load = engine_load(w->engine);
    uint64_t now = clock_mono_ms();
    uint64_t next = cachefeed_tick(&w->cachefeed, w->attachments, w->n_attachments, now);
    for (size_t i = 0; i < w->n_attachments; i++) {
        uint64_t t = attachment_tick(&w->attachments[i], &load, w->draining, now);
        next = t < next ? t : next;
    }
    return next;
}

static void step(struct worker *w)
{
    struct engine_step s = {0};
    struct err e;
    w->busy = engine_step(w->engine, &s);
    w->steps++;
    cachefeed_stepped(&w->cachefeed);
    for (size_t i = 0; s.n_deltas && i < w->n_attachments; i++) {
        struct attachment *a = &w->attachments[i];
        if (report_step(a, &w->jobs, &s, w->steps, &e) < 0) {
            /* Tokens are missing from the stream: the router has to start these again. */
            log_error("a step is lost", "router=%s why=%s", a->address, e.msg);
            rpc_client_close(a->client, a->stream);
        }
    }
    report_retire(&w->jobs, &s);
}

static bool drained(struct worker *w)
{
    return w->draining && ((w->jobs.n == 0 && !w->parked) || clock_mono_ms() >= w->drain_by_ms);
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
    if (w->draining && w->jobs.n)
        log_warn("drain timeout", "given_up=%u", w->jobs.n);
    cancel_all(w, NULL);
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

int worker_run(struct worker *w, struct err *e)
{
    while (!drained(w)) {
        int rc = engine_check(w->engine, e);
        if (rc < 0) {
            farewell(w);
            return rc;
        }
        take_mail(w);
        unpark(w);
        if (!w->draining && atomic_load(&w->drain))
            begin_drain(w);
        uint64_t next = tick(w);
        if (drained(w))
            break;
        if (w->draining && w->drain_by_ms < next)
            next = w->drain_by_ms;
        if (w->busy)
            step(w);
        else
            wait_until(w, next);
    }
    farewell(w);
    struct engine_load load = engine_load(w->engine);
    log_info("drained", "steps=%llu drafted=%llu drafts_right=%llu", (unsigned long long)w->steps,
             (unsigned long long)load.drafted, (unsigned long long)load.drafts_right);
    return 0;
}
