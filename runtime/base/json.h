/* json.h: writes JSON text into a struct buf. Reading is json-c's work.
 *
 * The writer keeps the commas; the caller keeps the nesting:
 *     json_obj(w); json_key(w, "id"); json_str(w, id); json_obj_end(w);
 * Strings are written as valid UTF-8: invalid bytes become U+FFFD. Numbers that JSON cannot hold
 * (NaN, infinities) become null. Depth is at most JSON_DEPTH_MAX (asserted: it is our own code).
 */
#ifndef ARGOSY_BASE_JSON_H
#define ARGOSY_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/buf.h"

#define JSON_DEPTH_MAX 32

struct json {
    struct buf *out; /* borrowed */
    int depth;
    bool need_comma[JSON_DEPTH_MAX + 1];
};

void json_init(struct json *w, struct buf *out);
void json_obj(struct json *w);
void json_obj_end(struct json *w);
void json_arr(struct json *w);
void json_arr_end(struct json *w);
void json_key(struct json *w, const char *key);
void json_str(struct json *w, const char *s);
void json_strn(struct json *w, const char *s, size_t n);
void json_int(struct json *w, int64_t v);
void json_uint(struct json *w, uint64_t v);
/* Shortest form that reads back as the same float / double. */
void json_float(struct json *w, float v);
void json_double(struct json *w, double v);
void json_bool(struct json *w, bool v);
void json_null(struct json *w);
/* Text that is JSON already. */
void json_raw(struct json *w, const char *text, size_t n);

/* The string escape alone, without quotes; for code that writes SSE chunks by template. */
void json_escape(struct buf *out, const char *s, size_t n);

#endif
