/* jinja_ops.c: Python's operators on values. */
#include <math.h>
#include <string.h>

#include "runtime/text/jinja_rt.h"

#define EXACT_DOUBLE (INT64_C(1) << 53)

int rt_truth(struct jrt *rt, struct jval v, bool *out)
{
    (void)rt;
    switch (v.type) {
    case JT_MISSING:
    case JT_UNDEF:
    case JT_NONE:
        *out = false;
        return 0;
    case JT_BOOL:
    case JT_INT:
        *out = v.i != 0;
        return 0;
    case JT_FLOAT:
        *out = v.f != 0;
        return 0;
    case JT_STR:
        *out = v.s->n != 0;
        return 0;
    case JT_LIST:
    case JT_TUPLE:
        *out = v.list->n != 0;
        return 0;
    case JT_DICT:
        *out = v.dict->n != 0;
        return 0;
    case JT_RANGE:
        *out = v.range->n != 0;
        return 0;
    case JT_VIEW:
        *out = v.view->dict->n != 0;
        return 0;
    default:
        *out = true;
        return 0;
    }
}

bool rt_has_len(struct jval v)
{
    switch (v.type) {
    case JT_UNDEF:
    case JT_STR:
    case JT_LIST:
    case JT_TUPLE:
    case JT_DICT:
    case JT_RANGE:
    case JT_VIEW:
    case JT_LOOP:
        return true;
    default:
        return false;
    }
}

int rt_len(struct jrt *rt, struct jval v, int64_t *n)
{
    struct jval x;
    int rc;
    switch (v.type) {
    case JT_UNDEF:
        *n = 0;
        return 0;
    case JT_STR:
        *n = v.s->chars;
        return 0;
    case JT_LIST:
    case JT_TUPLE:
        *n = v.list->n;
        return 0;
    case JT_DICT:
        *n = v.dict->n;
        return 0;
    case JT_RANGE:
        *n = v.range->n;
        return 0;
    case JT_VIEW:
        *n = v.view->dict->n;
        return 0;
    case JT_LOOP:
        rc = rt_loop_attr(rt, v.loop, "length", &x);
        *n = rc ? 0 : x.i;
        return rc;
    default:
        return rt_fail(rt, "object of type '%s' has no len()", jval_type_name(v));
    }
}

int rt_index(struct jrt *rt, struct jval v, int64_t *out)
{
    if (v.type == JT_UNDEF)
        return rt_undef_used(rt, v);
    if (v.type != JT_INT && v.type != JT_BOOL)
        return rt_fail(rt, "'%s' object cannot be interpreted as an integer", jval_type_name(v));
    *out = v.i;
    return 0;
}

/* ---- arithmetic --------------------------------------------------------------------------- */

static double as_double(struct jval v)
{
    return v.type == JT_FLOAT ? v.f : (double)v.i;
}

static int int_divide(struct jrt *rt, int op, int64_t a, int64_t b, struct jval *out)
{
    if (b == 0)
        return rt_fail(rt, op == '%' ? "integer modulo by zero" : "division by zero");
    if (op == '/') {
        /* Python rounds the true quotient once; so do doubles while both are exact. */
        if (a > EXACT_DOUBLE || a < -EXACT_DOUBLE || b > EXACT_DOUBLE || b < -EXACT_DOUBLE)
            return rt_overflow(rt);
        *out = jval_float((double)a / (double)b);
        return 0;
    }
    if (a == INT64_MIN && b == -1) {
        *out = jval_int(0);
        return op == '%' ? 0 : rt_overflow(rt);
    }
    int64_t q = a / b, r = a % b;
    if (r && (r < 0) != (b < 0)) {
        q--;
        r += b;
    }
    *out = jval_int(op == '%' ? r : q);
    return 0;
}

static int int_power(struct jrt *rt, int64_t a, int64_t b, struct jval *out)
{
    int64_t r = 1;
    if (b < 0) {
        if (a == 0)
            return rt_fail(rt, "0.0 cannot be raised to a negative power");
        *out = jval_float(pow((double)a, (double)b));
        return 0;
    }
    while (b) {
        if ((b & 1) && __builtin_mul_overflow(r, a, &r))
            return rt_overflow(rt);
        b >>= 1;
        if (b && __builtin_mul_overflow(a, a, &a))
            return rt_overflow(rt);
    }
    *out = jval_int(r);
    return 0;
}

