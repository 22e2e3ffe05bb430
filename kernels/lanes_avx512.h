/* lanes_avx512.h: sixteen lanes as one AVX-512 register. See lanes.h. */
#ifndef ARGOSY_KERNELS_LANES_AVX512_H
#define ARGOSY_KERNELS_LANES_AVX512_H

#include <immintrin.h>

#include "kernels/table.h"

#define LANES_INLINE static inline __attribute__((always_inline)) KN_TARGET_AVX512

LANES_INLINE __m512 set1_avx512(float x)
{
    return _mm512_set1_ps(x);
}

LANES_INLINE __m512i iset1_avx512(int32_t x)
{
    return _mm512_set1_epi32(x);
}

/* The first n lanes; n may be anything. */
LANES_INLINE __mmask16 first_avx512(int64_t n)
{
    uint32_t mask = n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1;

    return (__mmask16)mask;
}

LANES_INLINE __m512 load_avx512(const float *p)
{
    return _mm512_loadu_ps(p);
}

/* The first n lanes from memory, the rest 0. */
LANES_INLINE __m512 loadn_avx512(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(first_avx512(n), p);
}

LANES_INLINE void store_avx512(float *p, __m512 v)
{
    _mm512_storeu_ps(p, v);
}

LANES_INLINE void storen_avx512(float *p, __m512 v, int64_t n)
{
    _mm512_mask_storeu_ps(p, first_avx512(n), v);
}

/* fp16, n is 8 or 16. */
LANES_INLINE __m512 loadh_avx512(const uint16_t *p, int n)
{
    if (n >= 16) {
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
    }
    return _mm512_cvtph_ps(
        _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p)));
}

LANES_INLINE void storeh_avx512(uint16_t *p, __m512 v, int n)
{
    __m256i h = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);

    if (n >= 16) {
        _mm256_storeu_si256((__m256i *)(void *)p, h);
    } else {
        _mm_storeu_si128((__m128i *)(void *)p, _mm256_castsi256_si128(h));
    }
}

LANES_INLINE __m512 load_bf16_avx512(const uint16_t *p)
{
    __m256i h = _mm256_loadu_si256((const __m256i *)(const void *)p);

    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* int8, n is 8 or 16. */
LANES_INLINE __m512 load8_avx512(const int8_t *p, int n)
{
    const __m128i *q = (const __m128i *)(const void *)p;

    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(n >= 16 ? _mm_loadu_si128(q) : _mm_loadl_epi64(q)));
}

/* To int8, of values that fit. */
LANES_INLINE void store8_avx512(int8_t *p, __m512i v)
{
    _mm_storeu_si128((__m128i *)(void *)p, _mm512_cvtepi32_epi8(v));
}

LANES_INLINE __m512 add_avx512(__m512 a, __m512 b)
{
    return _mm512_add_ps(a, b);
}

LANES_INLINE __m512 sub_avx512(__m512 a, __m512 b)
{
    return _mm512_sub_ps(a, b);
}

LANES_INLINE __m512 mul_avx512(__m512 a, __m512 b)
{
    return _mm512_mul_ps(a, b);
}

LANES_INLINE __m512 div_avx512(__m512 a, __m512 b)
{
    return _mm512_div_ps(a, b);
}

