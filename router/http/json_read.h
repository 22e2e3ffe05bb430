/* json_read.h: JSON text that json_check let through, as json-c's objects.
 *
 * The same objects as json_tokener_parse_ex makes: a key that is given twice has its last value,
 * half a surrogate pair becomes U+FFFD. Two thirds of its time go into locales, copies of every
 * string, and being ready for text that comes in pieces. Never called with other text: that is
 * asserted where it would be read past its end.
 */
#ifndef ARGOSY_ROUTER_HTTP_JSON_READ_H
#define ARGOSY_ROUTER_HTTP_JSON_READ_H

#include <stddef.h>

#include "router/http/json_check.h"

struct json_object;

/* The caller puts *out. Fails for want of memory alone: ERR_NOMEM. */
int json_read(const char *text, size_t n, struct json_object **out);

#endif
