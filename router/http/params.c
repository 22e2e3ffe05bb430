/* params.c: the parameters that are more than one number, and the rules between them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "router/http/fields.h"
#include "runtime/base/check.h"

static int read_stop_one(struct api_request *a, struct json_object *v, const char *param,
                         const struct api_context *ctx, struct api_error *e)
{
    if (!json_object_is_type(v, json_type_string))
        return api_error_set(e, 400, "invalid_type", param,
                             "Invalid type for '%s': expected a string, but got %s instead.", param,
                             field_json_type(v));
    size_t n = (size_t)json_object_get_string_len(v);
    const char *text = json_object_get_string(v);
    if (n == 0 || n > ctx->limits->stop_bytes_max || memchr(text, 0, n))
        return api_error_set(e, 400, "invalid_value", param,
                             "Invalid '%s': a stop string has 1 to %u bytes and no NUL.", param,
                             ctx->limits->stop_bytes_max);
    a->stop[a->n_stop] = arena_strndup(ctx->arena, text, n);
    if (!a->stop[a->n_stop])
        return api_error_set(e, 400, "invalid_value", param, "The stop strings are too long.");
    a->n_stop++;
    return 0;
}

int params_read_stop(struct api_request *a, struct json_object *v, const struct api_context *ctx,
                     struct api_error *e)
{
    bool list = json_object_is_type(v, json_type_array);
    if (!list && !json_object_is_type(v, json_type_string))
        return api_error_set(
            e, 400, "invalid_type", "stop",
            "Invalid type for 'stop': expected a string or an array, but got %s instead.",
            field_json_type(v));
    size_t n = list ? json_object_array_length(v) : 1;
    if (n > ctx->limits->stop_max)
        return api_error_set(
            e, 400, "array_above_max_length", "stop",
            "Invalid 'stop': array too long. Expected at most %u strings, but got %zu instead.",
            ctx->limits->stop_max, n);
    a->stop = arena_calloc(ctx->arena, n ? n : 1, sizeof(*a->stop));
    if (!a->stop)
        return api_error_set(e, 400, "invalid_value", "stop", "The stop strings are too long.");
    a->n_stop = 0;
    for (size_t i = 0; i < n; i++) {
        char param[32];
        snprintf(param, sizeof(param), list ? "stop[%zu]" : "stop", i);
        if (read_stop_one(a, list ? json_object_array_get_idx(v, i) : v, param, ctx, e))
            return -1;
    }
    return 0;
}

int params_read_stream_options(struct api_request *a, struct json_object *v,
                               const struct api_context *ctx, struct api_error *e)
{
    /* Padding against observers of sizes is OpenAI's own affair: none is ever sent. */
    bool ignored;
    const struct {
        const char *name;
        bool *to;
    } options[] = {{"include_usage", &a->include_usage},
                   {"continuous_usage_stats", &a->continuous_usage},
                   {"include_obfuscation", &ignored}};
    (void)ctx;
    json_object_object_foreach(v, key, value)
    {
        char param[API_PARAM_BYTES];
        size_t i = 0;
        snprintf(param, sizeof(param), "stream_options.%.50s", key);
        while (i < ARRAY_LEN(options) && strcmp(key, options[i].name) != 0)
            i++;
        if (i == ARRAY_LEN(options))
            return api_error_set(e, 400, "unknown_parameter", param,
                                 "Unrecognized request argument supplied: %s", param);
        if (value && !json_object_is_type(value, json_type_boolean))
            return api_error_set(e, 400, "invalid_type", param,
                                 "Invalid type for '%s': expected a boolean, but got %s instead.",
                                 param, field_json_type(value));
        *options[i].to = json_object_get_boolean(value);
    }
    a->continuous_usage = a->continuous_usage && a->include_usage;
    return 0;
}

int params_read_stop_ids(struct api_request *a, struct json_object *v,
                         const struct api_context *ctx, struct api_error *e)
{
    return api_read_ids(v, a->model, API_STOP_IDS_MAX, "stop_token_ids", ctx->arena, &a->stop_ids,
                        &a->n_stop_ids, e);
}

static int not_among(const char *param, const char *got, const char *wanted, struct api_error *e)
{
    return api_error_set(e, 400, "invalid_value", param,
                         "Invalid value: '%.40s'. Supported values are: %s.", got, wanted);
}

int params_read_encoding_format(struct api_request *a, struct json_object *v,
                                const struct api_context *ctx, struct api_error *e)
{
    const char *s = json_object_get_string(v);
    (void)ctx;
    a->base64 = strcmp(s, "base64") == 0;
    return a->base64 || strcmp(s, "float") == 0
               ? 0
               : not_among("encoding_format", s, "'float' and 'base64'", e);
}

int params_read_pooling(struct api_request *a, struct json_object *v, const struct api_context *ctx,
                        struct api_error *e)
{
    const char *s = json_object_get_string(v);
    (void)ctx;
    a->pooling = strcmp(s, "mean") == 0 ? GEN_MEAN : GEN_LAST;
    return a->pooling == GEN_MEAN || strcmp(s, "last") == 0
               ? 0
               : not_among("pooling", s, "'mean' and 'last'", e);
}

