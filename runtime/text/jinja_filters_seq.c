/* jinja_filters_seq.c: filters of sequences and mappings. */
#include <string.h>

#include "runtime/text/jinja_filters.h"

static const char *const value_only[] = {"value", NULL};

static struct jval missing(void)
{
    return (struct jval){.type = JT_MISSING};
}

/* A generator: its work, and its errors, wait for the first item that is wanted. */
static int later(struct jrt *rt, jinja_filter_fn *make, struct jargs *args, struct jval *out)
{
    struct jiter it = {.kind = ITER_MADE, .args = *args, .make = make};
    return rt_iter_value(rt, it, out);
}

#define GENERATOR(name, make)                                      \
    int name(struct jrt *rt, struct jargs *args, struct jval *out) \
    {                                                              \
        return later(rt, make, args, out);                         \
    }

/* jinja2's ignore_case(): strings in lower case, all else as it is. */
static int fold(struct jrt *rt, struct jval v, bool case_sensitive, struct jval *out)
{
    *out = v;
    if (v.type != JT_STR || case_sensitive)
        return 0;
    return rt_str_case(rt, v, CASE_LOWER, out);
}

int f_length(struct jrt *rt, struct jargs *args, struct jval *out)
{
    int64_t n = 0;
    if (args->n != 1 || args->n_kw)
        return rt_fail(rt, "len() takes exactly one argument");
    int rc = rt_len(rt, args->v[0], &n);
    *out = jval_int(n);
    return rc;
}

int f_list(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jval v;
    int rc = rt_bind_args(rt, "list", args, 0, value_only, 1, &v);
    return rc ? rc : rt_list(rt, v, out);
}

int f_first(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"seq", NULL};
    struct jval v;
    struct jiter *it;
    int rc = rt_bind_args(rt, "first", args, 0, names, 1, &v);
    if (!rc)
        rc = rt_iter(rt, v, &it);
    if (!rc)
        rc = rt_next(rt, it, out);
    if (rc == 0)
        return rt_undef_hint(rt, "No first item, sequence was empty.", out);
    return rc < 0 ? rc : 0;
}

/* reversed(v): what Python can walk backwards. */
static int reversed(struct jrt *rt, struct jval v, struct jval *list)
{
    if (v.type == JT_ITER || v.type == JT_LOOP)
        return rt_fail(rt, "'%s' object is not reversible", jval_type_name(v));
    return rt_list(rt, v, list);
}

int f_last(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"seq", NULL};
    struct jval v, list;
    int rc = rt_bind_args(rt, "last", args, 0, names, 1, &v);
    if (!rc)
        rc = reversed(rt, v, &list);
    if (rc)
        return rc;
    if (!list.list->n)
        return rt_undef_hint(rt, "No last item, sequence was empty.", out);
    *out = list.list->v[list.list->n - 1];
    return 0;
}

int f_reverse(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jval v, list;
    int rc = rt_bind_args(rt, "reverse", args, 0, value_only, 1, &v);
    if (rc)
        return rc;
    if (v.type == JT_STR) {
        struct jval part[3] = {jval_none(), jval_none(), jval_int(-1)};
        rc = rt_slice_of(rt, v, part, out);
        return rc;
    }
    rc = rt_list(rt, v, &list);
    if (rc)
        return rc;
    if (v.type == JT_ITER) { /* list(value).reverse() */
        struct jval part[3] = {jval_none(), jval_none(), jval_int(-1)};
        return rt_slice_of(rt, list, part, out);
    }
    struct jiter it = {.kind = ITER_REVERSED, .src = list};
    return rt_iter_value(rt, it, out);
}

static int made_items(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jval v;
    int rc = rt_bind_args(rt, "items", args, 0, value_only, 1, &v);
    if (rc)
        return rc;
    if (v.type == JT_UNDEF && !jval_dict(rt->a, 0, &v))
        return rt_nomem(rt);
    if (v.type != JT_DICT)
        return rt_fail(rt, "Can only get item pairs from a mapping.");
    struct jiter it = {.kind = ITER_ITEMS, .src = v};
    return rt_iter_value(rt, it, out);
}
GENERATOR(f_items, made_items)

