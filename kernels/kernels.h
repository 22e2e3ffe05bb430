/* kernels.h: the only header of kernels/ that others include.
 *
 * What: the operations of a transformer, each a pure function from buffers to
 * buffers. No allocation, no threads, no I/O, no global state; a caller splits
 * the work by row, head or sequence and joins its threads itself.
 *
 * Exactness: NUMERICS.md (beside this file) states every operation to the bit,
 * and <op>/ref.c is its text in code. Every implementation gives the same bits:
 * an element of a result depends on its inputs alone, never on the instruction
 * set, the split of the work, the batch or the neighbours in it.
 *
 * Which: kn_ops(isa) gives a table of functions. KN_ISA_REF runs everywhere.
 *
 * Shapes are written (slow, fast): (n, k) is n rows of k contiguous elements.
 * Strides (ld…) are in elements. Pointers to activations, weights and scratch
 * are 64-byte aligned unless a comment says otherwise.
 * Errors: none at run time; what a kernel does not serve is refused by kn_serves().
 */
#ifndef ARGOSY_KERNELS_H
#define ARGOSY_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- instruction sets ------------------------------------------------------------------------ */

enum kn_isa {
    KN_ISA_REF,    /* scalar C: the specification */
    KN_ISA_AVX2,   /* AVX2, FMA, F16C */
    KN_ISA_AVX512, /* AVX-512 F, BW, DQ, VL and VNNI */
    KN_ISA_AMX,    /* and the tiles of AMX-INT8, for matmul */
    KN_ISA_COUNT
};

const char *kn_isa_name(enum kn_isa isa); /* "ref", "avx2", "avx512", "amx" */
/* On this CPU. Of KN_ISA_AMX the first call asks the system for leave to use tiles, for all threads
 * of the process; without leave it is not available. Any thread. */
bool kn_isa_available(enum kn_isa isa);
enum kn_isa kn_isa_best(void);

/* ---- weights --------------------------------------------------------------------------------- */

/* The numbers are GGUF's (ggml_type). */
enum kn_type {
    KN_F32 = 0,
    KN_F16 = 1,
    KN_Q4_0 = 2,
    KN_Q4_1 = 3,
    KN_Q5_0 = 6,
    KN_Q5_1 = 7,
    KN_Q8_0 = 8,
    KN_Q2_K = 10,
    KN_Q3_K = 11,
    KN_Q4_K = 12,
    KN_Q5_K = 13,
    KN_Q6_K = 14,
    KN_IQ4_NL = 20,
    KN_BF16 = 30,
    KN_MXFP4 = 39,
};

const char *kn_type_name(int type); /* "Q4_1"; "?" when unknown */
/* Elements of a block of the file along a row (32; 256 for the K formats; 1 for floats) and its
 * bytes there; 0 when not served. */
int64_t kn_type_block(int type);
size_t kn_type_block_bytes(int type);

#define KN_BLOCK 32    /* activations are quantised by blocks of this many along K */
#define KN_SEGMENTS 8  /* S of NUMERICS.md */
#define KN_ROW_TILE 16 /* rows that the packed layout interleaves */

/* A weight matrix (rows, cols), y = W x. `data` is in the packed layout of `isa`. */
struct kn_matrix {
    int type; /* enum kn_type */
    enum kn_isa isa;
    int64_t rows;
    int64_t cols;
    const void *data; /* borrowed */
};

/* Whether (type, rows, cols) is served: cols is a multiple of kn_type_block(type). */
bool kn_serves(int type, int64_t rows, int64_t cols);
/* Bytes of the packed form; 0 when not served. Rows are padded to KN_ROW_TILE. */
size_t kn_pack_bytes(enum kn_isa isa, int type, int64_t rows, int64_t cols);
/* Packs rows [row_begin, row_end) of `src` (GGUF layout, rows of the file one after another, any
 * alignment) to their place in `dst`. row_begin is a multiple of KN_ROW_TILE; so is row_end unless
 * it is `rows`. Disjoint ranges may run in parallel. */
void kn_pack(enum kn_isa isa, int type, int64_t rows, int64_t cols, const void *src, void *dst,
             int64_t row_begin, int64_t row_end);
/* The same, src being row row_begin alone and what follows it. */
void kn_pack_rows(enum kn_isa isa, int type, int64_t rows, int64_t cols, const void *src, void *dst,
                  int64_t row_begin, int64_t row_end);
