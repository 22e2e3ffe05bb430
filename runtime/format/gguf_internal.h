/* gguf_internal.h: what gguf.c (parsing) and gguf_meta.c (metadata) share; nobody else includes it.
 */
#ifndef ARGOSY_FORMAT_GGUF_INTERNAL_H
#define ARGOSY_FORMAT_GGUF_INTERNAL_H

#include <string.h>

#include "runtime/base/mapping.h"
#include "runtime/format/gguf.h"
#include "runtime/format/shown.h"

struct gguf_kv {
    const unsigned char *key;
    const unsigned char *value; /* for an array: its first element */
    uint64_t count;             /* of an array's elements */
    uint32_t key_bytes;
    uint8_t type;
    uint8_t elem_type;
};

struct gguf {
    const unsigned char *base;
    size_t bytes;
    struct mapping mapping; /* of the file; nothing for gguf_open_mem */
    struct gguf_kv *kvs;    /* sorted by key */
    uint64_t n_kvs;
    struct gguf_tensor *tensors; /* the file's order */
    uint64_t n_tensors;
    uint32_t *by_name; /* indices of tensors, sorted by name */
};

static inline uint32_t gguf_load_u32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline uint64_t gguf_load_u64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* memcmp's order, the shorter first. */
int gguf_compare(const void *a, size_t na, const void *b, size_t nb);
/* Bytes of a value of fixed size; 0 for strings, arrays and what is not a type. */
uint32_t gguf_scalar_bytes(uint32_t type);

#endif
