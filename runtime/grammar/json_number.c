/* json_number.c: see json_number.h. */
#include "runtime/grammar/json_number.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/grammar/charset.h"
#include "runtime/grammar/regex.h"

#define WHOLE_MAX 999999999999999999ull /* JSON_NUMBER_DIGITS_MAX nines */

bool decimal_parse(const char *text, struct decimal *out)
{
    /* All digits in a row, and where the point stands among them. */
    char digits[64];
    long n = 0, point = -1;
    memset(out, 0, sizeof *out);
    out->negative = *text == '-';
    const char *p = text + (*text == '-');
    for (; (*p >= '0' && *p <= '9') || (*p == '.' && point < 0); p++) {
        if (*p == '.')
            point = n;
        else if (n == (long)sizeof digits)
            return false;
        else
            digits[n++] = *p;
    }
    point = point < 0 ? n : point;
    if (*p == 'e' || *p == 'E') {
        long exponent = strtol(p + 1, NULL, 10);
        if (exponent < -100 || exponent > 100)
            return false;
        point += exponent;
    }
    for (long i = 0; i < point; i++) {
        out->whole = 10 * out->whole + (i < n ? (uint64_t)(digits[i] - '0') : 0);
        if (out->whole > WHOLE_MAX)
            return false;
    }
    while (n > 0 && n > point && digits[n - 1] == '0')
        n--;
    size_t k = 0;
    for (long i = point; i < n; i++) {
        if (k == JSON_NUMBER_DIGITS_MAX)
            return false;
        out->fraction[k++] = i < 0 ? '0' : digits[i];
    }
    if (!out->whole && !k)
        out->negative = false;
    return true;
}

static int magnitude_cmp(const struct decimal *a, const struct decimal *b)
{
    if (a->whole != b->whole)
        return a->whole < b->whole ? -1 : 1;
    return strcmp(a->fraction, b->fraction);
}

int decimal_cmp(const struct decimal *a, const struct decimal *b)
{
    if (a->negative != b->negative)
        return a->negative ? -1 : 1;
    return a->negative ? magnitude_cmp(b, a) : magnitude_cmp(a, b);
}

static uint32_t rx(struct syntax *y, const char *text)
{
    return regex_parse(y, text, strlen(text), REGEX_PLAIN);
}

/* Whole numbers without a sign from a to b; b = UINT64_MAX: without end. */
static uint32_t whole_range(struct syntax *y, uint64_t a, uint64_t b)
{
    uint32_t out = SYNTAX_FAIL;
    uint64_t low = 0, high = 9;
    for (uint32_t len = 1; len <= JSON_NUMBER_DIGITS_MAX; len++) {
        uint64_t from = a > low ? a : low, to = b < high ? b : high;
        if (from <= to) {
            char lo[24], hi[24];
            snprintf(lo, sizeof lo, "%0*llu", (int)len, (unsigned long long)from);
            snprintf(hi, sizeof hi, "%0*llu", (int)len, (unsigned long long)to);
            out = syntax_alt2(
                y, out,
                charset_between(y, (const uint8_t *)lo, (const uint8_t *)hi, len, '0', '9'));
        }
        low = high + 1;
        high = 10 * high + 9;
    }
    if (b == UINT64_MAX)
        out = syntax_alt2(y, out,
                          syntax_cat2(y, syntax_range(y, '1', '9'),
                                      syntax_repeat(y, syntax_range(y, '0', '9'),
                                                    JSON_NUMBER_DIGITS_MAX, SYNTAX_MANY)));
    return out;
}

/* The digits of a fraction, `some`: at least one, after those that equal a bound's so far:
 * 0.D >= 0.f (or > where excluded). */
static uint32_t at_least(struct syntax *y, const char *f, bool excluded, bool some)
{
    if (!*f)
        return rx(y, excluded ? "0*[1-9][0-9]*" : some ? "[0-9]+" : "[0-9]*");
    uint32_t same = syntax_cat2(y, syntax_lit(y, f, 1), at_least(y, f + 1, excluded, false));
    if (*f == '9')
        return same;
    uint32_t more = syntax_cat2(y, syntax_range(y, (uint8_t)(*f + 1), '9'), rx(y, "[0-9]*"));
    return syntax_alt2(y, same, more);
}

/* Likewise 0.D <= 0.f. */
static uint32_t at_most(struct syntax *y, const char *f, bool excluded, bool some)
{
    if (!*f)
        return excluded ? SYNTAX_FAIL : rx(y, some ? "0+" : "0*");
    /* f ends in no zero, so that all that stops here is smaller. */
    uint32_t same = syntax_cat2(y, syntax_lit(y, f, 1), at_most(y, f + 1, excluded, false));
    uint32_t out = syntax_alt2(y, some ? SYNTAX_FAIL : SYNTAX_EMPTY, same);
    if (*f == '0')
        return out;
    uint32_t less = syntax_cat2(y, syntax_range(y, '0', (uint8_t)(*f - 1)), rx(y, "[0-9]*"));
    return syntax_alt2(y, out, less);
}

