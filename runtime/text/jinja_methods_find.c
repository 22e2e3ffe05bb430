/* jinja_methods_find.c: methods of str that cut it up or look for something in it. */
#include <string.h>

#include "runtime/text/jinja_methods.h"
#include "runtime/text/jinja_text.h"

/* ---- str: split --------------------------------------------------------------------------- */

struct parts {
    struct jval *v;
    uint32_t n, cap;
};

static int parts_add(struct jrt *rt, struct parts *l, struct jval s, size_t at, size_t n)
{
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 8;
        struct jval *v = arena_calloc(rt->a, cap, sizeof(*v));
        if (!v)
            return rt_nomem(rt);
        if (l->n)
            memcpy(v, l->v, l->n * sizeof(*v));
        l->v = v;
        l->cap = cap;
    }
    return rt_slice(rt, s, at, n, &l->v[l->n++]);
}

static int parts_list(struct jrt *rt, const struct parts *l, bool reverse, struct jval *out)
{
    int rc = rt_seq(rt, JT_LIST, l->n, out);
    for (uint32_t i = 0; !rc && i < l->n; i++)
        out->list->v[i] = l->v[reverse ? l->n - 1 - i : i];
    return rc;
}

static int split_space(struct jrt *rt, struct jval s, int64_t max, struct parts *l)
{
    const char *p = s.s->p;
    size_t n = s.s->n, at = jtext_lstrip(p, n), len;
    int rc = 0;
    while (!rc && at < n) {
        if (max >= 0 && l->n == (uint64_t)max)
            return parts_add(rt, l, s, at, jtext_rstrip(p + at, n - at));
        size_t end = at;
        while (end < n && !jtext_space_at(p + end, n - end)) {
            jtext_decode(p + end, n - end, &len);
            end += len;
        }
        rc = parts_add(rt, l, s, at, end - at);
        at = end + jtext_lstrip(p + end, n - end);
    }
    return rc;
}

static int rsplit_space(struct jrt *rt, struct jval s, int64_t max, struct parts *l)
{
    const char *p = s.s->p;
    size_t n = jtext_rstrip(p, s.s->n);
    int rc = 0;
    while (!rc && n > 0) {
        if (max >= 0 && l->n == (uint64_t)max)
            return parts_add(rt, l, s, 0, n); /* the space in front stays */
        size_t at = n;
        while (at > 0) {
            size_t c = at - 1;
            while (c && ((unsigned char)p[c] & 0xc0) == 0x80)
                c--;
            if (jtext_space_at(p + c, n - c))
                break;
            at = c;
        }
        rc = parts_add(rt, l, s, at, n - at);
        n = jtext_rstrip(p, at);
    }
    return rc;
}

static int split_sep(struct jrt *rt, struct jval s, const struct jstr *sep, int64_t max,
                     struct parts *l)
{
    size_t at = 0, hit;
    int rc = 0;
    while (!rc && (max < 0 || l->n < (uint64_t)max) && str_find(s.s, sep, at, &hit)) {
        rc = parts_add(rt, l, s, at, hit - at);
        at = hit + sep->n;
    }
    return rc ? rc : parts_add(rt, l, s, at, s.s->n - at);
}

/* What find_last may cost: it compares at every place. */
static int charge_find_last(struct jrt *rt, const struct jstr *s, const struct jstr *what)
{
    return rt_charge(rt, s->n / 16 + (uint64_t)s->n * what->n / 1024 + 1);
}

/* The last place of `what` in the first n bytes. */
static bool find_last(const struct jstr *s, const struct jstr *what, size_t from, size_t n,
                      size_t *at)
{
    if (what->n > n || from > n - what->n)
        return false;
    for (size_t i = n - what->n + 1; i-- > from;)
        if (!memcmp(s->p + i, what->p, what->n)) {
            *at = i;
            return true;
        }
    return false;
}

static int rsplit_sep(struct jrt *rt, struct jval s, const struct jstr *sep, int64_t max,
                      struct parts *l)
{
    size_t n = s.s->n, hit;
    int rc = charge_find_last(rt, s.s, sep);
    while (!rc && (max < 0 || l->n < (uint64_t)max) && find_last(s.s, sep, 0, n, &hit)) {
        rc = parts_add(rt, l, s, hit + sep->n, n - hit - sep->n);
        n = hit;
    }
    return rc ? rc : parts_add(rt, l, s, 0, n);
}

