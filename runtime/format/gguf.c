#include "runtime/format/gguf.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/format/gguf_internal.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "values are read as they lie in the file");

/* The fewest bytes that an entry can take in the file: what bounds the tables. */
#define KV_BYTES_MIN 14u /* key length, a byte of key, type, a byte of value */
#define TENSOR_BYTES_MIN                                                    \
    33u /* name length, a byte of name, n_dims, one dimension, type, offset \
         */
#define ALIGNMENT_DEFAULT 32u
#define ALIGNMENT_MAX 65536u

/* Where the parser stands. A read past the end is an error that names `what`. */
struct cursor {
    const unsigned char *base;
    size_t bytes;
    size_t pos;
    struct err *e;
};

/* ---- reading bytes ----------------------------------------------------------------------------
 */

static int take(struct cursor *c, uint64_t n, const char *what, const unsigned char **p)
{
    if (n > c->bytes - c->pos) {
        err_set(c->e, ERR_FORMAT,
                "gguf: %s: %llu bytes wanted at offset %zu, the file has %zu more", what,
                (unsigned long long)n, c->pos, c->bytes - c->pos);
        return ERR_FORMAT;
    }
    *p = c->base + c->pos;
    c->pos += (size_t)n;
    return 0;
}

static int take_u32(struct cursor *c, const char *what, uint32_t *v)
{
    const unsigned char *p;
    int rc = take(c, 4, what, &p);
    if (rc == 0)
        *v = gguf_load_u32(p);
    return rc;
}

static int take_u64(struct cursor *c, const char *what, uint64_t *v)
{
    const unsigned char *p;
    int rc = take(c, 8, what, &p);
    if (rc == 0)
        *v = gguf_load_u64(p);
    return rc;
}

static int take_str(struct cursor *c, const char *what, struct gguf_str *s)
{
    uint64_t n;
    const unsigned char *p;
    int rc = take_u64(c, what, &n);
    if (rc == 0)
        rc = take(c, n, what, &p);
    if (rc < 0)
        return rc;
    s->s = (const char *)p;
    s->n = (size_t)n;
    return 0;
}

/* ---- metadata ---------------------------------------------------------------------------------
 */

static int check_bools(struct cursor *c, const unsigned char *p, uint64_t n, const char *key)
{
    for (uint64_t i = 0; i < n; i++)
        if (p[i] > 1)
            return err_set(c->e, ERR_FORMAT, "gguf: value of '%s': %u is no bool", key, p[i]);
    return 0;
}

static int parse_array(struct cursor *c, struct gguf_kv *kv, const char *key)
{
    uint32_t elem;
    uint64_t count;
    int rc = take_u32(c, "array type", &elem);
    if (rc == 0)
        rc = take_u64(c, "array length", &count);
    if (rc < 0)
        return rc;
    uint32_t size = gguf_scalar_bytes(elem);
    if (!size && elem != GGUF_STRING)
        return err_set(c->e, elem == GGUF_ARRAY ? ERR_UNSUPPORTED : ERR_FORMAT,
                       "gguf: array '%s': elements of type %u", key, elem);
    uint64_t least = size ? size : 8;
    if (count > (c->bytes - c->pos) / least)
        return err_set(c->e, ERR_FORMAT,
                       "gguf: array '%s': length %llu is more than the file can hold", key,
                       (unsigned long long)count);
    kv->elem_type = (uint8_t)elem;
    kv->count = count;
    kv->value = c->base + c->pos;
    if (size) {
        c->pos += (size_t)(count * size);
        return elem == GGUF_BOOL ? check_bools(c, kv->value, count, key) : 0;
    }
    struct gguf_str s;
    for (uint64_t i = 0; i < count && rc == 0; i++)
        rc = take_str(c, "string in an array", &s);
    return rc;
}

