/* charset.h: sets of Unicode characters, and the bytes they are written in. */
#ifndef ARGOSY_GRAMMAR_CHARSET_H
#define ARGOSY_GRAMMAR_CHARSET_H

#include "runtime/grammar/syntax.h"

#define CHARSET_RANGES_MAX 512
#define CHARSET_LAST 0x10ffffu

enum charset_form {
    CHARSET_RAW,        /* UTF-8 */
    CHARSET_JSON_STRING /* inside a JSON string: UTF-8, or an escape where it needs one
                         */
};

struct charset {
    uint32_t n;
    struct {
        uint32_t lo, hi;
    } ranges[CHARSET_RANGES_MAX];
};

/* False when it is full. */
bool charset_add(struct charset *c, uint32_t lo, uint32_t hi);
bool charset_add_all(struct charset *c, const struct charset *other);
/* Sorted, without overlaps and surrogates: what all that follows expects. */
void charset_normalise(struct charset *c);
/* All characters but these; a valid character is no surrogate. */
void charset_negate(struct charset *c);
/* Strings of n bytes, each in [least, most], from lo to hi in the order of bytes. n <= 32. */
uint32_t charset_between(struct syntax *y, const uint8_t *lo, const uint8_t *hi, uint32_t n,
                         uint8_t least, uint8_t most);
/* In a JSON string; DEL too. */
bool charset_needs_escape(uint32_t cp);
/* Its letter if it has one; control characters also by number. */
uint32_t charset_escape(struct syntax *y, uint32_t cp);
uint32_t charset_syntax(struct syntax *y, const struct charset *c, enum charset_form form);

#endif
