#include "runtime/cli/reply.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_BYTES_MAX (4u << 20)

void reply_init(struct reply *a)
{
    memset(a, 0, sizeof *a);
    sse_init(&a->sse);
    buf_init(&a->text, TEXT_BYTES_MAX);
    a->terminal = isatty(STDOUT_FILENO);
}

void reply_release(struct reply *a)
{
    sse_release(&a->sse);
    buf_release(&a->text);
}

/* A model can write escape sequences: a terminal must not obey them. */
static void show(const struct reply *a, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];
        bool control = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
        if (!a->terminal || !control)
            putchar(byte);
    }
    fflush(stdout);
}

static const char *string_in(struct json_object *obj, const char *key, size_t *n)
{
    struct json_object *v = NULL;
    if (!json_object_object_get_ex(obj, key, &v) || !json_object_is_type(v, json_type_string))
        return NULL;
    *n = (size_t)json_object_get_string_len(v);
    return json_object_get_string(v);
}

static struct json_object *first_of(struct json_object *root, const char *key)
{
    struct json_object *list = NULL;
    if (!json_object_object_get_ex(root, key, &list) ||
        !json_object_is_type(list, json_type_array) || json_object_array_length(list) == 0)
        return NULL;
    return json_object_array_get_idx(list, 0);
}

static int on_object(struct reply *a, struct json_object *root, struct err *e)
{
    struct json_object *error = NULL, *delta = NULL;
    size_t n = 0;
    if (json_object_object_get_ex(root, "error", &error)) {
        const char *words = string_in(error, "message", &n);
        return err_set(e, ERR_PEER, "%s", words ? words : "the server reports an error");
    }
    if (!json_object_object_get_ex(first_of(root, "choices"), "delta", &delta))
        return 0;
    const char *text = string_in(delta, "content", &n);
    if (!text)
        return 0;
    show(a, text, n);
    buf_add(&a->text, text, n);
    return a->text.failed ? err_set(e, ERR_LIMIT, "the answer is too long") : 0;
}

static int on_event(void *ctx, const char *data, size_t n, struct err *e)
{
    struct reply *a = ctx;
    if (n == 6 && !memcmp(data, "[DONE]", 6)) {
        a->done = true;
        return 0;
    }
    struct json_object *root = json_tokener_parse(data);
    int rc = json_object_is_type(root, json_type_object)
                 ? on_object(a, root, e)
                 : err_set(e, ERR_PEER, "the server sent an event that is no JSON object");
    json_object_put(root);
    return rc;
}

int reply_feed(void *ctx, const char *bytes, size_t n, struct err *e)
{
    struct reply *a = ctx;
    return sse_feed(&a->sse, bytes, n, on_event, a, e);
}

char *reply_first_model(const struct buf *body)
{
    struct json_object *root = json_tokener_parse(buf_str(body));
    size_t n = 0;
    const char *id = string_in(first_of(root, "data"), "id", &n);
    char *copy = id ? strdup(id) : NULL;
    json_object_put(root);
    return copy;
}
