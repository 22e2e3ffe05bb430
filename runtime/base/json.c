#include "runtime/base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/check.h"

void json_init(struct json *w, struct buf *out)
{
    memset(w, 0, sizeof(*w));
    w->out = out;
}

static void before_value(struct json *w)
{
    if (w->need_comma[w->depth])
        buf_addc(w->out, ',');
    w->need_comma[w->depth] = true;
}

static void open_level(struct json *w, char c)
{
    before_value(w);
    buf_addc(w->out, c);
    ASSERT(w->depth < JSON_DEPTH_MAX);
    w->need_comma[++w->depth] = false;
}

static void close_level(struct json *w, char c)
{
    ASSERT(w->depth > 0);
    w->depth--;
    buf_addc(w->out, c);
}

void json_obj(struct json *w)
{
    open_level(w, '{');
}

void json_obj_end(struct json *w)
{
    close_level(w, '}');
}

void json_arr(struct json *w)
{
    open_level(w, '[');
}

void json_arr_end(struct json *w)
{
    close_level(w, ']');
}

/* Bytes at the start of s that stand for themselves in a JSON string: ASCII but control characters,
 * quote and backslash. */
static size_t plain_bytes(const unsigned char *s, size_t n)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    size_t i = 0;
    for (; n - i >= 8; i += 8) {
        uint64_t x;
        memcpy(&x, s + i, 8);
        /* A byte's top bit comes on where it is below 0x20, equal to '"' or '\\', or has it; a
         * borrow can set more of them, never fewer. */
        uint64_t quote = x ^ ones * '"', backslash = x ^ ones * '\\';
        uint64_t special = (x - ones * 0x20) | (quote - ones) | (backslash - ones) | x;
        if (special & tops)
            break;
    }
    while (i < n && s[i] >= 0x20 && s[i] != '"' && s[i] != '\\' && s[i] < 0x80)
        i++;
    return i;
}

/* A string and, where it is not 0, what follows it. */
static void write_string(struct json *w, const char *s, size_t n, char behind)
{
    before_value(w);
    bool plain = plain_bytes((const unsigned char *)s, n) == n;
    char *p = plain ? buf_reserve(w->out, n + 2 + (behind != 0)) : NULL;
    if (p) { /* nearly all there is: one stretch */
        char *start = p;
        *p++ = '"';
        if (n)
            memcpy(p, s, n);
        p += n;
        *p++ = '"';
        if (behind)
            *p++ = behind;
        *p = '\0';
        w->out->len += (size_t)(p - start);
        return;
    }
    buf_addc(w->out, '"');
    json_escape(w->out, s, n);
    buf_addc(w->out, '"');
    if (behind)
        buf_addc(w->out, behind);
}

void json_key(struct json *w, const char *key)
{
    size_t n = strlen(key);
    write_string(w, key, n, ':');
    w->need_comma[w->depth] = false; /* the value belongs to this key */
}

void json_str(struct json *w, const char *s)
{
    json_strn(w, s, strlen(s));
}

void json_strn(struct json *w, const char *s, size_t n)
{
    write_string(w, s, n, 0);
}

void json_int(struct json *w, int64_t v)
{
    before_value(w);
    buf_addint(w->out, v);
}

void json_uint(struct json *w, uint64_t v)
{
    before_value(w);
    buf_adduint(w->out, v);
}

static void add_number(struct json *w, double v, int digits_min, int digits_max, bool is_float)
{
    char text[40];
    before_value(w);
    if (!isfinite(v)) {
        buf_adds(w->out, "null");
        return;
    }
    for (int digits = digits_min; digits <= digits_max; digits++) {
        snprintf(text, sizeof(text), "%.*g", digits, v);
        if (is_float ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v)
            break;
    }
    buf_adds(w->out, text);
}

void json_float(struct json *w, float v)
{
    add_number(w, (double)v, 6, 9, true);
}

void json_double(struct json *w, double v)
{
    add_number(w, v, 15, 17, false);
}

void json_bool(struct json *w, bool v)
{
    before_value(w);
    buf_adds(w->out, v ? "true" : "false");
}

void json_null(struct json *w)
{
    before_value(w);
    buf_adds(w->out, "null");
}

void json_raw(struct json *w, const char *text, size_t n)
{
    before_value(w);
    buf_add(w->out, text, n);
}

/* Length of the valid UTF-8 sequence at s (n > 0 bytes left), or 0. Unicode 15, table 3-7. */
static size_t utf8_valid_len(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || len > n)
        return 0;
    unsigned char lo = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char hi = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < lo || s[1] > hi)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

static void escape_one(struct buf *out, unsigned char c)
{
    switch (c) {
    case '"':
        buf_add(out, "\\\"", 2);
        break;
    case '\\':
        buf_add(out, "\\\\", 2);
        break;
    case '\n':
        buf_add(out, "\\n", 2);
        break;
    case '\r':
        buf_add(out, "\\r", 2);
        break;
    case '\t':
        buf_add(out, "\\t", 2);
        break;
    default:
        buf_addf(out, "\\u%04x", c);
    }
}

void json_escape(struct buf *out, const char *str, size_t n)
{
    const unsigned char *s = (const unsigned char *)str;
    size_t run = 0; /* start of the bytes that go out as they are */
    size_t i = 0;
    while (i < n) {
        i += plain_bytes(s + i, n - i);
        if (i == n)
            break;
        size_t len = s[i] >= 0x80 ? utf8_valid_len(s + i, n - i) : 0;
        if (len) {
            i += len;
            continue;
        }
        buf_add(out, s + run, i - run);
        if (s[i] >= 0x80)
            buf_adds(out, "\xef\xbf\xbd");
        else
            escape_one(out, s[i]);
        run = ++i;
    }
    buf_add(out, s + run, n - run);
}
