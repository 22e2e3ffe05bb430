/* shadow.c: what is known of each four bytes of memory: which are defined, and who accessed them.
 *
 * Kernels are compiled with -fsanitize=thread, which calls __tsan_read4(p) and the like before each
 * access; the functions are ours, TSan's runtime is not linked. Each access is compared with those
 * that the cell remembers. Two of different threads, one of them a write, are a race unless a
 * barrier lies between: whatever order this run had, another may have the other.
 *
 * Order is kept in epochs. `now` counts meetings; epoch[u] is that of u's last. An access of u in
 * epoch e is before what t does now if they met later than e: in a barrier of the whole block
 * (met_block), of their warp (met_warp), or as seen[t][u] says, which keeps partial meetings, with
 * what the others had seen. Blocks are never ordered: they may run at the same time. Atomics order
 * nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/simt/internal.h"

struct entry {
    uint32_t next;
    uint32_t epoch;
    uint32_t block;
    uint32_t pc; /* from the start of the program */
    uint16_t thread;
    uint8_t mask; /* bytes of the cell */
    uint8_t access;
};

extern uint8_t __executable_start[];

static bool present; /* are there callbacks? */
static struct entry *entries;
static uint32_t n_entries, entries_max, free_entries;
static struct simt_cell **touched; /* of shared memory, in this block */
static size_t n_touched, touched_max;

static uint32_t now = 1, met_block;
static uint32_t met_warp[SIMT_THREADS_MAX / SIMT_WARP];
static uint32_t epoch[SIMT_THREADS_MAX];
static uint32_t *seen;    /* (SIMT_THREADS_MAX, SIMT_THREADS_MAX) */
static bool across_warps; /* some met that are neither a warp nor the block */

bool simt_has_shadow(void)
{
    return present;
}

size_t simt_cells(size_t bytes)
{
    return bytes / SIMT_CELL + 2;
}

static void *grow(void *p, size_t n, size_t size)
{
    void *q = realloc(p, n * size);

    if (q == NULL) {
        perror("simt: no memory for the shadow");
        abort();
    }
    return q;
}

/* ---- cells ----------------------------------------------------------------------------------- */

static uint32_t new_entry(void)
{
    uint32_t i = free_entries;

    if (i != 0) {
        free_entries = entries[i].next;
        return i;
    }
    if (n_entries >= entries_max) {
        entries_max = entries_max != 0 ? entries_max * 2 : 4096;
        entries = grow(entries, entries_max, sizeof *entries);
    }
    return n_entries++;
}

void simt_shadow_begin_launch(void)
{
    for (struct simt_buffer *b = simt_buffers(); b != NULL; b = b->next) {
        for (size_t i = 0; i < simt_cells(b->bytes); i++) {
            b->cells[i].entries = 0;
            b->cells[i].counted = 0;
            b->cells[i].in_flight = 0;
        }
    }
    if (seen == NULL) {
        seen = calloc((size_t)SIMT_THREADS_MAX * SIMT_THREADS_MAX, sizeof *seen);
        if (seen == NULL) {
            abort();
        }
    }
    for (size_t i = 0; i < n_touched; i++) {
        *touched[i] = (struct simt_cell){0};
    }
    n_touched = 0;
    n_entries = 1; /* 0 is none */
    free_entries = 0;
}

void simt_shadow_begin_block(void)
{
    for (size_t i = 0; i < n_touched; i++) {
        uint32_t e = touched[i]->entries;
        while (e != 0) {
            uint32_t next = entries[e].next;
            entries[e].next = free_entries;
            free_entries = e;
            e = next;
        }
        *touched[i] = (struct simt_cell){0};
    }
    n_touched = 0;
    across_warps = false;
    simt_shadow_meet_block();
}

static void note_touched(struct simt_cell *c)
{
    if (c->counted) {
        return;
    }
    c->counted = 1;
    if (n_touched == touched_max) {
        touched_max = touched_max != 0 ? touched_max * 2 : 4096;
        touched = grow(touched, touched_max, sizeof *touched);
    }
    touched[n_touched++] = c;
}

/* Bits of the cell of byte i that [at, at + bytes) covers. */
static uint8_t mask_of(size_t cell, size_t at, size_t bytes)
{
    uint8_t mask = 0;

    for (size_t i = 0; i < SIMT_CELL; i++) {
        size_t byte = cell * SIMT_CELL + i;
        if (byte >= at && byte < at + bytes) {
            mask = (uint8_t)(mask | 1u << i);
        }
    }
    return mask;
}

