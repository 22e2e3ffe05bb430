/* grammar.h: what a sequence may say next, as a mask over the vocabulary.
 *
 * A JSON schema, a regular expression or a grammar in llama.cpp's notation becomes a struct
 * grammar; a struct grammar_state follows one sequence through it. The mask holds exactly the
 * tokens after which some continuation, byte by byte, still matches; tokens that end generation are
 * in it exactly when what stands there is complete. What can't be compiled is refused with a
 * message that names the place; nothing is ignored but annotations.
 *
 * The mask is a pure function of source, options, vocabulary and the tokens accepted so far: a
 * sequence resumes elsewhere by accepting its tokens again.
 *
 * Threads: a token_trie and a grammar are immutable and shared by any number of threads; a state
 * belongs to one thread at a time. Ownership: a grammar borrows its trie, a state its grammar; free
 * in the order state, grammar, trie.
 */
#ifndef ARGOSY_GRAMMAR_GRAMMAR_H
#define ARGOSY_GRAMMAR_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"
#include "runtime/grammar/token_trie.h"

struct grammar;
struct grammar_state;

enum grammar_kind {
    GRAMMAR_JSON_SCHEMA, /* text: a JSON schema (json_schema.h) */
    GRAMMAR_JSON_OBJECT, /* text unused: any JSON object */
    GRAMMAR_REGEX,       /* text: a regular expression that the whole output matches (regex.h) */
    GRAMMAR_GBNF         /* text: rules, the first symbol is "root" (gbnf.h) */
};

/* Where white space may stand in JSON. */
enum grammar_space {
    GRAMMAR_SPACE_NONE, /* {"a":1,"b":2} */
    GRAMMAR_SPACE_ONE,  /* {"a": 1, "b": 2} */
    GRAMMAR_SPACE_ANY   /* any run of space, tab, CR, LF between any two tokens, not around all */
};

/* Everything that bounds a compilation and a state. Zero-initialise by grammar_limits_default. */
struct grammar_limits {
    size_t text_bytes_max;   /* of the source */
    uint32_t depth_max;      /* nesting of the source, and of what it expands to */
    uint32_t syntax_max;     /* nodes of syntax */
    uint32_t states_max;     /* of the automata, before and after they are made deterministic */
    size_t table_bytes_max;  /* of the transition table */
    size_t reach_bytes_max;  /* of what masks find out and keep for the next ones */
    uint64_t steps_max;      /* of work in one compilation, some nanoseconds each */
    uint32_t configs_max;    /* readings of the same bytes at once, per state */
    uint32_t stack_max;      /* open rules at once, per state: how deep output may nest */
    uint64_t mask_steps_max; /* of work in one mask */
};

struct grammar_options {
    enum grammar_space space;
    struct grammar_limits limits;
};

void grammar_options_default(struct grammar_options *o);

/* What a request says of a grammar. Borrowed text, without a NUL inside. */
struct grammar_source {
    enum grammar_kind kind;
    enum grammar_space space; /* of JSON */
    const char *text;         /* (n) UTF-8 */
    size_t n;
};

/* `text` is n bytes of UTF-8. *out is the caller's to grammar_free, untouched on failure.
 * ERR_FORMAT: not what its notation asks; ERR_UNSUPPORTED: a keyword or construct that is not
 * served; ERR_LIMIT: too large; ERR_RANGE: nothing can match. */
int grammar_compile(enum grammar_kind kind, const char *text, size_t n,
                    const struct token_trie *trie, const struct grammar_options *o,
                    struct grammar **out, struct err *e);
/* NULL is fine. */
void grammar_free(struct grammar *g);
size_t grammar_memory_bytes(const struct grammar *g);

/* All the memory that a state ever takes is taken here. */
int grammar_state_create(const struct grammar *g, struct grammar_state **out, struct err *e);
void grammar_state_free(struct grammar_state *s);
/* Back to the beginning. */
void grammar_state_clear(struct grammar_state *s);
size_t grammar_state_memory_bytes(const struct grammar_state *s);

/* Sets bit (id % 32) of bits[id / 32] for each token that may come next and clears all others, over
 * token_trie_mask_words(trie) words. ERR_LIMIT when configs_max or mask_steps_max is passed. */
int grammar_mask(struct grammar_state *s, uint32_t *bits, struct err *e);
/* Moves past one token. ERR_RANGE when the mask does not hold it: the state is then unchanged. So
 * it is with ERR_LIMIT: the mask held it, looking at one reading at a time, and all readings
 * together pass configs_max or stack_max. After a token that ends generation nothing may follow. */
int grammar_accept(struct grammar_state *s, uint32_t token, struct err *e);
/* Whether the sequence may end here. */
bool grammar_is_accepting(const struct grammar_state *s);
/* The bytes, at most n of them, that every continuation must start with. Returns their number. */
size_t grammar_forced(struct grammar_state *s, char *out, size_t n);

#endif
