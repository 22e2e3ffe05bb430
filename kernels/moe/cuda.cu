/* moe/cuda.cu: the experts of a row and their weights, where each choice's row lies among its
 * expert's, and the weighted sum of what they say.
 *
 * route: logits (n, n_experts), stride ld; ids, weights (n, n_used). A warp a row, n_used times the
 *   maximum of what is left, as integers (sample/order.h); then ids ascending by ballot, and the
 * sum of the softmax in that order, one exchange a term. A thread block 32 rows, in turn by 8
 * warps: grid (ceil(n / 32)), 4 n_experts bytes of shared memory. It leaves in `taken` (ceil(n /
 * 32), n_experts) which of its rows took an expert, a bit each. slots: from `taken` alone a choice
 * knows its slot: the choices of lower experts, those of its own expert in earlier blocks, those of
 * earlier rows in its block. So slots of an expert lie together, experts ascending, rows ascending
 * in each. Grid as route, 8 n_experts bytes of shared memory; each block counts all of `taken` (4
 * bytes an expert and 32 rows, from L2). combine: x (n, d), stride ldx; y (slots, d). A thread four
 * columns: grid (ceil(d / 1024), n). Moves 4 n_used + 8 bytes an element: bound by memory.
 * gate: route threads=256 blocks=6 shared=16384 loop=REDUX
 * gate: slots threads=256 blocks=4 shared=32768 loop=POPC
 * gate: combine threads=256 blocks=8 loop=LDG.E.128 */
#include "kernels/rows/device.h"
#include "kernels/sample/order.h"

#include "kernels/cuda_kernels.h"

#define WARPS 8
#define THREADS (WARPS * 32)
#define TILE KN_CUDA_ROUTE_ROWS
#define WARP ORDER_WARP

/* The experts of one row, by a warp; sets `bit` of the words in taken. */
static __device__ __forceinline__ void route_row(const float *logits, int n_experts, int n_used,
                                                 uint32_t *ids, float *weights, uint32_t bit,
                                                 uint32_t *taken)
{
    const int lane = static_cast<int>(threadIdx.x % 32);
    uint64_t first = 0, last = ~UINT64_C(0);

    for (int i = 0; i < n_used; i++) {
        uint64_t best = 0;
        for (int e = lane; e < n_experts; e += 32) {
            const uint64_t key = order_key(logits[e], static_cast<uint32_t>(e));
            best = key < last ? max(key, best) : best;
        }
        last = order_warp_max(best);
        first = i == 0 ? last : first;
    }
    const float most = order_value(first);
    float sum = 0.0f;
    for (int base = 0, found = 0; base < n_experts; base += 32) {
        const int e = base + lane;
        const float l = e < n_experts ? logits[e] : 0.0f;
        const bool mine = e < n_experts && order_key(l, static_cast<uint32_t>(e)) >= last;
        const unsigned chosen = __ballot_sync(WARP, mine);
        const float w = kn_exp(l - most);
        for (unsigned left = chosen; left != 0; left &= left - 1) {
            sum = sum + __shfl_sync(WARP, w, __ffs(static_cast<int>(left)) - 1);
        }
        if (mine) {
            const int at = found + __popc(chosen & ((1u << lane) - 1));
            ids[at] = static_cast<uint32_t>(e);
            weights[at] = w;
            atomicOr(taken + e, bit);
        }
        found += __popc(chosen);
    }
    __syncwarp();
    for (int i = lane; i < n_used; i += 32) {
        weights[i] = weights[i] / sum;
    }
}

__global__ void __launch_bounds__(THREADS)
    route(const float *logits, int64_t ld, int64_t n, int n_experts, int n_used, uint32_t *ids,
          float *weights, uint32_t *taken)
{
    DYNAMIC_SHARED(shared);
    uint32_t *mine = reinterpret_cast<uint32_t *>(shared); /* (n_experts) */

    for (int e = static_cast<int>(threadIdx.x); e < n_experts; e += THREADS) {
        mine[e] = 0;
    }
    __syncthreads();
    for (unsigned i = threadIdx.x / 32; i < TILE; i += WARPS) {
        const int64_t r = static_cast<int64_t>(blockIdx.x) * TILE + i;
        if (r < n) {
            route_row(logits + r * ld, n_experts, n_used, ids + r * n_used, weights + r * n_used,
                      1u << i, mine);
        }
    }
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < n_experts; e += THREADS) {
        taken[static_cast<int64_t>(blockIdx.x) * n_experts + e] = mine[e];
    }
}

/* The sum of v over the threads before this one; *total over all. warp_sums: of WARPS, free to be
 * written; another barrier comes before it is again. */
static __device__ __forceinline__ uint32_t sum_before(uint32_t v, uint32_t *warp_sums,
                                                      uint32_t *total)
{
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint32_t sum = v;

    for (unsigned w = 1; w < 32; w *= 2) {
        const uint32_t below = __shfl_up_sync(WARP, sum, w);
        sum += lane >= w ? below : 0;
    }
    if (lane == 31) {
        warp_sums[warp] = sum;
    }
    __syncthreads();
    *total = 0;
    for (unsigned i = 0; i < WARPS; i++) {
        sum += i < warp ? warp_sums[i] : 0;
        *total += warp_sums[i];
    }
    return sum - v;
}

