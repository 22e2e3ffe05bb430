/* jinja_iter.c: iteration: iter() and next() of every value, generators, the `loop` variable. */
#include <string.h>

#include "runtime/text/jinja_rt.h"
#include "runtime/text/jinja_text.h"

bool rt_iterable(struct jval v)
{
    return v.type == JT_UNDEF || v.type == JT_STR || v.type == JT_LIST || v.type == JT_TUPLE ||
           v.type == JT_DICT || v.type == JT_RANGE || v.type == JT_VIEW || v.type == JT_ITER;
}

int rt_iter_value(struct jrt *rt, struct jiter it, struct jval *out)
{
    struct jiter *p = arena_memdup(rt->a, &it, sizeof(it));
    if (!p)
        return rt_nomem(rt);
    *out = (struct jval){.type = JT_ITER, .iter = p};
    return 0;
}

int rt_iter(struct jrt *rt, struct jval v, struct jiter **out)
{
    struct jiter it = {.src = v};
    struct jval made = jval_none();
    switch (v.type) {
    case JT_ITER:
        *out = v.iter;
        return 0;
    case JT_UNDEF:
        it.kind = ITER_SEQ;
        int rc = rt_seq(rt, JT_LIST, 0, &it.src);
        if (rc)
            return rc;
        break;
    case JT_LIST:
    case JT_TUPLE:
        it.kind = ITER_SEQ;
        break;
    case JT_STR:
        it.kind = ITER_CHARS;
        break;
    case JT_DICT:
        it.kind = ITER_KEYS;
        break;
    case JT_RANGE:
        it.kind = ITER_RANGE;
        break;
    case JT_VIEW:
        it.kind = v.view->kind == JV_KEYS     ? ITER_KEYS
                  : v.view->kind == JV_VALUES ? ITER_VALUES
                                              : ITER_ITEMS;
        it.src = (struct jval){.type = JT_DICT, .dict = (struct jdict *)v.view->dict};
        break;
    case JT_LOOP:
        return rt_unsupported(rt, "iterating over `loop`");
    default:
        return rt_fail(rt, "'%s' object is not iterable", jval_type_name(v));
    }
    int rc = rt_iter_value(rt, it, &made);
    *out = rc ? NULL : made.iter;
    return rc;
}

/* ---- next --------------------------------------------------------------------------------- */

static int next_char(struct jrt *rt, struct jiter *it, struct jval *out)
{
    const struct jstr *s = it->src.s;
    size_t len;
    if (it->at >= s->n)
        return 0;
    jtext_decode(s->p + it->at, s->n - it->at, &len);
    int rc = rt_slice(rt, it->src, it->at, len, out);
    out->markup = false;
    it->at += (uint32_t)len;
    return rc ? rc : 1;
}

static int next_pair(struct jrt *rt, struct jiter *it, struct jval *out)
{
    const struct jdict *d = it->src.dict;
    if (it->at >= d->n)
        return 0;
    int rc = rt_seq(rt, JT_TUPLE, 2, out);
    if (rc)
        return rc;
    out->list->v[0] = d->keys[it->at];
    out->list->v[1] = d->vals[it->at++];
    return 1;
}

/* Generators look at what they were given when they are first asked: nothing for what is false. */
static int begin(struct jrt *rt, struct jiter *it)
{
    bool any;
    struct jval none;
    if (it->begun)
        return 0;
    it->begun = true;
    if (it->kind == ITER_MADE) {
        int made = it->make(rt, &it->args, &it->src);
        return made ? made : rt_iter(rt, it->src, &it->from);
    }
    int rc = rt_truth(rt, it->src, &any);
    if (!rc && !any)
        rc = rt_seq(rt, JT_LIST, 0, &none);
    return rc ? rc : rt_iter(rt, any ? it->src : none, &it->from);
}

