#include "router/http/sketch.h"

#include <math.h>

#define FIRST_S 1e-4
#define GROWTH 1.1

static uint32_t bin_of(double seconds)
{
    if (!(seconds > FIRST_S))
        return 0;
    double i = log(seconds / FIRST_S) / log(GROWTH);
    return i < SKETCH_BINS - 1 ? (uint32_t)i : SKETCH_BINS - 1;
}

void sketch_add(struct sketch *s, double seconds, uint32_t n)
{
    s->counts[bin_of(seconds)] += n;
    s->total += n;
}

void sketch_merge(struct sketch *into, const struct sketch *from)
{
    for (int i = 0; i < SKETCH_BINS; i++)
        into->counts[i] += from->counts[i];
    into->total += from->total;
}

double sketch_percentile(const struct sketch *s, double p)
{
    uint64_t below = 0;
    double rank = ceil(p * s->total);
    if (s->total == 0)
        return 0;
    for (int i = 0; i < SKETCH_BINS; i++) {
        below += s->counts[i];
        if (below > 0 && (double)below >= rank)
            return FIRST_S * pow(GROWTH, i + 0.5); /* the bin's middle, by ratio */
    }
    return FIRST_S * pow(GROWTH, SKETCH_BINS);
}
