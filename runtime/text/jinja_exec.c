/* jinja_exec.c: statements and macros. */
#include <string.h>

#include "runtime/text/jinja_rt.h"

/* How a block ended, where that is no error. */
enum { RAN = 0, BROKE = 1, CONTINUED = 2 };

static int run_block(struct jrt *rt, struct jframe *f, const struct jblock *b);

static struct jval *slot(struct jframe *f, struct jvar var)
{
    for (uint16_t up = var.up; up; up--)
        f = f->parent;
    return &f->slots[var.slot];
}

static int frame_new(struct jrt *rt, const struct jfunc *func, struct jframe *parent,
                     struct jframe **out)
{
    struct jframe *f = arena_alloc(rt->a, sizeof(*f));
    int rc = rt_charge(rt, func->n_slots / 8 + 1);
    if (rc)
        return rc;
    if (!f || !(f->slots = arena_calloc(rt->a, func->n_slots, sizeof(*f->slots))))
        return rt_nomem(rt);
    f->parent = parent; /* all slots are JT_MISSING, which is 0 */
    *out = f;
    return 0;
}

int rt_scope_enter(struct jrt *rt, struct jframe *f, const struct jscope *s)
{
    int rc = rt_charge(rt, s->n / 4);
    for (uint32_t i = 0; !rc && i < s->n; i++) {
        const struct jsym *y = &s->syms[i];
        struct jval *v = &f->slots[y->slot];
        const struct jval *given;
        switch (y->load) {
        case LOAD_PARAM:
            break;
        case LOAD_ALIAS:
            *v = *slot(f, y->from);
            break;
        case LOAD_UNDEFINED:
            *v = (struct jval){.type = JT_MISSING};
            break;
        case LOAD_RESOLVE:
            given = jdict_get(rt->vars, y->key);
            if (given)
                *v = *given;
            else if (!rt_global(y->name, v))
                *v = (struct jval){.type = JT_MISSING};
            break;
        }
    }
    return rc;
}

/* ---- assignment --------------------------------------------------------------------------- */

static int assign_tuple(struct jrt *rt, struct jframe *f, const struct jnode *t, struct jval v)
{
    struct jiter *it;
    struct jval x;
    int rc = rt_iter(rt, v, &it);
    for (uint32_t i = 0; !rc && i < t->n_kids; i++) {
        rc = rt_next(rt, it, &x);
        if (rc < 0)
            return rc;
        if (rc == 0)
            return rt_fail(rt, "not enough values to unpack (expected %u)", t->n_kids);
        rc = rt_assign(rt, f, t->kids[i], x);
    }
    if (rc)
        return rc;
    rc = rt_next(rt, it, &x);
    return rc > 0 ? rt_fail(rt, "too many values to unpack (expected %u)", t->n_kids) : rc;
}

int rt_assign(struct jrt *rt, struct jframe *f, const struct jnode *t, struct jval v)
{
    if (t->kind == N_NAME) {
        *slot(f, t->var) = v;
        return 0;
    }
    if (t->kind != N_NSREF)
        return assign_tuple(rt, f, t, v);
    struct jval ns = *slot(f, t->var);
    if (ns.type != JT_NS)
        return rt_fail(rt, "cannot assign attribute on non-namespace object");
    if (t->val.s->p[0] == '_')
        return rt_fail(rt, "a namespace cannot store attributes that begin with an underscore");
    return jdict_set(rt->a, ns.dict, t->val, v) ? 0 : rt_nomem(rt);
}

/* Python checks every namespace of a target before it assigns to any. */
static int check_namespaces(struct jrt *rt, struct jframe *f, const struct jnode *t)
{
    int rc = 0;
    if (t->kind == N_NSREF && slot(f, t->var)->type != JT_NS)
        return rt_fail(rt, "cannot assign attribute on non-namespace object");
    for (uint32_t i = 0; !rc && t->kind != N_NAME && i < t->n_kids; i++)
        rc = check_namespaces(rt, f, t->kids[i]);
    return rc;
}

