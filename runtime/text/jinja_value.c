#include "runtime/text/jinja_value.h"

#include <json-c/json.h>
#include <math.h>
#include <string.h>

#include "runtime/base/fnv.h"
#include "runtime/text/jinja_text.h"
#include "runtime/text/utf8.h"

#define DICT_LINEAR_MAX 8u
#define KEY_VALUES_MAX 64
#define JSON_VALUE_DEPTH_MAX 100

struct jval jval_none(void)
{
    return (struct jval){.type = JT_NONE};
}

struct jval jval_bool(bool b)
{
    return (struct jval){.type = JT_BOOL, .i = b};
}

struct jval jval_int(int64_t i)
{
    return (struct jval){.type = JT_INT, .i = i};
}

struct jval jval_float(double f)
{
    return (struct jval){.type = JT_FLOAT, .f = f};
}

struct jval jval_undef(void)
{
    return (struct jval){.type = JT_UNDEF};
}

bool jval_is_number(struct jval v)
{
    return v.type == JT_BOOL || v.type == JT_INT || v.type == JT_FLOAT;
}

/* ---- strings and sequences ---------------------------------------------------------------- */

bool jval_str_borrow(struct arena *a, const char *p, size_t n, uint32_t chars, struct jval *out)
{
    struct jstr *s = n < UINT32_MAX ? arena_alloc(a, sizeof(*s)) : NULL;
    if (!s)
        return false;
    s->p = p;
    s->n = (uint32_t)n;
    s->chars = chars == UINT32_MAX ? (uint32_t)jtext_chars(p, n) : chars;
    *out = (struct jval){.type = JT_STR, .s = s};
    return true;
}

bool jval_strn(struct arena *a, const char *p, size_t n, struct jval *out)
{
    char *copy = arena_memdup(a, p, n);
    return copy && jval_str_borrow(a, copy, n, UINT32_MAX, out);
}

bool jval_str(struct arena *a, const char *s, struct jval *out)
{
    return jval_strn(a, s, strlen(s), out);
}

bool jval_seq(struct arena *a, enum jtype type, uint32_t n, struct jval *out)
{
    struct jlist *l = arena_alloc(a, sizeof(*l));
    if (!l)
        return false;
    l->v = arena_calloc(a, n, sizeof(*l->v));
    if (!l->v)
        return false;
    l->n = n;
    for (uint32_t i = 0; i < n; i++)
        l->v[i] = jval_none();
    *out = (struct jval){.type = (uint8_t)type, .list = l};
    return true;
}

/* ---- dictionaries ------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h)
{
    h ^= h >> 30;
    h *= 0xbf58476d1ce4e5b9u;
    h ^= h >> 27;
    h *= 0x94d049bb133111ebu;
    return h ^ (h >> 31);
}

static uint64_t hash_bytes(const char *p, size_t n)
{
    return mix(fnv1a(FNV_SEED, p, n));
}

static uint64_t hash(struct jval v)
{
    switch (v.type) {
    case JT_STR:
        return hash_bytes(v.s->p, v.s->n);
    case JT_BOOL:
    case JT_INT:
        return mix((uint64_t)v.i);
    case JT_FLOAT:
        if (v.f >= -9.2e18 && v.f <= 9.2e18 && v.f == floor(v.f))
            return mix((uint64_t)(int64_t)v.f);
        return mix((uint64_t)(fabs(v.f) * 1e3 < 1e18 ? (int64_t)(v.f * 1e3) : 7));
    case JT_TUPLE: {
        uint64_t h = v.list->n;
        for (uint32_t i = 0; i < v.list->n; i++)
            h = mix(h * 31 + hash(v.list->v[i]));
        return h;
    }
    default:
        return mix(v.type);
    }
}

/* Counts what is in a key. Tuples in tuples can share: their number is not their size. */
static bool hashable_count(struct jval v, unsigned *left)
{
    if (*left == 0 || v.type == JT_LIST || v.type == JT_DICT)
        return false;
    --*left;
    if (v.type == JT_VIEW)
        return v.view->kind == JV_VALUES;
    if (v.type == JT_TUPLE)
        for (uint32_t i = 0; i < v.list->n; i++)
            if (!hashable_count(v.list->v[i], left))
                return false;
    return true;
}

bool jval_hashable(struct jval v)
{
    unsigned left = KEY_VALUES_MAX;
    return hashable_count(v, &left);
}

