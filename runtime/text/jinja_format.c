/* jinja_format.c: "…" % values, and "…".format(values). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/text/jinja_rt.h"
#include "runtime/text/jinja_text.h"

#define WIDTH_MAX 100000
#define PRECISION_MAX 100

/* What stands between % and its letter, or after the colon of a field. */
struct spec {
    uint32_t fill; /* 0: none given */
    char align;    /* '<', '>', '^', '=', or 0 */
    char sign;     /* '+', ' ', '-', or 0 */
    bool zero, alt;
    char group;           /* ',' or '_' */
    int width, precision; /* -1: none given */
    char type;            /* 0: none given */
};

static int put_fill(struct jrt *rt, uint32_t fill, int64_t n)
{
    int rc = 0;
    while (!rc && n-- > 0)
        rc = rt_putcp(rt, fill);
    return rc;
}

/* Text of so many characters, padded to the width; `def` is the alignment when none is given. */
static int put_padded(struct jrt *rt, const struct spec *f, const char *p, size_t n, char def)
{
    int64_t room = f->width - (int64_t)jtext_chars(p, n);
    char align = f->align ? f->align : def;
    int64_t left = align == '>' ? room : align == '^' ? room / 2 : 0;
    uint32_t fill = f->fill ? f->fill : ' ';
    size_t head = 0;
    if (room <= 0)
        return rt_put(rt, p, n);
    if (align == '=') { /* between the sign or prefix and the digits */
        head = n && strchr("+- ", p[0]) ? 1 : 0;
        head += n > head + 1 && p[head] == '0' && strchr("xXob", p[head + 1]) ? 2 : 0;
        int rc = rt_put(rt, p, head);
        if (!rc)
            rc = put_fill(rt, fill, room);
        return rc ? rc : rt_put(rt, p + head, n - head);
    }
    int rc = put_fill(rt, fill, left);
    if (!rc)
        rc = rt_put(rt, p, n);
    return rc ? rc : put_fill(rt, fill, room - left);
}

static int put_text(struct jrt *rt, const struct spec *f, const struct jstr *s, char def)
{
    size_t n = f->precision >= 0 ? jtext_skip(s->p, s->n, (size_t)f->precision) : s->n;
    return put_padded(rt, f, s->p, n, def);
}

/* Sign, prefix and digits of an integer in its base. */
static size_t int_text(int64_t v, const struct spec *f, int min_digits, char *text)
{
    char digits[80];
    size_t n = 0, k = 0;
    unsigned base = f->type == 'x' || f->type == 'X' ? 16
                    : f->type == 'o'                 ? 8
                    : f->type == 'b'                 ? 2
                                                     : 10;
    const char *set = f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    unsigned group = base == 10 ? 3 : 4;
    for (unsigned i = 0; u || i == 0 || (int)i < min_digits; i++, u /= base) {
        if (f->group && i && i % group == 0)
            digits[n++] = f->group;
        digits[n++] = set[u % base];
    }
    if (v < 0)
        text[k++] = '-';
    else if (f->sign == '+' || f->sign == ' ')
        text[k++] = f->sign;
    if (f->alt && base != 10) {
        text[k++] = '0';
        text[k++] = f->type;
    }
    while (n)
        text[k++] = digits[--n];
    return k;
}

static int put_int(struct jrt *rt, const struct spec *f, int64_t v)
{
    char text[128];
    bool zero = f->zero && !f->align;
    struct spec g = *f;
    if (zero && f->group)
        return rt_unsupported(rt, "zero padding with a group separator");
    if (zero) {
        g.fill = '0';
        g.align = '=';
    }
    size_t n = int_text(v, f, 0, text);
    return put_padded(rt, &g, text, n, '>');
}

