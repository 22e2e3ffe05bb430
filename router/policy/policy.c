#include "router/policy/policy.h"

#include <string.h>

#include "runtime/base/check.h"

static const struct policy *const policies[] = {
    &policy_predicted,    &policy_prefix_hash, &policy_session, &policy_least_load,
    &policy_power_of_two, &policy_round_robin, &policy_random,
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

static uint32_t gather_state(const struct policy_worker *const *all, uint32_t n,
                             enum policy_worker_state state, const struct policy_request *r,
                             const struct policy_worker **out)
{
    uint32_t n_out = 0;
    for (uint32_t i = 0; i < n; i++)
        if (all[i]->state == state && policy_admits(all[i], r))
            out[n_out++] = all[i];
    return n_out;
}

/* A load costs seconds, and may push out a model that others use; so does a long queue. */
static uint32_t prefer_loaded(const struct policy_worker **out, uint32_t n)
{
    bool at_once = false;
    for (uint32_t i = 0; i < n; i++)
        at_once |= out[i]->loaded && out[i]->inflight < out[i]->sequences_max;
    if (!at_once)
        return n;
    uint32_t n_loaded = 0;
    for (uint32_t i = 0; i < n; i++)
        if (out[i]->loaded)
            out[n_loaded++] = out[i];
    return n_loaded;
}

uint32_t policy_gather(const struct policy_worker *const *all, uint32_t n,
                       const struct policy_request *r, const struct policy_worker **out)
{
    uint32_t n_out = gather_state(all, n, POLICY_READY, r, out);
    if (n_out == 0)
        n_out = gather_state(all, n, POLICY_SUSPECT, r, out);
    return prefer_loaded(out, n_out);
}
