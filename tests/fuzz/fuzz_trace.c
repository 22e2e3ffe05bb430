/* Traces for the simulator of pools: whatever is in the file, it is read or refused. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "benchmarks/policy/sim/trace.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct trace t;
    struct err e = {0};
    /* A run of blocks is short to write and long to hold. */
    if (n > 4096 || trace_read((const char *)data, n, &t, &e) < 0)
        return 0;
    for (size_t i = 0; i < t.n; i++) {
        const struct trace_request *q = &t.requests[i];
        if (q->prompt == 0 || q->output == 0 || q->first_block + q->n_blocks > t.n_hashes ||
            (i > 0 && q->at_s < q[-1].at_s))
            abort();
    }
    trace_release(&t);
    return 0;
}
