#include "runtime/base/library.h"

#include <dlfcn.h>
#include <string.h>

const char *library_open(const char *file, const struct library_call *calls, size_t n)
{
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return dlerror();
    for (size_t i = 0; i < n; i++) {
        void *p = dlsym(library, calls[i].name);
        if (!p)
            return dlerror();
        memcpy(calls[i].slot, &p, sizeof(p));
    }
    return NULL;
}
