/* fnv.h: FNV-1a, 64 bits (draft-eastlake-fnv): for tables and for seeing that something changed,
 * where nobody gains by a collision. */
#ifndef ARGOSY_BASE_FNV_H
#define ARGOSY_BASE_FNV_H

#include <stddef.h>
#include <stdint.h>

#define FNV_SEED UINT64_C(0xcbf29ce484222325)

/* Goes on from h: FNV_SEED, or what was hashed before. */
static inline uint64_t fnv1a(uint64_t h, const void *bytes, size_t n)
{
    const unsigned char *b = bytes;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * UINT64_C(0x100000001b3);
    return h;
}

#endif
