/* gbnf.c: see gbnf.h. */
#include "runtime/grammar/gbnf.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/grammar/charset.h"
#include "runtime/grammar/json_schema.h"
#include "runtime/grammar/scan.h"

#define NAME_BYTES_MAX 200

struct rule_name {
    const char *text; /* in the source */
    size_t n;
    uint32_t rule;
    bool defined;
};

struct gbnf {
    struct syntax *y;
    struct scan in;
    enum grammar_space space; /* of JSON */
    struct rule_name *names;
    uint32_t n_names, cap_names;
    uint32_t depth;
};

static uint32_t parse_alternatives(struct gbnf *g);

static uint32_t fault(struct gbnf *g, int code, const char *what)
{
    size_t line = 1;
    for (size_t i = 0; i < g->in.at; i++)
        line += g->in.text[i] == '\n';
    return syntax_fault(g->y, code, "line %zu: %s", line, what);
}

/* White space and comments; line ends too if `lines`. */
static void skip_space(struct gbnf *g, bool lines)
{
    struct scan *in = &g->in;
    for (int c; (c = scan_peek(in)) >= 0;) {
        if (c == '#')
            while (scan_peek(in) >= 0 && scan_peek(in) != '\n')
                in->at++;
        else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r')))
            in->at++;
        else
            break;
    }
}

