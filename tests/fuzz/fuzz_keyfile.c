/* A keys file: what is read is written and read again the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/keys/keyfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keylist l, again;
    struct buf text, second;
    if (keyfile_parse((const char *)data, size, "fuzz", &l, NULL) < 0)
        return 0;
    buf_init(&text, 0);
    buf_init(&second, 0);
    for (size_t i = 0; i < l.n; i++) {
        key_write(&l.items[i], &text);
        buf_addc(&text, '\n');
    }
    if (keyfile_parse(buf_str(&text), text.len, "again", &again, NULL) < 0 || again.n != l.n)
        abort();
    for (size_t i = 0; i < again.n; i++) {
        key_write(&again.items[i], &second);
        buf_addc(&second, '\n');
        if (keylist_find(&l, again.items[i].hash) != &l.items[i])
            abort();
    }
    if (second.len != text.len || (text.len && memcmp(text.data, second.data, text.len) != 0))
        abort();
    keylist_release(&l);
    keylist_release(&again);
    buf_release(&text);
    buf_release(&second);
    return 0;
}
