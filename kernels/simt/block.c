/* block.c: launches. Blocks run one after another, and the threads of a block in turns, both in an
 * order that the seed decides; a thread runs until it waits, ends, or gives way. */
#include <stdlib.h>
#include <string.h>

#include "kernels/simt/internal.h"

struct named_barrier {
    enum simt_op op;
    unsigned expected; /* threads; 0: nobody is here */
    unsigned arrived;
    struct simt_at at;
    uint8_t waits[SIMT_THREADS_MAX];
    uint8_t brings[SIMT_THREADS_MAX];
    uint32_t since[SIMT_THREADS_MAX]; /* the epoch in which each came */
};

static struct simt_thread threads[SIMT_THREADS_MAX];
static struct named_barrier barriers[SIMT_BARRIERS];
static uint16_t ready[SIMT_THREADS_MAX];
static unsigned n_barriers; /* that somebody is at */
static unsigned n_ready, n_exited;
/* The fast build's: lanes of a warp, warps that have any, and the warp whose turn it is. */
static uint32_t ready_lanes[SIMT_THREADS_MAX / SIMT_WARP], ready_warps;
static unsigned turn;
static uint8_t exited[SIMT_THREADS_MAX];
static uint64_t random_state;

struct simt_block simt_block;
struct simt_thread *simt_self;
struct simt_options simt_options = {.seed = 1};

uint32_t simt_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1du) >> 32);
}

static unsigned random_below(unsigned n)
{
    return (unsigned)(((uint64_t)simt_random() * n) >> 32);
}

void simt_set(const struct simt_options *o)
{
    simt_options = *o;
}

struct simt_dim simt_thread_index(void)
{
    return simt_self->id;
}

struct simt_dim simt_block_index(void)
{
    return simt_block.index;
}

struct simt_dim simt_block_size(void)
{
    return simt_block.size;
}

struct simt_dim simt_grid_size(void)
{
    return simt_block.grid;
}

/* ---- turns ----------------------------------------------------------------------------------- */

void simt_wake(struct simt_thread *t)
{
    t->state = SIMT_READY;
    if (SIMT_CHECKED) {
        ready[n_ready] = (uint16_t)t->index;
    } else {
        ready_lanes[t->index / SIMT_WARP] |= 1u << t->index % SIMT_WARP;
        ready_warps |= 1u << t->index / SIMT_WARP;
    }
    n_ready++;
}

/* A warp goes on until none of its lanes can: what its stacks have in the cache is used. */
static struct simt_thread *take_ready_of_warp(void)
{
    n_ready--;
    if (ready_lanes[turn] == 0) {
        turn = (unsigned)__builtin_ctz(ready_warps);
    }
    unsigned lane = (unsigned)__builtin_ctz(ready_lanes[turn]);
    ready_lanes[turn] &= ready_lanes[turn] - 1;
    if (ready_lanes[turn] == 0) {
        ready_warps &= ~(1u << turn);
    }
    return &threads[turn * SIMT_WARP + lane];
}

/* One of those that may run: any. */
static struct simt_thread *take_ready(void)
{
    if (!SIMT_CHECKED) {
        return take_ready_of_warp();
    }
    unsigned at = random_below(n_ready);
    struct simt_thread *t = &threads[ready[at]];
    ready[at] = ready[--n_ready];
    return t;
}

/* The running thread leaves; the fast build goes straight to the next one. */
static void leave(bool for_good)
{
    if (SIMT_CHECKED || n_ready == 0) {
        simt_fiber_leave(for_good);
    } else {
        simt_fiber_switch(take_ready());
    }
}

void simt_stop(void)
{
    leave(false);
}

void simt_give_way(void)
{
    simt_wake(simt_self);
    leave(false);
}

