/* jinja_eval.c: expressions. */
#include <string.h>

#include "runtime/text/jinja_rt.h"

static int eval_name(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    for (uint16_t up = n->var.up; up; up--)
        f = f->parent;
    *out = f->slots[n->var.slot];
    if (out->type != JT_MISSING)
        return 0;
    struct jundef *u = arena_alloc(rt->a, sizeof(*u));
    if (!u)
        return rt_nomem(rt);
    u->name = n->name;
    *out = (struct jval){.type = JT_UNDEF, .undef = u};
    return 0;
}

static int eval_seq(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval seq;
    int rc = rt_seq(rt, n->kind == N_LIST ? JT_LIST : JT_TUPLE, n->n_kids, &seq);
    for (uint32_t i = 0; !rc && i < n->n_kids; i++)
        rc = rt_eval(rt, f, n->kids[i], &seq.list->v[i]);
    *out = seq;
    return rc;
}

static int eval_dict(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval d, k, v;
    int rc = rt_charge(rt, n->n_kids / 4 + 1);
    if (!rc && !jval_dict(rt->a, n->n_kids / 2, &d))
        rc = rt_nomem(rt);
    for (uint32_t i = 0; !rc && i + 1 < n->n_kids; i += 2) {
        rc = rt_eval(rt, f, n->kids[i], &k);
        if (!rc)
            rc = rt_eval(rt, f, n->kids[i + 1], &v);
        if (!rc && !jval_hashable(k))
            rc = rt_fail(rt, "unhashable type: '%s'", jval_type_name(k));
        if (!rc)
            rc = rt_charge_key(rt, d.dict, k);
        if (!rc && !jdict_set(rt->a, d.dict, k, v))
            rc = rt_nomem(rt);
    }
    if (!rc)
        *out = d;
    return rc;
}

static int eval_cond(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval v;
    bool yes;
    int rc = rt_eval(rt, f, n->a, &v);
    if (!rc)
        rc = rt_truth(rt, v, &yes);
    if (rc)
        return rc;
    if (yes)
        return rt_eval(rt, f, n->b, out);
    if (n->c)
        return rt_eval(rt, f, n->c, out);
    return rt_undef_hint(
        rt, "the inline if-expression evaluated to false and no else section was defined.", out);
}

/* `and` and `or` give one of their sides. */
static int eval_logic(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    bool yes;
    int rc = rt_eval(rt, f, n->a, out);
    if (!rc)
        rc = rt_truth(rt, *out, &yes);
    if (rc || yes == (n->kind == N_OR))
        return rc;
    return rt_eval(rt, f, n->b, out);
}

static int eval_not(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval v;
    bool yes = false;
    int rc = rt_eval(rt, f, n->a, &v);
    if (!rc)
        rc = rt_truth(rt, v, &yes);
    *out = jval_bool(!yes);
    return rc;
}

static int eval_compare(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval left, right;
    bool yes = true;
    int rc = rt_eval(rt, f, n->a, &left);
    for (uint32_t i = 0; !rc && yes && i < n->n_kids; i++) {
        rc = rt_eval(rt, f, n->kids[i]->a, &right);
        if (!rc)
            rc = rt_compare(rt, n->kids[i]->op, left, right, &yes);
        left = right;
    }
    *out = jval_bool(yes);
    return rc;
}

static int eval_concat(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    int rc = 0;
    struct jval *parts = arena_calloc(rt->a, n->n_kids, sizeof(*parts));
    if (!parts)
        return rt_nomem(rt);
    for (uint32_t i = 0; !rc && i < n->n_kids; i++)
        rc = rt_eval(rt, f, n->kids[i], &parts[i]);
    return rc ? rc : rt_concat(rt, parts, n->n_kids, out);
}

static int eval_slice(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    const struct jnode *nodes[3] = {n->b, n->c, n->d};
    struct jval obj, part[3];
    int rc = rt_eval(rt, f, n->a, &obj);
    for (int i = 0; !rc && i < 3; i++) {
        part[i] = jval_none();
        if (nodes[i])
            rc = rt_eval(rt, f, nodes[i], &part[i]);
    }
    return rc ? rc : rt_slice_of(rt, obj, part, out);
}

/* ---- calls -------------------------------------------------------------------------------- */

static int star_args(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *list)
{
    struct jval v;
    int rc = rt_eval(rt, f, n->star, &v);
    return rc ? rc : rt_list(rt, v, list);
}

