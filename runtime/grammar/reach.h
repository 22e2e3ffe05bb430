/* reach.h: what one state of an automaton lets follow, as far as its own rule says.
 *
 * A mask is the union over the readings that stand; for each it is the tokens that stay inside its
 * rule, whoever called that, and those that leave the rule on the way: by its end or by a call.
 * The first are a list or a bitmap for each state, found once and shared by all sequences; where
 * the others leave is a list of places in the trie, from which recogniser.c goes on with what is
 * open above.
 *
 * Threads: any, without a lock; who finds a state's reach publishes it, a second one is thrown
 * away. What is found depends on automaton and trie alone, so a mask never depends on what is
 * there already. Memory: up to `bytes_max`; past it a reach is found anew each time.
 */
#ifndef ARGOSY_GRAMMAR_REACH_H
#define ARGOSY_GRAMMAR_REACH_H

#include "runtime/grammar/automaton.h"

/* Behind node `node` of a slice's tree the rule is in `state`, which has an end or calls. Where no
 * token goes on there, the node stands for all such: that the stack has room is still to be seen.
 */
struct reach_exit {
    uint32_t state;
    uint32_t node;
    uint32_t slice;
};

struct reach {
    uint32_t *tokens; /* (n_tokens); with a mask unused */
    uint32_t n_tokens;
    uint32_t *mask;           /* or NULL */
    struct reach_exit *exits; /* (n_exits), by state */
    uint32_t n_exits;
    size_t bytes;
};

struct reaches;

int reaches_create(uint32_t n_states, size_t bytes_max, struct reaches **out, struct err *e);
/* NULL is fine. */
void reaches_free(struct reaches *r);
size_t reaches_memory_bytes(const struct reaches *r);

/* Finds those of some states that take any text: the ones that cost most, and that come up first.
 * For the time of compiling, so that the first mask finds them there. */
void reaches_prepare(struct reaches *r, const struct automaton *a, const struct token_trie *trie);

/* NULL: no memory. *own is NULL, or what the caller has to reach_free. */
const struct reach *reaches_get(struct reaches *r, const struct automaton *a,
                                const struct token_trie *trie, uint32_t state, struct reach **own);
void reach_free(struct reach *r);

#endif
