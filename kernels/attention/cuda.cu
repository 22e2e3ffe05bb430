/* attention/cuda.cu: softmax(q·k) v for decoding: by row and split of the context, then merged.
 *
 * q, out (n, n_heads * head_dim), rows of any sequences. A thread block (device.h) has one split of
 * 128 positions of one row, and up to 16 query heads of one KV head, which share what is read of K
 * and V: grid (splits_max, n_kv_heads * ceil(group / Q), n), 128 threads. Splits that the row does
 * not see end at once. part (n, n_heads, splits_max, head_dim + 2): m, l, o; a row that sees one split
 * alone is finished there.
 *
 * Reads K and V of the visible pages once a row: 4 bytes (int8: 2, and 1/8 of a scale) a position,
 * element and KV head; writes and reads head_dim + 2 floats a split and query head. Operations, of
 * fp32: 4 a position, element and query head, so that with fp16 KV a group of 4 does 4 a byte. The
 * loop's instructions for 4 queries at head_dim 128 are 7 thousand of a warp a split, 1.8 thousand
 * cycles of an SM; its 64 KiB are 4.4 thousand of an H100's: bound by memory. Measured on an H200, 32
 * heads on 8 of 128: 64 rows at 4,096 read 3,190 GB/s, where a copy moves 2,760; one row at 8,192,
 * which fills a part of the SMs, 1,570.
 *
 * merge: a thread block a row and query head, two elements of o a thread: grid (n_heads, n), up to
 * 128 threads, whose warps do not meet. A lane has the factors of one split of 32: M is a running
 * maximum, free of order. The fold itself is sequential, with 8 loads in flight.
 *
 * Shared memory is fp16's; blocks an SM are an A100's (an H100 has 1.4 times its shared memory).
 * gate: attention[64, 4>] threads=128 blocks=6 shared=23792 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention[64, 8>] threads=128 blocks=5 shared=26976 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention[64, 16>] threads=128 blocks=4 shared=33344 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention[128, 4>] threads=128 blocks=3 shared=41200 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention[128, 8>] threads=128 blocks=3 shared=45408 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention[128, 16>] threads=128 blocks=3 shared=53824 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention[256, 4>] threads=128 blocks=3 shared=42736 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention[256, 8>] threads=128 blocks=3 shared=48992 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention[256, 16>] threads=128 blocks=2 shared=61504 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention_merge threads=128 blocks=10 loop=LDG.E.64,FFMA
 */
#include "kernels/attention/device.h"

#define MERGE_THREADS_MAX (ATTN_HEAD_DIM_MAX / 2)
#define MERGE_AHEAD 8 /* loads of o in flight, a thread */

template <int TYPE, int HD, int Q>
__global__ void __launch_bounds__(attend_shape<TYPE, HD, Q>::THREADS)
    attention(const attend_task task)
{
    DYNAMIC_SHARED(memory);
    const uint32_t split = blockIdx.x;
    const int kv_head = static_cast<int>(blockIdx.y) / task.q_tiles;
    attend_block b = attend_block_of(task, kv_head, static_cast<int>(blockIdx.y) % task.q_tiles, Q,
                                     blockIdx.z, 1);

    if (split < b.split || split >= b.split + b.splits) {
        return;
    }
    const bool whole = b.splits == 1;
    b.split = split;
    b.splits = 1;
    attend<TYPE, HD, Q, false>(task, b, whole,
                               reinterpret_cast<attend_shared<TYPE, HD, Q> *>(memory));
}

