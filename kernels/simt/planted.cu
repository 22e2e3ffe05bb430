/* planted.cu: see planted.h. Each kernel is compiled twice: <true> has the bug. All are launched
 * with 64 threads, two warps, unless they say otherwise. */
#include "kernels/simt/planted.h"

#include "kernels/simt/cuda.h"
#include "kernels/simt/ptx.h"

#define N 64
#define FULL 0xffffffffu

/* ---- barriers of the block ---------------------------------------------------------------------
 */

template <bool BUG> __global__ void missing_syncthreads(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    if (!BUG) {
        __syncthreads();
    }
    out[t] = s[N - 1 - t];
}

template <bool BUG> __global__ void two_barriers_in_branches(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    if (BUG && t < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[t] = s[N - 1 - t];
}

template <bool BUG> __global__ void barrier_in_one_branch(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    if (!BUG || t < 32) {
        __syncthreads();
    }
    out[t] = s[t];
}

template <bool BUG> __global__ void return_before_barrier(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x, n = 50;
    if (BUG && t >= n) {
        return;
    }
    s[t] = t < n ? in[t] : 0;
    __syncthreads();
    if (t < n) {
        out[t] = s[n - 1 - t];
    }
}

template <bool BUG> __global__ void barrier_in_uneven_loop(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x, turns = BUG ? 1 + t / 32 : 2;
    for (unsigned i = 0; i < turns; i++) {
        s[t] = in[t + i];
        __syncthreads();
    }
    out[t] = s[t];
}

template <bool BUG> __global__ void no_barrier_before_reuse(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    int sum = 0;
    for (unsigned i = 0; i < 3; i++) {
        s[t] = in[t + i];
        __syncthreads();
        sum += s[(t + 32) % N];
        if (!BUG) {
            __syncthreads();
        }
    }
    out[t] = sum;
}

template <bool BUG> __global__ void reduction_without_barriers(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    __syncthreads();
    for (unsigned w = N / 2; w > 0; w /= 2) {
        if (t < w) {
            s[t] += s[t + w];
        }
        if (!BUG) {
            __syncthreads();
        }
    }
    if (t == 0) {
        out[0] = s[0];
    }
}

template <bool BUG> __global__ void barrier_against_syncwarp(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    if (BUG && t == 5) {
        __syncwarp();
    }
    __syncthreads();
    out[t] = s[N - 1 - t];
}

/* ---- warps
 * --------------------------------------------------------------------------------------- */

template <bool BUG> __global__ void mask_without_self(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    out[t] = __shfl_xor_sync(BUG ? 0x0000ffffu : FULL, in[t], 1);
}

template <bool BUG> __global__ void shuffle_in_a_branch(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    int v = in[t];
    if (t % 32 < 16) {
        v = __shfl_xor_sync(BUG ? FULL : 0x0000ffffu, v, 1);
    }
    out[t] = v;
}

template <bool BUG> __global__ void shuffle_from_outside_mask(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    int v = in[t];
    if (t % 32 < 16) {
        v += __shfl_down_sync(0x0000ffffu, v, 8, BUG ? 32 : 16);
    }
    out[t] = v;
}

template <bool BUG> __global__ void different_collectives(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    int v = in[t];
    if (BUG && t % 2 == 0) {
        v = __any_sync(FULL, v);
    } else {
        v = __all_sync(FULL, v);
    }
    out[t] = v;
}

template <bool BUG> __global__ void exited_lane_in_mask(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    if (t % 32 == 31) {
        return;
    }
    unsigned votes = __ballot_sync(BUG ? FULL : 0x7fffffffu, in[t] > 100);
    out[t] = static_cast<int>(votes);
}

template <bool BUG> __global__ void warp_synchronous(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    if (!BUG) {
        __syncwarp();
    }
    out[t] = s[t ^ 1];
}

template <bool BUG> __global__ void shuffle_as_barrier(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    int v = __shfl_xor_sync(FULL, in[t], 1); /* orders no memory */
    if (!BUG) {
        __syncwarp();
    }
    out[t] = v + s[t ^ 1];
}

/* The shuffle has all lanes read before any writes, in every order: only what is remembered of
 * reads shows the race, and of more readers than the last. */
template <bool BUG> __global__ void write_over_what_others_read(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    __syncthreads();
    int v = s[t ^ 1] + s[t];
    v = __shfl_xor_sync(FULL, v, 2);
    if (!BUG) {
        __syncwarp();
    }
    s[t] = v;
    __syncthreads();
    out[t] = s[t];
}

template <bool BUG> __global__ void syncwarp_of_too_few(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x, half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    s[t] = in[t];
    __syncwarp(half);
    out[t] = s[t ^ (BUG ? 16 : 8)];
}

template <bool BUG> __global__ void syncwarp_across_warps(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    if (BUG) {
        __syncwarp();
    } else {
        __syncthreads();
    }
    out[t] = s[t ^ 32];
}

template <bool BUG> __global__ void mma_in_a_branch(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    uint32_t a[4] = {1, 2, 3, 4}, b[2] = {static_cast<uint32_t>(in[t]), 6};
    int c[4] = {0, 0, 0, 0};
    if (!BUG || t % 32 < 31) {
        ptx_mma_s8(c, a, b);
    }
    out[t] = c[0] + c[3];
}

/* The lanes that have no row end, but the matrices are of the whole warp. */
template <bool BUG> __global__ void mma_of_half_a_warp(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x, rows = 48;
    uint32_t a[4] = {0x3c00, 0, 0, 0}, b[2] = {0x4000, 0};
    float c[4] = {0, 0, 0, 0};
    if (BUG && t >= rows) {
        return;
    }
    c[0] = t < rows ? static_cast<float>(in[t]) : 0.0f;
    ptx_mma_f16(c, a, b);
    if (t < rows) {
        out[t] = static_cast<int>(c[0]);
    }
}

/* Adds to sums that nobody set. */
template <bool BUG> __global__ void mma_of_no_accumulator(int *out, const int *in, int *scratch)
{
    unsigned t = threadIdx.x;
    uint32_t a[4] = {0x3f80, 0, 0, 0}, b[2] = {0x4000, 0};
    float c[4] = {0, 0, 0, 0};
    if (!BUG) {
        scratch[t] = in[t];
    }
    c[0] = static_cast<float>(scratch[t]);
    ptx_mma_bf16(c, a, b);
    out[t] = static_cast<int>(c[0]);
}

/* On the A100 that these are launched on. */
template <bool BUG> __global__ void mma_of_fp8_on_ampere(int *out, const int *, int *)
{
    uint32_t a[4] = {0x3838, 0, 0, 0}, b[2] = {0x3838, 0};
    float c[4] = {0, 0, 0, 0};
    if (BUG) {
        ptx_mma_e4m3(c, a, b);
    } else {
        ptx_mma_f16(c, a, b);
    }
    out[threadIdx.x] = static_cast<int>(c[0]);
}

/* ---- memory
 * -------------------------------------------------------------------------------------- */

template <bool BUG> __global__ void uninitialised_shared(int *out, const int *in, int *)
{
    DYNAMIC_SHARED(smem);
    int *s = reinterpret_cast<int *>(smem);
    unsigned t = threadIdx.x;
    if (t < 32) {
        s[t] = in[t];
    } else if (!BUG) {
        s[t] = 0;
    }
    __syncthreads();
    out[t] = s[N - 1 - t];
}

template <bool BUG> __global__ void uninitialised_global(int *out, const int *in, int *scratch)
{
    unsigned t = threadIdx.x;
    if (!BUG || t != 7) {
        scratch[t] = in[t];
    }
    out[t] = scratch[t];
}

template <bool BUG> __global__ void shared_off_by_one(int *out, const int *in, int *)
{
    DYNAMIC_SHARED(smem);
    int *s = reinterpret_cast<int *>(smem);
    unsigned t = threadIdx.x;
    s[t + (BUG ? 1 : 0)] = in[t];
    __syncthreads();
    out[t] = s[t == 0 ? 1 : t];
}

template <bool BUG> __global__ void global_off_by_one(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    out[t] = in[t + PLANTED_N - N + (BUG ? 1 : 0)];
}

template <bool BUG> __global__ void global_write_past_end(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    out[t + PLANTED_N - N + (BUG ? 1 : 0)] = in[t];
}

template <bool BUG> __global__ void misaligned_vector(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    if (t < 16) {
        uint4 v = ptx_load_stream(in + 4 * t + (BUG ? 1 : 0));
        out[t] = static_cast<int>(v.x ^ v.y ^ v.z ^ v.w);
    }
}

template <bool BUG> __global__ void add_without_atomic(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    if (BUG) {
        out[0] += in[t];
    } else {
        atomicAdd(&out[0], in[t]);
    }
}

template <bool BUG> __global__ void plain_read_of_an_atomic(int *out, const int *in, int *)
{
    __shared__ int sum;
    unsigned t = threadIdx.x;
    if (t == 0) {
        sum = 0;
    }
    __syncthreads();
    atomicAdd(&sum, in[t]);
    if (!BUG) {
        __syncthreads();
    }
    out[t] = sum;
}

/* Two blocks. */
template <bool BUG> __global__ void blocks_write_the_same(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x;
    out[t + (BUG ? 0 : blockIdx.x * blockDim.x)] = in[t] + static_cast<int>(blockIdx.x);
}

/* Two blocks, the one reading what the other wrote. */
template <bool BUG> __global__ void blocks_wait_for_nobody(int *out, const int *in, int *scratch)
{
    unsigned t = threadIdx.x, i = t + blockIdx.x * N;
    scratch[i] = in[i];
    __threadfence();
    out[i] = BUG ? scratch[i ^ N] : scratch[i];
}

template <bool BUG> __global__ void tail_not_written(int *, const int *in, int *scratch)
{
    for (unsigned i = threadIdx.x; i < PLANTED_N - (BUG ? 3 : 0); i += blockDim.x) {
        scratch[i] = in[i];
    }
}

/* ---- cp.async
 * ------------------------------------------------------------------------------------ */

template <bool BUG> __global__ void copy_not_waited_for(int *out, const int *in, int *)
{
    __shared__ __align__(16) int s[4 * N];
    unsigned t = threadIdx.x;
    ptx_cp_async16(&s[4 * t], &in[4 * t]);
    ptx_cp_async_commit();
    if (!BUG) {
        ptx_cp_async_wait<0>();
    }
    out[t] = s[4 * t];
    if (BUG) {
        ptx_cp_async_wait<0>();
    }
}

template <bool BUG> __global__ void copy_one_group_too_few(int *out, const int *in, int *)
{
    __shared__ __align__(16) int s[2][4 * N];
    unsigned t = threadIdx.x;
    for (int i = 0; i < 2; i++) {
        ptx_cp_async16(&s[i][4 * t], &in[4 * t]);
        ptx_cp_async_commit();
    }
    ptx_cp_async_wait<BUG ? 1 : 0>();
    out[t] = s[1][4 * t];
    ptx_cp_async_wait<0>();
}

template <bool BUG> __global__ void copy_without_barrier(int *out, const int *in, int *)
{
    __shared__ __align__(16) int s[4 * N];
    unsigned t = threadIdx.x;
    ptx_cp_async16(&s[4 * t], &in[4 * t]);
    ptx_cp_async_commit();
    ptx_cp_async_wait<0>();
    if (!BUG) {
        __syncthreads();
    }
    out[t] = s[4 * (t ^ 1)];
}

template <bool BUG> __global__ void copy_over_what_is_read(int *out, const int *in, int *)
{
    __shared__ __align__(16) int s[4 * N];
    unsigned t = threadIdx.x;
    int sum = 0;
    for (int i = 0; i < 2; i++) {
        ptx_cp_async16(&s[4 * t], &in[4 * t]);
        ptx_cp_async_commit();
        ptx_cp_async_wait<0>();
        __syncthreads();
        sum += s[4 * (t ^ 1)];
        if (!BUG) {
            __syncthreads();
        }
    }
    out[t] = sum;
}

template <bool BUG> __global__ void copy_never_waited_for(int *out, const int *in, int *)
{
    __shared__ __align__(16) int s[4 * N];
    unsigned t = threadIdx.x;
    ptx_cp_async16(&s[4 * t], &in[4 * t]);
    ptx_cp_async_commit();
    out[t] = in[t];
    if (!BUG) {
        ptx_cp_async_wait<0>();
    }
}

/* ---- ldmatrix, named barriers
 * -------------------------------------------------------------------- */

/* Rows of 16 bytes, 16 apart; the bug thinks 24. */
template <bool BUG> __global__ void ldmatrix_wrong_stride(int *out, const int *in, int *)
{
    DYNAMIC_SHARED(smem);
    int *s = reinterpret_cast<int *>(smem);
    unsigned t = threadIdx.x;
    uint32_t m[4];
    s[t] = in[t];
    s[t + N] = in[t + N];
    __syncthreads();
    ptx_ldmatrix_x4(m, smem + (t % 32) * (BUG ? 24 : 16));
    out[t] = static_cast<int>(m[0] ^ m[1] ^ m[2] ^ m[3]);
}

template <bool BUG> __global__ void ldmatrix_past_the_end(int *out, const int *in, int *)
{
    DYNAMIC_SHARED(smem);
    int *s = reinterpret_cast<int *>(smem);
    unsigned t = threadIdx.x;
    uint32_t m[4];
    s[t] = in[t];
    s[t + N] = in[t + N];
    __syncthreads();
    ptx_ldmatrix_x4(m, smem + (t % 32) * (BUG ? 32 : 16));
    out[t] = static_cast<int>(m[0] ^ m[1] ^ m[2] ^ m[3]);
}

/* A head of 56: the last eight columns are nobody's, and times 0 only if they are numbers. */
template <bool BUG> __global__ void ldmatrix_of_no_padding(int *out, const int *in, int *)
{
    DYNAMIC_SHARED(smem);
    int *s = reinterpret_cast<int *>(smem);
    unsigned t = threadIdx.x;
    uint32_t m[4];
    s[t] = in[t];
    if (t < N - 8 || !BUG) {
        s[t + N] = t < N - 8 ? in[t + N] : 0;
    }
    __syncthreads();
    ptx_ldmatrix_x4_trans(m, smem + (t % 32) * 16);
    out[t] = static_cast<int>(m[0] ^ m[1] ^ m[2] ^ m[3]);
}

template <bool BUG> __global__ void ldmatrix_before_barrier(int *out, const int *in, int *)
{
    DYNAMIC_SHARED(smem);
    int *s = reinterpret_cast<int *>(smem);
    unsigned t = threadIdx.x;
    uint32_t m[4];
    s[t] = in[t];
    s[t + N] = in[t + N];
    if (!BUG) {
        __syncthreads();
    }
    ptx_ldmatrix_x4(m, smem + (t % 32) * 16);
    out[t] = static_cast<int>(m[0] ^ m[1] ^ m[2] ^ m[3]);
}

/* The first warp produces, the second consumes. */
template <bool BUG> __global__ void producer_arrives_too_early(int *out, const int *in, int *)
{
    __shared__ int s[32];
    unsigned t = threadIdx.x;
    if (t < 32) {
        if (BUG) {
            ptx_bar_arrive(1, N);
        }
        s[t] = in[t];
        if (!BUG) {
            ptx_bar_arrive(1, N);
        }
    } else {
        ptx_bar_sync(1, N);
        out[t] = s[t - 32];
    }
}

template <bool BUG> __global__ void named_barrier_of_too_many(int *out, const int *in, int *)
{
    __shared__ int s[N];
    unsigned t = threadIdx.x;
    if (t < 32) {
        s[t] = in[t];
        ptx_bar_sync(1, BUG ? N : 32);
        out[t] = s[31 - t];
    }
}

template <bool BUG> __global__ void named_barriers_crossed(int *out, const int *in, int *)
{
    unsigned t = threadIdx.x, first = BUG && t >= 32 ? 2 : 1;
    ptx_bar_sync(first, N);
    ptx_bar_sync(3 - first, N);
    out[t] = in[t];
}

/* ---- the table
 * ----------------------------------------------------------------------------------- */

typedef void (*kernel_of)(int *, const int *, int *);

template <kernel_of BAD, kernel_of GOOD, unsigned BLOCKS, unsigned SHARED>
static int run(bool bug, int *out, const int *in, int *scratch)
{
    return launch("planted", bug ? BAD : GOOD, BLOCKS, N, SHARED, nullptr, out, in, scratch);
}

static int run_too_large(bool bug, int *out, const int *in, int *scratch)
{
    return launch("planted", bug ? missing_syncthreads<false> : missing_syncthreads<false>, 1,
                  bug ? 2048 : N, 0, nullptr, out, in, scratch);
}

/* Which of two threads is first decides whether the second finds nothing, or races. */
#define RACE "race|uninitialised"
#define BLOCKS(n, name, shared, says, found)                              \
    {                                                                     \
#name, says, found, run < name < true>, name < false>, n, shared> \
    }
#define PLANT(name, says, found) BLOCKS(1, name, 4 * N, says, found)
extern const struct planted planted[] = {
    PLANT(missing_syncthreads, RACE, PLANTED_SHADOW),
    PLANT(two_barriers_in_branches, "divergent barrier", PLANTED_ALWAYS),
    PLANT(barrier_in_one_branch, "have exited", PLANTED_ALWAYS),
    PLANT(return_before_barrier, "have exited", PLANTED_ALWAYS),
    PLANT(barrier_in_uneven_loop, "have exited", PLANTED_ALWAYS),
    PLANT(no_barrier_before_reuse, RACE, PLANTED_SHADOW),
    PLANT(reduction_without_barriers, RACE, PLANTED_SHADOW),
    PLANT(barrier_against_syncwarp, "deadlock", PLANTED_ALWAYS),
    PLANT(mask_without_self, "wrong mask", PLANTED_ALWAYS),
    PLANT(shuffle_in_a_branch, "exited", PLANTED_ALWAYS),
    PLANT(shuffle_from_outside_mask, "not in its mask", PLANTED_ALWAYS),
    PLANT(different_collectives, "diverged", PLANTED_ALWAYS),
    PLANT(exited_lane_in_mask, "exited", PLANTED_ALWAYS),
    PLANT(warp_synchronous, RACE, PLANTED_SHADOW),
    PLANT(shuffle_as_barrier, RACE, PLANTED_SHADOW),
    PLANT(write_over_what_others_read, "race", PLANTED_SHADOW),
    PLANT(syncwarp_of_too_few, RACE, PLANTED_SHADOW),
    PLANT(syncwarp_across_warps, RACE, PLANTED_SHADOW),
    PLANT(mma_in_a_branch, "exited", PLANTED_ALWAYS),
    PLANT(mma_of_half_a_warp, "exited", PLANTED_ALWAYS),
    PLANT(mma_of_no_accumulator, "uninitialised", PLANTED_SHADOW),
    PLANT(mma_of_fp8_on_ampere, "sm_80 has none", PLANTED_ALWAYS),
    PLANT(uninitialised_shared, "uninitialised", PLANTED_SHADOW),
    PLANT(uninitialised_global, "uninitialised", PLANTED_SHADOW),
    PLANT(shared_off_by_one, "out of bounds", PLANTED_BOUNDS),
    PLANT(global_off_by_one, "out of bounds", PLANTED_BOUNDS),
    PLANT(global_write_past_end, "out of bounds", PLANTED_BOUNDS),
    PLANT(misaligned_vector, "misaligned", PLANTED_SHADOW),
    PLANT(add_without_atomic, RACE, PLANTED_SHADOW),
    PLANT(plain_read_of_an_atomic, RACE, PLANTED_SHADOW),
    BLOCKS(2, blocks_write_the_same, 0, RACE, PLANTED_SHADOW),
    BLOCKS(2, blocks_wait_for_nobody, 0, RACE, PLANTED_SHADOW),
    PLANT(tail_not_written, "never written", PLANTED_SHADOW),
    PLANT(copy_not_waited_for, "on its way", PLANTED_SHADOW),
    PLANT(copy_one_group_too_few, "on its way", PLANTED_SHADOW),
    PLANT(copy_without_barrier, "race|on its way|uninitialised", PLANTED_SHADOW),
    PLANT(copy_over_what_is_read, "race|on its way", PLANTED_SHADOW),
    PLANT(copy_never_waited_for, "ended with", PLANTED_ALWAYS),
    BLOCKS(1, ldmatrix_wrong_stride, 8 * N, "misaligned|out of bounds|ldmatrix at", PLANTED_ALWAYS),
    BLOCKS(1, ldmatrix_past_the_end, 8 * N, "out of bounds|ldmatrix at", PLANTED_ALWAYS),
    BLOCKS(1, ldmatrix_of_no_padding, 8 * N, "uninitialised", PLANTED_SHADOW),
    BLOCKS(1, ldmatrix_before_barrier, 8 * N, RACE, PLANTED_SHADOW),
    PLANT(producer_arrives_too_early, RACE, PLANTED_SHADOW),
    PLANT(named_barrier_of_too_many, "have exited", PLANTED_ALWAYS),
    PLANT(named_barriers_crossed, "deadlock", PLANTED_ALWAYS),
    {"too_many_threads", "cannot be launched", PLANTED_ALWAYS, run_too_large},
};
extern const int n_planted = sizeof planted / sizeof planted[0];

/* ---- traffic
 * -------------------------------------------------------------------------------------- */

__global__ void strided(int stride, int *out, const int *in)
{
    __shared__ int s[PLANTED_N];
    unsigned t = threadIdx.x;
    s[t * stride] = in[t * stride];
    __syncthreads();
    out[t] = s[t * stride];
}

int planted_strided(int stride, int *out, const int *in)
{
    return launch("strided", strided, 1, 32, 0, nullptr, stride, out, in);
}
