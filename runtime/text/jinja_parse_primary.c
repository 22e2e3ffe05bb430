/* jinja_parse_primary.c: names, literals, and what may follow them. */
#include <string.h>

#include "runtime/text/jinja_ast.h"

static int parse_name(struct jparser *p, int flags, struct jnode **out)
{
    const struct jtok *t = tok_now(p);
    struct jnode *n = node_new(p, N_NAME, t->line);
    if (!n)
        return parse_nomem(p);
    tok_skip(p);
    *out = n;
    n->name = t->name;
    if (!strcmp(t->name, "true") || !strcmp(t->name, "True") || !strcmp(t->name, "false") ||
        !strcmp(t->name, "False")) {
        n->kind = N_CONST;
        n->val = jval_bool((t->name[0] | 0x20) == 't');
    } else if (!strcmp(t->name, "none") || !strcmp(t->name, "None")) {
        n->kind = N_CONST;
        n->val = jval_none();
    } else if ((flags & PARSE_NSREF) && tok_skip_op(p, '.')) {
        const char *attr;
        int rc = tok_expect_name(p, &attr);
        if (rc)
            return rc;
        n->kind = N_NSREF;
        if (!jval_str(p->a, attr, &n->val))
            return parse_nomem(p);
    }
    return node_close(p, n);
}

/* "a" "b" is one string, as in Python. */
static int parse_string(struct jparser *p, struct jnode **out)
{
    size_t total = 0, first = p->at;
    struct jnode *n = node_new(p, N_CONST, tok_now(p)->line);
    if (!n)
        return parse_nomem(p);
    for (; tok_now(p)->kind == TOK_STRING; tok_skip(p))
        total += tok_now(p)->val.s->n;
    n->val = p->toks[first].val;
    if (p->at > first + 1) {
        char *s = arena_alloc(p->a, total + 1);
        size_t len = 0;
        for (size_t i = first; s && i < p->at; i++) {
            const struct jstr *part = p->toks[i].val.s;
            memcpy(s + len, part->p, part->n);
            len += part->n;
        }
        if (!s || !jval_str_borrow(p->a, s, total, UINT32_MAX, &n->val))
            return parse_nomem(p);
    }
    *out = n;
    return node_close(p, n);
}

/* [a, b] or {a: b, c: d}; a comma may follow the last. */
static int parse_display(struct jparser *p, struct jnode **out)
{
    bool is_dict = tok_is_op(tok_now(p), '{');
    int end = is_dict ? '}' : ']', rc = 0;
    struct jnodes items = {0};
    struct jnode *x, *n = node_new(p, is_dict ? N_DICT : N_LIST, tok_now(p)->line);
    if (!n)
        return parse_nomem(p);
    tok_skip(p);
    while (!rc && !tok_is_op(tok_now(p), end)) {
        rc = items.n ? tok_expect_op(p, ',') : 0;
        if (rc || tok_is_op(tok_now(p), end))
            break;
        rc = parse_expression(p, &x);
        if (!rc)
            rc = nodes_add(p, &items, x);
        if (rc || !is_dict)
            continue;
        rc = tok_expect_op(p, ':');
        if (!rc)
            rc = parse_expression(p, &x);
        if (!rc)
            rc = nodes_add(p, &items, x);
    }
    if (!rc)
        rc = tok_expect_op(p, end);
    n->kids = items.v;
    n->n_kids = items.n;
    *out = n;
    return rc ? rc : node_close(p, n);
}

