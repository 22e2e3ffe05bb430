/* jinja_parse_expr.c: expressions, with the precedence and the quirks of jinja2/parser.py. */
#include <string.h>

#include "runtime/text/jinja_ast.h"

static int parse_or(struct jparser *p, struct jnode **out);
static int parse_unary(struct jparser *p, bool with_filter, struct jnode **out);

static const int compare_ops[] = {
    OP2('=', '='), OP2('!', '='), OP2('<', '='), OP2('>', '='), '<', '>', 0};
static const int sum_ops[] = {'+', '-', 0};
static const int product_ops[] = {'*', '/', OP2('/', '/'), '%', 0};
static const int power_ops[] = {OP2('*', '*'), 0};

static int op_among(const struct jparser *p, const int *ops)
{
    const struct jtok *t = tok_now(p);
    for (; t->kind == TOK_OP && *ops; ops++)
        if (t->op == *ops)
            return t->op;
    return 0;
}

/* Left-associative operators of one level, over the next tighter one. */
static int parse_left(struct jparser *p, const int *ops,
                      int (*tighter)(struct jparser *, struct jnode **), struct jnode **out)
{
    int op, rc = tighter(p, out);
    while (!rc && (op = op_among(p, ops)) != 0) {
        struct jnode *n = node_new(p, N_BINOP, tok_now(p)->line);
        if (!n)
            return parse_nomem(p);
        tok_skip(p);
        n->op = op;
        n->a = *out;
        rc = tighter(p, &n->b);
        *out = n;
        if (!rc)
            rc = node_close(p, n);
    }
    return rc;
}

static int parse_operand(struct jparser *p, struct jnode **out)
{
    return parse_unary(p, true, out);
}

static int parse_power(struct jparser *p, struct jnode **out)
{
    return parse_left(p, power_ops, parse_operand, out);
}

static int parse_product(struct jparser *p, struct jnode **out)
{
    return parse_left(p, product_ops, parse_power, out);
}

static int parse_concat(struct jparser *p, struct jnode **out)
{
    int rc = parse_product(p, out);
    if (rc || !tok_is_op(tok_now(p), '~'))
        return rc;
    struct jnodes args = {0};
    struct jnode *n = node_new(p, N_CONCAT, tok_now(p)->line);
    if (!n)
        return parse_nomem(p);
    rc = nodes_add(p, &args, *out);
    while (!rc && tok_skip_op(p, '~')) {
        struct jnode *x;
        rc = parse_product(p, &x);
        if (!rc)
            rc = nodes_add(p, &args, x);
    }
    n->kids = args.v;
    n->n_kids = args.n;
    *out = n;
    return rc ? rc : node_close(p, n);
}

static int parse_sum(struct jparser *p, struct jnode **out)
{
    return parse_left(p, sum_ops, parse_concat, out);
}

/* 'i' for `in`, 'n' for `not in`, or the operator; 0 when no comparison follows. */
static int compare_op(struct jparser *p)
{
    int op = op_among(p, compare_ops);
    if (op) {
        tok_skip(p);
        return op;
    }
    if (tok_skip_name(p, "in"))
        return 'i';
    if (tok_is_name(tok_now(p), "not") && tok_is_name(tok_next(p), "in")) {
        tok_skip(p);
        tok_skip(p);
        return 'n';
    }
    return 0;
}

static int parse_compare(struct jparser *p, struct jnode **out)
{
    struct jnodes kids = {0};
    uint32_t line = tok_now(p)->line;
    struct jnode *first;
    int op, rc = parse_sum(p, &first);
    *out = first;
    while (!rc && (op = compare_op(p)) != 0) {
        /* Each right side is wrapped, for its operator. */
        struct jnode *kid = node_new(p, N_COMPARE, tok_now(p)->line);
        if (!kid)
            return parse_nomem(p);
        kid->op = op;
        rc = parse_sum(p, &kid->a);
        if (!rc)
            rc = node_close(p, kid);
        if (!rc)
            rc = nodes_add(p, &kids, kid);
    }
    if (rc || !kids.n)
        return rc;
    struct jnode *n = node_new(p, N_COMPARE, line);
    if (!n)
        return parse_nomem(p);
    n->a = first;
    n->kids = kids.v;
    n->n_kids = kids.n;
    *out = n;
    return node_close(p, n);
}

static int parse_not(struct jparser *p, struct jnode **out)
{
    if (!tok_is_name(tok_now(p), "not"))
        return parse_compare(p, out);
    struct jnode *n = node_new(p, N_NOT, tok_now(p)->line);
    int rc = n ? parse_enter(p) : parse_nomem(p);
    if (rc)
        return rc;
    tok_skip(p);
    rc = parse_not(p, &n->a);
    p->nesting--;
    *out = n;
    return rc ? rc : node_close(p, n);
}

