#include "runtime/text/utf8.h"

#include <string.h>

/* Length of the sequence that `b` leads, and the range of its second byte; 0 when it leads none. */
static size_t lead(unsigned char b, unsigned char *lo, unsigned char *hi)
{
    *lo = 0x80;
    *hi = 0xBF;
    if (b < 0x80)
        return 1;
    if (b < 0xC2 || b > 0xF4)
        return 0;
    if (b < 0xE0)
        return 2;
    if (b == 0xE0)
        *lo = 0xA0; /* no overlong forms */
    else if (b == 0xED)
        *hi = 0x9F; /* no surrogates */
    else if (b == 0xF0)
        *lo = 0x90;
    else if (b == 0xF4)
        *hi = 0x8F; /* nothing past U+10FFFF */
    return b < 0xF0 ? 3 : 4;
}

struct utf8_step utf8_next(const unsigned char *p, size_t n)
{
    unsigned char lo, hi;
    size_t len = lead(p[0], &lo, &hi);
    if (len == 0)
        return (struct utf8_step){.n = 1};
    for (size_t i = 1; i < len; i++) {
        if (i == n)
            return (struct utf8_step){.n = n, .partial = true};
        if (p[i] < lo || p[i] > hi)
            return (struct utf8_step){.n = i};
        lo = 0x80;
        hi = 0xBF;
    }
    return (struct utf8_step){.n = len, .valid = true};
}

size_t utf8_valid_bytes(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t i = 0;
    while (i < n) {
        uint64_t w;
        if (n - i >= sizeof(w)) {
            memcpy(&w, p + i, sizeof(w));
            if (!(w & 0x8080808080808080u)) { /* eight ASCII bytes at once */
                i += sizeof(w);
                continue;
            }
        }
        struct utf8_step s1 = utf8_next(p + i, n - i);
        if (!s1.valid)
            break;
        i += s1.n;
    }
    return i;
}

void utf8_add_lossy(struct buf *out, const char *s, size_t n)
{
    while (n) {
        size_t good = utf8_valid_bytes(s, n);
        buf_add(out, s, good);
        s += good;
        n -= good;
        if (n == 0)
            return;
        struct utf8_step fault = utf8_next((const unsigned char *)s, n);
        buf_adds(out, UTF8_REPLACEMENT);
        s += fault.n;
        n -= fault.n;
    }
}

uint32_t utf8_code(const unsigned char *p, size_t n)
{
    if (n == 1)
        return p[0];
    uint32_t c = p[0] & (0x7Fu >> n);
    for (size_t i = 1; i < n; i++)
        c = c << 6 | (p[i] & 0x3Fu);
    return c;
}

void utf8_add_code(struct buf *out, uint32_t code)
{
    unsigned char b[4];
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--) {
        b[i] = (unsigned char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    b[0] = (unsigned char)(n == 1 ? code : (0xF00u >> n & 0xFF) | code);
    buf_add(out, b, n);
}
