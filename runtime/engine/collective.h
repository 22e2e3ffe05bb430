/* collective.h: how the ranks of a tensor-parallel group exchange what they computed.
 *
 * One operation: rows whose columns lie in parts over the ranks become whole. It is all that exact
 * tensor parallelism needs, because no rank ever adds up what others computed (runtime/model/
 * shard.h). Every rank makes the same calls in the same order with the same shapes.
 *
 * A group fails as a whole and for good: rank 0 judges. While it waits it looks whether the others
 * live, and its patience ends; then every rank's call returns ERR_PEER, and so do all later ones.
 * The other ranks wait for as long as rank 0 lives.
 *
 * Implementations: memory that the ranks share (collective_shm.c), for threads and processes of one
 * machine; NCCL (collective_nccl.h), for memory of their GPUs.
 *
 * Thread: one at a time on each rank.
 */
#ifndef ARGOSY_ENGINE_COLLECTIVE_H
#define ARGOSY_ENGINE_COLLECTIVE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define COLLECTIVE_ALL UINT32_MAX
#define COLLECTIVE_PLANES_MAX 8

/* Rank r has bytes [begin[r], begin[r + 1]) of each of the rows. */
struct collective_plane {
    const void *src;   /* this rank's part of row i is at src + i * src_stride */
    size_t src_stride; /* in bytes */
    /* Whole rows; untouched where they are not wanted. src may lie in dst at its own place. */
    void *dst;
    size_t dst_stride;
    size_t rows;
    const size_t *begin; /* (size + 1) */
};

/* Bytes of a row that a rank has. */
static inline size_t collective_width(const struct collective_plane *p, uint32_t rank)
{
    return p->begin[rank + 1] - p->begin[rank];
}

struct collective {
    uint32_t rank, size;
    struct err lost; /* code < 0 once the group has failed: what every call returns then */
    int (*gather)(struct collective *c, const struct collective_plane *planes, int n, uint32_t root,
                  struct err *e);
    /* Of a device: returns when what was queued is done. NULL: gather has done it. */
    int (*wait)(struct collective *c, struct err *e);
    /* How long rank 0 waits for the others in one exchange; 0: as long as they live. */
    void (*set_patience)(struct collective *c, uint64_t ms);
    void (*free)(struct collective *c);
};

/* Makes the rows of n planes whole: on rank `root`, or on all with COLLECTIVE_ALL. Returns when
 * this rank's src may be written again. */
static inline int collective_gather(struct collective *c, const struct collective_plane *planes,
                                    int n, uint32_t root, struct err *e)
{
    return c->gather(c, planes, n, root, e);
}

/* All that gather, and whoever else uses its stream, has queued is done. ERR_PEER: the group has
 * failed; ERR_IO: the device has. */
static inline int collective_wait(struct collective *c, struct err *e)
{
    return c->wait ? c->wait(c, e) : 0;
}

/* Nobody leaves before all have come. */
static inline int collective_barrier(struct collective *c, struct err *e)
{
    return c->gather(c, NULL, 0, COLLECTIVE_ALL, e);
}

/* Rank 0's bytes to all; n is the same everywhere. */
int collective_broadcast(struct collective *c, void *bytes, size_t n, struct err *e);

/* What the ranks have come to: 0, or the code and message of the first that did not succeed, with
 * its number, the same on all. own is this rank's if rc < 0. */
int collective_agree(struct collective *c, int rc, const struct err *own, struct err *e);

static inline void collective_set_patience(struct collective *c, uint64_t ms)
{
    c->set_patience(c, ms);
}

static inline void collective_free(struct collective *c)
{
    if (c)
        c->free(c);
}

/* ---- shared memory --------------------------------------------------------------------------- */

struct collective_region;

/* The memory that a group shares: anonymous, inherited by fork, gone with its last user. */
int collective_region_create(uint32_t size, struct collective_region **out, struct err *e);
void collective_region_free(struct collective_region *r);

/* A rank's end of it. Every rank opens its own, once; the region outlives it. While rank 0 waits it
 * asks `watch` (NULL: nobody) a few times a second whether the others live: 0, or a negative code
 * with the words. */
int collective_open(struct collective_region *r, uint32_t rank,
                    int (*watch)(void *arg, struct err *e), void *arg, struct collective **out,
                    struct err *e);

#endif
