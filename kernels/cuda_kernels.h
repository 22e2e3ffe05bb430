/* cuda_kernels.h: the operations of kernels.h as kernels for GPUs (sm_80, sm_90a): the same bits.
 *
 * All pointers are of the device, as are those in the structs; the structs are of the host and are
 * copied. `stream` is a cudaStream_t. A function queues its launch and returns 0, or the error of
 * CUDA. n rows of nothing launch nothing. Contracts are those of kernels.h. Each is in
 * <op>/cuda.cu, and runs in <op>/test.c by the emulator of simt/. */
#ifndef ARGOSY_KERNELS_CUDA_KERNELS_H
#define ARGOSY_KERNELS_CUDA_KERNELS_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- weights (host) -------------------------------------------------------------------------- */

/* What kn_serves serves. */
bool kn_cuda_serves(int type, int64_t rows, int64_t cols);
/* 0 when not served. */
size_t kn_cuda_pack_bytes(int type, int64_t rows, int64_t cols);
/* Rows of the file to the layout of cuda_layout.h; both pointers are of the host. dst, like what it
 * is copied to on the device, begins at a multiple of 32 bytes. */
void kn_cuda_pack(int type, int64_t rows, int64_t cols, const void *src, void *dst);
/* The same for rows [row_begin, row_end), src being row row_begin and what follows it. Disjoint
 * ranges may run in parallel. */
void kn_cuda_pack_rows(int type, int64_t rows, int64_t cols, const void *src, void *dst,
                       int64_t row_begin, int64_t row_end);

/* A row of a float type (KN_F32, KN_F16, KN_BF16) to e4m3, as kn_cuda_fp8 does it on the device:
 * dst (cols). Returns its scale. Fast mode's. */
float kn_cuda_pack_fp8(int type, int64_t cols, const void *src, uint8_t *dst);

/* ---- operations ------------------------------------------------------------------------------ */

/* A matrix that is served; w->data is what kn_cuda_pack made, w->isa is not looked at. -1 where it
 * is not served. */
int kn_cuda_embed(const struct kn_matrix *w, const uint32_t *ids, int64_t n, float scale, float *x,
                  void *stream);
/* Up to KN_CUDA_TOKENS_MAX tokens by the kernels for decoding (matmul/gemv.h), which read W once;
 * above by matmul/gemm.cu's tiles of tokens. */
#define KN_CUDA_TOKENS_MAX 8
int kn_cuda_matmul(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy, void *stream);
/* Mixtures of experts: all matrices of one operation in one launch. Slots are rows of y, ordered by
 * expert: those of expert e are [slot_begin[e], slot_begin[e + 1]), slot_begin (n_experts + 1)
 * ascending from 0; the host knows but n_slots, which is at least slot_begin[n_experts], and slots
 * from there on are left alone. y[slot] = experts[e] · x[x_rows[slot]], or x[slot] without x_rows
 * (NULL). experts (n_experts): what kn_cuda_pack made of each. w says their type and shape; its
 * data is not looked at. */
int kn_cuda_matmul_experts(const struct kn_matrix *w, const void *const *experts, int n_experts,
                           const struct kn_act *x, const uint32_t *x_rows,
                           const uint32_t *slot_begin, int64_t n_slots, float *y, int64_t ldy,
                           void *stream);
int kn_cuda_quantize(const float *x, int64_t ldx, int64_t row_begin, int64_t row_end,
                     const struct kn_act *a, void *stream);
int kn_cuda_rmsnorm(const float *x, const float *w, float w_offset, float eps, int64_t n, int64_t d,
                    float *y, void *stream);
int kn_cuda_rmsnorm_quantize(const float *x, const float *w, float w_offset, float eps,
                             int64_t row_begin, int64_t row_end, int64_t d, const struct kn_act *a,
                             void *stream);