static int parse_kv(struct cursor *c, struct gguf_kv *kv)
{
    struct gguf_str key;
    uint32_t type;
    char name[SHOWN_BYTES + 1];
    int rc = take_str(c, "metadata key", &key);
    if (rc < 0)
        return rc;
    shown(name, key.s, key.n);
    if (key.n == 0 || key.n > GGUF_KEY_MAX || memchr(key.s, 0, key.n))
        return err_set(c->e, ERR_FORMAT, "gguf: metadata key '%s' of %zu bytes", name, key.n);
    rc = take_u32(c, "metadata type", &type);
    if (rc < 0)
        return rc;
    if (type > GGUF_F64)
        return err_set(c->e, ERR_FORMAT, "gguf: value of '%s': unknown type %u", name, type);
    kv->key = (const unsigned char *)key.s;
    kv->key_bytes = (uint32_t)key.n;
    kv->type = (uint8_t)type;
    kv->value = c->base + c->pos;
    struct gguf_str s;
    if (type == GGUF_ARRAY)
        rc = parse_array(c, kv, name);
    else if (type == GGUF_STRING)
        rc = take_str(c, "metadata string", &s);
    else
        rc = take(c, gguf_scalar_bytes(type), "metadata value", &kv->value);
    if (rc == 0 && type == GGUF_BOOL)
        rc = check_bools(c, kv->value, 1, name);
    if (rc < 0 && c->e)
        err_prefix(c->e, "key '%s'", name);
    return rc;
}

static int compare_kv(const void *a, const void *b)
{
    const struct gguf_kv *x = a, *y = b;
    return gguf_compare(x->key, x->key_bytes, y->key, y->key_bytes);
}

static int parse_kvs(struct gguf *g, struct cursor *c, uint64_t count)
{
    if (count > (c->bytes - c->pos) / KV_BYTES_MIN || count > UINT32_MAX)
        return err_set(c->e, ERR_FORMAT, "gguf: metadata count %llu is more than the file can hold",
                       (unsigned long long)count);
    g->kvs = calloc(count ? (size_t)count : 1, sizeof(*g->kvs));
    if (!g->kvs)
        return err_set(c->e, ERR_NOMEM, "gguf: no memory for the metadata table");
    for (uint64_t i = 0; i < count; i++) {
        int rc = parse_kv(c, &g->kvs[i]);
        if (rc < 0)
            return rc;
    }
    g->n_kvs = count;
    qsort(g->kvs, (size_t)count, sizeof(*g->kvs), compare_kv);
    for (uint64_t i = 1; i < count; i++) {
        if (compare_kv(&g->kvs[i - 1], &g->kvs[i]) == 0) {
            char name[SHOWN_BYTES + 1];
            return err_set(c->e, ERR_FORMAT, "gguf: metadata key '%s' is there twice",
                           shown(name, g->kvs[i].key, g->kvs[i].key_bytes));
        }
    }
    return 0;
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

static int parse_dims(struct cursor *c, struct gguf_tensor *t, uint64_t *elems)
{
    *elems = 1;
    for (uint32_t i = 0; i < GGUF_DIMS_MAX; i++) {
        t->ne[i] = 1;
        if (i >= t->n_dims)
            continue;
        int rc = take_u64(c, "tensor dimension", &t->ne[i]);
        if (rc < 0)
            return rc;
        if (t->ne[i] == 0 || t->ne[i] > INT64_MAX || *elems > INT64_MAX / t->ne[i])
            return err_set(c->e, ERR_FORMAT, "gguf: dimension %u is %llu", i,
                           (unsigned long long)t->ne[i]);
        *elems *= t->ne[i];
    }
    return 0;
}

/* Bytes of the tensor, by its type; 0 when the type is not known. */
static int size_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t elems)
{
    uint32_t block_elems, block_bytes;
    if (!gguf_tensor_type_size(t->type, &block_elems, &block_bytes))
        return 0;
    if (t->ne[0] % block_elems)
        return err_set(c->e, ERR_FORMAT, "gguf: rows of %llu elements are no multiple of %s's %u",
                       (unsigned long long)t->ne[0], gguf_tensor_type_name(t->type), block_elems);
    uint64_t blocks = elems / block_elems;
    if (blocks > c->bytes / block_bytes)
        return err_set(c->e, ERR_FORMAT, "gguf: %llu blocks of %u bytes are more than the file has",
                       (unsigned long long)blocks, block_bytes);
    t->bytes = blocks * block_bytes;
    return 0;
}

