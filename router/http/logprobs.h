/* logprobs.h: log probabilities of tokens as OpenAI shows them, for chat and for completions. */
#ifndef ARGOSY_ROUTER_HTTP_LOGPROBS_H
#define ARGOSY_ROUTER_HTTP_LOGPROBS_H

#include <stdbool.h>
#include <stdint.h>

#include "router/pool/pool.h"
#include "runtime/base/buf.h"
#include "runtime/text/tokenizer.h"

/* Those of the tokens since the last clear, as the inside of JSON arrays. */
struct logprobs {
    const struct tokenizer *tokenizer;
    bool chat;
    uint32_t n_top;
    uint32_t chars; /* of the text so far: a completion's text_offset */
    /* chat: content. completions: tokens, token_logprobs, top_logprobs, text_offset. */
    struct buf parts[4];
};

void logprobs_init(struct logprobs *l, const struct tokenizer *t, bool chat, uint32_t n_top);
void logprobs_release(struct logprobs *l);
/* Empties the arrays; text_offset goes on. */
void logprobs_clear(struct logprobs *l);
void logprobs_add(struct logprobs *l, uint32_t id, const struct gen_logprob *p);
bool logprobs_empty(const struct logprobs *l);
size_t logprobs_bytes(const struct logprobs *l);
/* Appends the JSON object. */
void logprobs_write(const struct logprobs *l, struct buf *out);

#endif