void simt_shadow_define(struct simt_buffer *b, size_t at, size_t bytes, bool defined)
{
    for (size_t c = at / SIMT_CELL; c * SIMT_CELL < at + bytes; c++) {
        uint8_t mask = mask_of(c, at, bytes), *d = &b->cells[c].defined;
        *d = defined ? *d | mask : *d & (uint8_t)~mask;
    }
}

bool simt_shadow_defined(const struct simt_buffer *b, size_t at, size_t bytes, size_t *where)
{
    for (size_t i = at; i < at + bytes; i++) {
        if ((b->cells[i / SIMT_CELL].defined >> (i % SIMT_CELL) & 1) == 0) {
            *where = i;
            return false;
        }
    }
    return true;
}

void simt_shadow_in_flight(void *p, size_t bytes, bool in_flight)
{
    struct simt_buffer *b = NULL;

    if (!present || simt_place_of(p, bytes, &b) != SIMT_SHARED) {
        return;
    }
    size_t at = (size_t)((uint8_t *)p - b->data);
    for (size_t c = at / SIMT_CELL; c * SIMT_CELL < at + bytes; c++) {
        uint8_t mask = mask_of(c, at, bytes), *f = &b->cells[c].in_flight;
        note_touched(&b->cells[c]);
        *f = in_flight ? *f | mask : *f & (uint8_t)~mask;
    }
}

/* ---- order ----------------------------------------------------------------------------------- */

static uint32_t *seen_by(unsigned t)
{
    return seen + (size_t)t * SIMT_THREADS_MAX;
}

static uint32_t known(unsigned t, unsigned u)
{
    uint32_t e = seen_by(t)[u] > met_block ? seen_by(t)[u] : met_block;

    return t / SIMT_WARP == u / SIMT_WARP && met_warp[t / SIMT_WARP] > e ? met_warp[t / SIMT_WARP]
                                                                         : e;
}

void simt_shadow_meet_block(void)
{
    met_block = ++now;
    for (unsigned i = 0; i < simt_block.threads; i++) {
        epoch[i] = now;
    }
}

uint32_t simt_shadow_arrive(unsigned t)
{
    epoch[t] = ++now;
    return now;
}

/* `takes` learn of the threads [first, end) what each thread v with a `since` did before that
 * epoch, and what it had seen. */
static void join(const uint8_t *takes, const uint32_t *since, unsigned first, unsigned end)
{
    for (unsigned u = first; u < end; u++) {
        uint32_t most = 0;
        for (unsigned v = 0; v < simt_block.threads; v++) {
            if (since[v] != 0) {
                uint32_t e = v == u ? since[v] : known(v, u);
                most = e > most ? e : most;
            }
        }
        for (unsigned t = 0; t < simt_block.threads; t++) {
            if (takes[t] && seen_by(t)[u] < most) {
                seen_by(t)[u] = most;
            }
        }
    }
}

void simt_shadow_meet_some(const uint8_t *takes, const uint32_t *since)
{
    across_warps = true;
    join(takes, since, 0, simt_block.threads);
}

void simt_shadow_meet_warp(unsigned warp, uint32_t mask)
{
    unsigned first = warp * SIMT_WARP, left = simt_block.threads - first;
    unsigned lanes = left < SIMT_WARP ? left : SIMT_WARP;
    uint8_t takes[SIMT_THREADS_MAX] = {0};
    uint32_t since[SIMT_THREADS_MAX] = {0};

    if ((unsigned)__builtin_popcount(mask) == lanes && !across_warps) {
        met_warp[warp] = ++now;
        for (unsigned i = 0; i < lanes; i++) {
            epoch[first + i] = now;
        }
        return;
    }
    for (unsigned i = 0; i < lanes; i++) {
        takes[first + i] = mask >> i & 1;
        since[first + i] = takes[first + i] ? simt_shadow_arrive(first + i) : 0;
    }
    join(takes, since, across_warps ? 0 : first, across_warps ? simt_block.threads : first + lanes);
}

/* ---- accesses -------------------------------------------------------------------------------- */

static const char *const access_names[] = {"read", "write", "atomic"};

static const char *place_text(const struct simt_buffer *b, const void *p, char *text, size_t bytes)
{
    (void)snprintf(text, bytes, "%s + %td", b->name, (const uint8_t *)p - b->data);
    return text;
}