static int run_set(struct jrt *rt, struct jframe *f, const struct jnode *n)
{
    struct jval v;
    int rc = check_namespaces(rt, f, n->a);
    if (!rc)
        rc = rt_eval(rt, f, n->b, &v);
    return rc ? rc : rt_assign(rt, f, n->a, v);
}

/* Runs the filters of a set or filter block over the captured text. */
static int run_filters(struct jrt *rt, struct jframe *f, const struct jnode *filter,
                       struct jval text, struct jval *out)
{
    if (!filter) {
        *out = text;
        return 0;
    }
    struct jargs args;
    struct jval subject;
    int rc = rt_enter(rt);
    if (rc)
        return rc;
    rc = run_filters(rt, f, filter->a, text, &subject);
    if (!rc)
        rc = rt_eval_args(rt, f, filter, &args);
    if (!rc) {
        args.v[0] = subject;
        rc = filter->lookup ? rt_fail(rt, "no filter named '%.60s'", filter->name)
                            : rt_filter(rt, filter->builtin, &args, out);
    }
    rt_leave(rt);
    return rc;
}

static int run_captured(struct jrt *rt, struct jframe *f, const struct jnode *n)
{
    bool is_set = n->kind == N_SETBLOCK;
    struct jval text, v;
    int rc = rt_scope_enter(rt, f, n->scope);
    size_t mark = rt_capture(rt);
    if (!rc)
        rc = run_block(rt, f, &n->body);
    int end = rt_capture_end(rt, mark, &text);
    if (rc || end) /* a break or continue drops the text, too */
        return rc ? rc : end;
    rc = run_filters(rt, f, is_set ? n->b : n->a, text, &v);
    if (rc)
        return rc;
    return is_set ? rt_assign(rt, f, n->a, v) : rt_print(rt, v);
}

/* ---- loops -------------------------------------------------------------------------------- */

static int for_begin(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jloop **out)
{
    struct jloop *l = arena_alloc(rt->a, sizeof(*l));
    struct jval v;
    if (!l)
        return rt_nomem(rt);
    int rc = rt_eval(rt, f, n->b, &v);
    if (!rc)
        rc = rt_iter(rt, v, &l->it);
    l->iterable = v;
    if (!rc && n->c) {
        struct jiter it = {
            .kind = ITER_FOR_TEST, .from = l->it, .begun = true, .frame = f, .node = n};
        rc = rt_iter_value(rt, it, &l->iterable);
        l->it = l->iterable.iter;
    }
    l->index0 = -1;
    l->length = -1;
    l->before = l->current = l->after = (struct jval){.type = JT_MISSING};
    l->changed = (struct jval){.type = JT_MISSING};
    *out = l;
    return rc;
}

static int run_for(struct jrt *rt, struct jframe *f, const struct jnode *n)
{
    struct jloop *l = NULL;
    bool empty = true;
    struct jval v;
    int rc = for_begin(rt, f, n, &l);
    while (!rc && (rc = rt_loop_next(rt, l, &v)) > 0) {
        rc = rt_assign(rt, f, n->a, v);
        *slot(f, n->loop_var) = (struct jval){.type = JT_LOOP, .loop = l};
        if (!rc)
            rc = rt_scope_enter(rt, f, n->scope);
        if (!rc)
            rc = run_block(rt, f, &n->body);
        if (rc == RAN)
            empty = false; /* only by a body that ran to its end, as in jinja2 */
        if (rc == BROKE)
            break;
        if (rc == CONTINUED)
            rc = 0;
    }
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < n->scope->n; i++)
        f->slots[n->scope->syms[i].slot] = (struct jval){.type = JT_MISSING};
    if (!empty || !n->els.n)
        return 0;
    rc = rt_scope_enter(rt, f, n->els_scope);
    return rc ? rc : run_block(rt, f, &n->els);
}

/* ---- macros ------------------------------------------------------------------------------- */

