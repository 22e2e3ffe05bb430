/* scan.h: a position in the text of a regex or a grammar. Peeking past the end gives -1. */
#ifndef ARGOSY_GRAMMAR_SCAN_H
#define ARGOSY_GRAMMAR_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCAN_COUNT_MAX 1000000u

struct scan {
    const char *text; /* borrowed */
    size_t n, at;
};

int scan_peek_at(const struct scan *in, size_t ahead);
int scan_peek(const struct scan *in);
/* Moves past c if it is next. */
bool scan_take(struct scan *in, char c);
/* The next character; false at the end, or where the bytes are not UTF-8. */
bool scan_char(struct scan *in, uint32_t *cp);
/* min to max hexadecimal digits. */
bool scan_hex(struct scan *in, uint32_t min, uint32_t max, uint32_t *value);
/* After "{": "m}", "m,}" or "m,n}", m <= n <= SCAN_COUNT_MAX. *max is UINT32_MAX for "m,}". */
bool scan_counts(struct scan *in, uint32_t *min, uint32_t *max);

#endif
