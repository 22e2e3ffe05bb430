/* safetensors.h: reads the tensors of a .safetensors file, or of a folder of them, in place.
 *
 * Format: github.com/huggingface/safetensors. A folder holds model.safetensors, or shards that
 * model.safetensors.index.json names; then the tensors of all shards make one set. The files are
 * never trusted: header, names, shapes and offsets are checked at open, once. Tensors lie in the
 * file without overlap or gap, as the format demands. Memory taken is bounded by the headers: at
 * most 8 bytes for one of theirs.
 *
 * Everything handed out borrows from the struct and its mappings, and lives until
 * safetensors_close. Immutable once open: any number of threads may read. A file must not shrink
 * while it is open (the kernel answers that with SIGBUS, as for every mapping).
 */
#ifndef ARGOSY_FORMAT_SAFETENSORS_H
#define ARGOSY_FORMAT_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

#define SAFETENSORS_HEADER_BYTES_MAX 100000000u /* the format's own limit */
#define SAFETENSORS_DIMS_MAX 8
#define SAFETENSORS_SHARDS_MAX 4096
#define SAFETENSORS_NAME_BYTES_MAX 1024

struct safetensors;

enum safetensors_dtype {
    SAFETENSORS_F32,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_OTHER /* known by size alone: safetensors_data refuses it */
};

struct safetensors_tensor {
    const char *name;
    const char *dtype_name; /* the format's word: "BF16" */
    enum safetensors_dtype dtype;
    uint32_t n_dims;                      /* 0: one element */
    uint64_t shape[SAFETENSORS_DIMS_MAX]; /* shape[n_dims - 1] runs fastest; may be 0 */
    uint64_t bytes;
    const void *start; /* in the mapping, whatever the dtype; safetensors_data is the way to it */
};

/* path: a file, or a folder. *out is the caller's to safetensors_close; untouched on failure.
 * ERR_NOT_FOUND: a folder without such files. */
int safetensors_open(const char *path, struct safetensors **out, struct err *e);
/* One file's n bytes, which the caller keeps until safetensors_close. */
int safetensors_open_mem(const void *bytes, size_t n, struct safetensors **out, struct err *e);
/* NULL is fine. */
void safetensors_close(struct safetensors *s);

size_t safetensors_count(const struct safetensors *s);
/* In the order of names; i < safetensors_count. */
const struct safetensors_tensor *safetensors_at(const struct safetensors *s, size_t i);
/* NULL when there is none of that name. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *s, const char *name);

/* The tensor's elements, aligned for their type. ERR_UNSUPPORTED for a dtype that is not F32, F16
 * or BF16, or for a tensor that its file starts at an odd place. NULL for a tensor of no elements.
 */
int safetensors_data(const struct safetensors_tensor *t, const void **data, struct err *e);

/* A file that was read: tensors, or the index. */
struct safetensors_file {
    const char *name; /* without the folder */
    const void *bytes;
    size_t n;
};

/* 0 for safetensors_open_mem. */
size_t safetensors_file_count(const struct safetensors *s);
struct safetensors_file safetensors_file_at(const struct safetensors *s, size_t i);

#endif
