/* histogram.h: counts of values by bounds, as Prometheus has them. */
#ifndef ARGOSY_ROUTER_HTTP_HISTOGRAM_H
#define ARGOSY_ROUTER_HTTP_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_BOUNDS_MAX 24

struct buf;

struct histogram {
    const double *bounds; /* (n), ascending */
    uint32_t n;
    uint64_t counts[HISTOGRAM_BOUNDS_MAX + 1]; /* each for itself, the last is +Inf */
    uint64_t total;
    double sum;
};

void histogram_add(struct histogram *h, double value);
/* Its lines of the text format: buckets, sum, count. `labels` stands before `le`: `a="b"`. */
void histogram_write(const struct histogram *h, const char *name, const char *labels,
                     struct buf *out);

#endif