/* The generator's arguments with this item in front: for a filter or a test. */
static int item_args(struct jrt *rt, const struct jiter *it, struct jval item, struct jargs *args)
{
    *args = it->args;
    args->v = arena_calloc(rt->a, (size_t)it->args.n + 1, sizeof(*args->v));
    args->names = arena_memdup(rt->a, it->args.names, it->args.n_kw * sizeof(*args->names));
    args->kw = arena_memdup(rt->a, it->args.kw, it->args.n_kw * sizeof(*args->kw));
    if (!args->v || !args->names || !args->kw)
        return rt_nomem(rt);
    args->v[0] = item;
    if (it->args.n)
        memcpy(args->v + 1, it->args.v, it->args.n * sizeof(*args->v));
    args->n = it->args.n + 1;
    return rt_charge(rt, it->args.n + it->args.n_kw + 1);
}

static int next_mapped(struct jrt *rt, struct jiter *it, struct jval *out)
{
    struct jargs args;
    struct jval item;
    int rc = rt_next(rt, it->from, &item);
    if (rc <= 0)
        return rc;
    if (it->by_attr) {
        rc = rt_attr_path(rt, item, it->attr, it->def, out);
        return rc ? rc : 1;
    }
    rc = item_args(rt, it, item, &args);
    if (!rc)
        rc = rt_filter(rt, it->builtin, &args, out);
    return rc ? rc : 1;
}

static int passes(struct jrt *rt, struct jiter *it, struct jval item, bool *yes)
{
    struct jargs args;
    struct jval v = item, none = {.type = JT_MISSING};
    int rc = it->by_attr ? rt_attr_path(rt, item, it->attr, none, &v) : 0;
    if (rc)
        return rc;
    if (it->builtin < 0) {
        rc = rt_truth(rt, v, yes);
    } else {
        rc = item_args(rt, it, v, &args);
        if (!rc)
            rc = rt_test(rt, it->builtin, &args, yes);
    }
    *yes = *yes != it->reject;
    return rc;
}

static int passes_for(struct jrt *rt, struct jiter *it, struct jval item, bool *yes)
{
    struct jval v;
    int rc = rt_assign(rt, it->frame, it->node->d, item);
    if (!rc)
        rc = rt_eval(rt, it->frame, it->node->c, &v);
    return rc ? rc : rt_truth(rt, v, yes);
}

static int next_selected(struct jrt *rt, struct jiter *it, struct jval *out)
{
    int rc;
    if (it->kind == ITER_FOR_TEST && !it->at) {
        it->at = 1;
        rc = rt_scope_enter(rt, it->frame, it->node->test_scope);
        if (rc)
            return rc;
    }
    while ((rc = rt_next(rt, it->from, out)) > 0) {
        bool yes = false;
        rc = it->kind == ITER_SELECT ? passes(rt, it, *out, &yes) : passes_for(rt, it, *out, &yes);
        if (rc)
            return rc;
        if (yes)
            return 1;
    }
    return rc;
}

static int next_of(struct jrt *rt, struct jiter *it, struct jval *out)
{
    int rc;
    switch (it->kind) {
    case ITER_SEQ:
        if (it->at >= it->src.list->n)
            return 0;
        *out = it->src.list->v[it->at++];
        return 1;
    case ITER_REVERSED:
        if (it->at >= it->src.list->n)
            return 0;
        *out = it->src.list->v[it->src.list->n - 1 - it->at++];
        return 1;
    case ITER_CHARS:
        return next_char(rt, it, out);
    case ITER_KEYS:
        if (it->at >= it->src.dict->n)
            return 0;
        *out = it->src.dict->keys[it->at++];
        return 1;
    case ITER_VALUES:
        if (it->at >= it->src.dict->n)
            return 0;
        *out = it->src.dict->vals[it->at++];
        return 1;
    case ITER_ITEMS:
        return next_pair(rt, it, out);
    case ITER_RANGE:
        if (it->at >= it->src.range->n)
            return 0;
        *out = jval_int(it->src.range->start + (int64_t)it->at++ * it->src.range->step);
        return 1;
    case ITER_MAP:
    case ITER_SELECT:
    case ITER_MADE:
    case ITER_FOR_TEST:
        rc = begin(rt, it);
        if (rc)
            return rc;
        if (it->kind == ITER_MADE)
            return rt_next(rt, it->from, out);
        return it->kind == ITER_MAP ? next_mapped(rt, it, out) : next_selected(rt, it, out);
    }
    return 0;
}

