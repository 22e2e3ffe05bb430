/* jinja_parse.c: statements, and the tools of both parser files. */
#include <stdio.h>
#include <string.h>

#include "runtime/text/jinja_ast.h"

/* ---- tools -------------------------------------------------------------------------------- */

const struct jtok *tok_now(const struct jparser *p)
{
    return &p->toks[p->at];
}

const struct jtok *tok_next(const struct jparser *p)
{
    return &p->toks[p->at + 1 < p->n_toks ? p->at + 1 : p->at];
}

void tok_skip(struct jparser *p)
{
    if (p->at + 1 < p->n_toks)
        p->at++;
}

bool tok_is_op(const struct jtok *t, int op)
{
    return t->kind == TOK_OP && t->op == op;
}

bool tok_is_name(const struct jtok *t, const char *name)
{
    return t->kind == TOK_NAME && !strcmp(t->name, name);
}

bool tok_skip_op(struct jparser *p, int op)
{
    bool yes = tok_is_op(tok_now(p), op);
    if (yes)
        tok_skip(p);
    return yes;
}

bool tok_skip_name(struct jparser *p, const char *name)
{
    bool yes = tok_is_name(tok_now(p), name);
    if (yes)
        tok_skip(p);
    return yes;
}

int parse_fail(const struct jparser *p, int code, const char *what)
{
    return err_set(p->e, code, "template line %u: %s%s", tok_now(p)->line,
                   code == ERR_UNSUPPORTED ? "not supported: " : "", what);
}

static void describe(const struct jtok *t, char *text, size_t n)
{
    static const char *const kinds[] = {
        [TOK_EOF] = "the end of the template",
        [TOK_DATA] = "text",
        [TOK_BLOCK_BEGIN] = "'{%'",
        [TOK_BLOCK_END] = "'%}'",
        [TOK_VAR_BEGIN] = "'{{'",
        [TOK_VAR_END] = "'}}'",
        [TOK_STRING] = "a string",
        [TOK_INT] = "a number",
        [TOK_FLOAT] = "a number",
    };
    if (t->kind == TOK_NAME)
        snprintf(text, n, "'%.60s'", t->name);
    else if (t->kind == TOK_OP && t->op > 255)
        snprintf(text, n, "'%c%c'", t->op >> 8, t->op & 255);
    else if (t->kind == TOK_OP)
        snprintf(text, n, "'%c'", t->op);
    else
        snprintf(text, n, "%s", kinds[t->kind]);
}

int parse_unexpected(const struct jparser *p, const char *wanted)
{
    char got[80];
    describe(tok_now(p), got, sizeof(got));
    return err_set(p->e, ERR_FORMAT, "template line %u: expected %s, got %s", tok_now(p)->line,
                   wanted, got);
}

int parse_nomem(const struct jparser *p)
{
    return err_set(p->e, ERR_LIMIT, "template line %u: the template is too large",
                   tok_now(p)->line);
}

int parse_enter(struct jparser *p)
{
    if (p->nesting >= JINJA_TREE_DEPTH_MAX)
        return err_set(p->e, ERR_LIMIT, "template line %u: nested deeper than %u", tok_now(p)->line,
                       JINJA_TREE_DEPTH_MAX);
    p->nesting++;
    return 0;
}

int tok_expect_op(struct jparser *p, int op)
{
    if (tok_skip_op(p, op))
        return 0;
    struct jtok t = {.kind = TOK_OP, .op = op};
    char wanted[16];
    describe(&t, wanted, sizeof(wanted));
    return parse_unexpected(p, wanted);
}

int tok_expect_name(struct jparser *p, const char **name)
{
    if (tok_now(p)->kind != TOK_NAME)
        return parse_unexpected(p, "a name");
    *name = tok_now(p)->name;
    tok_skip(p);
    return 0;
}

static int expect_kind(struct jparser *p, enum jtok_kind kind, const char *wanted)
{
    if (tok_now(p)->kind != kind)
        return parse_unexpected(p, wanted);
    tok_skip(p);
    return 0;
}

struct jnode *node_new(struct jparser *p, enum jnode_kind kind, uint32_t line)
{
    struct jnode *n = arena_alloc(p->a, sizeof(*n));
    if (n) {
        n->kind = (uint8_t)kind;
        n->line = line;
    }
    return n;
}

static void deepen(uint16_t *depth, const struct jnode *child)
{
    if (child && child->depth > *depth)
        *depth = child->depth;
}

