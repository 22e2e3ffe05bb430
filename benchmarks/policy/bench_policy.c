/* bench_policy.c: the router's policies and its peers' rules over traces and pools, simulated.
 *
 *     bench_policy TRACE_FOLDER [LOAD [SEED [ROUTERS]]]
 *
 * Goodput is the highest rate at which nine of ten requests are within both limits. The other
 * columns are all at one rate: LOAD (0.9) times the best goodput of the others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "benchmarks/policy/sim/sim.h"
#include "runtime/base/check.h"

#define H100 &device_h100
#define A100 &device_a100
#define G4090 &device_4090
#define CPU &device_cpu
/* Sequences at once, for what a pool could do. */
#define BATCH 24.0
/* Of the prompts, that a good cache saves: for the same. */
#define CACHED_SHARE 0.3

#define GOOD_SHARE 0.9
#define HALVINGS 8
#define CONTENDERS_MAX 16

struct options {
    double load;
    uint64_t seed;
    uint32_t n_routers;
};

struct pool_kind {
    const char *name;
    const struct device *devices[16];
    uint32_t n;
};

static const struct pool_kind pools[] = {
    {"8 H100", {H100, H100, H100, H100, H100, H100, H100, H100}, 8},
    {"2 H100, 2 A100, 4 4090, 2 CPU",
     {H100, H100, A100, A100, G4090, G4090, G4090, G4090, CPU, CPU},
     10},
    {"2 A100, 4 4090, 4 CPU", {A100, A100, G4090, G4090, G4090, G4090, CPU, CPU, CPU, CPU}, 10},
};

static const struct trace_kind {
    const char *name, *file;
    double ttft_slo_s, tpot_slo_s;
} traces[] = {
    {"Mooncake conversation", "mooncake_conversation.txt", 2, 0.2},
    {"Azure code", "azure_code_2023.txt", 1, 0.2},
};

/* Requests a second that the pool could do at best, about. */
static double capacity_of(const struct pool_kind *p, const struct trace *t)
{
    double prompt = 0, output = 0, sum = 0;
    for (size_t i = 0; i < t->n; i++) {
        prompt += t->requests[i].prompt;
        output += t->requests[i].output;
    }
    prompt /= (double)t->n;
    output /= (double)t->n;
    double todo = t->block_tokens ? prompt * (1 - CACHED_SHARE) : prompt;
    for (uint32_t i = 0; i < p->n; i++) {
        const struct device *d = p->devices[i];
        double prefill_s = device_step_s(d, todo, todo * prompt / 2, 0, 0);
        double step_s = device_step_s(d, 0, 0, BATCH, BATCH * (prompt + output / 2));
        sum += 1 / (prefill_s + output * step_s / BATCH);
    }
    return sum;
}

static struct sim_result run(const struct trace_kind *k, const struct trace *t,
                             const struct pool_kind *p, const struct contender *contender,
                             double rate, const struct options *o)
{
    struct sim_result r;
    double native = (double)t->n / (t->requests[t->n - 1].at_s + 1e-9);
    struct sim_config c = {.trace = t,
                           .devices = p->devices,
                           .n_workers = p->n,
                           .n_routers = o->n_routers,
                           .speedup = rate / native,
                           .contender = contender,
                           .seed = o->seed,
                           .ttft_slo_s = k->ttft_slo_s,
                           .tpot_slo_s = k->tpot_slo_s};
    sim_run(&c, &r);
    return r;
}

/* The highest rate, of those that halving comes by, at which GOOD_SHARE of the requests are within
 * both limits. */
static double goodput(const struct trace_kind *k, const struct trace *t, const struct pool_kind *p,
                      const struct contender *contender, const struct options *o)
{
    double lo = 0, hi = 1.2 * capacity_of(p, t);
    for (int i = 0; i < HALVINGS; i++) {
        double rate = (lo + hi) / 2;
        struct sim_result r = run(k, t, p, contender, rate, o);
        if (r.good_share >= GOOD_SHARE)
            lo = rate;
        else
            hi = rate;
    }
    return lo;
}

