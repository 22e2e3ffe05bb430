/* What is read as a traceparent is written as the same ids, and that is read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "router/trace/traceparent.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct traceparent a = {0}, b;
    char text[TRACEPARENT_BYTES];
    char *copy = malloc(size ? size : 1); /* of the very size: what is read past it shows */
    if (!copy)
        return 0;
    if (size)
        memcpy(copy, data, size);
    if (traceparent_parse(copy, size, &a)) {
        traceparent_write(&a, text);
        if (!traceparent_parse(text, strlen(text), &b) || memcmp(&a, &b, sizeof(a)) != 0 ||
            memcmp(text + 3, copy + 3, 49) != 0)
            abort();
    }
    free(copy);
    return 0;
}
