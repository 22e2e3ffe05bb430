/* charset.c: see charset.h. */
#include "runtime/grammar/charset.h"

#include <stdlib.h>
#include <string.h>

bool charset_add(struct charset *c, uint32_t lo, uint32_t hi)
{
    if (c->n == CHARSET_RANGES_MAX)
        charset_normalise(c);
    if (c->n == CHARSET_RANGES_MAX)
        return false;
    c->ranges[c->n].lo = lo;
    c->ranges[c->n++].hi = hi;
    return true;
}

bool charset_add_all(struct charset *c, const struct charset *other)
{
    for (uint32_t i = 0; i < other->n; i++)
        if (!charset_add(c, other->ranges[i].lo, other->ranges[i].hi))
            return false;
    return true;
}

static int range_cmp(const void *va, const void *vb)
{
    const uint32_t *a = va, *b = vb;
    return a[0] < b[0] ? -1 : a[0] > b[0];
}

void charset_normalise(struct charset *c)
{
    qsort(c->ranges, c->n, sizeof c->ranges[0], range_cmp);
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n; i++) {
        uint32_t lo = c->ranges[i].lo, hi = c->ranges[i].hi;
        if (n && lo <= c->ranges[n - 1].hi + 1) {
            if (hi > c->ranges[n - 1].hi)
                c->ranges[n - 1].hi = hi;
        } else {
            c->ranges[n].lo = lo;
            c->ranges[n++].hi = hi;
        }
    }
    c->n = n;
}

void charset_negate(struct charset *c)
{
    charset_normalise(c);
    struct charset out = {.n = 0};
    uint32_t from = 0;
    for (uint32_t i = 0; i < c->n && from <= CHARSET_LAST; i++) {
        if (c->ranges[i].lo > from)
            charset_add(&out, from, c->ranges[i].lo - 1);
        from = c->ranges[i].hi + 1;
    }
    if (from <= CHARSET_LAST)
        charset_add(&out, from, CHARSET_LAST);
    *c = out;
}

static void encode(uint32_t cp, uint32_t n, uint8_t *out)
{
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (uint32_t i = n; i-- > 1; cp >>= 6)
        out[i] = (uint8_t)(0x80 | (cp & 0x3f));
    out[0] = (uint8_t)(lead[n] | cp);
}

static bool all_are(const uint8_t *p, uint32_t n, uint8_t b)
{
    for (uint32_t i = 0; i < n; i++)
        if (p[i] != b)
            return false;
    return true;
}

uint32_t charset_between(struct syntax *y, const uint8_t *lo, const uint8_t *hi, uint32_t n,
                         uint8_t least, uint8_t most)
{
    uint8_t low[32], high[32];
    if (n == 1)
        return syntax_range(y, lo[0], hi[0]);
    if (lo[0] == hi[0])
        return syntax_cat2(y, syntax_range(y, lo[0], lo[0]),
                           charset_between(y, lo + 1, hi + 1, n - 1, least, most));
    memset(low, least, sizeof low);
    memset(high, most, sizeof high);
    uint32_t out = SYNTAX_FAIL;
    uint8_t first = lo[0], last = hi[0];
    if (!all_are(lo + 1, n - 1, least)) {
        uint32_t rest = charset_between(y, lo + 1, high, n - 1, least, most);
        out = syntax_cat2(y, syntax_range(y, first, first), rest);
        first++;
    }
    if (!all_are(hi + 1, n - 1, most)) {
        uint32_t rest = charset_between(y, low, hi + 1, n - 1, least, most);
        out = syntax_alt2(y, out, syntax_cat2(y, syntax_range(y, last, last), rest));
        last--;
    }
    if (first > last)
        return out;
    uint32_t rest = syntax_repeat(y, syntax_range(y, least, most), n - 1, n - 1);
    return syntax_alt2(y, out, syntax_cat2(y, syntax_range(y, first, last), rest));
}

/* One range, cut where the number of bytes changes and at the surrogates. */
static uint32_t utf8(struct syntax *y, uint32_t lo, uint32_t hi)
{
    static const uint32_t cuts[][3] = {{0, 0x7f, 1},
                                       {0x80, 0x7ff, 2},
                                       {0x800, 0xd7ff, 3},
                                       {0xe000, 0xffff, 3},
                                       {0x10000, CHARSET_LAST, 4}};
    uint32_t out = SYNTAX_FAIL;
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        uint32_t from = lo > cuts[i][0] ? lo : cuts[i][0], to = hi < cuts[i][1] ? hi : cuts[i][1];
        if (from > to)
            continue;
        uint8_t a[4], b[4];
        encode(from, cuts[i][2], a);
        encode(to, cuts[i][2], b);
        out = syntax_alt2(y, out, charset_between(y, a, b, cuts[i][2], 0x80, 0xbf));
    }
    return out;
}

bool charset_needs_escape(uint32_t cp)
{
    return cp < 0x20 || cp == '"' || cp == '\\' || cp == 0x7f;
}

/* A hexadecimal digit in either case. */
static uint32_t hex_digit(struct syntax *y, uint32_t v)
{
    uint8_t lower = (uint8_t) "0123456789abcdef"[v & 15];
    uint32_t out = syntax_range(y, lower, lower);
    if (lower < 'a')
        return out;
    uint8_t upper = (uint8_t)(lower - 'a' + 'A');
    return syntax_alt2(y, out, syntax_range(y, upper, upper));
}

uint32_t charset_escape(struct syntax *y, uint32_t cp)
{
    static const char plain[] = "\"\\\b\t\n\f\r", letters[] = "\"\\btnfr";
    const char *at = cp ? strchr(plain, (int)cp) : NULL;
    uint32_t out = SYNTAX_FAIL;
    if (at)
        out = syntax_lit(y, (char[]){'\\', letters[at - plain]}, 2);
    if (cp == '"' || cp == '\\')
        return out;
    uint32_t by_number =
        syntax_cat3(y, syntax_str(y, "\\u00"), hex_digit(y, cp >> 4), hex_digit(y, cp));
    return syntax_alt2(y, out, by_number);
}

uint32_t charset_syntax(struct syntax *y, const struct charset *c, enum charset_form form)
{
    uint32_t parts[CHARSET_RANGES_MAX + 64];
    size_t n = 0;
    for (uint32_t i = 0; i < c->n && !y->failed; i++) {
        uint32_t lo = c->ranges[i].lo, hi = c->ranges[i].hi;
        while (form == CHARSET_JSON_STRING && lo <= hi && lo <= 0x7f) {
            uint32_t end = lo;
            if (charset_needs_escape(lo)) {
                parts[n++] = charset_escape(y, lo++);
                continue;
            }
            while (end < hi && end < 0x7f && !charset_needs_escape(end + 1))
                end++;
            parts[n++] = utf8(y, lo, end);
            lo = end + 1;
        }
        if (lo <= hi)
            parts[n++] = utf8(y, lo, hi);
    }
    return syntax_alt(y, parts, n);
}
