/* warp.c: collectives of a warp. A lane posts what it brings and stops; the last lane of the mask
 * to come with the same operation and mask computes for all. Matrices have their rows and columns
 * in lanes as the PTX ISA's figures say, "ldmatrix" here and those of mma in mma.c. */
#include <string.h>

#include "kernels/simt/internal.h"

static const char *const names[SIMT_OP_COUNT] = {
    [SIMT_SYNCWARP] = "__syncwarp",
    [SIMT_SHFL_IDX] = "__shfl_sync",
    [SIMT_SHFL_UP] = "__shfl_up_sync",
    [SIMT_SHFL_DOWN] = "__shfl_down_sync",
    [SIMT_SHFL_XOR] = "__shfl_xor_sync",
    [SIMT_BALLOT] = "__ballot_sync",
    [SIMT_ANY] = "__any_sync",
    [SIMT_ALL] = "__all_sync",
    [SIMT_MATCH_ANY] = "__match_any_sync",
    [SIMT_MATCH_ALL] = "__match_all_sync",
    [SIMT_REDUCE_ADD] = "__reduce_add_sync",
    [SIMT_REDUCE_MIN] = "__reduce_min_sync",
    [SIMT_REDUCE_MAX] = "__reduce_max_sync",
    [SIMT_REDUCE_UMAX] = "__reduce_max_sync (unsigned)",
    [SIMT_LDMATRIX] = "ldmatrix",
    [SIMT_MMA_S8] = "mma.m16n8k32.s8",
    [SIMT_MMA_F16] = "mma.m16n8k16.f16",
    [SIMT_MMA_BF16] = "mma.m16n8k16.bf16",
    [SIMT_MMA_E4M3] = "mma.m16n8k32.e4m3",
    [SIMT_MMA_E5M2] = "mma.m16n8k32.e5m2",
    [SIMT_BARRIER] = "__syncthreads",
    [SIMT_BARRIER_COUNT] = "__syncthreads_count",
    [SIMT_BARRIER_AND] = "__syncthreads_and",
    [SIMT_BARRIER_OR] = "__syncthreads_or",
};

const char *simt_op_name(enum simt_op op)
{
    return names[op];
}

/* The lanes of a warp, those of the mask that are there. */
struct group {
    struct simt_thread *t; /* lane 0's */
    unsigned first;        /* its index in the block */
    unsigned lanes;        /* that the warp has */
    uint32_t mask;
};

static struct group group_of(const struct simt_thread *t, uint32_t mask)
{
    unsigned first = t->index / SIMT_WARP * SIMT_WARP, left = simt_block.threads - first;

    return (struct group){
        .t = &simt_block.thread[first],
        .first = first,
        .lanes = left < SIMT_WARP ? left : SIMT_WARP,
        .mask = mask,
    };
}

static bool has(const struct group *g, unsigned lane)
{
    return (g->mask >> lane & 1) != 0;
}

/* ---- what they compute ----------------------------------------------------------------------- */

/* in: value, lane or distance, width. */
static void shuffle(const struct group *g, enum simt_op op)
{
    for (unsigned i = 0; i < g->lanes; i++) {
        if (!has(g, i)) {
            continue;
        }
        struct simt_lane *lane = g->t[i].lane;
        int width = (int)lane->in[2], by = (int)(uint32_t)lane->in[1];
        int self = (int)i, first = self & ~(width - 1), from;
        if (op == SIMT_SHFL_IDX) {
            from = first + (by & (width - 1));
        } else if (op == SIMT_SHFL_UP) {
            from = self - by < first ? self : self - by;
        } else if (op == SIMT_SHFL_DOWN) {
            from = self + by >= first + width ? self : self + by;
        } else {
            from = (self ^ by) >= first + width ? self : self ^ by;
        }
        if (from >= (int)g->lanes || !has(g, (unsigned)from)) {
            simt_fault_say("%s: %s at %s:%d: lane %d of warp %u reads lane %d, which is not in its "
                           "mask %08x",
                           simt_block.kernel, names[op], g->t[i].at.file, g->t[i].at.line, self,
                           g->first / SIMT_WARP, from, g->mask);
            simt_fault_end();
        }
        lane->out[0] = g->t[from].lane->in[0];
    }
}

static void vote(const struct group *g, enum simt_op op)
{
    uint32_t ballot = 0;

    for (unsigned i = 0; i < g->lanes; i++) {
        if (has(g, i) && g->t[i].lane->in[0] != 0) {
            ballot |= 1u << i;
        }
    }
    for (unsigned i = 0; i < g->lanes; i++) {
        if (has(g, i)) {
            g->t[i].lane->out[0] = op == SIMT_BALLOT ? ballot
                                   : op == SIMT_ANY  ? ballot != 0
                                                     : ballot == g->mask;
        }
    }
}

