#include "router/http/fields.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "runtime/base/check.h"

#define BOTH (API_CHAT | API_TEXT)
#define ALL (BOTH | API_EMBEDDING)
#define AT(member) offsetof(struct api_request, member)
#define TOKENS_MAX 2147483647.0

/* An integer or number within bounds, put at a member. */
#define SET_INT(name, kinds, lo, hi, member)                                    \
    {                                                                           \
        name, kinds, FIELD_INT, FIELD_SET, lo, hi, AT(member), NULL, NULL, NULL \
    }
#define SET_NUMBER(name, kinds, lo, hi, member)                                    \
    {                                                                              \
        name, kinds, FIELD_NUMBER, FIELD_SET, lo, hi, AT(member), NULL, NULL, NULL \
    }
#define SET_BOOL(name, kinds, member)                                          \
    {                                                                          \
        name, kinds, FIELD_BOOL, FIELD_SET, 0, 0, AT(member), NULL, NULL, NULL \
    }
#define SET_STRING(name, kinds, member, note)                                    \
    {                                                                            \
        name, kinds, FIELD_STRING, FIELD_SET, 0, 0, AT(member), NULL, NULL, note \
    }
#define READ(name, kinds, type, fn)                            \
    {                                                          \
        name, kinds, type, FIELD_READ, 0, 0, 0, fn, NULL, NULL \
    }
#define READ_AS(name, type, fn, note)                         \
    {                                                         \
        name, BOTH, type, FIELD_READ, 0, 0, 0, fn, NULL, note \
    }
#define LATER(name, kinds, type, note)                            \
    {                                                             \
        name, kinds, type, FIELD_LATER, 0, 0, 0, NULL, NULL, note \
    }
#define IGNORED(name, kinds, type, note)                            \
    {                                                               \
        name, kinds, type, FIELD_IGNORED, 0, 0, 0, NULL, NULL, note \
    }
#define REFUSED(name, kinds, neutral, note)                                 \
    {                                                                       \
        name, kinds, FIELD_ANY, FIELD_REFUSED, 0, 0, 0, NULL, neutral, note \
    }

