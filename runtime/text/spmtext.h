/* spmtext.h: what SentencePiece's kinds of model share: how text is normalised, and what becomes of
 * characters that no token has.
 *
 * SentencePiece writes a space as U+2581 in its tokens. Here both are a space, in tokens and in
 * text: a text's own U+2581 is no other character to such a model. Only the tokenizer's own files
 * include this one. Immutable once loaded; any thread.
 */
#ifndef ARGOSY_TEXT_SPMTEXT_H
#define ARGOSY_TEXT_SPMTEXT_H

#include "runtime/base/buf.h"
#include "runtime/text/tokenizer_internal.h"

#define SPM_SPACE "\xE2\x96\x81" /* U+2581 */

struct spmtext {
    bool add_prefix; /* a space goes before the text */
    bool squeeze;    /* runs of spaces become one, those at the ends vanish */
    /* Replacement rules (tokenizer.ggml.precompiled_charsmap), or NULL: a double array whose values
     * are offsets of NUL-terminated strings. */
    const uint32_t *units;
    size_t n_units;
    const char *strings;
    size_t n_strings;
    struct vocab written; /* user-defined tokens, with U+2581 in them */
    struct specials keep; /* the same: the rules leave them alone */
};

/* The defaults of add_prefix and squeeze are set before. user: the user-defined tokens. s must stay
 * where it is. */
int spmtext_load(struct spmtext *s, const struct specials *user, const struct gguf *g,
                 struct arena *a, struct err *e);
/* Appends normalised text, in time O(n). ERR_LIMIT when the rules blow it up beyond all use. */
int spmtext_add(const struct spmtext *s, struct buf *out, const char *text, size_t n,
                struct err *e);

/* A vocab_load decoder: U+2581 becomes a space, "<0x41>" of type BYTE its byte. */
size_t spmtext_decode_token(enum token_type type, const char *text, size_t n, char *out);
/* How many bytes a token has with U+2581 for its spaces. */
size_t spmtext_written_bytes(const char *bytes, size_t n);

/* What stands for a character without a token: its bytes' tokens, or else the unknown token, once
 * for a run. */
struct spm_fallback {
    uint32_t bytes[256]; /* TOKENIZER_NONE where there is none */
    bool all_bytes;      /* there is one for each */
    uint32_t unknown;    /* TOKENIZER_NONE: none */
    bool plain_spaces;   /* a space is that byte, not U+2581 */
};

/* ERR_FORMAT when there is neither. */
int spm_fallback_load(struct spm_fallback *f, const struct vocab *v, const struct gguf *g,
                      struct err *e);
/* Appends the tokens of such a run. */
int spm_fallback_add(const struct spm_fallback *f, const char *run, size_t n, struct tokenvec *out,
                     struct err *e);

/* tokenizer.ggml.scores, (v->n), in a; finite. */
int spm_load_scores(const struct vocab *v, const struct gguf *g, struct arena *a,
                    const float **scores, struct err *e);

#endif
