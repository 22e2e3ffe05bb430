#include "router/http/api_request.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "router/http/fields.h"
#include "router/http/json_check.h"
#include "router/http/json_read.h"
#include "runtime/base/check.h"
#include "runtime/text/chat.h"
#include "runtime/text/detok.h"

#define TEXT_MAX_TOKENS_DEFAULT 16 /* OpenAI's, for completions */

static int refuse_json(enum json_check_result r, const struct json_check *check,
                       struct api_error *e)
{
    char key[API_PARAM_BYTES];
    size_t n = !check->key ? 0 : check->key_n < 60 ? check->key_n : 60;
    snprintf(key, sizeof(key), "%.*s", (int)n, check->key ? check->key : "");
    if (r == JSON_CHECK_COUNT)
        return api_error_set(e, 400, "array_above_max_length", key,
                             "The body holds too many values, in '%s'.", key);
    return api_error_set(e, 400, NULL, key,
                         "We could not parse the JSON body of your request: %s, at byte %zu.",
                         check->why, check->at);
}

int api_parse_object(const char *body, size_t n, struct json_object **out, struct api_error *e)
{
    struct json_check check;
    enum json_check_result r = json_check(body ? body : "", n, &check);
    if (r)
        return refuse_json(r, &check, e);
    struct json_object *root = NULL;
    if (json_read(body, n, &root))
        return api_error_set(e, 503, NULL, NULL, "There is no memory for the request now.");
    if (!root || !json_object_is_type(root, json_type_object)) {
        json_object_put(root);
        return api_error_set(e, 400, NULL, NULL, "The body of the request is not a JSON object.");
    }
    *out = root;
    return 0;
}

int api_find_model(const struct model_texts *texts, struct json_object *name,
                   const struct model_text **out, struct api_error *e)
{
    *out = NULL;
    if (!name && texts->n == 1)
        *out = &texts->items[0];
    if (*out)
        return 0;
    if (!name)
        return api_error_set(e, 400, "missing_required_parameter", "model",
                             "Missing required parameter: 'model'.");
    if (!json_object_is_type(name, json_type_string))
        return api_error_set(e, 400, "invalid_type", "model",
                             "Invalid type for 'model': expected a string, but got %s instead.",
                             field_json_type(name));
    const char *text = json_object_get_string(name);
    if (strlen(text) == (size_t)json_object_get_string_len(name))
        *out = model_texts_find(texts, text);
    if (!*out)
        return api_error_set(e, 404, "model_not_found", "model",
                             "The model `%.100s` does not exist.", text);
    return 0;
}

static int too_long(const struct model_text *m, const char *param, struct api_error *e)
{
    return api_error_set(
        e, 400, "context_length_exceeded", param,
        "This model's maximum context length is %u tokens. However, '%s' leaves no "
        "room in it for an answer. Please shorten it.",
        m->context_tokens, param);
}

int api_check_length(const struct model_text *m, size_t bytes, const char *param,
                     struct api_error *e)
{
    if (bytes > (uint64_t)m->context_tokens * m->token_bytes_max)
        return too_long(m, param, e);
    return 0;
}

int api_encode(const struct model_text *m, const char *text, size_t n, unsigned flags,
               const char *param, const struct api_context *ctx, struct api_prompt *out,
               struct api_error *e)
{
    struct tokenvec v;
    struct err why = {0};
    tokenvec_init(&v, m->context_tokens - 1);
    int code = tokenizer_encode(m->tokenizer, text, n, flags, &v, &why);
    if (code == 0 && v.n > 0) {
        out->ids = arena_memdup(ctx->arena, v.ids, v.n * sizeof(*v.ids));
        out->n = (uint32_t)v.n;
    }
    bool empty = v.n == 0;
    tokenvec_release(&v);
    if (code == ERR_LIMIT)
        return too_long(m, param, e);
    if (code)
        return api_error_set(e, code == ERR_NOMEM ? 503 : 400, NULL, param, "%s", why.msg);
    if (empty)
        return api_error_set(e, 400, "invalid_value", param, "'%s' is empty: there are no tokens.",
                             param);
    if (!out->ids)
        return api_error_set(e, 400, NULL, param, "The request takes too much memory.");
    return 0;
}

