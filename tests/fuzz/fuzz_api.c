/* Bodies of chat, completion, embedding, tokenize and detokenize requests: parsed, checked,
 * tokenised.
 *
 * Input: the first byte says which kind; the rest is the body. Whatever comes: no crash, and
 * either a request that holds what the pool is promised, or an error that a client can read.
 */
#include <json-c/json.h>

#include "router/http/api_request.h"
#include "router/http/json_check.h"
#include "router/http/tokenize.h"
#include "runtime/base/check.h"
#include "runtime/text/utf8.h"
#include "tests/unit/router/http/tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_error(const struct api_error *e)
{
    struct buf text;
    ASSERT(e->status >= 400 && e->status < 600 && e->message[0]);
    buf_init(&text, 0);
    api_error_write(e, &text);
    struct json_object *o = json_tokener_parse(buf_str(&text));
    ASSERT(o && json_object_object_get(o, "error"));
    json_object_put(o);
    buf_release(&text);
}

static void check_ids(const uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ASSERT(ids[i] < TINY_VOCAB);
}

/* What gen_request promises. */
static void check_request(const struct api_request *a, const struct http_config *limits)
{
    ASSERT(a->n >= 1 && a->n_prompts >= 1);
    bool embedding = a->kind == API_EMBEDDING;
    ASSERT(embedding == (a->pooling != GEN_TOKENS));
    ASSERT((uint64_t)a->n * a->n_prompts <= (embedding ? API_INPUTS_MAX : limits->choices_max));
    for (uint32_t i = 0; i < a->n_prompts; i++) {
        ASSERT(a->prompts[i].n >= 1);
        ASSERT(a->prompts[i].n + (uint64_t)a->max_tokens <= TINY_CONTEXT);
        check_ids(a->prompts[i].ids, a->prompts[i].n);
    }
    ASSERT(a->max_tokens >= 1 && a->min_tokens >= 0 && a->min_tokens <= a->max_tokens);
    ASSERT(a->temperature >= 0 && a->temperature <= 2);
    ASSERT(a->top_p >= 0 && a->top_p <= 1 && a->min_p >= 0 && a->min_p <= 1);
    ASSERT(a->top_k >= 0 && a->repetition_penalty > 0);
    ASSERT(a->n_stop <= limits->stop_max);
    for (uint32_t i = 0; i < a->n_stop; i++)
        ASSERT(a->stop[i][0] && strlen(a->stop[i]) <= limits->stop_bytes_max);
    check_ids(a->stop_ids, a->n_stop_ids);
    check_ids(a->bias_ids, a->n_bias);
    for (uint32_t i = 1; i < a->n_bias; i++)
        ASSERT(a->bias_ids[i - 1] < a->bias_ids[i]);
}

static int run(unsigned kind, const char *body, size_t n, const struct api_context *ctx,
               struct api_error *e)
{
    struct api_request a;
    struct tokenize_call call;
    struct buf text;
    int code;
    static const enum api_kind kinds[] = {API_CHAT, API_TEXT, 0, 0, API_EMBEDDING};
    switch (kind % 5) {
    case 0:
    case 1:
    case 4:
        code = api_request_read(&a, kinds[kind % 5], body, n, ctx, e);
        if (code == 0)
            check_request(&a, ctx->limits);
        return code;
    case 2:
        code = tokenize_read(&call, body, n, ctx, e);
        if (code == 0)
            check_ids(call.prompt.ids, call.prompt.n);
        return code;
    default:
        buf_init(&text, 0);
        code = detokenize_read(body, n, ctx, &text, e);
        ASSERT(code || utf8_valid_bytes(buf_str(&text), text.len) == text.len);
        buf_release(&text);
        return code;
    }
}

/* Our walk and json-c agree on what is JSON, where json-c is strict. */
static void check_walk(const char *body, size_t n)
{
    struct json_check check;
    if (json_check(body, n, &check) != JSON_CHECK_OK || n > 100000)
        return;
    struct json_tokener *t = json_tokener_new_ex(JSON_CHECK_DEPTH_MAX + 1);
    json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    struct json_object *o = json_tokener_parse_ex(t, body, (int)n);
    if (json_tokener_get_error(t) == json_tokener_continue)
        o = json_tokener_parse_ex(t, "", 1);
    ASSERT(json_tokener_get_error(t) == json_tokener_success);
    json_object_put(o);
    json_tokener_free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static struct model_texts texts;
    struct http_config limits = http_config_default();
    struct arena arena;
    struct api_error e = {0};
    if (!texts.n)
        tiny_model_init(&texts);
    if (n == 0)
        return 0;
    arena_init(&arena, limits.request_bytes_max);
    struct api_context ctx = {&limits, &texts, &arena, 1700000000, false};
    if (run(data[0], (const char *)data + 1, n - 1, &ctx, &e))
        check_error(&e);
    check_walk((const char *)data + 1, n - 1);
    arena_release(&arena);
    return 0;
}
