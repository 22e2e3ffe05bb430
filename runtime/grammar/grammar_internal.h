/* grammar_internal.h: what a compiled grammar is. For grammar.c and recogniser.c alone. */
#ifndef ARGOSY_GRAMMAR_GRAMMAR_INTERNAL_H
#define ARGOSY_GRAMMAR_GRAMMAR_INTERNAL_H

#include "runtime/grammar/automaton.h"
#include "runtime/grammar/grammar.h"

struct grammar {
    const struct token_trie *trie; /* borrowed */
    struct grammar_limits limits;
    struct automaton a;
    uint32_t root; /* rule */
};

#endif
