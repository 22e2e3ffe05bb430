#include "runtime/base/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#define HUGE_BYTES ((size_t)2 << 20)

static size_t rounded(size_t bytes)
{
    return (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES + (bytes == 0 ? HUGE_BYTES : 0);
}

uint64_t memory_of_machine(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

void *memory_map(size_t bytes)
{
    if (bytes > SIZE_MAX / 4)
        return NULL;
    size_t n = rounded(bytes);
    char *p = mmap(NULL, n + HUGE_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    /* One huge page more was mapped than is wanted: cut the block out at a boundary. */
    size_t before = -(uintptr_t)p & (HUGE_BYTES - 1);
    if (before)
        munmap(p, before);
    if (HUGE_BYTES - before)
        munmap(p + before + n, HUGE_BYTES - before);
    madvise(p + before, n, MADV_HUGEPAGE); /* a wish: without it everything works, slower */
    madvise(p + before, n, MADV_DONTFORK);
    return p + before;
}

void memory_forget(void *p, size_t bytes)
{
    madvise(p, rounded(bytes), MADV_DONTNEED);
}

void memory_unmap(void *p, size_t bytes)
{
    if (p)
        munmap(p, rounded(bytes));
}
