#include "router/policy/policy.h"

#include <string.h>

#include "runtime/base/check.h"

static const struct policy *const policies[] = {
    &policy_least_load,
    &policy_power_of_two,
    &policy_round_robin,
    &policy_random,
};

const struct policy *policy_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(policies); i++)
        if (strcmp(policies[i]->name, name) == 0)
            return policies[i];
    return NULL;
}

void policy_each(void (*fn)(void *ctx, const struct policy *p), void *ctx)
{
    for (size_t i = 0; i < ARRAY_LEN(policies); i++)
        fn(ctx, policies[i]);
}

bool policy_admits(const struct policy_worker *w, const struct policy_request *r)
{
    return w->state != POLICY_DRAINING && w->inflight < w->inflight_max && policy_matches(w, r);
}

uint32_t policy_gather(const struct policy_worker *const *all, uint32_t n,
                       const struct policy_request *r, const struct policy_worker **out)
{
    uint32_t n_ready = 0;
    for (uint32_t i = 0; i < n; i++)
        if (all[i]->state == POLICY_READY && policy_admits(all[i], r))
            out[n_ready++] = all[i];
    if (n_ready > 0)
        return n_ready;
    uint32_t n_suspect = 0;
    for (uint32_t i = 0; i < n; i++)
        if (all[i]->state == POLICY_SUSPECT && policy_admits(all[i], r))
            out[n_suspect++] = all[i];
    return n_suspect;
}
