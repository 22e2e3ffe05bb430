/* blocks_avx512.h: 16 rows times n tokens of a block type with vpdpbusd: a register holds 16 rows ×
 * 4 columns of quants as unsigned bytes, and four activations of a token are broadcast against it.
 * `type` and `n` are constants where this is inlined. */

#define BLOCKS_INLINE static inline __attribute__((always_inline)) KN_TARGET_AVX512

/* The quants of a block as 8 registers: columns 4i … 4i + 3 of the 16 rows. */
BLOCKS_INLINE void load_quants_avx512(int type, const uint8_t *p, __m512i w[8])
{
    const __m512i low = _mm512_set1_epi8(15);

    for (int i = 0; i < (type == KN_Q8_0 ? 8 : 4); i++) {
        __m512i v = _mm512_loadu_si512(p + 64 * i);
        if (type == KN_Q8_0) {
            w[i] = v; /* plus 128, as packed */
        } else {
            w[i] = _mm512_and_si512(v, low);
            w[i + 4] = _mm512_and_si512(_mm512_srli_epi16(v, 4), low);
        }
    }
}

/* Integer product of the block; what the weights are above their true values is taken off first. */
BLOCKS_INLINE __m512i dot_avx512(int type, const __m512i w[8], const int8_t *q, int32_t s)
{
    int32_t above = type == KN_Q8_0 ? 128 : type == KN_Q4_0 ? 8 : 0;
    __m512i sum = _mm512_set1_epi32(-above * s);

    for (int i = 0; i < 8; i++) {
        sum = _mm512_dpbusd_epi32(sum, w[i], _mm512_set1_epi32(load_quad(q + 4 * i)));
    }
    return sum;
}

BLOCKS_INLINE void blocks_tile_avx512(int type, int n, const struct block_tile *t,
                                      struct segment_sums *sums)
{
    int64_t nb = t->n_blocks;
    size_t scale_bytes = type == KN_Q4_1 ? 64 : 32, quant_bytes = type == KN_Q8_0 ? 512 : 256;

    for (int seg = 0; seg < KN_SEGMENTS; seg++) {
        __m512 acc[TILE_TOKENS_MAX];
        for (int i = 0; i < n; i++) {
            acc[i] = _mm512_setzero_ps();
        }
        for (int64_t b = kn_segment(nb, seg); b < kn_segment(nb, seg + 1); b++) {
            const uint8_t *scales = t->scales + (size_t)b * scale_bytes;
            __m512i w[8];
            load_quants_avx512(type, t->quants + (size_t)b * quant_bytes, w);
            __m512 d = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)scales));
            __m512 m = _mm512_setzero_ps();
            if (type == KN_Q4_1) {
                m = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)scales + 1));
            }
            for (int i = 0; i < n; i++) {
                int64_t at = i * nb + b;
                __m512 dot =
                    _mm512_cvtepi32_ps(dot_avx512(type, w, t->q + at * KN_BLOCK, t->s[at]));
                __m512 term = _mm512_mul_ps(d, dot);
                if (type == KN_Q4_1) {
                    __m512 s = _mm512_cvtepi32_ps(_mm512_set1_epi32(t->s[at]));
                    term = _mm512_fmadd_ps(d, dot, _mm512_mul_ps(m, s));
                }
                acc[i] = _mm512_fmadd_ps(_mm512_set1_ps(t->d[at]), term, acc[i]);
            }
        }
        for (int i = 0; i < n; i++) {
            _mm512_store_ps(sums->v[seg][i], acc[i]);
        }
    }
}

#undef BLOCKS_INLINE