static void say_outside(const void *p, size_t bytes, enum simt_access access, const void *pc)
{
    const struct simt_buffer *b = simt_nearest(p);
    char where[256], place[128];

    simt_fault_say("%s: block %u, thread %u: out of bounds: %s of %zu bytes at %s, ",
                   simt_block.kernel, simt_block.number, simt_self->index, access_names[access],
                   bytes, simt_where(pc, where, sizeof where));
    if (b != NULL) {
        simt_fault_note("of %s, which has %zu bytes", place_text(b, p, place, sizeof place),
                        b->bytes);
    } else {
        simt_fault_note("of %p, near no buffer", p);
    }
    simt_fault_end();
}

static void say_race(const struct simt_buffer *b, const void *p, const struct entry *e,
                     enum simt_access access, const void *pc)
{
    char here[256], there[256], place[128];

    simt_fault_say("%s: race on %s: %s by block %u thread %u at %s, %s by block %u thread %u at %s",
                   simt_block.kernel, place_text(b, p, place, sizeof place),
                   access_names[e->access], e->block, e->thread,
                   simt_where(__executable_start + e->pc, there, sizeof there),
                   access_names[access], simt_block.number, simt_self->index,
                   simt_where(pc, here, sizeof here));
    simt_fault_end();
}

static void say_undefined(const struct simt_buffer *b, const void *p, bool in_flight,
                          const void *pc)
{
    char where[256], place[128];

    simt_fault_say("%s: block %u, thread %u: read of %s at %s, %s", simt_block.kernel,
                   simt_block.number, simt_self->index, place_text(b, p, place, sizeof place),
                   simt_where(pc, where, sizeof where),
                   in_flight ? "where a cp.async is on its way" : "uninitialised: nobody wrote it");
    simt_fault_end();
}

/* Must an earlier access be remembered, now that this one of its bytes is? Not if whatever races
 * with it later races with this one too. */
static bool is_covered(const struct entry *e, const struct entry *by, bool shared)
{
    bool stronger = by->access == SIMT_WRITE || by->access == e->access;

    if (e->block != by->block) { /* its block has ended, so any one of the kind will do */
        return false;
    }
    if (e->thread == by->thread) {
        return stronger;
    }
    return e->epoch < met_block && (shared || stronger);
}

static void access_cell(struct simt_buffer *b, size_t cell, bool shared, const struct entry *by,
                        const void *pc)
{
    struct simt_cell *c = &b->cells[cell];
    uint8_t old_kinds[3] = {0}; /* bytes that an ended block's entry already stands for */

    for (uint32_t *at = &c->entries; *at != 0;) {
        struct entry *e = &entries[*at];
        bool other_block = e->block != by->block;
        uint8_t both = e->mask & by->mask;
        bool conflict = both != 0 && (e->access != by->access || by->access == SIMT_WRITE) &&
                        (other_block || e->thread != by->thread);
        if (conflict && (other_block || e->epoch >= known(by->thread, e->thread))) {
            say_race(b, b->data + cell * SIMT_CELL, e, (enum simt_access)by->access, pc);
        }
        if (other_block) {
            e->mask &= (uint8_t)~old_kinds[e->access];
            old_kinds[e->access] |= e->mask;
        } else if (both != 0 && is_covered(e, by, shared)) {
            e->mask &= (uint8_t)~by->mask;
        }
        if (e->mask != 0) {
            at = &e->next;
            continue;
        }
        uint32_t gone = *at;
        *at = e->next;
        entries[gone].next = free_entries;
        free_entries = gone;
    }
    uint32_t fresh = new_entry();
    entries[fresh] = *by;
    entries[fresh].next = c->entries;
    c->entries = fresh;
}

static void access_buffer(struct simt_buffer *b, bool shared, size_t at, size_t bytes,
                          enum simt_access access, const void *pc)
{
    struct entry by = {
        .epoch = epoch[simt_self->index],
        .block = simt_block.number,
        .pc = (uint32_t)((const uint8_t *)pc - __executable_start),
        .thread = (uint16_t)simt_self->index,
        .access = (uint8_t)access,
    };

    for (size_t i = at / SIMT_CELL; i * SIMT_CELL < at + bytes; i++) {
        struct simt_cell *c = &b->cells[i];
        by.mask = mask_of(i, at, bytes);
        if (shared) {
            note_touched(c);
        }
        if (access != SIMT_WRITE && (by.mask & (c->in_flight | (uint8_t)~c->defined)) != 0) {
            say_undefined(b, b->data + i * SIMT_CELL, (by.mask & c->in_flight) != 0, pc);
        }
        access_cell(b, i, shared, &by, pc);
        c->defined |= access == SIMT_READ ? 0 : by.mask;
        if (!shared && !c->counted) {
            simt_stats_sector_of(b, i);
        }
    }
}