/* The offset is kept in `data` until the data section's start is known (place_tensors). */
static int parse_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t *offset)
{
    struct gguf_str name;
    uint64_t elems;
    int rc = take_str(c, "tensor name", &name);
    if (rc < 0)
        return rc;
    if (name.n == 0 || name.n > GGUF_NAME_MAX || memchr(name.s, 0, name.n))
        return err_set(c->e, ERR_FORMAT, "gguf: tensor name of %zu bytes", name.n);
    memcpy(t->name, name.s, name.n);
    rc = take_u32(c, "number of dimensions", &t->n_dims);
    if (rc == 0 && (t->n_dims == 0 || t->n_dims > GGUF_DIMS_MAX))
        rc = err_set(c->e, ERR_FORMAT, "gguf: %u dimensions", t->n_dims);
    if (rc == 0)
        rc = parse_dims(c, t, &elems);
    if (rc == 0)
        rc = take_u32(c, "tensor type", &t->type);
    if (rc == 0)
        rc = take_u64(c, "tensor offset", offset);
    if (rc == 0)
        rc = size_tensor(c, t, elems);
    if (rc < 0 && c->e) {
        char text[SHOWN_BYTES + 1];
        err_prefix(c->e, "tensor '%s'", shown(text, name.s, name.n));
    }
    return rc;
}

static int alignment_of(const struct gguf *g, uint32_t *alignment, struct err *e)
{
    *alignment = ALIGNMENT_DEFAULT;
    int rc = gguf_u32(g, "general.alignment", GGUF_OPTIONAL, alignment, e);
    uint32_t a = *alignment;
    if (rc == 0 && (a < 8 || a > ALIGNMENT_MAX || (a & (a - 1))))
        rc = err_set(e, ERR_FORMAT, "gguf: general.alignment %u is no power of two from 8 to %u", a,
                     ALIGNMENT_MAX);
    return rc;
}

/* Gives every tensor its data. offsets[i] is counted from the data section. */
static int place_tensors(struct gguf *g, const struct cursor *c, const uint64_t *offsets)
{
    uint32_t alignment;
    int rc = alignment_of(g, &alignment, c->e);
    if (rc < 0)
        return rc;
    size_t pad = -c->pos & (alignment - 1);
    size_t start = pad > c->bytes - c->pos ? c->bytes : c->pos + pad;
    for (uint64_t i = 0; i < g->n_tensors; i++) {
        struct gguf_tensor *t = &g->tensors[i];
        uint64_t offset = offsets[i], room = c->bytes - start;
        char name[SHOWN_BYTES + 1];
        if (offset & (alignment - 1))
            return err_set(c->e, ERR_FORMAT, "gguf: tensor '%s': offset %llu is not aligned to %u",
                           shown(name, t->name, strlen(t->name)), (unsigned long long)offset,
                           alignment);
        if (offset > room || t->bytes > room - offset)
            return err_set(c->e, ERR_FORMAT,
                           "gguf: tensor '%s': offset %llu and %llu bytes end past the file's end",
                           shown(name, t->name, strlen(t->name)), (unsigned long long)offset,
                           (unsigned long long)t->bytes);
        if (t->bytes)
            t->data = c->base + start + offset;
    }
    return 0;
}

static int compare_by_name(const void *a, const void *b, void *tensors)
{
    const struct gguf_tensor *t = tensors;
    return strcmp(t[*(const uint32_t *)a].name, t[*(const uint32_t *)b].name);
}

static int index_tensors(struct gguf *g, struct err *e)
{
    for (uint64_t i = 0; i < g->n_tensors; i++)
        g->by_name[i] = (uint32_t)i;
    qsort_r(g->by_name, (size_t)g->n_tensors, sizeof(*g->by_name), compare_by_name, g->tensors);
    for (uint64_t i = 1; i < g->n_tensors; i++) {
        const char *name = g->tensors[g->by_name[i]].name;
        char text[SHOWN_BYTES + 1];
        if (strcmp(g->tensors[g->by_name[i - 1]].name, name) == 0)
            return err_set(e, ERR_FORMAT, "gguf: tensor '%s' is there twice",
                           shown(text, name, strlen(name)));
    }
    return 0;
}

