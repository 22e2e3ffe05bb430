/* jinja_seq.c: what operators do with strings, lists and tuples: +, *, slices. */
#include <string.h>

#include "runtime/text/jinja_rt.h"
#include "runtime/text/jinja_text.h"

/* ---- sequences ---------------------------------------------------------------------------- */

/* Strings one after the other. When the first is the tail, the rest goes behind it in place: what
 * was there of it stays as it is. */
static int join_strings(struct jrt *rt, const struct jval *v, uint32_t n, struct jval *out)
{
    size_t total = 0, at = 0, chars = 0;
    for (uint32_t i = 0; i < n; i++) {
        total += v[i].s->n;
        chars += v[i].s->chars;
    }
    bool grow = n && v[0].s->n && v[0].s->p == rt->tail.p && v[0].s->n == rt->tail.n &&
                total <= rt->tail.cap;
    if (grow) {
        at = v[0].s->n;
    } else {
        size_t cap = total > 256 ? total * 2 : total;
        rt->tail.p = total < UINT32_MAX / 2 ? arena_alloc(rt->a, cap + 1) : NULL;
        rt->tail.cap = cap;
        if (!rt->tail.p)
            return rt_nomem(rt);
    }
    int rc = rt_charge_copy(rt, total - at);
    for (uint32_t i = grow; !rc && i < n; i++) {
        memcpy(rt->tail.p + at, v[i].s->p, v[i].s->n);
        at += v[i].s->n;
    }
    rt->tail.n = at;
    if (!rc && !jval_str_borrow(rt->a, rt->tail.p, total, (uint32_t)chars, out))
        rc = rt_nomem(rt);
    return rc;
}

int rt_concat(struct jrt *rt, struct jval *v, uint32_t n, struct jval *out)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < n; i++)
        rc = rt_to_str(rt, v[i], &v[i]);
    return rc ? rc : join_strings(rt, v, n, out);
}

int rt_add_str(struct jrt *rt, struct jval a, struct jval b, struct jval *out)
{
    bool markup = a.markup || b.markup;
    struct jval v[2] = {a, b};
    int rc = 0;
    if (markup && !a.markup)
        rc = rt_escape(rt, a, &v[0]);
    if (markup && !b.markup && !rc)
        rc = rt_escape(rt, b, &v[1]);
    if (!rc)
        rc = join_strings(rt, v, 2, out);
    out->markup = markup;
    return rc;
}

int rt_add_seq(struct jrt *rt, struct jval a, struct jval b, struct jval *out)
{
    const struct jlist *x = a.list, *y = b.list;
    if (y->n > UINT32_MAX - x->n)
        return rt_nomem(rt);
    int rc = rt_seq(rt, a.type, x->n + y->n, out);
    if (rc)
        return rc;
    memcpy(out->list->v, x->v, x->n * sizeof(*x->v));
    memcpy(out->list->v + x->n, y->v, y->n * sizeof(*y->v));
    return 0;
}

int rt_repeat(struct jrt *rt, struct jval v, int64_t times, struct jval *out)
{
    size_t unit = v.type == JT_STR ? v.s->n : v.list->n;
    uint64_t k = times > 0 && unit ? (uint64_t)times : 0;
    if (k > UINT32_MAX || unit * k > UINT32_MAX / 2)
        return rt_nomem(rt);
    if (v.type != JT_STR) {
        const struct jlist *l = v.list;
        int rc = rt_seq(rt, v.type, (uint32_t)(unit * k), out);
        for (uint64_t i = 0; !rc && i < k; i++)
            memcpy(out->list->v + i * unit, l->v, unit * sizeof(*l->v));
        return rc;
    }
    int rc = rt_charge_copy(rt, unit * k);
    char *p = rc ? NULL : arena_alloc(rt->a, unit * k + 1);
    if (rc || !p)
        return rc ? rc : rt_nomem(rt);
    for (uint64_t i = 0; i < k; i++)
        memcpy(p + i * unit, v.s->p, unit);
    bool markup = v.markup;
    if (!jval_str_borrow(rt->a, p, unit * k, (uint32_t)(v.s->chars * k), out))
        return rt_nomem(rt);
    out->markup = markup;
    return 0;
}

/* ---- slices ------------------------------------------------------------------------------- */

static int slice_bound(struct jrt *rt, struct jval v, int64_t n, int64_t step, bool is_stop,
                       int64_t *out)
{
    if (v.type == JT_NONE) {
        if (is_stop)
            *out = step > 0 ? n : -1;
        else
            *out = step > 0 ? 0 : n - 1;
        return 0;
    }
    if (v.type != JT_INT && v.type != JT_BOOL)
        return rt_fail(rt, "slice indices must be integers or None");
    int64_t i = v.i;
    if (i < 0) {
        i += n;
        if (i < 0)
            i = step < 0 ? -1 : 0;
    } else if (i >= n) {
        i = step < 0 ? n - 1 : n;
    }
    *out = i;
    return 0;
}