int kn_cuda_swiglu_quantize(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                            int64_t ff, const struct kn_act *a, void *stream);
int kn_cuda_geglu_quantize(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                           int64_t ff, const struct kn_act *a, void *stream);
/* x (n, d) += rmsnorm(y), y (n, d) being finished: the norm's two products, then one sum. */
int kn_cuda_add_norm(const float *y, const float *w, float w_offset, float eps, int64_t n,
                     int64_t d, float *x, void *stream);
/* rmsnorm of each head in place, before they turn. qk (n, ld): n_heads heads of q, then n_kv_heads
 * of k, then anything. q_norm, k_norm (head_dim); NULL leaves those heads alone. head_dim at most
 * 256 (more: -1). */
int kn_cuda_norm_heads(float *qk, int64_t ld, int64_t n, int n_heads, int n_kv_heads, int head_dim,
                       const float *q_norm, const float *k_norm, float eps, void *stream);
int kn_cuda_add_bias(float *y, int64_t ldy, int64_t n, int64_t d, const float *bias, void *stream);
/* Of rows of x (n, d), row stride ld: logits may lie in padded rows. */
int kn_cuda_softcap(float *x, int64_t ld, int64_t n, int64_t d, float cap, void *stream);
/* Rows of a batch: each is a token at a position of a sequence. */
struct kn_cuda_rows {
    const uint32_t *pos;      /* (n) */
    const uint32_t *table;    /* pages of the sequences, one sequence behind another */
    const uint32_t *table_at; /* (n): where in table the row's sequence begins */
    int64_t n;
};

/* Of kernels.h, for rows of any sequences. k in qkv stays as it was. kv->page_stride is a multiple
 * of 8. */
int kn_cuda_rope_kv(float *qkv, int64_t ld, int n_heads, const struct kn_kv *kv,
                    const struct kn_cuda_rows *rows, const struct kn_rope_table *table,
                    enum kn_rope kind, void *stream);

/* Attention of rows of any sequences, as struct kn_attn has it of a span's. Slots of a page that
 * nobody wrote may hold anything, but the pages are memory that was set once (cudaMemset). */
struct kn_cuda_attn {
    const float *q; /* (n, n_heads * head_dim), row stride ldq */
    int64_t ldq;
    float *out; /* (n, n_heads * head_dim), row stride ldo */
    int64_t ldo;
    struct kn_kv kv; /* page_stride a multiple of 8 */
    struct kn_cuda_rows rows;
    int n_heads; /* a multiple of kv.n_kv_heads */
    float scale;
    uint32_t window;
    float softcap;
};

/* For decoding: by row and split of the context. part: kn_cuda_attention_part_bytes, of the device.
 * Positions are below splits_max * KN_ATTN_SPLIT: the shape of the launches depends on n and
 * splits_max alone, so that a graph can be replayed at other positions. */
int kn_cuda_attention(const struct kn_cuda_attn *a, uint32_t splits_max, float *part, void *stream);
size_t kn_cuda_attention_part_bytes(int64_t n, int n_heads, int head_dim, uint32_t splits_max);

/* For prompts: rows that follow one another in one sequence, at most kn_cuda_attention_rows of
 * them, share what is read of K and V. tiles (n_tiles), of the device: first row and how many. Rows
 * of no tile are left alone. */
struct kn_cuda_tile {
    uint32_t row, rows;
};
int kn_cuda_attention_prefill(const struct kn_cuda_attn *a, const struct kn_cuda_tile *tiles,
                              int64_t n_tiles, void *stream);
uint32_t kn_cuda_attention_rows(int n_heads, int n_kv_heads);
/* The same on tensor cores, for fast mode alone: within an error that attention/flash.cu states,
 * and not the same bits on all devices. Tiles of up to kn_cuda_attention_flash_rows. KV in fp16
 * alone: int8 is refused (-1), and prefill's. */
int kn_cuda_attention_flash(const struct kn_cuda_attn *a, const struct kn_cuda_tile *tiles,
                            int64_t n_tiles, void *stream);
