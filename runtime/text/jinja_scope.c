/* jinja_scope.c: which variable a name means.
 *
 * The rules are jinja2/idtracking.py's, with their consequences: a scope's names are settled from
 * all of its statements before any of them runs. So a name that is assigned anywhere in a scope
 * is that scope's own from its start, and takes the outer value (LOAD_ALIAS) or the render's
 * variable (LOAD_RESOLVE) on entry when it was read, or assigned under a condition.
 *
 * Scopes: the template, a for's body, filter test and else, macro and call bodies, set, filter
 * and with blocks. An if is none.
 */
#include <string.h>

#include "runtime/text/jinja_ast.h"

/* Look-ups are linear: this bounds them. Real templates have under a hundred. */
#define SYMS_MAX 4096u

struct binder {
    struct jinja *j;
    struct arena *a;
    uint32_t stores; /* counts assignments as they are met */
    unsigned fors;   /* for statements around */
    unsigned syms;   /* in all scopes */
    struct err *e;
};

static int bind_nomem(const struct binder *b)
{
    return err_set(b->e, ERR_LIMIT, "the template is too large");
}

static struct jscope *scope_new(struct binder *b, struct jscope *parent, struct jfunc *func)
{
    struct jscope *s = arena_alloc(b->a, sizeof(*s));
    if (s) {
        s->parent = parent;
        s->func = func;
    }
    return s;
}

static struct jsym *sym_here(const struct jscope *s, const char *name)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (!strcmp(s->syms[i].name, name))
            return &s->syms[i];
    return NULL;
}

/* The nearest scope that has the name, seen from `func`; false: none has. */
static bool sym_find(const struct jscope *s, const struct jfunc *func, const char *name,
                     struct jvar *var)
{
    for (; s; s = s->parent) {
        const struct jsym *y = sym_here(s, name);
        if (!y)
            continue;
        var->slot = y->slot;
        var->up = 0;
        for (; func != s->func; func = func->parent)
            var->up++;
        return true;
    }
    return false;
}

static struct jsym *sym_add(struct binder *b, struct jscope *s, const char *name)
{
    if (++b->syms > SYMS_MAX)
        return NULL;
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 8;
        struct jsym *v = arena_calloc(b->a, cap, sizeof(*v));
        if (!v)
            return NULL;
        if (s->n)
            memcpy(v, s->syms, s->n * sizeof(*v));
        s->syms = v;
        s->cap = cap;
    }
    struct jsym *y = &s->syms[s->n];
    y->name = name;
    if (!jval_str_borrow(b->a, name, strlen(name), UINT32_MAX, &y->key))
        return NULL;
    y->slot = s->func->n_slots++;
    s->n++;
    return y;
}

static int sym_param(struct binder *b, struct jscope *s, const char *name)
{
    struct jsym *y = sym_here(s, name);
    if (!y)
        y = sym_add(b, s, name);
    if (!y)
        return bind_nomem(b);
    y->load = LOAD_PARAM;
    if (!y->stored)
        y->stored = ++b->stores;
    return 0;
}

static int sym_load(struct binder *b, struct jscope *s, const char *name)
{
    struct jvar var;
    if (sym_find(s, s->func, name, &var))
        return 0;
    struct jsym *y = sym_add(b, s, name);
    if (!y)
        return bind_nomem(b);
    y->load = LOAD_RESOLVE;
    return 0;
}

static int sym_store(struct binder *b, struct jscope *s, const char *name)
{
    struct jsym *y = sym_here(s, name);
    if (!y) {
        y = sym_add(b, s, name);
        if (!y)
            return bind_nomem(b);
        y->load = sym_find(s->parent, s->func, name, &y->from) ? LOAD_ALIAS : LOAD_UNDEFINED;
    }
    if (!y->stored)
        y->stored = ++b->stores;
    return 0;
}

/* What was first assigned after `since`, in a branch of an if, may not be assigned at all. */
static void sym_branches_end(struct jscope *s, uint32_t since)
{
    for (uint32_t i = 0; i < s->n; i++) {
        struct jsym *y = &s->syms[i];
        if (y->stored > since)
            y->load = sym_find(s->parent, s->func, y->name, &y->from) ? LOAD_ALIAS : LOAD_RESOLVE;
    }
}

/* ---- first pass over a scope: its names ---------------------------------------------------- */

static int declare(struct binder *b, struct jscope *s, const struct jnode *n);

static int declare_all(struct binder *b, struct jscope *s, struct jnode *const *v, uint32_t n)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < n; i++)
        rc = declare(b, s, v[i]);
    return rc;
}