static int slice_string(struct jrt *rt, struct jval s, int64_t start, int64_t step, uint32_t count,
                        struct jval *out)
{
    int rc = rt_charge_bytes(rt, s.s->n);
    bool ascii = s.s->n == s.s->chars;
    if (rc)
        return rc;
    if (step == 1 || count == 0) {
        size_t skip = count ? (size_t)start : 0;
        size_t at = ascii ? skip : jtext_skip(s.s->p, s.s->n, skip);
        size_t n = ascii ? count : jtext_skip(s.s->p + at, s.s->n - at, count);
        return rt_slice(rt, s, at, n, out);
    }
    /* Offsets of all characters, then pick. */
    uint32_t *off = arena_calloc(rt->a, (size_t)s.s->chars + 1, sizeof(*off));
    char *p = off ? arena_alloc(rt->a, (size_t)count * 4 + 1) : NULL;
    if (!p)
        return rt_nomem(rt);
    size_t len, n = 0, k = 0;
    for (size_t at = 0; at < s.s->n; at += len) {
        off[k++] = (uint32_t)at;
        jtext_decode(s.s->p + at, s.s->n - at, &len);
    }
    off[k] = s.s->n;
    for (uint32_t i = 0; i < count; i++) {
        int64_t c = start + (int64_t)i * step;
        memcpy(p + n, s.s->p + off[c], off[c + 1] - off[c]);
        n += off[c + 1] - off[c];
    }
    if (!jval_str_borrow(rt->a, p, n, count, out))
        return rt_nomem(rt);
    out->markup = s.markup;
    return 0;
}

/* What the bounds of a slice of a range are when printed is Python's; so is every item. */
static int slice_range(struct jrt *rt, const struct jrange *r, int64_t start, int64_t stop,
                       int64_t step, uint32_t count, struct jval *out)
{
    struct jrange *s = arena_alloc(rt->a, sizeof(*s));
    if (!s)
        return rt_nomem(rt);
    if (__builtin_mul_overflow(r->step, step, &s->step) ||
        __builtin_mul_overflow(start, r->step, &start) ||
        __builtin_mul_overflow(stop, r->step, &stop) ||
        __builtin_add_overflow(r->start, start, &s->start) ||
        __builtin_add_overflow(r->start, stop, &s->stop))
        return rt_overflow(rt);
    s->n = count;
    *out = (struct jval){.type = JT_RANGE, .range = s};
    return 0;
}

int rt_slice_of(struct jrt *rt, struct jval obj, const struct jval part[3], struct jval *out)
{
    int64_t n, start, stop, step = 1;
    if (obj.type == JT_UNDEF)
        return rt_undef_used(rt, obj);
    if (obj.type != JT_STR && obj.type != JT_LIST && obj.type != JT_TUPLE && obj.type != JT_RANGE)
        return rt_fail(rt, "'%s' object cannot be sliced", jval_type_name(obj));
    int rc = rt_len(rt, obj, &n);
    if (!rc && part[2].type != JT_NONE)
        rc = rt_index(rt, part[2], &step);
    if (!rc && step == 0)
        return rt_fail(rt, "slice step cannot be zero");
    if (!rc)
        rc = slice_bound(rt, part[0], n, step, false, &start);
    if (!rc)
        rc = slice_bound(rt, part[1], n, step, true, &stop);
    if (rc)
        return rc;
    int64_t whole_step = step;
    if (step < -n - 1) /* the same one item, and no overflow below */
        step = -n - 1;
    if (step > n + 1)
        step = n + 1;
    int64_t count = 0;
    if (step > 0 && stop > start)
        count = (stop - start - 1) / step + 1;
    if (step < 0 && start > stop)
        count = (start - stop - 1) / -step + 1;
    if (obj.type == JT_STR)
        return slice_string(rt, obj, start, step, (uint32_t)count, out);
    if (obj.type == JT_RANGE)
        return slice_range(rt, obj.range, start, stop, whole_step, (uint32_t)count, out);
    const struct jlist *l = obj.list;
    rc = rt_seq(rt, obj.type, (uint32_t)count, out);
    for (int64_t i = 0; !rc && i < count; i++)
        out->list->v[i] = l->v[start + i * step];
    return rc;
}

int rt_escape(struct jrt *rt, struct jval v, struct jval *out)
{
    static const char special[] = "&<>'\"";
    static const char *const entity[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    struct jval s;
    int rc = rt_to_str(rt, v, &s);
    if (rc || s.markup) {
        *out = s;
        return rc;
    }
    size_t mark = rt_capture(rt), from = 0;
    for (size_t i = 0; !rc && i <= s.s->n; i++) {
        const char *hit = i < s.s->n && s.s->p[i] ? strchr(special, s.s->p[i]) : NULL;
        if (!hit && i < s.s->n)
            continue;
        rc = rt_put(rt, s.s->p + from, i - from);
        if (!rc && hit)
            rc = rt_puts(rt, entity[hit - special]);
        from = i + 1;
    }
    int end = rt_capture_end(rt, mark, out);
    out->markup = true;
    return rc ? rc : end;
}