int f_join(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "d", "attribute", NULL};
    struct jval v[3], list, sep;
    int rc = rt_bind_args(rt, "join", args, 0, names, 1, v);
    if (!rc && v[1].type == JT_MISSING)
        rc = rt_str(rt, "", &v[1]);
    if (!rc)
        rc = rt_to_str(rt, v[1], &sep);
    if (!rc)
        rc = rt_list(rt, v[0], &list);
    for (uint32_t i = 0; !rc && i < list.list->n; i++)
        rc = rt_attr_path(rt, list.list->v[i], v[2], missing(), &list.list->v[i]);
    return rc ? rc : rt_str_join(rt, sep, list.list->v, list.list->n, out);
}

/* ---- generators --------------------------------------------------------------------------- */

static const char **names_from(struct jrt *rt, const struct jargs *args)
{
    return arena_memdup(rt->a, args->names, args->n_kw * sizeof(*args->names));
}

int f_map(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jiter it = {.kind = ITER_MAP, .src = args->v[0], .def = missing()};
    if (args->n == 1 && args->n_kw) {
        static const char *const names[] = {"attribute", "default", NULL};
        struct jval v[2];
        int rc = rt_bind_args(rt, "map", args, 1, names, 1, v);
        it.by_attr = true;
        it.attr = v[0];
        it.def = v[1];
        return rc ? rc : rt_iter_value(rt, it, out);
    }
    if (args->n < 2)
        return rt_fail(rt, "map requires a filter argument");
    int rc = rt_filter_find(rt, args->v[1], &it.builtin);
    it.args = *args;
    it.args.v = args->v + 2;
    it.args.n = args->n - 2;
    it.args.names = names_from(rt, args);
    if (!rc && !it.args.names)
        rc = rt_nomem(rt);
    return rc ? rc : rt_iter_value(rt, it, out);
}

static int select_any(struct jrt *rt, struct jargs *args, bool by_attr, bool reject,
                      struct jval *out)
{
    struct jiter it = {.kind = ITER_SELECT, .by_attr = by_attr, .reject = reject, .builtin = -1};
    uint32_t at = by_attr ? 2 : 1;
    int rc = 0;
    if (args->n < at)
        return rt_fail(rt, "Missing parameter for attribute name");
    it.src = args->v[0];
    it.def = missing();
    it.attr = by_attr ? args->v[1] : missing();
    if (args->n > at)
        rc = rt_test_find(rt, args->v[at++], &it.builtin);
    it.args = *args;
    it.args.v = args->v + at;
    it.args.n = args->n - at;
    return rc ? rc : rt_iter_value(rt, it, out);
}

int f_select(struct jrt *rt, struct jargs *args, struct jval *out)
{
    return select_any(rt, args, false, false, out);
}

int f_reject(struct jrt *rt, struct jargs *args, struct jval *out)
{
    return select_any(rt, args, false, true, out);
}

int f_selectattr(struct jrt *rt, struct jargs *args, struct jval *out)
{
    return select_any(rt, args, true, false, out);
}

int f_rejectattr(struct jrt *rt, struct jargs *args, struct jval *out)
{
    return select_any(rt, args, true, true, out);
}

static int made_unique(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "case_sensitive", "attribute", NULL};
    struct jval v[3], list, seen, key;
    bool sensitive;
    uint32_t n = 0;
    int rc = rt_bind_args(rt, "unique", args, 0, names, 1, v);
    if (!rc)
        rc = rt_truth(rt, v[1], &sensitive);
    if (!rc)
        rc = rt_list(rt, v[0], &list);
    if (!rc && !jval_dict(rt->a, 0, &seen))
        rc = rt_nomem(rt);
    for (uint32_t i = 0; !rc && i < list.list->n; i++) {
        rc = rt_attr_path(rt, list.list->v[i], v[2], missing(), &key);
        if (!rc)
            rc = fold(rt, key, sensitive, &key);
        if (!rc && !jval_hashable(key))
            rc = rt_fail(rt, "unhashable type: '%s'", jval_type_name(key));
        if (!rc)
            rc = rt_charge_key(rt, seen.dict, key);
        if (rc || jdict_get(seen.dict, key))
            continue;
        list.list->v[n++] = list.list->v[i];
        if (!jdict_set(rt->a, seen.dict, key, jval_none()))
            rc = rt_nomem(rt);
    }
    if (rc)
        return rc;
    ((struct jlist *)list.list)->n = n;
    *out = list;
    return 0;
}
GENERATOR(f_unique, made_unique)