static int parse_logic(struct jparser *p, const char *word, enum jnode_kind kind,
                       int (*tighter)(struct jparser *, struct jnode **), struct jnode **out)
{
    int rc = tighter(p, out);
    while (!rc && tok_is_name(tok_now(p), word)) {
        struct jnode *n = node_new(p, kind, tok_now(p)->line);
        if (!n)
            return parse_nomem(p);
        tok_skip(p);
        n->a = *out;
        *out = n;
        rc = tighter(p, &n->b);
        if (!rc)
            rc = node_close(p, n);
    }
    return rc;
}

static int parse_and(struct jparser *p, struct jnode **out)
{
    return parse_logic(p, "and", N_AND, parse_not, out);
}

static int parse_or(struct jparser *p, struct jnode **out)
{
    return parse_logic(p, "or", N_OR, parse_and, out);
}

/* value if test else other. What is inside may name filters that do not exist. */
static int parse_cond(struct jparser *p, struct jnode **out)
{
    int rc = parse_or(p, out);
    while (!rc && tok_is_name(tok_now(p), "if")) {
        struct jnode *n = node_new(p, N_COND, tok_now(p)->line);
        if (!n)
            return parse_nomem(p);
        tok_skip(p);
        n->b = *out;
        *out = n;
        rc = parse_or(p, &n->a);
        if (!rc && tok_skip_name(p, "else")) {
            rc = parse_enter(p);
            if (!rc)
                rc = parse_cond(p, &n->c);
            p->nesting -= !rc;
        }
        if (!rc)
            rc = node_close(p, n);
    }
    return rc;
}

int parse_expression(struct jparser *p, struct jnode **out)
{
    int rc = parse_enter(p);
    if (rc)
        return rc;
    rc = parse_cond(p, out);
    p->nesting--;
    return rc;
}

static bool tuple_ends(const struct jparser *p, const char *end_name)
{
    const struct jtok *t = tok_now(p);
    return t->kind == TOK_VAR_END || t->kind == TOK_BLOCK_END || tok_is_op(t, ')') ||
           (end_name && tok_is_name(t, end_name));
}

static int parse_tuple_item(struct jparser *p, int flags, struct jnode **out)
{
    if (flags & PARSE_TARGET)
        return parse_primary(p, flags, out);
    if (!(flags & PARSE_NO_COND))
        return parse_expression(p, out);
    int rc = parse_enter(p);
    if (!rc)
        rc = parse_or(p, out);
    p->nesting -= !rc;
    return rc;
}

int parse_tuple(struct jparser *p, int flags, const char *end_name, struct jnode **out)
{
    struct jnodes items = {0};
    uint32_t line = tok_now(p)->line;
    bool is_tuple = false;
    for (;;) {
        struct jnode *item;
        int rc = items.n ? tok_expect_op(p, ',') : 0;
        if (rc)
            return rc;
        if (tuple_ends(p, end_name))
            break;
        rc = parse_tuple_item(p, flags, &item);
        if (!rc)
            rc = nodes_add(p, &items, item);
        if (rc)
            return rc;
        if (!tok_is_op(tok_now(p), ','))
            break;
        is_tuple = true;
    }
    if (!is_tuple && items.n) {
        *out = items.v[0];
        return 0;
    }
    if (!is_tuple && !(flags & PARSE_PARENS))
        return parse_unexpected(p, "an expression");
    struct jnode *n = node_new(p, N_TUPLE, line);
    if (!n)
        return parse_nomem(p);
    n->kids = items.v;
    n->n_kids = items.n;
    *out = n;
    return node_close(p, n);
}

/* ---- operands ------------------------------------------------------------------------------ */

static int parse_unary(struct jparser *p, bool with_filter, struct jnode **out)
{
    const struct jtok *t = tok_now(p);
    int rc;
    if (tok_is_op(t, '-') || tok_is_op(t, '+')) {
        struct jnode *n = node_new(p, t->op == '-' ? N_NEG : N_POS, t->line);
        rc = n ? parse_enter(p) : parse_nomem(p);
        if (rc)
            return rc;
        tok_skip(p);
        rc = parse_unary(p, false, &n->a);
        p->nesting--;
        *out = n;
        if (!rc)
            rc = node_close(p, n);
    } else {
        rc = parse_primary(p, 0, out);
    }
    if (!rc)
        rc = parse_postfix(p, out);
    return !rc && with_filter ? parse_filter_expr(p, out) : rc;
}