static int split_any(struct jrt *rt, struct jval self, struct jargs *args, bool from_end,
                     struct jval *out)
{
    static const char *const names[] = {"sep", "maxsplit", NULL};
    struct jval v[2];
    struct parts l = {0};
    int64_t max = -1;
    int rc = rt_bind_args(rt, "split", args, 0, names, 0, v);
    if (!rc && v[1].type != JT_MISSING)
        rc = rt_index(rt, v[1], &max);
    if (!rc)
        rc = rt_charge_bytes(rt, self.s->n);
    if (rc)
        return rc;
    bool space = v[0].type == JT_MISSING || v[0].type == JT_NONE;
    if (!space)
        rc = method_want_str(rt, v[0]);
    if (!rc && !space && !v[0].s->n)
        return rt_fail(rt, "empty separator");
    if (!rc && space)
        rc = from_end ? rsplit_space(rt, self, max, &l) : split_space(rt, self, max, &l);
    else if (!rc)
        rc =
            from_end ? rsplit_sep(rt, self, v[0].s, max, &l) : split_sep(rt, self, v[0].s, max, &l);
    return rc ? rc : parts_list(rt, &l, from_end, out);
}

int str_split(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return split_any(rt, self, args, false, out);
}

int str_rsplit(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return split_any(rt, self, args, true, out);
}

int str_splitlines(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"keepends", NULL};
    struct jval v;
    bool keep = false;
    int rc = rt_bind_args(rt, "splitlines", args, 0, names, 0, &v);
    if (!rc)
        rc = rt_truth(rt, v, &keep);
    return rc ? rc : rt_str_splitlines(rt, self, keep, out);
}

/* partition and rpartition: before, separator, after. */
static int partition(struct jrt *rt, struct jval self, struct jargs *args, bool last,
                     struct jval *out)
{
    size_t hit = 0;
    int rc = method_args(rt, args, 1, 1);
    if (!rc)
        rc = method_want_str(rt, args->v[0]);
    if (!rc)
        rc = rt_charge_bytes(rt, self.s->n);
    if (rc)
        return rc;
    const struct jstr *s = self.s, *sep = args->v[0].s;
    if (!sep->n)
        return rt_fail(rt, "empty separator");
    rc = last ? charge_find_last(rt, s, sep) : 0;
    if (rc)
        return rc;
    bool found = last ? find_last(s, sep, 0, s->n, &hit) : str_find(s, sep, 0, &hit);
    size_t cut = found ? hit : last ? 0 : s->n, n = found ? sep->n : 0;
    struct jval t;
    rc = rt_seq(rt, JT_TUPLE, 3, &t);
    if (!rc)
        rc = rt_slice(rt, self, 0, cut, &t.list->v[0]);
    if (!rc)
        rc = rt_slice(rt, self, cut, n, &t.list->v[1]);
    if (!rc)
        rc = rt_slice(rt, self, cut + n, s->n - cut - n, &t.list->v[2]);
    *out = t;
    return rc;
}

int str_partition(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return partition(rt, self, args, false, out);
}

int str_rpartition(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return partition(rt, self, args, true, out);
}

/* ---- str: search -------------------------------------------------------------------------- */

/* Arguments (sub, start, end) with start and end in characters, to bytes. *empty: start is past
 * the end, where nothing is found, not even "". */
static int search_span(struct jrt *rt, const struct jstr *s, const struct jargs *args, size_t *from,
                       size_t *to, bool *empty)
{
    int64_t part[2] = {0, s->chars};
    for (uint32_t i = 1; i < args->n; i++) {
        if (args->v[i].type == JT_NONE)
            continue;
        int rc = rt_index(rt, args->v[i], &part[i - 1]);
        if (rc)
            return rc;
        if (part[i - 1] < 0)
            part[i - 1] = part[i - 1] < -(int64_t)s->chars ? 0 : part[i - 1] + s->chars;
    }
    if (part[1] > s->chars)
        part[1] = s->chars;
    *empty = part[0] > part[1];
    *from = *empty ? 0 : jtext_skip(s->p, s->n, (size_t)part[0]);
    *to = *empty ? 0 : jtext_skip(s->p, s->n, (size_t)part[1]);
    return rt_charge_bytes(rt, s->n);
}