static int declare_children(struct binder *b, struct jscope *s, const struct jnode *n)
{
    int rc = declare(b, s, n->a);
    if (!rc)
        rc = declare(b, s, n->b);
    if (!rc)
        rc = declare(b, s, n->c);
    if (!rc)
        rc = declare(b, s, n->d);
    if (!rc)
        rc = declare_all(b, s, n->kids, n->n_kids);
    for (uint32_t i = 0; !rc && i < n->n_kwargs; i++)
        rc = declare(b, s, n->kwargs[i].value);
    if (!rc)
        rc = declare(b, s, n->star);
    return rc ? rc : declare(b, s, n->starstar);
}

static int declare_if(struct binder *b, struct jscope *s, const struct jnode *n)
{
    int rc = declare(b, s, n->a);
    uint32_t since = b->stores;
    if (!rc)
        rc = declare_all(b, s, n->body.v, n->body.n);
    if (!rc)
        rc = declare_all(b, s, n->kids, n->n_kids);
    if (!rc)
        rc = declare_all(b, s, n->els.v, n->els.n);
    sym_branches_end(s, since);
    return rc;
}

static int declare(struct binder *b, struct jscope *s, const struct jnode *n)
{
    int rc = 0;
    if (!n)
        return 0;
    switch (n->kind) {
    case N_NAME:
        return n->store ? sym_store(b, s, n->name) : sym_load(b, s, n->name);
    case N_NSREF:
        return sym_load(b, s, n->name);
    case N_IF:
        return declare_if(b, s, n);
    case N_MACRO:
        return sym_store(b, s, n->name);
    case N_FOR: /* only the iterable is this scope's */
        return declare(b, s, n->b);
    case N_SET:
        rc = declare(b, s, n->b);
        return rc ? rc : declare(b, s, n->a);
    case N_WITH:
        for (uint32_t i = 1; !rc && i < n->n_kids; i += 2)
            rc = declare(b, s, n->kids[i]);
        return rc;
    case N_SETBLOCK:
    case N_CALLBLOCK:
    case N_FILTERBLOCK:
        return declare(b, s, n->a);
    case N_GENERATION:
        return 0;
    default:
        return declare_children(b, s, n);
    }
}

/* The names in a for's target are parameters of the loop. */
static int declare_target(struct binder *b, struct jscope *s, const struct jnode *n)
{
    if (n->kind == N_NAME)
        return sym_param(b, s, n->name);
    int rc = 0;
    for (uint32_t i = 0; !rc && i < n->n_kids; i++)
        rc = declare_target(b, s, n->kids[i]);
    return rc;
}

/* ---- second pass: each name to its slot ------------------------------------------------------ */

static int bind(struct binder *b, struct jscope *s, struct jnode *n, bool soft);

static int bind_all(struct binder *b, struct jscope *s, struct jnode *const *v, uint32_t n,
                    bool soft)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < n; i++)
        rc = bind(b, s, v[i], soft);
    return rc;
}

static int bind_children(struct binder *b, struct jscope *s, const struct jnode *n, bool soft)
{
    int rc = bind(b, s, n->a, soft);
    if (!rc)
        rc = bind(b, s, n->b, soft);
    if (!rc)
        rc = bind(b, s, n->c, soft);
    if (!rc)
        rc = bind(b, s, n->d, soft);
    if (!rc)
        rc = bind_all(b, s, n->kids, n->n_kids, soft);
    for (uint32_t i = 0; !rc && i < n->n_kwargs; i++)
        rc = bind(b, s, n->kwargs[i].value, soft);
    if (!rc)
        rc = bind(b, s, n->star, soft);
    return rc ? rc : bind(b, s, n->starstar, soft);
}

static int bind_name(struct binder *b, struct jscope *s, struct jnode *n)
{
    if (n->store && b->fors && !strcmp(n->name, "loop"))
        return err_set(b->e, ERR_FORMAT,
                       "template line %u: can't assign to the special loop variable", n->line);
    if (!sym_find(s, s->func, n->name, &n->var))
        return err_set(b->e, ERR_FORMAT, "template line %u: '%.60s' cannot be used here", n->line,
                       n->name);
    return 0;
}

/* The loads of a scope whose names are complete. */
static int bind_loads(struct binder *b, const struct jscope *s)
{
    for (uint32_t i = 0; i < s->n; i++) {
        const struct jsym *y = &s->syms[i];
        if (y->load != LOAD_RESOLVE)
            continue;
        if (jinja_global_unsupported(y->name))
            return err_set(b->e, ERR_UNSUPPORTED, "the template uses '%s', which is not supported",
                           y->name);
        if (!jdict_set(b->a, b->j->reads.dict, y->key, jval_none()))
            return bind_nomem(b);
    }
    return 0;
}

