/* collective_shm.c: ranks that share memory.
 *
 * Each rank has two windows and a count of its arrivals. In exchange k it copies its part into
 * window k % 2, says k, waits until all have said k, and copies the others' parts out. It writes
 * that window again in exchange k + 2, behind exchange k + 1, which all reach only after they have
 * read it. What is larger than a window goes in several exchanges.
 *
 * Waiting is spinning for a moment and then sleeping on a futex, because there may be more ranks
 * than cores.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/check.h"
#include "runtime/base/clock.h"
#include "runtime/engine/collective.h"
#include "runtime/model/shard.h"

#define CACHE_LINE 64
#define SPINS 1000
#define WINDOW_BYTES ((size_t)256 << 10)
/* Between two looks at the others. */
#define SLICE_MS 50u
/* Of a rank that does not judge: it is woken for news, and ends with rank 0. */
#define LONG_SLICE_MS 1000u

struct arrival {
    _Alignas(CACHE_LINE) _Atomic uint32_t count;
};

struct collective_region {
    uint32_t size;
    size_t bytes;
    _Alignas(CACHE_LINE) _Atomic uint32_t failed;
    _Atomic uint32_t sleepers;
    struct arrival arrivals[SHARD_RANKS_MAX];
    /* Then (2, size) windows. */
    _Alignas(4096) char windows[];
};

struct shm {
    struct collective base;
    struct collective_region *region;
    int (*watch)(void *arg, struct err *e);
    void *arg;
    uint64_t patience_ms;
    uint32_t exchanges;
};

/* ---- the region -------------------------------------------------------------------------------
 */

int collective_region_create(uint32_t size, struct collective_region **out, struct err *e)
{
    ASSERT(size > 0 && size <= SHARD_RANKS_MAX);
    size_t bytes = sizeof(struct collective_region) + 2 * size * WINDOW_BYTES;
    struct collective_region *r =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r == MAP_FAILED)
        return err_sys(e, errno, "no %zu bytes of shared memory for %u ranks", bytes, size);
    r->size = size; /* the rest is zero */
    r->bytes = bytes;
    *out = r;
    return 0;
}

void collective_region_free(struct collective_region *r)
{
    if (r)
        munmap(r, r->bytes);
}

static char *window(struct collective_region *r, uint32_t exchange, uint32_t rank)
{
    return r->windows + ((exchange % 2) * r->size + rank) * WINDOW_BYTES;
}

