/* blocks_avx2.h: 16 rows, in two halves of 8, times n tokens of a block type with vpmaddubsw. Its
 * 16-bit sums never saturate: 4-bit quants reach 8 * 2 * 15 * 127 = 30,480 over a whole block, and
 * Q8_0 2 * 128 * 127 = 32,512 in one product. `type` and `n` are constants where this is inlined.
 */

#define BLOCKS_INLINE static inline __attribute__((always_inline)) KN_TARGET_AVX2

/* Integer products of 8 rows with n tokens. quants: of the half, 32 bytes in every 64. */
BLOCKS_INLINE void dot4_avx2(int n, const uint8_t *quants, const int8_t *q, int64_t ldq,
                             __m256i *dot)
{
    const __m256i low = _mm256_set1_epi8(15);

    for (int i = 0; i < n; i++) {
        dot[i] = _mm256_setzero_si256();
    }
    for (int g = 0; g < 4; g++) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(quants + 64 * g));
        __m256i w0 = _mm256_and_si256(v, low);
        __m256i w1 = _mm256_and_si256(_mm256_srli_epi16(v, 4), low);
        for (int i = 0; i < n; i++) {
            const int8_t *x = q + i * ldq + 4 * g;
            __m256i p0 = _mm256_maddubs_epi16(w0, _mm256_set1_epi32(load_quad(x)));
            __m256i p1 = _mm256_maddubs_epi16(w1, _mm256_set1_epi32(load_quad(x + 16)));
            dot[i] = _mm256_add_epi16(dot[i], _mm256_add_epi16(p0, p1));
        }
    }
    for (int i = 0; i < n; i++) {
        dot[i] = _mm256_madd_epi16(dot[i], _mm256_set1_epi16(1));
    }
}

/* The same of Q8_0: |w| times x with w's sign. */
BLOCKS_INLINE void dot8_avx2(int n, const uint8_t *quants, const int8_t *q, int64_t ldq,
                             __m256i *dot)
{
    const __m256i flip = _mm256_set1_epi8(INT8_MIN);

    for (int i = 0; i < n; i++) {
        dot[i] = _mm256_setzero_si256();
    }
    for (int g = 0; g < 8; g++) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(const void *)(quants + 64 * g));
        __m256i w = _mm256_xor_si256(v, flip); /* packed plus 128 */
        __m256i size = _mm256_abs_epi8(w);
        for (int i = 0; i < n; i++) {
            __m256i x = _mm256_set1_epi32(load_quad(q + i * ldq + 4 * g));
            __m256i p = _mm256_maddubs_epi16(size, _mm256_sign_epi8(x, w));
            dot[i] = _mm256_add_epi32(dot[i], _mm256_madd_epi16(p, _mm256_set1_epi16(1)));
        }
    }
}

/* Rows 8 * half … + 7. */
BLOCKS_INLINE void blocks_half_avx2(int type, int n, int half, const struct block_tile *t,
                                    struct segment_sums *sums)
{
    int64_t nb = t->n_blocks;
    size_t scale_bytes = type == KN_Q4_1 ? 64 : 32, quant_bytes = type == KN_Q8_0 ? 512 : 256;

    for (int seg = 0; seg < KN_SEGMENTS; seg++) {
        __m256 acc[TILE_TOKENS_MAX];
        for (int i = 0; i < n; i++) {
            acc[i] = _mm256_setzero_ps();
        }
        for (int64_t b = kn_segment(nb, seg); b < kn_segment(nb, seg + 1); b++) {
            const __m128i *scales =
                (const __m128i *)(const void *)(t->scales + (size_t)b * scale_bytes) + half;
            const uint8_t *quants = t->quants + (size_t)b * quant_bytes + 32 * half;
            __m256 d = _mm256_cvtph_ps(_mm_loadu_si128(scales));
            __m256 m = type == KN_Q4_1 ? _mm256_cvtph_ps(_mm_loadu_si128(scales + 2)) : d;
            __m256i dot[TILE_TOKENS_MAX];
            if (type == KN_Q8_0) {
                dot8_avx2(n, quants, t->q + b * KN_BLOCK, nb * KN_BLOCK, dot);
            } else {
                dot4_avx2(n, quants, t->q + b * KN_BLOCK, nb * KN_BLOCK, dot);
            }
            for (int i = 0; i < n; i++) {
                int64_t at = i * nb + b;
                if (type == KN_Q4_0) { /* the quants are 8 above their true values */
                    dot[i] = _mm256_sub_epi32(dot[i], _mm256_set1_epi32(8 * t->s[at]));
                }
                __m256 f = _mm256_cvtepi32_ps(dot[i]);
                __m256 term = _mm256_mul_ps(d, f);
                if (type == KN_Q4_1) {
                    __m256 s = _mm256_set1_ps((float)t->s[at]);
                    term = _mm256_fmadd_ps(d, f, _mm256_mul_ps(m, s));
                }
                acc[i] = _mm256_fmadd_ps(_mm256_set1_ps(t->d[at]), term, acc[i]);
            }
        }
        for (int i = 0; i < n; i++) {
            _mm256_store_ps(sums->v[seg][i] + 8 * half, acc[i]);
        }
    }
}

BLOCKS_INLINE void blocks_tile_avx2(int type, int n, const struct block_tile *t,
                                    struct segment_sums *sums)
{
    blocks_half_avx2(type, n, 0, t, sums);
    blocks_half_avx2(type, n, 1, t, sums);
}

#undef BLOCKS_INLINE
