/* jinja_methods.c: methods of str, list, tuple, dict and loop. */
#include <string.h>

#include "runtime/text/jinja_rt.h"
#include "runtime/text/jinja_text.h"

typedef int method_fn(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out);

static int no_kwargs(struct jrt *rt, const struct jargs *args, uint32_t min, uint32_t max)
{
    if (args->n_kw)
        return rt_fail(rt, "the method takes no keyword arguments");
    if (args->n < min || args->n > max)
        return rt_fail(rt, "the method takes %u to %u arguments, not %u", min, max, args->n);
    return 0;
}

static struct jval arg_or(const struct jargs *args, uint32_t i, struct jval other)
{
    return i < args->n ? args->v[i] : other;
}

static int want_str(struct jrt *rt, struct jval v)
{
    if (v.type == JT_STR)
        return 0;
    return rt_fail(rt, "must be str, not %s", jval_type_name(v));
}

/* ---- str: case and strip ------------------------------------------------------------------ */

#define CASE_METHOD(name, how)                                                              \
    static int name(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out) \
    {                                                                                       \
        int rc = no_kwargs(rt, args, 0, 0);                                                 \
        return rc ? rc : rt_str_case(rt, self, how, out);                                   \
    }
CASE_METHOD(str_lower, CASE_LOWER)
CASE_METHOD(str_upper, CASE_UPPER)
CASE_METHOD(str_title, CASE_TITLE)
CASE_METHOD(str_capitalize, CASE_CAPITALIZE)
CASE_METHOD(str_swapcase, CASE_SWAP)

#define STRIP_METHOD(name, sides)                                                           \
    static int name(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out) \
    {                                                                                       \
        int rc = no_kwargs(rt, args, 0, 1);                                                 \
        return rc ? rc : rt_str_strip(rt, self, arg_or(args, 0, jval_none()), sides, out);  \
    }
STRIP_METHOD(str_strip, STRIP_LEFT | STRIP_RIGHT)
STRIP_METHOD(str_lstrip, STRIP_LEFT)
STRIP_METHOD(str_rstrip, STRIP_RIGHT)

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
        if (max >= 0 && l->n == (uint64_t)max) {
            size_t from = jtext_lstrip(p, n);
            return parts_add(rt, l, s, from, n - from);
        }
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
    int rc = 0;
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
        rc = want_str(rt, v[0]);
    if (!rc && !space && !v[0].s->n)
        return rt_fail(rt, "empty separator");
    if (!rc && space)
        rc = from_end ? rsplit_space(rt, self, max, &l) : split_space(rt, self, max, &l);
    else if (!rc)
        rc =
            from_end ? rsplit_sep(rt, self, v[0].s, max, &l) : split_sep(rt, self, v[0].s, max, &l);
    return rc ? rc : parts_list(rt, &l, from_end, out);
}

static int str_split(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return split_any(rt, self, args, false, out);
}

static int str_rsplit(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return split_any(rt, self, args, true, out);
}