/* Generators may stand on generators: that depth is bounded, too. */
int rt_next(struct jrt *rt, struct jiter *it, struct jval *out)
{
    int rc = rt_charge(rt, 1);
    if (!rc)
        rc = rt_enter(rt);
    if (rc)
        return rc;
    rc = next_of(rt, it, out);
    rt_leave(rt);
    return rc;
}

int rt_list(struct jrt *rt, struct jval v, struct jval *out)
{
    struct jiter *it;
    uint32_t n = 0, cap = 8;
    struct jval *items = NULL, list;
    int64_t len = 0;
    int rc = rt_iter(rt, v, &it);
    if (!rc && rt_has_len(v) && v.type != JT_LOOP)
        rc = rt_len(rt, v, &len);
    if (rc)
        return rc;
    cap = len > 8 ? (uint32_t)len : 8;
    items = arena_calloc(rt->a, cap, sizeof(*items));
    while (items && (rc = rt_next(rt, it, &items[n])) > 0) {
        if (++n < cap)
            continue;
        struct jval *more = arena_calloc(rt->a, (size_t)cap * 2, sizeof(*more));
        if (more)
            memcpy(more, items, n * sizeof(*items));
        items = more;
        cap *= 2;
    }
    if (!items)
        return rt_nomem(rt);
    if (!rc)
        rc = rt_seq(rt, JT_LIST, 0, &list);
    if (rc)
        return rc;
    ((struct jlist *)list.list)->v = items;
    ((struct jlist *)list.list)->n = n;
    *out = list;
    return 0;
}

/* ---- loop --------------------------------------------------------------------------------- */

int rt_loop_next(struct jrt *rt, struct jloop *l, struct jval *out)
{
    struct jval v = l->after;
    int rc = 1;
    l->after = (struct jval){.type = JT_MISSING};
    if (v.type == JT_MISSING)
        rc = rt_next(rt, l->it, &v);
    if (rc <= 0)
        return rc;
    l->index0++;
    l->before = l->current;
    l->current = v;
    *out = v;
    return 1;
}

static int loop_peek(struct jrt *rt, struct jloop *l)
{
    if (l->after.type != JT_MISSING)
        return 0;
    struct jval v;
    int rc = rt_next(rt, l->it, &v);
    if (rc > 0)
        l->after = v;
    return rc < 0 ? rc : 0;
}

/* A generator is read to its end, and the loop goes on over the list of that. */
static int loop_length(struct jrt *rt, struct jloop *l)
{
    struct jval rest, from = {.type = JT_ITER, .iter = l->it};
    if (l->length >= 0)
        return 0;
    if (l->iterable.type != JT_ITER)
        return rt_len(rt, l->iterable, &l->length);
    int rc = rt_list(rt, from, &rest);
    if (!rc)
        rc = rt_iter(rt, rest, &l->it);
    if (!rc)
        l->length = rest.list->n + l->index0 + 1 + (l->after.type != JT_MISSING);
    return rc;
}

