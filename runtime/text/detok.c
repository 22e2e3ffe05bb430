#include "runtime/text/detok.h"

#include <string.h>

#include "runtime/text/utf8.h"

void detok_init(struct detok *d, bool special)
{
    memset(d, 0, sizeof(*d));
    d->special = special;
}

/* Tries to end the character that is held with bytes of p. Returns how many of them it took. */
static size_t complete(struct detok *d, const unsigned char *p, size_t n, struct buf *out)
{
    unsigned char both[8];
    size_t more = n < 4 ? n : 4;
    memcpy(both, d->held, d->n_held);
    memcpy(both + d->n_held, p, more);
    struct utf8_step s = utf8_next(both, d->n_held + more);
    size_t took = s.n - d->n_held; /* what was held is a well-formed start, so never less than 0 */
    if (s.partial) {
        memcpy(d->held, both, s.n);
        d->n_held = (uint8_t)s.n;
        return took;
    }
    if (s.valid)
        buf_add(out, both, s.n);
    else
        buf_adds(out, UTF8_REPLACEMENT);
    d->n_held = 0;
    return took;
}

void detok_feed_bytes(struct detok *d, const char *bytes, size_t n, struct buf *out)
{
    while (n && d->n_held) {
        size_t took = complete(d, (const unsigned char *)bytes, n, out);
        bytes += took;
        n -= took;
    }
    while (n) {
        size_t good = utf8_valid_bytes(bytes, n);
        buf_add(out, bytes, good);
        bytes += good;
        n -= good;
        if (n == 0)
            return;
        struct utf8_step fault = utf8_next((const unsigned char *)bytes, n);
        if (fault.partial) {
            memcpy(d->held, bytes, fault.n);
            d->n_held = (uint8_t)fault.n;
            return;
        }
        buf_adds(out, UTF8_REPLACEMENT);
        bytes += fault.n;
        n -= fault.n;
    }
}

void detok_feed(struct detok *d, const struct tokenizer *t, uint32_t id, struct buf *out)
{
    size_t n;
    const char *bytes = tokenizer_token_bytes(t, id, d->special, &n);
    detok_feed_bytes(d, bytes, n, out);
}

void detok_flush(struct detok *d, struct buf *out)
{
    if (d->n_held)
        buf_adds(out, UTF8_REPLACEMENT);
    d->n_held = 0;
}
