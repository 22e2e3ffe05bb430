/* tokenizer.h: text to token ids and back, from the metadata of a GGUF file.
 *
 * Byte-level BPE (tokenizer.ggml.model "gpt2") with the pre-tokenisers of pretokenizer.h;
 * SentencePiece's BPE over scores ("llama") and Unigram ("t5"). Other models of tokenizer are
 * further files behind the table in tokenizer_internal.h.
 *
 * A tokenizer is immutable once loaded and shared by any number of threads; a call keeps its
 * scratch to itself. (What it learns of words that are tokens, one byte a token, changes no result
 * and is written atomically.) It copies what it needs: the GGUF may be closed after tokenizer_load.
 * Its memory is one arena, bounded by a small multiple of the file's metadata.
 *
 * Text that is not valid UTF-8 is read as Python's bytes.decode(errors="replace") reads it: each
 * maximal invalid run of bytes becomes one U+FFFD (utf8.h).
 */
#ifndef ARGOSY_TEXT_TOKENIZER_H
#define ARGOSY_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"
#include "runtime/format/gguf.h"

#define TOKENIZER_NONE UINT32_MAX /* the id of a special token that the model does not have */

/* The longest text that is encoded in one call. Scratch is 52 bytes or less for one of
 * the longest word. */
#define TOKENIZER_TEXT_BYTES_MAX (16u << 20)

struct tokenizer;

/* A token's kind, by the numbers of tokenizer.ggml.token_type. */
enum token_type {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,      /* means something to the model, is never text: <|im_end|> */
    TOKEN_USER_DEFINED = 4, /* text that is one token whatever stands around it: <tool_call> */
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6
};

/* A growing list of ids with a limit. Owner: who called tokenvec_init. */
struct tokenvec {
    uint32_t *ids; /* NULL until the first is added */
    size_t n;
    size_t cap;
    size_t max; /* 0: bounded by memory alone */
};

void tokenvec_init(struct tokenvec *v, size_t max);
void tokenvec_release(struct tokenvec *v);
/* Empties it and keeps the memory. */
void tokenvec_clear(struct tokenvec *v);
/* 0, ERR_LIMIT past max, or ERR_NOMEM. */
int tokenvec_add(struct tokenvec *v, uint32_t id);

/* *out is the caller's to tokenizer_free; untouched on failure. ERR_UNSUPPORTED names a model or
 * pre-tokeniser that is not served; ERR_FORMAT what is wrong with the metadata. */
int tokenizer_load(const struct gguf *g, struct tokenizer **out, struct err *e);
/* What config.json and generation_config.json know and tokenizer.json does not: which tokens start
 * and end a text. TOKENIZER_NONE leaves one as it is. Before the tokenizer is shared. ERR_RANGE
 * past the vocabulary. */
int tokenizer_set_ends(struct tokenizer *t, uint32_t bos, uint32_t eos, struct err *e);
/* One more token that ends generation. Before the tokenizer is shared. ERR_RANGE past the
 * vocabulary, ERR_LIMIT where there are too many. */
int tokenizer_add_end(struct tokenizer *t, uint32_t id, struct err *e);

/* NULL is fine. */
void tokenizer_free(struct tokenizer *t);
/* Bytes that it holds. */
size_t tokenizer_memory_bytes(const struct tokenizer *t);

enum tokenizer_flag {
    /* Control tokens written out in the text become those tokens. For what a chat template
     * rendered; never for text of a client's, who could forge a turn with it. User-defined tokens
     * are text, and are matched either way. */
    TOKENIZER_PARSE_SPECIAL = 1u << 0,
    /* Starts with BOS, ends with EOS, where the model's metadata asks for them (tokenizer_add_bos).
     * A chat template writes its own BOS: do not set it for those. */
    TOKENIZER_ADD_BOS_EOS = 1u << 1
};

/* Appends the ids of n bytes of text to out, in time O(n log n) or O(n). ERR_LIMIT when out->max
 * would be passed (out then holds a part), when n is too large for out->max tokens, or above 1 GiB.
 * Any thread. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                     struct tokenvec *out, struct err *e);

/* The bytes that token id stands for in text: a borrowed pointer, *n bytes, possibly half a UTF-8
 * character (detok.h puts those together). Control tokens are 0 bytes unless `special`, and then
 * their name. An id past the vocabulary is 0 bytes. */
const char *tokenizer_token_bytes(const struct tokenizer *t, uint32_t id, bool special, size_t *n);
/* TOKEN_UNUSED past the vocabulary. */
enum token_type tokenizer_token_type(const struct tokenizer *t, uint32_t id);
/* The id whose bytes are exactly these, control tokens before others; TOKENIZER_NONE if there is
 * none. */
uint32_t tokenizer_find(const struct tokenizer *t, const char *bytes, size_t n);

uint32_t tokenizer_vocab_size(const struct tokenizer *t);
/* Each TOKENIZER_NONE when the model has none. */
uint32_t tokenizer_bos(const struct tokenizer *t);
uint32_t tokenizer_eos(const struct tokenizer *t);
uint32_t tokenizer_eot(const struct tokenizer *t); /* ends a turn, where that is not EOS */
bool tokenizer_add_bos(const struct tokenizer *t);
bool tokenizer_add_eos(const struct tokenizer *t);
/* Ends generation: EOS, EOT, EOM by the metadata, and control tokens known by name to end a turn.
 */
bool tokenizer_is_eog(const struct tokenizer *t, uint32_t id);

#endif