/* Too few threads are left for a barrier that some wait at. */
static bool is_hopeless(const struct named_barrier *b)
{
    unsigned may_come = 0;

    if (b->expected == 0 || n_exited == 0) {
        return false;
    }
    for (unsigned i = 0; i < simt_block.threads; i++) {
        may_come += !exited[i] && !b->brings[i];
    }
    return may_come < b->expected - b->arrived;
}

void simt_thread_exits(void)
{
    struct simt_thread *t = simt_self;
    char who[256], late[256];

    simt_copies_check_exit(t);
    t->state = SIMT_EXITED;
    exited[t->index] = 1;
    n_exited++;
    simt_warp_exit(t);
    for (unsigned i = 0; n_barriers != 0 && i < SIMT_BARRIERS; i++) {
        struct named_barrier *b = &barriers[i];
        if (is_hopeless(b)) {
            simt_fault_say("%s: barrier %u (%s:%d): threads %s have exited, threads %s wait",
                           simt_block.kernel, i, b->at.file, b->at.line,
                           simt_thread_list(exited, simt_block.threads, who, sizeof who),
                           simt_thread_list(b->waits, simt_block.threads, late, sizeof late));
            simt_fault_end();
        }
    }
    leave(true);
}

/* ---- barriers -------------------------------------------------------------------------------- */

static void clear(struct named_barrier *b)
{
    n_barriers--;
    b->expected = b->arrived = 0;
    memset(b->waits, 0, simt_block.threads * sizeof b->waits[0]);
    memset(b->brings, 0, simt_block.threads * sizeof b->brings[0]);
    memset(b->since, 0, simt_block.threads * sizeof b->since[0]);
}

static void complete(struct named_barrier *b)
{
    int count = 0, result = 0;
    bool all = b->expected == simt_block.threads;

    for (unsigned i = 0; i < simt_block.threads; i++) {
        count += b->waits[i] && threads[i].predicate != 0;
    }
    result = b->op == SIMT_BARRIER_AND  ? count == (int)b->expected
             : b->op == SIMT_BARRIER_OR ? count != 0
                                        : count;
    if (SIMT_CHECKED && all && memcmp(b->waits, b->brings, simt_block.threads) == 0) {
        simt_shadow_meet_block();
    } else if (SIMT_CHECKED) {
        simt_shadow_meet_some(b->waits, b->since);
    }
    if (SIMT_CHECKED) {
        simt_stats_flush();
    }
    for (unsigned i = 0; i < simt_block.threads; i++) {
        if (b->waits[i]) {
            threads[i].result = result;
            simt_wake(&threads[i]);
        }
    }
    clear(b);
}

/* The running thread is at barrier id. */
static struct named_barrier *arrive(enum simt_op op, unsigned id, unsigned count, bool waits,
                                    struct simt_at at)
{
    struct simt_thread *t = simt_self;
    char who[256];

    if (id >= SIMT_BARRIERS || count > simt_block.threads ||
        (count != simt_block.threads && count % SIMT_WARP != 0)) {
        simt_fault_say(
            "%s: barrier %u of %u threads at %s:%d: there are 16 barriers, and a barrier "
            "is for whole warps of the block (%u threads)",
            simt_block.kernel, id, count, at.file, at.line, simt_block.threads);
        simt_fault_end();
    }
    struct named_barrier *b = &barriers[id];
    bool named = id != 0;
    if (b->expected != 0 &&
        (b->expected != count || (waits && b->op != op && !named) ||
         (!named && (b->at.line != at.line || strcmp(b->at.file, at.file) != 0)))) {
        simt_fault_say(
            "%s: divergent barrier %u: threads %s wait at %s:%d for %u, thread %u comes to "
            "%s:%d for %u",
            simt_block.kernel, id, simt_thread_list(b->brings, simt_block.threads, who, sizeof who),
            b->at.file, b->at.line, b->expected, t->index, at.file, at.line, count);
        simt_fault_end();
    }
    if (b->expected == 0) {
        n_barriers++;
        b->expected = count;
        b->op = op;
        b->at = at;
    }
    b->brings[t->index] = 1;
    b->waits[t->index] = waits;
    b->since[t->index] = SIMT_CHECKED ? simt_shadow_arrive(t->index) : 0;
    b->arrived++;
    if (is_hopeless(b)) {
        simt_fault_say("%s: thread %u waits at %s:%d, but threads %s have exited",
                       simt_block.kernel, t->index, at.file, at.line,
                       simt_thread_list(exited, simt_block.threads, who, sizeof who));
        simt_fault_end();
    }
    return b;
}

