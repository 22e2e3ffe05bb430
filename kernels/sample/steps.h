/* steps.h: the passes over the vocabulary that have a version for each instruction set. What is
 * between them (ref.c, kn_sample_run) is the same code for all. Internal to kernels/. */
#ifndef ARGOSY_KERNELS_SAMPLE_STEPS_H
#define ARGOSY_KERNELS_SAMPLE_STEPS_H

#include "kernels/kernels.h"

/* Scaled logits below this have mass 0 and cannot win: the noise spans less than 20. */
#define SAMPLE_FLOOR (-28.0f)
#define SAMPLE_BELOW_FLOOR (-0x1.c00002p+4f) /* the next float below */
#define SAMPLE_MASS_ONE 0x1p+40f             /* the mass of the likeliest token */

/* Tokens still in the running, ids ascending. */
struct candidates {
    float *z; /* (logit - max) / temperature, in [SAMPLE_FLOOR, 0] */
    uint32_t *id;
    uint64_t *mass;
    uint32_t n;
};

struct sample_steps {
    /* Replaces NaN by -inf and +inf by FLT_MAX in l (n); returns the maximum, -0 as +0. */
    float (*clean)(float *l, uint32_t n);
    /* Sum of the masses exp(l - max), as integers. max is finite. */
    uint64_t (*total)(const float *l, uint32_t n, float max);
    /* Fills z, id and n of c from l (n), for tokens not below SAMPLE_FLOOR. max is finite. */
    void (*gather)(const float *l, uint32_t n, float max, float temperature, struct candidates *c);
    /* Fills c->mass. */
    void (*masses)(struct candidates *c);
    /* The id with the highest z plus noise, the lowest of equals. c->n > 0. */
    uint32_t (*gumbel)(const struct candidates *c, uint64_t seed, uint64_t position);
};

void kn_sample_run(const struct sample_steps *steps, float *logits, uint32_t vocab,
                   const struct kn_sampling *p, uint64_t position, void *scratch,
                   struct kn_sampled *out);

#endif
