/* jinja_tests.c: what may follow `is`. */
#include <string.h>

#include "runtime/text/jinja_rt.h"

enum {
    T_ODD,
    T_EVEN,
    T_DIVISIBLEBY,
    T_DEFINED,
    T_UNDEFINED,
    T_FILTER,
    T_TEST,
    T_NONE,
    T_BOOLEAN,
    T_FALSE,
    T_TRUE,
    T_INTEGER,
    T_FLOAT,
    T_LOWER,
    T_UPPER,
    T_STRING,
    T_MAPPING,
    T_NUMBER,
    T_SEQUENCE,
    T_ITERABLE,
    T_CALLABLE,
    T_SAMEAS,
    T_ESCAPED,
    T_IN,
    T_EQ,
    T_NE,
    T_GT,
    T_GE,
    T_LT,
    T_LE
};

static const struct {
    const char *name;
    int id;
} tests[] = {
    {"odd", T_ODD},
    {"even", T_EVEN},
    {"divisibleby", T_DIVISIBLEBY},
    {"defined", T_DEFINED},
    {"undefined", T_UNDEFINED},
    {"filter", T_FILTER},
    {"test", T_TEST},
    {"none", T_NONE},
    {"boolean", T_BOOLEAN},
    {"false", T_FALSE},
    {"true", T_TRUE},
    {"integer", T_INTEGER},
    {"float", T_FLOAT},
    {"lower", T_LOWER},
    {"upper", T_UPPER},
    {"string", T_STRING},
    {"mapping", T_MAPPING},
    {"number", T_NUMBER},
    {"sequence", T_SEQUENCE},
    {"iterable", T_ITERABLE},
    {"callable", T_CALLABLE},
    {"sameas", T_SAMEAS},
    {"escaped", T_ESCAPED},
    {"in", T_IN},
    {"==", T_EQ},
    {"eq", T_EQ},
    {"equalto", T_EQ},
    {"!=", T_NE},
    {"ne", T_NE},
    {">", T_GT},
    {"gt", T_GT},
    {"greaterthan", T_GT},
    {"ge", T_GE},
    {">=", T_GE},
    {"<", T_LT},
    {"lt", T_LT},
    {"lessthan", T_LT},
    {"<=", T_LE},
    {"le", T_LE},
};

#define N_TESTS (sizeof(tests) / sizeof(tests[0]))

int jinja_test_find(const char *name, bool *known)
{
    *known = false;
    for (size_t i = 0; i < N_TESTS; i++)
        if (!strcmp(tests[i].name, name))
            return tests[i].id;
    return -1;
}

int rt_test_find(struct jrt *rt, struct jval name, int *id)
{
    if (name.type != JT_STR)
        return rt_fail(rt, "a test's name must be a string");
    for (size_t i = 0; i < N_TESTS; i++)
        if (name.s->n == strlen(tests[i].name) && !memcmp(tests[i].name, name.s->p, name.s->n)) {
            *id = tests[i].id;
            return 0;
        }
    return rt_fail(rt, "no test named '%.*s'", (int)(name.s->n < 60 ? name.s->n : 60), name.s->p);
}

/* value % n == rest */
static int remainder_is(struct jrt *rt, struct jval v, struct jval n, int64_t rest, bool *out)
{
    struct jval r;
    int rc = rt_binop(rt, '%', v, n, &r);
    *out = !rc && jval_equal(r, jval_int(rest));
    return rc;
}

static int is_case(struct jrt *rt, struct jval v, bool upper, bool *out)
{
    struct jval s;
    int rc = rt_to_str(rt, v, &s);
    if (!rc)
        rc = rt_charge_bytes(rt, s.s->n);
    *out = !rc && str_is_case(s.s, upper);
    return rc;
}

/* Python's `is`: the same object. Small values have no identity that is worth asking for. */
static int same(struct jrt *rt, struct jval a, struct jval b, bool *out)
{
    *out = false;
    if (a.type != b.type)
        return 0;
    switch (a.type) {
    case JT_NONE:
        *out = true;
        return 0;
    case JT_BOOL:
        *out = a.i == b.i;
        return 0;
    case JT_INT:
    case JT_FLOAT:
    case JT_STR:
    case JT_TUPLE:
        return rt_unsupported(rt, "the test sameas for %s", jval_type_name(a));
    case JT_FUNC:
        *out = a.func == b.func;
        return 0;
    default:
        *out = (const void *)a.iter == (const void *)b.iter;
        return 0;
    }
}

