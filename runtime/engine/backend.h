/* backend.h: what computes a step: a device, its buffers, and its form of a pass.
 *
 * A pass takes a batch of rows (tokens at positions of sequences) through the model: the
 * architecture's `forward` over the backend's struct pass_ops (runtime/model/pass.h).
 *
 * Which thread does what:
 *   - The engine's thread owns a backend and makes every call of it.
 *   - CPU (backend_cpu.c): backend_run lets every thread of the crew run `forward` side by side,
 *     each with a struct pass of its own over shared registers. An operation does this thread's
 *     share and then meets the others at a barrier, or does all of it in every thread into private
 *     memory where that is cheaper than meeting.
 *   - CUDA (backend_cuda.c): `forward` runs once, on the engine's thread: each call enqueues, and
 *     backend_run waits at the end.
 *
 * What an element of a result is never depends on the batch, the threads or the backend
 * (kernels/NUMERICS.md).
 */
#ifndef ARGOSY_ENGINE_BACKEND_H
#define ARGOSY_ENGINE_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "runtime/base/err.h"
#include "runtime/engine/fast.h"
#include "runtime/model/pass.h"

struct collective;
struct adapter;
struct gpu;
struct model;
struct threads;

/* A row whose logits are wanted, and the token to pick from them. */
struct pick {
    uint32_t row;                       /* of the batch */
    uint64_t position;                  /* of the token to pick: prompt and output before it */
    const struct kn_sampling *sampling; /* NULL: no token yet; the logits stay (backend_logits) */
    bool want_digest;

    struct kn_sampled sampled; /* out */
    uint64_t logits_digest;    /* out, if wanted: a hash of the logits' bits */
    bool finite;               /* out: whether all logits were; if not, sampled means nothing */
};

/* Rows that follow one another in a span, whose states behind the output norm are added up. None of
 * them is picked. */
struct pooling {
    uint32_t row; /* of the batch: the first */
    uint32_t rows;
    double *sum; /* (n_embd), added to, row after row */
};

/* Rows of one span follow one another, spans in order. */
struct batch {
    const uint32_t *ids; /* (n_rows), below the vocabulary */
    uint32_t n_rows;
    const struct kn_span *spans; /* (n_spans) */
    uint32_t n_spans;
    struct pick *picks; /* (n_picks), rows ascending */
    uint32_t n_picks;
    const struct pooling *pools; /* (n_pools) */
    uint32_t n_pools;
    /* (n_spans) what is added for the span's rows, or NULL; NULL: for none of the batch. */
    const struct adapter *const *adapters;
};

struct backend_limits {
    uint32_t rows_max;  /* of a batch */
    uint32_t picks_max; /* of a batch */
    uint32_t context;   /* positions */
    uint32_t kv_pages;
    uint32_t host_slots; /* of a device, for pages on the host; 0 on the CPU */
    /* (n_adapters) what batches may name. They outlive the backend. */
    const struct adapter *adapters;
    uint32_t n_adapters;
    uint32_t adapter_rank; /* the largest of all adapters; 0: there are none */
    enum kn_kv_type kv_type;
    enum fast_mode fast; /* a GPU's alone */
};

struct backend {
    void (*run)(struct backend *b, struct batch *batch);
    void (*sample)(struct backend *b, struct batch *batch, const uint32_t *which, uint32_t n);
    const float *(*logits)(struct backend *b, uint32_t pick);
    const float *(*hidden)(struct backend *b, uint32_t row);
    int (*check)(struct backend *b, struct err *e);                    /* NULL: it does not fail */
    void (*page_out)(struct backend *b, uint32_t page, uint32_t slot); /* NULL without slots */
    void (*page_in)(struct backend *b, uint32_t slot, uint32_t page);
    void (*page_fence)(struct backend *b);
    void (*free)(struct backend *b);
};

/* Bytes of a KV page over all layers, and over all ranks. 0 when they are too many to count. */
uint64_t backend_page_bytes(const struct model *m, enum kn_kv_type type);

/* The CPU with the crew of `threads`. m, threads and group outlive it. Takes all its memory now.
 * group: the other ranks that have the rest of m; NULL when it is the only one. All of them run the
 * same batches; rank 0 alone answers picks. When the group fails, a run still ends, and what it
 * leaves means nothing: the collective remembers. */
int backend_cpu_create(const struct model *m, struct threads *threads, struct collective *group,
                       const struct backend_limits *limits, struct backend **out, struct err *e);

/* The ranks of a group of GPUs, each with a process and a GPU of its own. */
struct gpu_group {
    struct collective
        *control; /* by which they meet, in memory of the host; outlives the backend */
    /* Rank 0's: whether the others live (collective.h), and how long a step waits for them. */
    int (*watch)(void *arg, struct err *e);
    void *arg;
    uint64_t patience_ms;
};

/* A GPU that gpu_choose found; outlives nothing: the GPU's memory is taken now, and m's weights and
 * vectors are brought there, from a model for KN_ISA_REF. group: NULL for a GPU alone; else all
 * ranks call this together, each with its GPU. ERR_CONFIG: the model, or something that limits ask
 * for, is not served on a GPU, or there is too little memory; the words say what to do. */
int backend_cuda_create(const struct model *m, const struct gpu *gpu, const struct gpu_group *group,
                        const struct backend_limits *limits, struct backend **out, struct err *e);

/* KV pages and the host, between runs, where there are slots: queue the copy of a page, of all
 * layers, to a slot or back, and return at once. Copies happen in the order of the calls. The next
 * run waits for those before the fence; those behind it may go on beside that run, which must not
 * read or write their pages. */
static inline void backend_page_out(struct backend *b, uint32_t page, uint32_t slot)
{
    b->page_out(b, page, slot);
}

static inline void backend_page_in(struct backend *b, uint32_t slot, uint32_t page)
{
    b->page_in(b, slot, page);
}

static inline void backend_page_fence(struct backend *b)
{
    if (b->page_fence)
        b->page_fence(b);
}

/* Computes the batch: KV of all its rows is in the pages, picks are answered. */
static inline void backend_run(struct backend *b, struct batch *batch)
{
    b->run(b, batch);
}

/* After a run of this batch, until the next: answers n of its picks that had no sampling then and
 * have it now, each once. which: their indices. */
static inline void backend_sample(struct backend *b, struct batch *batch, const uint32_t *which,
                                  uint32_t n)
{
    b->sample(b, batch, which, n);
}

/* After a run, until the next: logits of a pick without sampling (vocab), on the host. */
static inline const float *backend_logits(struct backend *b, uint32_t pick)
{
    return b->logits(b, pick);
}

/* After a run, until the next: the residual stream of a row behind the last layer (n_embd); of a
 * row that was pooled, its state behind the output norm. */
static inline const float *backend_hidden(struct backend *b, uint32_t row)
{
    return b->hidden(b, row);
}

/* 0, or ERR_PEER with the words once the device has failed: nothing is computed any more, and what
 * a run has left means nothing. */
static inline int backend_check(struct backend *b, struct err *e)
{
    return b->check ? b->check(b, e) : 0;
}

static inline void backend_free(struct backend *b)
{
    if (b)
        b->free(b);
}

#endif