static int put_float(struct jrt *rt, const struct spec *f, double v)
{
    char fmt[16], text[512], type = f->type;
    struct spec g = *f;
    bool percent = type == '%';
    if (f->group)
        return rt_unsupported(rt, "a group separator in a float");
    if (percent) {
        v *= 100;
        type = 'f';
    }
    if (f->zero && !f->align) {
        g.fill = '0';
        g.align = '=';
    }
    size_t k = 0, n;
    fmt[k++] = '%';
    if (f->sign == '+' || f->sign == ' ')
        fmt[k++] = f->sign;
    if (f->alt)
        fmt[k++] = '#';
    snprintf(fmt + k, sizeof(fmt) - k, ".*%c", type);
    n = (size_t)snprintf(text, sizeof(text) - 1, fmt, f->precision < 0 ? 6 : f->precision, v);
    if (percent)
        text[n++] = '%';
    return put_padded(rt, &g, text, n, '>');
}

/* ---- % ------------------------------------------------------------------------------------ */

struct percent {
    struct jrt *rt;
    const struct jstr *fmt;
    size_t at;
    struct jval values;
    uint32_t next; /* of a tuple */
    bool single;   /* the values are one value, not yet used */
};

static int next_value(struct percent *p, struct jval *out)
{
    if (p->values.type == JT_TUPLE && p->next < p->values.list->n) {
        *out = p->values.list->v[p->next++];
        return 0;
    }
    if (p->values.type != JT_TUPLE && p->single) {
        p->single = false;
        *out = p->values;
        return 0;
    }
    return rt_fail(p->rt, "not enough arguments for format string");
}

static char peek(const struct percent *p)
{
    return p->at < p->fmt->n ? p->fmt->p[p->at] : 0;
}

static int read_number(struct percent *p, int max, int *out)
{
    struct jval v;
    int64_t n = 0;
    if (peek(p) == '*') {
        p->at++;
        int rc = next_value(p, &v);
        if (!rc)
            rc = rt_index(p->rt, v, &n);
        if (rc)
            return rc;
    }
    for (; peek(p) >= '0' && peek(p) <= '9' && n <= max; p->at++)
        n = n * 10 + (peek(p) - '0');
    if (n < 0 || n > max)
        return rt_unsupported(p->rt, "a width or precision of that size");
    *out = (int)n;
    return 0;
}

/* "(name)": the value is the mapping's. */
static int read_key(struct percent *p, struct jval *out, bool *given)
{
    size_t from = p->at + 1, depth = 1;
    struct jval key;
    *given = peek(p) == '(';
    if (!*given)
        return 0;
    for (p->at++; p->at < p->fmt->n && depth; p->at++)
        depth = depth + (peek(p) == '(') - (peek(p) == ')');
    if (depth)
        return rt_fail(p->rt, "incomplete format key");
    if (p->values.type != JT_DICT)
        return rt_fail(p->rt, "format requires a mapping");
    int rc = rt_strn(p->rt, p->fmt->p + from, p->at - 1 - from, &key);
    const struct jval *v = rc ? NULL : jdict_get(p->values.dict, key);
    if (rc || !v)
        return rc ? rc : rt_fail(p->rt, "the mapping has no such key");
    *out = *v;
    return 0;
}

static int read_spec(struct percent *p, struct spec *f)
{
    int rc = 0;
    for (;; p->at++) {
        char c = peek(p);
        if (c == '-')
            f->align = '<';
        else if (c == '0')
            f->zero = true;
        else if (c == '+')
            f->sign = '+';
        else if (c == ' ')
            f->sign = f->sign ? f->sign : ' ';
        else if (c == '#')
            f->alt = true;
        else
            break;
    }
    rc = read_number(p, WIDTH_MAX, &f->width);
    if (!rc && peek(p) == '.') {
        p->at++;
        rc = read_number(p, PRECISION_MAX, &f->precision);
    }
    while (peek(p) == 'h' || peek(p) == 'l' || peek(p) == 'L')
        p->at++;
    f->type = peek(p);
    p->at++;
    return rc;
}

