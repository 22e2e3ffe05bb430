#include "benchmarks/policy/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#include "router/pool/prefix_index.h"
#include "router/pool/rates.h"
#include "runtime/base/check.h"

#define LOAD_S 0.5
#define OTHERS_S 1.0
#define WORKER_QUEUE_MAX 100000
#define INDEX_BYTES ((size_t)64 << 20)
/* A longer prompt may take longer. */
#define TTFT_TOKENS_PER_S 3000.0
/* Requests that are not done so long after the last arrival never are. */
#define PATIENCE_S 36000.0

struct sim_worker {
    struct engine engine;
    double step_ends_s;
    uint64_t polled_tokens; /* output tokens since the last poll */
};

struct router_worker {
    struct policy_worker view;
    struct peer_view peer;
    struct rates rates;
    uint32_t slot;
};

struct sim_router {
    struct router_worker workers[SIM_WORKERS_MAX];
    struct prefix_index *index;
    struct rng rng;
    _Alignas(16) unsigned char state[POLICY_STATE_BYTES_MAX];
};

struct job {
    struct seq seq;
    uint32_t worker, router;
    double start_s, first_s, end_s;
    uint32_t counted_prefill, counted_output;
    uint64_t active_tokens;
};

struct sim {
    const struct sim_config *c;
    double now_s;
    struct sim_worker workers[SIM_WORKERS_MAX];
    struct sim_router routers[SIM_ROUTERS_MAX];
    struct job *jobs;
    uint32_t n_done;
    double output_tokens; /* of what ended lately, on average */
    struct rng rng;
};

/* ---- what a router counts ------------------------------------------------------------------- */

static struct router_worker *seen(struct sim *s, const struct job *j)
{
    return &s->routers[j->router].workers[j->worker];
}

static void uncount(struct sim *s, struct job *j)
{
    struct policy_worker *v = &seen(s, j)->view;
    v->inflight_prefill_tokens -= j->counted_prefill;
    v->inflight_prefills -= j->counted_prefill > 0;
    v->inflight_output_tokens -= j->counted_output;
    seen(s, j)->peer.active_tokens -= j->active_tokens;
    j->active_tokens = j->counted_output = j->counted_prefill = 0;
}

/* As gen_recount in router/pool/gen.c; what a client allows is not known: the guess. */
static void recount(struct sim *s, struct job *j, uint32_t prefill)
{
    struct policy_worker *v = &seen(s, j)->view;
    uint32_t before = j->counted_prefill;
    uncount(s, j);
    j->counted_prefill = prefill;
    j->counted_output = POLICY_OUTPUT_TOKENS_GUESS;
    j->active_tokens = j->seq.request->prompt + j->seq.generated;
    v->inflight_prefill_tokens += prefill;
    v->inflight_prefills += prefill > 0;
    v->inflight_output_tokens += j->counted_output;
    seen(s, j)->peer.active_tokens += j->active_tokens;
    if (before > 0 && prefill == 0)
        v->prefill_done_tokens -= v->prefill_done_tokens < before ? v->prefill_done_tokens : before;
}

/* ---- a request comes ------------------------------------------------------------------------ */

static uint32_t pick(struct sim *s, struct sim_router *r, const struct policy_request *request,
                     uint32_t *cached_guess)
{
    const struct contender *k = s->c->contender;
    const struct policy_worker *all[SIM_WORKERS_MAX];
    const struct policy_worker *admitted[SIM_WORKERS_MAX];
    struct peer_view *views[SIM_WORKERS_MAX];
    uint32_t cached[SIM_WORKERS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->c->n_workers; i++)
        if ((double)s->workers[i].engine.kv_tokens * 0.9 > request->prompt_tokens)
            all[n++] = &r->workers[i].view;
    n = policy_gather(all, n, request, admitted);
    if (n == 0)
        return UINT32_MAX;
    const uint32_t *depths = prefix_index_look(r->index, request->block_hashes, request->n_blocks);
    for (uint32_t i = 0; i < n; i++) {
        const struct router_worker *w = (const struct router_worker *)admitted[i];
        cached[i] = depths[w->slot];
        views[i] = (struct peer_view *)&w->peer;
    }
    struct policy_snapshot snapshot = {.workers = admitted,
                                       .cached_blocks = cached,
                                       .n = n,
                                       .now_ms = (uint64_t)(s->now_s * 1e3),
                                       .output_tokens = s->output_tokens};
    uint32_t chosen = k->policy ? k->policy->pick(r->state, &snapshot, request, &r->rng)
                                : k->peer(&snapshot, request, views, &r->rng);
    *cached_guess = cached[chosen] * request->block_tokens;
    prefix_index_touch(r->index, request->block_hashes, cached[chosen]);
    return (uint32_t)((const struct router_worker *)admitted[chosen] - r->workers);
}

