/* messages.c: OpenAI's messages: their shape, and the way to the prompt's tokens. */
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "router/http/api_request.h"
#include "router/http/fields.h"
#include "runtime/text/chat.h"

static int wrong_type(struct api_error *e, const char *param, const char *wanted,
                      struct json_object *got)
{
    return api_error_set(e, 400, "invalid_type", param,
                         "Invalid type for '%s': expected %s, but got %s instead.", param, wanted,
                         field_json_type(got));
}

static int check_part(struct json_object *part, size_t message, size_t index, struct api_error *e)
{
    char param[API_PARAM_BYTES];
    if (!json_object_is_type(part, json_type_object)) {
        snprintf(param, sizeof(param), "messages[%zu].content[%zu]", message, index);
        return wrong_type(e, param, "an object", part);
    }
    struct json_object *type = json_object_object_get(part, "type");
    struct json_object *text = json_object_object_get(part, "text");
    if (!json_object_is_type(type, json_type_string) ||
        strcmp(json_object_get_string(type), "text") != 0) {
        snprintf(param, sizeof(param), "messages[%zu].content[%zu].type", message, index);
        return api_error_set(e, 400, "invalid_value", param,
                             "Invalid value for '%s': only \"text\" is served.", param);
    }
    if (!json_object_is_type(text, json_type_string)) {
        snprintf(param, sizeof(param), "messages[%zu].content[%zu].text", message, index);
        return wrong_type(e, param, "a string", text);
    }
    return 0;
}

static int check_content(struct json_object *m, size_t index, bool may_lack, struct api_error *e)
{
    struct json_object *content = json_object_object_get(m, "content");
    if (json_object_is_type(content, json_type_string) || (!content && may_lack))
        return 0;
    if (!json_object_is_type(content, json_type_array)) {
        char param[API_PARAM_BYTES];
        snprintf(param, sizeof(param), "messages[%zu].content", index);
        return wrong_type(e, param, "a string or an array of parts", content);
    }
    size_t n = json_object_array_length(content);
    for (size_t i = 0; i < n; i++)
        if (check_part(json_object_array_get_idx(content, i), index, i, e))
            return -1;
    return 0;
}

static int check_tool_call(struct json_object *call, size_t message, size_t index,
                           struct api_error *e)
{
    char param[API_PARAM_BYTES];
    snprintf(param, sizeof(param), "messages[%zu].tool_calls[%zu]", message, index);
    struct json_object *function = json_object_is_type(call, json_type_object)
                                       ? json_object_object_get(call, "function")
                                       : NULL;
    if (!json_object_is_type(function, json_type_object) ||
        !json_object_is_type(json_object_object_get(function, "name"), json_type_string))
        return api_error_set(e, 400, "invalid_value", param,
                             "Invalid '%s': expected a call of a function with a name.", param);
    return 0;
}

static int check_tool_calls(struct json_object *calls, size_t message, struct api_error *e)
{
    char param[API_PARAM_BYTES];
    snprintf(param, sizeof(param), "messages[%zu].tool_calls", message);
    if (!json_object_is_type(calls, json_type_array))
        return wrong_type(e, param, "an array", calls);
    size_t n = json_object_array_length(calls);
    for (size_t i = 0; i < n; i++)
        if (check_tool_call(json_object_array_get_idx(calls, i), message, i, e))
            return -1;
    return 0;
}

static int refuse_member(struct json_object *m, size_t index, const char *name, struct api_error *e)
{
    char param[API_PARAM_BYTES];
    if (!json_object_object_get(m, name))
        return 0;
    snprintf(param, sizeof(param), "messages[%zu].%s", index, name);
    return api_error_set(e, 400, "unsupported_parameter", param, "Unsupported parameter: '%s'.",
                         param);
}

/* Sets *role to the one that templates know. */
static int check_role(struct json_object *m, size_t index, const char **role, struct api_error *e)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool", "developer"};
    struct json_object *v = json_object_object_get(m, "role");
    bool is_string = json_object_is_type(v, json_type_string);
    *role = NULL;
    for (size_t i = 0; is_string && !*role && i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(json_object_get_string(v), roles[i]) == 0)
            *role = roles[i];
    if (!*role) {
        char param[API_PARAM_BYTES];
        snprintf(param, sizeof(param), "messages[%zu].role", index);
        if (v && !is_string)
            return wrong_type(e, param, "a string", v);
        return v ? api_error_set(e, 400, "invalid_value", param,
                                 "Invalid value: '%.40s'. Supported values are: 'system', 'user', "
                                 "'assistant', 'tool' and 'developer'.",
                                 json_object_get_string(v))
                 : api_error_set(e, 400, "missing_required_parameter", param,
                                 "Missing required parameter: '%s'.", param);
    }
    if (strcmp(*role, "developer") == 0) {
        *role = "system";
        json_object_object_add(m, "role", json_object_new_string("system"));
    }
    return 0;
}

