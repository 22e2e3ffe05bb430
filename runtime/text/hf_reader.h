/* hf_reader.h: what the files that read a tokenizer.json share; nobody else includes it.
 *
 *   tokenizer_json.c   the parts, normaliser to decoder, and the order of it all
 *   hf_reader.c        the model's members, its vocabulary, the added tokens
 *   hf_reader_build.c  what encodes: the vocabulary, merges or trie, and the matchers
 *
 * The first fault fills the err of the reader, and its negative code is returned. */
#ifndef ARGOSY_TEXT_HF_READER_H
#define ARGOSY_TEXT_HF_READER_H

#include "runtime/base/buf.h"
#include "runtime/format/jsonpull.h"
#include "runtime/text/hf.h"

/* A token of the file. Its text is in struct hf_reader's `strings`. */
struct hf_entry {
    uint32_t id;
    size_t at, n;
    double score;
};

/* The file's parts as text, and what is gathered from them. */
struct hf_reader {
    struct tokenizer *t;
    struct hf *h;
    struct err *e;
    struct jsonpull_str added, normalizer, pre_tokenizer, post_processor, decoder, model;
    struct jsonpull_str vocab, merges;
    struct buf strings;
    struct hf_entry *entries;
    size_t n_entries, cap_entries;
    struct hf_added *tokens; /* (n_tokens); contents in t's arena */
    uint32_t n_tokens;
    uint32_t n_ids;
    struct buf unk_token;
    bool has_unk_token;
    bool spaces;     /* the decoder makes U+2581 a space */
    bool byte_texts; /* the decoder makes "<0x41>" a byte */
    uint64_t unk_id;
    bool has_unk_id;
    uint8_t *types; /* (n_ids) */
};

/* "tokenizer.json: WORDS"; returns code. */
int hf_fail(struct hf_reader *l, int code, const char *words);
bool hf_is_null(const struct jsonpull_str *s);

int hf_read_model(struct hf_reader *l);
int hf_read_vocab(struct hf_reader *l);
int hf_read_added(struct hf_reader *l);

int hf_build_vocab(struct hf_reader *l);
/* The token of each byte, where there is one. */
void hf_find_bytes(struct hf_reader *l);
int hf_finish_bpe(struct hf_reader *l);
int hf_finish_unigram(struct hf_reader *l);
int hf_build_matchers(struct hf_reader *l);

#endif
