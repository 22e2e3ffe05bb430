/* jinja_filters.c: filters of one value, and the table of all. Those of numbers and sequences
 * are in files of their own. */
#include <stdio.h>
#include <string.h>

#include "runtime/text/jinja_filters.h"
#include "runtime/text/jinja_text.h"

static const char *const value_only[] = {"value", NULL};

/* soft_str(): strings as they are. */
static int subject_str(struct jrt *rt, struct jargs *args, struct jval *out)
{
    int rc = args->n ? 0 : rt_fail(rt, "a filter needs a value");
    return rc ? rc : rt_to_str(rt, args->v[0], out);
}

static int bind_one(struct jrt *rt, const char *what, struct jargs *args, struct jval *v)
{
    return rt_bind_args(rt, what, args, 0, value_only, 1, v);
}

/* ---- strings ------------------------------------------------------------------------------ */

#define CASE_FILTER(name, how)                                            \
    static int name(struct jrt *rt, struct jargs *args, struct jval *out) \
    {                                                                     \
        struct jval v;                                                    \
        int rc = bind_one(rt, "the filter", args, &v);                    \
        if (!rc)                                                          \
            rc = rt_to_str(rt, v, &v);                                    \
        return rc ? rc : rt_str_case(rt, v, how, out);                    \
    }
CASE_FILTER(f_lower, CASE_LOWER)
CASE_FILTER(f_upper, CASE_UPPER)
CASE_FILTER(f_capitalize, CASE_CAPITALIZE)

/* What begins a word for the title filter: space, or one of -({[< . */
static bool splits_title(uint32_t cp)
{
    return jtext_is_space(cp) || (cp < 0x80 && cp && strchr("-({[<", (char)cp));
}

static int f_title(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jval v, part;
    size_t mark = rt_capture(rt), at = 0, len;
    int rc = bind_one(rt, "title", args, &v);
    if (!rc)
        rc = rt_to_str(rt, v, &v);
    if (rc)
        return rc;
    while (!rc && at < v.s->n) {
        size_t end = at, first;
        bool sep = splits_title(jtext_decode(v.s->p + at, v.s->n - at, &first));
        while (end < v.s->n && splits_title(jtext_decode(v.s->p + end, v.s->n - end, &len)) == sep)
            end += len;
        /* item[0].upper() + item[1:].lower() */
        rc = rt_slice(rt, v, at, first, &part);
        if (!rc)
            rc = rt_str_case(rt, part, CASE_UPPER, &part);
        if (!rc)
            rc = rt_print(rt, part);
        if (!rc)
            rc = rt_slice(rt, v, at + first, end - at - first, &part);
        if (!rc)
            rc = rt_str_case(rt, part, CASE_LOWER, &part);
        if (!rc)
            rc = rt_print(rt, part);
        at = end;
    }
    int end = rt_capture_end(rt, mark, out);
    return rc ? rc : end;
}

static int f_trim(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "chars", NULL};
    struct jval v[2], s;
    int rc = rt_bind_args(rt, "trim", args, 0, names, 1, v);
    if (!rc)
        rc = rt_to_str(rt, v[0], &s);
    return rc ? rc : rt_str_strip(rt, s, v[1], STRIP_LEFT | STRIP_RIGHT, out);
}

static int f_replace(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"s", "old", "new", "count", NULL};
    struct jval v[4];
    int64_t count = -1;
    int rc = rt_bind_args(rt, "replace", args, 0, names, 3, v);
    for (int i = 0; !rc && i < 3; i++) {
        rc = rt_to_str(rt, v[i], &v[i]);
        v[i].markup = false; /* str(s) */
    }
    if (!rc && v[3].type != JT_MISSING && v[3].type != JT_NONE)
        rc = rt_index(rt, v[3], &count);
    return rc ? rc : rt_str_replace(rt, v[0], v[1], v[2], count, out);
}

static int f_string(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jval v;
    int rc = bind_one(rt, "string", args, &v);
    return rc ? rc : rt_to_str(rt, v, out);
}

static int f_safe(struct jrt *rt, struct jargs *args, struct jval *out)
{
    int rc = f_string(rt, args, out);
    out->markup = true;
    return rc;
}

static int f_escape(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jval v;
    int rc = bind_one(rt, "escape", args, &v);
    return rc ? rc : rt_escape(rt, v, out);
}