int parse_primary(struct jparser *p, int flags, struct jnode **out)
{
    const struct jtok *t = tok_now(p);
    if (t->kind == TOK_NAME)
        return parse_name(p, flags, out);
    if (t->kind == TOK_STRING)
        return parse_string(p, out);
    if (t->kind == TOK_INT || t->kind == TOK_FLOAT) {
        struct jnode *n = node_new(p, N_CONST, t->line);
        if (!n)
            return parse_nomem(p);
        n->val = t->val;
        tok_skip(p);
        *out = n;
        return node_close(p, n);
    }
    if (tok_skip_op(p, '(')) {
        int rc = parse_enter(p);
        if (!rc)
            rc = parse_tuple(p, PARSE_PARENS, NULL, out);
        if (rc)
            return rc;
        p->nesting--;
        return tok_expect_op(p, ')');
    }
    if (tok_is_op(t, '[') || tok_is_op(t, '{'))
        return parse_display(p, out);
    return parse_unexpected(p, "an expression");
}

/* ---- what follows a primary --------------------------------------------------------------- */

static bool slice_part_ends(const struct jparser *p)
{
    const struct jtok *t = tok_now(p);
    return tok_is_op(t, ':') || tok_is_op(t, ']') || tok_is_op(t, ',');
}

/* One thing in brackets: an expression, or a slice (a node with b, c, d and no a yet). */
static int parse_subscribed(struct jparser *p, struct jnode **out)
{
    struct jnode *first = NULL;
    int rc = 0;
    uint32_t line = tok_now(p)->line;
    if (!tok_is_op(tok_now(p), ':')) {
        rc = parse_expression(p, &first);
        *out = first;
        if (rc || !tok_is_op(tok_now(p), ':'))
            return rc;
    }
    tok_skip(p);
    struct jnode *n = node_new(p, N_SLICE, line);
    if (!n)
        return parse_nomem(p);
    n->b = first;
    if (!slice_part_ends(p))
        rc = parse_expression(p, &n->c);
    if (!rc && tok_skip_op(p, ':') && !tok_is_op(tok_now(p), ']') && !tok_is_op(tok_now(p), ','))
        rc = parse_expression(p, &n->d);
    *out = n;
    return rc;
}

static int parse_brackets(struct jparser *p, struct jnode **node)
{
    uint32_t line = tok_now(p)->line;
    struct jnodes args = {0};
    struct jnode *x = NULL, *n;
    tok_skip(p);
    while (!tok_is_op(tok_now(p), ']')) {
        int rc = args.n ? tok_expect_op(p, ',') : 0;
        if (!rc)
            rc = parse_subscribed(p, &x);
        if (!rc && x->kind == N_SLICE && !x->a && (args.n || tok_is_op(tok_now(p), ',')))
            rc = parse_fail(p, ERR_UNSUPPORTED, "a slice in a tuple of subscripts");
        if (!rc)
            rc = nodes_add(p, &args, x);
        if (rc)
            return rc;
    }
    tok_skip(p);
    if (args.n == 1 && args.v[0]->kind == N_SLICE && !args.v[0]->a) {
        n = args.v[0];
        n->a = *node;
        *node = n;
        return node_close(p, n);
    }
    n = node_new(p, N_GETITEM, line);
    if (!n)
        return parse_nomem(p);
    n->a = *node;
    n->b = args.n ? args.v[0] : NULL;
    if (args.n != 1) {
        struct jnode *t = node_new(p, N_TUPLE, line);
        if (!t)
            return parse_nomem(p);
        t->kids = args.v;
        t->n_kids = args.n;
        n->b = t;
        int rc = node_close(p, t);
        if (rc)
            return rc;
    }
    *node = n;
    return node_close(p, n);
}

static int parse_dot(struct jparser *p, struct jnode **node)
{
    uint32_t line = tok_now(p)->line;
    tok_skip(p);
    const struct jtok *t = tok_now(p);
    struct jnode *n = node_new(p, t->kind == TOK_INT ? N_GETITEM : N_GETATTR, line);
    if (!n)
        return parse_nomem(p);
    n->a = *node;
    if (t->kind == TOK_NAME) {
        n->name = t->name;
        if (!jval_str(p->a, t->name, &n->val))
            return parse_nomem(p);
    } else if (t->kind == TOK_INT) {
        n->b = node_new(p, N_CONST, line);
        if (!n->b)
            return parse_nomem(p);
        n->b->val = t->val;
    } else {
        return parse_unexpected(p, "a name or number");
    }
    tok_skip(p);
    *node = n;
    return node_close(p, n);
}