static int parse_tensors(struct gguf *g, struct cursor *c, uint64_t count)
{
    if (count > (c->bytes - c->pos) / TENSOR_BYTES_MIN || count > UINT32_MAX)
        return err_set(c->e, ERR_FORMAT, "gguf: tensor count %llu is more than the file can hold",
                       (unsigned long long)count);
    size_t n = count ? (size_t)count : 1;
    int rc = 0;
    uint64_t *offsets = calloc(n, sizeof(*offsets));
    g->tensors = calloc(n, sizeof(*g->tensors));
    g->by_name = calloc(n, sizeof(*g->by_name));
    if (!offsets || !g->tensors || !g->by_name) {
        rc = ERR_NOMEM;
        err_set(c->e, rc, "gguf: no memory for the tensor table");
        goto out;
    }
    for (uint64_t i = 0; i < count && rc == 0; i++)
        rc = parse_tensor(c, &g->tensors[i], &offsets[i]);
    if (rc < 0)
        goto out;
    g->n_tensors = count;
    rc = place_tensors(g, c, offsets);
    if (rc == 0)
        rc = index_tensors(g, c->e);
out:
    free(offsets);
    return rc;
}

/* ---- open and close ---------------------------------------------------------------------------
 */

static int parse(struct gguf *g, struct err *e)
{
    struct cursor c = {.base = g->base, .bytes = g->bytes, .e = e};
    const unsigned char *magic;
    uint32_t version;
    uint64_t n_tensors, n_kvs;
    int rc = take(&c, 4, "magic", &magic);
    if (rc == 0 && memcmp(magic, "GGUF", 4) != 0)
        rc = err_set(e, ERR_FORMAT, "gguf: the magic is not 'GGUF'");
    if (rc == 0)
        rc = take_u32(&c, "version", &version);
    if (rc == 0 && version != 3 && version != 2)
        rc = err_set(e, ERR_UNSUPPORTED,
                     version & 0xffffu ? "gguf: version %u, wanted 2 or 3"
                                       : "gguf: version %u: a big-endian file",
                     version);
    if (rc == 0)
        rc = take_u64(&c, "tensor count", &n_tensors);
    if (rc == 0)
        rc = take_u64(&c, "metadata count", &n_kvs);
    if (rc == 0)
        rc = parse_kvs(g, &c, n_kvs);
    if (rc == 0)
        rc = parse_tensors(g, &c, n_tensors);
    return rc;
}

int gguf_open_mem(const void *bytes, size_t n, struct gguf **out, struct err *e)
{
    struct gguf *g = calloc(1, sizeof(*g));
    if (!g)
        return err_set(e, ERR_NOMEM, "gguf: no memory");
    g->base = bytes;
    g->bytes = n;
    int rc = parse(g, e);
    if (rc < 0)
        gguf_close(g);
    else
        *out = g;
    return rc;
}

int gguf_open(const char *path, struct gguf **out, struct err *e)
{
    struct mapping m = {0};
    struct gguf *g = NULL;
    int rc = mapping_open(&m, path, e);
    if (rc < 0)
        return rc;
    rc = gguf_open_mem(m.bytes, m.n, &g, e);
    if (rc < 0) {
        mapping_release(&m);
        return e ? err_prefix(e, "%s", path) : rc;
    }
    g->mapping = m;
    *out = g;
    return 0;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    mapping_release(&g->mapping);
    free(g->kvs);
    free(g->tensors);
    free(g->by_name);
    free(g);
}

const void *gguf_mapping(const struct gguf *g, size_t *n)
{
    if (n)
        *n = g->bytes;
    return g->base;
}

bool gguf_is_mapped(const struct gguf *g)
{
    return g->mapping.bytes != NULL;
}

uint64_t gguf_tensor_count(const struct gguf *g)
{
    return g->n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, uint64_t i)
{
    ASSERT(i < g->n_tensors);
    return &g->tensors[i];
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    uint64_t lo = 0, hi = g->n_tensors;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        const struct gguf_tensor *t = &g->tensors[g->by_name[mid]];
        int d = strcmp(name, t->name);
        if (d == 0)
            return t;
        if (d < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}
