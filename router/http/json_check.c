#include "router/http/json_check.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "runtime/text/utf8.h"

struct walk {
    const unsigned char *p, *start, *end;
    struct json_check *out;
    uint32_t values, containers;
    int depth;
    bool is_object[JSON_CHECK_DEPTH_MAX + 1]; /* by depth, from 1 */
};

static enum json_check_result fail(struct walk *w, enum json_check_result result, const char *why)
{
    w->out->at = (size_t)(w->p - w->start);
    w->out->why = why;
    return result;
}

static void skip_space(struct walk *w)
{
    while (w->p < w->end && (*w->p == ' ' || *w->p == '\n' || *w->p == '\r' || *w->p == '\t'))
        w->p++;
}

static bool is_hex(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static enum json_check_result check_escape(struct walk *w, bool is_key)
{
    if (w->end - w->p < 2 || !strchr("\"\\/bfnrtu", w->p[1]) || w->p[1] == 0)
        return fail(w, JSON_CHECK_SYNTAX, "invalid escape in a string");
    if (w->p[1] != 'u') {
        w->p += 2;
        return JSON_CHECK_OK;
    }
    if (w->end - w->p < 6)
        return fail(w, JSON_CHECK_SYNTAX, "invalid escape in a string");
    for (int i = 2; i < 6; i++)
        if (!is_hex(w->p[i]))
            return fail(w, JSON_CHECK_SYNTAX, "invalid escape in a string");
    /* json-c's keys are C strings: such a one would pass for a shorter one. */
    if (is_key && memcmp(w->p + 2, "0000", 4) == 0)
        return fail(w, JSON_CHECK_SYNTAX, "a key holds a NUL character");
    w->p += 6;
    return JSON_CHECK_OK;
}

static enum json_check_result check_string(struct walk *w, bool is_key)
{
    w->p++;
    while (w->p < w->end && *w->p != '"') {
        if (*w->p == '\\') {
            enum json_check_result r = check_escape(w, is_key);
            if (r)
                return r;
        } else if (*w->p < 0x20) {
            return fail(w, JSON_CHECK_SYNTAX, "control character in a string");
        } else if (*w->p < 0x80) {
            w->p++;
        } else {
            struct utf8_step step = utf8_next(w->p, (size_t)(w->end - w->p));
            if (!step.valid)
                return fail(w, JSON_CHECK_SYNTAX, "invalid UTF-8");
            w->p += step.n;
        }
    }
    if (w->p == w->end)
        return fail(w, JSON_CHECK_SYNTAX, "unterminated string");
    w->p++;
    return JSON_CHECK_OK;
}

static bool skip_digits(struct walk *w)
{
    const unsigned char *from = w->p;
    while (w->p < w->end && *w->p >= '0' && *w->p <= '9')
        w->p++;
    return w->p > from;
}

static enum json_check_result check_number(struct walk *w)
{
    const unsigned char *from = w->p;
    if (*w->p == '-')
        w->p++;
    bool ok = true;
    if (w->p < w->end && *w->p == '0')
        w->p++;
    else
        ok = skip_digits(w);
    if (ok && w->p < w->end && *w->p == '.') {
        w->p++;
        ok = skip_digits(w);
    }
    if (ok && w->p < w->end && (*w->p == 'e' || *w->p == 'E')) {
        w->p++;
        if (w->p < w->end && (*w->p == '+' || *w->p == '-'))
            w->p++;
        ok = skip_digits(w);
    }
    if (!ok)
        return fail(w, JSON_CHECK_SYNTAX, "not a JSON value");
    /* No number that means anything here is longer. */
    if (w->p - from > 400)
        return fail(w, JSON_CHECK_SYNTAX, "a number with too many digits");
    return JSON_CHECK_OK;
}

static enum json_check_result check_word(struct walk *w, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(w->end - w->p) < n || memcmp(w->p, word, n) != 0)
        return fail(w, JSON_CHECK_SYNTAX, "not a JSON value");
    w->p += n;
    return JSON_CHECK_OK;
}

static enum json_check_result check_key(struct walk *w)
{
    if (w->p == w->end || *w->p != '"')
        return fail(w, JSON_CHECK_SYNTAX, "a key in quotes is missing");
    const unsigned char *from = w->p + 1;
    enum json_check_result r = check_string(w, true);
    if (r)
        return r;
    if (w->depth == 1) {
        w->out->key = (const char *)from;
        w->out->key_n = (size_t)(w->p - 1 - from);
    }
    skip_space(w);
    if (w->p == w->end || *w->p != ':')
        return fail(w, JSON_CHECK_SYNTAX, "a colon is missing");
    w->p++;
    skip_space(w);
    return JSON_CHECK_OK;
}

/* Opens a container. *empty: it is closed again already. */
static enum json_check_result open_container(struct walk *w, bool *empty)
{
    bool object = *w->p == '{';
    if (w->depth == JSON_CHECK_DEPTH_MAX)
        return fail(w, JSON_CHECK_DEPTH, "nested too deep");
    if (++w->containers > JSON_CHECK_CONTAINERS_MAX)
        return fail(w, JSON_CHECK_COUNT, "too many values");
    w->p++;
    skip_space(w);
    *empty = w->p < w->end && *w->p == (object ? '}' : ']');
    if (*empty) {
        w->p++;
        return JSON_CHECK_OK;
    }
    w->is_object[++w->depth] = object;
    return object ? check_key(w) : JSON_CHECK_OK;
}

/* A value that is complete in itself, or the opening of a container: then *opened. */
static enum json_check_result check_value(struct walk *w, bool *opened)
{
    *opened = false;
    if (w->p == w->end)
        return fail(w, JSON_CHECK_SYNTAX, "a value is missing");
    if (++w->values > JSON_CHECK_VALUES_MAX)
        return fail(w, JSON_CHECK_COUNT, "too many values");
    bool empty = false;
    enum json_check_result r;
    switch (*w->p) {
    case '{':
    case '[':
        r = open_container(w, &empty);
        *opened = !empty;
        return r;
    case '"':
        return check_string(w, false);
    case 't':
        return check_word(w, "true");
    case 'f':
        return check_word(w, "false");
    case 'n':
        return check_word(w, "null");
    default:
        return check_number(w);
    }
}

/* After a value: closes what ends here. *more: another value follows. */
static enum json_check_result after_value(struct walk *w, bool *more)
{
    *more = false;
    while (w->depth > 0) {
        bool object = w->is_object[w->depth];
        skip_space(w);
        if (w->p == w->end)
            return fail(w, JSON_CHECK_SYNTAX, "the text ends too early");
        if (*w->p == ',') {
            w->p++;
            skip_space(w);
            *more = true;
            return object ? check_key(w) : JSON_CHECK_OK;
        }
        if (*w->p != (object ? '}' : ']'))
            return fail(w, JSON_CHECK_SYNTAX, "a comma or a closing bracket is missing");
        w->p++;
        w->depth--;
    }
    return JSON_CHECK_OK;
}

enum json_check_result json_check(const char *text, size_t n, struct json_check *out)
{
    memset(out, 0, sizeof(*out));
    struct walk w = {.p = (const unsigned char *)text, .out = out};
    w.start = w.p;
    w.end = w.p + n;
    skip_space(&w);
    bool more = true;
    while (more) {
        bool opened;
        enum json_check_result r = check_value(&w, &opened);
        if (!r && !opened)
            r = after_value(&w, &more);
        if (r)
            return r;
    }
    skip_space(&w);
    out->key = NULL;
    return w.p == w.end ? JSON_CHECK_OK : fail(&w, JSON_CHECK_SYNTAX, "text after the value");
}