/* 1: there is no such attribute. */
int rt_loop_attr(struct jrt *rt, struct jloop *l, const char *name, struct jval *out)
{
    int rc = 0;
    if (!strcmp(name, "index0"))
        *out = jval_int(l->index0);
    else if (!strcmp(name, "index"))
        *out = jval_int(l->index0 + 1);
    else if (!strcmp(name, "first"))
        *out = jval_bool(l->index0 == 0);
    else if (!strcmp(name, "depth"))
        *out = jval_int(1);
    else if (!strcmp(name, "depth0"))
        *out = jval_int(0);
    else if (!strcmp(name, "last")) {
        rc = loop_peek(rt, l);
        *out = jval_bool(l->after.type == JT_MISSING);
    } else if (!strcmp(name, "nextitem")) {
        rc = loop_peek(rt, l);
        *out = l->after;
        if (!rc && out->type == JT_MISSING)
            rc = rt_undef_hint(rt, "there is no next item", out);
    } else if (!strcmp(name, "previtem")) {
        *out = l->before;
        if (l->index0 == 0)
            rc = rt_undef_hint(rt, "there is no previous item", out);
    } else if (!strcmp(name, "length")) {
        rc = loop_length(rt, l);
        *out = jval_int(l->length);
    } else if (!strcmp(name, "revindex")) {
        rc = loop_length(rt, l);
        *out = jval_int(l->length - l->index0);
    } else if (!strcmp(name, "revindex0")) {
        rc = loop_length(rt, l);
        *out = jval_int(l->length - l->index0 - 1);
    } else {
        return 1;
    }
    return rc;
}

/* ---- sorting and attribute paths ---------------------------------------------------------- */

/* Merges v[0, mid) and v[mid, n): b goes first only where it is less, which is stable; reversed,
 * where a is less. */
static int merge(struct jrt *rt, struct jval *v, struct jval *keys, uint32_t mid, uint32_t n,
                 bool reverse, struct jval *tmp)
{
    struct jval *tmp_keys = tmp + n;
    uint32_t a = 0, b = mid;
    for (uint32_t i = 0; i < n; i++) {
        bool take_b = a == mid;
        if (a < mid && b < n) {
            int rc = reverse ? rt_less(rt, keys[a], keys[b], &take_b)
                             : rt_less(rt, keys[b], keys[a], &take_b);
            if (!rc)
                rc = rt_charge(rt, 1);
            if (rc)
                return rc;
        }
        uint32_t from = take_b ? b++ : a++;
        tmp[i] = v[from];
        tmp_keys[i] = keys[from];
    }
    memcpy(v, tmp, n * sizeof(*v));
    memcpy(keys, tmp_keys, n * sizeof(*keys));
    return 0;
}

int rt_sort(struct jrt *rt, struct jval *v, struct jval *keys, uint32_t n, bool reverse)
{
    struct jval *tmp = arena_calloc(rt->a, (size_t)n * 2 + 1, sizeof(*tmp));
    if (!tmp)
        return rt_nomem(rt);
    for (uint64_t width = 1; width < n; width *= 2)
        for (uint64_t at = 0; at + width < n; at += 2 * width) {
            uint64_t len = n - at < 2 * width ? n - at : 2 * width;
            int rc = merge(rt, v + at, keys + at, (uint32_t)width, (uint32_t)len, reverse, tmp);
            if (rc)
                return rc;
        }
    return 0;
}

static int attr_part(struct jrt *rt, struct jval item, struct jval part, struct jval def,
                     struct jval *out)
{
    bool number = part.type == JT_STR && part.s->n > 0 && part.s->n < 10;
    int64_t i = 0;
    for (uint32_t k = 0; number && k < part.s->n; k++) {
        number = part.s->p[k] >= '0' && part.s->p[k] <= '9';
        i = i * 10 + (part.s->p[k] - '0');
    }
    int rc = rt_getitem(rt, item, number ? jval_int(i) : part, out);
    if (!rc && out->type == JT_UNDEF && def.type != JT_MISSING && def.type != JT_NONE)
        *out = def;
    return rc;
}

int rt_attr_path(struct jrt *rt, struct jval item, struct jval path, struct jval def,
                 struct jval *out)
{
    *out = item;
    if (path.type == JT_NONE || path.type == JT_MISSING)
        return 0;
    if (path.type != JT_STR)
        return attr_part(rt, item, path, def, out);
    size_t from = 0;
    for (size_t i = 0; i <= path.s->n; i++) {
        struct jval part;
        if (i < path.s->n && path.s->p[i] != '.')
            continue;
        int rc = rt_slice(rt, path, from, i - from, &part);
        if (!rc)
            rc = attr_part(rt, *out, part, def, out);
        if (rc)
            return rc;
        from = i + 1;
    }
    return 0;
}