uint32_t kn_cuda_attention_flash_rows(int n_heads, int n_kv_heads, int head_dim);

/* ---- rows ------------------------------------------------------------------------------------ */

/* out[i] = x[rows[i]]: x (any, d), rows (n), out (n, d), another buffer than x. */
int kn_cuda_gather(const float *x, const uint32_t *rows, int64_t n, int64_t d, float *out,
                   void *stream);
/* The same of quantised rows: what `a` has, `to` has too. */
int kn_cuda_gather_act(const struct kn_act *a, const uint32_t *rows, int64_t n,
                       const struct kn_act *to, void *stream);
/* x[i] = by * x[i]: x (n). */
int kn_cuda_scale(float *x, int64_t n, float by, void *stream);
/* Columns of rows, of any matrices: `rows` pieces of `width` bytes, the strides apart. */
struct kn_cuda_copy {
    const void *from;
    void *to;
    int64_t from_stride, to_stride, width;
    int64_t rows;
};
/* All n copies (of the host, below 4 GiB each) in a launch for each KN_CUDA_COPIES_MAX of them:
 * what ranks exchange is many small pieces. They must not overlap. */
#define KN_CUDA_COPIES_MAX 64
int kn_cuda_copy_columns(const struct kn_cuda_copy *copies, int n, void *stream);
/* sum[j] += x[r][j] in fp64, r ascending: x (n, d), sum (d). Pooling is rmsnorm of the rows in
 * place and then this; the sums go to the device and come back, being the engine's over several
 * steps. */
int kn_cuda_pool(const float *x, int64_t n, int64_t d, double *sum, void *stream);

/* ---- mixtures of experts --------------------------------------------------------------------- */

#define KN_CUDA_ROUTE_ROWS 32 /* of a thread block, in a word of the scratch */
#define KN_CUDA_EXPERTS_MAX 4096

size_t kn_cuda_route_scratch_bytes(int64_t n, int n_experts);
/* ids, weights (n, n_used): route of kernels.h. A slot is a row with one of its experts; slots of
 * an expert lie together, experts ascending, rows ascending in each. expert_slots (n, n_used): the
 * slot of a choice; slot_rows (n * n_used): the row of a slot; expert_begin (n_experts + 1): first
 * slots. scratch: kn_cuda_route_scratch_bytes(n, n_experts). More experts than the most: -1. */
int kn_cuda_route(const float *logits, int64_t ld, int64_t n, int n_experts, int n_used,
                  uint32_t *ids, float *weights, uint32_t *expert_slots, uint32_t *slot_rows,
                  uint32_t *expert_begin, void *scratch, void *stream);
/* combine of kernels.h for n rows: x[r] (d) += sum over i of weights[r][i] *
 * y[expert_slots[r][i]]. */
int kn_cuda_combine(const float *y, const uint32_t *expert_slots, const float *weights, int64_t n,
                    int n_used, int64_t d, float *x, int64_t ldx, void *stream);

/* ---- sampling -------------------------------------------------------------------------------- */

#define KN_CUDA_VOCAB_MAX (1u << 20)

/* One pick: struct kn_sampling with its position, for a device. Lists are in the same buffer,
 * so many words of 4 bytes behind its beginning. */
struct kn_cuda_sampling {
    uint64_t seed, position;
    uint32_t row; /* of the logits */
    float temperature;
    uint32_t top_k;
    float top_p, min_p;
    float presence_penalty, frequency_penalty, repetition_penalty;
    uint32_t n_seen, n_context, n_bias;
    uint32_t seen_ids_at, seen_counts_at, context_ids_at, bias_ids_at, bias_values_at;
    uint32_t mask_at; /* 0: all tokens are allowed */
    uint32_t n_top;   /* 0 unless want_logprobs */
    bool want_token;  /* false: only whether all logits are finite */
    bool want_logprobs;
};

