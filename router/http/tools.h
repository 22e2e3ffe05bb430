/* tools.h: the tools of a chat request: checked, and what holds the model to them.
 *
 *     tools, tool_choice ─► tools_read ─► (template, with the lead behind it) ─► tools_constrain
 *
 * Pure: JSON in, parts of the api_request out, in its arena.
 */
#ifndef ARGOSY_ROUTER_HTTP_TOOLS_H
#define ARGOSY_ROUTER_HTTP_TOOLS_H

#include <stdbool.h>
#include <stdint.h>

#include "router/http/api_error.h"
#include "runtime/grammar/speech_grammar.h"

#define TOOLS_MAX 128u
#define TOOLS_NAME_BYTES_MAX 64u

struct api_context;
struct api_request;
struct json_object;

/* What of a request is about tools; all zero without. */
struct api_tools {
    const char **names;        /* (n): those that a call may have */
    uint32_t n;                /* 0: no call is looked for */
    bool required;             /* the answer is calls and nothing else */
    bool strict;               /* some tool's arguments must follow its schema, called or not */
    bool one_only;             /* at most one call */
    struct speech_tool *tools; /* (n) */
    const char *lead;          /* what the prompt ends with, and the answer begins with; or NULL */
};

/* tools, tool_choice and parallel_tool_calls of a chat's body. 0, or -1 with the error. */
int tools_read(struct api_request *a, struct json_object *root, const struct api_context *ctx,
               struct api_error *e);
/* Makes the request's grammar, where calls must follow one. `in_thought`: speech_prompt_thinks. */
int tools_constrain(struct api_request *a, bool in_thought, const struct api_context *ctx,
                    struct api_error *e);

#endif
