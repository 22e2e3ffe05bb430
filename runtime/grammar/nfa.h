/* nfa.h: the automaton of one rule before it is made deterministic (Thompson's construction, built
 * from the end to the start, so that nothing is patched). For automaton.c alone. */
#ifndef ARGOSY_GRAMMAR_NFA_H
#define ARGOSY_GRAMMAR_NFA_H

#include "runtime/grammar/syntax.h"

enum nfa_kind { NFA_DEAD, NFA_ACCEPT, NFA_SPLIT, NFA_RANGE, NFA_CALL };

struct nfa_state {
    uint8_t kind;
    uint8_t lo, hi; /* NFA_RANGE */
    uint32_t out;   /* the state after it */
    uint32_t out2;  /* NFA_SPLIT: the other way */
    uint32_t rule;  /* NFA_CALL */
};

struct nfa {
    struct syntax *y;       /* borrowed */
    const bool *nullable;   /* by node: matches the empty string */
    const bool *productive; /* by node: matches anything at all */
    struct nfa_state *states;
    uint32_t n, cap;
};

/* State 0 is dead, state 1 accepts. Returns the start; 0 when it matches nothing, or on a fault. */
uint32_t nfa_build(struct nfa *nfa, uint32_t body);

#endif
