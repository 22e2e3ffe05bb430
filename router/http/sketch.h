/* sketch.h: percentiles of times, from counts in bins that grow by a tenth each: 0.1 ms to some 400
 * s, right to 5 %. What lies outside counts in the first or the last bin. */
#ifndef ARGOSY_ROUTER_HTTP_SKETCH_H
#define ARGOSY_ROUTER_HTTP_SKETCH_H

#include <stdint.h>

#define SKETCH_BINS 160

struct sketch {
    uint32_t counts[SKETCH_BINS];
    uint32_t total;
};

/* n times the same. */
void sketch_add(struct sketch *s, double seconds, uint32_t n);
void sketch_merge(struct sketch *into, const struct sketch *from);
/* The time that a share of `p` (0 to 1) does not exceed; 0 when there is none. */
double sketch_percentile(const struct sketch *s, double p);

#endif
