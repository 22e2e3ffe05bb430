#include "runtime/text/nfc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "runtime/text/utf8.h"

#define FIRST_MARK 0x300u /* every character below is a starter in form C */
#define DECOMPOSED_MAX 4  /* code points in the longest canonical decomposition */

/* Nothing before or after can change it: no mark, no decomposition, no second half of a
 * composition. */
static bool inert(uint32_t c)
{
    if (c < FIRST_MARK || (c >= 0xAC00 && c <= 0xD7A3)) /* Hangul syllables are composed */
        return true;
    if (c >= 0x1100 && c <= 0x11FF) /* Hangul parts */
        return false;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)c);
    return p->combining_class == 0 && p->decomp_seqindex == UINT16_MAX &&
           (p->comb_index == UINT16_MAX || p->comb_index < 0x8000);
}

bool nfc_is_plain(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < n;) {
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        struct utf8_step c = utf8_next(p + i, n - i);
        if (!inert(utf8_code(p + i, c.n)))
            return false;
        i += c.n;
    }
    return true;
}

static unsigned mark_class(utf8proc_int32_t c)
{
    return (unsigned)utf8proc_get_property(c)->combining_class & 0xFFu;
}

/* Stable, by class, n marks; tmp has room for them. */
static void sort_marks(utf8proc_int32_t *marks, size_t n, utf8proc_int32_t *tmp)
{
    size_t starts[257] = {0};
    for (size_t i = 0; i < n; i++)
        starts[mark_class(marks[i]) + 1]++;
    for (size_t k = 1; k < 257; k++)
        starts[k] += starts[k - 1];
    for (size_t i = 0; i < n; i++)
        tmp[starts[mark_class(marks[i])]++] = marks[i];
    memcpy(marks, tmp, n * sizeof(*marks));
}

static void order(utf8proc_int32_t *codes, size_t n, utf8proc_int32_t *tmp)
{
    for (size_t i = 0; i < n; i++) {
        if (mark_class(codes[i]) == 0)
            continue;
        size_t end = i + 1;
        bool sorted = true;
        while (end < n && mark_class(codes[end]) != 0) {
            sorted = sorted && mark_class(codes[end - 1]) <= mark_class(codes[end]);
            end++;
        }
        if (!sorted)
            sort_marks(codes + i, end - i, tmp);
        i = end - 1;
    }
}

bool nfc_add(struct buf *out, const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t room = DECOMPOSED_MAX, k = 0;
    for (size_t i = 0; i < n; i++)
        room += p[i] < 0x80 ? 1 : p[i] < 0xC0 ? 0 : DECOMPOSED_MAX;
    utf8proc_int32_t *codes = calloc(room, sizeof(*codes));
    utf8proc_int32_t *tmp = calloc(room, sizeof(*tmp));
    bool ok = codes && tmp;
    for (size_t i = 0; ok && i < n;) {
        struct utf8_step c = utf8_next(p + i, n - i);
        utf8proc_ssize_t got =
            utf8proc_decompose_char((utf8proc_int32_t)utf8_code(p + i, c.n), codes + k,
                                    DECOMPOSED_MAX, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE, NULL);
        ok = got > 0 && got <= DECOMPOSED_MAX;
        k += ok ? (size_t)got : 0;
        i += c.n;
    }
    if (ok) {
        order(codes, k, tmp);
        utf8proc_ssize_t left = utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)k,
                                                         UTF8PROC_COMPOSE | UTF8PROC_STABLE);
        ok = left >= 0;
        for (utf8proc_ssize_t i = 0; i < left; i++)
            utf8_add_code(out, (uint32_t)codes[i]);
    }
    free(codes);
    free(tmp);
    return ok;
}
