/* structured.c: what the output has to follow: response_format, and the names that other servers
 * have for the same. One of them at most; each becomes the request's grammar, as text. */
#include <stdio.h>
#include <string.h>

#include "router/http/fields.h"
#include "runtime/base/buf.h"
#include "runtime/grammar/gbnf.h"
#include "runtime/grammar/grammar_store.h"
#include "runtime/grammar/speech_grammar.h"
#include "runtime/text/chat.h"

#define FORMAT_NAME_BYTES_MAX 64
/* How JSON is written: the way that models have read most of it. */
#define JSON_SPACE GRAMMAR_SPACE_ONE

/* ---- to a source ------------------------------------------------------------------------------
 */

int structured_take(struct api_request *a, enum grammar_kind kind, const char *text, size_t n,
                    const char *param, const struct api_context *ctx, struct api_error *e)
{
    if (a->has_grammar)
        return api_error_set(e, 400, "invalid_value", param,
                             "'%s' and '%s' both say what the output follows: set one.", param,
                             a->grammar_param);
    if (n && memchr(text, 0, n))
        return api_error_set(e, 400, "invalid_value", param, "Invalid '%s': it holds a NUL.",
                             param);
    const char *copy = arena_strndup(ctx->arena, n ? text : "", n);
    a->grammar_param = arena_strdup(ctx->arena, param);
    if (!copy || !a->grammar_param)
        return api_error_set(e, 400, NULL, param, "The request takes too much memory.");
    a->grammar = (struct grammar_source){kind, JSON_SPACE, copy, n};
    a->has_grammar = true;
    return 0;
}

static int wrong_type(const char *param, const char *wanted, struct json_object *v,
                      struct api_error *e)
{
    return api_error_set(e, 400, "invalid_type", param,
                         "Invalid type for '%s': expected %s, but got %s instead.", param, wanted,
                         field_json_type(v));
}

static int take_string(struct api_request *a, enum grammar_kind kind, struct json_object *v,
                       const char *param, const struct api_context *ctx, struct api_error *e)
{
    if (!json_object_is_type(v, json_type_string))
        return wrong_type(param, "a string", v, e);
    return structured_take(a, kind, json_object_get_string(v),
                           (size_t)json_object_get_string_len(v), param, ctx, e);
}

/* json-c cuts an integer of more than 64 bits to the nearest that it can hold. */
static bool has_cut_integer(struct json_object *v)
{
    switch (json_object_get_type(v)) {
    case json_type_int:
        return json_object_get_int64(v) == INT64_MIN || json_object_get_uint64(v) == UINT64_MAX;
    case json_type_array:
        for (size_t i = 0; i < json_object_array_length(v); i++)
            if (has_cut_integer(json_object_array_get_idx(v, i)))
                return true;
        return false;
    case json_type_object: {
        json_object_object_foreach(v, key, member)
        {
            (void)key;
            if (has_cut_integer(member))
                return true;
        }
        return false;
    }
    default:
        return false;
    }
}

static int take_schema(struct api_request *a, struct json_object *v, const char *param,
                       const struct api_context *ctx, struct api_error *e)
{
    if (!json_object_is_type(v, json_type_object))
        return wrong_type(param, "an object", v, e);
    if (has_cut_integer(v))
        return api_error_set(e, 400, "invalid_value", param,
                             "Invalid '%s': it holds an integer of more than 64 bits.", param);
    size_t n;
    const char *text = json_object_to_json_string_length(
        v, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &n);
    if (!text)
        return api_error_set(e, 400, NULL, param, "The request takes too much memory.");
    return structured_take(a, GRAMMAR_JSON_SCHEMA, text, n, param, ctx, e);
}

/* A schema, or the text of one. */
static int take_schema_or_text(struct api_request *a, struct json_object *v, const char *param,
                               const struct api_context *ctx, struct api_error *e)
{
    if (json_object_is_type(v, json_type_string))
        return take_string(a, GRAMMAR_JSON_SCHEMA, v, param, ctx, e);
    return take_schema(a, v, param, ctx, e);
}

static int take_choice(struct api_request *a, struct json_object *v, const char *param,
                       const struct api_context *ctx, struct api_error *e)
{
    size_t count = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : 0;
    struct buf b;
    int rc = 0;
    if (count == 0)
        return api_error_set(e, 400, "invalid_value", param,
                             "Invalid '%s': expected an array of at least one string.", param);
    buf_init(&b, 0);
    buf_adds(&b, "root ::= ");
    for (size_t i = 0; rc == 0 && i < count; i++) {
        struct json_object *one = json_object_array_get_idx(v, i);
        if (!json_object_is_type(one, json_type_string)) {
            rc = wrong_type(param, "an array of strings", one, e);
            break;
        }
        buf_adds(&b, i ? " | " : "");
        gbnf_add_literal(&b, json_object_get_string(one), (size_t)json_object_get_string_len(one));
    }
    if (rc == 0 && b.failed)
        rc = api_error_set(e, 400, NULL, param, "The request takes too much memory.");
    if (rc == 0)
        rc = structured_take(a, GRAMMAR_GBNF, buf_str(&b), b.len, param, ctx, e);
    buf_release(&b);
    return rc;
}