static void print_row(const char *name, double good, const struct sim_result *r, double ceiling)
{
    printf("| %s | %.2f | %.2f | %.2f | %.0f | %.1f%% | ", name, good, r->ttft_p50_s, r->ttft_p99_s,
           r->tpot_p99_s * 1e3, r->good_share * 100);
    if (ceiling > 0)
        printf("%.0f%%", r->cached_share / ceiling * 100);
    printf(" | %.2f | %.0f%% |", r->imbalance, r->busy_share * 100);
    if (r->n_unserved)
        printf(" %u not served", r->n_unserved);
    printf("\n");
    fflush(stdout);
}

static void verdict(const double *good, const struct sim_result *all)
{
    size_t by_p99 = 1, by_good = 1;
    for (size_t i = 1; i < n_contenders; i++) {
        by_p99 = all[i].ttft_p99_s < all[by_p99].ttft_p99_s ? i : by_p99;
        by_good = good[i] > good[by_good] ? i : by_good;
    }
    printf("\nGoodput %.2f times the best other's (%s), TTFT p99 %.2f times (%s).\n\n",
           good[0] / good[by_good], contenders[by_good].name,
           all[0].ttft_p99_s / all[by_p99].ttft_p99_s, contenders[by_p99].name);
}

static void compare(const struct trace_kind *k, const struct trace *t, const struct pool_kind *p,
                    const struct options *o)
{
    struct sim_result all[CONTENDERS_MAX] = {0};
    double good[CONTENDERS_MAX] = {0};
    double best_other = 0;
    uint64_t kv_tokens = 0;
    ASSERT(n_contenders <= CONTENDERS_MAX);
    for (uint32_t i = 0; i < p->n; i++)
        kv_tokens += device_kv_tokens(p->devices[i]);
    double ceiling = sim_cached_ceiling(t, kv_tokens);
    for (size_t i = 0; i < n_contenders; i++) {
        good[i] = goodput(k, t, p, &contenders[i], o);
        if (i > 0 && good[i] > best_other)
            best_other = good[i];
    }
    /* When nobody is good enough at any rate, the columns are still of something. */
    double rate = o->load * (best_other > 0 ? best_other : capacity_of(p, t) / 4);
    printf("### %s on %s\nWithin: first token %g s and 1 s for each 3,000 tokens of the prompt, %g "
           "ms a token. Columns behind goodput: at %.2f "
           "requests/s. Seed %llu, %u router%s. ",
           k->name, p->name, k->ttft_slo_s, k->tpot_slo_s * 1e3, rate, (unsigned long long)o->seed,
           o->n_routers, o->n_routers > 1 ? "s" : "");
    if (ceiling > 0)
        printf("One cache as large as all together has %.1f%% of the prompts.", ceiling * 100);
    printf(
        "\n\n| policy | goodput/s | TTFT p50 s | p99 s | TPOT p99 ms | within | of the ceiling | "
        "busiest/mean | busy |\n|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < n_contenders; i++) {
        all[i] = run(k, t, p, &contenders[i], rate, o);
        print_row(contenders[i].name, good[i], &all[i], ceiling);
    }
    verdict(good, all);
}

int main(int argc, char **argv)
{
    struct options o = {
        .load = argc > 2 ? strtod(argv[2], NULL) : 0.9,
        .seed = argc > 3 ? strtoull(argv[3], NULL, 10) : 1,
        .n_routers = argc > 4 ? (uint32_t)strtoul(argv[4], NULL, 10) : 1,
    };
    if (argc < 2 || !(o.load > 0 && o.load < 100) || o.n_routers < 1 ||
        o.n_routers > SIM_ROUTERS_MAX) {
        fprintf(stderr, "usage: bench_policy TRACE_FOLDER [LOAD [SEED [ROUTERS]]]\n");
        return 2;
    }
    for (size_t i = 0; i < ARRAY_LEN(traces); i++) {
        char path[1024];
        struct trace t;
        struct err e = {0};
        snprintf(path, sizeof(path), "%s/%s", argv[1], traces[i].file);
        if (trace_open(path, &t, &e) < 0) {
            fprintf(stderr, "bench_policy: %s\n", e.msg);
            return 1;
        }
        for (size_t p = 0; p < ARRAY_LEN(pools); p++)
            compare(&traces[i], &t, &pools[p], &o);
        trace_release(&t);
    }
    return 0;
}