/* A list of rows of `list`, each [at[i], at[i + 1]), some with `fill` added. */
static int rows_add(struct jrt *rt, struct jval list, int64_t from, int64_t to, struct jval fill,
                    int64_t n_fill, struct jval *row)
{
    int rc = rt_seq(rt, JT_LIST, (uint32_t)(to - from + n_fill), row);
    if (rc)
        return rc;
    memcpy(row->list->v, list.list->v + from, (size_t)(to - from) * sizeof(*row->list->v));
    for (int64_t i = 0; i < n_fill; i++)
        row->list->v[to - from + i] = fill;
    return 0;
}

static int made_batch(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "linecount", "fill_with", NULL};
    struct jval v[3], list, rows;
    int64_t width;
    int rc = rt_bind_args(rt, "batch", args, 0, names, 2, v);
    if (!rc)
        rc = rt_index(rt, v[1], &width);
    if (!rc)
        rc = rt_list(rt, v[0], &list);
    if (!rc && (width < 1 || width > 100000))
        rc = rt_unsupported(rt, "batch of that size");
    if (rc)
        return rc;
    int64_t n = list.list->n, k = (n + width - 1) / width;
    bool fill = v[2].type != JT_MISSING && v[2].type != JT_NONE;
    rc = rt_seq(rt, JT_LIST, (uint32_t)k, &rows);
    for (int64_t i = 0; !rc && i < k; i++) {
        int64_t to = (i + 1) * width < n ? (i + 1) * width : n;
        rc = rows_add(rt, list, i * width, to, v[2], fill ? (i + 1) * width - to : 0,
                      &rows.list->v[i]);
    }
    *out = rows;
    return rc;
}
GENERATOR(f_batch, made_batch)

static int made_slice(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "slices", "fill_with", NULL};
    struct jval v[3], list, rows;
    int64_t slices, offset = 0;
    int rc = rt_bind_args(rt, "slice", args, 0, names, 2, v);
    if (!rc)
        rc = rt_index(rt, v[1], &slices);
    if (!rc)
        rc = rt_list(rt, v[0], &list);
    if (!rc && (slices < 1 || slices > 100000))
        rc = slices ? rt_unsupported(rt, "that many slices") : rt_fail(rt, "division by zero");
    if (rc)
        return rc;
    int64_t per = list.list->n / slices, extra = list.list->n % slices;
    bool fill = v[2].type != JT_MISSING && v[2].type != JT_NONE;
    rc = rt_seq(rt, JT_LIST, (uint32_t)slices, &rows);
    for (int64_t i = 0; !rc && i < slices; i++) {
        int64_t from = offset + i * per;
        offset += i < extra;
        rc = rows_add(rt, list, from, offset + (i + 1) * per, v[2], fill && i >= extra,
                      &rows.list->v[i]);
    }
    *out = rows;
    return rc;
}
GENERATOR(f_slice, made_slice)

/* ---- order -------------------------------------------------------------------------------- */

/* sort's key: the list of its attributes, "a,b". */
static int sort_key(struct jrt *rt, struct jval item, struct jval attrs, bool sensitive,
                    struct jval *key)
{
    struct jval parts[8] = {attrs}, list;
    uint32_t n = 1;
    int rc = 0;
    if (attrs.type == JT_STR) {
        size_t from = 0;
        n = 0;
        for (size_t i = 0; !rc && i <= attrs.s->n; i++) {
            if (i < attrs.s->n && attrs.s->p[i] != ',')
                continue;
            if (n == sizeof(parts) / sizeof(parts[0]))
                return rt_unsupported(rt, "sort by so many attributes");
            rc = rt_slice(rt, attrs, from, i - from, &parts[n++]);
            from = i + 1;
        }
    }
    if (!rc)
        rc = rt_seq(rt, JT_LIST, n, &list);
    for (uint32_t i = 0; !rc && i < n; i++) {
        rc = rt_attr_path(rt, item, parts[i], missing(), &list.list->v[i]);
        if (!rc)
            rc = fold(rt, list.list->v[i], sensitive, &list.list->v[i]);
    }
    *key = list;
    return rc;
}

