/* The events of a stream do not depend on how its bytes were cut. First byte: where to cut. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli/sse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int collect(void *ctx, const char *data, size_t n, struct err *e)
{
    struct buf *out = ctx;
    (void)e;
    buf_add(out, data, n);
    buf_addc(out, '\n');
    return n == 6 && !memcmp(data, "[DONE]", 6) ? 1 : 0;
}

static void parse(const char *bytes, size_t n, size_t step, struct buf *out)
{
    struct sse s;
    struct err e;
    sse_init(&s);
    for (size_t i = 0; i < n; i += step)
        if (sse_feed(&s, bytes + i, n - i < step ? n - i : step, collect, out, &e) != 0)
            break;
    sse_release(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole, cut;
    if (size < 2)
        return 0;
    buf_init(&whole, 0);
    buf_init(&cut, 0);
    parse((const char *)data + 1, size - 1, size, &whole);
    parse((const char *)data + 1, size - 1, 1u + data[0] % 7, &cut);
    if (whole.len != cut.len || (whole.len && memcmp(whole.data, cut.data, whole.len) != 0))
        abort();
    buf_release(&whole);
    buf_release(&cut);
    return 0;
}
