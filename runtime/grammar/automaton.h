/* automaton.h: rules as deterministic automata that call each other.
 *
 * Each rule becomes an automaton over bytes and calls, made deterministic by subsets: of the
 * readings of one rule's bytes exactly one state is left. Every state left can still reach its
 * rule's end, so a path that hasn't died can be completed. All rules share one transition table
 * over classes of bytes. A rule that may match nothing is stepped over where it is called, so a
 * call need only ever succeed with at least one byte.
 *
 * Immutable once built. Memory: malloc'd, automaton_release frees.
 */
#ifndef ARGOSY_GRAMMAR_AUTOMATON_H
#define ARGOSY_GRAMMAR_AUTOMATON_H

#include "runtime/grammar/syntax.h"
#include "runtime/grammar/token_trie.h"

#define AUTOMATON_DEAD 0u

enum automaton_flag {
    AUTOMATON_ACCEPTS = 1, /* the rule may end here */
    AUTOMATON_CALLS = 2,   /* it has calls */
    AUTOMATON_LAST = 4     /* the rule can only end here */
};

struct automaton_call {
    uint32_t rule;
    uint32_t then; /* the state after it */
};

struct automaton_state {
    uint8_t flags;
    /* By slice: any `takes` characters of it keep the automaton alive; no more than `outlives` do
     * (TRIE_CHARS_MAX - 1: more than any token has, or the rule may end on the way). */
    uint8_t takes[TRIE_REST];
    uint8_t outlives[TRIE_REST];
    uint32_t calls, n_calls; /* in automaton.calls */
};

struct automaton {
    uint32_t n_states, n_classes, n_calls, n_rules;
    struct automaton_state *states;
    uint32_t *next; /* (n_states, n_classes) */
    struct automaton_call *calls;
    uint32_t *starts; /* by rule */
    uint8_t class_of[256];
};

static inline uint32_t automaton_next(const struct automaton *a, uint32_t state, uint8_t byte)
{
    return a->next[(size_t)state * a->n_classes + a->class_of[byte]];
}

/* From y's rules, `root` being where a match starts. Faults go to y. 0 or y->e's code; a is empty
 * after a failure. */
int automaton_init(struct automaton *a, struct syntax *y, uint32_t root);
void automaton_release(struct automaton *a);
size_t automaton_memory_bytes(const struct automaton *a);

#endif