static int starstar_args(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *d)
{
    int rc = rt_eval(rt, f, n->starstar, d);
    if (!rc && d->type != JT_DICT)
        return rt_fail(rt, "argument after ** must be a mapping, not %s", jval_type_name(*d));
    for (uint32_t i = 0; !rc && i < d->dict->n; i++)
        if (d->dict->keys[i].type != JT_STR)
            return rt_fail(rt, "keywords must be strings");
    return rc;
}

static int put_kwarg(struct jrt *rt, struct jargs *args, const char *name, struct jval v)
{
    int rc = rt_charge(rt, args->n_kw / 8);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < args->n_kw; i++)
        if (!strcmp(args->names[i], name))
            return rt_fail(rt, "got multiple values for keyword argument '%.60s'", name);
    args->names[args->n_kw] = name;
    args->kw[args->n_kw++] = v;
    return 0;
}

static int eval_kwargs(struct jrt *rt, struct jframe *f, const struct jnode *n,
                       const struct jdict *more, struct jargs *args)
{
    uint32_t n_more = more ? more->n : 0;
    int rc = rt_charge(rt, n_more);
    args->n_kw = 0;
    args->names = arena_calloc(rt->a, (size_t)n->n_kwargs + n_more + 1, sizeof(*args->names));
    args->kw = arena_calloc(rt->a, (size_t)n->n_kwargs + n_more + 1, sizeof(*args->kw));
    if (!args->names || !args->kw)
        return rt_nomem(rt);
    for (uint32_t i = 0; !rc && i < n->n_kwargs; i++) {
        struct jval v;
        rc = rt_eval(rt, f, n->kwargs[i].value, &v);
        if (!rc)
            rc = put_kwarg(rt, args, n->kwargs[i].name, v);
    }
    for (uint32_t i = 0; !rc && i < n_more; i++) {
        const struct jstr *k = more->keys[i].s;
        const char *name = arena_strndup(rt->a, k->p, k->n);
        rc = name ? put_kwarg(rt, args, name, more->vals[i]) : rt_nomem(rt);
    }
    return rc;
}

/* The arguments of a call, or of a filter or test: then v[0] is left for its subject. */
int rt_eval_args(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jargs *args)
{
    uint32_t subject = n->kind != N_CALL, n_star = 0;
    struct jval star = jval_none(), more = jval_none();
    int rc = 0;
    struct jval *v = arena_calloc(rt->a, (size_t)n->n_kids + subject + 1, sizeof(*v));
    if (!v)
        return rt_nomem(rt);
    for (uint32_t i = 0; !rc && i < n->n_kids; i++)
        rc = rt_eval(rt, f, n->kids[i], &v[subject + i]);
    if (!rc && n->star) {
        rc = star_args(rt, f, n, &star);
        n_star = rc ? 0 : star.list->n;
    }
    if (!rc && n->starstar)
        rc = starstar_args(rt, f, n, &more);
    if (!rc)
        rc = eval_kwargs(rt, f, n, n->starstar ? more.dict : NULL, args);
    if (rc)
        return rc;
    args->v = v;
    args->n = subject + n->n_kids;
    if (n_star) {
        args->v = arena_calloc(rt->a, (size_t)args->n + n_star, sizeof(*v));
        if (!args->v)
            return rt_nomem(rt);
        memcpy(args->v, v, args->n * sizeof(*v));
        memcpy(args->v + args->n, star.list->v, n_star * sizeof(*v));
        args->n += n_star;
    }
    return 0;
}

static int eval_call(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval fn;
    struct jargs args;
    int rc = rt_eval(rt, f, n->a, &fn);
    if (!rc)
        rc = rt_eval_args(rt, f, n, &args);
    return rc ? rc : rt_call(rt, fn, &args, out);
}

int rt_call(struct jrt *rt, struct jval fn, struct jargs *args, struct jval *out)
{
    switch (fn.type) {
    case JT_MACRO:
        return rt_macro_call(rt, fn.macro, args, out);
    case JT_METHOD:
        return rt_method_call(rt, fn.method, args, out);
    case JT_FUNC:
        return rt_global_call(rt, fn.func, args, out);
    case JT_UNDEF:
        return rt_undef_used(rt, fn);
    case JT_LOOP:
        return rt_fail(rt, "the loop must have the 'recursive' marker to be called recursively");
    default:
        return rt_fail(rt, "'%s' object is not callable", jval_type_name(fn));
    }
}

