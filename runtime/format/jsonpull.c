#include "runtime/format/jsonpull.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_BYTES_MAX 64

void jsonpull_init(struct jsonpull *j, const char *text, size_t n, const char *what, struct err *e)
{
    memset(j, 0, sizeof(*j));
    j->start = j->at = text;
    j->end = text + n;
    j->what = what;
    j->e = e;
    buf_init(&j->text, 0);
}

void jsonpull_release(struct jsonpull *j)
{
    buf_release(&j->text);
}

int jsonpull_fail(struct jsonpull *j, int code, const char *words)
{
    if (!j->failed) {
        err_set(j->e, code, "%s: at byte %zu: %s", j->what, (size_t)(j->at - j->start), words);
        j->failed = code;
    }
    return j->failed;
}

static int wrong(struct jsonpull *j, const char *words)
{
    return jsonpull_fail(j, ERR_FORMAT, words);
}

bool jsonpull_is(const struct jsonpull_str *s, const char *word)
{
    return s->n == strlen(word) && memcmp(s->s, word, s->n) == 0;
}

static void skip_space(struct jsonpull *j)
{
    while (j->at < j->end && (*j->at == ' ' || *j->at == '\t' || *j->at == '\n' || *j->at == '\r'))
        j->at++;
}

char jsonpull_peek(struct jsonpull *j)
{
    skip_space(j);
    return j->failed || j->at == j->end ? 0 : *j->at;
}

/* Takes the byte c if it comes next. */
static bool take(struct jsonpull *j, char c)
{
    if (jsonpull_peek(j) != c || c == 0)
        return false;
    j->at++;
    return true;
}

/* ---- nesting ----------------------------------------------------------------------------------
 */

static int enter(struct jsonpull *j, char open, const char *words)
{
    if (!take(j, open))
        return wrong(j, words);
    if (j->depth == JSONPULL_DEPTH_MAX)
        return jsonpull_fail(j, ERR_LIMIT, "nested too deep");
    j->depth++;
    j->begun &= ~((uint64_t)1 << j->depth);
    return 0;
}

int jsonpull_object(struct jsonpull *j)
{
    return enter(j, '{', "an object is wanted");
}

int jsonpull_array(struct jsonpull *j)
{
    return enter(j, '[', "an array is wanted");
}

/* Whether something follows at this depth: 1, or 0 after `close`. */
static int more(struct jsonpull *j, char close)
{
    uint64_t bit = (uint64_t)1 << j->depth;
    if (j->failed)
        return j->failed;
    if (take(j, close)) {
        j->depth--;
        return 0;
    }
    if ((j->begun & bit) && !take(j, ','))
        return wrong(j, "a comma or the end of the list is wanted");
    j->begun |= bit;
    return 1;
}

int jsonpull_key(struct jsonpull *j, struct jsonpull_str *key)
{
    int rc = more(j, '}');
    if (rc <= 0)
        return rc;
    rc = jsonpull_string(j, key);
    if (rc == 0 && !take(j, ':'))
        rc = wrong(j, "a colon is wanted");
    return rc < 0 ? rc : 1;
}

int jsonpull_item(struct jsonpull *j)
{
    return more(j, ']');
}

/* ---- strings ----------------------------------------------------------------------------------
 */

static bool hex4(const char *p, const char *end, uint32_t *v)
{
    *v = 0;
    if (end - p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        uint32_t d = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                            : 16;
        if (d == 16)
            return false;
        *v = *v << 4 | d;
    }
    return true;
}

static void add_code(struct buf *b, uint32_t c)
{
    if (c < 0x80) {
        buf_addc(b, (char)c);
    } else if (c < 0x800) {
        buf_addc(b, (char)(0xC0 | c >> 6));
    } else if (c < 0x10000) {
        buf_addc(b, (char)(0xE0 | c >> 12));
        buf_addc(b, (char)(0x80 | (c >> 6 & 0x3F)));
    } else {
        buf_addc(b, (char)(0xF0 | c >> 18));
        buf_addc(b, (char)(0x80 | (c >> 12 & 0x3F)));
        buf_addc(b, (char)(0x80 | (c >> 6 & 0x3F)));
    }
    if (c >= 0x80)
        buf_addc(b, (char)(0x80 | (c & 0x3F)));
}

