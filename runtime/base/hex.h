/* hex.h: bytes as lower-case hex digits, two each. Pure. */
#ifndef ARGOSY_BASE_HEX_H
#define ARGOSY_BASE_HEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* out: 2 n + 1 places, for n bytes and a NUL. */
void hex_write(const uint8_t *bytes, size_t n, char *out);
/* Reads n bytes from text, which has 2 n characters or ends with a NUL. False: one of them is no
 * lower-case digit; then `out` holds nothing of use. */
bool hex_read(const char *text, uint8_t *out, size_t n);

#endif