int simt_barrier(enum simt_op op, unsigned id, unsigned count, int predicate, struct simt_at at)
{
    struct simt_thread *t = simt_self;
    struct named_barrier *b = arrive(op, id, count != 0 ? count : simt_block.threads, true, at);

    t->predicate = predicate;
    t->state = SIMT_IN_BARRIER;
    t->op = op;
    t->barrier = id;
    t->at = at;
    if (b->arrived == b->expected) {
        complete(b);
    }
    simt_stop();
    return t->result;
}

void simt_barrier_arrive(unsigned id, unsigned count, struct simt_at at)
{
    struct named_barrier *b = arrive(SIMT_BARRIER, id, count, false, at);

    if (b->arrived == b->expected) {
        complete(b);
    }
}

/* ---- launches -------------------------------------------------------------------------------- */

/* Nobody can run, and not all have ended. */
static void say_deadlock(void)
{
    uint8_t same[SIMT_THREADS_MAX], done[SIMT_THREADS_MAX] = {0};
    char who[256];

    simt_fault_say("%s: block %u: deadlock", simt_block.kernel, simt_block.number);
    for (unsigned i = 0; i < simt_block.threads; i++) {
        const struct simt_thread *t = &threads[i];
        if (done[i] || t->state == SIMT_EXITED) {
            continue;
        }
        memset(same, 0, sizeof same);
        for (unsigned j = i; j < simt_block.threads; j++) {
            const struct simt_thread *u = &threads[j];
            same[j] = u->state == t->state && u->op == t->op && u->at.line == t->at.line &&
                      u->mask == t->mask && u->barrier == t->barrier;
            done[j] |= same[j];
        }
        if (t->state == SIMT_IN_WARP) {
            simt_fault_note("; threads %s wait in %s of lanes %08x at %s:%d",
                            simt_thread_list(same, simt_block.threads, who, sizeof who),
                            simt_op_name(t->op), t->mask, t->at.file, t->at.line);
        } else {
            simt_fault_note("; threads %s wait at barrier %u at %s:%d",
                            simt_thread_list(same, simt_block.threads, who, sizeof who), t->barrier,
                            t->at.file, t->at.line);
        }
    }
    if (n_exited != 0) {
        simt_fault_note("; threads %s have exited",
                        simt_thread_list(exited, simt_block.threads, who, sizeof who));
    }
}

static void run_block(void)
{
    simt_memory_begin_block();
    if (SIMT_CHECKED) {
        simt_shadow_begin_block();
    }
    memset(exited, 0, sizeof exited);
    memset(ready_lanes, 0, sizeof ready_lanes);
    ready_warps = turn = 0;
    n_ready = n_exited = 0;
    for (unsigned i = 0; i < SIMT_BARRIERS; i++) {
        if (barriers[i].expected != 0) { /* an arrival that nobody waited for */
            clear(&barriers[i]);
        }
    }
    for (unsigned i = 0; i < simt_block.threads; i += SIMT_WARP) {
        unsigned left = simt_block.threads - i;
        simt_block.warp[i / SIMT_WARP] =
            (struct simt_warp){.there = left < SIMT_WARP ? (1u << left) - 1 : ~0u};
    }
    for (unsigned i = 0; i < simt_block.threads; i++) {
        struct simt_thread *t = &threads[i];
        struct simt_copies *copies = t->copies;
        *t = (struct simt_thread){.index = i, .copies = copies};
        t->id.x = i % simt_block.size.x;
        t->id.y = i / simt_block.size.x % simt_block.size.y;
        t->id.z = i / simt_block.size.x / simt_block.size.y;
        simt_copies_reset(t);
        simt_fiber_prepare(i);
        simt_wake(t);
    }
    while (n_ready != 0 && !simt_faulted()) {
        simt_fiber_enter(take_ready());
    }
    if (!simt_faulted() && n_exited != simt_block.threads) {
        say_deadlock();
    }
    if (SIMT_CHECKED) {
        simt_stats_flush();
    }
}

