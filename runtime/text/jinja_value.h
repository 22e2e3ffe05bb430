/* jinja_value.h: the values of a template: Python's, as far as templates can tell.
 *
 * A struct jval is 16 bytes and passed by value; what it points at lies in an arena and is
 * immutable, but for namespaces, iterators and loops. Strings are valid UTF-8, are not
 * NUL-terminated, and share bytes when one is a slice of another.
 */
#ifndef ARGOSY_TEXT_JINJA_VALUE_H
#define ARGOSY_TEXT_JINJA_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/arena.h"
#include "runtime/base/err.h"

enum jtype {
    JT_MISSING, /* a variable's slot that holds nothing; never seen by an expression */
    JT_UNDEF,
    JT_NONE,
    JT_BOOL,
    JT_INT,
    JT_FLOAT,
    JT_STR,
    JT_LIST,
    JT_TUPLE,
    JT_DICT,
    JT_RANGE,
    JT_VIEW,  /* dict.keys(), .values(), .items() */
    JT_ITER,  /* one-shot: what generators and reversed() give */
    JT_NS,    /* namespace() */
    JT_LOOP,  /* the `loop` of a for */
    JT_MACRO, /* a macro, or the `caller` of a call block */
    JT_FUNC,  /* a global function */
    JT_METHOD /* a method bound to its object */
};

struct json_object; /* json-c's */
struct jstr;
struct jlist;
struct jdict;
struct jrange;
struct jview;
struct jiter;
struct jloop;
struct jmacro;
struct jmethod;
struct jundef;

struct jval {
    uint8_t type; /* enum jtype */
    bool markup;  /* JT_STR: went through |safe, so that + escapes what is added */
    uint8_t func; /* JT_FUNC: which one */
    union {
        bool b;
        int64_t i;
        double f;
        const struct jstr *s;
        const struct jlist *list; /* also tuples */
        struct jdict *dict;       /* also namespaces */
        const struct jrange *range;
        const struct jview *view;
        struct jiter *iter;
        struct jloop *loop;
        const struct jmacro *macro;
        const struct jmethod *method;
        const struct jundef *undef; /* may be NULL */
    };
};

struct jstr {
    const char *p;
    uint32_t n;     /* bytes */
    uint32_t chars; /* code points */
};

struct jlist {
    struct jval *v;
    uint32_t n;
};

struct jdict {
    struct jval *keys;
    struct jval *vals;
    uint32_t n;
    uint32_t cap;
    uint32_t *index; /* open addressing, 0 or position + 1; NULL while small */
    uint32_t index_cap;
};

struct jrange {
    int64_t start, stop, step;
    uint32_t n;
};

enum jview_kind { JV_KEYS, JV_VALUES, JV_ITEMS };

struct jview {
    enum jview_kind kind;
    const struct jdict *dict;
};

/* What an undefined value says when it is used. */
struct jundef {
    const char *hint;  /* the whole message, or NULL */
    const char *owner; /* type of the object without that attribute, or NULL: a variable */
    const char *name;
};

struct jval jval_none(void);
struct jval jval_bool(bool b);
struct jval jval_int(int64_t i);
struct jval jval_float(double f);
struct jval jval_undef(void);
bool jval_is_number(struct jval v); /* bool, int or float */

/* The allocating functions return false when the arena is full. */
bool jval_strn(struct arena *a, const char *p, size_t n, struct jval *out); /* copies */
bool jval_str(struct arena *a, const char *s, struct jval *out);            /* copies */
/* Borrows: p lives at least as long as the arena. chars: UINT32_MAX counts them. */
bool jval_str_borrow(struct arena *a, const char *p, size_t n, uint32_t chars, struct jval *out);
/* A list or tuple of n slots, all None, to be filled by the maker. */
bool jval_seq(struct arena *a, enum jtype type, uint32_t n, struct jval *out);
bool jval_dict(struct arena *a, uint32_t cap, struct jval *out);

/* Keys compare as in Python: 1, 1.0 and True are one key. False: out of memory. */
bool jdict_set(struct arena *a, struct jdict *d, struct jval key, struct jval val);
/* NULL when it is not there. The key must be hashable (jval_hashable). */
struct jval *jdict_get(const struct jdict *d, struct jval key);
struct jval *jdict_get_cstr(const struct jdict *d, const char *key);
/* Keys hold at most 64 values, counting those in tuples. */
bool jval_hashable(struct jval v);

/* Python's ==, for what can be a key. Lists and dicts are equal to themselves alone: rt_equal. */
bool jval_equal(struct jval a, struct jval b);

/* Python's name of the type: "str", "dict", "NoneType". */
const char *jval_type_name(struct jval v);

/* A JSON value as Python's json.loads would give it. ERR_FORMAT: invalid UTF-8. ERR_LIMIT: past
 * 64 bits or nested deeper than 100. Strings are borrowed from the JSON value. */
int jval_from_json(struct arena *a, struct json_object *o, struct jval *out, struct err *e);

#endif
