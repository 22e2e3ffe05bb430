#include "runtime/worker/jobs.h"

#include <stdlib.h>

#include "runtime/base/check.h"

int jobs_init(struct jobs *j, uint32_t cap, struct err *e)
{
    *j = (struct jobs){
        .slots = calloc(cap, sizeof(*j->slots)), .free = calloc(cap, sizeof(*j->free)), .cap = cap};
    if (!j->slots || !j->free) {
        jobs_release(j);
        return err_set(e, ERR_NOMEM, "no memory for %u requests", cap);
    }
    for (uint32_t i = 0; i < cap; i++)
        j->free[i] = cap - 1 - i;
    return 0;
}

void jobs_release(struct jobs *j)
{
    free(j->slots);
    free(j->free);
    *j = (struct jobs){0};
}

uint64_t jobs_engine_id(const struct jobs *j, const struct job *job)
{
    return (uint64_t)job->uses << 32 | (uint32_t)(job - j->slots);
}

struct job *jobs_add(struct jobs *j, struct attachment *owner, uint64_t request,
                     uint64_t *engine_id)
{
    if (j->n == j->cap)
        return NULL;
    struct job *job = &j->slots[j->free[j->cap - 1 - j->n]];
    j->n++;
    *job = (struct job){.owner = owner, .request = request, .uses = job->uses + 1};
    *engine_id = jobs_engine_id(j, job);
    return job;
}

struct job *jobs_by_engine(struct jobs *j, uint64_t engine_id)
{
    uint32_t slot = (uint32_t)engine_id;
    if (slot >= j->cap)
        return NULL;
    struct job *job = &j->slots[slot];
    return job->owner && job->uses == engine_id >> 32 ? job : NULL;
}

/* There are few, and Cancel is rare: no second index. */
struct job *jobs_by_request(struct jobs *j, const struct attachment *owner, uint64_t request)
{
    for (uint32_t i = 0; i < j->cap; i++)
        if (j->slots[i].owner == owner && j->slots[i].request == request)
            return &j->slots[i];
    return NULL;
}

void jobs_remove(struct jobs *j, struct job *job)
{
    ASSERT(job->owner);
    job->owner = NULL;
    j->n--;
    j->free[j->cap - 1 - j->n] = (uint32_t)(job - j->slots);
}

struct job *jobs_next(struct jobs *j, const struct attachment *owner, const struct job *after)
{
    for (uint32_t i = after ? (uint32_t)(after - j->slots) + 1 : 0; j->n && i < j->cap; i++)
        if (j->slots[i].owner && (!owner || j->slots[i].owner == owner))
            return &j->slots[i];
    return NULL;
}
