/* trace.h: traces of real traffic, as benchmarks/policy/traces has them.
 *
 *     # block_tokens N              optional, first line: what the numbers of blocks stand for
 *     MS,PROMPT,OUTPUT[,BLOCKS]     MS since the start, tokens; BLOCKS: numbers and runs A-B by
 * spaces
 */
#ifndef ARGOSY_BENCH_POLICY_TRACE_H
#define ARGOSY_BENCH_POLICY_TRACE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define TRACE_REQUESTS_MAX (1u << 20)
#define TRACE_BLOCKS_MAX (1u << 24)
#define TRACE_TOKENS_MAX (1u << 20)

struct trace_request {
    double at_s;
    uint32_t prompt, output; /* tokens; both at least 1 */
    size_t first_block;      /* in the trace's hashes */
    uint32_t n_blocks;       /* whole ones, without the prompt's last token */
};

struct trace {
    struct trace_request *requests; /* (n), by time */
    size_t n;
    uint64_t *hashes; /* (n_hashes): equal hash, equal prefix */
    size_t n_hashes;
    uint32_t block_tokens; /* 0: prompts have no blocks */
};

int trace_read(const char *text, size_t n, struct trace *out, struct err *e);
int trace_open(const char *path, struct trace *out, struct err *e);
void trace_release(struct trace *t);

#endif