static int eval_filter(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval subject;
    struct jargs args;
    int rc = n->a ? rt_eval(rt, f, n->a, &subject) : rt_fail(rt, "a filter without a subject");
    if (!rc)
        rc = rt_eval_args(rt, f, n, &args);
    if (rc)
        return rc;
    if (n->lookup)
        return rt_fail(rt, "no filter named '%.60s'", n->name);
    args.v[0] = subject;
    return rt_filter(rt, n->builtin, &args, out);
}

static int eval_test(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval subject;
    struct jargs args;
    bool yes = false;
    int rc = rt_eval(rt, f, n->a, &subject);
    if (!rc)
        rc = rt_eval_args(rt, f, n, &args);
    if (rc)
        return rc;
    if (n->lookup)
        return rt_fail(rt, "no test named '%.60s'", n->name);
    args.v[0] = subject;
    rc = rt_test(rt, n->builtin, &args, &yes);
    *out = jval_bool(yes);
    return rc;
}

/* ---- attributes and items ----------------------------------------------------------------- */

static bool name_is(const struct jstr *s, const char *name)
{
    return s->n == strlen(name) && !memcmp(s->p, name, s->n);
}

/* What Python objects have under such names is never shown by the sandbox. */
static bool is_internal(const struct jstr *s)
{
    static const char *const names[] = {"__class__",
                                        "__init__",
                                        "__doc__",
                                        "__dict__",
                                        "__module__",
                                        "__eq__",
                                        "__ne__",
                                        "__hash__",
                                        "__str__",
                                        "__repr__",
                                        "__new__",
                                        "__reduce__",
                                        "__dir__",
                                        "__sizeof__",
                                        "__getattribute__",
                                        "__setattr__",
                                        "__delattr__",
                                        "__format__",
                                        "__lt__",
                                        "__le__",
                                        "__gt__",
                                        "__ge__",
                                        "__len__",
                                        "__iter__",
                                        "__getitem__",
                                        "__contains__",
                                        "__add__",
                                        "__mul__",
                                        "__mod__",
                                        "__subclasshook__",
                                        "__init_subclass__",
                                        "__reduce_ex__",
                                        "__call__"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (name_is(s, names[i]))
            return true;
    return false;
}

static int macro_attr(struct jrt *rt, const struct jmacro *m, const struct jstr *name, bool *found,
                      struct jval *out)
{
    const struct jmacro_sig *sig = m->node->sig;
    *found = true;
    if (name_is(name, "name")) {
        *out = jval_none();
        return sig->name ? rt_str(rt, sig->name, out) : 0;
    }
    if (name_is(name, "caller"))
        *out = jval_bool(sig->takes_caller);
    else if (name_is(name, "catch_kwargs"))
        *out = jval_bool(sig->takes_kwargs);
    else if (name_is(name, "catch_varargs"))
        *out = jval_bool(sig->takes_varargs);
    else if (name_is(name, "arguments") || name_is(name, "explicit_caller"))
        return rt_unsupported(rt, "the attributes of a macro");
    else
        *found = false;
    return 0;
}

/* Python's getattr(obj, name), as far as the sandbox lets it through. */
int rt_own_attr(struct jrt *rt, struct jval obj, const struct jstr *name, bool *found,
                struct jval *out)
{
    const struct jval *v;
    *found = false;
    if (obj.type == JT_UNDEF && !is_internal(name)) {
        if (name->n >= 4 && !memcmp(name->p, "__", 2) && !memcmp(name->p + name->n - 2, "__", 2))
            return 0;
        return rt_undef_used(rt, obj);
    }
    if (obj.type == JT_NS) {
        v = jdict_get(obj.dict, (struct jval){.type = JT_STR, .s = name});
        *found = v != NULL;
        if (v)
            *out = *v;
        return 0;
    }
    if (is_internal(name)) {
        *found = true;
        return rt_undef_hint(rt, "access to an internal attribute is unsafe.", out);
    }
    if (obj.type == JT_LOOP) {
        char text[16];
        *found = true;
        if (name->n >= sizeof(text)) {
            *found = false;
            return 0;
        }
        memcpy(text, name->p, name->n);
        text[name->n] = 0;
        int rc = rt_loop_attr(rt, obj.loop, text, out);
        if (rc != 1)
            return rc;
    }
    if (obj.type == JT_MACRO)
        return macro_attr(rt, obj.macro, name, found, out);
    return rt_method_find(rt, obj, name, found, out);
}

/* Python's obj[key]. Not found: *found is false, where Python raises TypeError or LookupError. */
static int own_item(struct jrt *rt, struct jval obj, struct jval key, bool *found, struct jval *out)
{
    int64_t i, n;
    *found = false;
    if (obj.type == JT_DICT) {
        int rc = rt_charge_key(rt, obj.dict, key);
        const struct jval *v = jval_hashable(key) ? jdict_get(obj.dict, key) : NULL;
        *found = v != NULL;
        if (v)
            *out = *v;
        return rc;
    }
    if (obj.type == JT_UNDEF)
        return rt_undef_used(rt, obj);
    if (obj.type != JT_LIST && obj.type != JT_TUPLE && obj.type != JT_STR && obj.type != JT_RANGE)
        return 0;
    if (key.type != JT_INT && key.type != JT_BOOL)
        return 0;
    i = key.i;
    int rc = rt_len(rt, obj, &n);
    if (rc)
        return rc;
    if (i < 0)
        i += n;
    if (i < 0 || i >= n)
        return 0;
    *found = true;
    struct jval part[3] = {jval_int(i), jval_int(i + 1), jval_none()};
    if (obj.type == JT_STR)
        return rt_slice_of(rt, obj, part, out);
    *out = obj.type == JT_RANGE ? jval_int(obj.range->start + i * obj.range->step) : obj.list->v[i];
    return 0;
}

int rt_getattr(struct jrt *rt, struct jval obj, struct jval name, struct jval *out)
{
    bool found;
    int rc = rt_own_attr(rt, obj, name.s, &found, out);
    if (!rc && !found)
        rc = own_item(rt, obj, name, &found, out);
    return rc || found ? rc : rt_undef_attr(rt, obj, name, out);
}

int rt_getitem(struct jrt *rt, struct jval obj, struct jval key, struct jval *out)
{
    bool found;
    int rc = own_item(rt, obj, key, &found, out);
    if (!rc && !found && key.type == JT_STR)
        rc = rt_own_attr(rt, obj, key.s, &found, out);
    return rc || found ? rc : rt_undef_attr(rt, obj, key, out);
}

/* ---- dispatch ----------------------------------------------------------------------------- */

static int eval_binary(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval a, b;
    int rc = rt_eval(rt, f, n->a, &a);
    if (!rc)
        rc = rt_eval(rt, f, n->b, &b);
    if (rc)
        return rc;
    return n->kind == N_BINOP ? rt_binop(rt, n->op, a, b, out) : rt_getitem(rt, a, b, out);
}

static int eval_unary(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jval v;
    int rc = rt_eval(rt, f, n->a, &v);
    if (rc)
        return rc;
    return n->kind == N_GETATTR ? rt_getattr(rt, v, n->val, out)
                                : rt_negate(rt, v, n->kind == N_NEG, out);
}

static int eval_node(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    switch (n->kind) {
    case N_TUPLE:
    case N_LIST:
        return eval_seq(rt, f, n, out);
    case N_DICT:
        return eval_dict(rt, f, n, out);
    case N_COND:
        return eval_cond(rt, f, n, out);
    case N_OR:
    case N_AND:
        return eval_logic(rt, f, n, out);
    case N_NOT:
        return eval_not(rt, f, n, out);
    case N_COMPARE:
        return eval_compare(rt, f, n, out);
    case N_BINOP:
    case N_GETITEM:
        return eval_binary(rt, f, n, out);
    case N_GETATTR:
    case N_NEG:
    case N_POS:
        return eval_unary(rt, f, n, out);
    case N_CONCAT:
        return eval_concat(rt, f, n, out);
    case N_SLICE:
        return eval_slice(rt, f, n, out);
    case N_CALL:
        return eval_call(rt, f, n, out);
    case N_FILTER:
        return eval_filter(rt, f, n, out);
    case N_TEST:
        return eval_test(rt, f, n, out);
    default:
        return rt_unsupported(rt, "this expression");
    }
}

int rt_eval(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    int rc = rt_charge(rt, 1);
    if (rc)
        return rc;
    if (n->kind == N_CONST) {
        *out = n->val;
        return 0;
    }
    if (n->kind == N_NAME)
        return eval_name(rt, f, n, out);
    rc = rt_enter(rt);
    if (rc)
        return rc;
    rc = eval_node(rt, f, n, out);
    rt_leave(rt);
    return rc;
}