int api_read_ids(struct json_object *list, const struct model_text *m, size_t max,
                 const char *param, struct arena *arena, uint32_t **ids, uint32_t *n,
                 struct api_error *e)
{
    size_t count = json_object_array_length(list);
    uint32_t vocab = tokenizer_vocab_size(m->tokenizer);
    if (count > max)
        return api_error_set(e, 400, "array_above_max_length", param,
                             "Invalid '%s': array too long. Expected at most %zu elements, but got "
                             "%zu instead.",
                             param, max, count);
    *ids = arena_calloc(arena, count ? count : 1, sizeof(**ids));
    if (!*ids)
        return api_error_set(e, 400, NULL, param, "The request takes too much memory.");
    for (size_t i = 0; i < count; i++) {
        int64_t id;
        if (!field_int(json_object_array_get_idx(list, i), &id) || id < 0 || id >= vocab)
            return api_error_set(e, 400, "invalid_value", param,
                                 "Invalid '%s': element %zu is no token id. Ids are integers from "
                                 "0 to %u.",
                                 param, i, vocab - 1);
        (*ids)[i] = (uint32_t)id;
    }
    *n = (uint32_t)count;
    return 0;
}

/* ---- the prompts of a completion ----------------------------------------------------------------
 */

static int ids_text(const struct model_text *m, struct api_prompt *p, struct arena *arena)
{
    struct buf text;
    struct detok d;
    buf_init(&text, 0);
    detok_init(&d, true);
    for (uint32_t i = 0; i < p->n; i++)
        detok_feed(&d, m->tokenizer, p->ids[i], &text);
    detok_flush(&d, &text);
    p->text_n = text.len;
    p->text = text.failed ? NULL : arena_strndup(arena, buf_str(&text), text.len);
    buf_release(&text);
    return p->text ? 0 : -1;
}

static int read_prompt(struct api_request *a, struct json_object *v, const char *param,
                       const struct api_context *ctx, struct api_prompt *out, struct api_error *e)
{
    if (json_object_is_type(v, json_type_string)) {
        size_t n = (size_t)json_object_get_string_len(v);
        const char *text = json_object_get_string(v);
        if (a->echo) {
            out->text = arena_strndup(ctx->arena, text, n);
            out->text_n = n;
            if (!out->text)
                return api_error_set(e, 400, NULL, param, "The request takes too much memory.");
        }
        return api_encode(a->model, text, n, TOKENIZER_ADD_BOS_EOS, param, ctx, out, e);
    }
    if (!json_object_is_type(v, json_type_array) || json_object_array_length(v) == 0)
        return api_error_set(e, 400, "invalid_type", param,
                             "Invalid type for '%s': expected a string or token ids.", param);
    if (json_object_array_length(v) >= a->model->context_tokens)
        return too_long(a->model, param, e);
    if (api_read_ids(v, a->model, a->model->context_tokens, param, ctx->arena, &out->ids, &out->n,
                     e))
        return -1;
    if (a->echo && ids_text(a->model, out, ctx->arena))
        return api_error_set(e, 400, NULL, param, "The request takes too much memory.");
    return 0;
}

int api_read_prompts(struct api_request *a, struct json_object *prompt,
                     const struct api_context *ctx, struct api_error *e)
{
    const char *name = a->kind == API_EMBEDDING ? "input" : "prompt";
    if (!prompt)
        return api_error_set(e, 400, "missing_required_parameter", name,
                             "Missing required parameter: '%s'.", name);
    bool many = false;
    if (json_object_is_type(prompt, json_type_array) && json_object_array_length(prompt) > 0) {
        struct json_object *first = json_object_array_get_idx(prompt, 0);
        many = json_object_is_type(first, json_type_string) ||
               json_object_is_type(first, json_type_array);
    }
    size_t n = many ? json_object_array_length(prompt) : 1;
    uint32_t max = ctx->limits->choices_max;
    if (a->kind == API_EMBEDDING && n > API_INPUTS_MAX)
        return api_error_set(e, 400, "array_above_max_length", name,
                             "A request has at most %d inputs.", API_INPUTS_MAX);
    if (a->kind != API_EMBEDDING && (n > max || (int64_t)n * a->n > max))
        return api_error_set(e, 400, "array_above_max_length", n > max ? "prompt" : "n",
                             "A request has at most %u choices: prompts times n.", max);
    a->prompts = arena_calloc(ctx->arena, n, sizeof(*a->prompts));
    if (!a->prompts)
        return api_error_set(e, 400, NULL, name, "The request takes too much memory.");
    a->n_prompts = (uint32_t)n;
    for (size_t i = 0; i < n; i++) {
        char param[32];
        snprintf(param, sizeof(param), many ? "%s[%zu]" : "%s", name, i);
        struct json_object *v = many ? json_object_array_get_idx(prompt, i) : prompt;
        if (read_prompt(a, v, param, ctx, &a->prompts[i], e))
            return -1;
    }
    return 0;
}

/* ---- the whole ----------------------------------------------------------------------------------
 */