static int is_filter_name(struct jrt *rt, struct jval v, bool filter, bool *out)
{
    char name[32] = "";
    bool known = false;
    if (!jval_hashable(v))
        return rt_fail(rt, "unhashable type: '%s'", jval_type_name(v));
    if (v.type == JT_STR && v.s->n < sizeof(name))
        memcpy(name, v.s->p, v.s->n);
    *out = (filter ? jinja_filter_find(name, &known) : jinja_test_find(name, &known)) >= 0 || known;
    return 0;
}

static bool is_sequence(struct jval v)
{
    return v.type == JT_UNDEF || v.type == JT_STR || v.type == JT_LIST || v.type == JT_TUPLE ||
           v.type == JT_DICT || v.type == JT_RANGE;
}

/* Tests of the type alone. */
static bool type_test(int id, struct jval v)
{
    switch (id) {
    case T_DEFINED:
        return v.type != JT_UNDEF;
    case T_UNDEFINED:
        return v.type == JT_UNDEF;
    case T_NONE:
        return v.type == JT_NONE;
    case T_BOOLEAN:
        return v.type == JT_BOOL;
    case T_FALSE:
        return v.type == JT_BOOL && !v.i;
    case T_TRUE:
        return v.type == JT_BOOL && v.i;
    case T_INTEGER:
        return v.type == JT_INT;
    case T_FLOAT:
        return v.type == JT_FLOAT;
    case T_STRING:
        return v.type == JT_STR;
    case T_MAPPING:
        return v.type == JT_DICT;
    case T_NUMBER:
        return jval_is_number(v);
    case T_SEQUENCE:
        return is_sequence(v);
    case T_ITERABLE:
        return rt_iterable(v) || v.type == JT_LOOP;
    case T_CALLABLE:
        return v.type == JT_MACRO || v.type == JT_FUNC || v.type == JT_METHOD ||
               v.type == JT_UNDEF || v.type == JT_LOOP;
    default: /* T_ESCAPED */
        return v.type == JT_STR && v.markup;
    }
}

static int two_sided(struct jrt *rt, int id, struct jval a, struct jval b, bool *out)
{
    static const int ops[] = {
        [T_EQ] = OP2('=', '='), [T_NE] = OP2('!', '='), [T_GT] = '>',
        [T_GE] = OP2('>', '='), [T_LT] = '<',           [T_LE] = OP2('<', '=')};
    switch (id) {
    case T_DIVISIBLEBY:
        return remainder_is(rt, a, b, 0, out);
    case T_SAMEAS:
        return same(rt, a, b, out);
    case T_IN:
        return rt_in(rt, a, b, out);
    default:
        return rt_compare(rt, ops[id], a, b, out);
    }
}

int rt_test(struct jrt *rt, int id, struct jargs *args, bool *out)
{
    static const char *const num_names[] = {"value", "num", NULL};
    static const char *const other_names[] = {"value", "other", NULL};
    static const char *const seq_names[] = {"value", "seq", NULL};
    static const char *const one_name[] = {"value", NULL};
    bool two = id == T_DIVISIBLEBY || id == T_SAMEAS || id >= T_IN;
    const char *const *names = id == T_DIVISIBLEBY ? num_names
                               : id == T_IN        ? seq_names
                                                   : other_names;
    struct jval v[2];
    *out = false;
    if (args->n_kw && id >= T_EQ)
        return rt_fail(rt, "this test takes no keyword arguments");
    int rc = rt_bind_args(rt, "a test", args, 0, two ? names : one_name, two ? 2 : 1, v);
    if (rc)
        return rc;
    if (two)
        return two_sided(rt, id, v[0], v[1], out);
    if (id == T_ODD || id == T_EVEN)
        return remainder_is(rt, v[0], jval_int(2), id == T_ODD, out);
    if (id == T_LOWER || id == T_UPPER)
        return is_case(rt, v[0], id == T_UPPER, out);
    if (id == T_FILTER || id == T_TEST)
        return is_filter_name(rt, v[0], id == T_FILTER, out);
    *out = type_test(id, v[0]);
    return 0;
}
