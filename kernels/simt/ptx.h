/* ptx.h: the instructions that CUDA has no name for, one thin function each, and beside it what the
 * emulator does for it. Lane layouts are the PTX ISA's (sections "mma.m16n8k32", "mma.m16n8k16",
 * "ldmatrix"). */
#ifndef ARGOSY_KERNELS_SIMT_PTX_H
#define ARGOSY_KERNELS_SIMT_PTX_H

#include "kernels/simt/cuda.h"

#ifdef __CUDACC__
#define PTX static __device__ __forceinline__
#define PTX_AT
__device__ __forceinline__ static uint32_t ptx_shared_address(const void *p)
{
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
#else
#define PTX static inline
#define PTX_AT , SIMT_AT
#endif

/* ---- named barriers: of `threads`, a multiple of 32; 1 to 15, 0 being __syncthreads ---------- */

/* Waits until `threads` have come, those that only arrive included. */
PTX void ptx_bar_sync(unsigned id, unsigned threads PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
    simt_barrier(SIMT_BARRIER, id, threads, 0, SIMT_HERE);
#endif
}

/* Comes without waiting: what was written before is seen by those that wait. */
PTX void ptx_bar_arrive(unsigned id, unsigned threads PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#else
    simt_barrier_arrive(id, threads, SIMT_HERE);
#endif
}

/* Keeps v in a register: the compiler may not compute it anew where it is used. */
PTX void ptx_keep(int &v)
{
#ifdef __CUDACC__
    asm volatile("" : "+r"(v));
#else
    (void)v;
#endif
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

/* 2^x within 2^-22 of it; what is below 2^-126 is 0. Here exp2f's bits: no device's. */
PTX float ptx_exp2(float x)
{
#ifdef __CUDACC__
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return x < -126.0f ? 0.0f : exp2f(x);
#endif
}

/* 1 / x within 2^-23 of it; subnormal x are 0. Here to nearest. */
PTX float ptx_reciprocal(float x)
{
#ifdef __CUDACC__
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#else
    return 1.0f / x;
#endif
}

/* Two floats as fp16, to nearest even: `low` in the low half. */
PTX uint32_t ptx_pack_f16(float low, float high)
{
#ifdef __CUDACC__
    uint32_t both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return kn_f32_to_f16(low) | static_cast<uint32_t>(kn_f32_to_f16(high)) << 16;
#endif
}

/* ---- loads and stores of global memory ------------------------------------------------------- */

/* 16 bytes that nobody writes during the launch, not kept in L1. p: a multiple of 16. */
PTX uint4 ptx_load_stream(const void *p)
{
#ifdef __CUDACC__
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p));
    return v;
#else
    return __ldg(static_cast<const uint4 *>(p));
#endif
}

/* 16 bytes of shared memory at once. p: a multiple of 16. */
#ifdef __CUDACC__
PTX uint4 ptx_load_shared16(const void *p)
{
    return *static_cast<const uint4 *>(p);
}
PTX void ptx_store_shared16(void *p, uint4 v)
{
    *static_cast<uint4 *>(p) = v;
}
#else
__attribute__((noinline, no_sanitize("thread"))) static inline uint4
ptx_load_shared16(const void *p)
{
    simt_touch(p, sizeof(uint4), SIMT_READ, __builtin_return_address(0));
    return *static_cast<const uint4 *>(p);
}
__attribute__((noinline, no_sanitize("thread"))) static inline void ptx_store_shared16(void *p,
                                                                                       uint4 v)
{
    simt_touch(p, sizeof v, SIMT_WRITE, __builtin_return_address(0));
    *static_cast<uint4 *>(p) = v;
}
#endif

/* ---- cp.async: global to shared memory, behind the thread's back ----------------------------- */

/* 16 bytes; both addresses are multiples of 16. Read them after ptx_cp_async_wait and, where
 * another thread copied, a barrier. */
PTX void ptx_cp_async16(void *shared, const void *global PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(ptx_shared_address(shared)),
                 "l"(global)
                 : "memory");
