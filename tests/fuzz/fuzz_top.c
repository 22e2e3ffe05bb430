/* Whatever a server sends, `argosy top` draws plain lines that fit. First byte: how wide. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cli/top_view.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct top_view v = {0};
    struct err e = {0};
    struct buf out;
    if (size < 2)
        return 0;
    uint32_t columns = 20u + data[0];
    buf_init(&out, 0);
    if (top_view_read(&v, (const char *)data + 1, size - 1, &e) == 0) {
        top_view_sort(&v, (enum top_order)(data[0] % TOP_ORDERS));
        top_draw(&v, columns, 24, data[0] % 7, false, "\n", &out);
        uint32_t width = 0, lines = 0;
        for (size_t i = 0; i < out.len; i++) {
            width = out.data[i] == '\n' ? 0 : width + 1;
            lines += out.data[i] == '\n';
            if (width > columns ||
                (out.data[i] != '\n' && (out.data[i] < 0x20 || out.data[i] > 0x7e)))
                abort();
        }
        if (lines > 24)
            abort();
    }
    top_view_release(&v);
    buf_release(&out);
    return 0;
}