int node_close(struct jparser *p, struct jnode *n)
{
    uint16_t d = 0;
    deepen(&d, n->a);
    deepen(&d, n->b);
    deepen(&d, n->c);
    deepen(&d, n->d);
    deepen(&d, n->star);
    deepen(&d, n->starstar);
    for (uint32_t i = 0; i < n->n_kids; i++)
        deepen(&d, n->kids[i]);
    for (uint32_t i = 0; i < n->n_kwargs; i++)
        deepen(&d, n->kwargs[i].value);
    for (uint32_t i = 0; i < n->body.n; i++)
        deepen(&d, n->body.v[i]);
    for (uint32_t i = 0; i < n->els.n; i++)
        deepen(&d, n->els.v[i]);
    for (uint32_t i = 0; n->sig && i < n->sig->n_defaults; i++)
        deepen(&d, n->sig->defaults[i]);
    n->depth = (uint16_t)(d + 1);
    if (n->depth > JINJA_TREE_DEPTH_MAX)
        return err_set(p->e, ERR_LIMIT, "template line %u: nested deeper than %u", n->line,
                       JINJA_TREE_DEPTH_MAX);
    return 0;
}

int nodes_add(struct jparser *p, struct jnodes *l, struct jnode *n)
{
    if (l->n == l->cap) {
        uint32_t cap = l->cap ? l->cap * 2 : 4;
        struct jnode **v = arena_calloc(p->a, cap, sizeof(struct jnode *));
        if (!v)
            return parse_nomem(p);
        if (l->n)
            memcpy(v, l->v, l->n * sizeof(struct jnode *));
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = n;
    return 0;
}

/* ---- targets of assignments --------------------------------------------------------------- */

static int make_target(struct jparser *p, struct jnode *n)
{
    if (n->kind == N_NAME) {
        n->store = true;
        return 0;
    }
    if (n->kind == N_NSREF)
        return 0;
    if (n->kind != N_TUPLE && n->kind != N_LIST)
        return parse_fail(p, ERR_FORMAT, "cannot assign to this");
    for (uint32_t i = 0; i < n->n_kids; i++) {
        int rc = make_target(p, n->kids[i]);
        if (rc)
            return rc;
    }
    return 0;
}

static int parse_target(struct jparser *p, int flags, const char *end_name, struct jnode **out)
{
    int rc = parse_tuple(p, PARSE_TARGET | flags, end_name, out);
    return rc ? rc : make_target(p, *out);
}

/* ---- statements --------------------------------------------------------------------------- */

static int parse_body(struct jparser *p, const char *const *ends, struct jblock *body);

static bool tag_ends(const struct jparser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (tok_is_name(tok_now(p), *ends))
            return true;
    return false;
}

/* From the end of a tag to the tag that ends the block, whose name is the current token then. */
static int parse_block(struct jparser *p, const char *const *ends, struct jblock *body)
{
    tok_skip_op(p, ':');
    int rc = expect_kind(p, TOK_BLOCK_END, "'%}'");
    if (!rc)
        rc = parse_enter(p);
    if (rc)
        return rc;
    rc = parse_body(p, ends, body);
    p->nesting--;
    if (!rc && tok_now(p)->kind == TOK_EOF)
        return err_set(p->e, ERR_FORMAT, "template line %u: the template ends, but '%s' is missing",
                       tok_now(p)->line, ends[0]);
    return rc;
}

/* The same, and takes the end tag's name. */
static int parse_block_to(struct jparser *p, const char *end, struct jblock *body)
{
    const char *const ends[] = {end, NULL};
    int rc = parse_block(p, ends, body);
    if (!rc)
        tok_skip(p);
    return rc;
}

static int parse_set(struct jparser *p, struct jnode *n)
{
    int rc = parse_target(p, PARSE_NSREF, NULL, &n->a);
    if (rc)
        return rc;
    if (tok_skip_op(p, '='))
        return parse_tuple(p, 0, NULL, &n->b);
    n->kind = N_SETBLOCK;
    rc = parse_filters(p, NULL, false, &n->b);
    return rc ? rc : parse_block_to(p, "endset", &n->body);
}

static int parse_for(struct jparser *p, struct jnode *n)
{
    static const char *const ends[] = {"endfor", "else", NULL};
    int rc = parse_target(p, 0, "in", &n->a);
    if (!rc && !tok_skip_name(p, "in"))
        return parse_unexpected(p, "'in'");
    if (!rc)
        rc = parse_tuple(p, PARSE_NO_COND, "recursive", &n->b);
    if (!rc && tok_skip_name(p, "if"))
        rc = parse_expression(p, &n->c);
    if (!rc && tok_is_name(tok_now(p), "recursive"))
        return parse_fail(p, ERR_UNSUPPORTED, "a recursive for");
    p->loops++;
    if (!rc)
        rc = parse_block(p, ends, &n->body);
    p->loops--;
    if (rc)
        return rc;
    bool has_else = tok_is_name(tok_now(p), "else");
    tok_skip(p);
    return has_else ? parse_block_to(p, "endfor", &n->els) : 0;
}

/* An `elif` is an If that is the only statement of its predecessor's else; the list of them is
 * built here without recursion, and evaluated without. */
static int parse_if(struct jparser *p, struct jnode *n)
{
    static const char *const ends[] = {"endif", "elif", "else", NULL};
    struct jnodes arms = {0};
    for (struct jnode *arm = n;;) {
        int rc = parse_tuple(p, PARSE_NO_COND, NULL, &arm->a);
        if (!rc)
            rc = parse_block(p, ends, &arm->body);
        if (!rc && arm != n)
            rc = node_close(p, arm);
        if (rc)
            return rc;
        if (!tok_skip_name(p, "elif"))
            break;
        arm = node_new(p, N_IF, tok_now(p)->line);
        if (!arm)
            return parse_nomem(p);
        rc = nodes_add(p, &arms, arm);
        if (rc)
            return rc;
    }
    n->kids = arms.v;
    n->n_kids = arms.n;
    bool has_else = tok_is_name(tok_now(p), "else");
    tok_skip(p);
    return has_else ? parse_block_to(p, "endif", &n->els) : 0;
}

static struct jmacro_sig *sig_new(struct jparser *p, const char *name)
{
    struct jmacro_sig *sig = arena_alloc(p->a, sizeof(*sig));
    if (sig)
        sig->name = name;
    return sig;
}

static int parse_param(struct jparser *p, struct jnodes *params, struct jnodes *defaults)
{
    struct jnode *n = node_new(p, N_NAME, tok_now(p)->line), *x;
    if (!n)
        return parse_nomem(p);
    int rc = tok_expect_name(p, &n->name);
    n->store = true;
    for (uint32_t i = 0; !rc && i < params->n; i++)
        if (!strcmp(params->v[i]->name, n->name))
            return parse_fail(p, ERR_FORMAT, "a parameter is repeated");
    if (!rc && tok_skip_op(p, '=')) {
        rc = parse_expression(p, &x);
        if (!rc)
            rc = nodes_add(p, defaults, x);
    } else if (!rc && defaults->n) {
        rc = parse_fail(p, ERR_FORMAT, "non-default argument follows default argument");
    }
    return rc ? rc : nodes_add(p, params, n);
}

static int parse_signature(struct jparser *p, struct jmacro_sig *sig)
{
    struct jnodes params = {0}, defaults = {0};
    int rc = tok_expect_op(p, '(');
    while (!rc && !tok_is_op(tok_now(p), ')')) {
        rc = params.n ? tok_expect_op(p, ',') : 0;
        if (!rc)
            rc = parse_param(p, &params, &defaults);
    }
    sig->params = params.v;
    sig->n_params = params.n;
    sig->defaults = defaults.v;
    sig->n_defaults = defaults.n;
    return rc ? rc : tok_expect_op(p, ')');
}

/* A body that is a function of its own: no break or continue reaches out of it. */
static int parse_function_body(struct jparser *p, const char *end, struct jblock *body)
{
    unsigned loops = p->loops;
    p->loops = 0;
    int rc = parse_block_to(p, end, body);
    p->loops = loops;
    return rc;
}

static int parse_macro(struct jparser *p, struct jnode *n)
{
    int rc = tok_expect_name(p, &n->name);
    n->sig = rc ? NULL : sig_new(p, n->name);
    if (!n->sig)
        return rc ? rc : parse_nomem(p);
    rc = parse_signature(p, n->sig);
    return rc ? rc : parse_function_body(p, "endmacro", &n->body);
}

static int parse_call_block(struct jparser *p, struct jnode *n)
{
    n->sig = sig_new(p, NULL);
    if (!n->sig)
        return parse_nomem(p);
    int rc = tok_is_op(tok_now(p), '(') ? parse_signature(p, n->sig) : 0;
    if (!rc)
        rc = parse_expression(p, &n->a);
    if (!rc && n->a->kind != N_CALL)
        return parse_fail(p, ERR_FORMAT, "expected a call");
    return rc ? rc : parse_function_body(p, "endcall", &n->body);
}

static int parse_generation(struct jparser *p, struct jnode *n)
{
    n->sig = sig_new(p, NULL);
    return n->sig ? parse_function_body(p, "endgeneration", &n->body) : parse_nomem(p);
}

static int parse_filter_block(struct jparser *p, struct jnode *n)
{
    int rc = parse_filters(p, NULL, true, &n->a);
    return rc ? rc : parse_block_to(p, "endfilter", &n->body);
}

static int parse_with(struct jparser *p, struct jnode *n)
{
    struct jnodes kids = {0};
    struct jnode *x;
    int rc = 0;
    while (!rc && tok_now(p)->kind != TOK_BLOCK_END) {
        rc = kids.n ? tok_expect_op(p, ',') : 0;
        if (!rc && tok_now(p)->kind != TOK_NAME)
            return parse_unexpected(p, "a name");
        if (!rc) {
            x = node_new(p, N_NAME, tok_now(p)->line);
            if (!x)
                return parse_nomem(p);
            x->store = true;
            rc = tok_expect_name(p, &x->name);
        }
        if (!rc)
            rc = nodes_add(p, &kids, x);
        if (!rc)
            rc = tok_expect_op(p, '=');
        if (!rc)
            rc = parse_expression(p, &x);
        if (!rc)
            rc = nodes_add(p, &kids, x);
    }
    n->kids = kids.v;
    n->n_kids = kids.n;
    return rc ? rc : parse_block_to(p, "endwith", &n->body);
}

static int parse_break(struct jparser *p, struct jnode *n)
{
    (void)n;
    return p->loops ? 0 : parse_fail(p, ERR_FORMAT, "break or continue outside of a loop");
}

static const struct {
    const char *name;
    enum jnode_kind kind;
    int (*parse)(struct jparser *p, struct jnode *n);
} statements[] = {
    {"set", N_SET, parse_set},
    {"for", N_FOR, parse_for},
    {"if", N_IF, parse_if},
    {"macro", N_MACRO, parse_macro},
    {"call", N_CALLBLOCK, parse_call_block},
    {"generation", N_GENERATION, parse_generation},
    {"filter", N_FILTERBLOCK, parse_filter_block},
    {"with", N_WITH, parse_with},
    {"break", N_BREAK, parse_break},
    {"continue", N_CONTINUE, parse_break},
};

static int parse_statement(struct jparser *p, struct jnodes *out)
{
    static const char *const refused[] = {"block", "extends", "include",    "import",
                                          "from",  "print",   "autoescape", NULL};
    const struct jtok *t = tok_now(p);
    if (t->kind != TOK_NAME)
        return parse_unexpected(p, "a tag name");
    if (tag_ends(p, refused))
        return err_set(p->e, ERR_UNSUPPORTED, "template line %u: the tag '%s' is not supported",
                       t->line, t->name);
    for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++) {
        if (strcmp(t->name, statements[i].name))
            continue;
        struct jnode *n = node_new(p, statements[i].kind, t->line);
        if (!n)
            return parse_nomem(p);
        tok_skip(p);
        int rc = statements[i].parse(p, n);
        if (!rc)
            rc = node_close(p, n);
        return rc ? rc : nodes_add(p, out, n);
    }
    return err_set(p->e, ERR_FORMAT, "template line %u: encountered unknown tag '%.60s'", t->line,
                   t->name);
}

