/* One file: 8 bytes of length, that many bytes of JSON, then the tensors' bytes. */
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/format/jsonpull.h"
#include "runtime/format/safetensors_internal.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "values are read as they lie in the file");

#define LENGTH_BYTES 8u

static const struct {
    const char *name;
    uint32_t bits;
    enum safetensors_dtype dtype;
} DTYPES[] = {
    {"F32", 32, SAFETENSORS_F32},      {"F16", 16, SAFETENSORS_F16},
    {"BF16", 16, SAFETENSORS_BF16},    {"BOOL", 8, SAFETENSORS_OTHER},
    {"F4", 4, SAFETENSORS_OTHER},      {"F6_E2M3", 6, SAFETENSORS_OTHER},
    {"F6_E3M2", 6, SAFETENSORS_OTHER}, {"U8", 8, SAFETENSORS_OTHER},
    {"I8", 8, SAFETENSORS_OTHER},      {"F8_E5M2", 8, SAFETENSORS_OTHER},
    {"F8_E4M3", 8, SAFETENSORS_OTHER}, {"F8_E8M0", 8, SAFETENSORS_OTHER},
    {"I16", 16, SAFETENSORS_OTHER},    {"U16", 16, SAFETENSORS_OTHER},
    {"I32", 32, SAFETENSORS_OTHER},    {"U32", 32, SAFETENSORS_OTHER},
    {"F64", 64, SAFETENSORS_OTHER},    {"I64", 64, SAFETENSORS_OTHER},
    {"U64", 64, SAFETENSORS_OTHER},    {"C64", 64, SAFETENSORS_OTHER},
};

/* One entry of the header, while it is read. */
struct entry {
    struct safetensors_tensor t;
    uint32_t bits; /* of an element; 0: no dtype yet */
    bool has_shape, has_offsets;
    uint64_t begin, end;
};

static int read_dtype(struct jsonpull *j, struct entry *x)
{
    struct jsonpull_str s;
    int rc = jsonpull_string(j, &s);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(DTYPES); i++) {
        if (!jsonpull_is(&s, DTYPES[i].name))
            continue;
        x->t.dtype_name = DTYPES[i].name;
        x->t.dtype = DTYPES[i].dtype;
        x->bits = DTYPES[i].bits;
        return 0;
    }
    return jsonpull_fail(j, ERR_UNSUPPORTED, "a dtype that is not known");
}

static int read_shape(struct jsonpull *j, struct entry *x)
{
    int rc = jsonpull_array(j), more = 0;
    x->t.n_dims = 0;
    while (rc == 0 && (more = jsonpull_item(j)) > 0) {
        if (x->t.n_dims == SAFETENSORS_DIMS_MAX)
            return jsonpull_fail(j, ERR_UNSUPPORTED, "more than 8 dimensions");
        rc = jsonpull_u64(j, &x->t.shape[x->t.n_dims++]);
    }
    x->has_shape = true;
    return rc < 0 ? rc : more;
}

static int read_offsets(struct jsonpull *j, struct entry *x)
{
    int rc = jsonpull_array(j);
    uint64_t *const out[] = {&x->begin, &x->end};
    for (int i = 0; i < 2 && rc == 0; i++) {
        if (jsonpull_item(j) <= 0)
            return jsonpull_fail(j, ERR_FORMAT, "data_offsets are two numbers");
        rc = jsonpull_u64(j, out[i]);
    }
    if (rc == 0 && jsonpull_item(j) != 0)
        rc = jsonpull_fail(j, ERR_FORMAT, "data_offsets are two numbers");
    x->has_offsets = true;
    return rc;
}

/* Shape and dtype make as many bytes as the offsets say. */
static int check_entry(struct jsonpull *j, struct entry *x)
{
    uint64_t elems = 1, bits;
    if (!x->bits || !x->has_shape || !x->has_offsets)
        return jsonpull_fail(j, ERR_FORMAT, "a tensor needs dtype, shape and data_offsets");
    for (uint32_t i = 0; i < x->t.n_dims; i++)
        if (__builtin_mul_overflow(elems, x->t.shape[i], &elems))
            return jsonpull_fail(j, ERR_FORMAT, "a shape of 2^64 elements or more");
    if (__builtin_mul_overflow(elems, (uint64_t)x->bits, &bits) || bits % 8)
        return jsonpull_fail(j, ERR_FORMAT, "a shape that makes no whole number of bytes");
    if (x->begin > x->end || x->end - x->begin != bits / 8)
        return jsonpull_fail(j, ERR_FORMAT, "data_offsets that do not fit shape and dtype");
    x->t.bytes = bits / 8;
    return 0;
}

/* Members of an entry that are there twice take the last value, as in JSON at large. */
static int read_entry(struct jsonpull *j, struct entry *x)
{
    struct jsonpull_str key;
    int more = 0, rc = jsonpull_object(j);
    while (rc == 0 && (more = jsonpull_key(j, &key)) > 0) {
        if (jsonpull_is(&key, "dtype"))
            rc = read_dtype(j, x);
        else if (jsonpull_is(&key, "shape"))
            rc = read_shape(j, x);
        else if (jsonpull_is(&key, "data_offsets"))
            rc = read_offsets(j, x);
        else
            rc = jsonpull_fail(j, ERR_FORMAT, "a tensor has dtype, shape and data_offsets alone");
    }
    if (rc == 0)
        rc = more;
    return rc < 0 ? rc : check_entry(j, x);
}

