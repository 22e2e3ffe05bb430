/* opener.h: opens and frees engines on a thread of its own, one after the other.
 *
 * Both read or give back gigabytes, and other models' streams are not to stop for that. The thread
 * lives as long as the opener: ranks are children of the thread that opened their engine, and end
 * with it (runtime/engine/ranks.h). So an engine that came from here must be freed here.
 *
 * Threads: the functions are the owner's; `wake` is called on the opener's thread. What is posted
 * belongs to the opener until opener_take or opener_wait gives it back.
 */
#ifndef ARGOSY_WORKER_OPENER_H
#define ARGOSY_WORKER_OPENER_H

#include <stdbool.h>

#include "runtime/engine/engine.h"

struct opener;

/* A piece of work, in the owner's memory. */
struct opening {
    struct opening *next;
    const struct engine_config *config; /* to open, borrowed; NULL: `engine` is to be freed */
    struct engine *engine;              /* what was opened; NULL: nothing, or no more */
    int rc;                             /* of engine_open */
    struct err err;
};

/* `wake` says that there is something to take; it only wakes somebody. */
int opener_create(void (*wake)(void *ctx), void *ctx, struct opener **out, struct err *e);
/* Finishes all work first. NULL is fine. */
void opener_free(struct opener *o);

void opener_post(struct opener *o, struct opening *work);
/* The oldest that is done, or NULL. */
struct opening *opener_take(struct opener *o);
/* The same, waiting for it. Something must have been posted. */
struct opening *opener_wait(struct opener *o);
/* Something is under way or to come. */
bool opener_busy(struct opener *o);

#endif
