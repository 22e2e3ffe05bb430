/* manifest.h: the hash of everything that determines a model's tokens.
 *
 * SHA-256 over "argosy-exact-1" (the version of kernels/NUMERICS.md), a zero byte, and the SHA-256
 * of each MANIFEST_CHUNK_BYTES of the model file in order, the last chunk being what is left. A
 * tree, so that all cores can hash one file. Workers and routers with equal manifests produce and
 * expect equal bits.
 */
#ifndef ARGOSY_FORMAT_MANIFEST_H
#define ARGOSY_FORMAT_MANIFEST_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/err.h"

#define MANIFEST_CHUNK_BYTES ((size_t)1 << 22)

/* What a model is run with that changes its tokens. */
struct manifest_options {
    bool kv_int8;
    const char *fast; /* "off", or the name of a fast mode (runtime/engine/fast.h) */
};

/* Makes hex the manifest of the same model run so. For each option that is on, kv first: SHA-256
 * over the digits so far, a zero byte, and "kv=int8" or "fast=" with its name. */
int manifest_add(char hex[65], const struct manifest_options *o, struct err *e);

/* hex gets 64 digits and a NUL. Takes a thread a core for as long as it runs (about 1.5 GB/s
 * each). */
int manifest_of_bytes(const void *bytes, size_t n, char hex[65], struct err *e);

#endif
