/* buf.h: a growing byte string with a limit.
 *
 * Always NUL-terminated one past `len` once anything was added, so data can be
 * printed; the bytes themselves may hold NULs. A failed append (limit or
 * memory) sets `failed`, changes nothing else, and makes every later append a
 * no-op: write many, check once.
 * Owner: whoever called buf_init; buf_release frees. Not thread-safe.
 */
#ifndef ARGOSY_BASE_BUF_H
#define ARGOSY_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buf {
    char *data; /* NULL until the first append */
    size_t len;
    size_t cap;
    size_t max_bytes; /* 0: bounded by memory alone */
    bool failed;
};

void buf_init(struct buf *b, size_t max_bytes);
void buf_release(struct buf *b);
/* Empties it and keeps the memory; also clears `failed`. */
void buf_clear(struct buf *b);

void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_addc(struct buf *b, char c);
/* Inline, for then a constant's length is one, too. */
static inline void buf_adds(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}
/* A number in decimal; for what is written so often that printf is felt. */
void buf_adduint(struct buf *b, uint64_t v);
void buf_addint(struct buf *b, int64_t v);
void buf_addf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_addvf(struct buf *b, const char *fmt, va_list ap);
/* Room for n more bytes at data + len, or NULL (failed is set). The caller then adds to len. */
char *buf_reserve(struct buf *b, size_t n);
/* The string, never NULL. */
const char *buf_str(const struct buf *b);
/* Hands the malloc'd bytes over to the caller and leaves b empty. NULL if failed or empty. */
char *buf_detach(struct buf *b);

#endif
