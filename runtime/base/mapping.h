/* mapping.h: a file's bytes, read-only, without reading them.
 *
 * Owner: who opened it. The file must not shrink while it is mapped (the kernel answers that with
 * SIGBUS). Any thread may read.
 */
#ifndef ARGOSY_BASE_MAPPING_H
#define ARGOSY_BASE_MAPPING_H

#include <stddef.h>

#include "runtime/base/err.h"

/* Zeroed: nothing is mapped. */
struct mapping {
    const void *bytes;
    size_t n;
};

/* Maps a regular file that is not empty. Errors name it: ERR_NOT_FOUND when it is not there, ERR_IO
 * for what is no regular file (a FIFO does not block), ERR_FORMAT for an empty one. *m is untouched
 * on failure. */
int mapping_open(struct mapping *m, const char *path, struct err *e);
/* Fine for what is not mapped. */
void mapping_release(struct mapping *m);

/* Tells the kernel that n of the bytes from `at` on are not wanted for now: whole pages only. They
 * are read again from the file when they are. */
void mapping_forget(const void *at, size_t n);

#endif
