#include <json-c/json.h>
#include <string.h>

#include "router/http/fields.h"
#include "router/http/tokenize.h"
#include "runtime/text/detok.h"

static int check_fields(struct json_object *root, const char *const *known, size_t n,
                        struct api_error *e)
{
    json_object_object_foreach(root, key, v)
    {
        bool found = false;
        (void)v;
        for (size_t i = 0; i < n; i++)
            found = found || strcmp(known[i], key) == 0;
        if (!found)
            return api_error_set(e, 400, "unknown_parameter", key,
                                 "Unrecognized request argument supplied: %.60s", key);
    }
    return 0;
}

static int get_bool(struct json_object *root, const char *name, bool def, bool *out,
                    struct api_error *e)
{
    struct json_object *v = json_object_object_get(root, name);
    *out = def;
    if (!v)
        return 0;
    if (!json_object_is_type(v, json_type_boolean))
        return api_error_set(e, 400, "invalid_type", name,
                             "Invalid type for '%s': expected a boolean, but got %s instead.", name,
                             field_json_type(v));
    *out = json_object_get_boolean(v);
    return 0;
}

static int read_text(struct tokenize_call *c, struct json_object *prompt, bool add_special,
                     const struct api_context *ctx, struct api_error *e)
{
    if (!json_object_is_type(prompt, json_type_string))
        return api_error_set(e, 400, "invalid_type", "prompt",
                             "Invalid type for 'prompt': expected a string, but got %s instead.",
                             field_json_type(prompt));
    size_t n = (size_t)json_object_get_string_len(prompt);
    if (n == 0 && !add_special)
        return 0;
    return api_encode(c->model, json_object_get_string(prompt), n,
                      add_special ? TOKENIZER_ADD_BOS_EOS : 0, "prompt", ctx, &c->prompt, e);
}

static int read_prompt_of(struct tokenize_call *c, struct json_object *root,
                          const struct api_context *ctx, struct api_error *e)
{
    static const char *const known[] = {"model",
                                        "prompt",
                                        "messages",
                                        "add_special_tokens",
                                        "add_generation_prompt",
                                        "tools",
                                        "return_token_strs",
                                        "chat_template_kwargs"};
    struct json_object *prompt = json_object_object_get(root, "prompt");
    struct json_object *messages = json_object_object_get(root, "messages");
    struct json_object *tools = json_object_object_get(root, "tools");
    struct json_object *kwargs = json_object_object_get(root, "chat_template_kwargs");
    bool add_special;
    bool generation;
    if (check_fields(root, known, sizeof(known) / sizeof(known[0]), e) ||
        api_find_model(ctx->texts, json_object_object_get(root, "model"), &c->model, e) ||
        get_bool(root, "add_special_tokens", true, &add_special, e) ||
        get_bool(root, "add_generation_prompt", true, &generation, e) ||
        get_bool(root, "return_token_strs", false, &c->strings, e))
        return -1;
    if (tools && !json_object_is_type(tools, json_type_array))
        return api_error_set(e, 400, "invalid_type", "tools", "'tools' is an array.");
    if (kwargs && !json_object_is_type(kwargs, json_type_object))
        return api_error_set(e, 400, "invalid_type", "chat_template_kwargs",
                             "'chat_template_kwargs' is an object.");
    if (!prompt == !messages)
        return api_error_set(e, 400, "missing_required_parameter", "prompt",
                             "Either 'prompt' or 'messages' is required.");
    return messages ? messages_encode(c->model, root, generation, ctx, &c->prompt, e)
                    : read_text(c, prompt, add_special, ctx, e);
}

static int read_tokens(struct json_object *root, const struct api_context *ctx, struct buf *text,
                       struct api_error *e)
{
    static const char *const known[] = {"model", "tokens"};
    struct json_object *tokens = json_object_object_get(root, "tokens");
    const struct model_text *m;
    struct detok d;
    uint32_t *ids;
    uint32_t n;
    if (check_fields(root, known, sizeof(known) / sizeof(known[0]), e) ||
        api_find_model(ctx->texts, json_object_object_get(root, "model"), &m, e))
        return -1;
    if (!json_object_is_type(tokens, json_type_array))
        return api_error_set(e, 400, "invalid_type", "tokens",
                             "'tokens' is required, an array of token ids.");
    if (api_read_ids(tokens, m, m->context_tokens, "tokens", ctx->arena, &ids, &n, e))
        return -1;
    detok_init(&d, true);
    for (uint32_t i = 0; i < n; i++)
        detok_feed(&d, m->tokenizer, ids[i], text);
    detok_flush(&d, text);
    return 0;
}

int tokenize_read(struct tokenize_call *c, const char *body, size_t n,
                  const struct api_context *ctx, struct api_error *e)
{
    struct json_object *root = NULL;
    memset(c, 0, sizeof(*c));
    int code = api_parse_object(body, n, &root, e);
    if (!code)
        code = read_prompt_of(c, root, ctx, e);
    json_object_put(root);
    return code;
}

int detokenize_read(const char *body, size_t n, const struct api_context *ctx, struct buf *text,
                    struct api_error *e)
{
    struct json_object *root = NULL;
    int code = api_parse_object(body, n, &root, e);
    if (!code)
        code = read_tokens(root, ctx, text, e);
    json_object_put(root);
    return code;
}
