#include <stdlib.h>
#include <string.h>

#include "runtime/text/tokenizer_internal.h"

/* The tokens are sorted by their bytes, so those that share a start are neighbours: a match is
 * found by narrowing the range of candidates byte by byte. */

static int compare(const void *a, const void *b, void *vocab)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    size_t nx, ny;
    const char *p = vocab_bytes(vocab, x, &nx), *q = vocab_bytes(vocab, y, &ny);
    int d = memcmp(p, q, nx < ny ? nx : ny);
    if (d)
        return d;
    if (nx != ny)
        return nx < ny ? -1 : 1;
    return x < y ? -1 : x > y; /* of equal ones the lowest id comes first */
}

int specials_build(struct specials *s, const struct vocab *v, unsigned types, struct arena *a,
                   struct err *e)
{
    uint32_t n = 0;
    for (uint32_t id = 0; id < v->n; id++)
        n += types >> v->types[id] & 1;
    s->vocab = v;
    s->ids = arena_calloc(a, n, sizeof(*s->ids));
    if (!s->ids)
        return err_set(e, ERR_NOMEM, "tokenizer: no memory for %u special tokens", n);
    for (uint32_t id = 0; id < v->n; id++) {
        size_t len;
        const char *bytes = vocab_bytes(v, id, &len);
        if (!(types >> v->types[id] & 1) || len == 0)
            continue;
        unsigned char b = (unsigned char)bytes[0];
        s->starts[b / 32] |= 1u << b % 32;
        s->ids[s->n++] = id;
    }
    struct vocab *mutable_type =
        (struct vocab *)(uintptr_t)v; /* qsort_r's; compare does not write */
    qsort_r(s->ids, s->n, sizeof(*s->ids), compare, mutable_type);
    return 0;
}

/* The byte of token ids[i] at `depth`; -1 when it ends before. */
static int byte_at(const struct specials *s, uint32_t i, size_t depth)
{
    size_t n;
    const char *p = vocab_bytes(s->vocab, s->ids[i], &n);
    return depth < n ? (unsigned char)p[depth] : -1;
}

/* The first index in [lo, hi) whose byte at `depth` is at least b; tokens that end before count as
 * less. */
static uint32_t lower(const struct specials *s, uint32_t lo, uint32_t hi, size_t depth, int b)
{
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (byte_at(s, mid, depth) < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool may_start(const struct specials *s, char first)
{
    unsigned char b = (unsigned char)first;
    return s->starts[b / 32] >> b % 32 & 1;
}

size_t specials_prefix(const struct specials *s, const char *text, size_t n, uint32_t *id)
{
    if (s->n == 0 || n == 0 || !may_start(s, *text))
        return 0;
    uint32_t lo = 0, hi = s->n;
    size_t best = 0;
    for (size_t depth = 0; depth < n && lo < hi; depth++) {
        int b = (unsigned char)text[depth];
        if (byte_at(s, lo, depth) < b)
            lo = lower(s, lo + 1, hi, depth, b);
        if (lo < hi && byte_at(s, hi - 1, depth) > b) /* else all of them go on with b */
            hi = lower(s, lo, hi - 1, depth, b + 1);
        if (lo == hi)
            break;
        size_t len;
        vocab_bytes(s->vocab, s->ids[lo], &len);
        if (len == depth + 1) { /* the shortest of the range comes first */
            best = len;
            *id = s->ids[lo];
        } else if (hi - lo == 1) { /* one candidate is left: it is this, or none longer */
            const char *bytes = vocab_bytes(s->vocab, s->ids[lo], &len);
            if (len <= n && memcmp(bytes + depth, text + depth, len - depth) == 0) {
                best = len;
                *id = s->ids[lo];
            }
            break;
        }
    }
    return best;
}

size_t specials_find(const struct specials *s, const char *text, size_t n, size_t from,
                     uint32_t *id, size_t *len)
{
    if (s->n == 0)
        return n;
    for (size_t i = from; i < n; i++) {
        if (!may_start(s, text[i]))
            continue;
        *len = specials_prefix(s, text + i, n - i, id);
        if (*len)
            return i;
    }
    return n;
}

uint32_t specials_exact(const struct specials *s, const char *bytes, size_t n)
{
    uint32_t id;
    return n && specials_prefix(s, bytes, n, &id) == n ? id : TOKENIZER_NONE;
}
