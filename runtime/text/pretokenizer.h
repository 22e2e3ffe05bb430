/* pretokenizer.h: cuts text into the words that BPE never merges across.
 *
 * A pre-tokeniser is the list of regular expressions that the model's authors published
 * (tokenizer.json), found by the name that tokenizer.ggml.pre gives it, and run by PCRE2, compiled
 * where the machine allows. Each expression cuts every piece into its matches and what lies between
 * them; the next cuts those.
 *
 * White space is Unicode's White_Space; letters (L) and numbers (N) are those of Unicode 16 with
 * PCRE2 10.40 to 10.45, whatever its own tables: the tokens of a text do not depend on the library
 * that is installed. Immutable; any thread.
 */
#ifndef ARGOSY_TEXT_PRETOKENIZER_H
#define ARGOSY_TEXT_PRETOKENIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/err.h"

struct pretokenizer;

/* What goes with the name, beside the expressions. */
struct pretokenizer_traits {
    bool nfc;           /* text is normalised to form C first */
    bool ignore_merges; /* a word that is a token is that token, whatever the merges */
    bool add_bos;       /* when the metadata does not say */
};

/* name: n bytes. ERR_UNSUPPORTED names one that is not known. */
int pretokenizer_create(const char *name, size_t n, struct pretokenizer **out, struct err *e);
/* NULL is fine. */
void pretokenizer_free(struct pretokenizer *p);
const struct pretokenizer_traits *pretokenizer_traits(const struct pretokenizer *p);
size_t pretokenizer_memory_bytes(const struct pretokenizer *p);

/* Called with each word in turn; a negative result ends the split and is its result. */
typedef int pretokenizer_word_fn(void *arg, const char *word, size_t n);

/* text must be valid UTF-8. The words, put together, are the text. */
int pretokenizer_split(const struct pretokenizer *p, const char *text, size_t n,
                       pretokenizer_word_fn *fn, void *arg, struct err *e);

#endif
