/* lanes_avx2.h: sixteen lanes as a pair of AVX registers. See lanes.h. */
#ifndef ARGOSY_KERNELS_LANES_AVX2_H
#define ARGOSY_KERNELS_LANES_AVX2_H

#include <immintrin.h>

#include "kernels/table.h"

#define LANES_INLINE static inline __attribute__((always_inline)) KN_TARGET_AVX2

struct floats_pair { /* lanes 0 to 7, and 8 to 15 */
    __m256 a, b;
};

struct ints_pair {
    __m256i a, b;
};

LANES_INLINE struct floats_pair set1_avx2(float x)
{
    return (struct floats_pair){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

LANES_INLINE struct ints_pair iset1_avx2(int32_t x)
{
    return (struct ints_pair){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}

/* The first n lanes; n may be anything. */
LANES_INLINE struct floats_pair first_avx2(int64_t n)
{
    __m256i limit = _mm256_set1_epi32(n > 16 ? 16 : n < 0 ? 0 : (int32_t)n);
    __m256i a = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    __m256i b = _mm256_set_epi32(15, 14, 13, 12, 11, 10, 9, 8);

    return (struct floats_pair){_mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, a)),
                                _mm256_castsi256_ps(_mm256_cmpgt_epi32(limit, b))};
}

LANES_INLINE struct floats_pair load_avx2(const float *p)
{
    return (struct floats_pair){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

/* The first n lanes from memory, the rest 0. */
LANES_INLINE struct floats_pair loadn_avx2(const float *p, int64_t n)
{
    if (n >= 16) {
        return load_avx2(p);
    }
    struct floats_pair m = first_avx2(n);
    return (struct floats_pair){_mm256_maskload_ps(p, _mm256_castps_si256(m.a)),
                                _mm256_maskload_ps(p + 8, _mm256_castps_si256(m.b))};
}

LANES_INLINE void store_avx2(float *p, struct floats_pair v)
{
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}

LANES_INLINE void storen_avx2(float *p, struct floats_pair v, int64_t n)
{
    if (n >= 16) {
        store_avx2(p, v);
        return;
    }
    struct floats_pair m = first_avx2(n);
    _mm256_maskstore_ps(p, _mm256_castps_si256(m.a), v.a);
    _mm256_maskstore_ps(p + 8, _mm256_castps_si256(m.b), v.b);
}

/* fp16, n is 8 or 16. */
LANES_INLINE struct floats_pair loadh_avx2(const uint16_t *p, int n)
{
    const __m128i *h = (const __m128i *)(const void *)p;

    return (struct floats_pair){_mm256_cvtph_ps(_mm_loadu_si128(h)),
                                n >= 16 ? _mm256_cvtph_ps(_mm_loadu_si128(h + 1))
                                        : _mm256_setzero_ps()};
}

LANES_INLINE void storeh_avx2(uint16_t *p, struct floats_pair v, int n)
{
    __m128i *h = (__m128i *)(void *)p;

    _mm_storeu_si128(h, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
    if (n >= 16) {
        _mm_storeu_si128(h + 1, _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
    }
}

LANES_INLINE struct floats_pair load_bf16_avx2(const uint16_t *p)
{
    const __m128i *h = (const __m128i *)(const void *)p;
    __m256i a = _mm256_cvtepu16_epi32(_mm_loadu_si128(h));
    __m256i b = _mm256_cvtepu16_epi32(_mm_loadu_si128(h + 1));

    return (struct floats_pair){_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                                _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))};
}

/* int8, n is 8 or 16. */
LANES_INLINE struct floats_pair load8_avx2(const int8_t *p, int n)
{
    const __m128i *q = (const __m128i *)(const void *)p;
    __m128i b =
        n >= 16 ? _mm_loadl_epi64((const __m128i *)(const void *)(p + 8)) : _mm_setzero_si128();

    return (struct floats_pair){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(q))),
                                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b))};
}

/* To int8, of values that fit. */
LANES_INLINE void store8_avx2(int8_t *p, struct ints_pair v)
{
    __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
    __m128i q = _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));

    _mm_storeu_si128((__m128i *)(void *)p, q);
}

