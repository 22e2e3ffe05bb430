/* json_check.h: is this text JSON (RFC 8259), and small enough to build in memory?
 *
 * json-c builds what it reads: "[[],[],…" costs it more than 100 bytes a byte. So a body is walked
 * first, with no memory at all: grammar, UTF-8, depth, and how many values and containers there
 * are. What passes is built by json_read.c.
 */
#ifndef ARGOSY_ROUTER_HTTP_JSON_CHECK_H
#define ARGOSY_ROUTER_HTTP_JSON_CHECK_H

#include <stddef.h>

#define JSON_CHECK_DEPTH_MAX 32
#define JSON_CHECK_VALUES_MAX 262144    /* about 70 bytes each in json-c */
#define JSON_CHECK_CONTAINERS_MAX 16384 /* about 700 bytes each */

enum json_check_result { JSON_CHECK_OK, JSON_CHECK_SYNTAX, JSON_CHECK_DEPTH, JSON_CHECK_COUNT };

struct json_check {
    size_t at;       /* where it went wrong */
    const char *why; /* a constant: "invalid UTF-8" */
    /* The key of the outermost object in whose value it went wrong; NULL: not inside one. */
    const char *key;
    size_t key_n;
};

enum json_check_result json_check(const char *text, size_t n, struct json_check *out);

#endif