static int take_kwarg(struct jargs *args, const char *name, struct jval *out)
{
    for (uint32_t i = 0; i < args->n_kw; i++) {
        if (strcmp(args->names[i], name))
            continue;
        *out = args->kw[i];
        args->n_kw--;
        memmove(&args->names[i], &args->names[i + 1], (args->n_kw - i) * sizeof(args->names[0]));
        memmove(&args->kw[i], &args->kw[i + 1], (args->n_kw - i) * sizeof(args->kw[0]));
        return 1;
    }
    return 0;
}

static int rest_as_dict(struct jrt *rt, const struct jargs *args, struct jval *out)
{
    struct jval key;
    if (!jval_dict(rt->a, args->n_kw, out))
        return rt_nomem(rt);
    for (uint32_t i = 0; i < args->n_kw; i++)
        if (!jval_str(rt->a, args->names[i], &key) ||
            !jdict_set(rt->a, out->dict, key, args->kw[i]))
            return rt_nomem(rt);
    return 0;
}

static int macro_args(struct jrt *rt, const struct jmacro_sig *sig, struct jargs *args,
                      struct jframe *f)
{
    const char *name = sig->name ? sig->name : "caller";
    uint32_t n = args->n < sig->n_params ? args->n : sig->n_params;
    int rc = rt_charge(rt, (uint64_t)sig->n_params * (args->n_kw + 4) / 8);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < n; i++)
        *slot(f, sig->params[i]->var) = args->v[i];
    for (uint32_t i = n; i < sig->n_params; i++)
        take_kwarg(args, sig->params[i]->name, slot(f, sig->params[i]->var));
    if (sig->takes_caller && !take_kwarg(args, "caller", slot(f, sig->caller)))
        rc = rt_undef_hint(rt, "No caller defined", slot(f, sig->caller));
    if (!rc && sig->takes_kwargs)
        rc = rest_as_dict(rt, args, slot(f, sig->kwargs));
    else if (!rc && args->n_kw)
        rc = rt_fail(rt, "macro '%s' takes no keyword argument '%.60s'", name, args->names[0]);
    if (!rc && sig->takes_varargs) {
        struct jval *rest = slot(f, sig->varargs);
        rc = rt_seq(rt, JT_TUPLE, args->n - n, rest);
        if (!rc && args->n > n)
            memcpy(rest->list->v, args->v + n, (args->n - n) * sizeof(*args->v));
    } else if (!rc && args->n > sig->n_params) {
        rc = rt_fail(rt, "macro '%s' takes not more than %u argument(s)", name, sig->n_params);
    }
    return rc;
}

static int macro_defaults(struct jrt *rt, const struct jmacro_sig *sig, struct jframe *f)
{
    uint32_t first = sig->n_params - sig->n_defaults;
    for (uint32_t i = 0; i < sig->n_params; i++) {
        struct jval v, *p = slot(f, sig->params[i]->var);
        if (p->type != JT_MISSING)
            continue;
        int rc = i < first ? rt_undef_hint(rt, "a macro's parameter was not provided", &v)
                           : rt_eval(rt, f, sig->defaults[i - first], &v);
        if (rc)
            return rc;
        *p = v;
    }
    return 0;
}

int rt_macro_call(struct jrt *rt, const struct jmacro *m, struct jargs *args, struct jval *out)
{
    const struct jnode *n = m->node;
    struct jframe *f;
    int rc = rt_enter(rt);
    if (rc)
        return rc;
    rc = frame_new(rt, n->scope->func, m->frame, &f);
    if (!rc)
        rc = macro_args(rt, n->sig, args, f);
    if (!rc)
        rc = rt_scope_enter(rt, f, n->scope);
    if (!rc)
        rc = macro_defaults(rt, n->sig, f);
    size_t mark = rt_capture(rt);
    if (!rc)
        rc = run_block(rt, f, &n->body);
    int end = rt_capture_end(rt, mark, out);
    rt_leave(rt);
    return rc ? rc : end;
}

static int macro_new(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out)
{
    struct jmacro *m = arena_alloc(rt->a, sizeof(*m));
    if (!m)
        return rt_nomem(rt);
    m->node = n;
    m->frame = f;
    *out = (struct jval){.type = JT_MACRO, .macro = m};
    return 0;
}

