/* jinja_rt.h: inside the template interpreter: one render.
 *
 * Functions return 0 or a negative enum err_code and have filled rt->e then. Values are made in
 * rt->a and never freed before the render's end; rt_charge bounds the work, the arena the memory.
 */
#ifndef ARGOSY_TEXT_JINJA_RT_H
#define ARGOSY_TEXT_JINJA_RT_H

#include "runtime/text/jinja.h"
#include "runtime/text/jinja_ast.h"

struct jrt {
    const struct jinja *j;
    struct arena *a;
    struct buf *out; /* captured blocks are its tail, until they are taken off again */
    size_t out_start;
    const struct jinja_limits *lim;
    const struct jdict *vars;
    int64_t now_s;
    uint64_t steps;
    /* The last string that was put together, with room behind it: a template that adds to one
     * string piece by piece does not copy it each time. */
    struct {
        char *p;
        size_t n, cap;
    } tail;
    unsigned depth;
    bool raised; /* raise_exception: its message stays as it is */
    bool placed; /* the message names its line */
    struct err *e;
};

/* One activation of a function: its variables, and those of the function around it. */
struct jframe {
    struct jframe *parent;
    struct jval *slots;
};

struct jmacro {
    const struct jnode *node;
    struct jframe *frame; /* where it was defined */
};

struct jargs {
    struct jval *v;
    uint32_t n;
    const char **names; /* of the keyword arguments */
    struct jval *kw;
    uint32_t n_kw;
};

struct jmethod {
    int id; /* jinja_methods.c */
    struct jval self;
};

enum jiter_kind {
    ITER_SEQ,   /* a list or tuple */
    ITER_CHARS, /* of a string */
    ITER_KEYS,
    ITER_VALUES,
    ITER_ITEMS,
    ITER_RANGE,
    ITER_REVERSED, /* a list, from its end */
    ITER_MAP,      /* src through a filter or an attribute */
    ITER_SELECT,   /* of src what passes a test */
    ITER_MADE,     /* what `make` gives, called when the first item is wanted */
    ITER_FOR_TEST  /* of src what passes a for's `if` */
};

struct jiter {
    enum jiter_kind kind;
    uint32_t at;
    struct jval src;    /* what is walked; for the last three: an iterator itself, once begun */
    struct jiter *from; /* the last three */
    bool begun, reject;
    bool by_attr;          /* map(attribute=…), selectattr, rejectattr */
    struct jval attr, def; /* def: JT_MISSING when none is given */
    int builtin;           /* filter or test; -1: truth */
    struct jargs args;
    int (*make)(struct jrt *rt, struct jargs *args, struct jval *out); /* ITER_MADE */
    struct jframe *frame;                                              /* ITER_FOR_TEST */
    const struct jnode *node;
};

struct jloop {
    struct jiter *it;
    struct jval iterable;
    int64_t index0;
    int64_t length; /* -1: not asked for yet */
    struct jval before, current, after;
    struct jval changed; /* a tuple of what loop.changed() saw last */
};

