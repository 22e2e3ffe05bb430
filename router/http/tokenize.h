/* tokenize.h: the bodies of /tokenize and /detokenize, read and checked. */
#ifndef ARGOSY_ROUTER_HTTP_TOKENIZE_H
#define ARGOSY_ROUTER_HTTP_TOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "router/http/api_request.h"
#include "runtime/base/buf.h"

struct tokenize_call {
    const struct model_text *model;
    struct api_prompt prompt;
    bool strings; /* return_token_strs */
};

/* 0, or -1 with the error. */
int tokenize_read(struct tokenize_call *c, const char *body, size_t n,
                  const struct api_context *ctx, struct api_error *e);
/* Appends the text of the tokens. */
int detokenize_read(const char *body, size_t n, const struct api_context *ctx, struct buf *text,
                    struct api_error *e);

#endif
