#include "runtime/base/threads.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/check.h"

#define CACHE_LINE 64
/* 20 to 50 µs of pauses: longer than any barrier where each thread has a core, and than the time
 * between two steps; shorter than a time slice. */
#define SPINS 1000

struct threads {
    /* The barrier: arrivals count up to n, the last one turns the phase. */
    _Alignas(CACHE_LINE) _Atomic uint32_t arrived;
    _Alignas(CACHE_LINE) _Atomic uint32_t phase;
    _Atomic uint32_t phase_sleepers;
    /* The number of the run: what helpers wait on. */
    _Alignas(CACHE_LINE) _Atomic uint32_t run;
    _Atomic uint32_t run_sleepers;
    void (*fn)(void *arg, uint32_t thread); /* NULL: go home */
    void *arg;
    uint32_t n;
    uint32_t n_started;
    struct helper {
        struct threads *threads;
        uint32_t index;
        pthread_t id;
    } * helpers; /* (n); [0] is the owner and has no id */
};

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Returns once *word is no longer `seen`, and what it is then. Spins first, then sleeps: a waiter
 * that kept its core could be what keeps the one it waits for from running. */
static uint32_t wait_for_change(_Atomic uint32_t *word, _Atomic uint32_t *sleepers, uint32_t seen)
{
    uint32_t now;
    for (uint32_t spins = 0; spins < SPINS; spins++) {
        now = atomic_load_explicit(word, memory_order_acquire);
        if (now != seen)
            return now;
        cpu_pause();
    }
    /* seq_cst on both sides: either the changer sees the sleeper, or the sleeper the change. */
    atomic_fetch_add(sleepers, 1);
    while ((now = atomic_load(word)) == seen)
        futex_wait(word, seen);
    atomic_fetch_sub(sleepers, 1);
    return now;
}

static void change(_Atomic uint32_t *word, _Atomic uint32_t *sleepers)
{
    atomic_fetch_add(word, 1);
    if (atomic_load(sleepers) > 0)
        futex_wake_all(word);
}

void threads_barrier(struct threads *t)
{
    if (t->n == 1)
        return;
    uint32_t phase = atomic_load_explicit(&t->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&t->arrived, 1, memory_order_acq_rel) == t->n - 1) {
        atomic_store_explicit(&t->arrived, 0, memory_order_relaxed);
        change(&t->phase, &t->phase_sleepers);
        return;
    }
    wait_for_change(&t->phase, &t->phase_sleepers, phase);
}

static void *helper_main(void *arg)
{
    struct helper *h = arg;
    struct threads *t = h->threads;
    uint32_t run = 0;
    for (;;) {
        run = wait_for_change(&t->run, &t->run_sleepers, run);
        if (!t->fn)
            return NULL;
        t->fn(t->arg, h->index);
        threads_barrier(t);
    }
}

static void announce(struct threads *t, void (*fn)(void *, uint32_t), void *arg)
{
    t->fn = fn;
    t->arg = arg;
    change(&t->run, &t->run_sleepers);
}

void threads_run(struct threads *t, void (*fn)(void *arg, uint32_t thread), void *arg)
{
    ASSERT(fn);
    if (t->n > 1)
        announce(t, fn, arg);
    fn(arg, 0);
    threads_barrier(t);
}

uint32_t threads_count(const struct threads *t)
{
    return t->n;
}

uint32_t threads_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n < 1 ? 1 : (uint32_t)n;
}

int threads_create(uint32_t n, struct threads **out, struct err *e)
{
    if (n == 0) {
        n = threads_cores();
        n = n > THREADS_MAX ? THREADS_MAX : n;
    }
    if (n > THREADS_MAX)
        return err_set(e, ERR_CONFIG, "threads: %u are more than %u", n, THREADS_MAX);
    struct threads *t = aligned_alloc(CACHE_LINE, sizeof(*t));
    struct helper *helpers = calloc(n, sizeof(*helpers));
    if (!t || !helpers) {
        free(t);
        free(helpers);
        return err_set(e, ERR_NOMEM, "threads: no memory");
    }
    *t = (struct threads){.n = n, .n_started = 1, .helpers = helpers};
    for (uint32_t i = 1; i < n; i++) {
        helpers[i] = (struct helper){.threads = t, .index = i};
        int rc = pthread_create(&helpers[i].id, NULL, helper_main, &helpers[i]);
        if (rc != 0) {
            threads_free(t);
            return err_sys(e, rc, "threads: cannot start thread %u of %u", i, n);
        }
        t->n_started++;
    }
    *out = t;
    return 0;
}

void threads_free(struct threads *t)
{
    if (!t)
        return;
    if (t->n_started > 1)
        announce(t, NULL, NULL);
    for (uint32_t i = 1; i < t->n_started; i++)
        pthread_join(t->helpers[i].id, NULL);
    free(t->helpers);
    free(t);
}
