/* gguf.h: reads a GGUF model file (versions 2 and 3, little-endian) in place, over mmap.
 *
 * Format: github.com/ggml-org/ggml, docs/gguf.md. The file is never trusted: every count, length,
 * offset, type, alignment and product of dimensions is checked in gguf_open, once, against the
 * bytes that are there. A damaged or hostile file gets one err that names the field. Memory taken
 * is bounded by the file: at most 8 bytes for one of the file's, and never a size that the file
 * chose.
 *
 * Everything handed out (strings, arrays, tensors) borrows from the mapping and from the struct,
 * and lives until gguf_close. Strings are not NUL-terminated, and may be any bytes. Immutable once
 * open: any number of threads may read. The file must not shrink while it is open (the kernel
 * answers that with SIGBUS, as for every mapping).
 */
#ifndef ARGOSY_FORMAT_GGUF_H
#define ARGOSY_FORMAT_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define GGUF_NAME_MAX 64    /* bytes in a tensor's name; the format's own limit */
#define GGUF_KEY_MAX 65535u /* bytes in a key; the format's own limit */
#define GGUF_DIMS_MAX 4

struct gguf;

/* Types of metadata values, by the format's numbers. */
enum gguf_type {
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12
};

/* Types of tensors, by ggml's numbers: those that are served or planned. gguf_tensor_type_size
 * knows more. */
enum gguf_tensor_type {
    GGUF_TENSOR_F32 = 0,
    GGUF_TENSOR_F16 = 1,
    GGUF_TENSOR_Q4_0 = 2,
    GGUF_TENSOR_Q4_1 = 3,
    GGUF_TENSOR_Q5_0 = 6,
    GGUF_TENSOR_Q5_1 = 7,
    GGUF_TENSOR_Q8_0 = 8,
    GGUF_TENSOR_Q2_K = 10,
    GGUF_TENSOR_Q3_K = 11,
    GGUF_TENSOR_Q4_K = 12,
    GGUF_TENSOR_Q5_K = 13,
    GGUF_TENSOR_Q6_K = 14,
    GGUF_TENSOR_IQ4_NL = 20,
    GGUF_TENSOR_IQ4_XS = 23,
    GGUF_TENSOR_BF16 = 30,
    GGUF_TENSOR_MXFP4 = 39
};

/* Maps the file. *out is the caller's to gguf_close; untouched on failure. */
int gguf_open(const char *path, struct gguf **out, struct err *e);
/* The same over n bytes that the caller keeps until gguf_close. Any alignment. */
int gguf_open_mem(const void *bytes, size_t n, struct gguf **out, struct err *e);
/* NULL is fine. */
void gguf_close(struct gguf *g);

/* The whole mapping, for madvise and hashing. *n may be NULL. */
const void *gguf_mapping(const struct gguf *g, size_t *n);
/* Whether those bytes are a mapping of the file, whose pages may be given back with madvise; false
 * for gguf_open_mem. */
bool gguf_is_mapped(const struct gguf *g);

/* ---- metadata ---------------------------------------------------------------------------------
 */

enum gguf_need {
    GGUF_REQUIRED, /* absent: ERR_NOT_FOUND */
    GGUF_OPTIONAL  /* absent: returns 0 and leaves *out as it was, so it holds the default */
};

struct gguf_str {
    const char *s; /* not NUL-terminated; never NULL from a getter */
    size_t n;
};

bool gguf_has(const struct gguf *g, const char *key);

/* Each: 0, ERR_NOT_FOUND, or ERR_FORMAT when the value has another type or does not fit.
 * Integers of any width are taken if the value fits; floats from F32 or F64; bool from BOOL alone.
 */
int gguf_u32(const struct gguf *g, const char *key, enum gguf_need need, uint32_t *out,
             struct err *e);
int gguf_u64(const struct gguf *g, const char *key, enum gguf_need need, uint64_t *out,
             struct err *e);
int gguf_f32(const struct gguf *g, const char *key, enum gguf_need need, float *out, struct err *e);
int gguf_bool(const struct gguf *g, const char *key, enum gguf_need need, bool *out, struct err *e);
int gguf_str(const struct gguf *g, const char *key, enum gguf_need need, struct gguf_str *out,
             struct err *e);

/* A cursor over an array: count elements in all, read in order, each step O(1). Copy it to start
 * anew. */
struct gguf_array {
    enum gguf_type type;
    uint64_t count;
    uint64_t left;
    const unsigned char *pos;
};

/* Absent and optional: *out as it was; start with a zeroed one to read it as empty. */
int gguf_array(const struct gguf *g, const char *key, enum gguf_need need, struct gguf_array *out,
               struct err *e);

/* Next element; false at the end, or when the array's elements are not of that kind. */
bool gguf_next_str(struct gguf_array *a, struct gguf_str *out);
/* Any integer type, and BOOL as 0 or 1. Also false at a U64 above INT64_MAX. */
bool gguf_next_i64(struct gguf_array *a, int64_t *out);
/* F32 or F64. Also false at an F64 that no float can hold. */
bool gguf_next_f32(struct gguf_array *a, float *out);

/* ---- tensors ----------------------------------------------------------------------------------
 */

struct gguf_tensor {
    char name[GGUF_NAME_MAX + 1];
    uint32_t type; /* ggml's number */
    uint32_t n_dims;
    uint64_t ne[GGUF_DIMS_MAX]; /* elements; ne[0] runs fastest; 1 past n_dims; never 0 */
    const void *data; /* aligned as the file says; NULL when the type's size is not known here */
    uint64_t bytes;   /* of data, checked to lie in the file; 0 when data is NULL */
};

uint64_t gguf_tensor_count(const struct gguf *g);
/* In the file's order; i < gguf_tensor_count. */
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint64_t i);
/* NULL when there is none of that name. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/* "Q4_1"; NULL for a type that is not known. */
const char *gguf_tensor_type_name(uint32_t type);
/* Elements and bytes of one block. False when the type is not known. */
bool gguf_tensor_type_size(uint32_t type, uint32_t *block_elems, uint32_t *block_bytes);

#endif
