/* random.c: any worker, each as likely. */
#include "router/policy/policy.h"

static uint32_t pick(void *state, const struct policy_snapshot *s, const struct policy_request *r,
                     struct rng *rng)
{
    (void)state;
    (void)r;
    return (uint32_t)rng_below(rng, s->n);
}

const struct policy policy_random = {
    .name = "random",
    .summary = "any worker, each as likely",
    .pick = pick,
};
