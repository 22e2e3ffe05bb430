/* shim: what LD_PRELOAD puts between a program and the C library, to make the machine itself bad.
 *
 * ARGOSY_SHIM names a file of four 64-bit numbers, which the harness changes while the program
 * runs: 0  nanoseconds that wall time is off; monotonic time is not touched 1  how many times as
 * long clock_nanosleep takes: the engine of a hash worker, nothing else 2  one allocation in so
 * many fails; 0: none 3  the seed that says which
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WALL_NS, SLEEP_TIMES, ALLOC_ONE_IN, ALLOC_SEED, N_NUMBERS };

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

static _Atomic int64_t nothing[N_NUMBERS];
static _Atomic int64_t *numbers = nothing;

__attribute__((constructor)) static void find_numbers(void)
{
    const char *path = getenv("ARGOSY_SHIM");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof(nothing), PROT_READ, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED)
        numbers = at;
    close(fd);
}

/* ---- time ----------------------------------------------------------------------------------- */

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, clock, t);
    if (rc == 0 && clock == CLOCK_REALTIME) {
        int64_t ns = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec + numbers[WALL_NS];
        t->tv_sec = ns / 1000000000;
        t->tv_nsec = ns % 1000000000;
    }
    return rc;
}

static int sleep_for(int64_t ns)
{
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    return (int)syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL);
}

static int64_t now_ns(void)
{
    struct timespec t;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *t, struct timespec *left)
{
    int64_t from = now_ns(), until = (int64_t)t->tv_sec * 1000000000 + t->tv_nsec;
    int64_t want = flags & TIMER_ABSTIME ? until - from : until;
    (void)clock;
    (void)left;
    /* In pieces: it may be told to hurry up. */
    for (;;) {
        int64_t times = numbers[SLEEP_TIMES] > 1 ? numbers[SLEEP_TIMES] : 1;
        int64_t rest = want * times - (now_ns() - from);
        if (rest <= 0)
            return 0;
        sleep_for(rest < 5000000 ? rest : 5000000);
    }
}

/* ---- memory --------------------------------------------------------------------------------- */

static bool fails(void)
{
    static _Atomic uint64_t calls;
    int64_t one_in = numbers[ALLOC_ONE_IN];
    if (one_in <= 0)
        return false;
    uint64_t x = ++calls + (uint64_t)numbers[ALLOC_SEED] * 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    if ((x ^ (x >> 31)) % (uint64_t)one_in != 0)
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n)
{
    return fails() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    return fails() ? NULL : __libc_realloc(p, n);
}