/* A scope of these statements: names first, then slots. */
static int bind_block(struct binder *b, struct jscope *s, const struct jblock *body)
{
    int rc = declare_all(b, s, body->v, body->n);
    if (!rc)
        rc = bind_loads(b, s);
    return rc ? rc : bind_all(b, s, body->v, body->n, false);
}

static struct jnode *copy_target(struct binder *b, const struct jnode *n)
{
    struct jnode *c = arena_memdup(b->a, n, sizeof(*n));
    if (!c || !n->n_kids)
        return c;
    c->kids = arena_calloc(b->a, n->n_kids, sizeof(struct jnode *));
    for (uint32_t i = 0; c->kids && i < n->n_kids; i++)
        if (!(c->kids[i] = copy_target(b, n->kids[i])))
            return NULL;
    return c->kids ? c : NULL;
}

static int bind_for_test(struct binder *b, struct jscope *s, struct jnode *n)
{
    n->test_scope = scope_new(b, s, s->func);
    n->d = copy_target(b, n->a);
    if (!n->test_scope || !n->d)
        return bind_nomem(b);
    int rc = declare_target(b, n->test_scope, n->d);
    if (!rc)
        rc = declare(b, n->test_scope, n->c);
    if (!rc)
        rc = bind_loads(b, n->test_scope);
    if (!rc)
        rc = bind(b, n->test_scope, n->d, false);
    return rc ? rc : bind(b, n->test_scope, n->c, false);
}

static int bind_for(struct binder *b, struct jscope *s, struct jnode *n, bool soft)
{
    b->fors++;
    int rc = bind(b, s, n->b, soft);
    n->scope = scope_new(b, s, s->func);
    n->els_scope = scope_new(b, s, s->func);
    if (!rc && (!n->scope || !n->els_scope))
        rc = bind_nomem(b);
    if (!rc && n->c)
        rc = bind_for_test(b, s, n);
    if (!rc)
        rc = sym_param(b, n->scope, "loop");
    if (!rc)
        rc = declare_target(b, n->scope, n->a);
    if (!rc)
        rc = bind(b, n->scope, n->a, false);
    if (!rc)
        rc = bind_block(b, n->scope, &n->body);
    if (!rc)
        rc = bind_block(b, n->els_scope, &n->els);
    if (!rc)
        sym_find(n->scope, s->func, "loop", &n->loop_var);
    b->fors--;
    return rc;
}

static bool mentions_all(struct jnode *const *v, uint32_t n, const char *name);

/* True when the name is read anywhere below n. */
static bool mentions(const struct jnode *n, const char *name)
{
    if (!n)
        return false;
    if (n->kind == N_NAME && !n->store && !strcmp(n->name, name))
        return true;
    for (uint32_t i = 0; i < n->n_kwargs; i++)
        if (mentions(n->kwargs[i].value, name))
            return true;
    if (n->sig && mentions_all(n->sig->defaults, n->sig->n_defaults, name))
        return true;
    return mentions(n->a, name) || mentions(n->b, name) || mentions(n->c, name) ||
           mentions(n->d, name) || mentions(n->star, name) || mentions(n->starstar, name) ||
           mentions_all(n->kids, n->n_kids, name) || mentions_all(n->body.v, n->body.n, name) ||
           mentions_all(n->els.v, n->els.n, name);
}

static bool mentions_all(struct jnode *const *v, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (mentions(v[i], name))
            return true;
    return false;
}

/* caller, kwargs and varargs exist in a macro that mentions them. */
static int bind_special(struct binder *b, struct jnode *n, const char *name, bool *takes,
                        struct jvar *var)
{
    for (uint32_t i = 0; i < n->sig->n_params; i++) {
        if (strcmp(n->sig->params[i]->name, name))
            continue;
        if (!strcmp(name, "caller"))
            return err_set(b->e, ERR_UNSUPPORTED,
                           "template line %u: not supported: a parameter named caller", n->line);
        return 0;
    }
    *takes = mentions_all(n->body.v, n->body.n, name);
    if (!*takes)
        return 0;
    int rc = sym_param(b, n->scope, name);
    if (!rc)
        sym_find(n->scope, n->scope->func, name, var);
    return rc;
}

