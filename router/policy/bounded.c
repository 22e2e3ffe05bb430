/* bounded.c: consistent hashing with bounded load (Mirrokni, Thorup, Zadimoghaddam 2018), over
 * rendezvous hashing (Thaler, Ravishankar 1998): for each key the workers have an order of their
 * own, by a hash of both, and the first one that is not too loaded takes it. A worker that comes or
 * goes moves only the keys that are its own.
 *
 * Too loaded: more than 1.25 times its share of the requests under way, where shares go by measured
 * speed. The shares add up to more than all, so somebody always has room.
 */
#include "router/policy/policy.h"

#define BOUND 1.25

static uint64_t mix(uint64_t h)
{
    h = (h ^ h >> 33) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 33) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 33;
}

static double requests_of(const struct policy_worker *w)
{
    return (double)w->inflight + w->others;
}

static double speed_of(const struct policy_worker *w, const struct policy_rates *typical)
{
    return w->rates.decode_tokens_per_s > 0 ? w->rates.decode_tokens_per_s
                                            : typical->decode_tokens_per_s;
}

uint32_t policy_pick_bounded(const struct policy_snapshot *s, uint64_t key)
{
    struct policy_rates typical = policy_typical_rates(s);
    double speed = 0;
    double requests = 1; /* this one */
    for (uint32_t i = 0; i < s->n; i++) {
        speed += speed_of(s->workers[i], &typical);
        requests += requests_of(s->workers[i]);
    }
    uint32_t best = POLICY_NONE;
    uint64_t best_score = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const struct policy_worker *w = s->workers[i];
        double room = BOUND * requests * speed_of(w, &typical) / speed;
        uint64_t score = mix(key ^ mix(w->key));
        if (requests_of(w) >= room)
            continue;
        if (best == POLICY_NONE || score > best_score) {
            best = i;
            best_score = score;
        }
    }
    return best == POLICY_NONE ? 0 : best; /* never NONE, but for rounding */
}