static int percent_int(struct jrt *rt, struct spec *f, struct jval v)
{
    char text[128];
    bool decimal = strchr("diu", f->type) != NULL;
    if (!jval_is_number(v) || (!decimal && v.type == JT_FLOAT))
        return rt_fail(rt, "%%%c format: a number is required, not %s", f->type, jval_type_name(v));
    if (v.type == JT_FLOAT && !(fabs(v.f) < 9.2e18))
        return rt_overflow(rt);
    if (f->alt)
        return rt_unsupported(rt, "# with an integer");
    if (f->precision > 40)
        return rt_unsupported(rt, "a precision of that size");
    if (decimal)
        f->type = 'd';
    if (f->zero && !f->align) {
        f->fill = '0';
        f->align = '=';
    }
    size_t n = int_text(v.type == JT_FLOAT ? (int64_t)v.f : v.i, f, f->precision, text);
    return put_padded(rt, f, text, n, '>');
}

static int percent_value(struct jrt *rt, struct spec *f, struct jval v)
{
    struct jval s;
    size_t mark;
    int rc, end;
    switch (f->type) {
    case 's':
        rc = rt_to_str(rt, v, &s);
        return rc ? rc : put_text(rt, f, s.s, '>');
    case 'r':
        mark = rt_capture(rt);
        rc = rt_print_repr(rt, v);
        end = rt_capture_end(rt, mark, &s);
        if (!rc)
            rc = end;
        return rc ? rc : put_text(rt, f, s.s, '>');
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o':
        return percent_int(rt, f, v);
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
        if (!jval_is_number(v))
            return rt_fail(rt, "must be real number, not %s", jval_type_name(v));
        return put_float(rt, f, v.type == JT_FLOAT ? v.f : (double)v.i);
    case 'c':
    case 'a':
        return rt_unsupported(rt, "%%%c", f->type);
    default:
        return rt_fail(rt, "unsupported format character");
    }
}

static int percent_one(struct percent *p)
{
    struct spec f = {.precision = -1};
    struct jval v;
    bool keyed;
    int rc = read_key(p, &v, &keyed);
    if (!rc)
        rc = read_spec(p, &f);
    if (rc)
        return rc;
    if (p->at > p->fmt->n)
        return rt_fail(p->rt, "incomplete format");
    if (f.type == '%')
        return rt_puts(p->rt, "%");
    if (!keyed)
        rc = next_value(p, &v);
    else
        p->single = false;
    return rc ? rc : percent_value(p->rt, &f, v);
}

int rt_format_percent(struct jrt *rt, struct jval fmt, struct jval values, struct jval *out)
{
    struct percent p = {.rt = rt, .fmt = fmt.s, .values = values, .single = true};
    size_t mark = rt_capture(rt);
    int rc = fmt.markup ? rt_unsupported(rt, "%% on a safe string") : 0;
    while (!rc && p.at < fmt.s->n) {
        const char *hit = memchr(fmt.s->p + p.at, '%', fmt.s->n - p.at);
        size_t end = hit ? (size_t)(hit - fmt.s->p) : fmt.s->n;
        rc = rt_put(rt, fmt.s->p + p.at, end - p.at);
        p.at = end + 1;
        if (!rc && hit)
            rc = percent_one(&p);
    }
    /* What has items may have more of them than are asked for. */
    bool mapping = values.type == JT_DICT || values.type == JT_LIST || values.type == JT_UNDEF ||
                   values.type == JT_RANGE;
    bool left = values.type == JT_TUPLE ? p.next < values.list->n : p.single && !mapping;
    if (!rc && left)
        rc = rt_fail(rt, "not all arguments converted during string formatting");
    int end = rt_capture_end(rt, mark, out);
    return rc ? rc : end;
}

/* ---- {} ----------------------------------------------------------------------------------- */

struct braces {
    struct jrt *rt;
    const struct jargs *args;
    uint32_t next;
    bool automatic, manual;
};

