/* subset.h: rules made deterministic, one after another, into one list of states. For automaton.c
 * alone; transitions are still lists of byte ranges. State 0 is dead. */
#ifndef ARGOSY_GRAMMAR_SUBSET_H
#define ARGOSY_GRAMMAR_SUBSET_H

#include "runtime/grammar/automaton.h"
#include "runtime/grammar/nfa.h"

struct subset_edge {
    uint8_t lo, hi;
    uint32_t to;
};

struct subset_state {
    uint32_t members, n_members; /* states of the NFA, sorted */
    uint32_t edges, n_edges;
    uint32_t calls, n_calls;
    bool accepts;
    bool lives; /* can reach its rule's end */
};

struct subset {
    struct syntax *y; /* borrowed */
    struct nfa nfa;
    struct subset_state *states;
    uint32_t n_states, cap_states;
    struct subset_edge *edges;
    uint32_t n_edges, cap_edges;
    struct automaton_call *calls;
    uint32_t n_calls, cap_calls;
    /* Scratch of one rule. */
    uint32_t *members;
    uint32_t n_members, cap_members;
    uint32_t *table; /* hash of members to state, open addressing */
    uint32_t table_size;
    uint32_t *stamp; /* by NFA state: the last closure that saw it */
    uint32_t *work;
    uint32_t stamps, cap_stamp;
    uint32_t now;
};

void subset_init(struct subset *s, struct syntax *y);
void subset_release(struct subset *s);
/* The start state; 0 when the rule matches nothing, or on a fault. */
uint32_t subset_add_rule(struct subset *s, uint32_t body);

#endif
