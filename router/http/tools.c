#include "router/http/tools.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "router/http/api_request.h"
#include "router/http/fields.h"
#include "runtime/base/check.h"
#include "runtime/text/chat.h"

static int invalid(struct api_error *e, const char *param, const char *wanted)
{
    return api_error_set(e, 400, "invalid_value", param, "Invalid '%s': expected %s.", param,
                         wanted);
}

static bool is_name(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n <= TOOLS_NAME_BYTES_MAX &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}

/* The member `function` of {"type": "function", "function": {…}}; NULL with the error. */
static struct json_object *function_of(struct json_object *v, const char *param,
                                       struct api_error *e)
{
    struct json_object *type, *function;
    if (!json_object_is_type(v, json_type_object) || !json_object_object_get_ex(v, "type", &type) ||
        !json_object_is_type(type, json_type_string) ||
        strcmp(json_object_get_string(type), "function") != 0 ||
        !json_object_object_get_ex(v, "function", &function) ||
        !json_object_is_type(function, json_type_object)) {
        invalid(e, param, "{\"type\": \"function\", \"function\": {…}}");
        return NULL;
    }
    return function;
}

static const char *name_of(struct json_object *function)
{
    struct json_object *name = json_object_object_get(function, "name");
    const char *s = json_object_is_type(name, json_type_string) ? json_object_get_string(name) : "";
    return is_name(s) ? s : NULL;
}

static int read_tool(struct api_request *a, struct json_object *v, size_t index,
                     const struct api_context *ctx, struct api_error *e)
{
    char param[API_PARAM_BYTES];
    struct api_tools *t = &a->tools;
    snprintf(param, sizeof(param), "tools[%zu]", index);
    struct json_object *function = function_of(v, param, e);
    if (!function)
        return -1;
    snprintf(param, sizeof(param), "tools[%zu].function.name", index);
    const char *name = name_of(function);
    if (!name)
        return invalid(e, param, "1 to 64 letters, digits, '_' and '-'");
    for (uint32_t i = 0; i < t->n; i++)
        if (strcmp(t->names[i], name) == 0)
            return invalid(e, param, "a name that no other tool has");
    struct json_object *parameters = json_object_object_get(function, "parameters");
    struct json_object *strict = json_object_object_get(function, "strict");
    snprintf(param, sizeof(param), "tools[%zu].function.parameters", index);
    if (parameters && !json_object_is_type(parameters, json_type_object))
        return invalid(e, param, "a JSON schema, which is an object");
    snprintf(param, sizeof(param), "tools[%zu].function.strict", index);
    if (strict && !json_object_is_type(strict, json_type_boolean))
        return invalid(e, param, "a boolean");
    t->strict = t->strict || json_object_get_boolean(strict);
    struct speech_tool *tool = &t->tools[t->n];
    tool->name = t->names[t->n] = arena_strdup(ctx->arena, name);
    if (parameters)
        tool->parameters = arena_strdup(
            ctx->arena, json_object_to_json_string_ext(parameters, JSON_C_TO_STRING_PLAIN));
    t->n++;
    if (!tool->name || (parameters && !tool->parameters))
        return api_error_set(e, 400, NULL, "tools", "The request takes too much memory.");
    return 0;
}

static int read_list(struct api_request *a, struct json_object *tools,
                     const struct api_context *ctx, struct api_error *e)
{
    size_t n = json_object_array_length(tools);
    if (n > TOOLS_MAX)
        return api_error_set(e, 400, "array_above_max_length", "tools",
                             "Invalid 'tools': expected at most %u tools, but got %zu.", TOOLS_MAX,
                             n);
    a->tools.names = arena_calloc(ctx->arena, n, sizeof(*a->tools.names));
    a->tools.tools = arena_calloc(ctx->arena, n, sizeof(*a->tools.tools));
    if (!a->tools.names || !a->tools.tools)
        return api_error_set(e, 400, NULL, "tools", "The request takes too much memory.");
    for (size_t i = 0; i < n; i++)
        if (read_tool(a, json_object_array_get_idx(tools, i), i, ctx, e))
            return -1;
    return 0;
}