__global__ void __launch_bounds__(MERGE_THREADS_MAX) attention_merge(const attend_task task)
{
    const int hd = task.a.kv.head_dim, lane = static_cast<int>(threadIdx.x % 32);
    const int d = 2 * static_cast<int>(threadIdx.x);
    const int64_t row = blockIdx.y, head = blockIdx.x, stride = hd + 2;
    const uint32_t pos = task.a.rows.pos[row];
    const uint32_t first = attend_first(task.a, pos) / KN_ATTN_SPLIT;
    const float *part =
        task.part + ((row * task.a.n_heads + head) * task.splits_max + first) * stride;
    const int n = static_cast<int>(pos / KN_ATTN_SPLIT - first) + 1;
    float L = 0.0f, O0 = 0.0f, O1 = 0.0f, most = -INFINITY;

    if (n == 1) { /* it is in out */
        return;
    }
    for (int begin = 0; begin < n; begin += 32, part += 32 * stride) {
        const int count = min(n - begin, 32);
        const float m = lane < count ? __ldg(part + lane * stride) : -INFINITY;
        const float l = lane < count ? __ldg(part + lane * stride + 1) : 0.0f;
        float M = lane == 0 && most > m ? most : m; /* of this and all earlier splits */
        for (int w = 1; w < 32; w *= 2) {
            const float other = __shfl_up_sync(ATTEND_WARP, M, static_cast<unsigned>(w));
            M = lane >= w && other > M ? other : M;
        }
        const float earlier = __shfl_up_sync(ATTEND_WARP, M, 1);
        const float keep = kn_exp((lane == 0 ? most : earlier) - M), add = kn_exp(m - M);
        const float sum = begin + lane == 0 ? l : l * add; /* the first is taken as it is */
        most = __shfl_sync(ATTEND_WARP, M, 31);
        for (int i = 0; i < count; i += MERGE_AHEAD) {
            float2 o[MERGE_AHEAD];
            for (int k = 0; k < MERGE_AHEAD; k++) {
                const float *from = part + (i + k) * stride + 2 + d;
                o[k] = i + k < count && d < hd ? __ldg(reinterpret_cast<const float2 *>(from))
                                               : make_float2(0.0f, 0.0f);
            }
            for (int k = 0; k < MERGE_AHEAD; k++) {
                const float keep_k = __shfl_sync(ATTEND_WARP, keep, i + k);
                const float add_k = __shfl_sync(ATTEND_WARP, add, i + k);
                const float sum_k = __shfl_sync(ATTEND_WARP, sum, i + k);
                if (begin + i + k == 0) {
                    L = sum_k;
                    O0 = o[k].x;
                    O1 = o[k].y;
                } else if (i + k < count) {
                    L = fmaf(L, keep_k, sum_k);
                    O0 = fmaf(O0, keep_k, o[k].x * add_k);
                    O1 = fmaf(O1, keep_k, o[k].y * add_k);
                }
            }
        }
    }
    if (d < hd) {
        float *out = task.a.out + row * task.a.ldo + head * hd + d;
        out[0] = O0 / L;
        out[1] = O1 / L;
    }
}

template <int TYPE, int HD, int Q> static int launch_splits(const attend_task &task, cudaStream_t s)
{
    const dim3 grid(task.splits_max, static_cast<unsigned>(task.a.kv.n_kv_heads * task.q_tiles),
                    static_cast<unsigned>(task.a.rows.n));

    return launch("attention", attention<TYPE, HD, Q>, grid, attend_shape<TYPE, HD, Q>::THREADS,
                  sizeof(attend_shared<TYPE, HD, Q>), s, task);
}

template <int TYPE, int Q> static int launch_dim(const attend_task &task, cudaStream_t s)
{
    const int hd = task.a.kv.head_dim;

    return hd <= 64    ? launch_splits<TYPE, 64, Q>(task, s)
           : hd <= 128 ? launch_splits<TYPE, 128, Q>(task, s)
                       : launch_splits<TYPE, 256, Q>(task, s);
}

template <int Q> static int launch_type(const attend_task &task, cudaStream_t s)
{
    return task.a.kv.type == KN_KV_INT8 ? launch_dim<KN_KV_INT8, Q>(task, s)
                                        : launch_dim<KN_KV_F16, Q>(task, s);
}

size_t kn_cuda_attention_part_bytes(int64_t n, int n_heads, int head_dim, uint32_t splits_max)
{
    return static_cast<size_t>(n * n_heads * splits_max * (head_dim + 2)) * sizeof(float);
}

int kn_cuda_attention(const struct kn_cuda_attn *a, uint32_t splits_max, float *part, void *stream)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);

    if (a->rows.n <= 0) {
        return 0;
    }
    if (!attend_serves(a)) {
        return -1;
    }
    const int group = a->n_heads / a->kv.n_kv_heads, q_max = group <= 4 ? 4 : group <= 8 ? 8 : 16;
    attend_task task = attend_task_of(a, q_max);
    task.part = part;
    task.splits_max = splits_max;
    const int status = q_max == 4   ? launch_type<4>(task, s)
                       : q_max == 8 ? launch_type<8>(task, s)
                                    : launch_type<16>(task, s);
    if (status != 0 || splits_max == 1) {
        return status;
    }
    return launch("attention_merge", attention_merge,
                  dim3(static_cast<unsigned>(a->n_heads), static_cast<unsigned>(a->rows.n)),
                  static_cast<unsigned>((a->kv.head_dim / 2 + 31) / 32 * 32), 0, s, task);
}