static int field_start(struct braces *b, const char *p, size_t n, struct jval *out)
{
    uint32_t i = 0;
    int rc = rt_charge(b->rt, b->args->n_kw / 8);
    if (rc)
        return rc;
    bool number = n > 0 && n < 9;
    for (size_t k = 0; number && k < n; k++) {
        number = p[k] >= '0' && p[k] <= '9';
        i = i * 10 + (uint32_t)(p[k] - '0');
    }
    b->automatic = b->automatic || n == 0;
    b->manual = b->manual || number;
    if (b->automatic && b->manual)
        return rt_fail(b->rt, "cannot switch between automatic and manual field numbering");
    if (n == 0)
        i = b->next++;
    if (n == 0 || number) {
        if (i >= b->args->n)
            return rt_fail(b->rt, "Replacement index %u out of range for positional args tuple", i);
        *out = b->args->v[i];
        return 0;
    }
    for (uint32_t k = 0; k < b->args->n_kw; k++)
        if (strlen(b->args->names[k]) == n && !memcmp(b->args->names[k], p, n)) {
            *out = b->args->kw[k];
            return 0;
        }
    return rt_fail(b->rt, "format(): no argument '%.*s'", (int)(n < 60 ? n : 60), p);
}

/* name, then .attr and [item] parts. */
static int field_value(struct braces *b, const char *p, size_t n, struct jval *out)
{
    size_t at = 0;
    while (at < n && p[at] != '.' && p[at] != '[')
        at++;
    int rc = field_start(b, p, at, out);
    while (!rc && at < n) {
        bool item = p[at] == '[';
        struct jval key;
        size_t from = ++at;
        while (at < n && (item ? p[at] != ']' : p[at] != '.' && p[at] != '['))
            at++;
        if (at == from || (item && at == n))
            return rt_fail(b->rt, "Empty attribute in format string");
        rc = rt_strn(b->rt, p + from, at - from, &key);
        bool number = item && at - from < 9;
        for (size_t k = from; number && k < at; k++)
            number = p[k] >= '0' && p[k] <= '9';
        int64_t i = 0;
        for (size_t k = from; number && k < at; k++)
            i = i * 10 + (p[k] - '0');
        if (!rc)
            rc = item ? rt_getitem(b->rt, *out, number ? jval_int(i) : key, out)
                      : rt_getattr(b->rt, *out, key, out);
        at += item;
        if (!rc && at < n && p[at] != '.' && p[at] != '[')
            return rt_fail(b->rt, "Only '.' or '[' may follow ']' in format field specifier");
    }
    return rc;
}

static int number_in(struct jrt *rt, const char *p, size_t n, size_t *at, int max, int *out)
{
    int64_t v = 0;
    for (; *at < n && p[*at] >= '0' && p[*at] <= '9' && v <= max; ++*at)
        v = v * 10 + (p[*at] - '0');
    *out = (int)v;
    return v > max ? rt_unsupported(rt, "a width or precision of that size") : 0;
}

/* [[fill]align][sign][#][0][width][grouping][.precision][type] */
static int field_spec(struct jrt *rt, const char *p, size_t n, struct spec *f)
{
    size_t at = 0, len = 0;
    int rc = 0;
    if (n) {
        uint32_t cp = jtext_decode(p, n, &len);
        if (n > len && strchr("<>^=", p[len]) && p[len]) {
            f->fill = cp;
            f->align = p[len];
            at = len + 1;
        } else if (p[0] && strchr("<>^=", p[0])) {
            f->align = p[0];
            at = 1;
        }
    }
    if (at < n && p[at] && strchr("+- ", p[at]))
        f->sign = p[at++];
    if (at < n && p[at] == '#') {
        f->alt = true;
        at++;
    }
    if (at < n && p[at] == '0') {
        f->zero = true;
        at++;
    }
    rc = number_in(rt, p, n, &at, WIDTH_MAX, &f->width);
    if (at < n && (p[at] == ',' || p[at] == '_'))
        f->group = p[at++];
    if (!rc && at < n && p[at] == '.') {
        size_t from = ++at;
        rc = number_in(rt, p, n, &at, PRECISION_MAX, &f->precision);
        if (!rc && at == from)
            return rt_fail(rt, "Format specifier missing precision");
    }
    if (!rc && at < n)
        f->type = p[at++];
    return rc || at == n ? rc : rt_fail(rt, "Invalid format specifier");
}

