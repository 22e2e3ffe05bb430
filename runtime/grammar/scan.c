/* scan.c: see scan.h. */
#include "runtime/grammar/scan.h"

#include "runtime/text/utf8.h"

int scan_peek_at(const struct scan *in, size_t ahead)
{
    return ahead < in->n - in->at ? (uint8_t)in->text[in->at + ahead] : -1;
}

int scan_peek(const struct scan *in)
{
    return scan_peek_at(in, 0);
}

bool scan_take(struct scan *in, char c)
{
    if (scan_peek(in) != (uint8_t)c)
        return false;
    in->at++;
    return true;
}

bool scan_char(struct scan *in, uint32_t *cp)
{
    if (in->at >= in->n)
        return false;
    const unsigned char *p = (const unsigned char *)in->text + in->at;
    struct utf8_step step = utf8_next(p, in->n - in->at);
    if (!step.valid)
        return false;
    in->at += step.n;
    *cp = utf8_code(p, step.n);
    return true;
}

bool scan_hex(struct scan *in, uint32_t min, uint32_t max, uint32_t *value)
{
    uint32_t n = 0;
    *value = 0;
    for (int c; n < max; n++, in->at++) {
        c = scan_peek(in);
        uint32_t lower = (uint32_t)c | 0x20;
        if (c >= '0' && c <= '9')
            *value = *value << 4 | (uint32_t)(c - '0');
        else if (c > 0 && lower >= 'a' && lower <= 'f')
            *value = *value << 4 | (lower - 'a' + 10);
        else
            break;
    }
    return n >= min;
}

static bool number(struct scan *in, uint32_t *value)
{
    size_t from = in->at;
    *value = 0;
    for (int c; (c = scan_peek(in)) >= '0' && c <= '9'; in->at++) {
        *value = 10 * *value + (uint32_t)(c - '0');
        if (*value > SCAN_COUNT_MAX)
            return false;
    }
    return in->at > from;
}

bool scan_counts(struct scan *in, uint32_t *min, uint32_t *max)
{
    if (!number(in, min))
        return false;
    *max = *min;
    if (scan_take(in, ',')) {
        *max = UINT32_MAX;
        if (scan_peek(in) != '}' && !number(in, max))
            return false;
    }
    return *min <= *max && scan_take(in, '}');
}
