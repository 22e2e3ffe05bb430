/* utf8.h: UTF-8 as the Unicode standard (3.9, table 3-7) has it, and what to do with bytes that are
 * not.
 *
 * Invalid input is read in maximal subparts: the longest start of a well-formed sequence that is
 * broken off counts as one fault, and every other stray byte as one. Each fault becomes U+FFFD.
 * That is what Python's errors="replace" and Rust's from_utf8_lossy do. Pure functions, any thread.
 */
#ifndef ARGOSY_TEXT_UTF8_H
#define ARGOSY_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"

#define UTF8_REPLACEMENT "\xEF\xBF\xBD"

struct utf8_step {
    size_t n;     /* bytes of the character, or of the fault; at least 1 */
    bool valid;   /* a whole, well-formed character */
    bool partial; /* a fault only because the input ends: more bytes could complete it */
};

/* Reads one character or fault at p; n >= 1 bytes are there. */
struct utf8_step utf8_next(const unsigned char *p, size_t n);

/* How many leading bytes of s are well-formed UTF-8; n when all are. */
size_t utf8_valid_bytes(const char *s, size_t n);

/* Appends s with every fault replaced. */
void utf8_add_lossy(struct buf *out, const char *s, size_t n);

/* The code point of a valid sequence of n bytes. */
uint32_t utf8_code(const unsigned char *p, size_t n);
/* Appends the sequence of a code point that is no surrogate. */
void utf8_add_code(struct buf *out, uint32_t code);

#endif
