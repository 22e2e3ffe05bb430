#include "runtime/base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_ALIGN 16u
#define ARENA_CHUNK_BYTES 4096u

struct arena_chunk {
    struct arena_chunk *next;
    size_t used;
    size_t cap;
    size_t pad; /* keeps `bytes` 16-byte aligned */
    unsigned char bytes[];
};

void arena_init(struct arena *a, size_t max_bytes)
{
    memset(a, 0, sizeof(*a));
    a->max_bytes = max_bytes;
}

void arena_release(struct arena *a)
{
    struct arena_chunk *c = a->head;
    while (c) {
        struct arena_chunk *next = c->next;
        free(c);
        c = next;
    }
    arena_init(a, a->max_bytes);
}

static struct arena_chunk *add_chunk(struct arena *a, size_t cap)
{
    struct arena_chunk *c = malloc(sizeof(*c) + cap);
    if (!c)
        return NULL;
    c->next = a->head;
    c->used = 0;
    c->cap = cap;
    a->head = c;
    return c;
}

void arena_reserve(struct arena *a, size_t bytes)
{
    if (!a->head && bytes < SIZE_MAX / 4)
        add_chunk(a, (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1));
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX / 4)
        return NULL;
    size_t n = (bytes + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    if (n == 0)
        n = ARENA_ALIGN;
    if (a->max_bytes && (n > a->max_bytes || a->used_bytes > a->max_bytes - n))
        return NULL;
    struct arena_chunk *c = a->head;
    if (!c || c->cap - c->used < n) {
        size_t cap = n > ARENA_CHUNK_BYTES ? n : ARENA_CHUNK_BYTES;
        /* Later chunks double, so that a large request takes few of them. */
        if (c && cap < 2 * c->cap && c->cap < (1u << 20))
            cap = 2 * c->cap;
        if (!(c = add_chunk(a, cap)))
            return NULL;
    }
    void *p = c->bytes + c->used;
    c->used += n;
    a->used_bytes += n;
    return memset(p, 0, n);
}

void *arena_calloc(struct arena *a, size_t n, size_t size)
{
    if (size && n > SIZE_MAX / size)
        return NULL;
    return arena_alloc(a, n * size);
}

void *arena_memdup(struct arena *a, const void *p, size_t bytes)
{
    void *q = arena_alloc(a, bytes);
    if (q && bytes)
        memcpy(q, p, bytes);
    return q;
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    if (n == SIZE_MAX)
        return NULL;
    char *p = arena_alloc(a, n + 1);
    if (p && n)
        memcpy(p, s, n);
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}
