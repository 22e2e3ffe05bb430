/* jinja_strings.c: what Python's str methods do, for filters and methods alike. */
#include <string.h>

#include "runtime/text/jinja_rt.h"
#include "runtime/text/jinja_text.h"

bool str_find(const struct jstr *s, const struct jstr *what, size_t from, size_t *at)
{
    if (from > s->n || what->n > s->n - from)
        return false;
    const char *hit = what->n ? memmem(s->p + from, s->n - from, what->p, what->n) : s->p + from;
    *at = hit ? (size_t)(hit - s->p) : 0;
    return hit != NULL;
}

/* ---- case --------------------------------------------------------------------------------- */

/* Unicode's Final_Sigma: after a cased letter and not before one, case-ignorables skipped. */
static bool final_sigma(const struct jstr *s, size_t at, size_t len)
{
    size_t k = at, n;
    bool before = false;
    while (k > 0) {
        size_t c = k - 1;
        while (c && ((unsigned char)s->p[c] & 0xc0) == 0x80)
            c--;
        uint32_t cp = jtext_decode(s->p + c, s->n - c, &n);
        k = c;
        if (jtext_case_ignorable(cp))
            continue;
        before = jtext_is_cased(cp);
        break;
    }
    if (!before)
        return false;
    for (k = at + len; k < s->n; k += n) {
        uint32_t cp = jtext_decode(s->p + k, s->n - k, &n);
        if (!jtext_case_ignorable(cp))
            return !jtext_is_cased(cp);
    }
    return true;
}

static int put_mapped(struct jrt *rt, const struct jstr *s, size_t at, size_t len, uint32_t cp,
                      enum jtext_case to)
{
    uint32_t map[3];
    if (to == JTEXT_LOWER && cp == 0x3a3)
        return rt_putcp(rt, final_sigma(s, at, len) ? 0x3c2 : 0x3c3);
    int n = jtext_map(cp, to, map), rc = 0;
    for (int i = 0; !rc && i < n; i++)
        rc = rt_putcp(rt, map[i]);
    return rc;
}

static enum jtext_case case_of(int how, uint32_t cp, bool first, bool after_cased)
{
    switch (how) {
    case CASE_LOWER:
        return JTEXT_LOWER;
    case CASE_UPPER:
        return JTEXT_UPPER;
    case CASE_TITLE:
        return after_cased ? JTEXT_LOWER : JTEXT_TITLE;
    case CASE_CAPITALIZE:
        return first ? JTEXT_TITLE : JTEXT_LOWER;
    default:
        return jtext_is_upper(cp) ? JTEXT_LOWER : JTEXT_UPPER;
    }
}

int rt_str_case(struct jrt *rt, struct jval v, int how, struct jval *out)
{
    const struct jstr *s = v.s;
    size_t mark = rt_capture(rt), len;
    bool after_cased = false;
    int rc = 0;
    for (size_t at = 0; !rc && at < s->n; at += len) {
        uint32_t cp = jtext_decode(s->p + at, s->n - at, &len);
        enum jtext_case to = case_of(how, cp, at == 0, after_cased);
        if (how == CASE_SWAP && !jtext_is_upper(cp) && !jtext_is_lower(cp))
            rc = rt_putcp(rt, cp);
        else
            rc = put_mapped(rt, s, at, len, cp, to);
        after_cased = jtext_is_cased(cp);
    }
    bool markup = v.markup;
    int end = rt_capture_end(rt, mark, out);
    out->markup = markup;
    return rc ? rc : end;
}

bool str_is_case(const struct jstr *s, bool upper)
{
    size_t len;
    bool any = false;
    for (size_t at = 0; at < s->n; at += len) {
        uint32_t cp = jtext_decode(s->p + at, s->n - at, &len);
        if (jtext_is_title(cp) || (upper ? jtext_is_lower(cp) : jtext_is_upper(cp)))
            return false;
        any = any || jtext_is_cased(cp);
    }
    return any;
}

/* ---- replace, strip, join, lines ---------------------------------------------------------- */

/* An empty `from` is found before every character and at the end. */
static int replace_empty(struct jrt *rt, const struct jstr *s, const struct jstr *to, int64_t count)
{
    size_t len;
    int rc = 0;
    for (size_t at = 0; !rc; at += len) {
        if (count != 0) {
            rc = rt_put(rt, to->p, to->n);
            count -= count > 0;
        }
        if (rc || at >= s->n)
            break;
        jtext_decode(s->p + at, s->n - at, &len);
        rc = rt_put(rt, s->p + at, len);
    }
    return rc;
}

