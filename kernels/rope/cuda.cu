/* rope/cuda.cu: rotates q in place, and k on its way to the page; v goes there as it is.
 *
 * qkv (rows, ld): heads of q, of k, of v. A warp a head, which stays in its registers: grid
 * (ceil(heads / 4), rows), 4 warps. Lane l has elements l, l + 32, … and reads the other one of each
 * pair too. Writes of K are at a stride of a page's 16 tokens, as the page has it. Moves 8 bytes an
 * element of q, 4 in and 2 out (int8: 1) of k and v: bound by memory.
 *
 * gate: rope_kv threads=128 blocks=10 */
#include "kernels/simt/cuda.h"

#include "kernels/cuda_kernels.h"
#include "kernels/numerics.h"
#include "kernels/quantize/quantize.h"

#define WARPS 4
#define ELEMS 8 /* of a head, a lane */
#define WARP 0xffffffffu

struct rope_task {
    float *qkv;
    int64_t ld;
    int n_heads;
    struct kn_kv kv;
    struct kn_cuda_rows rows;
    struct kn_rope_table table;
    enum kn_rope kind;
    int64_t head_elems; /* of a page */
};

/* This lane's elements of a head, turned. */
static __device__ __forceinline__ void load_turned(const rope_task &task, const float *head, uint32_t pos,
                                                   float v[ELEMS])
{
    const int half = task.table.dim / 2, lane = static_cast<int>(threadIdx.x % 32);
    const float *cos = task.table.cos + static_cast<int64_t>(pos) * half;
    const float *sin = task.table.sin + static_cast<int64_t>(pos) * half;

    for (int j = 0; j < ELEMS; j++) {
        const int e = lane + 32 * j;
        if (e >= task.kv.head_dim) {
            v[j] = 0.0f;
        } else if (e >= 2 * half) {
            v[j] = head[e];
        } else {
            const bool norm = task.kind == KN_ROPE_NORM;
            const bool second = norm ? e % 2 != 0 : e >= half;
            const int pair = norm ? e / 2 : e - (second ? half : 0);
            const int other = norm ? e ^ 1 : second ? e - half : e + half;
            const float x0 = head[second ? other : e], x1 = head[second ? e : other];
            v[j] = second ? fmaf(x0, sin[pair], x1 * cos[pair]) : fmaf(x0, cos[pair], -(x1 * sin[pair]));
        }
    }
}

/* A head as int8, `stride` apart, and its scale: as a block of activations (quantize/ref.c). */
static __device__ __forceinline__ void put_int8(const float v[ELEMS], int hd, int8_t *q, int stride,
                                                float *scale)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
    unsigned amax_bits = 0;

    for (int j = 0; j < ELEMS; j++) {
        const unsigned bits = kn_bits(v[j]) & 0x7fffffffu;
        amax_bits = bits > amax_bits ? bits : amax_bits;
    }
    amax_bits = __reduce_max_sync(WARP, amax_bits);
    const float amax = kn_float(amax_bits);
    const bool finite = amax_bits < QUANTIZE_INF_BITS, zero = !finite || amax < QUANTIZE_TINY;
    const float inverse = zero ? 0.0f : 127.0f / amax;
    for (int j = 0; j < ELEMS; j++) {
        if (lane + 32 * j < hd) {
            q[(lane + 32 * j) * stride] =
                zero ? static_cast<int8_t>(0)
                     : static_cast<int8_t>((v[j] * inverse + KN_ROUND_MAGIC) - KN_ROUND_MAGIC);
        }
    }
    if (lane == 0) {
        *scale = !finite ? kn_float(QUANTIZE_NAN_BITS) : zero ? 0.0f : amax / 127.0f;
    }
}

__global__ void __launch_bounds__(WARPS * 32) rope_kv(const rope_task task)
{
    const struct kn_kv &kv = task.kv;
    const int hd = kv.head_dim, lane = static_cast<int>(threadIdx.x % 32);
    const int h = static_cast<int>(blockIdx.x * WARPS + threadIdx.x / 32);
    const uint32_t row = blockIdx.y, pos = task.rows.pos[row], slot = pos % KN_PAGE_TOKENS;
    float *head = task.qkv + row * task.ld + static_cast<int64_t>(h) * hd;
    float v[ELEMS];

    if (h >= task.n_heads + 2 * kv.n_kv_heads) { /* the whole warp */
        return;
    }
    if (h < task.n_heads + kv.n_kv_heads) {
        load_turned(task, head, pos, v);
    } else {
        for (int j = 0; j < ELEMS; j++) {
            v[j] = lane + 32 * j < hd ? head[lane + 32 * j] : 0.0f;
        }
    }
    if (h < task.n_heads) {
        __syncwarp(); /* every lane has read its pairs */
        for (int j = 0; j < ELEMS; j++) {
            if (lane + 32 * j < hd) {
                head[lane + 32 * j] = v[j];
            }
        }
        return;
    }
    const bool is_v = h >= task.n_heads + kv.n_kv_heads;
    const int kv_head = h - task.n_heads - (is_v ? kv.n_kv_heads : 0);
    const uint32_t page = task.rows.table[task.rows.table_at[row] + pos / KN_PAGE_TOKENS];
    uint16_t *to = kv.pages + page * kv.page_stride + kv_head * task.head_elems;
    const int begin = is_v ? (KN_PAGE_TOKENS + static_cast<int>(slot)) * hd : static_cast<int>(slot);
    const int stride = is_v ? 1 : KN_PAGE_TOKENS;
    if (kv.type == KN_KV_INT8) {
        int8_t *q = reinterpret_cast<int8_t *>(to);
        float *scales = reinterpret_cast<float *>(q + static_cast<int64_t>(2) * hd * KN_PAGE_TOKENS);
        put_int8(v, hd, q + begin, stride, scales + (is_v ? KN_PAGE_TOKENS : 0) + slot);
        return;
    }
    for (int j = 0; j < ELEMS; j++) {
        if (lane + 32 * j < hd) {
            to[begin + (lane + 32 * j) * stride] = kn_f32_to_f16(v[j]);
        }
    }
}

int kn_cuda_rope_kv(float *qkv, int64_t ld, int n_heads, const struct kn_kv *kv,
                    const struct kn_cuda_rows *rows, const struct kn_rope_table *table,
                    enum kn_rope kind, void *stream)
{
    const rope_task task = {qkv, ld, n_heads, *kv, *rows, *table, kind,
                             kn_kv_page_elems(kv->type, 1, kv->head_dim)};
    const int heads = n_heads + 2 * kv->n_kv_heads;

    if (rows->n <= 0) {
        return 0;
    }
    return launch("rope_kv", rope_kv,
                  dim3(static_cast<unsigned>((heads + WARPS - 1) / WARPS), static_cast<unsigned>(rows->n)),
                  WARPS * 32, 0, static_cast<cudaStream_t>(stream), task);
}
