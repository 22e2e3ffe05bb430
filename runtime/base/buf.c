#include "runtime/base/buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_init(struct buf *b, size_t max_bytes)
{
    memset(b, 0, sizeof(*b));
    b->max_bytes = max_bytes;
}

void buf_release(struct buf *b)
{
    free(b->data);
    buf_init(b, b->max_bytes);
}

void buf_clear(struct buf *b)
{
    b->len = 0;
    b->failed = false;
    if (b->data)
        b->data[0] = '\0';
}

static bool grow(struct buf *b, size_t need)
{
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need)
        cap *= 2;
    char *p = realloc(b->data, cap);
    b->failed = !p;
    if (p) {
        b->data = p;
        b->cap = cap;
    }
    return p;
}

char *buf_reserve(struct buf *b, size_t n)
{
    if (b->failed)
        return NULL;
    size_t most = b->max_bytes ? b->max_bytes : SIZE_MAX / 4;
    if (n > most || b->len > most - n) {
        b->failed = true;
        return NULL;
    }
    if (b->len + n + 1 > b->cap && !grow(b, b->len + n + 1))
        return NULL;
    return b->data + b->len;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
    char *p = buf_reserve(b, n);
    if (!p)
        return;
    if (n)
        memcpy(p, bytes, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void buf_addc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

/* The digits of v, at most 20, written to end at `end`; where they start. */
static char *digits_before(char *end, uint64_t v)
{
    do
        *--end = (char)('0' + v % 10);
    while (v /= 10);
    return end;
}

void buf_adduint(struct buf *b, uint64_t v)
{
    char text[20];
    char *end = text + sizeof(text), *p = digits_before(end, v);
    buf_add(b, p, (size_t)(end - p));
}

void buf_addint(struct buf *b, int64_t v)
{
    char text[21];
    char *end = text + sizeof(text), *p = digits_before(end, v < 0 ? -(uint64_t)v : (uint64_t)v);
    if (v < 0)
        *--p = '-';
    buf_add(b, p, (size_t)(end - p));
}

void buf_addvf(struct buf *b, const char *fmt, va_list ap)
{
    va_list first;
    /* Straight to its place when there is room, which is nearly always. */
    size_t room = b->failed || !b->data ? 0 : b->cap - b->len;
    va_copy(first, ap);
    int n = vsnprintf(room ? b->data + b->len : NULL, room, fmt, first);
    va_end(first);
    bool written = n >= 0 && (size_t)n < room;
    char *p = n < 0 ? NULL : buf_reserve(b, (size_t)n);
    b->failed |= n < 0;
    if (p && !written)
        vsnprintf(p, (size_t)n + 1, fmt, ap);
    if (p)
        b->len += (size_t)n;
    else if (room)
        b->data[b->len] = '\0';
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_addvf(b, fmt, ap);
    va_end(ap);
}

const char *buf_str(const struct buf *b)
{
    return b->data ? b->data : "";
}

char *buf_detach(struct buf *b)
{
    char *p = b->failed ? NULL : b->data;
    if (!p)
        free(b->data);
    buf_init(b, b->max_bytes);
    return p;
}
