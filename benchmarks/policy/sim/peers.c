/* peers.c: who runs in the comparison. Peers' rules as published, written anew:
 *
 * smg_cache_aware   smg (lightseekorg/smg), cache_aware with events of caches: when the requests at
 * the workers are uneven (most - least > 32 and most > 1.1 least) the least loaded one, else the
 *                   longest cached prefix; ties by load; nothing cached anywhere: the least loaded.
 * smg_least_load    smg, least_load: (queued + sent since the poll) / throughput + 0.15 k / (1 -
 * k), polled every 10 s, 2,000 tokens/s when none was reported. dynamo            NVIDIA Dynamo, KV
 * router, its defaults: (prompt tokens under way + prompt - cached) / block + blocks of all
 * sequences there; the lowest, ties by lot.
 */
#include "benchmarks/policy/sim/sim.h"

#define SMG_ABSOLUTE 32
#define SMG_RELATIVE 1.1
#define SMG_THROUGHPUT 2000.0
#define DYNAMO_BLOCK 16.0

static uint32_t least_requests(const struct policy_snapshot *s, struct peer_view *const *views)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < s->n; i++) {
        uint32_t a = s->workers[i]->inflight;
        uint32_t b = s->workers[best]->inflight;
        if (a < b || (a == b && views[i]->processed < views[best]->processed))
            best = i;
    }
    return best;
}

static uint32_t smg_cache_aware(const struct policy_snapshot *s, const struct policy_request *r,
                                struct peer_view *const *views, struct rng *rng)
{
    (void)r;
    (void)rng;
    uint32_t least = UINT32_MAX, most = 0, best = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t n = s->workers[i]->inflight;
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    if (most - least > SMG_ABSOLUTE && most > SMG_RELATIVE * least)
        return least_requests(s, views);
    for (uint32_t i = 1; s->cached_blocks && i < s->n; i++) {
        uint32_t a = s->cached_blocks[i];
        uint32_t b = s->cached_blocks[best];
        if (a > b || (a == b && s->workers[i]->inflight < s->workers[best]->inflight))
            best = i;
    }
    if (!s->cached_blocks || s->cached_blocks[best] == 0)
        return least_requests(s, views);
    return best;
}

static uint32_t smg_least_load(const struct policy_snapshot *s, const struct policy_request *r,
                               struct peer_view *const *views, struct rng *rng)
{
    (void)rng;
    uint32_t best = 0;
    double best_score = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const struct peer_view *v = views[i];
        double throughput = v->poll_throughput > 0 ? v->poll_throughput : SMG_THROUGHPUT;
        double k = v->poll_usage < 0.999 ? v->poll_usage : 0.999;
        double score = (v->poll_queued + v->sent_tokens) / throughput + 0.15 * k / (1 - k);
        if (i == 0 || score < best_score) {
            best = i;
            best_score = score;
        }
    }
    views[best]->sent_tokens += r->prompt_tokens;
    return best;
}

static uint32_t dynamo(const struct policy_snapshot *s, const struct policy_request *r,
                       struct peer_view *const *views, struct rng *rng)
{
    uint32_t best = 0;
    uint32_t n_equal = 0;
    double best_cost = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        double overlap = s->cached_blocks ? (double)s->cached_blocks[i] * r->block_tokens : 0;
        double prefill =
            (double)s->workers[i]->inflight_prefill_tokens + r->prompt_tokens - overlap;
        double decode = (double)views[i]->active_tokens + r->prompt_tokens;
        double cost = ((prefill > 0 ? prefill : 0) + decode) / DYNAMO_BLOCK;
        if (i > 0 && cost > best_cost)
            continue;
        n_equal = i == 0 || cost < best_cost ? 1 : n_equal + 1;
        if (n_equal > 1 && rng_below(rng, n_equal) != 0)
            continue;
        best = i;
        best_cost = cost;
    }
    return best;
}

const struct contender contenders[] = {
    {"predicted", &policy_predicted, NULL},       {"least_load", &policy_least_load, NULL},
    {"power_of_two", &policy_power_of_two, NULL}, {"prefix_hash", &policy_prefix_hash, NULL},
    {"round_robin", &policy_round_robin, NULL},   {"smg cache_aware", NULL, smg_cache_aware},
    {"smg least_load", NULL, smg_least_load},     {"dynamo", NULL, dynamo},
};
const size_t n_contenders = sizeof(contenders) / sizeof(*contenders);