/* Likewise 0.f <= 0.D <= 0.g. */
static uint32_t between(struct syntax *y, const char *f, bool f_excluded, const char *g,
                        bool g_excluded, bool some)
{
    if (!*g)
        return *f || f_excluded ? SYNTAX_FAIL : at_most(y, g, g_excluded, some);
    uint8_t c = *f ? (uint8_t)*f : '0', d = (uint8_t)*g;
    const char *f_rest = *f ? f + 1 : f;
    if (c > d)
        return SYNTAX_FAIL;
    /* To stop here is to be smaller than g, and equal to f if that has stopped. */
    uint32_t out = !*f && !f_excluded && !some ? SYNTAX_EMPTY : SYNTAX_FAIL;
    if (c == d)
        return syntax_alt2(y, out,
                           syntax_cat2(y, syntax_range(y, c, c),
                                       between(y, f_rest, f_excluded, g + 1, g_excluded, false)));
    uint32_t low = syntax_cat2(y, syntax_range(y, c, c), at_least(y, f_rest, f_excluded, false));
    uint32_t high = syntax_cat2(y, syntax_range(y, d, d), at_most(y, g + 1, g_excluded, false));
    out = syntax_alt2(y, out, syntax_alt2(y, low, high));
    if (c + 1 < d)
        out = syntax_alt2(
            y, out,
            syntax_cat2(y, syntax_range(y, (uint8_t)(c + 1), (uint8_t)(d - 1)), rx(y, "[0-9]*")));
    return out;
}

/* What may follow a whole part, given the digits after the point: a point with at least one digit,
 * or nothing where `bare` says so. */
static uint32_t fraction(struct syntax *y, uint32_t digits, bool bare)
{
    uint32_t out = digits == SYNTAX_FAIL ? SYNTAX_FAIL : syntax_cat2(y, syntax_str(y, "."), digits);
    return bare ? syntax_alt2(y, SYNTAX_EMPTY, out) : out;
}

static uint32_t whole(struct syntax *y, uint64_t v)
{
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)v);
    return syntax_str(y, text);
}

/* lo <= x <= hi without a sign; hi NULL: without end. */
static uint32_t magnitudes(struct syntax *y, const struct decimal *lo, bool lo_excluded,
                           const struct decimal *hi, bool hi_excluded)
{
    const char *f = lo->fraction;
    bool bare = !*f && !lo_excluded;
    if (hi &&
        (magnitude_cmp(lo, hi) > 0 || (magnitude_cmp(lo, hi) == 0 && (lo_excluded || hi_excluded))))
        return SYNTAX_FAIL;
    if (hi && lo->whole == hi->whole) {
        uint32_t digits = between(y, f, lo_excluded, hi->fraction, hi_excluded, true);
        return syntax_cat2(y, whole(y, lo->whole), fraction(y, digits, bare));
    }
    uint32_t out =
        syntax_cat2(y, whole(y, lo->whole), fraction(y, at_least(y, f, lo_excluded, true), bare));
    uint32_t any = rx(y, "(\\.[0-9]+)?");
    if (!hi)
        return syntax_alt2(y, out, syntax_cat2(y, whole_range(y, lo->whole + 1, UINT64_MAX), any));
    if (lo->whole + 1 <= hi->whole - 1)
        out =
            syntax_alt2(y, out, syntax_cat2(y, whole_range(y, lo->whole + 1, hi->whole - 1), any));
    bool hi_bare = *hi->fraction || !hi_excluded;
    uint32_t last = fraction(y, at_most(y, hi->fraction, hi_excluded, true), hi_bare);
    if (last == SYNTAX_FAIL)
        return out;
    return syntax_alt2(y, out, syntax_cat2(y, whole(y, hi->whole), last));
}

uint32_t json_number(struct syntax *y, const struct json_bounds *b)
{
    static const struct decimal zero = {.negative = false};
    if (!b->has_min && !b->has_max)
        return rx(y, "-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?");
    uint32_t out = SYNTAX_FAIL;
    if (!b->has_max || !b->max.negative) {
        bool from_min = b->has_min && !b->min.negative;
        out = magnitudes(y, from_min ? &b->min : &zero, from_min && b->min_excluded,
                         b->has_max ? &b->max : NULL, b->max_excluded);
    }
    if (!b->has_min || b->min.negative) {
        bool to_max = b->has_max && b->max.negative;
        uint32_t below = magnitudes(y, to_max ? &b->max : &zero, to_max ? b->max_excluded : true,
                                    b->has_min ? &b->min : NULL, b->min_excluded);
        if (below != SYNTAX_FAIL)
            out = syntax_alt2(y, out, syntax_cat2(y, syntax_str(y, "-"), below));
    }
    return out;
}

/* The least whole number not below (or, excluded, above) a bound. */
static int64_t round_up(const struct decimal *d, bool excluded)
{
    int64_t v = d->negative ? -(int64_t)d->whole : (int64_t)d->whole;
    if (*d->fraction)
        return d->negative ? v : v + 1;
    return excluded ? v + 1 : v;
}

uint32_t json_integer(struct syntax *y, const struct json_bounds *b)
{
    if (!b->has_min && !b->has_max)
        return rx(y, "-?(0|[1-9][0-9]*)");
    struct decimal max = b->max;
    max.negative = !max.negative;
    int64_t lo = b->has_min ? round_up(&b->min, b->min_excluded) : INT64_MIN;
    int64_t hi = b->has_max ? -round_up(&max, b->max_excluded) : INT64_MAX;
    if (lo > hi)
        return SYNTAX_FAIL;
    uint32_t out = SYNTAX_FAIL;
    if (hi >= 0)
        out = whole_range(y, lo > 0 ? (uint64_t)lo : 0, b->has_max ? (uint64_t)hi : UINT64_MAX);
    if (lo < 0) {
        uint32_t below =
            whole_range(y, hi < 0 ? (uint64_t)-hi : 1, b->has_min ? (uint64_t)-lo : UINT64_MAX);
        out = syntax_alt2(y, out, syntax_cat2(y, syntax_str(y, "-"), below));
    }
    return out;
}
