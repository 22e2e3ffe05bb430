/* manifest.h: the hash of everything that determines a model's tokens.
 *
 * SHA-256 over "argosy-exact-1" (the version of kernels/NUMERICS.md), a zero byte and the bytes of
 * the model file. Workers and routers with equal manifests produce and expect equal bits.
 */
#ifndef ARGOSY_FORMAT_MANIFEST_H
#define ARGOSY_FORMAT_MANIFEST_H

#include <stddef.h>

#include "runtime/base/err.h"

/* hex gets 64 digits and a NUL. Reads the file once, in order (about 1.5 GB/s). */
int manifest_of_file(const char *path, char hex[65], struct err *e);
/* The same over bytes that are mapped already. */
int manifest_of_bytes(const void *bytes, size_t n, char hex[65], struct err *e);

#endif
