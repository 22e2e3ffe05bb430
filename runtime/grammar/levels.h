/* levels.h: how many characters of each slice a state takes. For automaton.c alone. */
#ifndef ARGOSY_GRAMMAR_LEVELS_H
#define ARGOSY_GRAMMAR_LEVELS_H

#include "runtime/grammar/automaton.h"

/* Fills `takes` and `outlives` of every state. False: y has a fault. */
bool levels_compute(struct automaton *a, struct syntax *y);

#endif
