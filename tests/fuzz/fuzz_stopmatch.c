/* Stop strings and a text in pieces, against looking at every byte of the whole text.
 *
 * Input: lines; the first ones, as many as the first byte says (at most 5), are the stop strings,
 * the rest is text.
 */
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/text/stopmatch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define STOPS_MAX 5

struct stops {
    const char *s[STOPS_MAX];
    size_t len[STOPS_MAX];
    size_t n;
};

/* How much of text[0, n) may be shown; *hit is the string that ended it, or STOPMATCH_NONE. */
static size_t look(const struct stops *stops, const char *text, size_t n, bool at_end,
                   uint32_t *hit)
{
    *hit = STOPMATCH_NONE;
    for (size_t end = 1; end <= n; end++) {
        for (size_t i = 0; i < stops->n; i++) {
            size_t len = stops->len[i];
            if (len <= end && !memcmp(text + end - len, stops->s[i], len) &&
                (*hit == STOPMATCH_NONE || len > stops->len[*hit]))
                *hit = (uint32_t)i;
        }
        if (*hit != STOPMATCH_NONE)
            return end - stops->len[*hit];
    }
    for (size_t held = at_end ? 0 : n; held > 0; held--)
        for (size_t i = 0; i < stops->n; i++)
            if (held < stops->len[i] && !memcmp(text + n - held, stops->s[i], held))
                return n - held;
    return n;
}

static void check(const struct stops *stops, const char *text, size_t n, unsigned cut)
{
    const struct stopmatch_limits lim = {.max_strings = STOPS_MAX, .max_bytes = 4096};
    struct stopmatch m;
    struct buf out;
    uint32_t hit;
    struct err e;
    buf_init(&out, 0);
    if (stopmatch_init(&m, stops->s, stops->len, stops->n, &lim, &e) < 0)
        return;
    for (size_t at = 0; at < n;) {
        size_t piece = 1 + (cut ^ at * 7) % 5;
        piece = piece < n - at ? piece : n - at;
        bool stopped = stopmatch_feed(&m, text + at, piece, &out);
        at += piece;
        size_t shown = look(stops, text, at, false, &hit);
        ASSERT(stopped == (hit != STOPMATCH_NONE) && m.hit == hit);
        ASSERT(out.len == shown && !memcmp(buf_str(&out), text, shown));
        ASSERT(stopped || stopmatch_held_bytes(&m) == at - shown);
    }
    stopmatch_flush(&m, &out);
    size_t shown = look(stops, text, n, true, &hit);
    ASSERT(out.len == shown && !memcmp(buf_str(&out), text, shown));
    stopmatch_release(&m);
    buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct stops stops = {.n = 0};
    if (n < 2 || n > 512)
        return 0;
    size_t wanted = data[0] % (STOPS_MAX + 1);
    unsigned cut = data[1];
    const char *p = (const char *)data + 2, *end = (const char *)data + n;
    while (stops.n < wanted) {
        const char *line = memchr(p, '\n', (size_t)(end - p));
        if (!line)
            return 0;
        stops.s[stops.n] = p;
        stops.len[stops.n++] = (size_t)(line - p);
        p = line + 1;
    }
    check(&stops, p, (size_t)(end - p), cut);
    return 0;
}