static void begin_step(struct sim *s, uint32_t worker)
{
    struct sim_worker *w = &s->workers[worker];
    if (engine_begin_step(&w->engine))
        w->step_ends_s = s->now_s + w->engine.step_s;
}

static void arrive(struct sim *s, struct job *j)
{
    const struct trace *t = s->c->trace;
    const struct trace_request *q = j->seq.request;
    struct sim_router *r;
    struct policy_request request = {.prompt_tokens = q->prompt,
                                     .output_tokens = POLICY_OUTPUT_TOKENS_GUESS * 4,
                                     .block_hashes = t->hashes + q->first_block,
                                     .n_blocks = q->n_blocks,
                                     .block_tokens = t->block_tokens};
    uint32_t cached_guess = 0;
    j->router = (uint32_t)rng_below(&s->rng, s->c->n_routers);
    r = &s->routers[j->router];
    j->start_s = s->now_s;
    j->worker = pick(s, r, &request, &cached_guess);
    if (j->worker == UINT32_MAX)
        return;
    j->seq.hashes = request.block_hashes;
    j->seq.ctx = j;
    r->workers[j->worker].view.inflight++;
    r->workers[j->worker].peer.processed++;
    recount(s, j, q->prompt > cached_guess ? q->prompt - cached_guess : 1);
    engine_add(&s->workers[j->worker].engine, &j->seq);
    begin_step(s, j->worker);
}

/* ---- a step ends ---------------------------------------------------------------------------- */

static void on_token(void *ctx, struct seq *q)
{
    struct sim *s = ctx;
    struct job *j = q->ctx;
    s->workers[j->worker].polled_tokens++;
    if (q->generated == 1)
        j->first_s = s->now_s;
    if (q->generated < q->request->output) {
        recount(s, j, 0);
        return;
    }
    recount(s, j, 0);
    uncount(s, j);
    seen(s, j)->view.inflight--;
    j->end_s = s->now_s;
    s->output_tokens = policy_average(s->output_tokens, q->generated);
    s->n_done++;
}

static void tell_routers(struct sim *s, uint32_t worker)
{
    struct engine *g = &s->workers[worker].engine;
    for (uint32_t i = 0; i < s->c->n_routers; i++) {
        struct router_worker *w = &s->routers[i].workers[worker];
        prefix_index_evict(s->routers[i].index, w->slot, g->evicted, g->n_evicted);
        prefix_index_store(s->routers[i].index, w->slot, g->stored, g->n_stored);
        rates_add_step(&w->rates, (uint32_t)(g->step_s * 1e6), g->step_prefill, g->step_decode,
                       &w->view.rates);
        policy_note_prefill(&w->view, g->step_prefill);
    }
    g->n_stored = g->n_evicted = 0;
}

static void end_step(struct sim *s, uint32_t worker)
{
    tell_routers(s, worker); /* what it evicted to begin; the step itself, before its tokens */
    engine_end_step(&s->workers[worker].engine, on_token, s);
    struct engine *g = &s->workers[worker].engine;
    for (uint32_t i = 0; i < s->c->n_routers; i++) {
        struct router_worker *w = &s->routers[i].workers[worker];
        prefix_index_store(s->routers[i].index, w->slot, g->stored, g->n_stored);
    }
    g->n_stored = 0;
    begin_step(s, worker);
}

/* ---- on a timer ----------------------------------------------------------------------------- */

static void report_loads(struct sim *s)
{
    for (uint32_t i = 0; i < s->c->n_routers; i++)
        for (uint32_t w = 0; w < s->c->n_workers; w++) {
            const struct engine *g = &s->workers[w].engine;
            struct policy_worker *v = &s->routers[i].workers[w].view;
            policy_note_load(v, g->n_running, g->n_waiting);
            v->kv_pages_used = (uint32_t)(engine_kv_used(g) / v->page_tokens);
        }
}