/* ---- OpenAI's response_format -----------------------------------------------------------------
 */

static int unknown(const char *in, const char *key, struct api_error *e)
{
    char param[API_PARAM_BYTES];
    snprintf(param, sizeof(param), "%s.%.40s", in, key);
    return api_error_set(e, 400, "unknown_parameter", param,
                         "Unrecognized request argument supplied: %s", param);
}

static bool is_format_name(const char *s, size_t n)
{
    if (n == 0 || n > FORMAT_NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= 'A' && s[i] <= 'Z') ||
              (s[i] >= '0' && s[i] <= '9') || s[i] == '_' || s[i] == '-'))
            return false;
    return true;
}

/* The member `json_schema`: name, description, schema, strict. */
static int read_named_schema(struct api_request *a, struct json_object *v,
                             const struct api_context *ctx, struct api_error *e)
{
    static const char in[] = "response_format.json_schema";
    if (!json_object_is_type(v, json_type_object))
        return wrong_type(in, "an object", v, e);
    json_object_object_foreach(v, key, member)
    {
        bool known = strcmp(key, "name") == 0 || strcmp(key, "schema") == 0 ||
                     strcmp(key, "description") == 0 || strcmp(key, "strict") == 0;
        if (!known)
            return unknown(in, key, e);
        if (strcmp(key, "strict") == 0 && member && !json_object_is_type(member, json_type_boolean))
            return wrong_type("response_format.json_schema.strict", "a boolean", member, e);
    }
    struct json_object *name = json_object_object_get(v, "name");
    struct json_object *schema = json_object_object_get(v, "schema");
    if (!name || !json_object_is_type(name, json_type_string) ||
        !is_format_name(json_object_get_string(name), (size_t)json_object_get_string_len(name)))
        return api_error_set(e, 400, "invalid_value", "response_format.json_schema.name",
                             "Invalid 'response_format.json_schema.name': expected 1 to %d "
                             "letters, digits, '_' and '-'.",
                             FORMAT_NAME_BYTES_MAX);
    if (!schema)
        return api_error_set(e, 400, "missing_required_parameter",
                             "response_format.json_schema.schema",
                             "Missing required parameter: 'response_format.json_schema.schema'.");
    return take_schema(a, schema, "response_format.json_schema.schema", ctx, e);
}

int structured_read_format(struct api_request *a, struct json_object *v,
                           const struct api_context *ctx, struct api_error *e)
{
    struct json_object *type = json_object_object_get(v, "type");
    const char *t = json_object_is_type(type, json_type_string) ? json_object_get_string(type) : "";
    bool named = strcmp(t, "json_schema") == 0, object = strcmp(t, "json_object") == 0;
    if (!named && !object && strcmp(t, "text") != 0)
        return api_error_set(e, 400, "invalid_value", "response_format.type",
                             "Invalid value for 'response_format.type': expected 'text', "
                             "'json_object' or 'json_schema'.");
    json_object_object_foreach(v, key, member)
    {
        bool known = strcmp(key, "type") == 0 || (named && strcmp(key, "json_schema") == 0) ||
                     (object && strcmp(key, "schema") == 0);
        if (!known && member)
            return unknown("response_format", key, e);
    }
    struct json_object *schema = json_object_object_get(v, "schema");
    if (named) {
        struct json_object *in = json_object_object_get(v, "json_schema");
        return in ? read_named_schema(a, in, ctx, e)
                  : api_error_set(e, 400, "missing_required_parameter",
                                  "response_format.json_schema",
                                  "Missing required parameter: 'response_format.json_schema'.");
    }
    if (schema)
        return take_schema(a, schema, "response_format.schema", ctx, e);
    return object ? structured_take(a, GRAMMAR_JSON_OBJECT, "", 0, "response_format", ctx, e) : 0;
}

/* ---- vLLM's and llama.cpp's names --------------------------------------------------------------
 */

int structured_read_json(struct api_request *a, struct json_object *v,
                         const struct api_context *ctx, struct api_error *e)
{
    return take_schema_or_text(a, v, "guided_json", ctx, e);
}

int structured_read_regex(struct api_request *a, struct json_object *v,
                          const struct api_context *ctx, struct api_error *e)
{
    return take_string(a, GRAMMAR_REGEX, v, "guided_regex", ctx, e);
}

int structured_read_choice(struct api_request *a, struct json_object *v,
                           const struct api_context *ctx, struct api_error *e)
{
    return take_choice(a, v, "guided_choice", ctx, e);
}

int structured_read_guided_grammar(struct api_request *a, struct json_object *v,
                                   const struct api_context *ctx, struct api_error *e)
{
    return take_string(a, GRAMMAR_GBNF, v, "guided_grammar", ctx, e);
}