#else
    simt_cp_async(shared, global, 16, 0, SIMT_HERE);
#endif
}

/* The same, the last `zeros` bytes being 0 and not read. */
PTX void ptx_cp_async16_zfill(void *shared, const void *global, unsigned zeros PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(ptx_shared_address(shared)),
                 "l"(global), "r"(16 - zeros)
                 : "memory");
#else
    simt_cp_async(shared, global, 16, zeros, SIMT_HERE);
#endif
}

/* 8 bytes. */
PTX void ptx_cp_async8(void *shared, const void *global PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(ptx_shared_address(shared)),
                 "l"(global)
                 : "memory");
#else
    simt_cp_async(shared, global, 8, 0, SIMT_HERE);
#endif
}

/* 4 bytes. */
PTX void ptx_cp_async4(void *shared, const void *global PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(ptx_shared_address(shared)),
                 "l"(global)
                 : "memory");
#else
    simt_cp_async(shared, global, 4, 0, SIMT_HERE);
#endif
}

/* What the thread copied since the last commit is a group. */
PTX void ptx_cp_async_commit()
{
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    simt_cp_async_commit();
#endif
}

/* Waits for all groups of this thread but the last `left`. */
template <unsigned left> PTX void ptx_cp_async_wait()
{
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
#else
    simt_cp_async_wait(left);
#endif
}

/* ---- tensor cores ---------------------------------------------------------------------------- */

#ifndef __CUDACC__
static __forceinline__ void simt_ldmatrix(uint32_t *out, const void *row, unsigned n, bool turned,
                                          simt_at at)
{
    simt_lane lane = {};
    lane.in[0] = reinterpret_cast<uintptr_t>(row);
    lane.in[1] = n;
    lane.in[2] = turned;
    simt_touch_lanes(row, 16, 8 * n);
    simt_collective(SIMT_LDMATRIX, ~0u, &lane, at);
    for (unsigned i = 0; i < n; i++) {
        out[i] = static_cast<uint32_t>(lane.out[i]);
    }
}
#endif

/* Four 8 x 8 matrices of two bytes an element. Lane 8 m + i names row i of matrix m: 16 bytes at a
 * multiple of 16. out[m] of lane l: elements (l / 4, 2 (l % 4)) and, in the high half, the next of
 * the row. Read as bytes: row l / 4, bytes 4 (l % 4) to 4 (l % 4) + 3. A whole warp. */
PTX void ptx_ldmatrix_x4(uint32_t out[4], const void *row PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(ptx_shared_address(row))
                 : "memory");
#else
    simt_ldmatrix(out, row, 4, false, SIMT_HERE);
#endif
}

/* The same, each matrix turned: out[m] of lane l has elements (2 (l % 4), l / 4) and, high, the one
 * below it. */
PTX void ptx_ldmatrix_x4_trans(uint32_t out[4], const void *row PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(ptx_shared_address(row))
                 : "memory");
#else
    simt_ldmatrix(out, row, 4, true, SIMT_HERE);
#endif
}

/* Two matrices, of lanes 0 to 15. */
PTX void ptx_ldmatrix_x2(uint32_t out[2], const void *row PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(ptx_shared_address(row))
                 : "memory");
#else
    simt_ldmatrix(out, row, 2, false, SIMT_HERE);
#endif
}

/* Two, turned. */
PTX void ptx_ldmatrix_x2_trans(uint32_t out[2], const void *row PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(ptx_shared_address(row))
                 : "memory");
#else
    simt_ldmatrix(out, row, 2, true, SIMT_HERE);
#endif
}

/* C (16, 8) += A (16, 32) B (32, 8), bytes and int32: exact, wrapping. g = lane / 4, t = lane % 4:
 *   a[0] A[g][4t…4t+3]       a[1] A[g+8][4t…]    a[2] A[g][16+4t…]   a[3] A[g+8][16+4t…]
 *   b[0] B[4t…4t+3][g]       b[1] B[16+4t…][g]
 *   c[0], c[1] C[g][2t], C[g][2t+1]              c[2], c[3] C[g+8][2t], C[g+8][2t+1]
 * A whole warp. */
