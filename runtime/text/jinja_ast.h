/* jinja_ast.h: inside the template interpreter: tokens, syntax tree, scopes.
 *
 *   text ─► jinja_lex.c ─► tokens ─► jinja_parse*.c ─► nodes ─► jinja_scope.c ─► bound nodes
 *
 * All of it lies in one arena that struct jinja owns, and nothing changes after jinja_compile.
 * Included by the jinja_*.c files only.
 */
#ifndef ARGOSY_TEXT_JINJA_AST_H
#define ARGOSY_TEXT_JINJA_AST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/arena.h"
#include "runtime/base/err.h"
#include "runtime/text/jinja_value.h"

#define JINJA_TEXT_BYTES_MAX (256u << 10)
#define JINJA_COMPILE_BYTES_MAX (32u << 20)
/* Of the tree. Every pass over it recurses at most this deep. */
#define JINJA_TREE_DEPTH_MAX 200u

enum jtok_kind {
    TOK_EOF,
    TOK_DATA,
    TOK_BLOCK_BEGIN,
    TOK_BLOCK_END,
    TOK_VAR_BEGIN,
    TOK_VAR_END,
    TOK_NAME,
    TOK_STRING,
    TOK_INT,
    TOK_FLOAT,
    TOK_OP
};

/* Operators are their characters: '+', or two characters in one int. */
#define OP2(a, b) (((a) << 8) | (b))

struct jtok {
    uint8_t kind; /* enum jtok_kind */
    int op;       /* TOK_OP */
    uint32_t line;
    const char *name; /* TOK_NAME: NUL-terminated */
    struct jval val;  /* TOK_DATA, TOK_STRING, TOK_INT, TOK_FLOAT */
};

/* Ends with a TOK_EOF. */
int jinja_lex(struct arena *a, const char *text, size_t n, struct jtok **toks, size_t *n_toks,
              struct err *e);

enum jnode_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_NSREF, /* only as a target: a.name */
    N_TUPLE,
    N_LIST,
    N_DICT, /* kids: key, value, key, value, … */
    N_COND, /* a if b else c */
    N_OR,
    N_AND,
    N_NOT,
    N_COMPARE, /* a, then kids with their op each */
    N_BINOP,   /* op */
    N_NEG,
    N_POS,
    N_CONCAT, /* kids */
    N_GETATTR,
    N_GETITEM,
    N_SLICE, /* of a: [b:c:d] */
    N_CALL,
    N_FILTER, /* a: what is filtered; NULL in a filter or set block */
    N_TEST,
    /* statements */
    N_OUTPUT, /* a */
    N_IF,     /* a: test, body, els */
    N_FOR,    /* a: target, b: iterable, c: filter test; body, els */
    N_SET,    /* a: target, b: value */
    N_SETBLOCK,
    N_FILTERBLOCK, /* a: filter; body */
    N_MACRO,
    N_CALLBLOCK,  /* a: call; args, body: the caller */
    N_GENERATION, /* body, which is a caller too */
    N_WITH,       /* kids: target, value, …; body */
    N_BREAK,
    N_CONTINUE
};

struct jnode;
struct jscope;

struct jkwarg {
    const char *name;
    struct jnode *value;
};

struct jblock {
    struct jnode **v;
    uint32_t n;
};

/* Where a variable lives: `up` functions out, in that slot. */
struct jvar {
    uint16_t up;
    uint32_t slot;
};

struct jmacro_sig {
    const char *name; /* NULL: a call block's */
    struct jnode **params;
    struct jnode **defaults; /* of the last n_defaults parameters */
    uint32_t n_params, n_defaults;
    bool takes_caller, takes_kwargs, takes_varargs;
    struct jvar caller, kwargs, varargs;
};

struct jnode {
    uint8_t kind; /* enum jnode_kind */
    bool store;   /* N_NAME: it is assigned to */
    bool lookup;  /* N_FILTER, N_TEST: the name is unknown, an error once it is reached */
    uint16_t depth;
    uint16_t builtin; /* N_FILTER, N_TEST: which one */
    int op;           /* N_BINOP; N_COMPARE's kids */
    uint32_t line;
    const char *name;            /* N_NAME, N_GETATTR, N_FILTER, N_TEST, N_NSREF's variable */
    struct jval val;             /* N_CONST; N_GETATTR and N_NSREF: the attribute's name */
    struct jvar var;             /* N_NAME, N_NSREF, N_MACRO's name */
    struct jnode *a, *b, *c, *d; /* N_FOR's d: the target again, for the filter test */
    struct jnode **kids;         /* also the positional arguments of calls, filters and tests */
    uint32_t n_kids;
    struct jkwarg *kwargs;
    uint32_t n_kwargs;
    struct jnode *star, *starstar; /* f(*a, **b) */
    struct jblock body, els;
    struct jmacro_sig *sig; /* N_MACRO, N_CALLBLOCK, N_GENERATION */
    struct jscope *scope, *test_scope, *els_scope;
    struct jvar loop_var; /* N_FOR */
};

