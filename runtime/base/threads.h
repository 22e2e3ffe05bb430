/* threads.h: a fixed crew of threads that run one function side by side (SPMD).
 *
 * threads_run hands the same function to all of them; inside it they meet at threads_barrier, many
 * times a step. Waiting, there and between runs, is spinning for a moment, because a barrier takes
 * less than a microsecond when every thread has a core, and then sleeping on a futex, because it
 * may have none.
 *
 * Thread: the creator owns it and is thread 0 of every run. No locks: a few atomics.
 */
#ifndef ARGOSY_BASE_THREADS_H
#define ARGOSY_BASE_THREADS_H

#include <stdint.h>

#include "runtime/base/err.h"

#define THREADS_MAX 256u

struct threads;

/* n threads, the caller's own included; 0: one for each core this process may use. */
int threads_create(uint32_t n, struct threads **out, struct err *e);
/* NULL is fine. Not from inside a run. */
void threads_free(struct threads *t);
uint32_t threads_count(const struct threads *t);
/* Cores that this process may use: at least 1. */
uint32_t threads_cores(void);

/* Runs fn(arg, i) for every i below threads_count, i = 0 here; returns when all have returned. */
void threads_run(struct threads *t, void (*fn)(void *arg, uint32_t thread), void *arg);

/* Inside a run, by every thread: nobody leaves before all have come. What was written before it is
 * seen by all after it. */
void threads_barrier(struct threads *t);

/* The part of [0, n) that is thread i's, as even as can be: *begin to *end. */
static inline void threads_slice(uint32_t n_threads, uint32_t i, int64_t n, int64_t *begin,
                                 int64_t *end)
{
    *begin = n * i / n_threads;
    *end = n * (i + 1) / n_threads;
}

#endif
