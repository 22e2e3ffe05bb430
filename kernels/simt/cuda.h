/* cuda.h: what a kernel's .cu includes instead of CUDA's headers. Under nvcc it is CUDA; under the
 * host's C++ compiler it is the emulator, with the same names. README.md lists what is served;
 * what is not, does not compile. */
#ifndef ARGOSY_KERNELS_SIMT_CUDA_H
#define ARGOSY_KERNELS_SIMT_CUDA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

/* Dynamic shared memory, as bytes. One name a file. */
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) uint8_t name[]

/* In front of a loop whose index must be constant, so that arrays stay in registers, and which the
 * compiler would call too long. */
#define UNROLL _Pragma("unroll")

/* More dynamic shared memory than this a kernel must ask for. */
#define SHARED_UNASKED 49152

/* Runs kernel<<<grid, block, shared, stream>>>(args…). 0 or an error of CUDA's; neither waits. */
template <typename... P, typename... A>
static int launch(const char *, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                  cudaStream_t stream, A... args)
{
    if (shared > SHARED_UNASKED) {
        const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                       cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                       static_cast<int>(shared));
        if (error != cudaSuccess) {
            return static_cast<int>(error);
        }
    }
    kernel<<<grid, block, shared, stream>>>(static_cast<P>(args)...);
    return static_cast<int>(cudaGetLastError());
}

#else

#include <math.h>
#include <string.h>

#if defined(SIMT_FAST)
#include <immintrin.h>
#endif

#include "kernels/numerics.h"
#include "kernels/simt/device.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
/* One block runs at a time, so that a static variable is the block's. */
#define __shared__ static __attribute__((section("simt_variables")))
#define DYNAMIC_SHARED(name) uint8_t *const name = static_cast<uint8_t *>(simt_shared())
#define UNROLL

typedef struct simt_stream *cudaStream_t;

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

#define threadIdx (simt_thread_index())
#define blockIdx (simt_block_index())
#define blockDim (simt_block_size())
#define gridDim (simt_grid_size())
#define warpSize 32

/* ---- launch ---------------------------------------------------------------------------------- */

template <typename F> static void simt_call(const void *f)
{
    (*static_cast<const F *>(f))();
}

template <typename... P, typename... A>
static int launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                  cudaStream_t stream, A... args)
{
    auto call = [=] { kernel(static_cast<P>(args)...); };
    return simt_launch(stream, name, simt_dim{grid.x, grid.y, grid.z},
                       simt_dim{block.x, block.y, block.z}, shared, simt_call<decltype(call)>,
                       &call, sizeof call);
}

/* ---- vectors --------------------------------------------------------------------------------- */

#define SIMT_VECTOR(type, name, bytes2, bytes4)                          \
    struct __align__(bytes2) name##2                                     \
    {                                                                    \
        type x, y;                                                       \
    };                                                                   \
    struct __align__(bytes4) name##4                                     \
    {                                                                    \
        type x, y, z, w;                                                 \
    };                                                                   \
    static inline name##2 make_##name##2(type x, type y)                 \
    {                                                                    \
        return name##2 {x, y};                                           \
    }                                                                    \
    static inline name##4 make_##name##4(type x, type y, type z, type w) \
    {                                                                    \
        return name##4 {x, y, z, w};                                     \
    }
SIMT_VECTOR(float, float, 8, 16)
SIMT_VECTOR(int, int, 8, 16)
SIMT_VECTOR(unsigned, uint, 8, 16)
SIMT_VECTOR(signed char, char, 2, 4)
SIMT_VECTOR(unsigned char, uchar, 2, 4)
SIMT_VECTOR(short, short, 4, 8)
SIMT_VECTOR(unsigned short, ushort, 4, 8)

/* ---- where a thread waits -------------------------------------------------------------------- */

/* Parameters that a caller leaves out, so that they are its own place. */
#define SIMT_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SIMT_HERE (simt_here(file, line))
static inline simt_at simt_here(const char *file, int line)
{
    return simt_at{file, line};
}

static inline void __syncthreads(SIMT_AT)
{
    simt_barrier(SIMT_BARRIER, 0, 0, 0, SIMT_HERE);
}
static inline int __syncthreads_count(int p, SIMT_AT)
{
    return simt_barrier(SIMT_BARRIER_COUNT, 0, 0, p, SIMT_HERE);
}
static inline int __syncthreads_and(int p, SIMT_AT)
{
    return simt_barrier(SIMT_BARRIER_AND, 0, 0, p, SIMT_HERE);
}
static inline int __syncthreads_or(int p, SIMT_AT)
{
    return simt_barrier(SIMT_BARRIER_OR, 0, 0, p, SIMT_HERE);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_AT)
{
    simt_lane lane = {};
    simt_collective(SIMT_SYNCWARP, mask, &lane, SIMT_HERE);
}

/* Orders nothing here: threads that need order need a barrier, and blocks have none. */
static inline void __threadfence()
{
}
static inline void __threadfence_block()
{
}

