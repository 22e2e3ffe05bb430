/* shown.h: a name out of a file, for an error: cut, and nothing but printable ASCII. */
#ifndef ARGOSY_FORMAT_SHOWN_H
#define ARGOSY_FORMAT_SHOWN_H

#include <stddef.h>
#include <string.h>

#define SHOWN_BYTES 80

/* Returns out. */
static inline const char *shown(char out[SHOWN_BYTES + 1], const void *s, size_t n)
{
    const unsigned char *p = s;
    size_t k = n < SHOWN_BYTES ? n : SHOWN_BYTES;
    for (size_t i = 0; i < k; i++)
        out[i] = p[i] >= 0x20 && p[i] < 0x7f ? (char)p[i] : '?';
    out[k] = '\0';
    return out;
}

/* A string that lasts as long as the block around it. */
#define SHOWN(name) shown((char[SHOWN_BYTES + 1]){0}, name, strlen(name))

#endif