/* One row of a GGUF tensor to fp32, exactly as the `gguf` package does; cols is a multiple of
 * kn_type_block(type). dst (cols). */
void kn_dequantize_row(int type, const void *src, int64_t cols, float *dst);
/* A row of fp32 to Q8_0, exactly as the `gguf` package does; cols is a multiple of 32. False, and
 * nothing to be used, where an element is not finite or too large for the scale. */
bool kn_quantize_q8_0(const float *x, int64_t cols, void *dst);

/* ---- activations ----------------------------------------------------------------------------- */

/* n rows of k elements, both as they are and quantised; nb = ceil(k / KN_BLOCK).
 * q, d, s are read for block types, f for KN_F32, KN_F16 and KN_BF16; the unused may be NULL. */
struct kn_act {
    float *f;   /* (n, k) */
    int8_t *q;  /* (n, nb * KN_BLOCK), zero past k */
    float *d;   /* (n, nb) scale */
    int32_t *s; /* (n, nb) sum of q over the block */
    /* (n, nb) the sums of its two halves as int16, the first in the low bits. For weights of
     * KN_Q2_K, KN_Q3_K and KN_Q6_K; NULL is fine without them. */
    int32_t *h;
    int64_t k;
};

/* a from row `row` on. */
static inline struct kn_act kn_act_from(const struct kn_act *a, int64_t row)
{
    int64_t blocks = row * ((a->k + KN_BLOCK - 1) / KN_BLOCK);
    struct kn_act some = *a;

    some.f = a->f ? a->f + row * a->k : NULL;
    some.q = a->q ? a->q + blocks * KN_BLOCK : NULL;
    some.d = a->d ? a->d + blocks : NULL;
    some.s = a->s ? a->s + blocks : NULL;
    some.h = a->h ? a->h + blocks : NULL;
    return some;
}

/* ---- KV pages -------------------------------------------------------------------------------- */

#define KN_PAGE_TOKENS 16 /* tokens a page holds */
#define KN_ATTN_SPLIT 128 /* tokens a split of the context holds: NUMERICS.md, "Attention" */

/* What an element of K and V is. It changes the tokens: NUMERICS.md, "Attention". */
enum kn_kv_type {
    KN_KV_F16,
    KN_KV_INT8, /* with a scale for each token's K and V of a head */
};

/* The KV cache of one layer. A page holds, for each KV head in turn,
 * K as (head_dim, KN_PAGE_TOKENS) and then V as (KN_PAGE_TOKENS, head_dim), and for int8 behind
 * them the scales of K and of V, fp32 (KN_PAGE_TOKENS) each. */
struct kn_kv {
    uint16_t *pages;     /* page p starts at pages + p * page_stride, whatever its type */
    int64_t page_stride; /* in uint16, at least kn_kv_page_elems() */
    int n_kv_heads;
    int head_dim; /* a multiple of 8, at most 256 */
    enum kn_kv_type type;
};

/* uint16 that a page takes: an even number. */
static inline int64_t kn_kv_page_elems(enum kn_kv_type type, int n_kv_heads, int head_dim)
{
    int64_t elems = (int64_t)2 * head_dim * KN_PAGE_TOKENS;

    return n_kv_heads * (type == KN_KV_INT8 ? elems / 2 + 4 * KN_PAGE_TOKENS : elems);
}

/* The rows of one sequence in a step: row r has position pos + r. */
struct kn_span {
    const uint32_t *page_table; /* page of tokens [i * KN_PAGE_TOKENS, …) */
    uint32_t pos;               /* position of the first row */
    uint32_t rows;
};

enum kn_rope {
    KN_ROPE_NORM, /* pairs (2i, 2i + 1): Llama in GGUF */
    KN_ROPE_NEOX, /* pairs (i, i + dim / 2) */
};

/* cos and sin (positions, dim / 2), computed the same way on every machine. */
struct kn_rope_table {
    const float *cos;
    const float *sin;
    int dim; /* rotated elements of a head; the rest pass through */
    uint32_t positions;
};

/* Fills rows [pos_begin, pos_end), each value times `magnitude`. inv_freq (dim / 2) comes from
 * kn_rope_inv_freq, scaled as the model says. */
void kn_rope_fill(const double *inv_freq, int dim, double magnitude, uint32_t pos_begin,
                  uint32_t pos_end, float *cos, float *sin);
