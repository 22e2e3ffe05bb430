/* regex.c: see regex.h. */
#include "runtime/grammar/regex.h"

#include <string.h>

#include "runtime/grammar/charset.h"
#include "runtime/grammar/scan.h"

struct regex {
    struct syntax *y;
    struct scan in;
    enum regex_form form;
    uint32_t depth;
};

static uint32_t parse_alternatives(struct regex *r);

static uint32_t fault(struct regex *r, int code, const char *what)
{
    return syntax_fault(r->y, code, "%s at byte %zu of the expression", what, r->in.at);
}

/* ECMA-262's \s. */
static void add_spaces(struct charset *c)
{
    static const uint32_t spaces[][2] = {
        {9, 13},          {0x20, 0x20},     {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
        {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
        charset_add(c, spaces[i][0], spaces[i][1]);
}

static bool add_named(struct charset *c, char name)
{
    struct charset set = {.n = 0};
    switch (name | 0x20) {
    case 'd':
        charset_add(&set, '0', '9');
        break;
    case 'w':
        charset_add(&set, '0', '9');
        charset_add(&set, 'A', 'Z');
        charset_add(&set, 'a', 'z');
        charset_add(&set, '_', '_');
        break;
    case 's':
        add_spaces(&set);
        break;
    default:
        return false;
    }
    if (!(name & 0x20))
        charset_negate(&set);
    return charset_add_all(c, &set);
}

/* After \x or \u: a code point, CHARSET_LAST + 1 if it is none. */
static uint32_t hex_escape(struct regex *r, char kind)
{
    struct scan *in = &r->in;
    uint32_t cp;
    if (kind == 'u' && scan_take(in, '{')) {
        if (!scan_hex(in, 1, 6, &cp) || !scan_take(in, '}'))
            return CHARSET_LAST + 1;
        return cp;
    }
    uint32_t digits = kind == 'x' ? 2 : 4, low;
    if (!scan_hex(in, digits, digits, &cp))
        return CHARSET_LAST + 1;
    size_t at = in->at;
    if (cp >= 0xd800 && cp < 0xdc00 && scan_take(in, '\\') && scan_take(in, 'u') &&
        scan_hex(in, 4, 4, &low) && low >= 0xdc00 && low < 0xe000)
        return 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    in->at = at;
    return cp;
}

/* After the backslash: one character, or CHARSET_LAST + 1 with the fault recorded. */
static uint32_t char_escape(struct regex *r)
{
    static const char letters[] = "tnrfv0", values[] = "\t\n\r\f\v";
    struct scan *in = &r->in;
    uint32_t cp;
    if (!scan_char(in, &cp)) {
        fault(r, ERR_FORMAT, "a backslash ends the text");
        return CHARSET_LAST + 1;
    }
    const char *at = cp && cp < 0x80 ? strchr(letters, (int)cp) : NULL;
    if (at && !(cp == '0' && scan_peek(in) >= '0' && scan_peek(in) <= '9'))
        return (uint8_t)values[at - letters];
    if (cp == 'x' || cp == 'u') {
        cp = hex_escape(r, (char)cp);
        if (cp > CHARSET_LAST || (cp >= 0xd800 && cp < 0xe000)) {
            fault(r, ERR_FORMAT, "no character in hexadecimal");
            return CHARSET_LAST + 1;
        }
        return cp;
    }
    bool alnum = (cp >= '0' && cp <= '9') || (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z');
    if (!alnum)
        return cp;
    syntax_fault(r->y, ERR_UNSUPPORTED, "\\%c at byte %zu of the expression is not served", (int)cp,
                 in->at - 2);
    return CHARSET_LAST + 1;
}

/* One end of a range in a class. False when it was a named set (added to c) or a fault. */
static bool class_atom(struct regex *r, struct charset *c, uint32_t *cp)
{
    if (!scan_char(&r->in, cp)) {
        fault(r, ERR_FORMAT, "a class has no end");
        return false;
    }
    if (*cp == '[' && (scan_peek(&r->in) == ':' || scan_peek(&r->in) == '.'))
        return fault(r, ERR_UNSUPPORTED, "a POSIX class is not served"), false;
    if (*cp != '\\')
        return true;
    int next = scan_peek(&r->in);
    if (next == 'b') {
        r->in.at++;
        *cp = '\b';
        return true;
    }
    if (next > 0 && add_named(c, (char)next)) {
        r->in.at++;
        return false;
    }
    *cp = char_escape(r);
    return *cp <= CHARSET_LAST;
}

static uint32_t parse_class(struct regex *r)
{
    struct charset c = {.n = 0};
    bool negated = scan_take(&r->in, '^');
    while (!scan_take(&r->in, ']')) {
        uint32_t lo, hi;
        bool one = class_atom(r, &c, &lo);
        if (r->y->failed)
            return SYNTAX_FAIL;
        if (!one)
            continue;
        hi = lo;
        if (scan_peek(&r->in) == '-' && scan_peek_at(&r->in, 1) != ']') {
            r->in.at++;
            if (!class_atom(r, &c, &hi) || hi < lo)
                return fault(r, ERR_FORMAT, "a range in a class has no upper end");
        }
        if (!charset_add(&c, lo, hi))
            return fault(r, ERR_LIMIT, "a class has too many ranges");
    }
    charset_normalise(&c);
    if (negated)
        charset_negate(&c);
    return charset_syntax(r->y, &c, (enum charset_form)r->form);
}

/* After "(": its kind, then its inside. */
static uint32_t parse_group(struct regex *r)
{
    struct scan *in = &r->in;
    if (scan_take(in, '?')) {
        bool named = scan_take(in, 'P');
        int kind = scan_peek(in), after = scan_peek_at(in, 1);
        if (kind == ':' && !named) {
            in->at++;
        } else if (kind == '<' && after != '=' && after != '!') {
            while (in->at < in->n && in->text[in->at] != '>')
                in->at++;
            if (!scan_take(in, '>'))
                return fault(r, ERR_FORMAT, "a group's name has no end");
        } else {
            return fault(r, ERR_UNSUPPORTED,
                         kind == '=' || kind == '!' || kind == '<'
                             ? "look-around is not served"
                             : "a group of this kind is not served");
        }
    }
    if (++r->depth > r->y->limits->depth_max)
        return fault(r, ERR_LIMIT, "groups nest too deep");
    uint32_t inside = parse_alternatives(r);
    r->depth--;
    if (!r->y->failed && !scan_take(in, ')'))
        return fault(r, ERR_FORMAT, "a group has no end");
    return inside;
}

static uint32_t parse_char(struct regex *r, uint32_t cp)
{
    struct charset c = {.n = 0};
    charset_add(&c, cp, cp);
    return charset_syntax(r->y, &c, (enum charset_form)r->form);
}

static uint32_t parse_atom(struct regex *r)
{
    struct charset c = {.n = 0};
    uint32_t cp;
    if (!scan_char(&r->in, &cp))
        return fault(r, ERR_FORMAT, "not UTF-8");
    switch (cp) {
    case '(':
        return parse_group(r);
    case '[':
        return parse_class(r);
    case '.':
        charset_add(&c, '\n', '\n');
        charset_negate(&c);
        return charset_syntax(r->y, &c, (enum charset_form)r->form);
    case '*':
    case '+':
    case '?':
        return fault(r, ERR_FORMAT, "nothing to repeat");
    case '^':
    case '$':
        return fault(r, ERR_UNSUPPORTED, "an anchor is served only at the ends");
    case '\\':
        if (scan_peek(&r->in) > 0 && add_named(&c, (char)scan_peek(&r->in))) {
            r->in.at++;
            charset_normalise(&c);
            return charset_syntax(r->y, &c, (enum charset_form)r->form);
        }
        cp = char_escape(r);
        return cp <= CHARSET_LAST ? parse_char(r, cp) : SYNTAX_FAIL;
    default:
        return parse_char(r, cp);
    }
}

static bool parse_quantifier(struct regex *r, uint32_t *min, uint32_t *max)
{
    struct scan *in = &r->in;
    *min = 0;
    *max = SYNTAX_MANY;
    if (scan_take(in, '+')) {
        *min = 1;
    } else if (scan_take(in, '?')) {
        *max = 1;
    } else if (!scan_take(in, '*')) {
        size_t at = in->at;
        if (!scan_take(in, '{'))
            return false;
        if (!scan_counts(in, min, max)) {
            in->at = at;
            fault(r, ERR_FORMAT, "a count is not {m}, {m,} or {m,n}");
            return false;
        }
    }
    if (scan_peek(in) == '+')
        fault(r, ERR_UNSUPPORTED, "a possessive quantifier is not served");
    scan_take(in, '?');
    return !r->y->failed;
}

/* One alternative. At the top level, whether anchors stand at its ends. */
static uint32_t parse_sequence(struct regex *r, bool *from_start, bool *to_end)
{
    struct scan *in = &r->in;
    uint32_t out = SYNTAX_EMPTY;
    uint32_t parts[64], n = 0;
    *from_start = r->depth == 0 && scan_take(in, '^');
    *to_end = false;
    while (in->at < in->n && !r->y->failed && scan_peek(in) != '|' && scan_peek(in) != ')') {
        int after = scan_peek_at(in, 1);
        if (r->depth == 0 && scan_peek(in) == '$' && (after < 0 || after == '|')) {
            in->at++;
            *to_end = true;
            break;
        }
        uint32_t atom = parse_atom(r), min, max;
        if (!r->y->failed && parse_quantifier(r, &min, &max))
            atom = syntax_repeat(r->y, atom, min, max);
        parts[n++] = atom;
        if (n == 64) {
            out = syntax_cat2(r->y, out, syntax_cat(r->y, parts, n));
            n = 0;
        }
    }
    return syntax_cat2(r->y, out, syntax_cat(r->y, parts, n));
}

static uint32_t parse_alternatives(struct regex *r)
{
    uint32_t out = SYNTAX_FAIL, parts[64], n = 0;
    do {
        bool from_start, to_end;
        uint32_t one = parse_sequence(r, &from_start, &to_end);
        if (r->form == REGEX_IN_JSON_STRING && r->depth == 0 && !r->y->failed) {
            uint32_t any = syntax_repeat(r->y, regex_json_char(r->y), 0, SYNTAX_MANY);
            one = from_start ? one : syntax_cat2(r->y, any, one);
            one = to_end ? one : syntax_cat2(r->y, one, any);
        }
        parts[n++] = one;
        if (n == 64) {
            out = syntax_alt2(r->y, out, syntax_alt(r->y, parts, n));
            n = 0;
        }
    } while (!r->y->failed && scan_take(&r->in, '|'));
    return n ? syntax_alt2(r->y, out, syntax_alt(r->y, parts, n)) : out;
}

uint32_t regex_parse(struct syntax *y, const char *text, size_t n, enum regex_form form)
{
    struct regex r = {.y = y, .in = {text, n, 0}, .form = form};
    if (n > y->limits->text_bytes_max)
        return syntax_fault(y, ERR_LIMIT, "an expression of %zu bytes", n);
    uint32_t out = parse_alternatives(&r);
    if (!y->failed && r.in.at < n)
        return fault(&r, ERR_FORMAT, "unmatched )");
    return out;
}

uint32_t regex_json_char(struct syntax *y)
{
    struct charset all = {.n = 0};
    charset_negate(&all);
    return charset_syntax(y, &all, CHARSET_JSON_STRING);
}
