/* jinja_json.c: tojson, which transformers makes Python's json.dumps. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/text/jinja_rt.h"
#include "runtime/text/jinja_text.h"

struct dump {
    struct jrt *rt;
    bool ensure_ascii, sort_keys;
    bool pretty; /* an indent was given */
    struct jval indent, item_sep, key_sep;
};

static int dump_value(struct dump *d, struct jval v, unsigned level);

static int dump_escape(struct dump *d, uint32_t cp)
{
    static const char from[] = "\"\\\n\r\t\f\b", to[] = "\"\\nrtfb";
    const char *hit = cp && cp < 0x80 ? strchr(from, (char)cp) : NULL;
    char text[16];
    if (hit)
        snprintf(text, sizeof(text), "\\%c", to[hit - from]);
    else if (cp < 0x10000)
        snprintf(text, sizeof(text), "\\u%04x", cp);
    else
        snprintf(text, sizeof(text), "\\u%04x\\u%04x", 0xd800 + ((cp - 0x10000) >> 10),
                 0xdc00 + ((cp - 0x10000) & 0x3ff));
    return rt_puts(d->rt, text);
}

static int dump_str(struct dump *d, const struct jstr *s)
{
    size_t len, from = 0;
    int rc = rt_puts(d->rt, "\"");
    for (size_t at = 0; !rc && at < s->n; at += len) {
        uint32_t cp = jtext_decode(s->p + at, s->n - at, &len);
        bool plain = cp >= ' ' && cp != '"' && cp != '\\' && (cp < 0x7f || !d->ensure_ascii);
        if (plain)
            continue;
        rc = rt_put(d->rt, s->p + from, at - from);
        if (!rc)
            rc = dump_escape(d, cp);
        from = at + len;
    }
    if (!rc)
        rc = rt_put(d->rt, s->p + from, s->n - from);
    return rc ? rc : rt_puts(d->rt, "\"");
}