static int put_field(struct jrt *rt, struct jval v, const char *p, size_t n)
{
    struct spec f = {.precision = -1};
    if (n == 0)
        return rt_print(rt, v);
    int rc = field_spec(rt, p, n, &f);
    if (rc)
        return rc;
    if (v.type == JT_STR) {
        if ((f.type && f.type != 's') || f.sign || f.alt || f.group || f.align == '=')
            return rt_fail(rt, "Invalid format specifier for object of type 'str'");
        if (f.zero && !f.fill)
            f.fill = '0';
        return put_text(rt, &f, v.s, '<');
    }
    if ((v.type == JT_INT || v.type == JT_BOOL) && (!f.type || strchr("dxXob", f.type))) {
        if (f.precision >= 0)
            return rt_fail(rt, "Precision not allowed in integer format specifier");
        if (f.group == ',' && f.type && f.type != 'd')
            return rt_fail(rt, "Cannot specify ',' with that type");
        return put_int(rt, &f, v.i);
    }
    if (jval_is_number(v) && f.type && strchr("eEfFgG%", f.type))
        return put_float(rt, &f, v.type == JT_FLOAT ? v.f : (double)v.i);
    if (v.type == JT_FLOAT && !f.type && f.precision < 0 && !f.group) {
        char text[FLOAT_REPR_BYTES + 1];
        size_t k = 0;
        if (f.sign == '+' && !signbit(v.f))
            text[k++] = '+';
        float_repr(v.f, text + k);
        if (f.zero && !f.align) {
            f.fill = '0';
            f.align = '=';
        }
        return put_padded(rt, &f, text, strlen(text), '>');
    }
    if (jval_is_number(v))
        return rt_unsupported(rt, "that format specifier");
    return rt_fail(rt, "unsupported format string passed to %s.__format__", jval_type_name(v));
}

/* The inside of one {…}. */
static int field(struct braces *b, const char *p, size_t n)
{
    size_t name = 0;
    struct jval v;
    char conv = 0;
    bool in_item = false;
    for (; name < n && (in_item || (p[name] != '!' && p[name] != ':')); name++)
        in_item = p[name] == '[' || (in_item && p[name] != ']');
    size_t at = name;
    if (memchr(p, '{', n))
        return rt_unsupported(b->rt, "a field inside of a field");
    int rc = field_value(b, p, name, &v);
    if (!rc && at < n && p[at] == '!') {
        conv = at + 1 < n ? p[at + 1] : 0;
        at += 2;
        if ((conv != 's' && conv != 'r') || (at < n && p[at] != ':'))
            rc = rt_fail(b->rt, "Unknown conversion specifier");
    }
    if (rc)
        return rc;
    if (conv) {
        size_t mark = rt_capture(b->rt);
        rc = conv == 'r' ? rt_print_repr(b->rt, v) : rt_print(b->rt, v);
        int end = rt_capture_end(b->rt, mark, &v);
        if (rc || end)
            return rc ? rc : end;
    }
    at += at < n;
    return put_field(b->rt, v, p + at, n - at);
}

int rt_format_braces(struct jrt *rt, struct jval fmt, const struct jargs *args, struct jval *out)
{
    const char *p = fmt.s->p;
    size_t n = fmt.s->n, at = 0;
    struct braces b = {.rt = rt, .args = args};
    size_t mark = rt_capture(rt);
    int rc = fmt.markup ? rt_unsupported(rt, "format() on a safe string") : 0;
    while (!rc && at < n) {
        char c = p[at];
        if (c != '{' && c != '}') {
            size_t from = at;
            while (at < n && p[at] != '{' && p[at] != '}')
                at++;
            rc = rt_put(rt, p + from, at - from);
        } else if (at + 1 < n && p[at + 1] == c) {
            rc = rt_put(rt, &c, 1);
            at += 2;
        } else if (c == '}') {
            rc = rt_fail(rt, "Single '}' encountered in format string");
        } else {
            size_t from = ++at;
            unsigned depth = 1;
            for (; at < n; at++) {
                depth = depth + (p[at] == '{') - (p[at] == '}');
                if (!depth)
                    break;
            }
            rc = depth ? rt_fail(rt, "expected '}' before end of string")
                       : field(&b, p + from, at - from);
            at++;
        }
    }
    int end = rt_capture_end(rt, mark, out);
    return rc ? rc : end;
}