static bool is_name_char(int c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

/* The entry for the name that is next; NULL with the fault recorded. */
static struct rule_name *parse_name(struct gbnf *g)
{
    struct scan *in = &g->in;
    size_t from = in->at;
    while (is_name_char(scan_peek(in)))
        in->at++;
    size_t n = in->at - from;
    if (!n || n > NAME_BYTES_MAX)
        return fault(g, ERR_FORMAT, n ? "a name is too long" : "a rule's name is missing"), NULL;
    for (uint32_t i = 0; i < g->n_names; i++)
        if (g->names[i].n == n && !memcmp(g->names[i].text, in->text + from, n))
            return syntax_spend(g->y, i / 4) ? &g->names[i] : NULL;
    if (!syntax_spend(g->y, g->n_names / 4))
        return NULL;
    if (g->n_names == g->cap_names) {
        uint32_t cap = g->cap_names ? 2 * g->cap_names : 32;
        struct rule_name *grown = realloc(g->names, cap * sizeof *grown);
        if (!grown)
            return fault(g, ERR_NOMEM, "no memory"), NULL;
        g->names = grown;
        g->cap_names = cap;
    }
    g->names[g->n_names] = (struct rule_name){in->text + from, n, syntax_rule(g->y), false};
    return g->y->failed ? NULL : &g->names[g->n_names++];
}

/* One character of a literal or class, escapes read. False with the fault recorded. */
static bool parse_char(struct gbnf *g, uint32_t *cp)
{
    static const char letters[] = "nrt\\\"[]-", values[] = "\n\r\t\\\"[]-";
    struct scan *in = &g->in;
    if (!scan_char(in, cp))
        return fault(g, ERR_FORMAT, "a literal or class has no end, or is not UTF-8"), false;
    if (*cp != '\\')
        return true;
    int c = scan_peek(in);
    const char *at = c > 0 ? strchr(letters, c) : NULL;
    if (at) {
        in->at++;
        *cp = (uint8_t)values[at - letters];
        return true;
    }
    uint32_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (!digits)
        return fault(g, ERR_UNSUPPORTED, "an escape that is not served"), false;
    in->at++;
    if (!scan_hex(in, digits, digits, cp) || *cp > CHARSET_LAST || (*cp >= 0xd800 && *cp < 0xe000))
        return fault(g, ERR_FORMAT, "no character in hexadecimal"), false;
    return true;
}

static uint32_t char_syntax(struct gbnf *g, struct charset *c)
{
    return charset_syntax(g->y, c, CHARSET_RAW);
}

static uint32_t parse_literal(struct gbnf *g)
{
    uint32_t out = SYNTAX_EMPTY, parts[64], n = 0;
    while (!g->y->failed && !scan_take(&g->in, '"')) {
        struct charset c = {.n = 0};
        uint32_t cp;
        if (!parse_char(g, &cp))
            return SYNTAX_FAIL;
        charset_add(&c, cp, cp);
        parts[n++] = char_syntax(g, &c);
        if (n == 64) {
            out = syntax_cat2(g->y, out, syntax_cat(g->y, parts, n));
            n = 0;
        }
    }
    return syntax_cat2(g->y, out, syntax_cat(g->y, parts, n));
}

static uint32_t parse_class(struct gbnf *g)
{
    struct charset c = {.n = 0};
    bool negated = scan_take(&g->in, '^');
    while (!scan_take(&g->in, ']')) {
        uint32_t lo, hi;
        if (!parse_char(g, &lo))
            return SYNTAX_FAIL;
        hi = lo;
        if (scan_peek(&g->in) == '-' && scan_peek_at(&g->in, 1) != ']') {
            g->in.at++;
            if (!parse_char(g, &hi))
                return SYNTAX_FAIL;
        }
        if (hi < lo)
            return fault(g, ERR_FORMAT, "a range in a class is upside down");
        if (!charset_add(&c, lo, hi))
            return fault(g, ERR_LIMIT, "a class has too many ranges");
    }
    charset_normalise(&c);
    if (negated)
        charset_negate(&c);
    return char_syntax(g, &c);
}

static uint32_t parse_group(struct gbnf *g)
{
    if (++g->depth > g->y->limits->depth_max)
        return fault(g, ERR_LIMIT, "groups nest too deep");
    uint32_t inside = parse_alternatives(g);
    skip_space(g, true);
    g->depth--;
    if (!g->y->failed && !scan_take(&g->in, ')'))
        return fault(g, ERR_FORMAT, "a group has no end");
    return inside;
}

/* Bytes of the JSON object that comes next, to its closing brace; 0 where there is none. */
static size_t object_bytes(const struct scan *in)
{
    size_t depth = 0;
    bool in_string = false;
    for (size_t i = in->at; i < in->n; i++) {
        char c = in->text[i];
        if (in_string) {
            i += c == '\\' ? 1 : 0;
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        depth += c == '{' ? 1 : 0;
        depth -= c == '}' ? 1 : 0;
        if (depth == 0)
            return c == '}' ? i + 1 - in->at : 0;
    }
    return 0;
}

static uint32_t parse_json(struct gbnf *g)
{
    struct scan *in = &g->in;
    if (in->n - in->at < 4 || memcmp(in->text + in->at, "json", 4) != 0)
        return fault(g, ERR_UNSUPPORTED, "%json {\xe2\x80\xa6} is the only % that is served");
    in->at += 4;
    skip_space(g, true);
    size_t n = scan_peek(in) == '{' ? object_bytes(in) : 0;
    if (n == 0)
        return fault(g, ERR_FORMAT, "behind %json there is no complete JSON object");
    uint32_t rule = json_schema_parse(g->y, in->text + in->at, n, g->space);
    in->at += n;
    return g->y->failed ? SYNTAX_FAIL : syntax_call(g->y, rule);
}

static uint32_t parse_atom(struct gbnf *g)
{
    if (scan_take(&g->in, '"'))
        return parse_literal(g);
    if (scan_take(&g->in, '['))
        return parse_class(g);
    if (scan_take(&g->in, '('))
        return parse_group(g);
    if (scan_take(&g->in, '%'))
        return parse_json(g);
    if (scan_take(&g->in, '.')) {
        struct charset c = {.n = 0};
        charset_negate(&c);
        return char_syntax(g, &c);
    }
    if (scan_peek(&g->in) == '<' || scan_peek(&g->in) == '!')
        return fault(g, ERR_UNSUPPORTED, "a token by id or name is not served");
    if (!is_name_char(scan_peek(&g->in)))
        return fault(g, ERR_FORMAT, "neither literal, class, group nor name");
    const struct rule_name *name = parse_name(g);
    return name ? syntax_call(g->y, name->rule) : SYNTAX_FAIL;
}

/* Quantifiers may follow one another: ("a"?)+ written a?+. */
static uint32_t parse_quantified(struct gbnf *g)
{
    uint32_t atom = parse_atom(g);
    while (!g->y->failed) {
        skip_space(g, g->depth > 0);
        uint32_t min = 0, max = SYNTAX_MANY;
        if (scan_take(&g->in, '+')) {
            min = 1;
        } else if (scan_take(&g->in, '?')) {
            max = 1;
        } else if (scan_take(&g->in, '{')) {
            if (!scan_counts(&g->in, &min, &max))
                return fault(g, ERR_FORMAT, "a count is not {m}, {m,} or {m,n}");
        } else if (!scan_take(&g->in, '*')) {
            break;
        }
        atom = syntax_repeat(g->y, atom, min, max);
    }
    return atom;
}

static uint32_t parse_sequence(struct gbnf *g)
{
    uint32_t out = SYNTAX_EMPTY, parts[64], n = 0;
    for (;;) {
        skip_space(g, g->depth > 0);
        int c = scan_peek(&g->in);
        if (g->y->failed || c < 0 || c == '|' || c == ')' || c == '\n' || c == '\r')
            break;
        parts[n++] = parse_quantified(g);
        if (n == 64) {
            out = syntax_cat2(g->y, out, syntax_cat(g->y, parts, n));
            n = 0;
        }
    }
    return syntax_cat2(g->y, out, syntax_cat(g->y, parts, n));
}

/* Whether another alternative follows, perhaps on a later line. */
static bool more(struct gbnf *g)
{
    size_t at = g->in.at;
    skip_space(g, true);
    if (!g->y->failed && scan_take(&g->in, '|')) {
        skip_space(g, true);
        return true;
    }
    g->in.at = at;
    return false;
}

static uint32_t parse_alternatives(struct gbnf *g)
{
    uint32_t out = SYNTAX_FAIL, parts[64], n = 0;
    do {
        parts[n++] = parse_sequence(g);
        if (n == 64) {
            out = syntax_alt2(g->y, out, syntax_alt(g->y, parts, n));
            n = 0;
        }
    } while (more(g));
    return n ? syntax_alt2(g->y, out, syntax_alt(g->y, parts, n)) : out;
}

static void parse_rule(struct gbnf *g)
{
    struct rule_name *name = parse_name(g);
    if (!name)
        return;
    uint32_t rule = name->rule;
    if (name->defined) {
        fault(g, ERR_FORMAT, "a rule is defined twice");
        return;
    }
    name->defined = true;
    skip_space(g, false);
    if (!scan_take(&g->in, ':') || !scan_take(&g->in, ':') || !scan_take(&g->in, '=')) {
        fault(g, ERR_FORMAT, "::= is missing");
        return;
    }
    skip_space(g, true);
    syntax_define(g->y, rule, parse_alternatives(g));
    int c = scan_peek(&g->in);
    if (!g->y->failed && c >= 0 && c != '\n' && c != '\r')
        fault(g, ERR_FORMAT, "unmatched )");
}

uint32_t gbnf_parse(struct syntax *y, const char *text, size_t n, enum grammar_space space)
{
    struct gbnf g = {.y = y, .in = {text, n, 0}, .space = space};
    uint32_t root = SYNTAX_MANY;
    for (skip_space(&g, true); g.in.at < n && !y->failed; skip_space(&g, true))
        parse_rule(&g);
    for (uint32_t i = 0; i < g.n_names && !y->failed; i++) {
        const struct rule_name *name = &g.names[i];
        if (!name->defined)
            syntax_fault(y, ERR_FORMAT, "rule \"%.*s\" is not defined", (int)name->n, name->text);
        if (name->n == 4 && !memcmp(name->text, "root", 4))
            root = name->rule;
    }
    if (!y->failed && root == SYNTAX_MANY)
        syntax_fault(y, ERR_FORMAT, "there is no rule \"root\"");
    free(g.names);
    return root;
}

void gbnf_add_literal(struct buf *b, const char *s, size_t n)
{
    buf_adds(b, "\"");
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < ' ' || c == '"' || c == '\\')
            buf_addf(b, "\\x%02X", c);
        else
            buf_add(b, &s[i], 1);
    }
    buf_adds(b, "\"");
}
