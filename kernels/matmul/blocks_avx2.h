/* blocks_avx2.h: blocks.h in AVX2 registers of 8 rows, integer products with vpmaddubsw: four
 * activations of a token are broadcast against four columns of the rows. */

#define N(name) name##_n256
#define NF __m256
#define NI __m256i
#define N_ROWS 8
#define N_INLINE static inline __attribute__((always_inline)) KN_TARGET_AVX2

N_INLINE NI N(zeroi)(void)
{
    return _mm256_setzero_si256();
}

N_INLINE NF N(zerof)(void)
{
    return _mm256_setzero_ps();
}

N_INLINE NI N(set8)(int x)
{
    return _mm256_set1_epi8((char)x);
}

N_INLINE NI N(set16)(int x)
{
    return _mm256_set1_epi16((short)x);
}

N_INLINE NI N(seti)(int32_t x)
{
    return _mm256_set1_epi32(x);
}

N_INLINE NF N(setf)(float x)
{
    return _mm256_set1_ps(x);
}

N_INLINE NI N(loadi)(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)p);
}

N_INLINE NF N(load_half)(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}

/* A byte a row. */
N_INLINE NI N(load_bytes)(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}

N_INLINE NI N(load_pairs)(const uint8_t *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)p));
}

N_INLINE void N(storef)(float *p, NF v)
{
    _mm256_storeu_ps(p, v);
}

N_INLINE NI N(andi)(NI a, NI b)
{
    return _mm256_and_si256(a, b);
}

N_INLINE NI N(ori)(NI a, NI b)
{
    return _mm256_or_si256(a, b);
}

N_INLINE NI N(addi)(NI a, NI b)
{
    return _mm256_add_epi32(a, b);
}

N_INLINE NI N(subi)(NI a, NI b)
{
    return _mm256_sub_epi32(a, b);
}

N_INLINE NI N(sub16)(NI a, NI b)
{
    return _mm256_sub_epi16(a, b);
}

N_INLINE NI N(muli)(NI a, NI b)
{
    return _mm256_mullo_epi32(a, b);
}

N_INLINE NI N(dot16)(NI a, NI b)
{
    return _mm256_madd_epi16(a, b);
}

/* To the left, or to the right by -n. */
N_INLINE NI N(shift16)(NI v, int n)
{
    return n > 0 ? _mm256_slli_epi16(v, n) : _mm256_srli_epi16(v, -n);
}

N_INLINE NI N(shift32)(NI v, int n)
{
    return _mm256_slli_epi32(v, n);
}

/* The signed int16 of each 32 bits. */
N_INLINE NI N(first16)(NI v)
{
    return _mm256_srai_epi32(_mm256_slli_epi32(v, 16), 16);
}

N_INLINE NI N(second16)(NI v)
{
    return _mm256_srai_epi32(v, 16);
}

N_INLINE NF N(itof)(NI v)
{
    return _mm256_cvtepi32_ps(v);
}

N_INLINE NF N(mulf)(NF a, NF b)
{
    return _mm256_mul_ps(a, b);
}

N_INLINE NF N(fmaf)(NF a, NF b, NF c)
{
    return _mm256_fmadd_ps(a, b, c);
}

N_INLINE NF N(negf)(NF v)
{
    return _mm256_xor_ps(v, _mm256_set1_ps(-0.0f));
}

/* kn_e8m0_half. */
N_INLINE NF N(e8m0_half)(NI e)
{
    NI normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    NI tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);

    return _mm256_castsi256_ps(
        _mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}

/* What nibbles of a codebook type stand for; MXFP4 made unsigned. */
N_INLINE NI N(lookup)(int type, NI v)
{
    if (type == KN_IQ4_NL) {
        __m128i book = _mm_setr_epi8(KN_CODEBOOK_IQ4_NL);
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(book), v);
    }
    if (type == KN_MXFP4) {
        __m128i book = _mm_setr_epi8(KN_CODEBOOK_MXFP4);
        book = _mm_add_epi8(book, _mm_set1_epi8(16));
        return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(book), v);
    }
    return v;
}

/* Types whose quants take all eight bits are multiplied as |w| times x with w's sign; the others
 * are unsigned. */
N_INLINE bool N(is_signed)(int type)
{
    return type == KN_Q8_0 || type == KN_IQ4_NL;
}

