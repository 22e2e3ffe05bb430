/* sim.h: a pool of simulated workers behind one router or several, fed from a trace.
 *
 * The routers' part is the real one: policies over snapshots, the prefix index, rates learnt from
 * steps. A snapshot has what a router knows: its own requests at once, a worker's Load every
 * LOAD_S, other routers' tokens every OTHERS_S. Events of caches and steps come when the step ends.
 */
#ifndef ARGOSY_BENCH_POLICY_SIM_H
#define ARGOSY_BENCH_POLICY_SIM_H

#include "benchmarks/policy/sim/engine.h"
#include "router/policy/policy.h"

#define SIM_WORKERS_MAX 64
#define SIM_ROUTERS_MAX 4

/* What the peers' rules look at, kept for each worker by each router. */
struct peer_view {
    uint64_t processed;     /* requests sent, ever */
    uint64_t active_tokens; /* KV of its requests there */
    /* Of smg's least_load: the last poll, and what was sent since. */
    double poll_queued, poll_throughput, poll_usage, sent_tokens;
};

/* One policy: a real one, or a peer's rules. */
struct contender {
    const char *name;
    const struct policy *policy; /* NULL: a peer's */
    uint32_t (*peer)(const struct policy_snapshot *s, const struct policy_request *r,
                     struct peer_view *const *views, struct rng *rng);
};

extern const struct contender contenders[];
extern const size_t n_contenders;
#define PEER_POLL_S 10

struct sim_config {
    const struct trace *trace;
    const struct device *const *devices; /* (n_workers) */
    uint32_t n_workers;
    uint32_t n_routers;
    double speedup; /* of the trace's clock */
    const struct contender *contender;
    uint64_t seed;
    double ttft_slo_s, tpot_slo_s;
};

struct sim_result {
    double ttft_p50_s, ttft_p99_s, tpot_p99_s;
    double good_per_s;   /* requests within both limits, a second of arrivals */
    double good_share;   /* of all */
    double cached_share; /* of the prompts' tokens */
    double imbalance;    /* busiest over mean */
    double busy_share;   /* of all workers' time, until the last arrival */
    uint64_t preempted;
    uint32_t n_unserved;
    double busy_s[SIM_WORKERS_MAX];
};

void sim_run(const struct sim_config *c, struct sim_result *out);
/* What one cache as large as all together would give, in the order of arrival. */
double sim_cached_ceiling(const struct trace *t, uint64_t kv_tokens);

#endif
