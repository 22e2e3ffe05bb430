/* unigram.h: the search of Unigram, for GGUF files (unigram.c) and tokenizer.json (hf.c). Only the
 * tokenizer's own files include this one. */
#ifndef ARGOSY_TEXT_UNIGRAM_H
#define ARGOSY_TEXT_UNIGRAM_H

#include "runtime/text/spmtext.h"
#include "runtime/text/trie.h"

struct unigram {
    struct trie trie;
    struct spm_fallback fallback;
    const double *scores; /* by id */
    double unknown_score;
    bool single; /* adds up in single precision, as SentencePiece does; else in double */
};

#define UNIGRAM_UNKNOWN_PENALTY 10.0 /* an unknown character costs so much more than any token */

/* Appends the ids of n bytes of valid UTF-8 as it stands, in time O(n). */
int unigram_encode(const struct unigram *u, const char *text, size_t n, struct tokenvec *out,
                   struct err *e);

#endif
