/* Any bytes as a .safetensors file: the reader refuses, or its tensors fill the file's data without
 * overlap and each is found by its name. */
#include <stdint.h>
#include <string.h>

#include "runtime/base/check.h"
#include "runtime/format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct safetensors *s = NULL;
    struct err e = {0};
    if (safetensors_open_mem(data, n, &s, &e) < 0) {
        ASSERT(!s && e.code < 0 && e.msg[0]);
        return 0;
    }
    uint64_t header, total = 0;
    memcpy(&header, data, 8);
    for (size_t i = 0; i < safetensors_count(s); i++) {
        const struct safetensors_tensor *t = safetensors_at(s, i);
        const uint8_t *p = t->start;
        const void *lent;
        ASSERT(safetensors_find(s, t->name) == t && t->n_dims <= SAFETENSORS_DIMS_MAX);
        ASSERT(p >= data + 8 + header && t->bytes <= n && (size_t)(p - data) <= n - t->bytes);
        if (safetensors_data(t, &lent, NULL) == 0)
            ASSERT(t->bytes ? lent == p : lent == NULL);
        total += t->bytes;
    }
    ASSERT(total == n - 8 - header);
    safetensors_close(s);
    return 0;
}
