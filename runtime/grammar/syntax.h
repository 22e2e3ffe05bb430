/* syntax.h: what the front ends build and the automaton is made from: rules over bytes.
 *
 * Nodes are numbers; a node's children are made before it. A builder fails once: the first fault is
 * kept, every later call returns SYNTAX_FAIL, and syntax_failed says so at the end.
 * Owner: who called syntax_init. Not thread-safe.
 */
#ifndef ARGOSY_GRAMMAR_SYNTAX_H
#define ARGOSY_GRAMMAR_SYNTAX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"
#include "runtime/grammar/grammar.h"

#define SYNTAX_FAIL 0u  /* matches nothing */
#define SYNTAX_EMPTY 1u /* matches the empty string */
#define SYNTAX_MANY UINT32_MAX

enum syntax_op {
    SYNTAX_OP_FAIL,
    SYNTAX_OP_EMPTY,
    SYNTAX_OP_RANGE,  /* one byte in [a, b] */
    SYNTAX_OP_LIT,    /* b bytes at text + a */
    SYNTAX_OP_CAT,    /* kids[a .. a + b) one after the other */
    SYNTAX_OP_ALT,    /* one of kids[a .. a + b) */
    SYNTAX_OP_REPEAT, /* kid a, min to max times */
    SYNTAX_OP_CALL,   /* rule a */
    SYNTAX_OP_LIST    /* kids[a .. a + b): see syntax_list */
};

struct syntax_node {
    uint8_t op;
    uint16_t height; /* nodes on the longest way down */
    uint32_t a, b;
    uint32_t min, max;
};

struct syntax_item {
    uint32_t node;
    bool required;
};

struct syntax {
    const struct grammar_limits *limits; /* borrowed */
    struct err *e;                       /* borrowed; holds the first fault */
    bool failed;
    uint64_t steps; /* of limits->steps_max, over all of a compilation */
    struct syntax_node *nodes;
    uint32_t n_nodes, cap_nodes;
    uint32_t *kids;
    uint32_t n_kids, cap_kids;
    char *text;
    uint32_t n_text, cap_text;
    uint32_t *rules; /* body of each; SYNTAX_FAIL until defined */
    uint32_t n_rules, cap_rules;
};

void syntax_init(struct syntax *y, const struct grammar_limits *limits, struct err *e);
void syntax_release(struct syntax *y);

/* Records a fault; returns SYNTAX_FAIL. */
uint32_t syntax_fault(struct syntax *y, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Spends n of the budget; false, with the fault recorded, when it is gone. */
bool syntax_spend(struct syntax *y, uint64_t n);

uint32_t syntax_range(struct syntax *y, uint8_t lo, uint8_t hi);
uint32_t syntax_lit(struct syntax *y, const char *bytes, size_t n);
uint32_t syntax_str(struct syntax *y, const char *s);
uint32_t syntax_cat(struct syntax *y, const uint32_t *nodes, size_t n);
uint32_t syntax_alt(struct syntax *y, const uint32_t *nodes, size_t n);
uint32_t syntax_cat2(struct syntax *y, uint32_t a, uint32_t b);
uint32_t syntax_cat3(struct syntax *y, uint32_t a, uint32_t b, uint32_t c);
uint32_t syntax_alt2(struct syntax *y, uint32_t a, uint32_t b);
uint32_t syntax_repeat(struct syntax *y, uint32_t a, uint32_t min, uint32_t max);
uint32_t syntax_optional(struct syntax *y, uint32_t a);
uint32_t syntax_call(struct syntax *y, uint32_t rule);
/* Items in their order with `sep` between those that are there; then any number of `more`, unless
 * it is SYNTAX_FAIL. */
uint32_t syntax_list(struct syntax *y, const struct syntax_item *items, size_t n, uint32_t sep,
                     uint32_t more);

/* A rule's number; SYNTAX_MANY on failure. Its body comes later. */
uint32_t syntax_rule(struct syntax *y);
void syntax_define(struct syntax *y, uint32_t rule, uint32_t body);

#endif
