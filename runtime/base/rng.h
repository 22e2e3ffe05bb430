/* rng.h: seeded random numbers for jitter, tie-breaks and tests (splitmix64, Steele et al. 2014).
 * Never for sampling tokens (kernels/sample: Philox) and never for secrets (rng_entropy). */
#ifndef ARGOSY_BASE_RNG_H
#define ARGOSY_BASE_RNG_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t state;
};

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_u64(struct rng *r);
/* Uniform in [0, n), n > 0. */
uint64_t rng_below(struct rng *r, uint64_t n);
/* Uniform in [0, 1). */
double rng_unit(struct rng *r);

/* Fills from the system's generator; for ids, seeds and secrets. Ends the program if there is none.
 */
void rng_entropy(void *bytes, size_t n);

#endif
