/* said.h: what an engine says of some requests, to be compared with what another one says. */
#ifndef ARGOSY_TESTS_SAID_H
#define ARGOSY_TESTS_SAID_H

#include <string.h>

#include "kernels/simt/simt.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/gpu.h"

#define SAID_REQUESTS 8
#define SAID_TOKENS 16
#define SAID_EMBEDDING 256

/* By id, from 1 on. */
struct said {
    uint32_t n_tokens; /* of all */
    uint32_t tokens[SAID_REQUESTS][SAID_TOKENS];
    uint64_t digests[SAID_REQUESTS][SAID_TOKENS];
    float embedding[SAID_EMBEDDING];
};

/* From here on this process is on a machine with so many emulated GPUs. */
static inline void on_gpus(int devices)
{
    const struct simt_machine m = {
        .devices = devices, .major = 8, .minor = 0, .driver = 13000, .memory = (size_t)2 << 30};
    simt_machine_set(&m);
    gpu_forget();
}

static inline void said_note(struct said *s, const struct engine_delta *d)
{
    if (d->embedding)
        memcpy(s->embedding, d->embedding, d->n_embedding * sizeof(float));
    for (uint32_t k = 0; k < d->n_tokens; k++) {
        s->tokens[d->id - 1][d->index + k] = d->tokens[k];
        s->digests[d->id - 1][d->index + k] = d->logits_digests[k];
    }
    s->n_tokens += d->n_tokens;
}

static inline void said_submit(struct engine *g, const struct engine_request *r, uint32_t n)
{
    struct err e = {0};
    for (uint32_t i = 0; i < n; i++)
        if (engine_submit(g, &r[i], &e) < 0)
            fail_msg("%s", e.msg);
}

/* To the end of all, or until the device is lost. */
static inline void said_run(struct engine *g, const struct engine_request *r, uint32_t n,
                            struct said *out)
{
    struct engine_step s;
    *out = (struct said){0};
    said_submit(g, r, n);
    for (bool more = true; more && engine_check(g, NULL) == 0;) {
        more = engine_step(g, &s);
        for (uint32_t i = 0; i < s.n_deltas; i++)
            said_note(out, &s.deltas[i]);
    }
}

static inline void assert_same_said(const struct said *a, const struct said *b)
{
    assert_int_equal(a->n_tokens, b->n_tokens);
    assert_memory_equal(a->digests, b->digests, sizeof(a->digests));
    assert_memory_equal(a->tokens, b->tokens, sizeof(a->tokens));
    assert_memory_equal(a->embedding, b->embedding, sizeof(a->embedding));
}

#endif
