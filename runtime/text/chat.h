/* chat.h: a conversation in OpenAI's shape to the prompt text that a model was trained on.
 *
 * The template is the model file's own (GGUF tokenizer.chat_template). A client chooses messages,
 * tools and keyword arguments; it can never supply a template.
 *
 * What the template sees is what transformers' apply_chat_template shows it: messages, tools (None
 * when there are none), documents (None), add_generation_prompt, bos_token, eos_token, and the
 * keyword arguments. Messages are passed on with these changes:
 *   - content as a list of {type: "text"} parts stays a list when the template handles lists,
 *     and is joined with newlines when it only handles strings (as vLLM does). Which of the two
 *     it is, is found out at compile time by rendering both. A template that only handles lists
 *     gets its strings wrapped. Parts of another type are refused.
 *   - tool_calls[].function.arguments, a JSON string on the wire, becomes the object in it when
 *     it holds one; else it stays a string.
 *   - reasoning_content, thinking and reasoning are aliases, as in transformers.
 *
 * Threads: struct chat_template is immutable; any number of threads may render it at once.
 */
#ifndef ARGOSY_TEXT_CHAT_H
#define ARGOSY_TEXT_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"
#include "runtime/base/err.h"
#include "runtime/text/jinja.h"
#include "runtime/text/speech.h"

struct json_object; /* json-c's */
struct chat_template;

struct chat_options {
    bool add_generation_prompt;
    struct json_object
        *kwargs;   /* borrowed; chat_template_kwargs, such as enable_thinking; or NULL */
    int64_t now_s; /* seconds since 1970, for strftime_now */
};

/* bos_token and eos_token are the tokens' texts, NULL when the model has none; copied. */
int chat_template_compile(const char *text, size_t n, const char *bos_token, const char *eos_token,
                          struct chat_template **out, struct err *e);
void chat_template_free(struct chat_template *t);

/* True when the template looks at `tools`: otherwise tools in a request would be dropped in
 * silence, and the caller should refuse them. */
bool chat_template_takes_tools(const struct chat_template *t);

/* How the model says calls of tools and thoughts. */
struct speech_form chat_template_speech(const struct chat_template *t);

/* Appends the prompt to out. messages: a JSON array; tools: a JSON array or NULL. lim: NULL for
 * jinja_limits_default. Nothing is kept or changed in the JSON values.
 * ERR_FORMAT, ERR_UNSUPPORTED and ERR_LIMIT are all the request's fault (a 400); the message says
 * which message or parameter, or is the template's own (raise_exception). */
int chat_render(const struct chat_template *t, struct json_object *messages,
                struct json_object *tools, const struct chat_options *opts,
                const struct jinja_limits *lim, struct buf *out, struct err *e);

#endif
