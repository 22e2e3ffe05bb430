/* internal.h: the parts of the emulator to each other.
 *
 * fiber.c    the switch between threads         block.c   launches, order, barriers
 * warp.c     collectives of a warp              mma.c     what tensor cores compute
 * memory.c   what a kernel may touch            shadow.c  races, undefined reads, bounds
 * async.c    cp.async                           stats.c   coalescing, banks
 * fault.c    what is said about it */
#ifndef ARGOSY_KERNELS_SIMT_INTERNAL_H
#define ARGOSY_KERNELS_SIMT_INTERNAL_H

#include "kernels/simt/cuda_api.h"
#include "kernels/simt/device.h"
#include "kernels/simt/simt.h"

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#else
#define SIMT_ASAN 0
#endif

/* The fast build runs threads in one fixed order and leaves out what only finds faults of memory:
 * no shadow, no filling, no counts. Collectives and barriers are checked all the same. */
#if defined(SIMT_FAST)
#define SIMT_CHECKED 0
#else
#define SIMT_CHECKED 1
#endif

#define SIMT_WARP 32u
#define SIMT_THREADS_MAX 1024u
#define SIMT_BARRIERS 16u
#define SIMT_SHARED_MAX (227u * 1024u) /* what sm_90 gives a block; sm_80: 163 KiB */

enum simt_state {
    SIMT_READY,
    SIMT_IN_WARP,    /* waits in a collective of its warp */
    SIMT_IN_BARRIER, /* waits in a barrier of the block */
    SIMT_EXITED,
};

struct simt_copies; /* async.c */

/* A thread of the block that runs. */
struct simt_thread {
    void *sp;         /* where it stopped */
    void *fake_stack; /* ASan's */
    unsigned index;
    struct simt_dim id;
    enum simt_state state;
    enum simt_op op; /* what it waits in */
    uint32_t mask;
    unsigned barrier;
    struct simt_at at;
    struct simt_lane *lane;
    int predicate;
    int result;
    struct simt_copies *copies;
};

/* What its lanes do. */
struct simt_warp {
    uint32_t there;   /* lanes that have not exited */
    uint32_t waiting; /* lanes in a collective */
    enum simt_op op;  /* theirs, if they are not in different ones */
    uint32_t mask;
    bool mixed;
};

struct simt_block {
    const char *kernel;
    struct simt_dim grid, size, index;
    unsigned number;  /* of the block in its launch */
    unsigned threads; /* that it has */
    size_t shared_bytes;
    void (*body)(const void *argument);
    const void *argument;
    size_t argument_bytes;
    struct simt_thread *thread; /* (SIMT_THREADS_MAX) */
    struct simt_warp warp[SIMT_THREADS_MAX / SIMT_WARP];
};

extern struct simt_block simt_block;
extern struct simt_thread *simt_self; /* NULL outside of a kernel */
extern struct simt_options simt_options;

/* A launch. */
struct simt_work {
    const char *kernel;
    struct simt_dim grid, block;
    size_t shared;
    void (*body)(const void *argument);
    const void *argument;
    size_t bytes;
};

/* ---- fiber.c ---- */
/* Prepares thread i to start in simt_block.body. */
void simt_fiber_prepare(unsigned i);
/* From the host into a thread, until it stops; and back. */
void simt_fiber_enter(struct simt_thread *t);
void simt_fiber_leave(bool for_good);
/* From the running thread into another. In the fast build. */
void simt_fiber_switch(struct simt_thread *to);
bool simt_fiber_owns(const void *p, size_t bytes); /* is it the running thread's own stack? */

/* ---- block.c ---- */
bool simt_can_launch(const struct simt_work *w);
int simt_run(const struct simt_work *w); /* now: 0, or -1 and simt_fault() */
uint32_t simt_random(void);
void simt_wake(struct simt_thread *t); /* it may run */
void simt_stop(void);                  /* the running thread stops until somebody wakes it */
void simt_give_way(void);              /* the running thread lets others run */
void simt_thread_exits(void);

/* ---- warp.c ---- */
const char *simt_op_name(enum simt_op op);
void simt_warp_exit(struct simt_thread *t);

/* ---- mma.c: of a warp, by its first lane ---- */
bool simt_mma_served(enum simt_op op); /* by the tensor cores of simt_sm() */
void simt_mma_s8(const struct simt_thread *lanes);
void simt_mma_float(const struct simt_thread *lanes, enum simt_op op);

