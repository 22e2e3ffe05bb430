/* tokenizer_json.h: a tokenizer from Hugging Face's tokenizer.json.
 *
 * Served: BPE (on bytes and on characters, with byte fallback) and Unigram; normalizers Sequence,
 * NFC, Prepend, Replace, Strip; pre-tokenizers Sequence, ByteLevel, Split, Digits, Metaspace,
 * WhitespaceSplit; decoders ByteLevel, Metaspace, and a Sequence of Replace, ByteFallback, Fuse and
 * Strip; post-processors TemplateProcessing (one token before, one behind) and ByteLevel; added
 * tokens with all their flags. Anything else is an ERR_UNSUPPORTED that names it: nothing is passed
 * over in silence. The result is a struct tokenizer like any other.
 *
 * Strip in a decoder takes the space away that a normaliser put before the text. A token's bytes do
 * not depend on its place, so here they keep it.
 *
 * The file is not trusted: its size, depth, ids and counts are limited, and memory is bounded by a
 * small multiple of its bytes.
 */
#ifndef ARGOSY_TEXT_TOKENIZER_JSON_H
#define ARGOSY_TEXT_TOKENIZER_JSON_H

#include "runtime/text/tokenizer.h"

#define TOKENIZER_JSON_BYTES_MAX (256u << 20)

/* *out is the caller's to tokenizer_free; untouched on failure. */
int tokenizer_load_json(const char *path, struct tokenizer **out, struct err *e);
int tokenizer_load_json_mem(const char *text, size_t n, struct tokenizer **out, struct err *e);

#endif
