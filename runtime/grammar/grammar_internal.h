/* grammar_internal.h: what a compiled grammar is. For grammar.c and recogniser.c alone. */
#ifndef ARGOSY_GRAMMAR_GRAMMAR_INTERNAL_H
#define ARGOSY_GRAMMAR_GRAMMAR_INTERNAL_H

#include "runtime/grammar/automaton.h"
#include "runtime/grammar/grammar.h"
#include "runtime/grammar/reach.h"

struct grammar {
    const struct token_trie *trie; /* borrowed */
    struct grammar_limits limits;
    struct automaton a;
    struct reaches *reaches; /* what has been found out about a's states */
    uint32_t root;           /* rule */
};

#endif