#define LANES_FLOAT2(name, op)                                                              \
    LANES_INLINE struct floats_pair name##_avx2(struct floats_pair x, struct floats_pair y) \
    {                                                                                       \
        return (struct floats_pair){op(x.a, y.a), op(x.b, y.b)};                            \
    }
LANES_FLOAT2(add, _mm256_add_ps)
LANES_FLOAT2(sub, _mm256_sub_ps)
LANES_FLOAT2(mul, _mm256_mul_ps)
LANES_FLOAT2(div, _mm256_div_ps)
/* a < b ? a : b, and a > b ? a : b: b if either is NaN. */
LANES_FLOAT2(min, _mm256_min_ps)
LANES_FLOAT2(max, _mm256_max_ps)
#undef LANES_FLOAT2

#define LANES_INT2(name, op)                                                          \
    LANES_INLINE struct ints_pair name##_avx2(struct ints_pair x, struct ints_pair y) \
    {                                                                                 \
        return (struct ints_pair){op(x.a, y.a), op(x.b, y.b)};                        \
    }
LANES_INT2(iadd, _mm256_add_epi32)
LANES_INT2(isub, _mm256_sub_epi32)
LANES_INT2(iand, _mm256_and_si256)
LANES_INT2(ior, _mm256_or_si256)
LANES_INT2(ixor, _mm256_xor_si256)
LANES_INT2(imax, _mm256_max_epi32)
#undef LANES_INT2

/* a * b + c, one rounding. */
LANES_INLINE struct floats_pair fma_avx2(struct floats_pair x, struct floats_pair y,
                                         struct floats_pair z)
{
    return (struct floats_pair){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}

LANES_INLINE struct floats_pair less_avx2(struct floats_pair x, struct floats_pair y)
{
    return (struct floats_pair){_mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ),
                                _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ)};
}

LANES_INLINE struct floats_pair select_avx2(struct floats_pair m, struct floats_pair yes,
                                            struct floats_pair no)
{
    return (struct floats_pair){_mm256_blendv_ps(no.a, yes.a, m.a),
                                _mm256_blendv_ps(no.b, yes.b, m.b)};
}

LANES_INLINE uint32_t mask_bits_avx2(struct floats_pair m)
{
    return (uint32_t)_mm256_movemask_ps(m.a) | (uint32_t)_mm256_movemask_ps(m.b) << 8;
}

LANES_INLINE struct ints_pair bits_avx2(struct floats_pair v)
{
    return (struct ints_pair){_mm256_castps_si256(v.a), _mm256_castps_si256(v.b)};
}

LANES_INLINE struct floats_pair floats_avx2(struct ints_pair v)
{
    return (struct floats_pair){_mm256_castsi256_ps(v.a), _mm256_castsi256_ps(v.b)};
}

LANES_INLINE struct floats_pair itof_avx2(struct ints_pair v)
{
    return (struct floats_pair){_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)};
}

/* Half to even. */
LANES_INLINE struct ints_pair ftoi_avx2(struct floats_pair v)
{
    return (struct ints_pair){_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b)};
}

LANES_INLINE struct ints_pair shl_avx2(struct ints_pair v, int n)
{
    return (struct ints_pair){_mm256_slli_epi32(v.a, n), _mm256_slli_epi32(v.b, n)};
}

LANES_INLINE struct ints_pair sar_avx2(struct ints_pair v, int n)
{
    return (struct ints_pair){_mm256_srai_epi32(v.a, n), _mm256_srai_epi32(v.b, n)};
}

LANES_INLINE struct ints_pair shr_avx2(struct ints_pair v, int n)
{
    return (struct ints_pair){_mm256_srli_epi32(v.a, n), _mm256_srli_epi32(v.b, n)};
}

LANES_INLINE void mulhl_half_avx2(__m256i a, __m256i b, __m256i *high, __m256i *low)
{
    __m256i even = _mm256_mul_epu32(a, b);
    __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), b);

    *low = _mm256_mullo_epi32(a, b);
    *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
}

/* High and low halves of the 32 × 32-bit products, unsigned. */
LANES_INLINE void mulhl_avx2(struct ints_pair a, uint32_t by, struct ints_pair *high,
                             struct ints_pair *low)
{
    __m256i b = _mm256_set1_epi32((int32_t)by);