struct bias {
    uint32_t id;
    float value;
};

static int by_id(const void *x, const void *y)
{
    uint32_t a = ((const struct bias *)x)->id;
    uint32_t b = ((const struct bias *)y)->id;
    return a < b ? -1 : a > b;
}

/* "12" and nothing that only looks like it. */
static bool parse_id(const char *key, uint32_t vocab, uint32_t *id)
{
    uint64_t x = 0;
    size_t n = strlen(key);
    if (n == 0 || n > 10 || (key[0] == '0' && n > 1))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (key[i] < '0' || key[i] > '9')
            return false;
        x = x * 10 + (uint64_t)(key[i] - '0');
    }
    *id = (uint32_t)x;
    return x < vocab;
}

static int read_bias_one(const char *key, struct json_object *v, uint32_t vocab, struct bias *out,
                         struct api_error *e)
{
    char param[API_PARAM_BYTES];
    snprintf(param, sizeof(param), "logit_bias.%.40s", key);
    if (!parse_id(key, vocab, &out->id))
        return api_error_set(e, 400, "invalid_value", param,
                             "Invalid key in 'logit_bias': '%.40s' is no token id. Keys are "
                             "integers below %u.",
                             key, vocab);
    if (!json_object_is_type(v, json_type_int) && !json_object_is_type(v, json_type_double))
        return api_error_set(e, 400, "invalid_type", param,
                             "Invalid type for '%s': expected a number, but got %s instead.", param,
                             field_json_type(v));
    double value = json_object_get_double(v);
    if (!(value >= -100 && value <= 100))
        return api_error_set(e, 400, "invalid_value", param,
                             "Invalid '%s': expected a value between -100 and 100.", param);
    out->value = (float)value;
    return 0;
}

int params_read_logit_bias(struct api_request *a, struct json_object *v,
                           const struct api_context *ctx, struct api_error *e)
{
    uint32_t vocab = tokenizer_vocab_size(a->model->tokenizer);
    size_t n = (size_t)json_object_object_length(v);
    if (n > API_LOGIT_BIAS_MAX)
        return api_error_set(e, 400, "object_above_max_length", "logit_bias",
                             "Invalid 'logit_bias': expected at most %d tokens, but got %zu.",
                             API_LOGIT_BIAS_MAX, n);
    struct bias *sorted = arena_calloc(ctx->arena, n + 1, sizeof(*sorted));
    a->bias_ids = arena_calloc(ctx->arena, n + 1, sizeof(*a->bias_ids));
    a->bias_values = arena_calloc(ctx->arena, n + 1, sizeof(*a->bias_values));
    if (!sorted || !a->bias_ids || !a->bias_values)
        return api_error_set(e, 400, NULL, "logit_bias", "The request takes too much memory.");
    size_t i = 0;
    json_object_object_foreach(
        v, key, value) if (read_bias_one(key, value, vocab, &sorted[i++], e)) return -1;
    qsort(sorted, n, sizeof(*sorted), by_id);
    for (i = 0; i < n; i++) {
        a->bias_ids[i] = sorted[i].id;
        a->bias_values[i] = sorted[i].value;
    }
    a->n_bias = (uint32_t)n;
    return 0;
}

static int check_counts(const struct api_request *a, const struct api_context *ctx,
                        struct api_error *e)
{
    uint32_t max = ctx->limits->choices_max;
    if (a->n > max)
        return api_error_set(
            e, 400, "integer_above_max_value", "n",
            "Invalid 'n': integer above maximum value. Expected a value <= %u, but got %" PRId64
            " instead.",
            max, a->n);
    if (a->best_of && a->best_of != a->n)
        return api_error_set(e, 400, "unsupported_parameter", "best_of",
                             "Unsupported value: 'best_of' is only served when it equals n.");
    return 0;
}

int params_check(struct api_request *a, struct json_object *root, const struct api_context *ctx,
                 struct api_error *e)
{
    if (check_counts(a, ctx, e))
        return -1;
    if (!a->stream && json_object_object_get(root, "stream_options"))
        return api_error_set(e, 400, "invalid_value", "stream_options",
                             "'stream_options' is only allowed when 'stream' is true.");
    if (a->top_logprobs >= 0 && !a->want_logprobs)
        return api_error_set(e, 400, "invalid_value", "top_logprobs",
                             "'top_logprobs' is only allowed when 'logprobs' is true.");
    if (a->text_logprobs >= 0) {
        a->want_logprobs = true;
        a->top_logprobs = a->text_logprobs;
    }
    if (a->echo && a->want_logprobs)
        return api_error_set(e, 400, "unsupported_parameter", "logprobs",
                             "'logprobs' of an echoed prompt are not served: use one of the two.");
    if (a->max_completion_tokens) {
        if (a->max_tokens && a->max_tokens != a->max_completion_tokens)
            return api_error_set(e, 400, "invalid_value", "max_tokens",
                                 "'max_tokens' and 'max_completion_tokens' differ: set one.");
        a->max_tokens = a->max_completion_tokens;
    }
    if (a->top_k < 0)
        a->top_k = 0;
    return 0;
}