/* a * b + c, one rounding. */
LANES_INLINE __m512 fma_avx512(__m512 a, __m512 b, __m512 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* a < b ? a : b, and a > b ? a : b: b if either is NaN. */
LANES_INLINE __m512 min_avx512(__m512 a, __m512 b)
{
    return _mm512_min_ps(a, b);
}

LANES_INLINE __m512 max_avx512(__m512 a, __m512 b)
{
    return _mm512_max_ps(a, b);
}

LANES_INLINE __mmask16 less_avx512(__m512 a, __m512 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}

LANES_INLINE __m512 select_avx512(__mmask16 m, __m512 yes, __m512 no)
{
    return _mm512_mask_blend_ps(m, no, yes);
}

LANES_INLINE uint32_t mask_bits_avx512(__mmask16 m)
{
    return m;
}

LANES_INLINE __m512i bits_avx512(__m512 v)
{
    return _mm512_castps_si512(v);
}

LANES_INLINE __m512 floats_avx512(__m512i v)
{
    return _mm512_castsi512_ps(v);
}

LANES_INLINE __m512 itof_avx512(__m512i v)
{
    return _mm512_cvtepi32_ps(v);
}

/* Half to even. */
LANES_INLINE __m512i ftoi_avx512(__m512 v)
{
    return _mm512_cvtps_epi32(v);
}

LANES_INLINE __m512i iadd_avx512(__m512i a, __m512i b)
{
    return _mm512_add_epi32(a, b);
}

LANES_INLINE __m512i isub_avx512(__m512i a, __m512i b)
{
    return _mm512_sub_epi32(a, b);
}

LANES_INLINE __m512i iand_avx512(__m512i a, __m512i b)
{
    return _mm512_and_si512(a, b);
}

LANES_INLINE __m512i ior_avx512(__m512i a, __m512i b)
{
    return _mm512_or_si512(a, b);
}

LANES_INLINE __m512i ixor_avx512(__m512i a, __m512i b)
{
    return _mm512_xor_si512(a, b);
}

LANES_INLINE __m512i imax_avx512(__m512i a, __m512i b)
{
    return _mm512_max_epi32(a, b);
}

#define shl_avx512(v, n) _mm512_slli_epi32(v, n)
#define sar_avx512(v, n) _mm512_srai_epi32(v, n)
#define shr_avx512(v, n) _mm512_srli_epi32(v, n)

/* High and low halves of the 32 × 32-bit products, unsigned. */
LANES_INLINE void mulhl_avx512(__m512i a, uint32_t by, __m512i *high, __m512i *low)
{
    __m512i b = _mm512_set1_epi32((int32_t)by);
    __m512i even = _mm512_mul_epu32(a, b);
    __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), b);

    *low = _mm512_mullo_epi32(a, b);
    *high = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
}

LANES_INLINE __m512i iload_avx512(const void *p)
{
    return _mm512_loadu_si512(p);
}

LANES_INLINE void istore_avx512(void *p, __m512i v)
{
    _mm512_storeu_si512(p, v);
}

LANES_INLINE __m512i iselect_eq_avx512(__m512i a, __m512i b, __m512i yes, __m512i no)
{
    return _mm512_mask_blend_epi32(_mm512_cmpeq_epi32_mask(a, b), no, yes);
}

/* Adds lane i + 8, then + 4, + 2, + 1 to lane i. */
LANES_INLINE float fold_avx512(__m512 v)
{
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* Of values without NaN. */
LANES_INLINE float fold_max_avx512(__m512 v)
{
    return _mm512_reduce_max_ps(v);
}

LANES_INLINE int32_t ifold_max_avx512(__m512i v)
{
    return _mm512_reduce_max_epi32(v);
}

LANES_INLINE int32_t ifold_avx512(__m512i v)
{
    return _mm512_reduce_add_epi32(v);
}

/* x0 y0 x1 y1 … in a, b to x in even, y in odd; and back. */
LANES_INLINE void unzip_avx512(__m512 a, __m512 b, __m512 *even, __m512 *odd)
{
    const __m512i e = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);

    *even = _mm512_permutex2var_ps(a, e, b);
    *odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(e, _mm512_set1_epi32(1)), b);
}

LANES_INLINE void zip_avx512(__m512 even, __m512 odd, __m512 *a, __m512 *b)
{
    const __m512i low = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);

    *a = _mm512_permutex2var_ps(even, low, odd);
    *b = _mm512_permutex2var_ps(even, _mm512_add_epi32(low, _mm512_set1_epi32(8)), odd);
}

#undef LANES_INLINE
#endif

#undef V
#undef VF
#undef VI
#undef VM
#undef V_TARGET
#undef V_ISA
#define V(name) name##_avx512
#define VF __m512
#define VI __m512i
#define VM __mmask16
#define V_TARGET KN_TARGET_AVX512
#define V_ISA 512

#include "kernels/lanes_math.h"