/* ---- errors and limits (jinja.c) ------------------------------------------------------------- */
int rt_fail(struct jrt *rt, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int rt_unsupported(struct jrt *rt, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int rt_nomem(struct jrt *rt);
int rt_overflow(struct jrt *rt);
/* Counts n steps. */
int rt_charge(struct jrt *rt, uint64_t n);
/* Counts the work of looking at so many bytes, or only of copying them. */
int rt_charge_bytes(struct jrt *rt, size_t bytes);
int rt_charge_copy(struct jrt *rt, size_t bytes);
/* And of a look-up. */
int rt_charge_key(struct jrt *rt, const struct jdict *d, struct jval key);
int rt_enter(struct jrt *rt);
void rt_leave(struct jrt *rt);
/* Begins a captured block: what is written from here on is taken off as a string. */
size_t rt_capture(struct jrt *rt);
int rt_capture_end(struct jrt *rt, size_t mark, struct jval *out);
/* Strings made for a render. */
int rt_strn(struct jrt *rt, const char *p, size_t n, struct jval *out);
int rt_str(struct jrt *rt, const char *s, struct jval *out);
/* A part of s, which shares its bytes; keeps the markup flag. */
int rt_slice(struct jrt *rt, struct jval s, size_t at, size_t n, struct jval *out);
int rt_seq(struct jrt *rt, enum jtype type, uint32_t n, struct jval *out);
int rt_undef_attr(struct jrt *rt, struct jval owner, struct jval name, struct jval *out);
int rt_undef_hint(struct jrt *rt, const char *hint, struct jval *out);
/* The message of an undefined value that was used. */
int rt_undef_used(struct jrt *rt, struct jval v);

/* ---- statements (jinja_exec.c) ----------------------------------------------------------------
 */
int rt_run(struct jrt *rt);
int rt_macro_call(struct jrt *rt, const struct jmacro *m, struct jargs *args, struct jval *out);
/* Assigns to a name, namespace attribute or tuple of them. */
int rt_assign(struct jrt *rt, struct jframe *f, const struct jnode *target, struct jval v);
int rt_scope_enter(struct jrt *rt, struct jframe *f, const struct jscope *s);

/* ---- expressions (jinja_eval.c) ----------------------------------------------------------------
 */
int rt_eval(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jval *out);
int rt_eval_args(struct jrt *rt, struct jframe *f, const struct jnode *n, struct jargs *args);
int rt_getattr(struct jrt *rt, struct jval obj, struct jval name, struct jval *out);
int rt_getitem(struct jrt *rt, struct jval obj, struct jval key, struct jval *out);
/* getattr(obj, name) alone, without the fall back to obj[name]. */
int rt_own_attr(struct jrt *rt, struct jval obj, const struct jstr *name, bool *found,
                struct jval *out);
int rt_call(struct jrt *rt, struct jval fn, struct jargs *args, struct jval *out);

/* ---- operators (jinja_ops.c, jinja_seq.c)
 * --------------------------------------------------------------------
 */
int rt_truth(struct jrt *rt, struct jval v, bool *out);
int rt_binop(struct jrt *rt, int op, struct jval a, struct jval b, struct jval *out);
int rt_negate(struct jrt *rt, struct jval v, bool minus, struct jval *out);
int rt_compare(struct jrt *rt, int op, struct jval a, struct jval b, bool *out);
/* Python's ==, of any depth: counted. */
int rt_equal(struct jrt *rt, struct jval a, struct jval b, bool *out);
int rt_less(struct jrt *rt, struct jval a, struct jval b, bool *out);
int rt_in(struct jrt *rt, struct jval needle, struct jval hay, bool *out);
int rt_slice_of(struct jrt *rt, struct jval obj, const struct jval part[3], struct jval *out);
int rt_add_str(struct jrt *rt, struct jval a, struct jval b, struct jval *out);
/* str(v[0]) + str(v[1]) + … */
int rt_concat(struct jrt *rt, struct jval *v, uint32_t n, struct jval *out);
/* Two lists, or two tuples. */
int rt_add_seq(struct jrt *rt, struct jval a, struct jval b, struct jval *out);
int rt_repeat(struct jrt *rt, struct jval v, int64_t times, struct jval *out);
/* len(): ERR_FORMAT when it has none. */
int rt_len(struct jrt *rt, struct jval v, int64_t *n);
bool rt_has_len(struct jval v);
/* An index or count: an int or a bool. */
int rt_index(struct jrt *rt, struct jval v, int64_t *out);
/* What Python's html escaping of markupsafe gives. */
int rt_escape(struct jrt *rt, struct jval v, struct jval *out);

/* ---- text of values (jinja_repr.c, jinja_json.c)
 * ------------------------------------------------- */
/* str(v), as a value; strings come back as they are. */
int rt_to_str(struct jrt *rt, struct jval v, struct jval *out);
/* Appends str(v), or repr(v), to the output. */
int rt_print(struct jrt *rt, struct jval v);
int rt_print_repr(struct jrt *rt, struct jval v);
/* Appends to the output; ERR_LIMIT when it is full. */
int rt_put(struct jrt *rt, const char *p, size_t n);
int rt_puts(struct jrt *rt, const char *s);
int rt_putcp(struct jrt *rt, uint32_t cp);
#define FLOAT_REPR_BYTES 48
void float_repr(double f, char text[FLOAT_REPR_BYTES]);
int rt_tojson(struct jrt *rt, const struct jargs *args, struct jval *out);

/* ---- iteration (jinja_iter.c)
 * ---------------------------------------------------------------------- */
/* iter(v): an error when v cannot be iterated. */
int rt_iter(struct jrt *rt, struct jval v, struct jiter **out);
bool rt_iterable(struct jval v);
/* 1 and a value, 0 at the end, or an error. */
int rt_next(struct jrt *rt, struct jiter *it, struct jval *out);
int rt_iter_value(struct jrt *rt, struct jiter it, struct jval *out);
/* list(v): a fresh list. */
int rt_list(struct jrt *rt, struct jval v, struct jval *out);
int rt_loop_next(struct jrt *rt, struct jloop *l, struct jval *out);
int rt_loop_attr(struct jrt *rt, struct jloop *l, const char *name, struct jval *out);
/* sorted(list, by keys): both have n entries; stable. */
int rt_sort(struct jrt *rt, struct jval *v, struct jval *keys, uint32_t n, bool reverse);
/* The attribute path of map, sort and the like: "a.b.0". */
int rt_attr_path(struct jrt *rt, struct jval item, struct jval path, struct jval def,
                 struct jval *out);

/* ---- what has a name
 * ---------------------------------------------------------------------------------- */
/* jinja_filters*.c: args->v[0] is what is filtered. */
int rt_filter(struct jrt *rt, int id, struct jargs *args, struct jval *out);
int rt_filter_find(struct jrt *rt, struct jval name, int *id);
/* jinja_tests.c */
int rt_test(struct jrt *rt, int id, struct jargs *args, bool *out);
int rt_test_find(struct jrt *rt, struct jval name, int *id);
/* jinja_methods.c: a method of obj; *found is false when its type has none of that name. */
int rt_method_find(struct jrt *rt, struct jval obj, const struct jstr *name, bool *found,
                   struct jval *out);
int rt_method_call(struct jrt *rt, const struct jmethod *m, struct jargs *args, struct jval *out);
/* jinja_globals.c */
bool rt_global(const char *name, struct jval *out);
int rt_global_call(struct jrt *rt, int id, struct jargs *args, struct jval *out);
/* jinja_format.c: "%s" % args, and "{}".format(args). */
int rt_format_percent(struct jrt *rt, struct jval fmt, struct jval args, struct jval *out);
int rt_format_braces(struct jrt *rt, struct jval fmt, const struct jargs *args, struct jval *out);

/* Binds arguments to parameters, in the order of `names` (NULL-terminated), from args->v[from].
 * out[i] is JT_MISSING where nothing was given. An error for too many or unknown ones, or when
 * one of the first n_required is missing. */
int rt_bind_args(struct jrt *rt, const char *what, const struct jargs *args, uint32_t from,
                 const char *const *names, uint32_t n_required, struct jval *out);

/* jinja_strings.c */
int rt_str_case(struct jrt *rt, struct jval s, int how, struct jval *out);
int rt_str_replace(struct jrt *rt, struct jval s, struct jval from, struct jval to, int64_t count,
                   struct jval *out);
int rt_str_strip(struct jrt *rt, struct jval s, struct jval chars, int sides, struct jval *out);
int rt_str_join(struct jrt *rt, struct jval sep, const struct jval *v, uint32_t n,
                struct jval *out);
int rt_str_splitlines(struct jrt *rt, struct jval s, bool keep, struct jval *out);
/* str.islower and str.isupper: one cased character at least, and none of another case. */
bool str_is_case(const struct jstr *s, bool upper);
bool str_find(const struct jstr *s, const struct jstr *what, size_t from, size_t *at);
enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };
enum { CASE_LOWER, CASE_UPPER, CASE_TITLE, CASE_CAPITALIZE, CASE_SWAP };

#endif