/* \uXXXX, with j->at behind the u; two of them where they are a surrogate pair. */
static int unescape_code(struct jsonpull *j)
{
    uint32_t c, low;
    if (!hex4(j->at, j->end, &c))
        return wrong(j, "four hexadecimal digits are wanted");
    j->at += 4;
    if (c >= 0xDC00 && c < 0xE000)
        return wrong(j, "half of a surrogate pair");
    if (c >= 0xD800 && c < 0xDC00) {
        if (j->end - j->at < 6 || j->at[0] != '\\' || j->at[1] != 'u' ||
            !hex4(j->at + 2, j->end, &low) || low < 0xDC00 || low >= 0xE000)
            return wrong(j, "half of a surrogate pair");
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        j->at += 6;
    }
    add_code(&j->text, c);
    return 0;
}

/* An escape, with j->at behind the backslash. */
static int unescape(struct jsonpull *j)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = j->at < j->end ? *j->at++ : 0;
    const char *p = c ? strchr(from, c) : NULL;
    if (c == 'u')
        return unescape_code(j);
    if (!p)
        return wrong(j, "an unknown escape");
    buf_addc(&j->text, to[p - from]);
    return 0;
}

/* Bytes of the well-formed UTF-8 character at p, or 0. Unicode standard, table 3-7. */
static size_t character(const unsigned char *p, const unsigned char *end)
{
    size_t n = *p < 0x80 ? 1 : *p < 0xC2 ? 0 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : *p < 0xF5 ? 4 : 0;
    if (n > (size_t)(end - p))
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    if ((*p == 0xE0 && p[1] < 0xA0) || (*p == 0xED && p[1] > 0x9F)) /* overlong, surrogates */
        return 0;
    return (*p == 0xF0 && p[1] < 0x90) || (*p == 0xF4 && p[1] > 0x8F) ? 0 : n;
}

static int check_text(struct jsonpull *j, const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s, *end = p + n;
    while (p < end) {
        size_t k = character(p, end);
        if (k == 0)
            return wrong(j, "a string that is no UTF-8");
        p += k;
    }
    return 0;
}

/* The end of the run of bytes from p that stand for themselves. */
static const char *plain_end(const char *p, const char *end)
{
    while (p < end && *p != '"' && *p != '\\' && (unsigned char)*p >= 0x20)
        p++;
    return p;
}

int jsonpull_string(struct jsonpull *j, struct jsonpull_str *s)
{
    int rc = 0;
    if (!take(j, '"'))
        return wrong(j, "a string is wanted");
    const char *run = j->at;
    j->at = plain_end(run, j->end);
    if (j->at < j->end && *j->at == '"') { /* nothing to unescape: lent out of the text */
        *s = (struct jsonpull_str){run, (size_t)(j->at++ - run)};
        return check_text(j, s->s, s->n);
    }
    buf_clear(&j->text);
    buf_add(&j->text, run, (size_t)(j->at - run));
    while (rc == 0 && j->at < j->end && *j->at == '\\') {
        j->at++;
        rc = unescape(j);
        run = j->at;
        j->at = plain_end(run, j->end);
        buf_add(&j->text, run, (size_t)(j->at - run));
    }
    if (rc < 0)
        return rc;
    if (j->at == j->end || *j->at != '"')
        return wrong(j, "a string without end, or a control character in it");
    j->at++;
    *s = (struct jsonpull_str){buf_str(&j->text), j->text.len};
    return j->text.failed ? jsonpull_fail(j, ERR_NOMEM, "no memory for a string")
                          : check_text(j, s->s, s->n);
}

/* ---- numbers and words ------------------------------------------------------------------------
 */

static size_t digits(const char *p, const char *end)
{
    const char *q = p;
    while (q < end && *q >= '0' && *q <= '9')
        q++;
    return (size_t)(q - p);
}