bool jval_dict(struct arena *a, uint32_t cap, struct jval *out)
{
    struct jdict *d = arena_alloc(a, sizeof(*d));
    if (!d)
        return false;
    d->cap = cap ? cap : 4;
    d->keys = arena_calloc(a, d->cap, sizeof(*d->keys));
    d->vals = arena_calloc(a, d->cap, sizeof(*d->vals));
    if (!d->keys || !d->vals)
        return false;
    *out = (struct jval){.type = JT_DICT, .dict = d};
    return true;
}

static void index_put(struct jdict *d, uint32_t pos)
{
    uint32_t i = (uint32_t)hash(d->keys[pos]) & (d->index_cap - 1);
    while (d->index[i])
        i = (i + 1) & (d->index_cap - 1);
    d->index[i] = pos + 1;
}

static bool index_build(struct arena *a, struct jdict *d, uint32_t cap)
{
    d->index = arena_calloc(a, cap, sizeof(*d->index));
    d->index_cap = d->index ? cap : 0;
    for (uint32_t i = 0; d->index && i < d->n; i++)
        index_put(d, i);
    return d->index != NULL;
}

static bool dict_grow(struct arena *a, struct jdict *d)
{
    uint32_t cap = d->cap * 2;
    struct jval *keys = cap > d->cap ? arena_calloc(a, cap, sizeof(*keys)) : NULL;
    struct jval *vals = keys ? arena_calloc(a, cap, sizeof(*vals)) : NULL;
    if (!vals)
        return false;
    memcpy(keys, d->keys, d->n * sizeof(*keys));
    memcpy(vals, d->vals, d->n * sizeof(*vals));
    d->keys = keys;
    d->vals = vals;
    d->cap = cap;
    return true;
}

static int64_t dict_find(const struct jdict *d, struct jval key)
{
    if (!d->index) {
        for (uint32_t i = 0; i < d->n; i++)
            if (jval_equal(d->keys[i], key))
                return i;
        return -1;
    }
    uint32_t i = (uint32_t)hash(key) & (d->index_cap - 1);
    for (; d->index[i]; i = (i + 1) & (d->index_cap - 1))
        if (jval_equal(d->keys[d->index[i] - 1], key))
            return d->index[i] - 1;
    return -1;
}

bool jdict_set(struct arena *a, struct jdict *d, struct jval key, struct jval val)
{
    int64_t at = dict_find(d, key);
    if (at >= 0) {
        d->vals[at] = val;
        return true;
    }
    if (d->n == d->cap && !dict_grow(a, d))
        return false;
    d->keys[d->n] = key;
    d->vals[d->n] = val;
    d->n++;
    if (d->index && d->n * 2 < d->index_cap)
        index_put(d, d->n - 1);
    else if (d->n > DICT_LINEAR_MAX)
        return index_build(a, d, d->index ? d->index_cap * 4 : 64);
    return true;
}

struct jval *jdict_get(const struct jdict *d, struct jval key)
{
    int64_t at = dict_find(d, key);
    return at < 0 ? NULL : &d->vals[at];
}

struct jval *jdict_get_cstr(const struct jdict *d, const char *key)
{
    struct jstr s = {.p = key, .n = (uint32_t)strlen(key)};
    return jdict_get(d, (struct jval){.type = JT_STR, .s = &s});
}

/* ---- equality ----------------------------------------------------------------------------- */

/* Exact, as Python compares an int with a float. */
static bool int_equals_float(int64_t i, double f)
{
    return f >= -9223372036854775808.0 && f < 9223372036854775808.0 && f == floor(f) &&
           (int64_t)f == i;
}

static bool numbers_equal(struct jval a, struct jval b)
{
    if (a.type == JT_FLOAT && b.type == JT_FLOAT)
        return a.f == b.f;
    if (a.type == JT_FLOAT)
        return int_equals_float(b.i, a.f);
    if (b.type == JT_FLOAT)
        return int_equals_float(a.i, b.f);
    return a.i == b.i;
}

