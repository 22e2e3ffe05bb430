/* rates.h: how fast a worker really is, learnt from its Step frames.
 *
 * Steps that only prefill give the prefill rate, steps that only decode give the decode rate and,
 * over batches of different size, the step time as base + sequences × slope. A mixed step gives the
 * prefill rate once the decode part of it can be subtracted, and what prompts get while sequences
 * decode. All are moving averages.
 */
#ifndef ARGOSY_ROUTER_POOL_RATES_H
#define ARGOSY_ROUTER_POOL_RATES_H

#include <stdint.h>

#include "router/policy/policy.h"

struct rates {
    /* Decayed sums over decode steps: weight, batch, seconds, batch², batch × seconds. */
    double w, b, t, bb, bt;
    /* Decayed sums over prefills: tokens, seconds. */
    double prefill_tokens, prefill_s;
    /* Over steps that decode too, by their whole time. */
    double mixed_tokens, mixed_s;
};

/* Adds a step and puts what is now known into `out`. Nonsense (no duration, no tokens) changes
 * nothing. */
void rates_add_step(struct rates *r, uint32_t duration_us, uint32_t prefill_tokens,
                    uint32_t decode_tokens, struct policy_rates *out);

#endif
