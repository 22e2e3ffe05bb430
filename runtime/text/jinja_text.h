/* jinja_text.h: Unicode as Python's str sees it: white space, case, what repr shows.
 *
 * Inside the template interpreter only. Strings are valid UTF-8 before they come here. Character
 * properties are utf8proc's, whose Unicode version may be newer than Python's.
 */
#ifndef ARGOSY_TEXT_JINJA_TEXT_H
#define ARGOSY_TEXT_JINJA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Writes at most 4 bytes; how many. */
size_t jtext_encode(uint32_t cp, char *out);
/* The character at p, of n > 0 bytes; its length in *len. */
uint32_t jtext_decode(const char *p, size_t n, size_t *len);
/* Bytes of the first `chars` characters, or n. */
size_t jtext_skip(const char *p, size_t n, size_t chars);
size_t jtext_chars(const char *p, size_t n);

bool jtext_is_space(uint32_t cp);
/* Length of the space character at p, 0 when it is none (or n is 0). */
size_t jtext_space_at(const char *p, size_t n);
/* Bytes that are left without the white space at the end, or that the start has of it. */
size_t jtext_rstrip(const char *p, size_t n);
size_t jtext_lstrip(const char *p, size_t n);
/* Length of the line break at p as str.splitlines knows them, 0 when it is none. */
size_t jtext_newline_at(const char *p, size_t n);

enum jtext_case { JTEXT_LOWER, JTEXT_UPPER, JTEXT_TITLE };
/* The full mapping: up to 3 code points, how many is returned. Not the final sigma. */
int jtext_map(uint32_t cp, enum jtext_case to, uint32_t out[3]);

bool jtext_is_cased(uint32_t cp);
bool jtext_is_lower(uint32_t cp);
bool jtext_is_upper(uint32_t cp);
bool jtext_is_title(uint32_t cp);
bool jtext_is_alpha(uint32_t cp);
bool jtext_is_digit(uint32_t cp);   /* str.isdigit, also superscripts */
bool jtext_is_decimal(uint32_t cp); /* str.isdecimal */
bool jtext_is_alnum(uint32_t cp);
bool jtext_is_printable(uint32_t cp); /* shown as itself by repr */
bool jtext_case_ignorable(uint32_t cp);

#endif