/* Which lanes happen to run together is nothing to build on. */
__attribute__((
    error("__activemask is not served: pass the mask of the lanes that you mean"))) unsigned
__activemask();

/* ---- warp ------------------------------------------------------------------------------------ */

template <typename T>
static inline T simt_shuffle(simt_op op, unsigned mask, T v, int by, int width, simt_at at)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    simt_lane lane; /* filled in as far as it is looked at */
    lane.in[0] = 0;
    memcpy(&lane.in[0], &v, sizeof v);
    lane.in[1] = static_cast<uint32_t>(by);
    lane.in[2] = static_cast<uint64_t>(width);
    simt_collective(op, mask, &lane, at);
    memcpy(&v, &lane.out[0], sizeof v);
    return v;
}
template <typename T>
static inline T __shfl_sync(unsigned mask, T v, int from, int width = 32, SIMT_AT)
{
    return simt_shuffle(SIMT_SHFL_IDX, mask, v, from, width, SIMT_HERE);
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, SIMT_AT)
{
    return simt_shuffle(SIMT_SHFL_UP, mask, v, static_cast<int>(by), width, SIMT_HERE);
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, SIMT_AT)
{
    return simt_shuffle(SIMT_SHFL_DOWN, mask, v, static_cast<int>(by), width, SIMT_HERE);
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32, SIMT_AT)
{
    return simt_shuffle(SIMT_SHFL_XOR, mask, v, by, width, SIMT_HERE);
}

static inline unsigned simt_vote(simt_op op, unsigned mask, uint64_t v, simt_at at)
{
    simt_lane lane;
    lane.in[0] = v;
    simt_collective(op, mask, &lane, at);
    return static_cast<unsigned>(lane.out[0]);
}
static inline unsigned __ballot_sync(unsigned mask, int p, SIMT_AT)
{
    return simt_vote(SIMT_BALLOT, mask, p != 0, SIMT_HERE);
}
static inline int __any_sync(unsigned mask, int p, SIMT_AT)
{
    return static_cast<int>(simt_vote(SIMT_ANY, mask, p != 0, SIMT_HERE));
}
static inline int __all_sync(unsigned mask, int p, SIMT_AT)
{
    return static_cast<int>(simt_vote(SIMT_ALL, mask, p != 0, SIMT_HERE));
}
template <typename T> static inline unsigned __match_any_sync(unsigned mask, T v, SIMT_AT)
{
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    return simt_vote(SIMT_MATCH_ANY, mask, bits, SIMT_HERE);
}
template <typename T> static inline unsigned __match_all_sync(unsigned mask, T v, int *all, SIMT_AT)
{
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    unsigned same = simt_vote(SIMT_MATCH_ALL, mask, bits, SIMT_HERE);
    *all = same != 0;
    return same;
}
static inline int __reduce_add_sync(unsigned mask, int v, SIMT_AT)
{
    return static_cast<int>(simt_vote(SIMT_REDUCE_ADD, mask, static_cast<unsigned>(v), SIMT_HERE));
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned v, SIMT_AT)
{
    return simt_vote(SIMT_REDUCE_ADD, mask, v, SIMT_HERE);
}
static inline int __reduce_min_sync(unsigned mask, int v, SIMT_AT)
{
    return static_cast<int>(simt_vote(SIMT_REDUCE_MIN, mask, static_cast<unsigned>(v), SIMT_HERE));
}
static inline int __reduce_max_sync(unsigned mask, int v, SIMT_AT)
{
    return static_cast<int>(simt_vote(SIMT_REDUCE_MAX, mask, static_cast<unsigned>(v), SIMT_HERE));
}
static inline unsigned __reduce_max_sync(unsigned mask, unsigned v, SIMT_AT)
{
    return simt_vote(SIMT_REDUCE_UMAX, mask, v, SIMT_HERE);
}

/* ---- atomics --------------------------------------------------------------------------------- */

/* One step of the thread: nothing comes between. The old value is returned. */
#define SIMT_ATOMIC_OP(name, expression)                                                        \
    template <typename T>                                                                       \
    __attribute__((noinline, no_sanitize("thread"))) static T name(T *p, decltype(T() + T()) v) \
    {                                                                                           \
        simt_touch(p, sizeof *p, SIMT_ATOMIC, __builtin_return_address(0));                     \
        T old = *p;                                                                             \
        *p = static_cast<T>(expression);                                                        \
        return old;                                                                             \
    }
SIMT_ATOMIC_OP(atomicAdd, old + v)
SIMT_ATOMIC_OP(atomicSub, old - v)
SIMT_ATOMIC_OP(atomicExch, v)
SIMT_ATOMIC_OP(atomicMin, v < old ? v : old)
SIMT_ATOMIC_OP(atomicMax, v > old ? v : old)
SIMT_ATOMIC_OP(atomicAnd, old &v)
SIMT_ATOMIC_OP(atomicOr, old | v)
SIMT_ATOMIC_OP(atomicXor, old ^ v)
template <typename T>
__attribute__((noinline, no_sanitize("thread"))) static T atomicCAS(T *p, T compare, T v)
{
    simt_touch(p, sizeof *p, SIMT_ATOMIC, __builtin_return_address(0));
    T old = *p;
    *p = old == compare ? v : old;
    return old;
}

