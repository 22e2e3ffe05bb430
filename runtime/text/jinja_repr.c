/* jinja_repr.c: str() and repr(). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/jinja_rt.h"
#include "runtime/text/jinja_text.h"

/* Python's float repr: the shortest digits that read back, as 1e+16 or 0.0001. */
void float_repr(double f, char text[FLOAT_REPR_BYTES])
{
    char digits[32];
    if (isnan(f) || isinf(f)) {
        snprintf(text, FLOAT_REPR_BYTES, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    for (int precision = 0; precision < 18; precision++) {
        snprintf(digits, sizeof(digits), "%.*e", precision, f);
        if (strtod(digits, NULL) == f)
            break;
    }
    char *e = strchr(digits, 'e');
    int exp = (int)strtol(e + 1, NULL, 10);
    *e = 0;
    const char *sign = digits[0] == '-' ? "-" : "";
    char d[24], *p = d;
    for (const char *q = digits; *q; q++)
        if (*q >= '0' && *q <= '9')
            *p++ = *q;
    *p = 0;
    int n = (int)(p - d);
    if (exp < -4 || exp >= 16)
        snprintf(text, FLOAT_REPR_BYTES, "%s%c%s%se%+03d", sign, d[0], n > 1 ? "." : "", d + 1,
                 exp);
    else if (exp < 0)
        snprintf(text, FLOAT_REPR_BYTES, "%s0.%.*s%s", sign, -exp - 1, "0000", d);
    else if (n <= exp + 1)
        snprintf(text, FLOAT_REPR_BYTES, "%s%s%.*s.0", sign, d, exp + 1 - n, "0000000000000000");
    else
        snprintf(text, FLOAT_REPR_BYTES, "%s%.*s.%s", sign, exp + 1, d, d + exp + 1);
}

static int repr_char(struct jrt *rt, uint32_t cp, char quote)
{
    char text[16];
    if (cp == (uint32_t)quote || cp == '\\') {
        snprintf(text, sizeof(text), "\\%c", (char)cp);
        return rt_puts(rt, text);
    }
    if (cp == '\n' || cp == '\r' || cp == '\t')
        return rt_puts(rt, cp == '\n' ? "\\n" : cp == '\r' ? "\\r" : "\\t");
    if (jtext_is_printable(cp))
        return rt_putcp(rt, cp);
    snprintf(text, sizeof(text), cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
    return rt_puts(rt, text);
}

static int repr_str(struct jrt *rt, const struct jstr *s)
{
    char quote = memchr(s->p, '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'';
    size_t len, from = 0;
    int rc = rt_put(rt, &quote, 1);
    for (size_t at = 0; !rc && at < s->n; at += len) {
        uint32_t cp = jtext_decode(s->p + at, s->n - at, &len);
        if (cp >= ' ' && cp < 0x7f && cp != '\\' && cp != (uint32_t)quote)
            continue;
        rc = rt_put(rt, s->p + from, at - from);
        if (!rc)
            rc = repr_char(rt, cp, quote);
        from = at + len;
    }
    if (!rc)
        rc = rt_put(rt, s->p + from, s->n - from);
    return rc ? rc : rt_put(rt, &quote, 1);
}

static int repr_items(struct jrt *rt, const char *open, const struct jval *v, uint32_t n,
                      const char *close)
{
    int rc = rt_puts(rt, open);
    for (uint32_t i = 0; !rc && i < n; i++) {
        if (i)
            rc = rt_puts(rt, ", ");
        if (!rc)
            rc = rt_print_repr(rt, v[i]);
    }
    return rc ? rc : rt_puts(rt, close);
}

static int repr_dict(struct jrt *rt, const struct jdict *d)
{
    int rc = rt_puts(rt, "{");
    for (uint32_t i = 0; !rc && i < d->n; i++) {
        if (i)
            rc = rt_puts(rt, ", ");
        if (!rc)
            rc = rt_print_repr(rt, d->keys[i]);
        if (!rc)
            rc = rt_puts(rt, ": ");
        if (!rc)
            rc = rt_print_repr(rt, d->vals[i]);
    }
    return rc ? rc : rt_puts(rt, "}");
}

static int repr_view(struct jrt *rt, const struct jview *v)
{
    const struct jdict *d = v->dict;
    if (v->kind == JV_KEYS)
        return repr_items(rt, "dict_keys([", d->keys, d->n, "])");
    if (v->kind == JV_VALUES)
        return repr_items(rt, "dict_values([", d->vals, d->n, "])");
    int rc = rt_puts(rt, "dict_items([");
    for (uint32_t i = 0; !rc && i < d->n; i++) {
        struct jval pair[2] = {d->keys[i], d->vals[i]};
        rc = repr_items(rt, i ? ", (" : "(", pair, 2, ")");
    }
    return rc ? rc : rt_puts(rt, "])");
}

static int repr_range(struct jrt *rt, const struct jrange *r)
{
    char text[96];
    if (r->step == 1)
        snprintf(text, sizeof(text), "range(%lld, %lld)", (long long)r->start, (long long)r->stop);
    else
        snprintf(text, sizeof(text), "range(%lld, %lld, %lld)", (long long)r->start,
                 (long long)r->stop, (long long)r->step);
    return rt_puts(rt, text);
}

static int repr_macro(struct jrt *rt, const struct jmacro *m)
{
    const char *name = m->node->sig->name;
    int rc = rt_puts(rt, name ? "<Macro '" : "<Macro anonymous>");
    if (!rc && name)
        rc = rt_puts(rt, name);
    return rc || !name ? rc : rt_puts(rt, "'>");
}

static int repr_loop(struct jrt *rt, struct jloop *l)
{
    struct jval n;
    char text[64];
    int rc = rt_loop_attr(rt, l, "length", &n);
    snprintf(text, sizeof(text), "<LoopContext %lld/%lld>", (long long)l->index0 + 1,
             (long long)n.i);
    return rc ? rc : rt_puts(rt, text);
}

static int repr_value(struct jrt *rt, struct jval v)
{
    char text[FLOAT_REPR_BYTES];
    int rc;
    switch (v.type) {
    case JT_UNDEF:
        return rt_puts(rt, "Undefined");
    case JT_NONE:
        return rt_puts(rt, "None");
    case JT_BOOL:
        return rt_puts(rt, v.i ? "True" : "False");
    case JT_INT:
        snprintf(text, sizeof(text), "%lld", (long long)v.i);
        return rt_puts(rt, text);
    case JT_FLOAT:
        float_repr(v.f, text);
        return rt_puts(rt, text);
    case JT_STR:
        rc = v.markup ? rt_puts(rt, "Markup(") : 0;
        if (!rc)
            rc = repr_str(rt, v.s);
        return rc || !v.markup ? rc : rt_puts(rt, ")");
    case JT_LIST:
        return repr_items(rt, "[", v.list->v, v.list->n, "]");
    case JT_TUPLE:
        return repr_items(rt, "(", v.list->v, v.list->n, v.list->n == 1 ? ",)" : ")");
    case JT_DICT:
        return repr_dict(rt, v.dict);
    case JT_VIEW:
        return repr_view(rt, v.view);
    case JT_RANGE:
        return repr_range(rt, v.range);
    case JT_MACRO:
        return repr_macro(rt, v.macro);
    case JT_LOOP:
        return repr_loop(rt, v.loop);
    case JT_NS:
        rc = rt_puts(rt, "<Namespace ");
        if (!rc)
            rc = repr_dict(rt, v.dict);
        return rc ? rc : rt_puts(rt, ">");
    default: /* Python shows an address */
        return rt_unsupported(rt, "printing a %s", jval_type_name(v));
    }
}

int rt_print_repr(struct jrt *rt, struct jval v)
{
    int rc = rt_charge(rt, 1);
    if (!rc)
        rc = rt_enter(rt);
    if (rc)
        return rc;
    rc = repr_value(rt, v);
    rt_leave(rt);
    return rc;
}

int rt_print(struct jrt *rt, struct jval v)
{
    if (v.type == JT_STR)
        return rt_put(rt, v.s->p, v.s->n);
    return v.type == JT_UNDEF ? 0 : rt_print_repr(rt, v);
}

int rt_to_str(struct jrt *rt, struct jval v, struct jval *out)
{
    *out = v;
    if (v.type == JT_STR)
        return 0;
    size_t mark = rt_capture(rt);
    int rc = rt_print(rt, v);
    int end = rt_capture_end(rt, mark, out);
    return rc ? rc : end;
}