static int f_indent(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"s", "width", "first", "blank", NULL};
    struct jval v[4], lines, nl, indent;
    bool first, blank;
    int64_t width = 4;
    int rc = rt_bind_args(rt, "indent", args, 0, names, 1, v);
    if (!rc && v[0].type != JT_STR)
        rc = v[0].type == JT_UNDEF
                 ? rt_undef_used(rt, v[0])
                 : rt_fail(rt, "indent needs a string, not %s", jval_type_name(v[0]));
    if (!rc)
        rc = rt_truth(rt, v[2], &first);
    if (!rc)
        rc = rt_truth(rt, v[3], &blank);
    if (!rc && v[1].type != JT_MISSING && v[1].type != JT_STR)
        rc = rt_index(rt, v[1], &width);
    indent = v[1];
    if (!rc && v[1].type != JT_STR)
        rc = rt_str(rt, " ", &indent);
    if (!rc && v[1].type != JT_STR)
        rc = rt_repeat(rt, indent, width, &indent);
    if (!rc)
        rc = rt_str(rt, "\n", &nl);
    if (!rc)
        rc = rt_add_str(rt, v[0], nl, &nl);
    if (!rc)
        rc = rt_str_splitlines(rt, nl, false, &lines);
    size_t mark = rt_capture(rt);
    for (uint32_t i = 0; !rc && i < lines.list->n; i++) {
        struct jval line = lines.list->v[i];
        if (i)
            rc = rt_puts(rt, "\n");
        if (!rc && (i ? blank || line.s->n : first))
            rc = rt_print(rt, indent);
        if (!rc)
            rc = rt_print(rt, line);
    }
    int end = rt_capture_end(rt, mark, out);
    out->markup = !rc && v[0].markup;
    return rc ? rc : end;
}

static int f_center(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "width", NULL};
    static const struct jstr name = {.p = "center", .n = 6, .chars = 6};
    struct jval v[2], s, method;
    bool found;
    int rc = rt_bind_args(rt, "center", args, 0, names, 1, v);
    if (!rc)
        rc = rt_to_str(rt, v[0], &s);
    if (!rc)
        rc = rt_method_find(rt, s, &name, &found, &method);
    if (rc)
        return rc;
    if (v[1].type == JT_MISSING)
        v[1] = jval_int(80);
    struct jargs width = {.v = &v[1], .n = 1};
    return rt_method_call(rt, method.method, &width, out);
}

/* The first n characters of s. */
static int first_chars(struct jrt *rt, struct jval s, int64_t n, struct jval *out)
{
    struct jval part[3] = {jval_none(), jval_int(n), jval_none()};
    return rt_slice_of(rt, s, part, out);
}

static int f_truncate(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"s", "length", "killwords", "end", "leeway", NULL};
    struct jval v[5], head;
    int64_t length = 255, leeway = 5, n = 0;
    bool kill;
    int rc = rt_bind_args(rt, "truncate", args, 0, names, 1, v);
    if (!rc && v[1].type != JT_MISSING)
        rc = rt_index(rt, v[1], &length);
    if (!rc && v[4].type != JT_MISSING && v[4].type != JT_NONE)
        rc = rt_index(rt, v[4], &leeway);
    if (!rc)
        rc = rt_truth(rt, v[2], &kill);
    if (!rc && v[3].type == JT_MISSING)
        rc = rt_str(rt, "...", &v[3]);
    if (!rc && v[3].type != JT_STR)
        rc = rt_fail(rt, "truncate needs a string for its end");
    if (!rc)
        rc = rt_len(rt, v[0], &n);
    if (rc)
        return rc;
    if (length < v[3].s->chars || leeway < 0)
        return rt_fail(rt, "truncate: the length is too short");
    if (n <= length || n - length <= leeway) {
        *out = v[0];
        return 0;
    }
    if (v[0].type != JT_STR)
        return rt_fail(rt, "a %s cannot be truncated", jval_type_name(v[0]));
    rc = first_chars(rt, v[0], length - v[3].s->chars, &head);
    if (!rc && !kill)
        for (size_t i = head.s->n; i-- > 0;)
            if (head.s->p[i] == ' ') {
                rc = rt_slice(rt, head, 0, i, &head);
                break;
            }
    return rc ? rc : rt_add_str(rt, head, v[3], out);
}

static int f_format(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jval fmt, values, key;
    int rc = subject_str(rt, args, &fmt);
    if (!rc && args->n > 1 && args->n_kw)
        rc = rt_fail(rt, "can't handle positional and keyword arguments at the same time");
    if (rc)
        return rc;
    if (args->n_kw) {
        if (!jval_dict(rt->a, args->n_kw, &values))
            return rt_nomem(rt);
        for (uint32_t i = 0; i < args->n_kw; i++)
            if (!jval_str(rt->a, args->names[i], &key) ||
                !jdict_set(rt->a, values.dict, key, args->kw[i]))
                return rt_nomem(rt);
        return rt_format_percent(rt, fmt, values, out);
    }
    rc = rt_seq(rt, JT_TUPLE, args->n - 1, &values);
    if (!rc && args->n > 1)
        memcpy(values.list->v, args->v + 1, (args->n - 1) * sizeof(*args->v));
    return rc ? rc : rt_format_percent(rt, fmt, values, out);
}

static int f_wordcount(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jval v;
    int64_t words = 0;
    bool in_word = false;
    size_t len;
    int rc = bind_one(rt, "wordcount", args, &v);
    if (!rc)
        rc = rt_to_str(rt, v, &v);
    if (!rc)
        rc = rt_charge_bytes(rt, v.s->n);
    for (size_t at = 0; !rc && at < v.s->n; at += len) {
        uint32_t cp = jtext_decode(v.s->p + at, v.s->n - at, &len);
        bool word = cp == '_' || jtext_is_alnum(cp);
        words += word && !in_word;
        in_word = word;
    }
    *out = jval_int(words);
    return rc;
}