/* The place in characters, -1 when it is not there. */
static int find_any(struct jrt *rt, struct jval self, struct jargs *args, bool last, int64_t *at)
{
    size_t from, to, hit;
    bool empty;
    int rc = method_args(rt, args, 1, 3);
    if (!rc)
        rc = method_want_str(rt, args->v[0]);
    if (!rc)
        rc = search_span(rt, self.s, args, &from, &to, &empty);
    if (!rc && last)
        rc = charge_find_last(rt, self.s, args->v[0].s);
    if (rc)
        return rc;
    struct jstr part = {.p = self.s->p, .n = (uint32_t)to};
    bool found = !empty && (last ? find_last(&part, args->v[0].s, from, to, &hit)
                                 : str_find(&part, args->v[0].s, from, &hit));
    *at = found ? (int64_t)jtext_chars(self.s->p, hit) : -1;
    return 0;
}

#define FIND_METHOD(name, last, must)                                                \
    int name(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out) \
    {                                                                                \
        int64_t at = -1;                                                             \
        int rc = find_any(rt, self, args, last, &at);                                \
        *out = jval_int(at);                                                         \
        return !rc && must && at < 0 ? rt_fail(rt, "substring not found") : rc;      \
    }
FIND_METHOD(str_find_method, false, false)
FIND_METHOD(str_rfind, true, false)
FIND_METHOD(str_index, false, true)
FIND_METHOD(str_rindex, true, true)

int str_count(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    size_t from, to, hit;
    bool empty;
    int64_t n = 0;
    int rc = method_args(rt, args, 1, 3);
    if (!rc)
        rc = method_want_str(rt, args->v[0]);
    if (!rc)
        rc = search_span(rt, self.s, args, &from, &to, &empty);
    if (rc)
        return rc;
    const struct jstr *what = args->v[0].s;
    struct jstr part = {.p = self.s->p, .n = (uint32_t)to};
    if (!empty && !what->n)
        n = (int64_t)jtext_chars(self.s->p + from, to - from) + 1;
    while (!empty && what->n && str_find(&part, what, from, &hit)) {
        n++;
        from = hit + what->n;
    }
    *out = jval_int(n);
    return 0;
}

static int starts_or_ends(struct jrt *rt, struct jval self, struct jargs *args, bool ends,
                          struct jval *out)
{
    size_t from, to;
    bool empty, yes = false;
    int rc = method_args(rt, args, 1, 3);
    if (!rc)
        rc = search_span(rt, self.s, args, &from, &to, &empty);
    if (rc)
        return rc;
    const struct jval *v = args->v;
    uint32_t n = 1;
    if (args->v[0].type == JT_TUPLE) {
        v = args->v[0].list->v;
        n = args->v[0].list->n;
    }
    for (uint32_t i = 0; i < n && !yes; i++) {
        rc = method_want_str(rt, v[i]);
        if (!rc)
            rc = rt_charge(rt, 1);
        if (rc)
            return rc;
        uint32_t k = v[i].s->n;
        yes = !empty && k <= to - from && !memcmp(self.s->p + (ends ? to - k : from), v[i].s->p, k);
    }
    *out = jval_bool(yes);
    return 0;
}

int str_startswith(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return starts_or_ends(rt, self, args, false, out);
}

int str_endswith(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return starts_or_ends(rt, self, args, true, out);
}

static int remove_affix(struct jrt *rt, struct jval self, struct jargs *args, bool suffix,
                        struct jval *out)
{
    struct jval yes;
    int rc = method_args(rt, args, 1, 1);
    if (!rc)
        rc = method_want_str(rt, args->v[0]);
    if (!rc)
        rc = starts_or_ends(rt, self, args, suffix, &yes);
    if (rc)
        return rc;
    size_t cut = yes.i ? args->v[0].s->n : 0;
    return rt_slice(rt, self, suffix ? 0 : cut, self.s->n - cut, out);
}

int str_removeprefix(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return remove_affix(rt, self, args, false, out);
}

int str_removesuffix(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return remove_affix(rt, self, args, true, out);
}
