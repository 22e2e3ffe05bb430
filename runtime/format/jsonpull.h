/* jsonpull.h: reads JSON text a value at a time, without building a tree.
 *
 * For headers of tens of megabytes that are read once: memory is one string. json-c serves where a
 * tree is wanted. The grammar is RFC 8259's; numbers are read as what the caller asks for. Depth is
 * limited. Strings are valid UTF-8, unescaped, valid until the next call.
 *
 *     jsonpull_object(j);
 *     while ((more = jsonpull_key(j, &key)) > 0) ... read or skip one value ...
 *
 * The first fault fills the err that jsonpull_init was given, and every function then returns its
 * negative code. One owner; text is borrowed.
 */
#ifndef ARGOSY_FORMAT_JSONPULL_H
#define ARGOSY_FORMAT_JSONPULL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"

#define JSONPULL_DEPTH_MAX 60

struct jsonpull {
    const char *start, *at, *end;
    const char *what; /* of errors: "tokenizer.json" */
    int depth;
    uint64_t begun;  /* a bit for each depth: something stood there already */
    int failed;      /* 0, or the code of the first fault */
    struct buf text; /* the last string that had escapes */
    struct err *e;
};

struct jsonpull_str {
    const char *s; /* not NUL-terminated */
    size_t n;
};

void jsonpull_init(struct jsonpull *j, const char *text, size_t n, const char *what, struct err *e);
void jsonpull_release(struct jsonpull *j);

/* The first byte of the next value: one of {["tfn, '-' or a digit; 0 at the end or after a fault.
 */
char jsonpull_peek(struct jsonpull *j);

/* Enters an object or an array. */
int jsonpull_object(struct jsonpull *j);
int jsonpull_array(struct jsonpull *j);
/* 1: there is another member, its value comes next; 0: the object has ended. */
int jsonpull_key(struct jsonpull *j, struct jsonpull_str *key);
/* 1: there is another element, it comes next; 0: the array has ended. */
int jsonpull_item(struct jsonpull *j);

int jsonpull_string(struct jsonpull *j, struct jsonpull_str *s);
int jsonpull_u64(struct jsonpull *j, uint64_t *v);
/* Finite. */
int jsonpull_double(struct jsonpull *j, double *v);
int jsonpull_bool(struct jsonpull *j, bool *v);
/* Reads over any value; *raw, where not NULL, is its text. */
int jsonpull_skip(struct jsonpull *j, struct jsonpull_str *raw);
/* Nothing but white space is left. */
int jsonpull_end(struct jsonpull *j);

/* Fails with a message that says where: "tokenizer.json: at byte 17: ...". */
int jsonpull_fail(struct jsonpull *j, int code, const char *words);

bool jsonpull_is(const struct jsonpull_str *s, const char *word);

#endif