int f_sort(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "reverse", "case_sensitive", "attribute", NULL};
    struct jval v[4], list, keys;
    bool reverse, sensitive;
    int rc = rt_bind_args(rt, "sort", args, 0, names, 1, v);
    if (!rc)
        rc = rt_truth(rt, v[1], &reverse);
    if (!rc)
        rc = rt_truth(rt, v[2], &sensitive);
    if (!rc)
        rc = rt_list(rt, v[0], &list);
    if (!rc)
        rc = rt_seq(rt, JT_LIST, list.list->n, &keys);
    for (uint32_t i = 0; !rc && i < list.list->n; i++)
        rc = sort_key(rt, list.list->v[i], v[3], sensitive, &keys.list->v[i]);
    if (!rc)
        rc = rt_sort(rt, list.list->v, keys.list->v, list.list->n, reverse);
    if (!rc)
        *out = list;
    return rc;
}

int f_dictsort(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "case_sensitive", "by", "reverse", NULL};
    static const struct jstr by_key = {.p = "key", .n = 3}, by_value = {.p = "value", .n = 5};
    struct jval v[4], list, keys;
    bool sensitive, reverse;
    int pos = 0, rc = rt_bind_args(rt, "dictsort", args, 0, names, 1, v);
    if (!rc)
        rc = rt_truth(rt, v[1], &sensitive);
    if (!rc)
        rc = rt_truth(rt, v[3], &reverse);
    if (!rc && v[2].type != JT_MISSING) {
        pos = jval_equal(v[2], (struct jval){.type = JT_STR, .s = &by_value});
        if (!pos && !jval_equal(v[2], (struct jval){.type = JT_STR, .s = &by_key}))
            rc = rt_fail(rt, "You can only sort by either \"key\" or \"value\"");
    }
    if (!rc && v[0].type != JT_DICT)
        rc = v[0].type == JT_UNDEF
                 ? rt_undef_used(rt, v[0])
                 : rt_fail(rt, "'%s' object has no attribute 'items'", jval_type_name(v[0]));
    struct jargs items = {.v = v, .n = 1};
    if (!rc)
        rc = made_items(rt, &items, &list);
    if (!rc)
        rc = rt_list(rt, list, &list);
    if (!rc)
        rc = rt_seq(rt, JT_LIST, list.list->n, &keys);
    for (uint32_t i = 0; !rc && i < list.list->n; i++)
        rc = fold(rt, list.list->v[i].list->v[pos], sensitive, &keys.list->v[i]);
    if (!rc)
        rc = rt_sort(rt, list.list->v, keys.list->v, list.list->n, reverse);
    if (!rc)
        *out = list;
    return rc;
}

static int min_max(struct jrt *rt, struct jargs *args, bool max, struct jval *out)
{
    static const char *const names[] = {"value", "case_sensitive", "attribute", NULL};
    struct jval v[3], list, best = jval_none(), key;
    bool sensitive, better;
    int rc = rt_bind_args(rt, "min or max", args, 0, names, 1, v);
    if (!rc)
        rc = rt_truth(rt, v[1], &sensitive);
    if (!rc)
        rc = rt_list(rt, v[0], &list);
    if (!rc && !list.list->n)
        return rt_undef_hint(rt, "No aggregated item, sequence was empty.", out);
    for (uint32_t i = 0; !rc && i < list.list->n; i++) {
        rc = rt_attr_path(rt, list.list->v[i], v[2], missing(), &key);
        if (!rc)
            rc = fold(rt, key, sensitive, &key);
        better = i == 0;
        if (!rc && i)
            rc = max ? rt_less(rt, best, key, &better) : rt_less(rt, key, best, &better);
        if (!rc && better) {
            best = key;
            *out = list.list->v[i];
        }
    }
    return rc;
}

int f_min(struct jrt *rt, struct jargs *args, struct jval *out)
{
    return min_max(rt, args, false, out);
}

int f_max(struct jrt *rt, struct jargs *args, struct jval *out)
{
    return min_max(rt, args, true, out);
}

int f_sum(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"iterable", "attribute", "start", NULL};
    struct jval v[3], list, x;
    int rc = rt_bind_args(rt, "sum", args, 0, names, 1, v);
    if (!rc)
        rc = rt_list(rt, v[0], &list);
    if (!rc && v[2].type == JT_STR)
        rc = rt_fail(rt, "sum() can't sum strings");
    *out = v[2].type == JT_MISSING ? jval_int(0) : v[2];
    for (uint32_t i = 0; !rc && i < list.list->n; i++) {
        rc = rt_attr_path(rt, list.list->v[i], v[1], missing(), &x);
        if (!rc)
            rc = rt_binop(rt, '+', *out, x, out);
    }
    return rc;
}
