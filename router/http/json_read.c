#include "router/http/json_read.h"

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/base/err.h"
#include "runtime/text/utf8.h"

/* Of digits that fit into 64 bits whatever they are. */
#define PLAIN_DIGITS_MAX 18
/* json_check lets none through that is longer. */
#define NUMBER_BYTES_MAX 400

struct reader {
    const char *p, *end;
    struct buf text; /* a string without its escapes */
    struct buf keys; /* of the members that are open, each with its NUL */
};

static void skip_space(struct reader *r)
{
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t'))
        r->p++;
}

/* The character at hand, which json_check has seen there. */
static char look(const struct reader *r)
{
    ASSERT(r->p < r->end);
    return *r->p;
}

/* ---- strings ----------------------------------------------------------------------------------
 */

static uint32_t hex4(const char *p)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t c = (unsigned char)p[i];
        v = v << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return v;
}

/* \uXXXX at p, `n` bytes before the string's end; with the other half of a pair where that follows.
 * Returns how many bytes they are. */
static size_t add_code(struct buf *out, const char *p, size_t n)
{
    uint32_t code = hex4(p + 2), low;
    if (code - 0xd800 >= 0x800) {
        utf8_add_code(out, code);
        return 6;
    }
    if (code < 0xdc00 && n >= 12 && p[6] == '\\' && p[7] == 'u' &&
        (low = hex4(p + 8) - 0xdc00) < 0x400) {
        utf8_add_code(out, 0x10000 + ((code - 0xd800) << 10 | low));
        return 12;
    }
    buf_adds(out, UTF8_REPLACEMENT);
    return 6;
}

static void unescape(struct buf *out, const char *p, size_t n)
{
    static const char names[] = "bfnrt", values[] = "\b\f\n\r\t";
    const char *end = p + n;
    while (p < end) {
        const char *escape = memchr(p, '\\', (size_t)(end - p));
        buf_add(out, p, (size_t)((escape ? escape : end) - p));
        if (!escape)
            return;
        p = escape;
        if (p[1] == 'u') {
            p += add_code(out, p, (size_t)(end - p));
            continue;
        }
        const char *name = strchr(names, p[1]);
        buf_addc(out, name ? values[name - names] : p[1]);
        p += 2;
    }
}

/* The string at hand, quotes and all, becomes *s, n bytes: of the text itself, or of r->text. */
static int read_string(struct reader *r, const char **s, size_t *n)
{
    bool escaped = false;
    ASSERT(look(r) == '"');
    const char *start = ++r->p;
    for (; look(r) != '"'; r->p++)
        if (*r->p == '\\') {
            escaped = true;
            r->p++;
        }
    *s = start;
    *n = (size_t)(r->p++ - start);
    if (!escaped)
        return 0;
    buf_clear(&r->text);
    unescape(&r->text, start, *n);
    *s = buf_str(&r->text);
    *n = r->text.len;
    return r->text.failed ? ERR_NOMEM : 0;
}

/* ---- values -----------------------------------------------------------------------------------
 */

static struct json_object *read_number(struct reader *r)
{
    const char *start = r->p;
    bool negative = *start == '-';
    int64_t v = 0;
    for (r->p += negative; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
        if (r->p - start < PLAIN_DIGITS_MAX)
            v = v * 10 + (*r->p - '0');
    bool is_int = r->p == r->end || !strchr(".eE", *r->p);
    if (is_int && r->p - start <= PLAIN_DIGITS_MAX)
        return json_object_new_int64(negative ? -v : v);
    char text[NUMBER_BYTES_MAX + 1]; /* the rest is json-c's to tell */
    while (r->p < r->end && strchr("0123456789.eE+-", *r->p))
        r->p++;
    size_t n = (size_t)(r->p - start);
    ASSERT(n <= NUMBER_BYTES_MAX);
    memcpy(text, start, n);
    text[n] = 0;
    return json_tokener_parse(text);
}

static int read_value(struct reader *r, struct json_object **out);

static int read_member(struct reader *r, struct json_object *object)
{
    const char *key;
    size_t n, at = r->keys.len;
    struct json_object *v = NULL;
    int rc = read_string(r, &key, &n);
    buf_add(&r->keys, key, n);
    buf_addc(&r->keys, 0);
    if (rc || r->keys.failed)
        return ERR_NOMEM;
    skip_space(r);
    ASSERT(look(r) == ':');
    r->p++;
    rc = read_value(r, &v);
    if (rc == 0 && json_object_object_add(object, r->keys.data + at, v) < 0)
        rc = ERR_NOMEM;
    if (rc)
        json_object_put(v);
    r->keys.len = at;
    return rc;
}

static int read_element(struct reader *r, struct json_object *array)
{
    struct json_object *v = NULL;
    int rc = read_value(r, &v);
    if (rc == 0 && json_object_array_add(array, v) < 0)
        rc = ERR_NOMEM;
    if (rc)
        json_object_put(v);
    return rc;
}

/* At most JSON_CHECK_DEPTH_MAX deep. */
static int read_container(struct reader *r, struct json_object **out)
{
    bool is_object = *r->p++ == '{';
    struct json_object *c = is_object ? json_object_new_object() : json_object_new_array();
    int rc = c ? 0 : ERR_NOMEM;
    char end = is_object ? '}' : ']';
    skip_space(r);
    while (rc == 0 && look(r) != end) {
        rc = is_object ? read_member(r, c) : read_element(r, c);
        skip_space(r);
        if (rc == 0 && look(r) == ',') {
            r->p++;
            skip_space(r);
        }
    }
    if (rc == 0 && !is_object && json_object_array_shrink(c, 0) < 0)
        rc = ERR_NOMEM;
    if (rc) {
        json_object_put(c);
        return rc;
    }
    r->p++;
    *out = c;
    return 0;
}

static int read_value(struct reader *r, struct json_object **out)
{
    const char *s;
    size_t n;
    int rc;
    skip_space(r);
    switch (look(r)) {
    case '{':
    case '[':
        return read_container(r, out);
    case '"':
        rc = read_string(r, &s, &n);
        *out = rc ? NULL : json_object_new_string_len(s, (int)n);
        break;
    case 't':
        *out = json_object_new_boolean(1);
        r->p += 4;
        break;
    case 'f':
        *out = json_object_new_boolean(0);
        r->p += 5;
        break;
    case 'n':
        *out = NULL;
        r->p += 4;
        return 0;
    default:
        *out = read_number(r);
    }
    return *out ? 0 : ERR_NOMEM;
}

int json_read(const char *text, size_t n, struct json_object **out)
{
    struct reader r = {.p = text, .end = text + n};
    struct json_object *v = NULL;
    buf_init(&r.text, 0);
    buf_init(&r.keys, 0);
    int rc = read_value(&r, &v);
    buf_release(&r.text);
    buf_release(&r.keys);
    if (rc == 0)
        *out = v;
    return rc;
}