static void match(const struct group *g, enum simt_op op)
{
    for (unsigned i = 0; i < g->lanes; i++) {
        uint32_t same = 0;
        for (unsigned j = 0; has(g, i) && j < g->lanes; j++) {
            if (has(g, j) && g->t[j].lane->in[0] == g->t[i].lane->in[0]) {
                same |= 1u << j;
            }
        }
        if (has(g, i)) {
            g->t[i].lane->out[0] = op == SIMT_MATCH_ANY || same == g->mask ? same : 0;
        }
    }
}

static uint32_t reduce_two(enum simt_op op, uint32_t a, uint32_t b)
{
    switch (op) {
    case SIMT_REDUCE_ADD:
        return a + b;
    case SIMT_REDUCE_MIN:
        return (int32_t)b < (int32_t)a ? b : a;
    case SIMT_REDUCE_MAX:
        return (int32_t)b > (int32_t)a ? b : a;
    default:
        return b > a ? b : a;
    }
}

static void reduce(const struct group *g, enum simt_op op)
{
    uint32_t sum = 0;
    bool any = false;

    for (unsigned i = 0; i < g->lanes; i++) {
        if (has(g, i)) {
            uint32_t v = (uint32_t)g->t[i].lane->in[0];
            sum = any ? reduce_two(op, sum, v) : v;
            any = true;
        }
    }
    for (unsigned i = 0; i < g->lanes; i++) {
        if (has(g, i)) {
            g->t[i].lane->out[0] = sum;
        }
    }
}

/* in: address of a row, number of matrices (1, 2, 4), transposed, the caller's address. Lanes
 * 8 m to 8 m + 7 name the rows of matrix m, 16 bytes each. Lane l gets of each matrix elements
 * (l / 4, 2 (l % 4)) and the one to its right, as two halves of a word; transposed, of columns. */
static void ldmatrix(const struct group *g)
{
    unsigned n = (unsigned)g->t[0].lane->in[1];
    uint16_t m[4][8][8];

    for (unsigned i = 0; i < 8 * n; i++) {
        const uint8_t *row = (const uint8_t *)(uintptr_t)g->t[i].lane->in[0];
        if ((uintptr_t)row % 16 != 0 ||
            (SIMT_CHECKED && simt_place_of(row, 16, NULL) != SIMT_SHARED)) {
            simt_fault_say(
                "%s: ldmatrix at %s:%d: the row of lane %u is not 16 bytes of shared memory "
                "at a multiple of 16",
                simt_block.kernel, g->t[i].at.file, g->t[i].at.line, i);
            simt_fault_end();
        }
        memcpy(m[i / 8][i % 8], row, 16);
    }
    for (unsigned l = 0; l < SIMT_WARP; l++) {
        for (unsigned k = 0; k < n; k++) {
            unsigned r = l / 4, c = 2 * (l % 4);
            bool turned = g->t[l].lane->in[2] != 0;
            uint32_t low = turned ? m[k][c][r] : m[k][r][c];
            uint32_t high = turned ? m[k][c + 1][r] : m[k][r][c + 1];
            g->t[l].lane->out[k] = low | high << 16;
        }
    }
}

static void compute(const struct group *g, enum simt_op op)
{
    switch (op) {
    case SIMT_SYNCWARP:
        if (SIMT_CHECKED)
            simt_shadow_meet_warp(g->first / SIMT_WARP, g->mask);
        break;
    case SIMT_SHFL_IDX:
    case SIMT_SHFL_UP:
    case SIMT_SHFL_DOWN:
    case SIMT_SHFL_XOR:
        shuffle(g, op);
        break;
    case SIMT_BALLOT:
    case SIMT_ANY:
    case SIMT_ALL:
        vote(g, op);
        break;
    case SIMT_MATCH_ANY:
    case SIMT_MATCH_ALL:
        match(g, op);
        break;
    case SIMT_LDMATRIX:
        ldmatrix(g);
        break;
    case SIMT_MMA_S8:
        simt_mma_s8(g->t);
        break;
    case SIMT_MMA_F16:
    case SIMT_MMA_BF16:
    case SIMT_MMA_E4M3:
    case SIMT_MMA_E5M2:
        simt_mma_float(g->t, op);
        break;
    default:
        reduce(g, op);
        break;
    }
}

/* ---- who must be there ----------------------------------------------------------------------- */

/* Threads of the block, by a mask over g's lanes. */
static const char *lanes_text(uint32_t mask, char *text, size_t bytes)
{
    uint8_t flags[SIMT_WARP];

    for (unsigned i = 0; i < SIMT_WARP; i++) {
        flags[i] = mask >> i & 1;
    }
    return simt_thread_list(flags, SIMT_WARP, text, bytes);
}

/* Matrices are of all 32 lanes. */
static bool of_whole_warps(enum simt_op op)
{
    return op >= SIMT_LDMATRIX && op <= SIMT_MMA_E5M2;
}

static void check_mask(const struct group *g, const struct simt_thread *t, enum simt_op op,
                       struct simt_at at)
{
    unsigned self = t->index - g->first;
    uint32_t gone = g->lanes < SIMT_WARP ? g->mask & ~0u << g->lanes : 0;
    char text[256];

