/* api_request.h: the body of a chat, completion or embedding request, read and checked.
 *
 * Pure: bytes in, struct or error out; no I/O, no clock but `now_s`. Nothing of the JSON is kept:
 * what the struct points at lies in the caller's arena. Which fields there are is in fields.c.
 */
#ifndef ARGOSY_ROUTER_HTTP_API_REQUEST_H
#define ARGOSY_ROUTER_HTTP_API_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "router/http/api_error.h"
#include "router/http/http.h"
#include "router/http/tools.h"
#include "router/model_text.h"
#include "router/pool/pool.h"
#include "runtime/base/arena.h"
#include "runtime/grammar/grammar.h"
#include "runtime/text/tokenizer.h"

struct json_object;
struct policy_label;

#define API_SEED_NONE INT64_MIN
#define API_TOP_LOGPROBS_MAX 20
#define API_PRIORITY_MAX 1000
#define API_LOGIT_BIAS_MAX 1024
#define API_STOP_IDS_MAX 128
#define API_WANTS_MAX 16
#define API_WANT_BYTES_MAX 255 /* of a key, and of a value: more no label has */

#define API_INPUTS_MAX 2048 /* of an embedding request */

/* Bits: a field belongs to one or several. */
enum api_kind { API_CHAT = 1, API_TEXT = 2, API_EMBEDDING = 4 };

struct api_prompt {
    uint32_t *ids; /* (n) */
    uint32_t n;
    const char *text; /* of the prompt, only with echo */
    size_t text_n;
};

/* What every reader of a field needs. */
struct api_context {
    const struct http_config *limits;
    const struct model_texts *texts;
    struct arena *arena;
    int64_t now_s;
    bool background; /* a grammar that is new is compiled by its store's thread */
};

struct api_request {
    enum api_kind kind;
    const struct model_text *model;
    size_t model_index; /* its place in model_texts */
    struct api_prompt *prompts;
    uint32_t n_prompts;

    bool stream, include_usage;
    bool continuous_usage; /* include_usage, in every chunk */
    bool echo;
    bool ignore_eos;
    bool add_generation_prompt;
    bool parallel_tool_calls;
    int64_t n;                     /* choices for each prompt */
    int64_t best_of;               /* 0: not given */
    int64_t max_tokens;            /* 0: not given, until api_request_read has resolved it */
    int64_t max_completion_tokens; /* 0: not given */
    int64_t min_tokens;
    int64_t seed; /* API_SEED_NONE: not given */
    int64_t top_k;
    double temperature, top_p, min_p;
    double presence_penalty, frequency_penalty, repetition_penalty;
    bool want_logprobs;    /* of either kind, once read */
    int64_t top_logprobs;  /* -1: not given */
    int64_t text_logprobs; /* the completions' `logprobs`; -1: not given */

    const char **stop;
    uint32_t n_stop;
    uint32_t *stop_ids;
    uint32_t n_stop_ids;
    uint32_t *bias_ids; /* ascending */
    float *bias_values;
    uint32_t n_bias;
    bool has_grammar;
    bool grammar_pending; /* the request failed only because its grammar is not compiled yet */
    struct grammar_source grammar; /* what the output follows */
    const char *grammar_param;     /* the field that said so */

    /* Of an embedding request: its inputs are the prompts. */
    enum gen_pooling pooling;
    bool normalize;
    bool base64;
    const char *user, *prompt_cache_key, *cache_salt; /* or NULL */
    struct api_tools tools;
    bool in_thought;  /* the prompt ends inside of a thought */
    int64_t priority; /* lower goes first, as in vLLM */
    double timeout_s; /* 0: not given */
    /* Of the worker, as gen_request has it. */
    struct policy_label *wants;
    uint32_t n_wants;
    double price_max;
};

/* 0, or -1 with the error. */
int api_request_read(struct api_request *a, enum api_kind kind, const char *body, size_t n,
                     const struct api_context *ctx, struct api_error *e);

/* ---- parts, for tokenize.c ---------------------------------------------------------------------
 */

/* JSON text to an object; the caller puts it. */
int api_parse_object(const char *body, size_t n, struct json_object **out, struct api_error *e);
/* `model` by its name; NULL name: the only model, if there is one alone. */
int api_find_model(const struct model_texts *texts, struct json_object *name,
                   const struct model_text **out, struct api_error *e);
/* The prompts of a completion request, the inputs of one for embeddings. */
int api_read_prompts(struct api_request *a, struct json_object *prompt,
                     const struct api_context *ctx, struct api_error *e);
/* Text to ids. `param` is what a failure names. */
int api_encode(const struct model_text *m, const char *text, size_t n, unsigned flags,
               const char *param, const struct api_context *ctx, struct api_prompt *out,
               struct api_error *e);
/* Is that much text too much for any tokenisation of it to fit? Cheap; -1 with the error if so. */
int api_check_length(const struct model_text *m, size_t bytes, const char *param,
                     struct api_error *e);
/* A list of token ids, each below the vocabulary's size, at most `max`. */
int api_read_ids(struct json_object *list, const struct model_text *m, size_t max,
                 const char *param, struct arena *arena, uint32_t **ids, uint32_t *n,
                 struct api_error *e);

/* messages.c: are these OpenAI's messages? May change them: `developer` becomes `system`. */
int messages_check(struct json_object *messages, struct api_error *e);
/* Messages to the prompt's text. `root` is the whole body: tools, chat_template_kwargs. */
int messages_render(const struct model_text *m, struct json_object *root,
                    bool add_generation_prompt, const struct api_context *ctx, struct buf *out,
                    struct api_error *e);
/* To its ids. */
int messages_encode(const struct model_text *m, struct json_object *root,
                    bool add_generation_prompt, const struct api_context *ctx,
                    struct api_prompt *out, struct api_error *e);

#endif