/* What pack takes, on the host. */
struct kn_cuda_pick {
    const struct kn_sampling *sampling; /* NULL: no token, only whether all logits are finite */
    uint64_t position;
    uint32_t row; /* of the logits */
};

/* What a batch wants beyond the highest logit; a step that no pick wants may be launched too. */
enum {
    KN_CUDA_SAMPLE_DRAW = 1, /* with the next two: a temperature above 0 */
    KN_CUDA_SAMPLE_TOP_K = 2,
    KN_CUDA_SAMPLE_TOP_P = 4,
    KN_CUDA_SAMPLE_LOGPROBS = 8,
    KN_CUDA_SAMPLE_ALL = 15
};

/* Bytes of the packed parameters of n picks (host): below 16 GiB. */
size_t kn_cuda_sampling_bytes(const struct kn_cuda_pick *picks, uint32_t n, uint32_t vocab);
/* Packs them (host) into dst, 8-byte aligned: n of struct kn_cuda_sampling, then the lists. Returns
 * the steps that they want. */
unsigned kn_cuda_pack_sampling(const struct kn_cuda_pick *picks, uint32_t n, uint32_t vocab,
                               void *dst);
size_t kn_cuda_sample_scratch_bytes(uint32_t n, uint32_t vocab);
/* sample of kernels.h for n picks, from rows of logits (any, vocab), row stride ld, 16-byte aligned
 * with ld a multiple of 4 where they are to be read fast. Logits stay as they are. packed: a copy
 * of what kn_cuda_pack_sampling made, 16-byte aligned, like scratch (kn_cuda_sample_scratch_bytes).
 * steps: at least what it returned; KN_CUDA_SAMPLE_ALL in a graph that serves any batch. out (n),
 * finite (n): 1 where all raw logits are finite. vocab at most KN_CUDA_VOCAB_MAX (more, or 0: -1).
 *
 * The digest of a pick's logits is not made here: FNV-1a goes word by word, each waiting for the
 * one before, 2 ms of a GPU's thread for 128k. Who wants one copies the row and has the host do it.
 */
int kn_cuda_sample(const float *logits, int64_t ld, uint32_t vocab, const void *packed, uint32_t n,
                   unsigned steps, void *scratch, struct kn_sampled *out, uint32_t *finite,
                   void *stream);

/* ---- fast mode ------------------------------------------------------------------------------- */

/* Not of the exact contract: what fast mode feeds to cuBLASLt. Each is the operation without
 * `_bf16`, its fp32 result rounded to the nearest bf16 (uint16_t: its bits), rows dense. */
int kn_cuda_rmsnorm_bf16(const float *x, const float *w, float w_offset, float eps, int64_t n,
                         int64_t d, uint16_t *y, void *stream);
/* gu (n, ldgu): gate, then up; out (n, ff). */
int kn_cuda_swiglu_bf16(const float *gu, int64_t ldgu, int64_t n, int64_t ff, uint16_t *out,
                        void *stream);
int kn_cuda_geglu_bf16(const float *gu, int64_t ldgu, int64_t n, int64_t ff, uint16_t *out,
                       void *stream);
/* x (n, d), row stride ldx; out (n, d). */
int kn_cuda_bf16(const float *x, int64_t ldx, int64_t n, int64_t d, uint16_t *out, void *stream);
/* The same rounded once more: out (n, k) = e4m3 of x / scale (n), of bf16 rows x (n, k), k a
 * multiple of 4 (else -1) and rows at multiples of 8 bytes. */
int kn_cuda_fp8(const uint16_t *x, int64_t n, int64_t k, uint8_t *out, float *scale, void *stream);
/* x (n, cols) = scale * rows of w (any, cols), bf16 as in the file. */
int kn_cuda_embed_bf16(const uint16_t *w, int64_t cols, const uint32_t *ids, int64_t n, float scale,
                       float *x, void *stream);

#ifdef __cplusplus
}
#endif

#endif