static int kwarg_add(struct jparser *p, struct jnode *n, uint32_t *cap, const char *name,
                     struct jnode *value)
{
    for (uint32_t i = 0; i < n->n_kwargs; i++)
        if (!strcmp(n->kwargs[i].name, name))
            return parse_fail(p, ERR_FORMAT, "a keyword argument is repeated");
    if (n->n_kwargs == *cap) {
        uint32_t c = *cap ? *cap * 2 : 4;
        struct jkwarg *k = arena_calloc(p->a, c, sizeof(*k));
        if (!k)
            return parse_nomem(p);
        if (n->n_kwargs)
            memcpy(k, n->kwargs, n->n_kwargs * sizeof(*k));
        n->kwargs = k;
        *cap = c;
    }
    n->kwargs[n->n_kwargs++] = (struct jkwarg){name, value};
    return 0;
}

static int parse_arg(struct jparser *p, struct jnode *n, struct jnodes *args, uint32_t *cap)
{
    static const char wrong[] = "invalid syntax for function call expression";
    struct jnode *x;
    int rc;
    if (tok_is_op(tok_now(p), '*') || tok_is_op(tok_now(p), OP2('*', '*'))) {
        bool twice = !tok_is_op(tok_now(p), '*');
        if (n->starstar || (!twice && n->star))
            return parse_fail(p, ERR_FORMAT, wrong);
        tok_skip(p);
        return parse_expression(p, twice ? &n->starstar : &n->star);
    }
    if (tok_now(p)->kind == TOK_NAME && tok_is_op(tok_next(p), '=')) {
        const char *name = tok_now(p)->name;
        if (n->starstar)
            return parse_fail(p, ERR_FORMAT, wrong);
        tok_skip(p);
        tok_skip(p);
        rc = parse_expression(p, &x);
        return rc ? rc : kwarg_add(p, n, cap, name, x);
    }
    if (n->star || n->starstar || n->n_kwargs)
        return parse_fail(p, ERR_FORMAT, wrong);
    rc = parse_expression(p, &x);
    return rc ? rc : nodes_add(p, args, x);
}

/* Reads "(…)" into n's arguments. */
static int parse_args(struct jparser *p, struct jnode *n)
{
    struct jnodes args = {0};
    uint32_t cap = 0;
    bool comma = false;
    int rc = tok_expect_op(p, '(');
    while (!rc && !tok_is_op(tok_now(p), ')')) {
        if (comma) {
            rc = tok_expect_op(p, ',');
            if (rc || tok_is_op(tok_now(p), ')'))
                break;
        }
        rc = parse_arg(p, n, &args, &cap);
        comma = true;
    }
    n->kids = args.v;
    n->n_kids = args.n;
    return rc ? rc : tok_expect_op(p, ')');
}

static int parse_call(struct jparser *p, struct jnode **node)
{
    struct jnode *n = node_new(p, N_CALL, tok_now(p)->line);
    if (!n)
        return parse_nomem(p);
    n->a = *node;
    if (n->a->kind == N_GETATTR && jinja_method_unsupported(n->a->name))
        return parse_fail(p, ERR_UNSUPPORTED, n->a->name);
    int rc = parse_args(p, n);
    *node = n;
    return rc ? rc : node_close(p, n);
}

int parse_postfix(struct jparser *p, struct jnode **n)
{
    int rc = 0;
    while (!rc) {
        const struct jtok *t = tok_now(p);
        if (tok_is_op(t, '.'))
            rc = parse_dot(p, n);
        else if (tok_is_op(t, '['))
            rc = parse_brackets(p, n);
        else if (tok_is_op(t, '('))
            rc = parse_call(p, n);
        else
            break;
    }
    return rc;
}

