/* power_of_two.c: of two workers drawn by lot, the less loaded one (Mitzenmacher 2001): nearly as
 * even as looking at all, and many routers with stale views don't all run to the same worker. */
#include "router/policy/policy.h"

static uint32_t pick(void *state, const struct policy_snapshot *s, const struct policy_request *r,
                     struct rng *rng)
{
    (void)state;
    if (s->n == 1)
        return 0;
    uint32_t a = (uint32_t)rng_below(rng, s->n);
    uint32_t b = (uint32_t)rng_below(rng, s->n - 1);
    b += b >= a;
    struct policy_rates typical = policy_typical_rates(s);
    return policy_load_s(s, b, r, &typical) < policy_load_s(s, a, r, &typical) ? b : a;
}

const struct policy policy_power_of_two = {
    .name = "power_of_two",
    .summary = "of two workers drawn by lot, the one with less load",
    .needs = POLICY_NEEDS_CACHED,
    .pick = pick,
};