/* Whether N(dots) leaves the quants' zero in. */
N_INLINE bool N(dots_above)(int type)
{
    return type_zero_log2(type) != 0 && !N(is_signed)(type);
}

/* Of how many steps of the loop over g below the 16-bit sums hold: a step adds one vpmaddubsw of at
 * most 2 * 127 * (largest quant) to each of two halves, or two to the whole block.
 * Q4: 8 * 254 * 15 = 30,480; Q5: 4 * 254 * 31 = 31,496; MXFP4: 4 * 254 * 28 = 28,448;
 * Q6_K: 2 * 254 * 63 = 32,004; Q3_K: 4 * 254 * 7. */
N_INLINE int N(steps16)(int type)
{
    return type_high_bits(type) == 2 || type == KN_MXFP4 ||
                   (type_high_bits(type) == 1 && type != KN_Q3_K)
               ? 2
               : 4;
}

N_INLINE void N(load_groups)(int type, const uint8_t *p, int g, NI *w0, NI *w1);

/* Signed products of two groups, widened and added. */
N_INLINE NI N(dot_signed)(NI w0, NI w1, NI x0, NI x1)
{
    NI p0 = _mm256_maddubs_epi16(_mm256_abs_epi8(w0), _mm256_sign_epi8(x0, w0));
    NI p1 = _mm256_maddubs_epi16(_mm256_abs_epi8(w1), _mm256_sign_epi8(x1, w1));

    return _mm256_add_epi32(_mm256_madd_epi16(p0, N(set16)(1)), _mm256_madd_epi16(p1, N(set16)(1)));
}

/* Products of a block with n tokens: of its first and its second half for sub-blocks of 16, else
 * of all in dot0. */
N_INLINE void N(dots)(int type, int n, const uint8_t *quants, const int8_t *q, int64_t ldq,
                      NI *dot0, NI *dot1)
{
    bool halves = type_sub(type) == 16;
    NI sum0[TILE_TOKENS_MAX], sum1[TILE_TOKENS_MAX]; /* 16-bit */

    for (int i = 0; i < n; i++) {
        dot0[i] = dot1[i] = sum0[i] = sum1[i] = N(zeroi)();
    }
    for (int g = 0; g < 4; g++) {
        NI w0, w1;
        N(load_groups)(type, quants, g, &w0, &w1);
        if (type == KN_Q8_0) { /* packed plus 128 */
            w0 = _mm256_xor_si256(w0, N(set8)(INT8_MIN));
            w1 = _mm256_xor_si256(w1, N(set8)(INT8_MIN));
        }
        for (int i = 0; i < n; i++) {
            NI x0 = N(seti)(load_quad(q + i * ldq + 4 * g));
            NI x1 = N(seti)(load_quad(q + i * ldq + 4 * g + 16));
            if (N(is_signed)(type)) {
                dot0[i] = N(addi)(dot0[i], N(dot_signed)(w0, w1, x0, x1));
                continue;
            }
            NI p0 = _mm256_maddubs_epi16(w0, x0), p1 = _mm256_maddubs_epi16(w1, x1);
            if (halves) {
                sum0[i] = _mm256_add_epi16(sum0[i], p0);
                sum1[i] = _mm256_add_epi16(sum1[i], p1);
            } else {
                sum0[i] = _mm256_add_epi16(sum0[i], _mm256_add_epi16(p0, p1));
            }
            if ((g + 1) % N(steps16)(type) == 0) {
                dot0[i] = N(addi)(dot0[i], N(dot16)(sum0[i], N(set16)(1)));
                sum0[i] = N(zeroi)();
                if (halves) {
                    dot1[i] = N(addi)(dot1[i], N(dot16)(sum1[i], N(set16)(1)));
                    sum1[i] = N(zeroi)();
                }
            }
        }
    }
}

#include "kernels/matmul/blocks.h"

N_INLINE void blocks_tile_avx2(int type, int n, const struct block_tile *t,
                               struct segment_sums *sums)
{
    N(blocks_rows)(type, n, 0, t, sums);
    N(blocks_rows)(type, n, KN_ROW_TILE / 2, t, sums);
}

#undef N
#undef NF
#undef NI
#undef N_ROWS
#undef N_INLINE