/* inv_freq[i] = base ^ (-2i / dim). */
void kn_rope_inv_freq(double base, int dim, double *inv_freq);

/* YaRN (Peng et al., 2023): inv_freq is left alone where an angle turns at least beta_fast times
 * within `context` positions, divided by `factor` where it turns at most beta_slow times, mixed
 * between. base > 1, factor > 0, dim at least 2. */
struct kn_yarn {
    double base;
    double factor;
    double context; /* positions of the training before the extension */
    double beta_fast, beta_slow;
};
void kn_rope_yarn(const struct kn_yarn *y, int dim, double *inv_freq);
/* 0.1 * mscale * ln(factor) + 1; 1 where factor <= 1. */
double kn_rope_yarn_magnitude(double factor, double mscale);
/* longrope (Ding et al., 2024): sqrt(1 + ln(factor) / ln(context)), the context that of the
 * training before the extension, above 1; 1 where factor <= 1. */
double kn_rope_longrope_magnitude(double factor, double context);

/* Llama 3: a frequency that turns less than `low` times within `context` positions is divided by
 * `factor`, one that turns more than `high` times is not, those between by a mixture; by fp32
 * divisors, as GGUF stores them. 0 < low < high, factor and context above 0. */
struct kn_llama3 {
    double factor;
    double context;
    double low, high;
};
void kn_rope_llama3(const struct kn_llama3 *r, int dim, double *inv_freq);

struct kn_attn {
    const float *q; /* (rows, n_heads * head_dim), row stride ldq, already rotated */
    int64_t ldq;
    float *out; /* (rows, n_heads * head_dim), row stride ldo */
    int64_t ldo;
    struct kn_kv kv;
    struct kn_span span; /* whose rows q and out hold */
    /* A multiple of kv.n_kv_heads: query head h reads KV head h / (n_heads / n_kv_heads). */
    int n_heads;
    float scale; /* of q·k, 1 / sqrt(head_dim) as a rule */
    /* 0: the whole context; else the last `window` positions, the row's own included. */
    uint32_t window;
    float softcap; /* 0: none; else cap * tanh(score / cap) */
};

/* ---- sampling -------------------------------------------------------------------------------- */

#define KN_TOP_LOGPROBS_MAX 20

/* Everything that decides the token, with logits and position. */
struct kn_sampling {
    float temperature; /* 0: greedy */
    uint32_t top_k;    /* 0: off */
    float top_p;       /* 1: off */
    float min_p;       /* 0: off */
    uint64_t seed;
    float presence_penalty;
    float frequency_penalty;
    float repetition_penalty; /* 1: off */
    /* Tokens of the output so far (for the penalties), ids ascending, and how often. */
    const uint32_t *seen_ids;
    const uint32_t *seen_counts;
    /* Tokens of prompt and output (for repetition_penalty), ids ascending. */
    const uint32_t *context_ids;
    /* logit_bias, ids ascending. */
    const uint32_t *bias_ids;
    const float *bias_values;
    uint32_t n_seen, n_context, n_bias;
    const uint32_t *mask; /* allowed tokens, a bit each, (vocab + 31) / 32 words; NULL: all */
    uint32_t n_top;       /* logprobs wanted, at most KN_TOP_LOGPROBS_MAX */
    bool want_logprobs;
};

struct kn_sampled {
    uint32_t id;
    float logprob; /* under the model itself: before temperature, penalties, bias and mask */
    uint32_t top_ids[KN_TOP_LOGPROBS_MAX];
    float top_logprobs[KN_TOP_LOGPROBS_MAX];
};

/* Scratch for one row: this many bytes. */
size_t kn_sample_scratch_bytes(uint32_t vocab);

/* ---- the operations -------------------------------------------------------------------------- */

struct kn_ops {
    enum kn_isa isa;

    /* x[i] = scale * row ids[i] of w (rows: vocab). x (n, w->cols). ids are below w->rows. */
    void (*embed)(const struct kn_matrix *w, const uint32_t *ids, int64_t n, float scale, float *x);

    /* y = x / sqrt(mean(x²) + eps) * (w + w_offset) by row (w_offset 1: Gemma). x, y (n, d), may be
     * equal. */
    void (*rmsnorm)(const float *x, const float *w, float w_offset, float eps, int64_t n, int64_t d,
                    float *y);