static int int_op(struct jrt *rt, int op, int64_t a, int64_t b, struct jval *out)
{
    int64_t r = 0;
    bool over = false;
    switch (op) {
    case '+':
        over = __builtin_add_overflow(a, b, &r);
        break;
    case '-':
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case '*':
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case OP2('*', '*'):
        return int_power(rt, a, b, out);
    default:
        return int_divide(rt, op, a, b, out);
    }
    *out = jval_int(r);
    return over ? rt_overflow(rt) : 0;
}

/* CPython's float_divmod. */
static int float_divide(struct jrt *rt, int op, double a, double b, struct jval *out)
{
    if (b == 0)
        return rt_fail(rt, op == '%' ? "float modulo" : "float division by zero");
    if (op == '/') {
        *out = jval_float(a / b);
        return 0;
    }
    double mod = fmod(a, b), div = (a - mod) / b, floordiv;
    if (mod != 0) {
        if ((b < 0) != (mod < 0)) {
            mod += b;
            div -= 1.0;
        }
    } else {
        mod = copysign(0.0, b);
    }
    if (div != 0) {
        floordiv = floor(div);
        if (div - floordiv > 0.5)
            floordiv += 1.0;
    } else {
        floordiv = copysign(0.0, a / b);
    }
    *out = jval_float(op == '%' ? mod : floordiv);
    return 0;
}

static int float_power(struct jrt *rt, double a, double b, struct jval *out)
{
    if (a == 0 && b < 0)
        return rt_fail(rt, "0.0 cannot be raised to a negative power");
    if (a < 0 && isfinite(a) && isfinite(b) && b != floor(b))
        return rt_unsupported(rt, "complex numbers");
    double r = pow(a, b);
    if (isinf(r) && isfinite(a) && isfinite(b))
        return rt_fail(rt, "the result of ** is too large");
    *out = jval_float(r);
    return 0;
}

static int float_op(struct jrt *rt, int op, double a, double b, struct jval *out)
{
    switch (op) {
    case '+':
        *out = jval_float(a + b);
        return 0;
    case '-':
        *out = jval_float(a - b);
        return 0;
    case '*':
        *out = jval_float(a * b);
        return 0;
    case OP2('*', '*'):
        return float_power(rt, a, b, out);
    default:
        return float_divide(rt, op, a, b, out);
    }
}

/* ---- both -------------------------------------------------------------------------------------
 */

static bool is_seq(struct jval v)
{
    return v.type == JT_STR || v.type == JT_LIST || v.type == JT_TUPLE;
}

int rt_binop(struct jrt *rt, int op, struct jval a, struct jval b, struct jval *out)
{
    char sym[3] = {op > 255 ? (char)(op >> 8) : (char)op, op > 255 ? (char)(op & 255) : 0, 0};
    if (op == '%' && a.type == JT_STR)
        return rt_format_percent(rt, a, b, out);
    if (a.type == JT_UNDEF)
        return rt_undef_used(rt, a);
    if (b.type == JT_UNDEF)
        return rt_undef_used(rt, b);
    if (jval_is_number(a) && jval_is_number(b)) {
        if (a.type == JT_FLOAT || b.type == JT_FLOAT)
            return float_op(rt, op, as_double(a), as_double(b), out);
        return int_op(rt, op, a.i, b.i, out);
    }
    if (op == '+' && a.type == b.type && a.type == JT_STR)
        return rt_add_str(rt, a, b, out);
    if (op == '+' && a.type == b.type && is_seq(a))
        return rt_add_seq(rt, a, b, out);
    if (op == '*' && is_seq(a) && (b.type == JT_INT || b.type == JT_BOOL))
        return rt_repeat(rt, a, b.i, out);
    if (op == '*' && is_seq(b) && (a.type == JT_INT || a.type == JT_BOOL))
        return rt_repeat(rt, b, a.i, out);
    if (a.type == JT_VIEW || b.type == JT_VIEW)
        return rt_unsupported(rt, "operators on dict views");
    return rt_fail(rt, "unsupported operand type(s) for %s: '%s' and '%s'", sym, jval_type_name(a),
                   jval_type_name(b));
}

