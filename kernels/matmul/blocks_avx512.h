/* blocks_avx512.h: blocks.h in AVX-512 registers of 16 rows, integer products with vpdpbusd: four
 * activations of a token are broadcast against four columns of the rows. */

#define N(name) name##_n512
#define NF __m512
#define NI __m512i
#define N_ROWS 16
#define N_INLINE static inline __attribute__((always_inline)) KN_TARGET_AVX512

N_INLINE NI N(zeroi)(void)
{
    return _mm512_setzero_si512();
}

N_INLINE NF N(zerof)(void)
{
    return _mm512_setzero_ps();
}

N_INLINE NI N(set8)(int x)
{
    return _mm512_set1_epi8((char)x);
}

N_INLINE NI N(set16)(int x)
{
    return _mm512_set1_epi16((short)x);
}

N_INLINE NI N(seti)(int32_t x)
{
    return _mm512_set1_epi32(x);
}

N_INLINE NF N(setf)(float x)
{
    return _mm512_set1_ps(x);
}

N_INLINE NI N(loadi)(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

N_INLINE NF N(load_half)(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

/* A byte a row. */
N_INLINE NI N(load_bytes)(const uint8_t *p)
{
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

N_INLINE NI N(load_pairs)(const uint8_t *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

N_INLINE void N(storef)(float *p, NF v)
{
    _mm512_storeu_ps(p, v);
}

N_INLINE NI N(andi)(NI a, NI b)
{
    return _mm512_and_si512(a, b);
}

N_INLINE NI N(ori)(NI a, NI b)
{
    return _mm512_or_si512(a, b);
}

N_INLINE NI N(addi)(NI a, NI b)
{
    return _mm512_add_epi32(a, b);
}

N_INLINE NI N(subi)(NI a, NI b)
{
    return _mm512_sub_epi32(a, b);
}

N_INLINE NI N(sub16)(NI a, NI b)
{
    return _mm512_sub_epi16(a, b);
}

N_INLINE NI N(muli)(NI a, NI b)
{
    return _mm512_mullo_epi32(a, b);
}

N_INLINE NI N(dot16)(NI a, NI b)
{
    return _mm512_madd_epi16(a, b);
}

/* To the left, or to the right by -n. */
N_INLINE NI N(shift16)(NI v, int n)
{
    return n > 0 ? _mm512_slli_epi16(v, (unsigned)n) : _mm512_srli_epi16(v, (unsigned)-n);
}

N_INLINE NI N(shift32)(NI v, int n)
{
    return _mm512_slli_epi32(v, (unsigned)n);
}

/* The signed int16 of each 32 bits. */
N_INLINE NI N(first16)(NI v)
{
    return _mm512_srai_epi32(_mm512_slli_epi32(v, 16), 16);
}

N_INLINE NI N(second16)(NI v)
{
    return _mm512_srai_epi32(v, 16);
}

N_INLINE NF N(itof)(NI v)
{
    return _mm512_cvtepi32_ps(v);
}

N_INLINE NF N(mulf)(NF a, NF b)
{
    return _mm512_mul_ps(a, b);
}

N_INLINE NF N(fmaf)(NF a, NF b, NF c)
{
    return _mm512_fmadd_ps(a, b, c);
}

N_INLINE NF N(negf)(NF v)
{
    return _mm512_xor_ps(v, _mm512_set1_ps(-0.0f));
}

/* kn_e8m0_half. */
N_INLINE NF N(e8m0_half)(NI e)
{
    NI normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    NI tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);

    return _mm512_castsi512_ps(
        _mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)), tiny));
}

/* What nibbles of a codebook type stand for, made unsigned. */
N_INLINE NI N(lookup)(int type, NI v)
{
    if (type == KN_IQ4_NL) {
        __m128i book = _mm_setr_epi8(KN_CODEBOOK_IQ4_NL);
        book = _mm_xor_si128(book, _mm_set1_epi8(INT8_MIN));
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(book), v);
    }
    if (type == KN_MXFP4) {
        __m128i book = _mm_setr_epi8(KN_CODEBOOK_MXFP4);
        book = _mm_add_epi8(book, _mm_set1_epi8(16));
        return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(book), v);
    }
    return v;
}

/* Whether N(dots) leaves the quants' zero in. */
N_INLINE bool N(dots_above)(int type)
{
    return type_zero_log2(type) != 0;
}

N_INLINE void N(load_groups)(int type, const uint8_t *p, int g, NI *w0, NI *w1);

/* Products of a block with n tokens: of its first and its second half for sub-blocks of 16, else
 * of all in dot0. */
N_INLINE void N(dots)(int type, int n, const uint8_t *quants, const int8_t *q, int64_t ldq,
                      NI *dot0, NI *dot1)
{
    NI w[8];

    for (int g = 0; g < 4; g++) {
        N(load_groups)(type, quants, g, &w[g], &w[g + 4]);
    }
    if (type_sub(type) == 16) {
        for (int i = 0; i < n; i++) {
            dot0[i] = dot1[i] = N(zeroi)();
            for (int g = 0; g < 4; g++) {
                const int8_t *x = q + i * ldq + 4 * g;
                dot0[i] = _mm512_dpbusd_epi32(dot0[i], w[g], N(seti)(load_quad(x)));
                dot1[i] = _mm512_dpbusd_epi32(dot1[i], w[g + 4], N(seti)(load_quad(x + 16)));
            }
        }
        return;
    }
    /* Token after token in the inner loop: vpdpbusd takes four cycles, and a scheduler does not see
     * far enough past chains of eight. Few tokens have two chains each for the same reason. */
    for (int i = 0; i < n; i++) {
        dot0[i] = dot1[i] = N(zeroi)();
    }
    for (int g = 0; g < 8; g++) {
        for (int i = 0; i < n; i++) {
            NI *dot = n < 4 && g >= 4 ? &dot1[i] : &dot0[i];
            *dot = _mm512_dpbusd_epi32(*dot, w[g], N(seti)(load_quad(q + i * ldq + 4 * g)));
        }
    }
    for (int i = 0; i < n && n < 4; i++) {
        dot0[i] = N(addi)(dot0[i], dot1[i]);
    }
}

#include "kernels/matmul/blocks.h"

N_INLINE void blocks_tile_avx512(int type, int n, const struct block_tile *t,
                                 struct segment_sums *sums)
{
    N(blocks_rows)(type, n, 0, t, sums);
}

#undef N
#undef NF
#undef NI
#undef N_ROWS
#undef N_INLINE