static int str_splitlines(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
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
    int rc = no_kwargs(rt, args, 1, 1);
    if (!rc)
        rc = want_str(rt, args->v[0]);
    if (!rc)
        rc = rt_charge_bytes(rt, self.s->n);
    if (rc)
        return rc;
    const struct jstr *s = self.s, *sep = args->v[0].s;
    if (!sep->n)
        return rt_fail(rt, "empty separator");
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

static int str_partition(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return partition(rt, self, args, false, out);
}

static int str_rpartition(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
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
    int rc = no_kwargs(rt, args, 1, 3);
    if (!rc)
        rc = want_str(rt, args->v[0]);
    if (!rc)
        rc = search_span(rt, self.s, args, &from, &to, &empty);
    if (rc)
        return rc;
    struct jstr part = {.p = self.s->p, .n = (uint32_t)to};
    bool found = !empty && (last ? find_last(&part, args->v[0].s, from, to, &hit)
                                 : str_find(&part, args->v[0].s, from, &hit));
    *at = found ? (int64_t)jtext_chars(self.s->p, hit) : -1;
    return 0;
}

#define FIND_METHOD(name, last, must)                                                       \
    static int name(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out) \
    {                                                                                       \
        int64_t at = -1;                                                                    \
        int rc = find_any(rt, self, args, last, &at);                                       \
        *out = jval_int(at);                                                                \
        return !rc && must && at < 0 ? rt_fail(rt, "substring not found") : rc;             \
    }
FIND_METHOD(str_find_method, false, false)
FIND_METHOD(str_rfind, true, false)
FIND_METHOD(str_index, false, true)
FIND_METHOD(str_rindex, true, true)

static int str_count(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    size_t from, to, hit;
    bool empty;
    int64_t n = 0;
    int rc = no_kwargs(rt, args, 1, 3);
    if (!rc)
        rc = want_str(rt, args->v[0]);
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
    int rc = no_kwargs(rt, args, 1, 3);
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
        rc = want_str(rt, v[i]);
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

static int str_startswith(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return starts_or_ends(rt, self, args, false, out);
}

static int str_endswith(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return starts_or_ends(rt, self, args, true, out);
}

static int remove_affix(struct jrt *rt, struct jval self, struct jargs *args, bool suffix,
                        struct jval *out)
{
    struct jval yes;
    int rc = no_kwargs(rt, args, 1, 1);
    if (!rc)
        rc = want_str(rt, args->v[0]);
    if (!rc)
        rc = starts_or_ends(rt, self, args, suffix, &yes);
    if (rc)
        return rc;
    size_t cut = yes.i ? args->v[0].s->n : 0;
    return rt_slice(rt, self, suffix ? 0 : cut, self.s->n - cut, out);
}

static int str_removeprefix(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return remove_affix(rt, self, args, false, out);
}

static int str_removesuffix(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return remove_affix(rt, self, args, true, out);
}

/* ---- str: the rest ------------------------------------------------------------------------ */

static int str_replace(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int64_t count = -1;
    int rc = no_kwargs(rt, args, 2, 3);
    if (!rc)
        rc = want_str(rt, args->v[0]);
    if (!rc)
        rc = want_str(rt, args->v[1]);
    if (!rc && args->n == 3)
        rc = rt_index(rt, args->v[2], &count);
    return rc ? rc : rt_str_replace(rt, self, args->v[0], args->v[1], count, out);
}

static int str_join(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    struct jval list;
    int rc = no_kwargs(rt, args, 1, 1);
    if (!rc)
        rc = rt_list(rt, args->v[0], &list);
    for (uint32_t i = 0; !rc && i < list.list->n; i++)
        if (list.list->v[i].type != JT_STR)
            rc = rt_fail(rt, "sequence item %u: expected str instance, %s found", i,
                         jval_type_name(list.list->v[i]));
    if (!rc && self.markup)
        rc = rt_unsupported(rt, "join on a safe string");
    return rc ? rc : rt_str_join(rt, self, list.list->v, list.list->n, out);
}

static int str_format(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return rt_format_braces(rt, self, args, out);
}

/* Which side the padding goes: -1 left of the text, 0 both, 1 right of it. */
static int pad(struct jrt *rt, struct jval self, struct jargs *args, int side, struct jval *out)
{
    struct jval left, right, fill;
    int64_t width;
    int rc = no_kwargs(rt, args, 1, 2);
    if (!rc)
        rc = rt_index(rt, args->v[0], &width);
    if (!rc && args->n < 2)
        rc = rt_str(rt, " ", &fill);
    else if (!rc)
        rc = want_str(rt, fill = args->v[1]);
    if (!rc && fill.s->chars != 1)
        rc = rt_fail(rt, "the fill character must be exactly one character long");
    if (rc || width <= self.s->chars) {
        *out = self;
        return rc;
    }
    int64_t margin = width - self.s->chars, before = side < 0 ? margin : 0;
    if (side == 0)
        before = margin / 2 + (margin & width & 1);
    rc = rt_repeat(rt, fill, before, &left);
    if (!rc)
        rc = rt_repeat(rt, fill, margin - before, &right);
    bool markup = self.markup;
    self.markup = left.markup = right.markup = false;
    if (!rc)
        rc = rt_add_str(rt, left, self, &left);
    if (!rc)
        rc = rt_add_str(rt, left, right, out);
    out->markup = markup;
    return rc;
}

static int str_center(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return pad(rt, self, args, 0, out);
}

static int str_ljust(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return pad(rt, self, args, 1, out);
}

static int str_rjust(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return pad(rt, self, args, -1, out);
}

static int str_zfill(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    struct jval zeros, tail;
    int64_t width;
    int rc = no_kwargs(rt, args, 1, 1);
    if (!rc)
        rc = rt_index(rt, args->v[0], &width);
    if (rc || width <= self.s->chars) {
        *out = self;
        return rc;
    }
    size_t sign = self.s->n && (self.s->p[0] == '+' || self.s->p[0] == '-');
    rc = rt_str(rt, "0", &zeros);
    if (!rc)
        rc = rt_repeat(rt, zeros, width - self.s->chars, &zeros);
    if (!rc)
        rc = rt_slice(rt, self, sign, self.s->n - sign, &tail);
    if (!rc)
        rc = rt_slice(rt, self, 0, sign, out);
    if (!rc)
        rc = rt_add_str(rt, *out, zeros, out);
    return rc ? rc : rt_add_str(rt, *out, tail, out);
}

/* True when every character is of the class, and there is one. */
static int all_of(struct jrt *rt, struct jval self, struct jargs *args, bool (*is)(uint32_t),
                  struct jval *out)
{
    size_t len;
    int rc = no_kwargs(rt, args, 0, 0);
    bool yes = self.s->n != 0;
    if (!rc)
        rc = rt_charge_bytes(rt, self.s->n);
    for (size_t at = 0; !rc && yes && at < self.s->n; at += len)
        yes = is(jtext_decode(self.s->p + at, self.s->n - at, &len));
    *out = jval_bool(yes);
    return rc;
}

#define IS_METHOD(name, is)                                                                 \
    static int name(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out) \
    {                                                                                       \
        return all_of(rt, self, args, is, out);                                             \
    }
IS_METHOD(str_isspace, jtext_is_space)
IS_METHOD(str_isalpha, jtext_is_alpha)
IS_METHOD(str_isalnum, jtext_is_alnum)
IS_METHOD(str_isdigit, jtext_is_digit)
IS_METHOD(str_isdecimal, jtext_is_decimal)

static int str_isascii(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    *out = jval_bool(self.s->n == self.s->chars);
    return no_kwargs(rt, args, 0, 0);
}

static int str_islower(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int rc = no_kwargs(rt, args, 0, 0);
    *out = jval_bool(str_is_case(self.s, false));
    return rc ? rc : rt_charge_bytes(rt, self.s->n);
}

static int str_isupper(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int rc = no_kwargs(rt, args, 0, 0);
    *out = jval_bool(str_is_case(self.s, true));
    return rc ? rc : rt_charge_bytes(rt, self.s->n);
}

/* ---- list, tuple, dict, loop -------------------------------------------------------------- */

static int seq_index(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int rc = no_kwargs(rt, args, 1, 1);
    if (!rc)
        rc = rt_charge(rt, self.list->n);
    for (uint32_t i = 0; !rc && i < self.list->n; i++)
        if (jval_equal(self.list->v[i], args->v[0])) {
            *out = jval_int(i);
            return 0;
        }
    return rc ? rc : rt_fail(rt, "the value is not in the list");
}

static int seq_count(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int64_t n = 0;
    int rc = no_kwargs(rt, args, 1, 1);
    if (!rc)
        rc = rt_charge(rt, self.list->n);
    for (uint32_t i = 0; !rc && i < self.list->n; i++)
        n += jval_equal(self.list->v[i], args->v[0]);
    *out = jval_int(n);
    return rc;
}

/* Values never change, so a copy is the value itself. */
static int copy(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    *out = self;
    return no_kwargs(rt, args, 0, 0);
}

static int dict_get(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int rc = no_kwargs(rt, args, 1, 2);
    if (!rc && !jval_hashable(args->v[0]))
        rc = rt_fail(rt, "unhashable type: '%s'", jval_type_name(args->v[0]));
    if (!rc)
        rc = rt_charge(rt, self.dict->index ? 1 : self.dict->n / 4);
    if (rc)
        return rc;
    const struct jval *v = jdict_get(self.dict, args->v[0]);
    *out = v ? *v : arg_or(args, 1, jval_none());
    return 0;
}

static int view_new(struct jrt *rt, struct jval self, enum jview_kind kind, struct jargs *args,
                    struct jval *out)
{
    struct jview *v = arena_alloc(rt->a, sizeof(*v));
    int rc = no_kwargs(rt, args, 0, 0);
    if (rc || !v)
        return rc ? rc : rt_nomem(rt);
    v->kind = kind;
    v->dict = self.dict;
    *out = (struct jval){.type = JT_VIEW, .view = v};
    return 0;
}

static int dict_keys(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return view_new(rt, self, JV_KEYS, args, out);
}

static int dict_values(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return view_new(rt, self, JV_VALUES, args, out);
}

static int dict_items(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    return view_new(rt, self, JV_ITEMS, args, out);
}

static int loop_cycle(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    if (!args->n || args->n_kw)
        return rt_fail(rt, "no items for cycling given");
    *out = args->v[self.loop->index0 % args->n];
    return 0;
}

static int loop_changed(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    struct jval now;
    if (args->n_kw)
        return rt_fail(rt, "changed() takes no keyword arguments");
    int rc = rt_seq(rt, JT_TUPLE, args->n, &now);
    if (rc)
        return rc;
    if (args->n)
        memcpy(now.list->v, args->v, args->n * sizeof(*args->v));
    *out = jval_bool(!jval_equal(self.loop->changed, now));
    self.loop->changed = now;
    return 0;
}

/* ---- the table ---------------------------------------------------------------------------- */

static const struct {
    uint8_t type;
    const char *name;
    method_fn *fn;
} methods[] = {
    {JT_STR, "strip", str_strip},
    {JT_STR, "lstrip", str_lstrip},
    {JT_STR, "rstrip", str_rstrip},
    {JT_STR, "split", str_split},
    {JT_STR, "rsplit", str_rsplit},
    {JT_STR, "splitlines", str_splitlines},
    {JT_STR, "partition", str_partition},
    {JT_STR, "rpartition", str_rpartition},
    {JT_STR, "startswith", str_startswith},
    {JT_STR, "endswith", str_endswith},
    {JT_STR, "removeprefix", str_removeprefix},
    {JT_STR, "removesuffix", str_removesuffix},
    {JT_STR, "replace", str_replace},
    {JT_STR, "join", str_join},
    {JT_STR, "format", str_format},
    {JT_STR, "lower", str_lower},
    {JT_STR, "upper", str_upper},
    {JT_STR, "title", str_title},
    {JT_STR, "capitalize", str_capitalize},
    {JT_STR, "swapcase", str_swapcase},
    {JT_STR, "find", str_find_method},
    {JT_STR, "rfind", str_rfind},
    {JT_STR, "index", str_index},
    {JT_STR, "rindex", str_rindex},
    {JT_STR, "count", str_count},
    {JT_STR, "center", str_center},
    {JT_STR, "ljust", str_ljust},
    {JT_STR, "rjust", str_rjust},
    {JT_STR, "zfill", str_zfill},
    {JT_STR, "isspace", str_isspace},
    {JT_STR, "isalpha", str_isalpha},
    {JT_STR, "isalnum", str_isalnum},
    {JT_STR, "isdigit", str_isdigit},
    {JT_STR, "isdecimal", str_isdecimal},
    {JT_STR, "isascii", str_isascii},
    {JT_STR, "islower", str_islower},
    {JT_STR, "isupper", str_isupper},
    {JT_LIST, "index", seq_index},
    {JT_LIST, "count", seq_count},
    {JT_LIST, "copy", copy},
    {JT_TUPLE, "index", seq_index},
    {JT_TUPLE, "count", seq_count},
    {JT_DICT, "get", dict_get},
    {JT_DICT, "keys", dict_keys},
    {JT_DICT, "values", dict_values},
    {JT_DICT, "items", dict_items},
    {JT_DICT, "copy", copy},
    {JT_LOOP, "cycle", loop_cycle},
    {JT_LOOP, "changed", loop_changed},
};

/* The sandbox hides what would change a value: it is undefined, and an error when called. */
static const struct {
    uint8_t type;
    const char *name;
} unsafe[] = {
    {JT_LIST, "append"}, {JT_LIST, "clear"}, {JT_LIST, "pop"},     {JT_LIST, "reverse"},
    {JT_LIST, "insert"}, {JT_LIST, "sort"},  {JT_LIST, "extend"},  {JT_LIST, "remove"},
    {JT_DICT, "clear"},  {JT_DICT, "pop"},   {JT_DICT, "popitem"}, {JT_DICT, "setdefault"},
    {JT_DICT, "update"},
};

/* Attributes of Python's values that are not here. Those of str, list and dict are also refused
 * by the parser where they are called. */
static const struct {
    uint8_t type;
    const char *name;
} missing[] = {
    {JT_STR, "encode"},
    {JT_STR, "expandtabs"},
    {JT_STR, "translate"},
    {JT_STR, "maketrans"},
    {JT_STR, "isidentifier"},
    {JT_STR, "isnumeric"},
    {JT_STR, "isprintable"},
    {JT_STR, "istitle"},
    {JT_STR, "casefold"},
    {JT_STR, "format_map"},
    {JT_DICT, "fromkeys"},
    {JT_INT, "real"},
    {JT_INT, "imag"},
    {JT_INT, "numerator"},
    {JT_INT, "denominator"},
    {JT_INT, "bit_length"},
    {JT_INT, "bit_count"},
    {JT_INT, "conjugate"},
    {JT_INT, "to_bytes"},
    {JT_INT, "from_bytes"},
    {JT_INT, "as_integer_ratio"},
    {JT_FLOAT, "real"},
    {JT_FLOAT, "imag"},
    {JT_FLOAT, "hex"},
    {JT_FLOAT, "fromhex"},
    {JT_FLOAT, "is_integer"},
    {JT_FLOAT, "conjugate"},
    {JT_RANGE, "start"},
    {JT_RANGE, "stop"},
    {JT_RANGE, "step"},
    {JT_RANGE, "index"},
    {JT_RANGE, "count"},
    {JT_VIEW, "isdisjoint"},
    {JT_VIEW, "mapping"},
    {JT_FLOAT, "as_integer_ratio"},
};

bool jinja_method_unsupported(const char *name)
{
    for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++)
        if ((missing[i].type == JT_STR || missing[i].type == JT_DICT) &&
            !strcmp(missing[i].name, name))
            return true;
    return false;
}

static bool name_is(const struct jstr *s, const char *name)
{
    return s->n == strlen(name) && !memcmp(s->p, name, s->n);
}

int rt_method_find(struct jrt *rt, struct jval obj, const struct jstr *name, bool *found,
                   struct jval *out)
{
    uint8_t type = obj.type == JT_BOOL ? JT_INT : obj.type;
    *found = true;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (methods[i].type != type || !name_is(name, methods[i].name))
            continue;
        struct jmethod *m = arena_alloc(rt->a, sizeof(*m));
        if (!m)
            return rt_nomem(rt);
        m->id = (int)i;
        m->self = obj;
        *out = (struct jval){.type = JT_METHOD, .method = m};
        return 0;
    }
    for (size_t i = 0; i < sizeof(unsafe) / sizeof(unsafe[0]); i++)
        if (unsafe[i].type == type && name_is(name, unsafe[i].name))
            return rt_undef_hint(rt, "access to a method that changes its object is unsafe.", out);
    for (size_t i = 0; i < sizeof(missing) / sizeof(missing[0]); i++)
        if (missing[i].type == type && name_is(name, missing[i].name))
            return rt_unsupported(rt, "the attribute '%s'", missing[i].name);
    *found = false;
    return 0;
}

int rt_method_call(struct jrt *rt, const struct jmethod *m, struct jargs *args, struct jval *out)
{
    return methods[m->id].fn(rt, m->self, args, out);
}