/* Takes a number by the grammar; *raw is its text. A byte is there. */
static int take_number(struct jsonpull *j, struct jsonpull_str *raw)
{
    const char *p = j->at;
    j->at += *p == '-';
    size_t n = digits(j->at, j->end);
    if (n == 0 || (n > 1 && *j->at == '0'))
        return wrong(j, "a number is wanted");
    j->at += n;
    if (j->at < j->end && *j->at == '.') {
        n = digits(++j->at, j->end);
        if (n == 0)
            return wrong(j, "a digit is wanted");
        j->at += n;
    }
    if (j->at < j->end && (*j->at == 'e' || *j->at == 'E')) {
        j->at++;
        if (j->at < j->end && (*j->at == '+' || *j->at == '-'))
            j->at++;
        n = digits(j->at, j->end);
        if (n == 0)
            return wrong(j, "a digit is wanted");
        j->at += n;
    }
    *raw = (struct jsonpull_str){p, (size_t)(j->at - p)};
    return 0;
}

static int number(struct jsonpull *j, struct jsonpull_str *raw)
{
    if (jsonpull_peek(j) == 0)
        return wrong(j, "a number is wanted");
    return take_number(j, raw);
}

int jsonpull_u64(struct jsonpull *j, uint64_t *v)
{
    struct jsonpull_str raw;
    int rc = number(j, &raw);
    if (rc < 0)
        return rc;
    uint64_t sum = 0;
    for (size_t i = 0; i < raw.n; i++) {
        uint64_t d = (uint64_t)(unsigned char)raw.s[i] - '0';
        if (d > 9 || sum > (UINT64_MAX - d) / 10)
            return wrong(j, "a whole number below 2^64 is wanted");
        sum = sum * 10 + d;
    }
    *v = sum;
    return 0;
}

int jsonpull_double(struct jsonpull *j, double *v)
{
    struct jsonpull_str raw;
    char text[NUMBER_BYTES_MAX + 1];
    int rc = number(j, &raw);
    if (rc < 0)
        return rc;
    if (raw.n > NUMBER_BYTES_MAX)
        return wrong(j, "a number of more than 64 digits");
    memcpy(text, raw.s, raw.n);
    text[raw.n] = 0;
    *v = strtod(text, NULL);
    return isfinite(*v) ? 0 : wrong(j, "a number that no double can hold");
}

static bool take_word(struct jsonpull *j, const char *word)
{
    size_t n = strlen(word);
    if (jsonpull_peek(j) != word[0] || (size_t)(j->end - j->at) < n || memcmp(j->at, word, n) != 0)
        return false;
    j->at += n;
    return true;
}

int jsonpull_bool(struct jsonpull *j, bool *v)
{
    *v = take_word(j, "true");
    return *v || take_word(j, "false") ? 0 : wrong(j, "true or false is wanted");
}

/* ---- any value --------------------------------------------------------------------------------
 */

/* At most JSONPULL_DEPTH_MAX deep. */
static int skip_value(struct jsonpull *j)
{
    struct jsonpull_str s;
    int rc;
    switch (jsonpull_peek(j)) {
    case '{':
        rc = jsonpull_object(j);
        while (rc == 0 && (rc = jsonpull_key(j, &s)) > 0)
            rc = skip_value(j);
        return rc;
    case '[':
        rc = jsonpull_array(j);
        while (rc == 0 && (rc = jsonpull_item(j)) > 0)
            rc = skip_value(j);
        return rc;
    case '"':
        return jsonpull_string(j, &s);
    case 't':
    case 'f':
    case 'n':
        if (take_word(j, "true") || take_word(j, "false") || take_word(j, "null"))
            return 0;
        return wrong(j, "a value is wanted");
    default:
        return number(j, &s);
    }
}

int jsonpull_skip(struct jsonpull *j, struct jsonpull_str *raw)
{
    jsonpull_peek(j); /* past white space */
    const char *from = j->at;
    int rc = skip_value(j);
    if (rc == 0 && raw)
        *raw = (struct jsonpull_str){from, (size_t)(j->at - from)};
    return rc;
}

int jsonpull_end(struct jsonpull *j)
{
    skip_space(j);
    if (!j->failed && j->at < j->end)
        return wrong(j, "something behind the end");
    return j->failed;
}
