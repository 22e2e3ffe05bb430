/* prefix_hash.c: prompts that begin alike go to one worker, without knowing what any has cached:
 * the hash of the prompt's first blocks is the key (bounded.c). */
#include "router/policy/policy.h"

/* Of the prompt, that make the key: as long as most system prompts, and no longer than most turns.
 */
#define KEY_TOKENS 256

static uint32_t pick(void *state, const struct policy_snapshot *s, const struct policy_request *r,
                     struct rng *rng)
{
    (void)state;
    uint32_t n = r->block_tokens ? KEY_TOKENS / r->block_tokens : 0;
    if (n == 0)
        n = 1;
    if (n > r->n_blocks)
        n = r->n_blocks;
    /* Too short to have a block: anywhere. */
    return policy_pick_bounded(s, n ? r->block_hashes[n - 1] : rng_u64(rng));
}

const struct policy policy_prefix_hash = {
    .name = "prefix_hash",
    .summary = "by the prompt's first blocks, consistent hashing with bounded load",
    .needs = POLICY_NEEDS_HASHES,
    .pick = pick,
};
