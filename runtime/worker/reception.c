#include "runtime/worker/reception.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "runtime/grammar/grammar_store.h"
#include "runtime/worker/intake.h"

/* What a router should wait before it offers a refused request again. */
#define RETRY_AFTER_MS 200

struct parked {
    struct parked *next;
    struct rpc_event *ev; /* a Start */
    struct attachment *a;
    struct offer *offer;
    uint64_t since_ms;
    bool compiles; /* its grammar is what it waits for */
};

void reception_init(struct reception *r, struct roster *roster, struct mailbox *mailbox,
                    const struct worker_config *config)
{
    *r = (struct reception){.roster = roster,
                            .mailbox = mailbox,
                            .parked_max = (uint32_t)(config->sequences_max + config->waiting_max),
                            .wait_ms = (uint64_t)config->load_wait_ms};
}

/* ---- those that are parked ---------------------------------------------------------------------
 */

static const Argosy__Start *start_of(const struct parked *p)
{
    return p->ev->to_worker->start;
}

/* The link to it; to NULL where there is none. */
static struct parked **find_parked(struct reception *r, const struct attachment *a,
                                   uint64_t request)
{
    struct parked **at = &r->parked;
    while (*at && ((*at)->a != a || start_of(*at)->request != request))
        at = &(*at)->next;
    return at;
}

static void drop_parked(struct reception *r, struct parked **at)
{
    struct parked *p = *at;
    *at = p->next;
    r->n_parked--;
    rpc_event_free(p->ev);
    free(p);
}

static void refuse_parked(struct reception *r, struct parked **at, Argosy__RefusedReason reason,
                          const char *detail)
{
    bool full = reason == ARGOSY__REFUSED_REASON__REFUSED_FULL;
    attachment_refuse((*at)->a, start_of(*at)->request, reason, detail, full ? RETRY_AFTER_MS : 0);
    drop_parked(r, at);
}

/* Behind all others. False: there is no room for it. */
static bool park(struct reception *r, struct attachment *a, struct rpc_event *ev, struct offer *o,
                 uint64_t now_ms, bool compiles)
{
    struct parked *p = r->n_parked < r->parked_max ? calloc(1, sizeof(*p)) : NULL;
    struct parked **at = &r->parked;
    if (!p)
        return false;
    while (*at)
        at = &(*at)->next;
    *p = (struct parked){NULL, ev, a, o, now_ms, compiles};
    *at = p;
    r->n_parked++;
    return true;
}

/* ---- engines -----------------------------------------------------------------------------------
 */

/* On the thread of a store of grammars. */
static void on_compiled(void *ctx)
{
    struct reception *r = ctx;
    atomic_store(&r->compiled, true);
    mailbox_wake(r->mailbox);
}

void reception_loaded(struct reception *r, struct offer *o)
{
    struct grammar_store *grammars = engine_grammars(o->engine);
    if (grammars)
        grammar_store_notify(grammars, on_compiled, r);
    /* What was compiled before it was unloaded has to be asked for again. */
    atomic_store(&r->compiled, true);
}

void reception_leaves(struct reception *r, struct offer *o)
{
    struct grammar_store *grammars = engine_grammars(o->engine);
    (void)r;
    if (grammars)
        grammar_store_notify(grammars, NULL, NULL);
}

static struct job *find_job(struct reception *r, const struct attachment *a, uint64_t request,
                            struct offer **of)
{
    for (uint32_t i = 0; i < r->roster->n; i++) {
        *of = &r->roster->offers[i];
        struct job *job = jobs_by_request(&(*of)->jobs, a, request);
        if (job)
            return job;
    }
    return NULL;
}

static void give_up(struct offer *o, struct job *job)
{
    engine_cancel(o->engine, jobs_engine_id(&o->jobs, job));
    jobs_remove(&o->jobs, job);
}

static int too_many(const struct reception *r, const struct offer *o, struct err *e)
{
    return err_set(e, ERR_BUSY, "%u requests run and wait", o->jobs.n + r->n_parked);
}

