#include "runtime/base/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int mapping_open(struct mapping *m, const char *path, struct err *e)
{
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not block */
    if (fd < 0 && errno == ENOENT)
        return err_set(e, ERR_NOT_FOUND, "%s: there is no such file", path);
    if (fd < 0)
        return err_sys(e, errno, "%s", path);
    if (fstat(fd, &st) < 0)
        rc = err_sys(e, errno, "%s", path);
    else if (!S_ISREG(st.st_mode))
        rc = err_set(e, ERR_IO, "%s: not a regular file", path);
    else if (st.st_size == 0)
        rc = err_set(e, ERR_FORMAT, "%s: the file is empty", path);
    if (rc == 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            rc = err_sys(e, errno, "%s: mmap", path);
        else
            *m = (struct mapping){.bytes = p, .n = (size_t)st.st_size};
    }
    close(fd);
    return rc;
}

void mapping_release(struct mapping *m)
{
    if (m->bytes)
        munmap((void *)(uintptr_t)m->bytes, m->n);
    *m = (struct mapping){0};
}

void mapping_forget(const void *at, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)at + page - 1) & ~(page - 1);
    uintptr_t end = ((uintptr_t)at + n) & ~(page - 1);
    if (end > begin)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}
