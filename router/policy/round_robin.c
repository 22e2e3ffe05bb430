/* round_robin.c: each worker in turn, by key.
 *
 * The order is that of the keys and not of the snapshot, so that a worker which is left out once
 * (full, draining, tried already) does not shift the turn of the others.
 */
#include "router/policy/policy.h"

struct round_robin {
    uint64_t last_key;
};

static uint32_t pick(void *state, const struct policy_snapshot *s, const struct policy_request *r,
                     struct rng *rng)
{
    (void)r;
    (void)rng;
    struct round_robin *rr = state;
    uint32_t next = POLICY_NONE; /* the smallest key above the last one */
    uint32_t first = 0;          /* the smallest of all, when there is none above */
    for (uint32_t i = 0; i < s->n; i++) {
        uint64_t key = s->workers[i]->key;
        if (key > rr->last_key && (next == POLICY_NONE || key < s->workers[next]->key))
            next = i;
        if (key < s->workers[first]->key)
            first = i;
    }
    uint32_t chosen = next == POLICY_NONE ? first : next;
    rr->last_key = s->workers[chosen]->key;
    return chosen;
}

const struct policy policy_round_robin = {
    .name = "round_robin",
    .summary = "each worker in turn",
    .state_bytes = sizeof(struct round_robin),
    .pick = pick,
};