static void check(const void *p, size_t bytes, enum simt_access access, const void *pc,
                  bool aligned)
{
    struct simt_buffer *b = NULL;

    if (simt_self == NULL) {
        return;
    }
    enum simt_place place = simt_place_of(p, bytes, &b);
    if (place == SIMT_STACK || (place == SIMT_CONSTANT && access == SIMT_READ)) {
        return;
    }
    if (place != SIMT_GLOBAL && place != SIMT_SHARED) {
        say_outside(p, bytes, access, pc);
    }
    if (aligned && (uintptr_t)p % bytes != 0) {
        char where[256];
        simt_fault_say("%s: block %u, thread %u: misaligned: %s of %zu bytes at %s",
                       simt_block.kernel, simt_block.number, simt_self->index, access_names[access],
                       bytes, simt_where(pc, where, sizeof where));
        simt_fault_end();
    }
    access_buffer(b, place == SIMT_SHARED, (size_t)((const uint8_t *)p - b->data), bytes, access,
                  pc);
    simt_stats_access(p, bytes, access != SIMT_READ, place == SIMT_SHARED, pc);
}

static void check_and_give_way(const void *p, size_t bytes, enum simt_access access, const void *pc,
                               bool aligned)
{
    check(p, bytes, access, pc, aligned);
    if (simt_self != NULL && simt_options.preempt != 0 &&
        simt_random() % simt_options.preempt == 0) {
        simt_give_way();
    }
}

void simt_touch(const void *p, size_t bytes, enum simt_access access, const void *pc)
{
    if (present) {
        check(p, bytes, access, pc, true);
    }
}

void simt_touch_lanes(const void *p, size_t bytes, unsigned lanes)
{
    if (present && simt_self->index % SIMT_WARP < lanes) {
        check(p, bytes, SIMT_READ, __builtin_return_address(0), true);
    }
}

/* ---- the compiler's callbacks -----------------------------------------------------------------
 */

void __tsan_init(void);
void __tsan_init(void)
{
    present = true;
}

#define CALLBACK(name, bytes, access, aligned)                                      \
    void name(void *p);                                                             \
    void name(void *p)                                                              \
    {                                                                               \
        check_and_give_way(p, bytes, access, __builtin_return_address(0), aligned); \
    }

CALLBACK(__tsan_read1, 1, SIMT_READ, true)
CALLBACK(__tsan_read2, 2, SIMT_READ, true)
CALLBACK(__tsan_read4, 4, SIMT_READ, true)
CALLBACK(__tsan_read8, 8, SIMT_READ, true)
CALLBACK(__tsan_read16, 16, SIMT_READ, true)
CALLBACK(__tsan_write1, 1, SIMT_WRITE, true)
CALLBACK(__tsan_write2, 2, SIMT_WRITE, true)
CALLBACK(__tsan_write4, 4, SIMT_WRITE, true)
CALLBACK(__tsan_write8, 8, SIMT_WRITE, true)
CALLBACK(__tsan_write16, 16, SIMT_WRITE, true)
CALLBACK(__tsan_unaligned_read2, 2, SIMT_READ, false)
CALLBACK(__tsan_unaligned_read4, 4, SIMT_READ, false)
CALLBACK(__tsan_unaligned_read8, 8, SIMT_READ, false)
CALLBACK(__tsan_unaligned_read16, 16, SIMT_READ, false)
CALLBACK(__tsan_unaligned_write2, 2, SIMT_WRITE, false)
CALLBACK(__tsan_unaligned_write4, 4, SIMT_WRITE, false)
CALLBACK(__tsan_unaligned_write8, 8, SIMT_WRITE, false)
CALLBACK(__tsan_unaligned_write16, 16, SIMT_WRITE, false)

void __tsan_read_range(void *p, unsigned long bytes);
void __tsan_read_range(void *p, unsigned long bytes)
{
    check_and_give_way(p, bytes, SIMT_READ, __builtin_return_address(0), false);
}

void __tsan_write_range(void *p, unsigned long bytes);
void __tsan_write_range(void *p, unsigned long bytes)
{
    check_and_give_way(p, bytes, SIMT_WRITE, __builtin_return_address(0), false);
}