/* 0: it runs or waits. 1: its grammar is being compiled. */
static int submit(struct reception *r, struct attachment *a, struct offer *o,
                  const Argosy__Start *s, uint32_t adapter, uint64_t since_ms, struct err *e)
{
    struct engine_request request;
    struct grammar_source grammar;
    int rc = intake_request(s, since_ms, &request, &grammar, e);
    if (rc < 0)
        return rc;
    request.adapter = adapter;
    if (request.grammar && engine_grammars(o->engine)) {
        if (o->jobs.n + r->n_parked >= o->jobs.cap)
            return too_many(r, o, e);
        rc = grammar_store_ask(engine_grammars(o->engine), request.grammar, e);
        if (rc <= 0)
            return rc < 0 ? rc : 1;
    }
    struct job *job = jobs_add(&o->jobs, a, s->request, &request.id);
    if (!job)
        return too_many(r, o, e);
    job->top_logprobs = request.sampling.n_top;
    log_debug("request", "request=%llu prompt_tokens=%u output_tokens=%u trace=%s",
              (unsigned long long)s->request, request.n_prompt, request.n_output,
              s->traceparent[0] ? s->traceparent : "-");
    rc = engine_submit(o->engine, &request, e);
    if (rc < 0)
        jobs_remove(&o->jobs, job);
    else
        roster_used(r->roster, o);
    return rc;
}

/* ---- Starts ------------------------------------------------------------------------------------
 */

static void refuse(struct attachment *a, const Argosy__Start *s, int code, const char *detail)
{
    Argosy__RefusedReason reason = intake_reason(code);
    bool full = reason == ARGOSY__REFUSED_REASON__REFUSED_FULL;
    attachment_refuse(a, s->request, reason, detail, full ? RETRY_AFTER_MS : 0);
}

enum started {
    STARTED,
    STARTED_NOT, /* it was refused */
    STARTED_AFTER_LOAD,
    STARTED_AFTER_COMPILING,
};

static enum started start(struct reception *r, struct attachment *a, const Argosy__Start *s,
                          struct offer *o, uint64_t since_ms)
{
    struct err e;
    uint32_t adapter;
    if (r->draining) {
        attachment_refuse(a, s->request, ARGOSY__REFUSED_REASON__REFUSED_DRAINING,
                          "this worker drains", 0);
        return STARTED_NOT;
    }
    if (!o || !intake_adapter(o->adapters, o->n_adapters, s->adapter, &adapter)) {
        attachment_refuse(a, s->request, ARGOSY__REFUSED_REASON__REFUSED_MODEL,
                          o ? "the adapter is not served here" : "the model is not served here", 0);
        return STARTED_NOT;
    }
    if (o->state != OFFER_LOADED || o->yields)
        return STARTED_AFTER_LOAD;
    int rc = submit(r, a, o, s, adapter, since_ms, &e);
    if (rc < 0)
        refuse(a, s, rc, e.msg);
    return rc < 0 ? STARTED_NOT : rc > 0 ? STARTED_AFTER_COMPILING : STARTED;
}

bool reception_start(struct reception *r, struct attachment *a, struct rpc_event *ev)
{
    const Argosy__Start *s = ev->to_worker->start;
    uint64_t now_ms = clock_mono_ms();
    struct offer *o;
    struct err e;
    if (find_job(r, a, s->request, &o) || *find_parked(r, a, s->request)) {
        /* A Refused would be taken for the other one's: there is no way to go on. */
        log_error("a router used an id twice", "router=%s request=%llu", a->address,
                  (unsigned long long)s->request);
        rpc_client_close(a->client, a->stream);
        return false;
    }
    o = roster_find(r->roster, s->model);
    enum started how = start(r, a, s, o, now_ms);
    if (how != STARTED_AFTER_LOAD && how != STARTED_AFTER_COMPILING)
        return false;
    if (park(r, a, ev, o, now_ms, how == STARTED_AFTER_COMPILING))
        return true;
    too_many(r, o, &e);
    refuse(a, s, e.code, e.msg);
    return false;
}

void reception_cancel(struct reception *r, struct attachment *a, uint64_t request)
{
    struct offer *o;
    struct parked **parked = find_parked(r, a, request);
    if (*parked)
        drop_parked(r, parked);
    struct job *job = find_job(r, a, request, &o);
    if (job) /* otherwise it ended while the word was under way */
        give_up(o, job);
}

void reception_forget(struct reception *r, const struct attachment *a)
{
    for (struct parked **at = &r->parked; *at;) {
        if (!a || (*at)->a == a)
            drop_parked(r, at);
        else
            at = &(*at)->next;
    }
    for (uint32_t i = 0; i < r->roster->n; i++) {
        struct offer *o = &r->roster->offers[i];
        for (struct job *job = NULL; (job = jobs_next(&o->jobs, a, job));)
            give_up(o, job);
    }
}

