/* table.h: the functions that dispatch.c puts into struct kn_ops, and what the
 * packed layout looks like to the operations that read it. Internal to kernels/. */
#ifndef ARGOSY_KERNELS_TABLE_H
#define ARGOSY_KERNELS_TABLE_H

#include "kernels/kernels.h"

/* A function with this attribute may use the instructions it names whatever the file's flags;
 * it is reached through kn_ops() alone, after the CPU was asked. */
#define KN_TARGET_AVX2 __attribute__((target("avx2,fma,f16c")))
#define KN_TARGET_AVX512 \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

#define KN_TARGET_AMX                                                                             \
    __attribute__((target("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile," \
                          "amx-int8")))

/* ---- packed layout (README.md draws it) ------------------------------------------------------ */

#define KN_SUB_BYTES 32 /* a block's sub-scales in a tile */

/* KN_ISA_REF: the rows as they are in the file. The others: tiles of KN_ROW_TILE rows.
 *
 * A tile of a block type holds first, unit after unit, the scales, padded to 64 bytes at their end:
 * - 16 fp16 d, then 16 fp16 m if the type has one (MXFP4: 16 bytes e)
 * - and for the K formats, block after block, KN_SUB_BYTES: 16 scales and then 16 minima of a byte
 *   each, or for sub-blocks of 16 the two scales of each row in turn (Q2_K: minimum in the high
 *   nibble)
 *
 * and then, block after block, the quants in planes of registers of 64 bytes. Byte 4 r + c of a
 * register is of row r and of column c of a group of four columns; a block has eight groups:
 * - low 4 bits: 4 registers, groups i and i + 4 in the nibbles of register i
 * - low 2 bits: 2 registers, groups 4 i to 4 i + 3 from the low bits of register i up
 * - 8 bits: 8 registers
 * - high 1 bit: 1 register, group g in bit g
 * - high 2 bits: as low 2 bits
 *
 * A tile of a float type holds for each column the elements of 16 rows. */
struct kn_layout {
    int64_t unit_blocks; /* blocks of 32 in a unit: 1 or 8; 0 for floats */
    size_t scale_bytes;  /* of a unit; 0 for floats */
    size_t subs_at;      /* where in it the sub-scales start */
    size_t quant_bytes;  /* of a block of 16 rows; of one column for floats */
    size_t scales;       /* bytes of all the scales of a tile, a multiple of 64 */
    size_t tile;         /* bytes of a tile, a multiple of 64 */
};

void kn_layout_init(struct kn_layout *l, int type, int64_t cols);
/* Row `row` of w, whatever its isa, to fp32: the bits of kn_dequantize_row on the file's row. */
void kn_unpack_row(const struct kn_matrix *w, int64_t row, float *dst);
/* Bytes of a row in the file. */
size_t kn_row_bytes(int type, int64_t cols);
static inline bool kn_is_float(int type)
{
    return type == KN_F32 || type == KN_F16 || type == KN_BF16;
}

/* ---- the operations, one of each for an isa -------------------------------------------------- */

#define KN_DECLARE(isa)                                                                           \
    void kn_embed_##isa(const struct kn_matrix *w, const uint32_t *ids, int64_t n, float scale,   \
                        float *x);                                                                \
    void kn_rmsnorm_##isa(const float *x, const float *w, float w_offset, float eps, int64_t n,   \
                          int64_t d, float *y);                                                   \
    void kn_rmsnorm_quantize_##isa(const float *x, const float *w, float w_offset, float eps,     \
                                   int64_t row_begin, int64_t row_end, int64_t d,                 \
                                   struct kn_act *a);                                             \
    void kn_quantize_##isa(const float *x, int64_t ldx, int64_t row_begin, int64_t row_end,       \
                           struct kn_act *a);                                                     \
    void kn_matmul_##isa(const struct kn_matrix *w, const struct kn_act *x, int64_t n,            \
                         int64_t row_begin, int64_t row_end, bool accumulate, float *y,           \
                         int64_t ldy);                                                            \
    void kn_add_bias_##isa(float *y, int64_t ldy, int64_t n, int64_t d, const float *bias);       \
    void kn_rope_kv_##isa(float *qkv, int64_t ld, int n_heads, const struct kn_kv *kv,            \
                          const struct kn_span *span, const struct kn_rope_table *table,          \
                          enum kn_rope kind);                                                     \
    void kn_attention_##isa(const struct kn_attn *a, uint32_t row_begin, uint32_t row_end,        \
                            int head_begin, int head_end);                                        \
    void kn_attention_part_##isa(const struct kn_attn *a, uint32_t row, int head_begin,           \
                                 int head_end, uint32_t split_begin, uint32_t split_end,          \
                                 float *part);                                                    \
    void kn_attention_merge_##isa(const struct kn_attn *a, uint32_t row, int head_begin,          \
                                  int head_end, const float *part);                               \
    void kn_swiglu_quantize_##isa(const float *gu, int64_t ldgu, int64_t row_begin,               \
                                  int64_t row_end, int64_t ff, struct kn_act *a);                 \
    void kn_geglu_quantize_##isa(const float *gu, int64_t ldgu, int64_t row_begin,                \
                                 int64_t row_end, int64_t ff, struct kn_act *a);                  \
    void kn_softcap_##isa(float *x, int64_t n, float cap);                                        \
    void kn_route_##isa(const float *logits, int64_t ld, int64_t n, int n_experts, int n_used,    \
                        uint32_t *ids, float *weights);                                           \
    void kn_combine_##isa(const float *y, const uint32_t *rows, const float *weights, int n_used, \
                          int64_t d, float *x);                                                   \
    void kn_sample_##isa(float *logits, uint32_t vocab, const struct kn_sampling *p,              \
                         uint64_t position, void *scratch, struct kn_sampled *out)

KN_DECLARE(ref);
KN_DECLARE(avx2);
KN_DECLARE(avx512);
/* AMX is AVX-512 but for this. */
void kn_matmul_amx(const struct kn_matrix *w, const struct kn_act *x, int64_t n, int64_t row_begin,
                   int64_t row_end, bool accumulate, float *y, int64_t ldy);

/* The operations of `name`, and the matmul of `matmul_name`. */
#define KN_TABLE(ISA, name, matmul_name)                                                          \
    {                                                                                             \
        .isa = (ISA), .embed = kn_embed_##name, .rmsnorm = kn_rmsnorm_##name,                     \
        .quantize = kn_quantize_##name, .rmsnorm_quantize = kn_rmsnorm_quantize_##name,           \
        .matmul = kn_matmul_##matmul_name, .add_bias = kn_add_bias_##name,                        \
        .rope_kv = kn_rope_kv_##name, .attention = kn_attention_##name,                           \
        .attention_part = kn_attention_part_##name, .attention_merge = kn_attention_merge_##name, \
        .swiglu_quantize = kn_swiglu_quantize_##name, .geglu_quantize = kn_geglu_quantize_##name, \
        .softcap = kn_softcap_##name, .route = kn_route_##name, .combine = kn_combine_##name,     \
        .sample = kn_sample_##name                                                                \
    }

#endif