static bool ranges_equal(const struct jrange *a, const struct jrange *b)
{
    return a->n == b->n &&
           (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

bool jval_equal(struct jval a, struct jval b)
{
    if (jval_is_number(a) && jval_is_number(b))
        return numbers_equal(a, b);
    if (a.type != b.type)
        return false;
    switch (a.type) {
    case JT_MISSING:
    case JT_UNDEF:
    case JT_NONE:
        return true;
    case JT_STR:
        return a.s->n == b.s->n && memcmp(a.s->p, b.s->p, a.s->n) == 0;
    case JT_TUPLE:
        if (a.list == b.list)
            return true;
        if (a.list->n != b.list->n)
            return false;
        for (uint32_t i = 0; i < a.list->n; i++)
            if (!jval_equal(a.list->v[i], b.list->v[i]))
                return false;
        return true;
    case JT_RANGE:
        return ranges_equal(a.range, b.range);
    case JT_FUNC:
        return a.func == b.func;
    default:
        return (const void *)a.iter == (const void *)b.iter;
    }
}

const char *jval_type_name(struct jval v)
{
    static const char *const names[] = {
        [JT_MISSING] = "Undefined", [JT_UNDEF] = "Undefined", [JT_NONE] = "NoneType",
        [JT_BOOL] = "bool",         [JT_INT] = "int",         [JT_FLOAT] = "float",
        [JT_STR] = "str",           [JT_LIST] = "list",       [JT_TUPLE] = "tuple",
        [JT_DICT] = "dict",         [JT_RANGE] = "range",     [JT_VIEW] = "dict view",
        [JT_ITER] = "generator",    [JT_NS] = "Namespace",    [JT_LOOP] = "LoopContext",
        [JT_MACRO] = "Macro",       [JT_FUNC] = "function",   [JT_METHOD] = "method",
    };
    return v.type < sizeof(names) / sizeof(names[0]) ? names[v.type] : "object";
}

/* ---- from JSON ---------------------------------------------------------------------------- */

static int json_string(struct arena *a, const char *p, size_t n, struct jval *out, struct err *e)
{
    if (utf8_valid_bytes(p, n) != n)
        return err_set(e, ERR_FORMAT, "a string is not valid UTF-8");
    if (!jval_str_borrow(a, p, n, UINT32_MAX, out))
        return err_set(e, ERR_LIMIT, "the request needs too much memory to render");
    return 0;
}

static int json_depth(struct arena *a, struct json_object *o, int depth, struct jval *out,
                      struct err *e);

static int json_array(struct arena *a, struct json_object *o, int depth, struct jval *out,
                      struct err *e)
{
    size_t n = json_object_array_length(o);
    if (n >= UINT32_MAX || !jval_seq(a, JT_LIST, (uint32_t)n, out))
        return err_set(e, ERR_LIMIT, "the request needs too much memory to render");
    for (size_t i = 0; i < n; i++) {
        int rc = json_depth(a, json_object_array_get_idx(o, i), depth + 1, &out->list->v[i], e);
        if (rc)
            return rc;
    }
    return 0;
}

static int json_dict(struct arena *a, struct json_object *o, int depth, struct jval *out,
                     struct err *e)
{
    int n = json_object_object_length(o);
    if (!jval_dict(a, n > 0 ? (uint32_t)n : 0, out))
        return err_set(e, ERR_LIMIT, "the request needs too much memory to render");
    json_object_object_foreach(o, k, v)
    {
        struct jval key, val;
        int rc = json_string(a, k, strlen(k), &key, e);
        if (!rc)
            rc = json_depth(a, v, depth + 1, &val, e);
        if (rc)
            return rc;
        if (!jdict_set(a, out->dict, key, val))
            return err_set(e, ERR_LIMIT, "the request needs too much memory to render");
    }
    return 0;
}

static int json_int_value(struct json_object *o, struct jval *out, struct err *e)
{
    int64_t i = json_object_get_int64(o);
    /* json-c saturates. The two ends of the range cannot be told from what lies past them. */
    if (i == INT64_MIN || (i == INT64_MAX && json_object_get_uint64(o) != INT64_MAX))
        return err_set(e, ERR_LIMIT, "an integer does not fit in 64 bits");
    *out = jval_int(i);
    return 0;
}

static int json_depth(struct arena *a, struct json_object *o, int depth, struct jval *out,
                      struct err *e)
{
    if (depth > JSON_VALUE_DEPTH_MAX)
        return err_set(e, ERR_LIMIT, "nested deeper than %d", JSON_VALUE_DEPTH_MAX);
    switch (json_object_get_type(o)) {
    case json_type_null:
        *out = jval_none();
        return 0;
    case json_type_boolean:
        *out = jval_bool(json_object_get_boolean(o));
        return 0;
    case json_type_double:
        *out = jval_float(json_object_get_double(o));
        return 0;
    case json_type_int:
        return json_int_value(o, out, e);
    case json_type_string:
        return json_string(a, json_object_get_string(o), (size_t)json_object_get_string_len(o), out,
                           e);
    case json_type_array:
        return json_array(a, o, depth, out, e);
    case json_type_object:
        return json_dict(a, o, depth, out, e);
    }
    return err_set(e, ERR_FORMAT, "unknown JSON type");
}

int jval_from_json(struct arena *a, struct json_object *o, struct jval *out, struct err *e)
{
    return json_depth(a, o, 0, out, e);
}