/* a.b.c: the names of filters and tests may have dots. */
static int parse_dotted(struct jparser *p, const char **name)
{
    int rc = tok_expect_name(p, name);
    if (!rc && tok_is_op(tok_now(p), '.'))
        return parse_fail(p, ERR_UNSUPPORTED, "a dotted filter or test name");
    return rc;
}

static int resolve_builtin(struct jparser *p, struct jnode *n, bool is_filter)
{
    bool known = false;
    int i = is_filter ? jinja_filter_find(n->name, &known) : jinja_test_find(n->name, &known);
    if (i >= 0) {
        n->builtin = (uint16_t)i;
        return 0;
    }
    if (known)
        return err_set(p->e, ERR_UNSUPPORTED, "template line %u: the %s '%s' is not supported",
                       n->line, is_filter ? "filter" : "test", n->name);
    n->lookup = true;
    return 0;
}

int parse_filters(struct jparser *p, struct jnode *subject, bool first_is_inline,
                  struct jnode **out)
{
    *out = subject;
    while (first_is_inline || tok_is_op(tok_now(p), '|')) {
        if (!first_is_inline)
            tok_skip(p);
        struct jnode *n = node_new(p, N_FILTER, tok_now(p)->line);
        if (!n)
            return parse_nomem(p);
        n->a = *out;
        *out = n;
        int rc = parse_dotted(p, &n->name);
        if (!rc && tok_is_op(tok_now(p), '('))
            rc = parse_args(p, n);
        if (!rc)
            rc = resolve_builtin(p, n, true);
        if (!rc)
            rc = node_close(p, n);
        if (rc)
            return rc;
        first_is_inline = false;
    }
    return 0;
}

static bool test_arg_follows(const struct jparser *p)
{
    const struct jtok *t = tok_now(p);
    if (t->kind == TOK_NAME)
        return strcmp(t->name, "else") && strcmp(t->name, "or") && strcmp(t->name, "and");
    return t->kind == TOK_STRING || t->kind == TOK_INT || t->kind == TOK_FLOAT ||
           tok_is_op(t, '[') || tok_is_op(t, '{');
}

static int parse_test_args(struct jparser *p, struct jnode *n)
{
    if (tok_is_op(tok_now(p), '('))
        return parse_args(p, n);
    if (!test_arg_follows(p))
        return 0;
    if (tok_is_name(tok_now(p), "is"))
        return parse_fail(p, ERR_FORMAT, "you cannot chain multiple tests with is");
    struct jnodes args = {0};
    struct jnode *x;
    int rc = parse_primary(p, 0, &x);
    if (!rc)
        rc = parse_postfix(p, &x);
    if (!rc)
        rc = nodes_add(p, &args, x);
    n->kids = args.v;
    n->n_kids = args.n;
    return rc;
}

static int parse_test(struct jparser *p, struct jnode **node)
{
    struct jnode *n = node_new(p, N_TEST, tok_now(p)->line);
    if (!n)
        return parse_nomem(p);
    tok_skip(p);
    bool negated = tok_skip_name(p, "not");
    n->a = *node;
    int rc = parse_dotted(p, &n->name);
    if (!rc)
        rc = parse_test_args(p, n);
    if (!rc)
        rc = resolve_builtin(p, n, false);
    if (!rc)
        rc = node_close(p, n);
    *node = n;
    if (rc || !negated)
        return rc;
    struct jnode *no = node_new(p, N_NOT, n->line);
    if (!no)
        return parse_nomem(p);
    no->a = n;
    *node = no;
    return node_close(p, no);
}

int parse_filter_expr(struct jparser *p, struct jnode **n)
{
    int rc = 0;
    while (!rc) {
        const struct jtok *t = tok_now(p);
        if (tok_is_op(t, '|'))
            rc = parse_filters(p, *n, false, n);
        else if (tok_is_name(t, "is"))
            rc = parse_test(p, n);
        else if (tok_is_op(t, '('))
            rc = parse_call(p, n);
        else
            break;
    }
    return rc;
}
