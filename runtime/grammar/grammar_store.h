/* grammar_store.h: the compiled grammars of one vocabulary, shared by all who ask for the same
 * text.
 *
 * What was compiled lately is kept, least recently used out first, within a number and a size; so
 * is what could not be compiled, with the reason. What is in use stays in memory until its last
 * user puts it back, and counts: when all of it together is over a limit, a new one is refused as
 * ERR_BUSY and nothing is lost.
 *
 * A text may ask for hundreds of milliseconds of compiling, so who must not stop for that asks
 * first (grammar_store_ask): the store has a thread of its own that compiles one after the other.
 *
 * Threads: any; one mutex, not held while something is compiled. Ownership: the store owns its trie
 * and its grammars; every entry must have been put back before grammar_store_free.
 */
#ifndef ARGOSY_GRAMMAR_GRAMMAR_STORE_H
#define ARGOSY_GRAMMAR_GRAMMAR_STORE_H

#include "runtime/grammar/grammar.h"

struct grammar_store;
struct grammar_entry;

struct grammar_store_limits {
    uint32_t entries_max;    /* kept, in use or not */
    size_t kept_bytes_max;   /* of those that nobody uses */
    size_t in_use_bytes_max; /* of those that somebody uses */
    struct grammar_limits each;
};

void grammar_store_limits_default(struct grammar_store_limits *l);

int grammar_store_create(const struct tokenizer *t, const struct grammar_store_limits *l,
                         struct grammar_store **out, struct err *e);
/* NULL is fine. */
void grammar_store_free(struct grammar_store *s);
const struct token_trie *grammar_store_trie(const struct grammar_store *s);
size_t grammar_store_memory_bytes(struct grammar_store *s);

#define GRAMMAR_STORE_PENDING_MAX 64u /* texts that wait for the store's thread */

/* 1: it was compiled, or refused, and grammar_store_get is quick. 0: the store's thread is at it,
 * and will say so. ERR_BUSY: too many wait; ERR_NOMEM; ERR_LIMIT: the text is too long. */
int grammar_store_ask(struct grammar_store *s, const struct grammar_source *source, struct err *e);
/* `ready` is called on the store's thread, under its lock, each time that something is done: it
 * only wakes somebody. NULL: nobody. When this returns, the one before is called no more. */
void grammar_store_notify(struct grammar_store *s, void (*ready)(void *ctx), void *ctx);

/* Finds it, waits for it, or compiles it on the caller's thread. *out is the caller's to put back.
 * Errors: those of grammar_compile, whose words are for the client; ERR_BUSY. */
int grammar_store_get(struct grammar_store *s, const struct grammar_source *source,
                      struct grammar_entry **out, struct err *e);
/* NULL is fine. */
void grammar_store_put(struct grammar_store *s, struct grammar_entry *entry);
/* Lives until the entry is put back. */
const struct grammar *grammar_entry_grammar(const struct grammar_entry *entry);

#endif