static const struct field table[] = {
    LATER("model", ALL, FIELD_STRING, "a name of /v1/models"),
    LATER("messages", API_CHAT, FIELD_ARRAY, "text content only"),
    LATER("prompt", API_TEXT, FIELD_ANY, "a text, texts, token ids, or lists of token ids"),
    SET_BOOL("stream", BOTH, stream),
    READ("stream_options", BOTH, FIELD_OBJECT, params_read_stream_options),
    SET_INT("max_tokens", BOTH, 1, TOKENS_MAX, max_tokens),
    SET_INT("max_completion_tokens", API_CHAT, 1, TOKENS_MAX, max_completion_tokens),
    SET_INT("min_tokens", BOTH, 0, TOKENS_MAX, min_tokens),
    /* The upper bound of n is configured: params_check. */
    SET_INT("n", BOTH, 1, 1e18, n),
    SET_INT("best_of", API_TEXT, 1, 1e18, best_of),
    SET_NUMBER("temperature", BOTH, 0, 2, temperature),
    SET_NUMBER("top_p", BOTH, 0, 1, top_p),
    SET_INT("top_k", BOTH, -1, TOKENS_MAX, top_k),
    SET_NUMBER("min_p", BOTH, 0, 1, min_p),
    SET_INT("seed", BOTH, -9.3e18, 9.3e18, seed),
    SET_NUMBER("presence_penalty", BOTH, -2, 2, presence_penalty),
    SET_NUMBER("frequency_penalty", BOTH, -2, 2, frequency_penalty),
    SET_NUMBER("repetition_penalty", BOTH, 0.01, 100, repetition_penalty),
    LATER("logit_bias", BOTH, FIELD_OBJECT, "token ids to -100..100"),
    READ("stop", BOTH, FIELD_ANY, params_read_stop),
    LATER("stop_token_ids", BOTH, FIELD_ARRAY, "the token is not part of the text"),
    SET_BOOL("ignore_eos", BOTH, ignore_eos),
    SET_BOOL("logprobs", API_CHAT, want_logprobs),
    SET_INT("top_logprobs", API_CHAT, 0, API_TOP_LOGPROBS_MAX, top_logprobs),
    SET_INT("logprobs", API_TEXT, 0, API_TOP_LOGPROBS_MAX, text_logprobs),
    SET_BOOL("echo", API_TEXT, echo),
    SET_BOOL("add_generation_prompt", API_CHAT, add_generation_prompt),
    LATER("chat_template_kwargs", API_CHAT, FIELD_OBJECT, "variables for the model's template"),
    LATER("tools", API_CHAT, FIELD_ARRAY, "functions; at most 128"),
    LATER("tool_choice", API_CHAT, FIELD_ANY, "\"none\", \"auto\", \"required\" or a function"),
    SET_BOOL("parallel_tool_calls", API_CHAT, parallel_tool_calls),
    LATER("input", API_EMBEDDING, FIELD_ANY, "as prompt"),
    READ("encoding_format", API_EMBEDDING, FIELD_STRING, params_read_encoding_format),
    READ("pooling", API_EMBEDDING, FIELD_STRING, params_read_pooling),
    SET_BOOL("normalize", API_EMBEDDING, normalize),
    SET_STRING("user", ALL, user, "keeps a user's requests at one worker"),
    SET_STRING("prompt_cache_key", BOTH, prompt_cache_key, "the same, before user"),
    SET_STRING("cache_salt", ALL, cache_salt, "prompts share cache only under one salt"),
    /* vLLM's, and its way round; unbounded, a level of it could not age
       (runtime/engine/scheduler.h). */
    SET_INT("priority", ALL, -API_PRIORITY_MAX, API_PRIORITY_MAX, priority),
    SET_NUMBER("timeout", ALL, 0.001, 86400, timeout_s),
    READ("argosy", ALL, FIELD_OBJECT, wants_read),

    READ_AS("response_format", FIELD_OBJECT, structured_read_format,
            "text, json_object (with schema, as llama.cpp has it) or json_schema"),
    READ_AS("structured_outputs", FIELD_OBJECT, structured_read_outputs,
            "json, regex, choice, grammar or json_object"),
    READ_AS("guided_json", FIELD_ANY, structured_read_json, "a schema, or its text"),
    READ_AS("guided_regex", FIELD_STRING, structured_read_regex, "the whole output matches"),
    READ_AS("guided_choice", FIELD_ARRAY, structured_read_choice, "strings: the output is one"),
    READ_AS("guided_grammar", FIELD_STRING, structured_read_guided_grammar, "llama.cpp's notation"),
    READ_AS("grammar", FIELD_STRING, structured_read_grammar, "the same, llama.cpp's name"),
    READ_AS("json_schema", FIELD_OBJECT, structured_read_schema, "the same as guided_json"),

    IGNORED("guided_decoding_backend", BOTH, FIELD_STRING, "there is one"),
    IGNORED("metadata", API_CHAT, FIELD_OBJECT, "nothing is stored"),
    IGNORED("store", API_CHAT, FIELD_BOOL, "nothing is stored"),
    IGNORED("service_tier", API_CHAT, FIELD_STRING, "there is one tier"),
    IGNORED("safety_identifier", API_CHAT, FIELD_STRING, "nothing is reported"),
    IGNORED("prompt_cache_options", API_CHAT, FIELD_OBJECT, "the cache keeps what fits"),
    IGNORED("prompt_cache_retention", API_CHAT, FIELD_STRING, "the cache keeps what fits"),

    REFUSED("guided_whitespace_pattern", BOTH, NULL, "White space in JSON stands behind , and :."),
    REFUSED("audio", API_CHAT, NULL, "Audio is not served."),
    REFUSED("modalities", API_CHAT, "[\"text\"]", "Only text is served."),
    REFUSED("prediction", API_CHAT, NULL, "Predicted outputs are not served."),
    REFUSED("functions", API_CHAT, "[]", "Function calls are not served yet."),
    REFUSED("function_call", API_CHAT, "\"none\"", "Function calls are not served yet."),
    REFUSED("moderation", API_CHAT, NULL, "Moderation is not served."),
    REFUSED("reasoning_effort", API_CHAT, NULL,
            "Use chat_template_kwargs for what the model's template offers."),
    REFUSED("verbosity", API_CHAT, "\"medium\"", "Verbosity is not served."),
    REFUSED("web_search_options", API_CHAT, NULL, "Web search is not served."),
    REFUSED("dimensions", API_EMBEDDING, NULL, "Vectors have the model's own length."),
    REFUSED("suffix", API_TEXT, "\"\"", "Insertion is not served."),
    REFUSED("chat_template", API_CHAT, NULL, "A template is the model's own, never the client's."),
};

const struct field *fields_table(size_t *n)
{
    *n = ARRAY_LEN(table);
    return table;
}

const char *field_json_type(struct json_object *v)
{
    switch (json_object_get_type(v)) {
    case json_type_null:
        return "null";
    case json_type_boolean:
        return "a boolean";
    case json_type_double:
        return "a decimal number";
    case json_type_int:
        return "an integer";
    case json_type_object:
        return "an object";
    case json_type_array:
        return "an array";
    case json_type_string:
        return "a string";
    }
    return "something else";
}

bool field_int(struct json_object *v, int64_t *out)
{
    if (json_object_is_type(v, json_type_int)) {
        *out = json_object_get_int64(v);
        /* json-c clamps what is too large. */
        return !(*out == INT64_MAX && json_object_get_uint64(v) > INT64_MAX) && *out != INT64_MIN;
    }
    if (!json_object_is_type(v, json_type_double))
        return false;
    double d = json_object_get_double(v);
    if (!(fabs(d) <= 9007199254740992.0) || d != floor(d))
        return false;
    *out = (int64_t)d;
    return true;
}

static int wrong_type(const struct field *f, struct json_object *v, struct api_error *e)
{
    static const char *const wanted[] = {"a boolean", "an integer", "a number", "a string",
                                         "an object", "an array",   "a value"};
    return api_error_set(e, 400, "invalid_type", f->name,
                         "Invalid type for '%s': expected %s, but got %s instead.", f->name,
                         wanted[f->type], field_json_type(v));
}

