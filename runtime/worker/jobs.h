/* jobs.h: the requests that live in the engine, and whose they are.
 *
 * A router's request ids are unique in its attachment alone, so the engine knows a request by an id
 * of ours: a slot and how often the slot was used. Sized at start. Engine thread only.
 */
#ifndef ARGOSY_WORKER_JOBS_H
#define ARGOSY_WORKER_JOBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct attachment;

struct job {
    struct attachment *owner; /* NULL: a free slot */
    uint64_t request;         /* the router's id */
    uint32_t uses;
    uint32_t top_logprobs;
};

struct jobs {
    struct job *slots; /* (cap) */
    uint32_t *free;    /* (cap) stack of free slots */
    uint32_t cap;
    uint32_t n;
};

int jobs_init(struct jobs *j, uint32_t cap, struct err *e);
void jobs_release(struct jobs *j);

/* NULL when full. *engine_id is what the engine calls it. */
struct job *jobs_add(struct jobs *j, struct attachment *owner, uint64_t request,
                     uint64_t *engine_id);
/* NULL: not one that lives. */
struct job *jobs_by_engine(struct jobs *j, uint64_t engine_id);
struct job *jobs_by_request(struct jobs *j, const struct attachment *owner, uint64_t request);
uint64_t jobs_engine_id(const struct jobs *j, const struct job *job);
void jobs_remove(struct jobs *j, struct job *job);
/* The next job of this owner (NULL: of anybody) behind `after` (NULL: the first), or NULL. Removing
 * the one in hand is fine. */
struct job *jobs_next(struct jobs *j, const struct attachment *owner, const struct job *after);

#endif
