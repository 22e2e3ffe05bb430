/* library.h: a shared library that is opened when it is wanted, not when the program starts.
 *
 * Thread: one at a time.
 */
#ifndef ARGOSY_BASE_LIBRARY_H
#define ARGOSY_BASE_LIBRARY_H

#include <stddef.h>

struct library_call {
    const char *name;
    void *slot; /* of any pointer to a function: where the address goes */
};

/* NULL once `file` is open and all n calls are found; else why not, in the loader's words. What is
 * open stays so. */
const char *library_open(const char *file, const struct library_call *calls, size_t n);

#endif
