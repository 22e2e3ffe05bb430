/* model_text.h: what the router knows of a model: names, tokenizer, chat template, limits.
 *
 * Read from the model's file or folder at start (no weights are touched), immutable afterwards
 * but for the store of grammars, shared by everything. Owner: main. The pool accepts a worker for a
 * model only when the manifest hashes are equal.
 */
#ifndef ARGOSY_ROUTER_MODEL_TEXT_H
#define ARGOSY_ROUTER_MODEL_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/err.h"

struct grammar_store;
struct tokenizer;
struct chat_template;

struct model_text {
    char *name;
    char *path;
    char manifest_sha256[65];
    /* A LoRA adapter is a model of its own to clients: `base` is its model's place, whose
     * tokenizer, chat and limits these are. Empty: no adapter. */
    char adapter_sha256[65];
    size_t base;
    struct tokenizer *tokenizer;
    struct grammar_store *grammars; /* over its vocabulary */
    struct chat_template *chat;     /* NULL: the model has none, chat is refused */
    char *chat_refusal;             /* why the model's own template can't be used, or NULL */
    uint32_t context_tokens;
    uint32_t token_bytes_max; /* of the longest token: more text than context × this can't fit */
    int64_t created_s;        /* the file's time, for /v1/models */
};

struct model_texts {
    struct model_text *items;
    size_t n;
};

/* `specs`: "NAME=PATH" each. */
int model_texts_load(char *const *specs, size_t n, struct model_texts *out, struct err *e);
/* Behind the models, `specs`: "NAME=MODEL=PATH" each, PATH being a folder of PEFT's. *m is left to
 * be released on failure. */
int model_texts_add_adapters(struct model_texts *m, char *const *specs, size_t n, struct err *e);
void model_texts_release(struct model_texts *m);
/* NULL when unknown. */
const struct model_text *model_texts_find(const struct model_texts *m, const char *name);

#endif
