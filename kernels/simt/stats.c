/* stats.c: how a warp's accesses fall on sectors of global and banks of shared memory.
 *
 * What the lanes of a warp do at one instruction is one access of the warp: the n-th time that each
 * lane is there belongs together. Accesses are gathered until the threads meet or end, then sorted
 * and counted. A warp that diverged may so be counted as better than it is; never as worse. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/simt/internal.h"

#define SECTOR 32
#define BANKS 32

struct access {
    uintptr_t pc;
    uintptr_t p;
    uint32_t time; /* how often its lane was there before */
    uint16_t thread;
    uint8_t bytes;
    uint8_t flags;
};
#define STORE 1
#define SHARED 2
#define GATHERED_MAX (1u << 16)

static struct simt_stats stats;
static struct access *gathered;
static size_t n_gathered;

const struct simt_stats *simt_last_stats(void)
{
    return &stats;
}

void simt_stats_begin(void)
{
    stats = (struct simt_stats){0};
    n_gathered = 0;
    if (gathered == NULL) {
        gathered = malloc(GATHERED_MAX * sizeof *gathered);
        if (gathered == NULL) {
            perror("simt: no memory");
            abort();
        }
    }
}

void simt_stats_sector_of(struct simt_buffer *b, size_t cell)
{
    size_t per_sector = SECTOR / SIMT_CELL, first = cell / per_sector * per_sector;

    for (size_t i = first; i < first + per_sector && i < simt_cells(b->bytes); i++) {
        b->cells[i].counted = 1;
    }
    stats.unique_sectors++;
}

void simt_stats_access(const void *p, size_t bytes, bool store, bool shared, const void *pc)
{
    if (n_gathered == GATHERED_MAX) {
        simt_stats_flush();
    }
    gathered[n_gathered++] = (struct access){
        .pc = (uintptr_t)pc,
        .p = (uintptr_t)p,
        .thread = (uint16_t)simt_self->index,
        .bytes = (uint8_t)bytes,
        .flags = (uint8_t)((store ? STORE : 0) | (shared ? SHARED : 0)),
    };
}

/* By warp, place, lane; qsort is not stable, so `time` holds the order of arrival. */
static int by_lane(const void *a, const void *b)
{
    const struct access *x = a, *y = b;
    unsigned wx = x->thread / SIMT_WARP, wy = y->thread / SIMT_WARP;

    if (wx != wy) {
        return wx < wy ? -1 : 1;
    }
    if (x->pc != y->pc) {
        return x->pc < y->pc ? -1 : 1;
    }
    if (x->thread != y->thread) {
        return x->thread < y->thread ? -1 : 1;
    }
    return x->time < y->time ? -1 : x->time > y->time;
}

static int by_time(const void *a, const void *b)
{
    const struct access *x = a, *y = b;
    unsigned wx = x->thread / SIMT_WARP, wy = y->thread / SIMT_WARP;

    if (wx != wy) {
        return wx < wy ? -1 : 1;
    }
    if (x->pc != y->pc) {
        return x->pc < y->pc ? -1 : 1;
    }
    return x->time < y->time ? -1 : x->time > y->time;
}

static int by_value(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

    return x < y ? -1 : x > y;
}

static size_t count_different(uintptr_t *v, size_t n)
{
    size_t different = 0;

    qsort(v, n, sizeof *v, by_value);
    for (size_t i = 0; i < n; i++) {
        different += i == 0 || v[i] != v[i - 1];
    }
    return different;
}

/* n accesses of the lanes of a warp at one instruction. */
static void count_global(const struct access *a, size_t n)
{
    uintptr_t sectors[SIMT_WARP * 2], words[SIMT_WARP * 16];
    size_t n_sectors = 0, n_words = 0, bytes = 0;

    for (size_t i = 0; i < n; i++) {
        bytes += a[i].bytes;
        sectors[n_sectors++] = a[i].p / SECTOR;
        sectors[n_sectors++] = (a[i].p + a[i].bytes - 1) / SECTOR;
        for (size_t j = 0; j < a[i].bytes && j < 16; j++) {
            words[n_words++] = a[i].p + j;
        }
    }
    size_t different = count_different(words, n_words);
    stats.sectors += count_different(sectors, n_sectors);
    stats.sectors_min += (different + SECTOR - 1) / SECTOR;
    if (a->flags & STORE) {
        stats.stores++;
        stats.store_bytes += bytes;
    } else {
        stats.loads++;
        stats.load_bytes += bytes;
    }
}

/* A bank serves one word of four bytes a turn, to any number of lanes. */
static void count_shared(const struct access *a, size_t n)
{
    uintptr_t words[SIMT_WARP * 4];
    unsigned bank[BANKS] = {0}, turns = 0;
    size_t n_words = 0;

    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < a[i].bytes && j < 16; j += 4) {
            words[n_words++] = (a[i].p + j) / 4;
        }
    }
    size_t different = 0;
    qsort(words, n_words, sizeof *words, by_value);
    for (size_t i = 0; i < n_words; i++) {
        if (i == 0 || words[i] != words[i - 1]) {
            unsigned *b = &bank[words[i] % BANKS];
            turns = ++*b > turns ? *b : turns;
            different++;
        }
    }
    stats.shared_accesses++;
    stats.bank_conflicts += turns - (different + BANKS - 1) / BANKS;
}

void simt_stats_flush(void)
{
    for (size_t i = 0; i < n_gathered; i++) {
        gathered[i].time = (uint32_t)i;
    }
    qsort(gathered, n_gathered, sizeof *gathered, by_lane);
    uint32_t time = 0;
    uintptr_t pc = 0;
    unsigned thread = 0;
    for (size_t i = 0; i < n_gathered; i++) {
        time = i != 0 && gathered[i].pc == pc && gathered[i].thread == thread ? time + 1 : 0;
        pc = gathered[i].pc;
        thread = gathered[i].thread;
        gathered[i].time = time;
    }
    qsort(gathered, n_gathered, sizeof *gathered, by_time);
    for (size_t i = 0, n; i < n_gathered; i += n) {
        n = 1;
        while (i + n < n_gathered && by_time(&gathered[i], &gathered[i + n]) == 0) {
            n++;
        }
        if (gathered[i].flags & SHARED) {
            count_shared(&gathered[i], n);
        } else {
            count_global(&gathered[i], n);
        }
    }
    n_gathered = 0;
}
