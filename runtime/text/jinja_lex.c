/* jinja_lex.c: text to tokens, as jinja2/lexer.py with trim_blocks and lstrip_blocks does it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/text/jinja_ast.h"
#include "runtime/text/jinja_text.h"
#include "runtime/text/utf8.h"

struct lexer {
    struct arena *a;
    const char *p;
    size_t n, at;
    uint32_t line;
    struct jtok *toks;
    size_t n_toks, cap;
    char closers[JINJA_TREE_DEPTH_MAX]; /* of the brackets that are open in the tag */
    unsigned n_closers;
    struct err *e;
};

static int lex_fail(const struct lexer *l, int code, const char *what)
{
    return err_set(l->e, code, "template line %u: %s", l->line, what);
}

static int lex_nomem(const struct lexer *l)
{
    return lex_fail(l, ERR_LIMIT, "the template is too large");
}

/* Moves on to `to`, counting the lines. */
static void lex_to(struct lexer *l, size_t to)
{
    for (; l->at < to; l->at++)
        l->line += l->p[l->at] == '\n';
}

static struct jtok *lex_add(struct lexer *l, enum jtok_kind kind)
{
    if (l->n_toks == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 256;
        struct jtok *t = arena_calloc(l->a, cap, sizeof(*t));
        if (!t)
            return NULL;
        if (l->n_toks)
            memcpy(t, l->toks, l->n_toks * sizeof(*t));
        l->toks = t;
        l->cap = cap;
    }
    struct jtok *t = &l->toks[l->n_toks++];
    t->kind = (uint8_t)kind;
    t->line = l->line;
    return t;
}

static bool looking_at(const struct lexer *l, size_t at, const char *s)
{
    size_t n = strlen(s);
    return l->n - at >= n && memcmp(l->p + at, s, n) == 0;
}