int structured_read_grammar(struct api_request *a, struct json_object *v,
                            const struct api_context *ctx, struct api_error *e)
{
    return take_string(a, GRAMMAR_GBNF, v, "grammar", ctx, e);
}

int structured_read_schema(struct api_request *a, struct json_object *v,
                           const struct api_context *ctx, struct api_error *e)
{
    return take_schema(a, v, "json_schema", ctx, e);
}

static int read_json_object(struct api_request *a, struct json_object *v, const char *param,
                            const struct api_context *ctx, struct api_error *e)
{
    if (!json_object_is_type(v, json_type_boolean))
        return wrong_type(param, "a boolean", v, e);
    return json_object_get_boolean(v)
               ? structured_take(a, GRAMMAR_JSON_OBJECT, "", 0, param, ctx, e)
               : 0;
}

/* One member of structured_outputs. */
static int read_output(struct api_request *a, const char *key, struct json_object *v,
                       const struct api_context *ctx, struct api_error *e)
{
    char param[API_PARAM_BYTES];
    snprintf(param, sizeof(param), "structured_outputs.%.40s", key);
    if (strcmp(key, "json") == 0)
        return take_schema_or_text(a, v, param, ctx, e);
    if (strcmp(key, "regex") == 0)
        return take_string(a, GRAMMAR_REGEX, v, param, ctx, e);
    if (strcmp(key, "choice") == 0)
        return take_choice(a, v, param, ctx, e);
    if (strcmp(key, "grammar") == 0)
        return take_string(a, GRAMMAR_GBNF, v, param, ctx, e);
    if (strcmp(key, "json_object") == 0)
        return read_json_object(a, v, param, ctx, e);
    /* There is one way of writing and no fallback: to forbid others asks for nothing. */
    if (strcmp(key, "disable_fallback") == 0 || strcmp(key, "disable_any_whitespace") == 0)
        return json_object_is_type(v, json_type_boolean) ? 0 : wrong_type(param, "a boolean", v, e);
    if (strcmp(key, "disable_additional_properties") == 0 &&
        json_object_is_type(v, json_type_boolean) && !json_object_get_boolean(v))
        return 0;
    return api_error_set(e, 400, "unsupported_parameter", param,
                         "Unsupported parameter: '%s'. Served are json, regex, choice, grammar and "
                         "json_object.",
                         param);
}

int structured_read_outputs(struct api_request *a, struct json_object *v,
                            const struct api_context *ctx, struct api_error *e)
{
    json_object_object_foreach(v, key, member)
    {
        if (member && read_output(a, key, member, ctx, e))
            return -1;
    }
    return 0;
}

/* ---- behind a thought --------------------------------------------------------------------------
 */

int structured_think(struct api_request *a, const struct api_context *ctx, struct api_error *e)
{
    struct speech_form form = chat_template_speech(a->model->chat);
    struct buf b;
    if (!a->has_grammar || !form.thinks)
        return 0;
    bool object = a->grammar.kind == GRAMMAR_JSON_OBJECT;
    if (!object && (a->grammar.kind != GRAMMAR_JSON_SCHEMA ||
                    a->grammar.text[strspn(a->grammar.text, " \t\r\n")] != '{'))
        return 0;
    buf_init(&b, 0);
    buf_adds(&b, "root ::= ");
    speech_thought_grammar(form, a->in_thought, &b);
    buf_adds(&b, "%json ");
    buf_adds(&b, object ? "{\"type\":\"object\"}" : a->grammar.text);
    a->has_grammar = false;
    int rc =
        b.failed
            ? api_error_set(e, 400, NULL, a->grammar_param, "The request takes too much memory.")
            : structured_take(a, GRAMMAR_GBNF, buf_str(&b), b.len, a->grammar_param, ctx, e);
    buf_release(&b);
    return rc;
}

/* ---- can it be compiled? -----------------------------------------------------------------------
 */

int structured_check(struct api_request *a, const struct api_context *ctx, struct api_error *e)
{
    struct grammar_entry *entry;
    struct err why;
    int rc = 1;
    if (!a->has_grammar)
        return 0;
    if (ctx->background)
        rc = grammar_store_ask(a->model->grammars, &a->grammar, &why);
    a->grammar_pending = rc == 0;
    if (a->grammar_pending)
        return api_error_set(e, 503, NULL, a->grammar_param, "'%s' is being compiled.",
                             a->grammar_param);
    if (rc > 0)
        rc = grammar_store_get(a->model->grammars, &a->grammar, &entry, &why);
    if (rc == 0) {
        grammar_store_put(a->model->grammars, entry);
        return 0;
    }
    bool later = rc == ERR_NOMEM || rc == ERR_BUSY;
    return api_error_set(e, later ? 503 : 400, later ? NULL : "invalid_value", a->grammar_param,
                         "Invalid '%s': %s", a->grammar_param, why.msg);
}
