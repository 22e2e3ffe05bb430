/* attention/prefill.cu: softmax(q·k) v for prompts: rows of a tile share K and V.
 *
 * A tile is up to max(1, 32 / group) rows that follow one another in one sequence; a thread block
 * (device.h) has a tile and up to 32 of its (row, query head) pairs of one KV head, and goes through
 * the splits that they see: grid (n_tiles, n_kv_heads * ceil(group / 32)), 128 threads, 256 above
 * head_dim 128. The split's o and the fold's O stay in registers.
 *
 * Reads K and V of the visible pages once a tile, from L2 as a rule: 4 bytes (int8: 2) a position,
 * element and KV head. Operations, of fp32: 4 a position, element and query, 32 a byte of fp16:
 * bound by fp32 (exact mode has no other), of whose instructions FMAs are about three in four.
 * Measured on an H200, a prompt of 2,048, 32 heads on 8 of 128: 28% of its fp32 rate.
 *
 * gate: attention_prefill[64>] threads=128 blocks=4 shared=37376 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention_prefill[128>] threads=128 blocks=3 shared=53760 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 * gate: attention_prefill[256>] threads=256 blocks=1 shared=69888 loop=LDGSTS.E.BYPASS.128,LDS.128,FFMA
 */
#include "kernels/attention/device.h"

#define PREFILL_QUERIES 32

template <int TYPE, int HD>
__global__ void __launch_bounds__(attend_shape<TYPE, HD, PREFILL_QUERIES>::THREADS, 1)
    attention_prefill(const attend_task task)
{
    DYNAMIC_SHARED(memory);
    const struct kn_cuda_tile tile = task.tiles[blockIdx.x];
    const int kv_head = static_cast<int>(blockIdx.y) / task.q_tiles;
    const attend_block b =
        attend_block_of(task, kv_head, static_cast<int>(blockIdx.y) % task.q_tiles,
                        PREFILL_QUERIES, tile.row, tile.rows);

    attend<TYPE, HD, PREFILL_QUERIES, true>(
        task, b, true, reinterpret_cast<attend_shared<TYPE, HD, PREFILL_QUERIES> *>(memory));
}

template <int TYPE, int HD>
static int launch_tiles(const attend_task &task, int64_t n_tiles, cudaStream_t s)
{
    const dim3 grid(static_cast<unsigned>(n_tiles),
                    static_cast<unsigned>(task.a.kv.n_kv_heads * task.q_tiles));

    return launch("attention_prefill", attention_prefill<TYPE, HD>, grid,
                  attend_shape<TYPE, HD, PREFILL_QUERIES>::THREADS,
                  sizeof(attend_shared<TYPE, HD, PREFILL_QUERIES>), s, task);
}

template <int TYPE> static int launch_dim(const attend_task &task, int64_t n_tiles, cudaStream_t s)
{
    const int hd = task.a.kv.head_dim;

    return hd <= 64    ? launch_tiles<TYPE, 64>(task, n_tiles, s)
           : hd <= 128 ? launch_tiles<TYPE, 128>(task, n_tiles, s)
                       : launch_tiles<TYPE, 256>(task, n_tiles, s);
}

uint32_t kn_cuda_attention_rows(int n_heads, int n_kv_heads)
{
    const int rows = PREFILL_QUERIES / (n_heads / n_kv_heads);

    return rows > 1 ? static_cast<uint32_t>(rows) : 1;
}

int kn_cuda_attention_prefill(const struct kn_cuda_attn *a, const struct kn_cuda_tile *tiles,
                              int64_t n_tiles, void *stream)
{
    cudaStream_t s = static_cast<cudaStream_t>(stream);

    if (n_tiles <= 0) {
        return 0;
    }
    if (!attend_serves(a)) {
        return -1;
    }
    attend_task task = attend_task_of(a, PREFILL_QUERIES);
    task.tiles = tiles;
    return a->kv.type == KN_KV_INT8 ? launch_dim<KN_KV_INT8>(task, n_tiles, s)
                                    : launch_dim<KN_KV_F16>(task, n_tiles, s);
}