    mulhl_half_avx2(a.a, b, &high->a, &low->a);
    mulhl_half_avx2(a.b, b, &high->b, &low->b);
}

LANES_INLINE struct ints_pair iload_avx2(const void *p)
{
    const __m256i *from = p;

    return (struct ints_pair){_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
}

LANES_INLINE void istore_avx2(void *p, struct ints_pair v)
{
    __m256i *to = p;

    _mm256_storeu_si256(to, v.a);
    _mm256_storeu_si256(to + 1, v.b);
}

LANES_INLINE struct ints_pair iselect_eq_avx2(struct ints_pair x, struct ints_pair y,
                                              struct ints_pair yes, struct ints_pair no)
{
    return (struct ints_pair){_mm256_blendv_epi8(no.a, yes.a, _mm256_cmpeq_epi32(x.a, y.a)),
                              _mm256_blendv_epi8(no.b, yes.b, _mm256_cmpeq_epi32(x.b, y.b))};
}

/* Adds lane i + 8, then + 4, + 2, + 1 to lane i. */
LANES_INLINE float fold_avx2(struct floats_pair v)
{
    __m256 h = _mm256_add_ps(v.a, v.b);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* Of values without NaN. */
LANES_INLINE float fold_max_avx2(struct floats_pair v)
{
    __m256 h = _mm256_max_ps(v.a, v.b);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));

    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}

LANES_INLINE int32_t ifold_max_avx2(struct ints_pair v)
{
    __m256i h = _mm256_max_epi32(v.a, v.b);
    __m128i q = _mm_max_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));

    q = _mm_max_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtsi128_si32(_mm_max_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}

LANES_INLINE int32_t ifold_avx2(struct ints_pair v)
{
    __m256i h = _mm256_add_epi32(v.a, v.b);
    __m128i q = _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));

    q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1)));
}

/* x0 y0 x1 y1 … in p to x in even, y in odd (8 lanes each); and back. */
LANES_INLINE void unzip_half_avx2(struct floats_pair p, __m256 *even, __m256 *odd)
{
    __m256 low = _mm256_permute2f128_ps(p.a, p.b, 0x20);  /* x0 y0 x1 y1 | x4 y4 x5 y5 */
    __m256 high = _mm256_permute2f128_ps(p.a, p.b, 0x31); /* x2 y2 x3 y3 | x6 y6 x7 y7 */

    *even = _mm256_shuffle_ps(low, high, 0x88);
    *odd = _mm256_shuffle_ps(low, high, 0xdd);
}

LANES_INLINE struct floats_pair zip_half_avx2(__m256 even, __m256 odd)
{
    __m256 low = _mm256_unpacklo_ps(even, odd);  /* x0 y0 x1 y1 | x4 y4 x5 y5 */
    __m256 high = _mm256_unpackhi_ps(even, odd); /* x2 y2 x3 y3 | x6 y6 x7 y7 */

    return (struct floats_pair){_mm256_permute2f128_ps(low, high, 0x20),
                                _mm256_permute2f128_ps(low, high, 0x31)};
}

LANES_INLINE void unzip_avx2(struct floats_pair a, struct floats_pair b, struct floats_pair *even,
                             struct floats_pair *odd)
{
    unzip_half_avx2(a, &even->a, &odd->a);
    unzip_half_avx2(b, &even->b, &odd->b);
}

LANES_INLINE void zip_avx2(struct floats_pair even, struct floats_pair odd, struct floats_pair *a,
                           struct floats_pair *b)
{
    *a = zip_half_avx2(even.a, odd.a);
    *b = zip_half_avx2(even.b, odd.b);
}

#undef LANES_INLINE
#endif

#undef V
#undef VF
#undef VI
#undef VM
#undef V_TARGET
#undef V_ISA
#define V(name) name##_avx2
#define VF struct floats_pair
#define VI struct ints_pair
#define VM struct floats_pair
#define V_TARGET KN_TARGET_AVX2
#define V_ISA 256

#include "kernels/lanes_math.h"