    for (unsigned i = 0; i < g->lanes; i++) {
        gone |= has(g, i) && g->t[i].state == SIMT_EXITED ? 1u << i : 0;
    }
    if (!has(g, self)) {
        simt_fault_say(
            "%s: %s at %s:%d: wrong mask: lane %u of warp %u is not in its own mask %08x",
            simt_block.kernel, names[op], at.file, at.line, self, g->first / SIMT_WARP, g->mask);
        simt_fault_end();
    }
    if (gone != 0) {
        simt_fault_say(
            "%s: %s at %s:%d: wrong mask: lanes %s of warp %u are in the mask %08x of lane "
            "%u but have exited, or never were",
            simt_block.kernel, names[op], at.file, at.line, lanes_text(gone, text, sizeof text),
            g->first / SIMT_WARP, g->mask, self);
        simt_fault_end();
    }
    if (of_whole_warps(op) && g->mask != ~0u) {
        simt_fault_say("%s: %s at %s:%d wants a whole warp", simt_block.kernel, names[op], at.file,
                       at.line);
        simt_fault_end();
    }
    if (of_whole_warps(op) && !simt_mma_served(op)) {
        simt_fault_say("%s: %s at %s:%d: sm_%d has none, sm_89 and later have", simt_block.kernel,
                       names[op], at.file, at.line, simt_sm());
        simt_fault_end();
    }
}

/* Two lanes that each wait for the other, in different collectives, will wait for ever. */
static void check_agreement(const struct group *g, const struct simt_thread *t)
{
    for (unsigned i = 0; i < g->lanes; i++) {
        const struct simt_thread *u = &g->t[i];
        bool waits_for_us = u->state == SIMT_IN_WARP && (u->mask >> (t->index - g->first) & 1) != 0;
        if (u != t && has(g, i) && waits_for_us && (u->op != t->op || u->mask != t->mask)) {
            simt_fault_say(
                "%s: lanes of warp %u diverged: lane %u waits in %s of lanes %08x at %s:%d, "
                "lane %u in %s of lanes %08x at %s:%d",
                simt_block.kernel, g->first / SIMT_WARP, i, names[u->op], u->mask, u->at.file,
                u->at.line, t->index - g->first, names[t->op], t->mask, t->at.file, t->at.line);
            simt_fault_end();
        }
    }
}

/* Are all lanes of the mask in t's collective? */
static bool all_wait(const struct group *g, const struct simt_thread *t)
{
    for (unsigned i = 0; i < g->lanes; i++) {
        const struct simt_thread *u = &g->t[i];
        if (has(g, i) && (u->state != SIMT_IN_WARP || u->op != t->op || u->mask != t->mask)) {
            return false;
        }
    }
    return true;
}

void simt_collective(enum simt_op op, uint32_t mask, struct simt_lane *lane, struct simt_at at)
{
    struct simt_thread *t = simt_self;
    struct simt_warp *w = &simt_block.warp[t->index / SIMT_WARP];
    struct group g = group_of(t, mask);
    uint32_t self = 1u << t->index % SIMT_WARP;

    if ((mask & ~w->there) != 0 || (mask & self) == 0 || of_whole_warps(op)) {
        check_mask(&g, t, op, at);
    }
    t->state = SIMT_IN_WARP;
    t->op = op;
    t->mask = mask;
    t->at = at;
    t->lane = lane;
    if (w->waiting == 0) {
        w->op = op;
        w->mask = mask;
        w->mixed = false;
    } else if (w->mixed || w->op != op || w->mask != mask) {
        w->mixed = true;
        check_agreement(&g, t);
    }
    w->waiting |= self;
    if (w->mixed ? !all_wait(&g, t) : (w->waiting & mask) != mask) {
        simt_stop();
        return;
    }
    compute(&g, op);
    w->waiting &= ~mask;
    for (unsigned i = 0; i < g.lanes; i++) {
        if (has(&g, i) && (SIMT_CHECKED || &g.t[i] != t)) {
            simt_wake(&g.t[i]);
        }
    }
    if (SIMT_CHECKED) {
        simt_stop();
    } else {
        t->state = SIMT_READY;
    }
}

void simt_warp_exit(struct simt_thread *t)
{
    struct group g = group_of(t, ~0u);
    struct simt_warp *w = &simt_block.warp[t->index / SIMT_WARP];
    unsigned self = t->index - g.first;

    w->there &= ~(1u << self);
    for (unsigned i = 0; w->waiting != 0 && i < g.lanes; i++) {
        const struct simt_thread *u = &g.t[i];
        if (u->state == SIMT_IN_WARP && (u->mask >> self & 1) != 0) {
            simt_fault_say(
                "%s: lane %u of warp %u has exited, but lane %u waits for it in %s of lanes "
                "%08x at %s:%d",
                simt_block.kernel, self, g.first / SIMT_WARP, i, names[u->op], u->mask, u->at.file,
                u->at.line);
            simt_fault_end();
        }
    }
}
