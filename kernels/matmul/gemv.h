/* gemv.h: what the kernels for up to 8 tokens share. Included by .cu files. */
#ifndef ARGOSY_KERNELS_MATMUL_GEMV_H
#define ARGOSY_KERNELS_MATMUL_GEMV_H

#include "kernels/simt/cuda.h"
#include "kernels/simt/ptx.h"

#include "kernels/cuda_kernels.h"
#include "kernels/matmul/device.h"

/* y[t, r] = W[r] · x[t] for rows [row_begin, row_end) and n tokens. */
struct gemv_task {
    weights w;
    kn_act x;
    int n;
    int64_t row_begin, row_end;
    bool accumulate;
    float *y;
    int64_t ldy;
};

/* A thread block has a tile of 16 rows. */
static inline unsigned gemv_grid(const gemv_task &k)
{
    return static_cast<unsigned>((k.row_end - k.row_begin + KN_ROW_TILE - 1) / KN_ROW_TILE);
}

/* The kernels: block types by dp4a and by mma, floats. */
int gemv_dp4a(int type, const gemv_task &k, cudaStream_t stream); /* up to GEMV_DP4A_TOKENS */
int gemv_mma(int type, const gemv_task &k, cudaStream_t stream);
int gemv_floats(int type, const gemv_task &k, cudaStream_t stream);
#define GEMV_DP4A_TOKENS 3

static __device__ __forceinline__ void read16(const void *p, unsigned word[4])
{
    const uint4 v = *static_cast<const uint4 *>(p);
    word[0] = v.x;
    word[1] = v.y;
    word[2] = v.z;
    word[3] = v.w;
}

/* ---- a lane a segment of a row: 16 lanes a segment, two segments a warp ---------------------- */

#define GEMV_WARPS (KN_SEGMENTS / 2)
#define GEMV_THREADS (GEMV_WARPS * 32)

/* The blocks of this lane's segment, and how many turns of `group` blocks the warp takes. */
struct gemv_range {
    int64_t begin, end, turns;
};

static __device__ __forceinline__ gemv_range gemv_range_of(int64_t blocks, int unit, int group)
{
    const int64_t units = blocks / unit;
    const int segment = static_cast<int>(threadIdx.x / KN_ROW_TILE), first = segment & ~1;
    const int64_t a = kn_segment(units, first), b = kn_segment(units, first + 1),
                  c = kn_segment(units, first + 2);
    const int64_t longer = (b - a > c - b ? b - a : c - b) * unit;

    return gemv_range{(segment == first ? a : b) * unit, (segment == first ? b : c) * unit,
                      (longer + group - 1) / group};
}

template <int TOKENS> struct gemv_sums {
    float of[TOKENS][GEMV_WARPS][KN_ROW_TILE];
};

/* y from the sums of the segments. All threads of the block. */
template <int TOKENS>
static __device__ __forceinline__ void gemv_finish(const gemv_task &k, const float acc[TOKENS],
                                                   gemv_sums<TOKENS> *sums)
{
    const unsigned lane = threadIdx.x % 32, row = lane % KN_ROW_TILE;

    for (int t = 0; t < TOKENS; t++) {
        const float pair = acc[t] + __shfl_xor_sync(0xffffffffu, acc[t], KN_ROW_TILE);
        if (lane < KN_ROW_TILE) {
            sums->of[t][threadIdx.x / 32][row] = pair;
        }
    }
    __syncthreads();
    const int64_t r = k.row_begin + static_cast<int64_t>(blockIdx.x) * KN_ROW_TILE + row;
    for (unsigned t = threadIdx.x / KN_ROW_TILE; t < TOKENS && r < k.row_end;
         t += GEMV_THREADS / KN_ROW_TILE) {
        const float v = (sums->of[t][0][row] + sums->of[t][1][row]) +
                        (sums->of[t][2][row] + sums->of[t][3][row]);
        float *out = k.y + t * k.ldy + r;
        *out = k.accumulate ? *out + v : v;
    }
}

#endif
