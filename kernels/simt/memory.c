/* memory.c: what a kernel may touch: buffers of simt_malloc, shared memory, its own stack, its
 * parameters, and constants of the program.
 *
 * A __shared__ variable is a static variable of the program. Dynamic shared memory is one buffer
 * that is as large as the launch says. Fresh memory holds what the seed makes of it, never zeros
 * by luck. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/simt/internal.h"
#include "kernels/simt/sanitizer.h"

#define DYNAMIC_ALIGN 1024

extern uint8_t __data_start[], _end[], __executable_start[]; /* the linker's */
/* Variables of functions that are no templates are in a section of their own. */
extern uint8_t __start_simt_variables[] __attribute__((weak));
extern uint8_t __stop_simt_variables[] __attribute__((weak));

struct simt_buffer simt_dynamic = {.name = "dynamic shared memory"};
struct simt_buffer simt_static = {.name = "__shared__ variables"};
static struct simt_buffer *buffers;

struct simt_buffer *simt_buffers(void)
{
    return buffers;
}

static void *get(size_t n, size_t size)
{
    void *p = calloc(n != 0 ? n : 1, size);

    if (p == NULL) {
        perror("simt: no memory");
        abort();
    }
    return p;
}

/* What nobody wrote: large, odd, and other numbers with another seed. */
static void spoil(uint8_t *p, size_t bytes)
{
    static const uint8_t patterns[] = {0xff, 0xa5, 0x7f, 0x80};

    memset(p, patterns[simt_options.seed % 4], bytes);
}

void *simt_malloc(size_t bytes, const char *name)
{
    struct simt_buffer *b = get(1, sizeof *b);

    if (posix_memalign((void **)&b->data, 256, bytes != 0 ? bytes : 1) != 0) {
        perror("simt: no memory");
        abort();
    }
    b->bytes = bytes;
    b->name = name;
    b->cells = SIMT_CHECKED ? get(simt_cells(bytes), sizeof *b->cells) : NULL;
    b->next = buffers;
    buffers = b;
    if (SIMT_CHECKED) {
        spoil(b->data, bytes);
    }
    return b->data;
}

void simt_hide(void *p)
{
    for (struct simt_buffer *b = buffers; b != NULL; b = b->next) {
        if (b->data == p) {
            b->hidden = true;
            SIMT_POISON(b->data, b->bytes);
        }
    }
}

/* What ASan keeps the host from becomes a kernel's, and back. */
static void show(bool shown)
{
    for (struct simt_buffer *b = SIMT_ASAN ? buffers : NULL; b != NULL; b = b->next) {
        if (!b->hidden) {
            continue;
        }
        /* NOLINTNEXTLINE(bugprone-branch-clone): without ASan both are nothing */
        if (shown) {
            SIMT_UNPOISON(b->data, b->bytes);
        } else {
            SIMT_POISON(b->data, b->bytes);
        }
    }
}

void simt_memory_end_launch(void)
{
    show(false);
}

void simt_free(void *p)
{
    for (struct simt_buffer **at = &buffers; *at != NULL; at = &(*at)->next) {
        struct simt_buffer *b = *at;
        if (b->data == p) {
            *at = b->next;
            SIMT_UNPOISON(b->data, b->bytes);
            free(b->cells);
            free(b->data);
            free(b);
            return;
        }
    }
}

void simt_upload(void *device, const void *host, size_t bytes)
{
    struct simt_buffer *b = NULL;

    if (bytes == 0) {
        return;
    }
    if (simt_place_of(device, bytes, &b) != SIMT_GLOBAL) {
        fprintf(stderr, "simt_upload: %zu bytes to where no buffer is\n", bytes);
        abort();
    }
    show(true);
    memcpy(device, host, bytes);
    show(false);
    if (SIMT_CHECKED)
        simt_shadow_define(b, (size_t)((uint8_t *)device - b->data), bytes, true);
}

bool simt_download(void *host, const void *device, size_t bytes)
{
    struct simt_buffer *b = NULL;
    size_t where;

    if (bytes == 0) {
        return true;
    }
    if (simt_place_of(device, bytes, &b) != SIMT_GLOBAL) {
        fprintf(stderr, "simt_download: %zu bytes from where no buffer is\n", bytes);
        abort();
    }
    show(true);
    memcpy(host, device, bytes);
    show(false);
    if (SIMT_CHECKED && simt_has_shadow() &&
        !simt_shadow_defined(b, (size_t)((const uint8_t *)device - b->data), bytes, &where)) {
        simt_fault_say("download: byte %zu of %s was never written", where, b->name);
        return false;
    }
    return true;
}

void simt_move(void *to, const void *from, size_t bytes)
{
    struct simt_buffer *a = NULL, *b = NULL;
    size_t where;

    if (bytes == 0) {
        return;
    }
    if (simt_place_of(to, bytes, &a) != SIMT_GLOBAL ||
        simt_place_of(from, bytes, &b) != SIMT_GLOBAL) {
        fprintf(stderr, "simt_move: %zu bytes where no buffer is\n", bytes);
        abort();
    }
    show(true);
    memmove(to, from, bytes);
    show(false);
    for (size_t i = 0; SIMT_CHECKED && i < bytes; i++) {
        bool defined =
            simt_shadow_defined(b, (size_t)((const uint8_t *)from - b->data) + i, 1, &where);
        simt_shadow_define(a, (size_t)((uint8_t *)to - a->data) + i, 1, defined);
    }
}

