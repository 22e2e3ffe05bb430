/* hf.h: what a tokenizer.json describes, for tokenizer_json.c (which reads it) and hf*.c (which do
 * it). Only the tokenizer's own files include this one.
 *
 *   text ─► added tokens in raw text ─► normalisers ─► added tokens in normalised text
 *        ─► pre-tokenisers (words) ─► BPE or Unigram ─► ids
 *
 * Immutable once loaded; any thread.
 */
#ifndef ARGOSY_TEXT_HF_H
#define ARGOSY_TEXT_HF_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "runtime/base/buf.h"
#include "runtime/text/merges.h"
#include "runtime/text/unigram.h"

#define HF_OPS_MAX 16

struct json_object;

enum hf_kind {
    HF_PREPEND, /* text before what is not empty */
    HF_REPLACE, /* every match by text */
    HF_NFC,
    HF_STRIP,        /* white space at the left, at the right */
    HF_SPLIT,        /* cuts at matches */
    HF_PREFIX_SPACE, /* text before a piece that does not start with it */
    HF_METASPACE     /* the same, only at the very start where `first` */
};

enum hf_behaviour {
    HF_ISOLATED,
    HF_REMOVED,
    HF_CONTIGUOUS,
    HF_MERGED_WITH_PREVIOUS,
    HF_MERGED_WITH_NEXT
};

/* A normaliser or a pre-tokeniser. */
struct hf_op {
    enum hf_kind kind;
    pcre2_code *code; /* of REPLACE and SPLIT */
    const char *text;
    size_t n;
    enum hf_behaviour behaviour;
    bool invert;
    bool left, right; /* of STRIP */
    bool first;
};

struct hf_ops {
    struct hf_op at[HF_OPS_MAX];
    int n;
};

/* hf_ops.c. `o`: the value in the file, NULL for null. byte_level: set by a ByteLevel. */
int hf_read_normalizer(struct hf_ops *ops, struct json_object *o, struct arena *a, struct err *e);
int hf_read_pretokenizer(struct hf_ops *ops, struct json_object *o, bool *byte_level,
                         struct arena *a, struct err *e);
void hf_ops_release(struct hf_ops *ops);
/* Out of valid UTF-8; replaces what is in out. */
int hf_normalize(const struct hf_ops *ops, pcre2_match_data *match, const char *text, size_t n,
                 struct buf *out, struct err *e);

struct hf_piece {
    uint32_t start, end;
};

/* Text in pieces. */
struct hf_pieces {
    struct buf text;
    struct hf_piece *at;
    size_t n, cap;
};

/* `start`: this is the start of all text. On return p holds the words. */
int hf_pretokenize(const struct hf_ops *ops, pcre2_match_data *match, bool start, const char *text,
                   size_t n, struct hf_pieces *p, struct err *e);
void hf_pieces_release(struct hf_pieces *p);

struct hf_added {
    uint32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
    struct vocab_text content;
};

/* Some added tokens, to be found in a text; hf_added.c. */
struct hf_matcher {
    struct vocab vocab;            /* contents; its "ids" are indices of `tokens` */
    const struct hf_added *tokens; /* (vocab.n) */
    struct specials plain, all;    /* without special ones, and with them */
};

int hf_matcher_build(struct hf_matcher *m, const struct hf_added *tokens, uint32_t n,
                     struct arena *a, struct err *e);

/* A part of a text: a token (id), or text between (TOKENIZER_NONE). A negative result ends the
 * scan. */
typedef int hf_part_fn(void *arg, uint32_t id, size_t start, size_t end);
int hf_matcher_scan(const struct hf_matcher *m, bool special, const char *text, size_t n,
                    hf_part_fn *fn, void *arg);

struct hf {
    struct hf_ops normalizers, pretokenizers;
    struct hf_matcher raw, normal; /* tokens found before and after normalising */
    struct vocab texts;            /* tokens as the model's texts have them */
    struct vocab_map map;          /* of texts that the model may make */
    bool is_unigram;
    bool byte_level;    /* words are bytes, not characters */
    bool byte_fallback; /* of BPE */
    bool fuse_unknown;
    bool ignore_merges;
    uint32_t unknown; /* of BPE, or TOKENIZER_NONE */
    struct merges merges;
    uint32_t bytes[256]; /* BPE: ids of bytes; those of "<0x00>" on where not byte_level */
    struct unigram unigram;
};

extern const struct tokenizer_model hf_model;

#endif