static int out_of_range(const struct field *f, const char *kind, bool below, double got,
                        struct api_error *e)
{
    const char *code = f->type == FIELD_INT
                           ? (below ? "integer_below_min_value" : "integer_above_max_value")
                           : (below ? "decimal_below_min_value" : "decimal_above_max_value");
    return api_error_set(
        e, 400, code, f->name,
        "Invalid '%s': %s %s value. Expected a value %s %.10g, but got %.10g instead.", f->name,
        kind, below ? "below minimum" : "above maximum",
        below ? ">=" : "<=", below ? f->min : f->max, got);
}

static int set_int(const struct field *f, struct json_object *v, int64_t *out, struct api_error *e)
{
    bool number = json_object_is_type(v, json_type_int) || json_object_is_type(v, json_type_double);
    int64_t i = 0;
    if (!field_int(v, &i)) {
        double d = number ? json_object_get_double(v) : 0;
        /* Past 64 bits, or 1e30: out of range, not of the wrong type. */
        if (number && fabs(d) > 9e15)
            return out_of_range(f, "integer", d < 0, d, e);
        return wrong_type(f, v, e);
    }
    if ((double)i < f->min || (double)i > f->max)
        return out_of_range(f, "integer", (double)i < f->min, (double)i, e);
    *out = i;
    return 0;
}

static int set_number(const struct field *f, struct json_object *v, double *out,
                      struct api_error *e)
{
    if (!json_object_is_type(v, json_type_int) && !json_object_is_type(v, json_type_double))
        return wrong_type(f, v, e);
    double d = json_object_get_double(v);
    if (!(d >= f->min && d <= f->max))
        return out_of_range(f, "decimal", d < f->min, d, e);
    *out = d;
    return 0;
}

static bool has_type(const struct field *f, struct json_object *v)
{
    int64_t i;
    switch (f->type) {
    case FIELD_BOOL:
        return json_object_is_type(v, json_type_boolean);
    case FIELD_INT:
        return field_int(v, &i);
    case FIELD_NUMBER:
        return json_object_is_type(v, json_type_int) || json_object_is_type(v, json_type_double);
    case FIELD_STRING:
        return json_object_is_type(v, json_type_string);
    case FIELD_OBJECT:
        return json_object_is_type(v, json_type_object);
    case FIELD_ARRAY:
        return json_object_is_type(v, json_type_array);
    case FIELD_ANY:
        return true;
    }
    return false;
}

static int set(struct api_request *a, const struct field *f, struct json_object *v,
               const struct api_context *ctx, struct api_error *e)
{
    char *at = (char *)a + f->offset;
    if (f->type == FIELD_INT)
        return set_int(f, v, (int64_t *)at, e);
    if (f->type == FIELD_NUMBER)
        return set_number(f, v, (double *)at, e);
    if (!has_type(f, v))
        return wrong_type(f, v, e);
    if (f->type == FIELD_BOOL) {
        *(bool *)at = json_object_get_boolean(v);
        return 0;
    }
    ASSERT(f->type == FIELD_STRING);
    size_t n = (size_t)json_object_get_string_len(v);
    const char *copy = arena_strndup(ctx->arena, json_object_get_string(v), n);
    if (!copy)
        return api_error_set(e, 400, "string_too_long", f->name, "'%s' is too long.", f->name);
    *(const char **)at = copy;
    return 0;
}

static bool is_neutral(const struct field *f, struct json_object *v)
{
    if (!f->neutral)
        return false;
    struct json_object *neutral = json_tokener_parse(f->neutral);
    bool same = json_object_equal(neutral, v);
    json_object_put(neutral);
    return same;
}

static int read_field(struct api_request *a, const struct field *f, struct json_object *v,
                      const struct api_context *ctx, struct api_error *e)
{
    switch (f->use) {
    case FIELD_SET:
        return set(a, f, v, ctx, e);
    case FIELD_READ:
        return has_type(f, v) ? f->read(a, v, ctx, e) : wrong_type(f, v, e);
    case FIELD_LATER:
    case FIELD_IGNORED:
        return has_type(f, v) ? 0 : wrong_type(f, v, e);
    case FIELD_REFUSED:
        if (is_neutral(f, v))
            return 0;
        return api_error_set(e, 400, "unsupported_parameter", f->name,
                             "Unsupported parameter: '%s'. %s", f->name, f->note);
    }
    return 0;
}

int fields_read(struct api_request *a, struct json_object *root, const struct api_context *ctx,
                struct api_error *e)
{
    json_object_object_foreach(root, key, v)
    {
        const struct field *f = NULL;
        for (size_t i = 0; i < ARRAY_LEN(table) && !f; i++)
            if ((table[i].kinds & (unsigned)a->kind) && strcmp(table[i].name, key) == 0)
                f = &table[i];
        if (!f)
            return api_error_set(e, 400, "unknown_parameter", key,
                                 "Unrecognized request argument supplied: %.60s", key);
        if (v && read_field(a, f, v, ctx, e))
            return -1;
    }
    return 0;
}