int rt_negate(struct jrt *rt, struct jval v, bool minus, struct jval *out)
{
    if (v.type == JT_UNDEF)
        return rt_undef_used(rt, v);
    if (v.type == JT_FLOAT) {
        *out = jval_float(minus ? -v.f : v.f);
        return 0;
    }
    if (v.type != JT_INT && v.type != JT_BOOL)
        return rt_fail(rt, "bad operand type for unary %c: '%s'", minus ? '-' : '+',
                       jval_type_name(v));
    if (minus && v.i == INT64_MIN)
        return rt_overflow(rt);
    *out = jval_int(minus ? -v.i : v.i);
    return 0;
}

/* ---- comparison --------------------------------------------------------------------------- */

static int equal_lists(struct jrt *rt, const struct jlist *a, const struct jlist *b, bool *out)
{
    int rc = 0;
    *out = a == b || a->n == b->n;
    for (uint32_t i = 0; !rc && a != b && *out && i < a->n; i++)
        rc = rt_equal(rt, a->v[i], b->v[i], out);
    return rc;
}

static int equal_dicts(struct jrt *rt, const struct jdict *a, const struct jdict *b, bool *out)
{
    int rc = 0;
    *out = a == b || a->n == b->n;
    for (uint32_t i = 0; !rc && a != b && *out && i < a->n; i++) {
        const struct jval *v = jdict_get(b, a->keys[i]);
        *out = v != NULL;
        if (v)
            rc = rt_equal(rt, a->vals[i], *v, out);
    }
    return rc;
}

int rt_equal(struct jrt *rt, struct jval a, struct jval b, bool *out)
{
    int rc = rt_charge_bytes(rt, a.type == JT_STR ? a.s->n : 0);
    if (!rc)
        rc = rt_enter(rt);
    if (rc)
        return rc;
    if (a.type == b.type && (a.type == JT_LIST || a.type == JT_TUPLE))
        rc = equal_lists(rt, a.list, b.list, out);
    else if (a.type == b.type && a.type == JT_DICT)
        rc = equal_dicts(rt, a.dict, b.dict, out);
    else
        *out = jval_equal(a, b);
    rt_leave(rt);
    return rc;
}

/* -1, 0, 1, or 2 where a NaN is in it. */
static int int_order_float(int64_t i, double f)
{
    if (isnan(f))
        return 2;
    if (f >= 9223372036854775808.0)
        return -1;
    if (f < -9223372036854775808.0)
        return 1;
    int64_t t = (int64_t)f;
    if (i != t)
        return i < t ? -1 : 1;
    double frac = f - (double)t;
    return frac > 0 ? -1 : frac < 0;
}

static int order_numbers(struct jval a, struct jval b)
{
    if (a.type == JT_FLOAT && b.type == JT_FLOAT)
        return isnan(a.f) || isnan(b.f) ? 2 : a.f < b.f ? -1 : a.f > b.f;
    if (b.type == JT_FLOAT)
        return int_order_float(a.i, b.f);
    if (a.type == JT_FLOAT) {
        int o = int_order_float(b.i, a.f);
        return o == 2 ? 2 : -o;
    }
    return a.i < b.i ? -1 : a.i > b.i;
}

/* Bytes of UTF-8 order as code points do. */
static int order_strings(const struct jstr *a, const struct jstr *b)
{
    int c = memcmp(a->p, b->p, a->n < b->n ? a->n : b->n);
    return c ? (c < 0 ? -1 : 1) : a->n < b->n ? -1 : a->n > b->n;
}

static int order(struct jrt *rt, int op, struct jval a, struct jval b, int *out);

static int order_seq(struct jrt *rt, int op, const struct jlist *a, const struct jlist *b, int *out)
{
    for (uint32_t i = 0; i < a->n && i < b->n; i++) {
        bool same;
        int rc = rt_equal(rt, a->v[i], b->v[i], &same);
        if (!rc && same)
            continue;
        if (!rc)
            rc = rt_enter(rt);
        if (rc)
            return rc;
        rc = order(rt, op, a->v[i], b->v[i], out);
        rt_leave(rt);
        return rc;
    }
    *out = a->n < b->n ? -1 : a->n > b->n;
    return 0;
}

