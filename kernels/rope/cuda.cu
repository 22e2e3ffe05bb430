/* rope/cuda.cu: rotates q in place, and k on its way to the page; v goes there as it is. fp16 pages.
 *
 * qkv (rows, ld): heads of q, of k, of v. A thread block a row, its threads over pairs and elements:
 * grid (rows). Writes of K are 2 bytes at a stride of a page's 16 tokens, as the page has it. Moves
 * 8 bytes an element of q, 4 in and 2 out of v, 8 and 2 of k. Share of the bandwidth: not measured. */
#include "kernels/simt/cuda.h"

#include "kernels/cuda_kernels.h"
#include "kernels/numerics.h"

#define THREADS 128

struct rope_task {
    float *qkv;
    int64_t ld;
    int n_heads;
    struct kn_kv kv;
    struct kn_span span;
    struct kn_rope_table table;
    enum kn_rope kind;
};

__global__ void __launch_bounds__(THREADS) rope_kv(const struct rope_task task)
{
    const struct kn_kv &kv = task.kv;
    const int hd = kv.head_dim, half = task.table.dim / 2;
    const uint32_t pos = task.span.pos + blockIdx.x, slot = pos % KN_PAGE_TOKENS;
    const uint32_t page_number = task.span.page_table[pos / KN_PAGE_TOKENS];
    uint16_t *page = kv.pages + page_number * kv.page_stride;
    const int64_t page_head = 2 * static_cast<int64_t>(hd) * KN_PAGE_TOKENS;
    const float *cos = task.table.cos + static_cast<int64_t>(pos) * half;
    const float *sin = task.table.sin + static_cast<int64_t>(pos) * half;
    float *row = task.qkv + blockIdx.x * task.ld;

    /* Pairs of the heads of q and k: each is one thread's, which also takes k to the page. */
    for (int i = static_cast<int>(threadIdx.x); i < (task.n_heads + kv.n_kv_heads) * half; i += THREADS) {
        const int h = i / half, p = i % half;
        const int first = task.kind == KN_ROPE_NORM ? 2 * p : p;
        const int second = task.kind == KN_ROPE_NORM ? 2 * p + 1 : p + half;
        float *head = row + static_cast<int64_t>(h) * hd;
        const float x0 = head[first], x1 = head[second];
        const float y0 = fmaf(x0, cos[p], -(x1 * sin[p])), y1 = fmaf(x0, sin[p], x1 * cos[p]);
        head[first] = y0;
        head[second] = y1;
        if (h >= task.n_heads) {
            uint16_t *k = page + (h - task.n_heads) * page_head;
            k[first * KN_PAGE_TOKENS + slot] = kn_f32_to_f16(y0);
            k[second * KN_PAGE_TOKENS + slot] = kn_f32_to_f16(y1);
        }
    }
    /* What of k does not turn, and v. */
    for (int i = static_cast<int>(threadIdx.x); i < kv.n_kv_heads * hd; i += THREADS) {
        const int h = i / hd, d = i % hd;
        const float *k = row + static_cast<int64_t>(task.n_heads + h) * hd;
        const float *v = k + static_cast<int64_t>(kv.n_kv_heads) * hd;
        uint16_t *to = page + h * page_head;
        if (d >= 2 * half) {
            to[d * KN_PAGE_TOKENS + slot] = kn_f32_to_f16(k[d]);
        }
        to[hd * KN_PAGE_TOKENS + slot * hd + d] = kn_f32_to_f16(v[d]);
    }
}

int kn_cuda_rope_kv(float *qkv, int64_t ld, int n_heads, const struct kn_kv *kv,
                    const struct kn_span *span, const struct kn_rope_table *table, enum kn_rope kind,
                    void *stream)
{
    struct rope_task task = {qkv, ld, n_heads, *kv, *span, *table, kind};

    if (span->rows == 0) {
        return 0;
    }
    return launch("rope_kv", rope_kv, span->rows, THREADS, 0, static_cast<cudaStream_t>(stream), task);
}
