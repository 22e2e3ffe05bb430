/* session.c: the requests of a session go to one worker, while that has not too much more than its
 * share (bounded.c). Those without a session go as `predicted` says. */
#include "router/policy/policy.h"

static uint32_t pick(void *state, const struct policy_snapshot *s, const struct policy_request *r,
                     struct rng *rng)
{
    if (r->session_hash)
        return policy_pick_bounded(s, r->session_hash);
    return policy_predicted.pick(state, s, r, rng);
}

const struct policy policy_session = {
    .name = "session",
    .summary = "by the session, consistent hashing with bounded load",
    .needs = POLICY_NEEDS_CACHED,
    .pick = pick,
};