static void share_counts(struct sim *s)
{
    for (uint32_t i = 0; i < s->c->n_routers; i++)
        for (uint32_t w = 0; w < s->c->n_workers; w++) {
            uint64_t others = 0;
            for (uint32_t k = 0; k < s->c->n_routers; k++) {
                const struct policy_worker *v = &s->routers[k].workers[w].view;
                others += k == i ? 0 : policy_prefill_left(v) + v->inflight_output_tokens;
            }
            s->routers[i].workers[w].view.others_tokens = others;
        }
}

static void poll_for_peers(struct sim *s)
{
    for (uint32_t w = 0; w < s->c->n_workers; w++) {
        const struct engine *g = &s->workers[w].engine;
        double queued = 0;
        for (uint32_t k = 0; k < g->n_waiting; k++)
            queued += g->waiting[(g->waiting_at + k) % g->max_waiting]->request->prompt;
        for (uint32_t i = 0; i < s->c->n_routers; i++)
            s->routers[i].workers[w].peer = (struct peer_view){
                .processed = s->routers[i].workers[w].peer.processed,
                .active_tokens = s->routers[i].workers[w].peer.active_tokens,
                .poll_queued = queued,
                .poll_throughput = (double)s->workers[w].polled_tokens / PEER_POLL_S,
                .poll_usage = (double)engine_kv_used(g) / (double)g->kv_tokens};
        s->workers[w].polled_tokens = 0;
    }
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void open_all(struct sim *s)
{
    struct err e = {0};
    const struct sim_config *c = s->c;
    rng_init(&s->rng, c->seed);
    for (uint32_t w = 0; w < c->n_workers; w++)
        engine_init(&s->workers[w].engine, c->devices[w], device_kv_tokens(c->devices[w]),
                    c->trace->block_tokens);
    for (uint32_t i = 0; i < c->n_routers; i++) {
        struct sim_router *r = &s->routers[i];
        rng_init(&r->rng, c->seed * 1000 + i);
        if (prefix_index_open(INDEX_BYTES, SIM_WORKERS_MAX, c->seed, &r->index, &e) < 0)
            ASSERT(!"memory");
        for (uint32_t w = 0; w < c->n_workers; w++) {
            struct router_worker *rw = &r->workers[w];
            uint64_t key = (w + 1) * 0x9e3779b97f4a7c15u;
            rw->slot = prefix_index_join(r->index);
            rw->view = (struct policy_worker){
                .key = key,
                .loaded = true,
                .sequences_max = c->devices[w]->sequences_max,
                .inflight_max = WORKER_QUEUE_MAX,
                .page_tokens = 16,
                .kv_pages = (uint32_t)(s->workers[w].engine.kv_tokens / 16),
                .device_kind = "simulated",
            };
        }
    }
}

static void close_all(struct sim *s)
{
    for (uint32_t w = 0; w < s->c->n_workers; w++)
        engine_release(&s->workers[w].engine);
    for (uint32_t i = 0; i < s->c->n_routers; i++)
        prefix_index_free(s->routers[i].index);
    free(s->jobs);
}

/* The worker whose step ends next; NONE: nobody steps. */
static uint32_t next_end(const struct sim *s)
{
    uint32_t best = UINT32_MAX;
    for (uint32_t w = 0; w < s->c->n_workers; w++)
        if (s->workers[w].engine.stepping &&
            (best == UINT32_MAX || s->workers[w].step_ends_s < s->workers[best].step_ends_s))
            best = w;
    return best;
}

static void run_timers(struct sim *s, double until_s, double at_s[3])
{
    static const double period_s[3] = {LOAD_S, OTHERS_S, PEER_POLL_S};
    static void (*const fn[3])(struct sim * s) = {report_loads, share_counts, poll_for_peers};
    for (int i = 0; i < 3; i++)
        if (at_s[i] <= until_s) {
            at_s[i] =
                until_s - at_s[i] > period_s[i] ? until_s + period_s[i] : at_s[i] + period_s[i];
            fn[i](s);
        }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double percentile(double *v, size_t n, double p)
{
    if (n == 0)
        return 0;
    qsort(v, n, sizeof(*v), by_value);
    return v[(size_t)((double)(n - 1) * p)];
}

static void sum_up(struct sim *s, double span_s, struct sim_result *out)
{
    size_t n = s->c->trace->n, served = 0, good = 0;
    double *ttft = calloc(n + 1, sizeof(*ttft)), *tpot = calloc(n + 1, sizeof(*tpot));
    double cached = 0, prompts = 0, busy = 0, most = 0;
    ASSERT(ttft && tpot);
    for (size_t i = 0; i < n; i++) {
        const struct job *j = &s->jobs[i];
        const struct trace_request *q = j->seq.request;
        prompts += q->prompt;
        cached += j->seq.cached_tokens;
        if (j->end_s == 0)
            continue;
        ttft[served] = j->first_s - j->start_s;
        tpot[served] = q->output > 1 ? (j->end_s - j->first_s) / (q->output - 1) : 0;
        good += ttft[served] <= s->c->ttft_slo_s + q->prompt / TTFT_TOKENS_PER_S &&
                tpot[served] <= s->c->tpot_slo_s;
        served++;
    }
    for (uint32_t w = 0; w < s->c->n_workers; w++) {
        out->busy_s[w] = s->workers[w].engine.busy_s;
        busy += out->busy_s[w];
        most = out->busy_s[w] > most ? out->busy_s[w] : most;
        out->preempted += s->workers[w].engine.preempted;
    }
    out->n_unserved = (uint32_t)(n - served);
    out->good_share = (double)good / (double)n;
    out->good_per_s = (double)good / span_s;
    out->cached_share = cached / prompts;
    out->imbalance = most * s->c->n_workers / busy;
    out->busy_share = busy / s->c->n_workers / span_s;
    out->ttft_p99_s = percentile(ttft, served, 0.99);
    out->ttft_p50_s = percentile(ttft, served, 0.5);
    out->tpot_p99_s = percentile(tpot, served, 0.99);
    free(ttft);
    free(tpot);
}

void sim_run(const struct sim_config *c, struct sim_result *out)
{
    struct sim *s = calloc(1, sizeof(*s));
    double timers_s[3] = {LOAD_S, OTHERS_S, PEER_POLL_S};
    size_t next = 0;
    *out = (struct sim_result){0};
    ASSERT(s && c->n_workers <= SIM_WORKERS_MAX && c->n_routers <= SIM_ROUTERS_MAX);
    s->c = c;
    s->jobs = calloc(c->trace->n, sizeof(*s->jobs));
    ASSERT(s->jobs);
    open_all(s);
    double span_s = c->trace->requests[c->trace->n - 1].at_s / c->speedup;
    for (;;) {
        uint32_t w = next_end(s);
        double arrives_s =
            next < c->trace->n ? c->trace->requests[next].at_s / c->speedup : PATIENCE_S + span_s;
        bool ends = w != UINT32_MAX && s->workers[w].step_ends_s <= arrives_s;
        if (!ends && next == c->trace->n)
            break;
        s->now_s = ends ? s->workers[w].step_ends_s : arrives_s;
        run_timers(s, s->now_s, timers_s);
        if (ends) {
            end_step(s, w);
        } else {
            s->jobs[next].seq.request = &c->trace->requests[next];
            arrive(s, &s->jobs[next]);
            next++;
        }
    }
    sum_up(s, span_s, out);
    close_all(s);
    free(s);
}

/* ---- the ceiling ---------------------------------------------------------------------------- */

double sim_cached_ceiling(const struct trace *t, uint64_t kv_tokens)
{
    double cached = 0, prompts = 0;
    struct engine g;
    if (t->block_tokens == 0)
        return 0;
    engine_init(&g, &device_h100, kv_tokens, t->block_tokens);
    for (size_t i = 0; i < t->n; i++) {
        const struct trace_request *q = &t->requests[i];
        struct seq s = {.request = q, .hashes = t->hashes + q->first_block};
        prompts += q->prompt;
        cached += (double)engine_cached_blocks(&g, s.hashes, q->n_blocks) * t->block_tokens;
        engine_replay(&g, &s);
    }
    engine_release(&g);
    return cached / prompts;
}
