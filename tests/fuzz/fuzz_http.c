/* Heads of HTTP requests and bodies in chunks.
 *
 * Input: the first byte's lowest bit chooses; for chunks, its other bits say how the rest is cut
 * into pieces, which must not change what comes out.
 */
#include <string.h>

#include "router/http/head.h"
#include "runtime/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define BODY_BYTES_MAX 4096

static void check_slice(struct slice s, const char *bytes, size_t n)
{
    ASSERT(s.p >= bytes && s.p + s.n <= bytes + n);
    for (size_t i = 0; i < s.n; i++)
        ASSERT(s.p[i] != '\n' && s.p[i] != '\r' && s.p[i] != 0);
}

static void fuzz_head(const char *bytes, size_t n)
{
    struct head h;
    const char *why = NULL;
    int status = head_parse(bytes, n, &h, &why);
    if (status) {
        ASSERT(status >= 400 && status < 600 && why);
        return;
    }
    ASSERT(n >= 4 && memcmp(bytes + n - 4, "\r\n\r\n", 4) == 0);
    ASSERT(memmem(bytes, n, "\r\n\r\n", 4) == bytes + n - 4);
    ASSERT(!(h.chunked && h.content_length));
    ASSERT(h.n_fields <= HEAD_FIELDS_MAX);
    check_slice(h.path, bytes, n);
    for (size_t i = 0; i < h.n_fields; i++) {
        check_slice(h.fields[i].name, bytes, n);
        check_slice(h.fields[i].value, bytes, n);
    }
}

/* In pieces of `step` bytes; returns how the body ended. */
static enum chunked_result feed(const char *bytes, size_t n, size_t step, struct buf *body,
                                size_t *used)
{
    struct chunked c;
    enum chunked_result r = CHUNKED_MORE;
    chunked_init(&c);
    *used = 0;
    while (*used < n && r == CHUNKED_MORE) {
        size_t take = n - *used < step ? n - *used : step;
        size_t got = 0;
        r = chunked_feed(&c, bytes + *used, take, body, &got);
        ASSERT(got <= take && (got == take || r != CHUNKED_MORE));
        *used += got;
    }
    return r;
}

static void fuzz_chunks(const char *bytes, size_t n, size_t step)
{
    struct buf whole;
    struct buf pieces;
    size_t used_whole;
    size_t used_pieces;
    buf_init(&whole, BODY_BYTES_MAX);
    buf_init(&pieces, BODY_BYTES_MAX);
    enum chunked_result a = feed(bytes, n, n, &whole, &used_whole);
    enum chunked_result b = feed(bytes, n, step, &pieces, &used_pieces);
    ASSERT(a == b && whole.len <= BODY_BYTES_MAX);
    if (a == CHUNKED_DONE || a == CHUNKED_MORE) {
        ASSERT(used_whole == used_pieces && whole.len == pieces.len);
        ASSERT(whole.len == 0 || memcmp(whole.data, pieces.data, whole.len) == 0);
    }
    buf_release(&whole);
    buf_release(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2)
        return 0;
    if (data[0] & 1)
        fuzz_head((const char *)data + 1, n - 1);
    else
        fuzz_chunks((const char *)data + 1, n - 1, 1 + (data[0] >> 1) % 7);
    return 0;
}
