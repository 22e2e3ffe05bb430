/* json_number.h: numbers as JSON writes them, between bounds. */
#ifndef ARGOSY_GRAMMAR_JSON_NUMBER_H
#define ARGOSY_GRAMMAR_JSON_NUMBER_H

#include "runtime/grammar/syntax.h"

#define JSON_NUMBER_DIGITS_MAX 18 /* before the point, and after it */

/* A decimal number, exactly: whole + 0.fraction. */
struct decimal {
    bool negative;
    uint64_t whole;
    char fraction[JSON_NUMBER_DIGITS_MAX + 1]; /* digits, no zeros at the end */
};

struct json_bounds {
    bool has_min, has_max;
    bool min_excluded, max_excluded;
    struct decimal min, max;
};

/* From JSON's notation. False: more digits than JSON_NUMBER_DIGITS_MAX. */
bool decimal_parse(const char *text, struct decimal *out);
int decimal_cmp(const struct decimal *a, const struct decimal *b);

/* Without bounds: every number of JSON (integers: without fraction and exponent). With bounds:
 * plain decimals without exponent, and no "-0". */
uint32_t json_integer(struct syntax *y, const struct json_bounds *b);
uint32_t json_number(struct syntax *y, const struct json_bounds *b);

#endif
