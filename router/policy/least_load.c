/* least_load.c: the worker that would be done first, by load.c; equals by lot. */
#include "router/policy/policy.h"

static uint32_t pick(void *state, const struct policy_snapshot *s, const struct policy_request *r,
                     struct rng *rng)
{
    (void)state;
    struct policy_rates typical = policy_typical_rates(s);
    uint32_t best = 0;
    double best_load_s = policy_load_s(s, 0, r, &typical);
    uint32_t n_equal = 1;
    for (uint32_t i = 1; i < s->n; i++) {
        double load_s = policy_load_s(s, i, r, &typical);
        if (load_s > best_load_s)
            continue;
        n_equal = load_s < best_load_s ? 1 : n_equal + 1;
        /* The j-th of the equals replaces the chosen one with probability 1/j: all alike. */
        if (n_equal == 1 || rng_below(rng, n_equal) == 0)
            best = i;
        best_load_s = load_s;
    }
    return best;
}

const struct policy policy_least_load = {
    .name = "least_load",
    .summary = "the worker that would be done first, by its measured speed, its queue and its KV",
    .needs = POLICY_NEEDS_CACHED,
    .pick = pick,
};