/* The n blocks in an order of the seed's. */
static void run_blocks(unsigned n)
{
    uint32_t *order = SIMT_CHECKED ? malloc((n != 0 ? n : 1) * sizeof *order) : NULL;

    if (SIMT_CHECKED && order == NULL) {
        abort();
    }
    for (unsigned i = 0; SIMT_CHECKED && i < n; i++) {
        unsigned j = random_below(i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    for (unsigned i = 0; i < n && !simt_faulted(); i++) {
        unsigned b = SIMT_CHECKED ? order[i] : i;
        simt_block.number = b;
        simt_block.index =
            (struct simt_dim){b % simt_block.grid.x, b / simt_block.grid.x % simt_block.grid.y,
                              b / simt_block.grid.x / simt_block.grid.y};
        run_block();
    }
    free(order);
}

int simt_launch(struct simt_stream *stream, const char *kernel, struct simt_dim grid,
                struct simt_dim block, size_t shared, void (*body)(const void *argument),
                const void *argument, size_t bytes)
{
    const struct simt_work work = {kernel, grid, block, shared, body, argument, bytes};

    return stream != NULL ? simt_stream_launch(stream, &work) : simt_run(&work);
}

bool simt_can_launch(const struct simt_work *w)
{
    uint64_t n_threads = (uint64_t)w->block.x * w->block.y * w->block.z;
    uint64_t n_blocks = (uint64_t)w->grid.x * w->grid.y * w->grid.z;

    return n_threads != 0 && n_threads <= SIMT_THREADS_MAX && n_blocks != 0 &&
           w->grid.x <= INT32_MAX && w->grid.y <= 65535 && w->grid.z <= 65535 &&
           n_blocks <= UINT32_MAX && w->shared <= SIMT_SHARED_MAX;
}

int simt_run(const struct simt_work *w)
{
    const struct simt_dim grid = w->grid, block = w->block;
    uint64_t n_threads = (uint64_t)block.x * block.y * block.z;
    uint64_t n_blocks = (uint64_t)grid.x * grid.y * grid.z;

    simt_fault_clear();
    random_state = (simt_options.seed + 1) * 0x9e3779b97f4a7c15u;
    simt_block = (struct simt_block){.kernel = w->kernel,
                                     .grid = grid,
                                     .size = block,
                                     .threads = (unsigned)n_threads,
                                     .shared_bytes = w->shared,
                                     .body = w->body,
                                     .argument = w->argument,
                                     .argument_bytes = w->bytes,
                                     .thread = threads};
    if (!simt_can_launch(w)) {
        simt_fault_say(
            "%s: a grid of %u x %u x %u blocks of %u x %u x %u threads with %zu bytes of "
            "shared memory cannot be launched",
            w->kernel, grid.x, grid.y, grid.z, block.x, block.y, block.z, w->shared);
        return -1;
    }
    simt_memory_begin_launch();
    memset(barriers, 0, sizeof barriers);
    n_barriers = 0;
    if (SIMT_CHECKED) {
        simt_shadow_begin_launch();
        simt_stats_begin();
    }
    run_blocks((unsigned)n_blocks);
    simt_memory_end_launch();
    return simt_faulted() ? -1 : 0;
}
