/* jinja_filters_num.c: filters of numbers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/jinja_filters.h"
#include "runtime/text/jinja_text.h"

/* Python's int(text, base): white space, a sign, underscores between digits. 1: not a number. */
static int parse_int(const struct jstr *s, int64_t base, int64_t *out)
{
    size_t at = jtext_lstrip(s->p, s->n), end = at + jtext_rstrip(s->p + at, s->n - at);
    bool minus = false, digit = false;
    uint64_t v = 0;
    if (at < end && (s->p[at] == '-' || s->p[at] == '+'))
        minus = s->p[at++] == '-';
    char x = at + 1 < end && s->p[at] == '0' ? (char)(s->p[at + 1] | 0x20) : 0;
    int prefix = x == 'x' ? 16 : x == 'o' ? 8 : x == 'b' ? 2 : 0;
    if (prefix && (base == prefix || base == 0)) {
        base = prefix;
        at += 2;
        at += at < end && s->p[at] == '_';
    } else if (base == 0) {
        base = 10;
    }
    for (; at < end; at++) {
        char c = s->p[at];
        int d = c >= '0' && c <= '9'                     ? c - '0'
                : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                         : 99;
        if (c == '_' && digit && at + 1 < end) {
            digit = false;
            continue;
        }
        if (d >= base)
            return 1;
        digit = true;
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) ||
            __builtin_add_overflow(v, (uint64_t)d, &v) || v > (uint64_t)INT64_MAX)
            return 2;
    }
    *out = minus ? -(int64_t)v : (int64_t)v;
    return digit ? 0 : 1;
}

/* Python's float(text). False: not a number. */
static bool parse_float(const struct jstr *s, double *out)
{
    char text[512];
    size_t at = jtext_lstrip(s->p, s->n), n = jtext_rstrip(s->p + at, s->n - at), k = 0;
    if (n >= sizeof(text) || !n)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = s->p[at + i];
        bool inner = i && i + 1 < n && s->p[at + i - 1] >= '0' && s->p[at + i - 1] <= '9' &&
                     s->p[at + i + 1] >= '0' && s->p[at + i + 1] <= '9';
        if (c == '_' && inner)
            continue;
        if (!c || !strchr("0123456789+-.eEinfatyINFATY", c)) /* no hexadecimal, no nan(…) */
            return false;
        text[k++] = c;
    }
    text[k] = 0;
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end;
}

static int float_to_int(struct jrt *rt, double f, struct jval *out)
{
    if (f >= 9223372036854775808.0 || f < -9223372036854775808.0)
        return isinf(f) ? rt_fail(rt, "cannot convert float infinity to integer") : rt_overflow(rt);
    *out = jval_int((int64_t)f);
    return 0;
}

int f_int(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "default", "base", NULL};
    struct jval v[3];
    int64_t base = 10, i = 0;
    double f;
    int rc = rt_bind_args(rt, "int", args, 0, names, 1, v);
    if (!rc && v[2].type != JT_MISSING)
        rc = rt_index(rt, v[2], &base);
    if (!rc && v[0].type == JT_STR)
        rc = rt_charge_bytes(rt, v[0].s->n);
    if (rc)
        return rc;
    if (base != 0 && (base < 2 || base > 36))
        return rt_unsupported(rt, "int() with that base");
    *out = v[1].type == JT_MISSING ? jval_int(0) : v[1];
    switch (v[0].type) {
    case JT_UNDEF:
        return rt_undef_used(rt, v[0]);
    case JT_BOOL:
    case JT_INT:
        *out = jval_int(v[0].i);
        return 0;
    case JT_FLOAT:
        return isnan(v[0].f) ? 0 : float_to_int(rt, v[0].f, out);
    case JT_STR:
        rc = parse_int(v[0].s, base, &i);
        if (rc == 2)
            return rt_overflow(rt);
        if (rc == 0)
            *out = jval_int(i);
        else if (parse_float(v[0].s, &f) && isfinite(f))
            return float_to_int(rt, f, out);
        return 0;
    default:
        return 0;
    }
}

int f_float(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "default", NULL};
    struct jval v[2];
    double f;
    int rc = rt_bind_args(rt, "float", args, 0, names, 1, v);
    if (!rc && v[0].type == JT_STR)
        rc = rt_charge_bytes(rt, v[0].s->n);
    if (rc)
        return rc;
    if (v[0].type == JT_UNDEF)
        return rt_undef_used(rt, v[0]);
    *out = v[1].type == JT_MISSING ? jval_float(0) : v[1];
    if (v[0].type == JT_FLOAT)
        *out = v[0];
    else if (jval_is_number(v[0]))
        *out = jval_float((double)v[0].i);
    else if (v[0].type == JT_STR && parse_float(v[0].s, &f))
        *out = jval_float(f);
    return 0;
}

int f_abs(struct jrt *rt, struct jargs *args, struct jval *out)
{
    if (args->n != 1 || args->n_kw)
        return rt_fail(rt, "abs() takes exactly one argument");
    struct jval v = args->v[0];
    if (v.type == JT_FLOAT) {
        *out = jval_float(fabs(v.f));
        return 0;
    }
    if (v.type != JT_INT && v.type != JT_BOOL)
        return rt_fail(rt, "bad operand type for abs(): '%s'", jval_type_name(v));
    return rt_negate(rt, v, v.i < 0, out);
}

int f_round(struct jrt *rt, struct jargs *args, struct jval *out)
{
    static const char *const names[] = {"value", "precision", "method", NULL};
    struct jval v[3];
    int64_t digits = 0;
    char text[512];
    int rc = rt_bind_args(rt, "round", args, 0, names, 1, v);
    if (!rc && v[1].type != JT_MISSING)
        rc = rt_index(rt, v[1], &digits);
    bool common = v[2].type == JT_MISSING;
    bool up = false;
    if (!rc && !common) {
        struct jstr c = {.p = "common", .n = 6}, u = {.p = "ceil", .n = 4},
                    d = {.p = "floor", .n = 5};
        common = jval_equal(v[2], (struct jval){.type = JT_STR, .s = &c});
        up = jval_equal(v[2], (struct jval){.type = JT_STR, .s = &u});
        if (!common && !up && !jval_equal(v[2], (struct jval){.type = JT_STR, .s = &d}))
            rc = rt_fail(rt, "method must be common, ceil or floor");
    }
    if (!rc && v[0].type == JT_UNDEF)
        rc = rt_undef_used(rt, v[0]);
    if (!rc && !jval_is_number(v[0]))
        rc = rt_fail(rt, "type %s cannot be rounded", jval_type_name(v[0]));
    if (!rc && (digits < 0 || digits > 100))
        rc = rt_unsupported(rt, "round() to that precision");
    if (rc)
        return rc;
    double f = v[0].type == JT_FLOAT ? v[0].f : (double)v[0].i;
    if (!common) {
        double scale = pow(10, (double)digits);
        *out = jval_float((up ? ceil(f * scale) : floor(f * scale)) / scale + 0.0); /* no -0 */
        return 0;
    }
    if (v[0].type != JT_FLOAT) {
        *out = jval_int(v[0].i);
        return 0;
    }
    snprintf(text, sizeof(text), "%.*f", (int)digits, f); /* exact, half to even */
    *out = jval_float(isfinite(f) ? strtod(text, NULL) : f);
    return 0;
}
