/* syntax.c: see syntax.h. */
#include "runtime/grammar/syntax.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void syntax_init(struct syntax *y, const struct grammar_limits *limits, struct err *e)
{
    memset(y, 0, sizeof *y);
    y->limits = limits;
    y->e = e;
    y->cap_nodes = 64;
    y->nodes = calloc(y->cap_nodes, sizeof *y->nodes);
    if (!y->nodes) {
        syntax_fault(y, ERR_NOMEM, "no memory");
        return;
    }
    y->nodes[SYNTAX_FAIL] = (struct syntax_node){.op = SYNTAX_OP_FAIL, .height = 1};
    y->nodes[SYNTAX_EMPTY] = (struct syntax_node){.op = SYNTAX_OP_EMPTY, .height = 1};
    y->n_nodes = 2;
}

void syntax_release(struct syntax *y)
{
    free(y->nodes);
    free(y->kids);
    free(y->text);
    free(y->rules);
    memset(y, 0, sizeof *y);
}

uint32_t syntax_fault(struct syntax *y, int code, const char *fmt, ...)
{
    if (y->failed)
        return SYNTAX_FAIL;
    y->failed = true;
    char msg[ERR_MSG_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    err_set(y->e, code, "%s", msg);
    return SYNTAX_FAIL;
}

bool syntax_spend(struct syntax *y, uint64_t n)
{
    y->steps += n;
    if (y->steps > y->limits->steps_max)
        syntax_fault(y, ERR_LIMIT, "takes more than %llu steps to compile",
                     (unsigned long long)y->limits->steps_max);
    return !y->failed;
}

/* Room for n more elements; all counts stay below syntax_max times a small number. */
static bool grow(struct syntax *y, void **p, uint32_t *cap, uint32_t used, size_t n, size_t size)
{
    if (y->failed || !syntax_spend(y, 1 + n))
        return false;
    if (n > y->limits->syntax_max || used + n > 4 * (uint64_t)y->limits->syntax_max) {
        syntax_fault(y, ERR_LIMIT, "grows past %u pieces", y->limits->syntax_max);
        return false;
    }
    if (used + n <= *cap)
        return true;
    size_t want = 2 * (used + n) + 16;
    void *grown = realloc(*p, want * size);
    if (!grown) {
        syntax_fault(y, ERR_NOMEM, "no memory");
        return false;
    }
    *p = grown;
    *cap = (uint32_t)want;
    return true;
}

static uint32_t add(struct syntax *y, struct syntax_node node)
{
    if (!grow(y, (void **)&y->nodes, &y->cap_nodes, y->n_nodes, 1, sizeof *y->nodes))
        return SYNTAX_FAIL;
    if (y->n_nodes >= y->limits->syntax_max)
        return syntax_fault(y, ERR_LIMIT, "grows past %u pieces", y->limits->syntax_max);
    /* Room for the automaton's recursion: some levels of syntax make one level of the source. */
    if (node.height > 32000 || node.height > 8 * y->limits->depth_max)
        return syntax_fault(y, ERR_LIMIT, "nests deeper than %u", y->limits->depth_max);
    y->nodes[y->n_nodes] = node;
    return y->n_nodes++;
}

uint32_t syntax_range(struct syntax *y, uint8_t lo, uint8_t hi)
{
    return add(y, (struct syntax_node){.op = SYNTAX_OP_RANGE, .height = 1, .a = lo, .b = hi});
}

uint32_t syntax_lit(struct syntax *y, const char *bytes, size_t n)
{
    if (!n)
        return SYNTAX_EMPTY;
    if (!grow(y, (void **)&y->text, &y->cap_text, y->n_text, n, 1))
        return SYNTAX_FAIL;
    memcpy(y->text + y->n_text, bytes, n);
    uint32_t at = y->n_text;
    y->n_text += (uint32_t)n;
    return add(y,
               (struct syntax_node){.op = SYNTAX_OP_LIT, .height = 1, .a = at, .b = (uint32_t)n});
}

uint32_t syntax_str(struct syntax *y, const char *s)
{
    return syntax_lit(y, s, strlen(s));
}

static uint32_t add_family(struct syntax *y, enum syntax_op op, const uint32_t *nodes, size_t n)
{
    if (!grow(y, (void **)&y->kids, &y->cap_kids, y->n_kids, n, sizeof *y->kids))
        return SYNTAX_FAIL;
    uint32_t height = 0;
    for (size_t i = 0; i < n; i++) {
        y->kids[y->n_kids + i] = nodes[i];
        uint32_t h = y->nodes[nodes[i]].height;
        height = h > height ? h : height;
    }
    uint32_t at = y->n_kids;
    y->n_kids += (uint32_t)n;
    return add(y,
               (struct syntax_node){
                   .op = (uint8_t)op, .height = (uint16_t)(height + 1), .a = at, .b = (uint32_t)n});
}

uint32_t syntax_cat(struct syntax *y, const uint32_t *nodes, size_t n)
{
    if (n == 1)
        return nodes[0];
    return n ? add_family(y, SYNTAX_OP_CAT, nodes, n) : SYNTAX_EMPTY;
}

uint32_t syntax_alt(struct syntax *y, const uint32_t *nodes, size_t n)
{
    if (n == 1)
        return nodes[0];
    return n ? add_family(y, SYNTAX_OP_ALT, nodes, n) : SYNTAX_FAIL;
}

uint32_t syntax_cat2(struct syntax *y, uint32_t a, uint32_t b)
{
    if (a == SYNTAX_EMPTY || b == SYNTAX_EMPTY)
        return a == SYNTAX_EMPTY ? b : a;
    return syntax_cat(y, (uint32_t[]){a, b}, 2);
}

uint32_t syntax_cat3(struct syntax *y, uint32_t a, uint32_t b, uint32_t c)
{
    return syntax_cat(y, (uint32_t[]){a, b, c}, 3);
}

uint32_t syntax_alt2(struct syntax *y, uint32_t a, uint32_t b)
{
    if (a == SYNTAX_FAIL || b == SYNTAX_FAIL)
        return a == SYNTAX_FAIL ? b : a;
    return syntax_alt(y, (uint32_t[]){a, b}, 2);
}

uint32_t syntax_repeat(struct syntax *y, uint32_t a, uint32_t min, uint32_t max)
{
    if (y->failed)
        return SYNTAX_FAIL;
    if (max == 0 || a == SYNTAX_EMPTY)
        return SYNTAX_EMPTY;
    if (min == 1 && max == 1)
        return a;
    return add(y, (struct syntax_node){.op = SYNTAX_OP_REPEAT,
                                       .height = (uint16_t)(y->nodes[a].height + 1),
                                       .a = a,
                                       .min = min,
                                       .max = max});
}

uint32_t syntax_optional(struct syntax *y, uint32_t a)
{
    return syntax_repeat(y, a, 0, 1);
}

uint32_t syntax_call(struct syntax *y, uint32_t rule)
{
    return add(y, (struct syntax_node){.op = SYNTAX_OP_CALL, .height = 1, .a = rule});
}

uint32_t syntax_list(struct syntax *y, const struct syntax_item *items, size_t n, uint32_t sep,
                     uint32_t more)
{
    uint32_t *kids = calloc(2 * n + 2, sizeof *kids);
    if (!kids)
        return syntax_fault(y, ERR_NOMEM, "no memory");
    /* sep, more, then a pair for each item: its node and whether it must be there. */
    kids[0] = sep;
    kids[1] = more;
    for (size_t i = 0; i < n; i++) {
        kids[2 + 2 * i] = items[i].node;
        kids[3 + 2 * i] = items[i].required ? SYNTAX_EMPTY : SYNTAX_FAIL;
    }
    uint32_t list = add_family(y, SYNTAX_OP_LIST, kids, 2 * n + 2);
    free(kids);
    return list;
}

uint32_t syntax_rule(struct syntax *y)
{
    if (!grow(y, (void **)&y->rules, &y->cap_rules, y->n_rules, 1, sizeof *y->rules))
        return SYNTAX_MANY;
    y->rules[y->n_rules] = SYNTAX_FAIL;
    return y->n_rules++;
}

void syntax_define(struct syntax *y, uint32_t rule, uint32_t body)
{
    if (rule < y->n_rules)
        y->rules[rule] = body;
}