/* How a slot is filled when its scope is entered. */
enum jload { LOAD_PARAM, LOAD_RESOLVE, LOAD_ALIAS, LOAD_UNDEFINED };

struct jsym {
    const char *name;
    struct jval key; /* the name as a string, for LOAD_RESOLVE */
    enum jload load;
    uint32_t stored; /* when it was first assigned to, counted by the binder; 0: never */
    uint32_t slot;
    struct jvar from; /* LOAD_ALIAS, seen from this scope's function */
};

/* One function of the template: the template itself, a macro's or a call block's body. */
struct jfunc {
    struct jfunc *parent;
    uint32_t n_slots;
};

struct jscope {
    struct jscope *parent;
    struct jfunc *func;
    struct jsym *syms;
    uint32_t n, cap;
};

struct jinja {
    struct arena arena;
    struct jblock body;
    struct jscope *scope;
    struct jfunc *func;
    struct jval reads; /* dict: the names that are looked up in the render's variables */
};

/* jinja_parse.c */
struct jparser {
    struct arena *a;
    const struct jtok *toks;
    size_t n_toks, at;
    unsigned nesting; /* of the parser's own recursion */
    unsigned loops;   /* for statements around, up to the next macro body */
    struct err *e;
};

int jinja_parse(struct arena *a, const struct jtok *toks, size_t n, struct jblock *body,
                struct err *e);

/* jinja_parse_expr.c. Flags say what may follow or be in an expression. */
enum { PARSE_NO_COND = 1, PARSE_TARGET = 2, PARSE_PARENS = 4, PARSE_NSREF = 8 };

int parse_expression(struct jparser *p, struct jnode **out);
int parse_tuple(struct jparser *p, int flags, const char *end_name, struct jnode **out);
/* A chain of |filters. */
int parse_filters(struct jparser *p, struct jnode *subject, bool first_is_inline,
                  struct jnode **out);

/* jinja_parse_primary.c */
int parse_primary(struct jparser *p, int flags, struct jnode **out);
/* Calls, attributes, subscripts; then filters and tests. */
int parse_postfix(struct jparser *p, struct jnode **n);
int parse_filter_expr(struct jparser *p, struct jnode **n);

/* The parser's tools. */
const struct jtok *tok_now(const struct jparser *p);
const struct jtok *tok_next(const struct jparser *p);
void tok_skip(struct jparser *p);
bool tok_is_op(const struct jtok *t, int op);
bool tok_is_name(const struct jtok *t, const char *name);
bool tok_skip_op(struct jparser *p, int op);
bool tok_skip_name(struct jparser *p, const char *name);
int tok_expect_op(struct jparser *p, int op);
int tok_expect_name(struct jparser *p, const char **name);
int parse_fail(const struct jparser *p, int code, const char *what);
int parse_unexpected(const struct jparser *p, const char *wanted);
int parse_nomem(const struct jparser *p);
int parse_enter(struct jparser *p);
struct jnode *node_new(struct jparser *p, enum jnode_kind kind, uint32_t line);
/* Sets the depth from the children; an error when it is past the limit. */
int node_close(struct jparser *p, struct jnode *n);

/* A list that grows in the arena while a construct is read. */
struct jnodes {
    struct jnode **v;
    uint32_t n, cap;
};
int nodes_add(struct jparser *p, struct jnodes *l, struct jnode *n);

/* jinja_scope.c: gives every variable its slot, by the rules of jinja2's idtracking. */
int jinja_bind(struct jinja *j, struct err *e);

/* What filters, tests and methods there are (jinja_names.c). The index is what the evaluator
 * switches on; -1: no such name. *known: jinja2 has it, but it is not supported here. */
int jinja_filter_find(const char *name, bool *known);
int jinja_test_find(const char *name, bool *known);
/* A method of Python's str, list or dict that is not supported here. */
bool jinja_method_unsupported(const char *name);
bool jinja_global_unsupported(const char *name);

#endif
