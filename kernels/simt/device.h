/* device.h: what cuda.h and ptx.h call on the host. Kernels include cuda.h, not this. */
#ifndef ARGOSY_KERNELS_SIMT_DEVICE_H
#define ARGOSY_KERNELS_SIMT_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct simt_dim {
    unsigned x, y, z;
};

/* Where in the source a thread waits: filled in by default arguments. */
struct simt_at {
    const char *file;
    int line;
};

/* Runs body(argument) once a thread. The argument holds the kernel's parameters: readable by all,
 * `bytes` long. Without a stream now: 0, or -1 and simt_fault(). With one when its turn comes
 * (cuda_api.h): 0, or an error of CUDA's. */
struct simt_stream;
int simt_launch(struct simt_stream *stream, const char *kernel, struct simt_dim grid,
                struct simt_dim block, size_t shared, void (*body)(const void *argument),
                const void *argument, size_t bytes);

struct simt_dim simt_thread_index(void) __attribute__((const));
struct simt_dim simt_block_index(void) __attribute__((const));
struct simt_dim simt_block_size(void) __attribute__((const));
struct simt_dim simt_grid_size(void) __attribute__((const));
void *simt_shared(void); /* dynamic shared memory of this block */

enum simt_op {
    SIMT_SYNCWARP,
    SIMT_SHFL_IDX,
    SIMT_SHFL_UP,
    SIMT_SHFL_DOWN,
    SIMT_SHFL_XOR,
    SIMT_BALLOT,
    SIMT_ANY,
    SIMT_ALL,
    SIMT_MATCH_ANY,
    SIMT_MATCH_ALL,
    SIMT_REDUCE_ADD,
    SIMT_REDUCE_MIN,
    SIMT_REDUCE_MAX,
    SIMT_REDUCE_UMAX,
    SIMT_LDMATRIX,
    SIMT_MMA_S8,
    SIMT_MMA_F16,
    SIMT_MMA_BF16,
    SIMT_MMA_E4M3,
    SIMT_MMA_E5M2,
    SIMT_BARRIER, /* of the block, from here on */
    SIMT_BARRIER_COUNT,
    SIMT_BARRIER_AND,
    SIMT_BARRIER_OR,
    SIMT_OP_COUNT
};

/* What a lane brings to a collective and takes away. */
struct simt_lane {
    uint64_t in[10];
    uint64_t out[4];
};
void simt_collective(enum simt_op op, uint32_t mask, struct simt_lane *lane, struct simt_at at);
/* Barrier `id` of the block, for `threads` of it (0: all). Returns what op counts. */
int simt_barrier(enum simt_op op, unsigned id, unsigned threads, int predicate, struct simt_at at);
void simt_barrier_arrive(unsigned id, unsigned threads, struct simt_at at);

enum simt_access {
    SIMT_READ,
    SIMT_WRITE,
    SIMT_ATOMIC,
};
/* An access of the thread to memory; pc: the caller's address. */
void simt_touch(const void *p, size_t bytes, enum simt_access access, const void *pc);

/* A read of the caller, if it is one of the first `lanes` of its warp. */
void simt_touch_lanes(const void *p, size_t bytes, unsigned lanes);

void simt_cp_async(void *shared, const void *global, unsigned bytes, unsigned zeros,
                   struct simt_at at);
void simt_cp_async_commit(void);
void simt_cp_async_wait(unsigned left);

void simt_trap(const char *what, struct simt_at at) __attribute__((noreturn));

uint16_t simt_float_to_bfloat16(float x);
uint8_t simt_float_to_fp8(float x, bool saturates, bool e5m2);

#ifdef __cplusplus
}
#endif

#endif