static int bind_macro(struct binder *b, struct jscope *s, struct jnode *n)
{
    struct jmacro_sig *sig = n->sig;
    struct jfunc *func = arena_alloc(b->a, sizeof(*func));
    n->scope = func ? scope_new(b, s, func) : NULL;
    if (!n->scope)
        return bind_nomem(b);
    func->parent = s->func;
    int rc = 0;
    for (uint32_t i = 0; !rc && i < sig->n_params; i++)
        rc = sym_param(b, n->scope, sig->params[i]->name);
    if (!rc)
        rc = declare_all(b, n->scope, sig->defaults, sig->n_defaults);
    if (!rc)
        rc = declare_all(b, n->scope, n->body.v, n->body.n);
    if (!rc)
        rc = bind_special(b, n, "caller", &sig->takes_caller, &sig->caller);
    if (!rc)
        rc = bind_special(b, n, "kwargs", &sig->takes_kwargs, &sig->kwargs);
    if (!rc)
        rc = bind_special(b, n, "varargs", &sig->takes_varargs, &sig->varargs);
    for (uint32_t i = 0; !rc && i < sig->n_params; i++)
        sym_find(n->scope, func, sig->params[i]->name, &sig->params[i]->var);
    if (!rc)
        rc = bind_all(b, n->scope, sig->defaults, sig->n_defaults, false);
    return rc ? rc : bind_block(b, n->scope, &n->body);
}

/* Set, filter and with blocks: a scope in the same function. */
static int bind_inner(struct binder *b, struct jscope *s, struct jnode *n, bool soft)
{
    int rc = 0;
    n->scope = scope_new(b, s, s->func);
    if (!n->scope)
        return bind_nomem(b);
    if (n->kind == N_SETBLOCK)
        rc = bind(b, s, n->a, false);
    for (uint32_t i = 0; !rc && n->kind == N_WITH && i < n->n_kids; i += 2) {
        rc = sym_param(b, n->scope, n->kids[i]->name);
        if (!rc)
            rc = bind(b, s, n->kids[i + 1], soft);
    }
    if (!rc && n->kind == N_FILTERBLOCK)
        rc = declare(b, n->scope, n->a);
    if (!rc)
        rc = bind_block(b, n->scope, &n->body);
    for (uint32_t i = 0; !rc && n->kind == N_WITH && i < n->n_kids; i += 2)
        rc = bind_name(b, n->scope, n->kids[i]);
    if (!rc && n->kind == N_FILTERBLOCK)
        rc = bind(b, n->scope, n->a, false);
    return rc || n->kind != N_SETBLOCK ? rc : bind(b, n->scope, n->b, false);
}

static int bind(struct binder *b, struct jscope *s, struct jnode *n, bool soft)
{
    int rc;
    if (!n)
        return 0;
    switch (n->kind) {
    case N_NAME:
    case N_NSREF:
        return bind_name(b, s, n);
    case N_IF:
        rc = bind(b, s, n->a, true);
        if (!rc)
            rc = bind_all(b, s, n->body.v, n->body.n, true);
        if (!rc)
            rc = bind_all(b, s, n->kids, n->n_kids, true);
        return rc ? rc : bind_all(b, s, n->els.v, n->els.n, true);
    case N_COND:
        return bind_children(b, s, n, true);
    case N_FILTER:
    case N_TEST:
        if (n->lookup && !soft)
            return err_set(b->e, ERR_FORMAT, "template line %u: no %s named '%.60s'", n->line,
                           n->kind == N_FILTER ? "filter" : "test", n->name);
        return bind_children(b, s, n, soft);
    case N_FOR:
        return bind_for(b, s, n, soft);
    case N_MACRO:
        rc = sym_find(s, s->func, n->name, &n->var) ? 0 : bind_nomem(b);
        return rc ? rc : bind_macro(b, s, n);
    case N_CALLBLOCK:
        rc = bind_macro(b, s, n);
        return rc ? rc : bind(b, s, n->a, soft);
    case N_GENERATION:
        return bind_macro(b, s, n);
    case N_SETBLOCK:
    case N_FILTERBLOCK:
    case N_WITH:
        return bind_inner(b, s, n, soft);
    default:
        return bind_children(b, s, n, soft);
    }
}

int jinja_bind(struct jinja *j, struct err *e)
{
    struct binder b = {.j = j, .a = &j->arena, .e = e};
    j->func = arena_alloc(b.a, sizeof(*j->func));
    j->scope = j->func ? scope_new(&b, NULL, j->func) : NULL;
    if (!j->scope || !jval_dict(b.a, 0, &j->reads))
        return bind_nomem(&b);
    return bind_block(&b, j->scope, &j->body);
}
