/* matmul/gemv_floats.cu: F32, F16 and BF16 for 1 to 8 tokens.
 *
 * W (rows, cols) as ../cuda_layout.h has it, x.f (n, cols), y stride ldy. Grid, lanes and tree are
 * those of gemv_dp4a.cu; a block is 32 floats, and k ascends in a segment. A row's last block may
 * be short. The next block is loaded while one is used.
 *
 * Measured on an H100 as gemv_dp4a.cu was, 28672 x 4096, 1 and 8 tokens: F32 3,010 and 2,780 GB/s,
 * F16 2,900 and 1,840.
 *
 * gate: gemv_float threads=128 blocks=3 shared=18688 loop=LDG.E.128,LDGSTS,FFMA */
#include "kernels/matmul/gemv.h"

/* The activations of a block, for a segment. */
template <int TOKENS> struct gemv_float_stage {
    float x[TOKENS][KN_BLOCK];
    float pad[4]; /* so that the other segment's lies in other banks */
};

template <int TOKENS> struct gemv_float_shared {
    gemv_float_stage<TOKENS> stage[KN_SEGMENTS][2];
    gemv_sums<TOKENS> sums;
};

template <int TOKENS>
static __device__ __forceinline__ void stage_floats(const kn_act &x, int64_t b, int64_t end,
                                                    gemv_float_stage<TOKENS> *s)
{
    const unsigned lane = threadIdx.x % KN_ROW_TILE;

    for (unsigned i = lane; i < TOKENS * KN_BLOCK; i += KN_ROW_TILE) {
        const unsigned t = i / KN_BLOCK, e = i % KN_BLOCK;
        if (b < end && b * KN_BLOCK + e < x.k) {
            ptx_cp_async4(&s->x[t][e], x.f + t * x.k + b * KN_BLOCK + e);
        } else {
            s->x[t][e] = 0.0f; /* read, but not used */
        }
    }
}

/* The first `left` elements of the block: all, but for a row's last. */
template <int TYPE, int TOKENS, bool WHOLE>
static __device__ __forceinline__ void add_floats(const block_raw<TYPE> &raw, int64_t left,
                                                  const gemv_float_stage<TOKENS> &s,
                                                  float acc[TOKENS])
{
    UNROLL
    for (int e = 0; e < KN_BLOCK; e += 4) {
        for (int t = 0; t < TOKENS; t++) {
            const float4 v = *reinterpret_cast<const float4 *>(&s.x[t][e]);
            const float x[4] = {v.x, v.y, v.z, v.w};
            for (int i = 0; i < 4; i++) {
                if (WHOLE || e + i < left) {
                    acc[t] = fmaf(block_float<TYPE>(raw, e + i), x[i], acc[t]);
                }
            }
        }
    }
}

template <int TYPE, int TOKENS>
__global__ void __launch_bounds__(GEMV_THREADS, 3) gemv_float(const gemv_task k)
{
    DYNAMIC_SHARED(bytes);
    gemv_float_shared<TOKENS> *shared = reinterpret_cast<gemv_float_shared<TOKENS> *>(bytes);
    gemv_float_stage<TOKENS> *staged = shared->stage[threadIdx.x / KN_ROW_TILE];
    const int64_t row =
        k.row_begin + static_cast<int64_t>(blockIdx.x) * KN_ROW_TILE + threadIdx.x % KN_ROW_TILE;
    const gemv_range range = gemv_range_of(k.w.blocks, 1, 1);
    block_raw<TYPE> block = {};
    float acc[TOKENS];

    for (int t = 0; t < TOKENS; t++) {
        acc[t] = 0.0f;
    }
    int64_t b = range.begin;
    stage_floats(k.x, b, range.end, &staged[0]);
    ptx_cp_async_commit();
    if (b < range.end) {
        block_fetch<TYPE>(k.w, row, b, &block);
    }
    for (int64_t turn = 0; turn < range.turns; turn++, b++) {
        const int64_t left = b < range.end ? k.x.k - b * KN_BLOCK : 0;
        block_raw<TYPE> next = block;
        stage_floats(k.x, b + 1, range.end, &staged[(turn + 1) % 2]);
        ptx_cp_async_commit();
        if (b + 1 < range.end) {
            block_fetch<TYPE>(k.w, row, b + 1, &next);
        }
        ptx_cp_async_wait<1>();
        __syncwarp();
        if (left >= KN_BLOCK) {
            add_floats<TYPE, TOKENS, true>(block, left, staged[turn % 2], acc);
        } else if (left > 0) {
            add_floats<TYPE, TOKENS, false>(block, left, staged[turn % 2], acc);
        }
        __syncwarp(); /* all have read what the next turn overwrites */
        block = next;
    }
    gemv_finish<TOKENS>(k, acc, &shared->sums);
}

template <int TYPE, int TOKENS> static int launch_float(const gemv_task &k, cudaStream_t stream)
{
    return launch("gemv_float", gemv_float<TYPE, TOKENS>, gemv_grid(k), GEMV_THREADS,
                  sizeof(gemv_float_shared<TOKENS>), stream, k);
}

template <int TYPE> static int launch_tokens(const gemv_task &k, cudaStream_t stream)
{
    static int (*const by_tokens[KN_CUDA_TOKENS_MAX])(const gemv_task &, cudaStream_t) = {
        launch_float<TYPE, 1>, launch_float<TYPE, 2>, launch_float<TYPE, 3>, launch_float<TYPE, 4>,
        launch_float<TYPE, 5>, launch_float<TYPE, 6>, launch_float<TYPE, 7>, launch_float<TYPE, 8>,
    };
    return by_tokens[k.n - 1](k, stream);
}

int gemv_floats(int type, const gemv_task &k, cudaStream_t stream)
{
    switch (type) {
    case KN_F32:
        return launch_tokens<KN_F32>(k, stream);
    case KN_F16:
        return launch_tokens<KN_F16>(k, stream);
    case KN_BF16:
        return launch_tokens<KN_BF16>(k, stream);
    default:
        return -1;
    }
}
