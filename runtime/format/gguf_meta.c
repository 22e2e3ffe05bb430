/* Metadata: lookup by key, checked conversion, and cursors over arrays. */
#include <float.h>
#include <math.h>

#include "runtime/format/gguf_internal.h"

int gguf_compare(const void *a, size_t na, const void *b, size_t nb)
{
    int d = memcmp(a, b, na < nb ? na : nb);
    return d ? d : (na > nb) - (na < nb);
}

uint32_t gguf_scalar_bytes(uint32_t type)
{
    switch (type) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL:
        return 1;
    case GGUF_U16:
    case GGUF_I16:
        return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32:
        return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64:
        return 8;
    default:
        return 0;
    }
}

static const struct gguf_kv *find(const struct gguf *g, const char *key)
{
    size_t n = strlen(key);
    uint64_t lo = 0, hi = g->n_kvs;
    while (lo < hi) {
        uint64_t mid = lo + (hi - lo) / 2;
        const struct gguf_kv *kv = &g->kvs[mid];
        int d = gguf_compare(key, n, kv->key, kv->key_bytes);
        if (d == 0)
            return kv;
        if (d < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find(g, key) != NULL;
}

/* *kv is NULL, with 0, for an optional key that is absent. */
static int lookup(const struct gguf *g, const char *key, enum gguf_need need,
                  const struct gguf_kv **kv, struct err *e)
{
    *kv = find(g, key);
    if (!*kv && need == GGUF_REQUIRED)
        return err_set(e, ERR_NOT_FOUND, "gguf: no metadata key '%s'", key);
    return 0;
}

static int wrong_type(const struct gguf_kv *kv, const char *key, const char *wanted, struct err *e)
{
    return err_set(e, ERR_FORMAT, "gguf: '%s' has type %u, wanted %s", key, kv->type, wanted);
}

/* Any integer but U64 above INT64_MAX, which no caller can use. */
static bool load_int(uint32_t type, const unsigned char *p, int64_t *out)
{
    uint16_t u16;
    uint64_t u64;
    switch (type) {
    case GGUF_U8:
    case GGUF_BOOL:
        *out = p[0];
        return true;
    case GGUF_I8:
        *out = p[0] < 0x80 ? p[0] : p[0] - 0x100;
        return true;
    case GGUF_U16:
    case GGUF_I16:
        memcpy(&u16, p, sizeof(u16));
        *out = type == GGUF_U16 ? (int64_t)u16 : (int64_t)(int16_t)u16;
        return true;
    case GGUF_U32:
        *out = gguf_load_u32(p);
        return true;
    case GGUF_I32:
        *out = (int32_t)gguf_load_u32(p);
        return true;
    case GGUF_U64:
    case GGUF_I64:
        u64 = gguf_load_u64(p);
        *out = (int64_t)u64;
        return type == GGUF_I64 || u64 <= INT64_MAX;
    default:
        return false;
    }
}

/* A value in [0, most]. */
static int get_uint(const struct gguf *g, const char *key, enum gguf_need need, uint64_t most,
                    uint64_t *out, struct err *e)
{
    const struct gguf_kv *kv;
    int64_t v;
    int rc = lookup(g, key, need, &kv, e);
    if (rc < 0 || !kv)
        return rc;
    if (kv->type == GGUF_BOOL || !gguf_scalar_bytes(kv->type) || kv->type == GGUF_F32 ||
        kv->type == GGUF_F64)
        return wrong_type(kv, key, "an integer", e);
    if (!load_int(kv->type, kv->value, &v) || v < 0 || (uint64_t)v > most)
        return err_set(e, ERR_FORMAT, "gguf: '%s' is not from 0 to %llu", key,
                       (unsigned long long)most);
    *out = (uint64_t)v;
    return 0;
}

int gguf_u32(const struct gguf *g, const char *key, enum gguf_need need, uint32_t *out,
             struct err *e)
{
    uint64_t v = *out;
    int rc = get_uint(g, key, need, UINT32_MAX, &v, e);
    if (rc == 0)
        *out = (uint32_t)v;
    return rc;
}

int gguf_u64(const struct gguf *g, const char *key, enum gguf_need need, uint64_t *out,
             struct err *e)
{
    return get_uint(g, key, need, INT64_MAX, out, e);
}

static bool load_f32(uint32_t type, const unsigned char *p, float *out)
{
    double d;
    if (type == GGUF_F32) {
        memcpy(out, p, sizeof(*out));
        return true;
    }
    if (type != GGUF_F64)
        return false;
    memcpy(&d, p, sizeof(d));
    if (isfinite(d) && fabs(d) > (double)FLT_MAX)
        return false;
    *out = (float)d;
    return true;
}

int gguf_f32(const struct gguf *g, const char *key, enum gguf_need need, float *out, struct err *e)
{
    const struct gguf_kv *kv;
    int rc = lookup(g, key, need, &kv, e);
    if (rc < 0 || !kv)
        return rc;
    if (!load_f32(kv->type, kv->value, out))
        return wrong_type(kv, key, "a float", e);
    return 0;
}

int gguf_bool(const struct gguf *g, const char *key, enum gguf_need need, bool *out, struct err *e)
{
    const struct gguf_kv *kv;
    int rc = lookup(g, key, need, &kv, e);
    if (rc < 0 || !kv)
        return rc;
    if (kv->type != GGUF_BOOL)
        return wrong_type(kv, key, "a bool", e);
    *out = kv->value[0] != 0;
    return 0;
}

/* The length was checked when the file was opened. */
static struct gguf_str load_str(const unsigned char *p)
{
    return (struct gguf_str){.s = (const char *)p + 8, .n = (size_t)gguf_load_u64(p)};
}

int gguf_str(const struct gguf *g, const char *key, enum gguf_need need, struct gguf_str *out,
             struct err *e)
{
    const struct gguf_kv *kv;
    int rc = lookup(g, key, need, &kv, e);
    if (rc < 0 || !kv)
        return rc;
    if (kv->type != GGUF_STRING)
        return wrong_type(kv, key, "a string", e);
    *out = load_str(kv->value);
    return 0;
}

int gguf_array(const struct gguf *g, const char *key, enum gguf_need need, struct gguf_array *out,
               struct err *e)
{
    const struct gguf_kv *kv;
    int rc = lookup(g, key, need, &kv, e);
    if (rc < 0 || !kv)
        return rc;
    if (kv->type != GGUF_ARRAY)
        return wrong_type(kv, key, "an array", e);
    *out = (struct gguf_array){
        .type = kv->elem_type, .count = kv->count, .left = kv->count, .pos = kv->value};
    return 0;
}

bool gguf_next_str(struct gguf_array *a, struct gguf_str *out)
{
    if (a->left == 0 || a->type != GGUF_STRING)
        return false;
    *out = load_str(a->pos);
    a->pos += 8 + out->n;
    a->left--;
    return true;
}

bool gguf_next_i64(struct gguf_array *a, int64_t *out)
{
    if (a->left == 0 || !load_int(a->type, a->pos, out))
        return false;
    a->pos += gguf_scalar_bytes(a->type);
    a->left--;
    return true;
}

bool gguf_next_f32(struct gguf_array *a, float *out)
{
    if (a->left == 0 || !load_f32(a->type, a->pos, out))
        return false;
    a->pos += gguf_scalar_bytes(a->type);
    a->left--;
    return true;
}
