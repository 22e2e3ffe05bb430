/* wants.c: the field `argosy`: what a request asks of its worker.
 *
 *     {"wants": {"region": "eu", "device": "cuda"}, "price_max": 2.5}
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "router/http/fields.h"
#include "router/policy/policy.h"

/* A label's key or value, into the arena; NULL: too long, empty or with a NUL. */
static const char *take_word(const char *s, size_t n, struct arena *arena)
{
    if (n == 0 || n > API_WANT_BYTES_MAX || memchr(s, 0, n))
        return NULL;
    return arena_strndup(arena, s, n);
}

static int read_labels(struct api_request *a, struct json_object *v, const struct api_context *ctx,
                       struct api_error *e)
{
    int n = json_object_object_length(v);
    a->n_wants = 0;
    if (n > API_WANTS_MAX)
        return api_error_set(e, 400, "object_above_max_length", "argosy.wants",
                             "Invalid 'argosy.wants': at most %d labels, but got %d.",
                             API_WANTS_MAX, n);
    a->wants = arena_calloc(ctx->arena, API_WANTS_MAX, sizeof(*a->wants));
    if (!a->wants)
        return api_error_set(e, 400, NULL, "argosy", "The request takes too much memory.");
    json_object_object_foreach(v, key, value)
    {
        struct policy_label *to = &a->wants[a->n_wants++];
        bool text = json_object_is_type(value, json_type_string);
        to->key = take_word(key, strlen(key), ctx->arena);
        to->value = text ? take_word(json_object_get_string(value),
                                     (size_t)json_object_get_string_len(value), ctx->arena)
                         : NULL;
        if (!to->key || !to->value)
            return api_error_set(e, 400, "invalid_value", "argosy.wants",
                                 "Invalid 'argosy.wants.%.40s': a label and its value are strings "
                                 "of 1 to %d bytes.",
                                 key, API_WANT_BYTES_MAX);
    }
    return 0;
}

static int read_price(struct api_request *a, struct json_object *v, struct api_error *e)
{
    bool number = json_object_is_type(v, json_type_int) || json_object_is_type(v, json_type_double);
    double price = number ? json_object_get_double(v) : 0;
    if (!(price > 0 && isfinite(price)))
        return api_error_set(e, 400, "invalid_value", "argosy.price_max",
                             "Invalid 'argosy.price_max': expected a number above 0.");
    a->price_max = price;
    return 0;
}

int wants_read(struct api_request *a, struct json_object *v, const struct api_context *ctx,
               struct api_error *e)
{
    json_object_object_foreach(v, key, value)
    {
        char param[API_PARAM_BYTES];
        int rc = 0;
        snprintf(param, sizeof(param), "argosy.%.50s", key);
        bool labels = strcmp(key, "wants") == 0;
        if (!labels && strcmp(key, "price_max") != 0)
            return api_error_set(e, 400, "unknown_parameter", param,
                                 "Unrecognized request argument supplied: %s", param);
        if (labels && value && !json_object_is_type(value, json_type_object))
            return api_error_set(e, 400, "invalid_type", param,
                                 "Invalid type for '%s': expected an object, but got %s instead.",
                                 param, field_json_type(value));
        if (value)
            rc = labels ? read_labels(a, value, ctx, e) : read_price(a, value, e);
        if (rc)
            return rc;
    }
    return 0;
}
