/* cpu_clock.c: a library to preload: the monotonic clock becomes the process's processor time.
 *
 * For `compare.py --cpu-time`: a program of one thread then reports what it would reach with a core
 * of its own, on a machine that others use meanwhile. What they do to caches and memory still
 * shows.
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t id, struct timespec *t);

int clock_gettime(clockid_t id, struct timespec *t)
{
    if (id == CLOCK_MONOTONIC)
        id = CLOCK_PROCESS_CPUTIME_ID;
    return (int)syscall(SYS_clock_gettime, id, t);
}