/* {% call(…) f(…) %}: f gets the body as its keyword argument `caller`. */
static int run_call_block(struct jrt *rt, struct jframe *f, const struct jnode *n)
{
    struct jval caller, fn, v;
    struct jargs args;
    int rc = macro_new(rt, f, n, &caller);
    if (!rc && n->kind == N_GENERATION) {
        args = (struct jargs){0};
        rc = rt_macro_call(rt, caller.macro, &args, &v);
        return rc ? rc : rt_print(rt, v);
    }
    if (!rc)
        rc = rt_eval(rt, f, n->a->a, &fn);
    if (!rc)
        rc = rt_eval_args(rt, f, n->a, &args);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < args.n_kw; i++)
        if (!strcmp(args.names[i], "caller"))
            return rt_fail(rt, "got multiple values for keyword argument 'caller'");
    args.names[args.n_kw] = "caller"; /* rt_eval_args leaves room for it */
    args.kw[args.n_kw++] = caller;
    rc = rt_call(rt, fn, &args, &v);
    return rc ? rc : rt_print(rt, v);
}

/* ---- everything --------------------------------------------------------------------------- */

static int run_if(struct jrt *rt, struct jframe *f, const struct jnode *n)
{
    for (uint32_t i = 0; i <= n->n_kids; i++) {
        const struct jnode *arm = i ? n->kids[i - 1] : n;
        struct jval v;
        bool yes;
        int rc = rt_eval(rt, f, arm->a, &v);
        if (!rc)
            rc = rt_truth(rt, v, &yes);
        if (rc)
            return rc;
        if (yes)
            return run_block(rt, f, &arm->body);
    }
    return run_block(rt, f, &n->els);
}

static int run_with(struct jrt *rt, struct jframe *f, const struct jnode *n)
{
    struct jval v;
    int rc = rt_scope_enter(rt, f, n->scope);
    for (uint32_t i = 0; !rc && i < n->n_kids; i += 2) {
        rc = rt_eval(rt, f, n->kids[i + 1], &v);
        if (!rc)
            rc = rt_assign(rt, f, n->kids[i], v);
    }
    return rc ? rc : run_block(rt, f, &n->body);
}

static int run_statement(struct jrt *rt, struct jframe *f, const struct jnode *n)
{
    struct jval v;
    int rc;
    switch (n->kind) {
    case N_OUTPUT:
        rc = rt_eval(rt, f, n->a, &v);
        return rc ? rc : rt_print(rt, v);
    case N_IF:
        return run_if(rt, f, n);
    case N_FOR:
        return run_for(rt, f, n);
    case N_SET:
        return run_set(rt, f, n);
    case N_SETBLOCK:
    case N_FILTERBLOCK:
        return run_captured(rt, f, n);
    case N_MACRO:
        rc = macro_new(rt, f, n, &v);
        if (!rc)
            *slot(f, n->var) = v;
        return rc;
    case N_CALLBLOCK:
    case N_GENERATION:
        return run_call_block(rt, f, n);
    case N_WITH:
        return run_with(rt, f, n);
    case N_BREAK:
        return BROKE;
    case N_CONTINUE:
        return CONTINUED;
    default:
        return rt_unsupported(rt, "this statement");
    }
}

static int run_block(struct jrt *rt, struct jframe *f, const struct jblock *b)
{
    int rc = rt_enter(rt);
    if (rc)
        return rc;
    for (uint32_t i = 0; !rc && i < b->n; i++) {
        rc = rt_charge(rt, 1);
        if (!rc)
            rc = run_statement(rt, f, b->v[i]);
        if (rc < 0 && !rt->raised && !rt->placed) {
            err_prefix(rt->e, "template line %u", b->v[i]->line);
            rt->placed = true;
        }
    }
    rt_leave(rt);
    return rc;
}

int rt_run(struct jrt *rt)
{
    struct jframe *f;
    int rc = frame_new(rt, rt->j->func, NULL, &f);
    if (!rc)
        rc = rt_scope_enter(rt, f, rt->j->scope);
    return rc ? rc : run_block(rt, f, &rt->j->body);
}