__global__ void __launch_bounds__(THREADS)
    slots(const uint32_t *ids, const uint32_t *taken, int64_t n, int n_experts, int n_used,
          uint32_t *expert_slots, uint32_t *slot_rows, uint32_t *expert_begin)
{
    DYNAMIC_SHARED(shared);
    __shared__ uint32_t warp_sums[WARPS];
    uint32_t *next = reinterpret_cast<uint32_t *>(shared); /* (n_experts): slot of the first here */
    uint32_t *mine = next + n_experts;                     /* (n_experts): of taken */
    const int64_t tile = blockIdx.x, tiles = gridDim.x;
    uint32_t begin = 0;

    for (int base = 0; base < n_experts; base += THREADS) {
        const int e = base + static_cast<int>(threadIdx.x);
        uint32_t all = 0, before = 0, total;
        for (int64_t t = 0; e < n_experts && t < tiles; t++) {
            const uint32_t bits = __ldg(taken + t * n_experts + e);
            before = t == tile ? all : before;
            all += static_cast<uint32_t>(__popc(bits));
            if (t == tile) {
                mine[e] = bits;
            }
        }
        const uint32_t first = begin + sum_before(all, warp_sums, &total);
        if (e < n_experts) {
            next[e] = first + before;
            if (tile == 0) {
                expert_begin[e] = first;
            }
        }
        begin += total;
        __syncthreads();
    }
    if (tile == 0 && threadIdx.x == 0) {
        expert_begin[n_experts] = begin;
    }
    const int64_t end = ((tile + 1) * TILE < n ? (tile + 1) * TILE : n) * n_used;
    for (int64_t i = tile * TILE * n_used + threadIdx.x; i < end; i += THREADS) {
        const uint32_t e = ids[i], row = static_cast<uint32_t>(i / n_used);
        const uint32_t slot =
            next[e] + static_cast<uint32_t>(__popc(mine[e] & ((1u << row % TILE) - 1)));
        expert_slots[i] = slot;
        slot_rows[slot] = row;
    }
}

__global__ void __launch_bounds__(THREADS)
    combine(const float *y, const uint32_t *expert_slots, const float *weights, int n_used,
            int64_t d, float *x, int64_t ldx)
{
    const int64_t c = 4 * (static_cast<int64_t>(blockIdx.x) * THREADS + threadIdx.x);
    const int64_t first = static_cast<int64_t>(blockIdx.y) * n_used;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f}, v[4];

    if (c >= d) {
        return;
    }
    for (int i = 0; i < n_used; i++) {
        const float w = __ldg(weights + first + i);
        load_quad(y + __ldg(expert_slots + first + i) * d, c, d, v);
        for (int j = 0; j < 4; j++) {
            sum[j] = fmaf(w, v[j], sum[j]);
        }
    }
    load_quad(x + blockIdx.y * ldx, c, d, v);
    for (int j = 0; j < 4; j++) {
        v[j] = v[j] + sum[j];
    }
    store_quad(x + blockIdx.y * ldx, c, d, v);
}

size_t kn_cuda_route_scratch_bytes(int64_t n, int n_experts)
{
    return static_cast<size_t>((n + TILE - 1) / TILE) * static_cast<size_t>(n_experts) * 4;
}

int kn_cuda_route(const float *logits, int64_t ld, int64_t n, int n_experts, int n_used,
                  uint32_t *ids, float *weights, uint32_t *expert_slots, uint32_t *slot_rows,
                  uint32_t *expert_begin, void *scratch, void *stream)
{
    const unsigned grid = static_cast<unsigned>((n + TILE - 1) / TILE);
    const size_t words = static_cast<size_t>(n_experts) * 4;
    uint32_t *taken = static_cast<uint32_t *>(scratch);
    const cudaStream_t s = static_cast<cudaStream_t>(stream);

    if (n <= 0) {
        return 0;
    }
    if (n_experts > KN_CUDA_EXPERTS_MAX) {
        return -1;
    }
    const int status = launch("route", route, grid, THREADS, words, s, logits, ld, n, n_experts,
                              n_used, ids, weights, taken);
    return status != 0 ? status
                       : launch("slots", slots, grid, THREADS, 2 * words, s, ids, taken, n,
                                n_experts, n_used, expert_slots, slot_rows, expert_begin);
}

int kn_cuda_combine(const float *y, const uint32_t *expert_slots, const float *weights, int64_t n,
                    int n_used, int64_t d, float *x, int64_t ldx, void *stream)
{
    if (n <= 0 || d <= 0) {
        return 0;
    }
    return launch("combine", combine, quad_grid(d, THREADS, n), THREADS, 0,
                  static_cast<cudaStream_t>(stream), y, expert_slots, weights, n_used, d, x, ldx);
}