static int dump_scalar(struct dump *d, struct jval v)
{
    char text[FLOAT_REPR_BYTES];
    switch (v.type) {
    case JT_NONE:
        return rt_puts(d->rt, "null");
    case JT_BOOL:
        return rt_puts(d->rt, v.i ? "true" : "false");
    case JT_INT:
        snprintf(text, sizeof(text), "%lld", (long long)v.i);
        return rt_puts(d->rt, text);
    case JT_FLOAT:
        if (isnan(v.f) || isinf(v.f))
            return rt_puts(d->rt, isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity");
        float_repr(v.f, text);
        return rt_puts(d->rt, text);
    case JT_STR:
        return dump_str(d, v.s);
    default:
        return rt_fail(d->rt, "Object of type %s is not JSON serializable", jval_type_name(v));
    }
}

static int dump_newline(struct dump *d, unsigned level)
{
    int rc = d->pretty ? rt_puts(d->rt, "\n") : 0;
    for (unsigned i = 0; !rc && d->pretty && i < level; i++)
        rc = rt_print(d->rt, d->indent);
    return rc;
}

static int dump_list(struct dump *d, const struct jlist *l, unsigned level)
{
    if (!l->n)
        return rt_puts(d->rt, "[]");
    int rc = rt_puts(d->rt, "[");
    for (uint32_t i = 0; !rc && i < l->n; i++) {
        if (i)
            rc = rt_print(d->rt, d->item_sep);
        if (!rc)
            rc = dump_newline(d, level + 1);
        if (!rc)
            rc = dump_value(d, l->v[i], level + 1);
    }
    if (!rc)
        rc = dump_newline(d, level);
    return rc ? rc : rt_puts(d->rt, "]");
}

static int dump_key(struct dump *d, struct jval k)
{
    if (k.type == JT_STR)
        return dump_str(d, k.s);
    if (k.type != JT_NONE && !jval_is_number(k))
        return rt_fail(d->rt, "keys must be str, int, float, bool or None, not %s",
                       jval_type_name(k));
    int rc = rt_puts(d->rt, "\"");
    if (!rc)
        rc = dump_scalar(d, k);
    return rc ? rc : rt_puts(d->rt, "\"");
}

static int dump_dict(struct dump *d, const struct jdict *dict, unsigned level)
{
    if (!dict->n)
        return rt_puts(d->rt, "{}");
    struct jval keys, order;
    int rc = rt_seq(d->rt, JT_LIST, dict->n, &keys);
    if (!rc)
        rc = rt_seq(d->rt, JT_LIST, dict->n, &order);
    for (uint32_t i = 0; !rc && i < dict->n; i++) {
        keys.list->v[i] = dict->keys[i];
        order.list->v[i] = jval_int(i);
    }
    if (!rc && d->sort_keys)
        rc = rt_sort(d->rt, order.list->v, keys.list->v, dict->n, false);
    if (!rc)
        rc = rt_puts(d->rt, "{");
    for (uint32_t i = 0; !rc && i < dict->n; i++) {
        int64_t at = order.list->v[i].i;
        if (i)
            rc = rt_print(d->rt, d->item_sep);
        if (!rc)
            rc = dump_newline(d, level + 1);
        if (!rc)
            rc = dump_key(d, dict->keys[at]);
        if (!rc)
            rc = rt_print(d->rt, d->key_sep);
        if (!rc)
            rc = dump_value(d, dict->vals[at], level + 1);
    }
    if (!rc)
        rc = dump_newline(d, level);
    return rc ? rc : rt_puts(d->rt, "}");
}

static int dump_value(struct dump *d, struct jval v, unsigned level)
{
    int rc = rt_charge(d->rt, 1);
    if (!rc)
        rc = rt_enter(d->rt);
    if (rc)
        return rc;
    if (v.type == JT_LIST || v.type == JT_TUPLE)
        rc = dump_list(d, v.list, level);
    else if (v.type == JT_DICT)
        rc = dump_dict(d, v.dict, level);
    else
        rc = dump_scalar(d, v);
    rt_leave(d->rt);
    return rc;
}

/* indent: None, a number of spaces, or the text itself. */
static int dump_indent(struct dump *d, struct jval indent)
{
    struct jval space;
    int64_t n;
    int rc = 0;
    d->pretty = indent.type != JT_MISSING && indent.type != JT_NONE;
    if (!d->pretty)
        return 0;
    d->indent = indent;
    if (indent.type == JT_STR)
        return 0;
    rc = rt_index(d->rt, indent, &n);
    if (!rc)
        rc = rt_str(d->rt, " ", &space);
    return rc ? rc : rt_repeat(d->rt, space, n, &d->indent);
}

static int dump_separators(struct dump *d, struct jval given)
{
    struct jval pair;
    if (given.type == JT_MISSING || given.type == JT_NONE) {
        int rc = rt_str(d->rt, d->pretty ? "," : ", ", &d->item_sep);
        return rc ? rc : rt_str(d->rt, ": ", &d->key_sep);
    }
    int rc = rt_list(d->rt, given, &pair);
    if (rc)
        return rc;
    if (pair.list->n != 2 || pair.list->v[0].type != JT_STR || pair.list->v[1].type != JT_STR)
        return rt_fail(d->rt, "separators must be two strings");
    d->item_sep = pair.list->v[0];
    d->key_sep = pair.list->v[1];
    return 0;
}

int rt_tojson(struct jrt *rt, const struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"x",          "ensure_ascii", "indent",
                                        "separators", "sort_keys",    NULL};
    struct jval v[5];
    struct dump d = {.rt = rt};
    int rc = rt_bind_args(rt, "tojson", args, 0, names, 1, v);
    if (!rc)
        rc = rt_truth(rt, v[1], &d.ensure_ascii);
    if (!rc)
        rc = rt_truth(rt, v[4], &d.sort_keys);
    if (!rc)
        rc = dump_indent(&d, v[2]);
    if (!rc)
        rc = dump_separators(&d, v[3]);
    size_t mark = rt_capture(rt);
    if (!rc)
        rc = dump_value(&d, v[0], 0);
    int end = rt_capture_end(rt, mark, out);
    return rc ? rc : end;
}