/* A tool by name: only it may be called, once. */
static int choose_one(struct api_tools *t, struct json_object *choice, struct api_error *e)
{
    struct json_object *function = function_of(choice, "tool_choice", e);
    if (!function)
        return -1;
    const char *name = name_of(function);
    for (uint32_t i = 0; name && i < t->n; i++) {
        if (strcmp(t->names[i], name) != 0)
            continue;
        t->names[0] = t->names[i];
        t->tools[0] = t->tools[i];
        t->n = 1;
        t->required = true;
        t->one_only = true;
        return 0;
    }
    return api_error_set(e, 400, "invalid_value", "tool_choice",
                         "Invalid value for 'tool_choice': 'tools' has no function of that name.");
}

static int read_choice(struct api_tools *t, struct json_object *choice, struct api_error *e)
{
    if (!choice)
        return 0;
    if (json_object_is_type(choice, json_type_object))
        return choose_one(t, choice, e);
    const char *s =
        json_object_is_type(choice, json_type_string) ? json_object_get_string(choice) : "";
    t->required = strcmp(s, "required") == 0;
    if (strcmp(s, "none") == 0)
        t->n = 0;
    else if (strcmp(s, "auto") != 0 && !t->required)
        return invalid(e, "tool_choice", "\"none\", \"auto\", \"required\" or a function");
    return 0;
}

static int check_form(const struct api_request *a, struct api_error *e)
{
    if (!a->model->chat || (chat_template_takes_tools(a->model->chat) &&
                            chat_template_speech(a->model->chat).tools != SPEECH_NO_TOOLS))
        return 0;
    return api_error_set(e, 400, "unsupported_parameter", "tools",
                         "The model `%s` was not made for tools, or writes calls in a form that is "
                         "not served: leave out 'tools', or set 'tool_choice' to \"none\".",
                         a->model->name);
}

int tools_read(struct api_request *a, struct json_object *root, const struct api_context *ctx,
               struct api_error *e)
{
    struct json_object *tools = json_object_object_get(root, "tools");
    struct json_object *choice = json_object_object_get(root, "tool_choice");
    size_t n = tools ? json_object_array_length(tools) : 0;
    const char *word =
        json_object_is_type(choice, json_type_string) ? json_object_get_string(choice) : "";
    a->tools.one_only = !a->parallel_tool_calls;
    if (n == 0) {
        bool asks = choice && strcmp(word, "none") != 0 && strcmp(word, "auto") != 0;
        return asks ? invalid(e, "tool_choice", "\"none\" or \"auto\" where there are no 'tools'")
                    : 0;
    }
    if (read_list(a, tools, ctx, e) || read_choice(&a->tools, choice, e))
        return -1;
    return a->tools.n > 0 ? check_form(a, e) : 0;
}

int tools_constrain(struct api_request *a, bool in_thought, const struct api_context *ctx,
                    struct api_error *e)
{
    struct api_tools *t = &a->tools;
    struct buf grammar, lead;
    int rc = 0;
    if (t->n == 0 || (!t->required && !t->strict))
        return 0;
    struct speech_rule rule = {
        .may_talk = !t->required, .several = !t->one_only, .in_thought = in_thought};
    buf_init(&grammar, 0);
    buf_init(&lead, 0);
    if (!speech_grammar(chat_template_speech(a->model->chat), t->tools, t->n, rule, &grammar,
                        &lead))
        rc = api_error_set(e, 400, "unsupported_parameter", t->required ? "tool_choice" : "tools",
                           t->required
                               ? "The model `%s` can't be held to calls of these tools: name one "
                                 "in 'tool_choice', or set it to \"auto\"."
                               : "The model `%s` can't be held to a tool's schema unless a call is "
                                 "required: leave out 'strict', or set 'tool_choice'.",
                           a->model->name);
    else if (grammar.failed || lead.failed)
        rc = api_error_set(e, 400, NULL, "tools", "The request takes too much memory.");
    if (rc == 0 && lead.len > 0)
        t->lead = arena_strndup(ctx->arena, buf_str(&lead), lead.len);
    if (rc == 0)
        rc = structured_take(a, GRAMMAR_GBNF, buf_str(&grammar), grammar.len, "tools", ctx, e);
    buf_release(&grammar);
    buf_release(&lead);
    return rc;
}
