/* ranks.h: the processes of a tensor-parallel group.
 *
 * Rank 0 is the process that calls; the others are its children. They are forked, not started
 * anew, so that all read the very file that rank 0 opened. A child keeps nothing of its parent but
 * memory and stderr: its files are closed, so no connection lives longer through it. It dies with
 * the thread that made it, stopped or not (PR_SET_PDEATHSIG), and leaves nothing behind: the shared
 * memory has no name.
 *
 * Thread: the one that will own the engine. It may fork while other threads run: children call
 * this code and libc alone.
 */
#ifndef ARGOSY_ENGINE_RANKS_H
#define ARGOSY_ENGINE_RANKS_H

#include <stdint.h>

#include "runtime/engine/collective.h"

struct ranks;

/* Forks n - 1 children, n >= 2; each calls serve(c, arg) and ends with it. */
int ranks_start(uint32_t n, void (*serve)(struct collective *c, void *arg), void *arg,
                struct ranks **out, struct err *e);

/* Rank 0's end. */
struct collective *ranks_collective(struct ranks *r);

/* 0, or ERR_PEER with the words once a child has ended. Never waits. */
int ranks_check(struct ranks *r, struct err *e);
/* The same, as collectives ask it (collective.h); arg: the struct ranks. */
int ranks_watch(void *arg, struct err *e);

/* Ends the children, whatever they do, and waits for them. NULL is fine. */
void ranks_free(struct ranks *r);

#endif