    /* rows [row_begin, row_end) of x (n, ldx stride) into the same rows of a; a->f, if not NULL,
     * gets a copy unless it is x itself. */
    void (*quantize)(const float *x, int64_t ldx, int64_t row_begin, int64_t row_end,
                     struct kn_act *a);

    /* rmsnorm, then quantize, in one pass: the same bits as the two. */
    void (*rmsnorm_quantize)(const float *x, const float *w, float w_offset, float eps,
                             int64_t row_begin, int64_t row_end, int64_t d, struct kn_act *a);

    /* y[t, r] = W[r] · x[t] (accumulate: y += …, one rounding) for r in [row_begin, row_end), t in
     * [0, n). y row stride ldy; element (t, r) is y[t * ldy + r]. row_begin is a multiple of
     * KN_ROW_TILE, and row_end too unless it is w->rows. w->isa is this table's. */
    void (*matmul)(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy);

    /* Adds bias (d) to rows of y. */
    void (*add_bias)(float *y, int64_t ldy, int64_t n, int64_t d, const float *bias);

    /* Rotates the q heads in place and writes rotated k and v as fp16 to their pages.
     * qkv (span.rows, ld): n_heads q heads, then n_kv_heads k heads, then n_kv_heads v heads. */
    void (*rope_kv)(float *qkv, int64_t ld, int n_heads, const struct kn_kv *kv,
                    const struct kn_span *span, const struct kn_rope_table *table,
                    enum kn_rope kind);

    /* Causal attention of the span's rows [row_begin, row_end), for KV heads [head_begin, head_end)
     * and the query heads that read them. The pages hold K and V of all rows of the span. */
    void (*attention)(const struct kn_attn *a, uint32_t row_begin, uint32_t row_end, int head_begin,
                      int head_end);

    /* The same, shared out by split of the context: each split leaves (m, l, o[head_dim]) for a row
     * and query head in `part`; the merge folds them in order. Same bits as `attention`.
     * part: (n_heads, n_splits, head_dim + 2) for one row, n_splits = its position / KN_ATTN_SPLIT
     * + 1; what the row does not see is neither written nor read. */
    void (*attention_part)(const struct kn_attn *a, uint32_t row, int head_begin, int head_end,
                           uint32_t split_begin, uint32_t split_end, float *part);
    void (*attention_merge)(const struct kn_attn *a, uint32_t row, int head_begin, int head_end,
                            const float *part);

    /* a = quantize(silu(gate) * up) for rows [row_begin, row_end). gu (n, 2 * ff), row stride ldgu:
     * gate, then up. */
    void (*swiglu_quantize)(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                            int64_t ff, struct kn_act *a);
    /* The same with gelu (tanh form) for silu. */
    void (*geglu_quantize)(const float *gu, int64_t ldgu, int64_t row_begin, int64_t row_end,
                           int64_t ff, struct kn_act *a);

    /* x = cap * tanh(x / cap), n elements; cap > 0. */
    void (*softcap)(float *x, int64_t n, float cap);

    /* Mixtures of experts. For n rows of n_experts logits (row stride ld): the n_used experts with
     * the most logit, the lowest ids of equals, ids ascending, and the softmax of their logits
     * alone. ids, weights (n, n_used). 0 < n_used <= n_experts. NaN comes last. */
    void (*route)(const float *logits, int64_t ld, int64_t n, int n_experts, int n_used,
                  uint32_t *ids, float *weights);
    /* x (d) += sum over i of weights[i] * row rows[i] of y (any, d); weights (n_used). */
    void (*combine)(const float *y, const uint32_t *rows, const float *weights, int n_used,
                    int64_t d, float *x);

    /* Picks the token at `position` from logits (vocab, at least 1), which are overwritten.
     * scratch: kn_sample_scratch_bytes(vocab). A NaN logit counts as -inf; ids outside the
     * vocabulary are ignored; if every token is excluded, the lowest allowed id wins (0 when the
     * mask is empty). */
    void (*sample)(float *logits, uint32_t vocab, const struct kn_sampling *p, uint64_t position,
                   void *scratch, struct kn_sampled *out);
};

/* NULL for an isa that this CPU has not, and only then. */
const struct kn_ops *kn_ops(enum kn_isa isa);

#ifdef __cplusplus
}
#endif

#endif