/* The table keeps begin in `start` until every entry is there. */
static int add_entry(struct jsonpull *j, struct tensor_table *t, const struct entry *x)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        struct safetensors_tensor *at = realloc(t->at, cap * sizeof(*at));
        if (!at)
            return jsonpull_fail(j, ERR_NOMEM, "no memory for the tensors");
        t->at = at;
        t->cap = cap;
    }
    t->at[t->n] = x->t;
    t->at[t->n++].start = (const void *)(uintptr_t)x->begin;
    return 0;
}

static int read_metadata(struct jsonpull *j)
{
    struct jsonpull_str s;
    int more = 0, rc = jsonpull_object(j);
    while (rc == 0 && (more = jsonpull_key(j, &s)) > 0)
        rc = jsonpull_string(j, &s);
    return rc < 0 ? rc : more;
}

static int read_header(struct jsonpull *j, struct tensor_table *t, struct arena *names)
{
    struct jsonpull_str key;
    int more = 0, rc = jsonpull_object(j);
    while (rc == 0 && (more = jsonpull_key(j, &key)) > 0) {
        struct entry x = {0};
        if (jsonpull_is(&key, "__metadata__")) {
            rc = read_metadata(j);
            continue;
        }
        if (key.n == 0 || key.n > SAFETENSORS_NAME_BYTES_MAX || memchr(key.s, 0, key.n))
            return jsonpull_fail(j, ERR_FORMAT, "a tensor's name has 1 to 1024 bytes and no NUL");
        x.t.name = arena_strndup(names, key.s, key.n);
        if (!x.t.name)
            return jsonpull_fail(j, ERR_NOMEM, "no memory for the names");
        rc = read_entry(j, &x);
        if (rc == 0)
            rc = add_entry(j, t, &x);
        else if (j->e)
            err_prefix(j->e, "tensor '%s'", SHOWN(x.t.name));
    }
    if (rc == 0)
        rc = more;
    return rc < 0 ? rc : jsonpull_end(j);
}

static int by_start(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    uintptr_t p = (uintptr_t)x->start, q = (uintptr_t)y->start;
    if (p != q)
        return p < q ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

/* Tensors fill what is behind the header, from its start to its end. */
static int place(struct safetensors_tensor *at, size_t n, const unsigned char *data, uint64_t bytes,
                 struct err *e)
{
    uint64_t next = 0;
    if (n)
        qsort(at, n, sizeof(*at), by_start);
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = (uintptr_t)at[i].start;
        if (begin != next)
            return err_set(e, ERR_FORMAT,
                           "tensor '%s' starts at %llu of the data, the one before ends at %llu",
                           SHOWN(at[i].name), (unsigned long long)begin, (unsigned long long)next);
        if (at[i].bytes > bytes - begin)
            return err_set(e, ERR_FORMAT, "tensor '%s' ends past the file's end",
                           SHOWN(at[i].name));
        at[i].start = data + begin;
        next = begin + at[i].bytes;
    }
    if (next != bytes)
        return err_set(e, ERR_FORMAT, "the tensors end at %llu of %llu bytes of data",
                       (unsigned long long)next, (unsigned long long)bytes);
    return 0;
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

int safetensors_sort(struct safetensors_tensor *at, size_t n, struct err *e)
{
    if (n)
        qsort(at, n, sizeof(*at), by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(at[i - 1].name, at[i].name) == 0)
            return err_set(e, ERR_FORMAT, "tensor '%s' is there twice", SHOWN(at[i].name));
    return 0;
}

int safetensors_parse(const unsigned char *bytes, size_t n, struct tensor_table *t,
                      struct arena *names, struct err *e)
{
    uint64_t header;
    struct jsonpull j;
    size_t from = t->n;
    struct safetensors_tensor *own; /* what this file brings */
    if (n < LENGTH_BYTES)
        return err_set(e, ERR_FORMAT, "safetensors: a file of %zu bytes", n);
    memcpy(&header, bytes, LENGTH_BYTES);
    if (header > SAFETENSORS_HEADER_BYTES_MAX || header > n - LENGTH_BYTES)
        return err_set(e, ERR_FORMAT, "safetensors: a header of %llu bytes in a file of %zu",
                       (unsigned long long)header, n);
    const char *text = (const char *)bytes + LENGTH_BYTES;
    if (header == 0 || *text != '{')
        return err_set(e, ERR_FORMAT, "safetensors: the header does not start with '{'");
    jsonpull_init(&j, text, (size_t)header, "safetensors header", e);
    int rc = read_header(&j, t, names);
    jsonpull_release(&j);
    own = from < t->n ? t->at + from : NULL;
    if (rc == 0)
        rc = place(own, t->n - from, bytes + LENGTH_BYTES + header, n - LENGTH_BYTES - header, e);
    if (rc == 0)
        rc = safetensors_sort(own, t->n - from, e);
    return rc;
}