void simt_fill(void *p, int value, size_t bytes)
{
    struct simt_buffer *b = NULL;

    if (bytes == 0) {
        return;
    }
    if (simt_place_of(p, bytes, &b) != SIMT_GLOBAL) {
        fprintf(stderr, "simt_fill: %zu bytes where no buffer is\n", bytes);
        abort();
    }
    show(true);
    memset(p, value, bytes);
    show(false);
    if (SIMT_CHECKED) {
        simt_shadow_define(b, (size_t)((uint8_t *)p - b->data), bytes, true);
    }
}

void *simt_shared(void)
{
    return simt_dynamic.data;
}

static bool within(const void *p, size_t bytes, const struct simt_buffer *b)
{
    uintptr_t at = (uintptr_t)p, first = (uintptr_t)b->data;

    return b->data != NULL && at >= first && at - first <= b->bytes &&
           bytes <= b->bytes - (at - first);
}

/* Buffers are few, and one access is mostly in the last one's. */
static struct simt_buffer *find(const void *p, size_t bytes)
{
    static struct simt_buffer *last;
    bool there = false;

    for (struct simt_buffer *b = buffers; b != NULL; b = b->next) {
        if (b == last) {
            there = true;
            break;
        }
    }
    if (there && within(p, bytes, last)) {
        return last;
    }
    for (struct simt_buffer *b = buffers; b != NULL; b = b->next) {
        if (within(p, bytes, b)) {
            last = b;
            return b;
        }
    }
    return NULL;
}

enum simt_place simt_place_of(const void *p, size_t bytes, struct simt_buffer **buffer)
{
    uintptr_t at = (uintptr_t)p, argument = (uintptr_t)simt_block.argument;
    struct simt_buffer *b = NULL;
    enum simt_place place = SIMT_NOWHERE;

    if (simt_self != NULL && simt_fiber_owns(p, bytes)) {
        place = SIMT_STACK;
    } else if (within(p, bytes, &simt_dynamic)) {
        b = &simt_dynamic;
        place = SIMT_SHARED;
    } else if ((b = find(p, bytes)) != NULL) {
        place = SIMT_GLOBAL;
    } else if (within(p, bytes, &simt_static)) {
        b = &simt_static;
        place = SIMT_SHARED;
    } else if ((at >= (uintptr_t)__executable_start && at < (uintptr_t)_end) ||
               (at >= argument && at < argument + simt_block.argument_bytes)) {
        place = SIMT_CONSTANT;
    }
    if (buffer != NULL) {
        *buffer = b;
    }
    return place;
}

const struct simt_buffer *simt_nearest(const void *p)
{
    const struct simt_buffer *nearest = NULL;
    uintptr_t at = (uintptr_t)p, best = 1u << 20;

    for (const struct simt_buffer *b = &simt_dynamic; b != NULL;
         b = b == &simt_dynamic ? buffers : b->next) {
        uintptr_t first = (uintptr_t)b->data, end = first + b->bytes;
        uintptr_t away = at < first ? first - at : at >= end ? at - end : 0;
        if (b->data != NULL && away < best) {
            nearest = b;
            best = away;
        }
    }
    return nearest;
}

void simt_memory_begin_launch(void)
{
    show(true);
    if (SIMT_CHECKED && simt_static.data == NULL) {
        simt_static.data = __data_start;
        simt_static.bytes = (size_t)(_end - __data_start);
        simt_static.cells = get(simt_cells(simt_static.bytes), sizeof *simt_static.cells);
    }
    if (simt_dynamic.data == NULL) {
        if (posix_memalign((void **)&simt_dynamic.data, DYNAMIC_ALIGN,
                           SIMT_SHARED_MAX + DYNAMIC_ALIGN) != 0) {
            perror("simt: no memory");
            abort();
        }
        if (SIMT_CHECKED) {
            simt_dynamic.cells = get(simt_cells(SIMT_SHARED_MAX), sizeof *simt_dynamic.cells);
        }
    }
    simt_dynamic.bytes = simt_block.shared_bytes;
    SIMT_UNPOISON(simt_dynamic.data, SIMT_SHARED_MAX + DYNAMIC_ALIGN);
    SIMT_POISON(simt_dynamic.data + simt_dynamic.bytes,
                SIMT_SHARED_MAX + DYNAMIC_ALIGN - simt_dynamic.bytes);
}

void simt_memory_begin_block(void)
{
    if (!SIMT_CHECKED) {
        return;
    }
    spoil(simt_dynamic.data, simt_dynamic.bytes);
    if (__start_simt_variables != NULL) {
        spoil(__start_simt_variables, (size_t)(__stop_simt_variables - __start_simt_variables));
    }
}