PTX void ptx_mma_s8(int c[4], const uint32_t a[4], const uint32_t b[2] PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
                 "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    simt_lane lane = {};
    for (int i = 0; i < 4; i++) {
        lane.in[i] = a[i];
        lane.in[6 + i] = static_cast<uint32_t>(c[i]);
    }
    lane.in[4] = b[0];
    lane.in[5] = b[1];
    simt_collective(SIMT_MMA_S8, ~0u, &lane, SIMT_HERE);
    for (int i = 0; i < 4; i++) {
        c[i] = static_cast<int>(lane.out[i]);
    }
#endif
}

/* C (16, 8) += A (16, 16) B (16, 8): a[0], a[1] and b are the first halves of those above. */
PTX void ptx_mma_s8_k16(int c[4], const uint32_t a[2], uint32_t b PTX_AT)
{
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, "
                 "{%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
#else
    const uint32_t a32[4] = {a[0], a[1], 0, 0}, b32[2] = {b, 0};
    ptx_mma_s8(c, a32, b32, file, line);
#endif
}

#ifndef __CUDACC__
static __forceinline__ void simt_mma(simt_op op, float c[4], const uint32_t a[4],
                                     const uint32_t b[2], simt_at at)
{
    simt_lane lane = {};
    for (int i = 0; i < 4; i++) {
        lane.in[i] = a[i];
        lane.in[6 + i] = __float_as_uint(c[i]);
    }
    lane.in[4] = b[0];
    lane.in[5] = b[1];
    simt_collective(op, ~0u, &lane, at);
    for (int i = 0; i < 4; i++) {
        c[i] = __uint_as_float(static_cast<uint32_t>(lane.out[i]));
    }
}
#define PTX_MMA(op, shape_and_types) simt_mma(op, c, a, b, SIMT_HERE)
#else
#define PTX_MMA(op, shape_and_types)                                                         \
    asm volatile("mma.sync.aligned." shape_and_types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, " \
                 "{%8, %9}, {%0, %1, %2, %3};"                                               \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                            \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#endif

/* C (16, 8) += A (16, 16) B (16, 8), fp16 and fp32. The sums are the hardware's: not fp32's of any
 * order, and not the same on all devices (mma.c). The low half of a register is the first element:
 *   a[0] A[g][2t…2t+1]       a[1] A[g+8][2t…]    a[2] A[g][8+2t…]    a[3] A[g+8][8+2t…]
 *   b[0] B[2t…2t+1][g]       b[1] B[8+2t…][g]    c as above
 * A whole warp. */
PTX void ptx_mma_f16(float c[4], const uint32_t a[4], const uint32_t b[2] PTX_AT)
{
    PTX_MMA(SIMT_MMA_F16, "m16n8k16.row.col.f32.f16.f16.f32");
}

/* The same of bf16. */
PTX void ptx_mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2] PTX_AT)
{
    PTX_MMA(SIMT_MMA_BF16, "m16n8k16.row.col.f32.bf16.bf16.f32");
}

/* C (16, 8) += A (16, 32) B (32, 8), fp8 and fp32: a and b are laid out as those of ptx_mma_s8.
 * From sm_89 on; sm_90 has no such instruction, and gets fp16's. */
PTX void ptx_mma_e4m3(float c[4], const uint32_t a[4], const uint32_t b[2] PTX_AT)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
    (void)c, (void)a, (void)b;
    __trap();
#else
    PTX_MMA(SIMT_MMA_E4M3, "m16n8k32.row.col.f32.e4m3.e4m3.f32");
#endif
}

PTX void ptx_mma_e5m2(float c[4], const uint32_t a[4], const uint32_t b[2] PTX_AT)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
    (void)c, (void)a, (void)b;
    __trap();
#else
    PTX_MMA(SIMT_MMA_E5M2, "m16n8k32.row.col.f32.e5m2.e5m2.f32");
#endif
}

#endif