void reception_release(struct reception *r)
{
    reception_forget(r, NULL);
}

void reception_drain(struct reception *r)
{
    r->draining = true;
    while (r->parked)
        refuse_parked(r, &r->parked, ARGOSY__REFUSED_REASON__REFUSED_DRAINING,
                      "this worker drains");
}

void reception_lost(struct reception *r, struct offer *o, const char *why)
{
    log_error("model is lost", "name=%s requests=%u why=\"%s\"", o->name, o->jobs.n, why);
    for (struct job *job = NULL; (job = jobs_next(&o->jobs, NULL, job));) {
        attachment_refuse(job->owner, job->request, ARGOSY__REFUSED_REASON__REFUSED_MODEL, why, 0);
        give_up(o, job);
    }
    roster_unload(r->roster, o);
}

/* ---- time --------------------------------------------------------------------------------------
 */

static uint64_t deadline_of(const struct parked *p)
{
    uint32_t ms = start_of(p)->deadline_ms;
    return ms ? p->since_ms + ms : UINT64_MAX;
}

/* When a parked one has waited too long. */
static uint64_t patience_of(const struct reception *r, const struct parked *p)
{
    uint64_t until_ms = p->compiles ? UINT64_MAX : p->since_ms + r->wait_ms;
    return until_ms < deadline_of(p) ? until_ms : deadline_of(p);
}

/* True: it was refused. */
static bool refuse_hopeless(struct reception *r, struct parked **at, uint64_t now_ms)
{
    const struct parked *p = *at;
    if (p->offer->state == OFFER_GONE)
        refuse_parked(r, at, ARGOSY__REFUSED_REASON__REFUSED_MODEL, "the model can't be loaded");
    else if (deadline_of(p) <= now_ms)
        refuse_parked(r, at, ARGOSY__REFUSED_REASON__REFUSED_UNKNOWN,
                      "the request's deadline has passed");
    else if (patience_of(r, p) <= now_ms)
        refuse_parked(r, at, ARGOSY__REFUSED_REASON__REFUSED_FULL,
                      "the model is not in memory, and did not get there in time");
    else
        return false;
    return true;
}

/* It keeps its place where it has to wait on. True: *at is another one now. */
static bool retry(struct reception *r, struct parked **at)
{
    struct parked *p = *at;
    r->n_parked--; /* it is no neighbour of its own */
    enum started how = start(r, p->a, start_of(p), p->offer, p->since_ms);
    r->n_parked++;
    p->compiles = how == STARTED_AFTER_COMPILING;
    if (how == STARTED_AFTER_COMPILING || how == STARTED_AFTER_LOAD)
        return false;
    drop_parked(r, at);
    return true;
}

uint64_t reception_tick(struct reception *r, uint64_t now_ms)
{
    uint64_t next_ms = UINT64_MAX;
    if (!r->parked)
        return next_ms;
    bool compiled = atomic_exchange(&r->compiled, false);
    for (struct parked **at = &r->parked; *at;) {
        const struct parked *p = *at;
        if (refuse_hopeless(r, at, now_ms))
            continue;
        bool ready =
            p->offer->state == OFFER_LOADED && (p->compiles ? compiled : !p->offer->yields);
        if (ready && retry(r, at))
            continue;
        uint64_t until_ms = patience_of(r, *at);
        next_ms = until_ms < next_ms ? until_ms : next_ms;
        at = &(*at)->next;
    }
    return next_ms;
}

struct offer *reception_wanted(const struct reception *r)
{
    for (const struct parked *p = r->parked; p; p = p->next)
        if (p->offer->state != OFFER_LOADED && p->offer->state != OFFER_GONE)
            return p->offer;
    return NULL;
}

uint32_t reception_requests(const struct reception *r)
{
    uint32_t n = r->n_parked;
    for (uint32_t i = 0; i < r->roster->n; i++)
        n += r->roster->offers[i].jobs.n;
    return n;
}

uint32_t reception_waiting(const struct reception *r, const struct offer *o)
{
    uint32_t n = 0;
    for (const struct parked *p = r->parked; p; p = p->next)
        n += p->offer == o;
    return n;
}