static int read_chat(struct api_request *a, struct json_object *root, const struct api_context *ctx,
                     struct api_error *e)
{
    a->prompts = arena_calloc(ctx->arena, 1, sizeof(*a->prompts));
    if (!a->prompts)
        return api_error_set(e, 503, NULL, NULL, "There is no memory for the request now.");
    a->n_prompts = 1;
    struct buf text;
    buf_init(&text, 0);
    int rc = tools_read(a, root, ctx, e);
    if (rc == 0)
        rc = messages_render(a->model, root, a->add_generation_prompt, ctx, &text, e);
    a->in_thought = rc == 0 && chat_template_speech(a->model->chat).thinks &&
                    speech_prompt_thinks(buf_str(&text), text.len);
    if (rc == 0)
        rc = tools_constrain(a, a->in_thought, ctx, e);
    if (rc == 0)
        rc = structured_think(a, ctx, e);
    if (rc == 0)
        rc = structured_check(a, ctx, e);
    if (rc == 0 && a->tools.lead)
        buf_adds(&text, a->tools.lead);
    if (rc == 0)
        rc = api_encode(a->model, buf_str(&text), text.len, TOKENIZER_PARSE_SPECIAL, "messages",
                        ctx, a->prompts, e);
    buf_release(&text);
    return rc;
}

/* How many tokens may come, now that the prompts' lengths are known. */
static int resolve_max_tokens(struct api_request *a, struct api_error *e)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < a->n_prompts; i++)
        longest = a->prompts[i].n > longest ? a->prompts[i].n : longest;
    uint32_t context = a->model->context_tokens;
    ASSERT(longest < context);
    const char *param = a->max_completion_tokens ? "max_completion_tokens" : "max_tokens";
    if (a->max_tokens > context - longest)
        return api_error_set(e, 400, "context_length_exceeded", param,
                             "This model's maximum context length is %u tokens. However, you "
                             "requested %" PRId64 " tokens (%u in the prompt, %" PRId64
                             " in the completion).",
                             context, a->max_tokens + longest, longest, a->max_tokens);
    if (a->max_tokens == 0 && a->kind == API_CHAT)
        a->max_tokens = context - longest;
    if (a->max_tokens == 0)
        a->max_tokens = context - longest < TEXT_MAX_TOKENS_DEFAULT ? context - longest
                                                                    : TEXT_MAX_TOKENS_DEFAULT;
    if (a->min_tokens > a->max_tokens)
        return api_error_set(e, 400, "invalid_value", "min_tokens",
                             "'min_tokens' is larger than the %" PRId64 " tokens that may come.",
                             a->max_tokens);
    return 0;
}

static void set_defaults(struct api_request *a, enum api_kind kind)
{
    memset(a, 0, sizeof(*a));
    a->kind = kind;
    a->n = 1;
    a->seed = API_SEED_NONE;
    a->temperature = 1;
    a->top_p = 1;
    a->repetition_penalty = 1;
    a->top_logprobs = -1;
    a->text_logprobs = -1;
    a->add_generation_prompt = true;
    a->parallel_tool_calls = true;
    a->pooling = kind == API_EMBEDDING ? GEN_LAST : GEN_TOKENS;
    a->normalize = true;
}

static int read_root(struct api_request *a, struct json_object *root, const struct api_context *ctx,
                     struct api_error *e)
{
    struct json_object *model = json_object_object_get(root, "model");
    if (!model)
        return api_error_set(e, 400, "missing_required_parameter", "model",
                             "Missing required parameter: 'model'.");
    if (fields_read(a, root, ctx, e) || params_check(a, root, ctx, e) ||
        api_find_model(ctx->texts, model, &a->model, e))
        return -1;
    a->model_index = (size_t)(a->model - ctx->texts->items);
    struct json_object *bias = json_object_object_get(root, "logit_bias");
    struct json_object *stop_ids = json_object_object_get(root, "stop_token_ids");
    if ((bias && params_read_logit_bias(a, bias, ctx, e)) ||
        (stop_ids && params_read_stop_ids(a, stop_ids, ctx, e)))
        return -1;
    if (a->kind == API_EMBEDDING) {
        a->max_tokens = 1;
        return api_read_prompts(a, json_object_object_get(root, "input"), ctx, e);
    }
    if ((a->kind == API_CHAT
             ? read_chat(a, root, ctx, e)
             : structured_check(a, ctx, e) ||
                   api_read_prompts(a, json_object_object_get(root, "prompt"), ctx, e)))
        return -1;
    return resolve_max_tokens(a, e);
}

int api_request_read(struct api_request *a, enum api_kind kind, const char *body, size_t n,
                     const struct api_context *ctx, struct api_error *e)
{
    struct json_object *root = NULL;
    set_defaults(a, kind);
    if (api_parse_object(body, n, &root, e))
        return -1;
    int code = read_root(a, root, ctx, e);
    json_object_put(root);
    return code;
}
