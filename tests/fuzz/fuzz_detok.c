/* Any bytes in any pieces: the detokeniser against decoding by trial of the whole. The first bytes
 * say how to cut. */
#include <string.h>

#include "runtime/base/buf.h"
#include "runtime/base/check.h"
#include "runtime/text/detok.h"
#include "runtime/text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Is p[0, len) one character? Computed from the code point, not from tables of ranges. */
static bool is_character(const uint8_t *p, size_t len)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (len == 1)
        return p[0] < 0x80;
    if (p[0] >> (7 - len) != (2 << len) - 2) /* len ones, then a zero */
        return false;
    uint32_t code = p[0] & 0x7Fu >> len;
    for (size_t i = 1; i < len; i++) {
        if (p[i] >> 6 != 2)
            return false;
        code = code << 6 | (p[i] & 0x3Fu);
    }
    return code >= least[len] && code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
}

/* Can p[0, len) be the start of a character that is longer? */
static bool is_start(const uint8_t *p, size_t len)
{
    for (size_t whole = len + 1; whole <= 4; whole++) {
        for (unsigned second = 0x80; second < 0xC0; second++) {
            uint8_t c[4] = {p[0], (uint8_t)second, 0x80, 0x80};
            memcpy(c, p, len);
            if (is_character(c, whole))
                return true;
        }
    }
    return false;
}

static void decode_by_trial(struct buf *out, const uint8_t *p, size_t n)
{
    while (n) {
        size_t took = 0;
        for (size_t len = 1; len <= 4 && len <= n && !took; len++)
            if (is_character(p, len)) {
                buf_add(out, p, len);
                took = len;
            }
        for (size_t len = n < 3 ? n : 3; len > 0 && !took; len--)
            if (is_start(p, len) || len == 1) {
                buf_adds(out, UTF8_REPLACEMENT);
                took = len;
            }
        p += took;
        n -= took;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 4 || n > 512)
        return 0;
    const uint8_t *cuts = data, *p = data + 4;
    size_t left = n - 4;
    struct buf want, lossy, got;
    struct detok d;
    buf_init(&want, 0);
    buf_init(&lossy, 0);
    buf_init(&got, 0);
    decode_by_trial(&want, p, left);
    utf8_add_lossy(&lossy, (const char *)p, left);
    ASSERT(want.len == lossy.len && !memcmp(buf_str(&want), buf_str(&lossy), want.len));
    detok_init(&d, false);
    for (size_t i = 0; left; i++) {
        size_t piece = cuts[i % 4] % 8;
        piece = piece < left ? piece : left;
        piece += i >= 4 && piece == 0; /* all cuts may be 0 */
        detok_feed_bytes(&d, (const char *)p, piece, &got);
        ASSERT(utf8_valid_bytes(buf_str(&got), got.len) == got.len);
        p += piece;
        left -= piece;
    }
    detok_flush(&d, &got);
    ASSERT(want.len == got.len && !memcmp(buf_str(&want), buf_str(&got), want.len));
    buf_release(&want);
    buf_release(&lossy);
    buf_release(&got);
    return 0;
}
