/* arena.h: memory that is freed all at once: one a request, one a file.
 *
 * Allocations are 16-byte aligned and zeroed. `max_bytes` bounds what may ever
 * be taken; past it arena_alloc returns NULL, and the caller says ERR_LIMIT.
 * Not thread-safe: one owner.
 */
#ifndef ARGOSY_BASE_ARENA_H
#define ARGOSY_BASE_ARENA_H

#include <stddef.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *head;
    size_t used_bytes; /* handed out, over all chunks */
    size_t max_bytes;  /* 0: bounded by memory alone */
};

void arena_init(struct arena *a, size_t max_bytes);
void arena_release(struct arena *a);
/* Of an empty arena: the first chunk has so many bytes, not the usual few thousand. */
void arena_reserve(struct arena *a, size_t bytes);

void *arena_alloc(struct arena *a, size_t bytes);
/* n × size with an overflow check. */
void *arena_calloc(struct arena *a, size_t n, size_t size);
void *arena_memdup(struct arena *a, const void *p, size_t bytes);
/* A NUL-terminated copy of n bytes. */
char *arena_strndup(struct arena *a, const char *s, size_t n);
char *arena_strdup(struct arena *a, const char *s);

#endif
