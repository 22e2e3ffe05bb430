/* checkpoint_text.h: what a checkpoint knows of text: its tokenizer and its chat template.
 *
 * A GGUF file has both in its metadata. A folder has tokenizer.json; which tokens start and end a
 * text is in tokenizer_config.json (bos_token, eos_token) and generation_config.json (eos_token_id,
 * one or many), or where those are silent in config.json; the template is chat_template.jinja, or
 * chat_template in tokenizer_config.json (of several, the one named "default").
 */
#ifndef ARGOSY_TEXT_CHECKPOINT_TEXT_H
#define ARGOSY_TEXT_CHECKPOINT_TEXT_H

#include "runtime/base/buf.h"
#include "runtime/base/err.h"
#include "runtime/format/checkpoint.h"

struct tokenizer;

/* *out is the caller's to tokenizer_free; untouched on failure. c may be closed after. */
int tokenizer_open(const struct checkpoint *c, struct tokenizer **out, struct err *e);

/* Appends the template to out. Returns 1, or 0 when there is none. */
int chat_template_read(const struct checkpoint *c, struct buf *out, struct err *e);

#endif