/* ---- memory.c ---- */
enum simt_place {
    SIMT_NOWHERE,
    SIMT_GLOBAL,
    SIMT_SHARED,
    SIMT_STACK,
    SIMT_CONSTANT,
};
struct simt_buffer {
    uint8_t *data;
    size_t bytes;
    const char *name;
    struct simt_cell *cells; /* the shadow, one for SIMT_CELL bytes; the fast build has none */
    bool hidden;             /* ASan keeps the host from it */
    struct simt_buffer *next;
};
enum simt_place simt_place_of(const void *p, size_t bytes, struct simt_buffer **buffer);
/* The buffer that p is nearest to, for messages; NULL when it is near none. */
const struct simt_buffer *simt_nearest(const void *p);
struct simt_buffer *simt_buffers(void);
/* Of the device's memory, within buffers. What is defined moves along. */
void simt_move(void *to, const void *from, size_t bytes);
void simt_fill(void *p, int value, size_t bytes);
extern struct simt_buffer simt_dynamic; /* dynamic shared memory */
extern struct simt_buffer simt_static;  /* __shared__ variables: the program's own data */
void simt_memory_begin_launch(void);
void simt_memory_begin_block(void);
void simt_memory_end_launch(void);

/* ---- shadow.c ---- */
#define SIMT_CELL 4
struct simt_cell {
    uint32_t entries;  /* accesses to remember: the first, 0 for none */
    uint8_t defined;   /* a bit a byte */
    uint8_t in_flight; /* a bit a byte: a copy is on its way */
    uint8_t counted;   /* by stats.c in this launch */
};
size_t simt_cells(size_t bytes);
void simt_shadow_begin_launch(void);
void simt_shadow_begin_block(void);
void simt_shadow_define(struct simt_buffer *b, size_t at, size_t bytes, bool defined);
bool simt_shadow_defined(const struct simt_buffer *b, size_t at, size_t bytes, size_t *where);
void simt_shadow_in_flight(void *p, size_t bytes, bool in_flight);
/* These threads have met: what each did before, all of them see now. */
void simt_shadow_meet_block(void);
void simt_shadow_meet_warp(unsigned warp, uint32_t mask);
/* Thread t comes to a barrier: what it does from now on is in the epoch that is returned. */
uint32_t simt_shadow_arrive(unsigned t);
/* Those flagged in `takes` go on; thread v came in epoch since[v], or not at all (0). */
void simt_shadow_meet_some(const uint8_t *takes, const uint32_t *since);

/* ---- async.c ---- */
void simt_copies_reset(struct simt_thread *t);
void simt_copies_check_exit(struct simt_thread *t);

/* ---- stream.c, runtime.c: cuda_api.h ---- */
int simt_stream_launch(struct simt_stream *s, const struct simt_work *w); /* an error of CUDA's */
/* Calls run with a copy of the argument, in its turn; a graph takes it like a launch. */
int simt_stream_run(struct simt_stream *s, void (*run)(const void *), const void *argument,
                    size_t bytes);
/* Work of a stream that other processes take part in. */
struct simt_call {
    bool (*advance)(void *argument); /* whether it is done; else it is called again */
    void *(*copy)(const void *argument);
    void (*free)(void *argument);
};
/* In its turn, until it is done; takes the argument. */
int simt_stream_call(struct simt_stream *s, const struct simt_call *call, void *argument);
bool simt_stream_refuses(void); /* a stream records, and this can't be */
bool simt_on_device(const void *p, size_t bytes);
bool simt_pinned(const void *p, size_t bytes);
enum cudaError simt_runtime_result(enum cudaError e); /* of a call: notes it */
void simt_runtime_fail(void);                         /* a kernel did: for good */
bool simt_runtime_failed(void);

/* ---- stats.c ---- */
void simt_stats_begin(void);
void simt_stats_access(const void *p, size_t bytes, bool store, bool shared, const void *pc);
void simt_stats_flush(void);
/* Cell i of a buffer is accessed: counts its sector if that is the first access to it. */
void simt_stats_sector_of(struct simt_buffer *b, size_t cell);

/* ---- fault.c ---- */
void simt_fault_clear(void);
bool simt_faulted(void);
/* Says it and, in a kernel, never returns. */
void simt_fault_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void simt_fault_note(const char *format, ...) __attribute__((format(printf, 1, 2)));
void simt_fault_end(void);
const char *simt_where(const void *pc, char *text, size_t bytes);
const char *simt_thread_list(const uint8_t *flags, unsigned n, char *text, size_t bytes);

#endif