static int check_message(struct json_object *m, size_t index, struct api_error *e)
{
    char param[API_PARAM_BYTES];
    const char *role;
    if (!json_object_is_type(m, json_type_object)) {
        snprintf(param, sizeof(param), "messages[%zu]", index);
        return wrong_type(e, param, "an object", m);
    }
    if (check_role(m, index, &role, e) || refuse_member(m, index, "audio", e) ||
        refuse_member(m, index, "function_call", e) || refuse_member(m, index, "refusal", e))
        return -1;
    struct json_object *calls = json_object_object_get(m, "tool_calls");
    if (calls && check_tool_calls(calls, index, e))
        return -1;
    if (strcmp(role, "tool") == 0) {
        struct json_object *id = json_object_object_get(m, "tool_call_id");
        if (!json_object_is_type(id, json_type_string)) {
            snprintf(param, sizeof(param), "messages[%zu].tool_call_id", index);
            return wrong_type(e, param, "a string", id);
        }
    }
    return check_content(m, index, strcmp(role, "assistant") == 0 && calls, e);
}

int messages_check(struct json_object *messages, struct api_error *e)
{
    if (!messages)
        return api_error_set(e, 400, "missing_required_parameter", "messages",
                             "Missing required parameter: 'messages'.");
    if (!json_object_is_type(messages, json_type_array))
        return wrong_type(e, "messages", "an array", messages);
    size_t n = json_object_array_length(messages);
    if (n == 0)
        return api_error_set(e, 400, "empty_array", "messages",
                             "Invalid 'messages': empty array. Expected at least one message.");
    for (size_t i = 0; i < n; i++)
        if (check_message(json_object_array_get_idx(messages, i), i, e))
            return -1;
    return 0;
}

static size_t content_bytes(struct json_object *message)
{
    struct json_object *content = json_object_object_get(message, "content");
    size_t bytes = 0;
    if (json_object_is_type(content, json_type_string))
        return (size_t)json_object_get_string_len(content);
    size_t n = content ? json_object_array_length(content) : 0;
    for (size_t i = 0; i < n; i++) {
        struct json_object *part = json_object_array_get_idx(content, i);
        bytes += (size_t)json_object_get_string_len(json_object_object_get(part, "text"));
    }
    return bytes;
}

/* Before the template is run over what can't fit. */
static int check_length(const struct model_text *m, struct json_object *messages,
                        struct api_error *e)
{
    size_t bytes = 0;
    size_t n = json_object_array_length(messages);
    for (size_t i = 0; i < n; i++)
        bytes += content_bytes(json_object_array_get_idx(messages, i));
    return api_check_length(m, bytes, "messages", e);
}

int messages_render(const struct model_text *m, struct json_object *root,
                    bool add_generation_prompt, const struct api_context *ctx, struct buf *out,
                    struct api_error *e)
{
    struct json_object *messages = json_object_object_get(root, "messages");
    struct json_object *tools = json_object_object_get(root, "tools");
    struct chat_options options = {
        .add_generation_prompt = add_generation_prompt,
        .kwargs = json_object_object_get(root, "chat_template_kwargs"),
        .now_s = ctx->now_s,
    };
    if (messages_check(messages, e))
        return -1;
    if (!m->chat)
        return api_error_set(e, 400, "unsupported_model", "model",
                             "The model `%s` takes no messages (%s): use completions.", m->name,
                             m->chat_refusal ? m->chat_refusal : "it has no chat template");
    if (check_length(m, messages, e))
        return -1;
    if (tools && (json_object_array_length(tools) == 0 || !chat_template_takes_tools(m->chat)))
        tools = NULL; /* no call is asked for (tools_read), so nothing is lost */
    struct err why = {0};
    int code = chat_render(m->chat, messages, tools, &options, NULL, out, &why);
    return code ? api_error_set(e, code == ERR_NOMEM ? 503 : 400, NULL, "messages", "%s", why.msg)
                : 0;
}

int messages_encode(const struct model_text *m, struct json_object *root,
                    bool add_generation_prompt, const struct api_context *ctx,
                    struct api_prompt *out, struct api_error *e)
{
    struct buf text;
    buf_init(&text, 0);
    int code = messages_render(m, root, add_generation_prompt, ctx, &text, e);
    if (code == 0)
        code = api_encode(m, buf_str(&text), text.len, TOKENIZER_PARSE_SPECIAL, "messages", ctx,
                          out, e);
    buf_release(&text);
    return code;
}
