/* hash_engine.h: an engine that computes nothing: engine.h with tokens from hash_tokens.h.
 *
 * hash_engine.c defines the functions of runtime/engine/engine.h, and a program that links it has
 * no other engine; so everything around it is argosy-worker's own code. Steps take the time that
 * the options say, asleep. What it does not do: stop strings (routers cut at them), grammars and
 * embeddings (refused), the prefix cache.
 */
#ifndef ARGOSY_BENCHMARKS_HASH_ENGINE_H
#define ARGOSY_BENCHMARKS_HASH_ENGINE_H

#include "runtime/engine/engine.h"

/* Borrowed by the engines that are made from it: any number, each with a thread of its own. */
struct hash_model {
    const char *manifest_sha256;
    const struct tokenizer *tokenizer;
    uint32_t context_tokens;
    uint32_t letters[64]; /* the token of each letter */
    /* How fast. */
    uint64_t step_us;       /* a step takes so long without prompts */
    uint64_t prefill_rate;  /* prompt tokens a second; 0: at once */
    uint32_t prefill_chunk; /* of them in one step at most */
    uint32_t step_tokens;   /* that a sequence gets in a step */
    /* How much. */
    uint32_t kv_pages, page_tokens, sequences_max, waiting_max;
};

/* Finds the letters' tokens. ERR_UNSUPPORTED: the vocabulary has not got all of them. */
int hash_model_letters(struct hash_model *m, struct err *e);
/* From now on engine_open gives engines of this model, whatever its config says. */
void hash_model_use(const struct hash_model *m);

#endif