static size_t skip_space(const struct lexer *l, size_t at)
{
    while (at < l->n) {
        size_t k = jtext_space_at(l->p + at, l->n - at);
        if (!k)
            break;
        at += k;
    }
    return at;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_word(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* ---- literal text --------------------------------------------------------------------------- */

/* Adds the text from l->at to `end`, where a tag begins with that sign: '-', '+' or 0. */
static int lex_data(struct lexer *l, size_t end, char sign, bool is_block)
{
    size_t start = l->at, keep = end;
    if (sign == '-') {
        keep = start + jtext_rstrip(l->p + start, end - start);
    } else if (sign != '+' && is_block) {
        size_t nl = end;
        while (nl > start && l->p[nl - 1] != '\n')
            nl--;
        bool at_line_start = nl > start || start == 0 || l->p[start - 1] == '\n';
        if (at_line_start && nl < end && skip_space(l, nl) >= end)
            keep = nl;
    }
    if (keep > start) {
        struct jtok *t = lex_add(l, TOK_DATA);
        if (!t || !jval_strn(l->a, l->p + start, keep - start, &t->val))
            return lex_nomem(l);
    }
    lex_to(l, end);
    return 0;
}

/* Where a tag that closes with `mark` ends, l->at at its first character; 0: it is none.
 * "-%}" eats the space after it; "%}" eats one newline when `trim`. */
static size_t tag_end(const struct lexer *l, size_t at, const char *mark, bool plus, bool trim)
{
    if (at < l->n && l->p[at] == '-' && looking_at(l, at + 1, mark))
        return skip_space(l, at + 1 + strlen(mark));
    if (plus && at < l->n && l->p[at] == '+' && looking_at(l, at + 1, mark))
        return at + 1 + strlen(mark);
    if (!looking_at(l, at, mark))
        return 0;
    at += strlen(mark);
    return trim && at < l->n && l->p[at] == '\n' ? at + 1 : at;
}

static int lex_comment(struct lexer *l)
{
    for (size_t at = l->at + 2; at < l->n; at++) {
        size_t end = tag_end(l, at, "#}", true, true);
        if (end) {
            lex_to(l, end);
            return 0;
        }
    }
    return lex_fail(l, ERR_FORMAT, "missing end of comment tag");
}

/* After "{%" and a sign: the end of a `raw` tag's name, or 0. */
static size_t raw_begin(const struct lexer *l, size_t at)
{
    at = skip_space(l, at);
    if (!looking_at(l, at, "raw"))
        return 0;
    return tag_end(l, skip_space(l, at + 3), "%}", false, false);
}

static int lex_raw(struct lexer *l)
{
    for (size_t at = l->at; at + 1 < l->n; at++) {
        if (!looking_at(l, at, "{%"))
            continue;
        size_t k = at + 2;
        char sign = k < l->n && (l->p[k] == '-' || l->p[k] == '+') ? l->p[k++] : 0;
        k = skip_space(l, k);
        if (!looking_at(l, k, "endraw"))
            continue;
        size_t end = tag_end(l, skip_space(l, k + 6), "%}", true, true);
        if (!end)
            continue;
        int rc = lex_data(l, at, sign, true);
        lex_to(l, end);
        return rc;
    }
    return lex_fail(l, ERR_FORMAT, "missing end of raw directive");
}

/* ---- inside tags ------------------------------------------------------------------------------
 */

static size_t digits(const struct lexer *l, size_t at)
{
    if (at >= l->n || !is_digit(l->p[at]))
        return at;
    while (at < l->n &&
           (is_digit(l->p[at]) || (l->p[at] == '_' && at + 1 < l->n && is_digit(l->p[at + 1]))))
        at++;
    return at;
}

/* The end of a float that begins at l->at, or 0. */
static size_t float_end(const struct lexer *l)
{
    if (l->at && l->p[l->at - 1] == '.')
        return 0;
    size_t at = digits(l, l->at), frac = 0;
    if (at == l->at)
        return 0;
    if (at < l->n && l->p[at] == '.' && digits(l, at + 1) > at + 1)
        frac = at = digits(l, at + 1);
    if (at < l->n && (l->p[at] | 0x20) == 'e') {
        size_t x = at + 1;
        if (x < l->n && (l->p[x] == '+' || l->p[x] == '-'))
            x++;
        if (digits(l, x) > x)
            return digits(l, x);
    }
    return frac;
}

static bool digit_of_base(char c, int base)
{
    if (base == 16)
        return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
    return c >= '0' && c < '0' + base;
}

static size_t int_end(const struct lexer *l, int *base)
{
    size_t at = l->at;
    *base = 10;
    if (l->p[at] == '0' && at + 1 < l->n) {
        char x = (char)(l->p[at + 1] | 0x20);
        int b = x == 'b' ? 2 : x == 'o' ? 8 : x == 'x' ? 16 : 0;
        size_t k = at + 2;
        while (b && k < l->n &&
               (digit_of_base(l->p[k], b) ||
                (l->p[k] == '_' && k + 1 < l->n && digit_of_base(l->p[k + 1], b))))
            k++;
        if (b && k > at + 2) {
            *base = b;
            return k;
        }
    }
    if (l->p[at] != '0')
        return digits(l, at);
    while (at < l->n &&
           (l->p[at] == '0' || (l->p[at] == '_' && at + 1 < l->n && l->p[at + 1] == '0')))
        at++;
    return at;
}

static int lex_number(struct lexer *l)
{
    char text[64];
    int base = 10;
    size_t end = float_end(l), n = 0;
    bool is_float = end != 0;
    if (!is_float)
        end = int_end(l, &base);
    for (size_t i = l->at + (base == 10 ? 0 : 2); i < end; i++) {
        if (l->p[i] == '_')
            continue;
        if (n + 1 >= sizeof(text))
            return lex_fail(l, ERR_LIMIT, "a number is too long");
        text[n++] = l->p[i];
    }
    text[n] = 0;
    struct jtok *t = lex_add(l, is_float ? TOK_FLOAT : TOK_INT);
    if (!t)
        return lex_nomem(l);
    errno = 0;
    t->val = is_float ? jval_float(strtod(text, NULL)) : jval_int(strtoll(text, NULL, base));
    if (!is_float && errno == ERANGE)
        return lex_fail(l, ERR_LIMIT, "an integer does not fit in 64 bits");
    lex_to(l, end);
    return 0;
}

static int hex_value(char c)
{
    return is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10;
}

/* \xhh, \uhhhh, \Uhhhhhhhh: the code point, *i past the digits. */
static int lex_hex_escape(const struct lexer *l, const char *s, size_t n, size_t *i, uint32_t *cp)
{
    int count = s[*i] == 'x' ? 2 : s[*i] == 'u' ? 4 : 8;
    ++*i;
    *cp = 0;
    for (int k = 0; k < count; k++, ++*i) {
        if (*i >= n || !digit_of_base(s[*i], 16))
            return lex_fail(l, ERR_FORMAT, "truncated escape in a string");
        *cp = *cp << 4 | (uint32_t)hex_value(s[*i]);
    }
    if (*cp > 0x10ffff)
        return lex_fail(l, ERR_FORMAT, "illegal Unicode character in a string");
    if (*cp >= 0xd800 && *cp < 0xe000)
        return lex_fail(l, ERR_UNSUPPORTED, "a surrogate in a string");
    return 0;
}

/* One escape, s[*i] being the character after the backslash. */
static int lex_escape(const struct lexer *l, const char *s, size_t n, size_t *i, char *out,
                      size_t *len)
{
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = s[*i];
    const char *hit = c ? strchr(from, c) : NULL;
    uint32_t cp;
    if (hit) {
        out[(*len)++] = to[hit - from];
        ++*i;
        return 0;
    }
    if (c == '\n') {
        ++*i;
        return 0;
    }
    if (c == 'N')
        return lex_fail(l, ERR_UNSUPPORTED, "\\N{…} in a string");
    if (c == 'x' || c == 'u' || c == 'U') {
        int rc = lex_hex_escape(l, s, n, i, &cp);
        if (rc)
            return rc;
    } else if (c >= '0' && c <= '7') {
        cp = 0;
        for (int k = 0; k < 3 && *i < n && s[*i] >= '0' && s[*i] <= '7'; k++)
            cp = cp * 8 + (uint32_t)(s[(*i)++] - '0');
    } else {
        out[(*len)++] = '\\';
        return 0; /* the character itself is taken by the caller's loop */
    }
    *len += jtext_encode(cp, out + *len);
    return 0;
}

static int lex_string(struct lexer *l)
{
    char quote = l->p[l->at];
    size_t end = l->at + 1, i = 0, len = 0;
    while (end < l->n && l->p[end] != quote)
        end += l->p[end] == '\\' ? 2 : 1;
    if (end >= l->n)
        return lex_fail(l, ERR_FORMAT, "a string has no end");
    const char *s = l->p + l->at + 1;
    size_t n = end - l->at - 1;
    struct jtok *t = lex_add(l, TOK_STRING);
    char *out = t ? arena_alloc(l->a, n + 1) : NULL; /* an escape is never shorter than its value */
    if (!out)
        return lex_nomem(l);
    while (i < n) {
        if (s[i] != '\\') {
            out[len++] = s[i++];
            continue;
        }
        i++;
        int rc = lex_escape(l, s, n, &i, out, &len);
        if (rc)
            return rc;
    }
    if (!jval_str_borrow(l->a, out, len, UINT32_MAX, &t->val))
        return lex_nomem(l);
    lex_to(l, end + 1);
    return 0;
}

static int lex_bracket(struct lexer *l, char c)
{
    if (c == '(' || c == '[' || c == '{') {
        if (l->n_closers == sizeof(l->closers))
            return lex_fail(l, ERR_LIMIT, "brackets are nested too deep");
        l->closers[l->n_closers++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (!l->n_closers || l->closers[--l->n_closers] != c)
            return lex_fail(l, ERR_FORMAT, "a bracket closes that was not opened");
    }
    return 0;
}

static int lex_operator(struct lexer *l)
{
    static const char *const doubles[] = {"//", "**", "==", "!=", ">=", "<="};
    char c = l->p[l->at];
    int op = 0;
    for (size_t i = 0; i < sizeof(doubles) / sizeof(doubles[0]); i++)
        if (looking_at(l, l->at, doubles[i]))
            op = OP2(doubles[i][0], doubles[i][1]);
    if (!op && c && strchr("+-/*%~[](){}><=.:|,;", c))
        op = c;
    if (!op)
        return lex_fail(l, (unsigned char)c >= 0x80 ? ERR_UNSUPPORTED : ERR_FORMAT,
                        "unexpected character in a tag");
    int rc = lex_bracket(l, (char)(op < 256 ? op : 0));
    if (rc)
        return rc;
    struct jtok *t = lex_add(l, TOK_OP);
    if (!t)
        return lex_nomem(l);
    t->op = op;
    lex_to(l, l->at + (op < 256 ? 1 : 2));
    return 0;
}

static int lex_word(struct lexer *l)
{
    size_t end = l->at;
    while (end < l->n && is_word(l->p[end]))
        end++;
    if (end < l->n && (unsigned char)l->p[end] >= 0x80)
        return lex_fail(l, ERR_UNSUPPORTED, "a name that is not ASCII");
    struct jtok *t = lex_add(l, TOK_NAME);
    if (!t || !(t->name = arena_strndup(l->a, l->p + l->at, end - l->at)))
        return lex_nomem(l);
    lex_to(l, end);
    return 0;
}

/* The inside of {% … %} or {{ … }}, up to and with its end. */
static int lex_tag(struct lexer *l, bool is_block)
{
    int rc = 0;
    l->n_closers = 0;
    while (!rc && l->at < l->n) {
        char c = l->p[l->at];
        size_t end = 0, space = skip_space(l, l->at);
        if (!l->n_closers)
            end = tag_end(l, l->at, is_block ? "%}" : "}}", is_block, is_block);
        if (end) {
            bool ok = lex_add(l, is_block ? TOK_BLOCK_END : TOK_VAR_END);
            lex_to(l, end);
            return ok ? 0 : lex_nomem(l);
        }
        if (space > l->at)
            lex_to(l, space);
        else if (is_digit(c))
            rc = lex_number(l);
        else if (is_word(c))
            rc = lex_word(l);
        else if (c == '\'' || c == '"')
            rc = lex_string(l);
        else
            rc = lex_operator(l);
    }
    return rc ? rc : lex_fail(l, ERR_FORMAT, "a tag has no end");
}

/* ---- the whole text -----------------------------------------------------------------------------
 */

static size_t next_tag(const struct lexer *l)
{
    for (size_t at = l->at; at + 1 < l->n; at++)
        if (l->p[at] == '{' && (l->p[at + 1] == '%' || l->p[at + 1] == '{' || l->p[at + 1] == '#'))
            return at;
    return l->n;
}

static int lex_one(struct lexer *l)
{
    size_t at = next_tag(l);
    if (at == l->n)
        return lex_data(l, l->n, '+', false);
    char kind = l->p[at + 1];
    size_t k = at + 2;
    char sign = k < l->n && (l->p[k] == '-' || l->p[k] == '+') ? l->p[k++] : 0;
    int rc = lex_data(l, at, sign, kind != '{');
    if (rc)
        return rc;
    if (kind == '#') {
        /* The sign is part of the opening: "{#-}" is not yet an end. */
        lex_to(l, k - 2);
        return lex_comment(l);
    }
    size_t raw = kind == '%' ? raw_begin(l, k) : 0;
    if (raw) {
        lex_to(l, raw);
        return lex_raw(l);
    }
    if (!lex_add(l, kind == '%' ? TOK_BLOCK_BEGIN : TOK_VAR_BEGIN))
        return lex_nomem(l);
    lex_to(l, k);
    return lex_tag(l, kind == '%');
}

/* "\r\n" and "\r" are newlines, and one newline at the end is dropped. */
static size_t normalize(const char *text, size_t n, char *out)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '\r') {
            out[len++] = '\n';
            i += i + 1 < n && text[i + 1] == '\n';
        } else {
            out[len++] = text[i];
        }
    }
    return len && out[len - 1] == '\n' ? len - 1 : len;
}

int jinja_lex(struct arena *a, const char *text, size_t n, struct jtok **toks, size_t *n_toks,
              struct err *e)
{
    struct lexer l = {.a = a, .line = 1, .e = e};
    if (n > JINJA_TEXT_BYTES_MAX)
        return err_set(e, ERR_LIMIT, "the template is longer than %u bytes", JINJA_TEXT_BYTES_MAX);
    if (utf8_valid_bytes(text, n) != n)
        return err_set(e, ERR_FORMAT, "the template is not valid UTF-8");
    char *copy = arena_alloc(a, n + 1);
    if (!copy)
        return lex_nomem(&l);
    l.p = copy;
    l.n = normalize(text, n, copy);
    while (l.at < l.n) {
        int rc = lex_one(&l);
        if (rc)
            return rc;
    }
    if (!lex_add(&l, TOK_EOF))
        return lex_nomem(&l);
    *toks = l.toks;
    *n_toks = l.n_toks;
    return 0;
}
