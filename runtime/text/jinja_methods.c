/* jinja_methods.c: methods of str, list, tuple, dict and loop. */
#include <string.h>

#include "runtime/text/jinja_methods.h"
#include "runtime/text/jinja_text.h"

int method_args(struct jrt *rt, const struct jargs *args, uint32_t min, uint32_t max)
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

int method_want_str(struct jrt *rt, struct jval v)
{
    if (v.type == JT_STR)
        return 0;
    return rt_fail(rt, "must be str, not %s", jval_type_name(v));
}

/* ---- str: case and strip ------------------------------------------------------------------ */

#define CASE_METHOD(name, how)                                                              \
    static int name(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out) \
    {                                                                                       \
        int rc = method_args(rt, args, 0, 0);                                               \
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
        int rc = method_args(rt, args, 0, 1);                                               \
        return rc ? rc : rt_str_strip(rt, self, arg_or(args, 0, jval_none()), sides, out);  \
    }
STRIP_METHOD(str_strip, STRIP_LEFT | STRIP_RIGHT)
STRIP_METHOD(str_lstrip, STRIP_LEFT)
STRIP_METHOD(str_rstrip, STRIP_RIGHT)

/* ---- str: the rest ------------------------------------------------------------------------ */

static int str_replace(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int64_t count = -1;
    int rc = method_args(rt, args, 2, 3);
    if (!rc)
        rc = method_want_str(rt, args->v[0]);
    if (!rc)
        rc = method_want_str(rt, args->v[1]);
    if (!rc && args->n == 3)
        rc = rt_index(rt, args->v[2], &count);
    return rc ? rc : rt_str_replace(rt, self, args->v[0], args->v[1], count, out);
}

static int str_join(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    struct jval list;
    int rc = method_args(rt, args, 1, 1);
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
    int rc = method_args(rt, args, 1, 2);
    if (!rc)
        rc = rt_index(rt, args->v[0], &width);
    if (!rc && args->n < 2)
        rc = rt_str(rt, " ", &fill);
    else if (!rc)
        rc = method_want_str(rt, fill = args->v[1]);
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
    int rc = method_args(rt, args, 1, 1);
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
    int rc = method_args(rt, args, 0, 0);
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
    return method_args(rt, args, 0, 0);
}

static int str_islower(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int rc = method_args(rt, args, 0, 0);
    *out = jval_bool(str_is_case(self.s, false));
    return rc ? rc : rt_charge_bytes(rt, self.s->n);
}

static int str_isupper(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int rc = method_args(rt, args, 0, 0);
    *out = jval_bool(str_is_case(self.s, true));
    return rc ? rc : rt_charge_bytes(rt, self.s->n);
}

/* ---- list, tuple, dict, loop -------------------------------------------------------------- */

static int seq_index(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    bool same = false;
    int rc = method_args(rt, args, 1, 1);
    for (uint32_t i = 0; !rc && i < self.list->n; i++) {
        rc = rt_equal(rt, self.list->v[i], args->v[0], &same);
        *out = jval_int(i);
        if (rc || same)
            return rc;
    }
    return rc ? rc : rt_fail(rt, "the value is not in the list");
}

static int seq_count(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int64_t n = 0;
    bool same = false;
    int rc = method_args(rt, args, 1, 1);
    for (uint32_t i = 0; !rc && i < self.list->n; i++) {
        rc = rt_equal(rt, self.list->v[i], args->v[0], &same);
        n += same;
    }
    *out = jval_int(n);
    return rc;
}

/* Values never change, so a copy is the value itself. */
static int copy(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    *out = self;
    return method_args(rt, args, 0, 0);
}

static int dict_get(struct jrt *rt, struct jval self, struct jargs *args, struct jval *out)
{
    int rc = method_args(rt, args, 1, 2);
    if (!rc && !jval_hashable(args->v[0]))
        rc = rt_fail(rt, "unhashable type: '%s'", jval_type_name(args->v[0]));
    if (!rc)
        rc = rt_charge_key(rt, self.dict, args->v[0]);
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
    int rc = method_args(rt, args, 0, 0);
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
    bool same = false;
    if (self.loop->changed.type == JT_TUPLE)
        rc = rt_equal(rt, self.loop->changed, now, &same);
    *out = jval_bool(!same);
    self.loop->changed = now;
    return rc;
}

/* ---- the table ---------------------------------------------------------------------------- */

static const struct {
    uint8_t type;
    const char *name;
    jinja_method_fn *fn;
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