static int parse_output(struct jparser *p, struct jnodes *out)
{
    const struct jtok *t = tok_now(p);
    struct jnode *n = node_new(p, N_OUTPUT, t->line);
    if (!n)
        return parse_nomem(p);
    tok_skip(p);
    int rc;
    if (t->kind == TOK_DATA) {
        n->a = node_new(p, N_CONST, t->line);
        if (!n->a)
            return parse_nomem(p);
        n->a->val = t->val;
        rc = node_close(p, n->a);
    } else {
        rc = parse_tuple(p, 0, NULL, &n->a);
        if (!rc)
            rc = expect_kind(p, TOK_VAR_END, "'}}'");
    }
    if (!rc)
        rc = node_close(p, n);
    return rc ? rc : nodes_add(p, out, n);
}

/* Up to a tag named in `ends` (its name is the current token then) or the end of the text. */
static int parse_body(struct jparser *p, const char *const *ends, struct jblock *body)
{
    struct jnodes out = {0};
    int rc = 0;
    while (!rc && tok_now(p)->kind != TOK_EOF) {
        if (tok_now(p)->kind != TOK_BLOCK_BEGIN) {
            rc = parse_output(p, &out);
            continue;
        }
        tok_skip(p);
        if (tag_ends(p, ends))
            break;
        rc = parse_statement(p, &out);
        if (!rc)
            rc = expect_kind(p, TOK_BLOCK_END, "'%}'");
    }
    body->v = out.v;
    body->n = out.n;
    return rc;
}

int jinja_parse(struct arena *a, const struct jtok *toks, size_t n, struct jblock *body,
                struct err *e)
{
    struct jparser p = {.a = a, .toks = toks, .n_toks = n, .e = e};
    return parse_body(&p, NULL, body);
}