int rt_str_replace(struct jrt *rt, struct jval v, struct jval from, struct jval to, int64_t count,
                   struct jval *out)
{
    const struct jstr *s = v.s;
    size_t mark = rt_capture(rt), at = 0, hit;
    bool markup = v.markup;
    int rc = rt_charge_bytes(rt, s->n);
    if (!rc && markup && !to.markup)
        rc = rt_escape(rt, to, &to);
    if (!rc && !from.s->n)
        rc = replace_empty(rt, s, to.s, count);
    else
        while (!rc && at <= s->n) {
            bool found = count != 0 && str_find(s, from.s, at, &hit);
            size_t end = found ? hit : s->n;
            rc = rt_put(rt, s->p + at, end - at);
            if (!found)
                break;
            if (!rc)
                rc = rt_put(rt, to.s->p, to.s->n);
            at = hit + from.s->n;
            count -= count > 0;
        }
    int end = rt_capture_end(rt, mark, out);
    out->markup = markup;
    return rc ? rc : end;
}

static bool among(const struct jstr *chars, const char *p, size_t len)
{
    size_t n;
    for (size_t i = 0; i < chars->n; i += n) {
        jtext_decode(chars->p + i, chars->n - i, &n);
        if (n == len && !memcmp(chars->p + i, p, n))
            return true;
    }
    return false;
}

/* chars: None or missing strips white space. */
int rt_str_strip(struct jrt *rt, struct jval v, struct jval chars, int sides, struct jval *out)
{
    const char *p = v.s->p;
    size_t from = 0, to = v.s->n, len;
    bool space = chars.type == JT_NONE || chars.type == JT_MISSING;
    if (!space && chars.type != JT_STR)
        return rt_fail(rt, "strip arg must be None or str");
    int rc = rt_charge_bytes(rt, v.s->n);
    if (rc)
        return rc;
    if (space) {
        if (sides & STRIP_LEFT)
            from = jtext_lstrip(p, to);
        if (sides & STRIP_RIGHT)
            to = from + jtext_rstrip(p + from, to - from);
        return rt_slice(rt, v, from, to - from, out);
    }
    rc = rt_charge(rt, (uint64_t)chars.s->n * v.s->n / 256);
    for (; (sides & STRIP_LEFT) && from < to; from += len) {
        jtext_decode(p + from, to - from, &len);
        if (!among(chars.s, p + from, len))
            break;
    }
    while ((sides & STRIP_RIGHT) && to > from) {
        size_t at = to - 1;
        while (at > from && ((unsigned char)p[at] & 0xc0) == 0x80)
            at--;
        if (!among(chars.s, p + at, to - at))
            break;
        to = at;
    }
    return rc ? rc : rt_slice(rt, v, from, to - from, out);
}

int rt_str_join(struct jrt *rt, struct jval sep, const struct jval *v, uint32_t n, struct jval *out)
{
    size_t mark = rt_capture(rt);
    int rc = 0;
    for (uint32_t i = 0; !rc && i < n; i++) {
        if (i)
            rc = rt_print(rt, sep);
        if (!rc)
            rc = rt_print(rt, v[i]);
    }
    int end = rt_capture_end(rt, mark, out);
    return rc ? rc : end;
}

int rt_str_splitlines(struct jrt *rt, struct jval s, bool keep, struct jval *out)
{
    const char *p = s.s->p;
    size_t n = s.s->n, at, from;
    uint32_t lines = 0;
    int rc = rt_charge_bytes(rt, n);
    for (at = from = 0; at < n;) {
        size_t k = jtext_newline_at(p + at, n - at), len;
        jtext_decode(p + at, n - at, &len);
        at += k ? k : len;
        lines += k != 0;
        from = k ? at : from;
    }
    lines += from < n;
    struct jval list;
    if (!rc)
        rc = rt_seq(rt, JT_LIST, lines, &list);
    uint32_t i = 0;
    for (at = from = 0; !rc && i < lines;) {
        size_t k = at < n ? jtext_newline_at(p + at, n - at) : 0, len = 0;
        if (!k && at < n) {
            jtext_decode(p + at, n - at, &len);
            at += len;
            continue;
        }
        rc = rt_slice(rt, s, from, at - from + (keep ? k : 0), &list.list->v[i++]);
        from = at += k;
    }
    if (!rc)
        *out = list;
    return rc;
}