static int f_urlencode(struct jrt *rt, struct jargs *args, struct jval *out)
{
    struct jval v;
    int rc = bind_one(rt, "urlencode", args, &v);
    if (!rc && v.type != JT_STR && v.type != JT_UNDEF && rt_iterable(v))
        rc = rt_unsupported(rt, "urlencode of a %s", jval_type_name(v));
    if (!rc)
        rc = rt_to_str(rt, v, &v);
    size_t mark = rt_capture(rt);
    for (size_t i = 0; !rc && i < v.s->n; i++) {
        unsigned char c = (unsigned char)v.s->p[i];
        char hex[8];
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c && strchr("_.-~/", c));
        snprintf(hex, sizeof(hex), plain ? "%c" : "%%%02X", c);
        rc = rt_puts(rt, hex);
    }
    int end = rt_capture_end(rt, mark, out);
    return rc ? rc : end;
}

/* ---- any value ---------------------------------------------------------------------------- */

static int f_default(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "default_value", "boolean", NULL};
    struct jval v[3];
    bool falsy, yes;
    int rc = rt_bind_args(rt, "default", args, 0, names, 1, v);
    if (!rc)
        rc = rt_truth(rt, v[2], &falsy);
    if (!rc)
        rc = rt_truth(rt, v[0], &yes);
    if (rc)
        return rc;
    *out = v[0];
    if (v[0].type != JT_UNDEF && (!falsy || yes))
        return 0;
    *out = v[1];
    return v[1].type == JT_MISSING ? rt_str(rt, "", out) : 0;
}

static int f_attr(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"obj", "name", NULL};
    struct jval v[2];
    bool found = false;
    int rc = rt_bind_args(rt, "attr", args, 0, names, 2, v);
    if (!rc && v[1].type != JT_STR)
        rc = rt_fail(rt, "attribute name must be string");
    if (!rc)
        rc = rt_own_attr(rt, v[0], v[1].s, &found, out);
    return rc || found ? rc : rt_undef_attr(rt, v[0], v[1], out);
}

static int f_tojson(struct jrt *rt, struct jargs *args, struct jval *out)
{
    return rt_tojson(rt, args, out);
}

/* ---- the table ---------------------------------------------------------------------------- */

static const struct {
    const char *name;
    jinja_filter_fn *fn;
} filters[] = {
    {"abs", f_abs},
    {"attr", f_attr},
    {"batch", f_batch},
    {"capitalize", f_capitalize},
    {"center", f_center},
    {"count", f_length},
    {"d", f_default},
    {"default", f_default},
    {"dictsort", f_dictsort},
    {"e", f_escape},
    {"escape", f_escape},
    {"first", f_first},
    {"float", f_float},
    {"format", f_format},
    {"indent", f_indent},
    {"int", f_int},
    {"items", f_items},
    {"join", f_join},
    {"last", f_last},
    {"length", f_length},
    {"list", f_list},
    {"lower", f_lower},
    {"map", f_map},
    {"max", f_max},
    {"min", f_min},
    {"reject", f_reject},
    {"rejectattr", f_rejectattr},
    {"replace", f_replace},
    {"reverse", f_reverse},
    {"round", f_round},
    {"safe", f_safe},
    {"select", f_select},
    {"selectattr", f_selectattr},
    {"slice", f_slice},
    {"sort", f_sort},
    {"string", f_string},
    {"sum", f_sum},
    {"title", f_title},
    {"tojson", f_tojson},
    {"trim", f_trim},
    {"truncate", f_truncate},
    {"unique", f_unique},
    {"upper", f_upper},
    {"urlencode", f_urlencode},
    {"wordcount", f_wordcount},
};

#define N_FILTERS (sizeof(filters) / sizeof(filters[0]))

/* What jinja2 has besides. */
static const char *const refused[] = {"filesizeformat", "forceescape", "groupby",
                                      "pprint",         "random",      "striptags",
                                      "urlize",         "wordwrap",    "xmlattr"};

int jinja_filter_find(const char *name, bool *known)
{
    *known = false;
    for (size_t i = 0; i < N_FILTERS; i++)
        if (!strcmp(filters[i].name, name))
            return (int)i;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        *known = *known || !strcmp(refused[i], name);
    return -1;
}

int rt_filter_find(struct jrt *rt, struct jval name, int *id)
{
    char text[32] = "";
    bool known;
    if (name.type != JT_STR)
        return rt_fail(rt, "a filter's name must be a string");
    if (name.s->n < sizeof(text))
        memcpy(text, name.s->p, name.s->n);
    *id = jinja_filter_find(text, &known);
    if (*id >= 0)
        return 0;
    return known ? rt_unsupported(rt, "the filter '%s'", text)
                 : rt_fail(rt, "no filter named '%.*s'", (int)(name.s->n < 60 ? name.s->n : 60),
                           name.s->p);
}

int rt_filter(struct jrt *rt, int id, struct jargs *args, struct jval *out)
{
    /* map('map', …) and the like recurse. */
    int rc = rt_enter(rt);
    if (rc)
        return rc;
    rc = filters[id].fn(rt, args, out);
    rt_leave(rt);
    return rc;
}
