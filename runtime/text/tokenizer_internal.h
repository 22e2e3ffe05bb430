/* tokenizer_internal.h: what the files of the tokenizer share; nobody else includes it.
 *
 *   tokenizer.c     the public functions: limits, invalid UTF-8, special tokens, BOS and EOS
 *   vocab.c         ids ↔ bytes: the tokens of the file, and a map from bytes to ids
 *   specials.c      finds special tokens in a text
 *   bpe.c           byte-level BPE                      (one file a kind of model, behind
 *   spm.c           SentencePiece's BPE over scores      struct tokenizer_model)
 *   unigram.c       SentencePiece's Unigram
 *   hf.c            what a tokenizer.json describes; tokenizer_json.c reads it
 *   pretokenizer.c  cuts a text into the words of BPE (pretokenizer_ascii.c: where it is ASCII)
 */
#ifndef ARGOSY_TEXT_TOKENIZER_INTERNAL_H
#define ARGOSY_TEXT_TOKENIZER_INTERNAL_H

#include "runtime/base/arena.h"
#include "runtime/text/tokenizer.h"

#define TOKENIZER_VOCAB_MAX (1u << 23)
#define TOKENIZER_EOG_MAX 32
/* What a tokenizer may take for one byte of the file that it is made from: maps of short tokens. */
#define TOKENIZER_MEMORY_PER_FILE_BYTE 16u
#define TOKENIZER_MEMORY_BASE (1u << 20)

/* ---- vocab.c ----------------------------------------------------------------------------------
 */

/* The tokens of the file. Every token's bytes are followed by a NUL. */
struct vocab {
    uint32_t n;
    uint32_t longest;       /* bytes of the longest token */
    const char *bytes;      /* all of them, one after the other */
    const uint32_t *starts; /* (n + 1): token i is [starts[i], starts[i + 1] - 1) */
    const uint8_t *types;   /* (n): enum token_type */
};

#define VOCAB_NOT_TEXT SIZE_MAX

/* Turns the file's text of a token into its bytes, at most as many, at out; returns how many, or
 * VOCAB_NOT_TEXT when no text can become this token: its text is then its bytes, and it is UNUSED.
 */
typedef size_t vocab_decode_fn(enum token_type type, const char *text, size_t n, char *out);

struct vocab_text {
    const char *s;
    size_t n;
};

/* n texts and their types, all copied into a. */
int vocab_build(struct vocab *v, const struct vocab_text *texts, const uint8_t *types, uint32_t n,
                struct arena *a, vocab_decode_fn *decode, struct err *e);
/* The same from a file's metadata. */
int vocab_load(struct vocab *v, const struct gguf *g, struct arena *a, vocab_decode_fn *decode,
               struct err *e);
static inline const char *vocab_bytes(const struct vocab *v, uint32_t id, size_t *n)
{
    *n = v->starts[id + 1] - v->starts[id] - 1;
    return v->bytes + v->starts[id];
}

/* A map from bytes to the id of a token of some types. Equal bytes: the lowest id. */
struct vocab_map {
    const struct vocab *vocab;
    uint64_t seed;
    uint32_t mask;
    struct vocab_slot *slots; /* (mask + 1) */
};

/* types: the bits (1u << type) of those that it holds. */
int vocab_map_build(struct vocab_map *m, const struct vocab *v, unsigned types, struct arena *a,
                    struct err *e);
/* TOKENIZER_NONE if there is none. */
uint32_t vocab_map_find(const struct vocab_map *m, const char *bytes, size_t n);

/* ---- specials.c -------------------------------------------------------------------------------
 */

/* Some tokens, to be found wherever they stand in a text: leftmost, and of those the longest. */
struct specials {
    const struct vocab *vocab;
    uint32_t n;
    uint32_t *ids;      /* sorted by bytes */
    uint32_t starts[8]; /* a bit for every first byte there is */
};

/* Takes tokens of the types whose bits (1u << type) are in `types`. */
int specials_build(struct specials *s, const struct vocab *v, unsigned types, struct arena *a,
                   struct err *e);
/* The first match at or after `from`: its start (n if there is none), and then *id and *len. */
size_t specials_find(const struct specials *s, const char *text, size_t n, size_t from,
                     uint32_t *id, size_t *len);
/* The longest token that text starts with: its length and *id; or 0. */
size_t specials_prefix(const struct specials *s, const char *text, size_t n, uint32_t *id);
/* The token that is exactly these bytes, or TOKENIZER_NONE. */
uint32_t specials_exact(const struct specials *s, const char *bytes, size_t n);

/* ---- a kind of model --------------------------------------------------------------------------
 */

struct tokenizer;

struct tokenizer_model {
    const char *name; /* tokenizer.ggml.model */
    /* encode finds user-defined tokens itself, in the text as it normalised it. */
    bool finds_user;
    /* Fills t->vocab, t->special and t->impl; may set the defaults of t->add_bos and t->add_eos.
     * The caller calls release after a failure, too. */
    int (*load)(struct tokenizer *t, const struct gguf *g, struct err *e);
    /* NULL where everything is in t->arena; else what is not. impl may be NULL. */
    void (*release)(struct tokenizer *t);
    size_t (*memory_bytes)(const struct tokenizer *t);
    /* Appends the ids of valid UTF-8 that holds no special token; n > 0. */
    int (*encode)(const struct tokenizer *t, const char *text, size_t n, struct tokenvec *out,
                  struct err *e);
    /* Where not NULL, called instead of encode, with all valid UTF-8 of a text, special tokens in
     * it that are parsed if `special`. n > 0. */
    int (*encode_text)(const struct tokenizer *t, const char *text, size_t n, bool special,
                       struct tokenvec *out, struct err *e);
    uint32_t (*find)(const struct tokenizer *t, const char *bytes, size_t n);
};

/* bpe.c: bytes of a text in GPT-2's byte alphabet, at most n at out; VOCAB_NOT_TEXT if it is none.
 */
size_t bpe_decode(const char *text, size_t n, char *out);

extern const struct tokenizer_model bpe_model;
extern const struct tokenizer_model spm_model;
extern const struct tokenizer_model unigram_model;

struct tokenizer {
    const struct tokenizer_model *model;
    void *impl;
    struct arena arena;
    struct vocab vocab;
    struct specials user;    /* user-defined tokens, always found in a text; none where the model
                              * finds them */
    struct specials special; /* those and control tokens */
    bool shrinks;            /* a token may stand for more bytes of text than it has */
    uint32_t bos, eos, eot;
    bool add_bos, add_eos;
    uint32_t eog[TOKENIZER_EOG_MAX];
    uint32_t n_eog;
};

/* What follows from t->special: EOT and tokens that end generation, by name. */
void tokenizer_find_eog(struct tokenizer *t);
/* The err of a tokenvec_add that failed. */
int tokenizer_out_err(int rc, const struct tokenvec *out, struct err *e);

#endif
