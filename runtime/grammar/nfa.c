/* nfa.c: see nfa.h. */
#include "runtime/grammar/nfa.h"

#include <stdlib.h>

static uint32_t add(struct nfa *f, struct nfa_state st)
{
    struct syntax *y = f->y;
    if (!syntax_spend(y, 1))
        return 0;
    if (f->n >= 4 * (uint64_t)y->limits->states_max)
        return syntax_fault(y, ERR_LIMIT, "expands to more than %u states", y->limits->states_max);
    if (f->n == f->cap) {
        uint32_t cap = f->cap ? 2 * f->cap : 256;
        struct nfa_state *grown = realloc(f->states, cap * sizeof *grown);
        if (!grown)
            return syntax_fault(y, ERR_NOMEM, "no memory");
        f->states = grown;
        f->cap = cap;
    }
    f->states[f->n] = st;
    return f->n++;
}

static uint32_t split(struct nfa *f, uint32_t a, uint32_t b)
{
    if (a == b || !a || !b)
        return a ? a : b;
    return add(f, (struct nfa_state){.kind = NFA_SPLIT, .out = a, .out2 = b});
}

static uint32_t emit(struct nfa *f, uint32_t node, uint32_t next);

static uint32_t emit_many(struct nfa *f, uint32_t node, uint32_t next)
{
    uint32_t loop = add(f, (struct nfa_state){.kind = NFA_SPLIT, .out2 = next});
    uint32_t body = emit(f, node, loop);
    if (loop)
        f->states[loop].out = body;
    return loop;
}

static uint32_t emit_repeat(struct nfa *f, const struct syntax_node *nd, uint32_t next)
{
    uint32_t at = next;
    if (nd->max == SYNTAX_MANY)
        at = emit_many(f, nd->a, next);
    for (uint32_t i = nd->min; nd->max != SYNTAX_MANY && i < nd->max; i++) {
        if (!syntax_spend(f->y, 1))
            return 0;
        at = split(f, emit(f, nd->a, at), next);
    }
    for (uint32_t i = 0; i < nd->min; i++) {
        if (!syntax_spend(f->y, 1))
            return 0;
        at = emit(f, nd->a, at);
    }
    return at;
}

/* From the last item to the first, with two states before each: nothing was written yet, or a
 * separator is due. */
static uint32_t emit_list(struct nfa *f, const struct syntax_node *nd, uint32_t next)
{
    const uint32_t *kids = f->y->kids + nd->a;
    uint32_t sep = kids[0], more = kids[1], bare = next, due = next;
    if (more != SYNTAX_FAIL && f->productive[more]) {
        uint32_t loop = add(f, (struct nfa_state){.kind = NFA_SPLIT, .out2 = next});
        uint32_t item = emit(f, more, loop);
        uint32_t after = emit(f, sep, item);
        if (loop)
            f->states[loop].out = after;
        due = loop;
        bare = split(f, item, next);
    }
    for (uint32_t i = nd->b; i > 2; i -= 2) {
        bool required = kids[i - 1] == SYNTAX_EMPTY;
        uint32_t item = emit(f, kids[i - 2], due);
        uint32_t after = emit(f, sep, item);
        due = required ? after : split(f, after, due);
        bare = required ? item : split(f, item, bare);
    }
    return bare;
}

static uint32_t emit(struct nfa *f, uint32_t node, uint32_t next)
{
    struct syntax *y = f->y;
    if (y->failed || !next || !f->productive[node])
        return 0;
    struct syntax_node nd = y->nodes[node];
    uint32_t at = next;
    switch (nd.op) {
    case SYNTAX_OP_EMPTY:
        return next;
    case SYNTAX_OP_RANGE:
        return add(f,
                   (struct nfa_state){
                       .kind = NFA_RANGE, .lo = (uint8_t)nd.a, .hi = (uint8_t)nd.b, .out = next});
    case SYNTAX_OP_LIT:
        for (uint32_t i = nd.b; i-- > 0 && at;) {
            uint8_t b = (uint8_t)y->text[nd.a + i];
            at = add(f, (struct nfa_state){.kind = NFA_RANGE, .lo = b, .hi = b, .out = at});
        }
        return at;
    case SYNTAX_OP_CAT:
        for (uint32_t i = nd.b; i-- > 0;)
            at = emit(f, y->kids[nd.a + i], at);
        return at;
    case SYNTAX_OP_ALT:
        at = 0;
        for (uint32_t i = nd.b; i-- > 0;)
            at = split(f, emit(f, y->kids[nd.a + i], next), at);
        return at;
    case SYNTAX_OP_REPEAT:
        return emit_repeat(f, &nd, next);
    case SYNTAX_OP_CALL:
        at = add(f, (struct nfa_state){.kind = NFA_CALL, .rule = nd.a, .out = next});
        return f->nullable[node] ? split(f, at, next) : at;
    case SYNTAX_OP_LIST:
        return emit_list(f, &nd, next);
    default:
        return 0;
    }
}

uint32_t nfa_build(struct nfa *f, uint32_t body)
{
    f->n = 0;
    add(f, (struct nfa_state){.kind = NFA_DEAD});
    uint32_t accept = add(f, (struct nfa_state){.kind = NFA_ACCEPT});
    uint32_t start = emit(f, body, accept);
    return f->y->failed ? 0 : start;
}