/* ---- waiting ----------------------------------------------------------------------------------
 */

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, uint32_t ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    syscall(SYS_futex, word, FUTEX_WAIT, seen, &t, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void arrive(struct shm *c)
{
    struct collective_region *r = c->region;
    /* seq_cst: either this sees the sleeper, or the sleeper the arrival. */
    atomic_store(&r->arrivals[c->base.rank].count, c->exchanges);
    if (atomic_load(&r->sleepers) > 0)
        futex_wake_all(&r->arrivals[c->base.rank].count);
}

static int fail(struct shm *c)
{
    struct collective_region *r = c->region;
    atomic_store(&r->failed, 1);
    for (uint32_t i = 0; i < r->size; i++)
        futex_wake_all(&r->arrivals[i].count);
    return c->base.lost.code;
}

/* Rank 0, after a slice of waiting for rank i: whether to go on. */
static int judge(struct shm *c, uint32_t i, uint64_t waited_ms)
{
    if (c->watch && c->watch(c->arg, &c->base.lost) < 0)
        return fail(c);
    if (c->patience_ms == 0 || waited_ms < c->patience_ms)
        return 0;
    err_set(&c->base.lost, ERR_PEER, "rank %u did not answer within %llu ms", i,
            (unsigned long long)c->patience_ms);
    return fail(c);
}

static bool has_come(const struct shm *c, uint32_t i)
{
    uint32_t count = atomic_load_explicit(&c->region->arrivals[i].count, memory_order_acquire);
    return (int32_t)(count - c->exchanges) >= 0;
}

static int sleep_for(struct shm *c, uint32_t i)
{
    struct collective_region *r = c->region;
    bool judges = c->base.rank == 0;
    uint64_t waited_ms = 0, begin_ms = clock_mono_ms();
    int rc = 0;
    atomic_fetch_add(&r->sleepers, 1);
    while (rc == 0) {
        uint32_t count = atomic_load(&r->arrivals[i].count);
        if ((int32_t)(count - c->exchanges) >= 0)
            break;
        if (atomic_load(&r->failed)) {
            rc = err_set(&c->base.lost, ERR_PEER, "the group of ranks has failed");
            break;
        }
        futex_wait(&r->arrivals[i].count, count, judges ? SLICE_MS : LONG_SLICE_MS);
        /* A machine that stood still is nobody's fault: a slice counts twice its length at most. */
        uint64_t now_ms = clock_mono_ms(), slice_ms = now_ms - begin_ms;
        waited_ms += slice_ms < 2 * SLICE_MS ? slice_ms : 2 * SLICE_MS;
        begin_ms = now_ms;
        if (judges && !has_come(c, i))
            rc = judge(c, i, waited_ms);
    }
    atomic_fetch_sub(&r->sleepers, 1);
    return rc;
}

static int wait_for(struct shm *c, uint32_t i)
{
    for (uint32_t spins = 0; spins < SPINS; spins++) {
        if (has_come(c, i))
            return 0;
        cpu_pause();
    }
    return sleep_for(c, i);
}

/* ---- copying ----------------------------------------------------------------------------------
 */

enum direction { INTO_WINDOW, OUT_OF_WINDOW };

/* Bytes [from, to) of a rank's part of the plane, rows one behind another. */
static void copy_plane(const struct collective_plane *p, uint32_t rank, size_t from, size_t to,
                       char *window, enum direction direction)
{
    size_t width = collective_width(p, rank);
    while (from < to) {
        size_t row = from / width, at = from % width;
        size_t n = width - at < to - from ? width - at : to - from;
        if (direction == INTO_WINDOW)
            memcpy(window, (const char *)p->src + row * p->src_stride + at, n);
        else
            memcpy((char *)p->dst + row * p->dst_stride + p->begin[rank] + at, window, n);
        window += n;
        from += n;
    }
}

/* Bytes from `first` on, as many as a window holds, of a rank's parts of all planes. */
static void copy_window(const struct collective_plane *planes, int n, uint32_t rank, size_t first,
                        char *window, enum direction direction)
{
    size_t last = first + WINDOW_BYTES, at = 0;
    for (int i = 0; i < n; i++) {
        size_t bytes = planes[i].rows * collective_width(&planes[i], rank);
        size_t from = first > at ? first : at, to = last < at + bytes ? last : at + bytes;
        if (from < to)
            copy_plane(&planes[i], rank, from - at, to - at, window + (from - first), direction);
        at += bytes;
    }
}

static void copy_own(const struct collective_plane *p, uint32_t rank)
{
    size_t width = collective_width(p, rank);
    char *dst = (char *)p->dst + p->begin[rank];
    if (dst == p->src || width == 0)
        return;
    for (size_t row = 0; row < p->rows; row++)
        memcpy(dst + row * p->dst_stride, (const char *)p->src + row * p->src_stride, width);
}

/* ---- the exchange -----------------------------------------------------------------------------
 */

/* Of the rank that has most. */
static size_t most_bytes(const struct collective_plane *planes, int n, uint32_t size)
{
    size_t most = 0;
    for (uint32_t rank = 0; rank < size; rank++) {
        size_t bytes = 0;
        for (int i = 0; i < n; i++)
            bytes += planes[i].rows * collective_width(&planes[i], rank);
        most = bytes > most ? bytes : most;
    }
    return most;
}

static int exchange(struct shm *c, const struct collective_plane *planes, int n, size_t first,
                    bool wanted)
{
    uint32_t own = c->base.rank, size = c->base.size;
    c->exchanges++;
    copy_window(planes, n, own, first, window(c->region, c->exchanges, own), INTO_WINDOW);
    arrive(c);
    for (uint32_t i = 1; i < size; i++) {
        uint32_t other = (own + i) % size;
        int rc = wait_for(c, other);
        if (rc < 0)
            return rc;
        if (wanted)
            copy_window(planes, n, other, first, window(c->region, c->exchanges, other),
                        OUT_OF_WINDOW);
    }
    return 0;
}

static int shm_gather(struct collective *base, const struct collective_plane *planes, int n,
                      uint32_t root, struct err *e)
{
    struct shm *c = (struct shm *)base;
    bool wanted = root == COLLECTIVE_ALL || root == base->rank;
    ASSERT(n <= COLLECTIVE_PLANES_MAX);
    size_t bytes = most_bytes(planes, n, base->size), first = 0;
    int rc = c->base.lost.code;
    do {
        if (rc == 0)
            rc = exchange(c, planes, n, first, wanted);
        first += WINDOW_BYTES;
    } while (rc == 0 && first < bytes);
    for (int i = 0; i < n && rc == 0 && wanted; i++)
        copy_own(&planes[i], base->rank);
    return rc < 0 ? err_set(e, rc, "%s", c->base.lost.msg) : 0;
}

static void shm_set_patience(struct collective *base, uint64_t ms)
{
    ((struct shm *)base)->patience_ms = ms;
}

static void shm_free(struct collective *base)
{
    free(base);
}

int collective_open(struct collective_region *r, uint32_t rank,
                    int (*watch)(void *arg, struct err *e), void *arg, struct collective **out,
                    struct err *e)
{
    ASSERT(rank < r->size);
    struct shm *c = calloc(1, sizeof(*c));
    if (!c)
        return err_set(e, ERR_NOMEM, "no memory for rank %u", rank);
    c->base = (struct collective){.rank = rank,
                                  .size = r->size,
                                  .gather = shm_gather,
                                  .set_patience = shm_set_patience,
                                  .free = shm_free};
    c->region = r;
    c->watch = watch;
    c->arg = arg;
    *out = &c->base;
    return 0;
}
