#include "router/http/histogram.h"

#include <inttypes.h>

#include "runtime/base/buf.h"

void histogram_add(struct histogram *h, double value)
{
    uint32_t i = 0;
    while (i < h->n && value > h->bounds[i])
        i++;
    h->counts[i]++;
    h->total++;
    h->sum += value;
}

void histogram_write(const struct histogram *h, const char *name, const char *labels,
                     struct buf *out)
{
    uint64_t below = 0;
    for (uint32_t i = 0; i <= h->n; i++) {
        below += h->counts[i];
        buf_addf(out, "%s_bucket{%s,le=\"", name, labels);
        if (i < h->n)
            buf_addf(out, "%.10g", h->bounds[i]);
        else
            buf_adds(out, "+Inf");
        buf_addf(out, "\"} %" PRIu64 "\n", below);
    }
    buf_addf(out, "%s_sum{%s} %.9g\n%s_count{%s} %" PRIu64 "\n", name, labels, h->sum, name, labels,
             h->total);
}
