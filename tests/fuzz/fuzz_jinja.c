/* Template texts, and the JSON that they are rendered with.
 *
 * Input: a template, then optionally a NUL and a JSON object of variables. Without one a fixed
 * conversation is used. Whatever comes: no crash, no hang, bounded memory; two renders of the same
 * give the same; what is rendered is UTF-8; an error takes back what was written.
 */
#include <json-c/json.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/text/chat.h"
#include "runtime/text/utf8.h"

#define TEXT_MAX 16384

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const struct jinja_limits limits = {
    .steps_max = 200000,
    .output_bytes_max = 1u << 20,
    .memory_bytes_max = 16u << 20,
    .depth_max = 400,
};

static const char fixed_vars[] =
    "{\"messages\":[{\"role\":\"system\",\"content\":\"S \\u00df\"},{\"role\":\"user\",\"content\":"
    "[{\"type\":\"text\",\"text\":\"hi\"}]},{\"role\":\"assistant\",\"content\":null,\"tool_"
    "calls\":"
    "[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":{\"x\":[1,2.5,true,null]}}}]}],"
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":"
    "\"object\"}}}],\"add_generation_prompt\":true,\"bos_token\":\"<s>\",\"n\":7,\"s\":\" a,b \"}";

static int render(const struct jinja *j, struct json_object *vars, struct buf *out)
{
    struct arena a;
    struct jval v;
    struct err e = {0};
    size_t before = out->len;
    arena_init(&a, limits.memory_bytes_max);
    int rc = jval_from_json(&a, vars, &v, &e);
    if (!rc)
        rc = jinja_render(j, &a, v, 1770000123, &limits, out, &e);
    arena_release(&a);
    ASSERT(rc <= 0 && (rc == 0 || e.msg[0] || e.code == ERR_UNSUPPORTED));
    ASSERT(rc == 0 || out->len == before);
    return rc;
}

static void check(const struct jinja *j, struct json_object *vars)
{
    struct buf one, two;
    buf_init(&one, 0);
    buf_init(&two, 0);
    buf_addc(&one, '|');
    buf_addc(&two, '|');
    int rc = render(j, vars, &one);
    ASSERT(render(j, vars, &two) == rc);
    ASSERT(one.len == two.len && !memcmp(one.data, two.data, one.len));
    ASSERT(utf8_valid_bytes(one.data, one.len) == one.len);
    buf_release(&one);
    buf_release(&two);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const char *text = (const char *)data;
    const char *nul = n ? memchr(text, 0, n) : NULL;
    size_t text_n = nul ? (size_t)(nul - text) : n;
    struct jinja *j;
    struct err e = {0};
    if (text_n > TEXT_MAX)
        return 0;
    if (jinja_compile(text, text_n, &j, &e)) {
        ASSERT(e.msg[0]);
        return 0;
    }
    struct json_tokener *tok = json_tokener_new_ex(64);
    ASSERT(tok);
    struct json_object *vars = nul ? json_tokener_parse_ex(tok, nul + 1, (int)(n - text_n - 1))
                                   : json_tokener_parse(fixed_vars);
    if (json_object_is_type(vars, json_type_object))
        check(j, vars);
    json_object_put(vars);
    json_tokener_free(tok);
    jinja_free(j);
    return 0;
}