/* ---- arithmetic: each exact, or rounded once ------------------------------------------------- */

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline float __int2float_rn(int v)
{
    return static_cast<float>(v);
}
static inline int __float2int_rn(float v) /* NaN gives 0, and what is too large the nearest */
{
    return v != v          ? 0
           : v >= 0x1p31f  ? INT32_MAX
           : v <= -0x1p31f ? INT32_MIN
                           : static_cast<int>(lrintf(v));
}
static inline uint32_t __float_as_uint(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    return u;
}
static inline int __float_as_int(float v)
{
    return static_cast<int>(__float_as_uint(v));
}
static inline float __uint_as_float(uint32_t u)
{
    float v;
    memcpy(&v, &u, sizeof v);
    return v;
}
static inline float __int_as_float(int i)
{
    return __uint_as_float(static_cast<uint32_t>(i));
}
static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}
static inline int __clz(int v)
{
    return v == 0 ? 32 : __builtin_clz(static_cast<unsigned>(v));
}
static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}
/* Byte i of the result is byte (selector >> 4i) & 7 of b:a. (The sign mode is not served.) */
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector)
{
    uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    unsigned out = 0;
    for (unsigned i = 0; i < 4; i++) {
        out |= static_cast<unsigned>(both >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
    }
    return out;
}
/* c + the dot product of four signed bytes, wrapping. */
static inline int __dp4a(int a, int b, int c)
{
#if defined(SIMT_FAST)
    const __m128i p = _mm_madd_epi16(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(a)),
                                     _mm_cvtepi8_epi16(_mm_cvtsi32_si128(b)));
    return static_cast<int>(static_cast<unsigned>(c) +
                            static_cast<unsigned>(_mm_extract_epi32(p, 0)) +
                            static_cast<unsigned>(_mm_extract_epi32(p, 1)));
#endif
    unsigned sum = static_cast<unsigned>(c);
    for (int i = 0; i < 4; i++) {
        sum += static_cast<unsigned>(static_cast<int8_t>(a >> (8 * i)) *
                                     static_cast<int8_t>(b >> (8 * i)));
    }
    return static_cast<int>(sum);
}
template <typename T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

/* One access of sizeof(T) bytes, as on the device, whatever the host makes of it. */
#if defined(SIMT_FAST)
template <typename T> static inline T __ldg(const T *p)
{
    return *p;
}
#else
template <typename T> __attribute__((noinline, no_sanitize("thread"))) static T __ldg(const T *p)
{
    simt_touch(p, sizeof *p, SIMT_READ, __builtin_return_address(0));
    return *p;
}
#endif

/* ---- half, bfloat16, fp8 --------------------------------------------------------------------- */

struct __half {
    uint16_t bits;
};
struct __nv_bfloat16 {
    uint16_t bits;
};
static inline __half __ushort_as_half(uint16_t h)
{
    return __half{h};
}
static inline uint16_t __half_as_ushort(__half h)
{
    return h.bits;
}
static inline float __half2float(__half h)
{
    return kn_f16_to_f32(h.bits);
}
static inline __half __float2half_rn(float x)
{
    return __half{kn_f32_to_f16(x)};
}
static inline __nv_bfloat16 __ushort_as_bfloat16(uint16_t h)
{
    return __nv_bfloat16{h};
}
static inline uint16_t __bfloat16_as_ushort(__nv_bfloat16 h)
{
    return h.bits;
}
static inline float __bfloat162float(__nv_bfloat16 h)
{
    return __uint_as_float(static_cast<uint32_t>(h.bits) << 16);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
    return __nv_bfloat16{simt_float_to_bfloat16(x)};
}

typedef uint8_t __nv_fp8_storage_t;
typedef uint16_t __nv_fp8x2_storage_t;
enum __nv_saturation_t {
    __NV_NOSAT,
    __NV_SATFINITE,
};
enum __nv_fp8_interpretation_t {
    __NV_E4M3,
    __NV_E5M2,
};
static inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float x, __nv_saturation_t saturation,
                                                       __nv_fp8_interpretation_t type)
{
    return simt_float_to_fp8(x, saturation == __NV_SATFINITE, type == __NV_E5M2);
}
/* x.x in the low byte. */
static inline __nv_fp8x2_storage_t __nv_cvt_float2_to_fp8x2(float2 x, __nv_saturation_t saturation,
                                                            __nv_fp8_interpretation_t type)
{
    return static_cast<__nv_fp8x2_storage_t>(__nv_cvt_float_to_fp8(x.x, saturation, type) |
                                             __nv_cvt_float_to_fp8(x.y, saturation, type) << 8);
}

#endif
#endif