static int order(struct jrt *rt, int op, struct jval a, struct jval b, int *out)
{
    int rc = rt_charge_bytes(rt, a.type == JT_STR ? a.s->n : 0);
    if (rc)
        return rc;
    if (a.type == JT_UNDEF)
        return rt_undef_used(rt, a);
    if (b.type == JT_UNDEF)
        return rt_undef_used(rt, b);
    if (jval_is_number(a) && jval_is_number(b)) {
        *out = order_numbers(a, b);
        return 0;
    }
    if (a.type == b.type && a.type == JT_STR) {
        *out = order_strings(a.s, b.s);
        return 0;
    }
    if (a.type == b.type && (a.type == JT_LIST || a.type == JT_TUPLE))
        return order_seq(rt, op, a.list, b.list, out);
    if (a.type == JT_VIEW && b.type == JT_VIEW)
        return rt_unsupported(rt, "comparison of dict views");
    return rt_fail(rt, "'%c%s' not supported between instances of '%s' and '%s'",
                   op > 255 ? op >> 8 : op, op > 255 ? "=" : "", jval_type_name(a),
                   jval_type_name(b));
}

int rt_less(struct jrt *rt, struct jval a, struct jval b, bool *out)
{
    int o = 0, rc = order(rt, '<', a, b, &o);
    *out = o == -1;
    return rc;
}

int rt_compare(struct jrt *rt, int op, struct jval a, struct jval b, bool *out)
{
    int o = 0, rc;
    switch (op) {
    case 'i':
    case 'n':
        rc = rt_in(rt, a, b, out);
        *out = *out == (op == 'i');
        return rc;
    case OP2('=', '='):
    case OP2('!', '='):
        if (a.type == JT_VIEW && b.type == JT_VIEW)
            return rt_unsupported(rt, "comparison of dict views");
        rc = rt_equal(rt, a, b, out);
        *out = *out == (op == OP2('=', '='));
        return rc;
    case '<':
        return rt_less(rt, a, b, out);
    case OP2('<', '='):
        rc = order(rt, op, a, b, &o);
        *out = o == -1 || o == 0;
        return rc;
    case '>':
        rc = order(rt, op, a, b, &o);
        *out = o == 1;
        return rc;
    default:
        rc = order(rt, op, a, b, &o);
        *out = o == 1 || o == 0;
        return rc;
    }
}

static int in_sequence(struct jrt *rt, struct jval needle, struct jval hay, bool *out)
{
    struct jiter *it;
    struct jval v;
    int rc = rt_iter(rt, hay, &it);
    while (!rc && (rc = rt_next(rt, it, &v)) > 0) {
        rc = rt_equal(rt, needle, v, out);
        if (rc || *out)
            return rc;
    }
    return rc;
}

int rt_charge_key(struct jrt *rt, const struct jdict *d, struct jval key)
{
    int rc = rt_charge_bytes(rt, key.type == JT_STR ? key.s->n : 0);
    return rc ? rc : rt_charge(rt, d->index ? 1 : d->n / 4);
}

int rt_in(struct jrt *rt, struct jval needle, struct jval hay, bool *out)
{
    size_t at;
    *out = false;
    if (hay.type == JT_STR) {
        if (needle.type != JT_STR)
            return rt_fail(rt, "'in <string>' requires string as left operand, not %s",
                           jval_type_name(needle));
        int rc = rt_charge_bytes(rt, hay.s->n);
        *out = !rc && str_find(hay.s, needle.s, 0, &at);
        return rc;
    }
    if (hay.type == JT_DICT || (hay.type == JT_VIEW && hay.view->kind == JV_KEYS)) {
        const struct jdict *d = hay.type == JT_DICT ? hay.dict : hay.view->dict;
        if (!jval_hashable(needle))
            return rt_fail(rt, "unhashable type: '%s'", jval_type_name(needle));
        int rc = rt_charge_key(rt, d, needle);
        *out = !rc && jdict_get(d, needle) != NULL;
        return rc;
    }
    if (!rt_iterable(hay))
        return rt_fail(rt, "argument of type '%s' is not iterable", jval_type_name(hay));
    return in_sequence(rt, needle, hay, out);
}
